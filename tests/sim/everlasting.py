"""Worlds in which one fault never ends: what is done about it is bounded.

The bound is derived from the pauses that the product promises. Whatever keeps failing is tried at
most as often as its pauses allow, and each try takes a few acts. Acts are counted on the wire:
requests that reach the engine, and requests of the controller's that are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, repeat, takewhile
from typing import Any

from controller.broker.gate.commands import Forward, Lost, ReadProcess
from controller.core.drift.contention import AGAIN, FACTOR, FIRST_S, LONGEST_S
from controller.core.drift.failures import PAUSES_S
from controller.loop.state import overrides
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.mutations import Mutation
from controller.model.records import Reply, Request
from tests.sim.checkers import read
from tests.sim.controller import request_of
from tests.sim.faults import Action, Faults
from tests.sim.files import Doc
from tests.sim.people import OPERATOR
from tests.sim.stories import ILL, LAN, PROBE, WEB, Tale, edit, service
from tests.sim.violation import Violation
from tests.sim.world import World

SEED = 7
#: So long a world is lived, in seconds: pauses are at their longest after half of it.
LIFE_S = 900.0
REPLICAS = 2
#: The invariant: what is done about one service within a time is bounded.
BOUNDED = 15
#: The most that one try does in a slot: create a container, remove the last one, start it, leave and
#: join a network for the service's name; and what the broker does to end a violation: take the
#: restart policy away, and kill.
ACTS_A_TRY = 7


def tries(pauses_s: Iterable[float], within_s: float) -> int:
    """Return how often something is tried within a time, after these pauses."""
    instants = accumulate(chain([0.0], pauses_s))
    return sum(1 for _ in takewhile(lambda at: at <= within_s, instants))


def bound(within_s: float) -> int:
    """Return the most acts on one service within a time, whatever goes wrong for ever."""
    # A slot that fails (core.drift.backoff).
    failing = tries(chain(PAUSES_S, repeat(PAUSES_S[-1])), within_s)
    # What others alter, stop or remove (core.drift.contention): at once a few times, then after pauses.
    fought = (min(LONGEST_S, FIRST_S * FACTOR**n) for n in range(100))
    contended = AGAIN + tries(fought, within_s)
    # A request that fails (loop.state.retries).
    doubled = (min(overrides.RETRY_LONGEST_S, overrides.RETRY_FIRST_S * 2.0**n) for n in range(100))
    return REPLICAS * ACTS_A_TRY * max(failing, contended, tries(doubled, within_s))


#: Does something to the world, whenever the controller has done something.
Meddle = Callable[["EverlastingWorld"], object]
#: Says how the engine answers a mutation; None: as it does.
Refuse = Callable[[str], Reply | None]


@dataclass(frozen=True, slots=True)
class Everlasting:
    """A fault without an end."""

    spec: dict[str, object] | None = None
    then: dict[str, object] | None = None  # a change of the document, once it runs
    meddles: Sequence[Meddle] = ()
    refuse: Refuse | None = None
    breached: str = ""  # containers of this image don't run as admitted; "*": all
    ill: frozenset[str] = frozenset()
    beside: tuple[Doc, ...] = ()  # documents beside that of the service
    dies_s: float = 0.0  # the controller does, every so many seconds


def _fail(route: str, status: int, message: str) -> Refuse:
    body = f'{{"message": "{message}"}}'.encode()
    return lambda asked: Reply(status, body) if asked == route else None


def _crash(world: EverlastingWorld) -> None:
    world.people.crash(WEB)


def _each(doing: str) -> Meddle:
    def meddle(world: EverlastingWorld) -> None:
        for container in world.people.ours():
            if container.alive:
                world.people._meddle_with(container, doing)

    return meddle


def _operator_stops(world: EverlastingWorld) -> None:
    for container in world.people.ours():
        if container.alive:
            world.ask(request_of(OPERATOR, "POST", f"/containers/{container.id}/stop"))


def _loses_networks(world: EverlastingWorld) -> None:
    _each("disconnect")(world)
    for network in list(world.engine.networks.values()):
        world.engine.call("DELETE", f"/networks/{network.id}")


def _loses_declared(world: EverlastingWorld) -> None:
    world.engine.call("DELETE", "/networks/lan")


NOBODYS = "ghcr.io/platformnetwork/app:none"
NEXT: dict[str, object] = {"image": "trimtab.local/web:2"}
TAKEN = "driver failed: Bind for 127.0.0.1:18080 failed: port is already allocated"

FAULTS: dict[str, Everlasting] = {
    "it crashes at each start": Everlasting(meddles=[_crash]),
    "its next revision crashes at each start": Everlasting(then=NEXT, meddles=[_crash]),
    "the broker ends it at each start": Everlasting(breached="*"),
    "the broker ends it, and the controller dies": Everlasting(breached="*", dies_s=97.0),
    "somebody removes it, and the controller dies": Everlasting(meddles=[_each("rm")], dies_s=97.0),
    "the broker ends its next revision": Everlasting(then=NEXT, breached="trimtab.local/web:2"),
    "the broker ends what stops first": Everlasting(
        spec={"rollout": {"order": "StopFirst", "minHealthy": "2s", "onFailure": "Pause"}},
        then=NEXT,
        breached="trimtab.local/web:2",
    ),
    "somebody removes it": Everlasting(meddles=[_each("rm")]),
    "somebody stops it": Everlasting(meddles=[_each("stop")]),
    "an operator stops it through the gate": Everlasting(meddles=[_operator_stops]),
    "somebody pauses it": Everlasting(meddles=[_each("pause")]),
    "somebody alters its limits": Everlasting(meddles=[_each("limits")]),
    "somebody alters what no engine takes back": Everlasting(meddles=[_each("update")]),
    "somebody cuts it off": Everlasting(meddles=[_each("disconnect")]),
    "somebody removes its network": Everlasting(meddles=[_loses_networks]),
    "somebody removes a network that is declared": Everlasting(
        beside=(Doc(LAN, {"internal": True}),), meddles=[_loses_declared]
    ),
    "each start is refused": Everlasting(
        refuse=_fail(Mutation.CONTAINER_START, 403, "the volume isn't what was admitted")
    ),
    "one removes it and one alters it": Everlasting(meddles=[_each("limits"), _each("rm")]),
    "one stops it and one pauses it": Everlasting(meddles=[_each("pause"), _each("stop")]),
    "its image is missing": Everlasting(spec={"image": NOBODYS}),
    "its next image is missing and the old one is stopped": Everlasting(
        then={"image": NOBODYS}, meddles=[_each("stop")]
    ),
    "its next image is missing and the old one is altered": Everlasting(
        then={"image": NOBODYS}, meddles=[_each("limits")]
    ),
    "policy refuses its image": Everlasting(spec={"image": "docker.io/malicious/miner:latest"}),
    "the engine fails each create": Everlasting(
        refuse=_fail(Mutation.CONTAINER_CREATE, 500, "no space left on device")
    ),
    "the engine finds no command": Everlasting(
        refuse=_fail(Mutation.CONTAINER_CREATE, 400, "no command specified")
    ),
    "each name is taken": Everlasting(
        refuse=_fail(Mutation.CONTAINER_CREATE, 409, "the name is already in use")
    ),
    "its port is taken": Everlasting(refuse=_fail(Mutation.CONTAINER_START, 500, TAKEN)),
    "the engine fails each start of the next revision": Everlasting(
        then=NEXT, refuse=_fail(Mutation.CONTAINER_START, 500, "OOM-killed")
    ),
    "the engine creates no network": Everlasting(
        refuse=_fail(Mutation.NETWORK_CREATE, 500, "no addresses are left")
    ),
    "the engine joins no network": Everlasting(
        then=NEXT,
        refuse=_fail(Mutation.NETWORK_CONNECT, 500, "no addresses are left"),
    ),
    "the engine removes nothing": Everlasting(
        then=NEXT,
        refuse=_fail(Mutation.CONTAINER_REMOVE, 500, "device or resource busy"),
    ),
    "it is unhealthy": Everlasting(
        spec={"healthcheck": PROBE}, ill=frozenset({"trimtab.local/web:1"})
    ),
    "its next revision is unhealthy": Everlasting(
        spec={"healthcheck": PROBE}, then={"image": ILL}, ill=frozenset({ILL})
    ),
}


class EverlastingWorld(World):
    """A world with one service, and a fault that meets it whenever the controller has acted."""

    def __init__(self, fault: Everlasting) -> None:
        spec: dict[str, Any] = {"replicas": REPLICAS, **(fault.spec or {})}
        image = str(spec.pop("image", "trimtab.local/web:1"))
        doc = service(WEB, **spec)
        doc = Doc(WEB, {**doc.spec, "image": image})
        then = [(30.0, edit(WEB, **fault.then))] if fault.then else []
        tale = Tale(frozenset(), (doc, *fault.beside), tuple(then), ill=fault.ill)
        super().__init__(SEED, story=tale, faults=Faults.none())
        self._fault = fault
        self._meddled = 0
        self._waiting = False
        self.acts = 0
        self._began = self.clock.monotonic()
        self.checkers.creates_a_minute = 10**9  # it is for the bound to find
        self.checkers.breaching = bool(fault.breached)

    def endure(self) -> int:
        """Live for a while; return how much was done.

        Raises:
            Violation: more than the bound.
        """
        with self.begun():
            self.at(20.0, "somebody begins", self._meddle)
            if self._fault.dies_s:
                self.at(self._fault.dies_s, "death", self._die_again)
            end = self.clock.monotonic() + LIFE_S
            while self.clock.monotonic() < end:
                self._step(end)
        return self.acts

    def _die_again(self) -> None:
        self._bury_controller()
        self.at(self._fault.dies_s, "death", self._die_again)

    # What is done

    def act(self, action: Action, request: Request) -> Reply:
        before = self.checkers.forwards
        reply = super().act(action, request)
        if self.checkers.forwards == before:
            self._note_act()
        self._tempt_somebody()
        return reply

    def _tell(self) -> None:
        starts = [
            e for e in self.engine.events if e["timeNano"] > self._heard and e["Action"] == "start"
        ]
        if starts:
            self._tempt_somebody()  # what the engine restarts is met as well
        super()._tell()

    def _tempt_somebody(self) -> None:
        if not self._waiting and self._fault.meddles:
            self._waiting = True
            self.at(0.5, "somebody", self._meddle)

    def forward(self, command: Forward) -> Reply | Lost:
        self._note_act()
        return super().forward(command)

    def _note_act(self) -> None:
        self.acts += 1
        if self.acts > bound(LIFE_S):
            lines = "\n".join(self.trace.lines[-40:])
            raise Violation(BOUNDED, f"{self.acts} acts on one service\n{lines}")

    # The fault

    def _meddle(self) -> None:
        self._waiting = False
        meddles = self._fault.meddles
        if meddles:
            meddles[self._meddled % len(meddles)](self)
            self._meddled += 1

    def _carry(self, command: Forward) -> Reply:
        refused = self._fault.refuse and self._fault.refuse(read(command).route)
        begun = self.clock.monotonic() >= self._began + 30.0 or not self._fault.then
        return refused if refused and begun else super()._carry(command)

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable:
        seen = super().process(command)
        container = self.engine.containers.get(command.container)
        image = "" if container is None else container.image.reference
        if isinstance(seen, NotReadable) or self._fault.breached not in {"*", image}:
            return seen
        return replace(seen, no_new_privileges=False)
