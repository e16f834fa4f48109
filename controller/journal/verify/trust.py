"""Check the keys and checkpoints of a journal: each checkpoint is signed by the current key.

The journal itself introduces the current key: by a key record, and by the next checkpoint, signed
by the previous key too. The caller names the *trusted* keys. Records are vouched for once a trusted
key signed a checkpoint of them, or a key that a trusted key introduced. A replaced key vouches for
no later record, so that a stolen old key is useless. Without a trusted key, an attacker can only
write a journal with keys of their own, for which no trusted key vouches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.core.records import checkpoint
from controller.core.transparency.merkle import Range
from controller.core.transparency.signed_note import BadNote, PublicKey
from controller.journal.store.chain import ChainFault
from controller.journal.writer.signing_keys import earlier
from controller.model.records import Record

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
        """Return a key that signs from here on, with the record that introduced it."""
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
