"""The state of one service: which changes are saved, and how people see it."""

from __future__ import annotations

import json
from pathlib import Path

from controller.core.drift import failures
from controller.core.drift.failures import SlotHistory
from controller.core.planning.planner import KeyPlan
from controller.loop.state.service_state import to_json
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Overrides, Suspension
from controller.model.desired.plan import StartContainer
from tests.worlds import WEB


def test_a_changed_saved_field_is_written_and_a_field_in_memory_is_not(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.json")
    state, slot = store.of(WEB), store.slot((WEB, 1))
    state.acting, state.plan, slot.counted_at = 3, KeyPlan(), 7.0
    state.dependencies = frozenset()
    assert not store.save()
    state.dependencies = frozenset({WEB})
    assert store.save()
    assert not store.save()


def test_slots_with_failures_are_found() -> None:
    store = StateStore(Path("unused"))
    slot = store.slot((WEB, 2))
    slot.history = SlotHistory(count=1)
    assert store.troubled() == {(WEB, 2): slot}
    slot.history = failures.CLEAN
    assert store.troubled() == {}


def test_a_service_that_was_taken_down_is_kept_while_it_counts() -> None:
    store = StateStore(Path("unused"))
    store.of(WEB).down_since = 1.0
    store.keep_only(frozenset())
    assert store.states().keys() == {WEB}
    store.of(WEB).down_since = None
    store.keep_only(frozenset())
    assert store.states() == {}


def test_people_see_all_of_a_state() -> None:
    store = StateStore(Path("unused"))
    state = store.of(WEB)
    store.slot((WEB, 1)).history = SlotHistory(count=2)
    state.overrides = Overrides(suspension=Suspension("uid:0", "2026-01-01T00:00:00Z"))
    start = StartContainer(object=WEB, target="web.1", cause="slot 1 is stopped", slot=1)
    state.plan, state.requested_by = KeyPlan((start,)), "uid:0"
    shown = json.loads(json.dumps(to_json(state)))
    assert "uid:0" in shown["saved"]["overrides"]
    assert "count=2" in shown["saved"]["slots"]["1"]["saved"]["history"]
    assert shown["memory"]["plan"] == ["start-container web.1: slot 1 is stopped"]
    assert shown["memory"]["requested_by"] == "uid:0"
