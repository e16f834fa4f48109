"""The containers with each volume, by the broker's inventory."""

from __future__ import annotations

from typing import Any


def users_of(containers: list[Any]) -> dict[str, list[str]]:
    """Return the names of the containers with each volume, by the inventory."""
    users: dict[str, list[str]] = {}
    for item in containers:
        mounts = (item.get("confined") or {}).get("mounts") or ()
        for name in sorted({str(m["source"]) for m in mounts if m.get("type") == "volume"}):
            users.setdefault(name, []).append(str(item["admitted"]["name"]))
    return users
