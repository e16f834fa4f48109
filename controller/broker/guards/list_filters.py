"""The ``filters`` parameter: parsed, bounded, and restricted to objects that the caller can see.

A filter must not reveal objects of others. The gate adds labels to filters of containers,
networks, volumes and events; other filters only narrow the result further. Image filters are
answered from the names that the policy admits.
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
#: Labels that the gate sets itself. A client's filter for these labels is replaced.
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
    """Return the values of each key in ``filters``.

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
    for key, raw in value.items():
        values = _values(raw)
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


def _values(raw: object) -> list[str]:
    """Return the values of a key. Clients send a list, or a map of values to true."""
    if raw is None:
        return []
    if isinstance(raw, Mapping):
        values = [key for key, wanted in raw.items() if wanted is True]
        plain = all(isinstance(wanted, bool) for wanted in raw.values())
    else:
        values = [item for item in raw if isinstance(item, str)] if isinstance(raw, list) else []
        plain = isinstance(raw, list) and len(values) == len(raw)
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
    """Return True if there are no ``reference`` patterns, or if a pattern matches the image name.

    The engine matches all names of an image, and so would reveal names that the client can't see.
    """
    if not patterns:
        return True
    repository = name.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    spellings = (name, f"{head}{slash}{last.partition(':')[0]}")
    return any(_matches(pattern[:PATTERN_MAX], each) for pattern in patterns for each in spellings)


def _matches(pattern: str, name: str) -> bool:
    wanted, parts = pattern.split("/"), name.split("/")
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))


def restrict(filters: Filters, state: GateState, actor: Actor, *, adopted: bool = False) -> Filters:
    """Return the filters with the labels that limit the result to the caller's objects.

    With *adopted*, objects without our labels are in the result, too: the caller drops the others.
    """
    labels = [
        label
        for label in filters.get("label", [])
        if strict_json.fold(label.partition("=")[0]) not in _REPLACED
    ]
    if adopted:
        others = {key: values for key, values in filters.items() if key != "label"}
        return {**others, "label": labels} if labels else others
    labels.append(f"{names.INSTANCE}={state.instance}")
    if actor.role is Role.CLIENT:
        labels.append(f"{names.OWNER}={actor.owner}")
    return {**filters, "label": labels}


def split_places(filters: Filters) -> tuple[Filters, frozenset[str]]:
    """Return the filters without filters by namespace and service, and the asked labels.

    The engine knows the names in the labels. A move doesn't change labels.
    """
    prefixes = (f"{names.NAMESPACE}=", f"{names.SERVICE}=")
    labels = filters.get("label", [])
    asked = [label for label in labels if label.startswith(prefixes)]
    rest = {**filters, "label": [label for label in labels if label not in asked]}
    return rest, frozenset(asked)


def encode(filters: Filters) -> str:
    """Return the value of the parameter."""
    return json.dumps(filters, separators=(",", ":"))
