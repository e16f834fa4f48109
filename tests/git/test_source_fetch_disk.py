"""A full disk under the fetcher's folder, at the fetch and at the export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk import MIB, Disk, small_disk
from tests.git.repository import DOCUMENT, Followed, Repository

pytestmark = pytest.mark.needs_root

GOOD = {"deploy/web.yaml": DOCUMENT}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", image=tmp_path / "image", mib=64) as disk:
        yield disk


@pytest.mark.parametrize(("free", "when"), [(2 * MIB, "fetch"), (8 * MIB, "export")])
def test_a_full_disk_keeps_the_served_commit(
    tmp_path: Path, disk: Disk, free: int, when: str
) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    source = Followed(disk.root / "fetcher", repository.url)
    assert source.fetch() == "Ready"
    second = repository.commit({**GOOD, "deploy/big.bin": os.urandom(7 * MIB)})
    disk.leave(free)
    assert source.fetch() == "Failing source.disk-full"
    assert source.current == first
    assert source.files() == GOOD
    assert {path.name for path in source.exports.iterdir()} == {first, f"{first}.json", "current"}
    assert not list(source.folder.rglob("tmp_*"))
    assert source.mirror.has(second) == (when == "export")
    disk.free()
    assert source.fetch() == "Ready"
    assert source.current == second
