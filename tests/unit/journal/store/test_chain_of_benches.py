"""The journal that benches read is one: what is measured on it holds for the broker's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core.transparency import PrivateKey
from controller.journal.store.reader import records
from controller.journal.verify.verify import TrustAnchors, verify
from tests.unit.journal.builders import NOON
from tools.benches import records as bench
from tools.benches.records import write_journal


def test_it_holds_together_over_its_segments_and_ends_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SEGMENT_BYTES", 300_000)
    written = write_journal(tmp_path / "journal", 1500, end=NOON, services=4)
    found = verify(tmp_path / "journal")
    assert (found.ok, found.records) == (True, written.records)
    assert written.records in (1500, 1501)
    assert found.segments > 2
    *_, last = records(tmp_path / "journal", after=1499)
    assert last.time.startswith("2026-01-01T1")
    assert len(written.containers) == 7


def test_it_is_signed_where_a_key_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SEGMENT_BYTES", 600_000)
    key = PrivateKey("trimtab/bench", bytes(32))
    written = write_journal(tmp_path / "journal", 2500, end=NOON, key=key)
    found = verify(tmp_path / "journal", TrustAnchors(frozenset({key.public})))
    assert (found.ok, found.signed) == (True, written.records - 1)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    hashes = {verify_hash(tmp_path / name) for name in ("a", "b")}
    assert len(hashes) == 1


def verify_hash(folder: Path) -> str:
    write_journal(folder, 200, end=NOON)
    return verify(folder).last_hash
