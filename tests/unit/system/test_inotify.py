"""Changes in folders: what each kind of change is called, and what is left out."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.system.inotify import FolderChanges

WITHIN_S = 10.0


def changed_by(folder: Path, change: Callable[[], object]) -> set[str]:
    """Return the paths of a change in a folder, relative to the folder's parent."""
    with FolderChanges([str(folder)]) as changes:
        change()
        paths = changes.read(within_s=WITHIN_S)
        while more := changes.read(within_s=0):
            paths |= more
    return {str(Path(path).relative_to(folder.parent)) for path in paths}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "below").mkdir(parents=True)
    (made / "old").write_text("")
    return made


def test_a_change_is_known_by_its_path(folder: Path) -> None:
    assert changed_by(folder, lambda: (folder / "new").write_text("x")) == {"folder/new"}
    assert changed_by(folder, lambda: (folder / "new").chmod(0o600)) == {"folder/new"}
    assert changed_by(folder, lambda: (folder / "new").rename(folder / "old")) == {
        "folder/new",
        "folder/old",
    }
    assert changed_by(folder, (folder / "old").unlink) == {"folder/old"}
    assert changed_by(folder, (folder / "bé").touch) == {"folder/bé"}


def test_the_end_of_a_folder_is_known_by_the_folder(folder: Path) -> None:
    assert "folder" in changed_by(folder, lambda: folder.rename(folder.parent / "moved"))


def test_folders_below_and_missing_folders_are_left_out(folder: Path) -> None:
    with FolderChanges([str(folder / "missing"), str(folder / "old"), str(folder)]) as changes:
        (folder / "below" / "file").write_text("x")
        assert changes.read(within_s=0) == set()
        (folder / "file").touch()
        assert changes.read(within_s=WITHIN_S) == {str(folder / "file")}


def test_a_full_queue_stands_for_every_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow = struct.pack("iIII", -1, 0x4000, 0, 0)  # IN_Q_OVERFLOW
    with FolderChanges([str(folder), str(folder / "below")]) as changes:
        (folder / "file").touch()
        monkeypatch.setattr("os.read", lambda *_: overflow)
        found = changes.read(within_s=WITHIN_S)
    assert found == {str(folder), str(folder / "below")}
