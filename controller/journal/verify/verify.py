"""``verify``: that nobody changed a record, and that those are all.

Two readings, one after the other. The first goes as far as signatures carry it: it hashes each
segment's bytes, several segments side by side (``scan``), and holds the tree against each signed
root. It says nothing of what is wrong; at whatever isn't as expected it ends, at the last checkpoint
that was good. From there the second one (``chain.Walk``) parses each line, checks that it is
canonical, hashed, linked and in its place, and names the first bad record. So what no signature
covers is parsed, always: the last records of a journal, or all of one without a key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.core.records.record import GENESIS, BadLine, parse
from controller.core.transparency.checkpoint import Checkpoint, pruned_by, read_key
from controller.core.transparency.merkle import Range, leaf_hash
from controller.core.transparency.signed_note import PublicKey
from controller.journal.store.chain import ChainFault, ChainWalk, Damage, binding_flaw
from controller.journal.store.reader import missing, readable
from controller.journal.store.segments import BadSegment, first_seq_of, read_lines
from controller.journal.verify.fast_scan import CHECKPOINT_MARK, ROW_BYTES, ScanJob, Scanned, scans
from controller.journal.verify.id_check import IdLifetimes
from controller.journal.verify.trust import UNSIGNED_MAX, BadCheckpoint, KeyValidity, TrustChain
from controller.model.records import Record


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """What a journal is held against.

    ``keys`` are believed; without any, the journal's own word is taken for its keys. ``copies`` are
    checkpoints kept elsewhere, whose signatures are checked already. ``until`` says of keys that
    others took the place of which record is the last that they signed.
    """

    keys: frozenset[PublicKey] = frozenset()
    copies: tuple[Checkpoint, ...] = ()
    until: Mapping[PublicKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Repair:
    """What the writer once recorded: a torn end, a time when it couldn't write, a key that was lost."""

    seq: int  # of the record that says so
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify`` found. ``records`` hold together; ``first_bad`` is the first that doesn't.

    Records up to ``pruned`` aren't there any more, or weren't looked at (``begin`` says from where
    on); those up to ``signed`` are vouched for by a key that was trusted, or, without any, by the
    journal's own. ``file`` and ``line`` say where the bad record belongs, ``fault`` what kind of bad
    it is. ``open_intents`` are id and seq of those without a closing record so far.
    ``unfinished_bytes`` follow the last record: a line that a writer is about to finish, or that
    the next start moves aside. ``uncompared`` are sizes of kept checkpoints that nothing of what was
    looked at can be held against. ``unmarked``: nothing beside the records says which is the last.
    """

    records: int
    segments: int
    last_hash: str
    pruned: int = 0
    begin: int = 1
    signed: int = 0
    trusted: bool = False
    keys: tuple[KeyValidity, ...] = ()
    open_intents: tuple[tuple[str, int], ...] = ()
    repairs: tuple[Repair, ...] = ()
    unfinished_bytes: int = 0
    uncompared: tuple[int, ...] = ()
    unmarked: bool = False
    first_bad: int | None = None
    fault: str = ""
    file: str = ""
    line: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether every record is as it was written, and none is missing."""
        return self.first_bad is None


NOBODY: Final = TrustAnchors()


def verify(
    folder: Path,
    trust: TrustAnchors = NOBODY,
    *,
    begin: int = 1,
    thorough: bool = False,
    workers: int = 1,
) -> Verification:
    """Check the records from the last checkpoint before *begin* on, or all of them.

    Each is hashed, linked, gapless, and one of those that were signed; each intent is closed at most
    once; no checkpoint that was kept elsewhere says otherwise. *thorough* parses each line, what is
    signed included. Memory is bounded by the intents that are open at a time and by one segment for
    each worker, of which 37 bytes a record are kept, not by the journal. A journal that is being
    written may be verified.

    Raises:
        StateError: there is no journal, or it can't be read.
    """
    with readable(folder):
        audit = _Audit(folder, trust)
        damage: Damage | None = None
        try:
            audit.start(begin)
            if not thorough:
                audit.prove(workers=workers)
            audit.walk()
        except Damage as found:
            damage = found
        return audit.verdict(damage)


class _Audit:
    """One verification, and how far it came: the first ``_seq`` records, whose tree is ``_tree``."""

    def __init__(self, folder: Path, trust: TrustAnchors) -> None:
        self._folder = folder
        self._trust = trust
        self._walk = ChainWalk(folder)
        if not self._walk.segments and self._walk.mark is None:
            raise missing(folder)
        self._copies: dict[int, set[bytes]] = {}  # of how many records -> what roots were kept
        for copy in trust.copies:
            self._copies.setdefault(copy.size, set()).add(copy.root)
        self._uncompared: list[int] = []
        self._alike = 0  # the largest copy so far that says the same
        self._seals = TrustChain(trust.keys, trust.until)
        self._lives = IdLifetimes(folder)
        self._repairs: list[Repair] = []
        self._told: dict[int, int] = {}  # up to which records were pruned -> the record that tells
        self._begin = self._seq = 0
        self._tree = Range()
        self._hash = GENESIS

    def start(self, begin: int) -> None:
        """Begin at the last checkpoint before a record, or at what was pruned, or at the start."""
        self._walk.check_files()
        found = None
        if begin > 1:
            found = self._checkpoint_before(begin)
        base = self._walk.base
        if found is None and base is not None:
            found = base.record, base.line
        if found is None:
            self._compare_before(self._tree)
            return
        record, line = found
        try:
            tree = self._seals.begin(record)
        except BadCheckpoint as bad:
            raise self._damage(bad.fault, bad.reason, record.seq) from None
        self._tree = tree.extended([leaf_hash(line)])
        self._begin, self._seq, self._hash = record.seq, record.seq, record.hash
        self._lives = IdLifetimes(self._folder, partial=True)
        self._compare_before(tree, self._tree)

    def _checkpoint_before(self, begin: int) -> tuple[Record, bytes] | None:
        for segment in reversed(self._walk.segments):
            found = None
            # What can't be read on is told by the walk, from the checkpoint before it on.
            with suppress(BadSegment, OSError):
                for line in read_lines(segment) if first_seq_of(segment) < begin else ():
                    if first_seq_of(segment) + line.number > begin:
                        break
                    if CHECKPOINT_MARK in line.data:
                        found = line.data
            if found is not None:
                try:
                    return parse(found), found
                except BadLine:
                    return None
        return None

    # As far as signatures carry.

    def prove(self, *, workers: int) -> None:
        """Go as far as checkpoints are good, and all that they are of reads as expected."""
        walk, tree, seq, last = self._walk, self._tree, self._seq, self._hash.encode()
        firsts = [first_seq_of(path) for path in walk.segments]
        # Also where the record before is a segment's last: something may have been put after it.
        begin = max(0, bisect_right(firsts, seq) - 1)
        marks = frozenset(self._copies)
        jobs = [
            ScanJob(path, max(seq, first - 1), marks)
            for path, first in zip(walk.segments[begin:], firsts[begin:], strict=True)
        ]
        waiting = _Waiting()
        for index, scanned in enumerate(scans(jobs, workers=workers), begin):
            if scanned.after != seq or (scanned.rows and scanned.prev != last):
                return
            if scanned.opening:
                opening = parsed(scanned.opening)
                if opening is None or binding_flaw(opening, segment=walk.before(index)):
                    return
                waiting.openings.append(opening)
            waiting.add(scanned, tree)
            for point in scanned.points:
                record, before = parsed(point.line), tree.joined(point.before)
                if record is None or not self._is_good(record, before):
                    return
                if record.entry.stage == "checkpoint":
                    self._settle(point.seq - 1, before, waiting)
            tree, seq, last = tree.joined(scanned.tree), scanned.last, scanned.hash or last
            if seq - self._seq > UNSIGNED_MAX:
                return  # nothing signs what follows: a journal without a key, say
            if not scanned.ended:
                return  # a writer is at work, or something was put after the segment's end

    def _is_good(self, record: Record, tree: Range) -> bool:
        try:
            self._look_at(record, tree)
        except BadCheckpoint:
            return False
        return True

    def _settle(self, upto: int, tree: Range, waiting: _Waiting) -> None:
        """Take for proven what a good checkpoint is of."""
        bad, reason = self._lives.check_rows(self._seq + 1, waiting.rows_of(upto - self._seq))
        if bad:
            raise self._damage(ChainFault.LIFE, reason, bad)
        self._seq, self._tree = upto, tree
        self._look_again()
        for opening in waiting.openings_until(upto):
            self._repairs += _repairs(opening)
        for size in sorted(size for size in waiting.marked if size <= upto):
            self._compare(size, waiting.marked.pop(size).root)

    # The rest, line by line.

    def walk(self) -> None:
        """Parse what isn't proven, to the end."""
        self._seals.forget()
        walk = self._walk = ChainWalk(self._folder, after=self._seq)
        self._check_mark(walk)
        for record in _told_by(walk):
            if reason := self._lives.check(record):
                raise self._damage(ChainFault.LIFE, reason, record.seq)
            self._look_again()
            if record.entry.stage == "segment":
                self._repairs += _repairs(record)
            try:
                self._look_at(record, self._tree)
            except BadCheckpoint as bad:
                raise self._damage(bad.fault, bad.reason, bad.seq) from None
            self._seq, self._tree = record.seq, self._tree.extended([leaf_hash(walk.data)])
            if record.seq in self._copies:
                self._compare(record.seq, self._tree.root)
        if damage := self._lives.finish():
            raise damage
        self._end()

    def _check_mark(self, walk: ChainWalk) -> None:
        """Hold the mark against a record that the walk doesn't come by any more."""
        mark = walk.mark
        if mark is None or not self._begin < mark.seq <= self._seq:
            return
        if ChainWalk(self._folder, after=mark.seq).hash_before() != mark.hash:
            raise self._damage(
                ChainFault.CHANGED, "it isn't the record that was made durable", mark.seq
            )

    def _look_at(self, record: Record, tree: Range) -> None:
        """Look at what a record says of keys, signatures and what was pruned.

        Raises:
            BadSeal: a key or checkpoint doesn't hold.
        """
        if record.entry.stage == "checkpoint":
            self._seals.check(record, tree)
        elif record.entry.stage == "operator":
            self._seals.bring_in(record)
            self._repairs += _losses(record)
            self._told.setdefault(pruned_by(record), record.seq)

    def _look_again(self) -> None:
        if self._lives.crowded and (damage := self._lives.finish()):
            raise damage

    def _compare_before(self, *trees: Range) -> None:
        """Hold copies of records that aren't looked at against what *trees* tell of these."""
        known = {tree.end: tree.root for each in trees for tree in each.beginnings()}
        for size in sorted(size for size in self._copies if size <= self._begin):
            if size in known or len(self._copies[size]) > 1:
                self._compare(size, known.get(size))
            else:
                self._uncompared.append(size)

    def _compare(self, size: int, root: bytes | None) -> None:
        """Hold the root of *size* records against each checkpoint of them that was kept elsewhere."""
        if self._copies[size] != {root}:
            text = (
                f"the checkpoint of {size} records that was kept elsewhere is of others: one of the "
                f"records {self._alike + 1} to {size} was changed"
            )
            raise self._damage(ChainFault.ROOT, text, self._alike + 1)
        self._alike = size

    def _end(self) -> None:
        """Check what only the end shows.

        Raises:
            Damage: the end is missing, or isn't vouched for.
        """
        seals, last, walk = self._seals, self._seq, self._walk
        beyond = [size for size in self._copies if size > last]
        if beyond:
            text = (
                f"it is missing: the checkpoint that was kept elsewhere is of {max(beyond)} records"
            )
            raise self._damage(ChainFault.CUT, text, last + 1)
        if walk.base is not None and self._begin == walk.base.record.seq:
            text = f"{self._begin} records are missing, and "
            told = self._told.get(self._begin)
            if told is None:
                raise self._damage(ChainFault.GAP, f"{text}none tells that they were pruned", 1)
            # Whoever may append a record could else remove what is before it.
            if told > seals.size:
                text += f"no checkpoint is of the record {told}, which tells that they were pruned"
                raise self._damage(ChainFault.GAP, text, 1)
        if not self._trust.keys:
            return
        if seals.doubtful:
            text = "its checkpoint is signed by a key that nobody trusted vouches for"
            raise self._damage(ChainFault.SIGNATURE, text, seals.doubtful)
        if not seals.vouched:
            text = "no checkpoint is signed by a key that is trusted"
            raise self._damage(ChainFault.SIGNATURE, text, self._begin + 1)
        if seals.awaited:
            raise self._unfollowed()
        if last - seals.size > UNSIGNED_MAX:
            text = "too many records follow the last checkpoint: they aren't signed"
            raise self._damage(ChainFault.SIGNATURE, text, seals.size + 2)

    def _unfollowed(self) -> Damage:
        """Return what is wrong where a key signed nothing that, as is known, took another's place.

        That is: at the end of a journal that was cut there, or that somebody wrote anew who has
        the key from before. The record after the last of that one is the first to be signed for.
        """
        until = max(self._trust.until.values())
        key = ", ".join(sorted(map(str, self._seals.awaited)))
        told = f"the key {key}, which signs from record {until + 1} on"
        if self._seq > until:
            text = f"it isn't signed by {told}"
            return self._damage(ChainFault.SIGNATURE, text, until + 1)
        text = (
            f"it is missing: nothing is signed by {told} (a copy of what was before that is verified "
            "with the older key alone)"
        )
        return self._damage(ChainFault.CUT, text, self._seq + 1)

    def _damage(self, fault: ChainFault, reason: str, seq: int) -> Damage:
        """Return damage at a record, where that is kept."""
        segments = self._walk.segments
        index = bisect_right([first_seq_of(path) for path in segments], seq) - 1
        if index < 0:
            return Damage(reason, fault, seq=seq, file="", line=0)
        path = segments[index]
        return Damage(reason, fault, seq=seq, file=path.name, line=seq - first_seq_of(path) + 1)

    def verdict(self, damage: Damage | None) -> Verification:
        """Return what was found."""
        walk, base = self._walk, self._walk.base
        good = damage.seq - 1 if damage else self._seq
        trusted = bool(self._trust.keys)
        return Verification(
            records=max(0, good - self._begin),
            segments=len(walk.segments),
            last_hash=walk.hash,
            pruned=base.record.seq if base is not None else 0,
            begin=self._begin + 1,
            signed=self._seals.vouched if trusted else self._seals.size,
            trusted=trusted,
            keys=self._seals.reigns,
            open_intents=tuple(self._lives.open.items()),
            # What no checkpoint proved was looked at twice.
            repairs=tuple(sorted(set(self._repairs), key=lambda repair: repair.seq)),
            unfinished_bytes=walk.unfinished,
            uncompared=tuple(self._uncompared),
            unmarked=walk.mark is None,
            first_bad=damage.seq if damage else None,
            fault=damage.fault.value if damage else "",
            file=damage.file if damage else "",
            line=damage.line if damage else 0,
            reason=damage.reason if damage else "",
        )


@dataclass(slots=True)
class _Waiting:
    """What was read, and waits for a checkpoint that is good."""

    openings: list[Record] = field(default_factory=list)
    marked: dict[int, Range] = field(default_factory=dict)
    _rows: bytes = b""
    _at: int = 0

    def add(self, scanned: Scanned, tree: Range) -> None:
        """Add a segment; *tree* is of all before it."""
        self._rows, self._at = self._rows[self._at :] + scanned.rows, 0
        self.marked |= {size: tree.joined(right) for size, right in scanned.marked.items()}

    def rows_of(self, count: int) -> bytes:
        """Take the rows of so many records."""
        begin, self._at = self._at, self._at + count * ROW_BYTES
        return self._rows[begin : self._at]

    def openings_until(self, seq: int) -> Iterator[Record]:
        """Take the segments' first records until one."""
        while self.openings and self.openings[0].seq <= seq:
            yield self.openings.pop(0)


def _told_by(walk: ChainWalk) -> Iterator[Record]:
    """Yield a walk's records; a segment that can't be read is a bad record's."""
    try:
        yield from walk
    except (FileNotFoundError, PermissionError):
        raise  # there is no journal, or another user may read it
    except OSError as error:
        why = error.strerror or str(error)
        raise walk.damage(f"{walk.file} can't be read: {why}", ChainFault.UNREADABLE) from error


def parsed(line: bytes) -> Record | None:
    """Return the record of a line, or None where it is none."""
    try:
        return parse(line)
    except BadLine:
        return None


def _losses(record: Record) -> Iterator[Repair]:
    """Tell of a key that nobody vouched for but whoever wrote the journal."""
    key = read_key(record)
    if key is not None and record.entry.result.get("lost") is True:
        what = (
            f"the key before was lost, so that it didn't sign for {key}, which signs from here on"
        )
        yield Repair(record.seq, what)


def _repairs(record: Record) -> Iterator[Repair]:
    match record.entry.result.get("repair"):
        case {"bytes": size, "reason": reason, "durable": durable}:
            lost = ", and an acknowledged record was lost" if durable else ""
            yield Repair(record.seq, f"{size} torn bytes were moved aside: {reason}{lost}")
        case _:
            pass
    match record.entry.result.get("outage"):
        case {"since": since, "error": error, "refused": refused}:
            yield Repair(
                record.seq,
                f"not writable from {since} to {record.time}: {error}; {refused} entries refused",
            )
        case _:
            pass
