"""Recovery in the background: closes open intents after a start and after each lost response.

Failed rounds repeat with growing pauses, until the engine answers and no intent is open. A second
loop removes objects from the inventory that no longer exist, for example a container of
``docker run --rm``.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from controller.broker.engine.client import EngineClient
from controller.broker.gate.state import GateState
from controller.broker.guards import recovery
from controller.broker.handlers.volumes import holds
from controller.broker.server.driver import Driver
from controller.core.enforcement.settlement import SettlementEvidence
from controller.model.errors import TrimtabError

LOG = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 15.0
#: A removed container counts against quotas until the next check.
FORGET_S = 300.0
#: How often the leases of dumps and restores are checked.
HOLDS_S = 5.0


class RecoveryTask:
    """Runs the flows of ``guards.recovery``. Call ``wake`` when an intent can be open."""

    def __init__(self, *, driver: Driver, state: GateState, client: EngineClient) -> None:
        self._driver = driver
        self._state = state
        self._client = client
        self._woken = asyncio.Event()
        #: The evidence of the previous round, by intent: some intents need two equal observations.
        self._evidence: dict[str, SettlementEvidence] = {}
        self._is_cleaned_up = False

    def wake(self) -> None:
        """Start a round soon, if an intent is open."""
        if recovery.intents_to_settle(self._state):
            self._woken.set()

    async def run(self) -> None:
        """Settle open intents until cancelled."""
        pause = FIRST_PAUSE_S
        self._woken.set()
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                done = await self._settle_all()
            except Exception:
                # A bug in the recovery of one intent must not stop the recovery of the others.
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

    async def run_forget(self) -> None:
        """Remove missing objects from the inventory every five minutes, until cancelled.

        Also end the dumps and restores of commands that died.
        """
        rounds = 0
        while True:
            await asyncio.sleep(HOLDS_S)
            rounds += 1
            try:
                await self._driver.run(holds.end_expired(self._state))
            except Exception:
                LOG.exception("recovery.holds.failed")
            if rounds * HOLDS_S < FORGET_S:
                continue
            rounds = 0
            try:
                await self._driver.run(recovery.forget_gone(self._state))
            except Exception:
                LOG.exception("recovery.forget.failed")

    async def _settle_all(self) -> bool:
        """Try to settle each open intent once. Return True if none is left open."""
        try:
            await self._client.identify()
        except TrimtabError as error:
            LOG.debug("recovery.waiting error=%s", error)
            return False
        for identifier in recovery.intents_to_settle(self._state):
            earlier = self._evidence.pop(identifier, None)
            flow = recovery.settle(self._state, identifier, earlier=earlier)
            evidence = await self._driver.run(flow)
            if evidence is not None:
                self._evidence[identifier] = evidence
            elif identifier not in self._state.inventory.open:
                LOG.info("recovery.settled id=%s", identifier)
        if not self._is_cleaned_up and not self._has_earlier_intents():
            await self._clean_up()
            self._is_cleaned_up = True
        return not recovery.intents_to_settle(self._state)

    def _has_earlier_intents(self) -> bool:
        """Return True if an intent of an earlier broker process is open."""
        state = self._state
        return any(intent.seq <= state.start_seq for intent in state.inventory.open.values())

    async def _clean_up(self) -> None:
        """Forget missing objects. Remove containers never started by an earlier broker process."""
        forgotten = await self._driver.run(recovery.forget_gone(self._state))
        removed = 0
        if self._state.split_brain.rivals:
            return  # another broker of this instance can be about to start these containers
        for identifier in recovery.stale_containers(self._state):
            removed += await self._driver.run(recovery.remove_stale(self._state, identifier))
        if forgotten or removed:
            LOG.info("recovery.cleaned forgotten=%d removed=%d", forgotten, removed)
