"""The conversation with either engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.sides import Conversation, RealSide, SimSide


@pytest.fixture(params=["simulated", "real"])
def say(request: pytest.FixtureRequest) -> Iterator[Conversation]:
    if request.param == "simulated":
        side: SimSide | RealSide = SimSide()
    else:
        side = RealSide(request.getfixturevalue("engine"))
    conversation = Conversation(side)
    conversation.clean()
    try:
        yield conversation
    finally:
        conversation.clean()
