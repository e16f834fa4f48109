"""Adoption as found at the gate: all are judged first, then each is one recorded change."""

from __future__ import annotations

import json
from collections.abc import Callable
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
    Forward,
    InspectPaths,
    Lost,
    ReadEngine,
    ReadProcess,
    WriteRecord,
    encode_list,
)
from controller.broker.gate.state import GateState
from controller.broker.handlers import adoption_joining
from controller.core.enforcement.settlement import ProofKind, evidence_of
from controller.core.records.inventory_json import from_json, to_json
from controller.core.records.parts import ResultPart
from controller.model.confinement import (
    GAPS,
    CgroupLimits,
    EffectiveState,
    MountinfoLine,
    MountPath,
    Root,
)
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory, OpenIntent, OwnedObject, TrustedImage
from controller.model.policy.document import Policy, PolicyOrigin
from controller.model.records import Actor, Entry, Reply, Role
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    drive,
    record,
    reply,
    request,
    state,
)

SHOWN = json.loads((Path(__file__).parents[2] / "core" / "inspected.json").read_text())
OLD, IMAGE, NETWORK, BRIDGE = "a" * 64, SHOWN["Image"], "1" * 64, "b" * 64
REFERENCE = "ghcr.io/platformnetwork/web:1.2.3"
REVISION = "v2:" + "0123456789abcdef" * 4
POLICY = Policy.from_json({"name": "strict"})
OWN = {
    "Id": IMAGE,
    "RepoTags": [REFERENCE],
    "Config": {"Cmd": ["/bin/serve"], "WorkingDir": "/", "Env": ["PATH=/bin"], "Labels": None},
}
CREATE: dict[str, Any] = {
    "Image": REFERENCE,
    "Labels": {
        "io.trimtab.owner": "team",
        "io.trimtab.namespace": "default",
        "io.trimtab.service": "web",
        "io.trimtab.slot": "1",
        "io.trimtab.revision": REVISION,
        "io.trimtab.image": REFERENCE,
    },
    "StopTimeout": 10,
    "HostConfig": {"NetworkMode": "platform-network", "RestartPolicy": {"Name": "always"}},
    "NetworkingConfig": {"EndpointsConfig": {"platform-network": {"Aliases": ["web"]}}},
}
#: What the kernel shows of a container of ``docker run``.
EFFECTIVE = EffectiveState(
    capabilities={"Eff": 0xA80425FB, "Bnd": 0xA80425FB},
    no_new_privileges=False,
    mounts=(MountinfoLine(1, "/", "/", frozenset({"rw"}), False, "overlay", frozenset({"rw"})),),
    limits=CgroupLimits(-1, -1, -1, -1),
)
AFTER = CgroupLimits(2 << 30, 2 << 30, 10**9, 256)


def by_hand() -> dict[str, Any]:
    inspect: dict[str, Any] = deepcopy(SHOWN)
    inspect |= {"Id": OLD, "Name": "/old", "Mounts": []}
    inspect["State"]["Pid"] = 4242
    inspect["Config"] |= {
        "Hostname": OLD[:12],
        "Labels": {},
        "Env": ["PATH=/bin"],
        "User": "",
        "Healthcheck": None,
        "ExposedPorts": None,
        "StopTimeout": None,
    }
    inspect["HostConfig"] |= {
        "CapAdd": None,
        "CapDrop": None,
        "SecurityOpt": None,
        "NetworkMode": "bridge",
        "Memory": 0,
        "MemorySwap": 0,
        "NanoCpus": 0,
        "PidsLimit": None,
        "Mounts": None,
        "LogConfig": {"Type": "json-file", "Config": {}},
        "ReadonlyRootfs": False,
        "PortBindings": {},
        "Init": None,
        "ShmSize": 64 << 20,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }
    inspect["NetworkSettings"]["Networks"] = {"bridge": {"NetworkID": BRIDGE, "Aliases": None}}
    return inspect


@dataclass
class Host:
    """An engine with a container of nobody, and a kernel."""

    containers: dict[str, dict[str, Any]] = field(default_factory=lambda: {OLD: by_hand()})
    members: dict[str, Any] = field(default_factory=lambda: {OLD: {}})
    kernel: EffectiveState = EFFECTIVE
    answer: Callable[[Forward], Reply | Lost] | None = None
    forwarded: list[tuple[str, Any]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    intent: str = "n"  # of the network
    networks: list[str] = field(default_factory=lambda: ["platform-network", "bridge"])

    def look(self, path: str) -> Any:
        path = unquote(path)
        plain = path.partition("?")[0]
        kind, _, rest = plain.removeprefix("/").partition("/")
        fixed = {"/info": {"CgroupVersion": "1", "DefaultRuntime": "runc"}, "/networks": []}
        if plain in fixed:
            return fixed[plain]
        if plain == "/containers/json":
            return [
                {
                    "Id": each["Id"],
                    "Names": [each["Name"]],
                    "State": "running",
                    "Labels": each["Config"]["Labels"],
                }
                for each in self.containers.values()
            ]
        if rest.endswith("/stats"):
            return {"memory_stats": {"usage": 1 << 20}}
        if kind == "containers":
            name = rest.removesuffix("/json")
            names = {each["Name"].removeprefix("/"): each for each in self.containers.values()}
            by_id = (each for key, each in self.containers.items() if key.startswith(name))
            return names.get(name) or next(by_id, None)
        if kind == "images":
            return OWN
        if (kind, rest) == ("volumes", "shop_data"):
            made = "2026-01-01T00:00:00Z"
            return {"Name": rest, "Driver": "local", "Options": None, "CreatedAt": made}
        if (kind, rest) == ("networks", "shop_default"):
            inner = {"Options": {}, "IPAM": {"Driver": "default"}}
            return {"Id": "d" * 64, "Name": rest, "Driver": "bridge", "Internal": False, **inner}
        if rest in ("bridge", BRIDGE) and "bridge" in self.networks:
            return {"Id": BRIDGE, "Name": "bridge", "Driver": "bridge", "Containers": self.members}
        if rest in ("platform-network", NETWORK) and "platform-network" in self.networks:
            labels = {"io.trimtab.instance": "i1", "io.trimtab.intent": self.intent}
            shape = {"Driver": "bridge", "Internal": True, "Options": {}, "IPAM": {}}
            return {"Id": NETWORK, "Name": "platform-network", "Labels": labels, **shape}
        return None

    def ask(
        self, knows: GateState, method: str, path: str, body: object = None, actor: Actor = OPERATOR
    ) -> Any:
        """Ask the gate; return the status and the JSON of its reply."""
        steps = handle(request(method, path, actor=actor, body=body), knows)
        told = drive(steps, lambda command: self._answer(command, knows))
        assert isinstance(told, Reply)
        return told.status, json.loads(told.body)

    def _answer(self, command: Command, knows: GateState) -> CommandResult:
        match command:
            case ReadEngine():
                found = self.look(command.path)
                if found is None:
                    return reply({"message": "no"}, 404)
                told = reply(found)
                if command.rows is None:
                    return told
                return Reply(200, encode_list(command.rows, told.body))
            case InspectPaths(paths):
                return tuple(PathFacts(path, "dir", device=3, inode=7) for path in paths)
            case ReadProcess():
                return self.kernel
            case WriteRecord(entry):
                self.entries.append(entry)
                return record(knows, entry)
            case Forward():
                self.forwarded.append((command.path, json.loads(command.body)))
                if self.answer is not None:
                    return self.answer(command)
                return self.apply(command)
            case _:
                raise AssertionError(f"unexpected: {command!r}")

    def apply(self, command: Forward) -> Reply:
        body, ends = json.loads(command.body), None
        if "Container" in body:
            ends = self.containers[body["Container"]]["NetworkSettings"]["Networks"]
        if command.path.endswith("/update"):
            host = self.containers[OLD]["HostConfig"]
            host |= body
            self.kernel = replace(self.kernel, limits=AFTER)
        elif command.path.endswith("/connect"):
            assert ends is not None
            aliases = body.get("EndpointConfig", {}).get("Aliases")
            ends["platform-network"] = {"NetworkID": NETWORK, "Aliases": aliases}
        elif command.path.endswith("/disconnect"):
            assert ends is not None
            del ends["platform-network" if NETWORK in command.path else "bridge"]
        elif command.path == "/networks/create":
            self.networks.append("platform-network")
            self.intent = body["Labels"]["io.trimtab.intent"]
            return reply({"Id": NETWORK}, 201)
        return reply({}, 200)


def broker(*, networks: bool = True, **more: Any) -> GateState:
    """A broker that trusts the image, and knows the namespace's network."""
    made = OwnedObject(NETWORK, "platform-network", "default", "team", "controller", "n")
    knows = state(
        Inventory(
            networks={NETWORK: made} if networks else {},
            ledger={REFERENCE: TrustedImage(REFERENCE, IMAGE)},
            **more,
        ),
        policy=POLICY,
    )
    knows.hash_key = b"k" * 32
    return knows


def question(
    *admit: str, container: str = "old", create: object = CREATE, **more: Any
) -> dict[str, Any]:
    one = {
        "container": container,
        "name": "web.1-01234567",
        "create": create,
        "admit": list(admit),
    }
    return {"containers": [one], **more}


def adopt(host: Host, knows: GateState, *admit: str, **more: Any) -> Any:
    return host.ask(knows, "POST", "/trimtab/v1/adoptions", question(*(admit or GAPS), **more))


def rules(host: Host, knows: GateState, *admit: str, **more: Any) -> list[str]:
    """The rules that refuse an adoption; a dry run records and changes nothing."""
    status, told = adopt(host, knows, *admit, dryRun=True, **more)
    assert (status, host.entries, host.forwarded) == (200, [], [])
    return [each["rule"] for each in told["containers"][0]["findings"]]


def test_an_adopted_container_is_the_services_own_under_its_old_id() -> None:
    host, knows = Host(), broker()
    status, told = adopt(host, knows)
    assert (status, told["adopted"], told["failed"]) == (200, [OLD], [])
    limits = {"Memory": 2 << 30, "MemorySwap": 2 << 30, "NanoCpus": 10**9, "PidsLimit": 256}
    assert host.forwarded == [
        (f"/containers/{OLD}/update", {**limits, "RestartPolicy": {"Name": "always"}}),
        (
            f"/networks/{NETWORK}/connect",
            {"Container": OLD, "EndpointConfig": {"Aliases": ["web"]}},
        ),
        (f"/networks/{BRIDGE}/disconnect", {"Container": OLD}),
    ]
    assert [(e.stage, e.request.get("route")) for e in host.entries] == [
        ("intent", "container.adopt"),
        ("outcome", None),
        ("intent", "network.connect"),
        ("outcome", None),
        ("intent", "network.disconnect"),
        ("outcome", None),
    ]
    intent = host.entries[0]
    assert intent.actor["role"] == "operator"
    summary: Any = intent.request["summary"]
    assert summary["gaps"] == ["capabilities", "new-privileges", "logs"]
    assert len(summary["fingerprint"]) == 64
    item = knows.inventory.containers[OLD]
    assert (item.service, item.slot, item.revision) == ("web", 1, REVISION)
    assert (item.adopted, item.started, item.origin) == (True, True, "controller")
    assert (item.admitted.name, item.admitted.networks) == ("old", ("platform-network",))
    assert item.admitted.memory == 2 << 30
    assert item.confined is not None
    assert item.confined.new_privileges
    assert "NET_RAW" in item.confined.capabilities
    assert item.effective == "verified"
    assert from_json(json.loads(json.dumps(to_json(knows.inventory)))) == knows.inventory


def test_an_adopted_container_is_shown_with_labels_to_those_who_see_it() -> None:
    host, knows = Host(), broker()
    adopt(host, knows)
    path = f"/v1.45/containers/{OLD}/json"
    status, inspect = host.ask(knows, "GET", path)
    assert status == 200
    assert inspect["Config"]["Labels"]["io.trimtab.adopted"] == "true"
    wanted = json.dumps({"label": ["io.trimtab.managed=true", "io.trimtab.service=web"]})
    listed = host.ask(knows, "GET", f"/v1.45/containers/json?filters={wanted}", actor=CONTROLLER)
    assert [each["Id"] for each in listed[1]].count(OLD) >= 1
    assert host.ask(knows, "GET", path, actor=ALICE)[0] == 404


def test_the_networks_of_the_namespace_are_made_if_they_are_missing() -> None:
    host, knows = Host(networks=["bridge"]), broker(networks=False)
    status, told = adopt(host, knows)
    assert (status, told["failed"]) == (200, [])
    assert host.forwarded[0][0] == "/networks/create"
    made = host.forwarded[0][1]["Labels"]
    assert (made["io.trimtab.origin"], made["io.trimtab.namespace"]) == ("controller", "default")


def test_each_gap_needs_its_name() -> None:
    host, knows = Host(), broker()
    assert rules(host, knows, "logs") == ["adopt.gap", "adopt.gap"]
    status, told = adopt(host, knows, "logs")
    assert (status, told["trimtab"]["rule"]) == (403, "adopt.gap")
    assert host.forwarded == []
    assert [entry.stage for entry in host.entries] == ["refusal"]
    assert OLD not in knows.inventory.containers


@pytest.mark.parametrize(
    ("section", "member", "value", "rule"),
    [
        ("HostConfig", "Privileged", True, "privileged"),
        ("HostConfig", "CapAdd", ["SYS_ADMIN"], "capabilities"),
        ("HostConfig", "PidMode", "host", "namespace.pid"),
        ("HostConfig", "NetworkMode", "host", "network.mode"),
        ("HostConfig", "Binds", ["/:/host"], "adopt.differs"),
        ("HostConfig", "Devices", [{"PathOnHost": "/dev/sda"}], "adopt.differs"),
        ("HostConfig", "SecurityOpt", ["seccomp=unconfined"], "security-opt"),
        ("Config", "Labels", {"io.trimtab.instance": "i1"}, "adopt.labels"),
        ("Config", "Cmd", ["/bin/other"], "adopt.differs"),
        ("State", "Status", "exited", "adopt.not-running"),
    ],
)
def test_nothing_else_is_admitted_whatever_the_operator_says(
    section: str, member: str, value: object, rule: str
) -> None:
    host, knows = Host(), broker()
    host.containers[OLD][section][member] = value
    assert rule in rules(host, knows)
    assert adopt(host, knows)[0] == 403
    assert host.forwarded == []


def test_another_image_than_the_documents_is_refused() -> None:
    host, knows = Host(), broker()
    host.containers[OLD]["Image"] = "sha256:" + "9" * 64
    assert rules(host, knows) == ["adopt.differs"]


def test_more_rights_in_the_kernel_than_in_the_inspect_are_found() -> None:
    host, knows = Host(), broker()
    host.kernel = EffectiveState(
        capabilities={"Eff": 1 << 21}, mounts=EFFECTIVE.mounts, limits=EFFECTIVE.limits
    )
    assert rules(host, knows) == ["effective.capabilities"]


def test_a_network_with_containers_of_others_is_left_at_the_operators_word_only() -> None:
    host, knows = Host(members={OLD: {}, "c" * 64: {}}), broker()
    assert rules(host, knows) == ["adopt.network-shared"]
    assert rules(host, knows, leave=["bridge"]) == []


def test_a_document_beyond_the_policy_is_refused_first() -> None:
    host, knows = Host(), broker()
    create = deepcopy(CREATE)
    create["HostConfig"]["CapAdd"] = ["SYS_ADMIN"]
    assert rules(host, knows, create=create) == ["capabilities"]


@pytest.mark.parametrize("kind", ["config", "secret"])
def test_a_document_with_files_that_the_container_lacks_says_so(kind: str) -> None:
    host, knows = Host(), broker()
    create = deepcopy(CREATE)
    create["HostConfig"]["Mounts"] = [
        {"Type": kind, "Source": "site", "Target": "/etc/site", "Trimtab": {"Content": "x"}}
    ]
    _, told = adopt(host, knows, dryRun=True, create=create)
    (finding,) = told["containers"][0]["findings"]
    assert (finding["rule"], finding["path"]) == ("adopt.files", "spec.mounts./etc/site")


def test_a_taken_slot_and_an_own_container_are_left_as_they_are() -> None:
    host, knows = Host(), broker()
    adopt(host, knows)
    other = by_hand() | {"Id": "d" * 64, "Name": "/other"}
    host.containers["d" * 64] = other
    host.entries, host.forwarded = [], []
    assert rules(host, knows, container="other") == ["adopt.slot-taken"]
    assert rules(host, knows, container="old") == ["adopt.owned"]


def mounted(create: dict[str, Any], host: Host) -> dict[str, Any]:
    """Let the container and the create of its document mount a volume of somebody."""
    host.containers[OLD]["HostConfig"]["Binds"] = ["shop_data:/data:rw"]
    mounts = [{"Type": "volume", "Source": "shop_data", "Target": "/data"}]
    host.containers[OLD]["Mounts"] = [{"Type": "volume", "Destination": "/data"}]
    create["HostConfig"]["Mounts"] = mounts
    return create


def test_volumes_of_documents_are_adopted_with_their_containers() -> None:
    host, knows = Host(), broker()
    host.kernel = replace(
        EFFECTIVE,
        mounts=(
            *EFFECTIVE.mounts,
            MountinfoLine(2, "/x", "/data", frozenset({"rw"}), False, "ext4", frozenset({"rw"})),
        ),
        reached=(MountPath("/data", 2),),
        roots=(Root(2, 3, 7),),
    )
    create = mounted(deepcopy(CREATE), host)
    assert rules(host, knows, create=create) == ["volume.foreign"]
    volume = {"kind": "volume", "name": "shop_data", "namespace": "default", "owner": "team"}
    assert rules(host, knows, create=create, objects=[volume]) == []
    assert "shop_data" not in knows.inventory.volumes
    status, told = adopt(host, knows, create=create, objects=[volume])
    assert (status, told["adopted"], told["failed"]) == (200, [OLD], [])
    assert knows.inventory.volumes["shop_data"].adopted == "2026-01-01T00:00:00Z"
    assert [entry.stage for entry in host.entries][:2] == ["operator", "intent"]


def test_a_refused_volume_refuses_the_request() -> None:
    host, knows = Host(), broker()
    volume = {"kind": "volume", "name": "other", "namespace": "default", "owner": "team"}
    status, told = adopt(host, knows, objects=[volume])
    assert (status, told["trimtab"]["rule"]) == (403, "adopt.unknown")
    assert host.forwarded == []
    assert OLD not in knows.inventory.containers


@pytest.mark.parametrize(
    ("modes", "granted", "remedy"),
    [
        (["bridge", "isolated"], "networks.modes: bridge, in /etc/p.yaml (line 7)", None),
        (
            ["isolated"],
            "networks.modes: bridge, in /etc/p.yaml (line 7)",
            (
                "grant bridge, or make it internal; or add bridge to networks.modes in /etc/p.yaml "
                "(line 7), then trimtab policy reload"
            ),
        ),
    ],
)
def test_a_network_with_a_way_out_names_the_line_of_the_policy(
    monkeypatch: pytest.MonkeyPatch, modes: list[str], granted: str, remedy: str | None
) -> None:
    policy = Policy.from_json({"name": "strict", "networks": {"modes": modes}})
    read = policy.read_from(PolicyOrigin("/etc/p.yaml", {"networks.modes": 7}))
    monkeypatch.setattr(f"{__name__}.POLICY", read)
    host, knows = Host(), broker()
    network = {"kind": "network", "name": "shop_default", "namespace": "default", "owner": "team"}
    _, told = adopt(host, knows, objects=[network], dryRun=True)
    (judged,) = told["objects"]
    assert judged["granted"] == granted
    assert [each["remedy"] for each in judged["findings"]] == ([] if remedy is None else [remedy])


@pytest.mark.parametrize("container", ["missing", "../x", "", OLD[:12] + "0" * 4])
def test_a_container_is_found_by_its_whole_name_or_id(container: str) -> None:
    host, knows = Host(), broker()
    assert rules(host, knows, container=container) == ["adopt.unknown"]


def test_a_name_in_the_form_of_an_id_stands_for_no_container() -> None:
    host, knows = Host(), broker()
    host.containers[OLD]["Name"] = "/" + "e" * 12
    assert rules(host, knows, container="e" * 12) == ["adopt.unknown"]
    assert rules(host, knows, container=OLD[:12]) == []


@pytest.mark.parametrize("actor", [CONTROLLER, ALICE])
def test_only_operators_adopt(actor: Actor) -> None:
    host, knows = Host(), broker()
    answer = host.ask(knows, "POST", "/trimtab/v1/adoptions", question(*GAPS), actor=actor)
    assert (answer[0], answer[1]["trimtab"]["rule"]) == (403, "role.denied")
    assert host.forwarded == []
    assert actor.role is not Role.OPERATOR


def test_a_refused_update_adopts_nothing() -> None:
    host, knows = Host(), broker()
    host.answer = lambda _: reply({"message": "no"}, 409)
    status, told = adopt(host, knows)
    assert (status, told["adopted"]) == (200, [])
    assert [each["step"] for each in told["failed"]] == ["adopt"]
    assert OLD not in knows.inventory.containers


def test_a_lost_answer_leaves_an_open_intent_and_no_item() -> None:
    host, knows = Host(), broker()
    host.answer = lambda _: Lost("cut", sent=True)
    adopt(host, knows)
    assert OLD not in knows.inventory.containers
    (intent,) = knows.inventory.open.values()
    assert intent.request["route"] == "container.adopt"
    # Recovery looks for the limits of the update. With them the container is adopted.
    now = host.containers[OLD]
    assert not evidence_of(ProofKind.FIELD, intent, "id-1", now).applied
    now["HostConfig"] |= host.forwarded[0][1]
    now["HostConfig"]["RestartPolicy"] |= {"MaximumRetryCount": 0}
    assert evidence_of(ProofKind.FIELD, intent, "id-1", now).applied
    settled = ResultPart(settled="applied").members
    record(knows, Entry("id-1", "recovered", result=settled))
    item = knows.inventory.containers[OLD]
    assert (item.adopted, item.started, item.gaps) == (True, True, tuple(GAPS[:3]))


def opened(route: str, identifier: str = "") -> OpenIntent:
    """The intent of another request for the slot of the document, or about a container."""
    labels = {**CREATE["Labels"], "io.trimtab.origin": "controller"}
    summary: dict[str, object] = {} if identifier else {"labels": labels}
    request: dict[str, object] = {"route": route, "object": identifier, "summary": summary}
    return OpenIntent(1, "", "controller", request)


@pytest.mark.parametrize("route", ["container.create", "container.adopt"])
def test_a_slot_whose_container_is_being_made_is_taken(route: str) -> None:
    host, knows = Host(), broker(open={"other": opened(route)})
    assert rules(host, knows) == ["adopt.slot-taken"]


@pytest.mark.parametrize("other", [opened("container.create"), opened("container.adopt", OLD)])
def test_what_another_request_took_since_the_comparison_is_left(other: OpenIntent) -> None:
    host, knows = Host(networks=["bridge"]), broker(networks=False)

    def overtake(sent: Forward) -> Reply:
        # The network is made after the comparison, and before the container's intent.
        host.answer = None
        knows.inventory = replace(knows.inventory, open={**knows.inventory.open, "o": other})
        knows.intents.in_flight.add("o")
        return host.apply(sent)

    host.answer = overtake
    _status, told = adopt(host, knows)
    assert [each["rule"] for each in told["failed"]] in (["adopt.slot-taken"], ["held"])
    assert OLD not in knows.inventory.containers


def test_no_container_is_adopted_twice_in_one_request() -> None:
    host, knows = Host(), broker()
    body = question(*GAPS)
    second = deepcopy(body["containers"][0]) | {"container": OLD, "name": "web.2-01234567"}
    second["create"]["Labels"]["io.trimtab.slot"] = "2"
    body["containers"].append(second)
    status, told = host.ask(knows, "POST", "/trimtab/v1/adoptions", body)
    assert (status, told["trimtab"]["rule"]) == (403, "adopt.owned")
    assert host.forwarded == []


def test_one_refused_container_refuses_the_request() -> None:
    host, knows = Host(), broker()
    body = question(*GAPS)
    second = deepcopy(body["containers"][0]) | {"container": "missing"}
    second["create"]["Labels"]["io.trimtab.slot"] = "2"
    body["containers"].append(second)
    status, told = host.ask(knows, "POST", "/trimtab/v1/adoptions", body)
    assert (status, told["trimtab"]["rule"]) == (403, "adopt.unknown")
    assert host.forwarded == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"containers": []},
        {"containers": [{}]},
        {"containers": "old"},
        question("privileged"),
        question(*GAPS, leave="bridge"),
        question(*GAPS, dryRun=1),
        question(*GAPS, force=True),
        question(*GAPS, note=5),
    ],
)
def test_a_request_of_another_form_is_refused(body: object) -> None:
    host, knows = Host(), broker()
    status, told = host.ask(knows, "POST", "/trimtab/v1/adoptions", body)
    assert (status, told["trimtab"]["rule"]) == (400, "adopt.invalid")


def test_a_projects_containers_are_listed_by_their_labels() -> None:
    host, knows = Host(), broker()
    host.containers[OLD]["Config"]["Labels"] = {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": "web\x1b[31m",
        "com.docker.compose.container-number": "1",
    }
    status, told = host.ask(knows, "GET", "/trimtab/v1/strangers?project=shop")
    assert status == 200
    (found,) = told["containers"]
    assert (found["id"], found["name"], found["number"]) == (OLD, "old", "1")
    assert "\x1b" not in found["service"]


@pytest.mark.parametrize(
    ("present", "stays"),
    [
        (("web", "old"), True),
        (("web",), True),
        (("my_web", "old"), False),
        (("old",), False),
        ((), False),
        (("web", "other"), False),
    ],
)
def test_a_container_stays_on_a_network_where_it_has_the_names_of_its_document(
    present: tuple[str, ...], stays: bool
) -> None:
    host, knows = Host(), broker()
    ends = host.containers[OLD]["NetworkSettings"]["Networks"]
    ends["platform-network"] = {"NetworkID": NETWORK, "Aliases": [*present]}
    _, told = adopt(host, knows, dryRun=True)
    (judged,) = told["containers"]
    assert judged["rejoins"] == ([] if stays else ["platform-network"])
    assert judged["leaves"] == ["bridge"]
    adopt(host, knows)
    connects = [body for path, body in host.forwarded if path.endswith("/connect")]
    assert len(connects) == (0 if stays else 1)


def test_a_spelling_of_the_services_name_suffices() -> None:
    aliases = ("my-web", "my_web", "www")
    assert adoption_joining.has_names(["my_web", "www", "shop-my_web-1"], aliases, "shop-my_web-1")
    assert not adoption_joining.has_names(["my_web"], aliases, "shop-my_web-1")
    assert not adoption_joining.has_names(["my_web", "www", "My_Web"], aliases, "shop-my_web-1")
