"""Talk to an engine, run one, and clear up after one that died; standard library only.

Shared by tools/engine, tools/images and the tests' own engine. It must work before the
virtual environment exists, and never ends a process that isn't the engine it was given:
pids are checked against what runs under them, since a stale pid file may name anybody.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

STANDARD_SOCKET = Path("/var/run/docker.sock")
# Where a containerd of the machine's own listens. dockerd uses it if the file merely exists.
SYSTEM_CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")
# The first with a second endpoint in the create call.
OLDEST_API = (1, 44)
POLL_S = 0.02


class EngineError(Exception):
    """Says what failed, why, and what a person can do; `str()` is those three lines."""

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}\nwhy: {why}\nremedy: {remedy}")


class Reach(enum.Enum):
    """How an address answered, since each calls for something else."""

    ANSWERS = "answers"
    ABSENT = "nothing is there"
    STALE = "a socket without a listener"
    DENIED = "this user may not open it"
    SILENT = "something listens but doesn't answer as an engine"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connect(host: str, timeout_s: float = 30) -> http.client.HTTPConnection:
    """Open nothing yet; `host` is written as in DOCKER_HOST. Raises EngineError on a bad one."""
    url = urllib.parse.urlsplit(host)
    if url.scheme == "unix" and url.path:
        return _UnixConnection(url.path, timeout_s)
    if url.scheme in {"tcp", "http"} and url.hostname:
        if not os.environ.get("DOCKER_TLS_VERIFY"):
            return http.client.HTTPConnection(url.hostname, url.port or 2375, timeout=timeout_s)
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return http.client.HTTPSConnection(
            url.hostname, url.port or 2376, timeout=timeout_s, context=context
        )
    raise EngineError(
        f"the engine address {host!r} can't be used",
        "only unix:///PATH and tcp://HOST:PORT are understood here",
        "set DOCKER_HOST to one of those, or unset it for the standard socket",
    )


def call(
    host: str,
    method: str,
    path: str,
    *,
    body: bytes | Iterable[bytes] | None = None,
    content_type: str = "application/json",
    timeout_s: float = 30,
) -> tuple[int, bytes]:
    """Make one request; answers status and body. Raises OSError or HTTPException."""
    connection = connect(host, timeout_s)
    try:
        headers = {"Content-Type": content_type} if body is not None else {}
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def reach(host: str, timeout_s: float = 5) -> Reach:
    """Ask for /_ping: that a socket file exists says nothing about an engine."""
    try:
        status, _ = call(host, "GET", "/_ping", timeout_s=timeout_s)
    except FileNotFoundError:
        return Reach.ABSENT
    except ConnectionRefusedError:
        path = Path(urllib.parse.urlsplit(host).path)
        is_socket = host.startswith("unix://") and path.is_socket()
        return Reach.STALE if is_socket else Reach.ABSENT
    except PermissionError:
        return Reach.DENIED
    except (OSError, http.client.HTTPException):
        return Reach.SILENT
    return Reach.ANSWERS if status == http.HTTPStatus.OK else Reach.SILENT


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """What GET /version said."""

    engine: str
    api: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.engine}, API {self.api[0]}.{self.api[1]}"


def version(host: str) -> EngineVersion:
    """Read the version of an engine that answers; refuse one older than OLDEST_API."""
    _, body = call(host, "GET", "/version")
    said: dict[str, Any] = json.loads(body)
    major, minor = (int(part) for part in str(said["ApiVersion"]).split("."))
    found = EngineVersion(engine=str(said["Version"]), api=(major, minor))
    if found.api < OLDEST_API:
        raise EngineError(
            f"the engine at {host} is too old: {found}",
            f"API {OLDEST_API[0]}.{OLDEST_API[1]} or newer is needed (Docker 25 or newer)",
            "upgrade it, or point DOCKER_HOST at a newer engine",
        )
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds; answers whether it did before the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one dockerd keeps its things. All but the log and data may go when it is down."""

    socket: Path
    data_root: Path
    exec_root: Path
    pidfile: Path
    log: Path
    # containerd's namespace: a containerd of the machine's own may serve others, too.
    namespace: str

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def argv(self, *extra: str) -> list[str]:
        return [
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self.data_root}",
            f"--exec-root={self.exec_root}",
            f"--pidfile={self.pidfile}",
            f"--containerd-namespace={self.namespace}",
            f"--containerd-plugins-namespace={self.namespace}-plugins",
            *extra,
        ]


def spawn(
    layout: Layout, *extra: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a dockerd in a session of its own, so that no Ctrl-C or hang-up reaches it."""
    for folder in (layout.data_root, layout.exec_root, layout.pidfile.parent, layout.log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with layout.log.open("ab") as log:
        return subprocess.Popen(
            [*prefix, *layout.argv(*extra)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )


def wait_ready(layout: Layout, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    """Return once /_ping answers; raise EngineError with the log's end if it never does."""
    ready = wait_until(
        lambda: process.poll() is not None or reach(layout.host, 2) is Reach.ANSWERS, timeout_s
    )
    if ready and process.poll() is None:
        return
    why = f"it didn't answer in {timeout_s:.0f} s" if process.poll() is None else "it ended"
    raise EngineError(
        "the engine didn't start",
        f"{why}; {tail(layout.log)}",
        f"read {layout.log}, then try again",
    )


def tail(log: Path, lines: int = 5) -> str:
    """The end of a log, for an error text."""
    try:
        return "its log ends:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as problem:
        return f"its log can't be read ({problem})"


# Processes


def command_line(pid: int) -> list[str]:
    """The arguments of a process, empty if it is gone or a kernel thread."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def running_pid(layout: Layout) -> int | None:
    """The pid of this layout's dockerd; None when dead, also if the pid is another's now."""
    try:
        pid = int(layout.pidfile.read_text())
    except (OSError, ValueError):
        return None
    return pid if f"--pidfile={layout.pidfile}" in command_line(pid) else None


def helpers(layout: Layout) -> list[int]:
    """containerd and the shims of this layout, which outlive a killed dockerd."""
    return [
        pid
        for pid in all_pids()
        if any(part.startswith(f"{layout.exec_root}/") for part in command_line(pid)[1:])
    ]


def network_namespace(pid: int | str) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """A zombie counts as dead: it holds nothing any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def end(pid: int, *, grace_s: float) -> None:
    """SIGTERM, then SIGKILL after the grace; returns when the process is gone."""
    if grace_s > 0:
        send(pid, signal.SIGTERM)
        if wait_until(lambda: not is_alive(pid), grace_s):
            return
    send(pid, signal.SIGKILL)
    if not wait_until(lambda: not is_alive(pid), 10):
        raise EngineError(
            f"process {pid} doesn't end", "it ignores SIGKILL (stuck in the kernel)", "reboot"
        )


# What a dead engine leaves


def mounts_below(*folders: Path) -> list[str]:
    """Mount points in or at the folders, innermost and newest first."""
    inside = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if any(Path(point).is_relative_to(folder) for folder in folders):
            inside.append(point)
    return inside[::-1]


def unmount_below(*folders: Path) -> None:
    """Free the folders: a bind of a dead engine's makes removing them fail with EBUSY."""
    for point in mounts_below(*folders):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def clear_stale(layout: Layout) -> None:
    """Remove what a dead dockerd left that would keep the next one from starting.

    Call it only while this layout's dockerd is down. Shims that still run are left alone
    with their mounts: the next dockerd finds them again and ends them in order.
    """
    assert running_pid(layout) is None, "a running engine's files must not be cleared"
    layout.pidfile.unlink(missing_ok=True)
    # A recycled pid in here makes dockerd wait for a containerd that never comes.
    (layout.exec_root / "containerd/containerd.pid").unlink(missing_ok=True)
    for path in (layout.socket, SYSTEM_CONTAINERD_SOCKET):
        if is_stale_socket(path):
            path.unlink(missing_ok=True)
    if not helpers(layout):
        unmount_below(layout.exec_root, layout.data_root)
        shutil.rmtree(layout.exec_root, ignore_errors=True)


def is_stale_socket(path: Path) -> bool:
    """A socket file that nobody listens on."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
