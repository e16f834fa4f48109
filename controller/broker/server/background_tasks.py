"""Background tasks: recovery of open changes, and the watch over containers and exec sessions.

Recovery in the background: closes open intents after a start and after each lost response.

Failed rounds repeat with growing pauses, until the engine answers and no intent is open. A second
loop removes objects from the inventory that no longer exist, for example a container of
``docker run --rm``.

- ``ContainerWatcher`` verifies a container of this instance as soon as the engine reports a start
  or a change, and records the end of a job's run. An event is only a hint about the container to check. Every container is checked
  when an event stream begins, so that nothing between two streams is missed, and once in each period.
  Several checks run side by side, for the owners in turn (``CHECKS``): an owner with many events
  doesn't delay the end of another owner's violation.
- ``ExecReaper`` records the results of exec sessions and ends those beyond their time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from controller.broker.engine.client import EngineClient
from controller.broker.engine.response import EventLines, ResponseBroken, ResponseReader
from controller.broker.gate.commands import Lost
from controller.broker.gate.refusals import Answered
from controller.broker.gate.state import GateState
from controller.broker.guards import job_runs, kernel_verify, recovery
from controller.broker.handlers import container_exec, container_hooks, volumes
from controller.broker.server.driver import Driver
from controller.core.encoding.json_values import parse_json
from controller.core.enforcement.settlement import SettlementEvidence
from controller.model import names
from controller.model.errors import TrimtabError
from controller.system.slots import Share, Slots, SlotUser

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
                known = self._state.inventory
                if known.restored_from or not known.restored:  # one of the backup ended long ago
                    await self._driver.run(volumes.end_expired_holds(self._state))
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
        if self._state.split_brain.rivals or self._state.inventory.restored:
            return  # another broker of this instance can be about to start these containers, or has
        for identifier in recovery.stale_containers(self._state):
            removed += await self._driver.run(recovery.remove_stale(self._state, identifier))
        if forgotten or removed:
            LOG.info("recovery.cleaned forgotten=%d removed=%d", forgotten, removed)


#: Checks at once, in all and for one owner. Most of a check's time is waiting: for the engine, and
#: between two observations.
CHECKS = Share(16, 4)
#: Each container is checked once within so many seconds, with an event stream and without one.
CHECK_S = 300.0
BLIND_CHECK_S = 30.0
#: Seconds until hooks of an earlier process are looked at again.
HOOKS_AGAIN_S = 5.0
#: Seconds between two rounds of the exec reaper.
REAP_S = 1.0
_EVENT_FILTERS = {
    "type": ["container", "network"],
    "event": ["start", "restart", "unpause", "update", "rename", "connect", "die", "destroy"],
}
EVENTS = f"/events?filters={quote(json.dumps(_EVENT_FILTERS, separators=(',', ':')), safe='')}"


class ContainerWatcher:
    """Checks the containers that the engine's events name. Belongs to one event loop."""

    def __init__(self, *, driver: Driver, state: GateState, client: EngineClient) -> None:
        self._driver = driver
        self._state = state
        self._client = client
        self._slots = Slots({"": CHECKS}, wait_s=None)
        #: The containers to check, with their owners. One whose check runs is checked once more.
        self._due: dict[str, str] = {}
        self._running: set[str] = set()
        self._woken = asyncio.Event()
        self._is_surveying = False
        self._has_stream = False

    async def run_events(self) -> None:
        """Follow the engine's events until cancelled. Reconnect whenever the stream ends."""
        pause = FIRST_PAUSE_S
        while True:
            stream = await self._client.open("GET", EVENTS, b"", mutation=False)
            if isinstance(stream, Lost):
                LOG.debug("lookout.waiting error=%s", stream.reason)
            elif stream.status != HTTPStatus.OK:
                LOG.warning("lookout.refused status=%d", stream.status)
                stream.close()
            else:
                self._has_stream, pause = True, FIRST_PAUSE_S
                try:
                    self.wake_all()
                    await self._follow(stream)
                except ResponseBroken as error:
                    LOG.info("lookout.broken error=%s", error)
                finally:
                    self._has_stream = False
                    stream.close()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def _follow(self, stream: ResponseReader) -> None:
        lines = EventLines()
        async for part in stream.chunks():
            for line in lines.feed(part):
                for identifier, instance, has_ended in containers_of(line):
                    self.wake(identifier, instance, has_ended=has_ended)

    def wake(self, identifier: str, instance: str = "", *, has_ended: bool = False) -> None:
        """Check a container of the inventory soon; an ended one only if it is a job's run.

        A container outside the inventory with the label of this instance makes a check for a
        second broker due (``split_brain``).
        """
        item = self._state.inventory.containers.get(identifier)
        if item is not None:
            if item.is_run or not has_ended:
                self._due[identifier] = item.owner
                self._woken.set()
        elif instance == self._state.instance:
            self._state.split_brain.in_doubt = True
            self._woken.set()

    def wake_all(self) -> None:
        """Check every container of the inventory soon, and who else has the label of the instance."""
        self._state.split_brain.in_doubt = True
        self._woken.set()
        for identifier in self._state.inventory.containers:
            self.wake(identifier)

    async def run_checks(self) -> None:
        """Check due containers until cancelled, and each container once in a period."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_rounds())
            while True:
                await self._woken.wait()
                self._woken.clear()
                if self._state.split_brain.in_doubt and not self._is_surveying:
                    self._is_surveying = True
                    tasks.create_task(self._check_split_brain())
                for identifier in self._due.keys() - self._running:
                    self._running.add(identifier)
                    tasks.create_task(self._check(identifier))

    async def _run_rounds(self) -> None:
        """Let each container be checked in turn. All at once would delay every request."""
        waiting = deque[str]()
        while True:
            period_s = CHECK_S if self._has_stream else BLIND_CHECK_S
            count = len(self._state.inventory.containers) or 1
            await asyncio.sleep(min(period_s / count, BLIND_CHECK_S))
            waiting = waiting or deque(self._state.inventory.containers)
            if waiting:
                self.wake(waiting.popleft())

    async def _check_split_brain(self) -> None:
        try:
            await self._driver.run(recovery.survey(self._state))
        except Answered:
            return  # the engine is down: the next mutation checks again
        except Exception:
            LOG.exception("recovery.rivals.failed")
            return
        finally:
            self._is_surveying = False
        if self._state.split_brain.rivals:
            LOG.error(
                "state.forked containers=%s", ",".join(sorted(self._state.split_brain.rivals))
            )

    async def _check(self, identifier: str) -> None:
        slot = await self._slots.take(SlotUser("", self._due[identifier]))
        assert slot is not None, "a check waits as long as it takes"
        del self._due[identifier]
        try:
            await self._driver.run(job_runs.look_for_end(self._state, identifier))
            if self._state.inventory.restored:
                return  # a later change of the container isn't in the inventory
            result = await self._driver.run(kernel_verify.verify_container(self._state, identifier))
        except Exception:
            # A bug in the check of one container must not stop the checks of the others.
            LOG.exception("lookout.failed container=%s", identifier)
            return
        finally:
            slot.release()
            self._running.discard(identifier)
            self._woken.set()
        if result is not None and result.breaches:
            LOG.warning("lookout.violation container=%s", identifier)
            return
        try:
            if await self._driver.run(container_hooks.complete(self._state, identifier)):
                asyncio.get_running_loop().call_later(HOOKS_AGAIN_S, self.wake, identifier)
        except Exception:
            LOG.exception("hooks.failed container=%s", identifier)


class ExecReaper:
    """Checks all exec sessions of the inventory, also those of an earlier broker process.

    A session with an open relay is left alone until its time is over. Other sessions (detached, or
    left by their client) are checked each second.
    """

    def __init__(self, *, driver: Driver, state: GateState) -> None:
        self._driver = driver
        self._state = state

    async def run(self) -> None:
        """Check sessions until cancelled."""
        while True:
            await asyncio.sleep(REAP_S)
            for identifier in tuple(self._state.inventory.sessions):
                try:
                    await self._driver.run(container_exec.supervise(self._state, identifier))
                except Exception:
                    # A bug at the end of one session must not keep the others open.
                    LOG.exception("recovery.exec.failed")


def containers_of(line: bytes) -> Iterator[tuple[str, str, bool]]:
    """Yield the container id of an event, its instance label ('' without one), and if it ended.

    Nothing for a malformed line.
    """
    try:
        event: Any = parse_json(line)
        attributes = event["Actor"]["Attributes"]
        is_network = event["Type"] == "network"
        identifier = str(attributes["container"] if is_network else event["Actor"]["ID"])
        has_ended = event.get("Action") in {"die", "destroy"}
        yield identifier, str(attributes.get(names.INSTANCE, "")), has_ended
    except (ValueError, KeyError, TypeError, AttributeError):
        return
