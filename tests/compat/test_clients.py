"""Ordinary clients through the broker's socket on a real engine: each row of the table, run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.compat.row import Row
from tests.compat.table import LANGUAGES, TABLE
from tests.compat.world import PATIENCE_S, REGISTRY, REMOTE

if TYPE_CHECKING:
    from tests.compat.world import World


def rows(*, evaluated: bool) -> list[Any]:
    found = [row for row in TABLE if (row.client in LANGUAGES) == evaluated]
    return [pytest.param(row, id=f"{number} {row.name}") for number, row in enumerate(found)]


@pytest.mark.needs_root
@pytest.mark.parametrize("row", rows(evaluated=False))
def test_a_command_does_what_the_table_says(world: World, row: Row) -> None:
    world.try_row(row)


class Sdk:
    """Clients of one language in a process of the caller's."""

    def __init__(self, world: World, role: str, language: str) -> None:
        clients, here = world.clients, Path(__file__).parent
        argv = {
            "python": [sys.executable, "-I", str(here / "sdk.py")],
            "node": [str(clients.node), str(here / "clients" / "node.js")],
        }
        self._process = world.start(role, argv[language], reads_all=True)
        self._tell(
            {
                "PREFIX": f"compat-{role}",
                "PACKAGES": str(clients.python),
                "MODULES": str(clients.modules),
                "REGISTRY": REGISTRY,
                "REMOTE": REMOTE.rpartition(":")[::2],
            }
        )

    def _tell(self, told: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()

    def evaluate(self, expression: str) -> dict[str, str]:
        """Return the value or the error of an expression."""
        assert self._process.stdout is not None
        self._tell(expression)
        while line := self._process.stdout.readline():
            if line.startswith(b"{"):  # the rest is what the clients log
                return dict(json.loads(line))
        raise AssertionError(f"the clients' process ended with {self._process.wait(PATIENCE_S)}")

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def sdks(world: World) -> Iterator[dict[tuple[str, str], Sdk]]:
    kinds = {(row.role, LANGUAGES[row.client]) for row in TABLE if row.client in LANGUAGES}
    opened = {kind: Sdk(world, *kind) for kind in kinds}
    yield opened
    for each in opened.values():
        each.close()


@pytest.mark.needs_root
@pytest.mark.parametrize("row", rows(evaluated=True))
def test_an_expression_does_what_the_table_says(sdks: dict[tuple[str, str], Sdk], row: Row) -> None:
    told = sdks[row.role, LANGUAGES[row.client]].evaluate(row.command)
    if row.refused:
        assert re.search(rf"(?:^|\W){re.escape(row.refused)}: ", told.get("error", "")), told
        assert row.instead in told["error"]
    else:
        assert re.search(row.see, told.get("value", "")), told


def test_every_command_stands_in_the_table_once_in_one_role() -> None:
    commands = [(row.command, row.role, row.policy, row.see) for row in TABLE]
    assert len(commands) == len(set(commands))


def test_every_refusal_says_what_to_do_instead() -> None:
    # Of API versions the client says what it understood, in the engine's words.
    silent = {row.refused for row in TABLE if row.refused and not row.instead}
    assert silent == {"api.version"}
