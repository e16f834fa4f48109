"""Verify a journal: no record was changed, and no record is missing.

Verification takes two passes. The first covers signed records: it hashes the bytes of segments in
parallel (``fast_scan``), and compares the tree with each signed root. The first pass reports no
fault; at anything unexpected it ends, at the last good checkpoint. From there the second pass
(``chain.ChainWalk``) parses each line, checks canonical form, hash, link and place, and reports the
first bad record. Unsigned records are thus always parsed: the last records of a journal, or every
record of a journal without a key.

Export a part of the journal as whole segments, so that the copy can be verified alone.

A copy from the middle of the journal begins one segment earlier, for the checkpoint at that
segment's end: from that checkpoint on (``verify --from``), chain and tree can be verified.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from controller.core.records.checkpoint import Checkpoint, pruned_by
from controller.core.records.record import GENESIS, parse, parse_or_none
from controller.core.transparency import PublicKey, Range, leaf_hash
from controller.journal.store.chain import (
    BASE_NAME,
    FILE_MODE,
    FOLDER_MODE,
    BadBase,
    ChainFault,
    ChainWalk,
    Damage,
    PrunedBase,
    binding_flaw,
    read_base,
)
from controller.journal.store.reader import final_checkpoint, last_seq, missing, readable
from controller.journal.store.segments import (
    MARK_NAME,
    BadMark,
    BadSegment,
    DurableMark,
    first_seq_of,
    list_segments,
    open_regular,
    read_lines,
    read_mark,
)
from controller.journal.verify.checks import (
    UNSIGNED_MAX,
    BadCheckpoint,
    ClockCheck,
    ClockJump,
    FileFinding,
    InventoryCheck,
    KeyValidity,
    Repair,
    TrustChain,
    check_published_keys,
    repairs_of_act,
    repairs_of_opening,
)
from controller.journal.verify.fast_scan import (
    CHECKPOINT_MARK,
    ROW_BYTES,
    IdLifetimes,
    ScanJob,
    Scanned,
    scans,
)
from controller.journal.writer.checkpointer import PublishedKey
from controller.model.errors import StateError
from controller.model.records import Record


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The keys and checkpoints that the caller trusts, apart from the journal itself."""

    #: Trusted keys. If empty, the keys in the journal are trusted.
    keys: frozenset[PublicKey] = frozenset()
    #: Checkpoints kept elsewhere, with signatures checked already.
    copies: tuple[Checkpoint, ...] = ()
    #: The last record signed by each replaced key.
    until: Mapping[PublicKey, int] = field(default_factory=dict)
    #: The file beside the journal that lists the keys; '' if the keys come from elsewhere.
    file: str = ""
    published: tuple[PublishedKey, ...] = ()  # in that file

    @property
    def signer(self) -> str:
        """The owner of a good signature, for messages."""
        return f"a key in {self.file}" if self.file else "a key that is trusted"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of ``verify``."""

    records: int  # the number of good records
    segments: int
    last_hash: str
    pruned: int = 0  # the last pruned record
    begin: int = 1  # the first checked record
    #: The last record signed by a trusted key, or by the journal's own keys if none is trusted.
    signed: int = 0
    trusted: bool = False  # the caller named trusted keys, from elsewhere
    keys_from: str = ""  # the file with the keys, if it lies beside the journal
    keys: tuple[KeyValidity, ...] = ()
    open_intents: tuple[tuple[str, int], ...] = ()  # id and seq, without a closing record so far
    repairs: tuple[Repair, ...] = ()
    #: After the last record: a line that a writer is completing, or that the next start moves aside.
    unfinished_bytes: int = 0
    uncompared: tuple[int, ...] = ()  # sizes of kept checkpoints that no checked record can confirm
    unmarked: bool = False  # there is no durable mark to name the last record
    clock_jumps: tuple[ClockJump, ...] = ()  # the first ones
    notes: tuple[str, ...] = ()  # what was not compared, and why
    first_bad: int | None = None  # None if all records are good
    fault: str = ""  # a ``ChainFault``
    file: str = ""  # where the bad record belongs, or the bad file
    line: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        """True if every record and file is as written, and no record is missing."""
        return not self.fault


NOBODY: Final = TrustAnchors()


def verify(
    folder: Path,
    trust: TrustAnchors = NOBODY,
    *,
    begin: int = 1,
    thorough: bool = False,
    workers: int = 1,
    snapshot: Path | None = None,
) -> Verification:
    """Check all records, or those from the last checkpoint before *begin* on.

    Checked are: the hash and link of each record, gaps, signatures, that each intent is closed at
    most once, the checkpoints kept elsewhere, and the inventory files. *snapshot* is the broker's
    snapshot; None for a copy of the folder alone. With *thorough*, signed lines are parsed too.

    Memory is bounded by the open intents and by one segment for each worker (37 bytes a record), not
    by the length of the journal. A journal can be verified while its writer appends.

    Raises:
        StateError: the journal is missing, or can't be read.
    """
    with readable(folder):
        audit = _Audit(folder, trust, InventoryCheck(folder, snapshot=snapshot))
        damage: Damage | None = None
        try:
            audit.start(begin)
            if not thorough:
                audit.prove(workers=workers)
            audit.walk()
        except Damage as error:
            damage = error
        return audit.result(damage)


class _Audit:
    """The state of one verification: the first ``_seq`` records are good, and have ``_tree``."""

    def __init__(self, folder: Path, trust: TrustAnchors, inventory: InventoryCheck) -> None:
        self._folder = folder
        self._trust = trust
        self._inventory = inventory
        self._walk = ChainWalk(folder)
        if not self._walk.segments and self._walk.mark is None:
            raise missing(folder)
        self._copies: dict[int, set[bytes]] = {}  # size -> roots of the kept checkpoints
        for copy in trust.copies:
            self._copies.setdefault(copy.size, set()).add(copy.root)
        self._uncompared: list[int] = []
        self._confirmed = 0  # size of the largest confirmed copy so far
        self._chain = TrustChain(trust.keys, trust.until)
        self._ids = IdLifetimes(folder)
        self._clock = ClockCheck()
        self._repairs: list[Repair] = []
        self._prunings: dict[int, int] = {}  # last pruned record -> its prune record
        self._begin = self._seq = 0
        self._tree = Range()
        self._hash = GENESIS

    def start(self, begin: int) -> None:
        """Begin at the last checkpoint before a record, at the pruned base, or at the start."""
        self._walk.check_files()
        checkpoint = None
        if begin > 1:
            checkpoint = self._checkpoint_before(begin)
        base = self._walk.base
        if checkpoint is None and base is not None:
            checkpoint = base.record, base.line
        if checkpoint is None:
            self._compare_before(self._tree)
            return
        record, line = checkpoint
        try:
            tree = self._chain.begin(record)
        except BadCheckpoint as bad:
            raise self._damage(bad.fault, bad.reason, record.seq) from None
        self._tree = tree.extend([leaf_hash(line)])
        self._begin, self._seq, self._hash = record.seq, record.seq, record.hash
        self._ids = IdLifetimes(self._folder, partial=True)
        self._compare_before(tree, self._tree)

    def _checkpoint_before(self, begin: int) -> tuple[Record, bytes] | None:
        for segment in reversed(self._walk.segments):
            last_line = None
            # The walk from the checkpoint before reports a damaged segment.
            with suppress(BadSegment, OSError):
                for line in read_lines(segment) if first_seq_of(segment) < begin else ():
                    if first_seq_of(segment) + line.number > begin:
                        break
                    if CHECKPOINT_MARK in line.data:
                        last_line = line.data
            if last_line is not None:
                record = parse_or_none(last_line)
                return None if record is None else (record, last_line)
        return None

    # The first pass: signed records.

    def prove(self, *, workers: int) -> None:
        """Accept records as long as checkpoints are good, and the scan meets nothing unexpected."""
        walk, tree, seq, last = self._walk, self._tree, self._seq, self._hash.encode()
        firsts = [first_seq_of(path) for path in walk.segments]
        # Rescan a segment even if the record before is its last: lines can have been appended.
        begin = max(0, bisect_right(firsts, seq) - 1)
        marks = frozenset(self._copies)
        jobs = [
            ScanJob(path, max(seq, first - 1), marks)
            for path, first in zip(walk.segments[begin:], firsts[begin:], strict=True)
        ]
        unproven = _Unproven()
        for index, scanned in enumerate(scans(jobs, workers=workers), begin):
            if scanned.after != seq or (scanned.rows and scanned.prev != last):
                return
            if scanned.opening:
                opening = parse_or_none(scanned.opening)
                if opening is None or binding_flaw(opening, segment=walk.before(index)):
                    return
                unproven.openings.append(opening)
            unproven.add(scanned, tree)
            for point in scanned.points:
                record, before = parse_or_none(point.line), tree.join(point.before)
                if record is None or not self._is_valid(record, before):
                    return
                if record.entry.stage == "checkpoint":
                    self._accept(point.seq - 1, before, unproven)
            tree, seq, last = tree.join(scanned.tree), scanned.last, scanned.hash or last
            if seq - self._seq > UNSIGNED_MAX:
                return  # the following records are unsigned, in a journal without a key for instance
            if not scanned.ended:
                return  # a writer is at work, or lines were added at the segment's end

    def _is_valid(self, record: Record, tree: Range) -> bool:
        try:
            self._check_record(record, tree)
        except BadCheckpoint:
            return False
        return True

    def _accept(self, upto: int, tree: Range, unproven: _Unproven) -> None:
        """Accept the records covered by a good checkpoint."""
        bad, reason = self._ids.check_rows(self._seq + 1, unproven.rows_of(upto - self._seq))
        if bad:
            raise self._damage(ChainFault.LIFE, reason, bad)
        self._seq, self._tree = upto, tree
        self._finish_if_crowded()
        # The walk begins with the checkpoint itself, whose record before was scanned.
        self._clock.extend(unproven.clock.take(upto + 1))
        for opening in unproven.openings_until(upto):
            self._repairs += repairs_of_opening(opening)
        for size in sorted(size for size in unproven.marked if size <= upto):
            self._compare(size, unproven.marked.pop(size).root)

    # The second pass: the rest, line by line.

    def walk(self) -> None:
        """Parse the records after the last good checkpoint."""
        self._chain.forget()
        # A record of a newer version is told only if the records around it are as written.
        walk = self._walk = ChainWalk(self._folder, after=self._seq, allows_newer=True)
        self._check_mark(walk)
        for record in _records_of(walk):
            if reason := self._ids.check(record):
                raise self._damage(ChainFault.LIFE, reason, record.seq)
            self._finish_if_crowded()
            self._clock.observe(record.seq, record.time)
            if record.entry.stage == "segment":
                self._repairs += repairs_of_opening(record)
            try:
                self._check_record(record, self._tree)
            except BadCheckpoint as bad:
                raise self._damage(bad.fault, bad.reason, bad.seq) from None
            self._seq, self._tree = record.seq, self._tree.extend([leaf_hash(walk.data)])
            if record.seq in self._copies:
                self._compare(record.seq, self._tree.root)
        if damage := self._ids.finish():
            raise damage
        self._end()
        if walk.newer is not None:
            raise walk.newer

    def _check_mark(self, walk: ChainWalk) -> None:
        """Compare the mark with its record, if the first pass covered that record."""
        mark = walk.mark
        if mark is None or not self._begin < mark.seq <= self._seq:
            return
        if ChainWalk(self._folder, after=mark.seq).hash_before() != mark.hash:
            raise self._damage(
                ChainFault.CHANGED, "it isn't the record that was made durable", mark.seq
            )

    def _check_record(self, record: Record, tree: Range) -> None:
        """Check a record about keys, checkpoints or pruning.

        Raises:
            BadCheckpoint: a key or checkpoint is bad.
        """
        if record.entry.stage == "checkpoint":
            self._chain.check(record, tree)
        elif record.entry.stage == "operator":
            self._chain.read_key_record(record)
            self._repairs += repairs_of_act(record)
            self._prunings.setdefault(pruned_by(record), record.seq)
        self._inventory.observe(record)

    def _finish_if_crowded(self) -> None:
        if self._ids.crowded and (damage := self._ids.finish()):
            raise damage

    def _compare_before(self, *trees: Range) -> None:
        """Compare copies of unchecked records with the roots known from *trees*."""
        known = {tree.end: tree.root for each in trees for tree in each.beginnings()}
        for size in sorted(size for size in self._copies if size <= self._begin):
            if size in known or len(self._copies[size]) > 1:
                self._compare(size, known.get(size))
            else:
                self._uncompared.append(size)

    def _compare(self, size: int, root: bytes | None) -> None:
        """Compare the root of *size* records with each kept checkpoint of that size."""
        if self._copies[size] != {root}:
            text = (
                f"the checkpoint of {size} records that was kept elsewhere is of others: one of the "
                f"records {self._confirmed + 1} to {size} was changed"
            )
            raise self._damage(ChainFault.ROOT, text, self._confirmed + 1)
        self._confirmed = size

    def _end(self) -> None:
        """Check conditions on the journal as a whole.

        Raises:
            Damage: the end is missing or not vouched for, or records before ``begin`` are missing.
        """
        chain, last, walk = self._chain, self._seq, self._walk
        beyond = [size for size in self._copies if size > last]
        if beyond:
            text = f"it is missing: the saved checkpoint covers {max(beyond)} records"
            raise self._damage(ChainFault.CUT, text, last + 1)
        if walk.base is not None and self._begin == walk.base.record.seq:
            text = f"{self._begin} records are missing, and "
            prune_seq = self._prunings.get(self._begin)
            if prune_seq is None:
                raise self._damage(ChainFault.GAP, f"{text}none announces their pruning", 1)
            # Otherwise an attacker who can append a record could remove every record before.
            if prune_seq > chain.size:
                text += f"no checkpoint is of the record {prune_seq}, which announces their pruning"
                raise self._damage(ChainFault.GAP, text, 1)
        if not self._trust.keys:
            return
        if chain.doubtful:
            text = f"its checkpoint isn't signed by {self._trust.signer}"
            raise self._damage(ChainFault.SIGNATURE, text, chain.doubtful)
        if not chain.vouched:
            text = f"no checkpoint is signed by {self._trust.signer}"
            raise self._damage(ChainFault.SIGNATURE, text, self._begin + 1)
        if chain.awaited:
            raise self._unfollowed()
        if last - chain.size > UNSIGNED_MAX:
            text = "too many records follow the last checkpoint: they aren't signed"
            raise self._damage(ChainFault.SIGNATURE, text, chain.size + 2)

    def _unfollowed(self) -> Damage:
        """Return the damage of a trusted key that replaced another, and signed no checkpoint.

        Either the journal was cut there, or an attacker with the previous key rewrote the end. The
        record after the previous key's last record is the first unsigned one.
        """
        until = max(self._trust.until.values())
        key = ", ".join(sorted(map(str, self._chain.awaited)))
        signer = f"the key {key}, which signs from record {until + 1} on"
        if self._seq > until:
            text = f"it isn't signed by {signer}"
            return self._damage(ChainFault.SIGNATURE, text, until + 1)
        text = (
            f"it is missing: nothing is signed by {signer} (a copy of what was before that is verified "
            "with the older key alone)"
        )
        return self._damage(ChainFault.CUT, text, self._seq + 1)

    def _damage(self, fault: ChainFault, reason: str, seq: int) -> Damage:
        """Return damage at a record, with its file and line."""
        segments = self._walk.segments
        index = bisect_right([first_seq_of(path) for path in segments], seq) - 1
        if index < 0:
            return Damage(reason, fault, seq=seq, file="", line=0)
        path = segments[index]
        return Damage(reason, fault, seq=seq, file=path.name, line=seq - first_seq_of(path) + 1)

    def result(self, damage: Damage | None) -> Verification:
        """Return the result of the verification."""
        walk, base, trust = self._walk, self._walk.base, self._trust
        good = damage.seq - 1 if damage else self._seq
        signed = self._chain.vouched if trust.keys else self._chain.size
        fault, finding = "", FileFinding()
        if damage is not None:
            fault, finding = damage.fault.value, FileFinding(damage.file, damage.reason)
        else:
            fault, finding = self._check_files(signed)
        return Verification(
            records=max(0, good - self._begin),
            segments=len(walk.segments),
            last_hash=walk.hash,
            pruned=base.record.seq if base is not None else 0,
            begin=self._begin + 1,
            signed=signed,
            trusted=bool(trust.keys) and not trust.file,
            keys_from=trust.file,
            keys=self._chain.keys,
            open_intents=tuple(self._ids.open.items()),
            # Both passes can have read the same records.
            repairs=tuple(sorted(set(self._repairs), key=lambda repair: repair.seq)),
            unfinished_bytes=walk.unfinished,
            uncompared=tuple(self._uncompared),
            unmarked=walk.mark is None,
            clock_jumps=tuple(self._clock.jumps),
            notes=finding.notes,
            first_bad=damage.seq if damage else None,
            fault=fault,
            file=finding.file,
            line=damage.line if damage else 0,
            reason=finding.reason,
        )

    def _check_files(self, signed: int) -> tuple[str, FileFinding]:
        """Return the fault of the files beside good records, or '', and what is said of the files."""
        trust, begin = self._trust, self._begin
        keys = check_published_keys(trust.published, self._chain.keys, file=trust.file, begin=begin)
        inventory = self._inventory.compare(self._walk.base, begin=begin, signed=signed)
        notes = keys.notes + inventory.notes
        if not keys.file:
            fault = ChainFault.INVENTORY.value if inventory.file else ""
            return fault, replace(inventory, notes=notes)
        if inventory.file:
            notes = (*notes, inventory.reason)
        return ChainFault.SIGNATURE.value, replace(keys, notes=notes)


@dataclass(slots=True)
class _Unproven:
    """Scanned records that no good checkpoint covers yet."""

    openings: list[Record] = field(default_factory=list)
    marked: dict[int, Range] = field(default_factory=dict)
    clock: ClockCheck = field(default_factory=ClockCheck)
    _rows: bytes = b""
    _at: int = 0

    def add(self, scanned: Scanned, tree: Range) -> None:
        """Add a segment; *tree* is the tree of all records before."""
        self._rows, self._at = self._rows[self._at :] + scanned.rows, 0
        self.clock.join(scanned.after + 1, scanned.clock)
        self.marked |= {size: tree.join(right) for size, right in scanned.marked.items()}

    def rows_of(self, count: int) -> bytes:
        """Remove and return the rows of the next *count* records."""
        begin, self._at = self._at, self._at + count * ROW_BYTES
        return self._rows[begin : self._at]

    def openings_until(self, seq: int) -> Iterator[Record]:
        """Remove and yield the segment records up to a seq."""
        while self.openings and self.openings[0].seq <= seq:
            yield self.openings.pop(0)


def _records_of(walk: ChainWalk) -> Iterator[Record]:
    """Yield a walk's records; an unreadable segment is damage at its first record."""
    try:
        yield from walk
    except (FileNotFoundError, PermissionError):
        raise  # the journal is missing, or readable for another user only
    except OSError as error:
        why = error.strerror or str(error)
        raise walk.damage(f"{walk.file} can't be read: {why}", ChainFault.UNREADABLE) from error


@dataclass(frozen=True, slots=True)
class Copied:
    """The records in a copy."""

    first: int
    last: int
    begin: int  # the first record that can be verified


def copy_segments(folder: Path, copy: Path, *, after: int = 0, upto: int = 0) -> Copied:
    """Copy the segments with the records above *after* up to *upto* (0: all) into a new folder.

    Raises:
        StateError: the journal is missing or unreadable, or the copy can't be written.
    """
    with readable(folder):
        try:
            base, mark = read_base(folder), read_mark(folder)
        except (BadBase, BadMark) as error:
            raise Damage(str(error), seq=1, file="", line=1) from error
        gone = base.record.seq if base is not None else 0
        segments = [path for path in list_segments(folder) if first_seq_of(path) > gone]
        if not segments:
            raise missing(folder)
        end = mark.seq if mark is not None else last_seq(folder)
        ends = [first_seq_of(path) - 1 for path in segments[1:]] + [end]
        wanted = next((i for i, end in enumerate(ends) if end > after), len(ends) - 1)
        start = max(0, wanted - 1)
        while start and final_checkpoint(segments[start], ends[start]) is None:
            start -= 1
        if start == 0 and base is not None:
            upto = 0  # include the prune record, which comes later
        last = next(
            (i for i in range(wanted, len(ends)) if upto and ends[i] >= upto), len(ends) - 1
        )
        end = _write(copy, segments[start : last + 1], base if start == 0 else None, ends[last])
        begin = first_seq_of(segments[wanted]) if start else first_seq_of(segments[0])
        return Copied(first_seq_of(segments[start]), end, begin)


def _write(copy: Path, segments: list[Path], base: PrunedBase | None, last: int) -> int:
    """Write a copy; return the last record of the copy."""
    try:
        copy.mkdir(mode=FOLDER_MODE, exist_ok=True)
        if any(copy.iterdir()):
            raise StateError(
                "export.not-empty", f"{copy} isn't empty", remedy="name a folder that isn't there"
            )
        for path in segments:
            with open_regular(path) as source, _new(copy / path.name) as out:
                shutil.copyfileobj(source, out)
        end = _cut_after(copy / segments[-1].name, upto=last)
        files = {MARK_NAME: end.to_bytes(), **({BASE_NAME: base.to_bytes()} if base else {})}
        for name, content in files.items():
            with _new(copy / name) as out:
                out.write(content)
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename else copy
        if copy not in {where, where.parent}:
            raise  # the journal can't be read
        raise StateError(
            "export.unwritable", f"{copy}: {error.strerror}", remedy="name another folder"
        ) from error
    return end.seq


def _new(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, FILE_MODE), "wb")


def _cut_after(segment: Path, *, upto: int) -> DurableMark:
    """Return the last record of a copied segment; cut off later and unfinished lines."""
    size, data = 0, b""
    for line in read_lines(segment):
        if not line.whole or parse(line.data).seq > upto:
            os.truncate(segment, size)
            break
        size, data = line.offset + len(line.data) + 1, line.data
    record = parse(data)
    return DurableMark(record.seq, record.hash)
