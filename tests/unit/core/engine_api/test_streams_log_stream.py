"""Log and exec streams of the engine: frames, lines, terminals, order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.engine_api.streams import (
    FRAME_MAX,
    LINE_MAX,
    BadFrame,
    Frames,
    LogLines,
    engine_time,
    is_multiplexed,
    merge,
)
from controller.model.container_output import LogLine

ONE, TWO = "2026-01-02T03:04:05.000000001Z", "2026-01-02T03:04:05.000000002Z"


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def message(time: str, text: bytes, stream: int = 1) -> bytes:
    return frame(stream, f"{time} ".encode() + text)


def lines_of(data: bytes, *, multiplexed: bool = True, piece: int = 7) -> list[LogLine]:
    reader = LogLines(multiplexed=multiplexed)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    return [line for each in pieces for line in reader.feed(each)] + reader.finish()


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_frames_become_lines_of_their_stream_however_they_are_cut(piece: int) -> None:
    data = message(ONE, b"out\n") + message(TWO, b"err\n", 2)
    assert lines_of(data, piece=piece) == [
        LogLine(ONE, "stdout", "out"),
        LogLine(TWO, "stderr", "err"),
    ]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8))
def test_frames_come_out_as_they_went_in(sent: list[tuple[int, bytes]]) -> None:
    frames = Frames()
    data = b"".join(frame(*each) for each in sent)
    found = [each for at in range(len(data)) for each in frames.feed(data[at : at + 1])]
    names = {1: "stdout", 2: "stderr"}
    assert found == [(names[stream], payload) for stream, payload in sent]


def test_a_line_that_the_log_driver_cut_is_one_line_with_its_first_time() -> None:
    data = message(ONE, b"a" * 10) + message(TWO, b"err\n", 2) + message(TWO, b"b\n")
    assert lines_of(data) == [
        LogLine(TWO, "stderr", "err"),
        LogLine(ONE, "stdout", "aaaaaaaaaab"),
    ]


def test_the_output_of_a_terminal_has_no_frames_and_ends_its_lines_twice() -> None:
    data = f"{ONE} one\r\n{TWO} two\r\n{TWO} rest".encode()
    assert lines_of(data, multiplexed=False) == [
        LogLine(ONE, "stdout", "one"),
        LogLine(TWO, "stdout", "two"),
        LogLine(TWO, "stdout", "rest"),
    ]


def test_an_empty_line_and_a_line_without_an_end_are_lines() -> None:
    assert lines_of(message(ONE, b"\n") + message(TWO, b"rest")) == [
        LogLine(ONE, "stdout", ""),
        LogLine(TWO, "stdout", "rest"),
    ]


def test_what_is_no_utf8_is_shown_as_hex_digits() -> None:
    assert lines_of(message(ONE, b"\xff\xc3\xa9\n")) == [LogLine(ONE, "stdout", "\\xffé")]


def test_a_line_without_end_is_cut_so_that_memory_is_bounded() -> None:
    data = b"".join(message(ONE, b"x" * 16_384) for _ in range(5))
    found = lines_of(data, piece=8192)
    assert [len(line.text) for line in found] == [LINE_MAX, 5 * 16_384 - LINE_MAX]


def test_the_rest_of_a_cut_line_is_text_even_if_it_looks_like_a_time() -> None:
    fake = b"9999-99-99T99:99:99.999999999Z "
    data = f"{ONE} ".encode() + b"x" * (LINE_MAX - len(ONE) - 1) + fake + b"rest\n"
    cut, rest = lines_of(data + f"{TWO} next\n".encode(), multiplexed=False, piece=LINE_MAX + 10)[
        :2
    ]
    assert (cut.time, rest.time, rest.text) == (ONE, ONE, f"{fake.decode()}rest")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n",
        bytes([9, 0, 0, 0, 0, 0, 0, 1]),
        bytes([1, 0, 0, 0]) + (FRAME_MAX + 1).to_bytes(4, "big"),
    ],
)
def test_what_is_not_framed_so_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames().feed(data)


def test_the_header_of_a_frame_shows_the_framing() -> None:
    assert is_multiplexed(frame(2, b"x"))
    assert not is_multiplexed(b"2026-01-02T03:04:05")
    assert not is_multiplexed(b"\x01\0\0")


def test_several_containers_are_interleaved_by_time() -> None:
    def of(name: str, *times: str) -> list[tuple[str, LogLine]]:
        return [(name, LogLine(time, "stdout", name)) for time in times]

    later = "2026-01-02T03:04:06.000000000Z"
    found = list(merge([of("a", ONE, later), of("b", TWO), of("c")]))
    assert [name for name, _ in found] == ["a", "b", "a"]


def test_merging_holds_one_line_of_each() -> None:
    taken = []

    def endless(name: str) -> Iterator[tuple[str, LogLine]]:
        for second in range(1000):
            taken.append(name)
            yield name, LogLine(f"2026-01-02T03:00:00.{second:09d}Z", "stdout", "")

    merged = merge([endless("a"), endless("b")])
    next(merged)
    assert sorted(taken) == ["a", "b"]


@pytest.mark.parametrize(
    ("time", "later_ns", "expected"),
    [
        ("1970-01-01T00:00:01.000000001Z", 1, "1.000000002"),
        ("1970-01-01T00:00:01.999999999Z", 1, "2.000000000"),
        ("1970-01-01T00:01:00Z", 0, "60.000000000"),
        ("1970-01-01T00:01:00.25Z", 0, "60.250000000"),
    ],
)
def test_the_engine_takes_times_as_seconds(time: str, later_ns: int, expected: str) -> None:
    assert engine_time(time, later_ns=later_ns) == expected
