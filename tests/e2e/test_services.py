"""Broker and controller as services of systemd: it holds their sockets, and is told their states.

A test stands for systemd: it binds the sockets, starts each process with them and with the capabilities of
its unit, and hears what it tells.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.system.sockets import broker_sockets
from tests.e2e.units import BROKER, UNITS
from tests.instance import Host, eventually
from tests.unprivileged import as_user

pytestmark = pytest.mark.needs_root
USER = "trimtab"
#: Starts a command of trimtab with the sockets as systemd hands them. By SIGUSR1 the process imports a
#: module that doesn't exist.
ENTRY = """
import os, signal, sys
count, *argv = sys.argv[1:]
handles = [os.dup(int(each)) for each in count.split(",") if each]
handles = [os.dup2(each, 100 + place) for place, each in enumerate(handles)]
for place, each in enumerate(handles):
    os.dup2(each, 3 + place)
    os.close(each)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(handles)))

def plant(*_):
    try:
        import planted
    except ImportError:
        pass

signal.signal(signal.SIGUSR1, plant)
from controller.cli.main import main
main(argv)
"""
DOCUMENTS = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec:
  image: "trimtab.local/web:1"
  rollout: {minHealthy: 0s}
  mounts:
    - {type: config, source: page, target: /page}
    - {type: secret, source: password, target: /password}
---
apiVersion: trimtab/v1
kind: Config
metadata: {name: page, owner: team}
spec: {data: {index.html: hello}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: password, owner: team}
spec: {generate: {password: {length: 24}}}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: later, owner: team}
spec: {image: "trimtab.local/web:1", schedule: "0 4 1 1 *"}
"""
COMPOSE = """\
name: stack
services:
  api: {image: "trimtab.local/web:1", labels: {a: b}}
"""
SOURCE = """\
apiVersion: trimtab/v1
kind: Source
metadata: {name: remote, owner: team}
spec: {git: {url: "https://127.0.0.1:1/none.git"}, namespaces: [remote]}
"""


@dataclass
class Manager:
    """The service manager of one instance."""

    host: Host
    #: The listening sockets by path.
    held: dict[Path, socket.socket] = field(default_factory=dict)

    def hold(self, *paths: Path, mode: int = 0o600, gid: int = 0) -> None:
        """Bind sockets, as a .socket unit does."""
        for path in paths:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            path.chmod(mode)
            os.chown(path, 0, gid)
            listener.listen(4096)
            self.held[path] = listener

    @contextmanager
    def service(
        self,
        name: str,
        *argv: str,
        paths: tuple[Path, ...],
        around: tuple[str, ...] = (),
        uid: int = 0,
        gid: int = 0,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service during the block. The block begins as the service is ready."""
        handles = [self.held[path].fileno() for path in paths]
        listed = ",".join(map(str, handles))
        whole = [sys.executable, "-c", ENTRY, listed, *argv]
        command = as_user(whole, uid=uid, gid=gid) if uid else whole
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            address = self.host.folder / f"{name}.notify"
            address.unlink(missing_ok=True)
            told.bind(str(address))
            address.chmod(0o666)
            told.settimeout(60)
            environment = self.host.environment(NOTIFY_SOCKET=str(address), HOME="/nonexistent")
            with self.host.log.open("ab") as log:
                process = subprocess.Popen(
                    self.host.engine.inside(*around, *command),
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=handles,
                    cwd=self.host.folder,
                )
            try:
                states: list[str] = []
                while "READY=1" not in states:
                    states += told.recv(4096).decode().splitlines()
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)

    @contextmanager
    def broker(
        self, *options: str, around: tuple[str, ...] = ()
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the broker with its sockets."""
        host, uid = self.host, pwd.getpwnam(USER).pw_uid
        argv = ("broker", str(host.directory), "--policy", host.policy, "--state", str(host.state))
        paths = broker_sockets(host.broker_socket)
        users = ("--controller-uid", str(uid))
        whole = (*argv, *users, *options)
        around = (*around, "setpriv", f"--bounding-set=-all{bounded()}", "--no-new-privs", "--")
        with self.service("broker", *whole, paths=paths, around=around) as process:
            yield process

    @contextmanager
    def controller(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the controller with its socket, as its user."""
        host, user = self.host, pwd.getpwnam(USER)
        path = host.broker_socket.with_name("controller.sock")
        argv = ("run", str(host.directory), "--broker", str(host.broker_socket))
        uid, gid = user.pw_uid, user.pw_gid
        with self.service("controller", *argv, paths=(path,), uid=uid, gid=gid) as process:
            yield process


@pytest.fixture
def manager(host: Host) -> Iterator[Manager]:
    made = Manager(host)
    run = host.broker_socket.parent
    run.mkdir(parents=True)
    made.hold(*broker_sockets(host.broker_socket))
    gid = pwd.getpwnam(USER).pw_gid
    made.hold(run / "controller.sock", mode=0o660, gid=gid)
    try:
        yield made
    finally:
        for listener in made.held.values():
            listener.close()


def bounded() -> str:
    """Return the capabilities of the broker's unit, in the words of setpriv(1)."""
    found = re.search(r"^CapabilityBoundingSet=(.+)$", (UNITS / BROKER).read_text(), re.MULTILINE)
    assert found is not None
    return "".join(f",+{each.removeprefix('CAP_').lower()}" for each in found[1].split())


def asked(path: Path, target: str, body: object = None) -> bytes:
    """Return what the broker answers to a request on a connection of its own."""
    sent = b"" if body is None else json.dumps(body).encode()
    head = f"{'POST' if sent else 'GET'} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
    if sent:
        head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(f"{head}\r\n".encode() + sent)
        found = b""
        while chunk := connection.recv(4096):
            found += chunk
        return found


def test_every_connection_is_answered_while_the_broker_is_replaced(
    manager: Manager, record_property: Callable[[str, object], None]
) -> None:
    ended = threading.Event()
    answers: list[bytes] = []
    waits: list[float] = []

    def answer_more() -> None:
        before = len(answers)
        eventually(lambda: len(answers) > before + 5, what="requests")

    def ask() -> None:
        while not ended.is_set():
            began = time.monotonic()
            answers.append(asked(manager.host.broker_socket, "/_ping")[:15])
            waits.append(time.monotonic() - began)

    with ExitStack() as stack:
        stack.enter_context(manager.broker())
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for _ in range(2):
                answer_more()
                stack.close()
                stack.enter_context(manager.broker())
            answer_more()
        finally:
            ended.set()
            thread.join()
    assert set(answers) == {b"HTTP/1.1 200 OK"}
    record_property("gate", [f"longest wait over two restarts: {max(waits):.2f} s"])


def test_a_command_whose_output_a_restart_cuts_is_no_success(manager: Manager) -> None:
    host = manager.host
    host.write("web.yaml", DOCUMENTS)
    with ExitStack() as stack:
        broker = stack.enter_context(ExitStack())
        broker.enter_context(manager.broker())
        stack.enter_context(manager.controller())
        eventually(lambda: host.is_ready("web"), what="the service runs")
        (container,) = host.running_ids("web")
        gate = ("docker", "--host", f"unix://{host.broker_socket}")
        command = ("exec", container, "/bin/sh", "-c", "echo open; exec sleep 600")
        with subprocess.Popen(
            host.engine.inside(*gate, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"open\n"
            broker.close()
            broker.enter_context(manager.broker())
            assert process.wait(timeout=60) == 1
            assert b"exec.interrupted" in process.stderr.read()


def test_the_broker_is_ready_and_answers_without_an_engine(manager: Manager) -> None:
    with manager.broker("--engine", "unix:///nonexistent/docker.sock"):
        health = asked(manager.host.broker_socket, "/trimtab/v1/health")
        assert health.startswith(b"HTTP/1.1 200 OK")


def test_services_import_nothing_after_they_are_ready(manager: Manager) -> None:
    host = manager.host
    host.write("web.yaml", DOCUMENTS)
    with manager.broker(), manager.controller():
        eventually(lambda: host.is_ready("web"), what="the service runs")
        host.write("compose.yaml", COMPOSE)
        host.write("source.yaml", SOURCE)
        host.write("broken.yaml", "kind: Service\nmetadata: {name: x}\nspec: {imag: 1}\n")
        for command in COMMANDS:
            host.cli(*command, expect=(0, 1, 2, 3, 4, 5))
        host.remove("broken.yaml")
        host.engine.run_inside(
            ["docker", "-H", f"unix://{host.broker_socket}", "ps", "-a"], check=False
        )
        for target in ("/info", "/version", "/images/json", "/events?until=1", "/unknown"):
            asked(host.broker_socket, target)
        host.cli("down", expect=(0, 1, 2, 4, 5))
    assert host.late_imports() == []


def test_an_import_after_a_service_is_ready_is_logged(manager: Manager) -> None:
    host = manager.host

    def is_logged(name: str, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGUSR1)
        eventually(lambda: f"{name} planted" in host.late_imports(), what=f"the log of the {name}")

    with manager.broker() as broker, manager.controller() as controller:
        is_logged("broker", broker)
        is_logged("controller", controller)
    host.log.write_text("")  # else the end of the test finds them too


def protect_home(_folder: Path) -> str:
    """Return the command for the view of a unit with ``ProtectHome=tmpfs``."""
    return "mount -t tmpfs own /home"


def private_tmp(folder: Path) -> str:
    """Return the command for the view of a unit with ``PrivateTmp=yes``: a folder below /tmp is its /tmp.

    The folder of the test stays in the view: it has the state.
    """
    own = folder / "private-tmp"
    own.mkdir()
    if not folder.is_relative_to("/tmp"):
        return f"mount --bind {own} /tmp"
    kept = own / folder.relative_to("/tmp")
    kept.mkdir(parents=True)
    return f"mount --bind {folder} {kept} && mount --rbind {own} /tmp"


@pytest.mark.parametrize(("view", "differs"), [(protect_home, "/home"), (private_tmp, "/tmp")])
def test_mounts_are_refused_if_the_broker_sees_another_tree_than_the_engine(
    manager: Manager, view: Callable[[Path], str], differs: str
) -> None:
    host = manager.host
    mount = {"Type": "bind", "Source": str(host.folder), "Target": "/srv"}
    asks = {"Image": "trimtab.local/web:1", "HostConfig": {"Mounts": [mount]}}
    shell = f'{view(host.folder)} && exec "$@"'
    other = ("unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "own")
    for around, refused in (((), False), (other, True)):
        with manager.broker(around=around):
            operators = host.broker_socket.with_name("broker-operator.sock")
            answer = asked(operators, "/containers/create?name=mounts", asks)
            assert (b"mount.other-view" in answer) == refused, answer
            checks = host.cli("doctor", expect=(0, 1)).stdout
            assert (f"each see another {differs}:" in checks) == refused, checks


#: Commands that reach the routes of the broker and the questions of the controller.
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("describe", "web"),
    ("plan",),
    ("plan", "--json"),
    ("diff",),
    ("snapshot",),
    ("restart", "web", "--timeout", "60s"),
    ("history", "web"),
    ("rollback", "web"),
    ("logs", "web"),
    ("exec", "web", "--", "true"),
    ("stop", "web"),
    ("start", "web"),
    ("suspend", "web"),
    ("resume", "web"),
    ("approve", "--yes"),
    ("policy", "show"),
    ("policy", "reload"),
    ("journal", "list"),
    ("journal", "explain", "web"),
    ("image", "trust", "trimtab.local/web:1"),
    ("adopt", "--instance", "0123456789abcdef"),
    ("volume", "list"),
    ("source", "list"),
    ("doctor",),
)
