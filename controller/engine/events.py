"""Events of the engine as hints, and the host ports that are bound.

Events of the engine as hints, from the broker's stream of lines.

Bound host ports in the network namespace of the process, from ``/proc/net``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from controller.core.drift.contention import parse_sockets
from controller.core.encoding.json_values import parse_object
from controller.engine import responses
from controller.engine.transport import ConnectionBroken, EngineStream, Silent
from controller.model import names
from controller.model.errors import EngineUnavailable
from controller.model.names import workload_key
from controller.model.observed import HostPort
from controller.ports import EVENTS_SILENT, EngineEvent

_CONTAINER_EVENTS = """
    create destroy die health_status kill oom pause rename restart start stop unpause update
"""
WATCHED = {
    "container": frozenset(_CONTAINER_EVENTS.split()),
    "network": frozenset({"connect", "destroy", "disconnect"}),
    "volume": frozenset({"destroy"}),
}

#: The engine leaves out the others: each run of a health check is three events of an exec.
WATCHED_ACTIONS = sorted(frozenset[str]().union(*WATCHED.values()))


class EventStream:
    """A running subscription. Yields relevant events as hints."""

    def __init__(self, stream: EngineStream) -> None:
        self._stream = stream
        self._lines = stream.lines()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> EngineEvent:
        while True:
            try:
                events = responses.readable(event_of, [parse_object(next(self._lines))])
            except Silent as error:
                raise EngineUnavailable(EVENTS_SILENT, str(error)) from error
            except ConnectionBroken as error:
                raise EngineUnavailable("events.lost", str(error)) from error
            for event in events:
                if event is not None:
                    return event

    def close(self) -> None:
        """End the subscription. Any thread can call this."""
        self._stream.close()


def event_of(event: Mapping[str, Any]) -> EngineEvent | None:
    """Return an engine event as a hint, None for an irrelevant event."""
    kind = str(event.get("Type") or "")
    action, _, detail = str(event.get("Action") or "").partition(":")  # "health_status: healthy"
    if action not in WATCHED.get(kind, ()):
        return None
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    subject = str(actor.get("ID") or "")
    key = None
    if kind == "network" and action != "destroy":
        # The relevant object is the container that joined or left.
        kind, subject = "container", str(attributes.get("container") or "")
    elif attributes.get(names.SERVICE) and attributes.get(names.NAMESPACE):
        slot = str(attributes.get(names.SLOT) or "")
        key = workload_key(attributes[names.NAMESPACE], attributes[names.SERVICE], slot)
    health = detail.strip() if action == "health_status" else ""
    signal = str(attributes.get("signal") or "") if action == "kill" else ""
    return EngineEvent(int(event.get("timeNano") or 0), kind, action, subject, key, health, signal)


def bound_ports() -> frozenset[HostPort]:
    """Return the bound TCP and UDP ports. Unreadable tables are skipped."""
    ports: frozenset[HostPort] = frozenset()
    for protocol in ("tcp", "udp"):
        for version in ("", "6"):
            with suppress(OSError):
                text = Path(f"/proc/net/{protocol}{version}").read_text("ascii")
                ports |= parse_sockets(text, protocol)
    return ports
