"""Watching the engine: a container of ours that starts, or is changed, is looked at at once.

Events are hints and carry no facts: an event only says which container to look at. While there is
no stream of them everything is looked at now and then, and anew whenever a stream begins: what
happened meanwhile isn't missed. At most one entry a container of the inventory waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from controller.broker.engine.client import EngineClient
from controller.broker.engine.response import ResponseBroken, ResponseReader
from controller.broker.gate.commands import Lost
from controller.broker.gate.refusals import Answered
from controller.broker.gate.state import GateState
from controller.broker.guards import kernel_verify, split_brain
from controller.broker.server.driver import Driver
from controller.model import names

LOG = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 15.0
#: How often all is looked at while events come, and while none do.
LOOK_S = 300.0
BLIND_LOOK_S = 30.0
LINE_BYTES_MAX = 1024 * 1024
_WANTED = {
    "type": ["container", "network"],
    "event": ["start", "restart", "unpause", "update", "connect"],
}
EVENTS = f"/events?filters={quote(json.dumps(_WANTED, separators=(',', ':')), safe='')}"


class Lookout:
    """Looks at what the engine's events name. One event loop's."""

    def __init__(self, *, driver: Driver, state: GateState, upstream: EngineClient) -> None:
        self._driver = driver
        self._state = state
        self._upstream = upstream
        self._due: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._listening = False

    async def listen(self) -> None:
        """Follow the engine's events until cancelled, whatever becomes of the engine."""
        pause = FIRST_PAUSE_S
        while True:
            stream = await self._upstream.open("GET", EVENTS, b"", mutation=False)
            if isinstance(stream, Lost):
                LOG.debug("lookout.waiting error=%s", stream.reason)
            elif stream.status != HTTPStatus.OK:
                LOG.warning("lookout.refused status=%d", stream.status)
                stream.close()
            else:
                self._listening, pause = True, FIRST_PAUSE_S
                try:
                    self.everything()
                    await self._follow(stream)
                except ResponseBroken as error:
                    LOG.info("lookout.broken error=%s", error)
                finally:
                    self._listening = False
                    stream.close()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def _follow(self, stream: ResponseReader) -> None:
        rest = b""
        async for part in stream.chunks():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                raise ResponseBroken(f"an event is longer than {LINE_BYTES_MAX} bytes")
            for line in lines:
                for identifier, instance in named(line):
                    self.wake(identifier, instance)

    def wake(self, identifier: str, instance: str = "") -> None:
        """Look at a container soon, if it is one of ours; one that only says so is in doubt."""
        if identifier in self._state.inventory.containers:
            self._due[identifier] = None
            self._woken.set()
        elif instance == self._state.instance:
            self._state.split_brain.in_doubt = True
            self._woken.set()

    def everything(self) -> None:
        """Look at every container of ours soon."""
        self._due |= dict.fromkeys(self._state.inventory.containers)
        self._woken.set()

    async def look(self) -> None:
        """Look at what is due, until cancelled; at everything now and then."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self._listening else BLIND_LOOK_S):
                    await self._woken.wait()
            if not self._woken.is_set():
                self.everything()
            self._woken.clear()
            if self._state.split_brain.in_doubt:
                await self._look_around()
            while self._due:
                identifier = next(iter(self._due))
                del self._due[identifier]
                await self._look_at(identifier)

    async def _look_around(self) -> None:
        try:
            await self._driver.run(split_brain.survey(self._state))
        except Answered:
            return  # the engine is away: who changes something looks again
        except Exception:
            LOG.exception("recovery.rivals.failed")
            return
        if self._state.split_brain.rivals:
            LOG.error(
                "state.forked containers=%s", ",".join(sorted(self._state.split_brain.rivals))
            )

    async def _look_at(self, identifier: str) -> None:
        try:
            sight = await self._driver.run(kernel_verify.verify_container(self._state, identifier))
        except Exception:
            # Watching must survive a bug in one container's look: the others wait behind it.
            LOG.exception("lookout.failed container=%s", identifier)
            return
        if sight is not None and sight.breaches:
            LOG.warning("lookout.violation container=%s", identifier)


def named(line: bytes) -> Iterator[tuple[str, str]]:
    """Yield the containers that an event is about, each with its instance's label, where it is told.

    Nothing for what isn't one.
    """
    try:
        told: Any = json.loads(line)
        attributes = told["Actor"]["Attributes"]
        of_network = told["Type"] == "network"
        identifier = str(attributes["container"] if of_network else told["Actor"]["ID"])
        yield identifier, str(attributes.get(names.INSTANCE, ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return
