"""Where the table's rows are run: a broker before a real engine, a registry, and who calls."""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from controller.app.state_folder import trimtab_gid
from tests.compat.clients.install import Clients, installed
from tests.compat.row import How, Row
from tests.gate.roles import ALICE, CONTROLLER
from tests.instance import eventually
from tests.registry import Registry
from tools import demo_images, dockerd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.engine import FoundEngine, PrivateEngine

PROJECT = Path(__file__).parents[2]
DEVELOPMENT = PROJECT / "configs" / "policies" / "development.yaml"
HOME = PROJECT / "configs" / "policies" / "home.yaml"
PROJECTS = Path(__file__).with_name("projects")
PLAYBOOKS = Path(__file__).with_name("clients") / "playbooks"
IMAGE, SERVED = "trimtab.local/worker:1", "trimtab.local/web:1"
#: Served inside the engine's network namespace, where nobody else listens.
REGISTRY = "127.0.0.1:5000"
REMOTE = f"{REGISTRY}/team/app:1"
#: A bound of what hangs: ansible alone takes half a minute on a busy machine.
PATIENCE_S = 120.0
#: The tests may lie under a folder that only root may enter.
READS_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
SHOP = """\
services:
  db:
    image: trimtab.local/worker:1
    environment: {INTERVAL: "1"}
    volumes: [data:/data]
    networks: [back]
    healthcheck: {test: [CMD, ls, /data], interval: 1s, timeout: 2s, retries: 3}
    stop_grace_period: 2s
  api:
    image: trimtab.local/web:1
    environment: {MESSAGE: hello}
    depends_on: {db: {condition: service_healthy}}
    networks: [back, front]
  proxy:
    environment: [MAYBE]
    volumes: [/var/cache]
    image: trimtab.local/web:2
    depends_on: [api]
    networks: [front]
    ports: ["127.0.0.1:18080:8080"]
    mem_limit: 64m
networks: {front: {}, back: {}}
volumes: {data: {}}
"""


class Broker:
    """A broker of its own process: its memory can be looked at."""

    def __init__(self, folder: Path, *, engine: str, policy: Mapping[str, Any]) -> None:
        (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
        (folder / "desired-state").mkdir()
        self.socket = folder / "state" / "run" / "broker.sock"
        self.log = folder / "broker.log"
        argv = [sys.executable, "-m", "controller", "broker", "--engine", engine]
        argv += ["--policy", str(folder / "policy.yaml"), "--state", str(folder / "state")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "--controller-uid", str(CONTROLLER)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._serves, within_s=PATIENCE_S, what="the broker's socket")

    def _serves(self) -> bool:
        assert self.process.poll() is None, f"the broker ended:\n{self.log.read_text()}"
        return self.socket.exists()

    def trust(self, reference: str) -> None:
        """Vouch for the local image of a reference, as an operator."""
        body = json.dumps({"reference": reference}).encode()
        status, told = dockerd.call(f"unix://{self.socket}", "POST", "/trimtab/v1/trust", body=body)
        assert status == 200, told

    @property
    def memory_kib(self) -> int:
        """What it holds in memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found, status
        return int(found[1])

    def end(self) -> float:
        """End it as systemd would; return how long that took, in seconds."""
        started = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return time.monotonic() - started


def development_policy() -> dict[str, Any]:
    """Return the development policy with the registry's images, and a client."""
    policy: dict[str, Any] = yaml.safe_load(DEVELOPMENT.read_text())
    policy["images"]["allow"].append(f"{REGISTRY}/")
    policy["clients"] = [{"uid": ALICE, "owner": "alice"}]
    return policy


def home_policy(projects: Path) -> dict[str, Any]:
    """Return the home policy with a client and its projects, beside another broker."""
    policy: dict[str, Any] = yaml.safe_load(HOME.read_text())
    policy["clients"] = [{"uid": ALICE, "owner": "alice"}]
    policy["mounts"]["projects"] = [{"path": str(projects), "uid": ALICE}]
    policy["networks"] |= {"isolated": "home", "ingress": "home-in", "bridge": "home-out"}
    return policy


class World:
    """Brokers, registry, and the objects that rows speak of."""

    def __init__(self, engine: PrivateEngine | FoundEngine) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-compat-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder)
        self._count = 0
        #: What all rows look at, and what refused rows speak of, by policy and role: no row changes it.
        self._looked_at = ""
        self._refused: dict[tuple[str, str], dict[str, str]] = {}
        self._shop_up = False
        try:
            registry = Registry(self.folder, engine, host=REGISTRY)
            self._stack.callback(registry.stop)
            # Ansible compares a container's labels with the image's; those of trimtab are emptied.
            registry.push(REMOTE, demo_images.Image(REMOTE, {}, {"Labels": {"org.example": "a"}}))
            self.broker = Broker(self.folder, engine=engine.host, policy=development_policy())
            self._stack.callback(self.broker.end)
            self._homes = {role: self._home(role) for role in ("client", "operator")}
            self._stack.callback(self._remove_all)
            self._of_policy = {"development": self.broker}
            self._policy = "development"
        except BaseException:
            self.close()
            raise

    @cached_property
    def clients(self) -> Clients:
        """The clients that aren't packages of the project."""
        return installed()

    def _broker_under(self, policy: str) -> Broker:
        """Return the broker of a row's policy; that of home is started at its first row."""
        if policy not in self._of_policy:
            folder = self.folder / policy
            folder.mkdir(mode=0o755)
            projects = self._homes["client"] / "projects"
            made = Broker(folder, engine=self.engine.host, policy=home_policy(projects))
            self._stack.callback(made.end)
            self._stack.callback(self._remove_all, folder)
            for image in demo_images.IMAGES:
                made.trust(image.reference)
            self._of_policy[policy] = made
        return self._of_policy[policy]

    def close(self) -> None:
        """Remove what was made, end everything, remove every file."""
        self._stack.close()

    def _home(self, role: str) -> Path:
        home = self.folder / role
        (home / "shop").mkdir(parents=True)
        (home / "shop" / "compose.yaml").write_text(SHOP)
        (home / "small").write_bytes(b"small")
        (home / "Dockerfile").write_text("FROM scratch\n")
        (home / "built").mkdir()
        (home / "built" / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL a=b\n")
        shutil.copytree(PROJECTS, home / "projects")
        shutil.copytree(PLAYBOOKS, home / "playbooks")
        if role == "client":
            for path in (home, *home.rglob("*")):
                os.chown(path, ALICE, ALICE)
        return home

    def _remove_all(self, folder: Path | None = None) -> None:
        if not self.engine.answers():
            return
        told = json.loads(((folder or self.folder) / "state" / "instance.json").read_text())
        mine = f"label=io.trimtab.instance={told['id']}"
        for ls, rm in (
            (["ps", "--all"], ["rm", "--force"]),
            (["network", "ls"], ["network", "rm"]),
            (["volume", "ls"], ["volume", "rm"]),
        ):
            found = self.engine.docker(*ls, "--quiet", "--filter", mine).stdout.split()
            if found:
                self.engine.docker(*rm, *found)
        self.engine.docker("rmi", REMOTE, check=False)

    # Who calls.

    def environment(self, role: str) -> dict[str, str]:
        """Return what a caller has in its environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._homes[role]),
            "LOGNAME": role,
            "TMPDIR": str(self._homes[role]),
            "DOCKER_HOST": f"unix://{self._of_policy[self._policy].socket}",
            "TESTCONTAINERS_RYUK_DISABLED": "true",
        }

    def start(
        self, role: str, argv: list[str], *, cwd: Path | None = None, reads_all: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a program as a caller, its output together.

        With *reads_all* it may read what lies in a folder that is closed to the caller.
        """
        who: dict[str, Any] = {}
        if role == "client" and reads_all:
            user = [f"--reuid={ALICE}", f"--regid={ALICE}", f"--groups={trimtab_gid()}"]
            argv = ["setpriv", *user, *READS_ALL, *argv]
        elif role == "client":
            who = {"user": ALICE, "group": ALICE, "extra_groups": [trimtab_gid()]}
        return subprocess.Popen(
            argv,
            env=self.environment(role),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd or self._homes[role],
            **who,
        )

    def run(
        self,
        role: str,
        *argv: str,
        stdin: str = "",
        exits: int | None = 0,
        cwd: Path | None = None,
        reads_all: bool = False,
    ) -> str:
        """Run a program as a caller to its end, and return what it said."""
        process = self.start(role, list(argv), cwd=cwd, reads_all=reads_all)
        try:
            said, _ = process.communicate(stdin.encode(), timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        text = said.decode(errors="replace")
        assert exits is None or process.returncode == exits, (
            f"{shlex.join(argv)}: exit {process.returncode}, expected {exits}\n{text}"
        )
        return text

    # Objects.

    def name(self) -> str:
        """Return a name that nothing has yet."""
        self._count += 1
        return f"compat-{self._count}"

    def container(self, role: str, *arguments: str, verb: str = "run --detach") -> str:
        """Make a container, running unless told otherwise, and return its name."""
        name = self.name()
        self.run(role, "docker", *verb.split(), "--name", name, *arguments, IMAGE, *COMMANDS[verb])
        return name

    def _object(self, word: str, role: str, made: dict[str, str]) -> str:
        maker: dict[str, Callable[[], str]] = {
            "free": self.name,
            "home": lambda: str(self._homes[role]),
            "image": lambda: IMAGE,
            "served": lambda: SERVED,
            "registry": lambda: REGISTRY,
            "remote": lambda: REMOTE,
            "pulled": lambda: self._pulled(role),
            "socket": lambda: str(self.broker.socket),
            "ansible": self._ansible,
            "shown": self._shown,
            "running": lambda: self.container(role),
            "talking": lambda: self.container(role, "--env", "INTERVAL=0.2"),
            "stopped": lambda: self.container(role, verb="create"),
            "reader": lambda: self.container(role, verb="create --interactive"),
            "written": lambda: self._written(role),
            "paused": lambda: self._paused(role),
            "network": lambda: self._made(role, "network"),
            "volume": lambda: self._made(role, "volume"),
            "joined": lambda: self.container(role, "--network", self.word("network", role, made)),
            "holding": lambda: self.container(
                role, "--volume", f"{self.word('volume', role, made)}:/data"
            ),
        }
        return maker[word]()

    def word(self, word: str, role: str, made: dict[str, str]) -> str:
        """Return what a word of a row stands for, making it at its first mention."""
        if word not in made:
            made[word] = self._object(word, role, made)
        return made[word]

    def _shown(self) -> str:
        if not self._looked_at:
            self._looked_at = self.container("client")
            logs = ("docker", "logs", self._looked_at)
            eventually(lambda: "piece" in self.run("client", *logs), what="its first line")
        return self._looked_at

    def _ansible(self) -> str:
        """Return the command of Ansible, as it runs on this machine with modules of the caller's Python."""
        python = self.clients.python
        made = f"prefix={self.name()} image={REMOTE}"
        variables = f"ansible_python_interpreter={sys.executable} {made}"
        return (
            f"env PYTHONPATH={python} ANSIBLE_COLLECTIONS_PATH={python} {sys.executable}"
            f" {python}/bin/ansible-playbook --inventory localhost, --connection local"
            f" --extra-vars '{variables}'"
        )

    def _pulled(self, role: str) -> str:
        self.run(role, "docker", "pull", REMOTE)
        for used in self.run(role, "docker", "ps", "-aq", "-f", f"ancestor={REMOTE}").split():
            self.run(role, "docker", "rm", "--force", used)
        return REMOTE

    def _paused(self, role: str) -> str:
        name = self.container(role)
        self.run(role, "docker", "pause", name)
        return name

    def _written(self, role: str) -> str:
        name = self.container(role, verb="create --tty")
        self.run(role, "docker", "start", "--attach", name)
        return name

    def _made(self, role: str, kind: str) -> str:
        name = self.name()
        self.run(role, "docker", kind, "create", name)
        return name

    # Rows.

    def try_row(self, row: Row) -> None:
        """Run a row's command, and check that it does what the table says.

        A list is never empty: the container that rows look at is there from the first row on.
        """
        self._shown()
        self._broker_under(row.policy)
        self._policy = row.policy
        made: dict[str, str] = {}
        if row.refused:
            made = self._refused.setdefault((row.policy, row.role), made)
        there = {each["Id"] for each in self.engine.containers()}
        try:
            self._try(row, made)
        finally:
            self._policy = "development"
            if not row.refused and not self._shop_up:
                self._remove_since(there)

    def _remove_since(self, there: set[str]) -> None:
        """Remove a row's containers at once: while they run, their commands and health checks cost time."""
        for each in self.engine.containers():
            if each["Id"] not in there:
                dockerd.call(self.engine.host, "DELETE", f"/containers/{each['Id']}?force=1")

    def _try(self, row: Row, made: dict[str, str]) -> None:
        filled = self._filled(row.command, row.role, made)
        argv = shlex.split(filled)
        shop = row.client == "compose" and row.policy == "development"
        where = self._shop(row) if shop else self._homes[row.role]
        if row.how is How.STREAMS:
            self._stream(row, argv, self._filled(row.see, row.role, made), where)
            return
        if row.how is How.TERMINAL:
            argv = ["script", "--quiet", "--return", "--command", filled, "/dev/null"]
        reads_all = row.client == "Ansible"
        said = self.run(
            row.role, *argv, stdin=row.stdin, exits=row.exits, cwd=where, reads_all=reads_all
        )
        self._check(said, row, self._filled(row.see, row.role, made))
        if row.then:
            then = shlex.split(self._filled(row.then, row.role, made))
            shown = self.run(row.role, *then, cwd=where)
            _must_show(shown, self._filled(row.after, row.role, made))

    def _shop(self, row: Row) -> Path:
        """Have the compose project up, unless the row is what brings it up; return where it is."""
        where = self._homes[row.role] / "shop"
        up = ["docker", "compose", "up", "--detach"]
        if not self._shop_up and row.command != shlex.join(up):
            self.run(row.role, *up, cwd=where)
        self._shop_up = " down " not in row.command
        return where

    @staticmethod
    def _check(said: str, row: Row, see: str) -> None:
        if see:
            _must_show(said, see)
        elif row.refused:
            _must_show(said, rf"(?:^|\W){re.escape(row.refused)}: ")
        if row.instead:
            _must_show(said, rf"\([^()]*{row.instead}")

    def _filled(self, text: str, role: str, made: dict[str, str]) -> str:
        words = set(re.findall(r"(?<!\{)\{([a-z]+)\}(?!\})", text))
        for word in sorted(words):
            filler = self.word(word, role, made)
            text = re.sub(rf"(?<!\{{)\{{{word}\}}(?!\}})", filler, text)
        return text.replace("{{", "{").replace("}}", "}")

    def _stream(self, row: Row, argv: list[str], see: str, where: Path) -> None:
        process = self.start(row.role, argv, cwd=where)
        try:
            _read_until(process, see)
            assert process.poll() is None, "a stream goes on"
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)


COMMANDS: dict[str, list[str]] = {
    "run --detach": [],
    "create": [],
    "create --interactive": ["sh", "-c", "read -r line; echo got $line"],
    "create --tty": ["sh", "-c", "echo x >/tmp/written"],
}


def _must_show(said: str, see: str) -> None:
    assert re.search(see, said.replace("\r", ""), re.MULTILINE), f"{see!r} isn't in:\n{said}"


def _read_until(process: subprocess.Popen[bytes], see: str) -> None:
    assert process.stdout is not None
    said = b""
    deadline = time.monotonic() + PATIENCE_S
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while not re.search(see, said.decode(errors="replace"), re.MULTILINE):
            assert ready.select(deadline - time.monotonic()), f"{see!r} isn't in:\n{said!r}"
            part = os.read(process.stdout.fileno(), 65536)
            assert part, f"it ended, and {see!r} isn't in:\n{said!r}"
            said += part
