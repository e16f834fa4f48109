"""Worlds of one story in which a process dies once, at one moment; every moment has its number.

Where the broker may die: before each command that its gate, its recovery and its records give, and
after each write but an intent's (after that comes the next command). Where the controller may: before it sends a change, after it was answered, after
each look, and at each point of a save. Between two of these moments nothing happens that outlives
either of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from controller.broker.gate.commands import Command, Forward, ReadEngine, WriteRecord
from controller.loop.prober import Prober
from controller.loop.workqueue import Chore
from controller.model import names
from controller.model.names import Key
from controller.model.records import Reply, Request
from tests.sim.broker import BrokerDied
from tests.sim.controller import ControllerDied
from tests.sim.faults import Action, Faults
from tests.sim.people import OPERATOR
from tests.sim.places import label
from tests.sim.stories import Tale
from tests.sim.world import World

#: Every draw of a told world is from this.
SEED = 0


class Who(StrEnum):
    BROKER = "broker"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a process may die. ``looks``: in a request that changes nothing."""

    who: Who
    what: str
    looks: bool

    def __str__(self) -> str:
        return f"{self.who} {self.what}"


class DoomedWorld(World):
    """One telling of a story. ``at``: the number of the moment of death; -1 is none."""

    def __init__(self, tale: Tale, at: int = -1) -> None:
        super().__init__(SEED, story=tale, faults=Faults.none())
        self.moments: list[Moment] = []
        self.did: set[Action] = set()
        self._at = at
        self._open = False  # whether what goes on is the story, and not a checker's question
        self._looks = True

    def _moment(self, who: Who, what: str, *, looks: bool = False) -> None:
        if not self._open:
            return
        self.moments.append(Moment(who, what, looks))
        if len(self.moments) - 1 == self._at:
            self.note(f"    dies: {self.moments[-1]}")
            raise BrokerDied if who is Who.BROKER else ControllerDied

    # What the story consists of

    def happen(self) -> None:
        self._open = True
        try:
            super().happen()
        finally:
            self._open = False

    def _mend(self) -> None:
        self._open, self._looks = True, False
        try:
            super()._mend()
        finally:
            self._open, self._looks = False, True

    def _let_controller(self, what: Chore | Key | Prober) -> None:
        self._open = True
        try:
            super()._let_controller(what)
        finally:
            self._open = False

    def _ask_for_a_plan(self) -> None:
        self._open = False  # until what the controller was let do has ended
        super()._ask_for_a_plan()

    # Its moments

    def act(self, action: Action, request: Request) -> Reply:
        self.did.add(action)
        self._moment(Who.CONTROLLER, f"before sending {action}")
        self._looks = False
        try:
            reply = super().act(action, request)
        finally:
            self._looks = True
        self._moment(Who.CONTROLLER, f"after the answer to {action}")
        return reply

    def ask(self, request: Request) -> Reply | None:
        self._looks = request.method == "GET"
        try:
            return super().ask(request)
        finally:
            self._looks = True

    def before(self, command: Command) -> None:
        super().before(command)
        self._moment(Who.BROKER, f"before {_told(command)}", looks=self._looks)

    def after(self, command: Command) -> None:
        super().after(command)
        if isinstance(command, WriteRecord) and command.entry.stage != "intent":
            self._moment(Who.BROKER, f"after {_told(command)}", looks=self._looks)

    def _looked(self, request: Request, reply: Reply) -> None:
        super()._looked(request, reply)
        self._moment(Who.CONTROLLER, "after a look", looks=True)

    def _reach(self, point: str) -> None:
        super()._reach(point)
        if point.startswith("state."):
            self._moment(Who.CONTROLLER, f"at {point}")


def _told(command: Command) -> str:
    match command:
        case WriteRecord(entry):
            return f"writing {entry.stage} {entry.request.get('route') or ''}".strip()
        case Forward("DELETE", path):
            return f"forwarding DELETE {path.split('/')[-2]}"
        case Forward(method, path):
            parts = path.partition("?")[0].split("/")
            return f"forwarding {method} {parts[-2] if parts[-1] == 'create' else parts[-1]}"
        case ReadEngine(_path):
            return "looking"
        case _:
            return type(command).__name__


class NumberedWorld(World):
    """A world in which the broker dies before the command of a number, counted from a test's act on."""

    def __init__(self, story: Tale, at: int = -1) -> None:
        super().__init__(SEED, story=story, faults=Faults.none())
        #: Commands since the act; -1 while none is counted.
        self.count = -1
        self.died = False
        self._at = at

    def before(self, command: Command) -> None:
        super().before(command)
        if self.count < 0:
            return
        self.count += 1
        if self.count == self._at:
            self.died = True
            raise BrokerDied

    def send(self, path: str, **body: object) -> Reply | None:
        """Send an act of the operator's."""
        data = json.dumps(body).encode()
        headers = (("content-type", "application/json"),)
        return self.ask(Request("POST", path, "", headers, data, OPERATOR))

    def running(self, service: Key) -> list[str]:
        """Return the ids of a service's running containers."""
        return [
            each.id
            for each in self.engine.containers.values()
            if each.status == "running" and label(each, names.SERVICE) == service.name
        ]
