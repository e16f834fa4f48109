"""People who hold services by hand: suspend, resume, roll back, restart.

What was answered holds from then on; what the controller died over may hold or not, until they ask
again. So it is told by them, and never by what the product believes, what must be left alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from controller.core.service.operator_actions import Decision
from controller.model.desired.desired import ServiceAct, Verb
from controller.model.errors import EngineError, UsageError
from controller.model.names import Key
from controller.model.records import Reply, Request
from tests.sim.controller import ControllerDied, SimController, request_of
from tests.sim.files import Doc, Truth
from tests.sim.people import OPERATOR, People
from tests.sim.scenario import NOBODYS

#: How often each is wanted.
WANTED: tuple[Verb, ...] = ("suspend", "suspend", "rollback", "rollback", "restart", "restart")


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a service was pinned to, and the document that this is about."""

    revision: str
    doc: Doc


class Hands:
    """They ask the controller, after the broker has recorded that they do."""

    def __init__(
        self,
        seed: int,
        people: People,
        ask: Callable[[Request], Reply | None],
        controller: Callable[[], SimController | None],
        seen: Callable[[], Truth | None],
        bury: Callable[[], None],
    ) -> None:
        self._random = random.Random(f"hands {seed}")
        self._people = people
        self._ask = ask
        self._controller = controller
        self._seen = seen
        self._bury = bury
        self.suspended: set[Key] = set()
        self.pinned: dict[Key, Pinned] = {}
        self.unsure: set[Key] = set()  # nobody answered
        self.answered = False  # the last who asked was
        self.on_restart: Callable[[], None] = lambda: None

    def hold(self) -> str:
        """Do one thing to one service that the controller knows, or let go of one."""
        truth = self._seen()
        keys = sorted(k for k in (truth.declared if truth else ()) if k.kind == "Service")
        held = sorted(self.suspended | self.pinned.keys() | self.unsure)
        if held and self._random.random() < 0.5:
            return self.act("resume", self._random.choice(held))
        return self.act(self._random.choice(WANTED), self._random.choice(keys)) if keys else ""

    def act(self, verb: Verb, key: Key) -> str:
        """Ask for one thing; return what came of it."""
        controller = self._controller()
        self.answered = False
        key = self._present(key)
        if controller is None:
            return f"{verb} {key}: nobody is there"
        controller.transport.turn(None, stale=False)
        to = self._earlier(controller, key) if verb == "rollback" else ""
        wanted = ServiceAct(verb, key, "uid:0", to=to)
        try:
            planned = controller.operator.act(wanted, only_ask=True)
            if planned.changed and not self._recorded(verb, key, planned):
                return f"{verb} {key}: not recorded"
            if planned.changed:
                self.unsure.add(key)
                self._note_replaced(wanted)
                controller.operator.act(wanted)
        except (UsageError, EngineError) as error:
            self.unsure -= self._names(key)
            return f"{verb} {key}: {error}"
        except ControllerDied:
            self.suspended.discard(key)
            self.pinned.pop(key, None)
            self._bury()
            return f"{verb} {key}: nobody answers"
        self.answered = True
        self._answered(wanted, planned.revision)
        return f"{verb} {key}: {planned.text}"

    def _present(self, key: Key) -> Key:
        """Return the name that a service has by now, as the status shows it."""
        truth = self._seen()
        if truth is None or key in truth.declared:
            return key
        return next((doc.key for doc in truth.declared.values() if doc.earlier == key), key)

    def _names(self, key: Key) -> set[Key]:
        """Return the name of a service, and its earlier one."""
        truth = self._seen()
        doc = None if truth is None else truth.declared.get(key)
        return {key} if doc is None or doc.earlier is None else {key, doc.earlier}

    def _earlier(self, controller: SimController, key: Key) -> str:
        """Return a revision that the history shows and can be had, '' for the last good one."""
        kept = controller.store.of(key).overrides.revisions[:-1]
        return self._random.choice(["", *(r.revision for r in kept if r.image != NOBODYS)])

    def _recorded(self, verb: Verb, key: Key, planned: Decision) -> bool:
        act = {"stop": "suspend", "start": "resume"}.get(verb, verb)
        told: dict[str, object] = {"act": f"service.{act}", "object": str(key), "note": "by hand"}
        if planned.revision:
            told["revision"] = planned.revision
        if planned.anew:
            told["anew"] = True
        body = json.dumps(told).encode()
        reply = self._ask(request_of(OPERATOR, "POST", "/trimtab/v1/records", body=body))
        return reply is not None and reply.status == 200

    def _note_replaced(self, act: ServiceAct) -> None:
        """Another container of the same revision is what a restart is about."""
        if act.verb == "restart":
            self.on_restart()
            self._people.give_up(act.key)

    def _answered(self, act: ServiceAct, revision: str) -> None:
        self.unsure -= self._names(act.key)
        truth = self._seen()
        match act.verb:
            case "suspend" | "stop":
                self.suspended.add(act.key)
            case "start":
                self.suspended -= self._names(act.key)
            case "resume":
                self.suspended -= self._names(act.key)
                self.pinned.pop(act.key, None)
            case "rollback" if truth is not None and act.key in truth.declared:
                self.pinned[act.key] = Pinned(revision, truth.declared[act.key])
            case _:
                pass

    def read(self, truth: Truth) -> None:
        """The controller has read the files: a document that asks for something else ends a pin.

        Who is suspended is so by a new name, too.
        """
        renamed = (doc.key for doc in truth.declared.values() if doc.earlier in self.suspended)
        self.suspended |= set(renamed)
        for key, pinned in [*self.pinned.items()]:
            doc = truth.declared.get(key)
            if doc is not None and doc != pinned.doc:
                del self.pinned[key]

    def pin_of(self, key: Key) -> str:
        """Return the revision that alone may be made of a service now, '' if any may."""
        pinned, truth = self.pinned.get(key), self._seen()
        if pinned is None or truth is None or truth.declared.get(key) != pinned.doc:
            return ""
        return pinned.revision
