"""What of a client's bytes is a request, and what is refused."""

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker import wire
from controller.broker.gate.routes import BODY_MAX, CREATE_BODY_MAX, body_limit
from controller.broker.wire import (
    CHUNKS_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    STEP_BYTES,
    WHOLE_BODY_MAX,
    Head,
    Malformed,
    ParsedRequest,
    RequestReader,
    chunk,
    parse_head,
)

GET = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"


def post(body: bytes = b"{}", *headers: str, path: str = "/v1.45/containers/create") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: d", *headers]
    if not any(re.match("content-length|transfer-encoding", each, re.IGNORECASE) for each in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read(raw: bytes, *, step: int = 0) -> ParsedRequest | Malformed | None:
    """Read *raw* at once, or in pieces of *step* bytes until there is an answer."""
    reader = RequestReader(body_limit)
    for start in range(0, len(raw), step or len(raw)):
        reader.feed(raw[start : start + (step or len(raw))])
        if (found := reader.poll()) is not None:
            return found
    return None


def test_a_body_of_a_million_chunks_is_refused_after_the_first_thousand() -> None:
    bomb = post(b"1\r\n \r\n" * (CREATE_BODY_MAX - 10), "Transfer-Encoding: chunked")
    refused = Malformed("wire.body-size", f"the body has over {CHUNKS_MAX} chunks", 413)
    assert read(bomb[: 16 * 1024]) == refused
    assert read(bomb, step=4096) == refused


@pytest.mark.parametrize("path", ["/session", "/v1.45/grpc"])
def test_an_upgrade_to_buildkit_is_refused_with_the_way_out(path: str) -> None:
    refused = read(post(b"", "Connection: Upgrade", "Upgrade: h2c", path=path))
    assert isinstance(refused, Malformed)
    assert "DOCKER_BUILDKIT=0" in refused.remedy


def test_a_head_is_known_before_its_body_is_read() -> None:
    reader = RequestReader(body_limit)
    for byte in post(b"{}")[:-3]:
        reader.feed(bytes((byte,)))
        assert reader.poll_head() is None
    reader.feed(b"\n{")
    head = reader.poll_head()
    assert isinstance(head, Head)
    assert (head.method, head.length, reader.poll()) == ("POST", 2, None)
    reader.feed(b"}")
    assert isinstance(reader.poll(), ParsedRequest)
    assert reader.poll_head() is None


def check(raw: bytes, expected: str) -> None:
    """Compare what becomes of *raw*, whole and byte by byte, with ``METHOD PATH BODY`` or a rule.

    Byte by byte a request ends before what follows it is seen: only there may the two differ.
    """
    for step in (0, 1):
        found = read(raw, step=step)
        match found:
            case ParsedRequest(method, path, query, _, body):
                target = f"{path}?{query}" if query else path
                told = f"{method} {target} {body.decode()}".rstrip()
            case Malformed(rule):
                told = rule
            case None:
                told = "more"
        assert told == expected, f"in steps of {step or len(raw)} bytes: {found}"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (GET, "GET /_ping"),
        (b"HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n", "HEAD /_ping"),
        (b"GET /_ping HTTP/1.0\r\n\r\n", "GET /_ping"),
        (b"GET /v1.45/events?a=b?c HTTP/1.1\r\nHost: d\r\n\r\n", "GET /v1.45/events?a=b?c"),
        (b"GET /_ping HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n", "GET /_ping"),
        *(
            (f"GET /_ping HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), "GET /_ping")
            for host in ("localhost:2375", "[::1]", "%2Fvar%2Frun%2Fdocker.sock")
        ),
        (post(b'{"a":1}'), 'POST /v1.45/containers/create {"a":1}'),
        (post(b"", path="/v1.45/containers/x/start"), "POST /v1.45/containers/x/start"),
        (
            post(b"2\r\n{}\r\n1\r\n \r\n0\r\n\r\n", "Transfer-Encoding: ChunKed"),
            "POST /v1.45/containers/create {}",
        ),
        (
            post(b"0002\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
            "POST /v1.45/containers/create {}",
        ),
    ],
)
def test_a_plain_request_is_read_alike_whole_and_in_pieces(raw: bytes, expected: str) -> None:
    check(raw, expected)


@pytest.mark.parametrize(
    "raw",
    [
        GET[:-1],
        GET[:3],
        post(b"{}")[:-1],
        post(b"2\r\n{}\r\n0\r\n", "Transfer-Encoding: chunked"),
        post(b"2\r\n{", "Transfer-Encoding: chunked"),
        post(b"2\r", "Transfer-Encoding: chunked"),
        b"",
    ],
)
def test_a_part_of_a_request_wants_more(raw: bytes) -> None:
    check(raw, "more") if raw else None
    assert RequestReader(body_limit).poll() is None


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        # The first line
        (b"GET /_ping\r\n\r\n", "wire.request-line"),
        (b"GET  /_ping HTTP/1.1\r\nHost: d\r\n\r\n", "wire.request-line"),
        (b"GET /a b HTTP/1.1\r\nHost: d\r\n\r\n", "wire.request-line"),
        (b"GET /_ping HTTP/2.0\r\nHost: d\r\n\r\n", "wire.request-line"),
        (b"GET /_ping HTTP/1.1 \r\nHost: d\r\n\r\n", "wire.request-line"),
        (b"GET /_ping http/1.1\r\nHost: d\r\n\r\n", "wire.request-line"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "wire.request-line"),
        (b"PRI * HTTP/1.1\r\nHost: d\r\n\r\n", "wire.method"),
        (b"CONNECT /x HTTP/1.1\r\nHost: d\r\n\r\n", "wire.method"),
        (b"TRACE /x HTTP/1.1\r\nHost: d\r\n\r\n", "wire.method"),
        (b"get /x HTTP/1.1\r\nHost: d\r\n\r\n", "wire.method"),
        (b"\r\n" + GET, "wire.method"),
        (b"\x16\x03\x01\x02\x00\x01", "wire.method"),
        # The target
        (b"GET http://evil/_ping HTTP/1.1\r\nHost: d\r\n\r\n", "wire.target"),
        (b"GET evil:80 HTTP/1.1\r\nHost: d\r\n\r\n", "wire.target"),
        (b"OPTIONS * HTTP/1.1\r\nHost: d\r\n\r\n", "wire.target"),
        (b"GET /a#b HTTP/1.1\r\nHost: d\r\n\r\n", "wire.target"),
        ("GET /contaıners HTTP/1.1\r\nHost: d\r\n\r\n".encode(), "wire.target"),
        (b"GET /a\x00b HTTP/1.1\r\nHost: d\r\n\r\n", "wire.target"),
        (b"GET /a\x7fb HTTP/1.1\r\nHost: d\r\n\r\n", "wire.target"),
        # Lines
        (b"GET /_ping HTTP/1.1\nHost: d\n\n", "wire.line"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\nX: y\r\n\r\n", "wire.line"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\rb\r\n\r\n", "wire.line"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\r\n\r\n", "wire.line"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\r\n b\r\n\r\n", "wire.header"),
        (b"GET /_ping HTTP/1.1\r\n Host: d\r\n\r\n", "wire.header"),
        (b"GET /_ping HTTP/1.1\r\nHost : d\r\n\r\n", "wire.header"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nX\r\n\r\n", "wire.header"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\n: x\r\n\r\n", "wire.header"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\x00b\r\n\r\n", "wire.header"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: \xc3\xa4\r\n\r\n", "wire.header"),
        # Host
        (b"GET /_ping HTTP/1.1\r\n\r\n", "wire.host"),
        (b"GET /_ping HTTP/1.1\r\nHost: a b\r\n\r\n", "wire.host"),
        (b"GET /_ping HTTP/1.1\r\nHost: a/b\r\n\r\n", "wire.host"),
        (b"GET /_ping HTTP/1.1\r\nHost: " + b"a" * 256 + b"\r\n\r\n", "wire.host"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nhost: e\r\n\r\n", "wire.header-twice"),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\nTrimtab-Context: a\r\nTrimtab-Context: b\r\n\r\n",
         "wire.header-twice"),
        # Length
        (post(b"{}", "Content-Length: 2", "Content-Length: 2"), "wire.header-twice"),
        (post(b"{}", "Content-Length: 2, 2"), "wire.length"),
        (post(b"{}", "Content-Length: +2"), "wire.length"),
        (post(b"{}", "Content-Length: -1"), "wire.length"),
        (post(b"{}", "Content-Length: 0x2"), "wire.length"),
        (post(b"{}", "Content-Length: 2_0"), "wire.length"),
        (post(b"{}", "Content-Length:"), "wire.length"),
        (post(b"{}", "Content-Length: 9999999999999999999"), "wire.length"),
        (post(b"{}", "Content-Length: 2", "Transfer-Encoding: chunked"), "wire.length"),
        (post(b"{}", "Content-Length: 0", "Transfer-Encoding: chunked"), "wire.length"),
        (post(b"{}", "Transfer-Encoding: gzip, chunked"), "wire.encoding"),
        (post(b"{}", "Transfer-Encoding: xchunked"), "wire.encoding"),
        (post(b"{}", "Transfer-Encoding: identity"), "wire.encoding"),
        (post(b"{}", "Transfer-Encoding: chunked").replace(b"1.1\r", b"1.0\r"), "wire.encoding"),
        (post(b"{}", "Transfer-Encoding : chunked"), "wire.header"),
        (post(b"2;a=b\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"0x2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"1_0\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b" 2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"-2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"000000002\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"2\n{}\n0\n\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"1\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"2\r\n{}\r\n0\r\nX: y\r\n\r\n", "Transfer-Encoding: chunked"), "wire.chunk"),
        (post(b"{}", "Trailer: X"), "wire.trailer"),
        (post(b"{}", "TE: trailers"), "wire.trailer"),
        # Bodies where there is none
        (b"GET /x HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}", "wire.body"),
        (b"DELETE /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "wire.body"),
        # Upgrades and the like
        (post(b"{}", "Connection: Upgrade", "Upgrade: tcp"), "wire.upgrade"),
        (post(b"", "Connection: Upgrade", "Upgrade: h2c", path="/exec/x/start"), "wire.upgrade"),
        (post(b"", "Connection: Upgrade", path="/exec/x/start"), "wire.upgrade"),
        (post(b"", "Upgrade: tcp", path="/exec/x/start"), "wire.upgrade"),
        (post(b"", "Connection: upgrade", "Upgrade: tcp", path="/session"), "wire.upgrade"),
        (post(b"", "Connection: upgrade", "Upgrade: tcp", path="/x/exec/x/start"), "wire.upgrade"),
        (post(b"{}", "Connection: Content-Type"), "wire.connection"),
        (post(b"{}", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), "wire.connection"),
        (post(b"{}", "Expect: 200-ok"), "wire.expect"),
    ],
)  # fmt: skip
def test_an_ambiguous_request_is_refused(raw: bytes, rule: str) -> None:
    check(raw, rule)


def test_a_request_with_its_body_in_the_query_too_says_what_is_too_long() -> None:
    # dockerode writes the members of a body into the query as well.
    found = read(post(b"{}", path="/containers/create?Env=" + "x" * 16 * 1024))
    assert isinstance(found, Malformed)
    assert (found.rule, found.status) == ("wire.request-line", 414)
    assert "16384 characters" in found.reason
    assert "_query" in found.remedy


def test_bytes_after_a_request_are_never_a_second_one() -> None:
    smuggled = post(b'{"HostConfig":{"Privileged":true}}')
    for first in (GET, post(b"{}"), post(b"0\r\n\r\n", "Transfer-Encoding: chunked")):
        found = read(first + smuggled)
        assert isinstance(found, Malformed)
        assert found.rule == "wire.pipelined"


def test_bytes_after_a_request_that_asks_for_a_hijack_are_kept_for_it() -> None:
    reader = RequestReader(body_limit)
    reader.feed(post(b"", "Connection: Upgrade", "Upgrade: tcp", path="/containers/x/attach?a=1"))
    reader.feed(b"hello")
    found = reader.poll()
    assert isinstance(found, ParsedRequest)
    assert (found.upgrade, found.query, reader.rest(), reader.idle) == (True, "a=1", b"hello", True)


def test_a_request_that_upgrades_may_have_a_body_and_bytes_may_follow_both() -> None:
    fields = ("Connection: Upgrade", "Upgrade: tcp")
    reader = RequestReader(body_limit)
    reader.feed(post(b'{"Tty":true}', *fields, path="/exec/x/start") + b"hello")
    found = reader.poll()
    assert isinstance(found, ParsedRequest)
    assert (found.upgrade, found.body, reader.rest()) == (True, b'{"Tty":true}', b"hello")


def test_sizes_are_bounded() -> None:
    create, other = "/v1.45/containers/create", "/v1.45/networks/create"
    for path, limit in ((create, CREATE_BODY_MAX), (other, BODY_MAX)):
        assert isinstance(read(post(b" " * limit, path=path)), ParsedRequest)
        large = post(b"", f"Content-Length: {limit + 1}", path=path)
        assert read(large) == Malformed("wire.body-size", f"the body passes {limit} bytes", 413)
        chunked = post(chunk(b" " * limit) + b"1\r\n", "Transfer-Encoding: chunked", path=path)
        assert read(chunked) == Malformed("wire.body-size", f"the body passes {limit} bytes", 413)
    tiny = b"1\r\n \r\n" * CHUNKS_MAX + b"0\r\n\r\n"
    assert isinstance(read(post(tiny, "Transfer-Encoding: chunked", path=other)), ParsedRequest)
    for head in (
        b"GET /" + b"a" * HEAD_BYTES_MAX,
        GET[:-2] + b"X: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        GET[:-2] + b"X: y\r\n" * HEADERS_MAX + b"\r\n",
    ):
        found = read(head)
        assert isinstance(found, Malformed)
        assert (found.rule, found.status) == ("wire.head-size", 431)


def test_a_long_run_of_spaces_costs_no_time() -> None:
    """A pattern that tries every split of them would take minutes."""
    check_head = GET[:-2] + b"X: " + b" " * (HEAD_BYTES_MAX - 200) + b"\x01\r\n\r\n"
    found = read(check_head)
    assert isinstance(found, Malformed)
    assert found.rule == "wire.header"


def test_a_client_that_waits_for_100_continue_is_told_once() -> None:
    reader = RequestReader(body_limit)
    reader.feed(post(b"", "Expect: 100-continue", "Content-Length: 2"))
    assert reader.poll() is None
    assert reader.wants_continue
    reader.feed(b"{")
    assert (reader.poll(), reader.wants_continue) == (None, False)
    reader.feed(b"}")
    assert isinstance(reader.poll(), ParsedRequest)


def test_one_connection_carries_requests_one_after_the_other() -> None:
    reader = RequestReader(body_limit)
    found = []
    for raw in (GET, post(b"{}"), GET):
        reader.feed(raw)
        request = reader.poll()
        assert isinstance(request, ParsedRequest)
        found.append((request.method, request.body, request.keep_alive, reader.idle))
    assert found == [
        ("GET", b"", True, True),
        ("POST", b"{}", True, True),
        ("GET", b"", True, True),
    ]


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (GET, True),
        (GET[:-2] + b"Connection: keep-alive\r\n\r\n", True),
        (GET[:-2] + b"Connection: Close\r\n\r\n", False),
        (GET.replace(b"1.1", b"1.0"), False),
    ],
)
def test_the_client_says_whether_the_connection_stays(raw: bytes, keep_alive: bool) -> None:
    found = read(raw)
    assert isinstance(found, ParsedRequest)
    assert found.keep_alive is keep_alive


MUTABLE = (
    GET,
    post(b'{"a":1}'),
    post(b"2\r\n{}\r\n1\r\n \r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    post(b"", "Connection: Upgrade", "Upgrade: tcp", path="/exec/x/start"),
)
PIECES = (b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"\0", b"\xff", b"Content-Length: 3\r\n", b"")


@given(
    raw=st.sampled_from(MUTABLE),
    at=st.floats(0, 1),
    cut=st.integers(0, 3),
    piece=st.sampled_from(PIECES),
    steps=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_how_the_bytes_are_cut_into_pieces_changes_nothing(
    raw: bytes, at: float, cut: int, piece: bytes, steps: list[int]
) -> None:
    place = round(at * len(raw))
    raw = raw[:place] + piece + raw[place + cut :]
    whole = read(raw) if raw else None
    reader, found, start = RequestReader(body_limit), None, 0
    for step in itertools.cycle(steps):
        if start >= len(raw) or found is not None:
            break
        reader.feed(raw[start : start + step])
        start += step
        found = reader.poll()
    pipelined = isinstance(whole, Malformed) and whole.rule == "wire.pipelined"
    if pipelined and isinstance(found, ParsedRequest):
        return  # it was whole before its tail came
    assert found == whole


def test_a_request_that_the_second_parser_reads_differently_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = post(b"{}")
    head = parse_head(raw[:-2])
    assert isinstance(head, Head)
    assert wire._second_parser_agrees(raw, head, b"{}")
    for other, body in (
        (head, b"{} "),
        (replace(head, method="GET"), b"{}"),
        (replace(head, target="/"), b"{}"),
        (replace(head, version="1.0"), b"{}"),
        (replace(head, headers=head.headers[1:]), b"{}"),
    ):
        assert not wire._second_parser_agrees(raw, other, body)
    assert not wire._second_parser_agrees(raw + GET, head, b"{}")
    assert not wire._second_parser_agrees(raw[:-1], head, b"{}")
    monkeypatch.setattr(wire, "_second_parser_agrees", lambda *_: False)
    check(raw, "wire.ambiguous")


def test_a_long_body_is_read_by_both_parsers_in_short_steps() -> None:
    """No call examines more than arrived, so the broker's loop serves others in between."""
    body = bytes(range(256)) * 4096
    raw = post(body, path="/trimtab/v1/proofs")
    reader, found = RequestReader(body_limit), None
    for start in range(0, len(raw), STEP_BYTES):
        reader.feed(raw[start : start + STEP_BYTES])
        found = reader.poll()
        arrived = min(len(raw), start + STEP_BYTES)
        second_read = reader._second.read if reader._second is not None else 0
        assert second_read == (arrived if arrived < len(raw) else 0)
    assert isinstance(found, ParsedRequest)
    assert found.body == body


def test_a_stepped_reading_judges_as_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = [
        raw[:place] + piece + raw[place + cut :]
        for raw in (*MUTABLE, post(b"1234567890"))
        for piece in PIECES
        for place in range(0, len(raw) + 1, 3)
        for cut in (0, 1)
    ]
    whole = [read(raw) if raw else None for raw in changed]
    monkeypatch.setattr(wire, "STEP_BYTES", 1)
    assert [read(raw) if raw else None for raw in changed] == whole


@pytest.mark.parametrize("change", [{"method": "PUT"}, {"target": "/"}, {"headers": ()}])
def test_a_stepped_reading_of_another_request_is_refused(change: dict[str, Any]) -> None:
    raw = post(b"{}")
    head = parse_head(raw[:-2])
    assert isinstance(head, Head)
    for other in (head, replace(head, **change)):
        reading = wire._SteppedReading(bytearray(raw), len(raw) - 2)
        reading.advance(len(raw))
        assert reading.agrees(other, len(raw)) is (other == head)
    reading = wire._SteppedReading(bytearray(raw), len(raw) - 2)
    reading.advance(len(raw) - 1)
    assert not reading.agrees(head, len(raw))


def test_a_body_that_is_checked_as_a_whole_is_short() -> None:
    raw = post(b"", "Transfer-Encoding: chunked", path="/trimtab/v1/proofs")
    check(raw + chunk(bytes(WHOLE_BODY_MAX + 1)), "wire.body-size")
    assert isinstance(read(raw + chunk(bytes(WHOLE_BODY_MAX)) + b"0\r\n\r\n"), ParsedRequest)
