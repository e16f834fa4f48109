"""The journal's folder and its hash chain, from the base that pruned segments left.

A walk along the hash chain: each record must continue the record before.

The writer walks its last segment when it opens. Readers walk the part they need, and ``verify``
walks the whole chain.

The base that pruned segments leave behind: chain, tree and inventory continue from the base.

``.pruned`` holds the last pruned line, a checkpoint. The first remaining record continues its hash,
and its edge is the tree of all pruned records. ``.inventory`` holds the inventory of the pruned
records, or of a few more: the writer replaces ``.inventory`` first. The prune record has the digest
of ``.inventory``, so that a changed file is noticed (docs/decisions/0047).

The journal's folder: private to its owner, and locked by its only writer.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controller.core.encoding.json_values import canonical
from controller.core.records.checkpoint import DescribedInventory, content_digest, described_pruned
from controller.core.records.parts import ResultPart
from controller.core.records.record import (
    GENESIS,
    LINE_MAX_BYTES,
    BadLine,
    NewerLine,
    parse,
    parse_any,
    parse_or_none,
)
from controller.journal.store.segments import (
    MARK_NAME,
    BadMark,
    BadSegment,
    DurableMark,
    Line,
    first_seq_of,
    list_segments,
    open_regular,
    read_lines,
    read_mark,
)
from controller.model.errors import StateError
from controller.model.mutations import JOURNAL_PRUNE
from controller.model.records import Record
from controller.system.durable_files import try_lock

if TYPE_CHECKING:
    from controller.model.inventory import Inventory


BASE_NAME: Final = ".pruned"
INVENTORY_NAME: Final = ".inventory"
#: A line within a line of JSON.
BASE_MAX_BYTES: Final = 2 * LINE_MAX_BYTES

_PRUNE: Final = f'"route":"{JOURNAL_PRUNE}"'.encode()


@dataclass(frozen=True, slots=True)
class PrunedBase:
    """The last pruned record, always a checkpoint."""

    record: Record
    line: bytes  # of the record, without a newline
    segment: int  # first seq of the record's segment

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return canonical({"line": self.line.decode(), "segment": self.segment}) + b"\n"


class BadBase(ValueError):
    """``.pruned`` or ``.inventory`` is not in the form in which the writer leaves it."""


def read_base(folder: Path) -> PrunedBase | None:
    """Return the base of the chain, or None if nothing was pruned.

    Raises:
        BadBase: the file is not in the form in which the writer leaves it.
        OSError: the file can't be read.
    """
    try:
        with open_regular(folder / BASE_NAME) as file:
            content = file.read(BASE_MAX_BYTES)
    except FileNotFoundError:
        return None
    return parse_base(content)


def pruned_seq(folder: Path) -> int:
    """Return the seq of the last pruned record, 0 if nothing was pruned; raises as ``read_base``."""
    base = read_base(folder)
    return base.record.seq if base is not None else 0


def parse_base(content: bytes) -> PrunedBase:
    """Return the base in the content of ``.pruned``.

    Raises:
        BadBase: the content is not in the form in which the writer leaves it.
    """
    try:
        members = json.loads(content)
        line = str(members["line"]).encode()
        base = PrunedBase(parse(line), line, int(members["segment"]))
        if base.to_bytes() == content and base.record.entry.stage == "checkpoint":
            return base
    except (BadLine, ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadBase(f"{BASE_NAME} doesn't have the form that the journal's writer writes")


def read_inventory(folder: Path) -> Inventory:
    """Return the inventory of the pruned records, empty if nothing was pruned.

    Without a base all records exist: then ``.inventory`` is from an interrupted pruning or from
    others, and isn't read.

    Raises:
        BadBase: the file is malformed, ends before the base, is missing although there is a base, or
            differs from the file that the prune record describes.
        OSError: the file can't be read.
        BadSegment: a segment with a prune record can't be read.
    """
    # A question to the journal reads no inventory, and would load half of the model for one.
    from controller.core.records import inventory_json
    from controller.model.inventory import Inventory

    base = read_base(folder)
    if base is None:
        return Inventory()
    try:
        with open_regular(folder / INVENTORY_NAME) as file:
            content = file.read()
        inventory = inventory_json.from_json(json.loads(content))
    except FileNotFoundError:
        raise BadBase(f"{INVENTORY_NAME} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadBase(
            f"{INVENTORY_NAME} doesn't have the form that the journal's writer writes"
        ) from error
    if inventory.seq < base.record.seq:
        raise BadBase(f"{INVENTORY_NAME} ends before what was pruned")
    _check_described(folder, base, content)
    return inventory


def _check_described(folder: Path, base: PrunedBase, content: bytes) -> None:
    """Check ``.inventory`` against the prune records.

    Several prune records can describe files of the same base or of the base before: the writer can
    die between the record and the replacement of a file.

    Raises:
        BadBase: no prune record describes the content.
    """
    digest = content_digest(content)
    for described in _described(folder):
        if described.digest == digest:
            return
        if described.until == base.record.seq:
            if not described.digest:
                return  # the record has none to compare
            raise BadBase(
                f"{INVENTORY_NAME} differs from the file that record {described.seq} describes"
            )
    raise BadBase(f"no record describes {INVENTORY_NAME}")


def _described(folder: Path) -> Iterator[DescribedInventory]:
    """Yield what prune records describe, the newest first. Reads no segment before the result."""
    for segment in reversed(list_segments(folder)):
        lines = [each.data for each in read_lines(segment) if each.whole and _PRUNE in each.data]
        for line in reversed(lines):
            record = parse_or_none(line)
            described = described_pruned(record) if record is not None else None
            if described is not None:
                yield described


def pruned_inventory(folder: Path, *, known: int) -> Inventory | None:
    """Return the inventory to continue from for a reader of the records up to *known*.

    Returns None if no record after *known* was pruned.

    Raises:
        StateError: the base or the inventory can't be used.
    """
    try:
        base = read_base(folder)
        if base is None or known >= base.record.seq:
            return None
        return read_inventory(folder)
    except (BadBase, BadSegment, OSError) as error:
        raise StateError(
            "journal.damaged",
            f"what the journal in {folder} kept of pruned records can't be used: {error}",
            remedy=f"keep a copy of the folder, find out who changed it ('trimtab journal verify "
            f"{folder}' says more), then restore {BASE_NAME} and {INVENTORY_NAME} from a backup",
        ) from error


FORMAT = 1
#: Segments to search for one record. A stray file can bear a number inside another segment's range.
_OVERLAPS_MAX: Final = 3


class ChainFault(StrEnum):
    """The kinds of faults in a journal."""

    CHANGED = "changed"  # a record was changed, or doesn't continue the record before
    GAP = "gap"  # a record is missing, or stands in another's place
    SIGNATURE = "signature"  # a checkpoint isn't signed by the expected key
    ROOT = "root"  # the records differ from the signed ones
    CUT = "cut"  # the end is missing
    UNREADABLE = "unreadable"
    INVENTORY = "inventory"  # all records are good, an inventory file isn't the described one
    NEWER = "newer"  # a newer version wrote a record with members that this one doesn't know
    LIFE = "life"  # an intent is closed twice, or is missing; or an id is used again


class Damage(Exception):
    """The first place where the chain is broken.

    - ``seq``: the record expected at that place.
    - ``line``: counted from 1; ``offset``: in bytes.
    - ``unreadable``: True if no record could be read, False if a wrong record was read.
    """

    def __init__(
        self,
        reason: str,
        fault: ChainFault = ChainFault.CHANGED,
        *,
        seq: int,
        file: str,
        line: int,
        offset: int = 0,
        unreadable: bool = False,
    ) -> None:
        super().__init__(f"record {seq} ({file or 'no file'}, line {line}): {reason}")
        self.fault = fault
        self.seq = seq
        self.file = file
        self.line = line
        self.offset = offset
        self.reason = reason
        self.unreadable = unreadable


def fault_of(error: BadLine) -> ChainFault:
    """Return the fault of a line that can't be read."""
    return ChainFault.NEWER if isinstance(error, NewerLine) else ChainFault.CHANGED


def newer_journal(folder: Path, damage: Damage) -> StateError:
    """Return the error of a journal with a record of a newer version: it isn't damaged."""
    return StateError(
        "state.newer",
        f"the journal in {folder} was written by a newer trimtab: {damage}; nothing was changed",
        remedy=f"install the newer trimtab again; 'trimtab journal verify {folder}' says more",
    )


def binding(*, segment: int, seq: int, digest: str) -> dict[str, object]:
    """Return the member of a ``segment`` record that names the record before, and its segment.

    All values are zeros in the first segment of a journal.
    """
    return {"segment": segment, "seq": seq, "hash": digest}


def binding_flaw(record: Record, *, segment: int) -> str:
    """Return the fault in a segment's first record, or ''.

    *segment* is the first seq of the segment before. The caller has checked ``prev``.
    """
    result = ResultPart.read(record.entry.result)
    if result.format != FORMAT:
        return "its segment's format isn't known to this version"
    expected = binding(segment=segment, seq=record.seq - 1, digest=record.prev)
    if result.previous != expected:
        return "its segment doesn't continue the one before it"
    return ""


class ChainWalk:
    """One reading of the journal, from its start or after a record, in constant memory.

    Iterating yields the records, and raises ``Damage`` at the first broken place. An unfinished
    last line is damage only if the durable mark covers it: a writer can be at work, or was killed.

    - ``seq``, ``hash``, ``data``: the last accepted record, and its line.
    - ``file``, ``line``, ``offset``: the place right after the last accepted record.
    - ``newer``: the first record of a newer version. It is damage unless *allows_newer*.
    - ``unfinished``: the size in bytes of an unfinished last line.
    """

    def __init__(self, folder: Path, *, after: int = 0, allows_newer: bool = False) -> None:
        # Read the mark before listing: the listed segments then hold every record it covers.
        self._bad_file = ""
        self.mark: DurableMark | None = None
        self.base: PrunedBase | None = None
        try:
            self.mark = read_mark(folder)
            self.base = read_base(folder)
        except (BadMark, BadBase) as error:
            self._bad_file = str(error)
        self.segments = self._without_pruned(list_segments(folder))
        self._after = after
        self._allows_newer = allows_newer
        self.newer: Damage | None = None
        self.seq = 0
        self.hash = GENESIS
        self.data = b""
        self.file = ""
        self.line = 1
        self.offset = 0
        self.unfinished = 0

    def check_files(self) -> None:
        """Check the durable mark and the base of pruned segments.

        Raises:
            Damage: a file is not in the form in which the writer leaves it.
        """
        if self._bad_file:
            raise self.damage(self._bad_file)

    def __iter__(self) -> Iterator[Record]:
        self.check_files()
        start, skip = self._start()
        for index in range(start, len(self.segments)):
            yield from self._segment(index, skip)
            skip = 0
        if self._is_durable(self.seq + 1):
            assert self.mark is not None
            text = f"it is missing: records up to {self.mark.seq} were durable"
            raise self.damage(text, ChainFault.CUT, unreadable=True)

    def hash_before(self) -> str:
        """Return the hash of the record to begin after.

        Raises:
            Damage: the record is missing.
        """
        self._start()
        return self.hash

    def damage(
        self, reason: str, fault: ChainFault = ChainFault.CHANGED, *, unreadable: bool = False
    ) -> Damage:
        """Return damage at the place right after the last accepted record."""
        return Damage(
            reason,
            fault,
            seq=self.seq + 1,
            file=self.file,
            line=self.line,
            offset=self.offset,
            unreadable=unreadable,
        )

    def _without_pruned(self, segments: tuple[Path, ...]) -> tuple[Path, ...]:
        """Leave out pruned segments whose files are left: the process died before their removal."""
        if self.base is None:
            return segments
        return tuple(path for path in segments if first_seq_of(path) > self.base.record.seq)

    def _start(self) -> tuple[int, int]:
        """Return the index of the segment to begin with, and the number of lines to skip.

        The record before the first one read is trusted.
        """
        if self.base is not None and self._after <= self.base.record.seq:
            self.seq, self.hash = self.base.record.seq, self.base.record.hash
            return 0, 0
        holding = [i for i, path in enumerate(self.segments) if first_seq_of(path) <= self._after]
        if not holding or not self._after:
            return 0, 0
        first_damage: Damage | None = None
        for index in holding[: -1 - _OVERLAPS_MAX : -1]:
            try:
                return index, self._skip_to(index)
            except Damage as damage:
                first_damage = first_damage or damage
        assert first_damage is not None, "at least one segment was searched"
        raise first_damage

    def _skip_to(self, index: int) -> int:
        """Accept the record to begin after; return the number of lines up to and including it."""
        self.seq = self._after - 1
        skip = self._after - first_seq_of(self.segments[index])
        self._enter(index, skip)
        try:
            line = next(read_lines(self.segments[index], skip=skip), None)
        except BadSegment as error:
            raise self.damage(str(error), ChainFault.UNREADABLE, unreadable=True) from None
        if line is None or not line.whole:
            raise self.damage("it is missing", ChainFault.CUT)
        record, newer = self._parse(line)
        if record.seq != self._after:
            raise self.damage(f"it is record {record.seq}", ChainFault.GAP)
        self._note(newer)
        self._accept(record, line)
        return skip + 1

    def _segment(self, index: int, skip: int) -> Iterator[Record]:
        self._enter(index, skip)
        path = self.segments[index]
        first = first_seq_of(path)
        if not skip and first != self.seq + 1:
            text = f"it is missing: the file begins with record {first}"
            raise self.damage(text, ChainFault.GAP)
        try:
            for line in read_lines(path, skip=skip):
                if not line.whole:
                    if index < len(self.segments) - 1 or self._is_durable(self.seq + 1):
                        raise self.damage("its line is cut short", ChainFault.CUT, unreadable=True)
                    self.unfinished = path.stat().st_size - line.offset
                    return
                record, newer = self._parse(line)
                self._check_place(record, line, index)
                self._note(newer)
                self._accept(record, line)
                yield record
        except BadSegment as error:
            raise self.damage(str(error), ChainFault.UNREADABLE, unreadable=True) from None

    def _enter(self, index: int, skip: int) -> None:
        self.file = self.segments[index].name
        self.line = skip + 1
        self.offset = 0 if not skip else self.offset

    def _parse(self, line: Line) -> tuple[Record, str]:
        try:
            return parse_any(line.data)
        except BadLine as error:
            raise self.damage(str(error), unreadable=True) from None

    def _note(self, newer: str) -> None:
        """Remember the first record of a newer version, or refuse the record.

        *newer* names the members that this version doesn't know; '' for none.
        """
        if not newer:
            return
        found = self.damage(newer, ChainFault.NEWER)
        if not self._allows_newer:
            raise found
        self.newer = self.newer or found

    def _check_place(self, record: Record, line: Line, index: int) -> None:
        if record.seq != self.seq + 1:
            raise self.damage(f"it is record {record.seq}", ChainFault.GAP)
        if record.prev != self.hash:
            raise self.damage("it doesn't continue the record before it (prev)")
        if (line.number == 1) != (record.entry.stage == "segment"):
            raise self.damage("a segment begins with its segment record, and has no other")
        if line.number == 1 and (flaw := binding_flaw(record, segment=self.before(index))):
            raise self.damage(flaw)
        if self.mark and record.seq == self.mark.seq and record.hash != self.mark.hash:
            raise self.damage("it isn't the record that was made durable")

    def before(self, index: int) -> int:
        """Return the first seq of the segment before the segment at *index*; 0 if there is none."""
        if index:
            return first_seq_of(self.segments[index - 1])
        return self.base.segment if self.base is not None else 0

    def _accept(self, record: Record, line: Line) -> None:
        self.seq = record.seq
        self.hash = record.hash
        self.data = line.data
        self.line = line.number + 1
        self.offset = line.offset + len(line.data) + 1

    def _is_durable(self, seq: int) -> bool:
        return self.mark is not None and seq <= self.mark.seq


FOLDER_MODE = 0o700
FILE_MODE = 0o600


def lock_folder(folder: Path) -> int:
    """Make *folder* if missing, check that it is private, and lock it.

    Returns the descriptor of the folder; closing the descriptor releases the lock.

    Raises:
        StateError: the folder can't be made or opened, isn't private, or is locked by another writer.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(
            "journal.folder",
            f"the journal's folder can't be used: {folder}: {error.strerror}",
            remedy="check that the state folder exists, is writable and holds no link here",
        ) from error
    try:
        _check_private(folder, descriptor)
        locked = try_lock(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if not locked:
        os.close(descriptor)
        raise StateError(
            "journal.held",
            f"another process writes the journal in {folder}",
            remedy="stop that broker first, or name another state folder with --state",
        )
    return descriptor


def _check_private(folder: Path, descriptor: int) -> None:
    for path, facts, mode in _facts(folder, descriptor):
        if stat.S_IFMT(facts.st_mode) != (stat.S_IFDIR if mode == FOLDER_MODE else stat.S_IFREG):
            raise StateError("journal.permissions", f"not an ordinary file: {path}")
        if facts.st_uid != os.geteuid():
            raise StateError(
                "journal.permissions",
                f"{path} belongs to uid {facts.st_uid}, the broker runs as {os.geteuid()}",
                remedy=f"find out why, then chown {os.geteuid()} {path}",
            )
        if facts.st_mode & 0o077:
            raise StateError(
                "journal.permissions",
                f"{path} is open to others (mode {stat.S_IMODE(facts.st_mode):04o})",
                remedy=f"find out who used that, then chmod {mode:04o} {path}",
            )


def _facts(folder: Path, descriptor: int) -> list[tuple[Path, os.stat_result, int]]:
    others = [folder / name for name in (MARK_NAME, BASE_NAME, INVENTORY_NAME)]
    files = [*list_segments(folder), *(path for path in others if os.path.lexists(path))]
    return [
        (folder, os.fstat(descriptor), FOLDER_MODE),
        *((path, path.lstat(), FILE_MODE) for path in files),
    ]
