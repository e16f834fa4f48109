"""The e2e ring runs what users run: the command, in a folder of its own, on a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.instance import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine import FoundEngine, PrivateEngine


@pytest.fixture
def host(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    """A folder with an empty DIR, and the command to run an instance on it; cleaned up after."""
    host = Host(engine)
    try:
        yield host
    finally:
        host.close()
