"""The systemd unit that restores delivered files before the engine starts (``configs/systemd``).

The files of Secrets lie in memory, so a reboot empties them. A container that the engine starts
before the files are back fails. This module reads the host's units, and asks systemd nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

#: The folders of units, by systemd.unit(5).
UNIT_FOLDERS: Final = tuple(
    Path(folder)
    for folder in (
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
    )
)
_SERVICE = ".service"
#: The folder of Secrets on a host with systemd, whose ``/run`` is in memory.
SECRETS: Final = Path("/run/trimtab/secrets")
#: The unit of the engine.
ENGINE_UNIT: Final = f"docker{_SERVICE}"
_UNITS_MAX, _UNIT_BYTES_MAX = 100, 1 << 16


def is_restored_at_boot(root: Path, folders: Iterable[Path] = UNIT_FOLDERS) -> bool:
    """Return True if an enabled unit restores the files of the state folder *root* before the engine.

    A host without systemd, or with an engine of another unit, has no such unit.
    """
    return any(_restores(text, root) for text in _texts(folders))


def _texts(folders: Iterable[Path]) -> Iterator[str]:
    """Yield the texts of the units that the start of the engine starts, too."""
    for folder in folders:
        for kind in ("wants", "requires"):
            try:
                units = sorted((folder / f"{ENGINE_UNIT}.{kind}").iterdir())[:_UNITS_MAX]
            except OSError:
                continue
            for unit in units:
                try:
                    with unit.open("rb") as file:
                        yield file.read(_UNIT_BYTES_MAX).decode("utf-8", "replace")
                except OSError:
                    continue


def _restores(text: str, root: Path) -> bool:
    lines = [line.strip() for line in text.splitlines()]
    if not _writes_run(lines):
        return False  # the files would be restored where no container looks
    before = any(
        ENGINE_UNIT in line.removeprefix("Before=").split()
        for line in lines
        if line.startswith("Before=")
    )
    commands = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    return before and any(_names(command, root) for command in commands)


def _writes_run(lines: Iterable[str]) -> bool:
    """Return True if a unit may write the folder of Secrets below ``/run``."""
    settings = [(name, value.split()) for name, _, value in (each.partition("=") for each in lines)]
    if not any(name == "ProtectSystem" and words == ["strict"] for name, words in settings):
        return True
    writable = [
        Path(f"/run/{word}" if name == "RuntimeDirectory" else word.lstrip("-+"))
        for name, words in settings
        for word in words
        if name in {"ReadWritePaths", "RuntimeDirectory"}
    ]
    return any(SECRETS.is_relative_to(path) for path in writable)


def _names(command: str, root: Path) -> bool:
    """Return True if a command is ``trimtab files restore --state ROOT``."""
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    if words[1:3] != ["files", "restore"]:
        return False
    values = [two for one, two in pairwise(words) if one == "--state"]
    values += [word.removeprefix("--state=") for word in words if word.startswith("--state=")]
    return any(Path(value).resolve() == root.resolve() for value in values)
