"""An instance in one process: the real loop, adapter and gate over the simulated engine.

No threads, sockets or faults; time is virtual. Counts are thus the same in every run.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from controller.app.controller import parse_pass_policy
from controller.broker.gate.commands import Command, Forward, Lost, ReadProcess
from controller.core.admission.create import judge_create
from controller.core.planning.quarantine import QuarantineRules
from controller.engine.adapter import BrokerEngine, PolicyCache
from controller.engine.requests import EngineResponse, OutgoingRequest
from controller.engine.responses import event_of
from controller.loop.controller import Controller
from controller.loop.prober import ProbedEngine, Prober
from controller.loop.shared_state import ControllerParts
from controller.loop.state.store import StateStore
from controller.loop.workqueue import Triggers
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.records import Reply
from controller.ports import EngineFacts
from controller.sources.directory import DirectorySource
from tests.sim import kernel
from tests.sim.broker import Places, SimBroker
from tests.sim.clock import VirtualClock
from tests.sim.controller import CONTROLLER, SimStream, request_of
from tests.sim.engine import SimEngine
from tests.sim.ground import LOCAL, POLICY
from tests.sim.journal import SimJournal
from tests.sim.probes import SimProbes

_STEP_S: Final = 0.05


class Wire:
    """The engine's side of the broker, and the controller's transport to the broker."""

    reachable = True

    def __init__(self, engine: SimEngine) -> None:
        self._engine = engine
        self.broker: SimBroker | None = None
        #: The controller's requests so far: method and path.
        self.requests: list[tuple[str, str]] = []
        #: The paths that the broker read from the engine so far.
        self.reads: list[str] = []

    # The broker's outside

    def look(self, path: str) -> Reply | Lost:
        self.reads.append(path)
        return Reply(*self._engine.call("GET", path))

    def forward(self, command: Forward) -> Reply | Lost:
        status, body = self._engine.call(command.method, command.path, command.body or None)
        return Reply(status, body, (("content-type", "application/json"),))

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable:
        return kernel.process(self._engine, command)

    def before(self, command: Command) -> None:
        """Nothing happens before a command."""

    def after(self, command: Command) -> None:
        """Nothing happens after a command."""

    def broker_died(self) -> None:
        raise AssertionError("the broker doesn't die here")

    # The controller's transport

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        assert self.broker is not None, "the broker is built before the controller"
        self.requests.append((request.method, request.path))
        body = b"" if request.body is None else json.dumps(request.body).encode()
        reply = self.broker.serve(
            request_of(
                CONTROLLER,
                request.method,
                request.path,
                query=request.query,
                body=body,
                context=context,
            )
        )
        return EngineResponse(reply.status, reply.body)

    def stream(self, request: OutgoingRequest, context: str) -> SimStream:
        return SimStream(self.call(request, context))


class SimulatedInstance:
    """One instance on a folder with the desired state."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock()
        self.engine = SimEngine(self.clock, images=LOCAL)
        self.wire = Wire(self.engine)
        facts = EngineFacts(self.engine.engine_id, "26.1.5", "1.45", 4, 16 << 30)
        ids = random.Random(0)  # noqa: S311 - ids of a simulation
        journal = SimJournal(self.clock, lambda _record, _line: None)
        places = Places(self.clock, journal, POLICY, facts, lambda: _uuid(self.clock, ids))
        self.wire.broker = self.broker = SimBroker(places, self.wire)
        self.loop = self._controller(folder)
        self._heard = 0

    def _controller(self, folder: Path) -> Controller:
        policy = PolicyCache(parse_pass_policy, self.clock.now)
        triggers = Triggers(self.clock.monotonic)
        engine = BrokerEngine(self.wire, networks=policy.networks, pause=self.clock.advance)
        prober = Prober(SimProbes(self.engine), self.clock, triggers.check)
        store = StateStore(folder.parent / "state.json")
        loop = Controller(
            ControllerParts(
                source=DirectorySource(folder),
                engine=ProbedEngine(engine, prober),
                store=store,
                clock=self.clock,
                random=random.Random(1).random,  # noqa: S311 - jitter of a simulation
                triggers=triggers,
                fetch_policy=lambda: policy.update(engine.read_own_route("policy")),
                publish=lambda _report: None,
                quarantine_rules=QuarantineRules(0, "the only boot"),
            )
        )
        store.load(stamp="bench")
        loop.begin()
        loop.subscribed()
        return loop

    def live(self, seconds: float) -> None:
        """Let virtual time pass, with everything that is due."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.engine.settle()
            self.hear()
            if (chore := self.loop.chores.poll()) is not None:
                self.loop.run_chore(chore)
                self.loop.chores.done(chore)
            elif (key := self.loop.keys.poll()) is not None:
                self.loop.handle(key)
                self.loop.keys.done(key)
            else:
                self.clock.advance(_STEP_S)

    def hear(self) -> None:
        """Pass the engine's new events on, as hints."""
        fresh = [event for event in self.engine.events if event["timeNano"] > self._heard]
        for raw in fresh:
            self._heard = raw["timeNano"]
            if (event := event_of(raw)) is not None:
                self.loop.handle_event(event)


class Calls:
    """How often a function is called, whatever name its importers give it."""

    def __init__(self, function: Any) -> None:
        self._code = function.__code__
        self.count = 0

    def notice(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Count a call; a profile function."""
        self.count += event == "call" and frame.f_code is self._code


@contextmanager
def counted_judgements() -> Iterator[Calls]:
    """Count the full judgements of creates, in both processes, during the block."""
    calls = Calls(judge_create)
    sys.setprofile(calls.notice)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def _uuid(clock: VirtualClock, ids: random.Random) -> str:
    """Return a UUIDv7 of virtual time."""
    value = (round(clock.now() * 1000) & (2**48 - 1)) << 80 | ids.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
