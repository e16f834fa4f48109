"""Checks beside the chain: clocks, keys, checkpoints, inventory files, incidents; and the part of a backup.

Jumps of the clock between records: back, or more than a year ahead.

Such a jump is no fault, since the broker records the time that its host has, and records are
ordered by their numbers. But times of records around a jump prove little.

Incidents that records report: torn tails, outages, lost keys and rejected snapshots.

Compare the broker's inventory files with the records that describe them (docs/decisions/0047).

Two files hold what records say: ``broker/inventory.json``, a snapshot, and ``.inventory``, the
inventory of the pruned records. The broker relies on both, but no chain links them. A signed record
has the digest of each, and is durable before the file is. The files are read before the records, so
that a broker at work never makes a difference.

Compare the keys that a file beside the journal lists with the keys that the records introduce.

Whoever can write records can write the file as well. A key in the file that no record introduced
signed nothing, but a verification with the file would trust it from then on.

Check the keys and checkpoints of a journal: each checkpoint is signed by the current key.

The journal itself introduces the current key: by a key record, and by the next checkpoint, signed
by the previous key too. The caller names the *trusted* keys. Records are vouched for once a trusted
key signed a checkpoint of them, or a key that a trusted key introduced. A replaced key vouches for
no later record, so that a stolen old key is useless. Without a trusted key, an attacker can only
write a journal with keys of their own, for which no trusted key vouches.

The files are opened at once and copied later. The writer appends to the last segment, and compresses
or prunes earlier ones meanwhile; open files keep their content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from controller.core.encoding.json_values import mapping_member, mapping_of
from controller.core.records import checkpoint
from controller.core.records.checkpoint import (
    CheckpointRecord,
    DescribedInventory,
    content_digest,
    described_pruned,
    described_snapshot,
    is_key_lost,
    read_checkpoint,
    read_key,
    rejected_snapshot,
)
from controller.core.records.parts import ResultPart
from controller.core.records.record import is_clock_jump, parse
from controller.core.transparency import BadNote, PublicKey, Range
from controller.journal.store.chain import (
    BASE_NAME,
    INVENTORY_NAME,
    ChainFault,
    PrunedBase,
    pruned_seq,
)
from controller.journal.store.segments import (
    COMPRESSED,
    DurableMark,
    first_seq_of,
    list_segments,
    name_of,
    open_regular,
    open_segment,
    read_lines,
)
from controller.journal.writer.checkpointer import PublishedKey, earlier
from controller.model.errors import StateError
from controller.model.records import Record

#: The most jumps that are listed: a clock can jump with every record.
JUMPS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A record whose time doesn't follow the time of the record before."""

    seq: int
    before: str  # the time of the record before
    time: str


class ClockCheck:
    """The first jumps of the clock, up to ``JUMPS_MAX``, and the time of the last record."""

    def __init__(self) -> None:
        self.jumps: list[ClockJump] = []
        self.first = ""  # time of the first record
        self.last = ""

    def observe(self, seq: int, time: str) -> None:
        """Compare the next record with the record before."""
        self.first = self.first or time
        if self.last and is_clock_jump(self.last, time):
            self.extend([ClockJump(seq, self.last, time)])
        self.last = time

    def join(self, seq: int, right: ClockCheck) -> None:
        """Append the check of the records from *seq* on."""
        if right.first:
            self.observe(seq, right.first)
            self.extend(right.jumps)
            self.last = right.last

    def take(self, upto: int) -> list[ClockJump]:
        """Remove and return the jumps up to a record."""
        taken = [each for each in self.jumps if each.seq <= upto]
        self.jumps = self.jumps[len(taken) :]
        return taken

    def extend(self, jumps: Iterable[ClockJump]) -> None:
        """Add jumps after the present ones."""
        self.jumps = [*self.jumps, *jumps][:JUMPS_MAX]


@dataclass(frozen=True, slots=True)
class Repair:
    """A recorded incident."""

    seq: int  # of the record
    what: str


def repairs_of_opening(record: Record) -> Iterator[Repair]:
    """Yield the torn tail and the outage that a segment record reports."""
    result = ResultPart.read(record.entry.result)
    repair, outage = result.repair, result.outage
    if repair.reason:
        lost = ", and an acknowledged record was lost" if repair.durable else ""
        what = f"{repair.bytes} torn bytes were moved aside: {repair.reason}{lost}"
        yield Repair(record.seq, what)
    if outage.since:
        what = f"not writable from {outage.since} to {record.time}: {outage.error}"
        yield Repair(record.seq, f"{what}; {outage.refused} entries refused")


def repairs_of_act(record: Record) -> Iterator[Repair]:
    """Yield a key that replaced a lost one, unsigned by the previous key, or a rejected snapshot."""
    if reason := rejected_snapshot(record):
        yield Repair(record.seq, reason)
    key = read_key(record)
    if key is not None and is_key_lost(record):
        what = (
            f"the key before was lost, so that it didn't sign for {key}, which signs from here on"
        )
        yield Repair(record.seq, what)


#: The most unsigned records at the end of a signed journal: the write with the thousandth record
#: includes a checkpoint, and a reader can see a part of that write.
UNSIGNED_MAX: Final = 2048


class BadCheckpoint(Exception):
    """A bad checkpoint or key. ``seq`` is the first record that is not vouched for."""

    def __init__(self, fault: ChainFault, reason: str, *, seq: int) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason
        self.seq = seq


@dataclass(frozen=True, slots=True)
class KeyValidity:
    """A key of the journal."""

    key: str
    until: int | None  # the last record covered by the key's checkpoints; None for the current key
    record: int | None = None  # that introduced the key; None before the first checked record
    time: str = ""  # of that record
    by: str = ""  # "first", "previous key" (signed the introduction) or "lost key" (didn't)


class TrustChain:
    """The state after the checkpoints so far.

    *until* limits some *trusted* keys to the records up to a seq.

    - ``size``: the number of records covered by the last good checkpoint.
    - ``vouched``: the last record signed by a trusted key.
    - ``doubtful``: the first checkpoint after ``vouched``, by its seq; 0 if there is none.
    - ``awaited``: trusted keys without a limit, if others have one. Empty once such a key signed.
    - ``keys``: the journal's keys, in order.
    """

    def __init__(self, trusted: frozenset[PublicKey], until: Mapping[PublicKey, int]) -> None:
        self._trusted: dict[PublicKey, int | None] = {key: until.get(key) for key in trusted}
        self.awaited = trusted - until.keys() if until else frozenset()
        self._current: PublicKey | None = None
        self._coming: PublicKey | None = None
        self._introduction: Record | None = None  # of the coming key
        self._lost = False
        self.size = 0
        self.vouched = 0
        self.doubtful = 0
        self.keys: tuple[KeyValidity, ...] = ()

    def begin(self, record: Record) -> Range:
        """Begin at a checkpoint without the records before; return the tree of those records.

        Raises:
            BadCheckpoint: the checkpoint isn't signed by the key that its record names.
        """
        sealed = _read(record)
        if not sealed.note.is_signed_by(sealed.key):
            raise _bad_signature(record, sealed.key)
        self._current = sealed.key
        self._count(record, sealed, (sealed.key,))
        return sealed.tree

    def read_key_record(self, record: Record) -> None:
        """Note the key in a key record; the next checkpoint introduces the key.

        Raises:
            BadCheckpoint: the record has no valid key.
        """
        try:
            coming = checkpoint.read_key(record)
        except BadNote as error:
            raise BadCheckpoint(ChainFault.SIGNATURE, str(error), seq=record.seq) from error
        if coming is not None:
            self._coming, self._introduction = coming, record
        self._lost = checkpoint.is_key_lost(record)

    def forget(self) -> None:
        """Forget a key noted since the last checkpoint: its record is read again."""
        self._coming, self._introduction, self._lost = None, None, False

    def check(self, record: Record, tree: Range) -> None:
        """Check a checkpoint; *tree* is the tree of the records before.

        Raises:
            BadCheckpoint: a signature is missing or bad, or the signed root is not that of *tree*.
        """
        sealed = _read(record)
        key = self._coming or self._current
        if key is None or sealed.key != key:
            raise BadCheckpoint(
                ChainFault.SIGNATURE,
                f"its checkpoint is of the key {sealed.key}, and {key or 'none'} is in force",
                seq=record.seq,
            )
        signers = [key]
        if self._coming not in {None, self._current} and self._current and not self._lost:
            signers.append(self._current)
        for each in signers:
            if not sealed.note.is_signed_by(each):
                raise _bad_signature(record, each)
        if sealed.checkpoint.root != tree.root:
            raise BadCheckpoint(
                ChainFault.ROOT,
                f"one of the records {self.size + 1} to {record.seq - 1} isn't what was signed "
                f"by the checkpoint {record.seq}",
                seq=self.size + 1,
            )
        size = sealed.checkpoint.size
        if self._is_vouched(size, signers):
            self._trusted.setdefault(key, None)
        for replaced in signers[1:]:
            if replaced in self._trusted:
                self._trusted[replaced] = earlier(self._trusted[replaced], size)
        self._count(record, sealed, signers)

    def _is_vouched(self, size: int, signers: Sequence[PublicKey]) -> bool:
        """Return True if one of the signers is trusted for the first *size* records."""
        ends = [self._trusted[each] for each in signers if each in self._trusted]
        return any(end is None or size <= end for end in ends)

    def _count(
        self, record: Record, sealed: checkpoint.CheckpointRecord, signers: Sequence[PublicKey]
    ) -> None:
        if not self.keys or self.keys[-1].key != str(sealed.key):
            size = sealed.checkpoint.size
            ended = [replace(each, until=each.until or size) for each in self.keys]
            self.keys = (*ended, self._begun(sealed.key))
        self._current = sealed.key
        self.forget()
        self.size = sealed.checkpoint.size
        if sealed.key in self.awaited:
            self.awaited = frozenset()
        if self._is_vouched(self.size, signers):
            self.vouched, self.doubtful = self.size, 0
        elif not self.doubtful:
            self.doubtful = record.seq

    def _begun(self, key: PublicKey) -> KeyValidity:
        """Return the key of the following signatures, with the introducing record."""
        record = self._introduction
        if record is None:
            return KeyValidity(str(key), None)
        by = "lost key" if self._lost else "previous key" if self._current else "first"
        return KeyValidity(str(key), None, record.seq, record.time, by)


def _read(record: Record) -> checkpoint.CheckpointRecord:
    try:
        return checkpoint.read_checkpoint(record)
    except BadNote as error:
        text = f"its checkpoint can't be believed: {error}"
        raise BadCheckpoint(ChainFault.SIGNATURE, text, seq=record.seq) from error


def _bad_signature(record: Record, key: PublicKey) -> BadCheckpoint:
    text = f"its checkpoint isn't signed by the key {key}"
    return BadCheckpoint(ChainFault.SIGNATURE, text, seq=record.seq)


@dataclass(frozen=True, slots=True)
class FileFinding:
    """The result of comparing files with the records."""

    file: str = ""  # a bad file; '' if none is bad
    reason: str = ""
    notes: tuple[str, ...] = ()  # differences without harm, and files that were not compared


def check_published_keys(
    published: Sequence[PublishedKey], keys: Sequence[KeyValidity], *, file: str, begin: int
) -> FileFinding:
    """Compare a list of keys with the journal's *keys* after record *begin*.

    A replaced key that signed only records up to *begin* is not compared.
    """
    known = {each.key: each for each in keys}
    for each in published:
        is_earlier = each.until is not None and each.until <= begin
        if str(each.key) not in known and not is_earlier:
            reason = (
                f"{file} lists the key {each.key}, which no record introduced: whoever has it could "
                "sign a changed journal. Keep a copy of the file, find out who added the line, and "
                "remove it"
            )
            return FileFinding(file, reason)
    return FileFinding(notes=tuple(_differences(published, known.values(), file=file)))


def _differences(
    published: Sequence[PublishedKey], keys: Iterable[KeyValidity], *, file: str
) -> Iterator[str]:
    introduced = {each.key: each.record for each in keys if each.record is not None}
    for each in published:
        record = introduced.get(str(each.key))
        if record is not None and each.introduced is not None and each.introduced.seq != record:
            yield (
                f"{file} says that record {each.introduced.seq} introduced the key {each.key}: it "
                f"was record {record}"
            )


class InventoryCheck:
    """The inventory files of a journal, and the records about them so far.

    *snapshot* is the broker's snapshot; None for a copy of the journal's folder alone.
    """

    def __init__(self, folder: Path, *, snapshot: Path | None) -> None:
        self._pruned_path = folder / INVENTORY_NAME
        self._pruned_digest = _digest(self._pruned_path)
        self._snapshot_path = snapshot
        self._content = _content(snapshot) if snapshot is not None else None
        self._snapshot_digest = content_digest(self._content) if self._content is not None else ""
        self._last: DescribedInventory | None = None  # of a snapshot
        self._described = 0  # the record that describes the present snapshot
        self._prunings: list[DescribedInventory] = []

    def observe(self, record: Record) -> None:
        """Note a record that describes an inventory file; a record can be observed twice."""
        if record.entry.stage == "read":
            described = described_snapshot(record)
            if described is not None:
                self._last = described
                if described.digest == self._snapshot_digest:
                    self._described = described.seq
        elif (pruning := described_pruned(record)) is not None:
            self._prunings.append(pruning)

    def compare(self, base: PrunedBase | None, *, begin: int, signed: int) -> FileFinding:
        """Compare the files; the records after *begin* were observed.

        *signed* is the last record covered by a checkpoint, 0 in a journal without signatures.
        """
        if base is not None:
            pruned = self._compare_pruned(base, begin=begin)
        else:
            pruned = self._check_unpruned(begin=begin)
        if pruned.file:
            return pruned
        gone = base.record.seq if base is not None else 0
        snapshot = self._compare_snapshot(gone, begin=begin, signed=signed)
        return FileFinding(snapshot.file, snapshot.reason, pruned.notes + snapshot.notes)

    def _compare_snapshot(self, gone: int, *, begin: int, signed: int) -> FileFinding:
        path = self._snapshot_path
        if path is None or self._content is None:
            return FileFinding()  # a start without a snapshot reads the journal
        if self._described and (not signed or self._described <= signed):
            return FileFinding()
        until, last = _until(self._content), self._last
        if until is not None and until < gone:
            return FileFinding()  # a start uses the inventory of the pruned records instead
        if begin > gone and (last is None or (until is not None and until < begin)):
            return _uncompared(path, f"the record about it is before record {begin + 1}")
        if last is None:
            return _uncompared(path, "no record has its digest yet")
        reason = (
            f"{path} isn't the file that record {last.seq} describes (records 1 to {last.until}): it "
            "was changed since, or comes from another copy of the state folder. Keep a copy of it and "
            "find out who changed it. The broker doesn't use it: the next start rebuilds the inventory "
            "from the journal"
        )
        return FileFinding(str(path), reason)

    def _check_unpruned(self, *, begin: int) -> FileFinding:
        """Check ``.inventory`` of an unpruned journal: only a begun pruning leaves the file."""
        path = self._pruned_path
        if not self._pruned_digest or any(
            each.digest in ("", self._pruned_digest) for each in self._prunings
        ):
            return FileFinding()
        if begin:
            return _uncompared(path, f"a record about it can be before record {begin + 1}")
        reason = (
            f"{path} isn't the broker's: no record describes it, and nothing was pruned. Keep a copy "
            "of it, find out who wrote it, and remove it. The broker doesn't use it"
        )
        return FileFinding(str(path), reason)

    def _compare_pruned(self, base: PrunedBase, *, begin: int) -> FileFinding:
        path, until = self._pruned_path, base.record.seq
        if self._pruned_digest and self._pruned_digest in {each.digest for each in self._prunings}:
            return FileFinding()
        own = next((each for each in reversed(self._prunings) if each.until == until), None)
        if own is None:
            # With all records read, ``verify`` reports that none announces the pruning.
            return _uncompared(path, f"the record about it is before record {begin + 1}")
        if not self._pruned_digest:
            if self._snapshot_path is None:
                return _uncompared(path, "it isn't in this copy")
            how = f"is missing: it had the inventory of the pruned records 1 to {until}"
        elif not own.digest:
            return _uncompared(path, f"record {own.seq} has no digest of it")
        elif _digest(path) != self._pruned_digest:
            return _uncompared(path, "it was replaced meanwhile: verify again")
        else:
            how = (
                f"isn't the file that record {own.seq} describes (pruned records 1 to {until}): it was "
                "changed since"
            )
        reason = (
            f"{path} {how}. Keep a copy of the folder, find out who changed it, and restore the file "
            "from a backup. Until then the broker prunes nothing, and needs its snapshot to start"
        )
        return FileFinding(str(path), reason)


def _uncompared(path: Path, why: str) -> FileFinding:
    return FileFinding(notes=(f"{path} wasn't compared: {why}",))


def _content(path: Path) -> bytes | None:
    """Return the content of a file; None if it is missing, nothing if it is no regular file."""
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError:
        return b""


def _digest(path: Path) -> str:
    content = _content(path)
    return content_digest(content) if content is not None else ""


def _until(content: bytes) -> int | None:
    """Return the last record of a snapshot, as the snapshot claims; None if it has no such claim."""
    with suppress(ValueError, RecursionError):
        value = mapping_member(mapping_of(json.loads(content)), "inventory")
        seq = value.get("seq")
        return seq if type(seq) is int else None
    return None


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of the part: a checkpoint that signs all records before it."""

    mark: DurableMark
    #: RFC 3339, of the checkpoint.
    time: str
    sealed: CheckpointRecord
    #: The first seq of the last segment, and the bytes of this segment up to the checkpoint.
    segment: int
    size: int


@dataclass(frozen=True, slots=True)
class CutFile:
    """A file of the part."""

    name: str
    file: BinaryIO
    size: int


@contextmanager
def open_cut(folder: Path, identifier: str, *, pruned: int) -> Iterator[tuple[Cut, list[CutFile]]]:
    """Yield the part up to the checkpoint after a record, and its open files without the mark.

    *pruned* is the last record that was pruned before the record with *identifier* was written.

    Raises:
        StateError: ``backup.changed``. Another attempt gets further.
        OSError: a file can't be read.
    """
    cut = _find(folder, identifier)
    with ExitStack() as stack:
        names = [] if not pruned else [BASE_NAME, INVENTORY_NAME]
        opened = [(name, stack.enter_context(open_regular(folder / name))) for name in names]
        segments = [
            path for path in list_segments(folder) if pruned < first_seq_of(path) <= cut.segment
        ]
        opened += [_open(path, stack) for path in segments if first_seq_of(path) < cut.segment]
        files = [CutFile(name, file, os.fstat(file.fileno()).st_size) for name, file in opened]
        last = stack.enter_context(open_segment(segments[-1]))
        files.append(CutFile(name_of(cut.segment), last, cut.size))
        if pruned_seq(folder) != pruned:
            raise changed()
        yield cut, files


def _open(path: Path, stack: ExitStack) -> tuple[str, BinaryIO]:
    try:
        return path.name, stack.enter_context(open_regular(path))
    except FileNotFoundError:  # compressed meanwhile
        packed = path.with_name(f"{path.name}{COMPRESSED}")
    try:
        return packed.name, stack.enter_context(open_regular(packed))
    except FileNotFoundError:  # pruned meanwhile
        raise changed() from None


def _find(folder: Path, identifier: str) -> Cut:
    """Find the checkpoint that was written together with a record."""
    for segment in reversed(list_segments(folder)):
        found: Record | None = None
        for line in read_lines(segment):
            if found is None and identifier.encode() not in line.data:
                continue
            record = parse(line.data)
            if found is None:
                found = record if record.entry.id == identifier else None
            elif record.entry.stage == "checkpoint":
                return Cut(
                    DurableMark(record.seq, record.hash),
                    record.time,
                    read_checkpoint(record),
                    first_seq_of(segment),
                    line.offset + len(line.data) + 1,
                )
    raise changed()


def changed() -> StateError:
    """Return the error about a journal of which another part is kept than a moment before."""
    return StateError(
        "backup.changed",
        "records of the journal were pruned, or its key was replaced, while the backup began",
        remedy="try again",
    )
