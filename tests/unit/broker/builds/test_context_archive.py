"""Contexts of builds: what is understood, and the archive that the engine gets."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker.builds.context_archive import (
    BadContext,
    ContextLimits,
    JudgedContext,
    read_context,
)
from controller.core.builds import context as contexts
from tests.gate.hostile_builds import HostileBuild, archive, entry, hostile_builds

LIMITS = ContextLimits(4 << 20, 50)
NAMES = st.text("abcé", min_size=1, max_size=60)


def read(packed: bytes) -> JudgedContext:
    return read_context(io.BytesIO(packed), LIMITS)


def unpacked(packed: bytes) -> dict[str, tuple[bytes, int, str, bytes]]:
    """Return what Python reads: type, mode, target and content of each entry by its name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        for info in opened:
            content = opened.extractfile(info) if info.isreg() else None
            data = b"" if content is None else content.read()
            found[info.name] = (info.type, info.mode, info.linkname, data)
    return found


@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(0, 0o7777),
)
def test_the_engines_archive_has_the_files_of_the_uploaded_one(
    files: dict[str, bytes], form: int, mode: int
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as writing:
        for name, content in files.items():
            folder = tarfile.TarInfo(f"{name * 3}/")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            info = tarfile.TarInfo(f"{name * 3}/{name}")
            info.size, info.mode, info.mtime = len(content), mode, 1_700_000_000.5
            link = tarfile.TarInfo(f"{name * 3}/link")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, name, 0o777
            writing.addfile(folder)
            writing.addfile(info, io.BytesIO(content))
            writing.addfile(link)
    context = read(packed.getvalue())
    sent = b"".join(context.pieces())
    assert len(sent) == context.length()
    assert unpacked(sent) == unpacked(packed.getvalue())
    again = read(sent)
    assert again.digest == context.digest
    assert b"".join(again.pieces()) == sent


def test_the_digest_is_the_one_of_the_controller() -> None:
    context = read(archive(entry("d/x", b"content", mode=0o640)))
    entries = [
        contexts.ContextFile(
            each.name, contexts.EntryKind(each.kind.value), each.mode, "", each.sha256
        )
        for each in context.ordered()
    ]
    assert context.digest == contexts.digest(entries)


def test_a_hard_link_is_a_copy_of_its_file() -> None:
    link = entry("l", b"", tarfile.LNKTYPE, linkname="./x")
    sent = b"".join(read(archive(entry("x", b"abc"), link)).pieces())
    assert unpacked(sent)["l"] == unpacked(sent)["x"]


def test_a_replaced_content_stands_in_the_place_of_the_old_one() -> None:
    context = read(archive(entry("x", b"abc")))
    context.replaced = {"Dockerfile": b"FROM sha256:0\n" * 100}
    sent = b"".join(context.pieces())
    assert len(sent) == context.length()
    assert unpacked(sent)["Dockerfile"][3] == b"FROM sha256:0\n" * 100


@pytest.mark.parametrize(
    "case",
    [case for case in hostile_builds() if case.name.startswith("context: ")],
    ids=lambda case: case.name,
)
def test_a_hostile_context_is_refused(case: HostileBuild) -> None:
    with pytest.raises(BadContext) as refused:
        read(case.archive).text("Dockerfile")
    assert refused.value.code == case.rule
    assert "\n" not in refused.value.reason


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=3))
def test_changed_bytes_are_read_as_python_reads_them_or_refused(at: int, change: bytes) -> None:
    packed = bytearray(archive(entry("x/y", b"abc")))
    packed[at : at + len(change)] = change
    try:
        context = read(bytes(packed))
    except BadContext:
        return
    wrong = {name for name in context.entries if name.startswith(("/", "..")) or "/../" in name}
    assert not wrong
    assert unpacked(b"".join(context.pieces())).keys() == context.entries.keys()
