"""A large host: real processes over the simulated engine, with thousands of containers.

Creating 2,000 containers takes long. So one is created by the real processes; its records in the
journal and its container in the engine are then cloned, with other ids, names and labels. A broker
that starts on this journal owns all clones.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from controller.app.broker import open_journal
from controller.app.process import SystemClock
from controller.cli.clients.socket_client import ask_controller
from controller.model import names
from controller.model.crashpoints import pass_by
from controller.model.records import Entry, Record
from controller.settings import read_instance, state_of
from controller.sources.directory import DirectorySource
from tests.engine import FoundEngine
from tests.instance import Host, eventually
from tools.benches.engine_api import connection
from tools.suite.processes import cpu_seconds
from tools.suite.stage import document

TEMPLATE: Final = "seed"
REPLICAS: Final = 10
#: The longest start of the instance, and the longest answer: a part, and a part for each container,
#: since the first pass after a start inspects each.
_READY_S: Final = 180.0
_READY_EACH_S: Final = 0.03
#: The processor time of an instance at rest, as a share of the time; and how long it is counted.
_QUIET: Final = 0.1
_LOOK_S: Final = 5.0
#: Records that are submitted before the first of them is awaited.
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Clone:
    """The members of a container that differ from the template's."""

    id: str
    name: str
    service: str
    slot: int
    revision: str
    intent: str


class SimulatedEngine(FoundEngine):
    """The address of a simulated engine; the docker command isn't used."""

    def __init__(self, path: Path) -> None:
        self.socket, self.host = path, f"unix://{path}"

    def answers(self) -> bool:
        """Return False: an instance needn't clean up an engine that ends with its process."""
        return False


class Crowd:
    """An instance with many containers, converged.

    With *has_health*, the containers have a health check and are healthy.
    """

    def __init__(self, containers: int, *, has_health: bool = False) -> None:
        self._has_health = has_health
        self.services = containers // REPLICAS
        self._ready_s = _READY_S + _READY_EACH_S * containers
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        self.socket = folder / "engine.sock"
        argv = [sys.executable, "-m", "tools.suite.engine_server", str(self.socket)]
        self.server = subprocess.Popen(argv)
        self._stack.callback(self._end_server)
        eventually(self.socket.exists, within_s=30, what="the simulated engine")
        self.host = Host(SimulatedEngine(self.socket))
        self._stack.callback(self.host.close)
        policy = Path(self.host.policy).read_text("utf-8")
        quotas = f"  perOwner: {2 * containers}\n  documents: {{containers: {2 * containers}}}\n"
        policy = policy.replace("quotas:\n", f"quotas:\n{quotas}", 1)
        self.host.policy = str(self.host.folder / "policy.yaml")
        Path(self.host.policy).write_text(policy, "utf-8")

    def __enter__(self) -> Self:
        try:
            self._fill()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def bench(self, route: str, **asked: object) -> Any:
        """Ask a route of the bench of the simulated engine."""
        made = connection(self.socket)
        assert made.sock is not None
        made.sock.settimeout(600)
        made.request("POST", f"/bench/{route}", json.dumps(asked))
        answer = made.getresponse()
        text = answer.read()
        made.close()
        assert answer.status == 200, text
        return json.loads(text)

    def ask(self, what: str) -> Any:
        """Ask the controller's socket, and wait as long as it takes."""
        path = self.host.state / "run" / "controller.sock"
        return ask_controller(path, {"do": what}, timeout_s=self._ready_s)

    def is_whole(self) -> bool:
        """Return True if every slot has a running container."""
        state = self.bench("state")
        whole = self.services * REPLICAS + 1
        return bool(state["running"] == state["containers"] == whole)

    def unready(self) -> list[str]:
        """Return the messages of the first services that aren't ready."""
        found = [
            str(condition["message"])
            for resource in self.ask("status")["resources"]
            for condition in resource["conditions"]
            if condition["type"] == "Ready" and condition["status"] != "True"
        ]
        return found[:3]

    def _fill(self) -> None:
        host = self.host
        host.write(f"{TEMPLATE}.yaml", _document(TEMPLATE, has_health=self._has_health))
        host.up()
        host.await_ready(TEMPLATE)
        records = host.journal()
        host.stop()
        for number in range(self.services):
            text = _document(f"c{number}", replicas=REPLICAS, has_health=self._has_health)
            host.write(f"c{number}.yaml", text)
        clones = list(self._clones())
        template = self._template(records)
        for part in _batches(clones):
            self.bench("clone", template=template.id, rows=[_row(clone) for clone in part])
        self._write_journal(template, clones)
        host.up()
        self._keep_off_the_generator()
        host.await_ready(within_s=self._ready_s)
        eventually(self._is_watched, within_s=self._ready_s, what="the end of all rollouts")
        eventually(self._is_quiet, within_s=self._ready_s, what="an instance at rest")

    def _is_watched(self) -> bool:
        """Return True if each service has been watched: its new revision is good.

        The clones' revisions are new to the controller. A minute after the start, a pass of each ends
        the watch.
        """
        saved = json.loads((self.host.state / "controller" / "state.json").read_text("utf-8"))
        good = [course for course in saved["courses"].values() if course.get("good")]
        return len(good) > self.services

    def _is_quiet(self) -> bool:
        """Return True if the controller is at rest."""
        pid = self.host.pid_of("controller")
        before = cpu_seconds(pid)
        time.sleep(_LOOK_S)
        return cpu_seconds(pid) - before < _QUIET * _LOOK_S

    def _template(self, records: Sequence[dict[str, Any]]) -> Clone:
        intent = next(
            record
            for record in records
            if record["stage"] == "intent" and record["request"]["route"] == "container.create"
        )
        labels = intent["request"]["summary"]["labels"]
        outcome = next(
            record
            for record in records
            if record["id"] == intent["id"] and record["stage"] == "outcome"
        )
        return Clone(
            id=outcome["result"]["container"],
            name=intent["request"]["object"],
            service=TEMPLATE,
            slot=1,
            revision=labels[names.REVISION],
            intent=intent["id"],
        )

    def _clones(self) -> Iterator[Clone]:
        for service in DirectorySource(self.host.directory).load().services:
            if service.key.name == TEMPLATE:
                continue
            for slot in range(1, REPLICAS + 1):
                name = names.container_name(
                    service.key.namespace, service.key.name, slot=slot, revision=service.revision
                )
                digest = hashlib.sha256(name.encode()).hexdigest()
                intent = f"01900000-{digest[:4]}-7{digest[4:7]}-8{digest[7:10]}-{digest[10:22]}"
                yield Clone(digest, name, service.key.name, slot, service.revision, intent)

    def _write_journal(self, template: Clone, clones: Sequence[Clone]) -> None:
        """Append the records of each clone's create."""
        root = self.host.state
        instance = read_instance(root)
        assert instance is not None, "the instance ran"
        state = state_of(root, instance)
        with open_journal(state, instance.id, clock=SystemClock(), reach=pass_by) as journal:
            entries = [
                record.entry for record in journal.records() if record.entry.id == template.intent
            ]
            assert len(entries) == 2, f"not an intent and an outcome: {entries}"
            for part in _batches(clones):
                queued: list[Future[Record]] = [
                    journal.submit(cloned(entry, template, clone))
                    for clone in part
                    for entry in entries
                ]
                for future in queued:
                    future.result()

    def _keep_off_the_generator(self) -> None:
        """Keep the processes of the instance off the processor of the simulated engine."""
        others = os.sched_getaffinity(0) - os.sched_getaffinity(self.server.pid)
        assert self.host.process is not None, "the instance runs"
        if others:
            os.sched_setaffinity(self.host.process.pid, others)

    def _end_server(self) -> None:
        self.server.kill()
        self.server.wait()


def _batches(clones: Sequence[Clone]) -> Iterator[Sequence[Clone]]:
    return (clones[first : first + _BATCH] for first in range(0, len(clones), _BATCH))


def _document(service: str, *, replicas: int = 1, has_health: bool = False) -> str:
    check = "\nhealthcheck: {exec: [/bin/true], interval: 30s}" if has_health else ""
    text = document(service, f"network: {{mode: none}}\nreplicas: {replicas}{check}")
    return text.replace("worker:1", "web:1")


def _row(clone: Clone) -> dict[str, str]:
    return {
        "id": clone.id,
        "name": clone.name,
        names.SERVICE: clone.service,
        names.SLOT: str(clone.slot),
        names.REVISION: clone.revision,
        names.INTENT: clone.intent,
    }


def cloned(entry: Entry, template: Clone, clone: Clone) -> Entry:
    """Return an entry of the template as the clone's."""
    text = json.dumps(asdict(entry))
    for old, new in (
        (template.id, clone.id),
        (template.name, clone.name),
        (template.revision, clone.revision),
        (template.intent, clone.intent),
        (f'"{names.SERVICE}": "{template.service}"', f'"{names.SERVICE}": "{clone.service}"'),
        (f'"{names.SLOT}": "1"', f'"{names.SLOT}": "{clone.slot}"'),
    ):
        text = text.replace(old, new)
    return Entry(**json.loads(text))
