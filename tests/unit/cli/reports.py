"""Builders of status reports as the controller answers them."""

from __future__ import annotations

from typing import Any


def condition(
    kind: str, message: str = "", *, reason: str = "", status: str = "True"
) -> dict[str, str]:
    since = "2026-03-01T11:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "since": since}


def resource(name: str, *conditions: dict[str, str], **members: Any) -> dict[str, Any]:
    """Return a Service of one replica that runs."""
    return {
        "kind": "Service",
        "namespace": "default",
        "name": name,
        "owner": "team",
        "ready": 1,
        "desired": 1,
        "revision": "v2:2bdaa731c0ffee",
        "image": "registry.example.com/platform/services/web:1.4",
        "conditions": list(conditions) or [condition("Ready", "1 of 1 ready", reason="AsDeclared")],
        "slots": [slot()],
        **members,
    }


def slot(**members: Any) -> dict[str, Any]:
    return {
        "slot": 1,
        "container": "web.1-2bdaa731",
        "state": "running",
        "health": "",
        "restarts": 0,
        "started": "2026-03-01T11:55:00Z",
        **members,
    }


def problem(message: str, **members: Any) -> dict[str, Any]:
    return {
        "code": "a.code",
        "severity": "error",
        "file": "",
        "line": 0,
        "column": 0,
        "message": message,
        "expected": "",
        "remedy": "",
        **members,
    }


def report(*resources: dict[str, Any], problems: Any = ()) -> dict[str, Any]:
    return {"resources": list(resources), "problems": list(problems)}
