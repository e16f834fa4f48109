"""The file with the outcomes of commits: strict and bounded."""

from __future__ import annotations

import json

import pytest

from controller.core.git.reports import (
    FEEDBACK_MAX,
    FEEDBACK_MAX_BYTES,
    OUTCOMES_MAX,
    parse_feedback,
    render_feedback,
    shorten,
)
from controller.model.sources import CommitOutcome, OutcomeState

COMMIT = "3fa2c81b90de" + "0" * 28
OUTCOME = CommitOutcome("shop", COMMIT, "web", OutcomeState.SUCCESS, "3 services Ready")


def test_outcomes_come_back_as_they_were() -> None:
    other = CommitOutcome("shop", COMMIT, "db", OutcomeState.HELD, "not served: source.unsigned")
    assert parse_feedback(render_feedback([OUTCOME, other])) == (OUTCOME, other)
    assert parse_feedback(render_feedback([])) == ()


def test_a_text_is_printable_and_bounded() -> None:
    (outcome,) = parse_feedback(
        render_feedback(
            [CommitOutcome("shop", COMMIT, "web", OutcomeState.ERROR, "a\nb" + "x" * 200)]
        )
    )
    assert len(outcome.text) == FEEDBACK_MAX
    assert outcome.text.startswith("a b")
    assert outcome.text.endswith("…")
    assert shorten("x" * FEEDBACK_MAX) == "x" * FEEDBACK_MAX


def test_outcomes_beyond_the_bound_are_left_out() -> None:
    many = [
        CommitOutcome("shop", f"{n:040x}", "web", OutcomeState.PENDING, "")
        for n in range(OUTCOMES_MAX + 5)
    ]
    assert parse_feedback(render_feedback(many)) == tuple(many[:OUTCOMES_MAX])


def test_a_file_of_long_texts_keeps_the_bound_of_the_reader() -> None:
    many = [
        CommitOutcome("shop", f"{n:040x}", "web", OutcomeState.ERROR, "\U0001f600" * FEEDBACK_MAX)
        for n in range(OUTCOMES_MAX)
    ]
    data = render_feedback(many)
    assert FEEDBACK_MAX_BYTES - 1000 < len(data) <= FEEDBACK_MAX_BYTES
    found = parse_feedback(data)
    assert found == tuple(many[: len(found)])


def test_of_two_outcomes_of_one_place_the_first_is_written() -> None:
    other = CommitOutcome("shop", COMMIT, "web", OutcomeState.HELD, "")
    assert parse_feedback(render_feedback([OUTCOME, other])) == (OUTCOME,)


def changed(**members: object) -> bytes:
    """Return a file with one outcome whose members differ."""
    (raw,) = json.loads(render_feedback([OUTCOME]))["outcomes"]
    return json.dumps({"version": 1, "outcomes": [{**raw, **members}]}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"version": 2, "outcomes": []}',
        b'{"version": 1, "outcomes": {}}',
        b'{"version": 1, "outcomes": [1]}',
        b" " * (FEEDBACK_MAX_BYTES + 1),
        json.dumps({"version": 1, "outcomes": [{}] * (OUTCOMES_MAX + 1)}).encode(),
        changed(more="x"),
        changed(commit="../../etc"),
        changed(commit="a" * 41),
        changed(source="shop/../x"),
        changed(namespace="a b"),
        changed(state="skipped"),
        changed(state=1),
        changed(text="x" * (FEEDBACK_MAX + 1)),
        changed(text="a\r\nAuthorization: x"),
        changed(text=None),
    ],
)
def test_another_file_is_refused_as_a_whole(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_feedback(data)


def test_two_outcomes_of_one_place_are_refused() -> None:
    (raw,) = json.loads(render_feedback([OUTCOME]))["outcomes"]
    body = {"version": 1, "outcomes": [raw, {**raw, "state": "failure"}]}
    with pytest.raises(ValueError, match="two outcomes"):
        parse_feedback(json.dumps(body).encode())
