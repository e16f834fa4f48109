"""The demo images, written as archives that `docker load` reads.

A load instead of a build: an archive without times in it has the same image id everywhere
and every time, and it needs no builder (Debian's docker-cli has none but the legacy one).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tools.busybox import find_static_busybox
from tools.dockerd import EngineError
from tools.image_archive import Archive, Layer, file, folder, inspect, layer_of, link, load

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
SECOND_NS = 1_000_000_000
APPLETS = (
    "cat",
    "date",
    "echo",
    "env",
    "hostname",
    "httpd",
    "id",
    "kill",
    "ls",
    "pidof",
    "sh",
    "sleep",
    "usleep",
    "wget",
)

# A PID 1 has no default signal actions: without the trap each stop would cost its whole grace.
# httpd answers each connection in a child: the answers under way are finished before the script
# ends, since the kernel kills all other processes of a container when its PID 1 ends.
SERVE = """#!/bin/sh
finish() {
  kill "$server" 2>/dev/null
  while pidof httpd >/dev/null; do usleep 20000; done
  exit 0
}
trap finish TERM INT
httpd -f -p "${PORT:-8080}" -h /www &
server=$!
echo "web VERSION serves on ${PORT:-8080}"
wait "$server"
"""

INFO = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "version VERSION"
echo "host $(hostname)"
echo "message ${MESSAGE:-none}"
"""

PAGE = """<!doctype html>
<html lang="en">
<title>web VERSION</title>
<h1>Hello from trimtab.local/web:VERSION</h1>
<p>Which replica answered: <a href="/cgi-bin/info">/cgi-bin/info</a></p>
</html>
"""

WORK = """#!/bin/sh
trap 'echo "worker stops"; exit 0' TERM INT
count=0
while true; do
  count=$((count + 1))
  echo "worker did piece $count"
  sleep "${INTERVAL:-5}" &
  wait $!
done
"""


@dataclass(frozen=True, slots=True)
class Image:
    """One image: files by path (content, mode) and the members of its config."""

    reference: str
    files: dict[str, tuple[str, int]]
    config: dict[str, Any] = field(default_factory=dict)


def web(version: str) -> Image:
    def text(template: str) -> str:
        return template.replace("VERSION", version)

    return Image(
        reference=f"trimtab.local/web:{version}",
        files={
            "bin/serve": (text(SERVE), 0o755),
            "www/index.html": (text(PAGE), 0o644),
            "www/healthz": ("ok\n", 0o644),
            "www/cgi-bin/info": (text(INFO), 0o755),
        },
        config={
            "Cmd": ["/bin/serve"],
            "ExposedPorts": {"8080/tcp": {}},
            "Healthcheck": {
                "Test": [
                    "CMD",
                    "/bin/sh",
                    "-c",
                    'wget -q -O /dev/null "http://127.0.0.1:${PORT:-8080}/healthz"',
                ],
                # As by default. A check starts two processes, for each of the containers of all tests.
                "Interval": 30 * SECOND_NS,
                "Timeout": 2 * SECOND_NS,
                "StartPeriod": 10 * SECOND_NS,
                # Healthy within a second of the start, so that a rollout needn't wait.
                "StartInterval": SECOND_NS,
                "Retries": 3,
            },
        },
    )


IMAGES = (
    web("1"),
    web("2"),
    Image(
        reference="trimtab.local/worker:1",
        files={"bin/work": (WORK, 0o755)},
        config={"Cmd": ["/bin/work"]},
    ),
)


def layer(image: Image, busybox: bytes) -> Layer:
    """The file system, in one fixed order."""
    folders = {"bin", "tmp"} | {
        "/".join(parts[:end])
        for parts in (path.split("/") for path in image.files)
        for end in range(1, len(parts))
    }
    entries = [folder(path, 0o1777 if path == "tmp" else 0o755) for path in sorted(folders)]
    entries.append(file("bin/busybox", busybox, 0o755))
    entries += [link(f"bin/{applet}", "busybox") for applet in APPLETS]
    entries += [file(path, content, mode) for path, (content, mode) in sorted(image.files.items())]
    return layer_of(entries)


def archive(image: Image, busybox: bytes) -> Archive:
    """The archive that loads it."""
    content = layer(image, busybox)
    config = {
        "Env": ["PATH=/bin"],
        "User": f"{NOBODY}:{NOBODY}",
        "WorkingDir": "/",
        "Labels": {"io.trimtab.demo": content.digest[:16]},
        **image.config,
    }
    return Archive(image.reference, (content,), config, "trimtab tools/images")


def demo_label(found: dict[str, Any] | None) -> str | None:
    labels = ((found or {}).get("Config") or {}).get("Labels") or {}
    return labels.get("io.trimtab.demo")


def provide(host: str) -> Iterator[tuple[str, str, bool]]:
    """Load what is missing or differs; yields reference, id, and whether it was there."""
    program = find_static_busybox()
    if program is None:
        raise EngineError(
            "the demo images can't be built",
            "no static busybox is installed",
            "as root: apt-get install busybox-static",
        )
    busybox = program.read_bytes()
    for image in IMAGES:
        built = archive(image, busybox)
        found = inspect(host, image.reference)
        if found is not None and found["Id"] == built.id:
            yield image.reference, built.id, True
            continue
        load(host, built)
        found = inspect(host, image.reference)
        # By label: an engine with containerd's image store has ids of its own making.
        if found is None or not demo_label(found):
            raise EngineError(
                f"the engine at {host} didn't load {image.reference}",
                "it took the archive, and has no image of that name",
                "read the engine's log",
            )
        yield image.reference, str(found["Id"]), False
