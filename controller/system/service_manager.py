"""The service manager of a process: sockets that the manager holds, and the states that it is told.

The protocols are those of sd_listen_fds(3) and sd_notify(3). A process without a manager has no
sockets of it, and tells nothing. The sockets stay with the manager, so connections wait while the
process is replaced.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

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


def without_manager() -> ServiceManager:
    """Return the manager of a process that has none."""
    return ServiceManager({}, pid=0, monotonic=lambda: 0.0)
