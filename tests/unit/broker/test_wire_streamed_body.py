"""Bodies that are read piece by piece."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker.gate.routes import body_limit
from controller.broker.wire import (
    LAST_CHUNK,
    SMALL_CHUNKS_MAX,
    Malformed,
    ParsedRequest,
    RequestReader,
    StreamedBody,
    chunk,
)

MOST = 1 << 20
CHUNKED = "Transfer-Encoding: chunked"


def begun(first: bytes = b"", *headers: str) -> StreamedBody:
    """Return the body of a build that begins with these bytes."""
    head = "\r\n".join(["POST /v1.45/build?t=x HTTP/1.1", "Host: d", *headers]) + "\r\n\r\n"
    reader = RequestReader(body_limit)
    reader.feed(head.encode() + first)
    request = reader.poll()
    assert isinstance(request, ParsedRequest)
    assert request.streamed is not None
    assert (request.body, request.keep_alive) == (b"", False)
    body = StreamedBody(request.streamed)
    body.most = MOST
    return body


def read(body: StreamedBody, pieces: list[bytes]) -> bytes | Malformed:
    """Return the whole body, or why it is refused."""
    found = body.first()
    for piece in pieces:
        if isinstance(found, Malformed):
            return found
        part = body.feed(piece)
        found = part if isinstance(part, Malformed) else found + part
    return found


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Return the bytes in pieces."""
    ends = sorted({place % (len(raw) + 1) for place in places} | {0, len(raw)})
    return [raw[a:b] for a, b in itertools.pairwise(ends)]


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_body_is_the_same_in_whatever_pieces_it_comes(
    parts: list[bytes], places: list[int]
) -> None:
    whole = b"".join(parts)
    first, *pieces = cut(b"".join(map(chunk, parts)) + LAST_CHUNK, places)
    chunked = begun(first, CHUNKED)
    assert (read(chunked, pieces), chunked.complete) == (whole, True)
    pieces = cut(whole, places) if whole else []
    plain = begun(b"", f"Content-Length: {len(whole)}")
    assert (read(plain, pieces), plain.complete) == (whole, True)


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"3\r\nabcd\r\n0\r\n\r\n", "wire.chunk"),
        (b"3;x=1\r\nabc\r\n0\r\n\r\n", "wire.chunk"),
        (b"+3\r\nabc\r\n0\r\n\r\n", "wire.chunk"),
        (b"0x3\r\nabc\r\n0\r\n\r\n", "wire.chunk"),
        (b"3\nabc\r\n0\r\n\r\n", "wire.chunk"),
        (b"00000000003\r\nabc\r\n0\r\n\r\n", "wire.chunk"),
        (b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", "wire.chunk"),
        (b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "wire.pipelined"),
        (b"FFFFFFF\r\n" + b"x" * (MOST + 1), "wire.body-size"),
        (b"1\r\nx\r\n" * (SMALL_CHUNKS_MAX + 50), "wire.body-size"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 21])
def test_an_ambiguous_or_costly_body_is_refused(raw: bytes, rule: str, step: int) -> None:
    if len(raw) > MOST:
        step = max(step, 1 << 16)
    pieces = [raw[at : at + step] for at in range(0, len(raw), step)]
    found = read(begun(b"", CHUNKED), pieces)
    assert isinstance(found, Malformed)
    # llhttp may notice first.
    assert found.rule in {rule, "wire.ambiguous"}


def test_a_long_body_is_refused_by_its_length() -> None:
    found = begun(b"", f"Content-Length: {MOST + 1}").feed(b"x")
    assert isinstance(found, Malformed)
    assert found.rule == "wire.body-size"


def test_bytes_after_the_body_are_no_request() -> None:
    found = read(begun(b"", "Content-Length: 3"), [b"abcGET / HTTP/1.1\r\n\r\n"])
    assert isinstance(found, Malformed)
    assert found.rule == "wire.pipelined"
