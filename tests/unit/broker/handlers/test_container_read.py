from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate import redact
from controller.broker.gate.commands import GiveWay, ReadEngine, Relay
from controller.broker.gate.state import GateState
from controller.broker.handlers.container_read import is_own_event
from controller.broker.handlers.trimtab_api import INVENTORY_STEP
from controller.core.engine_api.streams import Access
from controller.core.records.checkpoint import asks_for_key
from controller.model.inventory import OpenIntent
from controller.model.records import Actor, Reply
from controller.ports import JournalHealth
from tests.unit.broker.dialogue import (
    ALICE,
    BOB,
    CONTROLLER,
    NOT_FOUND,
    OPERATOR,
    POLICY,
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
from tests.unit.broker.world import (
    DB,
    IMAGE,
    NETWORK,
    REFERENCE,
    REVISION,
    SLOT,
    STRAY,
    WEB,
    inspect,
    inventory,
    item,
    network,
    policy,
)

FOUND: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice")))
INSTANCE_ONLY = quote('{"label":["io.trimtab.instance=i1"]}', safe="")
ALICES = quote('{"label":["io.trimtab.instance=i1","io.trimtab.owner=alice"]}', safe="")


def ask(
    target: str, dialogue: list[Step], knows: GateState | None = None, method: str = "GET", **m: Any
) -> Told:
    knows = knows or state(inventory())
    return converse(handle(request(method, target, **m), knows), dialogue, knows)


def test_a_ping_tells_the_versions_that_the_gate_speaks() -> None:
    pong = Reply(200, b"OK", (("Api-Version", "1.51"), ("Server", "Docker")))
    answer = ask("/_ping", [(ReadEngine("/_ping"), pong)])
    assert answer.value.body == b"OK"
    assert dict(answer.value.headers)["api-version"] == "1.45"
    assert ask("/v1.45/_ping", [(ReadEngine("/_ping"), pong)]).value == answer.value
    head = ask("/_ping", [(ReadEngine("/_ping"), pong)], method="HEAD")
    assert (head.value.body, head.value.headers) == (b"", answer.value.headers)


@pytest.mark.parametrize(
    ("engines", "told"), [("1.44", "1.44"), ("1.45", "1.45"), ("1.51", "1.45"), ("", "1.45")]
)
def test_the_lower_of_the_two_versions_is_spoken(engines: str, told: str) -> None:
    knows = state(inventory())
    knows.engine = replace(knows.engine, api_version=engines)
    answer = ask("/_ping", [(ReadEngine("/_ping"), Reply(200, b"OK"))], knows)
    assert dict(answer.value.headers)["api-version"] == told


def test_versions_are_the_gates_and_the_host_stays_private() -> None:
    told = {
        "Version": "27.0",
        "ApiVersion": "1.46",
        "MinAPIVersion": "1.24",
        "Components": [{"Name": "Engine", "Details": {"ApiVersion": "1.46", "GitCommit": "x"}}],
    }
    answer = ask("/version", [(ReadEngine("/version"), reply(told))])
    assert answer.json == {
        "Version": "27.0",
        "ApiVersion": "1.45",
        "MinAPIVersion": "1.44",
        "Components": [{"Name": "Engine", "Details": {"ApiVersion": "1.45", "GitCommit": "x"}}],
    }


@pytest.mark.parametrize(
    ("who", "filters", "seen"),
    [(ALICE, ALICES, (1, 0, 1)), (OPERATOR, INSTANCE_ONLY, (2, 1, 1))],
    ids=["client", "operator"],
)
def test_the_numbers_of_info_are_the_callers(
    who: Any, filters: str, seen: tuple[int, int, int]
) -> None:
    private: dict[str, Any] = {
        "ID": "e",
        "NCPU": 4,
        "Name": "host-7",
        "RegistryConfig": {},
        "Runtimes": {"runc": {"path": "/opt/runc"}, "kata": {}},
        "Plugins": {"Volume": ["local", "secret"]},
        "DockerRootDir": "/data",
        "Labels": ["rack=7"],
        "Containers": 99,
        "ContainersRunning": 98,
        "Images": 97,
    }
    there = [
        {"Id": WEB, "State": "exited" if who is ALICE else "running"},
        {"Id": SLOT, "State": "running" if who is ALICE else "exited"},
        {"Id": DB, "State": "paused"},
        {"Id": STRAY, "State": "running"},
    ]
    images = [
        {"Id": IMAGE, "RepoTags": [REFERENCE], "RepoDigests": []},
        {"Id": "sha256:" + "77" * 32, "RepoTags": ["evil/x:1"], "RepoDigests": []},
    ]
    dialogue: list[Step] = [
        (ReadEngine("/info"), reply(private)),
        (ReadEngine(f"/containers/json?all=1&filters={filters}"), reply(there)),
        (ReadEngine("/images/json?filters=%7B%7D"), reply(images)),
    ]
    told = ask("/info", dialogue, actor=who).json
    running, paused, stopped = seen if who is OPERATOR else (0, 0, 1)
    if who is OPERATOR:
        running, paused, stopped = 1, 1, 1
    common = {
        "ID": "e",
        "NCPU": 4,
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": 1,
        "Name": "trimtab",
        "ExperimentalBuild": False,
        "Debug": False,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "Warnings": [],
    }
    of_the_policy = {
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": ["json-file", "local"],
        },
        "Runtimes": {"runc": {"path": "runc"}},
        "Labels": [],
    }
    assert told == (common if who is ALICE else {**common, **of_the_policy})


@pytest.mark.parametrize(
    ("who", "filters", "shown"),
    [
        (ALICE, ALICES, [WEB]),
        (OPERATOR, INSTANCE_ONLY, [WEB, DB, SLOT]),
        (CONTROLLER, INSTANCE_ONLY, [WEB, DB, SLOT]),
    ],
    ids=["client", "operator", "controller"],
)
def test_a_list_is_what_is_ours_and_the_callers(who: Any, filters: str, shown: list[str]) -> None:
    everything = [{"Id": each, "Labels": {}} for each in (WEB, DB, SLOT, STRAY)]
    answer = ask(
        "/containers/json?all=1&limit=-1&trunc_cmd=0",
        [(ReadEngine(f"/containers/json?all=1&filters={filters}"), reply(everything))],
        actor=who,
    )
    assert answer.json == [{"Id": each, "Labels": {}} for each in shown]


@pytest.mark.parametrize("who", [ALICE, CONTROLLER], ids=["client", "controller"])
def test_a_row_that_is_too_long_has_the_labels_of_the_inventory(who: Any) -> None:
    knows = state(inventory())
    filters = ALICES if who is ALICE else INSTANCE_ONLY
    look = ReadEngine(f"/containers/json?filters={filters}")

    def listed(row: dict[str, Any]) -> dict[str, Any]:
        answer = ask("/containers/json", [(look, reply([{"Id": WEB, **row}]))], knows, actor=who)
        labels: dict[str, Any] = answer.json[0]["Labels"]
        return labels

    shown = listed({"State": "running"})
    assert (shown["io.trimtab.service"], shown["io.trimtab.instance"]) == ("web", "i1")
    assert knows.health.long_containers == {WEB: "alice-web"}
    assert listed({"Labels": {"x": "y"}}) == ({} if who is CONTROLLER else {"x": "y"})
    assert knows.health.long_containers == {}


@pytest.mark.parametrize("who", [ALICE, CONTROLLER, OPERATOR], ids=["client", "controller", "op"])
def test_where_things_lie_on_the_host_only_operators_read(who: Any) -> None:
    mounts = [
        {"Type": "volume", "Name": "alice-data", "Source": "/v/alice-data/_data"},
        {"Type": "bind", "Source": "/srv/x"},
    ]
    more = {
        "Mounts": mounts,
        "LogPath": "/c/x.log",
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/o"}},
    }
    there = inspect(WEB, "alice-web", "alice", **more)
    dialogue: list[Step] = [(ReadEngine(f"/containers/{WEB}/json"), reply(there))]
    dialogue += [("read", RECORDED)] if who is OPERATOR else []
    told = ask(f"/containers/{WEB}/json", dialogue, actor=who).json
    filters = ALICES if who is ALICE else INSTANCE_ONLY
    look = ReadEngine(f"/containers/json?filters={filters}")
    listed = ask("/containers/json", [(look, reply([{"Id": WEB, **more}]))], actor=who).json[0]
    shown = {name: told[name] for name in more}
    if who is OPERATOR:
        assert (shown, listed["Mounts"]) == (more, mounts)
    else:
        hidden = [{**mounts[0], "Source": ""}, mounts[1]]
        driver = {"Name": "overlay2", "Data": None}
        assert shown == {"Mounts": hidden, "LogPath": "", "GraphDriver": driver}
        assert listed.get("Mounts") == (None if who is CONTROLLER else hidden)


def test_a_list_by_an_image_that_is_not_shown_is_empty() -> None:
    for name in ("evil/x:1", "415069f4ee51", "sha256:" + "77" * 32):
        asked = quote(json.dumps({"ancestor": [name]}))
        assert ask(f"/containers/json?filters={asked}", []).json == []
    # What else is asked for only narrows what the gate's labels leave.
    wanted = {"ancestor": [REFERENCE, "evil/x:1"], "network": ["bobs"], "name": ["bob"]}
    told = {
        "network": ["bobs"],
        "name": ["bob"],
        "ancestor": [REFERENCE],
        "label": ["io.trimtab.instance=i1", "io.trimtab.owner=alice"],
    }
    written = quote(json.dumps(told, separators=(",", ":")), safe="")
    look = ReadEngine(f"/containers/json?filters={written}")
    answer = ask(f"/containers/json?filters={quote(json.dumps(wanted))}", [(look, reply([]))])
    assert answer.json == []


def test_people_see_an_image_under_the_name_by_which_they_asked_for_it() -> None:
    by_id = {"Id": WEB, "Image": IMAGE, "ImageID": IMAGE, "Labels": {}}
    row = {**by_id, "Image": REFERENCE}
    # The controller reads no image in a list.
    for who, filters, shown in (
        (ALICE, ALICES, row),
        (CONTROLLER, INSTANCE_ONLY, {"Id": WEB, "Labels": {}}),
    ):
        listed = ask(
            "/containers/json",
            [(ReadEngine(f"/containers/json?filters={filters}"), reply([by_id]))],
            actor=who,
        )
        assert listed.json == [shown]
    told = inspect(WEB, "alice-web", "alice")
    told["Config"]["Image"] = IMAGE
    found: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(told))
    answer = ask(f"/containers/{WEB}/json", [found])
    assert (answer.json["Image"], answer.json["Config"]["Image"]) == (IMAGE, REFERENCE)
    seen = ask(f"/containers/{WEB}/json", [found], actor=CONTROLLER)
    assert (seen.json["Image"], seen.json["Config"]["Image"]) == (IMAGE, IMAGE)


def test_env_values_are_for_operators_and_that_is_journaled() -> None:
    answer = ask(f"/containers/{WEB}/json", [FOUND, ("read", RECORDED)], actor=OPERATOR)
    assert answer.json["Config"]["Env"] == ["TOKEN=hunter2", "A=1"]
    assert answer.entries[0].request["object"] == WEB
    for actor in (ALICE, CONTROLLER):
        hidden = ask(f"/containers/{WEB}/json", [FOUND], actor=actor)
        assert hidden.json == {
            **answer.json,
            "Config": {**answer.json["Config"], "Env": ["A", "TOKEN"]},
        }
    other = ask(f"/containers/{WEB}/json", [FOUND, ("refusal", RECORDED)], actor=BOB)
    assert other.status == 404


def test_a_client_sees_the_values_of_the_containers_that_it_made_itself() -> None:
    def env(actor: Actor, **made: Any) -> object:
        known = inventory(containers={WEB: item(WEB, "alice-web", "alice", **made)})
        return ask(f"/containers/{WEB}/json", [FOUND], actor=actor, knows=state(known)).json[
            "Config"
        ]["Env"]

    assert env(ALICE, uid=ALICE.uid) == ["TOKEN=hunter2", "A=1"]
    for made in (
        {"uid": ALICE.uid + 1},  # another client of the owner
        {"uid": -1},  # created before uids were kept
        {"uid": ALICE.uid, "origin": "controller"},
        {"uid": ALICE.uid, "adopted": True},
        {"uid": ALICE.uid, "recovered": True},
    ):
        assert env(ALICE, **made) == ["A", "TOKEN"], made
    assert env(CONTROLLER, uid=CONTROLLER.uid) == ["A", "TOKEN"]


def test_a_value_that_lost_its_name_is_no_name_of_a_variable() -> None:
    # Under a policy with env.unset the engine keeps it: docker run -e "$TOKEN".
    told = inspect(WEB, "alice-web", "alice")
    told["Config"]["Env"] = ["A=1", "hunter2"]
    found: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(told))
    answer = ask(f"/containers/{WEB}/json", [found], actor=CONTROLLER)
    assert answer.json["Config"]["Env"] == ["A"]


@pytest.mark.parametrize(
    ("method", "asked", "relay", "noted"),
    [
        (
            "GET",
            "logs?follow=1&stdout=True&stderr=1&tail=all",
            Relay("GET", f"/containers/{WEB}/logs?follow=1&stdout=1&stderr=1&tail=all"),
            True,
        ),
        ("GET", "stats?stream=false", Relay("GET", f"/containers/{WEB}/stats?stream=0"), False),
        (
            "POST",
            "attach?stream=1&stdout=1&stderr=1",
            Relay("POST", f"/containers/{WEB}/attach?stream=1&stdout=1&stderr=1", hijack=True),
            True,
        ),
        (
            "POST",
            "wait?condition=removed",
            Relay("POST", f"/containers/{WEB}/wait?condition=removed"),
            False,
        ),
        ("POST", "resize?h=24&w=80", Relay("POST", f"/containers/{WEB}/resize?h=24&w=80"), False),
    ],
)
def test_streams_are_relayed_by_full_id(method: str, asked: str, relay: Relay, noted: bool) -> None:
    found = (ReadEngine("/containers/alice-web/json"), FOUND[1])
    read: list[Step] = [("read", UNRECORDED)] if noted else []
    answer = ask(f"/containers/alice-web/{asked}", [found, *read], method=method)
    assert answer.value == relay


def test_events_are_the_instances_and_a_clients_are_its_owners() -> None:
    filters = quote('{"type":["container","daemon"],"label":["io.trimtab.owner=bob"]}')
    answer = ask(f"/events?since=1.5&filters={filters}", [])
    narrow = '{"type":["container"],"label":["io.trimtab.instance=i1","io.trimtab.owner=alice"]}'
    path = f"/events?since=1.5&filters={quote(narrow, safe='')}"
    assert answer.value == Relay("GET", path, edit_line=redact.event)
    whole = ask("/events", [], actor=OPERATOR).value
    assert isinstance(whole, Relay) and whole.edit_line is None


def exec_event(name: str) -> bytes:
    actor = {"ID": SLOT, "Attributes": {"io.trimtab.instance": "i1", "execID": "e1"}}
    event = {"status": name, "id": SLOT, "Type": "container", "Action": name, "Actor": actor}
    return json.dumps(event, separators=(",", ":")).encode()


@pytest.mark.parametrize("actor", [ALICE, CONTROLLER])
@pytest.mark.parametrize("name", ["exec_create", "exec_start"])
def test_only_operators_see_the_arguments_of_a_command_in_events(name: str, actor: Actor) -> None:
    relayed = ask("/events", [], actor=actor).value
    assert isinstance(relayed, Relay) and relayed.edit_line is not None
    edited = relayed.edit_line(exec_event(f"{name}: login --password S3CRET\n: more"))
    assert edited == exec_event(f"{name}: [withheld]")
    for kept in ("exec_die", "exec_detach", "health_status: healthy", "start"):
        assert relayed.edit_line(exec_event(kept)) == exec_event(kept)
    assert relayed.edit_line(b'{"status":"exec_create: S3CRET"') is None
    assert relayed.edit_line(b'["exec_create: S3CRET"]') is None


@pytest.mark.parametrize("actor", [ALICE, CONTROLLER])
def test_no_filter_of_events_tells_whether_a_guess_of_arguments_is_right(actor: Actor) -> None:
    asked = {"event": ["exec_create: login S3", "exec_start", "health_status: healthy"]}
    relayed = ask(f"/events?filters={quote(json.dumps(asked))}", [], actor=actor).value
    assert isinstance(relayed, Relay)
    told = json.loads(parse_qs(urlsplit(relayed.path).query)["filters"][0])
    assert told["event"] == ["exec_create", "exec_start", "health_status: healthy"]


def test_the_controller_is_told_what_happens_to_its_networks_and_volumes() -> None:
    """Their events carry no labels: the engine couldn't narrow them."""
    filters = quote('{"type":["container","network","volume"]}', safe="")
    answer = ask(f"/events?filters={filters}", [], actor=CONTROLLER)
    assert isinstance(answer.value, Relay)
    assert answer.value.path == f"/events?filters={filters}"
    knows = state(inventory())
    mine = {"io.trimtab.instance": "i1"}
    told = [
        ("container", STRAY, mine, True),
        ("container", SLOT, {"io.trimtab.instance": "other"}, False),
        ("network", STRAY, {"container": SLOT}, True),
        ("network", STRAY, {"container": WEB}, False),  # a client's
        ("network", NETWORK, {"name": "alice-net"}, True),
        ("network", STRAY, {"name": "x"}, False),
        ("volume", "alice-data", {}, True),
        ("volume", "x", {}, False),
    ]
    for kind, subject, attributes, kept in told:
        event = {"Type": kind, "Actor": {"ID": subject, "Attributes": attributes}}
        assert is_own_event(knows, json.dumps(event).encode()) is kept, event
    for line in (b"", b"{", b"[]", b'{"Type":"network","Actor":null}', b"\xff"):
        assert not is_own_event(knows, line)


@pytest.mark.parametrize(
    ("action", "subject", "told"),
    [("kill", SLOT, False), ("stop", SLOT, False), ("die", SLOT, True), ("kill", STRAY, True)],
)
def test_the_controller_is_told_of_stops_past_the_gate_alone(
    action: str, subject: str, told: bool
) -> None:
    """It takes the event of a kill or a stop for one: the record of a request says who asked."""
    request: dict[str, object] = {"route": "container.stop", "object": SLOT}
    under_way = {"r1": OpenIntent(1, "", "client", request)}
    relayed = ask(
        "/events", [], state(replace(inventory(), open=under_way)), actor=CONTROLLER
    ).value
    assert isinstance(relayed, Relay)
    assert relayed.edit_line is not None
    mine = {"io.trimtab.instance": "i1"}
    event = {"Type": "container", "Action": action, "Actor": {"ID": subject, "Attributes": mine}}
    line = json.dumps(event).encode()
    assert relayed.edit_line(line) == (line if told else None)


def test_processes_and_changed_files() -> None:
    for route in ("top?ps_args=aux", "top", "changes"):
        told = reply({"x": 1})
        steps: list[Step] = [FOUND, (ReadEngine(f"/containers/{WEB}/{route}"), told)]
        assert ask(f"/containers/{WEB}/{route}", steps).value == told


# Networks and volumes


def test_networks_show_only_what_the_caller_may_see_of_them() -> None:
    ours = network(NETWORK, "alice-net", "alice", Containers={WEB: {}, DB: {}, STRAY: {}})
    copied = network(STRAY, "copied", "alice")
    listed: Step = (ReadEngine(f"/networks?filters={ALICES}"), reply([ours, copied]))
    answer = ask("/networks", [listed])
    assert answer.json == [{**ours, "Containers": {WEB: {}}}]
    found = ask("/networks/alice-net", [(ReadEngine("/networks/alice-net"), reply(ours))])
    assert found.json == answer.json[0]
    hidden: list[Step] = [(ReadEngine("/networks/copied"), reply(copied)), ("refusal", RECORDED)]
    assert ask("/networks/copied", hidden).status == 404
    none: list[Step] = [(ReadEngine("/networks/none"), NOT_FOUND), ("refusal", RECORDED)]
    assert ask("/networks/none", none).status == 404
    theirs: list[Step] = [(ReadEngine(f"/networks/{NETWORK}"), reply(ours)), ("refusal", RECORDED)]
    assert ask(f"/networks/{NETWORK}", theirs, actor=BOB).status == 404


def test_volumes_show_nothing_of_the_host() -> None:
    ours = {
        "Name": "alice-data",
        "Driver": "local",
        "Mountpoint": "/var/lib/docker/volumes/alice-data/_data",
        "Labels": network("", "", "alice")["Labels"],
    }
    # Removed and made anew elsewhere: the same name, and not ours.
    anew = {**ours, "Labels": {**ours["Labels"], "io.trimtab.intent": "i9"}}
    listed: Step = (ReadEngine(f"/volumes?filters={ALICES}"), reply({"Volumes": [ours, anew]}))
    assert ask("/volumes", [listed]).json == {
        "Volumes": [{**ours, "Mountpoint": ""}],
        "Warnings": None,
    }
    look = ReadEngine("/volumes/alice-data")
    assert ask("/volumes/alice-data", [(look, reply(ours))]).json == {**ours, "Mountpoint": ""}
    # An operator knows the host.
    told = ask("/volumes/alice-data", [(look, reply(ours))], actor=OPERATOR)
    assert told.json == ours
    assert ask("/volumes/alice-data", [(look, reply(anew)), ("refusal", RECORDED)]).status == 404


# Own routes


def test_whoami() -> None:
    assert ask("/trimtab/v1/whoami", []).json == {
        "uid": 1000,
        "gid": 1000,
        "role": "client",
        "owner": "alice",
        "separated": True,
        "instance": "i1",
    }


def test_health_answers_whatever_is_wrong() -> None:
    knows = state(inventory())
    knows.health.journal_error, knows.health.policy_error, knows.health.unrecorded_refusals = (
        "disk full",
        "line 3",
        2,
    )
    knows.split_brain.unknown = {STRAY: "copy"}
    knows.health.long_containers = {WEB: "web", STRAY: "removed meanwhile"}
    knows.health.indexed, knows.health.index_error = 5, "it is being made"
    knows.access, knows.health.access_error = Access("/auth", frozenset({"ghcr.io"})), "exposed"
    knows.health.journal = JournalHealth(signed=5, free_bytes=4096, reserved=True)
    knows.health.longest_stall_s = lambda: 1.5
    knows.health.connections, knows.health.refused_connections = (lambda: {"client": 3}), 7
    look = ReadEngine("/_ping", deadline_s=2.0)
    told = {
        "engine": {
            "reachable": False,
            "id": "engine-1",
            "version": "26.1.5",
            "apiVersion": "1.45",
            "cpus": 4,
            "memoryBytes": 8 * 1024**3,
            "ignores": [],
            "imageStore": "",
            "untested": "",
        },
        "journal": {
            "writable": False,
            "seq": 7,
            "error": "disk full",
            "unrecordedRefusals": 2,
            "index": {"seq": 5, "behind": 2, "error": "it is being made"},
            "signed": 5,
            "freeBytes": 4096,
            "clockDoubted": False,
            "reserved": True,
        },
        "policy": {"digest": POLICY.digest, "name": "strict", "error": "line 3", "reloads": 0},
        "settings": {"digest": "", "error": "", "waiting": []},
        "registryAuth": {"file": "/auth", "registries": ["ghcr.io"], "error": "exposed"},
        "connections": {"served": {"client": 3}, "refused": 7},
        "loop": {"longestStallMs": 1500},
        "openIntents": 0,
        "strangers": {"count": 1, "some": {STRAY: "copy"}},
        "long": {"count": 1, "some": {WEB: "web"}},
        "rivals": {"count": 0, "some": {}},
        "restored": "",
    }
    found = ask("/trimtab/v1/health", [(look, lost())], knows, actor=OPERATOR).json
    quotas = found.pop("quotas")
    assert found == told
    assert quotas["waiting"] == {}
    used = {"key": "quotas.clients.networks", "owner": "", "count": 1, "most": 20}
    assert quotas["fullest"][0] == {**used, "percent": 5}
    well: Any = ask("/trimtab/v1/health", [(look, Reply(200, b"OK"))], knows, actor=OPERATOR).json
    assert well["engine"]["reachable"] is True
    # Why may name files of the host and people of the policy.
    assert ask("/trimtab/v1/health", [(look, Reply(200, b"OK"))], knows).json == {
        "engine": {"reachable": True},
        "journal": {"writable": False},
        "policy": {"digest": POLICY.digest, "name": "strict"},
    }


def test_an_untested_engine_is_named_to_the_controller_and_to_operators() -> None:
    knows = state(inventory())
    knows.engine = replace(knows.engine, version="99.0.1", image_store="containerd")
    inventory_shown = ask("/trimtab/v1/inventory", [], knows, actor=CONTROLLER).json
    assert inventory_shown["engineVersion"] == "99.0.1"
    shown = inventory_shown["untested"]
    assert shown.startswith("Docker 99.0.1 with the image store containerd is untested")
    look = ReadEngine("/_ping", deadline_s=2.0)
    health: Any = ask("/trimtab/v1/health", [(look, Reply(200, b"OK"))], knows, actor=OPERATOR).json
    assert health["engine"]["untested"] == shown
    assert "untested" not in ask("/trimtab/v1/inventory", [], actor=CONTROLLER).json


def test_the_inventory_is_told_to_those_it_concerns() -> None:
    ours = ask("/trimtab/v1/inventory", [], actor=CONTROLLER).json
    assert (ours["instance"], ours["engineId"], ours["seq"]) == ("i1", "engine-1", 7)
    assert [each["id"] for each in ours["containers"]] == [WEB, DB, SLOT]
    slot = ours["containers"][2]
    assert (slot["slot"], slot["revision"], slot["admitted"]["name"]) == (
        1,
        REVISION,
        "web.1-01234567",
    )
    assert (ours["endings"], ours["takenDown"]) == ([], "")
    alices = ask("/trimtab/v1/inventory", []).json
    assert [each["id"] for each in alices["containers"]] == [WEB]
    assert [each["id"] for each in alices["networks"]] == [NETWORK]
    bobs = ask("/trimtab/v1/inventory", [], actor=BOB).json
    assert bobs == {
        "instance": "i1",
        "containers": [bobs["containers"][0]],
        "networks": [],
        "volumes": [],
    }
    assert bobs["containers"][0]["id"] == DB


def test_others_continue_while_a_long_inventory_is_told() -> None:
    few = inventory()
    containers = {f"c{n}": replace(few.containers[WEB], id=f"c{n}") for n in range(250)}
    knows = state(replace(few, containers=containers))
    steps: list[Step] = [(GiveWay(), None)] * (250 // INVENTORY_STEP)
    assert steps
    whole = ask("/trimtab/v1/inventory", steps, knows, actor=CONTROLLER).json
    assert [each["id"] for each in whole["containers"]] == [*containers]


def test_only_controller_and_operators_read_the_whole_policy() -> None:
    excepted = {
        "namespace": "default",
        "service": "web",
        "repository": "ghcr.io/platformnetwork/web",
        "reason": "it needs that, for now",
        "expires": "2027-01-01",
        "loosens": {"capAdd": ["NET_BIND_SERVICE"]},
    }
    narrow = policy(
        owners=[{"name": "alice", "namespaces": ["a"]}, {"name": "bob", "uids": [1001]}],
        operators=[1500],
        containerPeers=[1001],
        exceptions=[{**excepted, "owner": "alice"}, {**excepted, "owner": "bob"}],
    )
    whole = narrow.to_json()
    for actor in (OPERATOR, CONTROLLER):
        told = ask("/trimtab/v1/policy", [], state(inventory(), policy=narrow), actor=actor).json
        assert told == {"digest": narrow.digest, "name": "strict", "policy": whole}
    told = ask("/trimtab/v1/policy", [], state(inventory(), policy=narrow)).json
    owners, exceptions = whole["owners"], whole["exceptions"]
    assert isinstance(owners, list)
    assert isinstance(exceptions, list)
    assert told["policy"] == {
        **whole,
        "clients": [{"uid": 1000, "owner": "alice"}],
        "operators": [],
        "containerPeers": [],
        "owners": owners[:1],
        "exceptions": exceptions[:1],
    }


def test_an_operators_act_is_recorded_or_not_done() -> None:
    body = {"act": "suspend", "object": "Service/default/web", "note": "rain"}
    answer = ask(
        "/trimtab/v1/records", [("operator", RECORDED)], method="POST", body=body, actor=OPERATOR
    )
    assert answer.json == {"id": "id-1"}
    assert answer.entries[0].request["summary"] == body
    answer = ask(
        "/trimtab/v1/records", [("operator", UNRECORDED)], method="POST", body=body, actor=OPERATOR
    )
    assert answer.rule == "journal.unavailable"
    revision = "v2:" + "b" * 64
    body = {"act": "service.rollback", "object": "Service/lab/web", "revision": revision}
    answer = ask(
        "/trimtab/v1/records", [("operator", RECORDED)], method="POST", body=body, actor=OPERATOR
    )
    assert answer.json == {"id": "id-1"}
    request = answer.entries[0].request
    assert (request["route"], request["object"]) == ("service.rollback", "Service/lab/web")
    assert request["summary"] == {
        "act": "service.rollback",
        "note": "",
        "revision": revision,
        "labels": {"io.trimtab.namespace": "lab", "io.trimtab.service": "web"},
    }
    body = {"act": "rotate-key", "note": "an admin left"}
    answer = ask(
        "/trimtab/v1/records", [("operator", RECORDED)], method="POST", body=body, actor=OPERATOR
    )
    assert asks_for_key(answer.entries[0])
    bodies: list[Any] = [{}, [], {"act": 1}, {"act": "x" * 65}, {"act": "x", "who": "me"}]
    for bad in bodies:
        answer = ask(
            "/trimtab/v1/records", [("refusal", RECORDED)], method="POST", body=bad, actor=OPERATOR
        )
        assert answer.rule == "body.invalid"


HELD = {
    "act": "source.held",
    "object": "Source/default/shop",
    "commit": "b" * 40,
    "reason": "source.unsigned",
    "message": "the commit has no\nsignature",
}


def test_the_controller_records_holds_of_sources() -> None:
    answer = ask(
        "/trimtab/v1/records", [("operator", RECORDED)], method="POST", body=HELD, actor=CONTROLLER
    )
    assert answer.json == {"id": "id-1"}
    (entry,) = answer.entries
    assert (entry.request["route"], entry.request["object"]) == (
        "source.held",
        "Source/default/shop",
    )
    assert entry.request["summary"] == {
        "act": "source.held",
        "object": "Source/default/shop",
        "note": f"commit {'b' * 40}: source.unsigned: the commit has no\\u000asignature",
    }
    assert entry.actor["role"] == "controller"
    answer = ask(
        "/trimtab/v1/records",
        [("operator", UNRECORDED)],
        method="POST",
        body=HELD,
        actor=CONTROLLER,
    )
    assert answer.rule == "journal.unavailable"


@pytest.mark.parametrize(
    "changed",
    [
        {"act": "approve", "plan": "x"},
        {"act": "source.approve"},
        {"act": "suspend"},
        {"act": "rotate-key"},
        {"object": "Service/default/web"},
        {"object": "Source/default/../x"},
        {"commit": "b" * 12},
        {"reason": "because I said so"},
        {"message": "x" * 513},
        {"message": 1},
        {"who": "me"},
    ],
)
def test_the_controller_records_nothing_else(changed: dict[str, Any]) -> None:
    body = HELD | changed
    rule = "role.denied" if "act" in changed else "body.invalid"
    answer = ask(
        "/trimtab/v1/records", [("refusal", RECORDED)], method="POST", body=body, actor=CONTROLLER
    )
    assert answer.rule == rule


def test_that_an_operator_was_shown_values_is_recorded_as_a_read():
    body = {"act": "show-values", "object": "an instance", "note": "by uid 0"}
    answer = ask(
        "/trimtab/v1/records", [("read", RECORDED)], method="POST", body=body, actor=OPERATOR
    )
    assert answer.json == {"id": "id-1"}
    assert answer.entries[0].request["route"] == "values.show"
    answer = ask(
        "/trimtab/v1/records", [("read", UNRECORDED)], method="POST", body=body, actor=OPERATOR
    )
    assert answer.rule == "journal.unavailable"
