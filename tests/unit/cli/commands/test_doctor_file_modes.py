"""What is open to others is named and closed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.cli.commands.doctor import OpenFile, close_file, open_files
from controller.settings import StateFolder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A state folder with the modes that trimtab gives."""
    made = StateFolder(tmp_path / "state", tmp_path / "state" / "run")
    modes = {
        made.root: 0o755,
        made.broker: 0o700,
        made.controller: 0o700,
        made.run: 0o750,
        made.fetcher: 0o2750,
        made.feedback: 0o2750,
        made.ship: 0o700,
    }
    for folder, mode in modes.items():
        folder.mkdir()
        folder.chmod(mode)
    for key in (made.journal_key, made.hash_key):
        key.touch(mode=0o600)
    return made


def surplus(state: StateFolder) -> list[OpenFile]:
    return [*open_files(state, state.root / "policy.yaml", state.root / "registry.json")]


def found(state: StateFolder) -> dict[Path, int]:
    return {each.path: each.wanted for each in surplus(state)}


def test_what_trimtab_makes_is_closed(state: StateFolder) -> None:
    assert found(state) == {}


@pytest.mark.parametrize(
    ("name", "mode", "wanted"),
    [
        ("broker", 0o755, 0o700),
        ("broker/journal.key", 0o640, 0o600),
        ("run", 0o755, 0o750),
        ("fetcher", 0o2775, 0o2750),
        (".", 0o777, 0o755),
        ("policy.yaml", 0o666, 0o664),
        ("trimtab.yaml", 0o666, 0o664),
        ("registry.json", 0o644, 0o600),
    ],
)
def test_surplus_access_is_named_and_taken(
    state: StateFolder, name: str, mode: int, wanted: int
) -> None:
    path = state.root / name
    if not path.exists():
        path.touch()
    path.chmod(mode)
    assert found(state) == {path: wanted}
    for each in surplus(state):
        close_file(each)
    assert path.stat().st_mode & 0o7777 == wanted
    assert found(state) == {}


def test_less_access_is_left_as_it_is(state: StateFolder) -> None:
    state.broker.chmod(0o500)
    state.run.chmod(0o700)
    assert found(state) == {}


def test_no_link_is_followed(state: StateFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    state.ship.rmdir()
    state.ship.symlink_to(elsewhere)
    assert found(state) == {}
    with pytest.raises(OSError, match=os.strerror(40)):
        close_file(OpenFile(state.ship, 0o755, 0o700))
    assert elsewhere.stat().st_mode & 0o777 == 0o755
