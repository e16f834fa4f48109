"""The controller without threads or sockets: the real loop, over the real adapter and gate."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from controller.app.controller import parse_pass_policy
from controller.core.drift.actions import Judge
from controller.core.planning.quarantine import QuarantineRules
from controller.core.service.prune_guard import DesiredView
from controller.engine.adapter import BrokerEngine, PolicyCache
from controller.engine.requests import (
    ConnectionBroken,
    EngineResponse,
    NotSent,
    OutgoingRequest,
)
from controller.loop.control_api import ControlApi
from controller.loop.controller import Controller
from controller.loop.passes import PassPolicy
from controller.loop.prober import ProbedEngine, Prober
from controller.loop.shared_state import ControllerParts
from controller.loop.state.store import StateStore
from controller.loop.workqueue import Chore, PassLock, Triggers
from controller.model.desired.plan import AnyAction, Plan
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Actor, Reply, Request, Role, Verdict
from tests.plans import flat_text
from tests.sim.broker import BrokerDied, NobodyThere, SimBroker
from tests.sim.clock import VirtualClock
from tests.sim.faults import Action
from tests.sim.files import Files, WatchedSource
from tests.sim.probes import SimProbes
from tests.sim.promptness import Promptness, WatchedChores, WatchedKeys
from tests.sim.violation import Violation

JSON, OCTETS = "application/json", "application/octet-stream"
#: One of so many plans is made twice (invariant 9).
PLANS_TWICE = 3
CONTROLLER = Actor(uid=990, gid=990, pid=41, role=Role.CONTROLLER)


class ControllerDied(BaseException):
    """The controller's process ended here."""


def action_of(method: str, path: str) -> Action | None:
    """Return what a request does, None for a look."""
    if method == "GET" or path.startswith("/trimtab/v1/secrets/"):
        return None
    last = path.rpartition("/")[2]
    if last == "proofs":
        return Action.PROVE
    if path == "/images/create":
        return Action.PULL
    if method == "PUT" or path.startswith("/trimtab/v1/secrets/"):
        return Action.DELIVER
    if last == "records":
        return Action.MOVE
    if last == "kill":
        return Action.SIGNAL
    if path.startswith("/volumes"):
        return Action.CREATE_VOLUME
    networks = path.startswith("/networks")
    if method == "DELETE":
        return Action.REMOVE_NETWORK if networks else Action.REMOVE
    if last == "create":
        return Action.CREATE_NETWORK if networks else Action.CREATE
    return Action(f"{last}-{'network' if networks else 'container'}")


def request_of(
    actor: Actor,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: bytes = b"",
    context: str = "",
    kind: str = JSON,
) -> Request:
    """Return a request as the wire would give it."""
    headers = [("host", "docker")]
    if context:
        headers.append(("trimtab-context", context))
    if body or kind != JSON:
        headers.append(("content-type", kind))
    version = "" if path.startswith("/trimtab/") else "/v1.45"
    return Request(method, version + path, urlencode(query or {}), tuple(headers), body, actor)


#: Sends one mutation, whatever happens around it.
Act = Callable[[Action, Request], Reply]


class SimTransport:
    """A ``Transport`` to the broker. A stale pass sees what the one before it of its key saw."""

    def __init__(self, broker: SimBroker, act: Act, seen: Callable[[Request, Reply], None]) -> None:
        self._broker = broker
        self._act = act
        self._look_seen = seen
        self._seen: dict[Key, dict[str, EngineResponse]] = {}
        self._showing: dict[str, EngineResponse] = {}
        self._noting: dict[str, EngineResponse] = {}

    @property
    def stale(self) -> bool:
        """Tell whether an old snapshot is being shown."""
        return bool(self._showing)

    def turn(self, key: Key | None, *, stale: bool) -> None:
        """Begin a pass of *key*, or (None) a look at everything."""
        self._showing = self._seen.get(key, {}) if stale and key is not None else {}
        self._noting = {}
        if key is not None and not self._showing:
            self._seen[key] = self._noting

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let chores look around until the block ends, while a pass goes on."""
        before = self._showing, self._noting
        self._showing, self._noting = {}, {}
        try:
            yield
        finally:
            self._showing, self._noting = before

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        assert request.timeout_s > 0, "a request without a deadline"
        method, path = request.method, request.path
        body = request.data if request.body is None else json.dumps(request.body).encode()
        kind = OCTETS if request.data else JSON
        sent = request_of(
            CONTROLLER, method, path, query=request.query, body=body, context=context, kind=kind
        )
        action = action_of(method, path)
        if action is None:
            return self._look(sent)
        reply = self._sent(lambda: self._act(action, sent))
        return EngineResponse(reply.status, reply.body)

    def _look(self, request: Request) -> EngineResponse:
        what = f"{request.path}?{request.query}"
        if what in self._showing:
            return self._showing[what]
        reply = self._sent(lambda: self._broker.serve(request))
        self._look_seen(request, reply)
        answer = EngineResponse(reply.status, reply.body)
        # The first look of a pass is the one that it plans with.
        self._noting.setdefault(what, answer)
        return answer

    def _sent(self, send: Callable[[], Reply]) -> Reply:
        try:
            return send()
        except NobodyThere as error:
            raise NotSent("no broker answers") from error
        except BrokerDied as error:
            raise ConnectionBroken("the broker hung up") from error

    def stream(self, request: OutgoingRequest, context: str) -> SimStream:
        return SimStream(self.call(request, context))


class SimStream:
    """An answer that came whole, read by lines."""

    def __init__(self, answer: EngineResponse) -> None:
        self.status = answer.status
        self._lines = [line for line in answer.body.splitlines() if line.strip()]

    def lines(self) -> Iterator[bytes]:
        yield from self._lines

    def close(self) -> None:
        self._lines = []


def _remember(judge: Judge) -> Judge:
    """Return *judge* with a memory: no verdict depends on the order of a snapshot."""
    judged: list[tuple[AnyAction, Verdict]] = []

    def remembering(action: AnyAction) -> Verdict:
        for known, verdict in judged:
            if known == action:
                return verdict
        verdict = judge(action)
        judged.append((action, verdict))
        return verdict

    return remembering


class LivelyClock:
    """A ``ports.Timer``: while somebody waits by it, containers are asked for their health."""

    def __init__(self, clock: VirtualClock, prober: Prober) -> None:
        self._clock = clock
        self._prober = prober

    def now(self) -> float:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def pause(self, seconds: float) -> None:
        self._clock.pause(seconds)
        due = self._prober.next_due()
        if due is not None and due <= self._clock.monotonic():
            self._prober.step(longest_s=0.0)


class SimController:
    """One controller process: it begins with what the one before saved."""

    def __init__(
        self,
        *,
        transport: SimTransport,
        probes: SimProbes,
        files: Files,
        memory: Path,
        clock: VirtualClock,
        seed: int,
        reach: Callable[[str], None],
        is_deaf: Callable[[], bool],
        keep_s: float,
    ) -> None:
        self.transport = transport
        self._clock = clock
        self.store = StateStore(memory, reach=reach)
        self.source = WatchedSource(files, lambda: dict(self.store.prune.sources))
        self.published: object = None
        policy = PolicyCache(parse_pass_policy, clock.now)
        triggers = Triggers(clock.monotonic)
        chores = triggers.chores = WatchedChores(clock.monotonic)
        keys = triggers.keys = WatchedKeys(clock.monotonic)
        engine = BrokerEngine(
            transport,
            networks=policy.networks,
            pause=clock.advance,
            reach=reach,
            on_progress=triggers.report_progress,
        )
        files.reach_broker(engine, clock.monotonic)
        prober = Prober(probes, clock, triggers.check)
        self.loop = Controller(
            ControllerParts(
                source=self.source,
                engine=ProbedEngine(engine, prober),
                store=self.store,
                clock=LivelyClock(clock, prober),
                random=random.Random(f"controller {seed}").random,
                triggers=triggers,
                fetch_policy=lambda: policy.update(engine.read_own_route("policy")),
                publish=self._publish,
                quarantine_rules=QuarantineRules(keep_s, "the only boot"),
            )
        )
        self.promptness = Promptness(self.loop, chores, keys, is_deaf)
        self.operator = ControlApi(self.loop, PassLock(), threading.Event())
        self._plan = self.loop.reconciler.plan
        self._plans = itertools.count()
        self.loop.reconciler.plan = self._planned  # type: ignore[method-assign]
        problem = self.store.load(stamp="sim")
        self.loop.begin(problem=problem)
        self.loop.subscribed()

    def _planned(
        self, view: DesiredView, observed: Observed, policy: PassPolicy, **named: Any
    ) -> Plan:
        """Plan, and every so often a second time, from a snapshot in another order."""
        shuffled = replace(
            observed,
            containers=tuple(observed.containers)[::-1],
            networks=observed.networks[::-1],
            volumes=observed.volumes[::-1],
        )
        if shuffled == observed or next(self._plans) % PLANS_TWICE:
            return self._plan(view, observed, policy, **named)
        policy = replace(policy, judge=_remember(policy.judge))
        first = self._plan(view, observed, policy, **named)
        second = self._plan(view, shuffled, policy, **named)
        if first == second:
            return first
        told, told_again = flat_text(first), flat_text(second)
        if told != told_again or first.digest != second.digest:
            raise Violation(9, f"another plan of the same:\n{told}\n{told_again}")
        return first

    def _publish(self, report: object) -> None:
        self.published = report

    def poll(self) -> Chore | Key | Prober | None:
        """Take what is to be done next: chores first, as the supervisor's thread for them does."""
        due = self.loop.prober.next_due()
        asks = due is not None and due <= self._clock.monotonic()
        probing = self.loop.prober if asks else None
        return self.loop.chores.poll() or self.loop.keys.poll() or probing

    def do(self, what: Chore | Key | Prober) -> None:
        """Do it, and hand it back."""
        if isinstance(what, Prober):
            what.step(longest_s=0.0)
        elif isinstance(what, Chore):
            with self.promptness.watching(what):
                self.loop.run_chore(what)
            self.loop.chores.done(what)
        else:
            self.promptness.passing(what, stale=self.transport.stale)
            self.loop.handle(what)
            self.loop.keys.done(what)

    def next_due(self) -> float | None:
        """Return when something delayed comes."""
        dues = [each.next_due() for each in (self.loop.chores, self.loop.keys, self.loop.prober)]
        return min((due for due in dues if due is not None), default=None)
