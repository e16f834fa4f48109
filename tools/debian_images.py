"""Images like the official ones, of Debian packages: no registry and no `docker build`.

Layout, users, volumes, ports, stop signals and the way to start are those of the images that
people pull: merged /usr, `/var/run` as a link, an entrypoint that starts as root, gives the data
folder to the service's user and goes on as that user. Packages are fetched when an image is
asked for, never before.

`layout` makes images without packages: busybox in the folders of Debian or of Alpine, a
second's work, for tests of what links inside an image do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tools import image_entrypoints as entrypoints
from tools.busybox import find_static_busybox
from tools.debian_packages import Cache, Packages
from tools.dockerd import EngineError
from tools.image_archive import Archive, Entry, Layer, file, folder, inspect, layer_of, link, load

MADE_BY = "trimtab tools/debian-images"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The user that official images make for their service.
SERVICE_USER = 999
NOBODY = 65534

BASE = Packages(
    (
        "base-files",
        "bash",
        "busybox-static",
        "coreutils",
        "dash",
        "findutils",
        "gosu",
        "grep",
        "libc-bin",
        "sed",
        "util-linux",
    ),
    without="libblkid1|libmount1|libsmartcols1|libuuid1|libudev1|libcrypt1|liblastlog2.*"
    "|libsqlite3-0|libbz2.*|libsystemd0",
)
#: Commands that Debian has in packages of their own.
APPLETS = ("awk", "hostname", "nc", "ps", "vi", "wget", "which")


@dataclass(frozen=True, slots=True)
class User:
    """A line of the image's /etc/passwd."""

    name: str
    uid: int = SERVICE_USER
    home: str = "/"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes one image: its packages, its own files, and the members of its config."""

    reference: str  # as it is called if nobody says otherwise
    packages: Packages
    user: User  # the service's
    files: tuple[Entry, ...]
    config: dict[str, Any] = field(default_factory=dict)


def _postgres() -> Recipe:
    data = "/var/lib/postgresql/data"
    return Recipe(
        "docker.io/library/postgres:17",
        Packages(
            ("postgresql-17", "tzdata"),
            without="lib.*-perl|libllvm.*|libz3-4|postgresql-(common.*|client-common)"
            "|libproc2-0|readline-common",
            below=BASE,
        ),
        User("postgres", home="/var/lib/postgresql"),
        (
            file("usr/local/bin/docker-entrypoint.sh", entrypoints.POSTGRES, 0o755),
            link("usr/local/bin/pg_ctl", "/usr/lib/postgresql/17/bin/pg_ctl"),
            folder("docker-entrypoint-initdb.d"),
            folder("var/lib/postgresql", 0o755, SERVICE_USER),
            folder("var/lib/postgresql/data", 0o1777, SERVICE_USER),
            folder("run/postgresql", 0o3777, SERVICE_USER),
        ),
        {
            "Env": [
                PATH.replace("/usr/sbin", "/usr/lib/postgresql/17/bin:/usr/sbin", 1),
                "PG_MAJOR=17",
                f"PGDATA={data}",
                "LANG=C.UTF-8",
            ],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "ExposedPorts": {"5432/tcp": {}},
            "Volumes": {data: {}},
            "StopSignal": "SIGINT",
        },
    )


def _redis() -> Recipe:
    return Recipe(
        "docker.io/library/redis:8",
        Packages(("redis-server",), below=BASE),
        User("redis", home="/data"),
        (
            file("usr/local/bin/docker-entrypoint.sh", entrypoints.REDIS, 0o755),
            folder("data", 0o755, SERVICE_USER),
        ),
        {
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["redis-server"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
    )


NGINX = Packages(
    ("nginx",),
    without="iproute2|libbpf1|libcap2-bin|libelf1t64|libmnl0|libtirpc.*|libxtables12",
    below=BASE,
)


def _nginx() -> Recipe:
    return Recipe(
        "docker.io/library/nginx:1.26",
        NGINX,
        User("nginx", 101),
        (
            *_nginx_files(entrypoints.NGINX_CONF, port=80),
            folder("var/cache/nginx"),
        ),
        {**_NGINX_CONFIG, "ExposedPorts": {"80/tcp": {}}},
    )


def _nginx_unprivileged() -> Recipe:
    return Recipe(
        "docker.io/nginxinc/nginx-unprivileged:1.26",
        NGINX,
        User("nginx", 101),
        _nginx_files(entrypoints.NGINX_CONF_UNPRIVILEGED, port=8080),
        {**_NGINX_CONFIG, "ExposedPorts": {"8080/tcp": {}}, "User": "101"},
    )


_NGINX_CONFIG = {
    "Entrypoint": ["/docker-entrypoint.sh"],
    "Cmd": ["nginx", "-g", "daemon off;"],
    "StopSignal": "SIGQUIT",
}


def _nginx_files(conf: str, *, port: int) -> tuple[Entry, ...]:
    return (
        file("docker-entrypoint.sh", entrypoints.NGINX, 0o755),
        folder("docker-entrypoint.d"),
        file("etc/nginx/nginx.conf", conf),
        folder("etc/nginx/conf.d"),
        file("etc/nginx/conf.d/default.conf", entrypoints.NGINX_DEFAULT.replace("80", str(port))),
        folder("usr/share/nginx"),
        folder("usr/share/nginx/html"),
        file("usr/share/nginx/html/index.html", "<h1>Welcome to nginx!</h1>\n"),
        folder("var/log/nginx"),
        link("var/log/nginx/access.log", "/dev/stdout"),
        link("var/log/nginx/error.log", "/dev/stderr"),
    )


def _mariadb() -> Recipe:
    return Recipe(
        "docker.io/library/mariadb:11.8",
        Packages(
            ("mariadb-server-core", "mariadb-client-core"),
            without="mariadb-common|mysql-common",
            below=BASE,
        ),
        User("mysql", home="/var/lib/mysql"),
        (
            file("usr/local/bin/docker-entrypoint.sh", entrypoints.MARIADB, 0o755),
            file("usr/local/bin/healthcheck.sh", entrypoints.MARIADB_HEALTHCHECK, 0o755),
            folder("docker-entrypoint-initdb.d"),
            folder("etc/mysql"),
            file("etc/mysql/my.cnf", entrypoints.MARIADB_CONF),
            folder("var/lib/mysql", 0o755, SERVICE_USER),
            folder("run/mysqld", 0o1777, SERVICE_USER),
        ),
        {
            "Env": [PATH, "LANG=C.UTF-8"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["mariadbd"],
            "ExposedPorts": {"3306/tcp": {}},
            "Volumes": {"/var/lib/mysql": {}},
        },
    )


def _rabbitmq() -> Recipe:
    home = "/var/lib/rabbitmq"
    return Recipe(
        "docker.io/library/rabbitmq:4",
        Packages(
            ("rabbitmq-server",),
            without="(lib)?python3.*|socat|readline-common|libproc2-0|libwrap0|libsqlite3-0"
            "|libreadline.*",
            below=BASE,
        ),
        User("rabbitmq", home=home),
        (
            file("usr/local/bin/docker-entrypoint.sh", entrypoints.RABBITMQ, 0o755),
            folder("etc/rabbitmq", 0o1777, SERVICE_USER),
            folder("var/lib/rabbitmq", 0o1777, SERVICE_USER),
            folder("var/log/rabbitmq", 0o1777, SERVICE_USER),
        ),
        {
            "Env": [
                PATH.replace("/usr/sbin", "/usr/lib/rabbitmq/bin:/usr/sbin", 1),
                "LANG=C.UTF-8",
                f"HOME={home}",
                f"RABBITMQ_DATA_DIR={home}",
                f"RABBITMQ_MNESIA_BASE={home}/mnesia",
                "RABBITMQ_LOGS=-",
            ],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["rabbitmq-server"],
            "ExposedPorts": {f"{port}/tcp": {} for port in (4369, 5671, 5672, 15691, 15692, 25672)},
            "Volumes": {home: {}},
        },
    )


def _prometheus() -> Recipe:
    return Recipe(
        "docker.io/prom/prometheus:v2.53.3",
        Packages(("prometheus",), "promtool|libjs-.*|javascript-common|fonts-.*", below=BASE),
        User("nobody", NOBODY),
        (
            link("bin/prometheus", "/usr/bin/prometheus"),
            file("etc/prometheus/prometheus.yml", entrypoints.PROMETHEUS_CONF),
            folder("prometheus", 0o755, NOBODY),
        ),
        {
            "User": "nobody",
            "Entrypoint": ["/bin/prometheus"],
            "Cmd": [
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
            ],
            "ExposedPorts": {"9090/tcp": {}},
            "Volumes": {"/prometheus": {}},
            "WorkingDir": "/prometheus",
        },
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "mariadb": _mariadb,
    "nginx": _nginx,
    "nginx-unprivileged": _nginx_unprivileged,
    "postgres": _postgres,
    "prometheus": _prometheus,
    "rabbitmq": _rabbitmq,
    "redis": _redis,
}


def build(name: str, *, reference: str = "", cache: Cache | None = None) -> Archive:
    """Return the archive of one image of `RECIPES`, called *reference* if that is given.

    Raises:
        EngineError: its packages can't be fetched or unpacked.
    """
    recipe = RECIPES[name]()
    cache = cache or Cache()
    layers = (cache.layer(BASE), cache.layer(recipe.packages), _own_layer(recipe))
    config = {"Env": [PATH], **recipe.config}
    return Archive(reference or recipe.reference, layers, config, MADE_BY)


def _own_layer(recipe: Recipe) -> Layer:
    users = {user.name: user for user in (User("root", 0), User("nobody", NOBODY), recipe.user)}
    passwd = "".join(f"{u.name}:x:{u.uid}:{u.uid}::{u.home}:/bin/sh\n" for u in users.values())
    group = "".join(f"{user.name}:x:{user.uid}:\n" for user in users.values())
    return layer_of(
        (
            file("etc/passwd", passwd),
            file("etc/group", group),
            *debian_links(),
            folder("tmp", 0o1777),
            *(link(f"usr/local/bin/{name}", "/usr/bin/busybox") for name in APPLETS),
            *recipe.files,
        )
    )


def debian_links() -> tuple[Entry, ...]:
    """The links in Debian's images that lie above mount targets, beside those of merged /usr."""
    return (
        folder("run"),
        folder("run/lock", 0o1777),
        folder("var"),
        link("var/run", "/run"),
        link("var/lock", "/run/lock"),
        link("etc/mtab", "/proc/mounts"),
    )


def provide(host: str, name: str, *, reference: str = "", cache: Cache | None = None) -> str:
    """Have an engine hold one image of `RECIPES`; return its reference.

    Raises:
        EngineError: it can't be built, or the engine refused it.
    """
    return ensure(host, build(name, reference=reference, cache=cache))


def ensure(host: str, archive: Archive) -> str:
    """Load an image unless the engine has it under this name; return its reference."""
    found = inspect(host, archive.reference)
    if found is None or found["Id"] != archive.id:
        load(host, archive)
    return archive.reference


# Layouts


def layout(
    style: str, reference: str, *files: Entry, config: dict[str, Any] | None = None
) -> Archive:
    """Return an image of busybox in the folders of `debian` or `alpine`, with more *files*.

    A later entry of a path replaces an earlier one: a link can stand where the layout has a
    folder. It sleeps until it is stopped.
    """
    program = find_static_busybox()
    if program is None:
        raise EngineError(
            "images can't be built",
            "no static busybox is installed",
            "as root: apt-get install busybox-static",
        )
    home = "usr/bin" if style == "debian" else "bin"
    entries = [
        *_skeleton(style),
        file(f"{home}/busybox", program.read_bytes(), 0o755),
        *(link(f"{home}/{applet}", "busybox") for applet in LAYOUT_APPLETS),
        *files,
    ]
    last = {each.path: each for each in entries}
    command = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 1000 & wait $!; done"]
    return Archive(
        reference,
        (layer_of(last.values()),),
        {"Env": [PATH], "Cmd": command, **(config or {})},
        MADE_BY,
    )


LAYOUT_APPLETS = (
    "cat",
    "chown",
    "echo",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sh",
    "sleep",
    "touch",
)


def _skeleton(style: str) -> tuple[Entry, ...]:
    users = (file("etc/passwd", "root:x:0:0::/:/bin/sh\n"), file("etc/group", "root:x:0:\n"))
    common = (folder("etc"), folder("tmp", 0o1777), *users)
    match style:
        case "debian":
            merged = [
                each
                for name in ("bin", "sbin")
                for each in (folder(f"usr/{name}"), link(name, f"usr/{name}"))
            ]
            return (*common, folder("usr"), *merged, *debian_links())
        case "alpine":
            own = (
                folder("bin"),
                folder("sbin"),
                folder("usr"),
                folder("usr/bin"),
                folder("usr/sbin"),
            )
            var = (
                folder("run"),
                folder("run/lock"),
                folder("var"),
                link("var/run", "../run"),
                link("var/lock", "../run/lock"),
            )
            return (*common, *own, *var)
        case _:
            raise ValueError(f"no layout is called {style}")
