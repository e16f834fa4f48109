"""The prune guard and the loop's share keep to the gate's radius, so that its refusal is never met.

The gate here is the toy engine with ``core.disruption.budget`` before it, counting as the broker does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.core import disruption
from controller.core.disruption import Budget, Call, Look
from controller.core.planning.quarantine import QuarantineRules
from controller.model.desired.desired import Service
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    DisconnectNetwork,
    RemoveContainer,
    StartContainer,
    StopContainer,
)
from controller.model.errors import EngineError, EngineFailed, OverShare
from controller.model.inventory import RecordTime, Replica, TakenDown
from controller.model.mutations import Mutation
from controller.model.observed import Container
from tests import worlds
from tests.examples import examples
from tests.unit.loop.toy import House, ToyEngine, Watch
from tests.worlds import container, service

pytestmark = pytest.mark.slow


@dataclass
class Gate:
    """Judges what takes a container down, and remembers it, as ``broker.guards.disruption_budget`` does.

    Where it is *broken*, no successor starts: what stopped for one stays down.
    """

    engine: ToyEngine
    watch: Watch
    broken: bool
    budget: Budget = field(default_factory=Budget)
    count: int = 0
    #: Since when each container runs, as the engine knows it.
    since: dict[str, float] = field(default_factory=dict)
    met: list[str] = field(default_factory=list)

    def __call__(self, action: AnyAction) -> EngineError | None:
        self.look()
        identifier = action.precondition.id
        if isinstance(action, StartContainer):
            if self.broken:
                return EngineFailed("engine.failed", "it doesn't start")
            self.fold(disruption.Ran(identifier, self.number()))
        if isinstance(action, ConnectNetwork):
            self.fold(disruption.Joined(identifier, self.number(), action.network))
        route = ROUTES.get(type(action))
        if route is None:
            return None
        network = action.network if isinstance(action, DisconnectNetwork) else ""
        now = self.watch.monotonic()
        running = {c.id for c in self.engine.world.containers if c.running}
        up = frozenset(each for each in running if now - self.since[each] >= disruption.RUN_S)
        call = Call(identifier, route, network)
        look = Look(up, target_runs=identifier in running)
        word = disruption.admit(self.budget, call, look, self.age_s)
        if word.finding is not None:
            self.met.append(action.target)
            return OverShare(word.finding.rule, word.finding.reason)
        if word.takes:
            intent = str(self.number())
            service = action.object.name
            taken = TakenDown(identifier, service, route, intent, self.count, "", network)
            self.fold(disruption.Begun(taken))
            self.fold(disruption.Closed(intent, "down"))
        if not network:
            self.fold(disruption.Halted(identifier))
        return None

    def look(self) -> None:
        """Learn of the containers that were created since."""
        now = self.watch.monotonic()
        for one in self.engine.world.containers:
            if one.running:
                self.since.setdefault(one.id, now)
            else:
                self.since.pop(one.id, None)
            if one.id not in self.budget.replicas:
                networks = (one.admitted or one.settings).networks
                up = self.stamp if one.running else None
                self.fold(disruption.Created(Replica(one.id, one.key.name, networks, up=up)))

    @property
    def stamp(self) -> RecordTime:
        return RecordTime(time=repr(self.watch.monotonic()))

    def age_s(self, stamp: RecordTime) -> float:
        return self.watch.monotonic() - float(stamp.time)

    def fold(self, event: disruption.Event) -> None:
        self.budget = disruption.fold(self.budget, event, self.stamp)

    def number(self) -> int:
        self.count += 1
        return self.count


ROUTES = {
    StopContainer: Mutation.CONTAINER_STOP,
    RemoveContainer: Mutation.CONTAINER_REMOVE,
    DisconnectNetwork: Mutation.NETWORK_DISCONNECT,
}


def web(number: int, *, rev: str, replicas: int, published: bool) -> Service:
    ports: dict[str, Any] = (
        {"ports": [{"container": 80, "host": 8000 + number}]} if published else {}
    )
    return service(f"s{number:02}", rev, replicas=replicas, **ports)


#: An edit: how many services go, how many get a new revision, how long until the next edit.
EDITS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 25), st.sampled_from([1.0, 30.0, 700.0])),
    min_size=1,
    max_size=3,
)


@given(
    count=st.integers(1, 25),
    idle=st.integers(0, 40),
    published=st.booleans(),
    broken=st.booleans(),
    keep_s=st.sampled_from([0.0, 300.0]),
    edits=EDITS,
)
# More is declared than runs: the guard must count as the gate does.
@example(
    count=20, idle=40, published=False, broken=False, keep_s=0.0, edits=[(9, 0, 1.0), (6, 0, 1.0)]
)
# Nothing that stops for its successor comes back: the share must hold the others.
@example(
    count=20,
    idle=0,
    published=True,
    broken=True,
    keep_s=300.0,
    edits=[(6, 14, 1.0), (2, 12, 700.0)],
)
@settings(max_examples=examples(3))
def test_whatever_is_pruned_and_rolled_out_the_gate_refuses_nothing(
    count: int,
    idle: int,
    published: bool,
    broken: bool,
    keep_s: float,
    edits: list[tuple[int, int, float]],
) -> None:
    wanted = {
        number: web(number, rev="b", replicas=1 + number % 2 * (not published), published=published)
        for number in range(count)
    }
    resting = [service(f"idle{number:02}", state="Stopped") for number in range(idle)]
    with TemporaryDirectory() as folder:
        home = House(Path(folder), keeping=QuarantineRules(keep_s, "boot"))
        home.engine = ToyEngine(worlds.engine(*map(down, resting), networks=NETWORKS))
        home.restart()
        home.declare(*wanted.values(), *resting)
        home.settle()
        gate = home.engine.fault = Gate(home.engine, home.watch, broken)
        for index, (going, rolling, pause_s) in enumerate(edits):
            for number in sorted(wanted)[:going]:
                del wanted[number]
            for number in sorted(wanted)[-rolling:] if rolling else ():
                replicas = wanted[number].spec.replicas
                rev = "cdef"[index]
                wanted[number] = web(number, rev=rev, replicas=replicas, published=published)
            home.declare(*wanted.values(), *resting)
            home.let_pass(pause_s)
        home.let_pass(60)
        assert gate.met == []
        if all(rolling == 0 for _, rolling, _ in edits):
            # Nothing but the guard held anything back: what it let pass needn't wait for a share.
            assert "blast.radius" not in str(home.controller.status())


NETWORKS = (worlds.ISOLATED, worlds.INGRESS)


def down(one: Service) -> Container:
    return container(one.key.name, state="exited", admitted={"restart": "no"})
