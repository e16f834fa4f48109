"""Views for tests of notifications, in the form of docs/view.md."""

from __future__ import annotations

from typing import Any

from controller.model.quantities import format_instant

BEGIN = 1_780_000_000.0  # 2026-05-28T20:26:40Z


def row(
    name: str,
    *,
    severity: str = "ok",
    condition: str = "Ready",
    since: float = BEGIN,
    **members: Any,
) -> dict[str, Any]:
    """Return the row of a service: as declared, or with a worst condition."""
    reason = members.pop("reason", "AsDeclared" if severity == "ok" else condition)
    message = members.pop("message", "")
    ready = {
        "type": "Ready",
        "status": "True" if severity == "ok" else "False",
        "reason": reason,
        "message": message,
    }
    worst = {**ready, "type": condition, "status": "True"}
    conditions = [ready] if condition == "Ready" else [ready, worst]
    return {
        "kind": "Service",
        "namespace": "shop",
        "name": name,
        "owner": "team",
        "conditions": [{**each, "since": format_instant(since)} for each in conditions],
        "worst": condition,
        "severity": severity,
        "next": "",
        **members,
    }


def away(name: str, *, since: float = BEGIN) -> dict[str, Any]:
    """Return the row of a service while the engine doesn't answer."""
    return row(name, severity="page", since=since, reason="EngineUnavailable")


def view(*rows: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return a whole view."""
    return {
        "format": 1,
        "version": "r-1",
        "full": True,
        "host": {"name": "h", "instance": "i"},
        "state": {"word": "AsDeclared", "text": "all as declared"},
        "resources": [*rows],
        "gone": [],
        "problems": [],
        "sources": [],
        **members,
    }
