"""Probing: the health of a container by its http or tcp check, one probe result after the other.

Pure and bounded: the progress of a check has counts and a few instants. Instants are seconds of a
clock without jumps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.model.desired.spec.container import Healthcheck

#: The pause between probes while a container starts; it doubles up to the maximum.
START_PAUSE_S = 0.25
START_PAUSE_MAX_S = 5.0
#: Each turn to unhealthy within this time makes a recovery need one more good result, up to a
#: limit.
FLAP_WINDOW_S = 600.0
FLAPS_MAX = 5
#: The most bytes that are read of a response. Only its first line matters.
READ_MAX = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?", re.ASCII)


class Health(StrEnum):
    """The engine's words for the health of a container."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class ProbeOutcome(StrEnum):
    """The outcome of one probe."""

    GOOD = "good"
    #: The container responded, or refused the connection.
    BAD = "bad"
    #: Nothing responded at the address.
    UNREACHED = "unreached"
    #: The controller could not probe; the container's health is unknown.
    UNASKED = "unasked"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe of a container."""

    container: str
    verdict: ProbeOutcome
    #: Why the result is not good. Of the response only the status is repeated.
    said: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A single probe of a container."""

    container: str
    #: An IP address, never a name.
    address: str
    port: int
    #: The path of a GET; None: an accepted connection is a good result.
    path: str | None
    #: For the whole probe.
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ProbeProgress:
    """The progress of the checks in one run of a container."""

    #: The start of the process.
    started: float
    #: The instant of the next probe.
    due: float
    health: Health = Health.STARTING
    #: True once a result was good.
    proven: bool = False
    #: Good results in a row.
    good: int = 0
    #: Bad results in a row that count.
    bad: int = 0
    #: Probes during the start.
    asked: int = 0
    #: Recent turns to unhealthy, oldest first.
    turns: tuple[float, ...] = ()
    #: Why the last result was not good; '' after a good one.
    said: str = ""


def begin(now: float, *, up_s: float) -> ProbeProgress:
    """Return the progress of a container that has run for *up_s* seconds. Its first probe is due at
    once.
    """
    return ProbeProgress(started=now - max(0.0, up_s), due=now)


def advance(
    progress: ProbeProgress, answer: ProbeResult, check: Healthcheck, now: float
) -> ProbeProgress:
    """Return the progress after a probe result, with the instant of the next probe.

    The health is starting until the first good result. Earlier bad results don't count within the
    start period. After ``retries`` bad results in a row the health is unhealthy. After repeated
    turns to unhealthy, the recovery needs more than one good result.
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
    """Return the progress of a container with a new address: results from the old one don't count."""
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
    """Return the bytes of a probe's request: a GET, with the connection closed afterwards."""
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
    """Return the result for the first line of an HTTP response: 200 to 399 is good."""
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
