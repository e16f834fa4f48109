from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from controller.model.errors import EngineUnavailable, StateError
from controller.view_follower import POLL_S, RETRY_S, Followed, ViewFollower
from tests.unit.web.server.clock import HandClock

WAIT_S = 25.0


def row(name: str, **more: object) -> dict[str, object]:
    return {"kind": "Service", "namespace": "default", "name": name, **more}


def view(version: str, *rows: dict[str, object], full: bool, at: str = "09:00") -> dict[str, Any]:
    return {"version": version, "full": full, "at": at, "resources": [*rows], "gone": []}


class Controller:
    """Answers with the given views; None is no answer. An answer takes *takes_s* seconds."""

    def __init__(
        self, clock: HandClock, *answers: dict[str, Any] | None, takes_s: float = 0.0
    ) -> None:
        self.clock, self.answers, self.takes_s = clock, [*answers], takes_s
        self.asked: list[tuple[str, float]] = []

    def view(self, have: str, *, wait_s: float) -> Mapping[str, Any]:
        self.asked.append((have, wait_s))
        self.clock.time += self.takes_s
        answer = self.answers.pop(0)
        if answer is None:
            raise EngineUnavailable("controller.lost", "it is away")
        return answer


class Steps:
    """Keeps what the follower passed on."""

    def __init__(self) -> None:
        self.news: list[Followed] = []
        self.count = 0

    def __call__(self, before: Followed, after: Followed) -> None:
        self.count += 1
        if after.is_news(before):
            self.news.append(after)


def test_changes_are_merged_and_said_once() -> None:
    clock, steps = HandClock(), Steps()
    controller = Controller(
        clock,
        view("a-1", row("api"), row("web"), full=True),
        view("a-2", row("web", severity="page"), full=False),
        view("a-2", full=False, at="09:01"),
        takes_s=5.0,
    )
    follower = ViewFollower(controller.view, clock, steps, wait_s=WAIT_S)
    assert [follower.step() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert controller.asked == [("", 0.0), ("a-1", WAIT_S), ("a-2", WAIT_S)]
    assert [each.view["version"] for each in steps.news if each.view] == ["a-1", "a-2"]
    last = follower.followed.view
    assert last is not None
    assert last["resources"] == [row("api"), row("web", severity="page")]
    assert last["at"] == "09:01", "an answer without news has the time of the view"


def test_a_controller_that_is_away_leaves_the_last_view_with_its_time() -> None:
    clock, steps = HandClock(), Steps()
    answers = (None, view("a-1", full=True), None, None, view("b-1", full=True))
    controller = Controller(clock, *answers, takes_s=1.0)
    follower = ViewFollower(controller.view, clock, steps, wait_s=WAIT_S)
    assert follower.step() == RETRY_S
    assert follower.followed == Followed(None, 1001.0)
    follower.step()
    for _ in range(2):
        assert follower.step() == RETRY_S
        assert follower.followed == Followed(view("a-1", full=True), 1003.0), "since the first"
    follower.step()
    assert follower.followed == Followed(view("b-1", full=True))
    assert (len(steps.news), steps.count) == (4, 5)


def test_a_user_who_may_not_wait_asks_every_few_seconds() -> None:
    clock = HandClock()
    controller = Controller(clock, view("a-1", full=True), view("a-1", full=False))
    follower = ViewFollower(controller.view, clock, Steps(), wait_s=WAIT_S)
    assert [follower.step(), follower.step()] == [0.0, POLL_S]


def test_after_an_answer_that_cannot_be_read_everything_is_asked_again() -> None:
    clock, steps = HandClock(), Steps()
    whole, broken = view("a-1", row("web"), full=True), {"version": "a-2", "full": False}
    controller = Controller(clock, whole, broken, view("a-2", row("api"), full=True))
    follower = ViewFollower(controller.view, clock, steps, wait_s=WAIT_S)
    assert [follower.step() for _ in range(3)] == [0.0, RETRY_S, 0.0]
    assert controller.asked == [("", 0.0), ("a-1", WAIT_S), ("", 0.0)]
    assert follower.followed == Followed(view("a-2", row("api"), full=True))


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("socket.denied", f" (the policy needs uid {os.getuid()} under `viewers`)"),
        ("controller.stranger", ""),
    ],
)
def test_the_log_says_once_why_there_is_no_view_and_what_the_policy_lacks(
    caplog: pytest.LogCaptureFixture, code: str, hint: str
) -> None:
    def refused(have: str, *, wait_s: float) -> Mapping[str, Any]:
        raise StateError(code, "the socket is closed")

    follower = ViewFollower(refused, HandClock(), Steps(), wait_s=WAIT_S)
    for _ in range(2):
        follower.step()
    (warning,) = caplog.messages
    assert warning == f"no view from the controller: {code}: the socket is closed{hint}"
