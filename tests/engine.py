"""The engine that tests run against: a dockerd of their own, or the one that answers.

A private engine lives in a network namespace of its own, because two in one namespace
rewrite each other's firewall chains. So its published ports and container addresses exist
only in there: `http_get`, `connect` and `run_inside` go in.

Invariant: whatever ends a run, also SIGKILL, the next run clears what it left, and nothing
else: leftovers are known by their folder's name and by a lock that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import create_connection, create_server
from socket import socket as Socket  # noqa: N812 - `socket` is the path, here
from typing import TYPE_CHECKING, Any, Protocol

from tools import demo_images, dockerd, engine_setups
from tools.dockerd import Layout, Reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tools.engine_setups import EngineSetup

# /var/tmp, not $TMPDIR: short enough for socket paths (107 bytes), and on a disk.
BASE = Path("/var/tmp")
PREFIX = "trimtab-test-"
CLONE_NEWNET = 0x40000000
# dockerd, containerd, shims and runc are programs in Go, and a container's life runs nine of them.
# Collecting garbage at five times the live memory instead of twice saves 6 to 10 % of an engine's
# processor time, and no answer of the engine depends on when garbage is collected.
ECONOMY = {"GOGC": "400"}

# Below the ports that the kernel gives to connections: what a program is to listen on later isn't
# taken by a connection meanwhile.
PORTS = range(15000, 32000)


def listen_here(port: int = 0) -> Socket:
    """A listening TCP socket on loopback of this network; 0: on a free port."""
    return create_server(("127.0.0.1", port))


def free_port(listen: Callable[[int], Socket] = listen_here) -> int:
    """A port of the network of *listen* that a program can listen on later."""
    while True:
        with contextlib.suppress(OSError), listen(random.choice(PORTS)) as probe:
            return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer."""

    status: int
    text: str


class Engine(Protocol):
    """What tests may ask of the engine they were given."""

    # True when the tests started it, so that they may stop and kill it.
    private: bool
    # As in DOCKER_HOST.
    host: str
    socket: Path
    # Name of its network namespace; empty when it lives in ours.
    netns: str

    def inside(self, *argv: str) -> list[str]: ...
    def docker(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]: ...
    def run_inside(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]: ...
    def connect(self, port: int, host: str = "127.0.0.1") -> Socket: ...
    def listen(self, port: int = 0) -> Socket: ...
    def http_get(
        self, port: int, host: str = "127.0.0.1", path: str = "/", *, timeout_s: float = 5
    ) -> Page: ...
    def answers(self) -> bool: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...
    def restart(self) -> None: ...


class _Client:
    """What needs only an address: shared by both kinds of engine."""

    host: str
    socket: Path
    netns: str

    def inside(self, *argv: str) -> list[str]:
        """The command line that runs `argv` where the engine's ports are reachable.

        nsenter, not `ip netns exec`: the latter remounts /sys and hides the cgroups.
        """
        return ["nsenter", f"--net=/run/netns/{self.netns}", *argv] if self.netns else [*argv]

    def environment(self) -> dict[str, str]:
        """Ours, with this engine as the one to use."""
        return {**os.environ, "DOCKER_HOST": self.host}

    def docker(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI against this engine, as a meddling person would."""
        return self.run_inside(["docker", *arguments], check=check, stdin=stdin)

    def run_inside(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the engine's network namespace, DOCKER_HOST set."""
        done = subprocess.run(
            self.inside(*argv),
            env={**self.environment(), **(env or {})},
            # Never the terminal: a command that asks would wait for a person.
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done

    def connect(self, port: int, host: str = "127.0.0.1") -> Socket:
        """A TCP connection made inside the engine's network namespace. Raises OSError.

        A thread enters the namespace and ends there: setns holds for one thread, and a
        socket stays in the namespace where it was made.
        """
        return self._make_inside(lambda: create_connection((host, port), timeout=5))

    def listen(self, port: int = 0) -> Socket:
        """A listening TCP socket on loopback, made inside the engine's network; 0: on a free port."""
        return self._make_inside(lambda: create_server(("127.0.0.1", port)))

    def _make_inside(self, make: Callable[[], Socket]) -> Socket:
        made: list[Socket] = []
        failed: list[OSError] = []

        def enter_and_make() -> None:
            try:
                if self.netns:
                    _enter_network(self.netns)
                made.append(make())
            except OSError as problem:
                failed.append(problem)

        thread = threading.Thread(target=enter_and_make)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def http_get(
        self, port: int, host: str = "127.0.0.1", path: str = "/", *, timeout_s: float = 5
    ) -> Page:
        """One GET, inside the engine's network namespace. Raises OSError, HTTPException."""
        with contextlib.closing(http.client.HTTPConnection(host, port)) as connection:
            connection.sock = self.connect(port, host)
            connection.sock.settimeout(timeout_s)
            connection.request("GET", path)
            response = connection.getresponse()
            return Page(response.status, response.read().decode(errors="replace"))

    def answers(self) -> bool:
        return dockerd.reach(self.host, 2) is Reach.ANSWERS

    def must(self, method: str, path: str) -> Any:
        """Make a request that must be served; return its JSON, None without any.

        It costs a tenth of a command's processor time. Raises LookupError for what isn't there.
        """
        status, body = dockerd.call(self.host, method, path, timeout_s=60)
        if status == http.HTTPStatus.NOT_FOUND:
            raise LookupError(f"{method} {path}: {body.decode(errors='replace')}")
        assert status < 400, f"{method} {path}: {status} {body.decode(errors='replace')}"
        return json.loads(body) if body else None

    def containers(self) -> list[dict[str, Any]]:
        """GET /containers/json, stopped ones too."""
        return list(self.must("GET", "/containers/json?all=1"))

    def inspect(self, container: str) -> dict[str, Any]:
        """As ``docker inspect``."""
        return dict(self.must("GET", f"/containers/{container}/json"))

    def remove(self, container: str) -> None:
        """As ``docker rm --force``, with its anonymous volumes."""
        self.must("DELETE", f"/containers/{container}?force=1&v=1")

    def clear(self, path: str) -> None:
        """DELETE an object until it is gone: an engine that still works at it or its users refuses.

        What was never there is gone. Raises AssertionError, with the engine's last reason.
        """
        said = ""

        def is_gone() -> bool:
            nonlocal said
            status, body = dockerd.call(self.host, "DELETE", path, timeout_s=60)
            said = f"{status} {body.decode(errors='replace')}"
            return status < 400 or status == http.HTTPStatus.NOT_FOUND

        assert dockerd.wait_until(is_gone, 30), f"{path} stays on the engine: {said}"


def _enter_network(name: str) -> None:
    """Move the calling thread (os.setns needs Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open("rb") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns to {name}: {os.strerror(number)}")


class FoundEngine(_Client):
    """An engine that somebody else runs: tests touch what is theirs, and never stop it."""

    private = False
    netns = ""

    def __init__(self, host: str) -> None:
        self.host = host
        self.socket = Path(host.removeprefix("unix://"))
        for _ in demo_images.provide(host):
            pass

    def kill(self) -> None:
        raise AssertionError("mark this test `owns_engine`: it would stop somebody's engine")

    stop = start = restart = kill

    def close(self) -> None:
        """Nothing: it was here before us."""


class PrivateEngine(_Client):
    """A dockerd of the tests' own. `close` removes every trace of it."""

    private = True

    def __init__(self, *options: str, setup: EngineSetup | None = None) -> None:
        self.setup = setup or engine_setups.chosen()
        # Hex, as containerd refuses names with other characters at their ends.
        self._folder = BASE / f"{PREFIX}{os.urandom(4).hex()}"
        with turn():
            # Traversable: a test can show an unprivileged user the socket and be refused.
            self._folder.mkdir(mode=0o711)
            self._lock = (self._folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.netns = self._folder.name
        self.layout = _layout(self._folder)
        self.socket = self.layout.socket
        self.host = self.layout.host
        self.log = self.layout.log
        self.options = options  # more of dockerd's; a change counts from the next start on
        self._process: subprocess.Popen[bytes] | None = None
        try:
            _run("ip", "netns", "add", self.netns)
            _run("ip", "-n", self.netns, "link", "set", "lo", "up")
            self.start()
            for _ in demo_images.provide(self.host):
                pass
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The running dockerd's."""
        assert self._process is not None, "the engine is down"
        return self._process.pid

    def start(self) -> None:
        """Start dockerd on the same data; returns when it answers."""
        assert self._process is None, "the engine runs already"
        # dockerd waits 15 s for containerd, and a busy machine can need longer.
        for is_last in (False, True):
            dockerd.clear_stale(self.layout)
            self._process = process = self._spawn()
            try:
                dockerd.wait_ready(self.layout, process)
            except dockerd.EngineError:
                if is_last or process.poll() is None:
                    raise
            else:
                return

    def _spawn(self) -> subprocess.Popen[bytes]:
        return dockerd.spawn(
            self.layout,
            f"--cgroup-parent=/{self.netns}",
            # With systemd's driver the cgroup parent would have to be a slice.
            "--exec-opt=native.cgroupdriver=cgroupfs",
            *self.setup.options(self._folder),
            *self.options,
            prefix=self.inside(),
            env={name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
            | {"PATH": self.setup.path(), **ECONOMY},
        )

    def kill(self) -> None:
        """SIGKILL, as a crash or the OOM killer would; containers live on until `start`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly stop, as a package upgrade does: containers are stopped, too."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def _end(self, number: int) -> None:
        assert self._process is not None, "the engine is down already"
        process, self._process = self._process, None
        process.send_signal(number)
        process.wait(timeout=60)

    def close(self) -> None:
        """Containers first: an orderly stop waits for each PID 1 that ignores SIGTERM."""
        if self._process is not None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                for container in self.containers():
                    path = f"/containers/{container['Id']}?force=1&v=1"
                    dockerd.call(self.host, "DELETE", path)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._end(signal.SIGTERM)
        _clear(self._folder)
        # Without the turn, another run makes a new lock in the folder whose lock is gone already, holds
        # it, and takes the folder for a leftover.
        with turn():
            shutil.rmtree(self._folder)
        self._lock.close()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """A new folder must not be taken for a leftover before its lock is held."""
    with Path("/run/lock/trimtab-test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _layout(folder: Path) -> Layout:
    return Layout(
        socket=folder / "docker.sock",
        data_root=folder / "data",
        exec_root=folder / "exec",
        pidfile=folder / "docker.pid",
        log=folder / "dockerd.log",
        namespace=folder.name,
    )


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"


def _clear(folder: Path) -> None:
    """End and remove a private engine but for its folder; works whatever of it is still there."""
    layout, name = _layout(folder), folder.name
    if (pid := dockerd.running_pid(layout)) is not None:
        dockerd.end(pid, grace_s=0)
    for helper in dockerd.helpers(layout):
        dockerd.end(helper, grace_s=0)
    cgroups = [path for root in _cgroup_roots() if (path := root / name).is_dir()]
    # Version 1 has the freezer in a hierarchy of its own: thaw everywhere, then kill.
    for cgroup in cgroups:
        _thaw(cgroup)
    for cgroup in cgroups:
        _kill_cgroup(cgroup)
    _kill_network(name)
    dockerd.unmount_below(folder)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    for cgroup in cgroups:
        for below in sorted(cgroup.rglob("*/"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                below.rmdir()
        # A killed process leaves its cgroup a moment after it is gone.
        dockerd.wait_until(partial(_rmdir, cgroup), 5)


def _rmdir(folder: Path) -> bool:
    """Whether it is gone now."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def _cgroup_roots() -> list[Path]:
    """The unified hierarchy, or each controller's of version 1."""
    root = Path("/sys/fs/cgroup")
    return [root, *(path for path in root.iterdir() if path.is_dir())]


def _thaw(cgroup: Path) -> None:
    """Frozen processes (a paused container's) die only once thawed."""
    for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        for freezer in cgroup.rglob(name):
            with contextlib.suppress(OSError):
                freezer.write_text(word)


def _kill_cgroup(cgroup: Path) -> None:
    """What a dead engine's containers still run."""
    for procs in cgroup.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            for line in procs.read_text().split():
                dockerd.end(int(line), grace_s=0)


def _kill_network(name: str) -> None:
    """docker-proxy, and what a test ran in there."""
    with contextlib.suppress(FileNotFoundError):
        inode = Path(f"/run/netns/{name}").stat().st_ino
        for pid in list(dockerd.all_pids()):
            if pid != os.getpid() and dockerd.network_namespace(pid) == inode:
                dockerd.end(pid, grace_s=0)


def clear_leftovers() -> None:
    """Remove private engines of runs that were killed: nobody holds their lock."""
    with turn():
        for folder in BASE.glob(f"{PREFIX}*"):
            (folder / "lock").touch()
            with (folder / "lock").open("r+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                _clear(folder)
                # A checkout from before engines took the turn may remove its folder itself.
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(folder)


def open_engine() -> PrivateEngine | FoundEngine:
    """As root a private one, always; else the one that answers. Raises EngineError."""
    if os.geteuid() == 0:
        clear_leftovers()
        return PrivateEngine()
    host = os.environ.get("DOCKER_HOST") or f"unix://{dockerd.STANDARD_SOCKET}"
    if (found := dockerd.reach(host)) is not Reach.ANSWERS:
        raise dockerd.EngineError(
            f"no engine for the tests answers at {host}",
            found.value,
            "run as root (the tests then start their own), or start one and set DOCKER_HOST",
        )
    dockerd.version(host)
    return FoundEngine(host)
