"""The routes of the broker's network namespace, which is the engine's unless one of them has its own."""

from __future__ import annotations

from pathlib import Path

from controller.core.rules.host_routes import EVERYWHERE, parse_routes


def host_routes(file: Path = Path("/proc/self/net/route")) -> tuple[str, ...]:
    """Return the networks that this host has routes to; everything where that can't be read."""
    try:
        return parse_routes(file.read_text("ascii"))
    except (OSError, ValueError):
        return (EVERYWHERE,)
