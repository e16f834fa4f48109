"""The folder in memory that containers mount Secrets from.

``/run/trimtab/secrets`` if that lies on a tmpfs, else a folder below ``/dev/shm``. Nothing of a
Secret reaches a disk, except through swap: a tmpfs of its own with ``noswap``, mounted there before
the broker starts, prevents that.

Every user can make folders in ``/dev/shm``, also one with the name of the broker's. Then the broker
makes a folder with a further part in its name that nobody can know before.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})
_RUN = Path("/run/trimtab/secrets")
_SHARED = Path("/dev/shm")  # noqa: S108 — only a folder of the broker's own is used there


def usual_bases() -> tuple[Path, ...]:
    """Return the places for the folders of instances, the best first."""
    return _RUN, _SHARED / f"trimtab-secrets-{os.geteuid()}"


def secret_folder(instance: str, bases: tuple[Path, ...] | None = None) -> Path | None:
    """Return the folder of an instance; None if no memory can be used.

    The folder around it is made with mode 0700. The folder itself is made with the first Secret: an
    instance without Secrets leaves nothing behind.
    """
    for base in bases or usual_bases():
        try:
            if _filesystem(base) in _FILESYSTEMS:
                base.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                folder = _own_base(base) / instance
                return _own(folder) if os.path.lexists(folder) else folder
        except OSError:
            continue
    return None


def _own_base(base: Path) -> Path:
    """Make a folder, under another name if somebody else has taken the name.

    A folder with another name stays in use until the memory is emptied, so that containers find it.

    Raises:
        OSError: no folder can be made there.
    """
    for folder in sorted(base.parent.glob(f"{base.name}.*")):
        with suppress(OSError):
            return _own(folder)
    try:
        return _own(base)
    except (FileExistsError, PermissionError):
        return Path(tempfile.mkdtemp(prefix=f"{base.name}.", dir=base.parent))


def _own(folder: Path) -> Path:
    """Make a folder that nobody else can enter.

    Raises:
        OSError: another user's folder is there, or a link.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
    return folder


def _filesystem(path: Path) -> str:
    """Return the type of the file system that holds a path, '' if unknown."""
    mounts = [
        (line.split()[1], line.split()[2])
        for line in Path("/proc/mounts").read_text("utf-8").splitlines()
    ]
    # Of two mounts at one place the later covers the earlier.
    above = [each for each in mounts if each[0] == str(path) or Path(each[0]) in path.parents]
    return max(enumerate(above), key=lambda pair: (len(pair[1][0]), pair[0]))[1][1] if above else ""
