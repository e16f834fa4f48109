"""Random hostile trees through fetch and export: no crash, and no file outside the export."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from tests.unit.fetch.repository import DOCUMENT, Followed, Repository

MODES = ("100644", "100644", "100755", "120000", "160000", "40000", "40000", "100600")
PARTS: tuple[bytes, ...] = (
    b"a",
    b"A",
    b".git",
    b"..",
    b".",
    b"git~1",
    b"x.yaml",
    b"\xff",
    b"\n",
    b"\xe2\x80\x8c",
)
PARTS += (b"/", b"\\", b"configs", b"deploy", b"e\xcc\x81", b"\xc3\xa9", b" ", b"x" * 300, b"%s")


def hostile_tree(repository: Repository, draw: random.Random, depth: int = 0) -> str:
    blobs = (DOCUMENT, "../../../../tmp/escape", "version https://git-lfs.github.com/spec/v1\n")
    entries = []
    for _ in range(draw.randint(0, 4)):
        name = b"".join(draw.choices(PARTS, k=draw.randint(1, 2)))
        mode = draw.choice(MODES)
        if mode == "40000" and depth < 3:
            object_id = hostile_tree(repository, draw, depth + 1)
        elif mode == "160000":
            object_id = "1" * 40
        else:
            object_id = repository.blob(draw.choice(blobs))
        entries.append((mode, name, object_id))
    if draw.random() < 0.8:
        entries.sort(key=lambda each: each[1] + (b"/" if each[0] == "40000" else b""))
    if depth == 0:
        entries = [("40000", b"deploy", repository.raw_tree(entries))]
    return repository.raw_tree(entries)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("seed", range(24))
def test_a_hostile_tree_stays_in_its_export(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit({"deploy/web.yaml": DOCUMENT})
    source = Followed(tmp_path / "fetcher", repository.url)
    assert source.fetch() == "Ready"
    repository.commit_tree(hostile_tree(repository, draw))
    outcome = source.fetch()
    assert outcome.startswith(("Ready", "Held source.", "Failing source.damaged"))
    if outcome != "Ready":
        assert source.current == first
    assert listing(tmp_path) >= {"deploy.git", "fetcher"}
    assert {path.name for path in tmp_path.iterdir()} == {"deploy.git", "fetcher"}
    for folder, folders, files in os.walk(source.exports):
        for name in (*folders, *files):
            mode = (Path(folder) / name).lstat().st_mode
            is_pointer = name == "current" and Path(folder) == source.exports
            assert is_pointer or stat.S_ISREG(mode) or stat.S_ISDIR(mode)
            assert ".git" not in name.lower()
