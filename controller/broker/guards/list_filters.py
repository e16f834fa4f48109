"""The ``filters`` parameter: parsed, bounded, and narrowed to what is ours and the caller's.

What of others a filter could be asked about is answered from what the caller sees, or not at all:
containers, networks, volumes and events by labels that the gate adds to whatever is asked (other
filters only narrow that further); images by the names that the policy admits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.core.encoding import strict_json
from controller.model import names
from controller.model.records import Actor, Role

VALUES_MAX = 64
PATTERN_MAX = 255
#: Labels that the gate sets itself: whatever a client asks of them is replaced, never added to.
_REPLACED = frozenset({strict_json.fold(key) for key in (names.INSTANCE, names.OWNER)})

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


def parse(text: str, known: frozenset[str]) -> Filters:
    """Return what ``filters`` asks for: each key's values.

    Raises:
        Denied: ``filters.malformed`` or ``filters.unknown``.
    """
    if not text:
        return {}
    try:
        value = strict_json.parse(text.encode())
    except strict_json.InvalidJson as error:
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


def is_name_wanted(patterns: list[str], name: str) -> bool:
    """Tell whether a name of an image is one that ``reference`` asks for; no pattern asks for all.

    The engine's way, which judges by all names of an image, would tell of names that aren't shown.
    """
    if not patterns:
        return True
    repository = name.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    told = (name, f"{head}{slash}{last.partition(':')[0]}")
    return any(_matches(pattern[:PATTERN_MAX], each) for pattern in patterns for each in told)


def _matches(pattern: str, name: str) -> bool:
    wanted, parts = pattern.split("/"), name.split("/")
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))


def restrict(filters: Filters, state: GateState, actor: Actor) -> Filters:
    """Return the filters with the labels that keep the result to ours, and to the caller's."""
    labels = [
        label
        for label in filters.get("label", [])
        if strict_json.fold(label.partition("=")[0]) not in _REPLACED
    ]
    labels.append(f"{names.INSTANCE}={state.instance}")
    if actor.role is Role.CLIENT:
        labels.append(f"{names.OWNER}={actor.owner}")
    return {**filters, "label": labels}


def encode(filters: Filters) -> str:
    """Return the value of the parameter."""
    return json.dumps(filters, separators=(",", ":"))
