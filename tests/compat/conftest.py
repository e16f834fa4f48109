"""One world for the whole ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compat.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine import FoundEngine, PrivateEngine


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine)
    try:
        yield made
    finally:
        made.close()
