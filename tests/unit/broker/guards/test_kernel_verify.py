"""Looking at what runs: when it is let alone, and how it is stopped, as dialogues."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import (
    Forward,
    InspectPaths,
    ReadCdiFiles,
    ReadEngine,
    ReadProcess,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.guards import kernel_verify
from controller.broker.guards.kernel_verify import PAUSES_S, REMEDY
from controller.core.enforcement.kernel import PolicyBounds
from controller.core.engine_api.cdi import CdiFile
from controller.core.records.inventory_json import settings_to_json
from controller.engine.requests import EngineResponse
from controller.engine.responses import error_of
from controller.model.confinement import (
    UNLIMITED,
    CgroupLimits,
    Confinement,
    EffectiveState,
    ExpectedDevice,
    ExpectedMount,
    MountinfoLine,
    MountPath,
    NotReadable,
    Root,
)
from controller.model.host_paths import PathFacts
from controller.model.inventory import OwnedObject
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.records import Entry
from tests.unit.broker.dialogue import (
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.world import NETWORK, WEB, inspect, inventory, labels, network, policy

MIB = 1024**2
PID = 4242
ADMITTED = Settings(
    "alice-web",
    memory=64 * MIB,
    memory_swap=64 * MIB,
    nano_cpus=10**9,
    pids=100,
    restart="always",
    networks=("alice-net",),
)
SOURCE = "/var/lib/platform/x"
CONFINED = Confinement(
    ("CHOWN",), mounts=(ExpectedMount("bind", "/data", SOURCE, device=8, inode=7),)
)
HOST = {
    "NetworkMode": "alice-net",
    "Memory": 64 * MIB,
    "MemorySwap": 64 * MIB,
    "NanoCpus": 10**9,
    "PidsLimit": 100,
    "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    "Runtime": "runc",
}
RUNS = {"Status": "running", "Running": True, "Pid": PID}
PLAIN = frozenset({"rw"})
EFFECTIVE = EffectiveState(
    capabilities={"Eff": 0, "Bnd": 1},
    mounts=(
        MountinfoLine(9, "/x", "/data", PLAIN, shared=False, filesystem="ext4", settings=PLAIN),
    ),
    reached=(MountPath("/data", 9),),
    roots=(Root(9, 8, 7),),
    limits=CgroupLimits(64 * MIB, 64 * MIB, 10**9, 100),
)
UNBOUND = replace(EFFECTIVE, limits=replace(EFFECTIVE.limits, pids=UNLIMITED))
PLACE = {"name": "alice-web", "owner": "alice", "namespace": "", "service": "web"}
START = f"/containers/{WEB}/start"


def knowing(by: Policy | None = None, **more: Any) -> GateState:
    """Return a gate that knows alice's container as it was admitted."""
    item = replace(inventory().containers[WEB], admitted=ADMITTED, **{"confined": CONFINED, **more})
    return state(inventory(containers={WEB: item}), policy=by)


def shown(**more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "State": RUNS,
        "HostConfig": HOST,
        "Mounts": [{"Type": "bind", "Source": SOURCE}],
        "NetworkSettings": {"Networks": {"alice-net": {"NetworkID": NETWORK}}},
        **more,
    }
    return inspect(WEB, "alice-web", "alice", **told)


def seen(**more: Any) -> Step:
    return (ReadEngine(f"/containers/{WEB}/json"), reply(shown(**more)))


def read(answer: object, pause_s: float = 0.0) -> Step:
    return (ReadProcess(PID, WEB, ("/data",), pause_s), answer)


def often(answer: object) -> list[Step]:
    """The looks after which a difference counts."""
    return [step for pause_s in PAUSES_S for step in (seen(), read(answer, pause_s))]


def look(knows: GateState, dialogue: list[Step]) -> Told:
    return converse(kernel_verify.verify_container(knows, WEB), dialogue, knows)


STOPPING: list[Step] = [
    ("violation", RECORDED),
    ("intent", RECORDED),
    (
        Forward(
            "POST",
            f"/containers/{WEB}/update",
            b'{"RestartPolicy": {"Name": "no"}}',
            deadline_s=15.0,
        ),
        reply({"Warnings": None}),
    ),
    ("outcome", RECORDED),
    ("intent", RECORDED),
    (Forward("POST", f"/containers/{WEB}/kill", deadline_s=15.0), NO_CONTENT),
    ("outcome", RECORDED),
]


def test_what_runs_as_admitted_is_let_alone() -> None:
    told = look(knowing(), [seen(), read(EFFECTIVE)])
    assert (told.value.text, told.entries) == ("verified", [])


def test_a_breach_is_recorded_and_ended_for_good() -> None:
    knows = knowing()
    told = look(knows, [*often(UNBOUND), *STOPPING])
    violation, update, updated, kill, killed = told.entries
    assert violation.id == "id-1"
    assert violation.request["route"] == "container.start"
    assert (violation.request["object"], violation.request["summary"]) == (WEB, PLACE)
    assert violation.actor["role"] == "broker"
    assert violation.verdict == {
        "decision": "deny",
        "rules": ["effective.limit"],
        "mutations": [],
        "policy": knows.policy.digest,
    }
    assert violation.result == {"found": ["processes have no limit"]}
    settings = settings_to_json(replace(ADMITTED, restart="no"))
    assert update.request["summary"] == {
        **PLACE,
        "settings": settings,
        "fields": ["RestartPolicy"],
    }
    assert (kill.request["route"], kill.request["summary"]) == ("container.kill", PLACE)
    for intent in (update, kill):
        assert intent.actor["role"] == "broker"
        assert intent.claims["cause"] == "violation id-1"
        assert intent.verdict["rules"] == ["violation.stop"]
    assert [updated.result["status"], killed.result["status"]] == [200, 204]
    item = knows.inventory.containers[WEB]
    assert (item.violation, item.effective, item.admitted) == ("id-1", "violation", ADMITTED)
    assert not knows.inventory.open


def controllers() -> GateState:
    """A gate to which that container is the controller's."""
    return knowing(origin="controller", namespace="default", owner="team")


def put_back(*changes: tuple[str, dict[str, Any]]) -> list[Step]:
    steps: list[Step] = [("violation", RECORDED)]
    for path, body in changes:
        sent = Forward("POST", path, json.dumps(body).encode(), deadline_s=15.0)
        steps += [("intent", RECORDED), (sent, reply({})), ("outcome", RECORDED)]
    return steps


LIMITED = (
    f"/containers/{WEB}/update",
    {"Memory": 64 * MIB, "MemorySwap": 64 * MIB, "NanoCpus": 10**9, "PidsLimit": 100},
)


def test_limits_of_the_controllers_own_are_put_back_and_it_runs_on() -> None:
    knows = controllers()
    told = look(knows, [*often(UNBOUND), *put_back(LIMITED), seen(), read(EFFECTIVE)])
    violation, update, _ = told.entries
    assert violation.result == {"found": ["processes have no limit"], "putBack": True}
    assert update.actor["role"] == "broker"
    assert update.claims["cause"] == "violation id-1: processes have no limit"
    assert update.verdict["rules"] == ["violation.put-back"]
    item = knows.inventory.containers[WEB]
    assert (item.violation, item.admitted, told.value.text) == ("", ADMITTED, "verified")


@pytest.mark.parametrize(
    ("ends", "cause"),
    [
        ({"alice-net": NETWORK, "strays": "f" * 64}, "strays: not admitted"),
        # Made anew by hand, under the name and the labels of the network that is gone: perhaps with a way out.
        ({"alice-net": "f" * 64}, "alice-net: a foreign one of that name"),
    ],
)
def test_the_controllers_own_is_taken_off_a_strangers_network(
    ends: dict[str, str], cause: str
) -> None:
    ends_shown = {name: {"NetworkID": network} for name, network in ends.items()}
    joined = shown(NetworkSettings={"Networks": ends_shown})
    look_again = (ReadEngine(f"/containers/{WEB}/json"), reply(joined))
    in_it = [step for pause_s in PAUSES_S for step in (look_again, read(EFFECTIVE, pause_s))]
    off = (f"/networks/{'f' * 64}/disconnect", {"Container": WEB})
    told = look(controllers(), [*in_it, *put_back(off), seen(), read(EFFECTIVE)])
    assert told.entries[0].verdict["rules"] == ["effective.network"]
    assert told.entries[1].claims["cause"] == f"violation id-1: it is in the network {cause}"


def test_a_container_with_an_irreversible_breach_is_ended() -> None:
    knows = controllers()
    look(knows, [*often(UNBOUND), *put_back(LIMITED), *often(UNBOUND), *STOPPING])
    assert knows.inventory.containers[WEB].violation
    privileged = replace(UNBOUND, no_new_privileges=False)
    look(controllers(), [*often(privileged), *STOPPING])


def test_a_repeatedly_changed_container_is_ended() -> None:
    knows = controllers()
    mended: list[Step] = [*often(UNBOUND), *put_back(LIMITED), seen(), read(EFFECTIVE)]
    for _ in range(3):
        look(knows, mended)
    knows.clock.passed += 599  # type: ignore[attr-defined]
    look(knows, [*often(UNBOUND), *STOPPING])
    knows.clock.passed += 2  # type: ignore[attr-defined]
    look(knows, mended)


def test_a_container_without_a_restart_policy_is_only_killed() -> None:
    host = {**HOST, "RestartPolicy": {"Name": "no"}}
    looks = [
        step for pause_s in PAUSES_S for step in (seen(HostConfig=host), read(UNBOUND, pause_s))
    ]
    look(knowing(), [*looks, STOPPING[0], *STOPPING[4:]])


def test_a_difference_that_passes_is_none() -> None:
    """As when an engine changes two limits one after the other."""
    dialogue = [seen(), read(UNBOUND), seen(), read(EFFECTIVE, PAUSES_S[1])]
    assert look(knowing(), dialogue).value.text == "verified"


def test_a_process_that_hasn_t_begun_is_waited_for() -> None:
    """The runtime's own has no filter of system calls yet."""
    early = replace(EFFECTIVE, seccomp=0, starting=True)
    dialogue = [
        *often(early),
        seen(),
        read(early, PAUSES_S[-1]),
        seen(),
        read(EFFECTIVE, PAUSES_S[-1]),
    ]
    assert look(knowing(), dialogue).value.text == "verified"


def test_one_that_says_for_ever_that_it_hasn_t_begun_is_judged_as_it_is() -> None:
    """Any process may take the runtime's name."""
    early = replace(UNBOUND, starting=True)
    more = [
        s for _ in range(kernel_verify.STARTING_LOOKS) for s in (seen(), read(early, PAUSES_S[-1]))
    ]
    told = look(knowing(), [*often(early), *more, *STOPPING])
    assert told.entries[0].stage == "violation"


@pytest.mark.parametrize(
    ("dialogue", "text"),
    [
        ([seen(State={"Pid": 0})], "unverified: exited already"),
        ([(ReadEngine(f"/containers/{WEB}/json"), NOT_FOUND)], "unverified: exited already"),
        ([seen(), read(NotReadable("it ended", gone=True))], "unverified: exited already"),
        (often(NotReadable("no right")), "unverified: no right"),
        (
            [*often(NotReadable("no such process"))[:2], seen(State={"Pid": 0})],
            "unverified: exited already",
        ),
        (
            [seen(HostConfig={**HOST, "Runtime": "runsc"})],
            "unverified: the runtime runsc shows no processes",
        ),
        (
            [(ReadEngine(f"/containers/{WEB}/json"), lost())],
            "unverified: the engine doesn't answer",
        ),
        (
            [seen(), read(replace(EFFECTIVE, limits=replace(EFFECTIVE.limits, memory_swap=None)))],
            "unverified: the limit of swap can't be seen",
        ),
    ],
)
def test_what_can_t_be_seen_is_said_and_goes_on(dialogue: list[Step], text: str) -> None:
    assert look(knowing(), dialogue).value.text == text


def test_a_policy_may_end_what_can_t_be_seen() -> None:
    strict = policy(security={"unverified": "stop"})
    told = look(knowing(strict), [*often(NotReadable("no right")), *STOPPING])
    assert told.entries[0].verdict["rules"] == ["effective.unverified"]


@pytest.mark.parametrize(
    "dialogue",
    [[seen(State={"Pid": 0})], [seen(), read(NotReadable("it ended", gone=True))]],
)
def test_what_exited_is_never_a_reason_to_stop(dialogue: list[Step]) -> None:
    strict = policy(security={"unverified": "stop"})
    assert look(knowing(strict), dialogue).entries == []


def test_what_an_older_journal_has_is_unverified_under_every_policy() -> None:
    strict = policy(security={"unverified": "stop"})
    told = look(knowing(strict, confined=None), [])
    assert told.value.text == (
        "unverified: it was created before trimtab recorded settings to compare"
    )


def test_without_a_journal_nothing_is_stopped() -> None:
    told = look(knowing(), [*often(UNBOUND), ("violation", UNRECORDED)])
    assert [entry.stage for entry in told.entries] == ["violation"]


def test_what_is_looked_at_already_and_what_isn_t_ours_is_passed_over() -> None:
    knows = knowing()
    with knows.verification.holding(WEB):
        assert look(knows, []).value is None
    assert converse(kernel_verify.verify_container(knows, "f" * 64), [], knows).value is None


def test_a_check_that_ends_during_a_start_leaves_the_container_to_the_start() -> None:
    # A second check would end the container, and the start be answered as if the container ran.
    knows = knowing()
    check = kernel_verify.verify_container(knows, WEB)
    next(check)
    with knows.verification.holding(WEB):
        with pytest.raises(StopIteration):
            check.send(reply(shown(State={"Status": "created", "Pid": 0})))
        assert look(knows, []).value is None
    assert not knows.verification.in_progress


def test_what_must_be_stopped_is_stopped_while_its_last_change_is_open() -> None:
    knows = knowing()
    entry = Entry("older", "intent", request={"route": "container.start", "object": WEB})
    converse(write(entry), [("intent", RECORDED)], knows)
    look(knows, [*often(UNBOUND), *STOPPING])
    assert list(knows.inventory.open) == ["older"]


def write(entry: Entry) -> Any:
    yield WriteRecord(entry)


# Networks


@pytest.mark.parametrize(
    ("networks", "text"),
    [
        ({"alice-net": "f" * 64}, "violation"),  # another one of that name
        ({"alice-net": NETWORK, "bridge": "f" * 64}, "violation"),
        ({"alice-net": NETWORK, "none": "f" * 64}, "verified"),
        ({"alice-net": NETWORK, "later": ""}, "verified"),  # not joined yet
        ({"alice-net": NETWORK, "alice-2": "1" * 64}, "verified"),  # drift
        ({"alice-net": NETWORK, "bob-net": "2" * 64}, "violation"),
    ],
)
def test_networks_are_told_by_their_ids(networks: dict[str, str], text: str) -> None:
    known = {
        NETWORK: OwnedObject(NETWORK, "alice-net", "default", "alice", "client", "i0"),
        "1" * 64: OwnedObject("1" * 64, "alice-2", "default", "alice", "client", "i0"),
        "2" * 64: OwnedObject("2" * 64, "bob-net", "other", "bob", "client", "i0"),
    }
    knows = knowing()
    knows.inventory = replace(knows.inventory, networks=known)
    ends = {"Networks": {name: {"NetworkID": key} for name, key in networks.items()}}
    item = knows.inventory.containers[WEB]
    told = kernel_verify.joined_of(knows, item, knows.policy, shown(NetworkSettings=ends))
    foreign = [each.name for each in told if not each.own]
    assert bool(foreign) is (text == "violation")


def test_an_exception_is_part_of_what_the_policy_admits() -> None:
    grant = {
        "owner": "alice",
        "namespace": "default",
        "service": "web",
        "repository": "ghcr.io/platformnetwork/web",
        "for": "clients",
        "reason": "it needs more of it",
        "expires": "2026-01-02",
        "loosens": {"memoryMax": "16Gi", "pidsMax": 1024},
    }
    made = knowing().inventory.containers[WEB]
    item = replace(made, service="web", image="ghcr.io/platformnetwork/web:1")
    document = replace(item, namespace="default", origin="controller")
    now = 1767268800.0  # noon of the first of January
    none, more = PolicyBounds(8 << 30, 4 * 10**9, 512), PolicyBounds(16 << 30, 4 * 10**9, 1024)
    for_clients = policy(exceptions=[grant])
    for_documents = policy(exceptions=[{**grant, "for": "documents"}])
    assert kernel_verify.bounds_of(policy(), item, now) == none
    assert kernel_verify.bounds_of(for_clients, item, now) == more
    assert kernel_verify.bounds_of(for_documents, document, now) == more
    for rules, its, late_s in (
        (for_clients, item, 2 * 86400),
        (for_clients, document, 0),
        (for_documents, item, 0),
        (for_clients, replace(item, image="ghcr.io/platformnetwork/db:1"), 0),
    ):
        assert kernel_verify.bounds_of(rules, its, now + late_s) == none


# Through the gate


def ask(knows: GateState, verb: str, dialogue: list[Step]) -> Told:
    path = f"/containers/{WEB}/{verb}"
    return converse(handle(request("POST", path), knows), dialogue, knows)


SAME = (PathFacts(SOURCE, "dir", device=8, inode=7),)
BEFORE: list[Step] = [
    seen(),
    (ReadEngine("/networks/alice-net"), reply(network(NETWORK, "alice-net", "alice"))),
    (InspectPaths((SOURCE,)), SAME),
]


def test_a_start_says_in_its_outcome_what_the_kernel_showed() -> None:
    knows = knowing()
    dialogue: list[Step] = [
        *BEFORE,
        ("intent", RECORDED),
        (Forward("POST", START), NO_CONTENT),
        seen(),
        read(EFFECTIVE),
        ("outcome", RECORDED),
    ]
    told = ask(knows, "start", dialogue)
    assert told.status == 204
    assert told.entries[-1].result["effective"] == "verified"
    assert knows.inventory.containers[WEB].effective == "verified"
    assert not knows.verification.in_progress


def test_a_start_of_what_differs_is_recorded_ended_and_refused() -> None:
    knows = knowing()
    dialogue: list[Step] = [
        *BEFORE,
        ("intent", RECORDED),
        (Forward("POST", START), NO_CONTENT),
        *often(UNBOUND),
        ("outcome", RECORDED),
        *STOPPING,
    ]
    told = ask(knows, "start", dialogue)
    assert (told.status, told.rule) == (403, "effective.limit")
    assert told.entries[1].result["effective"] == "violation"
    assert told.json["trimtab"] == {
        "rule": "effective.limit",
        "reason": (
            "the container was stopped, since it didn't run as admitted: processes have no limit"
        ),
        "remedy": REMEDY,
        "id": told.entries[2].id,
    }
    assert not knows.verification.in_progress


FUSE = Confinement(devices=(ExpectedDevice("/dev/fuse", ("/dev/fuse=10:229",)),))
SPECIFIED = (
    b"kind: a.b/c\ndevices: [{name: d, containerEdits: {deviceNodes: [{path: /dev/card0}]}}]\n"
)
CARD = Confinement(
    devices=(ExpectedDevice("a.b/c=d", ("/dev/card0=226:0",), CdiFile("", SPECIFIED).digest),)
)


def device(path: str, major: int, minor: int, kind: str = "character") -> PathFacts:
    return PathFacts(path, "other", device_type=kind, number=os.makedev(major, minor))


@pytest.mark.parametrize(
    ("confined", "steps", "reason"),
    [
        (
            FUSE,
            [(InspectPaths(("/dev/fuse",)), (device("/dev/fuse", 1, 1),))],
            "/dev/fuse isn't the device 10:229 any more",
        ),
        (
            FUSE,
            [(InspectPaths(("/dev/fuse",)), (device("/dev/fuse", 10, 229, "block"),))],
            "/dev/fuse isn't the device 10:229 any more",
        ),
        (
            Confinement(devices=(ExpectedDevice("/dev/ttyS0", ("/dev/ttyS0=4:64",)),)),
            [
                (
                    InspectPaths(("/dev/ttyS0",)),
                    (replace(device("/dev/ttyS0", 4, 64), console=True),),
                )
            ],
            "/dev/ttyS0 is a console of the host now",
        ),
        (
            CARD,
            [
                (ReadCdiFiles(), ()),
                (InspectPaths(("/dev/card0",)), (device("/dev/card0", 226, 0),)),
            ],
            "a.b/c=d isn't in a specification any more",
        ),
        (
            CARD,
            [
                (ReadCdiFiles(), (CdiFile("/etc/cdi/a.yaml", SPECIFIED + b"#\n"),)),
                (InspectPaths(("/dev/card0",)), (device("/dev/card0", 226, 0),)),
            ],
            "a.b/c=d has another specification now (/etc/cdi/a.yaml, "
            + CdiFile("", SPECIFIED + b"#\n").digest
            + ")",
        ),
        (
            CARD,
            [
                (
                    ReadCdiFiles(),
                    (CdiFile("/etc/cdi/a.yaml", SPECIFIED), CdiFile("/run/cdi/b.yaml", None)),
                ),
                (InspectPaths(("/dev/card0",)), (device("/dev/card0", 226, 0),)),
            ],
            (
                "a.b/c=d is defined by /etc/cdi/a.yaml: /run/cdi/b.yaml may define it too, and isn't "
                "read: it must be a regular file of root's, that nobody else can write"
            ),
        ),
    ],
)
def test_a_container_with_another_device_is_not_started(
    confined: Confinement, steps: list[Step], reason: str
) -> None:
    dialogue = [seen(Mounts=[]), BEFORE[1], *steps, ("refusal", RECORDED)]
    told = ask(knowing(confined=confined), "start", dialogue)
    assert (told.status, told.rule) == (403, "device.changed")
    assert told.json["trimtab"]["reason"] == reason


@pytest.mark.parametrize("verb", ["start", "restart", "unpause", "update"])
def test_what_was_stopped_for_a_violation_runs_no_more(verb: str) -> None:
    knows = knowing(violation="id-7")
    body = {"Memory": 64 * MIB} if verb == "update" else None
    steps = handle(request("POST", f"/containers/{WEB}/{verb}", body=body), knows)
    told = converse(steps, [seen(), ("refusal", RECORDED)], knows)
    assert (told.status, told.rule) == (403, "effective.violated")
    assert "id-7" in told.json["trimtab"]["reason"]


@pytest.mark.parametrize(
    ("facts", "now"),
    [
        (PathFacts(SOURCE, "dir", device=8, inode=8), "another dir"),
        (PathFacts(SOURCE, "dir", device=9, inode=7), "another dir"),
        (PathFacts(SOURCE, "dir", protected="DIR", in_directory=True, inode=9), "another dir"),
        (PathFacts(SOURCE, "symlink"), "symlink"),
    ],
)
def test_a_container_with_another_source_is_not_started(facts: PathFacts, now: str) -> None:
    told = ask(
        knowing(),
        "start",
        [*BEFORE[:2], (InspectPaths((SOURCE,)), (facts,)), ("refusal", RECORDED)],
    )
    assert (told.status, told.rule) == (403, "mount.changed")
    assert told.json["trimtab"]["reason"] == f"the bind source {SOURCE} is now {now}"


def test_a_network_of_that_name_that_isn_t_ours_is_not_joined() -> None:
    foreign = network("f" * 64, "alice-net", "alice")
    told = ask(
        knowing(),
        "start",
        [seen(), (ReadEngine("/networks/alice-net"), reply(foreign)), ("refusal", RECORDED)],
    )
    assert (told.status, told.rule) == (403, "network.changed")


VOLUME = Confinement(mounts=(ExpectedMount("volume", "/store", "alice-data", device=8, inode=7),))


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (NOT_FOUND, "isn't there any more"),
        (reply({"Name": "alice-data", "Labels": None}), "was created again by somebody else"),
        (
            reply({"Name": "alice-data", "Labels": labels("alice"), "Options": {"o": "bind"}}),
            "has options now",
        ),
    ],
)
def test_a_volume_that_was_made_anew_is_not_mounted(volume: object, reason: str) -> None:
    dialogue: list[Step] = [*BEFORE[:2], (ReadEngine("/volumes/alice-data"), volume)]
    if volume is NOT_FOUND:
        dialogue.append(("read", RECORDED))  # it is gone
    told = ask(knowing(confined=VOLUME), "start", [*dialogue, ("refusal", RECORDED)])
    assert (told.status, told.rule) == (403, "volume.changed")
    assert told.json["trimtab"]["reason"] == f"the volume alice-data {reason}"


def test_a_volumes_folder_is_compared_too() -> None:
    folder = "/var/lib/docker/volumes/alice-data/_data"
    ours = reply(
        {
            "Name": "alice-data",
            "Driver": "local",
            "Labels": labels("alice"),
            "Options": {"size": "1073741824"},
        }
    )
    seen_there = PathFacts(folder, "dir", device=8, inode=1, protected="engine-data")
    told = ask(
        knowing(confined=VOLUME),
        "start",
        [
            seen(Mounts=[]),
            BEFORE[1],
            (ReadEngine("/volumes/alice-data"), ours),
            (InspectPaths((folder,)), (seen_there,)),
            ("refusal", RECORDED),
        ],
    )
    assert told.rule == "mount.changed"


def test_what_the_controller_is_told_has_the_rule_and_the_record() -> None:
    """So that it says so, and doesn't try again hot."""
    knows = knowing(violation="id-7")
    told = converse(
        handle(request("POST", START, actor=CONTROLLER), knows),
        [seen(), ("refusal", RECORDED)],
        knows,
    )
    error = error_of(EngineResponse(told.status, told.value.body), mutation=True)
    assert (type(error).__name__, error.code, error.act.value) == (
        "Refused",
        "effective.violated",
        "stalled",
    )
