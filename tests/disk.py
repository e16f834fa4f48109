"""A small disk of its own: a real ext4, mounted from a file. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 1024 * 1024


class Disk:
    """The file system, and what fills it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._filler = root / "filler"

    @property
    def size(self) -> int:
        facts = os.statvfs(self.root)
        return facts.f_blocks * facts.f_frsize

    def leave(self, free: int) -> None:
        """Let so many bytes be free, or none at all, not even what only root may use."""
        file = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while True:
                facts = os.statvfs(self.root)
                if free and facts.f_bavail * facts.f_frsize <= free:
                    return
                try:
                    os.write(file, b"x" * facts.f_frsize)
                except OSError:
                    return
        finally:
            os.close(file)

    def free(self) -> None:
        self._filler.unlink()


@contextlib.contextmanager
def small_disk(root: Path, *, image: Path, mib: int = 8) -> Iterator[Disk]:
    """Have *root*, which is made, be a disk of so many MiB, kept in the file *image*."""
    root.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    _command("mkfs.ext4", "-q", str(image))
    _command("mount", "-o", "loop", str(image), str(root))
    try:
        yield Disk(root)
    finally:
        _command("umount", "--lazy", str(root))


def _command(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True, timeout=30)
