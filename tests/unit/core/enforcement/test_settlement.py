from __future__ import annotations

from typing import Any

import pytest

from controller.core.enforcement.settlement import (
    ProofKind,
    Settled,
    SettlementEvidence,
    age_s,
    conclude,
    evidence_of,
    evidence_path,
    grace_s,
)
from controller.core.records.inventory_json import settings_to_json
from controller.core.records.parts import ResultPart
from controller.model.inventory import OpenIntent
from controller.model.observed import Settings

FULL = "ab" * 32
NO = SettlementEvidence(applied=False, state="x")
OTHER = SettlementEvidence(applied=False, state="y")
YES = SettlementEvidence(applied=True, state="x")


def intent(route: str, subject: str = FULL, **summary: object) -> OpenIntent:
    request: dict[str, object] = {"route": route, "object": subject, "summary": summary}
    return OpenIntent(1, "2026-01-01T12:00:00.500Z", "controller", request)


@pytest.mark.parametrize(
    ("evidence", "now", "earlier", "expired", "how"),
    [
        (ProofKind.ABSENCE, YES, None, False, Settled.APPLIED),
        (ProofKind.ABSENCE, YES, OTHER, True, Settled.APPLIED),
        (ProofKind.ABSENCE, NO, None, False, None),
        (ProofKind.ABSENCE, NO, NO, False, None),  # the engine may still be at it
        (ProofKind.ABSENCE, NO, None, True, None),  # one look isn't enough
        (ProofKind.ABSENCE, NO, OTHER, True, None),  # something moves
        (ProofKind.ABSENCE, NO, NO, True, Settled.NOT_APPLIED),
        (ProofKind.NONE, NO, None, False, None),
        (ProofKind.NONE, NO, None, True, Settled.UNKNOWN),
    ],
)
def test_that_something_did_not_happen_takes_two_looks_and_its_deadline(
    evidence: ProofKind,
    now: SettlementEvidence,
    earlier: SettlementEvidence | None,
    expired: bool,
    how: Settled | None,
) -> None:
    assert conclude(evidence, now, earlier, expired=expired) is how


def inspect(**members: Any) -> dict[str, Any]:
    return {"Id": FULL, "Name": "/web", "State": {}, "HostConfig": {}, **members}


def state(**members: Any) -> dict[str, Any]:
    return inspect(State=members)


ADMITTED = Settings(name="web", memory=2**30, memory_swap=2**30, pids=9)
LIMITED = {"Memory": 2**30, "MemorySwap": 2**30, "PidsLimit": 9, "RestartPolicy": {"Name": "no"}}
LABELLED = {"Labels": {"io.trimtab.intent": "i"}}
MADE = {"Id": FULL, "Names": ["/web.1"], **LABELLED}
CREATE = intent("container.create", "web.1")
EARLIER, LATER = "2026-01-01T12:00:00Z", "2026-01-01T12:00:04Z"
STARTED = intent("container.start", before=EARLIER)
STOPPED = intent("container.stop", before=EARLIER)
UPDATE = intent(
    "container.update", settings=settings_to_json(ADMITTED), fields=["Memory", "PidsLimit"]
)


@pytest.mark.parametrize(
    ("evidence", "asked", "told", "applied"),
    [
        (ProofKind.LABEL, CREATE, [MADE], True),
        (ProofKind.LABEL, CREATE, [], False),
        (ProofKind.LABEL, CREATE, [{**MADE, "Labels": None}], False),
        # Somebody copied the labels.
        (ProofKind.LABEL, CREATE, [{**MADE, "Names": ["/copy"]}], False),
        (ProofKind.LABEL, intent("network.create", "n"), [{"Name": "n", **LABELLED}], True),
        (ProofKind.LABEL, intent("network.create", "n"), [{"Name": "m", **LABELLED}], False),
        (ProofKind.LABEL, intent("volume.create", "v"), {"Name": "v", **LABELLED}, True),
        # It was there before, with another intent's label.
        (ProofKind.LABEL, intent("volume.create", "v"), {"Name": "v", "Labels": {}}, False),
        (ProofKind.LABEL, intent("volume.create", "v"), None, False),
        (ProofKind.ABSENCE, intent("container.remove"), None, True),
        (ProofKind.ABSENCE, intent("container.remove"), state(Status="removing"), False),
        (ProofKind.ABSENCE, intent("network.remove"), {"Id": "n"}, False),
        (ProofKind.STARTED, intent("container.start"), None, False),
        (ProofKind.STARTED, STARTED, state(StartedAt="2026-01-01T12:00:00.000000001Z"), True),
        (ProofKind.STARTED, STARTED, state(StartedAt=EARLIER), False),
        (ProofKind.STARTED, intent("container.start"), state(StartedAt=EARLIER), False),
        (ProofKind.STARTED, intent("container.start"), state(), False),
        (ProofKind.FINISHED, STOPPED, state(FinishedAt=LATER, Running=False), True),
        (ProofKind.FINISHED, STOPPED, state(FinishedAt=LATER, Running=True), False),
        (ProofKind.FIELD, intent("container.pause"), state(Paused=True), True),
        (ProofKind.FIELD, intent("container.unpause"), state(Paused=True), False),
        (ProofKind.FIELD, intent("container.rename", name="web"), inspect(), True),
        (ProofKind.FIELD, intent("container.rename", name="new"), inspect(), False),
        (
            ProofKind.FIELD,
            UPDATE,
            inspect(HostConfig=LIMITED, Name="/renamed"),
            True,
        ),
        (
            ProofKind.FIELD,
            UPDATE,
            inspect(HostConfig={**LIMITED, "Memory": 2**29}),
            False,
        ),
        (
            ProofKind.FIELD,
            intent("network.connect", network="n"),
            inspect(NetworkSettings={"Networks": {"n": {}}}),
            True,
        ),
        (ProofKind.FIELD, intent("network.disconnect", network="n"), inspect(), True),
        (ProofKind.DIGEST, intent("image.pull", "r", before="sha256:1"), {"Id": "sha256:2"}, True),
        (ProofKind.DIGEST, intent("image.pull", "r", before="sha256:1"), {"Id": "sha256:1"}, False),
        (ProofKind.DIGEST, intent("image.build", "r", before="sha256:1"), {"Id": "sha256:2"}, True),
        (ProofKind.DIGEST, intent("image.build", "r", before=""), None, False),
        (ProofKind.DIGEST, intent("image.pull", "r", before=""), None, False),
        (ProofKind.NONE, intent("container.kill"), None, False),
    ],
)
def test_what_shows_that_it_happened(
    evidence: ProofKind, asked: OpenIntent, told: Any, applied: bool
) -> None:
    assert evidence_of(evidence, asked, "i", told).applied is applied


def seen(text: str, *, applied: bool = False, **result: object) -> SettlementEvidence:
    return SettlementEvidence(applied, text, ResultPart.read(result))


NETWORK = {"Id": "n1", "Name": "n", **LABELLED}
COPY = {"Id": "c" * 64, "Names": ["/copy"]}
JOINED = inspect(NetworkSettings={"Networks": {"n": {}, "m": {}}})


@pytest.mark.parametrize(
    ("evidence", "asked", "told", "expected"),
    [
        (ProofKind.LABEL, CREATE, [COPY, MADE], seen(FULL, applied=True, container=FULL)),
        (ProofKind.LABEL, CREATE, [COPY, {**COPY, **LABELLED}], seen("2")),
        (ProofKind.LABEL, CREATE, None, seen("0")),
        (
            ProofKind.LABEL,
            intent("network.create", "n"),
            [NETWORK],
            seen("n1", applied=True, object="n1"),
        ),
        (
            ProofKind.LABEL,
            intent("volume.create", "v"),
            {"Name": "v", **LABELLED},
            seen("v", applied=True, object="v"),
        ),
        (ProofKind.LABEL, intent("volume.create", "v"), {"Name": "v"}, seen("1")),
        (ProofKind.LABEL, intent("volume.create", "v"), None, seen("0")),
        (ProofKind.ABSENCE, intent("container.remove"), None, seen("absent", applied=True)),
        (ProofKind.ABSENCE, intent("container.remove"), state(Status="removing"), seen("removing")),
        (ProofKind.ABSENCE, intent("container.remove"), state(), seen("present")),
        (ProofKind.ABSENCE, intent("network.remove"), NETWORK, seen("present")),
        (ProofKind.STARTED, STARTED, None, seen("absent")),
        (ProofKind.STARTED, STARTED, state(StartedAt=LATER), seen(LATER, applied=True)),
        (ProofKind.STARTED, STARTED, state(StartedAt=EARLIER), seen(EARLIER)),
        (ProofKind.STARTED, intent("container.start"), state(), seen("0001-01-01T00:00:00Z")),
        (
            ProofKind.FINISHED,
            STOPPED,
            state(FinishedAt=LATER, Running=False),
            seen(LATER, applied=True),
        ),
        (ProofKind.FINISHED, STOPPED, state(FinishedAt=LATER, Running=True), seen(LATER)),
        (ProofKind.FINISHED, STOPPED, state(FinishedAt=EARLIER, Running=False), seen(EARLIER)),
        (
            ProofKind.FIELD,
            intent("container.pause"),
            state(Paused=True),
            seen("paused True", applied=True),
        ),
        (ProofKind.FIELD, intent("container.pause"), inspect(State=None), seen("paused False")),
        (ProofKind.FIELD, intent("container.rename", name="new"), inspect(), seen("web")),
        (
            ProofKind.FIELD,
            intent("network.connect", network="n"),
            JOINED,
            seen("m n", applied=True),
        ),
        (ProofKind.FIELD, intent("network.disconnect", network="n"), JOINED, seen("m n")),
        (
            ProofKind.DIGEST,
            intent("image.pull", "r", before="sha256:1"),
            {"Id": "sha256:2", "RepoDigests": ["r@sha256:3"]},
            seen("sha256:2", applied=True),
        ),
        (ProofKind.NONE, intent("container.kill"), inspect(), seen("")),
    ],
)
def test_what_two_looks_are_compared_by_and_what_is_recorded(
    evidence: ProofKind, asked: OpenIntent, told: Any, expected: SettlementEvidence
) -> None:
    assert evidence_of(evidence, asked, "i", told) == expected


@pytest.mark.parametrize(
    ("summary", "grace"), [({"graceS": 7}, 7.0), ({"graceS": True}, 0.0), ({}, 0.0)]
)
def test_a_stop_has_its_grace_before_its_deadline(summary: dict[str, Any], grace: float) -> None:
    assert grace_s(intent("container.stop", **summary)) == grace


@pytest.mark.parametrize(
    ("evidence", "asked", "path"),
    [
        (
            ProofKind.LABEL,
            intent("container.create", "web"),
            "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22io.trimtab.intent%3Di%22%5D%7D",
        ),
        (
            ProofKind.LABEL,
            intent("network.create", "n"),
            "/networks?filters=%7B%22label%22%3A%5B%22io.trimtab.intent%3Di%22%5D%7D",
        ),
        (ProofKind.LABEL, intent("volume.create", "v"), "/volumes/v"),
        (ProofKind.ABSENCE, intent("volume.remove", "v"), "/volumes/v"),
        (ProofKind.ABSENCE, intent("network.remove", "n"), "/networks/n"),
        (ProofKind.ABSENCE, intent("container.remove"), f"/containers/{FULL}/json"),
        (ProofKind.FIELD, intent("network.connect"), f"/containers/{FULL}/json"),
        (
            ProofKind.DIGEST,
            intent("image.pull", "ghcr.io/p/web:1@sha256:2"),
            "/images/ghcr.io/p/web:1@sha256:2/json",
        ),
        (ProofKind.NONE, intent("container.kill"), ""),
    ],
)
def test_where_to_look(evidence: ProofKind, asked: OpenIntent, path: str) -> None:
    assert evidence_path(evidence, asked, "i") == path


def test_the_age_of_an_intent() -> None:
    assert age_s(intent("container.kill"), 1767268810.5) == 10.0
