"""A model of the disruption budget: a hostile controller, a slow engine, and the real decisions.

A story is a list of moves. Each move sweeps over a few services. The engine carries out an admitted
mutation after any delay, answers after another, and answers a look after a third. Containers end by
themselves at any time, and the engine starts some of them again. The broker's part is the pure
module alone.

The invariant: at no moment are more services down because of the controller than the share. A
service is down because of the controller if an admitted mutation ended, froze, starved or cut off the
container that had run, unaltered, for 5 s, no other slot had, and none has since. A service that has
been down for ten minutes counts no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from controller.core import disruption
from controller.core.disruption import Budget, Call, Look
from controller.model.inventory import Capacity, RecordTime, Replica, TakenDown
from controller.model.mutations import Mutation

NETWORK: Final = "net"
FULL: Final = Capacity(memory=1 << 30, nano_cpus=10**9, pids=256, cpu_shares=1024)
#: The limits that an update sets, and a host that has more CPUs than one.
LOW: Final = {
    "starve": Capacity(memory=6 << 20, nano_cpus=10**7, pids=1, cpu_shares=1024),
    "pin": replace(FULL, cpus=1),
}
HOST_CPUS: Final = 8
#: The delays of the engine, and the pauses between moves, in seconds.
DELAYS: Final = (0.0, 0.0, 0.4, 3.0, 12.0, 300.0)
PAUSES: Final = (0.0, 0.0, 0.5, 2.0, 5.5, 5.5, 299.0, 601.0)
LIVES: Final = (1.0, 4.0, 20.0)

#: The moves: mutations that take down, others, and what happens by itself.
TAKES: Final = {
    "stop": Mutation.CONTAINER_STOP,
    "kill": Mutation.CONTAINER_KILL,
    "signal": Mutation.CONTAINER_KILL,
    "restart": Mutation.CONTAINER_RESTART,
    "poisoned restart": Mutation.CONTAINER_RESTART,
    "pause": Mutation.CONTAINER_PAUSE,
    "remove": Mutation.CONTAINER_REMOVE,
    **dict.fromkeys(LOW, Mutation.CONTAINER_UPDATE),
    "disconnect": Mutation.NETWORK_DISCONNECT,
}
MOVES: Final = (*TAKES, "start", "unpause", "feed", "connect", "helper", "end", "crash", "wait")


class BeyondTheShare(AssertionError):
    """More services are down because of the controller than the share."""

    #: The number of services and the moves.
    story: tuple[int, list[Move]]


@dataclass(frozen=True, slots=True)
class Move:
    """One move: over *count* services from *first* on."""

    verb: str
    first: int
    count: int
    #: Indices into the delays of the engine: of the effect, the answer and a look.
    effect: int
    answer: int
    look: int
    pause: int
    #: The engine refuses, or the answer is lost.
    fate: str = "done"


@dataclass(slots=True)
class Box:
    """A container as it really is."""

    id: str
    service: str
    status: str = "running"
    #: Since when it runs and is whole.
    whole_since: float = -1e6
    #: Since when its process runs, as the engine's list shows it.
    started_at: float = -1e6
    capacity: Capacity = FULL
    connected: bool = True
    gone: bool = False
    #: When it had last run, unaltered, for 5 s.
    up_at: float = -1e6
    #: A mutation that takes it down was admitted, and it wasn't repaired since.
    is_condemned: bool = False
    #: Mutations that halt it, and are in progress.
    halting: int = 0
    #: Starts that are in progress.
    starting: int = 0
    #: Updates and disconnects that are in progress, by their intents.
    altering: dict[str, Mutation] = field(default_factory=dict)

    def is_whole(self, now: float) -> bool:
        """Return True if it has run, unaltered, for 5 s."""
        return self.is_serving and now - self.whole_since >= 5.0

    @property
    def is_serving(self) -> bool:
        """True if it runs, has its limits, and is reachable."""
        running = self.status == "running" and not self.gone
        return running and self.connected and self.capacity == FULL

    def settle(self, now: float, *, was: bool) -> None:
        """Begin its time again if it serves and did not before."""
        if self.is_serving and not was:
            self.whole_since = now


@dataclass(slots=True)
class World:
    """The engine, and what the broker knows of it."""

    services: int
    now: float = 0.0
    budget: Budget = field(default_factory=Budget)
    boxes: dict[str, Box] = field(default_factory=dict)
    #: When each service went down because of the controller.
    lost: dict[str, float] = field(default_factory=dict)
    admitted: int = 0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        """Begin with services that have run for long."""
        for number in range(self.services):
            box = Box(f"c{number}", f"s{number}")
            self.boxes[box.id] = box
            self._created(box, up=RecordTime(time="-1000000"))

    # Time

    def wait(self, seconds: float) -> None:
        """Let time pass, with everything that is due."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            at, _, act = heapq.heappop(self._due)
            self.now = max(self.now, at)
            act()
            self.check()
        self.now = until
        self.check()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, act))

    def _stamp(self) -> RecordTime:
        return RecordTime(time=repr(self.now))

    def _age_s(self, stamp: RecordTime) -> float:
        return self.now - float(stamp.time)

    def _fold(self, event: disruption.Event) -> None:
        self.budget = disruption.fold(self.budget, event, self._stamp())

    # The invariant

    def check(self) -> None:
        """Check the invariant at this moment.

        Raises:
            BeyondTheShare: too many services are down.
        """
        for box in self.boxes.values():
            if box.is_whole(self.now):
                box.up_at = self.now
        for service in [*self.lost]:
            if self._serves(service) or self.now - self.lost[service] >= disruption.WINDOW_S:
                del self.lost[service]
        if len(self.lost) > max(3, self.services * 30 // 100):
            raise BeyondTheShare(f"at {self.now:g} s: {sorted(self.lost)} of {self.services}")

    def _serves(self, service: str) -> bool:
        mine = (box for box in self.boxes.values() if box.service == service)
        return any(box.is_whole(self.now) for box in mine)

    def _hurt(self, box: Box, hurt: Callable[[], None], *, alone: bool, since: float) -> None:
        """Do harm to a container because of a mutation that was admitted at *since*.

        *alone*: no other slot was up then. If one has been since, it ended by itself.
        """
        others = (b for b in self.boxes.values() if b.service == box.service and b is not box)
        alone = alone and all(other.up_at <= since for other in others)
        did_serve = box.is_whole(self.now) or box.service in self.lost
        hurt()
        if did_serve and alone and not self._serves(box.service):
            self.lost.setdefault(box.service, self.now)

    # Moves

    def play(self, move: Move) -> None:
        """Make a move."""
        for number in range(move.first, move.first + move.count):
            for box in self._of(
                f"s{number % self.services}", helpers=move.verb in {"end", "crash"}
            ):
                self._move(move, box)
        self.wait(PAUSES[move.pause])

    def _of(self, service: str, *, helpers: bool) -> Iterator[Box]:
        """Yield the containers of a service that a move is about."""
        mine = [box for box in self.boxes.values() if box.service == service and not box.gone]
        yield from mine[1:] if helpers and len(mine) > 1 else mine[:1]

    def _move(self, move: Move, box: Box) -> None:
        match move.verb:
            case "wait":
                pass
            case "helper":
                self._helper(move, box.service)
            case "end":
                box.status = "exited"
            case "crash":  # the engine starts it again
                if box.status == "running":
                    box.whole_since = box.started_at = self.now
            case "start" | "unpause" | "feed" | "connect":
                self._repair(move, box)
            case _:
                self._take(move, box)

    def _take(self, move: Move, box: Box) -> None:
        """Ask to take a container down: look, be judged by what is known then, and go on."""
        route = TAKES[move.verb]
        if box.halting and route == Mutation.CONTAINER_RESTART:
            return
        capacity = LOW.get(move.verb)
        network = NETWORK if move.verb == "disconnect" else ""
        call = Call(box.id, route, network=network, capacity=capacity, host_cpus=HOST_CPUS)
        look, looked_at = self._look(box), self.now
        alone = self._is_alone(box)
        self.wait(min(12.0, DELAYS[move.look]))
        look = replace(look, age_s=self.now - looked_at)
        word = disruption.admit(self.budget, call, look, self._age_s)
        if word.finding is not None:
            return
        self.admitted += 1
        self._count += 1
        intent, seq = f"i{self._count}", self._count
        if word.takes:
            box.is_condemned = True
            self._fold(
                disruption.Begun(
                    TakenDown(
                        container=box.id,
                        service=box.service,
                        route=route,
                        intent=intent,
                        seq=seq,
                        time=repr(self.now),
                        network=network,
                    )
                )
            )
            if route not in disruption.HALTS:
                box.altering[intent] = route
        box.halting += route in disruption.HALTS
        box.starting += route == Mutation.CONTAINER_RESTART
        since = self.now
        self._later(
            DELAYS[move.effect],
            lambda: self._effect(move, box, intent, seq, alone=alone, since=since),
        )

    def _effect(
        self, move: Move, box: Box, intent: str, seq: int, *, alone: bool, since: float
    ) -> None:
        if box.gone or move.fate == "refused":
            self._later(DELAYS[move.answer], lambda: self._refused(move, box, intent))
            return
        self._hurt(
            box, lambda: self._harm(move, box, alone=alone, since=since), alone=alone, since=since
        )
        if move.fate == "done":
            self._later(DELAYS[move.answer], lambda: self._closed(move, box, intent, seq))

    def _harm(self, move: Move, box: Box, *, alone: bool, since: float) -> None:
        was = box.is_serving
        match move.verb:
            case "stop" | "kill" | "remove":
                box.status, box.gone = "exited", move.verb == "remove"
            case "signal":
                self._later(DELAYS[move.answer], lambda: self._die(box, alone=alone, since=since))
            case "restart" if box.status != "paused":
                box.status, box.whole_since, box.started_at = "running", self.now, self.now
            case "poisoned restart":
                box.status = "exited"
            case "pause" if box.status == "running":
                box.status = "paused"
            case "starve" | "pin":
                box.capacity = LOW[move.verb]
            case "disconnect":
                box.connected = False
            case _:
                pass
        box.settle(self.now, was=was)

    def _die(self, box: Box, *, alone: bool, since: float) -> None:
        def end() -> None:
            box.status = "exited"

        self._hurt(box, end, alone=alone, since=since)

    def _is_alone(self, box: Box) -> bool:
        """Return True if no other slot is up, and stays so."""
        others = (b for b in self.boxes.values() if b.service == box.service and b is not box)
        return not any(other.is_whole(self.now) and not other.is_condemned for other in others)

    def _refused(self, move: Move, box: Box, intent: str) -> None:
        box.altering.pop(intent, None)
        box.halting -= TAKES[move.verb] in disruption.HALTS
        box.starting -= TAKES[move.verb] == Mutation.CONTAINER_RESTART
        self._fold(disruption.Closed(intent, "nothing"))

    def _closed(self, move: Move, box: Box, intent: str, seq: int) -> None:
        """Fold what the broker's records say at the end of a mutation."""
        box.altering.pop(intent, None)
        box.halting -= TAKES[move.verb] in disruption.HALTS
        box.starting -= TAKES[move.verb] == Mutation.CONTAINER_RESTART
        unknown = move.verb in {"signal", "restart", "poisoned restart"}
        self._fold(disruption.Closed(intent, "unknown" if unknown else "down"))
        match move.verb:
            case "stop" | "kill" | "pause":
                self._fold(disruption.Halted(box.id))
            case "restart" | "poisoned restart":
                self._fold(disruption.Ran(box.id, seq))
            case "remove":
                self._fold(disruption.Gone(box.id))
            case "starve" | "pin":
                self._fold(disruption.Changed(box.id, seq, LOW[move.verb]))
            case _:
                pass

    def _repair(self, move: Move, box: Box) -> None:
        if self._is_overtaking(move.verb, box):
            return
        self._count += 1
        seq = self._count
        starts = move.verb in {"start", "unpause"}
        box.starting += starts

        def answer(event: disruption.Event | None) -> None:
            box.starting -= starts
            if event is not None:
                self._fold(event)

        def effect() -> None:
            if box.gone:
                return
            was = box.is_serving
            event = self._repaired(move.verb, box, seq)
            box.settle(self.now, was=was)
            if box.is_whole(self.now) or not was:
                box.is_condemned = False
            if move.fate == "done":
                self._later(min(12.0, DELAYS[move.answer]), lambda: answer(event))

        self._later(min(12.0, DELAYS[move.effect]), effect)

    def _is_overtaking(self, verb: str, box: Box) -> bool:
        """Return True if the gate lets a repair wait for a takedown that is in progress."""
        undone = {"feed": Mutation.CONTAINER_UPDATE, "connect": Mutation.NETWORK_DISCONNECT}
        if verb in undone:
            return undone[verb] in box.altering.values()
        return box.halting > 0

    def _repaired(self, verb: str, box: Box, seq: int) -> disruption.Event | None:
        """Repair a container; return what the broker will know, None if there was nothing to do."""
        match verb:
            case "start" if box.status == "exited":
                box.status, box.started_at = "running", self.now
                return disruption.Ran(box.id, seq)
            case "unpause" if box.status == "paused":
                box.status = "running"
                return disruption.Ran(box.id, seq, unpaused=True)
            case "feed":
                box.capacity = FULL
                return disruption.Changed(box.id, seq, FULL)
            case "connect":
                box.connected = True
                return disruption.Joined(box.id, seq, NETWORK)
            case _:
                return None

    def _helper(self, move: Move, service: str) -> None:
        """Create and start another slot that ends by itself."""
        self._count += 1
        box = Box(f"h{self._count}", service, status="created")
        self.boxes[box.id] = box
        self._created(box, up=None)
        seq = self._count

        def end() -> None:
            box.status = "exited"

        def start() -> None:
            box.status, box.whole_since, box.started_at = "running", self.now, self.now
            self._later(LIVES[move.effect % len(LIVES)], end)
            self._fold(disruption.Ran(box.id, seq))

        start()

    def _created(self, box: Box, *, up: RecordTime | None) -> None:
        replica = Replica(box.id, box.service, (NETWORK,), FULL, FULL, up)
        self._fold(disruption.Created(replica))

    def _look(self, target: Box) -> Look:
        """Return what the engine shows at this moment."""
        up = frozenset(
            box.id
            for box in self.boxes.values()
            if box.status == "running" and not box.gone and self._uptime_s(box) >= disruption.RUN_S
        )
        runs = target.status in {"running", "paused"} or target.starting > 0
        return Look(up, target_runs=runs and not target.gone)

    def _uptime_s(self, box: Box) -> float:
        return self.now - box.started_at


def play(services: int, moves: list[Move]) -> World:
    """Play a story to its end.

    Raises:
        BeyondTheShare: the invariant is broken.
    """
    world = World(services)
    try:
        for move in moves:
            world.play(move)
        world.wait(1000.0)
    except BeyondTheShare as error:
        error.story = (services, moves)
        raise
    return world
