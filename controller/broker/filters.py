"""The ``filters`` parameter: parsed, bounded, and narrowed to what is ours and the caller's."""

from __future__ import annotations

import json
from collections.abc import Mapping

from controller.broker.refusals import Denied
from controller.broker.state import GateState
from controller.core import strictjson
from controller.model import names
from controller.model.entries import Actor, Role

VALUES_MAX = 64
#: Labels that the gate sets itself: whatever a client asks of them is replaced, never added to.
_REPLACED = frozenset({strictjson.fold(key) for key in (names.INSTANCE, names.OWNER)})

CONTAINER_KEYS = frozenset(
    {"ancestor", "exited", "expose", "health", "id", "is-task", "label", "name", "network"}
    | {"publish", "status", "volume"}
)
IMAGE_KEYS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
NETWORK_KEYS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
VOLUME_KEYS = frozenset({"dangling", "driver", "label", "name"})
EVENT_KEYS = frozenset({"container", "event", "image", "label", "network", "type", "volume"})
EVENT_TYPES = frozenset({"container", "image", "network", "volume"})

Filters = dict[str, list[str]]


def read(text: str, known: frozenset[str]) -> Filters:
    """Return what ``filters`` asks for: each key's values.

    Raises:
        Denied: ``filters.malformed`` or ``filters.unknown``.
    """
    if not text:
        return {}
    try:
        value = strictjson.parse(text.encode())
    except strictjson.Ambiguous as error:
        raise _malformed(str(error)) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _malformed("expected an object")
    found: Filters = {}
    for key, told in value.items():
        values = _values(told)
        if not values:
            continue
        if key not in known:
            raise Denied(
                "filters.unknown",
                f"this list has no filter {key:.64}",
                f"use {', '.join(sorted(known))}",
                status=400,
            )
        found[key] = values
    return found


def _values(told: object) -> list[str]:
    """Read both forms that clients send: a list, or a map of values to true."""
    if told is None:
        return []
    if isinstance(told, Mapping):
        values = [key for key, wanted in told.items() if wanted is True]
        plain = all(isinstance(wanted, bool) for wanted in told.values())
    else:
        values = [item for item in told if isinstance(item, str)] if isinstance(told, list) else []
        plain = isinstance(told, list) and len(values) == len(told)
    if not plain or len(values) > VALUES_MAX:
        raise _malformed(f"expected a list of at most {VALUES_MAX} texts for each filter")
    return values


def _malformed(reason: str) -> Denied:
    return Denied(
        "filters.malformed",
        f"filters: {reason}",
        'send JSON such as {"label":["key=value"]}',
        status=400,
    )


def narrowed(filters: Filters, state: GateState, actor: Actor) -> Filters:
    """Return the filters with the labels that keep the result to ours, and to the caller's."""
    labels = [
        label
        for label in filters.get("label", [])
        if strictjson.fold(label.partition("=")[0]) not in _REPLACED
    ]
    labels.append(f"{names.INSTANCE}={state.instance}")
    if actor.role is Role.CLIENT:
        labels.append(f"{names.OWNER}={actor.owner}")
    return {**filters, "label": labels}


def written(filters: Filters) -> str:
    """Return the value of the parameter."""
    return json.dumps(filters, separators=(",", ":"))
