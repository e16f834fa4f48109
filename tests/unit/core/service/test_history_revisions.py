"""Which revisions of a service are remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.core.service import history
from controller.core.service.history import (
    FORM,
    KEPT,
    drop_old_specs,
    finish_restart,
    last_good,
    record_document,
    record_outcome,
    record_rollback,
)
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Overrides,
    Pin,
    Restarting,
    Service,
    Suspension,
)
from controller.model.observed import Container
from tests.worlds import WEB, container, revision, service

SINCE = "2026-01-01T00:00:00Z"
LETTERS = "0123456789abcdef"


def declared_as(*letters: str, containers: tuple[Container, ...] | None = ()) -> Overrides:
    """The steering of a service that was declared with these revisions, one after the other."""
    steering = NO_OVERRIDES
    for number, letter in enumerate(letters, 1):
        steering = note(steering, service(rev=letter), number, containers)
    return steering


def note(
    steering: Overrides,
    wanted: Service,
    generation: int,
    containers: tuple[Container, ...] | None = (),
) -> Overrides:
    since = f"2026-01-01T00:00:{generation:02}Z"
    return record_document(
        steering, wanted, generation=generation, since=since, containers=containers
    )


def letters(steering: Overrides) -> str:
    return "".join(each.revision[3] for each in steering.revisions)


def good(steering: Overrides, *which: str) -> Overrides:
    for letter in which:
        steering = record_outcome(steering, revision(letter), "good")
    return steering


def pinned(steering: Overrides, letter: str) -> Overrides:
    return replace(steering, pin=Pin(revision(letter), 1, "asked", "uid:0", SINCE))


def test_each_revision_is_noted_once_where_it_was_declared_last() -> None:
    steering = declared_as("a", "b", "b", "a")
    assert letters(steering) == "ba"
    assert [each.generation for each in steering.revisions] == [2, 4]
    first = declared_as("a").revisions[0]
    assert (first.image, first.owner, first.source.file, first.outcome) == (
        "ghcr.io/platformnetwork/web:1",
        "team",
        "web.yaml",
        "",
    )
    assert json.loads(first.spec) == {"image": first.image}


def test_a_change_that_is_not_of_the_slot_is_no_revision() -> None:
    steering = declared_as("a")
    assert note(steering, service(rev="a", replicas=3), 2) == steering


def test_a_revision_that_is_declared_again_keeps_that_it_ran_well_and_not_that_it_failed() -> None:
    for outcome in ("good", "failed"):
        before = record_outcome(
            record_rollback(declared_as("a", "b"), revision("a")), revision("a"), outcome, "why"
        )
        again = note(before, service(rev="a"), 3).revisions[-1]
        assert (again.outcome, again.reason) == ("good" if outcome == "good" else "", "")
        assert not again.left


def test_ten_are_kept_and_the_oldest_go_first() -> None:
    assert letters(declared_as(*LETTERS)) == LETTERS[-KEPT:]


def test_what_runs_and_what_is_pinned_is_never_dropped() -> None:
    running = (container(rev="0"), container(slot=2, rev="1"))
    steering = declared_as(*LETTERS[:10], containers=running)
    # A pin of the fourth, by hand: a document that asks for something else would end it.
    steering = history._trimmed(
        pinned(declared_as(*LETTERS, containers=None), "3"),
        frozenset(each.revision for each in running),
    )
    assert letters(steering) == "013" + LETTERS[-7:]


def test_nothing_is_dropped_while_it_is_not_known_what_runs() -> None:
    assert letters(declared_as(*LETTERS, containers=None)) == LETTERS


@pytest.mark.parametrize(
    ("steering", "found"),
    [
        (declared_as("a", "b", "c"), ""),
        (good(declared_as("a", "b", "c"), "a"), "a"),
        (good(declared_as("a", "b", "c"), "a", "b"), "b"),
        (good(declared_as("a", "b", "c"), "c"), ""),
        (pinned(good(declared_as("a", "b", "c"), "a", "b"), "b"), "a"),
        (pinned(good(declared_as("a", "b", "c"), "b"), "b"), ""),
    ],
)
def test_the_last_good_one_is_before_the_one_that_is_worked_for(
    steering: Overrides, found: str
) -> None:
    last = last_good(steering, revision("c"))
    assert last == (steering.find_revision(revision(found)) if found else None)


def test_a_revision_without_its_spec_is_none_to_go_back_to() -> None:
    steering = good(declared_as("a", "b", "c"), "a", "b")
    first, second, third = steering.revisions
    slim = replace(steering, revisions=(first, replace(second, spec=""), third))
    assert last_good(slim, revision("c")) == first


@pytest.mark.parametrize("spec", [{"state": "Stopped"}, {"replicas": 0}])
def test_a_restart_is_over_when_nothing_is_to_run(spec: dict[str, Any]) -> None:
    asked = Restarting(frozenset({container().id}), "uid:0")
    steering = replace(declared_as("b"), restarting=asked)
    assert note(steering, service(), 1, (container(),)).restarting == asked
    assert note(steering, service(**spec), 2, (container(),)).restarting is None


def test_a_restart_is_over_once_none_of_its_containers_is_there() -> None:
    there = container(), container(slot=2)
    asked = Restarting(frozenset(each.id for each in there), "uid:0")
    steering = Overrides(restarting=asked)
    assert finish_restart(steering, there) == steering
    assert finish_restart(steering, (container(attempt=2), there[1])) == steering
    assert finish_restart(steering, (container(attempt=2),)).restarting is None


def test_all_specs_together_are_bounded_and_the_oldest_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steering = declared_as("a", "b", "c")
    size = len(steering.revisions[0].spec)
    monkeypatch.setattr(history, "SPECS_MAX", 3 * size)
    assert drop_old_specs({WEB: steering}) == {}
    monkeypatch.setattr(history, "SPECS_MAX", 2 * size)
    assert [bool(each.spec) for each in drop_old_specs({WEB: steering})[WEB].revisions] == [0, 1, 1]
    assert [
        bool(each.spec) for each in drop_old_specs({WEB: pinned(steering, "a")})[WEB].revisions
    ] == [
        1,
        0,
        1,
    ]
    monkeypatch.setattr(history, "SPECS_MAX", 0)
    assert [bool(each.spec) for each in drop_old_specs({WEB: steering})[WEB].revisions] == [0, 0, 1]


B = revision("b")
WHOLE = replace(
    pinned(
        record_rollback(record_outcome(declared_as("a", "b"), B, "failed", "never healthy"), B), "a"
    ),
    suspension=Suspension("uid:0 alice", SINCE),
    restarting=Restarting(frozenset({"1", "2"}), "uid:0"),
    applied='{"replicas":2}',
    down_ms=1200,
)


@pytest.mark.parametrize("steering", [NO_OVERRIDES, declared_as("a"), WHOLE])
def test_a_steering_is_the_same_after_a_restart(steering: Overrides) -> None:
    assert FORM.from_json(json.loads(json.dumps(FORM.to_json(steering)))) == steering


@pytest.mark.parametrize(
    "value",
    [
        {"revisions": {}},
        {"revisions": [{}]},
        {"revisions": [{**FORM.to_json(WHOLE)["revisions"][0], "outcome": "fine"}]},
        {"revisions": [], "pin": {}},
        {"revisions": [], "restarting": {"ids": [1], "by": "uid:0"}},
        {"revisions": [], "applied": 1},
        {"revisions": [], "down_ms": "x"},
    ],
)
def test_what_was_not_written_by_us_is_no_steering(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(revisions|pin|restarting|applied|down_ms)"):
        FORM.from_json(value)
