"""Which services may be taken down, and which wait for a person."""

import json
from dataclasses import replace

import pytest

from controller.core.encoding.stored_form import StoredForm
from controller.core.service.prune_guard import (
    APPROVE,
    KEEP,
    SETTLE_S,
    WINDOW_S,
    PruneDecision,
    PruneMemory,
    guard,
)
from controller.model.desired.desired import Desired
from controller.model.names import Key, service_key
from controller.model.observed import Observed
from tests.worlds import HERE, container, declared, engine, service

PRUNE_MEMORY_FORM = StoredForm(PruneMemory)

GONE = replace(HERE, present=False)
EMPTY = replace(HERE, documents=0)
ELSEWHERE = replace(HERE, device=8)


def key(name: str, namespace: str = "default") -> Key:
    return service_key(namespace, name)


def running(*names: str, namespace: str = "default") -> Observed:
    return engine(*(container(name, namespace=namespace) for name in names))


def wanting(*names: str, **more) -> Desired:
    return declared(*(service(name) for name in names), **more)


def look(
    desired: Desired,
    observed: Observed,
    memory: PruneMemory | None = None,
    *,
    now: float = 1000.0,
    approved: bool = False,
) -> PruneDecision:
    return guard(desired, observed, memory or PruneMemory(), now=now, approved=approved)


def twice(desired: Desired, observed: Observed, memory: PruneMemory | None = None, **more):
    """Two equal looks, far enough apart."""
    first = look(desired, observed, memory, **more)
    return look(desired, observed, first.memory, now=1000.0 + SETTLE_S)


def names(keys: frozenset[Key]) -> str:
    return " ".join(sorted(k.name for k in keys))


def reasons(decision: PruneDecision) -> dict[str, str]:
    return {blocked.key.name: blocked.reason for blocked in decision.blocked}


def test_nothing_goes_when_all_is_declared():
    decision = look(wanting("a", "b"), running("a", "b"))
    assert decision == PruneDecision(frozenset(), (), PruneMemory(device=7))


def test_a_service_that_vanished_goes_at_the_second_equal_look():
    desired, observed = wanting("a"), running("a", "b")
    first = look(desired, observed)
    assert (names(first.prunable), names(first.settling), first.recheck_at) == ("", "b", 1002.0)
    assert first.blocked == ()
    early = look(desired, observed, first.memory, now=1001.9)
    assert (names(early.prunable), early.recheck_at) == ("", 1002.0)
    second = look(desired, observed, early.memory, now=1002.0)
    assert (names(second.prunable), names(second.settling), second.recheck_at) == ("b", "", None)


def test_reading_the_files_again_is_no_second_look():
    desired, observed = wanting("a"), running("a", "b")
    first = look(desired, observed)
    read = guard(desired, observed, first.memory, now=1005.0, approved=False, looked=False)
    assert (names(read.prunable), names(read.settling), read.recheck_at) == ("", "b", 1002.0)
    second = look(desired, observed, read.memory, now=1005.1)
    assert names(second.prunable) == "b"
    # What passed goes on.
    read = guard(desired, observed, second.memory, now=1006.0, approved=False, looked=False)
    assert names(read.prunable) == "b"


def test_a_look_that_differs_begins_the_wait_anew():
    observed = running("a", "b", "c")
    first = look(wanting("a", "b"), observed)
    second = look(wanting("a"), observed, first.memory, now=1003.0)
    assert (names(second.prunable), names(second.settling), second.recheck_at) == ("", "b c", 1005)
    third = look(wanting("a"), observed, second.memory, now=1005.0)
    assert names(third.prunable) == "b c"


def test_what_came_back_between_two_looks_needs_two_looks_again():
    desired, observed = wanting("a"), running("a", "b")
    first = look(desired, observed)
    back = look(wanting("a", "b"), observed, first.memory, now=1001.0)
    assert (names(back.settling), back.recheck_at) == ("", None)
    again = look(desired, observed, back.memory, now=1002.0)
    assert (names(again.prunable), names(again.settling)) == ("", "b")


def test_what_passed_goes_on_until_it_is_gone_without_another_wait():
    desired, observed = wanting("a"), running("a", "b")
    passed = twice(desired, observed)
    later = look(desired, observed, passed.memory, now=9000.0)
    assert names(later.prunable) == "b"
    gone = look(desired, running("a"), later.memory, now=9001.0)
    assert (names(gone.prunable), gone.memory.going) == ("", frozenset())


def test_what_came_back_after_it_passed_needs_two_looks_when_it_goes_again():
    desired, observed = wanting("a"), running("a", "b")
    passed = twice(desired, observed)
    back = look(wanting("a", "b"), observed, passed.memory, now=1010.0)
    assert names(back.prunable) == ""
    again = look(desired, observed, back.memory, now=1011.0)
    assert (names(again.prunable), names(again.settling)) == ("", "b")


@pytest.mark.parametrize(
    ("wanted", "there", "words"),
    [
        ((), container("b"), "would be removed"),
        ((), container("b", state="exited"), "would be removed"),
        ((service("b", replicas=0),), container("b"), "would be scaled to 0"),
        ((service("b", replicas=0),), container("b", state="created"), "would be scaled to 0"),
        ((service("b", replicas=0, state="Stopped"),), container("b"), "would be scaled to 0"),
        ((service("b", state="Stopped"),), container("b"), "would be stopped"),
        ((service("b", state="Stopped"),), container("b", state="paused"), "would be stopped"),
    ],
)
def test_removing_scaling_to_0_and_stopping_pass_the_same_guard(wanted, there, words):
    desired = declared(service("a"), *wanted)
    assert names(look(desired, engine(container("a"), there)).settling) == "b"
    blind = look(replace(desired, blind=True), engine(container("a"), there))
    assert list(reasons(blind)) == ["b"]
    assert reasons(blind)["b"].startswith(f"{words}, but ")


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ((service("b"),), container("b", slot=4)),
        ((service("b", state="Stopped"),), container("b", state="exited")),
        ((), container("b", origin="client")),
    ],
)
def test_thinning_out_what_is_down_already_and_clients_concern_nobody(wanted, there):
    decision = look(declared(service("a"), *wanted), engine(container("a"), there))
    assert (decision.settling, decision.blocked) == (frozenset(), ())


def test_a_key_that_cannot_be_read_is_no_candidate():
    desired = wanting("a", blind_keys=[key("b")])
    decision = look(desired, running("a", "b"))
    assert (decision.settling, decision.blocked) == (frozenset(), ())


@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize(
    ("desired", "reason", "remedy"),
    [
        (
            wanting("a", blind=True),
            "a file or document can't be read, and may declare it",
            "repair what `trimtab status` names",
        ),
        (
            wanting("a", identity=GONE),
            "the directory desired-state isn't there",
            "bring the directory back, or take all down with `trimtab down`",
        ),
    ],
)
def test_no_approval_passes_blindness_or_a_missing_directory(desired, reason, remedy, approved):
    decision = look(desired, running("a", "b"), now=1000.0, approved=approved)
    assert decision.prunable == decision.settling == frozenset()
    assert [(b.key, b.code, b.reason, b.remedy) for b in decision.blocked] == [
        (key("b"), "PrunePending", f"would be removed, but {reason}", f"{remedy}; {KEEP}")
    ]
    assert decision.recheck_at is None


def test_what_passed_is_held_again_while_blind_and_goes_on_afterwards():
    desired, observed = wanting("a"), running("a", "b")
    passed = twice(desired, observed)
    blind = look(replace(desired, blind=True), observed, passed.memory, now=1003.0)
    assert (names(blind.prunable), list(reasons(blind))) == ("", ["b"])
    assert names(look(desired, observed, blind.memory, now=1004.0).prunable) == "b"


def test_a_look_while_blind_is_not_the_first_of_two():
    desired, observed = wanting("a"), running("a", "b")
    first = look(desired, observed)
    blind = look(replace(desired, blind=True), observed, first.memory, now=1001.0)
    after = look(desired, observed, blind.memory, now=1500.0)
    assert (names(after.prunable), names(after.settling)) == ("", "b")


def test_a_directory_without_a_document_empties_nothing_until_approved():
    desired = declared(identity=EMPTY)
    decision = twice(desired, running("a"))
    message = "would be removed, but the directory desired-state is without any document"
    assert (names(decision.prunable), reasons(decision)) == ("", {"a": message})
    assert [b.remedy for b in decision.blocked] == [f"{APPROVE}; {KEEP}"]
    approved = look(desired, running("a"), decision.memory, approved=True)
    assert (names(approved.prunable), approved.blocked) == ("a", ())
    assert names(look(desired, running("a"), approved.memory, now=1001.0).prunable) == "a"


def test_another_filesystem_than_before_removes_nothing_until_approved():
    observed = running("a", "b")
    before = look(wanting("a", "b"), observed)
    desired = wanting("a", identity=ELSEWHERE)
    decision = twice(desired, observed, before.memory)
    message = (
        "would be removed, but the directory desired-state is on another filesystem than before"
    )
    assert (names(decision.prunable), reasons(decision)) == ("", {"b": message})
    assert decision.memory.device == 7
    approved = look(desired, observed, decision.memory, approved=True)
    assert (names(approved.prunable), approved.memory.device) == ("b", 8)


def test_another_filesystem_on_which_nothing_is_missing_is_the_one_from_then_on():
    observed = running("a", "b")
    before = look(wanting("a", "b"), observed)
    moved = look(wanting("a", "b", identity=ELSEWHERE), observed, before.memory)
    assert moved.memory.device == 8
    assert names(twice(wanting("a", identity=ELSEWHERE), observed, moved.memory).prunable) == "b"


def test_an_empty_filesystem_is_not_taken_for_the_one_to_expect():
    before = PruneMemory(device=7)
    empty = replace(EMPTY, device=8)
    assert look(declared(identity=empty), engine(), before).memory.device == 7
    assert look(declared(identity=empty), engine(), PruneMemory()).memory.device == 0
    assert look(declared(identity=empty), running("a"), before).memory.device == 7
    assert look(declared(identity=empty), running("a"), before, approved=True).memory.device == 8


def test_a_controller_that_starts_beside_an_emptied_set_blocks_as_well():
    message = "would be removed, but nothing would be left of the 2 services of namespace team"
    observed = engine(container("a", namespace="team"), container("b", namespace="team"))
    decision = twice(wanting("web"), observed)
    assert (names(decision.prunable), reasons(decision)) == ("", {"a": message, "b": message})
    approved = look(wanting("web"), observed, decision.memory, approved=True)
    assert names(approved.prunable) == "a b"


def test_a_set_of_one_may_go_empty():
    assert names(twice(wanting("web"), running("a", namespace="team")).prunable) == "a"


def test_a_set_is_emptied_by_scaling_and_stopping_too():
    desired = declared(service("a", replicas=0), service("b", state="Stopped"))
    decision = twice(desired, running("a", "b"))
    end = "but nothing would be left of the 2 services of namespace default"
    assert reasons(decision) == {
        "a": f"would be scaled to 0, {end}",
        "b": f"would be stopped, {end}",
    }


@pytest.mark.parametrize(
    "desired",
    [
        # A service that is there, one that is new, and one that can't be read.
        declared(service("c", namespace="team")),
        declared(service("c", namespace="team", state="Stopped")),
        declared(service("x"), blind_keys=[key("c", "team")]),
    ],
)
def test_a_set_of_which_something_is_left_is_not_emptied(desired):
    observed = engine(container("a", namespace="team"), container("b", namespace="team"))
    assert names(twice(desired, observed).prunable) == "a b"


TEAM = "abc"


@pytest.mark.parametrize("less", [None, {"replicas": 0}, {"state": "Stopped"}])
def test_a_set_that_is_emptied_one_by_one_keeps_its_last_until_approved(less):
    memory, now = PruneMemory(), 1000.0
    left = [service(name, namespace="team") for name in TEAM]
    down = []
    others = [service(f"o{n}") for n in range(8)]
    there = [container(f"o{n}") for n in range(8)]
    for name in TEAM:
        observed = engine(*(container(s.key.name, namespace="team") for s in left), *there)
        left = [each for each in left if each.key.name != name]
        down += [] if less is None else [service(name, namespace="team", **less)]
        desired = declared(*left, *down, *others)
        first = look(desired, observed, memory, now=now)
        decision = look(desired, observed, first.memory, now=now + SETTLE_S)
        assert names(decision.prunable) == ("" if name == "c" else name)
        memory, now = decision.memory, now + SETTLE_S + 1
    assert reasons(decision)["c"].endswith(
        "but nothing would be left of the 3 services of namespace team"
    )
    assert decision.recheck_at == 1002.0 + WINDOW_S
    approved = look(desired, observed, memory, now=now, approved=True)
    assert (names(approved.prunable), approved.blocked) == ("c", ())


def test_what_went_from_a_set_and_came_back_does_not_keep_the_next_from_going():
    observed = engine(*(container(name, namespace="team") for name in "ab"))
    a, b = (service(name, namespace="team") for name in "ab")
    passed = twice(declared(b), observed)
    back = look(declared(a, b), observed, passed.memory, now=1010.0)
    first = look(declared(a), observed, back.memory, now=1011.0)
    assert (names(first.settling), first.blocked) == ("b", ())


def test_a_set_of_which_one_is_left_may_go_empty_after_the_window():
    team = engine(*(container(name, namespace="team") for name in "ab"))
    passed = twice(declared(service("b", namespace="team"), service("web")), team)
    last = engine(container("b", namespace="team"))
    held = look(wanting("web"), last, passed.memory, now=1300.0)
    assert (list(reasons(held)), held.recheck_at) == (["b"], 1002.0 + WINDOW_S)
    free = look(wanting("web"), last, held.memory, now=1002.0 + WINDOW_S)
    assert (names(free.settling), free.blocked) == ("b", ())


def test_one_emptied_set_holds_back_no_other_services():
    observed = engine(
        container("a", namespace="team"),
        container("b", namespace="team"),
        container("web"),
        container("old"),
    )
    decision = twice(wanting("web"), observed)
    assert (names(decision.prunable), sorted(reasons(decision))) == ("old", ["a", "b"])


def letters(count: int) -> list[str]:
    return [f"s{n:02}" for n in range(count)]


@pytest.mark.parametrize(
    ("total", "gone", "passes"),
    [
        (4, 3, True),
        (5, 4, False),
        (10, 3, True),
        (10, 4, False),
        (13, 4, False),
        (14, 4, True),
        (20, 6, True),
        (20, 7, False),
    ],
)
def test_at_most_three_or_thirty_percent_go_at_once(total, gone, passes):
    everyone = letters(total)
    decision = twice(wanting(*everyone[gone:]), running(*everyone))
    assert len(decision.prunable) == (gone if passes else 0)
    assert len(decision.blocked) == (0 if passes else gone)


def test_too_many_are_told_with_numbers_and_pass_when_approved():
    everyone = letters(10)
    desired, observed = wanting(*everyone[4:]), running(*everyone)
    decision = twice(desired, observed)
    reason = "4 of 10 services would go within 10 minutes, more than 3"
    assert set(reasons(decision).values()) == {f"would be removed, but {reason}"}
    assert decision.recheck_at is None
    approved = look(desired, observed, decision.memory, approved=True)
    assert len(approved.prunable) == 4


def test_the_limit_in_the_message_is_thirty_percent_of_many():
    everyone = letters(20)
    decision = twice(wanting(*everyone[7:]), running(*everyone))
    reason = "7 of 20 services would go within 10 minutes, more than 6"
    assert set(reasons(decision).values()) == {f"would be removed, but {reason}"}


def test_removals_are_counted_over_ten_minutes_and_then_forgotten():
    everyone = letters(10)
    passed = twice(wanting(*everyone[3:]), running(*everyone))
    assert [(k.name, at) for k, at in passed.memory.passed] == [
        ("s00", 1002.0),
        ("s01", 1002.0),
        ("s02", 1002.0),
    ]
    desired, observed = wanting(*everyone[4:]), running(*everyone[3:])
    fourth = look(desired, observed, passed.memory, now=1300.0)
    reason = "4 of 10 services would go within 10 minutes, more than 3"
    assert reasons(fourth) == {"s03": f"would be removed, but {reason}"}
    assert fourth.recheck_at == 1602.0
    still = look(desired, observed, fourth.memory, now=1601.9)
    assert names(still.settling) == ""
    free = look(desired, observed, still.memory, now=1602.0)
    assert (names(free.settling), free.blocked, free.memory.passed) == ("s03", (), ())
    assert names(look(desired, observed, free.memory, now=1604.0).prunable) == "s03"


@pytest.mark.parametrize("less", [{"state": "Stopped"}, {"replicas": 0}])
def test_that_a_service_may_stop_does_not_let_its_containers_go(less):
    observed = running("a", "b")
    stopping = twice(declared(service("a", **less), service("b")), observed)
    assert names(stopping.prunable) == "a"
    emptied = look(declared(identity=EMPTY), observed, stopping.memory, now=1010.0)
    assert (names(emptied.prunable), sorted(reasons(emptied))) == ("", ["a", "b"])
    dropped = look(wanting("b"), observed, stopping.memory, now=1010.0)
    assert (names(dropped.prunable), names(dropped.settling)) == ("", "a")
    again = look(declared(service("b")), observed, dropped.memory, now=1012.0)
    assert names(again.prunable) == "a"


def test_what_passed_and_is_still_going_is_counted_once():
    everyone = letters(10)
    observed = running(*everyone)
    passed = twice(wanting(*everyone[2:]), observed)
    third = look(wanting(*everyone[3:]), observed, passed.memory, now=1010.0)
    assert (names(third.prunable), names(third.settling)) == ("s00 s01", "s02")
    fourth = look(wanting(*everyone[4:]), observed, third.memory, now=1011.0)
    assert (names(fourth.prunable), sorted(reasons(fourth))) == ("s00 s01", ["s02", "s03"])


def test_an_approval_counts_for_what_comes_within_ten_minutes():
    everyone = letters(10)
    approved = look(wanting(*everyone[4:]), running(*everyone), approved=True)
    more = look(wanting(*everyone[5:]), running(*everyone[4:]), approved.memory, now=1100.0)
    assert sorted(reasons(more)) == ["s04"]


def test_a_clock_set_back_shortens_no_wait_and_makes_none_endless():
    desired, observed = wanting("a"), running("a", "b")
    first = look(desired, observed, now=90_000.0)
    back = look(desired, observed, first.memory, now=500.0)
    assert (names(back.prunable), back.recheck_at) == ("", 502.0)
    passed = look(desired, observed, back.memory, now=502.0)
    assert names(passed.prunable) == "b"
    memory = PruneMemory(passed=((key("x"), 90_000.0),))
    assert look(desired, observed, memory, now=500.0).memory.passed == ((key("x"), 500.0),)


def test_blocked_services_come_by_key():
    observed = engine(*(container(name) for name in ("c", "a", "b")))
    decision = look(declared(identity=EMPTY), observed)
    assert [blocked.key.name for blocked in decision.blocked] == ["a", "b", "c"]


def test_the_memory_survives_json():
    everyone = letters(10)
    passed = twice(wanting(*everyone[2:]), running(*everyone))
    full = look(wanting(*everyone[3:]), running(*everyone), passed.memory, now=1010.25).memory
    value = PRUNE_MEMORY_FORM.to_json(full)
    assert value == {
        "device": 7,
        "settling": ["Service/default/s02"],
        "settling_since": 1010.25,
        "going": ["Service/default/s00", "Service/default/s01"],
        "passed": [["Service/default/s00", 1002.0], ["Service/default/s01", 1002.0]],
    }
    assert PRUNE_MEMORY_FORM.from_json(json.loads(json.dumps(value))) == full
    assert PRUNE_MEMORY_FORM.from_json(PRUNE_MEMORY_FORM.to_json(PruneMemory())) == PruneMemory()
