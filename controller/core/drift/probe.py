"""Probing: what a container's http or tcp check says of it, one answer after the other.

Pure, and bounded: a course holds counts and a few instants, however long it goes on. Instants are
seconds of a clock that never jumps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.model.desired.spec import Healthcheck

#: While it starts, a container is asked after so long, then after twice as long, …, at most this.
START_PAUSE_S = 0.25
START_PAUSE_MAX_S = 5.0
#: Turns to unhealthy within so long make each return take one good answer more, at most so many.
FLAP_WINDOW_S = 600.0
FLAPS_MAX = 5
#: An answer needs no more than its first line; more than this is never read.
READ_MAX = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?", re.ASCII)


class Health(StrEnum):
    """The engine's words for the health of a container."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class ProbeOutcome(StrEnum):
    """What one probe came to."""

    GOOD = "good"
    BAD = "bad"  # it answered, or refused to
    UNREACHED = "unreached"  # nobody answered at its address
    UNASKED = "unasked"  # the controller couldn't ask: that says nothing


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe of a container came to; ``said`` is why it isn't good.

    Nothing that a container sent is repeated but a status.
    """

    container: str
    verdict: ProbeOutcome
    said: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question: does this container answer here?

    ``address`` is an IP address, never a name. ``path`` is that of a GET; None: that a connection
    is taken is answer enough. ``timeout_s`` is for all of it.
    """

    container: str
    address: str
    port: int
    path: str | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ProbeProgress:
    """How far the checks of one run of a container are."""

    started: float  # when its process started
    due: float  # when it is to be asked next
    health: Health = Health.STARTING
    proven: bool = False  # it was good once
    good: int = 0  # in a row
    bad: int = 0  # in a row, of those that count
    asked: int = 0  # while it started
    turns: tuple[float, ...] = ()  # when it turned unhealthy of late, oldest first
    said: str = ""  # why it wasn't good the last time; '' once it is


def begin(now: float, *, up_s: float) -> ProbeProgress:
    """Return the course of a container that runs since *up_s* seconds: it is due at once."""
    return ProbeProgress(started=now - max(0.0, up_s), due=now)


def advance(
    progress: ProbeProgress, answer: ProbeResult, check: Healthcheck, now: float
) -> ProbeProgress:
    """Return the course after one more answer, with when the next one is due.

    It is starting until its first good answer. Bad ones don't count within the start period
    before that; ``retries`` of them in a row make it unhealthy. Who turns unhealthy again and again
    needs more than one good answer to be healthy.
    """
    match answer.verdict:
        case ProbeOutcome.GOOD:
            progress = _good(progress, now)
        case ProbeOutcome.BAD | ProbeOutcome.UNREACHED:
            progress = _bad(progress, answer.said, check, now)
        case ProbeOutcome.UNASKED if progress.health is Health.STARTING:
            progress = replace(progress, said=answer.said)
        case ProbeOutcome.UNASKED:
            pass
    return _paused(progress, check, now)


def address_changed(progress: ProbeProgress, now: float) -> ProbeProgress:
    """Return the course of a container that has another address than the one that was asked."""
    progress = replace(progress, bad=0, due=now)
    if progress.health is not Health.UNHEALTHY:
        return progress
    health = Health.HEALTHY if progress.proven else Health.STARTING
    return replace(progress, health=health, turns=progress.turns[:-1], said="")


def _paused(progress: ProbeProgress, check: Healthcheck, now: float) -> ProbeProgress:
    pause_s = check.interval / 1000
    if _starts(progress, check, now):
        quick_s = min(START_PAUSE_MAX_S, START_PAUSE_S * 2.0 ** min(progress.asked, 10))
        return replace(progress, due=now + min(pause_s, quick_s), asked=progress.asked + 1)
    return replace(progress, due=now + pause_s)


def _starts(progress: ProbeProgress, check: Healthcheck, now: float) -> bool:
    return not progress.proven and now < progress.started + check.start_period / 1000


def _good(progress: ProbeProgress, now: float) -> ProbeProgress:
    good = min(progress.good + 1, FLAPS_MAX)
    back = progress.health is not Health.UNHEALTHY or good >= len(_recent(progress, now))
    return replace(
        progress,
        health=Health.HEALTHY if back else progress.health,
        proven=True,
        good=good,
        bad=0,
        said="" if back else progress.said,
    )


def _bad(progress: ProbeProgress, said: str, check: Healthcheck, now: float) -> ProbeProgress:
    counts = not _starts(progress, check, now)
    bad = min(progress.bad + counts, check.retries)
    turns, health = progress.turns, progress.health
    if bad >= check.retries and health is not Health.UNHEALTHY:
        turns = (*_recent(progress, now), now)[-FLAPS_MAX:]
        health = Health.UNHEALTHY
    return replace(progress, health=health, good=0, bad=bad, turns=turns, said=said)


def _recent(progress: ProbeProgress, now: float) -> tuple[float, ...]:
    return tuple(at for at in progress.turns if now - at < FLAP_WINDOW_S)


def request_of(probe: Probe) -> bytes:
    """Return what is sent to ask: one GET, after which the connection is to be closed."""
    host = f"[{probe.address}]" if ":" in probe.address else probe.address
    lines = (
        f"GET {probe.path} HTTP/1.1",
        f"Host: {host}:{probe.port}",
        "User-Agent: trimtab",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def read_status_line(probe: Probe, line: bytes) -> ProbeResult:
    """Return what the first line of an HTTP answer means: 200 to 399 is good."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        return ProbeResult(
            probe.container, ProbeOutcome.BAD, f"port {probe.port} doesn't speak HTTP"
        )
    status = int(match[1])
    if 200 <= status < 400:
        return ProbeResult(probe.container, ProbeOutcome.GOOD)
    return ProbeResult(
        probe.container, ProbeOutcome.BAD, f"port {probe.port} answered with status {status}"
    )
