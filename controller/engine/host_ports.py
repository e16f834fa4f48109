"""Bound host ports in the network namespace of the process, from ``/proc/net``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from controller.core.drift.host_ports import parse_sockets
from controller.model.observed import HostPort


def bound_ports() -> frozenset[HostPort]:
    """Return the bound TCP and UDP ports. Unreadable tables are skipped."""
    ports: frozenset[HostPort] = frozenset()
    for protocol in ("tcp", "udp"):
        for version in ("", "6"):
            with suppress(OSError):
                text = Path(f"/proc/net/{protocol}{version}").read_text("ascii")
                ports |= parse_sockets(text, protocol)
    return ports
