"""Pending moves: which containers go on under a new name, and that nothing removes them before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.planning.context import (
    claimed_keys,
    pending_moves,
    present_key,
    with_moves,
)
from controller.core.service import prune_guard
from controller.core.service.prune_guard import PruneMemory
from controller.loop.passes import after_moves
from controller.model.desired.desired import Desired, OverrideReason, Service
from controller.model.desired.plan import NeedsOperator
from controller.model.names import Key, service_key
from controller.model.observed import Observed
from tests import worlds
from tests.worlds import container, declared, engine, service

API, WEB = service_key("default", "api"), service_key("default", "web")


def moved(*names: str) -> Service:
    keys = tuple(service_key("default", name) for name in names or ("api",))
    return replace(service("web"), moved=keys)


def sources(desired: Desired, observed: Observed) -> list[str]:
    return [str(move.source) for move in pending_moves(desired, observed)]


def test_containers_of_an_undeclared_earlier_name_are_moved() -> None:
    there = engine(container("api"), container("api", slot=2), container("db"))
    (move,) = pending_moves(declared(moved(), service("db")), there)
    assert (move.source, move.service.key, move.count) == (API, WEB, 2)
    assert move.action.source == API
    after = with_moves(there, [move])
    assert [c.name for c in after.of(WEB)] == ["api.1-bbbbbbbb", "api.2-bbbbbbbb"]
    assert {c.former for c in after.of(WEB)} == {"api"}
    assert after.of(API) == ()
    assert pending_moves(declared(moved(), service("db")), after) == ()
    desired = declared(moved(), service("db"))
    assert (present_key(API, desired, there), present_key(WEB, desired, there)) == (WEB, None)
    assert present_key(API, desired, after) is None


def test_the_first_earlier_name_with_containers_counts() -> None:
    assert sources(declared(moved("old", "api")), engine(container("api"))) == [str(API)]


def test_a_service_with_containers_of_its_own_takes_none_over() -> None:
    there = engine(container("api"), container("web"))
    assert sources(declared(moved()), there) == []
    assert claimed_keys(declared(moved()), there) == frozenset()


def test_a_declared_service_is_never_moved_away() -> None:
    assert sources(declared(moved(), service("api")), engine(container("api"))) == []


def test_a_suspended_or_unreadable_service_is_left_alone_with_its_containers() -> None:
    there = engine(container("api"))
    hold = OverrideReason(WEB, "suspended", "ByCommand", "", "")
    suspended = replace(declared(moved()), holds=(hold,))
    for desired in (suspended, declared(moved(), blind_keys=[WEB])):
        assert sources(desired, there) == []
        assert claimed_keys(desired, there) == {API}


@pytest.mark.parametrize("unread", [{"blind": True}, {"blind_keys": [API]}])
@pytest.mark.parametrize("only", [None, WEB])
def test_a_service_waits_while_an_unread_document_may_declare_its_earlier_name(
    unread: dict[str, Any], only: Key | None
) -> None:
    # A container of its own would end the move, and begin with an empty volume.
    there, desired = engine(container("api")), declared(moved(), **unread)
    observed, _, moves = after_moves(desired, there, None, only)
    assert [(move.source, move.waits) for move in moves] == [(API, True)]
    assert observed == there
    plan = worlds.plan(desired, observed, only=only, moves=moves)
    (wait,) = plan.actions
    assert isinstance(wait, NeedsOperator)
    assert (wait.object, wait.code) == (WEB, "moved.unread")
    assert wait.cause == (
        "an unread document possibly declares default/api, whose containers go on here"
    )
    assert claimed_keys(desired, there) == {API}


def test_the_prune_guard_counts_a_move_as_no_removal() -> None:
    everything = [container(f"old{n}") for n in range(8)]
    services = [
        replace(service(f"new{n}"), moved=(service_key("default", f"old{n}"),)) for n in range(8)
    ]
    decision = prune_guard.guard(
        declared(*services), engine(*everything), PruneMemory(), now=9.0, approved=False
    )
    assert (decision.prunable, decision.settling, decision.blocked) == (
        frozenset(),
        frozenset(),
        (),
    )


def test_the_pass_of_a_service_knows_its_containers_by_the_snapshot_of_everything() -> None:
    known, own = engine(container("api"), container("db")), engine()
    desired = declared(moved(), service("db"))
    observed, everything, moves = after_moves(desired, own, known, WEB)
    assert [move.source for move in moves] == [API]
    assert everything is not None
    assert [c.name for c in observed.of(WEB)] == ["api.1-bbbbbbbb"]
    # Once the broker shows them under the new name, an old snapshot moves nothing.
    now = engine(replace(container("api"), key=WEB, former="api"))
    observed, _, moves = after_moves(desired, now, known, WEB)
    assert (moves, observed) == ((), now)
