"""Adoption at the gate: shown, judged, recorded; and nothing else."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    InspectPaths,
    Lost,
    ReadEngine,
    ReadProcess,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.handlers.adoption_labelled import OBJECTS_MAX
from controller.core.records.inventory_json import from_json, to_json
from controller.model.confinement import (
    CgroupLimits,
    EffectiveState,
    ExpectedMount,
    MountinfoLine,
    MountPath,
    NotReadable,
    Root,
)
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory, PinnedImage
from controller.model.policy.document import Policy
from controller.model.records import Actor, Entry, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NOON,
    OPERATOR,
    drive,
    record,
    reply,
    request,
    state,
)

SHOWN = json.loads((Path(__file__).parents[2] / "core" / "inspected.json").read_text())
WEB, IMAGE = SHOWN["Id"], SHOWN["Image"]
REVISION = SHOWN["Config"]["Labels"]["io.trimtab.revision"]
INTENT = "01890000-0000-7000-8000-00000000abcd"
DATA = "/var/lib/docker/volumes/alice-data/_data"
OWN = {
    "Id": IMAGE,
    "RepoTags": ["ghcr.io/platformnetwork/web:1.2.3"],
    "Config": {
        "User": "65534:65534",
        "Env": ["PATH=/bin"],
        "Cmd": ["/bin/serve"],
        "Healthcheck": SHOWN["Config"]["Healthcheck"],
        "ExposedPorts": {"8080/tcp": {}},
        "WorkingDir": "/",
        "Labels": {"io.trimtab.demo": "1", "maintainer": "x"},
    },
}
STRICT = Policy.from_json({"name": "strict", "clients": [{"uid": 1000, "owner": "alice"}]})


def labels(number: int, *, origin: str = "controller", owner: str = "alice") -> dict[str, str]:
    told = {
        "managed": "true",
        "instance": "i1",
        "intent": f"01890000-0000-7000-8000-{number:012x}",
        "origin": origin,
        "owner": owner,
        "namespace": "default",
    }
    return {f"io.trimtab.{key}": value for key, value in told.items()}


def network(identifier: str, name: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "Id": identifier,
        "Name": name,
        "Driver": "bridge",
        "Internal": True,
        "Options": {},
        "IPAM": {"Driver": "default", "Options": None},
        "Labels": labels(number),
        "Created": "2026-01-01T00:00:00Z",
        **more,
    }


PLAIN = frozenset({"rw", "nosuid", "nodev", "noexec"})
#: What the kernel shows of SHOWN's container, as admitted.
EFFECTIVE = EffectiveState(
    capabilities={"Eff": 1, "Bnd": 1},
    mounts=(
        MountinfoLine(1, "/", "/", frozenset({"ro"}), False, "overlay", frozenset({"ro"})),
        MountinfoLine(8, "/x", "/data", PLAIN, False, "ext4", PLAIN),
        MountinfoLine(9, "/", "/scratch", PLAIN, False, "tmpfs", frozenset({"size=16384k"})),
    ),
    reached=(MountPath("/data", 8), MountPath("/scratch", 9)),
    roots=(Root(8, 3, 7),),
    limits=CgroupLimits(64 << 20, 64 << 20, 10**9, 256),
)


@dataclass
class Host:
    """An engine with what is on it, and a kernel."""

    containers: dict[str, dict[str, Any]] = field(default_factory=lambda: {WEB: deepcopy(SHOWN)})
    networks: list[dict[str, Any]] = field(
        default_factory=lambda: [
            network("n1" * 32, "platform-network", 1),
            network(
                "n2" * 32,
                "platform-ingress",
                2,
                Internal=False,
                Options={
                    "com.docker.network.bridge.enable_ip_masquerade": "false",
                    "com.docker.network.bridge.enable_icc": "false",
                },
            ),
        ]
    )
    volumes: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"Name": "alice-data", "Driver": "local", "Options": None, "Labels": labels(3)}
        ]
    )
    image: dict[str, Any] | None = field(default_factory=lambda: deepcopy(OWN))
    kernel: EffectiveState | NotReadable = EFFECTIVE
    away: bool = False
    asked: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        ends = self.containers[WEB]["NetworkSettings"]["Networks"]
        ends["platform-network"]["NetworkID"] = "n1" * 32
        ends["platform-ingress"]["NetworkID"] = "n2" * 32
        self.containers[WEB]["State"]["Pid"] = 4242

    def look(self, path: str) -> Any:
        """Return what the engine has under a path; None for nothing."""
        self.asked.append(path)
        path = unquote(path)
        if path == "/info":
            return {"CgroupVersion": "1", "DefaultRuntime": "runc"}
        kind, _, rest = path.removeprefix("/").partition("/")
        listed = path.partition("?")[0]
        if listed == "/containers/json":
            return [
                {"Id": i["Id"], "Names": [i["Name"]], "Labels": i["Config"]["Labels"]}
                for i in self.containers.values()
            ]
        if listed == "/networks":
            return self.networks
        if listed == "/volumes":
            return {"Volumes": self.volumes}
        if kind == "containers":
            return self.containers.get(rest.removesuffix("/json"))
        if kind == "images":
            return self.image
        everything = self.networks if kind == "networks" else self.volumes
        return next((e for e in everything if rest in {e.get("Id"), e["Name"]}), None)

    def ask(
        self,
        knows: GateState,
        method: str,
        path: str,
        body: object = None,
        *,
        actor: Actor = OPERATOR,
    ) -> Any:
        """Ask the gate for something; return its status and its JSON."""
        steps = handle(request(method, f"/trimtab/v1/{path}", actor=actor, body=body), knows)
        told = drive(steps, lambda command: self._answer(command, knows))
        assert isinstance(told, Reply)
        return told.status, json.loads(told.body)

    def _answer(self, command: Command, knows: GateState) -> CommandResult:
        match command:
            case ReadEngine(path):
                if self.away:
                    return Lost("away", sent=False)
                found = self.look(path)
                return reply({"message": "no"}, 404) if found is None else reply(found)
            case InspectPaths(paths):
                return tuple(PathFacts(path, "dir", device=3, inode=7) for path in paths)
            case ReadProcess(pid, container):
                assert (pid, container) == (4242, WEB)
                return self.kernel
            case WriteRecord(entry):
                self.entries.append(entry)
                return record(knows, entry)
            case _:
                raise AssertionError(f"something is forwarded: {command!r}")

    def shown(self, knows: GateState) -> dict[str, list[str]]:
        """Return what is shown, by name, each with the rules that refuse it."""
        status, told = self.ask(knows, "GET", "strangers")
        assert (status, self.entries) == (200, []), "looking records nothing"
        return {each["name"]: each["verdict"]["rules"] for each in told["objects"]}

    def adopt(self, knows: GateState, *objects: str) -> Any:
        body = {"act": "adopt", "objects": list(objects), "note": "lost"}
        status, told = self.ask(knows, "POST", "records", body)
        assert status == 200, told
        return told


def lost(**more: Any) -> GateState:
    """A broker on a new state folder that became the instance."""
    knows = state(Inventory(**more), policy=STRICT)
    knows.split_brain.in_doubt = True
    return knows


SUBJECTS = (f"network:{'n1' * 32}", f"network:{'n2' * 32}", "volume:alice-data", WEB)


def test_what_there_is_is_shown_with_what_its_labels_claim() -> None:
    host, knows = Host(), lost()
    status, told = host.ask(knows, "GET", "strangers")
    assert (status, host.entries) == (200, [])
    assert [each["subject"] for each in told["objects"]] == list(SUBJECTS)
    assert told["objects"][-1] == {
        "kind": "container",
        "id": WEB,
        "subject": WEB,
        "name": "web.1-01234567",
        "origin": "controller",
        "owner": "alice",
        "namespace": "default",
        "service": "web",
        "slot": "1",
        "revision": REVISION,
        "intent": INTENT,
        "image": "ghcr.io/platformnetwork/web:1.2.3",
        "madeAt": 0x018900000000 / 1000,
        "imageId": IMAGE,
        "state": "running",
        "verdict": {"decision": "allow", "rules": [], "reason": "", "remedy": ""},
    }
    assert knows.inventory == Inventory(), "and nothing is taken in"


def test_what_is_adopted_is_ours_as_if_it_had_been_made_here() -> None:
    host, knows = Host(), lost()
    told = host.adopt(knows, *SUBJECTS)
    assert [each["subject"] for each in told["adopted"]] == list(SUBJECTS)
    assert told["left"] == []
    inventory = knows.inventory
    assert [(n.name, n.origin) for n in inventory.networks.values()] == [
        ("platform-network", "controller"),
        ("platform-ingress", "controller"),
    ]
    assert inventory.volumes["alice-data"].owner == "alice"
    assert inventory.taken_over == {"default"}
    item = inventory.containers[WEB]
    assert (item.service, item.slot, item.revision, item.intent) == ("web", 1, REVISION, INTENT)
    assert (item.started, item.effective, item.origin) == (True, "verified", "controller")
    assert item.admitted.memory == 64 << 20
    assert item.admitted.networks == ("platform-ingress", "platform-network")
    assert item.aliases == ("web",)
    assert item.confined is not None
    assert item.confined.mounts[1] == ExpectedMount(
        "volume", "/data", "alice-data", device=3, inode=7, place=""
    )
    assert inventory.pins == {REVISION: PinnedImage(IMAGE, "", "ghcr.io/platformnetwork/web")}
    assert {entry.stage for entry in host.entries} == {"operator"}
    assert [entry.request["object"] for entry in host.entries] == [
        *("n1" * 32, "n2" * 32, "alice-data", WEB),
        "i1",
    ]
    act = host.entries[-1].request["summary"]
    assert act == {"act": "adopt", "adopted": 4, "left": 0, "note": "lost"}
    assert from_json(json.loads(json.dumps(to_json(inventory)))) == inventory
    # Again, there is nothing to be adopted.
    assert host.adopt(knows, *SUBJECTS)["adopted"] == []


def test_after_that_nobody_is_a_rival_but_who_comes_later() -> None:
    host, knows = Host(), lost()
    host.containers["f" * 64] = deepcopy(SHOWN) | {"Id": "f" * 64, "Name": "/odd"}
    late = f"{round((NOON + 60) * 1000):012x}"
    host.containers["f" * 64]["Config"]["Labels"]["io.trimtab.intent"] = (
        f"{late[:8]}-{late[8:]}-7000-8000-000000000009"
    )
    stop = ("POST", f"/v1.45/containers/{WEB}/stop")
    refused = handle(request(*stop, actor=CONTROLLER), knows)
    command = next(refused)
    assert isinstance(command, ReadEngine), "it is looked who made what is there"
    refused.close()
    host.adopt(knows, *SUBJECTS)
    assert knows.split_brain.alone_since == NOON
    assert list(knows.split_brain.rivals) == ["f" * 64]
    knows.clock.passed += 120  # type: ignore[attr-defined]
    host.adopt(knows)
    assert knows.split_brain.rivals == {}, "an operator looked at it, and left it"


@pytest.mark.parametrize(
    ("member", "value", "rule"),
    [
        ("Privileged", True, "privileged"),
        ("CapAdd", ["SYS_ADMIN"], "capabilities"),
        ("Memory", 16 << 30, "resources.memory"),
        ("Binds", ["/etc:/x"], "mount.forbidden"),
    ],
)
def test_an_object_beyond_the_policy_is_left_unchanged(
    member: str, value: object, rule: str
) -> None:
    host, knows = Host(), lost()
    host.containers[WEB]["HostConfig"][member] = value
    assert host.shown(knows)["web.1-01234567"][0] == rule
    told = host.adopt(knows, *SUBJECTS)
    assert [each["subject"] for each in told["left"]] == [WEB]
    assert WEB not in knows.inventory.containers
    assert len(knows.inventory.networks) == 2


def test_a_container_that_differs_from_the_engines_view_is_left() -> None:
    host, knows = Host(), lost()
    host.kernel = replace(EFFECTIVE, capabilities={"Eff": 1 << 21, "Bnd": 1})
    assert host.shown(knows)["web.1-01234567"] == ["effective.capabilities"]
    host.adopt(knows, *SUBJECTS)
    assert WEB not in knows.inventory.containers


def test_what_cannot_be_looked_at_is_adopted_and_said_to_be_unverified() -> None:
    host, knows = Host(), lost()
    host.kernel = NotReadable("an engine in a VM")
    host.adopt(knows, *SUBJECTS)
    assert knows.inventory.containers[WEB].effective == "unverified: an engine in a VM"


def test_one_that_is_down_is_adopted_by_what_the_engine_shows() -> None:
    host, knows = Host(), lost()
    host.containers[WEB]["State"] |= {"Status": "exited", "Running": False, "Pid": 0}
    host.adopt(knows, *SUBJECTS)
    assert (knows.inventory.containers[WEB].started, knows.inventory.containers[WEB].effective) == (
        True,
        "",
    )


def test_two_objects_with_one_intent_are_not_adopted() -> None:
    host, knows = Host(), lost()
    host.containers["f" * 64] = deepcopy(SHOWN) | {"Id": "f" * 64, "Name": "/web.1-01234567.2"}
    shown = host.shown(knows)
    assert shown["web.1-01234567"] == shown["web.1-01234567.2"] == ["adopt.copied"]


def test_a_copy_of_what_is_ours_is_not_adopted() -> None:
    host, knows = Host(), lost()
    host.adopt(knows, *SUBJECTS)
    host.entries.clear()
    host.containers["f" * 64] = deepcopy(SHOWN) | {"Id": "f" * 64, "Name": "/web.1-01234567.2"}
    host.networks.append(network("n9" * 32, "copy", 1))
    assert host.shown(knows) == {"copy": ["adopt.copied"], "web.1-01234567.2": ["adopt.copied"]}


def test_a_container_needs_networks_and_volumes_that_are_ours_or_are_adopted_with_it() -> None:
    host, knows = Host(), lost()
    for each in (*host.networks, *host.volumes):
        each["Labels"] = {}
    assert host.shown(knows)["web.1-01234567"] == ["volume.foreign", "network.foreign"]
    host = Host()
    told = host.adopt(knows, WEB)
    assert [each["subject"] for each in told["left"]] == [WEB], "without them it isn't adopted"
    host.adopt(knows, *SUBJECTS[:3])
    assert [each["subject"] for each in host.adopt(knows, WEB)["adopted"]] == [WEB]


def test_a_network_or_volume_that_may_be_anything_is_left() -> None:
    host, knows = Host(), lost()
    host.networks[0]["Driver"] = "macvlan"
    host.volumes[0]["Options"] = {"device": "/"}
    shown = host.shown(knows)
    assert shown["platform-network"] == ["network.options"]
    assert shown["alice-data"] == ["volume.options"]


def test_another_image_under_its_revision_is_left() -> None:
    host, knows = (
        Host(),
        lost(pins={REVISION: PinnedImage("sha256:" + "9" * 64, "", "ghcr.io/platformnetwork/web")}),
    )
    assert host.shown(knows)["web.1-01234567"] == ["adopt.image"]
    host.image = None
    assert host.shown(knows)["web.1-01234567"] == ["image.missing"]


def test_a_clients_container_is_its_owners_again() -> None:
    host, knows = Host(), lost()
    mine = host.containers[WEB]
    mine["Name"] = "/mine"
    mine["Config"]["Labels"] |= {
        "io.trimtab.origin": "client",
        **{f"io.trimtab.{name}": "" for name in ("namespace", "slot", "revision", "image")},
    }
    for end in mine["NetworkSettings"]["Networks"].values():
        end["Aliases"] = None
    host.volumes[0]["Labels"] = labels(3, origin="client")
    host.adopt(knows, *SUBJECTS)
    item = knows.inventory.containers[WEB]
    assert (item.origin, item.owner, item.image) == (
        "client",
        "alice",
        "ghcr.io/platformnetwork/web:1.2.3",
    )
    assert knows.inventory.pins == {}
    assert host.ask(knows, "GET", "inventory", actor=ALICE)[1]["containers"][0]["id"] == WEB


def test_only_operators_look_and_adopt() -> None:
    host, knows = Host(), lost()
    body = {"act": "adopt", "objects": [WEB]}
    for actor in (ALICE, CONTROLLER):
        for method, path, sent in (("GET", "strangers", None), ("POST", "records", body)):
            status, told = host.ask(knows, method, path, sent, actor=actor)
            assert (status, told["trimtab"]["rule"]) == (403, "role.denied")
    assert knows.inventory == Inventory(seq=4)


@pytest.mark.parametrize(
    "body",
    [
        {"objects": "all"},
        {"objects": [1]},
        {"objects": ["x"] * (OBJECTS_MAX + 1)},
        {"objects": [], "note": "x" * 513},
        {"objects": [], "more": 1},
        {},
    ],
)
def test_what_cannot_be_read_is_not_adopted(body: dict[str, object]) -> None:
    host, knows = Host(), lost()
    status, told = host.ask(knows, "POST", "records", {"act": "adopt", **body})
    assert (status, told["trimtab"]["rule"]) == (400, "adopt.invalid")


def test_an_engine_that_is_away_shows_nothing() -> None:
    host, knows = Host(away=True), lost()
    assert host.ask(knows, "GET", "strangers")[0] == 502


DIGITS, VARIANT = "0a" * 32, "0123456789abcdef"
DELIVERED = {
    "secret": ("/run/trimtab/secrets/i1/default/pw", f"{DIGITS}/{VARIANT}/password"),
    "config": ("/state/files/config/default/site", f"{DIGITS}/{VARIANT}"),
}


def delivering(kind: str, *, read_only: bool = True, namespace: str = "default") -> Host:
    """Return a host whose container mounts delivered files."""
    host = Host()
    folder, inner = DELIVERED[kind]
    place = folder.replace("/default/", f"/{namespace}/")
    mount = {"Type": "bind", "Source": f"{place}/{inner}", "Target": "/run/x"}
    if read_only:
        mount |= {"ReadOnly": True}  # type: ignore[dict-item]
    host.containers[WEB]["HostConfig"].setdefault("Mounts", []).append(mount)
    line = MountinfoLine(10, "/y", "/run/x", PLAIN - {"rw"} | {"ro"}, False, "tmpfs", PLAIN)
    host.kernel = replace(
        EFFECTIVE,
        mounts=(*EFFECTIVE.mounts, line),
        reached=(*EFFECTIVE.reached, MountPath("/run/x", 10)),
        roots=(*EFFECTIVE.roots, Root(10, 3, 7)),
    )
    return host


def delivers(**more: Any) -> GateState:
    knows = lost(**more)
    knows.file_roots = {"config": "/state/files/config", "secret": "/run/trimtab/secrets/i1"}
    return knows


@pytest.mark.parametrize(
    ("kind", "content", "source", "key"),
    [("secret", "hmac", "pw", "password"), ("config", "sha256", "site", "")],
)
def test_files_that_the_instance_delivered_are_known_by_their_path(
    kind: str, content: str, source: str, key: str
) -> None:
    host, knows = delivering(kind), delivers()
    assert host.shown(knows)["web.1-01234567"] == []
    host.adopt(knows, *SUBJECTS)
    item = knows.inventory.containers[WEB]
    assert item.effective == "verified"
    assert item.confined is not None
    assert item.confined.mounts[-1] == ExpectedMount(
        kind, "/run/x", source, True, content=f"{content}:{DIGITS}", variant=VARIANT, key=key
    )


@pytest.mark.parametrize(
    "host",
    [
        delivering("secret", read_only=False),
        delivering("secret", namespace="other"),
        delivering("config", namespace="other"),
    ],
)
def test_files_of_another_namespace_or_writable_ones_are_not_deliveries(host: Host) -> None:
    assert host.shown(delivers())["web.1-01234567"] != []


def test_a_list_is_judged_for_the_folder_that_takes_the_objects_over() -> None:
    host, knows = delivering("config"), delivers()
    knows.file_roots["config"] = "/tmp/x/files/config"  # type: ignore[index]
    assert host.shown(knows)["web.1-01234567"] != []
    _, told = host.ask(knows, "GET", "strangers?state=/state")
    assert told["objects"][-1]["verdict"]["rules"] == []
