"""Faults at work: what each does around one action of the controller's."""

from __future__ import annotations

from controller.broker.gate.commands import (
    Command,
    Forward,
    Lost,
    ReadProcess,
    StoreContent,
    WriteRecord,
)
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.records import Reply, Request, Role
from tests.sim import kernel
from tests.sim.broker import BrokerDied, SimBroker
from tests.sim.checkers import Intent
from tests.sim.controller import ControllerDied
from tests.sim.faults import Action, Fault
from tests.sim.ground import Ground, Now
from tests.sim.people import People
from tests.sim.violation import Violation

LOST = "the connection broke"


class Hazards(Ground):
    """The engine's wire and the moments between commands, with the fault of the request."""

    people: People
    broker: SimBroker

    def begin_fault(self, fault: Fault, action: Action, request: Request) -> None:
        """What a fault does before the request is sent; those in the broker come on the way."""
        count = self.faults.count
        match fault:
            case Fault.CONTROLLER_BEFORE:
                count(fault, action)
                raise ControllerDied
            case Fault.ENGINE_RESTART_BEFORE:
                self.engine.engine_restart()
            case Fault.MEDDLED:
                self.people.be_first(action, request)
            case Fault.DEAF:
                self.deaf = True
            case Fault.BAD_FILE:
                self._spoil()
            case Fault.EMPTIED:
                self.files.empty()
                self.files_changed()
                self.at(self.random.uniform(1, 60), "files are back", self.mend_files)
            case Fault.VANISHED:
                self.files.vanish()
                self.files_changed()
                self.at(self.random.uniform(1, 60), "directory is back", self.mend_files)
            case Fault.CLOCK:
                self.clock.jump(-self.random.choice((5.0, 90.0, 3600.0)))
            case _:
                return
        count(fault, action)

    def end_fault(self, fault: Fault, action: Action) -> None:
        match fault:
            case Fault.ANSWER_LOST:
                self.faults.count(fault, action)
                raise BrokerDied  # to the controller it looks the same
            case Fault.CONTROLLER_AFTER:
                self.faults.count(fault, action)
                raise ControllerDied
            case Fault.ENGINE_KILLED_AFTER:
                self.faults.count(fault, action)
                self.engine.engine_restart(killed=True)
                self.checkers.look()
            case _:
                pass

    def _spoil(self) -> None:
        if self.files.docs and self.random.random() < 0.5:
            self.files.spoil(self.random.choice(sorted(self.files.docs)))
        else:
            self.files.litter()
        self.files_changed()
        self.at(self.random.uniform(5, 60), "files are mended", self.mend_files)

    def mend_files(self) -> None:
        self.files.mend()
        self.files_changed()

    @property
    def reachable(self) -> bool:
        return not self.away

    def look(self, path: str) -> Reply | Lost:
        if self.away:
            return Lost("no connection", sent=False)
        return Reply(*self.engine.call("GET", path))

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable:
        return kernel.process(self.engine, command)

    def before(self, command: Command) -> None:
        """Meet a command with the fault of its request, before it is carried out."""
        now = self.now
        if isinstance(command, StoreContent) and command.blob is not None:
            self.checkers.storing(str(command.files))
        self._die_in_recovery(command)
        match command, now.fault:
            case WriteRecord(entry), Fault.BROKER_BEFORE_INTENT if entry.stage == "intent":
                self._die(now)
            case WriteRecord(entry), Fault.FULL_INTENT if entry.stage == "intent":
                self._fill_disk(now)
            case WriteRecord(entry), Fault.FULL_OUTCOME if entry.stage == "outcome":
                self._fill_disk(now)
            case Forward(), Fault.AWAY if not now.forwarded and now.action is not None:
                self.faults.count(now.fault, now.action)
                self.away = True
                self.at(self.random.uniform(0.5, 20), "engine is back", self._engine_back)
            case _:
                pass

    def after(self, command: Command) -> None:
        """Meet a command with the fault of its request, after it was carried out."""
        now = self.now
        self._die_in_recovery(command)
        if now.role is Role.CONTROLLER and isinstance(command, Forward | WriteRecord):
            self._interrupt()
        match command, now.fault:
            case WriteRecord(entry), Fault.BROKER_AFTER_INTENT if entry.stage == "intent":
                self._die(now)
            case WriteRecord(entry), Fault.BROKER_AFTER_OUTCOME if entry.stage == "outcome":
                self._die(now)
            case Forward(), Fault.BROKER_AFTER_FORWARD:
                self._tempt(now)
                self._die(now)
            case _:
                pass

    def _die_in_recovery(self, command: Command) -> None:
        """A broker may die while it closes what one before it left open."""
        recovering = self.now.role is Role.BROKER and isinstance(command, Forward | WriteRecord)
        if recovering and self.faults.on and self.faults.chance(0.5):
            raise BrokerDied

    def _interrupt(self) -> None:
        """While one request is under way, another may come, or recovery have its turn."""
        if not self.faults.on or not self.faults.chance(0.25):
            return
        self.note("    meanwhile")
        before = self.now
        self.now = Now(role=Role.BROKER)
        try:
            if self.random.random() < 0.5:
                self.broker.mend()
            else:
                self.note(f"    {self.people.operate()}")
        finally:
            self.now = before
        if self.broker.state is None:
            raise BrokerDied

    def _tempt(self, now: Now) -> None:
        """Somebody may be at a container that nobody knows to be ours yet."""
        if now.action is Action.CREATE and self.random.random() < 0.5:
            self.at(0.02, "somebody takes its labels", self.people.impersonate)

    def _die(self, now: Now) -> None:
        assert now.fault is not None and now.action is not None
        self.faults.count(now.fault, now.action)
        raise BrokerDied

    def _fill_disk(self, now: Now) -> None:
        assert now.fault is not None and now.action is not None
        self.faults.count(now.fault, now.action)
        self.journal.full = True
        self.at(self.random.uniform(0.5, 30), "disk has room", self._free_disk)

    def _free_disk(self) -> None:
        self.journal.full = False

    def _engine_back(self) -> None:
        self.away = False

    def forward(self, command: Forward) -> Reply | Lost:
        """Carry a mutation to the engine, with the fault of its request."""
        intent = self.checkers.forwarding(command)
        now = self.now
        fault = now.fault if not now.forwarded else None
        now.forwarded = True
        if self.away:
            answer: Reply | Lost = Lost("no connection", sent=False)
        else:
            answer = self._reached(command, fault, now, intent)
        self.checkers.answered(intent, answer)
        return answer

    def _reached(
        self, command: Forward, fault: Fault | None, now: Now, intent: Intent
    ) -> Reply | Lost:
        lost = {Fault.LOST_UNDONE, Fault.LOST_DONE, Fault.LOST_LATE, Fault.REFUSED}
        if fault not in lost or now.action is None:
            return self._carry(command)
        assert fault is not None
        self.faults.count(fault, now.action)
        if fault is Fault.REFUSED:
            return Reply(500, b'{"message":"failed to mount overlay: no space left on device"}')
        if fault is Fault.LOST_DONE:
            self._carry(command)
            self._tempt(now)
        if fault is Fault.LOST_LATE:
            delay_s = self.random.uniform(0.05, 10.0)
            self.engine.later(delay_s, lambda: self._carry_late(command, intent))
        return Lost(LOST)

    def _carry(self, command: Forward) -> Reply:
        status, body = self.engine.call(command.method, command.path, command.body or None)
        return Reply(status, body, (("content-type", "application/json"),))

    def _carry_late(self, command: Forward, intent: Intent) -> None:
        self.note(f"    late: {command.method} {command.path}")
        if intent.settled == "not-applied":
            raise Violation(
                1, f"not applied, and the engine was still at it was at it: {command.path}"
            )
        self._carry(command)
        self.checkers.look()
