"""Failed runs: read before a pass acts, kept across restarts, never in the way of healing."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.core.drift.failures import KEPT_OF_ALL, LINES_MAX, OF_A_SERVICE, TEXT_MAX, last_line
from controller.loop.state.failed_runs import SIZE_MAX, FailureLog, read_runs
from controller.model.container_output import FailedRun, LogLine
from controller.model.errors import EngineFailed, StateError
from controller.model.observed import Container, ContainerState
from tests.unit.loop.toy import House, Watch
from tests.worlds import WEB, container, service

LINE = LogLine("2026-03-01T12:00:00.000000000Z", "stdout", "no password")


class Reader:
    """Reads one line of any container, and remembers which were read when."""

    def __init__(self, house: House | None = None) -> None:
        self.read: list[tuple[str, list[str]]] = []
        self.fails = False
        self.takes_s = 0.0
        self._house = house
        self.watch = house.watch if house else Watch()

    def last_output(self, container: str) -> tuple[LogLine, ...]:
        self.read.append((container, [*self._house.engine.done] if self._house else []))
        self.watch.time += self.takes_s
        if self.fails:
            raise EngineFailed("http.500", "the disk is full")
        return (LINE,)


def failed(number: int = 1, **more: Any) -> Container:
    return container(
        slot=number,
        state="restarting",
        exit_code=1,
        finished_at=f"2026-03-01T12:00:0{number}Z",
        **more,
    )


def note(log: FailureLog, *containers: Container) -> None:
    log.record(service(replicas=3), containers, controller_restarts=frozenset(), rejected={})


def test_a_failed_container_is_read_once(tmp_path: Path) -> None:
    reader = Reader()
    log = FailureLog(reader.watch, file=tmp_path / "failures.json", reader=reader)
    note(log, failed())
    note(log, failed())
    (run,) = log.runs()
    assert (run.cause, run.lines, len(reader.read)) == ("exited with 1", (LINE,), 1)


def test_output_that_can_not_be_read_is_said_so() -> None:
    reader = Reader()
    reader.fails = True
    log = FailureLog(reader.watch, reader=reader)
    note(log, failed())
    (run,) = log.runs()
    assert (run.lines, run.unread) == ((), "its output couldn't be read: the disk is full")


def test_reading_ends_after_a_while_however_many_failed() -> None:
    reader = Reader()
    reader.takes_s = 2.0
    log = FailureLog(reader.watch, reader=reader)
    note(log, failed(1), failed(2), failed(3))
    assert [bool(run.lines) for run in log.runs()] == [True, True, False]
    assert log.runs()[2].unread == "there was no time to read its output"


def test_what_is_kept_survives_a_restart_and_is_only_the_owners_to_read(tmp_path: Path) -> None:
    file = tmp_path / "failures.json"
    log = FailureLog(Watch(), file=file, reader=Reader())
    note(log, failed())
    log.save()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = FailureLog(Watch(), file=file)
    again.load()
    assert again.runs() == log.runs() == read_runs(file)
    again.forget_all_but(frozenset())
    again.save()
    assert read_runs(file) == ()


@pytest.mark.parametrize(
    "text", ["", "{}", '{"version": 2, "runs": []}', '{"version": 1, "runs": [1]}']
)
def test_a_broken_file_is_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "failures.json"
    file.write_text(text)
    log = FailureLog(Watch(), file=file)
    log.load()
    assert log.runs() == ()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "there").write_text(json.dumps({"version": 1, "runs": []}))
    (tmp_path / "failures.json").symlink_to(tmp_path / "there")
    with pytest.raises(OSError, match="symbolic"):
        read_runs(tmp_path / "failures.json")


def test_what_could_not_be_saved_is_saved_later(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    log = FailureLog(Watch(), file=folder / "failures.json", reader=Reader())
    note(log, failed())
    with pytest.raises(StateError, match=r"failures\.json"):
        log.save()
    folder.mkdir()
    log.save()
    assert len(read_runs(folder / "failures.json")) == 1


def kept_in(house: House) -> Reader:
    reader = Reader(house)
    house.failure_log = FailureLog(house.watch, file=house.folder / "failures.json", reader=reader)
    house.restart()
    return reader


def runs_of(house: House) -> tuple[FailedRun, ...]:
    return house.controller.reconciler.failure_log.runs()


def test_a_pass_reads_before_it_removes(tmp_path: Path) -> None:
    house = House(tmp_path)
    reader = kept_in(house)
    house.declare(service())
    house.let_pass(30)
    before = len(house.engine.done)
    house.engine.change(
        "web.1-bbbbbbbb",
        lambda c: replace(
            c, state=ContainerState.RESTARTING, exit_code=1, finished_at="2026-03-01T12:00:01Z"
        ),
    )
    house.declare(service(rev="c"))
    done = house.let_pass(60)
    assert "remove-container web.1-bbbbbbbb" in done
    ((_, done_before),) = reader.read
    assert len(done_before) == before, "nothing was done between the failure and the read"
    (run,) = runs_of(house)
    assert (run.key, run.container, last_line(run)) == (WEB, "web.1-bbbbbbbb", "no password")


def test_output_that_can_not_be_read_keeps_nothing_from_being_healed(tmp_path: Path) -> None:
    house = House(tmp_path)
    reader = kept_in(house)
    reader.fails = True
    house.declare(service())
    house.let_pass(30)
    house.engine.change("web.1-bbbbbbbb", lambda c: replace(c, health="unhealthy"))
    assert house.let_pass(310), "it is restarted"
    assert runs_of(house)[0].unread


class Flood(Reader):
    """Reads as much as is kept, of characters that take the most bytes."""

    def __init__(self, letter: str) -> None:
        super().__init__()
        self.letter = letter

    def last_output(self, container: str) -> tuple[LogLine, ...]:
        return (replace(LINE, text=self.letter * TEXT_MAX),) * LINES_MAX


@pytest.mark.parametrize("letter", ["\U0001f480", "\x01", '"', "\udc80"])
def test_all_that_is_kept_can_be_read_again(tmp_path: Path, letter: str) -> None:
    log = FailureLog(Watch(), file=tmp_path / "failures.json", reader=Flood(letter))
    for number in range(KEPT_OF_ALL // OF_A_SERVICE):
        declared = service(f"web{number}")
        for slot in range(1, OF_A_SERVICE + 1):
            seen = failed(slot % 10, id=f"{number}-{slot}")
            seen = replace(seen, key=declared.key, slot=slot)
            log.record(declared, [seen], controller_restarts=frozenset(), rejected={})
    assert len(log.runs()) == KEPT_OF_ALL
    log.save()
    assert (tmp_path / "failures.json").stat().st_size <= SIZE_MAX
    assert len(read_runs(tmp_path / "failures.json")) == KEPT_OF_ALL
