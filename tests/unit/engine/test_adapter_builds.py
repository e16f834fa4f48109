"""A build is one request with the archive of its context; its log is followed to the end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from controller.core.admission.preview import check_build, preview_action
from controller.engine.adapter import BrokerEngine
from controller.engine.requests import OutgoingRequest
from controller.model import errors
from controller.model.desired.plan import BuildImage
from controller.model.desired.spec.container import Build
from controller.model.errors import Act, Conflict
from controller.model.names import NetworkNames
from controller.model.policy.document import Policy
from tests.unit.engine.test_adapter import CONTEXT, KEY, Lines, Wire, told

BUILD = Build(
    context="web",
    digest=f"sha256:{'0' * 64}",
    args={"A": "b"},
    target="final",
    labels={"x": "y"},
    bases=("docker.io/library/nginx:1.27",),
)
ACTION = BuildImage(object=KEY, target="team/web:1", cause="absent", build=BUILD, owner="alice")
STEP = b'{"stream":"Step 1/1 : RUN make\\n"}'


def adapter(wire: Wire, shown: list[str], archive: list[bytes]) -> BrokerEngine:
    def pieces(build: Build) -> Iterator[bytes]:
        assert build == BUILD
        yield from archive

    return BrokerEngine(
        wire,
        networks=NetworkNames,
        pause=lambda _seconds: None,
        on_progress=lambda _key, text: shown.append(text),
        archive=pieces,
    )


def test_a_build_is_sent_with_its_place_and_shows_its_steps() -> None:
    shown = list[str]()
    lines = Lines(200, [STEP, b'{"stream":"ok\\n"}', b'{"stream":"Successfully tagged x\\n"}'])
    wire = Wire({"POST /build": lines})
    assert adapter(wire, shown, [b"tar"]).perform(ACTION, CONTEXT) == ""
    (sent,) = wire.sent
    query = dict(sent[2])
    assert json.loads(query.pop("labels")) == {
        "x": "y",
        "io.trimtab.owner": "alice",
        "io.trimtab.namespace": KEY.namespace,
        "io.trimtab.service": KEY.name,
    }
    assert query == {
        "t": "team/web:1",
        "version": "1",
        "dockerfile": "Dockerfile",
        "buildargs": '{"A": "b"}',
        "target": "final",
    }
    assert shown == [
        "team/web:1: waits for other builds",
        "team/web:1: sending the context",
        "team/web:1: step 1/1, RUN make",
        "",
    ]


@pytest.mark.parametrize(
    ("lines", "code", "act", "message"),
    [
        (
            Lines(200, [STEP, b'{"stream":"oh no\\n"}', told("build.failed", error="x")]),
            "build.failed",
            Act.RETRY,
            "team/web:1: why (do so); oh no\n  Step 1/1 : RUN make\n  oh no",
        ),
        (
            Lines(200, [told("build.time", error="x")]),
            "build.time",
            Act.STALLED,
            "team/web:1: why (do so)",
        ),
        (Lines(403, [told("build.denied")]), "build.denied", Act.STALLED, "why"),
        (Lines(503, [told("build.busy")]), "build.busy", Act.WAITING, "why"),
        (Lines(200, [told("outcome.unknown")]), "outcome.unknown", Act.RETRY, "why"),
    ],
)
def test_a_build_fails_by_its_last_word(lines: Lines, code: str, act: Act, message: str) -> None:
    shown = list[str]()
    with pytest.raises(errors.EngineError) as raised:
        adapter(Wire({"POST /build": lines}), shown, []).perform(ACTION, CONTEXT)
    assert (raised.value.code, raised.value.act) == (code, act)
    assert raised.value.message == message
    assert shown[-1] == "", "nothing is shown of it any more"


class Reading(Wire):
    """A wire that reads the archive, as a connection does."""

    def stream(self, request: OutgoingRequest, context: str) -> Lines:
        assert request.pieces is not None
        list(request.pieces)
        return super().stream(request, context)


def test_files_that_changed_are_no_lost_reply() -> None:
    def changed(_build: Build) -> Iterator[bytes]:
        yield b"begin"
        raise Conflict("build.changed", "the files change")

    engine = BrokerEngine(
        Reading(), networks=NetworkNames, pause=lambda _seconds: None, archive=changed
    )
    with pytest.raises(Conflict) as raised:
        engine.perform(ACTION, CONTEXT)
    assert raised.value.code == "build.changed"


def policy(build: object, *allow: str) -> Policy:
    images = {"allow": list(allow), "build": build}
    return Policy.from_json({"name": "p", "images": images})


@pytest.mark.parametrize(
    ("rules", "codes"),
    [
        (policy({}, "docker.io/"), ()),
        (policy(None, "docker.io/"), ("build.denied",)),
        (policy({"owners": ["bob"]}, "docker.io/"), ("build.owner",)),
        (policy({}, "docker.io/team/"), ("image.not-allowed",)),
        (policy({"base": ["docker.io/library/alpine"]}, "docker.io/"), ("build.base",)),
        (policy({}, "docker.io/library/"), ("image.not-allowed",)),
    ],
)
def test_a_plan_shows_what_the_gate_says_of_a_build(rules: Policy, codes: tuple[str, ...]) -> None:
    assert tuple(finding.rule for finding in check_build(rules, ACTION)) == codes
    verdict = preview_action(rules, ACTION, None)
    assert verdict.decision == ("deny" if codes else "allow")
