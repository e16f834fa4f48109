"""Images under the names that a stack uses, where no registry answers.

Servers that Debian has are those of ``tools.debian_images``. Everything else is one stand-in: a base of Debian
packages in which every program of a build or a service (``npm``, ``python3``, ``java``, …) is one script. A step of a
build succeeds and writes empty results. A service answers each HTTP request on the ports that the stack names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml

from tests.engine import FoundEngine, PrivateEngine
from tools import debian_images, image_archive
from tools.debian_images import APPLETS, BASE, MADE_BY, PATH
from tools.debian_packages import Cache, Packages
from tools.image_archive import Archive, Entry, file, folder, layer_of, link

#: The recipes of Debian's servers, by the last part of an image's name.
SERVERS: Final = {
    "mariadb": "mariadb",
    "nginx": "nginx",
    "postgres": "postgres",
    "prometheus": "prometheus",
    "redis": "redis",
    "redismod": "redis",
}
SCRIPT: Final = """#!/bin/bash
# Stands for the program of its name.
say() { printf 'HTTP/1.0 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nok\\n'; }
serve() {
  trap 'kill $(jobs -p); exit 0' TERM INT
  for port in $STAND_IN_PORTS; do busybox nc -ll -p "$port" -e /usr/local/bin/answer & done
  wait
}
name="${0##*/}" last="${*: -1}"
case "$name $*" in
  "answer "*) read -r _; say ;;
  "adduser "*)
    echo "$last:x:1000:1000::/home/$last:/bin/sh" >> /etc/passwd
    echo "$last:x:1000:" >> /etc/group
    mkdir -p "/home/$last" ;;
  "curl "*) exec busybox wget -q -O - "${last/localhost/127.0.0.1}" ;;
  "mysqladmin "*) exec healthcheck.sh --connect ;;
  "sqlcmd "*|*healthcheck*) exec busybox wget -q -O - "http://127.0.0.1:${STAND_IN_PORTS%% *}/" ;;
  "go build "*) while [ "$1" != -o ]; do shift; done; mkdir -p "${2%/*}"; cp "$0" "$2" ;;
  "dotnet publish "*) while [ "$1" != -o ]; do shift; done; mkdir -p "$2" ;;
  "jar "*) mkdir -p BOOT-INF/lib BOOT-INF/classes META-INF ;;
  "mvn spring-boot:run") serve ;;
  "mvn "*) mkdir -p target; touch target/app.jar ;;
  "npm run build") mkdir -p build; echo ok > build/index.html ;;
  "apk "*|"apt-get "*|*" install"*|*" global add "*|*" ci"|*" init"|*" fetch"|*" download"|*" venv "*) ;;
  "dotnet restore"|"dotnet build "*) ;;
  *) serve ;;
esac
"""
#: The programs that the script stands for, and the way to start an image without a command.
PROGRAMS: Final = (
    *(
        "adduser",
        "answer",
        "apache2-foreground",
        "apk",
        "apt-get",
        "cargo",
        "curl",
        "dotnet",
        "flask",
        "go",
    ),
    *("gunicorn", "jar", "java", "logstash", "mvn", "mysqladmin", "ng", "node", "npm", "pip"),
    *("pip3", "python", "python3", "serve", "sqlcmd", "yarn"),
)
#: For ``envsubst``.
TEXT: Final = Packages(("gettext-base",), below=BASE)
_FROM: Final = re.compile(
    r"^FROM\s+(?:--\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.MULTILINE | re.IGNORECASE
)


def provide(engine: PrivateEngine | FoundEngine, stack: Path) -> list[str]:
    """Have the engine hold an image for each name that a stack uses; return the names."""
    tree = yaml.safe_load(next(stack.glob("compose.y*ml")).read_text())
    services = tree["services"].values()
    ports = sorted({port for each in services for port in _ports(each)}) or [80]
    found = sorted({each["image"] for each in services if "build" not in each} | {*_bases(stack)})
    for name in found:
        server = SERVERS.get(name.rpartition("/")[2].partition(":")[0])
        archive = _server(server) if server else _stand_in(ports)
        image_archive.load(engine.host, archive)
        repository, _, tag = name.partition(":")
        to = f"repo={quote(repository)}&tag={tag or 'latest'}"
        engine.must("POST", f"/images/{archive.reference}/tag?{to}")
    return found


def _ports(service: dict[str, Any]) -> Iterator[int]:
    for port in (*service.get("ports", ()), *service.get("expose", ())):
        yield int(str(port).partition("/")[0].rpartition(":")[2])


def _bases(stack: Path) -> Iterator[str]:
    """Yield the images that the Dockerfiles of a stack name, also in stages that nobody builds."""
    for path in sorted(stack.rglob("Dockerfile")):
        found = _FROM.findall(path.read_text())
        stages = {stage for _, stage in found}
        yield from (image for image, _ in found if image not in {*stages, "scratch"})


def _script() -> tuple[Entry, ...]:
    return (
        # Where Debian's programs write if nobody tells them; those of Docker Hub have such folders elsewhere.
        folder("var/lib/nginx", 0o1777),
        folder("var/lib/prometheus"),
        link("var/lib/prometheus/metrics2", "/prometheus"),
        folder("opt/mssql-tools"),
        folder("opt/mssql-tools/bin"),
        link("opt/mssql-tools/bin/sqlcmd", "/usr/local/bin/sqlcmd"),
        file("usr/local/bin/stand-in", SCRIPT, 0o755),
        *(link(f"usr/local/bin/{name}", "stand-in") for name in PROGRAMS),
    )


def _server(recipe: str) -> Archive:
    made = debian_images.build(recipe, reference=f"stand-in/{recipe}:1")
    layers = (*made.layers, Cache().layer(TEXT), layer_of(_script()))
    return Archive(made.reference, layers, made.config, MADE_BY)


def _stand_in(ports: list[int]) -> Archive:
    own = layer_of(
        (
            file("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            file("etc/group", "root:x:0:\n"),
            *debian_images.debian_links(),
            folder("tmp", 0o1777),
            folder("home"),
            *(link(f"usr/local/bin/{name}", "/usr/bin/busybox") for name in APPLETS),
            *_script(),
        )
    )
    config = {"Env": [PATH, f"STAND_IN_PORTS={' '.join(map(str, ports))}"], "Cmd": ["serve"]}
    return Archive("stand-in/program:1", (Cache().layer(BASE), own), config, MADE_BY)
