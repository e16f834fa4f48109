"""The project's own adapter and gate, over a simulated and a real engine: they see the same.

Each action is performed through the real gate on either engine, and what is observed after it is
compared whole; ids, times and addresses count by their order only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from controller.broker.gate.commands import Command, Forward, Lost, ReadProcess
from controller.core.drift.actions import ContainerHandle
from controller.core.engine_api.create_body import RESTART
from controller.engine.adapter import BrokerEngine
from controller.model.confinement import NotReadable
from controller.model.desired.desired import Service, SourceLocation
from controller.model.desired.plan import (
    AnyAction,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    PullImage,
    RemoveNetwork,
)
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import EngineError
from controller.model.names import Key, NetworkNames, container_name, service_key
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from controller.model.records import Context, Precondition, Reply
from controller.ports import EngineFacts
from tests.contract.sides import WORKER, Conversation, RealSide, Side, SimSide
from tests.engine import Engine
from tests.sim.broker import Places, SimBroker
from tests.sim.clock import VirtualClock
from tests.sim.controller import SimTransport
from tests.sim.journal import SimJournal

POLICY = Policy.model_validate_json(
    """{"name": "contract", "profile": "development",
        "images": {"allow": ["trimtab.local/", "127.0.0.1:9/"], "trustLocal": ["trimtab.local/"]},
        "networks": {"isolated": "contract-net", "ingress": "contract-in",
                     "bridge": "contract-bridge"}}"""
)
NAMES: NetworkNames = POLICY.networks.names
WEB = service_key("default", "contract-web")
SPEC = {
    "image": WORKER,
    "env": {"A": "1"},
    "stopGracePeriod": "3s",
    "ports": [{"container": 8080, "host": 18442}],
    "mounts": [{"type": "volume", "source": "contract-data", "target": "/data"}],
    "resources": {"memory": "64Mi", "cpus": 0.5, "pids": 40},
    "security": {"readOnlyRootFilesystem": True},
    "healthcheck": {"exec": ["/bin/true"], "interval": "30s"},
}
SERVICE = Service(
    key=WEB,
    owner="team",
    spec=ServiceSpec.model_validate_json(json.dumps(SPEC)),
    revision="v2:" + "ab" * 32,
    source=SourceLocation("web.yaml", 1),
)
NAME = container_name("default", "contract-web", slot=1, revision=SERVICE.revision)
LIMITS: dict[str, Any] = {"memory": 96 << 20, "memory_swap": 96 << 20, "pids": 50}
UNPULLABLE = "127.0.0.1:9/nothing:1"


class Wire:
    """What is around the broker: the engine of one side."""

    reachable = True

    def __init__(self, side: Side) -> None:
        self._side = side

    def look(self, path: str) -> Reply | Lost:
        return Reply(*self._side.raw("GET", path, None))

    def forward(self, command: Forward) -> Reply | Lost:
        return Reply(*self._side.raw(command.method, command.path, command.body or None))

    def process(self, _command: ReadProcess) -> NotReadable:
        """The adapter sees no process, here or there: the broker alone looks."""
        return NotReadable("no process is looked at here")

    def before(self, _command: Command) -> None:
        """Nothing happens between commands here."""

    def after(self, _command: Command) -> None:
        """Nor here."""

    def broker_died(self) -> None:
        """Nobody ends it."""


def nothing(*_: object) -> None:
    """Look at nothing."""


class Through:
    """The adapter, through the real gate, to one side's engine."""

    def __init__(self, side: Side) -> None:
        clock = VirtualClock()
        journal = SimJournal(clock, lambda _record, _line: None)
        numbers = iter(range(1, 1000))

        def new_id() -> str:
            return f"00000000-0000-7000-8000-{next(numbers):012x}"

        facts = EngineFacts("engine", "26.1", "1.45", 2, 8 << 30)
        broker = SimBroker(Places(clock, journal, POLICY, facts, new_id), Wire(side))
        transport = SimTransport(broker, lambda _action, request: broker.serve(request), nothing)
        self.engine = BrokerEngine(transport, networks=lambda: NAMES, pause=clock.advance)

    def perform(self, action: AnyAction) -> str:
        """Do one action; return 'done', or the error's class and code."""
        try:
            self.engine.perform(action, Context(cause="contract"))
        except EngineError as error:
            return f"{type(error).__name__} {error.code}"
        return "done"

    def observe(self) -> Observed:
        """Take a snapshot in parts; one of the only service in a single request is the same."""
        images = frozenset({WORKER, "trimtab.local/none:1"})
        whole = self.engine.observe(images=images)
        assert self.engine.observe(images=images, only=WEB) == whole
        return whole


def told(observed: Observed, ids: dict[str, str]) -> dict[str, Any]:
    """A snapshot as a value that is the same on every engine."""

    def alias(identifier: str) -> str:
        return ids.setdefault(identifier, f"id{len(ids)}") if identifier else ""

    containers = [
        {
            **asdict(container),
            "id": alias(container.id),
            "image_id": alias(container.image_id),
            "addresses": [name for name, _address in container.addresses],
            # Held against the engine's clock, which isn't the broker's virtual one here.
            "ending": None,
            "started_at": bool(container.started_at),
            "finished_at": bool(container.finished_at),
        }
        for container in observed.containers
    ]
    networks = [
        # Each engine chooses the subnets of its networks.
        {**asdict(network), "id": alias(network.id), "subnets": len(network.subnets)}
        for network in observed.networks
    ]
    images = {
        name: image and {**asdict(image), "id": alias(image.id)}
        for name, image in observed.images.items()
    }
    return {
        "containers": containers,
        "networks": networks,
        "volumes": [asdict(volume) for volume in observed.volumes],
        "images": images,
        "pins": {revision: alias(image.id) for revision, image in observed.pins.items()},
    }


def creation(name: str = NAME, *, with_alias: bool = False) -> CreateContainer:
    return CreateContainer(
        with_alias=with_alias,
        object=WEB,
        target=name,
        cause="missing",
        slot=1,
        precondition=Precondition(absent=name),
        service=SERVICE,
        image=WORKER,
    )


def supplies() -> Iterator[AnyAction]:
    for name, internal in (("contract-net", True), ("contract-in", False)):
        yield CreateNetwork(
            object=WEB,
            target=name,
            cause="first used",
            owner="team",
            internal=internal,
            masquerade=internal,
            icc=internal,
        )
    yield CreateVolume(object=WEB, target="contract-data", cause="first used", owner="team")
    yield PullImage(object=WEB, target=UNPULLABLE, cause="isn't here")


def on_container(observed: Observed) -> list[AnyAction]:
    """What is done with the first container, in order."""
    handle = ContainerHandle.of(observed.containers[0])
    policy = RESTART[SERVICE.spec.restart.policy]
    return [
        handle.start("created"),
        handle.start("again"),
        handle.remove("while it runs"),
        replace(handle.set_restart_policy(("no", 0), "limits"), restart="", limits=LIMITS),
        handle.disconnect("contract-net", "to be announced"),
        handle.disconnect("contract-net", "again"),
        handle.connect("contract-net", (WEB.name,), "announced"),
        handle.connect("contract-net", (WEB.name,), "again"),
        handle.disconnect("contract-in", "to be joined without a name"),
        handle.connect("contract-in", (), "joined"),
        handle.rename(f"{NAME}.x", "names are final"),
        handle.unpause("isn't paused"),
        handle.set_restart_policy(("no", 0), "before a stop"),
        handle.stop(3, "too many"),
        handle.stop(3, "again"),
        handle.disconnect("contract-net", "while it is down"),
        handle.connect("contract-net", (WEB.name,), "while it is down"),
        handle.set_restart_policy(policy, "back"),
        handle.remove("done with"),
        handle.remove("again"),
    ]


def story(side: Side) -> list[tuple[str, str, Any]]:
    """Every action once, and once where it doesn't fit: its result and what is seen then."""
    through, ids = Through(side), dict[str, str]()
    chapters: list[tuple[str, str, Any]] = []

    def act(action: AnyAction) -> None:
        result = through.perform(action)
        chapters.append((action.verb, result, told(through.observe(), ids)))

    for action in (*supplies(), *supplies()):
        act(action)
    act(creation())
    act(creation())
    for action in on_container(through.observe()):
        act(action)
    act(creation(with_alias=True))
    act(ContainerHandle.of(through.observe().containers[0]).remove("seen"))
    for network in through.observe().networks:
        key = Key("Network", "default", network.name)
        precondition = Precondition(id=network.id)
        act(RemoveNetwork(object=key, target=network.name, cause="", precondition=precondition))
    return chapters


def test_the_adapter_sees_the_same_through_the_gate_on_both_engines(engine: Engine) -> None:
    stories = []
    simulation = SimSide()
    simulation.engine.registry_up = False
    for side in (simulation, RealSide(engine)):
        say = Conversation(side)
        clean(say)
        try:
            stories.append(story(side))
        finally:
            clean(say)
    simulated, real = stories
    assert [chapter[:2] for chapter in simulated] == [chapter[:2] for chapter in real]
    for mine, theirs in zip(simulated, real, strict=True):
        assert mine == theirs, mine[0]
    results = [result for _verb, result, _seen in simulated]
    assert results.count("done") > len(results) / 2


def clean(say: Conversation) -> None:
    mine = {"name": ["contract-"]}
    for each in say.ask("GET", "/containers/json", all="1", filters=mine).json:
        say.ask("DELETE", f"/containers/{each['Id']}", force="1")
    for each in say.ask("GET", "/networks", filters=mine).json:
        say.ask("DELETE", f"/networks/{each['Id']}")
    say.ask("DELETE", "/volumes/contract-data")
