"""The base that pruned segments leave behind: chain, tree and inventory continue from the base.

``.pruned`` holds the last pruned line, a checkpoint. The first remaining record continues its hash,
and its edge is the tree of all pruned records. ``.inventory`` holds the inventory of the pruned
records, or of a few more: the writer replaces ``.inventory`` first. The prune record has the digest
of ``.inventory``, so that a changed file is noticed (docs/decisions/0047).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controller.core.encoding.canonical_json import canonical
from controller.core.records.checkpoint import (
    DescribedInventory,
    content_digest,
    described_pruned,
)
from controller.core.records.record import LINE_MAX_BYTES, BadLine, parse, parse_or_none
from controller.journal.store.segments import (
    BadSegment,
    list_segments,
    open_regular,
    read_lines,
)
from controller.model.errors import StateError
from controller.model.mutations import JOURNAL_PRUNE
from controller.model.records import Record

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
