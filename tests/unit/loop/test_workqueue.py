"""The work queue: dedup, delays, and never one key in two hands."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.loop.workqueue import WorkQueue
from tests.switches import only_when_blocked


class Watch:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def taken(queue: WorkQueue[str]) -> list[str]:
    """Handle everything that is ready, and return it in order."""
    keys = []
    while (key := queue.poll()) is not None:
        keys.append(key)
        queue.done(key)
    return keys


def test_keys_are_handled_in_the_order_in_which_they_came_and_once() -> None:
    queue = WorkQueue[str](Watch())
    for key in ("b", "a", "b", "b", "c"):
        assert queue.add(key)
    assert taken(queue) == ["b", "a", "c"]


def test_urgent_keys_precede_the_others_and_are_handled_once() -> None:
    queue = WorkQueue[str](Watch())
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("d", is_urgent=True)
    queue.add("b", is_urgent=True)
    assert taken(queue) == ["d", "b", "a", "c"]


def test_busy_keys_are_those_that_wait_and_those_that_are_handled() -> None:
    clock = Watch()
    queue = WorkQueue[str](clock)
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 5.0)
    assert queue.poll() == "a"
    assert queue.busy == {"a", "b"}
    clock.time = 5.0
    assert queue.busy == {"a", "b", "c"}


def test_an_urgent_key_waits_for_the_worker_that_handles_it() -> None:
    queue = WorkQueue[str](Watch())
    queue.add("a")
    queue.add("a", is_urgent=True)
    assert queue.poll() == "a"
    queue.add("a", is_urgent=True)
    queue.add("b")
    assert queue.poll() == "b"
    assert queue.poll() is None
    queue.done("a")
    assert queue.poll() == "a"


def test_a_key_added_while_it_is_handled_is_handled_again_afterwards_and_once() -> None:
    queue = WorkQueue[str](Watch())
    queue.add("a")
    assert queue.poll() == "a"
    queue.add("a")
    queue.add("a")
    assert queue.poll() is None
    queue.done("a")
    assert taken(queue) == ["a"]


def test_a_key_is_awaited_until_it_is_in_nobodys_hands() -> None:
    queue = WorkQueue[str](Watch())
    queue.add("a")
    assert queue.await_done("a", timeout_s=0.0), "nobody handles it yet"
    assert queue.poll() == "a"
    assert not queue.await_done("a", timeout_s=0.01)
    waiter = threading.Thread(target=lambda: queue.await_done("a", timeout_s=10.0))
    waiter.start()
    queue.done("a")
    waiter.join(timeout=10)
    assert not waiter.is_alive()


def test_only_the_worker_of_now_is_awaited() -> None:
    queue = WorkQueue[str](Watch())
    queue.add("a")
    assert queue.poll() == "a"
    waiter = threading.Thread(target=lambda: queue.await_done("a", timeout_s=10.0))
    with only_when_blocked():
        waiter.start()
        queue.add("a")
        queue.done("a")
        assert queue.poll() == "a"
    waiter.join(timeout=5)
    assert not waiter.is_alive()


def test_a_delayed_key_comes_when_its_time_has_come() -> None:
    watch = Watch()
    queue = WorkQueue[str](watch)
    queue.add_after("a", 2.0)
    assert (queue.next_due(), taken(queue)) == (2.0, [])
    watch.time = 1.9
    assert taken(queue) == []
    watch.time = 2.0
    assert taken(queue) == ["a"]
    assert queue.next_due() is None


def test_the_earliest_of_several_delays_counts() -> None:
    watch = Watch()
    queue = WorkQueue[str](watch)
    queue.add_after("a", 9.0)
    queue.add_after("a", 1.0)
    queue.add_after("a", 5.0)
    watch.time = 1.0
    assert taken(queue) == ["a"]
    watch.time = 10.0
    assert taken(queue) == []


def test_a_replaced_delay_never_comes_and_a_new_one_does() -> None:
    watch = Watch()
    queue = WorkQueue[str](watch)
    queue.add_after("a", 1.0)
    with queue.replacing("a"):
        assert queue.next_due() is None
        queue.add_after("a", 3.0)
    watch.time = 1.0
    assert taken(queue) == []
    watch.time = 3.0
    assert taken(queue) == ["a"]


def test_a_delay_whose_replacement_fails_comes_when_it_was_due() -> None:
    watch = Watch()
    queue = WorkQueue[str](watch)
    queue.add_after("a", 2.0)
    with pytest.raises(ValueError, match="no"), queue.replacing("a"):
        watch.time = 1.0
        queue.add_after("a", 9.0)
        raise ValueError("no")
    assert queue.next_due() == 2.0


def test_a_hint_is_handled_at_once_though_a_retry_is_due_later() -> None:
    watch = Watch()
    queue = WorkQueue[str](watch)
    queue.add_after("a", 9.0)
    queue.add("a")
    assert taken(queue) == ["a"]
    watch.time = 9.0
    assert taken(queue) == ["a"]


def test_a_full_queue_says_no() -> None:
    queue = WorkQueue[str](Watch(), capacity=2)
    assert [queue.add(key) for key in "abca"] == [True, True, False, True]
    assert [queue.add_after(key, 1.0) for key in "xyzx"] == [True, True, False, True]


def test_a_full_queue_keeps_what_became_due_until_there_is_room() -> None:
    watch = Watch()
    queue = WorkQueue[str](watch, capacity=1)
    queue.add_after("late", 1.0)
    queue.add("first")
    watch.time = 1.0
    assert taken(queue) == ["first", "late"]


def test_after_the_shut_down_nothing_is_handed_out() -> None:
    queue = WorkQueue[str](Watch())
    queue.add("a")
    queue.shut_down()
    assert queue.poll() is None
    assert queue.get() is None


def test_a_waiting_worker_is_woken_by_a_key_and_by_the_shut_down() -> None:
    queue = WorkQueue[str](Watch())
    got: list[str | None] = []

    def work() -> None:
        while (key := queue.get()) is not None:
            got.append(key)
            queue.done(key)
        got.append(None)

    worker = threading.Thread(target=work)
    worker.start()
    queue.add("a")
    queue.add("b")
    while not queue.idle:
        pass
    queue.shut_down()
    worker.join(timeout=10)
    assert got == ["a", "b", None]


def test_a_key_wakes_a_worker_though_somebody_awaits_the_end_of_another_pass() -> None:
    queue = WorkQueue[str](Watch())
    queue.add("slow")
    assert queue.poll() == "slow"
    got_key, ended = threading.Event(), threading.Event()

    def await_end() -> None:
        if queue.await_done("slow", timeout_s=10.0):
            ended.set()

    def work() -> None:
        if queue.get() == "other":
            got_key.set()

    threads = [threading.Thread(target=await_end), threading.Thread(target=work)]
    with only_when_blocked():
        for thread in threads:
            thread.start()
        queue.add("other")
        took = got_key.wait(5.0)
        queue.done("slow")
    for thread in threads:
        thread.join(timeout=10)
    assert took, "a key is ready, and the worker sleeps"
    assert ended.is_set()


def test_a_key_that_is_handed_back_wakes_nobody_unless_it_was_added_meanwhile() -> None:
    looks: list[None] = []

    def look() -> float:
        looks.append(None)  # a woken worker looks at the clock
        return 0.0

    queue = WorkQueue[str](look)
    queue.add("one")
    assert queue.poll() == "one"
    took = threading.Event()

    def work() -> None:
        while queue.await_ready():
            if queue.poll() == "last":
                took.set()

    workers = [threading.Thread(target=work) for _ in range(4)]
    with only_when_blocked():
        for worker in workers:
            worker.start()
        looks.clear()
        queue.done("one")
        queue.add("last")
        assert took.wait(10.0)
    queue.shut_down()
    for worker in workers:
        worker.join(timeout=10)
    assert len(looks) <= 3, "one worker: it finds the key, takes it, and waits again"


@given(st.lists(st.tuples(st.sampled_from(["add", "later", "take", "done"]), st.integers(0, 3))))
def test_no_key_is_ever_in_two_hands_and_none_that_was_added_is_lost(
    steps: list[tuple[str, int]],
) -> None:
    watch = Watch()
    queue = WorkQueue[str](watch)
    hands: list[str] = []
    owed: set[str] = set()  # keys that were added since they were last taken
    for what, number in steps:
        watch.time += 0.5
        key = f"k{number}"
        if what == "add":
            queue.add(key)
            owed.add(key)
        elif what == "later":
            queue.add_after(key, float(number))
            owed.add(key)
        elif what == "take":
            got = queue.poll()
            if got is not None:
                hands.append(got)
                owed.discard(got)
        elif hands:
            queue.done(hands.pop())
        assert len(hands) == len(set(hands))
    while hands:
        queue.done(hands.pop())
    watch.time += 100.0
    assert owed <= set(taken(queue))
