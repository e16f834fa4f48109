"""Versions of the view are made for readers alone, and the answers that are kept are bounded."""

from __future__ import annotations

import json

from controller.core.status.facts import Report
from controller.core.view.view import ViewInputs
from controller.loop.status_reporter import RENDERED_MAX, WATCHED_S, ViewPublisher, Views

REPORT: Report = {"resources": [], "problems": []}


class Facts:
    """The facts of a status, which count how often a view was made of them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> ViewInputs:
        self.made += 1
        return ViewInputs(REPORT, host={"policy": str(self.made)}, at="2026-01-01T00:00:00Z")


def test_a_view_is_made_for_readers_of_the_last_minutes_alone() -> None:
    now, facts = [0.0], Facts()
    views = ViewPublisher("run", lambda: now[0])
    assert views.answer("", wait_s=0.0) is None, "there is no status yet"
    now[0] += WATCHED_S
    views.publish(facts)
    assert facts.made == 0
    first = json.loads(views.answer("", wait_s=0.0) or b"")
    assert (first["version"], first["full"], facts.made) == ("run-1", True, 1)
    views.publish(facts)
    assert facts.made == 2, "a reader asked just now"
    assert json.loads(views.answer("run-1", wait_s=0.0) or b"")["version"] == "run-2"
    assert facts.made == 2


def test_readers_of_one_version_share_an_answer_and_made_up_versions_take_no_memory() -> None:
    views = ViewPublisher("run", lambda: 0.0)
    views.publish(Facts())
    shared = views.answer("", wait_s=0.0)
    assert views.answer("", wait_s=0.0) is shared
    for number in range(10 * RENDERED_MAX):
        assert json.loads(views.answer(f"other-{number}", wait_s=0.0) or b"")["full"]
        assert len(views._rendered) <= RENDERED_MAX


def test_each_set_of_owners_has_versions_of_its_own_that_mean_nothing_elsewhere() -> None:
    now, facts, alice, bob = [0.0], Facts(), frozenset({"alice"}), frozenset({"bob"})
    views = Views("run", lambda run, scope: ViewPublisher(run, lambda: now[0], scope=scope))
    assert views.answer("", wait_s=0.0, owners=alice) is None
    views.publish(facts)
    first, second, whole = (
        json.loads(views.answer("", wait_s=0.0, owners=owners) or b"")["version"]
        for owners in (alice, bob, None)
    )
    assert (first, second, whole) == ("run.1-1", "run.2-1", "run-1")
    for owners, have, full in ((alice, first, False), (alice, second, True), (None, first, True)):
        assert json.loads(views.answer(have, wait_s=0.0, owners=owners) or b"")["full"] is full
    now[0] += WATCHED_S
    views.publish(facts)
    anew = json.loads(views.answer(first, wait_s=0.0, owners=alice) or b"")
    assert (anew["full"], anew["version"]) == (True, "run.3-1"), "nobody read the scope for a while"
