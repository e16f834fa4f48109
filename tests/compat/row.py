"""A row of the table of compatibility: one command of a client, and what becomes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class How(Enum):
    """How a command is run."""

    ENDS = "it ends by itself"
    STREAMS = "it goes on until what was expected is seen, and is then interrupted"
    TERMINAL = "it has a terminal"


@dataclass(frozen=True, slots=True)
class Row:
    """One command of a client. ``refused`` is the rule, '' for what works.

    ``see`` is looked for in what it says, with its standard error; for a refusal that is the
    client's own words where the rule doesn't reach the person. ``instead`` must be there too.
    ``then`` is run after it, and must say ``after``.
    """

    client: str
    command: str
    see: str = ""
    refused: str = ""
    instead: str = ""
    role: str = "client"
    how: How = How.ENDS
    stdin: str = ""
    then: str = ""
    after: str = ""
    exits: int = 0
    policy: str = "development"

    @property
    def name(self) -> str:
        """A short name, for test ids."""
        words = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.command)[:60]
        return f"{self.client} {self.policy} {self.role} {words}"


RUN = "docker run --rm"
CLI = "docker CLI"


def works(client: str, *rows: tuple[str, str]) -> tuple[Row, ...]:
    """Return a row for each command that works, with what it shows."""
    return tuple(Row(client, command, see) for command, see in rows)


def refused(
    client: str, *rows: tuple[str, str, str], role: str = "client", exits: int = 1
) -> tuple[Row, ...]:
    """Return a row for each command that a rule refuses, with what to do instead."""
    return tuple(
        Row(client, command, refused=rule, instead=instead, role=role, exits=exits)
        for command, rule, instead in rows
    )
