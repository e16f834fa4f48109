"""The routes of the broker's network namespace, normally the same as the engine's."""

from __future__ import annotations

from pathlib import Path

from controller.core.rules.host_routes import EVERYWHERE, parse_routes


def host_routes(file: Path = Path("/proc/self/net/route")) -> tuple[str, ...]:
    """Return the networks in the host's routing table, everything if the table can't be read."""
    try:
        return parse_routes(file.read_text("ascii"))
    except (OSError, ValueError):
        return (EVERYWHERE,)
