"""The tree over the journal's lines, and when it is signed: the writer's part of checkpoints.

A checkpoint is a record like others: it goes into the same write as those before it, so it costs
no flush of its own, and is durable with them or not at all. What it signs was written, or is given
up together with it. Nobody sees a note before its record is durable.

A new key is brought in by its own record and the checkpoint right after it, which the key before
signs as well: whoever trusts that one learns of the next from what it signed.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.core.records.record import BadLine, parse, prepare
from controller.core.transparency.checkpoint import (
    Checkpoint,
    Sealed,
    asks_for_key,
    checkpoint_entry,
    key_entry,
    parse_checkpoint,
    pruned_by,
    read_checkpoint,
)
from controller.core.transparency.merkle import Range, leaf_hash
from controller.core.transparency.signed_note import BadNote, Note, PrivateKey, PublicKey, signed
from controller.journal.store.pruned_base import read_base
from controller.journal.store.segments import first_seq_of, list_segments, read_lines
from controller.journal.writer.batch import Batch
from controller.journal.writer.signing_keys import SigningKeys
from controller.model.errors import StateError
from controller.model.mutations import ROTATE_KEY
from controller.ports import Clock, NewId

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """When a checkpoint is due: so many records, or so long, after the last one."""

    records: int = 1000
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class NextTree:
    """What a write makes of the tree, once it is durable."""

    tree: Range
    note: Note | None = None
    signed: int = 0  # the records that the last checkpoint is of
    key: PublicKey | None = None  # what is brought in


EVERY: Final = CheckpointInterval()
_CHECKPOINT: Final = b'"stage":"checkpoint"'
_ROTATE: Final = f'"route":"{ROTATE_KEY}"'.encode()


class Checkpointer:
    """Keeps the tree, and adds checkpoints to writes. The writer's thread alone uses it."""

    def __init__(
        self,
        keys: SigningKeys,
        *,
        origin: str,
        clock: Clock,
        new_id: NewId,
        every: CheckpointInterval = EVERY,
    ) -> None:
        self._keys = keys
        self._origin = origin
        self._clock = clock
        self._new_id = new_id
        self._every = every
        self._tree = Range()
        self._signed = 0
        self._since: float | None = None  # when the first record came that isn't signed
        self._key: PublicKey | None = None  # the one that signed last, if it is ours
        self._asked = False  # for a new key
        self._published: Checkpoint | None = None  # the one that was found at the start

    @property
    def signed(self) -> int:
        """The last record that a checkpoint is of."""
        return self._signed

    def published(self) -> int:
        """Return how many records the published checkpoint is of; 0 where none of ours is there.

        It is published once its record is durable, and isn't flushed: it may lag behind the journal,
        or be none after a loss of power, and is never ahead.
        """
        self._published = self._read_published()
        return self._published.size if self._published is not None else 0

    def _read_published(self) -> Checkpoint | None:
        try:
            note = self._keys.published_checkpoint()
            if note is None:
                return None
            checkpoint = parse_checkpoint(note)
        except (BadNote, OSError) as error:
            LOG.warning("journal.checkpoint.unreadable error=%s: passed over", error)
            return None
        if checkpoint.origin != self._origin or self._keys.that_signed(note) is None:
            LOG.warning("journal.checkpoint.foreign origin=%s: passed over", checkpoint.origin)
            return None
        return checkpoint

    def restore(self, folder: Path, *, upto: int) -> None:
        """Take up the tree of the first *upto* records, from the last checkpoint among them.

        Raises:
            StateError: they aren't those that the published checkpoint is of, and signed would be
                what somebody wrote anew.
            OSError: the folder can't be read.
        """
        found = last_sealed(folder, upto=upto)
        if self._published is not None:
            _compare(folder, self._published, found, upto=upto)
        self._tree, self._asked = found.tree, found.asked
        if found.sealed is not None:
            self._signed = found.sealed.checkpoint.size
            self._key = self._keys.that_signed(found.sealed.note)
            if self._key is None:
                LOG.error("journal.key.lost: the last checkpoint was signed by another key")
        if self._fresh(self._tree):
            self._since = self._clock.monotonic()
        with suppress(OSError):
            if self._key is not None:
                self._keys.promote(self._key)
                self._keys.publish(since=self._signed)

    def due_s(self) -> float | None:
        """Return in how many seconds a checkpoint is due, None while there is nothing to sign."""
        if self._asked or self._key is None or self._fresh(self._tree) >= self._every.records:
            return 0.0
        if self._since is None:
            return None
        return max(0.0, self._since + self._every.seconds - self._clock.monotonic())

    def seal(self, sealing: Batch, *, closing: bool = False) -> NextTree:
        """Add to a write what is due after its records: a new key, a checkpoint.

        *closing*: whatever isn't signed is due. Nothing counts before ``accept``.

        Raises:
            OSError: a key can't be written.
        """
        tree = self._tree.extended(map(leaf_hash, sealing.lines))
        coming, due = self._wanted(sealing, tree, closing=closing)
        if not due:
            return NextTree(tree)
        signing = self._keys.signing()
        key = coming or signing
        if key.public != self._key:
            lost = self._key is None and self._signed > 0
            entry = key_entry(self._new_id(), key.public, lost=lost)
            tree = tree.extended([leaf_hash(sealing.add(prepare(entry)))])
        # Who signed last signs for who follows.
        signers = (signing, key) if key != signing and signing.public == self._key else (key,)
        note = signed(str(Checkpoint(self._origin, tree.end, tree.root)), signers)
        line = sealing.add(prepare(checkpoint_entry(self._new_id(), note, tree, key.public)))
        return NextTree(tree.extended([leaf_hash(line)]), note, tree.end, key.public)

    def _wanted(
        self, sealing: Batch, tree: Range, *, closing: bool
    ) -> tuple[PrivateKey | None, bool]:
        """Return the key to bring in, if one was asked for, and whether a checkpoint is due."""
        if self._asked or any(asks_for_key(record.entry) for record in sealing.records):
            return self._keys.coming(), True
        fresh = self._fresh(tree)
        due = closing or fresh >= self._every.records or self.due_s() == 0.0
        # Only what is signed may tell that records are gone, and they go as soon as it is durable.
        due = due or any(map(pruned_by, sealing.records))
        return None, self._key is None or (fresh > 0 and due)

    def accept(self, grown: NextTree) -> None:
        """Take note that a write is durable."""
        self._tree = grown.tree
        if grown.note is None:
            if self._since is None and self._fresh(self._tree):
                self._since = self._clock.monotonic()
            return
        assert grown.key is not None, "somebody signed"
        self._signed, self._since, self._asked = grown.signed, None, False
        try:
            if grown.key != self._key:
                self._key = grown.key
                self._keys.promote(grown.key)
                self._keys.publish(since=grown.signed)
            self._keys.publish_checkpoint(str(grown.note))
        except OSError as error:
            # Nothing of the journal's hangs on these files; the next checkpoint tries again.
            LOG.warning("journal.unpublished error=%s", error)

    def _fresh(self, tree: Range) -> int:
        """Return how many records no checkpoint is of, itself not counted."""
        return tree.end - (self._signed + 1 if self._signed else 0)


@dataclass(frozen=True, slots=True)
class JournalEnd:
    """What the journal's end says: its tree, its last checkpoint, whether a key was asked for."""

    tree: Range
    sealed: Sealed | None
    asked: bool


def last_sealed(folder: Path, *, upto: int) -> JournalEnd:
    """Look for the last checkpoint among the first *upto* records, and grow its tree to these.

    The records aren't checked: that is for whoever walks them.

    Raises:
        StateError: a segment is missing, or cut.
        OSError: the folder can't be read.
    """
    right = Range(upto, upto)
    asked = False
    for segment in reversed(list_segments(folder)):
        if first_seq_of(segment) > upto:
            continue
        found = _last_in(segment, upto=upto)
        if found.tree.end != right.begin:
            raise StateError(
                "journal.damaged",
                f"the journal in {folder} is damaged: after record {found.tree.end} of "
                f"{segment.name}, {right.begin - found.tree.end} are missing",
                remedy=f"'trimtab journal verify {folder}' says more; restore it from a backup",
            )
        right = found.tree.joined(right)
        asked = asked or found.asked
        if found.sealed is not None:
            return JournalEnd(right, found.sealed, asked)
    base = read_base(folder)
    if base is not None and (sealed := _sealed_in(base.line)) is not None:
        tree = sealed.tree.extended([leaf_hash(base.line)])
        return JournalEnd(tree.joined(right), sealed, asked)
    return JournalEnd(right, None, asked)


def _compare(folder: Path, published: Checkpoint, found: JournalEnd, *, upto: int) -> None:
    """See that a journal's end is of the records that were signed, as far as that can be told.

    Its last checkpoint mostly is the one that was published; else the tree is grown to that from the
    one before. What is before that one isn't looked at: ``verify`` does.

    Raises:
        StateError: it isn't.
    """
    if published.size > upto or (found.sealed and found.sealed.checkpoint == published):
        return
    base = read_base(folder)
    if base is not None and published.size < base.record.seq:
        return
    if last_sealed(folder, upto=published.size).tree.root != published.root:
        raise StateError(
            "journal.damaged",
            f"the journal in {folder} is damaged: its first {published.size} records aren't those that "
            "journal.checkpoint is of",
            remedy=f"keep a copy of the folder, find out who changed it ('trimtab journal verify "
            f"{folder}' says more), then restore it from a backup; to go on with what is there, move "
            "journal.checkpoint out of the state folder: whoever has a copy of it sees the difference",
        )


def _last_in(segment: Path, *, upto: int) -> JournalEnd:
    """Return the last checkpoint of a segment with its tree, or what its lines add to one."""
    begin = first_seq_of(segment) - 1
    found = JournalEnd(Range(begin, begin), None, asked=False)
    leaves: list[bytes] = []
    for line in read_lines(segment):
        seq = begin + line.number
        if not line.whole or seq > upto:
            break
        leaves.append(leaf_hash(line.data))
        if _CHECKPOINT in line.data and (sealed := _sealed_in(line.data)) is not None:
            found = JournalEnd(sealed.tree.extended(leaves[-1:]), sealed, asked=False)
            leaves.clear()
        elif _ROTATE in line.data and asks_for_key(parse(line.data).entry):
            found = JournalEnd(found.tree, found.sealed, asked=True)
    return JournalEnd(found.tree.extended(leaves), found.sealed, found.asked)


def _sealed_in(line: bytes) -> Sealed | None:
    try:
        record = parse(line)
        return read_checkpoint(record) if record.entry.stage == "checkpoint" else None
    except (BadLine, BadNote):
        return None
