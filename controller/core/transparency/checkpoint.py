"""Checkpoints: what the journal was, signed (https://c2sp.org/tlog-checkpoint).

A checkpoint's text says of which log it is (its origin, which is also the key's name), of how many
records, and the root of the Merkle tree over their lines (``core.transparency.merkle``). Its record follows
right after the last of those: seq is the tree's size plus one. Beside the note the record keeps
the tree's edge and the key, so that both writer and reader can go on from there without what is
before; the edge proves itself, since its root is the one that was signed.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Final

from controller.core.transparency.merkle import HASH_BYTES, Range, tree_of
from controller.core.transparency.signed_note import (
    BadNote,
    Note,
    PublicKey,
    parse_note,
    parse_public,
)
from controller.model.mutations import JOURNAL_KEY, JOURNAL_PRUNE, ROTATE_KEY
from controller.model.records import Entry, Record, Role

#: No checkpoint's line is longer: 64 hashes of an edge, two signatures, what is around.
CHECKPOINT_MAX_BYTES: Final = 6144

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_BROKER: Final = {"role": Role.BROKER.value}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The text of a note: the log's first *size* records have this root."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        """Return the text."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A checkpoint's record: the note, what it says, the edge of its tree, and who signs.

    ``key`` signed the note, and is the one that signs the next; so says the record.
    """

    note: Note
    checkpoint: Checkpoint
    tree: Range
    key: PublicKey


def origin_of(instance: str) -> str:
    """Return the name of an instance's journal, and of its keys."""
    return f"trimtab/{instance}"


def parse_checkpoint(note: Note) -> Checkpoint:
    """Read what a note says; lines after the third are nothing to us.

    Raises:
        BadNote: it is no checkpoint.
    """
    origin, size, root, *_ = [*note.text.split("\n"), "", ""]
    if not origin or _SIZE.fullmatch(size) is None:
        raise BadNote("the note is no checkpoint")
    return Checkpoint(origin, int(size), _hash(root))


def checkpoint_entry(identifier: str, note: Note, tree: Range, key: PublicKey) -> Entry:
    """Return what is recorded of a checkpoint."""
    edge = [b64encode(each).decode() for each in tree.hashes]
    result: dict[str, object] = {"note": str(note), "edge": edge, "key": str(key)}
    return Entry(identifier, "checkpoint", actor=dict(_BROKER), result=result)


def read_checkpoint(record: Record) -> Sealed:
    """Read a checkpoint's record. Whose signatures it has is another question.

    Raises:
        BadNote: the record doesn't hold together.
    """
    match record.entry.result:
        case {"note": str(told), "edge": [*edge], "key": str(key)}:
            note = parse_note(told)
            checkpoint = parse_checkpoint(note)
            if checkpoint.size != record.seq - 1:
                raise BadNote(f"it is of {checkpoint.size} records, and is record {record.seq}")
            try:
                tree = tree_of(checkpoint.size, tuple(_hash(str(each)) for each in edge))
            except ValueError as error:
                raise BadNote(f"its edge: {error}") from error
            if tree.root != checkpoint.root:
                raise BadNote("its edge hasn't the root that was signed")
            return Sealed(note, checkpoint, tree, parse_public(key))
        case _:
            raise BadNote("it holds no note, edge and key")


def key_entry(identifier: str, key: PublicKey, *, lost: bool) -> Entry:
    """Return the record that brings a key in. *lost*: the one before isn't there to sign that."""
    request: dict[str, object] = {"route": JOURNAL_KEY, "object": key.name}
    result: dict[str, object] = {"key": str(key), "lost": lost}
    return Entry(identifier, "operator", actor=dict(_BROKER), request=request, result=result)


def read_key(record: Record) -> PublicKey | None:
    """Return the key that a record brings in, or None when it is about something else.

    Raises:
        BadNote: it should, and holds none.
    """
    entry = record.entry
    if entry.stage != "operator" or entry.request.get("route") != JOURNAL_KEY:
        return None
    if entry.actor.get("role") != Role.BROKER:
        raise BadNote("a key that the broker didn't bring in")
    return parse_public(str(entry.result.get("key", "")))


def asks_for_key(entry: Entry) -> bool:
    """Tell whether an operator asks for a new key."""
    return entry.stage == "operator" and entry.request.get("route") == ROTATE_KEY


def prune_entry(identifier: str, *, until: int, reason: str) -> Entry:
    """Return the record that tells that the records up to one are gone from here on."""
    request: dict[str, object] = {"route": JOURNAL_PRUNE, "object": ""}
    result: dict[str, object] = {"until": until, "reason": reason}
    return Entry(identifier, "operator", actor=dict(_BROKER), request=request, result=result)


def pruned_by(record: Record) -> int:
    """Return up to which record those before are gone, as a record tells; 0 if it tells nothing."""
    entry, until = record.entry, record.entry.result.get("until")
    told = entry.stage == "operator" and entry.request.get("route") == JOURNAL_PRUNE
    ours = told and entry.actor.get("role") == Role.BROKER
    return until if ours and isinstance(until, int) else 0


def _hash(encoded: str) -> bytes:
    try:
        data = b64decode(encoded, validate=True)
    except ValueError as error:
        raise BadNote("a hash isn't in base64") from error
    if len(data) != HASH_BYTES:
        raise BadNote(f"a hash hasn't {HASH_BYTES} bytes")
    return data
