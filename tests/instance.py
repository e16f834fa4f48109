"""An instance as a user has it: a folder, a DIR, and the command ``trimtab``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from controller.cli.clients.socket_client import ask_controller
from controller.journal.verify.verify import verify
from controller.model.errors import TrimtabError
from tools import dockerd

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

T = TypeVar("T")
TRIMTAB = str(Path(sys.executable).parent / "trimtab")
POLICIES = Path(__file__).parent.parent / "configs" / "policies"
LABEL = "io.trimtab"
PATIENCE_S = 60.0
#: A line of a service's log, with the service and the module.
LATE_IMPORT = re.compile(r"(\w+) ERROR import\.late module=(\S+)")
#: The namespace of Secrets in tests: its key lies in a folder of the host.
WITH_SECRETS = f"sec{os.getpid()}"
#: Pauses between looks: the longer it takes, the longer, so that looking costs others little.
LOOK_AGAIN_S, LOOK_AGAIN_MAX_S, LOOK_AGAIN_SHARE = 0.05, 0.25, 0.05


def eventually(answer: Callable[[], T], *, within_s: float = PATIENCE_S, what: str = "") -> T:
    """Return the first truthy answer; a time-out says what was waited for and last seen."""
    began = time.monotonic()
    while True:
        seen = answer()
        if seen:
            return seen
        waited_s = time.monotonic() - began
        if waited_s > within_s:
            raise AssertionError(f"not within {within_s:g} s: {what or answer}; last: {seen!r}")
        time.sleep(min(max(waited_s * LOOK_AGAIN_SHARE, LOOK_AGAIN_S), LOOK_AGAIN_MAX_S))


class Host:
    """One folder, one state, one DIR, on one engine; ``up`` runs at most once at a time."""

    #: A value's origin is shown with its line; a proof names the file alone.
    names_lines = True

    def __init__(self, engine: PrivateEngine | FoundEngine) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-e2e-", dir="/tmp"))
        self.folder.chmod(0o755)  # mkdtemp's 0700 would close it to the controller's user
        self.directory = self.folder / "desired"
        self.directory.mkdir()
        self.state = self.folder / "state"
        self.command_timeout_s = PATIENCE_S * 2
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "up.log"
        self.policy = str(POLICIES / "development.yaml")

    def use_networks_of_its_own(self, base: str) -> None:
        """Take a policy whose networks are called after *base*: instances then share the engine."""
        own = f"  isolated: {base}\n  ingress: {base}-in\n  bridge: {base}-out\n"
        text = re.sub(
            r"^  (isolated|ingress|bridge): .*\n",
            "",
            Path(self.policy).read_text(),
            flags=re.MULTILINE,
        )
        text = text.replace("networks:\n", f"networks:\n{own}", 1)
        (self.folder / "policy.yaml").write_text(text)
        self.policy = str(self.folder / "policy.yaml")

    # What users do with files.

    def write(self, name: str, text: str) -> Path:
        """Put a file into DIR in one move, as careful editors do."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.rename(path)
        return path

    def remove(self, name: str) -> None:
        """Remove a file from DIR."""
        (self.directory / name).unlink()

    # What users run.

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        return {**kept, "DOCKER_HOST": self.engine.host, **extra}

    def prepared(self, arguments: Iterable[str]) -> list[str]:
        """Return the arguments of a command that is about to start."""
        return list(arguments)

    def cli(
        self, *arguments: str, expect: int | tuple[int, ...] = 0, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of trimtab's on this state folder, inside the engine's network."""
        done = subprocess.run(
            self.engine.inside(TRIMTAB, *self.prepared(arguments), "--state", str(self.state)),
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=self.command_timeout_s,
            cwd=self.folder,
        )
        expected = (expect,) if isinstance(expect, int) else expect
        assert done.returncode in expected, (
            f"{arguments}: exit {done.returncode}, expected {expect}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def json(self, *arguments: str, expect: int | tuple[int, ...] = 0) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.cli(*arguments, "--json", expect=expect).stdout)

    def up(self, *options: str, **extra: str) -> None:
        """Start ``trimtab up`` in the background; its output goes to ``log``."""
        self.up_as_before(str(self.directory), "--policy", self.policy, *options, **extra)

    def up_as_before(self, *options: str, **extra: str) -> None:
        """Start ``trimtab up`` with the directory and the policy of its settings."""
        assert self.process is None or self.process.poll() is not None, "up runs already"
        argv = [TRIMTAB, *self.prepared(["up", *options])]
        argv += ["--state", str(self.state)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.engine.inside(*argv),
                env=self.environment(**extra),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.folder,
            )

    def stop(self, number: int = signal.SIGINT) -> int:
        """End ``up`` as Ctrl-C does, or with another signal; return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_S)

    def second(self) -> Host:
        """Return another hand at the same instance: its own ``up``, on the same folders."""
        twin = Host.__new__(Host)
        vars(twin).update(vars(self))
        twin.process, twin.log = None, self.folder / "second.log"
        return twin

    @contextlib.contextmanager
    def running(self, *options: str) -> Iterator[None]:
        """Have ``up`` run during the block, converged at its start."""
        self.up(*options)
        try:
            self.await_ready()
            yield
        finally:
            self.stop()

    @property
    def process_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    # What users see.

    @property
    def instance(self) -> str:
        return str(json.loads((self.state / "instance.json").read_text())["id"])

    @property
    def broker_socket(self) -> Path:
        return self.state / "run" / "broker.sock"

    def status(self) -> dict[str, Any] | None:
        """Return what `status --json` prints, or None while nothing answers.

        Asked for in the way of the command, but without starting one: this is polled.
        """
        return self._ask({"do": "status"})

    def plan(self) -> dict[str, Any] | None:
        """Return what `plan --json` prints, or None while nothing answers."""
        told = self._ask({"do": "plan"})
        return None if told is None else dict(told["plan"])

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return the revisions that `history --json` prints, or [] while nothing answers."""
        told = self._ask({"do": "history", "key": f"Service/default/{name}"}) or {"revisions": []}
        return list(told["revisions"])

    def _ask(self, question: dict[str, object]) -> dict[str, Any] | None:
        try:
            return dict(ask_controller(self.state / "run" / "controller.sock", question))
        except TrimtabError:
            return None

    def resource(self, name: str, *, namespace: str = "default") -> dict[str, Any]:
        """Return one resource of the status, or {} when it isn't there."""
        for resource in (self.status() or {"resources": []})["resources"]:
            if (resource["namespace"], resource["name"]) == (namespace, name):
                return dict(resource)
        return {}

    def is_ready(self, name: str, *, namespace: str = "default") -> bool:
        return has(self.resource(name, namespace=namespace), "Ready")

    def all_ready(self) -> bool:
        status = self.status()
        return status is not None and all(has(r, "Ready") for r in status["resources"])

    def await_ready(self, *names: str, within_s: float = PATIENCE_S) -> None:
        """Wait until all resources (at least *names*) are Ready."""

        def ready() -> bool:
            assert self.process is None or self.process.poll() is None, self.said()
            status = self.status()
            if status is None:
                return False
            there = {resource["name"] for resource in status["resources"]}
            seen = bool(there) or not any(self.directory.rglob("*.y*ml"))
            return (
                seen and set(names) <= there and all(has(r, "Ready") for r in status["resources"])
            )

        try:
            eventually(ready, within_s=within_s, what=f"everything Ready, {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nstatus: {self.status()}\nup: {self.said()}") from error

    def said(self) -> str:
        """Return the end of what ``up`` printed."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """Return the inspects of this instance's containers on the engine, by name.

        Asked for in the way of ``docker inspect``, but without starting one: this is polled.
        """
        listed = self._listed(service)
        # One may go between the two calls: what is left is returned all the same.
        told = [self._asked(f"/containers/{each['Id']}/json") for each in listed]
        inspects = [inspect for status, inspect in told if status == 200]
        return sorted(inspects, key=lambda inspect: str(inspect["Name"]))

    def _listed(self, service: str | None) -> list[dict[str, Any]]:
        """Return the engine's list of this instance's containers, by name."""
        labels = [f"{LABEL}.instance={self.instance}"]
        if service is not None:
            labels.append(f"{LABEL}.service={service}")
        filters = quote(json.dumps({"label": labels}))
        status, listed = self._asked(f"/containers/json?all=1&filters={filters}")
        assert status == 200, listed
        return sorted(listed, key=lambda each: str(each["Names"]))

    def _asked(self, path: str) -> tuple[int, Any]:
        """Ask the engine itself; return status and JSON."""
        status, body = dockerd.call(self.engine.host, "GET", path)
        return status, json.loads(body)

    def names(self, service: str | None = None) -> list[str]:
        return [inspect["Name"].removeprefix("/") for inspect in self.containers(service)]

    def running_ids(self, service: str) -> list[str]:
        return [each["Id"] for each in self._listed(service) if each["State"] == "running"]

    def journal(self, *options: str) -> list[dict[str, Any]]:
        """Return the records that ``journal list`` prints."""
        out = self.cli("journal", "list", *options, "--json").stdout
        return [json.loads(line) for line in out.splitlines()]

    def records(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Return the journal's records, all or those of a stage.

        Read from the files: a command for each look would keep processors busy.
        """
        segments = sorted((self.state / "broker" / "journal").glob("*.jsonl"))
        whole = (path.read_bytes().rpartition(b"\n")[0] for path in segments)
        found = (json.loads(line) for text in whole for line in text.splitlines())
        return [record for record in found if stage in (None, record["stage"])]

    def nothing_open(self) -> bool:
        """Return True if the journal is intact, and no intent is open.

        Read in this process: recovery takes a while, and a command for each look would keep
        processors busy.
        """
        found = verify(self.state / "broker" / "journal")
        return found.ok and not found.open_intents

    def docker_through_broker(
        self, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI against the broker's socket."""
        done = subprocess.run(
            self.engine.inside("docker", "-H", f"unix://{self.broker_socket}", *arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def pid_of(self, role: str) -> int:
        """Return the pid of ``broker``, ``controller`` or ``fetcher`` (a child of ``up``)."""
        assert self.process is not None
        word = {"broker": "broker", "controller": "run", "fetcher": "fetch"}[role]
        for pid in descendants(self.process.pid):
            try:
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"controller" in argv and word.encode() in argv:
                return pid
        raise AssertionError(f"no {role} among the children of up")

    def close(self) -> None:
        """End what runs, and remove everything of this instance from the engine.

        An engine of the tests' own has no other instance: without instance.json, everything of trimtab's goes.

        Raises AssertionError if a service imported a module after its start.
        """
        if self.process is not None and self.process.poll() is None:
            # In order: a create that is cut off may come into being after the look below.
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        try:
            label = f"{LABEL}.instance"
            if (self.state / "instance.json").exists():
                label += f"={self.instance}"
            elif not self.engine.private:
                label = ""  # nobody knows what was this instance's
            if label and self.engine.answers():
                self._remove_all(label)
            late = self.late_imports()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not late, f"imported after the start: {late}"

    def late_imports(self) -> list[str]:
        """Return the services and the modules that they imported after their start, by their logs."""
        texts = (path.read_text(errors="replace") for path in self.folder.glob("*.log"))
        return [" ".join(found) for text in texts for found in LATE_IMPORT.findall(text)]

    def _remove_all(self, label: str) -> None:
        """Remove the containers with a label, then the networks and volumes.

        Asked for in the way of ``docker rm --force``, but without starting it: every test ends here.
        Raises AssertionError for what stays: the tests after this one would meet it.
        """
        mine = f"filters={quote(json.dumps({'label': [label]}))}"
        _, containers = self._asked(f"/containers/json?all=1&{mine}")
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    self.engine.clear,
                    (f"/containers/{each['Id']}?force=1" for each in containers),
                )
            )
        for network in self._asked(f"/networks?{mine}")[1]:
            self.engine.clear(f"/networks/{network['Id']}")
        for volume in self._asked(f"/volumes?{mine}")[1]["Volumes"] or ():
            self.engine.clear(f"/volumes/{volume['Name']}")


def has(resource: dict[str, Any], condition: str) -> bool:
    """Tell whether a condition of a resource is True."""
    return any(
        c["type"] == condition and c["status"] == "True" for c in resource.get("conditions", [])
    )


def descendants(pid: int) -> Iterator[int]:
    """Yield the pids below one, by /proc (proc(5))."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield int(child)
            yield from descendants(int(child))


WEB = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: {name}, owner: team}}
spec:
  image: trimtab.local/web:1
  replicas: {replicas}
{extra}
"""


def web(name: str = "web", *, replicas: int = 1, extra: str = "") -> str:
    """Return a document that declares a small web service; *extra* are lines of its spec."""
    indented = "\n".join(f"  {line}" for line in extra.splitlines())
    return WEB.format(name=name, replicas=replicas, extra=indented)
