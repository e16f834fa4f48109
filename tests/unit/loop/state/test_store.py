"""The controller's memory: whole or the one before, and never fatal."""

from __future__ import annotations

import json
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.core.drift.contention import Contention
from controller.core.drift.failures import CLEAN, ExitCursor, SlotHistory
from controller.core.planning.quarantine import QuarantinedContainer
from controller.core.review import host_snapshot
from controller.core.review.host_snapshot import HostSnapshot
from controller.core.service.prune_guard import PruneMemory
from controller.core.service.rollout_progress import RolloutProgress
from controller.loop.state.service_state import Generation
from controller.loop.state.store import StateStore
from controller.model.crashpoints import CONTROLLER_POINTS
from controller.model.desired.desired import NO_OVERRIDES, Overrides, Suspension
from controller.model.errors import StateError
from controller.model.names import Key, SlotKey, service_key
from controller.model.observed import Observed
from controller.system.durable_files import write_atomic

SUSPENDED = Overrides(suspension=Suspension("uid:0", "2026-01-01T00:00:00Z"))
WEB, API = service_key("default", "web"), service_key("default", "api")


def histories(store: StateStore) -> dict[SlotKey, SlotHistory]:
    return {k: s.history for k, s in store.troubled().items() if s.history != CLEAN}


def contentions(store: StateStore) -> dict[SlotKey, object]:
    return {k: s.contentions for k, s in store.troubled().items() if s.contentions}


def generations(store: StateStore) -> dict[Key, Generation]:
    return {k: s.generation for k, s in store.states().items() if s.generation}


def filled(file: Path) -> StateStore:
    memory = StateStore(file)
    memory.slot((WEB, 1)).history = SlotHistory(count=2, recent=(1000.5, 1001.0))
    memory.slot((WEB, 1)).exit_cursor = ExitCursor("c1", 3, "2026-01-01T00:00:00Z")
    memory.slot((API, 2)).exit_cursor = ExitCursor("c2")
    memory.accept_spec(WEB, "digest")
    memory.mark_acted_on(WEB, 1)
    memory.prune = PruneMemory(device=7, going=frozenset({API}), passed=((API, 1000.0),))
    memory.quarantined = {"c2": QuarantinedContainer(30.5, 1000.0, "boot", 4000.0)}
    memory.of(WEB).overrides = SUSPENDED
    return memory


def test_a_snapshot_of_the_host_has_no_text_of_a_failure(tmp_path: Path) -> None:
    memory, secret = filled(tmp_path / "state.json"), "hunter2"
    memory.slot((WEB, 1)).history = SlotHistory(count=2, cause=f"exec: {secret}")
    memory.of(WEB).rollout = RolloutProgress(revision="v2:1", failed=f"exec: {secret}")
    state = memory.to_json()
    assert secret in json.dumps(state)
    snapshot = HostSnapshot("host", "2026-01-01T00:00:00Z", Observed(instance="i"), {}, state)
    shown = json.dumps(host_snapshot.to_json(snapshot)["state"])
    assert secret not in shown
    (tmp_path / "again.json").write_text(shown)
    again = StateStore(tmp_path / "again.json")
    again.read()
    assert again.of(WEB).rollout.failed, "that it failed is part of a plan"


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    assert filled(file).save()
    again = StateStore(file)
    assert again.load(stamp="1") is None
    assert histories(again) == {(WEB, 1): SlotHistory(count=2, recent=(1000.5, 1001.0))}
    assert again.slot((WEB, 1)).exit_cursor == ExitCursor("c1", 3, "2026-01-01T00:00:00Z")
    assert again.slot((API, 2)).exit_cursor == ExitCursor("c2")
    assert generations(again) == {WEB: Generation("digest", 1, 1)}
    assert again.prune == PruneMemory(device=7, going=frozenset({API}), passed=((API, 1000.0),))
    assert again.quarantined == {"c2": QuarantinedContainer(30.5, 1000.0, "boot", 4000.0)}


def test_after_down_how_containers_failed_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    memory = filled(file)
    memory.of(WEB).rollout = RolloutProgress("v2:a", failed="it is unhealthy", good="v2:b")
    memory.slot((WEB, 1)).contentions = {"removed": Contention((1000.0,), 1, frozenset({"c1"}))}
    memory.reset_after_down("d1")
    assert memory.save()
    again = StateStore(file)
    assert again.load(stamp="1") is None
    assert again.taken_down == "d1"
    assert (histories(again), contentions(again), again.slot((WEB, 1)).exit_cursor) == (
        {},
        {},
        None,
    )
    assert again.of(WEB).rollout == RolloutProgress("v2:a", good="v2:b")
    assert again.of(WEB).overrides == SUSPENDED
    assert generations(again) == {WEB: Generation("digest", 1, 1)}
    assert again.quarantined == memory.quarantined


def test_a_file_from_before_there_was_a_quarantine_is_read(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    filled(file).save()
    written = json.loads(file.read_text())
    del written["quarantine"]
    file.write_text(json.dumps(written))
    again = StateStore(file)
    assert again.load(stamp="1") is None
    assert again.quarantined == {}
    assert again.slot((API, 2)).exit_cursor == ExitCursor("c2")
    assert again.all_overrides() == {WEB: SUSPENDED}


def test_a_file_of_before_there_were_suspensions_is_read(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    filled(file).save()
    older = {name: v for name, v in json.loads(file.read_text()).items() if name != "steerings"}
    file.write_text(json.dumps(older))
    memory = StateStore(file)
    assert memory.load(stamp="1") is None
    assert (memory.all_overrides(), memory.of(WEB).overrides) == ({}, NO_OVERRIDES)
    assert generations(memory) == {WEB: Generation("digest", 1, 1)}


def test_what_is_as_declared_takes_no_room(tmp_path: Path) -> None:
    memory = filled(tmp_path / "state.json")
    memory.of(WEB).overrides = NO_OVERRIDES
    assert memory.all_overrides() == {}


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    memory = filled(tmp_path / "state.json")
    assert memory.save()
    memory.slot((WEB, 1)).history = SlotHistory(count=2, recent=(1000.5, 1001.0))
    memory.accept_spec(WEB, "digest")
    assert not memory.save()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    filled(file).save()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2}',
        '{"version": 1}',
        "[" * 100_000,
        json.dumps({"version": 1, "prune": {}, "slots": [["x"]], "generations": {}}),
    ],
)
def test_a_broken_file_is_moved_aside_and_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(text)
    memory = StateStore(file)
    problem = memory.load(stamp="17")
    assert problem is not None
    assert problem.code == "state.damaged"
    assert (tmp_path / "state.json.broken-17").read_text() == text
    assert histories(memory) == {}
    memory.accept_spec(WEB, "digest")
    assert memory.save()
    assert (tmp_path / "state.json.broken-17").read_text() == text


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_that_cannot_be_read_now_is_no_reason_to_begin_anew(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    filled(file).save()
    memory = StateStore(file)
    with no_more_files(), pytest.raises(StateError) as caught:
        memory.load(stamp="1")
    assert caught.value.code == "state.unreadable"
    assert "Too many open files" in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert memory.load(stamp="1") is None
    assert memory.of(WEB).overrides == SUSPENDED


def test_a_broken_file_that_cannot_be_moved_aside_is_not_begun_anew_over(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("{")
    (tmp_path / "state.json.broken-17").mkdir()
    with pytest.raises(StateError, match="can't be moved aside"):
        StateStore(file).load(stamp="17")
    assert file.read_text() == "{"


def test_a_broken_file_is_left_by_who_only_looks(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("{")
    problem = StateStore(file).load(stamp="")
    assert problem is not None
    assert problem.code == "state.damaged"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_no_file_is_no_problem(tmp_path: Path) -> None:
    assert StateStore(tmp_path / "state.json").load(stamp="1") is None


class Killed(BaseException):
    """What a crash is in one process."""


POINTS = [point for point in CONTROLLER_POINTS if point.startswith("state.")]


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, point: str
) -> None:
    file = tmp_path / "state.json"
    filled(file).save()

    def reach(name: str) -> None:
        if name == point:
            raise Killed

    memory = StateStore(file, reach=reach)
    memory.load(stamp="1")
    memory.accept_spec(WEB, "another")
    with pytest.raises(Killed):
        memory.save()
    again = StateStore(file)
    assert again.load(stamp="2") is None
    number = generations(again)[WEB].number
    assert number == (2 if point == "state.fsync.after" else 1)


def test_every_point_is_reached_once_a_save(tmp_path: Path) -> None:
    reached: list[str] = []
    memory = StateStore(tmp_path / "state.json", reach=reached.append)
    memory.accept_spec(WEB, "digest")
    memory.save()
    assert reached == POINTS


def test_what_is_written_is_durable_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(number: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(number).st_mode)
        order.append("fsync folder" if is_folder else "fsync file")
        fsync(number)

    def noted_rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    filled(tmp_path / "state.json").save()
    assert order == ["fsync file", "rename", "fsync folder"]


def test_a_save_that_failed_is_made_up_for(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    memory = filled(folder / "state.json")
    folder.rmdir()
    with pytest.raises(StateError) as caught:
        memory.save()
    assert caught.value.code == "state.unwritable"
    folder.mkdir()
    assert memory.save()


def test_a_generation_counts_changes_and_never_goes_back(tmp_path: Path) -> None:
    memory = StateStore(tmp_path / "state.json")
    assert memory.accept_spec(WEB, "a")
    assert not memory.accept_spec(WEB, "a")
    assert memory.accept_spec(WEB, "b")
    memory.mark_acted_on(WEB, 2)
    memory.mark_acted_on(WEB, 1)
    memory.mark_acted_on(WEB, 3)
    assert memory.of(WEB).generation == Generation("b", 2, 2)


def test_what_is_neither_declared_nor_there_is_forgotten(tmp_path: Path) -> None:
    memory = filled(tmp_path / "state.json")
    memory.keep_only(frozenset({API}))
    assert histories(memory) == {}
    assert generations(memory) == {}
    assert memory.slot((WEB, 1)).exit_cursor is None
    assert memory.slot((API, 2)).exit_cursor == ExitCursor("c2")


def test_a_pass_that_outlasts_its_resource_changes_no_later_state_of_the_key(
    tmp_path: Path,
) -> None:
    memory = StateStore(tmp_path / "state.json")
    outlasting = memory.of(WEB)
    memory.keep_only(frozenset())
    memory.of(WEB).dependencies = frozenset({API})
    outlasting.dependencies = frozenset()
    assert memory.dependencies() == {WEB: frozenset({API})}
    outlasting.dependencies = frozenset({WEB})
    assert memory.dependencies() == {WEB: frozenset({API})}


def test_neither_reading_nor_writing_follows_a_link(tmp_path: Path) -> None:
    # The folder is the controller's, and root reads there too.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    file = tmp_path / "state.json"
    file.symlink_to(elsewhere)
    with pytest.raises(StateError, match="can't be read"):
        StateStore(file).load(stamp="1")
    (tmp_path / ".state.json.new").symlink_to(elsewhere)
    write_atomic(file, b"x")
    assert elsewhere.read_text() == "{}"


def test_a_pipe_in_the_place_of_the_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.json")
    assert StateStore(tmp_path / "state.json").load(stamp="1") is not None


def test_a_moved_service_continues_the_state_of_its_earlier_name(tmp_path: Path) -> None:
    memory = filled(tmp_path / "state.json")
    site = service_key("default", "site")
    memory.copy_moved(site, [service_key("default", "none"), WEB])
    state = memory.of(site)
    assert state.generation == memory.of(WEB).generation
    assert state.overrides == SUSPENDED
    assert memory.slot((site, 1)).history == memory.slot((WEB, 1)).history
    assert memory.slot((site, 1)).exit_cursor == ExitCursor("c1", 3, "2026-01-01T00:00:00Z")
    # A service with a state of its own keeps that.
    memory.accept_spec(API, "its own")
    memory.copy_moved(API, [WEB])
    assert memory.of(API).overrides == NO_OVERRIDES
    memory.save()
    again = StateStore(tmp_path / "state.json")
    again.read()
    assert again.of(site).overrides == SUSPENDED
