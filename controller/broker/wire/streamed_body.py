"""A body too long for memory, read piece by piece. No sockets here.

As in ``request_reader``, two parsers must agree: the checks of this module, and llhttp.
"""

from __future__ import annotations

import re

import httptools

from controller.broker.wire.request_reader import BodyStream, Malformed

_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
#: Chunks that may be small: clients send a header of an archive as a chunk of its own.
SMALL_CHUNKS_MAX, CHUNK_BYTES = 4096, 128
_LINE_MAX = 10


class StreamedBody:
    """The body of one request. Call ``first``, then ``feed`` with the bytes after those."""

    def __init__(self, request: BodyStream) -> None:
        head = request.head
        #: The longest body in bytes. The route sets it before it reads.
        self.most = 0
        #: True at the end of the body.
        self.complete = head.length == 0
        #: Whether the client waits for ``100 Continue``.
        self.wants_continue = head.expects_continue and not request.first
        self._first = request.first
        self._head = head
        self._left = head.length
        self._size = self._chunks = 0
        #: Of a chunked body: an unfinished line, and the bytes left of a chunk with its end.
        self._line = b""
        self._in_chunk = 0
        self._second: list[bytes] = []
        self._ended = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(request.raw_head)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body from llhttp."""
        self._second.append(body)

    def on_message_complete(self) -> None:
        """Take the end of the body from llhttp."""
        self._ended = True

    def first(self) -> bytes | Malformed:
        """Return the part of the body that came with the head."""
        first, self._first = self._first, b""
        return self.feed(first) if first else b""

    def feed(self, data: bytes) -> bytes | Malformed:
        """Return the part of the body in *data*, or why the body is refused."""
        if self.complete:
            return Malformed("wire.pipelined", "bytes follow the request before it was answered")
        part = self._chunked(data) if self._left is None else self._plain(data)
        if isinstance(part, Malformed):
            return part
        self._size += len(part)
        if self._size > self.most:
            return Malformed("wire.body-size", f"the body passes {self.most} bytes", 413)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            return _DISAGREE
        second, self._second = b"".join(self._second), []
        return part if second == part and self._ended == self.complete else _DISAGREE

    def _plain(self, data: bytes) -> bytes | Malformed:
        assert self._left is not None
        if self._head.length is not None and self._head.length > self.most:
            return Malformed("wire.body-size", f"the body passes {self.most} bytes", 413)
        if len(data) > self._left:
            return Malformed("wire.pipelined", "bytes follow the request before it was answered")
        self._left -= len(data)
        self.complete = self._left == 0
        return data

    def _chunked(self, data: bytes) -> bytes | Malformed:
        parts: list[bytes] = []
        at = 0
        while at < len(data):
            if self.complete:
                return Malformed(
                    "wire.pipelined", "bytes follow the request before it was answered"
                )
            if self._in_chunk > 2:
                part = data[at : at + self._in_chunk - 2]
                parts.append(part)
                at += len(part)
                self._in_chunk -= len(part)
                continue
            end = data.find(b"\n", at, at + _LINE_MAX + 1)
            stop = end + 1 if end >= 0 else len(data)
            self._line += data[at:stop]
            at = stop
            if not self._line.endswith(b"\n"):
                if len(self._line) > _LINE_MAX:
                    return _BAD_CHUNK
                continue
            refused = self._end_line()
            if refused is not None:
                return refused
        return b"".join(parts)

    def _end_line(self) -> Malformed | None:
        line, self._line = self._line, b""
        if self._in_chunk == 2:  # the end of a chunk
            self._in_chunk = 0
            if line != b"\r\n":
                return Malformed("wire.chunk", "the chunk is longer than it says")
            return None
        if self._in_chunk < 0:  # the end of the last chunk
            self.complete = True
            return None if line == b"\r\n" else Malformed("wire.chunk", "trailers aren't taken")
        if not line.endswith(b"\r\n") or not (size := _CHUNK_SIZE.fullmatch(line[:-2])):
            return _BAD_CHUNK
        length = int(size[0], 16)
        self._chunks += 1
        if self._chunks > SMALL_CHUNKS_MAX + self._size // CHUNK_BYTES:
            return Malformed("wire.body-size", "the body has too many small chunks", 413)
        self._in_chunk = length + 2 if length else -1
        return None


_DISAGREE = Malformed("wire.ambiguous", "two parsers read the request differently")
_BAD_CHUNK = Malformed("wire.chunk", "a chunk's size isn't a plain hexadecimal number")
