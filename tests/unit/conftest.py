"""Unit tests have their temporary folders in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.memory import session_folder


@pytest.fixture(scope="session")
def tmp_path_factory(pytestconfig: pytest.Config) -> Iterator[pytest.TempPathFactory]:
    """As pytest's own, in memory: journals flush what they write thousands of times."""
    factory = pytest.TempPathFactory.from_config(pytestconfig, _ispytest=True)
    with session_folder() as folder:
        factory._given_basetemp = folder / "pytest"
        yield factory
