"""Lines of events: whole ones as they are, and of longer ones what names the object."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker.engine.response import LINE_MAX, EventLines

LABELS = {f"pad{n}": "x" * 4000 for n in range(200)}


def fed(data: bytes, size: int) -> list[bytes]:
    lines = EventLines()
    return [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]


def event(**labels: str) -> bytes:
    told = {"status": "start", "id": "a1", "from": "web", "Type": "container", "Action": "start"}
    actor = {"ID": "a1", "Attributes": labels}
    return json.dumps({**told, "Actor": actor, "scope": "local", "timeNano": 7}).encode()


@given(
    lines=st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b)), size=st.integers(1, 9)
)
def test_short_lines_are_as_they_are(lines: list[bytes], size: int) -> None:
    assert fed(b"".join(line + b"\n" for line in lines), size) == lines


@pytest.mark.parametrize("size", [4096, 65536, 1 << 22])
def test_a_long_event_still_names_its_object(size: int) -> None:
    before, long, after = fed(b"\n".join([event(), event(**LABELS), event(a="b"), b""]), size)
    assert (before, after) == (event(), event(a="b"))
    assert len(long) < 1000 < LINE_MAX < len(event(**LABELS))
    assert json.loads(long) == json.loads(event())


@pytest.mark.parametrize("long", [b"x" * 2 * LINE_MAX, b"{" * 2 * LINE_MAX, event(**LABELS) + b"x"])
def test_a_long_line_that_is_no_object_is_left_out(long: bytes) -> None:
    assert fed(event() + b"\n" + long + b"\n" + event() + b"\n", 65536) == [event()] * 2


def test_an_endless_line_takes_bounded_memory() -> None:
    lines = EventLines()
    assert lines.feed(b'{"Actor":{"Attributes":{"x":"') == []
    for _ in range(1000):
        assert lines.feed(b"y" * 65536) == []
        held = len(lines._line)
        if lines._long is not None and lines._long._cutter is not None:
            held += len(lines._long._cutter._text)
        assert held <= LINE_MAX + 65536
    assert json.loads(lines.feed(b'"}},"id":"b"}\n')[0])["Actor"]["ID"] == "b"
