"""systemd: the sockets and states of a service, the unit of the boot, and the view of a unit.

The protocols are those of sd_listen_fds(3) and sd_notify(3). A process without a manager has no
sockets of it, and tells nothing. The sockets stay with the manager, so connections wait while the
process is replaced.

The files of Secrets lie in memory, so a reboot empties them. A container that the engine starts
before the files are back fails. This module reads the host's units, and asks systemd nothing.

A service manager gives a process other mounts by directives such as ``PrivateTmp`` and
``ProtectHome``. The gate judges paths in its own view, and the engine mounts them in its view.
"""

from __future__ import annotations

import os
import shlex
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

#: The first inherited descriptor, SD_LISTEN_FDS_START.
FIRST = 3
#: Connections that wait while no process accepts. The kernel bounds it by net.core.somaxconn.
WAITING_MAX = 4096
#: ``feed`` tells the manager at most once in so many seconds.
FED_EVERY_S = 5.0


class ServiceManager:
    """The manager that started this process, or none.

    The variables of *environ* are taken out: no child takes itself for the process that was meant.
    """

    def __init__(
        self,
        environ: MutableMapping[str, str],
        *,
        pid: int,
        monotonic: Callable[[], float],
        first: int = FIRST,
    ) -> None:
        self._monotonic = monotonic
        self._address = environ.pop("NOTIFY_SOCKET", "")
        fed = environ.pop("WATCHDOG_PID", str(pid)) == str(pid)
        limit_us = environ.pop("WATCHDOG_USEC", "")
        #: Seconds between two signs of life, half of the manager's limit; None: none is expected.
        self.watchdog_s = int(limit_us) / 2e6 if fed and limit_us.isdecimal() else None
        self._next_feed = 0.0
        mine = environ.pop("LISTEN_PID", "") == str(pid)
        count = environ.pop("LISTEN_FDS", "")
        environ.pop("LISTEN_FDNAMES", None)
        handles = range(first, first + int(count)) if mine and count.isdecimal() else range(0)
        #: The listening Unix sockets that the manager holds, by path.
        self.sockets: dict[Path, socket.socket] = dict(_listening(handles))

    @property
    def is_present(self) -> bool:
        """True if a manager is told states."""
        return bool(self._address)

    def tell(self, **state: str | int) -> None:
        """Tell the manager assignments of sd_notify(3), such as ``READY=1``.

        A manager that doesn't listen loses them.
        """
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in state.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.setblocking(False)
            address = self._address
            sender.sendto(text.encode(), f"\0{address[1:]}" if address[0] == "@" else address)

    def feed(self) -> None:
        """Give the watchdog a sign of life; several within a few seconds are one."""
        now = self._monotonic()
        if self.watchdog_s is not None and now >= self._next_feed:
            self._next_feed = now + min(FED_EVERY_S, self.watchdog_s)
            self.tell(WATCHDOG=1)


def _listening(handles: range) -> Iterator[tuple[Path, socket.socket]]:
    for handle in handles:
        os.set_inheritable(handle, False)
        listener = socket.socket(fileno=handle)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listener.family == socket.AF_UNIX and is_listening:
            yield Path(os.fsdecode(listener.getsockname())), listener
        else:
            listener.close()


def own_manager() -> ServiceManager:
    """Return the manager of this process."""
    return ServiceManager(os.environ, pid=os.getpid(), monotonic=time.monotonic)


def without_manager() -> ServiceManager:
    """Return the manager of a process that has none."""
    return ServiceManager({}, pid=0, monotonic=lambda: 0.0)


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


#: What a unit can have of its own.
FOLDERS = ("/tmp", "/home", "/dev")  # noqa: S108 - nothing is made there
OWN_ROOT = Path("/proc/self/root")
_CONNECT_S = 1.0
_UCRED = struct.Struct("iII")  # pid, uid, gid


def server_of(path: str) -> int:
    """Return the pid of the process that listens on a Unix socket; 0 in another pid namespace.

    Raises:
        OSError: nobody answers.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_S)
        connection.connect(path)
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, _, _ = _UCRED.unpack(found)
    return int(pid)


def root_of(pid: int) -> Path:
    """Return the root folder as a process sees it (proc_pid_root(5))."""
    return Path(f"/proc/{pid}/root")


def differing_folder(one: Path, other: Path) -> str:
    """Return the first of ``FOLDERS`` that differs between two roots by device or inode; '' if none.

    Raises:
        OSError: this user is not allowed to look.
    """
    for folder in FOLDERS:
        if _identity(one, folder) != _identity(other, folder):
            return folder
    return ""


def _identity(root: Path, folder: str) -> tuple[int, int] | None:
    try:
        status = (root / folder.lstrip("/")).stat()
    except FileNotFoundError:
        os.stat(root)  # noqa: PTH116 - a process that ended has no view
        return None
    return status.st_dev, status.st_ino
