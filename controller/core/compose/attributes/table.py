"""The table of the attributes of the Compose Specification: the treatment of each of them.

The translation and docs/compose.md share the table. An attribute without a row is an error, so that
none is ignored in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.core.compose.attributes.service_rows import SERVICE_ROWS
from controller.core.compose.attributes.top_rows import TOP_ROWS


class Treatment(StrEnum):
    """The treatment of an attribute."""

    COMPOSE = "as compose"
    POLICY = "by policy"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row of the table."""

    #: Such as ``services.*.healthcheck.test``; ``*`` is a name that users choose.
    path: str
    treatment: Treatment
    #: What becomes of the attribute, or why it is refused.
    text: str
    #: What to do instead of a refused attribute.
    instead: str = ""
    #: The row is also for all attributes below.
    whole: bool = False
    #: A project with the attribute gets a warning with the text.
    warns: bool = False


def _rows() -> Mapping[str, Attribute]:
    rows = {}
    for path, word, text in (*TOP_ROWS, *SERVICE_ROWS):
        treatment = {"=": Treatment.COMPOSE, "~": Treatment.POLICY, "!": Treatment.REFUSED}[word[0]]
        reason, _, instead = text.partition(" → ")
        name = path.removesuffix(".**")
        rows[name] = Attribute(name, treatment, reason, instead, name != path, word == "~!")
    return rows


#: The rows by their paths.
ATTRIBUTES: Final = _rows()


def attribute_at(path: str) -> Attribute | None:
    """Return the row of an attribute, or of the nearest attribute above with a row for all members."""
    exact = ATTRIBUTES.get(path)
    if exact is not None:
        return exact
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        row = ATTRIBUTES.get(".".join(parts[:end]))
        if row is not None:
            return row if row.whole else None
    return None
