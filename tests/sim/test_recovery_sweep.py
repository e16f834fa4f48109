"""The broker killed at every point around a change, of every route, with every way it may go on.

The real gate, recovery and mending over a simulated engine. Each run is one world: objects are made,
one change is asked for, and at one of its commands the broker dies, or the answer is lost; the
engine did it, didn't, or does it later; the wall clock may be set meanwhile, and the next broker may
die while it recovers. Then brokers live until nothing is open. Whatever happened: no effect without
an intent that was durable before it, no intent left open, none closed twice, and none closed as
not applied whose effect came after all.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from controller.broker.gate.commands import (
    Command,
    CommandResult,
    EndProcess,
    Forward,
    Lost,
    ReadProcess,
    Relay,
)
from controller.broker.gate.routes import ROUTES
from controller.core.records.record import CLOSING
from controller.model import names
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.mutations import Mutation
from controller.model.records import Actor, Record, Reply, Request, Role
from controller.ports import EngineFacts
from tests.sim import kernel
from tests.sim.broker import BrokerDied, Places, SimBroker
from tests.sim.clock import VirtualClock
from tests.sim.engine import Answer as Told
from tests.sim.engine import SimEngine
from tests.sim.ground import LOCAL, POLICY, REGISTRY
from tests.sim.journal import SimJournal

T = TypeVar("T")
ROOT = Actor(uid=0, gid=0, pid=1, role=Role.OPERATOR)
CONTROLLER = Actor(uid=990, gid=990, pid=41, role=Role.CONTROLLER)
CONTEXT = base64.urlsafe_b64encode(b'{"cause":"sweep"}').decode().rstrip("=")
JSON = (("content-type", "application/json"),)
WEB, APP = "trimtab.local/web:1", "ghcr.io/platformnetwork/app:1"
DEADLINES = {route.name: route.deadline_s for route in ROUTES}
#: How long brokers may need until nothing is open: a pull's deadline, and pauses between looks.
SETTLED_S = 400.0


class Engine(SimEngine):
    """The simulated engine, with execs and the removal of images."""

    def call(self, method: str, target: str, body: bytes | None = None) -> Told:
        path = target.partition("?")[0].removeprefix("/v1.45")
        if method == "POST" and path.endswith("/exec"):
            return 201, json.dumps({"Id": "e" * 64}).encode()
        if path == f"/exec/{'e' * 64}/json":
            config = {"entrypoint": "true", "arguments": [], "tty": False, "privileged": False}
            (own,) = self.containers
            told = {"ID": "e" * 64, "Running": False, "ContainerID": own, "ProcessConfig": config}
            return 200, json.dumps(told).encode()
        if path == f"/exec/{'e' * 64}/start":
            return 200, b""
        if method == "DELETE" and path.startswith("/images/"):
            gone = self.images.pop(path.removeprefix("/images/"), None)
            return (200, b"[]") if gone else (404, b'{"message":"No such image"}')
        return super().call(method, target, body)


class Broker(SimBroker):
    """The broker, which also sends an exec's start and ends processes."""

    def _carry_out(self, command: Command) -> CommandResult:
        match command:
            case Relay(method, path, body):
                return self._outside.forward(Forward(method, path, body))
            case EndProcess():
                return ""
            case _:
                return super()._carry_out(command)


@dataclass
class Plan:
    """What is to go wrong: at the command *at* (from 1; before or after it) the broker dies.

    ``effect`` says what becomes of the change then: "did", "didn't", or "later", so many seconds
    after. With ``lost`` the broker lives on, and the answer doesn't come.
    """

    at: int = 0
    when: str = "before"
    effect: str = "did"
    later_s: float = 0.0
    lost: bool = False
    jump_s: float = 0.0
    die_again: int = 0  # at which command of the recovery the next broker dies


@dataclass
class World:
    """One run."""

    plan: Plan = field(default_factory=Plan)
    clock: VirtualClock = field(default_factory=VirtualClock)
    records: list[Record] = field(default_factory=list)
    count: int = 0
    armed: str = ""  # "request", "recovery" or ""
    effects: Counter[str] = field(default_factory=Counter)
    closed: dict[str, str] = field(default_factory=dict)
    reachable: bool = True

    def __post_init__(self) -> None:
        self.engine = Engine(self.clock, images=LOCAL, registry=REGISTRY)
        self.journal = SimJournal(self.clock, self._written)
        facts = EngineFacts(self.engine.engine_id, "26.1.5", "1.45", 4, 16 << 30)
        numbers = itertools.count(1)
        new_id = lambda: f"00000000-0000-7000-8000-{next(numbers):012x}"  # noqa: E731
        self.broker = Broker(Places(self.clock, self.journal, POLICY, facts, new_id), self)

    # What the broker is told of, and what is checked of it.

    def _written(self, record: Record, _line: bytes) -> None:
        self.records.append(record)
        if record.entry.stage in CLOSING:
            assert record.entry.id not in self.closed, f"{record.entry.id} is closed twice"
            self.closed[record.entry.id] = str(record.entry.result.get("settled", "outcome"))

    def look(self, path: str) -> Reply | Lost:
        return Reply(*self.engine.call("GET", path))

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable:
        return kernel.process(self.engine, command)

    def before(self, command: Command) -> None:
        self.count += bool(self.armed)
        self._die(command, "before")

    def after(self, command: Command) -> None:
        self._die(command, "after")

    def broker_died(self) -> None:
        """The next one is started by ``recover``."""

    def _die(self, _command: Command, when: str) -> None:
        if self.armed == "request":
            due = not self.plan.lost and (self.count, when) == (self.plan.at, self.plan.when)
        else:
            due = self.armed == "recovery" and when == "after" and self.count == self.plan.die_again
        if due:
            raise BrokerDied

    def forward(self, command: Forward) -> Reply | Lost:
        """Carry a change to the engine, as the plan wants it."""
        intent = self._intent_of(command)
        if self.armed != "request" or self.plan.at != self.count:
            return self._did(command, intent)
        if self.plan.effect == "did":
            answer: Reply | Lost = self._did(command, intent)
        else:
            answer = Lost("the connection broke")
        if self.plan.effect == "later":
            self.engine.later(self.plan.later_s, lambda: self._did(command, intent))
        return Lost("the connection broke") if self.plan.lost else answer

    def _intent_of(self, command: Forward) -> Record:
        """Return the durable, open intent that a change on the wire is of: there must be one."""
        intents = [r for r in self.records if r.entry.stage == "intent"]
        assert intents, f"{command.method} {command.path} without any intent"
        last = intents[-1]
        assert last.entry.id not in self.closed, f"{command.path} after its intent was closed"
        assert last.entry.verdict["decision"] in {"allow", "mutate", "audit-deny"}
        assert last.entry.request["method"] == command.method
        return last

    def _did(self, command: Forward, intent: Record) -> Reply:
        told = self.closed.get(intent.entry.id)
        status, body = self.engine.call(command.method, command.path, command.body or None)
        if status < 400:
            assert told != "not-applied", f"{command.path} happened after it was closed so"
            self.effects[intent.entry.id] += 1
        return Reply(status, body, JSON)

    # Life.

    def ask(
        self, method: str, path: str, body: object = None, query: str = "", actor: Actor = ROOT
    ) -> Reply:
        content = b"" if body is None else json.dumps(body).encode()
        headers: tuple[tuple[str, str], ...] = JSON if content else ()
        if actor.role is Role.CONTROLLER:
            headers += (("trimtab-context", CONTEXT),)
        target = path if path.startswith("/trimtab/") else f"/v1.45{path}"
        request = Request(method, target, query, headers, content, actor)
        value = self.broker.serve(request)
        assert isinstance(value, Reply)
        return value

    def must(self, method: str, path: str, body: object = None, query: str = "") -> Any:
        reply = self.ask(method, path, body, query)
        assert reply.status < 400, reply.body
        return json.loads(reply.body.partition(b"\r\n")[0]) if reply.body.startswith(b"{") else None

    def recover(self) -> int:
        """Let brokers live until nothing is open; return how many commands the first one gave."""
        end = self.clock.monotonic() + SETTLED_S
        gave = 0
        while True:
            if self.broker.state is None:
                gave = gave or self.count
                self.clock.advance(0.3)
                self.engine.settle()
                self.broker.start()
            if self.broker.mend_at is not None:
                self.clock.advance(max(0.0, self.broker.mend_at - self.clock.monotonic()))
                self.engine.settle()
                self.broker.mend()
            if self.broker.state is not None and not self.broker.state.inventory.open:
                break
            assert self.clock.monotonic() < end, "an intent stays open"
        return gave or self.count


SERVE = {"Image": WEB, "HostConfig": {"NetworkMode": "none"}}


def container(world: World, *, started: bool = True, network: str = "none") -> str:
    if network == "other":
        world.must("POST", "/networks/create", {"Name": network})
    body = {"Image": WEB, "HostConfig": {"NetworkMode": network}}
    made = world.must("POST", "/containers/create", body, "name=own")["Id"]
    if started:
        world.must("POST", f"/containers/{made}/start")
    return str(made)


def on_container(verb: str, method: str = "POST", *, query: str = "", body: object = None) -> Scene:
    def begin(world: World) -> Callable[[], Reply]:
        path = f"/containers/{container(world)}{verb}"
        return lambda: world.ask(method, path, body, query)

    return begin


def start(world: World) -> Callable[[], Reply]:
    path = f"/containers/{container(world, started=False)}/start"
    return lambda: world.ask("POST", path)


def unpause(world: World) -> Callable[[], Reply]:
    path = f"/containers/{container(world)}"
    world.must("POST", f"{path}/pause")
    return lambda: world.ask("POST", f"{path}/unpause")


def remove(world: World) -> Callable[[], Reply]:
    path = f"/containers/{container(world)}"
    world.must("POST", f"{path}/stop")
    return lambda: world.ask("DELETE", path)


def network(world: World) -> str:
    return str(world.must("POST", "/networks/create", {"Name": "lan"})["Id"])


def attached(verb: str) -> Scene:
    def begin(world: World) -> Callable[[], Reply]:
        path = f"/networks/{network(world)}"
        own = container(world, network="lan" if verb == "disconnect" else "other")
        return lambda: world.ask("POST", f"{path}/{verb}", {"Container": own})

    return begin


def network_remove(world: World) -> Callable[[], Reply]:
    path = f"/networks/{network(world)}"
    return lambda: world.ask("DELETE", path)


def volume_remove(world: World) -> Callable[[], Reply]:
    world.must("POST", "/volumes/create", {"Name": "data"})
    return lambda: world.ask("DELETE", "/volumes/data")


PULL = "fromImage=ghcr.io/platformnetwork/app&tag=1"


def image_remove(world: World) -> Callable[[], Reply]:
    world.must("POST", "/images/create", query=PULL)
    return lambda: world.ask("DELETE", f"/images/{APP}")


def exec_start(world: World) -> Callable[[], Reply]:
    made = world.must("POST", f"/containers/{container(world)}/exec", {"Cmd": ["true"]})["Id"]
    return lambda: world.ask("POST", f"/exec/{made}/start", {"Detach": True})


SLOT = {
    names.OWNER: "platform",
    names.NAMESPACE: "default",
    names.SERVICE: "web",
    names.SLOT: "1",
    names.REVISION: "v2:" + "5a" * 32,
    names.IMAGE: WEB,
}
PLACE = names.container_name("default", "web", slot=1, revision=SLOT[names.REVISION])


def release(world: World) -> Callable[[], Reply]:
    """A service's container, which the engine doesn't restart until it is released."""
    body = {"Image": WEB, "Labels": SLOT, "HostConfig": {"NetworkMode": "none"}}
    made = world.ask("POST", "/containers/create", body, f"name={PLACE}", CONTROLLER)
    assert made.status == 201, made.body
    own = str(json.loads(made.body)["Id"])
    started = world.ask("POST", f"/containers/{own}/start", actor=CONTROLLER)
    assert started.status == 204, started.body
    return lambda: world.ask("POST", "/trimtab/v1/releases", {"container": own})


Scene = Callable[[World], Callable[[], Reply]]
SCENES: dict[str, Scene] = {
    Mutation.CONTAINER_CREATE: lambda world: (
        lambda: world.ask("POST", "/containers/create", SERVE, "name=new")
    ),
    Mutation.CONTAINER_START: start,
    Mutation.CONTAINER_STOP: on_container("/stop", query="t=3"),
    Mutation.CONTAINER_RESTART: on_container("/restart", query="t=3"),
    Mutation.CONTAINER_KILL: on_container("/kill"),
    Mutation.CONTAINER_PAUSE: on_container("/pause"),
    Mutation.CONTAINER_UNPAUSE: unpause,
    Mutation.CONTAINER_RENAME: on_container("/rename", query="name=other"),
    Mutation.CONTAINER_UPDATE: on_container("/update", body={"CpuShares": 512}),
    Mutation.CONTAINER_REMOVE: remove,
    Mutation.CONTAINER_RELEASE: release,
    Mutation.EXEC_CREATE: on_container("/exec", body={"Cmd": ["true"]}),
    Mutation.EXEC_START: exec_start,
    Mutation.IMAGE_PULL: lambda world: lambda: world.ask("POST", "/images/create", None, PULL),
    Mutation.IMAGE_REMOVE: image_remove,
    Mutation.NETWORK_CREATE: lambda world: (
        lambda: world.ask("POST", "/networks/create", {"Name": "lan"})
    ),
    Mutation.NETWORK_REMOVE: network_remove,
    Mutation.NETWORK_CONNECT: attached("connect"),
    Mutation.NETWORK_DISCONNECT: attached("disconnect"),
    Mutation.VOLUME_CREATE: lambda world: (
        lambda: world.ask("POST", "/volumes/create", {"Name": "data"})
    ),
    Mutation.VOLUME_REMOVE: volume_remove,
}


def run(route: str, plan: Plan) -> tuple[World, int]:
    """Play one plan to its end and check it; return the world and the recovery's commands."""
    world = World(plan)
    act = SCENES[route](world)
    before = {record.entry.id for record in world.records}
    world.armed, world.count = "request", 0
    with suppress(BrokerDied):
        act()
    world.clock.jump(plan.jump_s)
    world.armed, world.count = "recovery" if plan.die_again else "", 0
    gave = world.recover()
    world.armed = ""
    world.clock.advance(SETTLED_S)
    world.engine.settle()  # whatever is late has come by now
    check(world, before)
    return world, gave


def check(world: World, before: set[str]) -> None:
    opened = [r.entry.id for r in world.records if r.entry.stage == "intent"]
    assert sorted(opened) == sorted(world.closed), "each intent is closed exactly once"
    assert set(world.effects) <= set(opened)
    for identifier in set(opened) - before:
        told, happened = world.closed[identifier], world.effects[identifier]
        assert not (told == "not-applied" and happened), f"{identifier}: {told} and it happened"
        assert not (told == "applied" and not happened), f"{identifier}: {told} and it never was"
    # Order is by seq, whatever the clock said.
    assert [record.seq for record in world.records] == list(range(1, len(world.records) + 1))


JUMPS = (0.0, -3600.0, 3600.0)


def commands_of(route: str) -> tuple[int, int]:
    """Return how many commands a change takes, and which of them goes to the engine."""
    world = World()
    act = SCENES[route](world)
    forwards: list[int] = []
    carried = world.forward

    def forward(command: Forward) -> Reply | Lost:
        forwards.append(world.count)
        return carried(command)

    world.forward = forward  # type: ignore[method-assign]
    world.armed, world.count = "count", 0
    reply = act()
    assert reply.status < 400, reply.body
    (sent,) = forwards
    return world.count, sent


def plans(route: str) -> Iterator[Plan]:
    """Every way in which one change of a route may go wrong."""
    count, sent = commands_of(route)
    for at, when, jump_s in itertools.product(range(1, count + 1), ("before", "after"), JUMPS):
        yield Plan(at=at, when=when, jump_s=jump_s)
    late = (0.05, 4.0, DEADLINES[route] * 0.9)
    for jump_s in JUMPS:
        for lost in (False, True):
            yield Plan(sent, "after", "didn't", lost=lost, jump_s=jump_s)
            for later_s in late:
                yield Plan(sent, "after", "later", later_s, lost, jump_s)
        yield Plan(sent, "after", "did", lost=True, jump_s=jump_s)


def test_every_route_that_changes_something_has_its_scene() -> None:
    # A delivery changes files of the broker's own: the stories of test_crash_sweep end it anywhere.
    # An adoption sends an update, and is settled as one: test_as_found.py has its lost answer.
    # A build and a tag are settled as a pull, by the image that the name means; nothing is built here.
    settled_as_others = {Mutation.CONTAINER_ADOPT, Mutation.IMAGE_BUILD, Mutation.IMAGE_TAG}
    assert set(SCENES) == set(Mutation) - {Mutation.FILES_DELIVER, *settled_as_others}
    # A prune is a sum of removals, each with an intent of its own.
    prunes = {"container.prune", "network.prune", "volume.prune"}
    routes = {route.name for route in ROUTES if route.kind == "mutate" and not route.own} - prunes
    # A release is a route of trimtab's own that changes the engine.
    assert routes - settled_as_others == set(SCENES) - {Mutation.CONTAINER_RELEASE}


RUNS: Counter[str] = Counter()


@pytest.mark.parametrize("route", SCENES)
def test_wherever_the_broker_dies_each_intent_is_closed_once_and_rightly(route: str) -> None:
    for plan in plans(route):
        try:
            _, gave = run(route, plan)
            RUNS[route] += 1
            # And once more, with a broker that dies at each command of its recovery.
            if plan.jump_s == 0.0 and plan.effect != "did":
                for die_again in range(1, gave + 1):
                    run(route, Plan(**{**vars(plan), "die_again": die_again}))
                    RUNS[route] += 1
        except AssertionError as error:
            raise AssertionError(f"{route}: {plan}: {error}") from error


def test_the_sweep_is_as_long_as_it_says() -> None:
    """After the others; one route alone is no sweep."""
    if len(RUNS) == len(SCENES):
        print(f"\nrecovery sweep: {sum(RUNS.values())} runs over {len(RUNS)} routes")
        assert sum(RUNS.values()) >= 1000
