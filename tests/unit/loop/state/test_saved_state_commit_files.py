"""Files about commits: outcomes for the fetcher, and the holds that the journal has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from controller.app.controller import CommitFiles
from controller.core.git.reports import parse_feedback
from controller.loop.state.saved_state import PAUSE_S, FeedbackFile, HoldFile
from controller.model.errors import EngineUnavailable
from controller.model.sources import CommitInfo, OutcomeState, SourceHold, SourceStatus
from controller.settings import StateFolder
from tests.unit.core.status.test_sources import NEW, STATUS, world
from tests.unit.core.status.test_sources_commit_outcomes import READY, WEB, report
from tests.unit.core.status.test_sources_commit_outcomes import world as asking


@dataclass
class Journal:
    """Takes the records of holds, unless it is away."""

    folder: Path
    holds: list[SourceHold] = field(default_factory=list)
    is_away: bool = False
    at: float = 0.0

    def record(self, hold: SourceHold) -> None:
        if self.is_away:
            raise EngineUnavailable("broker.away", "away")
        self.holds.append(hold)

    def file(self) -> HoldFile:
        """Return the file as a new process opens it."""
        return HoldFile(self.folder, self.record, monotonic=lambda: self.at)

    @property
    def commits(self) -> list[str]:
        return [hold.commit[:1] for hold in self.holds]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def held(letter: str) -> SourceStatus:
    return replace(STATUS, candidate=CommitInfo(letter * 40))


def test_a_hold_is_recorded_once_also_over_a_restart(journal: Journal) -> None:
    file = journal.file()
    for _ in range(3):
        file.update(world(STATUS))
        journal.at += PAUSE_S
    journal.file().update(world(STATUS))
    assert [hold.commit for hold in journal.holds] == [NEW]
    assert (journal.folder / "holds.json").stat().st_mode & 0o777 == 0o600


def test_a_hold_that_cannot_be_recorded_is_tried_again(journal: Journal) -> None:
    file = journal.file()
    journal.is_away = True
    file.update(world(STATUS))
    assert journal.holds == []
    journal.is_away = False
    file.update(world(STATUS))
    assert journal.commits == ["b"]


def test_many_holds_of_a_source_are_few_records(journal: Journal) -> None:
    file = journal.file()
    for letter in "cdef":
        file.update(world(held(letter)))
        journal.at += PAUSE_S / 4
    file.update(world(held("f")))
    assert journal.commits == ["c", "f"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which no file can be made."""
    (tmp_path / ".holds.json.new").mkdir()
    yield tmp_path
    (tmp_path / ".holds.json.new").rmdir()


def test_a_file_that_cannot_be_written_repeats_no_record(read_only: Path) -> None:
    journal = Journal(read_only)
    file = journal.file()
    for _ in range(3):
        with pytest.raises(OSError, match=r".+"):
            file.update(world(STATUS))
        journal.at += PAUSE_S
    assert journal.commits == ["b"]


def test_outcomes_are_written_also_if_holds_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "controller" / ".holds.json.new").mkdir(parents=True)
    state = StateFolder(tmp_path, tmp_path / "run")
    files = CommitFiles(state, lambda _: None)
    with pytest.raises(OSError, match="holds"):
        files.publish(asking(WEB, report=held("b")), report(web=READY))
    assert len(parse_feedback((state.feedback / "feedback.json").read_bytes())) == 4


def test_a_damaged_file_costs_a_record(journal: Journal) -> None:
    journal.file().update(world(STATUS))
    (journal.folder / "holds.json").write_text("{")
    journal.file().update(world(STATUS))
    assert journal.commits == ["b", "b"]


def test_outcomes_are_written_when_they_change_and_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    file = FeedbackFile(folder)
    file.update(asking(WEB), report(web=READY))
    path = folder / "feedback.json"
    first = path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o640
    file.update(asking(WEB), report(web=READY))
    assert path.stat().st_ino == first
    # A restarted controller keeps the success while a container is replaced.
    FeedbackFile(folder).update(asking(WEB), report(web={}))
    assert [each.state for each in parse_feedback(path.read_bytes())] == [OutcomeState.SUCCESS] * 2
    os.truncate(path, 3)
    FeedbackFile(folder).update(asking(WEB), report(web={}))
    states = [each.state for each in parse_feedback(path.read_bytes()) if each.namespace == "shop"]
    assert states == [OutcomeState.PENDING]


def test_the_fetcher_is_asked_for_while_a_source_is_declared_and_files_are_readable(
    tmp_path: Path,
) -> None:
    (tmp_path / "controller").mkdir()
    state = StateFolder(tmp_path, tmp_path / "run")
    asked = asking(WEB)
    for began in range(2):
        files = CommitFiles(state, lambda _: None)
        files.publish(asked, report(web=READY))
        assert state.declared_sources.exists()
        files.publish(replace(asked, sources=(), blind=True), report(web=READY))
        assert state.declared_sources.exists()
        if began:  # a restart of the controller knows the file
            files = CommitFiles(state, lambda _: None)
        files.publish(replace(asked, sources=(), blind=False), report(web=READY))
        assert not state.declared_sources.exists()
