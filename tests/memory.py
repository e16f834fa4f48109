"""Folders in memory, where a flush costs nothing: for tests that write small files often.

A process that is killed ends on a disk as in memory, so these tests prove the same there. What an
engine mounts stays on a disk.

Invariant: whatever ends a run, the next run removes what it left, and nothing else: nobody holds
the lock of a leftover.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SHARED_MEMORY = "/dev/shm"
#: Containers often have 64 MiB of it, too little for several processes of tests.
ROOM_MIN_BYTES = 512 << 20


def _is_roomy(folder: str) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= ROOM_MIN_BYTES


#: None: the machine has no such folder, and temporary files are where they always are.
MEMORY = SHARED_MEMORY if _is_roomy(SHARED_MEMORY) else None
PREFIX = "trimtab-tests-"


@contextmanager
def session_folder() -> Iterator[Path]:
    """Yield a folder for one process of tests, and remove it."""
    root = Path(MEMORY or tempfile.gettempdir())
    for leftover in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove(leftover)
    folder, lock = _make(root)
    try:
        # Traversable: tests start programs as other users in it.
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@pytest.fixture(scope="session")
def tmp_path_factory(pytestconfig: pytest.Config) -> Iterator[pytest.TempPathFactory]:
    """As pytest's own, in memory. A ring's ``conftest.py`` imports it."""
    factory = pytest.TempPathFactory.from_config(pytestconfig, _ispytest=True)
    with session_folder() as folder:
        factory._given_basetemp = folder / "pytest"
        yield factory


def _make(root: Path) -> tuple[Path, int]:
    """Make a folder and lock it, again if another run took it for a leftover before the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _remove(leftover: Path) -> None:
    """Remove a folder that nobody has locked. Raises OSError, also where somebody has."""
    lock = os.open(leftover, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(leftover, ignore_errors=True)
    finally:
        os.close(lock)
