"""The prober: probes containers by the http and tcp checks of their revisions.

``ProbedEngine`` passes each snapshot to the prober. The prober learns the containers, and adds the
health that the engine doesn't know. A change of health only triggers a pass. Nothing survives a
restart of the controller: every container is probed again, and is starting until its first answer.

Invariants:

- A container is probed by the check of its own revision, at an address in the last snapshot.
- At most ``AT_ONCE`` probes run at a time, one per container.
- An answer of an earlier run of a container is ignored.
- An unreachable container isn't unhealthy while no container was ever reached, or while several are
  probed and none is reached any more. Then the network path is broken, not the container.

Probes over sockets: one thread, many probes at a time, each with a timeout.

Promises: connections go only to the address and port of the probe, never to a host name or to a
redirect's target. At most ``READ_MAX`` bytes are read, and none is kept.
"""

from __future__ import annotations

import errno
import heapq
import ipaddress
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from controller.core.drift import probe_verdict as probing
from controller.core.drift.probe_verdict import (
    READ_MAX,
    Probe,
    ProbeOutcome,
    ProbeProgress,
    ProbeResult,
    read_status_line,
    request_of,
)
from controller.core.engine_api.create_body import joined_networks
from controller.core.engine_api.translate import timestamp_seconds
from controller.core.records import container_effects
from controller.model.desired.desired import Service
from controller.model.desired.spec.container import Healthcheck
from controller.model.errors import Problem, Severity
from controller.model.names import WORKLOADS, Key, NetworkNames
from controller.model.observed import Container, ContainerState, Observed
from controller.ports import Clock, Engine, EngineEvent, ProbeTransport

AT_ONCE = 64
#: How long a container that is missing from snapshots keeps its progress, in case it reappears.
FORGET_S = 60.0
#: This many unreached probes in a row are reported as a problem.
UNREACHED_MIN = 3

_ALIVE = frozenset({ContainerState.RUNNING, ContainerState.PAUSED})


@dataclass(frozen=True, slots=True)
class _Check:
    """The check of one revision, and the network on which its containers are probed."""

    check: Healthcheck
    network: str


@dataclass(slots=True)
class _Watched:
    """One run of one container."""

    key: Key
    revision: str
    address: str
    started: float
    progress: ProbeProgress
    #: When the run disappeared from snapshots; None while it is running.
    gone_at: float | None = None
    asked_at: float = 0.0
    #: When the last probe began, if it reached no process.
    unreached_at: float | None = None


def ignore_change(_key: Key) -> None:
    """Ignore a change of health."""


class Prober:
    """Sends the due probes at each ``step``.

    Thread-safe, but only one thread calls ``step``. *on_change* is called with the key of a
    container whose health changed.
    """

    def __init__(
        self,
        transport: ProbeTransport,
        clock: Clock,
        on_change: Callable[[Key], None] = ignore_change,
    ) -> None:
        self._on_change = on_change
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()
        #: The checks by revision.
        self._checks: dict[str, _Check] = {}
        #: The runs by container id.
        self._watched: dict[str, _Watched] = {}
        #: A heap of due times and container ids; outdated entries are skipped.
        self._due: list[tuple[float, str]] = []
        #: The runs with a probe under way, by container id.
        self._asked: dict[str, _Watched] = {}
        #: When the last probe began that reached its container.
        self._reached: float | None = None
        #: Unreached probes in a row, of any container.
        self._unreached = 0

    # Containers to probe

    def declare(self, services: Iterable[Service], networks: NetworkNames) -> None:
        """Set the checks of declared revisions.

        The check of an undeclared revision is kept while the revision has a container.
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
        """Return a fresh snapshot with the health of probed containers, and start to probe new ones.

        *only* is the service of a snapshot of a single service.
        """
        narrowed = only is not None and only.kind not in WORKLOADS
        with self._lock:
            containers = tuple(self._with_health(container) for container in observed.containers)
            if not narrowed:
                shown = {c.id for c in observed.containers if c.state in _ALIVE}
                self._miss(shown, only)
        return replace(observed, containers=containers)

    def _with_health(self, container: Container) -> Container:
        check = self._checks.get(container.revision)
        started = timestamp_seconds(container.started_at)
        if check is None or container.state not in _ALIVE or started is None:
            return container
        watched = self._watched.get(container.id)
        # An older snapshot shows an earlier run.
        if watched is None or watched.started < started:
            up_s = self._clock.now() - started
            progress = probing.begin(self._clock.monotonic(), up_s=up_s)
            watched = _Watched(container.key, container.revision, "", started, progress)
            self._watched[container.id] = watched
            self._plan(container.id, watched)
        address = _address(container, check.network)
        if address and address != watched.address:
            # Probes of the old address say nothing about the container.
            watched.progress = probing.address_changed(watched.progress, self._clock.monotonic())
            watched.unreached_at = None
            self._plan(container.id, watched)
        watched.address = address
        # A paused container can't answer: probes during a pause don't count.
        if watched.gone_at is not None and container.running:
            now = self._clock.monotonic()
            watched.progress = probing.address_changed(watched.progress, now)
        self._mark_gone(container.id, watched, gone=not container.running)
        progress = watched.progress
        if container.awaits_hooks:  # not ready, whatever the probes show
            return container
        return replace(container, health=progress.health.value, complaint=progress.said)

    def _miss(self, shown: set[str], only: Key | None) -> None:
        """Stop probing containers of *only* (or all) outside of *shown*, and drop them later."""
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
        heapq.heappush(self._due, (watched.progress.due, identifier))
        self._transport.wake()

    # Probing

    def step(self, *, longest_s: float) -> None:
        """Send the due probes, and handle answers; wait for answers at most *longest_s*."""
        with self._lock:
            for probe in self._take_due():
                self._transport.ask(probe)
            wait_s = longest_s if not self._due else self._due[0][0] - self._clock.monotonic()
            full = len(self._asked) >= AT_ONCE
        wait_s = longest_s if full else max(0.0, min(longest_s, wait_s))
        answers = self._transport.answers(wait_s=wait_s)
        with self._lock:
            changed = {
                key for answer in answers if (key := self._handle_answer(answer)) is not None
            }
        for key in sorted(changed):
            self._on_change(key)

    def next_due(self) -> float | None:
        """Return when the next probe is due (monotonic); None without containers to probe."""
        with self._lock:
            return self._due[0][0] if self._due else None

    def wake(self) -> None:
        """End a waiting step, from another thread."""
        self._transport.wake()

    def _take_due(self) -> Iterable[Probe]:
        now = self._clock.monotonic()
        while self._due and self._due[0][0] <= now and len(self._asked) < AT_ONCE:
            due, identifier = heapq.heappop(self._due)
            watched = self._watched.get(identifier)
            if watched is None or watched.progress.due != due or watched.gone_at is not None:
                continue
            if identifier not in self._asked:  # else the answer schedules the next probe
                self._asked[identifier] = watched
                watched.asked_at = now
                check = self._checks[watched.revision].check
                yield _probe(identifier, watched.address, check)

    def _handle_answer(self, answer: ProbeResult) -> Key | None:
        """Handle one answer; return the key of the container if its health changed."""
        asked = self._asked.pop(answer.container)
        watched = self._watched.get(answer.container)
        if watched is None:
            return None
        if watched is not asked or watched.gone_at is not None:
            # The probe is of an earlier run, or the run has ended.
            self._plan(answer.container, watched)
            return None
        answer = self._weigh(answer, watched)
        before, now = watched.progress.health, self._clock.monotonic()
        check = self._checks[watched.revision].check
        watched.progress = probing.advance(watched.progress, answer, check, now)
        self._plan(answer.container, watched)
        return watched.key if watched.progress.health is not before else None

    def _weigh(self, answer: ProbeResult, watched: _Watched) -> ProbeResult:
        """Return the effective answer: an unreached container isn't always the container's fault."""
        match answer.verdict:
            case ProbeOutcome.GOOD | ProbeOutcome.BAD:
                self._reached = max(self._reached or 0.0, watched.asked_at)
                self._unreached, watched.unreached_at = 0, None
            case ProbeOutcome.UNREACHED:
                # The container is bad only if another was reached by a probe that didn't begin
                # earlier. Answers from before the network path broke prove nothing.
                since = watched.asked_at if watched.unreached_at is None else watched.unreached_at
                self._unreached, watched.unreached_at = self._unreached + 1, watched.asked_at
                # With a single container, path and container can't be distinguished.
                proven = self._reached is not None and (
                    self._reached >= since
                    or sum(each.gone_at is None for each in self._watched.values()) == 1
                )
                if not proven:
                    return replace(answer, verdict=ProbeOutcome.UNASKED)
            case ProbeOutcome.UNASKED:
                pass
        return answer

    # Problems

    def problems(self) -> tuple[Problem, ...]:
        """Return the problem that no container can be reached, if so."""
        with self._lock:
            shown = [each for each in self._watched.values() if each.gone_at is None]
            count, before = len(shown), self._reached is not None
            enough = self._unreached >= max(UNREACHED_MIN, count)
            nobody = all(each.unreached_at is not None for each in shown)
        # A single container that was reached before is unhealthy, and no problem of the path.
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
    """Return the address on *network*, else on any network (the policy can have renamed networks)."""
    addresses = dict(container.addresses)
    return addresses.get(network) or next(iter(addresses.values()), "")


def _probe(identifier: str, address: str, check: Healthcheck) -> Probe:
    timeout_s = check.timeout / 1000
    if check.http is not None:
        return Probe(identifier, address, check.http.port, check.http.path, timeout_s)
    assert check.tcp is not None, "what is probed has an http or a tcp check"
    return Probe(identifier, address, check.tcp.port, None, timeout_s)


class ProbedEngine:
    """The engine port, with the health from the controller's own probes, and with stops past the gate.

    A stop past the gate is known from the engine's events alone, while they are followed.
    """

    def __init__(self, engine: Engine, prober: Prober) -> None:
        self._engine = engine
        self.prober = prober
        #: When a container was asked to end, by the last event: ``endings.with_asked``. Replaced whole.
        self._asked: Mapping[str, int] = {}
        self._followed_since_ns = 0
        self.list_containers = engine.list_containers
        self.perform = engine.perform
        self.events = engine.events

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        observed = self._engine.observe(images=images, only=only)
        observed = container_effects.with_asked(observed, self._asked)
        return self.prober.with_health(observed, only=only)

    def follow_events(self, since_ns: int) -> None:
        """Forget the noted events, and note none before *since_ns*.

        An engine that stops asks every container to end, and so does one that begins after it was
        killed. The former ends the subscription, the latter is told in the next one as past.
        """
        self._asked, self._followed_since_ns = {}, since_ns

    def note(self, event: EngineEvent) -> None:
        """Remember an event that asks a container to end; calls don't overlap."""
        if event.time_ns < self._followed_since_ns:
            return
        if event.kind == "container" and container_effects.is_asked(event.action, event.signal):
            others = [each for each in self._asked.items() if each[0] != event.id]
            self._asked = dict(
                [*others, (event.id, event.time_ns)][-container_effects.ENDINGS_MAX :]
            )


_CHUNK = 4096
#: Errors without any answer from the container; every other error comes from the container.
_NOBODY = frozenset(
    {
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPERM,
        errno.ETIMEDOUT,
    }
)
#: Errors of this process: the probe wasn't sent.
_OWN = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(slots=True)
class _Conversation:
    """One probe under way."""

    probe: Probe
    peer: socket.socket
    deadline: float
    to_send: bytes
    connected: bool = False
    read: int = 0
    line: bytearray = field(default_factory=bytearray)


class ProbeSockets:
    """``ports.ProbeTransport`` over TCP."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, _Conversation] = {}
        self._answers: list[ProbeResult] = []
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def close(self) -> None:
        """Drop all probes under way."""
        for conversation in list(self._open.values()):
            self._drop(conversation)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def wake(self) -> None:
        """End a wait, from any thread."""
        with suppress(OSError):  # full: a wake-up is pending; closed: no thread waits
            self._waker.send(b".")

    def ask(self, probe: Probe) -> None:
        """Begin to connect to a probe's container."""
        try:
            address = ipaddress.ip_address(probe.address)
        except ValueError:
            self._answers.append(_unreached(probe))
            return
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            peer = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._answers.append(_failure(probe, error.errno))
            return
        code = peer.connect_ex((str(address), probe.port))
        if code not in {0, errno.EINPROGRESS}:
            peer.close()
            self._answers.append(_failure(probe, code))
            return
        conversation = _Conversation(
            probe,
            peer,
            deadline=self._monotonic() + probe.timeout_s,
            to_send=b"" if probe.path is None else request_of(probe),
        )
        self._open[peer.fileno()] = conversation
        self._selector.register(peer, selectors.EVENT_WRITE, conversation)

    def answers(self, *, wait_s: float) -> list[ProbeResult]:
        """Advance all probes under way, waiting at most *wait_s*; return the results."""
        now = self._monotonic()
        soonest = min((each.deadline for each in self._open.values()), default=now + wait_s)
        wait_s = 0.0 if self._answers else min(wait_s, soonest - now)
        for ready, _ in self._selector.select(max(0.0, wait_s)):
            if ready.data is None:
                with suppress(OSError):
                    self._woken.recv(_CHUNK)
            else:
                self._advance(ready.data)
        now = self._monotonic()
        for late in [each for each in self._open.values() if each.deadline <= now]:
            self._end(late, _timed_out(late))
        answers, self._answers = self._answers, []
        return answers

    def _advance(self, conversation: _Conversation) -> None:
        try:
            if not conversation.connected:
                self._finish_connect(conversation)
            elif conversation.to_send:
                self._send(conversation)
            else:
                self._receive(conversation)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(conversation, _failure(conversation.probe, error.errno))

    def _finish_connect(self, conversation: _Conversation) -> None:
        code = conversation.peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        conversation.connected = True
        if conversation.probe.path is None:
            self._end(conversation, ProbeResult(conversation.probe.container, ProbeOutcome.GOOD))
        else:
            self._send(conversation)

    def _send(self, conversation: _Conversation) -> None:
        sent = conversation.peer.send(conversation.to_send)
        conversation.to_send = conversation.to_send[sent:]
        if not conversation.to_send:
            self._selector.modify(conversation.peer, selectors.EVENT_READ, conversation)

    def _receive(self, conversation: _Conversation) -> None:
        probe, chunk = conversation.probe, conversation.peer.recv(_CHUNK)
        line, ended, _ = chunk.partition(b"\n")
        conversation.line += line
        conversation.read += len(chunk)
        if ended or conversation.read >= READ_MAX:
            self._end(conversation, read_status_line(probe, bytes(conversation.line)))
        elif not chunk:
            said = f"port {probe.port} closed the connection without an answer"
            self._end(conversation, ProbeResult(probe.container, ProbeOutcome.BAD, said))

    def _end(self, conversation: _Conversation, answer: ProbeResult) -> None:
        self._drop(conversation)
        self._answers.append(answer)

    def _drop(self, conversation: _Conversation) -> None:
        del self._open[conversation.peer.fileno()]
        self._selector.unregister(conversation.peer)
        conversation.peer.close()


def _failure(probe: Probe, code: int | None) -> ProbeResult:
    if code in _OWN:
        said = f"the controller can't ask: {os.strerror(code or 0)}"
        return ProbeResult(probe.container, ProbeOutcome.UNASKED, said)
    if code in _NOBODY:
        return _unreached(probe)
    if code == errno.ECONNREFUSED:
        said = f"nothing listens on port {probe.port}"
    else:
        said = f"port {probe.port} broke the connection off"
    return ProbeResult(probe.container, ProbeOutcome.BAD, said)


def _unreached(probe: Probe) -> ProbeResult:
    said = f"nobody answers at {probe.address}" if probe.address else "it has no address"
    return ProbeResult(probe.container, ProbeOutcome.UNREACHED, said)


def _timed_out(conversation: _Conversation) -> ProbeResult:
    probe = conversation.probe
    if not conversation.connected:
        return _unreached(probe)
    said = f"port {probe.port} gave no answer within {probe.timeout_s:g} s"
    return ProbeResult(probe.container, ProbeOutcome.BAD, said)
