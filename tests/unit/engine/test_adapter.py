"""The adapter: the request of each action, and the meaning of each response."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import pytest

from controller.engine.adapter import TEXTS_MAX, BrokerEngine, ignore_progress
from controller.engine.requests import (
    ConnectionBroken,
    EngineResponse,
    NotSent,
    OutgoingRequest,
    split_reference,
)
from controller.engine.responses import event_of, parse_rows
from controller.model import errors
from controller.model.desired.desired import TRACED, Service, SourceLocation
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    MoveService,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
)
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Act
from controller.model.inventory import OwnedObject
from controller.model.names import Key, NetworkNames, service_key
from controller.model.observed import Ending, HostPort, Observed
from controller.model.records import Context, Precondition
from controller.ports import ContainerSummary, EngineEvent

KEY = service_key("default", "web")
DOWN = "2026-01-01T00:00:01.000Z"
REVISION = "v2:" + "0" * 64
CONTEXT = Context(cause="slot is empty", file="web.yaml", line=3, plan="abc")


@dataclass
class Lines:
    """A stream of given lines. An exception among the lines is raised at its place."""

    status: int
    content: list[bytes | Exception]
    closed: bool = False

    def lines(self) -> Iterator[bytes]:
        for line in self.content:
            if isinstance(line, Exception):
                raise line
            yield line

    def close(self) -> None:
        self.closed = True


@dataclass
class Wire:
    """A transport in memory: responds by method and path, and stores the requests."""

    answers: dict[str, Any] = field(default_factory=dict)
    sent: list[tuple[str, str, dict[str, str], object]] = field(default_factory=list)
    contexts: list[dict[str, object]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def _answer(self, request: OutgoingRequest, context: str) -> Any:
        method, path = request.method, request.path
        self.contexts.append(decoded(context))
        self.timeouts.append(request.timeout_s)
        self.sent.append((method, path, request.query, request.body))
        answer = self.answers.get(
            f"{method} {path}", EngineResponse(404, b'{"message": "no such thing"}')
        )
        if isinstance(answer, tuple):  # one after the other, the last one for ever
            self.answers[f"{method} {path}"] = answer[1:] or answer
            answer = answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        answer = self._answer(request, context)
        return (
            answer
            if isinstance(answer, EngineResponse)
            else EngineResponse(200, json.dumps(answer).encode())
        )

    def stream(self, request: OutgoingRequest, context: str) -> Lines:
        answer = self._answer(request, context)
        assert isinstance(answer, Lines)
        return answer


def decoded(context: str) -> dict[str, object]:
    """Read Trimtab-Context as the gate does."""
    claims = json.loads(base64.urlsafe_b64decode(context + "=" * (-len(context) % 4)))
    assert isinstance(claims, dict)
    return claims


def engine(
    wire: Wire,
    points: list[str] | None = None,
    on_progress: Callable[[Key, str], None] = ignore_progress,
) -> BrokerEngine:
    """Return an adapter that never pauses."""
    return BrokerEngine(
        wire,
        networks=NetworkNames,
        pause=lambda _seconds: None,
        reach=(points if points is not None else []).append,
        on_progress=on_progress,
    )


SERVICE = Service(
    key=KEY,
    owner="team",
    spec=ServiceSpec.model_validate_json('{"image": "trimtab.local/web:1"}'),
    revision=REVISION,
    source=SourceLocation("web.yaml", 3),
)
BY_ID = Precondition(id="c1", revision=REVISION)


def on(kind: type[Any], **more: object) -> AnyAction:
    """Return an action on the container c1."""
    action: AnyAction = kind(
        object=KEY, target="web.1-00000000", cause="why", slot=1, precondition=BY_ID, **more
    )
    return action


@pytest.mark.parametrize(
    ("action", "request_line", "query", "body", "timeout_s"),
    [
        (on(StartContainer), "POST /containers/c1/start", {}, None, 120),
        (on(StopContainer, grace_s=30), "POST /containers/c1/stop", {"t": "30"}, None, 45),
        (on(RemoveContainer), "DELETE /containers/c1", {}, None, 60),
        (
            on(UpdateContainer, restart="on-failure", restart_max=10),
            "POST /containers/c1/update",
            {},
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 10}},
            60,
        ),
        (
            on(
                UpdateContainer,
                limits={"memory": 64, "memory_swap": 64, "nano_cpus": 5, "pids": 7},
            ),
            "POST /containers/c1/update",
            {},
            {"Memory": 64, "MemorySwap": 64, "NanoCpus": 5, "PidsLimit": 7},
            60,
        ),
        (on(UnpauseContainer), "POST /containers/c1/unpause", {}, None, 60),
        (
            MoveService(
                object=service_key("default", "web"),
                target="web",
                cause="c",
                source=service_key("default", "api"),
                owner="team",
            ),
            "POST /trimtab/v1/records",
            {},
            {
                "act": "service.moved",
                "object": "Service/default/web",
                "from": "Service/default/api",
                "owner": "team",
            },
            60,
        ),
        (on(RenameContainer, name="w"), "POST /containers/c1/rename", {"name": "w"}, None, 60),
        (
            on(ConnectNetwork, network="n", aliases=("web",)),
            "POST /networks/n/connect",
            {},
            {"Container": "c1", "EndpointConfig": {"Aliases": ["web"]}},
            60,
        ),
        (
            on(ConnectNetwork, network="n"),
            "POST /networks/n/connect",
            {},
            {"Container": "c1"},
            60,
        ),
        (
            on(DisconnectNetwork, network="n"),
            "POST /networks/n/disconnect",
            {},
            {"Container": "c1"},
            60,
        ),
        (on(RemoveNetwork), "DELETE /networks/c1", {}, None, 60),
    ],
)
def test_a_change_is_one_request_on_the_full_id(
    action: AnyAction,
    request_line: str,
    query: dict[str, str],
    body: object,
    timeout_s: float,
) -> None:
    wire = Wire({request_line: EngineResponse(204)})
    assert engine(wire).perform(action, CONTEXT) == ""
    method, path = request_line.split()
    assert wire.sent == [(method, path, query, body)]
    assert wire.timeouts == [timeout_s]


def test_a_create_returns_the_id_of_what_it_made() -> None:
    wire = Wire(
        {
            "POST /containers/create": EngineResponse(201, b'{"Id": "c1", "Warnings": []}'),
            "POST /networks/create": EngineResponse(201, b'{"Id": "n1"}'),
            "POST /volumes/create": EngineResponse(201, b'{"Name": "data"}'),
        }
    )
    create = CreateContainer(
        object=KEY,
        target="web.1-00000000",
        cause="slot is empty",
        slot=1,
        service=SERVICE,
        image="sha256:ab",
    )
    made = [
        engine(wire).perform(action, CONTEXT)
        for action in (
            create,
            CreateNetwork(object=KEY, target="n", cause="", owner="team"),
            CreateVolume(object=KEY, target="data", cause="", owner="team"),
        )
    ]
    assert made == ["c1", "n1", "data"]
    method, path, query, body = wire.sent[0]
    assert (method, path, query) == ("POST", "/containers/create", {"name": "web.1-00000000"})
    assert isinstance(body, dict)
    assert body["Image"] == "sha256:ab"


def test_a_mutation_carries_the_claims_and_a_look_only_its_cause() -> None:
    wire = Wire({"POST /containers/c1/start": EngineResponse(204), "GET /containers/json": []})
    adapter = engine(wire)
    adapter.perform(on(StartContainer), CONTEXT)
    adapter.list_containers()
    assert wire.contexts == [
        {
            "cause": "slot is empty",
            "source": {"file": "web.yaml", "line": 3, "commit": ""},
            "plan": "abc",
            "precondition": {"id": "c1", "revision": SERVICE.revision},
        },
        {"cause": "observe"},
    ]


def test_of_what_is_not_declared_the_commit_alone_is_claimed() -> None:
    wire = Wire({"POST /containers/c1/start": EngineResponse(204)})
    engine(wire).perform(on(StartContainer), Context(cause="gone", commit="c0ffee"))
    assert wire.contexts[0]["source"] == {"file": "", "line": 0, "commit": "c0ffee"}


def test_the_lines_of_fields_are_claimed_where_they_are_known() -> None:
    wire = Wire({"POST /containers/c1/start": EngineResponse(204)})
    lines = (("image", 7), ("resources.memory", 12))
    engine(wire).perform(on(StartContainer), Context(file="web.yaml", line=3, lines=lines))
    assert wire.contexts[0]["source"] == {
        "file": "web.yaml",
        "line": 3,
        "commit": "",
        "lines": {"image": 7, "resources.memory": 12},
    }


def test_claims_fit_into_the_header_however_long_they_are() -> None:
    wire = Wire({"POST /containers/c1/start": EngineResponse(204)})
    lines = tuple((name, 99_999) for name in TRACED)
    long = Context("x" * 9000, "y" * 9000, 3, "c" * 64, "z" * 64, "uid:0", lines)
    engine(wire).perform(on(StartContainer), long)
    assert len(json.dumps(wire.contexts[0])) < 3000


REFUSAL = json.dumps(
    {
        "message": "image.not-allowed: x (y)",
        "trimtab": {"rule": "image.not-allowed", "reason": "x", "remedy": "y", "id": "i"},
    }
).encode()


OVER = REFUSAL.replace(b"image.not-allowed", b"blast.radius")


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (EngineResponse(403, REFUSAL), errors.Refused, "image.not-allowed"),
        (EngineResponse(400, REFUSAL), errors.Refused, "image.not-allowed"),
        (EngineResponse(403, OVER), errors.OverShare, "blast.radius"),
        (EngineResponse(403, b"<html>"), errors.Refused, "refused"),
        (EngineResponse(404, b'{"message": "gone"}'), errors.NotFound, "engine.not-found"),
        (EngineResponse(409, b'{"message": "taken"}'), errors.Conflict, "engine.conflict"),
        (EngineResponse(409, REFUSAL), errors.Conflict, "image.not-allowed"),
        (
            EngineResponse(500, b'{"message": "port is taken"}'),
            errors.EngineFailed,
            "engine.failed",
        ),
        (
            EngineResponse(400, b'{"message": "no such command"}'),
            errors.EngineFailed,
            "engine.failed",
        ),
        (EngineResponse(502), errors.EngineUnavailable, "engine.unavailable"),
        (EngineResponse(503, b"{}"), errors.EngineUnavailable, "engine.unavailable"),
        (EngineResponse(504), errors.ReplyLost, "reply.lost"),
        (NotSent("no socket"), errors.EngineUnavailable, "broker.unavailable"),
        (ConnectionBroken("reset"), errors.ReplyLost, "reply.lost"),
    ],
)
def test_each_answer_to_a_mutation_is_an_error_that_says_who_acts_next(
    answer: object, kind: type[errors.EngineError], code: str
) -> None:
    wire = Wire({"POST /containers/c1/start": answer})
    with pytest.raises(errors.EngineError) as caught:
        engine(wire).perform(on(StartContainer), CONTEXT)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert len(wire.sent) == 1, "a mutation is never sent twice"


def test_a_start_of_what_runs_already_is_no_error() -> None:
    wire = Wire({"POST /containers/c1/start": EngineResponse(304)})
    assert engine(wire).perform(on(StartContainer), CONTEXT) == ""


def test_a_look_is_repeated_when_the_connection_breaks_and_only_a_few_times() -> None:
    wire = Wire({"GET /containers/json": (ConnectionBroken("reset"), NotSent("gone"), [])})
    assert engine(wire).list_containers() == frozenset()
    wire = Wire({"GET /containers/json": ConnectionBroken("reset")})
    with pytest.raises(errors.EngineUnavailable):
        engine(wire).list_containers()
    assert len(wire.sent) == 3


def test_a_look_is_not_repeated_because_of_what_was_answered() -> None:
    wire = Wire({"GET /containers/json": EngineResponse(500, b"{}")})
    with pytest.raises(errors.EngineFailed):
        engine(wire).list_containers()
    assert len(wire.sent) == 1


def test_a_pull_is_read_to_its_end_and_fails_by_what_is_said_in_it() -> None:
    pull = PullImage(object=KEY, target="reg.example:5000/web:1", cause="absent")
    good = Wire(
        {"POST /images/create": Lines(200, [b'{"status":"Pulling"}', b'{"status":"Done"}'])}
    )
    assert engine(good).perform(pull, CONTEXT) == ""
    assert good.sent[0][2] == {"fromImage": "reg.example:5000/web", "tag": "1"}
    assert good.timeouts == [150.0], "the broker gives up first"


def told(rule: str, **more: str) -> bytes:
    """Return a refusal of the gate, as a whole response or as the last line of a stream."""
    said = {"rule": rule, "reason": "why", "remedy": "do so", "id": "1"}
    return json.dumps({"message": f"{rule}: why", "trimtab": said, **more}).encode()


@pytest.mark.parametrize(
    ("lines", "error", "code", "act"),
    [
        (Lines(404, [told("image.notfound")]), errors.PullFailed, "image.notfound", Act.STALLED),
        (Lines(500, [told("image.registry")]), errors.PullFailed, "image.registry", Act.RETRY),
        (Lines(504, [told("image.registry")]), errors.PullFailed, "image.registry", Act.RETRY),
        (
            Lines(200, [b'{"error":"unauthorized"}', told("image.denied", error="x")]),
            errors.PullFailed,
            "image.denied",
            Act.STALLED,
        ),
        (
            Lines(200, [b'{"error":"no such manifest"}']),
            errors.EngineFailed,
            "image.pull-failed",
            Act.RETRY,
        ),
        (Lines(200, [told("outcome.unknown")]), errors.ReplyLost, "outcome.unknown", Act.RETRY),
        (Lines(403, [REFUSAL]), errors.Refused, "image.not-allowed", Act.STALLED),
        (
            Lines(200, [b"{}", ConnectionBroken("silent")]),
            errors.ReplyLost,
            "reply.lost",
            Act.RETRY,
        ),
    ],
)
def test_a_pull_fails_by_its_last_word(
    lines: Lines, error: type[errors.EngineError], code: str, act: Act
) -> None:
    pull = PullImage(object=KEY, target="reg.example:5000/web:1", cause="absent")
    shown = list[str]()
    adapter = engine(
        Wire({"POST /images/create": lines}), on_progress=lambda _key, text: shown.append(text)
    )
    with pytest.raises(errors.EngineError) as raised:
        adapter.perform(pull, CONTEXT)
    assert (type(raised.value), raised.value.code, raised.value.act) == (error, code, act)
    assert shown[-1] == "", "nothing is shown of it any more"


def test_how_far_a_pull_is_is_told_when_it_changes() -> None:
    layer = b'{"id":"a","status":"Pull complete"}'
    lines = Lines(200, [b'{"id":"a","status":"Waiting"}', layer, layer, b'{"status":"Digest: x"}'])
    shown = list[tuple[Key, str]]()
    adapter = engine(
        Wire({"POST /images/create": lines}),
        on_progress=lambda key, text: shown.append((key, text)),
    )
    pull = PullImage(object=KEY, target="reg.example:5000/web:1", cause="absent")
    adapter.perform(pull, CONTEXT)
    assert shown == [
        (KEY, "reg.example:5000/web:1: asking its registry"),
        (KEY, "reg.example:5000/web:1: 0 of 1 layers"),
        (KEY, "reg.example:5000/web:1: 1 of 1 layers"),
        (KEY, ""),
    ]


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("alpine", ("alpine", "latest")),
        ("alpine:3", ("alpine", "3")),
        ("reg:5000/a", ("reg:5000/a", "latest")),
        ("reg:5000/a:1", ("reg:5000/a", "1")),
        ("a@sha256:ab", ("a", "sha256:ab")),
        ("reg:5000/a:1@sha256:ab", ("reg:5000/a", "sha256:ab")),
    ],
)
def test_a_reference_is_taken_apart_for_the_pull(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


def test_crash_points_lie_around_mutations_and_not_around_looks() -> None:
    points: list[str] = []
    wire = Wire({"POST /containers/c1/start": EngineResponse(204), "GET /containers/json": []})
    adapter = engine(wire, points)
    adapter.list_containers()
    adapter.perform(on(StartContainer), CONTEXT)
    assert points == [
        "broker.send.before",
        "broker.send.after",
        "broker.receive.before",
        "broker.receive.after",
    ]


#: The key of a network: its look is a request for each object.
LAN = Key("Network", "default", "lan")


def labelled(container_id: str, *, instance: str = "i", service: str = "web") -> dict[str, object]:
    return {
        "Id": container_id,
        "Names": [f"/{service}.1-00000000"],
        "State": "running",
        "Labels": {
            "io.trimtab.instance": instance,
            "io.trimtab.namespace": "default",
            "io.trimtab.service": service,
        },
        "NetworkSettings": {"Networks": {"platform-network": {}}},
    }


def inspected(container_id: str) -> dict[str, object]:
    return {"Id": container_id, "Name": "/web.1-00000000", "State": {"Status": "running"}}


def item(container_id: str) -> dict[str, object]:
    return {
        "id": container_id,
        "namespace": "default",
        "service": "web",
        "slot": 1,
        "revision": REVISION,
        "owner": "team",
        "origin": "controller",
        "intent": "i1",
        "image": "trimtab.local/web:1",
        "admitted": {"name": "web.1-00000000", "networks": ["a", "b"]},
        "network_aliases": [["a", ["sql"]]],
    }


def owned(identifier: str, name: str, namespace: str) -> dict[str, object]:
    return asdict(OwnedObject(identifier, name, namespace, "team", "controller", "i1"))


def world(**answers: object) -> Wire:
    inventory = {
        "instance": "i",
        "engineId": "E",
        "engineVersion": "26.1.5",
        "containers": [item("c1"), item("c2")],
        "networks": [
            owned("n1", "platform-network", "default"),
            owned("n2", "platform-network.prod", "prod"),
        ],
        "volumes": [owned("data", "data", "default")],
        "pins": [[REVISION, {"id": "sha256:ab", "digest": "", "repository": "a/b"}]],
    }
    return Wire(
        {
            "GET /containers/json": [labelled("c2"), labelled("c1"), labelled("x", instance="no")],
            "GET /containers/c1/json": inspected("c1"),
            "GET /containers/x/json": inspected("x"),  # another instance's
            "GET /trimtab/v1/inventory": inventory,
            "GET /networks/n1": {"Id": "n1", "Name": "platform-network", "Driver": "bridge"},
            "GET /volumes": {"Volumes": [{"Name": "data", "Driver": "local"}]},
            "GET /images/web:1/json": {"Id": "sha256:ab"},
            **answers,
        }
    )


def test_a_snapshot_holds_what_is_ours_and_leaves_out_what_vanished_on_the_way() -> None:
    wire = world()
    seen = engine(wire).observe(images=frozenset({"web:1", "absent:1"}), only=LAN)
    assert (seen.instance, seen.engine_id, seen.engine_version) == ("i", "E", "26.1.5")
    assert [container.id for container in seen.containers] == ["c1"]
    admitted = seen.containers[0].admitted
    assert admitted is not None
    assert admitted.networks == ("a", "b")
    assert seen.containers[0].admitted_aliases == (("a", ("sql",)),)
    assert [(network.id, network.ours) for network in seen.networks] == [("n1", True)]
    assert [(volume.name, volume.ours) for volume in seen.volumes] == [("data", True)]
    image = seen.images["web:1"]
    assert image is not None
    assert (image.id, seen.images["absent:1"]) == ("sha256:ab", None)
    assert seen.pins[REVISION].id == "sha256:ab"


def test_a_snapshot_has_who_ended_a_run_if_that_is_the_last_one() -> None:
    inventory = dict(world().answers["GET /trimtab/v1/inventory"])
    by_alice = {"route": "container.stop", "role": "operator", "uid": 1000, "time": DOWN}
    inventory |= {
        "endings": [[each, {"container": each, **by_alice}] for each in ("c1", "gone")],
        "takenDown": "d1",
    }

    def seen(finished_at: str) -> Observed:
        inspect = inspected("c1")
        inspect["State"] = {"Status": "exited", "FinishedAt": finished_at}
        wire = world(**{"GET /trimtab/v1/inventory": inventory, "GET /containers/c1/json": inspect})
        return engine(wire).observe(images=frozenset(), only=LAN)

    stopped = seen("2026-01-01T00:00:00.5Z")
    assert stopped.taken_down == "d1"
    assert stopped.endings["gone"] == Ending("gone", "container.stop", "operator", 1000, DOWN)
    assert stopped.containers[0].ending == stopped.endings["c1"]
    assert seen("2026-01-01T00:05:00Z").containers[0].ending is None, "it ran again since"


def test_bound_ports_are_read_only_beside_containers_with_ports() -> None:
    bound = frozenset({HostPort("0.0.0.0", 80, "tcp")})
    published = inspected("c1")
    published["NetworkSettings"] = {
        "Ports": {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}
    }
    for inspect, listening in ((inspected("c1"), frozenset()), (published, bound)):
        wire = world(**{"GET /containers/c1/json": inspect})
        adapter = BrokerEngine(
            wire, networks=NetworkNames, pause=lambda _seconds: None, listening=lambda: bound
        )
        assert adapter.observe(images=frozenset(), only=LAN).listening == listening


def test_a_look_at_one_service_is_one_request() -> None:
    parts = world().answers
    shown = {
        "inventory": parts["GET /trimtab/v1/inventory"],
        "containers": [inspected("c1")],
        "networks": [parts["GET /networks/n1"]],
        "volumes": [{"Name": "data", "Driver": "local"}],
        "images": {"web:1": {"Id": "sha256:ab"}, "absent:1": None},
    }
    wire, images = Wire({"GET /trimtab/v1/observe": shown}), frozenset({"web:1", "absent:1"})
    assert engine(wire).observe(images=images, only=KEY) == engine(world()).observe(
        images=images, only=LAN
    )
    ((_, path, query, _),) = wire.sent
    assert path == "/trimtab/v1/observe"
    assert query == {
        "namespace": "default",
        "service": "web",
        "images": '["absent:1", "web:1"]',
    }


def test_members_with_a_known_tag_are_taken_from_the_look_before() -> None:
    inventory = world().answers["GET /trimtab/v1/inventory"]
    tags = {"pins": "p1", "endings": "e1"}
    whole: dict[str, Any] = {
        "inventory": {**inventory, "tags": tags},
        "containers": [inspected("c1")],
        "networks": [],
        "volumes": [],
        "images": {},
    }
    wire = Wire({"GET /trimtab/v1/observe": whole})
    adapter = engine(wire)
    first = adapter.observe(images=frozenset(), only=KEY)
    left = {key: value for key, value in whole["inventory"].items() if key not in tags}
    wire.answers["GET /trimtab/v1/observe"] = {**whole, "inventory": left}
    second = adapter.observe(images=frozenset(), only=KEY)
    assert second == first
    assert second.pins is first.pins
    assert [query.get("have") for _, _, query, _ in wire.sent] == [None, '["e1", "p1"]']
    newer = {**inventory, "tags": {**tags, "pins": "p2"}, "pins": []}
    wire.answers["GET /trimtab/v1/observe"] = {**whole, "inventory": newer}
    assert adapter.observe(images=frozenset(), only=KEY).pins == {}
    adapter.observe(images=frozenset(), only=KEY)
    assert wire.sent[-1][2]["have"] == '["e1", "p2"]'


def test_an_image_that_the_broker_leaves_out_is_taken_from_the_look_before() -> None:
    config = {"User": "web", "Volumes": {"/data": {}}, "Env": ["TOKEN=hunter2"]}
    shown = {
        "inventory": world().answers["GET /trimtab/v1/inventory"],
        "containers": [inspected("c1")],
        "networks": [],
        "volumes": [],
        "images": {"sha256:ab": {"Id": "sha256:ab", "Config": config}},
    }
    wire, images = Wire({"GET /trimtab/v1/observe": shown}), frozenset({"sha256:ab"})
    adapter = engine(wire)
    first = adapter.observe(images=images, only=KEY)
    assert first.image_volumes == {"sha256:ab": ("/data",)}
    wire.answers["GET /trimtab/v1/observe"] = {**shown, "images": {}}
    assert adapter.observe(images=images, only=KEY) == first
    assert [query.get("have") for _, _, query, _ in wire.sent] == [None, '["sha256:ab"]']
    assert "hunter2" not in repr(adapter._images), "variables can hold secrets"


def test_a_service_too_large_for_one_answer_is_read_in_parts() -> None:
    large = EngineResponse(413, REFUSAL.replace(b"image.not-allowed", b"observe.too-large"))
    wire = world(**{"GET /trimtab/v1/observe": large})
    seen = engine(wire).observe(images=frozenset(), only=KEY)
    assert [container.id for container in seen.containers] == ["c1"]


GARBLED = EngineResponse(500, REFUSAL.replace(b"image.not-allowed", b"engine.garbled"))


@pytest.mark.parametrize("answer", [GARBLED, EngineResponse(200, b"[1"), {"Id": "c1", "State": 3}])
def test_a_container_that_cant_be_read_is_a_problem_of_its_service_alone(answer: object) -> None:
    wire = world(**{"GET /containers/c1/json": answer, "GET /containers/c2/json": inspected("c2")})
    seen = engine(wire).observe(images=frozenset())
    assert [container.id for container in seen.containers] == ["c2"]
    (key,) = seen.unread
    assert (key, "c1" in seen.unread[key] or seen.unread[key] != "") == (KEY, True)


def test_no_image_network_or_volume_of_unexpected_form_hides_the_others() -> None:
    there = {"Name": "data", "Driver": "local"}
    wire = world(
        **{
            "GET /images/bad:1/json": {"Config": {}},
            "GET /networks/n2": {"Id": "n2", "IPAM": 3},
            "GET /volumes": {"Volumes": [{"Name": ["x"]}, {"Driver": 1}, there]},
        }
    )
    seen = engine(wire).observe(images=frozenset({"web:1", "bad:1"}))
    assert seen.images["bad:1"] is None
    assert seen.images["web:1"] is not None
    assert [network.id for network in seen.networks] == ["n1"]
    assert "data" in [volume.name for volume in seen.volumes]


def test_more_images_than_the_broker_takes_are_asked_for_one_by_one() -> None:
    wire = world()
    engine(wire).observe(images=frozenset(f"web:{n}" for n in range(TEXTS_MAX + 1)), only=KEY)
    assert wire.sent[0][1] == "/containers/json"


def plugged(since: str = "1", *, endpoint: str = "e1", status: str = "running") -> dict[str, Any]:
    end = {"NetworkID": "n1", "EndpointID": endpoint}
    return {
        **inspected("c1"),
        "State": {"Status": status, "StartedAt": since},
        "NetworkSettings": {"Networks": {"platform-network": end}},
    }


@pytest.mark.parametrize(
    ("members", "again", "cut_off"),
    [
        ({"c1": {}}, plugged(), ()),
        ({}, plugged(), ("platform-network",)),
        # It ended, was started anew or left between the two looks.
        ({}, plugged(status="exited"), ()),
        ({}, plugged("2"), ()),
        ({}, plugged(endpoint="e2"), ()),
        ({}, inspected("c1"), ()),
    ],
)
def test_a_place_that_its_network_does_not_know_of_is_looked_at_twice(
    members: dict[str, Any], again: dict[str, Any], cut_off: tuple[str, ...]
) -> None:
    network = {"Id": "n1", "Name": "platform-network", "Containers": members}
    wire = world(**{"GET /containers/c1/json": (plugged(), again), "GET /networks/n1": network})
    (seen,) = engine(wire).observe(images=frozenset(), only=LAN).containers
    assert seen.cut_off == cut_off
    looks = [path for _, path, _, _ in wire.sent if path == "/containers/c1/json"]
    assert len(looks) == (1 if members else 2)


def test_what_vanishes_before_it_is_looked_at_again_is_left_out() -> None:
    network = {"Id": "n1", "Name": "platform-network", "Containers": {}}
    gone = EngineResponse(404, b"{}")
    wire = world(**{"GET /containers/c1/json": (plugged(), gone), "GET /networks/n1": network})
    assert engine(wire).observe(images=frozenset(), only=LAN).containers == ()


def test_an_image_that_the_gate_will_not_show_is_not_there() -> None:
    wire = world(**{"GET /images/web:1/json": EngineResponse(403, REFUSAL)})
    assert engine(wire).observe(images=frozenset({"web:1"}), only=LAN).images == {"web:1": None}


def test_a_glance_is_one_request() -> None:
    wire = Wire({"GET /containers/json": [labelled("c1")]})
    assert engine(wire).list_containers() == frozenset(
        {ContainerSummary("c1", "web.1-00000000", "running", KEY, ("platform-network",))}
    )
    assert len(wire.sent) == 1


def test_the_rows_of_a_list_are_parsed_one_by_one() -> None:
    """One call for thousands of rows would keep the interpreter from the passes."""
    wire = Wire({"GET /containers/json": [labelled(f"c{number}") for number in range(20)]})
    parsed: list[int] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is json.JSONDecoder.raw_decode.__code__:
            parsed.append(frame.f_locals["idx"])

    adapter = engine(wire)
    sys.setprofile(note)
    try:
        assert len(adapter.list_containers()) == 20
    finally:
        sys.setprofile(None)
    assert len([at for at in parsed if at]) == 20


@pytest.mark.parametrize("body", [b"[]", b" [\n] ", b'[{"Id": "c1"}]', b' [ {"Id": "c1"} , {} ]\n'])
def test_a_list_has_the_rows_that_it_has_as_a_whole(body: bytes) -> None:
    assert [*parse_rows(EngineResponse(200, body))] == json.loads(body)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[{}", b"[{} {}]", b"[{},]", b"[{}, \xff]", b"[] []"]
)
def test_what_is_no_list_is_a_failure_of_the_engine(body: bytes) -> None:
    with pytest.raises(errors.EngineFailed):
        [*parse_rows(EngineResponse(200, body))]


def container_event(action: str, **attributes: str) -> dict[str, object]:
    return {
        "Type": "container",
        "Action": action,
        "timeNano": 5,
        "Actor": {"ID": "c1", "Attributes": attributes},
    }


LABELS = {"io.trimtab.namespace": "default", "io.trimtab.service": "web"}


@pytest.mark.parametrize(
    ("told", "event"),
    [
        (container_event("die", **LABELS), EngineEvent(5, "container", "die", "c1", KEY)),
        (
            container_event("health_status: unhealthy", **LABELS),
            EngineEvent(5, "container", "health_status", "c1", KEY, "unhealthy"),
        ),
        (container_event("die"), EngineEvent(5, "container", "die", "c1", None)),
        (
            container_event("kill", signal="15", **LABELS),
            EngineEvent(5, "container", "kill", "c1", KEY, signal="15"),
        ),
        (container_event("exec_start: /bin/true", **LABELS), None),
        (
            {
                "Type": "network",
                "Action": "disconnect",
                "timeNano": 6,
                "Actor": {"ID": "n1", "Attributes": {"container": "c1"}},
            },
            EngineEvent(6, "container", "disconnect", "c1", None),
        ),
        (
            {"Type": "network", "Action": "destroy", "timeNano": 7, "Actor": {"ID": "n1"}},
            EngineEvent(7, "network", "destroy", "n1", None),
        ),
        ({"Type": "image", "Action": "pull"}, None),
        ({}, None),
    ],
)
def test_an_event_is_a_hint_about_a_key_or_a_container(
    told: dict[str, object], event: EngineEvent | None
) -> None:
    assert event_of(told) == event


def test_a_subscription_starts_where_it_is_told_and_says_when_it_breaks() -> None:
    line = json.dumps(container_event("die", **LABELS)).encode()
    lines = Lines(200, [b"not json", line, ConnectionBroken("engine went away")])
    wire = Wire({"GET /events": lines})
    events = engine(wire).events(since_ns=1_700_000_000_000_000_005)
    assert wire.sent[0][2]["since"] == "1700000000.000000005"
    assert next(events).id == "c1"
    with pytest.raises(errors.EngineUnavailable):
        next(events)
    events.close()
    assert lines.closed


def test_a_subscription_that_is_refused_raises_at_once() -> None:
    wire = Wire({"GET /events": Lines(503, [b'{"message": "no engine"}'])})
    with pytest.raises(errors.EngineUnavailable, match="no engine"):
        engine(wire).events(since_ns=0)
