"""Archives of volumes: what is dumped comes back, and a bad archive changes nothing."""

from __future__ import annotations

import fcntl
import io
import os
import socket
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.process.volumes.archive import (
    BLOCK,
    TRAILER_BYTES,
    ArchiveWriter,
    BadArchive,
    Trailer,
    sparse_map,
)
from controller.process.volumes.restore import (
    MARKER,
    NEW,
    OLD,
    STAGING,
    Unpacker,
    begin_exchange,
    finish,
    remove_staging,
)

MIB = 1024 * 1024


def dump(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    out, reports = io.BytesIO(), list[dict[str, Any]]()
    ArchiveWriter(out, reports.append).write("data", str(folder))
    return out.getvalue(), reports


def exchange(folder: str, unpacker: Unpacker) -> None:
    begin_exchange(folder, unpacker)
    finish(folder)


def restore(folder: Path, archive: bytes) -> Unpacker:
    unpacker = Unpacker(str(folder), lambda _report: None)
    unpacker.unpack(io.BytesIO(archive))
    exchange(str(folder), unpacker)
    return unpacker


def image(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything about the entries of a folder."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        data: object = None
        if stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            data = str(path.readlink())
        mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
        mtime = status.st_mtime_ns
        found[str(path.relative_to(folder))] = (kind, mode, status.st_uid, mtime, data)
    return found


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a folder with everything that a volume can have."""
    folder = tmp_path / "volume"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_bytes(b"content" * 1000)
    (folder / "empty").touch(mode=0o640)
    (folder / "ünï\nname").write_text("x")
    (folder / os.fsdecode(b"not-\xff-utf8")).write_text("y")
    (folder / "link").symlink_to("/etc/passwd")
    os.link(folder / "empty", folder / "deep" / "twin")
    os.mkfifo(folder / "pipe", 0o600)
    with (folder / "sparse").open("wb") as file:
        file.seek(8 * MIB)
        file.write(b"in the middle")
        file.truncate(32 * MIB)
    os.setxattr(folder / "empty", "user.origin", b"\x00\xff")
    (folder / "deep").chmod(0o2711)
    os.utime(folder / "empty", ns=(1, 1_234_567_890_123_456_789))
    os.utime(folder / "deep", ns=(5, 1_000_000_000_000_000_001))
    return folder


def test_what_is_dumped_comes_back(volume: Path, tmp_path: Path) -> None:
    archive, _ = dump(volume)
    other = tmp_path / "other"
    other.mkdir(0o700)
    (other / "former").write_text("is replaced")
    unpacker = restore(other, archive)
    assert image(other) == image(volume)
    assert (other / "empty").stat().st_ino == (other / "deep" / "twin").stat().st_ino
    assert os.getxattr(other / "empty", "user.origin") == b"\x00\xff"
    assert unpacker.entries == Trailer.decode(archive[-TRAILER_BYTES:]).entries


def test_holes_are_neither_stored_nor_written(volume: Path, tmp_path: Path) -> None:
    archive, _ = dump(volume)
    assert len(archive) < MIB
    other = tmp_path / "other"
    other.mkdir()
    restore(other, archive)
    assert (other / "sparse").stat().st_blocks * 512 < MIB


def test_other_programs_read_the_archive(volume: Path) -> None:
    archive, _ = dump(volume)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        sparse = tar.extractfile("sparse")
        assert sparse is not None
        data = sparse.read()
    assert data == (volume / "sparse").read_bytes()


def test_sockets_are_left_out_and_named(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(volume)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        archive, reports = dump(volume)
    assert {"skipped": "s", "kind": "socket"} in reports
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "s" not in tar.getnames()


def test_names_of_trimtab_are_left_out_and_named(volume: Path) -> None:
    (volume / ".trimtab-mine").write_text("data of a program")
    archive, reports = dump(volume)
    assert {"skipped": ".trimtab-mine", "kind": "name of trimtab"} in reports
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert ".trimtab-mine" not in tar.getnames()


def test_what_a_restore_left_is_not_dumped(volume: Path) -> None:
    before, _ = dump(volume)
    status = volume.stat()
    (volume / STAGING).mkdir()
    (volume / STAGING / "x").write_text("x")
    os.utime(volume, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert dump(volume)[0] == before


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_cut_archive_changes_nothing(volume: Path, tmp_path: Path, at: float) -> None:
    archive, _ = dump(volume)
    cut = archive[: int(len(archive) * at)]
    with pytest.raises(BadArchive):
        Trailer.decode(cut[-TRAILER_BYTES:])


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % BLOCK)


TOP = entry(".", tarfile.DIRTYPE)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../x", data=b"x")],
        [entry("/x", data=b"x")],
        [entry("a/../../x", data=b"x")],
        [entry("l", tarfile.SYMTYPE, "/"), entry("l/x", data=b"x")],
        [entry("l", tarfile.SYMTYPE, "../.."), entry("l/former", data=b"x")],
        [entry("x", data=b"x"), entry("x/y", data=b"y")],
        [entry("h", tarfile.LNKTYPE, "../former")],
        [entry("d", tarfile.CHRTYPE)],
        [entry("a", data=b"x"), entry("a", data=b"y")],
        [entry("l", tarfile.SYMTYPE, "former"), entry("l", data=b"x")],
        # The exchange would end amid the renames, at each try.
        [entry(STAGING, data=b"x")],
        [entry(STAGING, tarfile.DIRTYPE), entry(MARKER, data=b"{}")],
        [entry(".trimtab-other", data=b"x")],
    ],
)
def test_no_entry_leaves_the_staging_folder(tmp_path: Path, entries: list[bytes]) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "former").write_text("safe")
    archive = TOP + b"".join(entries) + bytes(2 * BLOCK)
    unpacker = Unpacker(str(tmp_path / "volume"), lambda _report: None)
    with pytest.raises((BadArchive, OSError)):
        unpacker.unpack(io.BytesIO(archive))
    remove_staging(str(tmp_path / "volume"))
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["former", "volume"]
    assert (tmp_path / "volume" / "former").read_text() == "safe"


def test_an_archive_without_the_volume_itself_is_refused(tmp_path: Path) -> None:
    unpacker = Unpacker(str(tmp_path), lambda _report: None)
    with pytest.raises(BadArchive, match="no entry of the volume itself"):
        unpacker.unpack(io.BytesIO(entry("x") + bytes(2 * BLOCK)))


def plant_link(marker: Path) -> None:
    marker.symlink_to("nowhere")


def plant_pipe(marker: Path) -> None:
    os.mkfifo(marker)


def plant_text(marker: Path) -> None:
    marker.write_text("x")


def plant_open(marker: Path) -> None:
    marker.write_text('{"phase": "in", "top": {"uid": 0, "gid": 0, "mode": 0, "mtimeNs": 0}}')
    marker.chmod(0o666)


@pytest.mark.parametrize("plant", [plant_link, plant_pipe, plant_text, plant_open])
def test_a_marker_that_no_restore_wrote_ends_with_the_data_as_it_is(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    (tmp_path / "data").write_text("safe")
    (tmp_path / NEW).mkdir(parents=True)
    plant(tmp_path / MARKER)
    assert finish(str(tmp_path)) is False
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_staged_data_that_a_container_swapped_is_not_restored(volume: Path, tmp_path: Path) -> None:
    archive, _ = dump(volume)
    other = tmp_path / "other"
    other.mkdir()
    (other / "former").write_text("safe")
    unpacker = Unpacker(str(other), lambda _report: None)
    unpacker.unpack(io.BytesIO(archive))
    (other / STAGING).rename(other / "aside")
    (other / NEW).mkdir(0o700, parents=True)
    (other / NEW / "evil").write_text("x")
    with pytest.raises(BadArchive, match="staged"):
        exchange(str(other), unpacker)
    assert (other / "former").read_text() == "safe"
    assert not (other / MARKER).exists()


def test_two_commands_never_finish_one_exchange_side_by_side(volume: Path, tmp_path: Path) -> None:
    archive, _ = dump(volume)
    other = tmp_path / "other"
    other.mkdir()
    (other / "former").write_text("safe")
    unpacker = Unpacker(str(other), lambda _report: None)
    unpacker.unpack(io.BytesIO(archive))
    begin_exchange(str(other), unpacker)
    handle = os.open(other / STAGING, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(BadArchive, match="another command"):
        finish(str(other))
    assert (other / "former").read_text() == "safe"
    os.close(handle)
    assert finish(str(other)) is True
    assert image(other) == image(volume)


def test_a_file_that_is_swapped_has_its_own_attributes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("of another")
    (tmp_path / "a").chmod(0o644)
    (tmp_path / "b").write_text("a program")
    (tmp_path / "b").chmod(0o4755)
    out = io.BytesIO()
    writer = ArchiveWriter(out, lambda _report: None)
    writer._entry("a", str(tmp_path / "a"), (tmp_path / "b").lstat())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue() + bytes(2 * BLOCK))) as tar:
        assert tar.getmember("a").mode == 0o644


class Crash(BaseException):
    """The end of a process at one rename."""


@pytest.mark.parametrize("crash_at", range(1, 12))
def test_an_exchange_that_ends_anywhere_is_finished(
    tmp_path: Path, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "volume", tmp_path / "new"
    for folder, names in ((old, "abc"), (new, "bcd")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(f"{name} of {folder.name}")
    archive, _ = dump(new)
    unpacker = Unpacker(str(old), lambda _report: None)
    unpacker.unpack(io.BytesIO(archive))
    count, rename = 0, Path.rename

    def crash(path: Path, target: Any) -> Path:
        nonlocal count
        count += 1
        if count == crash_at:
            raise Crash
        return rename(path, target)

    crashed = False
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", crash)
        try:
            exchange(str(old), unpacker)
        except Crash:
            crashed = True
    begun = (old / MARKER).exists()
    if crashed and not begun:
        # Nothing was moved: the former data is whole, and the staging is thrown away.
        assert {each.name for each in old.iterdir()} == {"a", "b", "c", STAGING}
        return
    if crashed:
        kept = {p.name for p in (old / OLD).iterdir()} | {p.name for p in old.iterdir()}
        assert {"a", "b", "c"} <= kept, "the former data is there until the end"
        staged = {p.name for p in (old / NEW).iterdir()} | {p.name for p in old.iterdir()}
        assert {"b", "c", "d"} <= staged, "so is the new data"
        with pytest.raises(OSError, match="cut short"):
            remove_staging(str(old))
    assert finish(str(old)) is crashed
    assert image(old) == image(new)


def test_the_map_of_a_sparse_file_names_its_end() -> None:
    assert sparse_map([(4096, 5)], 8192) == b"2\n4096\n5\n8192\n0\n".ljust(BLOCK, b"\0")
    assert sparse_map([], 8192) == b"1\n8192\n0\n".ljust(BLOCK, b"\0")
