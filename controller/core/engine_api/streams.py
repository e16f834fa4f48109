"""Streams of the engine: lines of logs and execs, and the progress of pulls and builds.

The log of a build, from the lines of the engine: the step it is at, and its last lines.

The reason of a failed pull, from the error text of the engine.

The engine forwards the text of a registry, a proxy or the network. The first row with a pattern in
that text decides on the code, the next actor and the remedy. The image's own name in the text is
ignored. The patterns come from a real engine (Docker 26.1), except for those marked [docs].

The progress of a pull, from the lines of the engine.

A line is progress if it changes the state of a layer or of the whole pull. The countdown to the
next retry is not progress. Otherwise a pull from an unresponsive registry would never be aborted.

The engine sends the output of a container without a terminal in frames: a byte for the stream,
three zero bytes, the length of the payload (32 bits, big-endian), the payload (Engine API, "Attach
to a container"). A frame of a log is one message of the log driver, which splits longer lines. The
output of a container with a terminal has no frames. With timestamps, each message begins with its
time.

Memory is bounded: a frame has at most ``FRAME_MAX`` bytes, and a longer line is split at
``LINE_MAX``.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from controller.core.encoding.identifiers import parse_reference
from controller.core.encoding.json_values import parse_json
from controller.core.encoding.text import printable_name
from controller.model.container_output import LogLine, StreamName
from controller.model.errors import Act

#: Lines that are kept for an error, and letters of each.
KEPT_LINES: Final = 20
_LETTERS: Final = 200
_STEP: Final = re.compile(r"Step ([0-9]+/[0-9]+) : (.+)")
#: What the builder says of containers and layers.
_NOISE: Final = re.compile(r" ---> .*")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class BuildLog:
    """The log of a build so far."""

    #: Such as ``step 3/9, RUN make``; '' before the first one.
    step: str = ""
    lines: tuple[str, ...] = ()
    #: The last bytes without an end of a line.
    rest: str = ""


def advance_build(log: BuildLog, line: bytes) -> BuildLog:
    """Return the log after a line of the engine's answer."""
    try:
        told = parse_json(line)
    except ValueError:
        return log
    text = told.get("stream") if isinstance(told, dict) else None
    if not isinstance(text, str):
        return log
    *whole, rest = (log.rest + _COLOUR.sub("", text)).split("\n")
    step, lines = log.step, log.lines
    for each in whole:
        if match := _STEP.fullmatch(each.strip()):
            step = printable_name(f"step {match[1]}, {match[2]}"[:_LETTERS])
        if each.strip() and not _NOISE.fullmatch(each):
            lines = (*lines, printable_name(each.rstrip()[:_LETTERS]))[-KEPT_LINES:]
    return BuildLog(step, lines, rest[-_LETTERS:])


def describe_build(image: str, log: BuildLog) -> str:
    """Return how far a build is."""
    return f"{image}: {log.step or 'sending the context'}"


NOT_FOUND = "image.notfound"
DENIED = "image.denied"
RATE_LIMITED = "image.rate-limited"
REGISTRY = "image.registry"
DISK = "image.disk"
PLATFORM = "image.other-platform"
DAMAGED = "image.damaged"
PULL_ERROR_OTHER = "image.pull-failed"
#: The broker's error for a pull that it aborted.
NO_PROGRESS = "made no progress"


@dataclass(frozen=True, slots=True)
class Access:
    """The registries with credentials in the broker, and the file. No secrets."""

    file: str = ""
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PullFailure:
    """A failed pull: code, next actor, reason and remedy."""

    code: str
    act: Act
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Kind:
    code: str
    act: Act
    what: str
    remedy: str  # {host} and {image} are filled in
    pattern: re.Pattern[str]


def _kind(code: str, act: Act, what: str, remedy: str, *patterns: str) -> _Kind:
    return _Kind(code, act, what, remedy, re.compile("|".join(patterns), re.IGNORECASE))


_KINDS = (
    # First of all: the text about a full disk is in the middle of other texts.
    _kind(
        DISK,
        Act.STALLED,
        "there is no space for it on the engine's disk",
        "free space where the engine keeps its data (docker info shows the folder)",
        "no space left on device",
        "disk quota exceeded",
    ),
    # Before DENIED, because registries also phrase a limit as a denial.
    _kind(
        RATE_LIMITED,
        Act.RETRY,
        "its registry limits the rate of requests",
        "wait, or pull with an account that may more",
        "toomanyrequests",
        "too many requests",
        r"\brate limit",
    ),
    # "pull access denied" also stands for a missing repository: only the registry knows.
    _kind(
        DENIED,
        Act.STALLED,
        "its registry refuses these credentials",
        "",
        r"(?<!permission )\bdenied\b",
        r"\bunauthorized\b",
        "no basic auth credentials",
        "authentication required",
        "incorrect username or password",
        "status: 40[13]",
        r"token (?:has|is) expired",  # [docs]
    ),
    _kind(
        PLATFORM,
        Act.STALLED,
        "there is none for this host's platform",
        "build it for this platform, or name another image",
        "no matching manifest for",
        "does not match the specified platform",  # [docs]
    ),
    _kind(
        NOT_FOUND,
        Act.STALLED,
        "its registry has no such image",
        "push it, or correct the image's name",
        r"manifest unknown",
        r"\bnot found\b",
        r"name unknown",
        "repository name not known",
        "status: 404",
    ),
    _kind(
        DAMAGED,
        Act.RETRY,
        "its registry sends unusable data",
        "push the image again, or look at its registry",
        "verification failed",
        "unknown blob",
        r"mediatype in manifest",
        "media type",
        "invalid checksum",
        "failed to register layer",
    ),
    _kind(
        REGISTRY,
        Act.RETRY,
        "its registry can't be reached",
        "look at the registry {host}, and at this host's network and names",
        "connection refused",
        "connection reset",
        "no such host",
        r"\blookup\b",
        "i/o timeout",
        "timeout",
        "deadline exceeded",
        r"\bEOF\b",
        "unreachable",
        "no route to host",
        "x509:",
        r"\btls:",
        "HTTP response to HTTPS client",
        "unexpected HTTP status: 5",
        NO_PROGRESS,
    ),
    _kind(PULL_ERROR_OTHER, Act.RETRY, "the pull failed", "look at the engine's log", ""),
)
#: Who acts next, by code.
PULL_ERROR_ACTS = {kind.code: kind.act for kind in _KINDS}


#: Failures for which a local image of the same name is a way out.
_REMOTE = frozenset({REGISTRY, DENIED, NOT_FOUND, RATE_LIMITED})


def explain_pull_error(
    reference: str, text: str, *, access: Access = Access(), is_local: bool = False
) -> PullFailure:
    """Return the failure for the engine's error *text* on the pull of *reference* (canonical).

    *is_local*: the engine has a local image of this name, without trust.
    """
    kind = _kind_of(reference, text)
    host = parse_reference(reference).host
    remedy = kind.remedy.format(host=host)
    if kind.code == DENIED:
        remedy = _credentials(host, access)
    if is_local and kind.code in _REMOTE:
        remedy += f"; to use the engine's local image of this name: trimtab image trust {reference}"
    return PullFailure(kind.code, kind.act, f"{reference}: {kind.what}: {text}", remedy)


def pull_error_code(reference: str, text: str) -> str:
    """Return the code of a failed pull."""
    return _kind_of(reference, text).code


def _kind_of(reference: str, text: str) -> _Kind:
    # An image may be called "denied".
    for name in sorted(_names(reference), key=len, reverse=True):
        text = text.replace(name, "IMAGE")
    return next(kind for kind in _KINDS if kind.pattern.search(text))


def _names(reference: str) -> set[str]:
    parsed = parse_reference(reference)
    return {reference, parsed.repository, parsed.path}


def _credentials(host: str, access: Access) -> str:
    if host in access.hosts:
        return f"check that the credentials for {host} in {access.file} are right and still valid"
    if access.file:
        return f"add credentials for {host} to {access.file}, or correct the image's name"
    return f"give the broker credentials for {host} (--registry-auth), or correct the image's name"


#: Further layers are ignored.
LAYERS_MAX = 1024
_MEBIBYTE = 1024 * 1024
_DONE = frozenset({"Pull complete", "Already exists"})
_BEGINS = "Pulling from"
_RETRYING = "Retrying"
_DOWNLOADING = "Downloading"
_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete", "Extracting", "Pull complete"})


@dataclass(frozen=True, slots=True)
class Layer:
    """The last state of a layer, and its downloaded bytes."""

    status: str
    current: int = 0
    total: int = 0
    detail: int = 0  # the progress of the current step


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a pull so far."""

    layers: Mapping[str, Layer] = field(default_factory=lambda: MappingProxyType({}))
    said: str = ""  # the last line without a layer


def advance_pull(progress: PullProgress, line: bytes) -> PullProgress:
    """Return the progress after a line; the same object if the line shows none."""
    try:
        value = parse_json(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return _said(progress, line.decode("utf-8", "replace"))
    status, name = str(value.get("status") or ""), str(value.get("id") or "")
    if not name or status.startswith(_BEGINS):
        return _said(progress, str(value.get("error") or status))
    before = progress.layers.get(name)
    if before is None and len(progress.layers) >= LAYERS_MAX:
        return progress
    after = _layer(before or Layer(""), status, value.get("progressDetail"))
    if after == before:
        return progress
    return replace(progress, layers=MappingProxyType({**progress.layers, name: after}))


def describe_pull(progress: PullProgress) -> str:
    """Return the progress as text: ``3 of 7 layers, 41 of 120 MiB``."""
    layers = progress.layers.values()
    if not layers:
        return "asking its registry"
    done = sum(layer.status in _DONE for layer in layers)
    parts = [f"{done} of {len(layers)} layers"]
    total = sum(layer.total for layer in layers)
    if total:
        here = sum(min(layer.current, layer.total) for layer in layers)
        parts.append(f"{here // _MEBIBYTE} of {max(1, round(total / _MEBIBYTE))} MiB")
    if any(layer.status == _RETRYING for layer in layers):
        parts.append("its registry failed, trying again")
    return ", ".join(parts)


def _said(progress: PullProgress, what: str) -> PullProgress:
    return progress if what == progress.said else replace(progress, said=what)


def _layer(before: Layer, status: str, detail: object) -> Layer:
    if status.startswith(_RETRYING):
        return Layer(_RETRYING, total=before.total)
    current, total = _numbers(detail)
    if status == _DOWNLOADING:
        return Layer(status, current=current, total=total or before.total, detail=current)
    if status in _DOWNLOADED:
        return Layer(status, current=before.total, total=before.total, detail=current)
    return Layer(status, before.current, before.total, current)


def _numbers(detail: object) -> tuple[int, int]:
    if not isinstance(detail, dict):
        return 0, 0
    return _number(detail.get("current")), _number(detail.get("total"))


def _number(value: Any) -> int:
    known = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if known else 0


T = TypeVar("T")
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
HEADER_BYTES = 8
FRAME_MAX = 1024 * 1024
LINE_MAX = 64 * 1024
#: By the first byte of a frame; 3 is for errors of the engine.
_STREAMS: dict[int, StreamName] = {0: "stdout", 1: "stdout", 2: "stderr", 3: "stderr"}
_TIMED = re.compile(rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{9}Z) ", re.ASCII)


class BadFrame(ValueError):
    """A stream without the framing of the engine."""


def is_multiplexed(data: bytes) -> bool:
    """Return True if *data* begins with the header of a frame."""
    return len(data) >= HEADER_BYTES and data[0] in _STREAMS and data[1:4] == b"\0\0\0"


class Frames:
    """Splits a multiplexed stream into the payloads of its frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[StreamName, bytes]]:
        """Return the frames completed by *data*.

        Raises:
            BadFrame: a header is invalid, or its frame is longer than ``FRAME_MAX``.
        """
        data = self._rest + data
        frames: list[tuple[StreamName, bytes]] = []
        at = 0
        while len(data) - at >= HEADER_BYTES:
            if not is_multiplexed(data[at : at + HEADER_BYTES]):
                raise BadFrame(f"no header of a frame: {data[at : at + HEADER_BYTES]!r}")
            size = int.from_bytes(data[at + 4 : at + HEADER_BYTES], "big")
            if size > FRAME_MAX:
                raise BadFrame(f"a frame of {size} bytes, more than {FRAME_MAX}")
            end = at + HEADER_BYTES + size
            if end > len(data):
                break
            frames.append((_STREAMS[data[at]], data[at + HEADER_BYTES : end]))
            at = end
        self._rest = data[at:]
        return frames


class LogLines:
    """Reads the lines of one container's log, requested with timestamps."""

    def __init__(self, *, multiplexed: bool) -> None:
        self._frames = Frames() if multiplexed else None
        self._open: dict[StreamName, _OpenLine] = {}

    def feed(self, data: bytes) -> list[LogLine]:
        """Return the lines completed by *data*.

        Raises:
            BadFrame: *data* is not framed as expected.
        """
        if self._frames is None:
            return self._add("stdout", data, is_message=False)
        messages = self._frames.feed(data)
        return [line for name, text in messages for line in self._add(name, text, is_message=True)]

    def finish(self) -> list[LogLine]:
        """Return the lines without an end, after the end of the stream."""
        timed = self._frames is None
        return [
            line for name, opened in self._open.items() for line in opened.finish(name, timed=timed)
        ]

    def _add(self, name: StreamName, data: bytes, *, is_message: bool) -> list[LogLine]:
        return self._open.setdefault(name, _OpenLine()).add(name, data, is_message=is_message)


class _OpenLine:
    """The bytes of one stream since the last end of a line."""

    def __init__(self) -> None:
        self._data = b""
        self._time = ""
        self._is_cut = False  # the next bytes continue a line split at LINE_MAX

    def add(self, name: StreamName, data: bytes, *, is_message: bool) -> list[LogLine]:
        if is_message:  # each message starts with its time, also within a line
            data = self._without_time(data, keep=bool(self._data) or self._is_cut)
        self._data += data
        *whole, self._data = self._data.split(b"\n")
        lines = [self._line(name, line, timed=not is_message) for line in whole]
        while len(self._data) > LINE_MAX:
            cut, self._data = self._data[:LINE_MAX], self._data[LINE_MAX:]
            lines.append(self._line(name, cut, timed=not is_message))
            self._is_cut = True
        return lines

    def finish(self, name: StreamName, *, timed: bool) -> list[LogLine]:
        data, self._data = self._data, b""
        return [self._line(name, data, timed=timed)] if data else []

    def _line(self, name: StreamName, data: bytes, *, timed: bool) -> LogLine:
        # The rest of a split line is the container's text, even if it looks like a time.
        if timed and not self._is_cut:
            data = self._without_time(data, keep=False)
        self._is_cut = False
        # A terminal ends lines with \r\n.
        text = data.removesuffix(b"\r").decode(errors="backslashreplace")
        return LogLine(self._time, name, text)

    def _without_time(self, data: bytes, *, keep: bool) -> bytes:
        """Remove the time at the beginning; with *keep*, keep the time of the continued line."""
        match = _TIMED.match(data)
        if match is None:
            return data
        if not keep:
            self._time = match[1].decode()
        return data[match.end() :]


def merge(streams: Iterable[Iterable[tuple[T, LogLine]]]) -> Iterator[tuple[T, LogLine]]:
    """Yield the lines of several containers by time. Holds one line of each in memory."""
    return heapq.merge(*streams, key=lambda each: each[1].time)


def engine_time(time: str, *, later_ns: int = 0) -> str:
    """Return an RFC 3339 time in UTC in the form of ``since`` and ``until`` of a log: seconds.

    *later_ns* is added, because the engine's ``since`` includes its own instant.
    """
    seconds, rest = divmod(nanoseconds(time) + later_ns, 1_000_000_000)
    return f"{seconds}.{rest:09d}"


def nanoseconds(time: str) -> int:
    """Return an RFC 3339 time in UTC as nanoseconds since the epoch.

    Raises:
        ValueError: *time* is not RFC 3339.
    """
    whole, _, fraction = time.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000_000 + int(f"{fraction:0<9}"[:9])
