"""The folder in memory: the broker's own, and closed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.broker.secrets.opener import secret_folder, usual_bases

NOBODY = 65534


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


def to_elsewhere(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def as_a_file(place: Path, _elsewhere: Path) -> None:
    place.touch()


def of_another_user(place: Path, _elsewhere: Path) -> None:
    place.mkdir(mode=0o777)
    os.chown(place, NOBODY, NOBODY)


@pytest.mark.needs_root
@pytest.mark.parametrize("take", [to_elsewhere, as_a_file, of_another_user])
def test_whoever_takes_the_name_first_keeps_nobody_from_secrets(
    bases: tuple[Path, ...], tmp_path: Path, take: Callable[[Path, Path], None]
) -> None:
    shared = bases[1].parent
    shared.mkdir()
    take(bases[1], tmp_path)
    (shared / "secrets.guessed").mkdir(mode=0o777)
    os.chown(shared / "secrets.guessed", NOBODY, NOBODY)
    folder = secret_folder("i1", bases)
    assert folder is not None
    own = folder.parent.lstat()
    assert (own.st_uid, stat.S_IMODE(own.st_mode)) == (os.geteuid(), 0o700)
    assert folder.parent.parent == shared
    assert folder.parent.name not in {"secrets", "secrets.guessed"}
    assert list(tmp_path.iterdir()) == []
    bases[1].rmdir() if take is of_another_user else bases[1].unlink()
    assert secret_folder("i1", bases) == folder, "containers have the folder mounted"
    folder.parent.rmdir()
    (shared / "secrets.guessed").rmdir()
    shared.rmdir()


def test_a_disk_is_no_memory() -> None:
    assert secret_folder("i1", (Path("/proc/trimtab"), Path("/sys/trimtab"))) is None
    assert len(usual_bases()) == 2
