"""What the driver does of itself: no command waits without an end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from controller.broker import driver as module
from controller.broker.commands import Examine
from controller.broker.driver import Driver


def test_a_filesystem_that_hangs_shows_nothing_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EXAMINE_S", 0.05)
    released = threading.Event()
    nothing: Any = None

    def hang(_paths: tuple[str, ...]) -> tuple[()]:
        released.wait(5.0)
        return ()

    async def drive() -> object:
        driver = Driver(upstream=nothing, books=nothing, examine=hang)
        try:
            return await driver.run(steps())
        finally:
            released.set()

    def steps() -> Any:
        return (yield Examine(("/srv/hung",)))

    assert asyncio.run(drive()) == ()
