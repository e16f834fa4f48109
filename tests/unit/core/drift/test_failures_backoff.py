"""How long a failing slot is left alone."""

import json

import pytest

from controller.core.drift.failures import (
    CLEAN,
    SlotHistory,
    frequency,
    is_crash_looping,
    pause_s,
    record_failure,
    reset_after_run,
    retry_not_before,
    without_future,
)
from controller.core.encoding.stored_form import StoredForm

BACKOFF_FORM = StoredForm(SlotHistory)


def after(*instants: float, up_s: float = 0.0) -> SlotHistory:
    history = CLEAN
    for at in instants:
        history = record_failure(history, at, up_s=up_s)
    return history


def test_a_slot_that_never_failed_may_be_tried_at_once():
    assert (retry_not_before(CLEAN, 100.0), pause_s(CLEAN), is_crash_looping(CLEAN, 100.0)) == (
        0.0,
        0,
        False,
    )


def test_pauses_grow_to_five_minutes_and_stay_there():
    history, pauses = CLEAN, []
    for n in range(10):
        history = record_failure(history, 1000.0 * n)
        pauses.append(retry_not_before(history, 1000.0 * n) - 1000.0 * n)
    assert pauses == [1, 5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_the_pause_counts_from_the_last_failure():
    assert retry_not_before(after(50.0, 60.0), 61.0) == 65.0
    assert retry_not_before(after(50.0, 60.0), 900.0) == 65.0


def test_ten_minutes_up_wipe_the_slate():
    looping = after(1, 2, 3, 4, 5)
    assert reset_after_run(looping, 599.9) == looping
    assert reset_after_run(looping, 600.0) == CLEAN
    assert record_failure(looping, 700.0, up_s=600.0) == SlotHistory(count=1, recent=(700.0,))
    assert record_failure(looping, 700.0, up_s=599.0).count == 6


def test_five_failures_in_ten_minutes_are_a_crash_loop():
    assert not is_crash_looping(after(1, 2, 3, 4), 5.0)
    assert is_crash_looping(after(1, 2, 3, 4, 5), 5.0)
    assert is_crash_looping(after(0, 100, 200, 300, 599.9), 599.9)
    assert not is_crash_looping(after(0, 150, 300, 450, 600), 600.0)


def test_a_crash_loop_stays_while_it_fails_every_five_minutes():
    history = after(1, 2, 3, 4, 5, 300, 700, 1100)
    assert is_crash_looping(history, 1100.0)
    assert is_crash_looping(history, 1699.9)
    assert not is_crash_looping(history, 1700.0)


def test_only_the_last_failures_are_remembered():
    assert after(1, 2, 3, 4, 5, 6).recent == (2, 3, 4, 5, 6)
    assert after(1, 2, 700).recent == (700,)


def test_a_clock_set_back_prolongs_no_pause_and_counts_as_now():
    history = after(10_000.0, 10_001.0)
    assert retry_not_before(history, 500.0) == 505.0
    again = record_failure(history, 500.0)
    assert (again.recent, again.count) == ((500.0, 500.0, 500.0), 3)
    assert is_crash_looping(after(9000, 9001, 9002, 9003, 9004), 1.0)


def test_after_a_clock_was_set_back_the_first_look_is_what_the_pause_counts_from():
    history = without_future(after(10_000.0, 10_001.0), 500.0)
    assert (history.recent, history.count) == ((500.0, 500.0), 2)
    assert [retry_not_before(without_future(history, now), now) for now in (501.0, 504.0)] == [
        505.0,
        505.0,
    ]
    assert without_future(after(50.0, 60.0), 60.0) == after(50.0, 60.0)


def test_the_count_has_a_limit():
    history = SlotHistory(count=1_000_000, recent=(1.0,))
    assert record_failure(history, 2.0).count == 1_000_000


def test_the_last_cause_is_kept_until_the_slate_is_clean():
    history = record_failure(CLEAN, 1.0, cause="exited with 3")
    assert record_failure(history, 2.0).cause == "exited with 3"
    assert record_failure(history, 2.0, cause="exited with 4").cause == "exited with 4"
    assert record_failure(history, 700.0, up_s=600.0).cause == ""
    assert len(record_failure(history, 2.0, cause="x" * 1000).cause) == 300


@pytest.mark.parametrize(
    "history",
    [
        CLEAN,
        after(1.25),
        after(1, 2, 3, 4, 5.001),
        record_failure(CLEAN, 1.0, cause="exited with 3"),
    ],
)
def test_a_history_survives_json(history):
    assert BACKOFF_FORM.from_json(json.loads(json.dumps(BACKOFF_FORM.to_json(history)))) == history


@pytest.mark.parametrize(
    "value",
    [
        {"count": -1},
        {"count": 1_000_001},
        {"count": "x"},
        {"recent": [-1]},
        {"recent": [1] * 6},
        {"recent": None},
        {"crash_looping": "perhaps"},
        {"cause": 3},
        [],
    ],
)
def test_what_is_no_history_is_refused(value):
    with pytest.raises(ValueError, match=r"^(count|recent|crash_looping|cause|the value)"):
        BACKOFF_FORM.from_json(value)


def test_the_greatest_history_is_read_back():
    value = {"count": 1_000_000, "recent": [0, 1, 2, 3, 4], "crash_looping": True}
    assert BACKOFF_FORM.to_json(BACKOFF_FORM.from_json(value)) == value


def test_how_often_a_slot_failed_is_counted_in_ten_minutes_or_in_a_row() -> None:
    assert frequency(after(1, 2, 3, 4, 5), 6.0) == "5 times in 10 min"
    assert frequency(after(1, 2, 3, 4, 5, 6), 7.0) == "6 times in a row"
    assert frequency(after(1, 2, 3, 4, 5), 602.5) == "5 times in a row"
