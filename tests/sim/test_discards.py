"""Engines that drop a member of each create and update: nothing is repeated for ever.

For every member of the tables of a create, a service that declares the member runs on an engine that
drops it without a word. Everything that the engine is asked to change is counted.
"""

from __future__ import annotations

import json

import pytest

from controller.broker.handlers import container_create
from controller.core.drift import classify
from controller.core.drift.classify import still_ignored
from controller.core.engine_api.field_reader import Posture
from controller.core.engine_api.field_tables import CONFIG, ENDPOINT, HOST_CONFIG
from controller.model.policy.document import Policy
from tests.sim.doomed import DoomedWorld
from tests.sim.engine import Answer
from tests.sim.ground import POLICY
from tests.sim.objects import Body, SimContainer
from tests.sim.planted import Plant, always
from tests.sim.stories import WEB, Tale, service

#: Members that the service doesn't ask for, or that the simulated engine doesn't have.
UNSENT = frozenset(
    [
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "AutoRemove",
        "Binds",
        "CgroupnsMode",
        "ConsoleSize",
        "CpuPeriod",
        "CpuQuota",
        "DeviceRequests",
        "Devices",
        "IpcMode",
        "Isolation",
        "MemorySwappiness",
        "NetworkDisabled",
        "ReadonlyRootfs",
        "Shell",
        "StdinOnce",
        "StorageOpt",
        "Tmpfs",
        "TrimtabEnv",
        "TrimtabHooks",
        "TrimtabShares",
        "Volumes",
    ]
)
#: An engine that drops the image refuses the create, which is tried again as any failed one.
FIELDS = sorted(
    {
        entry.name
        for entry in (*CONFIG, *HOST_CONFIG, *ENDPOINT)
        if entry.posture not in {Posture.DENY, Posture.DROP}
    }
    - {"HostConfig", "Image", *UNSENT}
    # The address of the slot, which the broker writes.
    | {"IPAMConfig"}
)
#: With everything that a document can ask of an engine.
RICH = service(
    WEB,
    entrypoint=["/bin/work"],
    command=["/bin/serve"],
    hostname="here",
    groupAdd=["4000"],
    domainname="example.org",
    tty=True,
    stdin=True,
    stopSignal="SIGINT",
    dns={"servers": ["192.0.2.1"], "search": ["example.org"], "options": ["ndots:2"]},
    extraHosts={"other": "192.0.2.2"},
    sysctls={"net.core.somaxconn": "64"},
    ulimits={"nofile": 64},
    oomScoreAdj=10,
    mounts=[{"type": "tmpfs", "target": "/scratch", "size": "1Mi"}],
    network={"aliases": ["site"]},
    user="1000:1000",
    workingDir="/bin",
    init=True,
    security={"capAdd": ["CHOWN"], "runtime": "crun"},
    containerLabels={"tier": "x"},
    healthcheck={"exec": ["check"], "interval": "10s"},
    ports=[{"container": 8081, "host": 18080}],
    resources={
        "memory": "64Mi",
        "memoryReservation": "32Mi",
        "cpus": 0.5,
        "cpuShares": 512,
        "cpuset": "0-1",
        "pids": 64,
        "shm": "1Mi",
    },
    restart={"policy": "Always"},
)
#: The sections of a policy that admits the service.
GRANTS = {
    "security": {"groupAdd": True, "runtimes": ["runc", "crun"], "sysctls": ["net.core.somaxconn"]},
    "resources": {"cpuset": True},
    "networks": {
        "serviceAliases": True,
        "dns": {"servers": ["192.0.2.0/24"], "search": True, "options": True},
        "extraHosts": ["addresses"],
    },
}
LIMITS = ("memory", "swap", "cpus", "pids")
#: Repairs, starts and replacements on the way: more is a loop.
ACTS_MAX = 40
BESIDE = frozenset({"HostConfig", "Image"})
PLANTS = (
    Plant(
        10,
        "dropped-limit-is-an-alteration",
        "a limit that the engine dropped is repaired again and again",
        ((classify, "is_ignored", always(lambda *_: False)),),
    ),
    Plant(
        10,
        "dropped-members-unseen",
        "nobody looks at what the engine kept of a create and an update",
        (
            (container_create, "ignored_by_create", always(lambda *_: ())),
            (container_create, "ignored_by_update", always(lambda *_: ())),
        ),
    ),
)
#: The service begins within so long, and is looked at for as long again.
BEGIN_S, REST_S = 600.0, 900.0


class DiscardingWorld(DoomedWorld):
    """A world of one service, whose engine drops members of creates and updates."""

    def __init__(self, *discards: str, admits: tuple[str, ...] = LIMITS) -> None:
        self._admits = admits
        super().__init__(Tale(frozenset(), (RICH,)))
        self.checkers.breaching = True  # an engine without hardening makes violations
        self.engine.discards = frozenset(discards)
        self.acts: list[tuple[float, str]] = []
        self.sent: Body = {}
        self.told: frozenset[str] = frozenset()
        self._call = self.engine.call
        self.engine.call = self._counted  # type: ignore[method-assign]

    def make_policy(self) -> Policy:
        given = {**POLICY.to_json(), **GRANTS, "engine": {"ignores": self._admits}}
        return Policy.from_json(given)

    def _counted(self, method: str, target: str, body: bytes | None = None) -> Answer:
        path = target.partition("?")[0]
        if method != "GET":
            self.acts.append((self.clock.monotonic() - 1000.0, f"{method} {path}"))
        if path.endswith("/containers/create"):
            self.sent = json.loads(body or b"{}")
        return self._call(method, target, body)

    def lived(self) -> DiscardingWorld:
        with self.begun():
            self.live(BEGIN_S + REST_S)
            assert self.controller is not None
            shown = self.controller.loop.plan_everything()
        texts = [each.message for each in shown.plan.problems if each.code == "engine.ignores"]
        # What the condition EngineIgnores of the status has.
        texts += [name for each in shown.observed.containers for name in still_ignored(each)]
        stages = {"refusal", "violation"}
        refused = [e.entry for e in self.journal.records() if e.entry.stage in stages]
        texts += [str(entry.verdict["rules"]) for entry in refused]
        self.told = frozenset(texts)
        return self

    @property
    def late(self) -> list[tuple[float, str]]:
        """What was asked of the engine after the service had begun."""
        return [(at, act) for at, act in self.acts if at > BEGIN_S]

    @property
    def containers(self) -> list[SimContainer]:
        return list(self.engine.containers.values())


def members(body: Body) -> set[str]:
    """Return the set members of a create's body."""
    ends = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    parts = (body, body["HostConfig"], *ends.values())
    return {name for part in parts for name, value in part.items() if value}


def test_an_engine_that_keeps_everything_is_told_of_nothing() -> None:
    world = DiscardingWorld().lived()
    assert [container.status for container in world.containers] == ["running"]
    assert (world.late, world.told) == ([], frozenset())
    # A new field of a create is declared by RICH, or is in UNSENT.
    assert members(world.sent) == {*FIELDS, *BESIDE}


@pytest.mark.parametrize("field", FIELDS)
def test_an_engine_that_drops_a_member_of_a_create_is_asked_a_bounded_number_of_times(
    field: str,
) -> None:
    world = DiscardingWorld(field).lived()
    assert (len(world.acts) < ACTS_MAX, world.late) == (True, [])
    assert world.told, f"nobody is told that the engine ignores {field}"


@pytest.mark.parametrize("field", ["Memory", "MemorySwap", "NanoCpus", "PidsLimit"])
def test_no_container_runs_without_a_limit_that_the_policy_requires(field: str) -> None:
    world = DiscardingWorld(field, admits=()).lived()
    assert (world.containers, len(world.acts) < ACTS_MAX, world.late) == ([], True, [])
    again = DiscardingWorld(field).lived()
    assert [container.status for container in again.containers] == ["running"]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_planted_bug_about_dropped_members_is_found(plant: Plant) -> None:
    with plant.growing():
        world = DiscardingWorld("CpuShares", "RestartPolicy").lived()
    assert world.late or len(world.acts) >= ACTS_MAX
