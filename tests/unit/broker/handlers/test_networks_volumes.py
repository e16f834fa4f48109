"""Images, networks and volumes: what is pulled, vouched for, made, joined and removed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, Lost, ReadEngine, SharedPull
from controller.broker.gate.state import GateState
from controller.broker.handlers.image import read_progress
from controller.core.engine_api.streams import Access
from controller.model import names
from controller.model.inventory import PinnedImage, TrustedImage
from controller.model.records import Actor, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    BOB,
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    at,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    ALL_CONTAINERS,
    ALL_NETWORKS,
    ALL_VOLUMES,
    DB,
    DIGEST,
    IMAGE,
    NETWORK,
    REFERENCE,
    REVISION,
    SERVICE,
    SLOT,
    STRAY,
    WEB,
    image,
    inspect,
    inventory,
    labels,
    network,
    policy,
)

LOOK = ReadEngine(f"/images/{REFERENCE}/json")
PULL = Forward(
    "POST",
    "/images/create?fromImage=ghcr.io%2Fplatformnetwork%2Fweb&tag=1.2.3",
    stream=True,
    deadline_s=120.0,
    registry="ghcr.io",
)
PULLED = Reply(200, f'{{"status":"Digest: {DIGEST}"}}\r\n{{"status":"Status: new"}}'.encode())


def ask(
    method: str, target: str, dialogue: list[Step], knows: GateState | None = None, **more: Any
) -> Told:
    knows = knows or state(inventory())
    return converse(handle(request(method, target, **more), knows), dialogue, knows)


def changed(forward: object, answer: Reply = NO_CONTENT) -> list[Step]:
    return [("intent", RECORDED), (forward, answer), ("outcome", RECORDED)]


class Sent:
    """Stands for a Forward of JSON to a path."""

    def __init__(self, path: str, **members: object) -> None:
        self.path = path
        self.members = members
        self.body: dict[str, Any] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Forward) or (other.method, other.path) != ("POST", self.path):
            return False
        self.body = json.loads(other.body)
        return all(self.body.get(key) == value for key, value in self.members.items())

    def __repr__(self) -> str:
        return f"POST {self.path} {self.members}, got {self.body}"

    __hash__ = None  # type: ignore[assignment]


# Images


def pull(dialogue: list[Step], knows: GateState, **more: Any) -> Told:
    target = "/images/create?fromImage=ghcr.io/platformnetwork/web&tag=1.2.3"
    return ask("POST", target, dialogue, knows, **more)


@pytest.mark.parametrize("who", [ALICE, OPERATOR, CONTROLLER])
def test_what_the_broker_pulled_is_vouched_for(who: Any) -> None:
    knows = state(inventory(ledger={}))
    dialogue: list[Step] = [
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (PULL, PULLED),
        (LOOK, reply(image())),
        ("outcome", RECORDED),
    ]
    pull(dialogue, knows, actor=who, headers=[("x-registry-auth", "e30=")])
    assert knows.inventory.ledger == {REFERENCE: TrustedImage(REFERENCE, IMAGE, DIGEST)}


@pytest.mark.parametrize(
    ("progress", "shown", "error"),
    [
        (b'{"status":"Pulling"}\n{"error":"denied"}', None, "denied"),
        (PULLED.body, NOT_FOUND, "the image isn't there after the pull"),
        # Good progress, but what carries the name isn't what was pulled.
        (
            PULLED.body,
            reply(image(RepoDigests=[f"evil.example/web@{DIGEST}"])),
            "the engine named no digest for it, so the ledger doesn't know it",
        ),
        (
            b'{"status":"Digest: sha256:0"}',
            reply(image()),
            "the engine named no digest for it, so the ledger doesn't know it",
        ),
        (b"", reply(image()), "the engine named no digest for it, so the ledger doesn't know it"),
        (PULLED.body, lost(), ""),
    ],
)
def test_a_pull_that_did_not_end_well_vouches_for_nothing(
    progress: bytes, shown: object, error: str
) -> None:
    knows = state(inventory(ledger={}))
    dialogue: list[Step] = [
        (LOOK, reply(image())),
        ("intent", RECORDED),
        (PULL, Reply(200, progress)),
        *([(LOOK, shown)] if shown is not None else []),
        ("outcome", RECORDED),
    ]
    answer = pull(dialogue, knows)
    assert answer.entries[1].result["error"] == error
    assert knows.inventory.ledger == {}
    assert knows.inventory.open == {}


@pytest.mark.parametrize(
    ("answer", "status", "error", "code"),
    [
        (reply({"message": "manifest unknown"}, 404), 404, "manifest unknown", "image.notfound"),
        (
            Reply(200, b'{"status":"Pulling"}\r\n{"error":"unauthorized"}'),
            500,
            "unauthorized",
            "image.denied",
        ),
        (reply({"message": "odd"}, 500), 500, "odd", "image.pull-failed"),
        (
            Reply(200, b'{"error":"Get \\"https://s3/a?sig=hunter2\\": EOF"}'),
            500,
            'Get "https://s3/a?[withheld]": EOF',
            "image.registry",
        ),
    ],
)
def test_a_pull_that_failed_says_why_to_the_client_and_to_the_journal(
    answer: Reply, status: int, error: str, code: str
) -> None:
    knows = state(inventory(ledger={}))
    dialogue: list[Step] = [
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (PULL, answer),
        ("outcome", RECORDED),
    ]
    told = pull(dialogue, knows)
    result = told.entries[1].result
    assert (result["status"], result["error"], result["code"]) == (status, error, code)
    assert (told.status, told.rule) == (status, code)
    # As the last line of a stream it is an error to clients, too.
    line = told.json
    assert line["error"] == line["errorDetail"]["message"] == line["message"]
    assert line["message"].startswith(f"{code}: {REFERENCE}: ")


def test_credentials_are_named_by_their_file_where_a_registry_refuses() -> None:
    knows = state(inventory())
    knows.access = Access("/etc/trimtab/registry.json", frozenset({"ghcr.io"}))
    dialogue: list[Step] = [
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (PULL, reply({"message": "unauthorized: token expired"}, 401)),
        ("outcome", RECORDED),
    ]
    assert "ghcr.io in /etc/trimtab/registry.json" in pull(dialogue, knows).json["message"]


@pytest.mark.parametrize(
    ("ledger", "shown", "error", "offered"),
    [
        ({}, reply(image()), "no such host", True),
        ({}, reply(image()), "manifest unknown", True),
        # The image that is here is the trusted one: trust in it wouldn't change a thing.
        (
            {REFERENCE: TrustedImage(REFERENCE, IMAGE, DIGEST)},
            reply(image()),
            "no such host",
            False,
        ),
        ({}, NOT_FOUND, "no such host", False),
        ({}, reply(image()), "no space left on device", False),
    ],
)
def test_where_a_registry_fails_a_local_image_of_the_name_is_offered(
    ledger: dict[str, TrustedImage], shown: Reply, error: str, *, offered: bool
) -> None:
    dialogue: list[Step] = [
        (LOOK, shown),
        ("intent", RECORDED),
        (PULL, reply({"message": error}, 500)),
        ("outcome", RECORDED),
    ]
    message = pull(dialogue, state(inventory(ledger=ledger))).json["message"]
    assert (f"trimtab image trust {REFERENCE}" in message) is offered


@pytest.mark.parametrize(
    ("answer", "status", "rule", "closed"),
    [
        (Lost("the pull made no progress for 120 s"), 504, "image.registry", False),
        (Lost("the connection broke"), 504, "outcome.unknown", False),
        (Lost("nobody there", sent=False), 502, "engine.unavailable", True),
    ],
)
def test_a_pull_whose_answer_is_lost_is_settled_by_recovery(
    answer: Lost, status: int, rule: str, closed: bool
) -> None:
    knows = state(inventory())
    dialogue: list[Step] = [
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (PULL, answer),
        *([("outcome", RECORDED)] if closed else []),
    ]
    told = pull(dialogue, knows)
    assert (told.status, told.rule) == (status, rule)
    assert bool(knows.inventory.open) is not closed


def test_a_pull_that_shared_anothers_request_is_closed_with_its_result_and_names_it() -> None:
    knows = state(inventory(ledger={}))
    dialogue: list[Step] = [
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (PULL, SharedPull(PULLED, by="the-leader")),
        (LOOK, reply(image())),
        ("outcome", RECORDED),
    ]
    result = pull(dialogue, knows).entries[1].result
    assert (result["with"], result["digest"]) == ("the-leader", DIGEST)
    assert knows.inventory.ledger == {REFERENCE: TrustedImage(REFERENCE, IMAGE, DIGEST)}


def test_whoever_shared_a_pull_whose_answer_is_lost_has_an_intent_to_be_settled() -> None:
    knows = state(inventory())
    dialogue: list[Step] = [
        (LOOK, NOT_FOUND),
        ("intent", RECORDED),
        (PULL, SharedPull(Lost("broke"), by="the-leader")),
    ]
    assert pull(dialogue, knows).rule == "outcome.unknown"
    assert len(knows.inventory.open) == 1


def test_the_end_of_a_pulls_progress_is_read_also_when_its_beginning_is_cut() -> None:
    assert read_progress(b'us":"x"}\n[1]\n{"status":3}\n{"status":"Digest: d"}\n') == ("", "d")
    assert read_progress(b'{"errorDetail":{},"error":"no"}') == ("no", "")


def test_only_admitted_images_are_pulled() -> None:
    dialogue: list[Step] = [("refusal", RECORDED)]
    answer = ask("POST", "/images/create?fromImage=docker.io/x/y&tag=1", dialogue)
    assert answer.rule == "image.not-allowed"


def test_an_operator_vouches_for_a_local_image() -> None:
    knows = state(inventory(ledger={}))
    local = image(RepoDigests=[])
    body = {"reference": REFERENCE}
    answer = ask(
        "POST",
        "/trimtab/v1/trust",
        [(LOOK, reply(local)), ("operator", RECORDED)],
        knows,
        body=body,
        actor=OPERATOR,
    )
    assert answer.json == {"reference": REFERENCE, "id": IMAGE, "digest": ""}
    assert knows.inventory.ledger == {REFERENCE: TrustedImage(REFERENCE, IMAGE)}
    unwritten = ask(
        "POST",
        "/trimtab/v1/trust",
        [(LOOK, reply(local)), ("operator", UNRECORDED)],
        body=body,
        actor=OPERATOR,
    )
    assert unwritten.rule == "journal.unavailable"
    missing: list[Step] = [(LOOK, NOT_FOUND)]
    assert ask("POST", "/trimtab/v1/trust", missing, body=body, actor=OPERATOR).status == 404
    for wrong in ({"reference": "alpine:latest"}, {"ref": "x"}, ["x"]):
        refused: list[Step] = [("refusal", RECORDED)]
        answer = ask("POST", "/trimtab/v1/trust", refused, body=wrong, actor=OPERATOR)
        assert answer.rule in {"image.not-allowed", "body.invalid"}


def test_images_are_listed_under_admitted_names_only() -> None:
    told = [
        {"Id": "1", "RepoTags": [REFERENCE, "evil/web:1"], "RepoDigests": None},
        {"Id": "2", "RepoTags": ["ghcr.io/platformnetworkevil/x:1"], "RepoDigests": []},
        {"Id": "3", "RepoTags": None, "RepoDigests": [f"ghcr.io/platformnetwork/a@{DIGEST}"]},
    ]
    answer = ask("GET", "/images/json", [(ReadEngine("/images/json?filters=%7B%7D"), reply(told))])
    assert answer.json == [
        {"Id": "1", "RepoTags": [REFERENCE], "RepoDigests": []},
        {"Id": "3", "RepoTags": [], "RepoDigests": [f"ghcr.io/platformnetwork/a@{DIGEST}"]},
    ]


def test_filters_of_images_tell_nothing_of_images_that_are_not_shown() -> None:
    told = [
        {"Id": "1", "RepoTags": [REFERENCE, "evil/x:1", "ghcr.io/platformnetwork/db:2"]},
        {"Id": "2", "RepoTags": ["evil/y:1"], "RepoDigests": []},
    ]
    for pattern, shown in (
        ("evil/*", []),
        ("ghcr.io/platformnetwork/w*", [REFERENCE]),
        (REFERENCE, [REFERENCE]),
        ("ghcr.io/*", []),  # as the engine has it: * is within one part
        ("*/*/*:2", ["ghcr.io/platformnetwork/db:2"]),
        ("*" * 300, []),
    ):
        asked = quote(json.dumps({"reference": [pattern]}))
        # The pattern itself isn't the engine's to judge.
        look = ReadEngine("/images/json?filters=%7B%7D")
        answer = ask("GET", f"/images/json?filters={asked}", [(look, reply(told))])
        assert [image["RepoTags"] for image in answer.json] == ([shown] if shown else [])
    for key in ("before", "since"):
        for name in ("evil/x:1", "415069f4ee51", "sha256:" + "77" * 32):
            asked = quote(json.dumps({key: [name]}))
            answer = ask("GET", f"/images/json?filters={asked}", [])
            assert (answer.status, answer.json["message"]) == (404, f"No such image: {name}")
    since = json.dumps({"since": [IMAGE[:24]]}, separators=(",", ":"))
    look = ReadEngine(f"/images/json?filters={quote(since, safe='')}")
    answer = ask("GET", f"/images/json?filters={quote(since)}", [(look, reply(told[:1]))])
    assert len(answer.json) == 1


def test_layers_have_only_names_that_the_policy_admits() -> None:
    layers = [{"Id": IMAGE, "Tags": [REFERENCE, "evil/x:1"]}, {"Id": "<missing>", "Tags": None}]
    history: list[Step] = [
        (LOOK, reply(image())),
        (ReadEngine(f"/images/{IMAGE}/history"), reply(layers)),
    ]
    assert ask("GET", f"/images/{REFERENCE}/history", history).json == [
        {"Id": IMAGE, "Tags": [REFERENCE]},
        {"Id": "<missing>", "Tags": []},
    ]


def test_only_operators_see_the_values_of_build_arguments() -> None:
    layers = [
        {"Id": IMAGE, "Tags": [], "CreatedBy": "|2 A=secret B=word /bin/sh -c make"},
        {"Id": "<missing>", "Tags": [], "CreatedBy": "/bin/sh -c echo a|2 B=1"},
    ]
    history: list[Step] = [
        (LOOK, reply(image())),
        (ReadEngine(f"/images/{IMAGE}/history"), reply(layers)),
    ]
    assert ask("GET", f"/images/{REFERENCE}/history", history).json == [
        {**layers[0], "CreatedBy": "|2 [withheld]"},
        layers[1],
    ]


def test_the_controller_sees_an_image_only_if_it_may_run() -> None:
    target = f"/images/{REFERENCE}/json"
    shown: list[Step] = [(LOOK, reply(image(RepoTags=[REFERENCE, "evil/x:1"])))]
    forged = state(inventory(ledger={REFERENCE: TrustedImage(REFERENCE, "sha256:other")}))
    assert ask("GET", target, shown, actor=CONTROLLER).json["RepoTags"] == [REFERENCE]
    assert ask("GET", target, shown, forged, actor=CONTROLLER).status == 404
    assert ask("GET", target, shown, forged).status == 200
    local = policy(
        profile="development",
        images={"allow": ["ghcr.io/platformnetwork/"], "trustLocal": ["ghcr.io/platformnetwork/"]},
    )
    trusting = state(inventory(ledger={}), policy=local)
    assert ask("GET", target, shown, trusting, actor=CONTROLLER).status == 200


@pytest.mark.parametrize(
    ("identifier", "pulled", "shown"),
    [
        (IMAGE, "", True),  # a registry's digest beside the id
        (DIGEST, "", False),  # the containerd image store: every image has its id as digest
        (DIGEST, DIGEST, True),
    ],
)
def test_a_digest_that_is_the_id_is_a_registrys_only_after_a_pull(
    identifier: str, pulled: str, *, shown: bool
) -> None:
    found = image(Id=identifier, RepoDigests=[f"ghcr.io/platformnetwork/web@{DIGEST}"])
    ledger = {REFERENCE: TrustedImage(REFERENCE, identifier, pulled)}
    knows = state(inventory(ledger=ledger))
    look: list[Step] = [(LOOK, reply(found))]
    target = f"/images/{REFERENCE}/json"
    seen = ask("GET", target, look, knows, actor=CONTROLLER).json["RepoDigests"]
    assert bool(seen) is shown
    assert (
        ask("GET", target, look, knows, actor=OPERATOR).json["RepoDigests"] == found["RepoDigests"]
    )
    body = {"reference": REFERENCE}
    vouched = [*look, ("operator", RECORDED)]
    answer = ask("POST", "/trimtab/v1/trust", vouched, knows, body=body, actor=OPERATOR)
    assert answer.json.get("digest", "") == (DIGEST if shown else "")


def test_an_image_by_id_is_shown_if_something_of_ours_knows_it() -> None:
    by_id = ReadEngine(f"/images/{IMAGE}/json")
    nameless = reply(image(RepoTags=[], RepoDigests=["evil.example/x@" + DIGEST]))
    pinned = state(
        inventory(ledger={}, pins={REVISION: PinnedImage(IMAGE, "", "ghcr.io/platformnetwork/web")})
    )
    answer = ask("GET", f"/images/{IMAGE}/json", [(by_id, nameless)], pinned, actor=CONTROLLER)
    assert (answer.status, answer.json["RepoDigests"]) == (200, [])
    unknown = state(inventory(ledger={}))
    assert ask("GET", f"/images/{IMAGE}/json", [(by_id, nameless)], unknown).status == 404
    bare = IMAGE.removeprefix("sha256:")
    assert ask("GET", f"/images/{bare}/json", [(by_id, nameless)], pinned).json == answer.json
    history: list[Step] = [
        (LOOK, reply(image())),
        (ReadEngine(f"/images/{IMAGE}/history"), reply([])),
    ]
    assert ask("GET", f"/images/{REFERENCE}/history", history).json == []


def test_other_images_are_not_looked_at_and_read_as_if_they_were_not_there() -> None:
    refused: list[Step] = [("refusal", RECORDED)]
    for name in ("alpine", "ghcr.io/platformnetworkevil/x", "415069f4ee51"):
        answer = ask("GET", f"/images/{name}/json", refused)
        assert (answer.status, answer.json["message"]) == (404, f"No such image: {name}")
        assert answer.rule.startswith("image.")


def test_a_look_of_the_controller_at_an_image_that_is_not_admitted_is_no_refusal() -> None:
    answer = ask("GET", "/images/alpine/json", [], actor=CONTROLLER)
    assert (answer.status, answer.json["message"]) == (404, "No such image: alpine")


# Networks


def test_a_network_is_made_as_admitted_and_ours() -> None:
    knows = state(inventory())
    sent = Sent("/networks/create", Name="more", Internal=True)
    answer = ask(
        "POST",
        "/networks/create",
        [(ReadEngine("/networks/more"), NOT_FOUND), *changed(sent, reply({"Id": STRAY}, 201))],
        knows,
        body={"Name": "more", "Driver": "bridge"},
    )
    assert answer.json == {"Id": STRAY}
    made = knows.inventory.networks[STRAY]
    assert (made.name, made.owner, made.origin, made.intent) == ("more", "alice", "client", "id-1")


def test_a_subnet_is_held_against_the_routes_of_now() -> None:
    knows = state(inventory(), policy=policy(networks={"subnets": ["172.16.0.0/12"]}))
    knows.routes = lambda: ("172.31.0.0/16",)
    refused: list[Step] = [(ReadEngine("/networks/more"), NOT_FOUND), ("refusal", RECORDED)]
    body = {"Name": "more", "IPAM": {"Config": [{"Subnet": "172.31.0.0/24"}]}}
    answer = ask("POST", "/networks/create", refused, knows, body=body)
    assert (answer.status, answer.rule) == (403, "network.address")


def test_a_network_of_a_stranger_keeps_its_name() -> None:
    stranger = network(STRAY, "more", "alice", Labels={})
    refused: list[Step] = [(ReadEngine("/networks/more"), reply(stranger)), ("refusal", RECORDED)]
    answer = ask("POST", "/networks/create", refused, body={"Name": "more"})
    assert answer.status == 403
    assert answer.rule in {"network.foreign", "name.foreign"}


OURS = reply(network(NETWORK, "alice-net", "alice"))
FOUND: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice")))


def test_a_network_goes_by_full_id() -> None:
    knows = state(inventory())
    forward = Forward("DELETE", f"/networks/{NETWORK}", deadline_s=15.0)
    look: Step = (ReadEngine("/networks/alice-net"), OURS)
    ask("DELETE", "/networks/alice-net", [look, *changed(forward)], knows)
    assert knows.inventory.networks == {}
    theirs: list[Step] = [look, ("refusal", RECORDED)]
    assert ask("DELETE", "/networks/alice-net", theirs, actor=BOB).status == 404


def test_a_namespaces_network_is_not_removed_by_the_client_that_came_first() -> None:
    known = inventory()
    implied = replace(known.networks[NETWORK], name="platform-network", namespace="default")
    knows = state(replace(known, networks={NETWORK: implied}))
    look: Step = (
        ReadEngine("/networks/platform-network"),
        reply(network(NETWORK, "platform-network", "alice")),
    )
    answer = ask("DELETE", "/networks/platform-network", [look, ("refusal", RECORDED)], knows)
    assert (answer.status, answer.rule) == (403, "network.shared")
    forward = Forward("DELETE", f"/networks/{NETWORK}", deadline_s=15.0)
    ask("DELETE", "/networks/platform-network", [look, *changed(forward)], knows, actor=OPERATOR)
    assert knows.inventory.networks == {}


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_joining_and_leaving_go_by_full_ids_whatever_the_client_called_them(verb: str) -> None:
    knows = state(inventory())
    joined: dict[str, Any] = {"Networks": {"alice-net": {}} if verb == "disconnect" else {"x": {}}}
    shown = inspect(WEB, "alice-web", "alice", NetworkSettings=joined)
    shown["HostConfig"]["NetworkMode"] = "alice-net"
    sent = Sent(f"/networks/{NETWORK}/{verb}", Container=WEB)
    answer = ask(
        "POST",
        f"/networks/alice-net/{verb}",
        [
            (ReadEngine("/containers/alice-web/json"), reply(shown)),
            (ReadEngine("/networks/alice-net"), OURS),
            *changed(sent, Reply(200)),
        ],
        knows,
        body={"Container": "alice-web"},
    )
    assert answer.status == 200
    assert answer.entries[0].request["object"] == WEB
    networks = knows.inventory.containers[WEB].admitted.networks
    assert networks == (("alice-net",) if verb == "connect" else ())


@pytest.mark.parametrize("container", ["../x", "a/b", "", DB])
def test_what_is_not_the_callers_joins_nothing(container: str) -> None:
    look: Step = (ReadEngine(f"/containers/{DB}/json"), reply(inspect(DB, "bob-db", "bob")))
    dialogue: list[Step] = [*([look] if container == DB else []), ("refusal", RECORDED)]
    answer = ask("POST", "/networks/alice-net/connect", dialogue, body={"Container": container})
    assert answer.status == 404


def test_nothing_joins_a_network_that_is_not_the_callers() -> None:
    host = network(STRAY, "host", "x", Labels={}, Driver="host")
    dialogue: list[Step] = [
        FOUND,
        (ReadEngine("/networks/host"), reply(host)),
        ("refusal", RECORDED),
    ]
    answer = ask("POST", "/networks/host/connect", dialogue, body={"Container": WEB})
    assert (answer.status, answer.entries[0].verdict["rules"]) == (404, ["foreign"])


@pytest.mark.parametrize("actor", [CONTROLLER, OPERATOR])
def test_a_container_is_taken_off_a_network_that_is_not_ours(actor: Actor) -> None:
    in_it = inspect(SLOT, SERVICE, "team", NetworkSettings={"Networks": {"strays": {}}})
    in_it["Config"]["Labels"] = labels("team", origin="controller")
    dialogue: list[Step] = [
        (ReadEngine(f"/containers/{SLOT}/json"), reply(in_it)),
        (ReadEngine("/networks/strays"), reply(network(STRAY, "strays", "x", Labels={}))),
        *changed(Sent(f"/networks/{STRAY}/disconnect", Container=SLOT), Reply(200)),
    ]
    path, body = "/networks/strays/disconnect", {"Container": SLOT}
    assert ask("POST", path, dialogue, body=body, actor=actor).status == 200


def test_a_network_that_is_not_ours_is_left_by_nobody_who_is_not_in_it() -> None:
    stray: Step = (ReadEngine("/networks/strays"), reply(network(STRAY, "strays", "x", Labels={})))
    ours = inspect(SLOT, SERVICE, "team")
    ours["Config"]["Labels"] = labels("team", origin="controller")
    found: Step = (ReadEngine(f"/containers/{SLOT}/json"), reply(ours))
    path, body = "/networks/strays/disconnect", {"Container": SLOT}
    answer = ask("POST", path, [found, stray, ("refusal", RECORDED)], body=body, actor=CONTROLLER)
    assert answer.status == 404
    in_it = inspect(WEB, "alice-web", "alice", NetworkSettings={"Networks": {"strays": {}}})
    mine: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(in_it))
    answer = ask("POST", path, [mine, stray, ("refusal", RECORDED)], body={"Container": WEB})
    assert answer.status == 404


# Volumes


def volume(name: str, owner: str, intent: str = "i0", **more: Any) -> Reply:
    told = {"Name": name, "Driver": "local", "Options": None, "Mountpoint": "/secret"}
    return reply({**told, "Labels": labels(owner, intent=intent), **more}, 201)


def test_a_volume_is_made_and_ours() -> None:
    knows = state(inventory())
    sent = Sent("/volumes/create", Name="more")
    dialogue: list[Step] = [
        (ReadEngine("/volumes/more"), NOT_FOUND),
        *changed(sent, volume("more", "alice", "id-1")),
    ]
    answer = ask("POST", "/volumes/create", dialogue, knows, body={"Name": "more"})
    assert (answer.status, answer.json["Mountpoint"]) == (201, "")
    assert knows.inventory.volumes["more"].intent == "id-1"


def test_operators_make_volumes_of_documents_while_a_backup_is_restored_elsewhere() -> None:
    """Then the controller mounts it; at any other time an operator's volume is the operator's own."""
    since = replace(inventory(), restored="2026-01-01T12:00:00.000Z", restored_from="f00")
    asked = {names.OWNER: "team", names.NAMESPACE: "shop", names.SERVICE: "web"}
    body = {"Name": "shop.more", "Labels": asked}
    made = {**asked, names.ORIGIN: "controller", names.INTENT: "id-1", names.INSTANCE: "i1"}
    knows = state(since)
    told = reply({"Name": "shop.more", "Labels": made}, 201)
    dialogue: list[Step] = [
        (ReadEngine("/volumes/shop.more"), NOT_FOUND),
        *changed(Sent("/volumes/create"), told),
    ]
    answer = ask("POST", "/volumes/create", dialogue, knows, body=body, actor=OPERATOR)
    assert answer.status == 201
    kept = knows.inventory.volumes["shop.more"]
    assert (kept.namespace, kept.owner, kept.origin) == ("shop", "team", "controller")
    refused = ask("POST", "/volumes/create", [("refusal", RECORDED)], knows, body=body)
    assert (refused.status, refused.rule) == (403, "state.unconfirmed")


@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("volumes", volume("more", "alice", "id-1")),
        ("networks", reply(network(STRAY, "more", "alice"))),
    ],
)
def test_what_a_create_just_made_is_nobody_elses(kind: str, made: Reply, under_way: bool) -> None:
    # It shows on the engine before its outcome is in the inventory.
    knows = state(inventory())
    begun: list[Step] = [
        (ReadEngine(f"/{kind}/more"), NOT_FOUND),
        ("intent", RECORDED),
        (Sent(f"/{kind}/create"), lost()),
    ]
    assert ask("POST", f"/{kind}/create", begun, knows, body={"Name": "more"}).status == 504
    knows.intents.in_flight |= {"id-1"} if under_way else set()
    shown: list[Step] = [(ReadEngine(f"/{kind}/more"), made), ("refusal", RECORDED)]
    answer = ask("POST", f"/{kind}/create", shown, knows, body={"Name": "more"})
    assert (answer.status, answer.rule) == (409, "held")


def test_a_size_that_the_engine_cannot_hold_is_a_refusal_with_its_remedy() -> None:
    told = reply({"message": "quota size requested but no quota support"}, 400)
    knows = state(inventory(), policy=policy(resources={"volumeMax": "10Gi"}))
    dialogue: list[Step] = [
        (ReadEngine("/volumes/more"), NOT_FOUND),
        *changed(Sent("/volumes/create", DriverOpts={"size": "1073741824"}), told),
    ]
    body = {"Name": "more", "DriverOpts": {"size": "1g"}}
    answer = ask("POST", "/volumes/create", dialogue, knows, body=body)
    assert (answer.status, answer.rule) == (400, "volume.no-quota")
    assert "prjquota" in answer.json["trimtab"]["remedy"]
    assert "more" not in knows.inventory.volumes


def test_a_volume_that_exists_is_never_handed_out_to_others() -> None:
    existing: Step = (ReadEngine("/volumes/alice-data"), volume("alice-data", "alice"))
    body = {"Name": "alice-data"}
    again = ask("POST", "/volumes/create", [existing], body=body)
    assert (again.status, again.json["Mountpoint"]) == (201, "")
    others = ask("POST", "/volumes/create", [existing, ("refusal", RECORDED)], body=body, actor=BOB)
    assert others.status == 403


def test_a_volume_that_somebody_made_meanwhile_is_not_ours() -> None:
    knows = state(inventory())
    raced = volume("more", "alice", "another", Options={"o": "bind", "device": "/"})
    dialogue: list[Step] = [
        (ReadEngine("/volumes/more"), NOT_FOUND),
        *changed(Sent("/volumes/create"), raced),
    ]
    answer = ask("POST", "/volumes/create", dialogue, knows, body={"Name": "more"})
    assert (answer.status, answer.rule) == (409, "name.foreign")
    assert "more" not in knows.inventory.volumes
    assert knows.inventory.open == {}


def test_only_operators_remove_volumes_without_an_approval() -> None:
    forward = Forward("DELETE", "/volumes/alice-data", deadline_s=15.0)
    existing: Step = (ReadEngine("/volumes/alice-data"), volume("alice-data", "alice"))
    for who in (ALICE, OPERATOR):
        knows = state(inventory())
        dialogue = [existing, *changed(forward)]
        assert ask("DELETE", "/volumes/alice-data", dialogue, knows, actor=who).status == 204
        assert knows.inventory.volumes == {}
    refused: list[Step] = [existing, ("refusal", RECORDED)]
    answer = ask("DELETE", "/volumes/alice-data", refused, actor=CONTROLLER)
    assert (answer.status, answer.rule) == (403, "volume.approval")
    theirs: list[Step] = [existing, ("refusal", RECORDED)]
    assert ask("DELETE", "/volumes/alice-data", theirs, actor=BOB).status == 404


# Quotas


def at_quota(**quotas: Any) -> GateState:
    return state(inventory(), policy=policy(quotas=quotas))


#: The reads of a look for objects that were removed behind the broker's back: none was.
def sweep(knows: GateState) -> list[Step]:
    known = knows.inventory
    return [
        (ReadEngine("/info"), reply({"ID": "engine-1"})),
        (ReadEngine(ALL_CONTAINERS), reply([{"Id": key} for key in known.containers])),
        (ReadEngine(ALL_NETWORKS), reply([{"Id": key} for key in known.networks])),
        (ReadEngine(ALL_VOLUMES), reply({"Volumes": [{"Name": key} for key in known.volumes]})),
    ]


def test_a_client_at_its_quota_makes_no_volume_and_no_network() -> None:
    knows = at_quota(volumesPerOwner=1, networksPerOwner=0)
    look: Step = (ReadEngine("/volumes/more"), NOT_FOUND)
    told = ask(
        "POST",
        "/volumes/create",
        [look, *sweep(knows), ("refusal", RECORDED)],
        knows,
        body={"Name": "more"},
    )
    assert (told.status, told.rule) == (403, "quota.volumes")
    # Refusals within a second cost one look at the lists.
    told = ask(
        "POST", "/volumes/create", [look, ("refusal", RECORDED)], knows, body={"Name": "more"}
    )
    assert (told.status, told.rule) == (403, "quota.volumes")
    at(knows, 1.0)
    look = (ReadEngine("/networks/more"), NOT_FOUND)
    told = ask(
        "POST",
        "/networks/create",
        [look, *sweep(knows), ("refusal", RECORDED)],
        knows,
        body={"Name": "more", "Internal": True},
    )
    assert (told.status, told.rule) == (403, "quota.networks")


def test_a_volume_that_went_away_unseen_does_not_count() -> None:
    knows = at_quota(volumesPerOwner=1)
    (gone,) = [name for name, each in knows.inventory.volumes.items() if each.owner == "alice"]
    reads = [each for each in sweep(knows) if each[0] != ReadEngine(ALL_VOLUMES)]
    made = reply({"Name": "more", "Labels": {"io.trimtab.intent": "id-1"}}, 201)
    dialogue: list[Step] = [
        (ReadEngine("/volumes/more"), NOT_FOUND),
        *reads,
        (ReadEngine(ALL_VOLUMES), reply({"Volumes": []})),
        *[
            step
            for name in knows.inventory.volumes
            for step in ((ReadEngine(f"/volumes/{name}"), NOT_FOUND), ("read", RECORDED))
        ],
        *changed(Sent("/volumes/create"), made),
    ]
    told = ask("POST", "/volumes/create", dialogue, knows, body={"Name": "more"})
    assert told.status == 201
    assert gone not in knows.inventory.volumes
