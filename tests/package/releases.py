"""Releases of this working tree, each built in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools import wheel

ROOT = Path(__file__).parents[2]
#: 2026-01-01, the time of the commit.
COMMIT_TIME_S = 1_767_225_600
#: A package for a test is built to be read soon.
QUICK = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}


@dataclass(frozen=True)
class Release:
    """What ``tools/release`` wrote into a folder."""

    folder: Path

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of each file, by name."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}

    def path(self, ending: str) -> Path:
        """Return the path of the one file with this ending."""
        (found,) = self.folder.glob(f"*{ending}")
        return found


def build(checkout: Path, *, umask: int, **environ: str) -> Release:
    """Copy the working tree into a clone of its own, and build there."""
    for name in wheel.sources(ROOT):
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
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
    done = subprocess.run(
        (str(checkout / "tools" / "release"),),
        env={**apart, **QUICK, **environ, "TRIMTAB_VENV": sys.prefix},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stderr
    return Release(checkout / "dist")
