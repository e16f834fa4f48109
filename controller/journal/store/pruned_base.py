"""What stays of the segments that were pruned: what chain, tree and inventory go on from.

``.pruned`` has the last line that is gone, which is a checkpoint: its hash is what the first record
that is kept continues, and its edge the tree of all before. ``.inventory`` has what the inventory
was then, or a little later: it is written first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.core.encoding.canonical_json import canonical
from controller.core.records import inventory_json
from controller.core.records.record import LINE_MAX_BYTES, BadLine, parse
from controller.journal.store.segments import open_regular
from controller.model.errors import StateError
from controller.model.inventory import Inventory
from controller.model.records import Record

BASE_NAME: Final = ".pruned"
INVENTORY_NAME: Final = ".inventory"
#: A line within a line of JSON.
BASE_MAX_BYTES: Final = 2 * LINE_MAX_BYTES


@dataclass(frozen=True, slots=True)
class PrunedBase:
    """The last record that was pruned, which is a checkpoint, and its segment's first seq."""

    record: Record
    line: bytes
    segment: int

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return canonical({"line": self.line.decode(), "segment": self.segment}) + b"\n"


class BadBase(ValueError):
    """A file of what was pruned holds something else."""


def read_base(folder: Path) -> PrunedBase | None:
    """Return what the chain hangs on, or None while nothing was pruned.

    Raises:
        BadBase: the file isn't as the writer leaves it.
        OSError: it can't be read.
    """
    try:
        with open_regular(folder / BASE_NAME) as file:
            content = file.read(BASE_MAX_BYTES)
    except FileNotFoundError:
        return None
    return parse_base(content)


def parse_base(content: bytes) -> PrunedBase:
    """Return what the file of what was pruned holds.

    Raises:
        BadBase: it isn't as the writer leaves it.
    """
    try:
        members = json.loads(content)
        line = str(members["line"]).encode()
        base = PrunedBase(parse(line), line, int(members["segment"]))
        if base.to_bytes() == content and base.record.entry.stage == "checkpoint":
            return base
    except (BadLine, ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadBase(f"{BASE_NAME} isn't as the journal's writer leaves it")


def read_inventory(folder: Path) -> Inventory:
    """Return the inventory of what was pruned, an empty one where nothing was.

    Raises:
        BadBase: the file isn't as the writer leaves it, or isn't there though it must be.
        OSError: it can't be read.
    """
    try:
        with open_regular(folder / INVENTORY_NAME) as file:
            inventory = inventory_json.from_json(json.loads(file.read()))
    except FileNotFoundError:
        inventory = Inventory()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadBase(f"{INVENTORY_NAME} isn't as the journal's writer leaves it") from error
    base = read_base(folder)
    if base is not None and inventory.seq < base.record.seq:
        raise BadBase(f"{INVENTORY_NAME} ends before what was pruned")
    return inventory


def foundation(folder: Path, *, known: int) -> Inventory | None:
    """Return what to go on from for somebody who knows the records up to *known*.

    None where all that follow are there.

    Raises:
        StateError: it can't be read.
    """
    try:
        base = read_base(folder)
        if base is None or known >= base.record.seq:
            return None
        return read_inventory(folder)
    except (BadBase, OSError) as error:
        raise StateError(
            "journal.damaged",
            f"what the journal in {folder} kept of pruned records can't be read: {error}",
            remedy="restore the folder from a backup",
        ) from error
