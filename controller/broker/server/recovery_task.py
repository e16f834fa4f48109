"""Mending in the background: closing what was left open, at start and whenever an answer is lost.

It goes on with pauses that grow until the engine answers and no intent is left open. Now and then
it also takes off the inventory what went away by itself (``docker run --rm``) or behind the
broker's back.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from controller.broker.engine.client import EngineClient
from controller.broker.gate.state import GateState
from controller.broker.guards import recovery
from controller.broker.server.driver import Driver
from controller.core.enforcement.settlement import SettlementEvidence
from controller.model.errors import TrimtabError

LOG = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 15.0
#: What is gone counts against quotas until somebody looks.
FORGET_S = 300.0


class Mending:
    """Recovery's driver. ``wake`` it when an intent may have been left open."""

    def __init__(self, *, driver: Driver, state: GateState, upstream: EngineClient) -> None:
        self._driver = driver
        self._state = state
        self._upstream = upstream
        self._woken = asyncio.Event()
        self._sightings: dict[str, SettlementEvidence] = {}
        self._cleaned = False

    def wake(self) -> None:
        """Look again soon, if something is left open."""
        if recovery.intents_to_settle(self._state):
            self._woken.set()

    async def run(self) -> None:
        """Mend until cancelled."""
        pause = FIRST_PAUSE_S
        self._woken.set()
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                done = await self._round()
            except Exception:
                # Mending must survive a bug in one intent's recovery: the others wait behind it.
                LOG.exception("recovery.failed")
                done = False
            if done:
                pause = FIRST_PAUSE_S
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            pause = min(pause * 2, LAST_PAUSE_S)
            self._woken.set()

    async def forget(self) -> None:
        """Take off the inventory what is gone, every five minutes, until cancelled."""
        while True:
            await asyncio.sleep(FORGET_S)
            try:
                await self._driver.run(recovery.forget_gone(self._state))
            except Exception:
                LOG.exception("recovery.forget.failed")

    async def _round(self) -> bool:
        """Look once at all that is open; tell whether nothing is left to do."""
        try:
            await self._upstream.meet()
        except TrimtabError as error:
            LOG.debug("recovery.waiting error=%s", error)
            return False
        for identifier in recovery.intents_to_settle(self._state):
            earlier = self._sightings.pop(identifier, None)
            steps = recovery.settle(self._state, identifier, earlier=earlier)
            sighting = await self._driver.run(steps)
            if sighting is not None:
                self._sightings[identifier] = sighting
            elif identifier not in self._state.inventory.open:
                LOG.info("recovery.settled id=%s", identifier)
        if not self._cleaned and not self._of_an_earlier_broker():
            await self._clean_up()
            self._cleaned = True
        return not recovery.intents_to_settle(self._state)

    def _of_an_earlier_broker(self) -> bool:
        state = self._state
        return any(intent.seq <= state.start_seq for intent in state.inventory.open.values())

    async def _clean_up(self) -> None:
        """Forget what is gone, then remove what an earlier broker created and never started."""
        forgotten = await self._driver.run(recovery.forget_gone(self._state))
        removed = 0
        if self._state.split_brain.rivals:
            return  # what was never started may be on its way, there
        for identifier in recovery.stale_containers(self._state):
            removed += await self._driver.run(recovery.remove_stale(self._state, identifier))
        if forgotten or removed:
            LOG.info("recovery.cleaned forgotten=%d removed=%d", forgotten, removed)
