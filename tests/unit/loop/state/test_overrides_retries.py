"""Retries: how long, of what, and until when."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.loop.state.overrides import Retries, delay_s, retry_refused, signature
from controller.loop.state.store import StateStore
from controller.model.desired.plan import CreateContainer, DisconnectNetwork, StartContainer
from controller.model.errors import (
    Conflict,
    EngineError,
    EngineFailed,
    EngineUnavailable,
    Refused,
)
from controller.model.names import Key
from tests.unit.loop.toy import Watch
from tests.worlds import WEB, service


def no_luck() -> float:
    return 0.0


@pytest.mark.parametrize(
    ("error", "delays"),
    [
        (EngineFailed("x", ""), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (Conflict("x", ""), [0.05, 1, 2, 4]),
        (Refused("x", ""), [10, 20, 40, 80, 160, 300, 300]),
        (EngineUnavailable("x", ""), [1, 2, 4, 8, 16, 30, 30]),
    ],
)
def test_pauses_double_up_to_a_bound(error: EngineError, delays: list[float]) -> None:
    assert [delay_s(error, n + 1, no_luck) for n in range(len(delays))] == delays


def test_jitter_adds_a_quarter_at_most_and_huge_counts_do_no_harm() -> None:
    error = EngineFailed("x", "")
    assert delay_s(error, 3, lambda: 0.999) == pytest.approx(5.0, abs=0.01)
    assert delay_s(error, 10**9, no_luck) == 300


def create(rev: str = "b", target: str = "web.1-bbbbbbbb") -> CreateContainer:
    return CreateContainer(
        object=WEB, target=target, cause="", slot=1, service=service(rev=rev), image="x"
    )


def test_a_failed_action_is_held_until_its_time_and_its_count_stays_with_it() -> None:
    watch = Watch()
    retries, what = Retries(StateStore(Path("unused")), watch, no_luck), signature(create(), "p")
    assert retries.deferred(WEB, what) is None
    assert retries.record_failure(WEB, what, EngineFailed("x", "")) == 1
    held = retries.deferred(WEB, what)
    assert held is not None
    assert retries.remaining_s(held) == 1
    watch.time += 1.0
    assert retries.deferred(WEB, what) is None
    assert retries.record_failure(WEB, what, EngineFailed("x", "")) == 2


def test_refused_actions_are_tried_at_once_and_other_failures_keep_their_pause() -> None:
    store, watch = StateStore(Path("unused")), Watch()
    retries, queued = Retries(store, watch, no_luck), list[Key]()
    refused, failed = signature(create(), "p"), signature(create("c"), "p")
    retries.record_failure(WEB, refused, Refused("proof.undeclared", ""))
    retries.record_failure(WEB, failed, EngineFailed("x", ""))
    retry_refused(store, queued.append)
    assert queued == [WEB]
    assert retries.deferred(WEB, refused) is None
    assert retries.deferred(WEB, failed) is not None


def test_a_changed_spec_or_policy_makes_it_another_action_and_the_next_name_does_not() -> None:
    same = signature(create(), "p")
    assert signature(create(target="web.1-bbbbbbbb.2"), "p") == same
    assert signature(create(rev="c"), "p") != same
    assert signature(create(), "q") != same
    start = StartContainer(object=WEB, target="web.1-bbbbbbbb", cause="", slot=1)
    assert signature(start, "p") != same


def test_leaving_one_network_says_nothing_of_another() -> None:
    first, second = (
        DisconnectNetwork(object=WEB, target="web.1-bbbbbbbb", cause="", slot=1, network=name)
        for name in ("a", "b")
    )
    assert signature(first, "p") != signature(second, "p")


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    store = StateStore(Path("unused"))
    retries = Retries(store, Watch(), no_luck)
    kept, gone = signature(create(), "p"), signature(create(rev="c"), "p")
    for what in (kept, gone):
        retries.record_failure(WEB, what, EngineFailed("x", ""))
    retries.keep_only(WEB, frozenset({kept}))
    assert retries.deferred(WEB, kept) is not None
    assert retries.deferred(WEB, gone) is None
    store.restart_passes(WEB)
    assert retries.deferred(WEB, kept) is None
