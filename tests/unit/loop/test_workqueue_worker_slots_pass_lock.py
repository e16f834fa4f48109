"""Turns: passes side by side, or one caller alone."""

from __future__ import annotations

import threading

from controller.loop.workqueue import PassLock


def passer(turns: PassLock, entered: threading.Event, leave: threading.Event) -> threading.Thread:
    """A thread in which one pass runs until it is told to leave."""

    def run() -> None:
        with turns.passing() as granted:
            if granted:
                entered.set()
                leave.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_passes_run_side_by_side() -> None:
    turns, leave = PassLock(), threading.Event()
    entered = [threading.Event(), threading.Event()]
    threads = [passer(turns, each, leave) for each in entered]
    assert all(each.wait(10) for each in entered)
    leave.set()
    for thread in threads:
        thread.join(10)


def test_who_wants_to_be_alone_waits_for_those_who_run_and_keeps_others_out() -> None:
    turns, leave, entered = PassLock(), threading.Event(), threading.Event()
    first = passer(turns, entered, leave)
    assert entered.wait(10)
    with turns.exclusive(timeout_s=0.01) as alone:
        assert not alone, "a pass runs"
    leave.set()
    first.join(10)
    late = threading.Event()
    with turns.exclusive(timeout_s=10) as alone:
        assert alone
        second = passer(turns, late, leave)
        with turns.exclusive(timeout_s=0.01) as another:
            assert not another, "somebody is alone already"
        assert not late.is_set()
    assert late.wait(10)
    second.join(10)


def test_paused_passes_run_only_while_somebody_keeps_them_open() -> None:
    turns, leave, entered = PassLock(paused=True), threading.Event(), threading.Event()
    leave.set()
    thread = passer(turns, entered, leave)
    assert not entered.wait(0.05)
    with turns.open():
        assert entered.wait(10)
    thread.join(10)


def test_after_the_end_nobody_waits_and_nobody_passes() -> None:
    turns, leave, entered = PassLock(paused=True), threading.Event(), threading.Event()
    thread = passer(turns, entered, leave)
    turns.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not entered.is_set()


def test_who_wants_nobody_to_be_alone_waits_for_the_end_of_that() -> None:
    turns = PassLock()
    assert turns.await_shared(timeout_s=0.0)
    with turns.exclusive(timeout_s=1.0):
        assert not turns.await_shared(timeout_s=0.01)
    assert turns.await_shared(timeout_s=0.0)
