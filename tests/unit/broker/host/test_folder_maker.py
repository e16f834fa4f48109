"""Folders that the broker makes on the host."""

import os
from pathlib import Path

import pytest

from controller.broker.host.folder_maker import make_folder


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
