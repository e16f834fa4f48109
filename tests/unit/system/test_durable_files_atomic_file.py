"""A file that is replaced durably: content and name are synced, and no link is followed."""

import os
import stat
from pathlib import Path

import pytest

from controller.system.durable_files import fsync_folder, write_atomic


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_content_is_synced_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    synced: list[tuple[bool, bytes]] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), path.read_bytes()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    write_atomic(path, b"new")
    assert synced == [(False, b"old"), (True, b"new")]
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_as_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "public", b"", mode=0o644)
        write_atomic(tmp_path / "secret", b"")
        write_atomic(tmp_path / "umask", b"", mode=None)
    finally:
        os.umask(before)
    modes = [mode_of(tmp_path / name) for name in ("public", "secret", "umask")]
    assert modes == [0o644, 0o600, 0o640]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_the_place_of_the_temporary_file_is_removed_and_not_written_through(
    tmp_path: Path, link
) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    link(other, tmp_path / ".file.new")
    write_atomic(tmp_path / "file", b"ours")
    assert other.read_text() == "theirs"
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert not (tmp_path / "file").is_symlink()


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / "file").symlink_to(other)
    write_atomic(tmp_path / "file", b"ours")
    assert (other.read_text(), (tmp_path / "file").read_bytes()) == ("theirs", b"ours")


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / ".file.new").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_crash_points_have_the_prefix_of_the_caller(tmp_path: Path) -> None:
    points: list[str] = []
    write_atomic(tmp_path / "file", b"", reach=points.append, points="state")
    parts = ("write.before", "write.after", "fsync.before", "fsync.after")
    assert points == [f"state.{part}" for part in parts]


def test_a_folder_that_cannot_be_synced_is_an_error_only_where_that_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    fsync_folder(tmp_path, required=False)
    with pytest.raises(OSError, match="Invalid"):
        fsync_folder(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        fsync_folder(tmp_path / "missing", required=False)


@pytest.mark.needs_root
def test_root_keeps_the_owner_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"new", mode=0o640, owner=(4242, 4243))
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4242, 4243, 0o640)
