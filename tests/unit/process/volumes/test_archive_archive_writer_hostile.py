"""What a program puts into a volume, or does there meanwhile, and what a dump and a restore make of it."""

from __future__ import annotations

import io
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.process.volumes.archive import ArchiveWriter
from controller.process.volumes.restore import NEW, STAGING, Unpacker, remove_staging
from tests.unit.process.volumes.test_restore_archives import dump, restore


def names(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "file").write_text("of a")
    (folder / "b").mkdir()
    (folder / "b" / "file").write_text("of b")
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", [b"user.\xff", b"user.a=b"])
def test_an_attribute_without_a_form_in_an_archive_is_left_out_and_named(
    volume: Path, other: Path, name: bytes
) -> None:
    os.setxattr(volume / "a" / "file", name, b"x")
    os.setxattr(volume / "a" / "file", "user.good", b"y")
    archive, reports = dump(volume)
    left_out = [each for each in reports if "skipped" in each]
    assert left_out == [{"skipped": "a/file", "kind": f"attribute {os.fsdecode(name)}"}]
    restore(other, archive)
    assert os.listxattr(other / "a" / "file") == ["user.good"]


def nest(folder: Path, depth: int) -> None:
    """Make folders below each other, deeper than a path can be."""
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep" * 10, dir_fd=handle)
        below = os.open("deep" * 10, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)


def test_what_no_path_reaches_is_left_out_and_named(volume: Path, other: Path) -> None:
    nest(volume / "a", 120)
    archive, reports = dump(volume)
    assert [each["kind"] for each in reports if "skipped" in each] == ["path of 4096 bytes or more"]
    restore(other, archive)
    assert (other / "b" / "file").read_text() == "of b"
    remove_nested(volume)


def remove_nested(volume: Path) -> None:
    """Remove what pytest can't."""
    volume.rename(volume.with_name(STAGING))
    remove_staging(str(volume.parent))


def remove(folder: Path) -> None:
    (folder / "file").unlink()
    folder.rmdir()


def by_a_file(folder: Path) -> None:
    remove(folder)
    folder.write_text("a file")


def by_a_link(folder: Path) -> None:
    remove(folder)
    folder.symlink_to(folder.parent.parent / "outside")


def by_a_loop(folder: Path) -> None:
    remove(folder)
    folder.symlink_to(folder)


def by_a_pipe(folder: Path) -> None:
    remove(folder)
    os.mkfifo(folder)


@pytest.mark.parametrize("act", [remove, by_a_file, by_a_link, by_a_loop, by_a_pipe])
def test_a_folder_that_is_replaced_before_it_is_read_is_named(
    volume: Path, other: Path, act: Callable[[Path], None]
) -> None:
    (volume.parent / "outside").mkdir()
    (volume.parent / "outside" / "secret").write_text("of the host")
    out, reports = io.BytesIO(), list[dict[str, Any]]()

    def report(message: dict[str, Any]) -> None:
        reports.append(message)
        if message == {"bytes": 0, "entries": 3}:  # the volume, a and b, and no file yet
            act(volume / "b")

    ArchiveWriter(out, report).write("data", str(volume))
    assert [each["changed"] for each in reports if "changed" in each] == ["b"]
    restore(other, out.getvalue())
    assert names(other) == ["a", "a/file", "b"]


def test_a_file_that_is_replaced_before_it_is_read_is_named(volume: Path, other: Path) -> None:
    for name in ("c", "d", "e"):
        (volume / name).write_text(name)
    (volume.parent / "secret").write_text("of the host")
    status = {name: (volume / name).lstat() for name in ("c", "d", "e")}
    for name in status:
        (volume / name).unlink()
    (volume / "c").symlink_to(volume.parent / "secret")
    os.mkfifo(volume / "d")
    (volume / "e").mkdir()
    reports = list[dict[str, Any]]()
    writer = ArchiveWriter(io.BytesIO(), reports.append)
    for name, seen in status.items():
        writer._entry(name, str(volume / name), seen)
    assert reports == [{"changed": name} for name in status]


def test_a_large_hole_takes_no_time_and_no_room(volume: Path, other: Path) -> None:
    with (volume / "a" / "file").open("r+b") as file:
        file.seek(2**40)
        file.write(b"amid")
        file.truncate(2**43)
    archive, _ = dump(volume)
    restore(other, archive)
    status = (other / "a" / "file").stat()
    assert (status.st_size, status.st_blocks < 1000) == (2**43, True)
    with (other / "a" / "file").open("rb") as restored:
        assert restored.read(5) == b"of a\0"
        restored.seek(2**40)
        assert restored.read(5) == b"amid\0"


@pytest.fixture
def few_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_open_files")
def test_folders_of_any_depth_stop_no_restore(volume: Path, other: Path) -> None:
    archive, _ = dump(volume)
    (other / "data").mkdir()
    nest(other / "data", 600)
    (other / STAGING).mkdir()
    nest(other / STAGING, 600)  # also where the restore unpacks
    restore(other, archive)
    assert names(other) == ["a", "a/file", "b", "b/file"]


def test_a_folder_that_is_moved_out_of_the_staging_folder_gets_nothing_outside(
    volume: Path, other: Path
) -> None:
    archive, _ = dump(volume)
    outside = other.parent / "outside"
    outside.mkdir()

    def swap(message: dict[str, Any]) -> None:
        if message.get("entries") == 3:
            (other / NEW / "a").rename(other / "moved")
            (other / NEW / "a").symlink_to(outside)

    unpacker = Unpacker(str(other), swap)
    with pytest.raises(Exception, match="isn't below a folder"):
        unpacker.unpack(io.BytesIO(archive))
    assert names(outside) == []
