"""The entries of a tree that can be exported."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.git.commit_objects import (
    DEPTH_MAX,
    FILE_MAX_BYTES,
    FILES_MAX,
    TOTAL_MAX_BYTES,
    ExportList,
    Refusal,
    TreeEntry,
    folders_of,
    parse_tree,
    pointer_refusal,
    select_files,
)
from tests.examples import examples

ID = "1" * 40


def entry(path: str | bytes, *, mode: str = "100644", size: int = 1) -> TreeEntry:
    kind = {"160000": "commit", "040000": "tree"}.get(mode, "blob")
    return TreeEntry(mode, kind, ID, size, path if isinstance(path, bytes) else path.encode())


def code(*entries: TreeEntry) -> str:
    selected = select_files(entries, path="deploy")
    return selected.code if isinstance(selected, Refusal) else "good"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deploy/web.yaml", "good"),
        ("deploy/übung/日本.yaml", "good"),
        ("deploy/.hidden", "good"),
        ("deploy/gitignore", "good"),
        ("deploy/.gitignore", "good"),
        ("deploy/a:b.yaml", "good"),
        ("deploy/.git", "source.path"),
        ("deploy/.Git/config", "source.path"),
        ("deploy/.git. /config", "source.path"),
        ("deploy/.git::$INDEX_ALLOCATION/config", "source.path"),
        ("deploy/GIT~1/config", "source.path"),
        ("deploy/git~2", "source.path"),
        ("deploy/.g\u200cit/config", "source.path"),
        ("deploy/\ufeff.git", "source.path"),
        ("deploy/../x", "source.path"),
        ("deploy/./x", "source.path"),
        ("deploy//x", "source.path"),
        ("/etc/passwd", "source.path"),
        ("deploy/a\\b", "source.path"),
        ("deploy/a\nb", "source.path"),
        ("deploy/a\x7f", "source.path"),
        ("deploy/\u202e", "source.path"),
        (b"deploy/\xff", "source.path"),
        (b"deploy/\xc0\xae\xc0\xae", "source.path"),  # '..' in an overlong form
        (b"deploy/\xed\xa0\x80", "source.path"),  # a surrogate
        ("deploy/" + "x" * 255, "good"),
        ("deploy/" + "x" * 256, "source.path"),
        ("deploy/" + "a/" * (DEPTH_MAX - 2) + "x", "good"),
        ("deploy/" + "a/" * (DEPTH_MAX - 1) + "x", "source.path"),
    ],
)
def test_paths(path: str | bytes, expected: str) -> None:
    assert code(entry(path)) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("100644", "good"),
        ("100755", "good"),
        ("100664", "source.mode"),
        ("120000", "source.link"),
        ("160000", "source.submodule"),
        ("040000", "source.mode"),
    ],
)
def test_only_regular_files_are_exported(mode: str, expected: str) -> None:
    assert code(entry("deploy/x", mode=mode)) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.yaml", "A.yaml"),
        ("straße", "STRASSE"),
        ("\u00e9", "e\u0301"),
        ("\u00c9", "e\u0301"),
        ("ﬁ", "fi"),
        ("A/x", "a/y"),
        ("a", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "A/y"),
    ],
)
def test_names_that_some_file_systems_take_for_one_are_refused(one: str, other: str) -> None:
    assert code(entry(f"deploy/{one}"), entry(f"deploy/{other}")) == "source.case"


def test_bounds() -> None:
    assert code(entry("deploy/x", size=FILE_MAX_BYTES)) == "good"
    assert code(entry("deploy/x", size=FILE_MAX_BYTES + 1)) == "source.too-large"
    count = TOTAL_MAX_BYTES // FILE_MAX_BYTES
    full = [entry(f"deploy/{number}", size=FILE_MAX_BYTES) for number in range(count)]
    assert code(*full) == "good"
    assert code(*full, entry("deploy/x")) == "source.too-large"
    many = [entry(f"deploy/{number}") for number in range(FILES_MAX)]
    assert code(*many) == "good"
    assert code(*many, entry("deploy/x")) == "source.too-many-files"


def test_documents_are_counted_below_the_folder() -> None:
    entries = [
        entry("deploy/a.yaml"),
        entry("deploy/sub/b.yml"),
        entry("deploy/empty.yaml", size=0),
        entry("deploy/readme.md"),
        entry("configs/web/Chart.yaml"),
    ]
    selected = select_files(entries, path="deploy")
    assert isinstance(selected, ExportList)
    assert (len(selected.files), selected.documents) == (5, 2)
    assert select_files((), path="deploy") == ExportList((), 0)


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        (".", (".",)),
        ("deploy", ("deploy", "configs")),
        ("a/b", ("a/b", "a/configs")),
    ],
)
def test_charts_stand_beside_the_folder(path: str, folders: tuple[str, ...]) -> None:
    assert folders_of(path) == folders


def test_a_listing_is_parsed_whole_or_not_at_all() -> None:
    line = f"100644 blob {ID}       7\tdeploy/a b\n.yaml".encode()
    module = f"160000 commit {ID}       -\tsub".encode()
    assert parse_tree(line + b"\0" + module + b"\0") == (
        entry("deploy/a b\n.yaml", size=7),
        entry("sub", mode="160000", size=0),
    )
    for wrong in (b"100644 blob", line.replace(b"blob", b"blub"), line.replace(b"\t", b" ")):
        with pytest.raises(ValueError, match="unknown form"):
            parse_tree(line + b"\0" + wrong + b"\0")


def test_a_pointer_of_git_lfs_is_recognised() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    refusal = pointer_refusal("deploy/a.yaml", pointer)
    assert refusal is not None
    assert refusal.code == "source.lfs"
    assert pointer_refusal("deploy/a.yaml", b"version: 1\n") is None


NASTY = st.sampled_from(
    [".", "..", ".git", "git~1", "a", "A", "é", "e\u0301", "\u200c", "/", "\\", "\n", " ", "\x00"]
)
NAMES = st.lists(NASTY, max_size=6).map("".join).map(str.encode) | st.binary(max_size=8)


@settings(max_examples=examples(80))
@given(st.lists(st.tuples(NAMES, st.sampled_from(["100644", "120000", "160000"])), max_size=6))
def test_no_exported_path_leads_elsewhere(names: list[tuple[bytes, str]]) -> None:
    entries = [entry(b"deploy/" + name, mode=mode) for name, mode in names]
    selected = select_files(entries, path="deploy")
    if isinstance(selected, Refusal):
        assert selected.message.isprintable()
        return
    seen = set()
    for file in selected.files:
        path = PurePosixPath(file.path)
        assert str(path) == file.path
        assert not path.is_absolute()
        assert not {"..", ".git"} & {part.lower() for part in path.parts}
        seen.add(unicodedata.normalize("NFC", file.path).casefold())
    assert len(seen) == len(selected.files) == len(names)
