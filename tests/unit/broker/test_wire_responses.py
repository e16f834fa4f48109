"""How replies become bytes."""

import pytest

from controller.broker.gate.refusals import Denied
from controller.broker.wire import end_to_end, head_bytes, refusal, reply_bytes
from controller.model.records import Reply


def test_a_reply_is_framed_by_us_alone() -> None:
    headers = (("content-type", "text/plain"), ("Connection", "x"), ("transfer-encoding", "y"))
    reply = Reply(200, b"OK", headers)
    plain = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 2\r\n"
    assert reply_bytes(reply, to_head=False, keep_alive=True) == plain + b"\r\nOK"
    assert reply_bytes(reply, to_head=True, keep_alive=True) == plain + b"\r\n"
    closing = plain + b"Connection: close\r\n\r\nOK"
    assert reply_bytes(reply, to_head=False, keep_alive=False) == closing
    nothing = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert reply_bytes(Reply(204, b"x"), to_head=False, keep_alive=True) == nothing
    named = (("Connection", "close, X-Hop"), ("x-hop", "1"), ("X-End", "2"))
    assert end_to_end(named) == (("X-End", "2"),)
    assert end_to_end((("Upgrade", "tcp"), ("API-Version", "1.45"))) == (("API-Version", "1.45"),)


def test_a_refused_head_is_explained_in_its_first_line() -> None:
    # docker-py and Ansible show nothing else of a reply to HEAD.
    denied = refusal(403, "route.denied", "café", remedy="mount a volume")
    line, _, rest = reply_bytes(denied, to_head=True, keep_alive=True).partition(b"\r\n")
    assert line.decode("latin-1") == "HTTP/1.1 403 Forbidden: route.denied: café (mount a volume)"
    assert rest.endswith(b"\r\n\r\n")
    assert reply_bytes(denied, to_head=False, keep_alive=True).startswith(
        b"HTTP/1.1 403 Forbidden\r\n"
    )
    for message in ("a\r\nSet: b", "a\u2028b"):
        told = reply_bytes(refusal(403, "x", message), to_head=True, keep_alive=True)
        assert told.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    long = reply_bytes(refusal(403, "x", "y" * 9999), to_head=True, keep_alive=True)
    assert len(long.partition(b"\r\n")[0]) < 600


def test_a_header_that_would_end_its_line_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="breaks its line"):
        head_bytes(200, (("X", "a\r\nSet: b"),))


def test_a_refusal_has_the_gate_s_shape() -> None:
    reply = refusal(403, "role.denied", "no", remedy="ask", record="0")
    assert reply.body.decode() == (
        '{"message": "role.denied: no (ask)", '
        '"trimtab": {"rule": "role.denied", "reason": "no", "remedy": "ask", "id": "0"}}'
    )
    assert reply.headers[-1] == ("Trimtab-Rule", "role.denied")
    denied = Denied("path.malformed", "no").reply("1")
    assert denied.headers[-1] == ("Trimtab-Rule", "path.malformed")


def test_a_refusal_has_one_encoding() -> None:
    denied = Denied("image.invalid", "no image café…", "write “cafe”")
    alike = refusal(403, denied.rule, denied.reason, remedy=denied.remedy, record="0")
    assert denied.reply("0") == alike
    assert "café…" in alike.body.decode(), "text is UTF-8, without escapes"
