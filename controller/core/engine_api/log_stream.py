"""The engine's log and exec streams: from bytes to lines in order.

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
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeVar

from controller.model.container_output import LogLine, StreamName

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
