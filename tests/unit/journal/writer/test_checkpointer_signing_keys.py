"""The public list of keys says until when each signed, and by which record each came."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core.transparency import BadNote, PrivateKey
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.checkpointer import Introduction, PublishedKey, read_published_keys
from tests.unit.journal.builders import entry, key_files, open_log, read_public_keys
from tests.unit.journal.writer.test_checkpointer import OFTEN, abandon


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_list_of_keys_says_until_when_each_signed(tmp_path: Path) -> None:
    one, other = (PrivateKey("trimtab/x", bytes([n]) * 32).public for n in (1, 2))
    path = tmp_path / "journal.pub"
    for told, expected in (
        (f"# ours\n\n{one}\n  {other} until 6 of last year\n", {one: None, other: 6}),
        (f"{one} in the office\n", {one: None}),
        (f"{one}\n{one} until 9\n{one} until 6\n", {one: 6}),
    ):
        path.write_text(told)
        assert read_public_keys(path) == expected
    for wrong in (f"{one} until\n", f"{one} until yesterday\n", "a key\n"):
        path.write_text(wrong)
        with pytest.raises(BadNote):
            read_public_keys(path)


def test_a_list_of_keys_says_by_which_record_each_came(tmp_path: Path) -> None:
    one, other = (PrivateKey("trimtab/x", bytes([n]) * 32).public for n in (1, 2))
    path = tmp_path / "journal.pub"
    begin = Introduction(7, "2026-01-01T12:00:00.000Z")
    listed = (
        PublishedKey(one, introduced=begin),
        PublishedKey(other, 6, begin),
        PublishedKey(other),
    )
    path.write_text("".join(f"{each}\n" for each in listed))
    assert read_published_keys(path) == listed
    for words in ("from", "from 7", "from then on", "in the office"):
        path.write_text(f"{one} {words}\n")
        assert read_published_keys(path) == (PublishedKey(one),)


def test_a_list_without_the_record_gets_it_from_the_journal(folder: Path) -> None:
    """So does a list that a crash kept from being written."""
    log = open_log(folder, every=OFTEN)
    path = key_files(folder).public
    expected = path.read_text()
    assert " from 2 " in expected
    path.write_text(expected.split()[0] + "\n")
    abandon(log)
    open_log(folder, every=OFTEN).close()
    assert path.read_text() == expected
    # It stays when the record is no longer among those that a start reads.
    for number in range(3):
        log = open_log(folder, every=OFTEN, limits=SegmentLimits(max_segment_bytes=100))
        log.append(entry(number))
        log.close()
    assert path.read_text() == expected
