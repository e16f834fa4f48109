"""The TCP ports of the host that are open on all addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
ANYWHERE = ("00000000", "0" * 32)
FILES = ("/proc/net/tcp", "/proc/net/tcp6")


def open_ports(files: tuple[str, ...] = FILES) -> Iterator[int]:
    """Yield the ports of listening sockets that are bound to all addresses (proc(5))."""
    for name in files:
        try:
            lines = Path(name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING and address in ANYWHERE:
                yield int(port, 16)
