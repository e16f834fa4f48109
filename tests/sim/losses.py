"""Worlds in which files of the state folder are lost, and an operator follows docs/operations/state.md.

A database with a generated password has a volume for itself. The instance ends, files of its state
folder are removed, and it is started again. Then the documented procedure is followed: adopt, end what
stays foreign, and let new values be made where the broker asks for that. At every moment: one running
container at most writes to the volume, and the password is the one before unless an operator forgot it.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from controller.app.desired_state import DesiredFiles
from controller.broker.gate.commands import (
    Command,
    ForgetSecret,
    OpenSecret,
    ReadSecret,
    SecretNotOpened,
    SecretOpened,
    SecretValue,
)
from controller.broker.secrets.opener import GeneratedValues, SecretOpener
from controller.core.planning.deliveries import bind_secrets
from controller.core.secrets.declared import GeneratedSource, SecretName
from controller.engine.requests import BrokerSecrets
from controller.model.desired.plan import NeedsOperator
from controller.model.errors import SecretError
from controller.model.names import Key
from controller.ports import DesiredSource
from controller.sources.directory import DirectorySource
from tests.sim.broker import FILES, SECRETS
from tests.sim.controller import request_of
from tests.sim.faults import Faults
from tests.sim.files import Doc, Files
from tests.sim.people import OPERATOR
from tests.sim.stories import DB, Tale, service
from tests.sim.violation import Violation
from tests.sim.world import World

if TYPE_CHECKING:
    from controller.broker.secrets.opener import SecretWorker
    from controller.engine.adapter import BrokerEngine
    from controller.model.desired.desired import Desired
    from tests.sim.objects import SimContainer

#: The invariant of data.
DATA = 5
CONVERGES = 10
VOLUME = "data"
PASSWORD, SETTINGS = Key("Secret", "default", "pw"), Key("Config", "default", "conf")
LENGTH = 24
STORY = Tale(
    frozenset(),
    (
        Doc(PASSWORD, {"generate": {"pw": {"length": LENGTH}}}),
        Doc(SETTINGS, {"data": {"db.conf": "fsync = on"}}),
        service(
            DB,
            "db:1",
            mounts=[
                {"type": "volume", "source": VOLUME, "target": "/data"},
                {"type": "secret", "source": "pw", "target": "/run/pw"},
                {"type": "config", "source": "conf", "target": "/srv/conf"},
            ],
        ),
    ),
)
LIVE_S = 180.0


def _nothing(_world: LossWorld) -> None:
    """Lose what a simulated world doesn't have."""


def _journal(world: LossWorld) -> None:
    world.journal.lose()
    world.checkers.forget()
    _snapshot(world)  # a snapshot beyond the journal isn't read


def _snapshot(world: LossWorld) -> None:
    world.broker._saved = ""


def _key(world: LossWorld) -> None:
    world.broker.hash_key = world.random.randbytes(32)


def _generated(world: LossWorld) -> None:
    shutil.rmtree(world.folder / "generated", ignore_errors=True)


def _contents(world: LossWorld) -> None:
    world.broker.stored.clear()


def _folders(world: LossWorld) -> None:
    world.broker.gone = (FILES,)


def _instance(world: LossWorld) -> None:
    world.has_id = False


def _memory(world: LossWorld) -> None:
    (world.folder / "memory.json").unlink(missing_ok=True)


#: Every file of a state folder, by a pattern of its path: what its loss means in a simulated world.
#: ``e2e/test_losses.py`` compares the patterns with the files of a real folder.
PARTS: Mapping[str, Callable[[LossWorld], None]] = {
    r"instance\.json": _instance,
    r"broker/journal/.*": _journal,
    r"broker/inventory\.json": _snapshot,
    r"broker/secrets\.key": _key,
    r"broker/generated/.*": _generated,
    r"broker/files/.*": _contents,
    r"files/.*": _folders,
    r"controller/state\.json": _memory,
    # Options of the start, and what the broker told the others of them; the journal's keys, its mark and its index, locks, sockets, and reports.
    r"trimtab\.yaml|settings\.json": _nothing,
    r"broker/journal\.key|journal\.pub|journal\.checkpoint": _nothing,
    r"broker/index\.sqlite.*": _nothing,
    r"(broker|controller)/lock": _nothing,
    r"controller/(status|failures|holds|folders)\.json": _nothing,
    r"(feedback|fetcher|notify|ship)/.*": _nothing,
}
#: The parts whose loss changes something in a simulated world.
LOST = tuple(pattern for pattern, lose in PARTS.items() if lose is not _nothing)


def part_of(path: str) -> list[str]:
    """Return the patterns that a file of a state folder has; one, if the table is right."""
    return [pattern for pattern in PARTS if re.fullmatch(pattern, path)]


class LossFiles(Files):
    """The directory, with Secrets that the broker answers for."""

    _ask: BrokerSecrets | None = None

    def source(self, serving: Callable[[], Mapping[Key, str]]) -> DesiredSource:
        return DesiredFiles(DirectorySource(self.root), self.root.parent, serving, self._bind)

    def reach_broker(self, engine: BrokerEngine, monotonic: Callable[[], float]) -> None:
        self._ask = BrokerSecrets(engine.ask_content, monotonic)

    def _bind(self, desired: Desired) -> Desired:
        assert self._ask is not None, "a controller reaches its broker first"
        return bind_secrets(desired, self._ask(desired.secrets))


class GeneratedSecrets:
    """The broker's real Secrets, without a worker: generated values on a disk."""

    def __init__(self, world: LossWorld) -> None:
        self._world = world
        self._random = random.Random(world.seed).randbytes
        #: The password behind each content.
        self.passwords: dict[str, bytes] = {}

    def opener(self) -> SecretOpener:
        key = self._world.broker.hash_key
        generated = GeneratedValues(self._world.folder / "generated", key, self._random)
        worker, clock = cast("SecretWorker", None), self._world.clock.monotonic
        return SecretOpener(worker, generated, key, clock)

    def open(self, command: OpenSecret) -> SecretOpened | SecretNotOpened:
        opened = self.opener().answer(command)
        if isinstance(opened, SecretOpened):
            self.passwords[opened.content] = self.value()
        else:
            self._world.refused.add(opened.code)
        return opened

    def read(self, command: ReadSecret) -> SecretValue | str:
        raise AssertionError(f"no variable has a Secret: {command}")

    def forget(self, command: ForgetSecret) -> bool:
        return self.opener().forget(command.files)

    def value(self) -> bytes:
        """Return the password of now, b'' if none can be read."""
        bound = SecretName("default", "team", "pw")
        try:
            return self.opener().generated.open(
                bound, GeneratedSource({"pw": LENGTH}), make="never"
            )["pw"]
        except SecretError:
            return b""


class LossWorld(World):
    """A world that loses parts of its state folder once.

    With *changed*, somebody gives the database rights beyond the policy meanwhile, so that no adoption
    takes it over.
    """

    heard = 1.0

    def __init__(self, *lost: str, changed: bool = False) -> None:
        super().__init__(0, story=STORY, faults=Faults.none())
        self._lost = lost
        self._changed = changed
        self.has_id = True
        self.refused: set[str] = set()
        self.forgot = False
        self._values = GeneratedSecrets(self)
        self.broker.secrets, self.broker.forget = self._values, self._values.forget
        self.broker.folders_stay = True
        self._password = b""
        start = self.broker.start
        # Without instance.json no broker starts.
        self.broker.start = lambda: start() if self.has_id else None  # type: ignore[method-assign]

    def make_files(self) -> Files:
        return LossFiles(self.folder)

    @property
    def databases(self) -> list[SimContainer]:
        """The containers that run on the volume."""
        return [
            container
            for container in self.engine.containers.values()
            if container.running
            and any(mount.get("Name") == VOLUME and mount["RW"] for mount in container.mounts)
        ]

    def _tell(self) -> None:
        """Pass on the engine's events to the broker, too."""
        count, state = self.engine.emitted - self._heard, self.broker.state
        for event in self.engine.events[-count:] if count and state is not None else ():
            known = state is None or event["Actor"]["ID"] in state.inventory.containers
            if state is not None and event["Type"] == "container" and not known:
                state.split_brain.in_doubt = True  # as ``watch_task`` does
        super()._tell()

    def after(self, command: Command) -> None:
        super().after(command)
        running = self.databases
        if len(running) > 1:
            told = ", ".join(container.name for container in running)
            raise Violation(DATA, f"{told} write to the volume {VOLUME}")
        for container in running if self._password and not self.forgot else ():
            if self.password_of(container) != self._password:
                raise Violation(DATA, f"{container.name} got another password without a word")

    def password_of(self, container: SimContainer) -> bytes:
        """Return the password that a container mounts."""
        sources = [str(mount["Source"]) for mount in container.mounts]
        (digits,) = [s.split("/")[-2] for s in sources if s.startswith(f"{SECRETS}/")]
        return self._values.passwords[f"hmac:{digits}"]

    # The story

    def tell(self) -> None:
        """Live, lose, live, recover, and converge.

        Raises:
            Violation
        """
        with self.begun():
            self.live(LIVE_S)
            (database,) = self.databases
            self._password = self.password_of(database)
            self.broker.save()
            self.broker.state = self.broker.mend_at = None
            self._bury_controller()
            for part in self._lost:
                self.note(f"lost: {part}")
                PARTS[part](self)
            self.broker.start()
            if self._changed:
                database.host["CapAdd"] = ["SYS_ADMIN"]
            self.live(LIVE_S)
            self._recover()
            self.rest()
            running = self.databases
            if len(running) != 1:
                raise Violation(CONVERGES, f"{len(running)} databases run after the recovery")
            if not self._knows_container(running[0]):
                raise Violation(CONVERGES, "the database isn't in the inventory after the recovery")
            if self._values.value() and self.password_of(running[0]) != self._values.value():
                raise Violation(CONVERGES, "the database has another password than is kept")

    def _knows_container(self, container: SimContainer) -> bool:
        state = self.broker.state
        return state is not None and container.id in state.inventory.containers

    def _recover(self) -> None:
        """Follow docs/operations/state.md."""
        if not self.has_id:
            self.has_id = True
            self.broker.start()
            self.live(LIVE_S)
        told = self._post(act="adopt", objects=self._strangers(), note="lost")
        self.note(f"adopted {len(told['adopted'])}, left {len(told['left'])}")
        self.live(LIVE_S)
        if self.refused & {"secret.generated-lost", "secret.generated-damaged"}:
            self.forgot = True
            self._post(act="secret.forget", object=str(PASSWORD), note="the database is told")
            self.files_changed()  # the command asks for a look
            self.live(LIVE_S)
        if told["left"] and not self._is_stalled():
            raise Violation(DATA, "nobody says what holds the slot")
        for each in told["left"]:
            if each["kind"] == "container":
                self.engine.call("DELETE", f"/containers/{each['id']}?force=1")
        self.live(LIVE_S)

    def _is_stalled(self) -> bool:
        assert self.controller is not None, "a controller is there"
        plan = self.controller.loop.plan_everything().plan
        waits = (action for action in plan.actions if isinstance(action, NeedsOperator))
        return "container.foreign" in {wait.code for wait in waits}

    def _strangers(self) -> list[str]:
        shown = self.ask(request_of(OPERATOR, "GET", "/trimtab/v1/strangers"))
        assert shown is not None, "a broker is there"
        return [each["subject"] for each in json.loads(shown.body)["objects"]]

    def _post(self, **act: object) -> Any:
        body = json.dumps(act).encode()
        reply = self.ask(request_of(OPERATOR, "POST", "/trimtab/v1/records", body=body))
        assert reply is not None, "a broker is there"
        assert reply.status == 200, reply.body
        return json.loads(reply.body)
