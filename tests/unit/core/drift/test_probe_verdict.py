"""What a container's http or tcp check says of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.drift import probe_verdict
from controller.core.drift.probe_verdict import (
    FLAP_WINDOW_S,
    Health,
    Probe,
    ProbeOutcome,
    ProbeProgress,
    ProbeResult,
    advance,
    begin,
)
from controller.model.desired.spec.container import Healthcheck

GOOD, BAD = ProbeResult("c", ProbeOutcome.GOOD), ProbeResult("c", ProbeOutcome.BAD, "no")


def check_of(**fields: object) -> Healthcheck:
    body = {"tcp": {"port": 1}, "interval": "10s", "retries": 3, "startPeriod": "30s", **fields}
    return Healthcheck.model_validate_json(json.dumps(body))


CHECK = check_of()


def lived(
    answers: str, *, start: float = 1000.0, check: Healthcheck = CHECK, up_s: float = 0.0
) -> ProbeProgress:
    """The course after answers (``+`` good, ``-`` bad), each given the moment that it is due."""
    course = begin(start, up_s=up_s)
    for each in answers:
        course = advance(course, GOOD if each == "+" else BAD, check, course.due)
    return course


# ``s`` starting, ``h`` healthy, ``u`` unhealthy, after each answer.
@pytest.mark.parametrize(
    ("answers", "words", "fields"),
    [
        ("+", "h", {}),
        ("--+", "ssh", {}),
        # Within the start period nothing counts, however often it is asked.
        ("--------", "ssssssss", {}),
        # …after it as many in a row as retries says.
        ("---", "ssu", {"startPeriod": "0s"}),
        ("-", "u", {"startPeriod": "0s", "retries": 1}),
        # Once it was good, bad answers count within the start period too.
        ("+---", "hhhu", {}),
        ("+--+---", "hhhhhhu", {}),
        ("+---+", "hhhuh", {}),
        ("+---+++---+++", "hhhuhhhhhuuhh", {}),
    ],
)
def test_words_follow_the_answers(answers: str, words: str, fields: dict[str, object]) -> None:
    check = check_of(**fields)
    course, seen = begin(1000.0, up_s=0.0), ""
    for each in answers:
        course = advance(course, GOOD if each == "+" else BAD, check, course.due)
        seen += course.health.value[0]
    assert seen == words


def test_what_runs_longer_than_its_start_period_has_none_left() -> None:
    assert lived("---", up_s=30.0).health is Health.UNHEALTHY
    assert lived("---", up_s=29.9).health is Health.STARTING
    assert lived("---", up_s=-5.0).started == 1000.0


def test_a_start_is_watched_closely_and_what_runs_at_its_interval() -> None:
    course, pauses = begin(1000.0, up_s=0.0), []
    for _ in range(12):
        before = course.due
        course = advance(course, BAD, CHECK, before)
        pauses.append(course.due - before)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 10.0, 10.0]
    assert lived("+").due == 1010.0
    assert lived("-", check=check_of(interval="1s", startPeriod="0s")).due == 1001.0


def test_an_interval_that_is_shorter_than_the_pauses_of_a_start_holds() -> None:
    assert lived("-----", check=check_of(interval="1s")).due == 1000.0 + 0.25 + 0.5 + 1 + 1 + 1


def test_each_turn_to_unhealthy_makes_the_next_return_harder_until_it_kept_quiet() -> None:
    flapping = lived("+" + "---+" + "---++" + "---")
    assert flapping.health is Health.UNHEALTHY
    assert len(flapping.turns) == 3
    two = advance(advance(flapping, GOOD, CHECK, flapping.due), GOOD, CHECK, flapping.due)
    assert two.health is Health.UNHEALTHY
    assert advance(two, GOOD, CHECK, two.due).health is Health.HEALTHY
    assert advance(two, BAD, CHECK, two.due).good == 0
    later = flapping.turns[-1] + FLAP_WINDOW_S
    assert advance(flapping, GOOD, CHECK, later).health is Health.HEALTHY


def test_however_often_it_flaps_five_good_answers_in_a_row_are_enough() -> None:
    check = check_of(interval="1s", retries=1)
    assert lived("+" + "-+++++" * 9, check=check).health is Health.HEALTHY
    assert lived("+" + "-+++++" * 8 + "-++++", check=check).health is Health.UNHEALTHY


def test_why_it_is_not_good_is_kept_until_it_is() -> None:
    assert lived("-").said == "no"
    assert lived("-+").said == ""
    assert lived("+---" + "+" + "---" + "+").said == "no", "one good answer isn't enough here"


def test_what_nobody_could_ask_says_nothing_but_is_asked_again() -> None:
    before = lived("+--")
    after = advance(before, ProbeResult("c", ProbeOutcome.UNASKED, "no room"), CHECK, before.due)
    assert (after.bad, after.health, after.said) == (2, Health.HEALTHY, "no")
    assert after.due == before.due + 10.0
    assert (
        advance(lived(""), ProbeResult("c", ProbeOutcome.UNASKED, "no room"), CHECK, 1.0).said
        == "no room"
    )


def test_an_address_at_which_nobody_answers_is_no_better_than_a_bad_answer() -> None:
    course = lived("+--")
    answer = ProbeResult("c", ProbeOutcome.UNREACHED, "nobody is there")
    assert advance(course, answer, CHECK, course.due).health is Health.UNHEALTHY


#: Quarters of a second add up exactly.
SECONDS = st.integers(0, 1600).map(lambda quarters: quarters / 4)
ANSWERS = st.lists(st.tuples(st.sampled_from([*ProbeOutcome]), SECONDS), max_size=60)
CHECKS = st.builds(
    lambda interval, retries, start: check_of(
        interval=f"{interval}s", retries=retries, startPeriod=f"{start}s"
    ),
    st.integers(1, 60),
    st.integers(1, 10),
    st.integers(0, 120),
)


@given(answers=ANSWERS, check=CHECKS, up_s=SECONDS)
def test_properties_of_every_course(
    answers: list[tuple[ProbeOutcome, float]], check: Healthcheck, up_s: float
) -> None:
    now = 5000.0
    course, in_row, good_once = begin(now, up_s=up_s), 0, False
    for verdict, late_s in answers:
        before, now = course, max(course.due, now) + late_s
        course = advance(course, ProbeResult("c", verdict, "why"), check, now)
        good_once |= verdict is ProbeOutcome.GOOD
        in_row = {ProbeOutcome.GOOD: 0, ProbeOutcome.UNASKED: in_row}.get(verdict, in_row + 1)
        # Never back to starting, and out of it only by an answer.
        assert (course.health is Health.STARTING) <= (before.health is Health.STARTING)
        # Unhealthy only after so many bad answers in a row; healthy only by a good one.
        if course.health is Health.UNHEALTHY and before.health is not Health.UNHEALTHY:
            assert in_row >= check.retries
            assert good_once or now >= 5000.0 - up_s + check.start_period / 1000
        if course.health is Health.HEALTHY and before.health is not Health.HEALTHY:
            assert verdict is ProbeOutcome.GOOD
        # So many bad ones that count always suffice: nothing broken passes for healthy for ever.
        if good_once and in_row >= check.retries:
            assert course.health is Health.UNHEALTHY
        # It is asked again, within its interval and not at once, and all that is kept is bounded.
        assert 0 < course.due - now <= check.interval / 1000 + 1e-6  # floats end somewhere
        assert len(course.turns) <= probe_verdict.FLAPS_MAX and course.bad <= check.retries


PROBE = Probe("c", "172.18.0.2", 8080, "/healthz?full=1", 2.0)


def test_what_is_asked_is_one_plain_get() -> None:
    assert probe_verdict.request_of(PROBE) == (
        b"GET /healthz?full=1 HTTP/1.1\r\nHost: 172.18.0.2:8080\r\nUser-Agent: trimtab\r\n"
        b"Accept: */*\r\nConnection: close\r\n\r\n"
    )
    six = Probe("c", "fd00::2", 80, "/", 2.0)
    assert b"\r\nHost: [fd00::2]:80\r\n" in probe_verdict.request_of(six)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"HTTP/1.1 200 OK\r", ""),
        (b"HTTP/1.0 204\r", ""),
        (b"HTTP/1.1 204 ", ""),
        (b"HTTP/1.1 301 Moved Permanently\r", ""),
        (b"HTTP/1.1 399 \r", ""),
        (b"HTTP/1.1 400 Bad Request\r", "port 8080 answered with status 400"),
        (b"HTTP/1.1 503 Service Unavailable s3cret", "port 8080 answered with status 503"),
        (b"HTTP/1.1 100 Continue\r", "port 8080 answered with status 100"),
        (b"HTTP/1.1 999 Strange\r", "port 8080 doesn't speak HTTP"),
        (b"HTTP/2 200\r", "port 8080 doesn't speak HTTP"),
        (b"HTTP/1.1 200OK\r", "port 8080 doesn't speak HTTP"),
        (b"HTTP/1.1  200 OK\r", "port 8080 doesn't speak HTTP"),
        (b"SSH-2.0-s3cret\r", "port 8080 doesn't speak HTTP"),
        (b"", "port 8080 doesn't speak HTTP"),
    ],
)
def test_the_first_line_of_an_answer_decides(line: bytes, said: str) -> None:
    verdict = ProbeOutcome.BAD if said else ProbeOutcome.GOOD
    assert probe_verdict.read_status_line(PROBE, line) == ProbeResult("c", verdict, said)
