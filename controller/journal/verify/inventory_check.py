"""Compare the broker's inventory files with the records that describe them (docs/decisions/0047).

Two files hold what records say: ``broker/inventory.json``, a snapshot, and ``.inventory``, the
inventory of the pruned records. The broker relies on both, but no chain links them. A signed record
has the digest of each, and is durable before the file is. The files are read before the records, so
that a broker at work never makes a difference.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from controller.core.encoding.json_members import mapping_member, mapping_of
from controller.core.records.checkpoint import (
    DescribedInventory,
    content_digest,
    described_pruned,
    described_snapshot,
)
from controller.journal.store.pruned_base import INVENTORY_NAME, PrunedBase
from controller.journal.store.segments import open_regular
from controller.journal.verify.key_check import FileFinding
from controller.model.records import Record


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
