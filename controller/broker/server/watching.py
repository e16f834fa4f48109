"""Watching over execs that run: what they came to is recorded, and none outlives its time.

A session whose connection is being relayed is left alone until its time is over; the others (let
go by their client, detached, or started by a broker before this one) are looked at now and then.
"""

from __future__ import annotations

import asyncio
import logging

from controller.broker.gate.state import GateState
from controller.broker.handlers import container_exec
from controller.broker.server.driver import Driver

LOG = logging.getLogger(__name__)
PAUSE_S = 1.0


class ExecReaper:
    """Looks after all sessions of the inventory."""

    def __init__(self, *, driver: Driver, state: GateState) -> None:
        self._driver = driver
        self._state = state

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            for identifier in tuple(self._state.inventory.sessions):
                try:
                    await self._driver.run(container_exec.supervise(self._state, identifier))
                except Exception:
                    # A bug in one session's end must not keep the others from theirs.
                    LOG.exception("recovery.exec.failed")
