"""The keys and checkpoints of a journal, in its order: each is signed by the key in force.

Which key that is, the journal itself says (a key's record, and the checkpoint after it that the key
before signs as well). Whom to believe says the caller: the records that a checkpoint is of are
vouched for once one of the keys that are *trusted* signed it, or one that such a key brought in. One
that another took the place of vouches for nothing later, whoever has got hold of it. What an attacker can do without them is write a journal of keys of his own; nobody vouches for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.core.transparency.checkpoint import Sealed, read_checkpoint, read_key
from controller.core.transparency.merkle import Range
from controller.core.transparency.signed_note import BadNote, PublicKey
from controller.journal.store.chain import ChainFault
from controller.journal.writer.signing_keys import earlier
from controller.model.records import Record

#: More records never follow the last checkpoint of a journal that is signed: it comes with the write
#: that holds the thousandth, and of that write a reader may see a part.
UNSIGNED_MAX: Final = 2048


class BadCheckpoint(Exception):
    """A checkpoint or key that doesn't hold. ``seq`` is the first record that isn't vouched for."""

    def __init__(self, fault: ChainFault, reason: str, *, seq: int) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason
        self.seq = seq


@dataclass(frozen=True, slots=True)
class KeyValidity:
    """A key, and the last record that a checkpoint of its own is of; None while it signs."""

    key: str
    until: int | None


class TrustChain:
    """What the checkpoints so far prove.

    Of the keys that are *trusted* some are only *until* a record. ``size`` is how many records the
    last good one is of, ``vouched`` the last that a trusted key signed, ``doubtful`` the first
    checkpoint after that. ``awaited`` are the keys that are trusted without an end beside ones with,
    until one of them signed.
    """

    def __init__(self, trusted: frozenset[PublicKey], until: Mapping[PublicKey, int]) -> None:
        self._trusted: dict[PublicKey, int | None] = {key: until.get(key) for key in trusted}
        self.awaited = trusted - until.keys() if until else frozenset()
        self._force: PublicKey | None = None
        self._coming: PublicKey | None = None
        self._lost = False
        self.size = 0
        self.vouched = 0
        self.doubtful = 0
        self.reigns: tuple[KeyValidity, ...] = ()

    def begin(self, record: Record) -> Range:
        """Begin at a checkpoint whose records aren't there; return the tree of these.

        Raises:
            BadSeal: its record says that another key signed it, or none.
        """
        sealed = _read(record)
        if not sealed.note.signed_by(sealed.key):
            raise _bad_signature(record, sealed.key)
        self._force = sealed.key
        self._count(record, sealed, (sealed.key,))
        return sealed.tree

    def bring_in(self, record: Record) -> None:
        """Take note of a key that the next checkpoint is to bring in.

        Raises:
            BadSeal: it is none.
        """
        try:
            self._coming = read_key(record) or self._coming
        except BadNote as error:
            raise BadCheckpoint(ChainFault.SIGNATURE, str(error), seq=record.seq) from error
        self._lost = record.entry.result.get("lost") is True

    def forget(self) -> None:
        """Forget what was brought in since the last checkpoint: it is read again."""
        self._coming, self._lost = None, False

    def check(self, record: Record, tree: Range) -> None:
        """Check a checkpoint of *tree*, which is that of the records before it.

        Raises:
            BadSeal: it isn't signed as it should be, or what was signed is another tree.
        """
        sealed = _read(record)
        key = self._coming or self._force
        if key is None or sealed.key != key:
            raise BadCheckpoint(
                ChainFault.SIGNATURE,
                f"its checkpoint is of the key {sealed.key}, and {key or 'none'} is in force",
                seq=record.seq,
            )
        signers = [key]
        if self._coming not in {None, self._force} and self._force and not self._lost:
            signers.append(self._force)
        for each in signers:
            if not sealed.note.signed_by(each):
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
        for given_up in signers[1:]:
            if given_up in self._trusted:
                self._trusted[given_up] = earlier(self._trusted[given_up], size)
        self._count(record, sealed, signers)

    def _is_vouched(self, size: int, signers: Sequence[PublicKey]) -> bool:
        """Tell whether one of those who signed a checkpoint is trusted with so many records."""
        ends = [self._trusted[each] for each in signers if each in self._trusted]
        return any(end is None or size <= end for end in ends)

    def _count(self, record: Record, sealed: Sealed, signers: Sequence[PublicKey]) -> None:
        if not self.reigns or self.reigns[-1].key != str(sealed.key):
            ended = [
                KeyValidity(each.key, each.until or sealed.checkpoint.size) for each in self.reigns
            ]
            self.reigns = (*ended, KeyValidity(str(sealed.key), None))
        self._force, self._coming, self._lost = sealed.key, None, False
        self.size = sealed.checkpoint.size
        if sealed.key in self.awaited:
            self.awaited = frozenset()
        if self._is_vouched(self.size, signers):
            self.vouched, self.doubtful = self.size, 0
        elif not self.doubtful:
            self.doubtful = record.seq


def _read(record: Record) -> Sealed:
    try:
        return read_checkpoint(record)
    except BadNote as error:
        text = f"its checkpoint can't be believed: {error}"
        raise BadCheckpoint(ChainFault.SIGNATURE, text, seq=record.seq) from error


def _bad_signature(record: Record, key: PublicKey) -> BadCheckpoint:
    text = f"its checkpoint isn't signed by the key {key}"
    return BadCheckpoint(ChainFault.SIGNATURE, text, seq=record.seq)
