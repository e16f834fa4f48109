"""The broker without sockets: the real gate, recovery and mending, driven command by command.

Every command is a place where it can die; what it knew is gone then, and what is in the journal
is what the next one begins with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from controller.broker import dispatch
from controller.broker.engine.client import EngineClient
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    EndConnections,
    EndProcess,
    FindUidUser,
    ForgetSecret,
    Forward,
    GiveWay,
    InspectPaths,
    Lost,
    MakeFiles,
    MakeFolder,
    OpenSecret,
    Prove,
    QueryJournal,
    ReadAccounts,
    ReadCdiFiles,
    ReadEngine,
    ReadProcess,
    ReadSecret,
    ReadSettings,
    ReceiveContext,
    Relay,
    RunBuild,
    SecretNotOpened,
    SecretOpened,
    SecretValue,
    SettingsRefused,
    StoreContent,
    UseSettings,
    VerifyProof,
    WriteRecord,
    encode_list,
    refuse_proofs,
)
from controller.broker.gate.state import GateState
from controller.broker.guards import kernel_verify, recovery
from controller.broker.handlers import container_exec, container_hooks
from controller.broker.server.background_tasks import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    RecoveryTask,
    containers_of,
)
from controller.broker.server.driver import Driver
from controller.core.records import inventory as inventories
from controller.core.records import inventory_json
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.errors import EngineUnavailable, JournalUnavailable
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory
from controller.model.policy.document import Policy
from controller.model.records import Entry, Record, Reply, Request
from controller.ports import EngineFacts
from tests.sim.clock import VirtualClock
from tests.sim.journal import SimJournal

T = TypeVar("T")
INSTANCE = "5109a1b2c3d4e5f6"
#: The key of digests.
HASH_KEY = b"h" * 32
#: The folder that containers mount the files of Configs from.
FILES = "/var/lib/trimtab/files/config"
#: The folder in memory that containers mount the files of Secrets from.
SECRETS = f"/run/trimtab/secrets/{INSTANCE}"


class BrokerDied(BaseException):
    """The broker's process ended here."""


class NobodyThere(Exception):
    """There is no broker now."""


class Secrets(Protocol):
    """The broker's Secrets, with their plain text."""

    def open(self, command: OpenSecret) -> SecretOpened | SecretNotOpened: ...

    def read(self, command: ReadSecret) -> SecretValue | str: ...


class NoSecrets:
    """Opens nothing."""

    def open(self, command: OpenSecret) -> SecretNotOpened:
        return SecretNotOpened("secret.worker", f"no {command.bound.name} in the simulation")

    def read(self, command: ReadSecret) -> str:
        return f"no {command.files} in the simulation"


class Outside(Protocol):
    """What is around the broker: the engine's wire, and whatever happens between commands."""

    def look(self, path: str) -> Reply | Lost: ...

    def forward(self, command: Forward) -> Reply | Lost: ...

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable: ...

    def before(self, command: Command) -> None: ...

    def after(self, command: Command) -> None: ...

    def broker_died(self) -> None: ...

    @property
    def reachable(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Places:
    """What a broker is started with."""

    clock: VirtualClock
    journal: SimJournal
    policy: Policy
    engine: EngineFacts
    new_id: Callable[[], str]


class SimBroker:
    """One broker after another, over one journal."""

    def __init__(self, places: Places, outside: Outside) -> None:
        self._places = places
        self._outside = outside
        self._saved = ""  # the snapshot beside the journal, as text
        #: The contents of each Config on the disk, the current one last.
        self.stored: dict[str, list[str]] = {}
        self.state: GateState | None = None
        self.prove: Prove = refuse_proofs
        self.secrets: Secrets = NoSecrets()
        self.forget: Callable[[ForgetSecret], bool | str] = lambda _: "there are none"
        self.hash_key = HASH_KEY
        #: Folders of mounted files outlive the store.
        self.folders_stay = False
        #: The folders of the host that are gone, by their paths' beginning.
        self.gone: tuple[str, ...] = ()
        self._mending: RecoveryTask | None = None
        self._pause_s = FIRST_PAUSE_S
        self.mend_at: float | None = None
        self.start()

    def start(self) -> None:
        """Begin with what the journal and the last snapshot say."""
        places = self._places
        inventory = (
            inventory_json.from_json(json.loads(self._saved)) if self._saved else Inventory()
        )
        for record in places.journal.records(after=inventory.seq):
            inventory = inventories.fold(inventory, record)
        self.state = GateState(
            policy=places.policy,
            inventory=inventory,
            instance=INSTANCE,
            engine=places.engine,
            clock=places.clock,
            new_id=places.new_id,
            start_seq=places.journal.last_seq,
            start_monotonic=places.clock.monotonic(),
            file_roots={"config": FILES, "secret": SECRETS},
            hash_key=self.hash_key,
        )
        recovery.begin_in_doubt(self.state)
        self._mending = RecoveryTask(
            driver=cast("Driver", self), state=self.state, client=cast("EngineClient", self)
        )
        self._pause_s, self.mend_at = FIRST_PAUSE_S, places.clock.monotonic()

    def watch(self, events: Iterable[dict[str, Any]]) -> None:
        """Doubt what is known of unknown containers after an event of one, as ``watch_task`` does."""
        if self.state is None:
            return
        for event in events:
            for identifier, instance, _ in containers_of(json.dumps(event).encode()):
                is_unknown = identifier not in self.state.inventory.containers
                self.state.split_brain.in_doubt |= is_unknown and instance == INSTANCE

    def die(self) -> None:
        """End at once: nothing is saved."""
        if self.state is not None:
            self.state = self._mending = self.mend_at = None
            self._outside.broker_died()

    def lose(self) -> None:
        """Lose the snapshot; with the journal that goes with it, begin anew if it is there."""
        self._saved = ""
        if self.state is not None:
            self.start()

    def save(self) -> None:
        """Write the snapshot, as a broker does now and then."""
        assert self.state is not None, "nobody is there to save"
        self._saved = json.dumps(inventory_json.to_json(self.state.inventory))

    def serve(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            NobodyThere: there is no broker.
            BrokerDied: it died while it was at it.
        """
        if self.state is None:
            raise NobodyThere
        try:
            value = self._drive(dispatch.handle(request, self.state))
        except BrokerDied:
            self.die()
            raise
        assert isinstance(value, Reply), "no request of the simulation's is relayed"
        if recovery.intents_to_settle(self.state):
            soon = self._places.clock.monotonic() + self._pause_s
            self.mend_at = min(self.mend_at or soon, soon)
        return value

    def mend(self) -> None:
        """Run one round of mending, as the broker does in the background."""
        if self._mending is None:
            return
        try:
            done = _now(self._mending._settle_all())
            done = self._complete_hooks() and done
        except BrokerDied:
            self.die()
            return
        if done:
            self._pause_s, self.mend_at = FIRST_PAUSE_S, None
        else:
            self.mend_at = self._places.clock.monotonic() + self._pause_s
            self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)

    def _complete_hooks(self) -> bool:
        """Record the ends of execs, and finish the hooks of starts, as background tasks do."""
        assert self.state is not None, "nobody is there to complete them"
        for identifier in tuple(self.state.inventory.sessions):
            self._drive(container_exec.supervise(self.state, identifier))
        again = [
            self._drive(container_hooks.complete(self.state, identifier))
            for identifier in tuple(self.state.inventory.containers)
        ]
        return not any(again)

    def check_containers(self) -> None:
        """Verify every container, as the background task does after the engine's events."""
        assert self.state is not None, "nobody is there to check them"
        for identifier in tuple(self.state.inventory.containers):
            self._drive(kernel_verify.verify_container(self.state, identifier))

    # What RecoveryTask asks of its driver and upstream

    async def run(self, steps: Generator[Command, CommandResult, T]) -> T:
        return self._drive(steps)

    async def identify(self) -> None:
        if not self._outside.reachable:
            raise EngineUnavailable("engine.unavailable", "the engine doesn't answer")

    # Commands

    def _drive(self, steps: Generator[Command, CommandResult, T]) -> T:
        answer: CommandResult = None
        while True:
            try:
                command = steps.send(answer)
            except StopIteration as stop:
                value: T = stop.value
                return value
            self._outside.before(command)
            answer = self._carry_out(command)
            self._outside.after(command)

    def _carry_out(self, command: Command) -> CommandResult:  # noqa: C901 - a table
        match command:
            case ReadEngine(path):
                reply = self._outside.look(path)
                if command.rows is None or isinstance(reply, Lost) or reply.status >= 400:
                    return reply
                return Reply(reply.status, encode_list(command.rows, reply.body), reply.headers)
            case Forward():
                return self._outside.forward(command)
            case WriteRecord(entry):
                return self._write(entry)
            case InspectPaths(paths):
                return tuple(self._facts(path) for path in paths)
            case EndConnections() | MakeFolder() | FindUidUser():
                return ""  # no client waits here, every folder is there, and nobody has the uid
            case StoreContent() | MakeFiles() | OpenSecret() | ReadSecret() | ForgetSecret():
                return self._change_files(command)
            case VerifyProof() | ReadCdiFiles():
                return self.prove(command) if isinstance(command, VerifyProof) else ()
            case ReadAccounts():
                return None  # no layers lie on the simulated host
            case ReadProcess():
                return self._outside.process(command)
            case ReadSettings() | UseSettings():
                return SettingsRefused("settings.invalid", "no file in the simulation", "")
            case (
                EndProcess() | QueryJournal() | Relay() | GiveWay() | ReceiveContext() | RunBuild()
            ):
                raise AssertionError(f"nobody asks for that in the simulation: {command}")

    def _facts(self, path: str) -> PathFacts:
        if self.gone and path.startswith(self.gone):
            return PathFacts(path, "missing")
        return PathFacts(path, "dir", device=1, inode=7)

    def _change_files(
        self, command: StoreContent | MakeFiles | OpenSecret | ReadSecret | ForgetSecret
    ) -> bool | str | SecretOpened | SecretNotOpened | SecretValue:
        """Store a content, mount it, or open a Secret: the disk outlives the broker."""
        if isinstance(command, OpenSecret):
            return self.secrets.open(command)
        if isinstance(command, ReadSecret):
            return self.secrets.read(command)
        if isinstance(command, ForgetSecret):
            return self.forget(command)
        files, content = str(command.files), command.content
        if self.folders_stay and isinstance(command, MakeFiles) and not self.gone:
            return ""  # a folder that is there is mounted, whatever the store has
        kept = self.stored.setdefault(files, [])
        if isinstance(command, StoreContent) and command.blob is not None:
            self.stored[files] = [*(each for each in kept if each != content), content]
            return ""
        there = kept if isinstance(command, MakeFiles) else kept[-1:]
        return "" if content in there else "the content isn't stored"

    def _write(self, entry: Entry) -> Record | None:
        assert self.state is not None, "a dead broker writes nothing"
        try:
            record = self._places.journal.append(entry)
        except JournalUnavailable as error:
            self.state.health.journal_error = str(error)
            return None
        self.state.health.journal_error = ""
        self.state.inventory = inventories.fold(self.state.inventory, record)
        self.state.remember_time(entry.id)
        return record


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("it waited")
