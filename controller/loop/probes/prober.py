"""The prober: asks containers by the http and tcp checks of their revisions, and knows their health.

It learns of containers from the looks that pass through ``ProbedEngine``, and fills in the health
that the engine doesn't know. A changed word is a hint for a pass, no more. Nothing is remembered
across restarts of the controller: every container is asked anew, and is starting until it answered.

Invariants: a container is asked by the check of its own revision, at an address that the last look
showed; at most ``AT_ONCE`` at a time, each once; an answer that was asked of an earlier run counts
for nothing. That nobody answers at a container's address says nothing of it as long as nobody at all
was reached, nor where others are asked and none of them is reached any more: then the way is lost.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from controller.core.drift import probe as probing
from controller.core.drift.probe import Probe, ProbeOutcome, ProbeProgress, ProbeResult
from controller.core.engine_api.timestamps import seconds
from controller.core.engine_api.translate import joined_networks
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction
from controller.model.desired.spec import Healthcheck
from controller.model.errors import Problem, Severity
from controller.model.names import Key, NetworkNames
from controller.model.observed import Container, ContainerState, Observed
from controller.model.records import Context
from controller.ports import Clock, ContainerSummary, Engine, EngineFacts, Events, ProbeTransport

AT_ONCE = 64
#: A container that a look didn't show may be back in the next one, with all that is known of it.
FORGET_S = 60.0
#: So many probes in a row that reach nobody are told as a problem.
UNREACHED_MIN = 3

_ALIVE = frozenset({ContainerState.RUNNING, ContainerState.PAUSED})


@dataclass(frozen=True, slots=True)
class _Check:
    """How containers of one revision are asked: by what, and on which network."""

    check: Healthcheck
    network: str


@dataclass(slots=True)
class _Watched:
    """One run of one container. ``gone_at``: since when looks don't show that it runs."""

    key: Key
    revision: str
    address: str
    started: float
    course: ProbeProgress
    gone_at: float | None = None
    asked_at: float = 0.0
    in_vain: float | None = None  # when it was asked last, if nobody answered there


class Prober:
    """Asks what is due at each ``step``. Safe to use from several threads; one calls ``step``.

    ``hint`` is told whose health changed.
    """

    def __init__(self, transport: ProbeTransport, clock: Clock) -> None:
        self.hint: Callable[[Key], None] = lambda _key: None
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()
        self._checks: dict[str, _Check] = {}  # by revision
        self._watched: dict[str, _Watched] = {}  # by container id
        self._due: list[tuple[float, str]] = []  # entries that are out of date are passed over
        self._asked: dict[str, _Watched] = {}
        self._reached: float | None = None  # when somebody was asked last who was reached
        self._unreached = 0  # answers in a row, whoever was asked

    # What is to be asked

    def declare(self, services: Iterable[Service], networks: NetworkNames) -> None:
        """Learn the checks of declared revisions; one that isn't declared any more is kept while
        a container of it is there.
        """
        declared = {
            service.revision: _Check(check, joined_networks(service, networks)[0])
            for service in services
            if (check := service.spec.healthcheck) is not None and check.probed
        }
        with self._lock:
            used = {each.revision for each in self._watched.values()}
            kept = {rev: check for rev, check in self._checks.items() if rev in used}
            self._checks = {**kept, **declared}

    def with_health(self, observed: Observed, *, only: Key | None = None) -> Observed:
        """Return a fresh look with the health of what is probed; what it shows is probed from now.

        *only* is the one service whose containers it shows, if it was narrowed.
        """
        narrowed = only is not None and only.kind != "Service"
        with self._lock:
            containers = tuple(self._seen(container) for container in observed.containers)
            if not narrowed:
                shown = {c.id for c in observed.containers if c.state in _ALIVE}
                self._miss(shown, only)
        return replace(observed, containers=containers)

    def _seen(self, container: Container) -> Container:
        check = self._checks.get(container.revision)
        started = seconds(container.started_at)
        if check is None or container.state not in _ALIVE or started is None:
            return container
        watched = self._watched.get(container.id)
        # A look that is older than what is known shows an earlier run.
        if watched is None or watched.started < started:
            up_s = self._clock.now() - started
            course = probing.begin(self._clock.monotonic(), up_s=up_s)
            watched = _Watched(container.key, container.revision, "", started, course)
            self._watched[container.id] = watched
            self._plan(container.id, watched)
        address = _address(container, check.network)
        if address and address != watched.address:
            # What was asked elsewhere since it moved says nothing of it.
            watched.course = probing.address_changed(watched.course, self._clock.monotonic())
            watched.in_vain = None
            self._plan(container.id, watched)
        watched.address = address
        # One that is frozen has no process that could answer.
        self._mark_gone(container.id, watched, gone=not container.running)
        course = watched.course
        return replace(container, health=course.health.value, complaint=course.said)

    def _miss(self, shown: set[str], only: Key | None) -> None:
        """Stop asking those of *only* (or of all) that a look didn't show, and forget them later."""
        now = self._clock.monotonic()
        for identifier, watched in list(self._watched.items()):
            if identifier in shown or only not in {None, watched.key}:
                continue
            self._mark_gone(identifier, watched, gone=True)
            if watched.gone_at is not None and now - watched.gone_at >= FORGET_S:
                del self._watched[identifier]

    def _mark_gone(self, identifier: str, watched: _Watched, *, gone: bool) -> None:
        if gone and watched.gone_at is None:
            watched.gone_at = self._clock.monotonic()
        elif not gone and watched.gone_at is not None:
            watched.gone_at = None
            self._plan(identifier, watched)

    def _plan(self, identifier: str, watched: _Watched) -> None:
        heapq.heappush(self._due, (watched.course.due, identifier))
        self._transport.wake()

    # Asking

    def step(self, *, longest_s: float) -> None:
        """Ask whom it is time to ask, and take the answers that came; wait for some so long at most.

        Changed words are told as hints.
        """
        with self._lock:
            for probe in self._take_due():
                self._transport.ask(probe)
            wait_s = longest_s if not self._due else self._due[0][0] - self._clock.monotonic()
            full = len(self._asked) >= AT_ONCE
        wait_s = longest_s if full else max(0.0, min(longest_s, wait_s))
        answers = self._transport.answers(wait_s=wait_s)
        with self._lock:
            changed = {key for answer in answers if (key := self._answered(answer)) is not None}
        for key in sorted(changed):
            self.hint(key)

    def next_due(self) -> float | None:
        """Return when somebody is to be asked (monotonic), None if nobody is."""
        with self._lock:
            return self._due[0][0] if self._due else None

    def wake(self) -> None:
        """End a step that waits, from another thread."""
        self._transport.wake()

    def _take_due(self) -> Iterable[Probe]:
        now = self._clock.monotonic()
        while self._due and self._due[0][0] <= now and len(self._asked) < AT_ONCE:
            due, identifier = heapq.heappop(self._due)
            watched = self._watched.get(identifier)
            if watched is None or watched.course.due != due or watched.gone_at is not None:
                continue
            if identifier not in self._asked:  # else it is planned again with the answer
                self._asked[identifier] = watched
                watched.asked_at = now
                check = self._checks[watched.revision].check
                yield _probe(identifier, watched.address, check)

    def _answered(self, answer: ProbeResult) -> Key | None:
        """Take one answer; return whose word it changed, if it did."""
        asked = self._asked.pop(answer.container)
        watched = self._watched.get(answer.container)
        if watched is None:
            return None
        if watched is not asked or watched.gone_at is not None:
            # An earlier run was asked, or this one ended meanwhile.
            self._plan(answer.container, watched)
            return None
        answer = self._weighed(answer, watched)
        before, now = watched.course.health, self._clock.monotonic()
        check = self._checks[watched.revision].check
        watched.course = probing.advance(watched.course, answer, check, now)
        self._plan(answer.container, watched)
        return watched.key if watched.course.health is not before else None

    def _weighed(self, answer: ProbeResult, watched: _Watched) -> ProbeResult:
        """Return an answer as it counts: that nobody was there may say nothing of the container."""
        match answer.verdict:
            case ProbeOutcome.GOOD | ProbeOutcome.BAD:
                self._reached = max(self._reached or 0.0, watched.asked_at)
                self._unreached, watched.in_vain = 0, None
            case ProbeOutcome.UNREACHED:
                # It is bad only if somebody was reached who was asked no earlier than it was in
                # vain: what others answered before the way was lost proves nothing.
                since = watched.asked_at if watched.in_vain is None else watched.in_vain
                self._unreached, watched.in_vain = self._unreached + 1, watched.asked_at
                # Of one that is alone the way can't be told apart.
                proven = self._reached is not None and (
                    self._reached >= since or self._count() == 1
                )
                if not proven:
                    return replace(answer, verdict=ProbeOutcome.UNASKED)
            case ProbeOutcome.UNASKED:
                pass
        return answer

    def _count(self) -> int:
        return sum(each.gone_at is None for each in self._watched.values())

    # What is told

    def problems(self) -> tuple[Problem, ...]:
        """Return what keeps it from asking at all, if something does."""
        with self._lock:
            shown = [each for each in self._watched.values() if each.gone_at is None]
            count, before = len(shown), self._reached is not None
            enough = self._unreached >= max(UNREACHED_MIN, count)
            nobody = all(each.in_vain is not None for each in shown)
        # Where one is alone, that it was reached before is enough to call it unhealthy.
        if not (shown and enough and nobody) or (before and count == 1):
            return ()
        if before:
            reached = "reached from here any more"
            remedy = (
                "look at this host's routes, firewall and the engine's networks; until one answers, "
                "nothing turns unhealthy"
            )
        else:
            reached = "reached from here"
            remedy = (
                "use exec: [...] in spec.healthcheck: an engine in a VM, rootless or remote keeps "
                "its containers' addresses to itself"
            )
        message = f"none of {count} containers with an http or tcp check can be {reached}"
        code = "healthcheck.unreachable"
        return (Problem(code, message, remedy=remedy, severity=Severity.WARNING),)


def _address(container: Container, network: str) -> str:
    """Return the address on its first network, else (a policy names networks anew) on any."""
    addresses = dict(container.addresses)
    return addresses.get(network) or next(iter(addresses.values()), "")


def _probe(identifier: str, address: str, check: Healthcheck) -> Probe:
    timeout_s = check.timeout / 1000
    if check.http is not None:
        return Probe(identifier, address, check.http.port, check.http.path, timeout_s)
    assert check.tcp is not None, "what is probed has an http or a tcp check"
    return Probe(identifier, address, check.tcp.port, None, timeout_s)


class ProbedEngine:
    """The engine port, its looks with the health of what the controller probes itself."""

    def __init__(self, engine: Engine, prober: Prober) -> None:
        self._engine = engine
        self.prober = prober

    def facts(self) -> EngineFacts:
        return self._engine.facts()

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        observed = self._engine.observe(images=images, only=only)
        return self.prober.with_health(observed, only=only)

    def list_containers(self) -> frozenset[ContainerSummary]:
        return self._engine.list_containers()

    def perform(self, action: AnyAction, context: Context) -> str:
        return self._engine.perform(action, context)

    def events(self, *, since_ns: int) -> Events:
        return self._engine.events(since_ns=since_ns)
