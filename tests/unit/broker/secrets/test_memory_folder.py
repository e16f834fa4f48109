"""The folder in memory: the broker's own, and closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.broker.secrets.memory_folder import secret_folder, usual_bases


@pytest.fixture
def bases(tmp_path: Path) -> tuple[Path, ...]:
    return Path("/proc/trimtab/secrets"), Path(f"/dev/shm/{tmp_path.name}{os.getpid()}/secrets")


def test_the_folder_is_closed_and_made_with_the_first_secret(bases: tuple[Path, ...]) -> None:
    folder = secret_folder("i1", bases)
    assert folder == bases[1] / "i1"
    assert not folder.exists(), "an instance without Secrets leaves nothing behind"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    folder.mkdir(mode=0o755)
    assert secret_folder("i1", bases) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in (folder, bases[1], bases[1].parent):
        path.rmdir()


def test_a_link_in_its_place_is_refused(bases: tuple[Path, ...], tmp_path: Path) -> None:
    bases[1].parent.mkdir()
    bases[1].symlink_to(tmp_path)
    assert secret_folder("i1", bases) is None
    assert list(tmp_path.iterdir()) == []
    bases[1].unlink()
    bases[1].parent.rmdir()


def test_a_disk_is_no_memory() -> None:
    assert secret_folder("i1", (Path("/proc/trimtab"), Path("/sys/trimtab"))) is None
    assert len(usual_bases()) == 2
