"""Checkpoints: signed statements about the journal (https://c2sp.org/tlog-checkpoint).

The text of a checkpoint has the log's origin, which is also the key's name, the number of records,
and the root of the Merkle tree over their lines (``core.transparency``). The checkpoint's
record directly follows the records of the tree, so its seq is the tree's size plus 1. Besides the
note, the record stores the tree's edge and the key. With these, writer and reader can continue from
the record without the earlier ones. The edge needs no signature, since its root is signed.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Final

from controller.core import transparency
from controller.core.records.parts import ActorPart, RequestPart, ResultPart
from controller.core.transparency import HASH_BYTES, Range, tree_of
from controller.model import mutations
from controller.model.records import Entry, Record, Role

#: The longest line of a checkpoint: 64 hashes of the edge, two signatures, and the frame.
CHECKPOINT_MAX_BYTES: Final = 6144

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_BROKER: Final = ActorPart(role=Role.BROKER.value)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The text of a note: the log's first *size* records have this root."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        """Return the note's text."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """The content of a checkpoint's record. Its signatures are not verified yet."""

    note: transparency.Note
    checkpoint: Checkpoint
    tree: Range  # the tree's edge
    key: transparency.PublicKey  # by the record: the key of this note and of the next one


@dataclass(frozen=True, slots=True)
class DescribedInventory:
    """A file with the inventory of some records, as a journal record describes it."""

    seq: int  # of the journal record
    until: int  # the inventory is of the records up to this one
    digest: str  # of the file (``content_digest``); '' in a prune record without one


def origin_of(instance: str) -> str:
    """Return the name of an instance's journal, which is also the name of its keys."""
    return f"trimtab/{instance}"


def parse_checkpoint(note: transparency.Note) -> Checkpoint:
    """Read the checkpoint in a note; lines after the third are ignored.

    Raises:
        BadNote: the note has no checkpoint.
    """
    origin, size, root, *_ = [*note.text.split("\n"), "", ""]
    if not origin or _SIZE.fullmatch(size) is None:
        raise transparency.BadNote("the note is no checkpoint")
    return Checkpoint(origin, int(size), _hash(root))


def checkpoint_entry(
    identifier: str, note: transparency.Note, tree: Range, key: transparency.PublicKey
) -> Entry:
    """Return the journal entry for a checkpoint."""
    edge = tuple(b64encode(each).decode() for each in tree.hashes)
    result = ResultPart(note=str(note), edge=edge, key=str(key))
    return Entry(identifier, "checkpoint", actor=_BROKER.members, result=result.members)


def read_checkpoint(record: Record) -> CheckpointRecord:
    """Read a checkpoint's record. The caller verifies its signatures.

    Raises:
        BadNote: the parts of the record contradict each other.
    """
    result = ResultPart.read(record.entry.result)
    if not (result.note and result.key):
        raise transparency.BadNote("it holds no note and key")
    note = transparency.parse_note(result.note)
    checkpoint = parse_checkpoint(note)
    if checkpoint.size != record.seq - 1:
        raise transparency.BadNote(
            f"it is of {checkpoint.size} records, and is record {record.seq}"
        )
    try:
        tree = tree_of(checkpoint.size, tuple(map(_hash, result.edge)))
    except ValueError as error:
        raise transparency.BadNote(f"its edge: {error}") from error
    if tree.root != checkpoint.root:
        raise transparency.BadNote("its edge hasn't the root that was signed")
    return CheckpointRecord(note, checkpoint, tree, transparency.parse_public(result.key))


def key_entry(identifier: str, key: transparency.PublicKey, *, lost: bool) -> Entry:
    """Return the journal entry that introduces a key.

    With *lost* the previous key is missing, and cannot sign the introduction.
    """
    result = ResultPart(key=str(key), is_key_lost=lost)
    return _own_entry(identifier, RequestPart(route=mutations.JOURNAL_KEY, object=key.name), result)


def read_key(record: Record) -> transparency.PublicKey | None:
    """Return the key that a record introduces, or None for any other record.

    Raises:
        BadNote: the record introduces a key, but its key is invalid or not the broker's.
    """
    if not _is_act(record.entry, mutations.JOURNAL_KEY):
        return None
    if not _is_brokers(record.entry):
        raise transparency.BadNote("a key that the broker didn't bring in")
    return transparency.parse_public(ResultPart.read(record.entry.result).key)


def asks_for_key(entry: Entry) -> bool:
    """Return True if the entry is an operator's request for a new key."""
    return _is_act(entry, mutations.ROTATE_KEY)


def ends_backup(entry: Entry) -> bool:
    """Return True if the entry is the end of a backup."""
    return _is_act(entry, mutations.STATE_BACKED_UP)


def content_digest(content: bytes) -> str:
    """Return the digest of an inventory file in journal records: ``sha256:HEX``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def inventory_entry(identifier: str, *, until: int, digest: str) -> Entry:
    """Return the journal entry about a snapshot of the inventory of the records up to *until*."""
    request = RequestPart(route=mutations.JOURNAL_INVENTORY, object="inventory.json")
    result = ResultPart(until=until, inventory=digest)
    # ``read``, as it changes nothing: ``journal list`` leaves such records out.
    return Entry(
        identifier,
        "read",
        actor=_BROKER.members,
        request=request.members,
        result=result.members,
    )


def rejected_entry(identifier: str, *, digest: str, reason: str) -> Entry:
    """Return the journal entry about a snapshot that no record describes."""
    request = RequestPart(route=mutations.INVENTORY_REJECTED, object="inventory.json")
    return _own_entry(identifier, request, ResultPart(inventory=digest, reason=reason))


def described_snapshot(record: Record) -> DescribedInventory | None:
    """Return the snapshot that a record describes, or None for any other record."""
    entry = record.entry
    if entry.stage != "read" or not _is_brokers(entry):
        return None
    if RequestPart.read(entry.request).route != mutations.JOURNAL_INVENTORY:
        return None
    return _described(record)


def described_pruned(record: Record) -> DescribedInventory | None:
    """Return the inventory of pruned records that a record describes, or None."""
    return _described(record) if pruned_by(record) else None


def _described(record: Record) -> DescribedInventory:
    result = ResultPart.read(record.entry.result)
    return DescribedInventory(record.seq, result.until or 0, result.inventory)


def rejected_snapshot(record: Record) -> str:
    """Return why the broker rejected a snapshot, by a record; '' for any other record."""
    entry = record.entry
    is_rejection = _is_act(entry, mutations.INVENTORY_REJECTED) and _is_brokers(entry)
    return ResultPart.read(entry.result).reason if is_rejection else ""


def prune_entry(identifier: str, *, until: int, reason: str, digest: str) -> Entry:
    """Return the journal entry about the removal of the records up to *until*.

    *digest* is of the file with the inventory of these records.
    """
    result = ResultPart(until=until, reason=reason, inventory=digest)
    return _own_entry(identifier, RequestPart(route=mutations.JOURNAL_PRUNE, object=""), result)


def pruned_by(record: Record) -> int:
    """Return the seq up to which records are removed, by a record; 0 for any other record."""
    entry = record.entry
    is_prune = _is_act(entry, mutations.JOURNAL_PRUNE) and _is_brokers(entry)
    return ResultPart.read(entry.result).until or 0 if is_prune else 0


def is_key_lost(record: Record) -> bool:
    """Return True if the key that a record introduces replaces a missing key."""
    return ResultPart.read(record.entry.result).is_key_lost


def _own_entry(identifier: str, request: RequestPart, result: ResultPart) -> Entry:
    return Entry(
        identifier,
        "operator",
        actor=_BROKER.members,
        request=request.members,
        result=result.members,
    )


def _is_act(entry: Entry, route: str) -> bool:
    return entry.stage == "operator" and RequestPart.read(entry.request).route == route


def _is_brokers(entry: Entry) -> bool:
    return ActorPart.read(entry.actor).role == Role.BROKER


def _hash(encoded: str) -> bytes:
    try:
        data = b64decode(encoded, validate=True)
    except ValueError as error:
        raise transparency.BadNote("a hash isn't in base64") from error
    if len(data) != HASH_BYTES:
        raise transparency.BadNote(f"a hash hasn't {HASH_BYTES} bytes")
    return data
