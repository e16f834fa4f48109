"""The ``filters`` of the engine's lists, as a dockerd 26.1 reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Filters = dict[str, list[str]]


class BadFilters(Exception):
    """The engine's message for what can't be read as filters."""


def read(text: str, known: frozenset[str]) -> Filters:
    """Return the filters; each is a list of values, or an object whose keys are the values."""
    if not text:
        return {}
    try:
        told = json.loads(text)
    except ValueError as error:
        raise BadFilters("invalid filter") from error
    found: Filters = {}
    for name, values in told.items():
        if name not in known:
            raise BadFilters(f"invalid filter '{name}'")
        found[name] = list(values)
    return found


def labelled(wanted: list[str], labels: Mapping[str, str] | None) -> bool:
    """Tell whether *labels* has every wanted ``key`` or ``key=value``."""
    have = labels or {}
    for each in wanted:
        key, equals, value = each.partition("=")
        if key not in have or (equals and have[key] != value):
            return False
    return True


def matches(filters: Filters, tests: Mapping[str, Callable[[str], bool]]) -> bool:
    """Tell whether each filter has a value that passes its test."""
    return all(any(tests[name](value) for value in values) for name, values in filters.items())


def name_test(name: str) -> Callable[[str], bool]:
    """Names match as a pattern anywhere, with or without the slash of the engine's own form."""
    return lambda wanted: bool(re.search(wanted, name) or re.search(wanted, f"/{name}"))


def flag(query: Mapping[str, str], name: str) -> bool:
    """Read a flag as the engine does: anything but an empty or a negative word is true."""
    return query.get(name, "").lower().strip() not in {"", "0", "no", "false", "none"}


def parsed(body: bytes | None) -> Any:
    """Return the JSON of a body, {} where there is none."""
    return json.loads(body) if body else {}
