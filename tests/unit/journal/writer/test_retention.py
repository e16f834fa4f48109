"""Closed segments are compressed and pruned, and what is kept holds as before."""

from __future__ import annotations

import errno
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.records import inventory as inventories
from controller.core.records import inventory_json
from controller.core.records.checkpoint import (
    content_digest,
    parse_checkpoint,
    prune_entry,
    read_checkpoint,
)
from controller.core.transparency import parse_note
from controller.journal.store.chain import (
    BASE_NAME,
    INVENTORY_NAME,
    BadBase,
    pruned_inventory,
    read_inventory,
)
from controller.journal.store.reader import find_tail, last_seq, records
from controller.journal.store.segments import list_segments
from controller.journal.verify.verify import TrustAnchors, Verification, verify
from controller.journal.writer import retention
from controller.journal.writer.append_log import Log, SegmentLimits
from controller.journal.writer.checkpointer import EVERY, CheckpointInterval
from controller.journal.writer.retention import (
    DAY_S,
    RecordPruning,
    Retention,
    RetentionLimits,
    RetentionThread,
    compress,
)
from controller.journal.writer.writer_thread import Writer
from controller.model.errors import JournalUnavailable, StateError
from controller.model.inventory import Inventory, TrustedImage
from controller.model.records import Entry
from tests.unit.journal.builders import (
    NOON,
    FixedClock,
    Ids,
    checkpointer_of,
    entry,
    key_files,
    open_log,
    read_public_keys,
)

DAILY = SegmentLimits(max_segment_age_s=DAY_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight days of a journal: a segment a day, ten records in each."""
    folder = tmp_path / "journal"
    clock = FixedClock()
    log = open_log(folder, clock=clock, every=CheckpointInterval(), limits=DAILY)
    for day in range(8):
        for number in range(10):
            log.append(happened(10 * day + number))
        clock.time += DAY_S
    log.close()
    return folder


def happened(number: int) -> Entry:
    """An image is vouched for, so that the inventory has something to lose."""
    return entry(
        number,
        "operator",
        actor={"uid": 0, "role": "operator"},
        request={
            "route": "image.trust",
            "object": f"web:{number}",
            "summary": {"reference": f"web:{number}", "id": f"sha256:{number:064x}"},
        },
    )


def telling(folder: Path, every: CheckpointInterval | None = EVERY) -> RecordPruning:
    """Record what goes, as a writer does that is killed right then; without *every*, as a forger."""

    def tell(until: int, reason: str, digest: str) -> None:
        log = open_log(folder, clock=FixedClock(NOON + 8 * DAY_S), every=every, limits=DAILY)
        log.append(prune_entry(log._new_id(), until=until, reason=reason, digest=digest))
        log._leave_segment()
        log.close()

    return tell


def look_after(folder: Path, keep: RetentionLimits, *, days: float = 8.0) -> None:
    Retention(folder, limits=keep, record_pruning=telling(folder)).apply(now=NOON + days * DAY_S)


def checked(folder: Path) -> Verification:
    """Verify by the key, fast and thoroughly."""
    trust = TrustAnchors(frozenset(read_public_keys(key_files(folder).public)))
    found = verify(folder, trust)
    assert found == verify(folder, trust, thorough=True)
    assert found.ok, found.reason
    return found


def names(folder: Path) -> list[str]:
    return [path.name for path in list_segments(folder)]


def folded(folder: Path) -> Inventory:
    """The inventory as a broker without a snapshot rebuilds it."""
    inventory = pruned_inventory(folder, known=0) or Inventory()
    for record in records(folder, after=inventory.seq):
        inventory = inventories.fold(inventory, record)
    return inventory


EVERYTHING = RetentionLimits(age_s=1000 * DAY_S, plain_s=1000 * DAY_S)


def test_nothing_goes_before_its_time(folder: Path) -> None:
    before = names(folder)
    look_after(folder, EVERYTHING)
    assert names(folder) == before
    assert checked(folder).pruned == 0


def test_what_is_a_week_old_is_compressed_and_read_as_before(folder: Path) -> None:
    before, found = list(records(folder)), checked(folder)
    sizes = sum(path.stat().st_size for path in list_segments(folder))
    look_after(folder, RetentionLimits(plain_s=3 * DAY_S))
    packed = [name.endswith(".gz") for name in names(folder)]
    assert packed == [True] * 4 + [False] * 4
    assert sum(path.stat().st_size for path in list_segments(folder)) < sizes * 0.75
    assert checked(folder) == found
    assert list(records(folder)) == before
    for after in (0, 5, 17, 30, 60, 97):
        assert list(records(folder, after=after)) == before[after:]
    log = open_log(
        folder, clock=FixedClock(NOON + 8 * DAY_S), every=CheckpointInterval(), limits=DAILY
    )
    log.append(entry(900))
    log.close()
    assert checked(folder).records > found.records


def test_what_is_too_old_goes_and_the_rest_holds_from_its_checkpoint_on(folder: Path) -> None:
    before, inventory = list(records(folder)), folded(folder)
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    found = checked(folder)
    kept = list(records(folder))
    assert found.pruned == kept[0].seq - 1 > 30
    assert before[found.pruned - 1].entry.stage == "checkpoint"
    assert kept[: len(before) - found.pruned] == before[found.pruned :]
    assert found.records == len(kept)
    (told,) = [r for r in kept if r.entry.request.get("route") == "journal.prune"]
    digest = content_digest((folder / INVENTORY_NAME).read_bytes())
    assert told.entry.result == {"until": found.pruned, "reason": "age", "inventory": digest}
    # What the inventory was is rebuilt without what is gone.
    assert set(folded(folder).ledger) == set(inventory.ledger)
    assert (len(inventory.ledger), folded(folder).seq) == (80, last_seq(folder))
    # And again, on top of that.
    look_after(folder, RetentionLimits(age_s=2.5 * DAY_S))
    assert checked(folder).pruned > found.pruned
    assert set(folded(folder).ledger) == set(inventory.ledger)


@pytest.mark.parametrize("plain_s", [1000 * DAY_S, 3 * DAY_S], ids=["plain", "compressed"])
def test_what_was_moved_aside_from_a_segment_goes_with_it(folder: Path, plain_s: float) -> None:
    pieces = [path.with_name(f"{path.name}.torn-1") for path in list_segments(folder)]
    for piece in pieces:
        piece.write_bytes(b"torn")
    look_after(folder, RetentionLimits(age_s=1000 * DAY_S, plain_s=plain_s))
    assert all(piece.exists() for piece in pieces)
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S, plain_s=plain_s))
    gone = {piece.name.partition(".")[0] for piece in pieces if not piece.exists()}
    left = {name.partition(".")[0] for name in names(folder)}
    assert gone
    assert gone.isdisjoint(left)
    assert len(gone | left) >= len(pieces)


def test_beyond_its_size_the_oldest_go_but_never_the_last_closed_one(folder: Path) -> None:
    look_after(folder, RetentionLimits(size_bytes=20_000))
    assert sum(path.stat().st_size for path in list_segments(folder)) <= 20_000
    assert {r.entry.result["reason"] for r in records(folder) if "until" in r.entry.result} == {
        "size"
    }
    assert checked(folder).pruned
    look_after(folder, RetentionLimits(size_bytes=0))
    assert len(names(folder)) == 2
    assert checked(folder).ok


def test_a_broker_goes_on_after_a_pruned_journal(folder: Path) -> None:
    look_after(folder, RetentionLimits(size_bytes=0))
    for _ in range(3):
        log = open_log(
            folder, clock=FixedClock(NOON + 9 * DAY_S), every=CheckpointInterval(), limits=DAILY
        )
        log.append(entry(int(log.last_seq) + 2000))
        log.close()
        assert checked(folder).ok
    assert find_tail(folder).seq == last_seq(folder)


STEPS = ["inventory", "told", "based"]


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("step", STEPS)
def test_a_pruning_that_got_no_further_is_ended_by_the_next(
    folder: Path, step: str, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        look_after(folder, RetentionLimits(age_s=6.5 * DAY_S))
    before = checked(folder).pruned
    assert bool(before) is earlier
    ledger = set(folded(folder).ledger)

    class Killed(BaseException):
        pass

    def tell(until: int, reason: str, digest: str) -> None:
        if step == "inventory":
            raise Killed
        telling(folder)(until, reason, digest)
        if step == "told":
            raise Killed

    def remove(_self: Retention, paths: tuple[Path, ...]) -> None:
        if paths:
            raise Killed

    with monkeypatch.context() as patch:
        if step == "based":
            patch.setattr(Retention, "_remove", remove)
        with pytest.raises(Killed):
            Retention(folder, limits=RetentionLimits(age_s=4.5 * DAY_S), record_pruning=tell).apply(
                now=NOON + 8 * DAY_S
            )
    assert set(folded(folder).ledger) == ledger
    assert (checked(folder).pruned > before) is (step == "based")
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    found = checked(folder)
    assert found.pruned > before
    assert names(folder)[0] == f"{found.pruned + 1:020d}.jsonl"
    assert set(folded(folder).ledger) == ledger


def test_records_missing_without_a_prune_record_are_reported(folder: Path) -> None:
    """Somebody removes the first segments, and writes what pruning leaves by himself."""

    def tell(_until: int, _reason: str, _digest: str) -> None:
        pass

    Retention(folder, limits=RetentionLimits(age_s=4.5 * DAY_S), record_pruning=tell).apply(
        now=NOON + 8 * DAY_S
    )
    trust = TrustAnchors(frozenset(read_public_keys(key_files(folder).public)))
    for thorough in (False, True):
        found = verify(folder, trust, thorough=thorough)
        assert (found.first_bad, found.fault) == (1, "gap")
        assert "none announces their pruning" in found.reason


def test_records_missing_by_an_unsigned_prune_record_are_reported(folder: Path) -> None:
    """Without a key, somebody can append the record as well."""
    keep = RetentionLimits(age_s=4.5 * DAY_S)
    kept = parse_checkpoint(parse_note(key_files(folder).checkpoint.read_text()))
    Retention(folder, limits=keep, record_pruning=telling(folder, every=None)).apply(
        now=NOON + 8 * DAY_S
    )
    keys = frozenset(read_public_keys(key_files(folder).public))
    for trust in (TrustAnchors(), TrustAnchors(keys), TrustAnchors(keys, (kept,))):
        for thorough in (False, True):
            found = verify(folder, trust, thorough=thorough)
            assert (found.first_bad, found.fault) == (1, "gap")
            assert "no checkpoint is of the record 100, which announces" in found.reason


def test_a_checkpoint_of_what_was_pruned_is_compared_or_told(folder: Path) -> None:
    kept = [
        read_checkpoint(record).checkpoint
        for record in records(folder)
        if record.entry.stage == "checkpoint"
    ]
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    pruned = checked(folder).pruned
    keys = frozenset(read_public_keys(key_files(folder).public))
    found = verify(folder, TrustAnchors(keys, tuple(kept)))
    assert found.ok
    assert found.uncompared == tuple(each.size for each in kept if each.size < pruned - 1)
    (last,) = (each for each in kept if each.size == pruned - 1)
    found = verify(folder, TrustAnchors(keys, (replace(last, root=bytes(32)),)))
    assert (found.first_bad, found.fault) == (1, "root")


def test_what_is_kept_of_the_pruned_ones_cant_be_made_up(folder: Path) -> None:
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    base = folder / BASE_NAME
    good = base.read_bytes()
    trust = TrustAnchors(frozenset(read_public_keys(key_files(folder).public)))
    for at in range(0, len(good), 11):
        base.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert not verify(folder, trust).ok, f"byte {at}"
    base.unlink()
    found = verify(folder, trust)
    assert (found.first_bad, found.fault) == (1, "gap")


def test_a_damaged_inventory_of_the_pruned_ones_is_told(folder: Path) -> None:
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    pruned = checked(folder).pruned
    assert pruned_inventory(folder, known=pruned) is None
    for content in (b"", b"{}", b"[]"):
        (folder / INVENTORY_NAME).write_bytes(content)
        with pytest.raises(StateError) as caught:
            pruned_inventory(folder, known=pruned - 1)
        assert caught.value.code == "journal.damaged"


def vouch_for_evil(folder: Path) -> None:
    """Add an image that nobody vouched for to the inventory of the pruned records."""
    path = folder / INVENTORY_NAME
    value = json.loads(path.read_bytes())
    value["ledger"].append(["evil:1", {"reference": "evil:1", "id": "sha256:0"}])
    path.write_bytes(canonical(value))


def test_a_changed_inventory_of_the_pruned_records_is_not_used_nor_passed_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    before = names(folder)
    vouch_for_evil(folder)
    said = r"\.inventory differs from the file that record \d+ describes"
    with pytest.raises(StateError, match=said) as caught:
        pruned_inventory(folder, known=0)
    assert "restore .pruned and .inventory from a backup" in caught.value.remedy
    with pytest.raises(BadBase, match=said):
        look_after(folder, RetentionLimits(age_s=2.5 * DAY_S))
    assert names(folder) == before
    assert not upkeep_at(folder, 8)
    assert "journal.inventory.unusable error=.inventory differs from" in caplog.text


@pytest.mark.parametrize("content", [None, b"[]"], ids=["an inventory", "malformed"])
def test_an_inventory_from_before_the_first_pruning_is_reported_and_not_passed_on(
    folder: Path, content: bytes | None
) -> None:
    last = last_seq(folder)
    known = Inventory(seq=last, ledger={"evil:1": TrustedImage("evil:1", "sha256:0")})
    planted = folder / INVENTORY_NAME
    planted.write_bytes(content or canonical(inventory_json.to_json(known)))
    planted.chmod(0o600)
    trust = TrustAnchors(frozenset(read_public_keys(key_files(folder).public)))
    for thorough in (False, True):
        found = verify(folder, trust, thorough=thorough)
        assert (found.fault, found.file) == ("inventory", str(planted))
        assert "no record describes it, and nothing was pruned" in found.reason
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    assert checked(folder).pruned
    assert set(folded(folder).ledger) == {f"web:{number}" for number in range(80)}


def test_an_earlier_inventory_of_pruned_records_in_its_place_is_not_used(folder: Path) -> None:
    look_after(folder, RetentionLimits(age_s=6.5 * DAY_S))
    earlier = (folder / INVENTORY_NAME).read_bytes()
    look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    (folder / INVENTORY_NAME).write_bytes(earlier)
    with pytest.raises(StateError, match="ends before what was pruned"):
        pruned_inventory(folder, known=0)


def test_an_inventory_without_a_digest_in_its_prune_record_is_used(folder: Path) -> None:
    def tell(until: int, reason: str, _digest: str) -> None:
        telling(folder)(until, reason, "")

    Retention(folder, limits=RetentionLimits(age_s=4.5 * DAY_S), record_pruning=tell).apply(
        now=NOON + 8 * DAY_S
    )
    assert len(folded(folder).ledger) == 80
    look_after(folder, RetentionLimits(age_s=2.5 * DAY_S))
    assert len(folded(folder).ledger) == 80
    vouch_for_evil(folder)
    with pytest.raises(StateError, match="differs from"):
        folded(folder)


def test_what_is_damaged_isnt_pruned(folder: Path) -> None:
    path = list_segments(folder)[1]
    path.write_bytes(path.read_bytes().replace(b"web:1", b"web:x", 1))
    before = names(folder)
    with pytest.raises(Exception, match="its hash isn't that of its content"):
        look_after(folder, RetentionLimits(age_s=4.5 * DAY_S))
    assert names(folder) == before


def test_without_a_record_nothing_goes(folder: Path) -> None:
    def tell(_until: int, _reason: str, _digest: str) -> None:
        raise JournalUnavailable("journal.unavailable", "no space left")

    before = names(folder)
    with pytest.raises(JournalUnavailable):
        Retention(folder, limits=RetentionLimits(age_s=DAY_S), record_pruning=tell).apply(
            now=NOON + 8 * DAY_S
        )
    assert names(folder) == before


def test_a_segment_that_ends_otherwise_goes_with_the_next_that_ends_with_its_checkpoint(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "journal"
    clock = FixedClock()
    for day in range(4):
        log = open_log(folder, clock=clock, every=CheckpointInterval(), limits=DAILY)
        log.append(happened(day))
        if day == 0:
            cut_off(log, folder)
        else:
            log.close()
        clock.time += DAY_S
    before = names(folder)
    assert len(before) == 5
    look_after(folder, RetentionLimits(age_s=3.5 * DAY_S), days=4)
    assert names(folder) == before  # the first alone can't go
    look_after(folder, RetentionLimits(age_s=2.5 * DAY_S), days=4)
    assert names(folder)[0] == before[2]
    assert checked(folder).ok


def cut_off(log: Log, folder: Path) -> None:
    """End with a torn line, so that the segment is left without a checkpoint."""
    log._leave_segment()
    log.close()
    with list_segments(folder)[-1].open("ab") as file:
        file.write(b'{"torn')
    open_log(folder, every=CheckpointInterval(), limits=DAILY).close()


def test_a_compression_that_fails_leaves_the_segment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = list_segments(folder)[0]
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_check_alike", full)
        with pytest.raises(OSError, match="No space left"):
            compress(path)
    with pytest.raises(OSError, match="Interrupted"):
        compress(path, is_cancelled=lambda: True)
    assert path.read_bytes() == before
    assert not list(folder.glob("*.gz*"))
    # A copy that a kill left beside is made anew.
    path.with_name(f"{path.name}.gz").write_bytes(b"half")
    path.with_name(f"{path.name}.gz.new").write_bytes(b"half")
    assert names(folder)[0] == path.name
    look_after(folder, RetentionLimits(plain_s=6.5 * DAY_S))
    assert names(folder)[0] == f"{path.name}.gz"
    assert checked(folder).ok


class Watched(FixedClock):
    """Tells that it was looked at, as each round does once."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.looked = threading.Semaphore(0)

    def now(self) -> float:
        self.looked.release()
        return super().now()


def upkeep_at(folder: Path, *days: float) -> bool:
    """Look after a journal at so many days after its first; tell whether the last is doubted."""
    clock = Watched(NOON + days[0] * DAY_S)
    keep = RetentionLimits(plain_s=1000 * DAY_S)
    upkeep = RetentionThread(folder, limits=keep, clock=clock, record_pruning=telling(folder))
    for day in (*days[1:], days[-1]):  # a round is over when the next one begins
        assert clock.looked.acquire(timeout=30)
        clock.time = NOON + day * DAY_S
        upkeep.wake()
    assert clock.looked.acquire(timeout=30)
    upkeep.close()
    return upkeep.doubted


def test_a_clock_that_is_wrong_at_the_start_or_jumps_ahead_makes_nothing_old(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = names(folder)
    assert upkeep_at(folder, 108)
    assert "journal.clock.ahead days=101: nothing is pruned by age" in caplog.text
    assert upkeep_at(folder, 8, 108, 1008)
    assert names(folder) == before
    # Nor does a start after one that wrote with that clock, as long as it hasn't run on for a week.
    log = open_log(
        folder, clock=FixedClock(NOON + 108 * DAY_S), every=CheckpointInterval(), limits=DAILY
    )
    log.close()
    assert upkeep_at(folder, 108, 108.1)
    assert names(folder)[:-1] == before


def test_what_is_old_goes_a_week_after_a_long_pause(folder: Path) -> None:
    assert not upkeep_at(folder, *range(108, 116))
    assert checked(folder).pruned


def test_a_segment_that_a_clock_in_the_past_ended_isnt_old(tmp_path: Path) -> None:
    folder, clock = tmp_path / "journal", FixedClock()
    for number, day in enumerate((0, -20_000, 0.1, 1.2)):
        clock.time = NOON + day * DAY_S
        log = open_log(folder, clock=clock, every=CheckpointInterval(), limits=DAILY)
        log.append(happened(number))
        log.close()
    before = names(folder)
    assert len(before) == 4
    look_after(folder, RetentionLimits(plain_s=1000 * DAY_S), days=1.2)
    assert names(folder) == before


def test_the_writer_prunes_when_it_closed_a_segment(tmp_path: Path) -> None:
    folder, clock, new_id = tmp_path / "journal", FixedClock(), Ids()
    gone = threading.Event()

    class Watching(Writer):
        def append(self, one: Entry):
            record = super().append(one)
            if one.request.get("route") == "journal.prune":
                gone.set()
            return record

    with Watching(
        folder,
        clock=clock,
        new_id=new_id,
        limits=SegmentLimits(max_segment_bytes=20_000),
        checkpointer=checkpointer_of(folder, clock, new_id, CheckpointInterval()),
        retention=RetentionLimits(size_bytes=50_000),
    ) as writer:
        number = 0
        while not gone.is_set() and number < 2000:
            writer.append(happened(number))
            number += 1
        assert gone.wait(30)
    assert read_inventory(folder).seq
    assert checked(folder).pruned
