"""Compressed segments are gzip, and each place in them is read without all that is before."""

from __future__ import annotations

import gzip
import random
import zlib
from io import BufferedReader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.journal.store.segments import Unpacked, member_of, open_segment, pack
from controller.journal.writer.retention import compress

BLOCKS = [b"first\n" * 300, b"second\n" * 5, bytes(range(256)) * 9, b"last\n"]
WHOLE = b"".join(BLOCKS)


def unpacked(path: Path) -> BufferedReader:
    return BufferedReader(Unpacked(path.open("rb")), 64)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "segment.gz"
    path.write_bytes(b"".join(map(pack, BLOCKS)))
    return path


def test_any_tool_for_gzip_reads_it_whole(packed: Path) -> None:
    assert gzip.decompress(packed.read_bytes()) == WHOLE
    with unpacked(packed) as file:
        assert file.read() == WHOLE


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) + 3), st.integers(1, 400)), max_size=8))
def test_every_place_is_read_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("packed") / "segment.gz"
    path.write_bytes(b"".join(map(pack, BLOCKS)))
    with unpacked(path) as file:
        for offset, length in places:
            file.seek(offset)
            assert file.read(length) == WHOLE[offset : offset + length]


def test_a_place_is_come_to_from_the_start_of_its_member(packed: Path) -> None:
    ends = [sum(map(len, BLOCKS[:n])) for n in range(5)]
    begins = [sum(len(pack(block)) for block in BLOCKS[:n]) for n in range(5)]
    with packed.open("rb") as file:
        for number in range(4):
            place = begins[number], ends[number]
            assert member_of(file.fileno(), ends[number]) == place
            assert member_of(file.fileno(), ends[number + 1] - 1) == place
        assert member_of(file.fileno(), len(WHOLE)) == (begins[4], ends[4])


@pytest.mark.parametrize("at", [12, 13, 16, 17, 18, 19])
@pytest.mark.parametrize("bit", [0, 4, 7])
def test_a_member_that_tells_another_length_leads_nowhere_else(
    packed: Path, at: int, bit: int
) -> None:
    """The second one does. What it holds is as it was, and so is what is read."""
    data = bytearray(packed.read_bytes())
    data[len(pack(BLOCKS[0])) + at] ^= 1 << bit
    packed.write_bytes(data)
    with unpacked(packed) as file:
        for offset in (len(WHOLE) - 5, 1801, 5, 2000):
            file.seek(offset)
            assert file.read(9) == WHOLE[offset : offset + 9]


def test_what_was_compressed_as_one_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "segment.gz"
    path.write_bytes(gzip.compress(WHOLE))
    with unpacked(path) as file:
        for offset in (0, 1900, 7, len(WHOLE) - 1):
            file.seek(offset)
            assert file.read(9) == WHOLE[offset : offset + 9]


@pytest.mark.parametrize("change", ["cut", "flip", "check"])
def test_damage_is_noticed_where_it_is_read(packed: Path, change: str) -> None:
    data = bytearray(packed.read_bytes())
    if change == "cut":
        del data[-12:]
    else:
        data[len(pack(BLOCKS[0])) - (7 if change == "check" else 20)] ^= 0xFF
    packed.write_bytes(data)
    with unpacked(packed) as file, pytest.raises((EOFError, zlib.error, gzip.BadGzipFile)):
        file.read()


def test_a_segment_that_is_compressed_is_unpacked_from_its_last_mebibyte_on(tmp_path: Path) -> None:
    segment = tmp_path / "00000000000000000001.jsonl"
    content = random.Random(7).randbytes(3 * 1024 * 1024 + 5)
    segment.write_bytes(content)
    compress(segment)
    with open_segment(segment) as file:
        file.seek(3 * 1024 * 1024 + 1)
        assert file.read() == content[-4:]
    with segment.with_name(f"{segment.name}.gz").open("rb") as file:
        assert member_of(file.fileno(), len(content) - 1)[1] == 3 * 1024 * 1024
