"""The engine's archive of a path in a container: plain files, or nothing."""

from __future__ import annotations

import io
import tarfile

import pytest

from controller.core.files.content import files_of_archive
from controller.model.delivery import FILE_BYTES_MAX


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for info, data in members:
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def plain(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_the_files_of_a_folder_have_their_paths_in_the_folder() -> None:
    packed = archive(
        special("www", tarfile.DIRTYPE),
        plain("www/index.html", b"<p>"),
        special("www/css", tarfile.DIRTYPE),
        plain("www/css/a.css", b"a"),
    )
    assert files_of_archive(packed) == {"index.html": b"<p>", "css/a.css": b"a"}


def test_one_file_has_the_asked_name() -> None:
    packed = archive(plain("default.conf", b"listen"))
    assert files_of_archive(packed, file="site.conf") == {"site.conf": b"listen"}


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no archive" * 100,
        archive(plain("a"), plain("b")),
        archive(special("site.conf", tarfile.SYMTYPE, "/etc/shadow")),
        archive(special("site.conf", tarfile.CHRTYPE)),
        archive(special("site.conf", tarfile.DIRTYPE)),
        archive(plain("site.conf", b"x" * (FILE_BYTES_MAX + 1))),
        archive(plain("site.conf"))[:300],
    ],
)
def test_anything_but_one_plain_file_is_no_file(packed: bytes) -> None:
    assert not files_of_archive(packed, file="site.conf")


@pytest.mark.parametrize(
    "member",
    [
        special("www/link", tarfile.SYMTYPE, "index.html"),
        special("www/hard", tarfile.LNKTYPE, "www/index.html"),
        special("www/pipe", tarfile.FIFOTYPE),
        plain("www/../../etc/passwd"),
        plain("www/index.html"),
    ],
)
def test_a_folder_with_anything_else_is_refused(member: tuple[tarfile.TarInfo, bytes]) -> None:
    assert files_of_archive(archive(plain("www/index.html"), member)) is None


def test_no_number_of_empty_folders_is_read_to_its_end() -> None:
    few, many = (
        archive(plain("www/a"), *(special(f"www/{n}", tarfile.DIRTYPE) for n in range(count)))
        for count in (10, 5_000)
    )
    assert files_of_archive(few) == {"a": b"x"}
    assert files_of_archive(many) is None
