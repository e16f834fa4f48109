"""Releases of this working tree, each built in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distribution
from pathlib import Path

from tools import release_pins, wheel

ROOT = Path(__file__).parents[2]
#: 2026-01-01, the time of the commit.
COMMIT_TIME_S = 1_767_225_600
#: A package for a test is built to be read soon.
QUICK = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}


@dataclass(frozen=True)
class Release:
    """What ``tools/release`` wrote into a folder."""

    folder: Path
    is_borrowed: bool  # the packages that trimtab needs are those of the tests' own environment

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of each file, by name."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}

    def path(self, ending: str) -> Path:
        """Return the path of the one file with this ending."""
        (found,) = self.folder.glob(f"*{ending}")
        return found


def build(checkout: Path, *, umask: int, **environ: str) -> Release:
    """Copy the working tree into a clone of its own, with modes as of *umask*, and build there."""
    for name in wheel.sources(ROOT):
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
        if not target.is_symlink():
            target.chmod(target.stat().st_mode & ~umask)
    git = (
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "-c",
        "init.defaultBranch=main",
    )
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all")):
        date = {"GIT_COMMITTER_DATE": f"@{COMMIT_TIME_S} +0000", "GIT_CONFIG_GLOBAL": os.devnull}
        subprocess.run((*git, *command), cwd=checkout, env={**os.environ, **date}, check=True)
    apart = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    ours = {**apart, **QUICK, **environ, "TRIMTAB_VENV": sys.prefix}
    done = _make(checkout, umask, ours)
    if is_borrowed := "the pinned packages could not be installed" in done.stderr:
        borrow(checkout / "borrowed")
        done = _make(checkout, umask, {**ours, "TRIMTAB_SITE": str(checkout / "borrowed")})
    assert done.returncode == 0, done.stderr
    return Release(checkout / "dist", is_borrowed)


def _make(checkout: Path, umask: int, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (str(checkout / "tools" / "release"),),
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )


def borrow(folder: Path) -> None:
    """Copy what trimtab needs from the tests' own environment, which has the same pins."""
    for name in release_pins.needed("trimtab", release_pins.EXTRAS):
        for file in distribution(name).files or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), folder / file)
