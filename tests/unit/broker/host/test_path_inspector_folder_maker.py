"""Folders that the broker makes on the host."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.broker.host.path_inspector import make_folder


def test_missing_folders_are_made_for_a_user(tmp_path: Path) -> None:
    uid = 4242 if os.geteuid() == 0 else os.geteuid()
    top = tmp_path.resolve()
    (top / "there").mkdir(mode=0o700)
    assert make_folder(str(top / "there" / "a" / "b"), uid) == ""
    for folder in (top / "there" / "a", top / "there" / "a" / "b"):
        status = folder.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (uid, uid, 0o755)
    assert (top / "there").stat().st_mode & 0o7777 == 0o700
    assert (top / "there").stat().st_uid == os.geteuid()
    assert make_folder(str(top / "there" / "a"), uid) == ""


@pytest.mark.parametrize("name", ["link", "link/below", "file/below"])
def test_no_folder_is_made_behind_a_link(tmp_path: Path, name: str) -> None:
    top = tmp_path.resolve()
    (top / "elsewhere").mkdir()
    (top / "link").symlink_to(top / "elsewhere")
    (top / "file").write_text("")
    assert make_folder(str(top / name / "data"), os.geteuid()) != ""
    assert [*(top / "elsewhere").iterdir()] == []


def link_elsewhere(made: Path, elsewhere: Path) -> None:
    made.rmdir()
    made.symlink_to(elsewhere)


def move_there(made: Path, elsewhere: Path) -> None:
    made.rmdir()
    elsewhere.rename(made)


def give_to_another(made: Path, elsewhere: Path) -> None:
    move_there(made, elsewhere)
    os.chown(made, 4242, 4242)


@pytest.mark.needs_root
@pytest.mark.parametrize("swap", [link_elsewhere, move_there, give_to_another])
def test_what_somebody_puts_in_the_place_of_a_new_folder_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path, Path], None]
) -> None:
    """The user of the folder above can act between any two calls of the broker."""
    top = tmp_path.resolve()
    elsewhere = top / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "kept").write_text("")
    before, make = elsewhere.stat(), os.mkdir

    def make_and_swap(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        swap(top / name, elsewhere)

    monkeypatch.setattr(os, "mkdir", make_and_swap)
    assert make_folder(str(top / "data"), 1234) != ""
    after = (top / "data").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert after.st_uid in {0, 4242}


def test_a_folder_that_somebody_else_makes_first_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, make = tmp_path.resolve(), os.mkdir

    def make_late(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, 0o700, dir_fd=dir_fd)
        make(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", make_late)
    assert make_folder(str(top / "data"), os.geteuid()) != ""
    assert (top / "data").stat().st_mode & 0o7777 == 0o700
