"""The Merkle tree over the journal's lines, the keys, and when the writer signs.

A checkpoint is a record like others, written together with the records before: the checkpoint
costs no extra flush, and is durable with those records or not at all. A checkpoint never signs
records that are lost while the checkpoint survives. A note is published only once its record is
durable.

A new key is introduced by a key record and the checkpoint right after, signed by the new and the
previous key. A verifier that trusts the previous key thus learns to trust the new key.

A batch: entries that get consecutive places in the chain, for one write.

The files of the keys that sign checkpoints: a secret key of the broker, and a public list.

``broker/journal.key`` (mode 0600) holds the signing key. ``journal.pub`` in the state folder lists
the public keys, readable by everybody, to be copied to other hosts: first the signing key, then
earlier keys. Each line has the last record that the key signed, and the record that introduced the
key: ``KEY [until SEQ] [from SEQ TIME]``. During a rotation the new secret key is in
``journal.key.next``, until the checkpoint that both keys sign is durable.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from controller.core import transparency
from controller.core.records.checkpoint import (
    Checkpoint,
    CheckpointRecord,
    asks_for_key,
    checkpoint_entry,
    described_snapshot,
    ends_backup,
    key_entry,
    parse_checkpoint,
    pruned_by,
    read_checkpoint,
    read_key,
)
from controller.core.records.record import BadLine, Prepared, parse, prepare
from controller.core.transparency import (
    BadNote,
    Note,
    PrivateKey,
    PublicKey,
    Range,
    leaf_hash,
    sign_note,
)
from controller.journal.store.chain import read_base
from controller.journal.store.segments import first_seq_of, list_segments, open_regular, read_lines
from controller.model.errors import StateError
from controller.model.mutations import JOURNAL_KEY, ROTATE_KEY
from controller.model.records import Record
from controller.ports import Clock, NewId
from controller.system.durable_files import fsync_folder, write_atomic


class Batch:
    """The records of one write, in order. None is durable yet, and the batch can be abandoned."""

    def __init__(self, *, seq: int, prev: str, time: str) -> None:
        self._seq = seq
        self._prev = prev
        self._time = time
        self.records: list[Record] = []
        self.lines: list[bytes] = []

    def add(self, prepared: Prepared) -> bytes:
        """Give an entry the next place in the chain; return its line, without the newline."""
        self._seq += 1
        record, line = prepared.seal(seq=self._seq, time=self._time, prev=self._prev)
        self._prev = record.hash
        self.records.append(record)
        self.lines.append(line)
        return line

    def data(self) -> bytes:
        """Return the lines as bytes to write."""
        return b"".join(line + b"\n" for line in self.lines)


SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
_FILE_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The paths of the files."""

    secret: Path
    public: Path
    checkpoint: Path  # the last checkpoint, to be copied to other hosts as well

    @property
    def coming(self) -> Path:
        """The new secret key during a rotation."""
        return self.secret.with_name(f"{self.secret.name}.next")


@dataclass(frozen=True, slots=True)
class Introduction:
    """The record that introduced a key."""

    seq: int
    time: str


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A line of ``journal.pub``."""

    key: transparency.PublicKey
    until: int | None = None  # the last record that the key signed; None for the signing key
    #: None if it wasn't known when the line was written.
    introduced: Introduction | None = None

    def __str__(self) -> str:
        until = f" until {self.until}" if self.until is not None else ""
        begin = self.introduced
        return f"{self.key}{until}" + (f" from {begin.seq} {begin.time}" if begin else "")


class SigningKeys:
    """The broker's keys. ``new_seed`` returns 32 random bytes.

    Raises:
        StateError: a secret key is open to others, belongs to another user, or is malformed.
    """

    def __init__(self, files: KeyFiles, *, name: str, new_seed: Callable[[], bytes]) -> None:
        self._files = files
        self._name = name
        self._new_seed = new_seed
        self._key = _read_secret(files.secret)
        self._coming = _read_secret(files.coming)

    def signing(self) -> transparency.PrivateKey:
        """Return the signing key; a new key is made if there is none.

        Raises:
            OSError: the new key can't be written.
        """
        if self._key is None:
            self._key = self._make_key(self._files.secret)
        return self._key

    def coming(self) -> transparency.PrivateKey:
        """Return the next signing key; a new key is made if there is none.

        Raises:
            OSError: the new key can't be written.
        """
        if self._coming is None:
            self._coming = self._make_key(self._files.coming)
        return self._coming

    def signer_of(self, note: transparency.Note) -> transparency.PublicKey | None:
        """Return the key that signed a note: the next signing key if both did, None if neither."""
        ours = [each.public for each in (self._coming, self._key) if each is not None]
        return next((key for key in ours if note.is_signed_by(key)), None)

    def promote(self, key: transparency.PublicKey) -> None:
        """Make *key* the signing key, if it is the next one.

        Raises:
            OSError: the files can't be changed; the next process tries again.
        """
        if self._coming is not None and self._coming.public == key:
            self._key, self._coming = self._coming, None
            self._files.coming.rename(self._files.secret)
            fsync_folder(self._files.secret.parent)

    def publish(self, *, since: int, introduced: Introduction | None = None) -> None:
        """Write the list of public keys; earlier keys without an end get the end *since*.

        *introduced* is of the signing key; None if the record isn't known, and the list keeps the
        record that it has.

        Raises:
            OSError: the list can't be written. The journal doesn't depend on the list.
        """
        signing = self.signing().public
        known = [each for line in _lines(self._files.public) for each in _published_or_none(line)]
        before = next((each.introduced for each in known if each.key == signing), None)
        older = [
            replace(each, until=since if each.until is None else each.until)
            for each in known
            if each.key != signing
        ]
        listed = (PublishedKey(signing, introduced=introduced or before), *older)
        lines = "".join(f"{each}\n" for each in listed)
        write_atomic(self._files.public, lines.encode(), mode=PUBLIC_MODE)

    def publish_checkpoint(self, note: str) -> None:
        """Write the published checkpoint.

        Raises:
            OSError: the file can't be written.
        """
        write_atomic(self._files.checkpoint, note.encode(), mode=PUBLIC_MODE)

    def published_checkpoint(self) -> transparency.Note | None:
        """Return the published checkpoint, or None if the file is missing.

        Raises:
            BadNote, OSError: the file can't be read.
        """
        try:
            return transparency.parse_note(_read_text(self._files.checkpoint))
        except FileNotFoundError:
            return None

    def _make_key(self, path: Path) -> transparency.PrivateKey:
        key = transparency.PrivateKey(self._name, self._new_seed())
        write_atomic(path, f"{key.secret()}\n".encode(), mode=SECRET_MODE)
        return key


def read_published_keys(path: Path) -> tuple[PublishedKey, ...]:
    """Return the keys of a list in the form of ``publish``. A line has one key.

    Raises:
        BadNote: a line has no key, or an ``until`` without a record.
        OSError: the file can't be read.
    """
    lines = [line for line in _read_text(path).splitlines() if line.split()]
    return tuple(_parse_line(line) for line in lines if line.split()[0][0] != "#")


def ends_of(published: Iterable[PublishedKey]) -> dict[transparency.PublicKey, int | None]:
    """Return the last record that each key signed; the smallest of several lines."""
    keys: dict[transparency.PublicKey, int | None] = {}
    for each in published:
        keys[each.key] = earlier(keys.get(each.key), each.until)
    return keys


def earlier(one: int | None, other: int | None) -> int | None:
    """Return the smaller of two ends; None is no end."""
    return other if one is None or (other is not None and other < one) else one


def _parse_line(line: str) -> PublishedKey:
    """Read one line; words that this version doesn't know are ignored.

    Raises:
        BadNote: the line has no key, or an ``until`` without a record.
    """
    encoded, *words = line.split()
    until = None
    if words[:1] == ["until"]:
        if not words[1:] or not words[1].isdecimal():
            raise transparency.BadNote("a key until nobody knows which record")
        until, words = int(words[1]), words[2:]
    introduced = None
    if words[:1] == ["from"] and len(words) > 2 and words[1].isdecimal():
        introduced = Introduction(int(words[1]), words[2])
    return PublishedKey(transparency.parse_public(encoded), until, introduced)


def _published_or_none(line: str) -> Iterator[PublishedKey]:
    """Yield the key of a line, if the line has a valid one; ``publish`` drops other lines."""
    with suppress(transparency.BadNote):
        yield _parse_line(line)


def hash_key(path: Path, *, new_seed: Callable[[], bytes]) -> bytes:
    """Return the key for keyed hashes of secrets; a new key is made if there is none.

    Raises:
        StateError: the key can't be read or made, or is open to others.
    """
    try:
        if not path.exists():
            write_atomic(path, new_seed().hex().encode())
        with open_regular(path) as file:
            _check_private(path, os.fstat(file.fileno()))
            return bytes.fromhex(file.read(_FILE_MAX_BYTES).decode("ascii"))
    except (OSError, ValueError) as error:
        raise StateError(
            "journal.bad-key",
            f"the key of the hashes of secrets can't be used: {path}: {error}",
            remedy="move it away: the broker creates a new key, and older hashes can't be compared any more",
        ) from error


def _check_private(path: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise OSError(f"{path.name} is open to others (mode {stat.S_IMODE(facts.st_mode):04o})")


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        lines = _read_text(path).splitlines()
        return [line for line in lines if line.strip() and line[0] != "#"]
    return []


def _read_text(path: Path) -> str:
    with open_regular(path) as file:
        return file.read(_FILE_MAX_BYTES).decode("utf-8", "replace")


def _read_secret(path: Path) -> transparency.PrivateKey | None:
    try:
        with open_regular(path) as file:
            facts = os.fstat(file.fileno())
            encoded = file.read(_FILE_MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            "journal.bad-key",
            f"the key that signs the journal can't be read: {path}: {error}",
            remedy=f"find out why, then restore {path.name} from a copy",
        ) from error
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise StateError(
            "journal.permissions",
            f"{path} is open to others (uid {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):04o})",
            remedy=f"find out who read it; then chmod {SECRET_MODE:04o} {path}, and bring in another "
            "key with 'trimtab journal rotate-key'",
        )
    try:
        return transparency.parse_private(encoded)
    except transparency.BadNote as error:
        raise StateError(
            "journal.bad-key",
            f"{path} holds no key",
            remedy="restore it from a copy; or move it away, and the journal goes on with a new "
            "key, which 'trimtab journal verify' then tells of",
        ) from error


LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """When a checkpoint is due: the number of records, or the time, since the last checkpoint."""

    records: int = 1000
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class NextTree:
    """The state of the checkpointer once a write is durable."""

    tree: Range
    note: Note | None = None  # of the checkpoint in the write, if there is one
    signed: int = 0  # the number of records covered by that checkpoint
    key: PublicKey | None = None  # the key of that checkpoint
    introduced: Introduction | None = None  # the record of that key, if the write includes it


EVERY: Final = CheckpointInterval()
_CHECKPOINT: Final = b'"stage":"checkpoint"'
_KEY: Final = f'"route":"{JOURNAL_KEY}"'.encode()
_ROTATE: Final = f'"route":"{ROTATE_KEY}"'.encode()


class Checkpointer:
    """Maintains the tree, and adds checkpoints to writes. Only the writer's thread has access."""

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
        self._since: float | None = None  # time of the first unsigned record
        self._key: PublicKey | None = None  # of the last checkpoint, if the broker has its secret
        self._rotating = False  # an operator requested a new key
        self._published: Checkpoint | None = None  # found at the start

    @property
    def signed(self) -> int:
        """The last record covered by a checkpoint; 0 before the first checkpoint."""
        return self._signed

    def published(self) -> int:
        """Return the number of records covered by the published checkpoint of this instance, or 0.

        A checkpoint is published, durably, after its record is durable. After a crash between the
        two the file lags behind the journal; it is never ahead.
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
        if checkpoint.origin != self._origin or self._keys.signer_of(note) is None:
            LOG.warning("journal.checkpoint.foreign origin=%s: passed over", checkpoint.origin)
            return None
        return checkpoint

    def restore(self, folder: Path, *, upto: int) -> None:
        """Restore the tree of the first *upto* records, from the last checkpoint among them.

        Raises:
            StateError: the records aren't those of the published checkpoint: the next checkpoint
                would sign a rewritten journal.
            OSError: the folder can't be read.
        """
        end = find_end(folder, upto=upto)
        if self._published is not None:
            _check_published(folder, self._published, end, upto=upto)
        self._tree, self._rotating = end.tree, end.rotating
        if end.sealed is not None:
            self._signed = end.sealed.checkpoint.size
            self._key = self._keys.signer_of(end.sealed.note)
            if self._key is None:
                LOG.error("journal.key.lost: the last checkpoint was signed by another key")
        if self._unsigned(self._tree):
            self._since = self._clock.monotonic()
        with suppress(OSError):
            if self._key is not None:
                self._keys.promote(self._key)
                known = end.introduced if end.key == self._key else None
                self._keys.publish(since=self._signed, introduced=known)

    def due_s(self) -> float | None:
        """Return the seconds until a checkpoint is due, or None if every record is signed."""
        if self._rotating or self._key is None or self._unsigned(self._tree) >= self._every.records:
            return 0.0
        if self._since is None:
            return None
        return max(0.0, self._since + self._every.seconds - self._clock.monotonic())

    def seal(self, batch: Batch, *, closing: bool = False) -> NextTree:
        """Add a new key and a checkpoint to a batch, if due.

        With *closing*, a checkpoint is due if any record is unsigned. The state of the checkpointer
        changes only by ``accept``.

        Raises:
            OSError: a key can't be written.
        """
        tree = self._tree.extend(map(leaf_hash, batch.lines))
        coming, due = self._due(batch, tree, closing=closing)
        if not due:
            return NextTree(tree)
        signing = self._keys.signing()
        key = coming or signing
        introduced = None
        if key.public != self._key:
            lost = self._key is None and self._signed > 0
            entry = key_entry(self._new_id(), key.public, lost=lost)
            tree = tree.extend([leaf_hash(batch.add(prepare(entry)))])
            introduced = Introduction(batch.records[-1].seq, batch.records[-1].time)
        # The previous key signs for the new key.
        signers = (signing, key) if key != signing and signing.public == self._key else (key,)
        note = sign_note(str(Checkpoint(self._origin, tree.end, tree.root)), signers)
        line = batch.add(prepare(checkpoint_entry(self._new_id(), note, tree, key.public)))
        tree_with = tree.extend([leaf_hash(line)])
        return NextTree(tree_with, note, tree.end, key.public, introduced)

    def _due(self, batch: Batch, tree: Range, *, closing: bool) -> tuple[PrivateKey | None, bool]:
        """Return the key to introduce, if requested, and whether a checkpoint is due."""
        if self._rotating or any(asks_for_key(record.entry) for record in batch.records):
            return self._keys.coming(), True
        unsigned = self._unsigned(tree)
        due = closing or unsigned >= self._every.records or self.due_s() == 0.0
        due = due or any(map(_must_be_signed, batch.records))
        return None, self._key is None or (unsigned > 0 and due)

    def accept(self, durable: NextTree) -> None:
        """Adopt the state of a write that is durable now, and publish its checkpoint."""
        self._tree = durable.tree
        if durable.note is None:
            if self._since is None and self._unsigned(self._tree):
                self._since = self._clock.monotonic()
            return
        assert durable.key is not None, "a checkpoint has a key"
        self._signed, self._since, self._rotating = durable.signed, None, False
        try:
            if durable.key != self._key:
                self._key = durable.key
                self._keys.promote(durable.key)
                self._keys.publish(since=durable.signed, introduced=durable.introduced)
            self._keys.publish_checkpoint(str(durable.note))
        except OSError as error:
            # The journal doesn't depend on these files; the next checkpoint tries again.
            LOG.warning("journal.unpublished error=%s", error)

    def _unsigned(self, tree: Range) -> int:
        """Return the number of unsigned records; the last checkpoint's own record doesn't count."""
        return tree.end - (self._signed + 1 if self._signed else 0)


def _must_be_signed(record: Record) -> bool:
    """Return True if a checkpoint must cover the record at once.

    Once such a record is durable, records are removed, an inventory file is replaced, or a backup ends
    with its checkpoint.
    """
    is_about_files = bool(pruned_by(record)) or described_snapshot(record) is not None
    return is_about_files or ends_backup(record.entry)


@dataclass(frozen=True, slots=True)
class JournalEnd:
    """The end of the journal, for the checkpointer."""

    tree: Range
    sealed: CheckpointRecord | None  # the last checkpoint
    rotating: bool  # a new key was requested after that
    #: The key of the last key record among the records that were read, and that record.
    key: PublicKey | None = None
    introduced: Introduction | None = None


def find_end(folder: Path, *, upto: int) -> JournalEnd:
    """Find the last checkpoint among the first *upto* records, and extend its tree to those.

    The records aren't checked; a ``ChainWalk`` does that.

    Raises:
        StateError: a segment is missing, or cut.
        OSError: the folder can't be read.
    """
    right = Range(upto, upto)
    rotating = False
    for segment in reversed(list_segments(folder)):
        if first_seq_of(segment) > upto:
            continue
        end = _end_of_segment(segment, upto=upto)
        if end.tree.end != right.begin:
            raise StateError(
                "journal.damaged",
                f"the journal in {folder} is damaged: after record {end.tree.end} of "
                f"{segment.name}, {right.begin - end.tree.end} are missing",
                remedy=f"'trimtab journal verify {folder}' says more; restore it from a backup",
            )
        right = end.tree.join(right)
        rotating = rotating or end.rotating
        if end.sealed is not None:
            return replace(end, tree=right, rotating=rotating)
    base = read_base(folder)
    if base is not None and (sealed := _parse_checkpoint(base.line)) is not None:
        tree = sealed.tree.extend([leaf_hash(base.line)])
        return JournalEnd(tree.join(right), sealed, rotating)
    return JournalEnd(right, None, rotating)


def _check_published(folder: Path, published: Checkpoint, end: JournalEnd, *, upto: int) -> None:
    """Check that the journal holds the records of the published checkpoint, as far as possible.

    Mostly the journal's last checkpoint is the published one. Otherwise the tree of the published
    size is built from the checkpoint before. Earlier records are left to ``verify``.

    Raises:
        StateError: the journal holds other records.
    """
    if published.size > upto or (end.sealed and end.sealed.checkpoint == published):
        return
    base = read_base(folder)
    if base is not None and published.size < base.record.seq:
        return
    if find_end(folder, upto=published.size).tree.root != published.root:
        raise StateError(
            "journal.damaged",
            f"the journal in {folder} is damaged: its first {published.size} records aren't those that "
            "journal.checkpoint is of",
            remedy=f"keep a copy of the folder, find out who changed it ('trimtab journal verify "
            f"{folder}' says more), then restore it from a backup; to go on with what is there, move "
            "journal.checkpoint out of the state folder: whoever has a copy of it sees the difference",
        )


def _end_of_segment(segment: Path, *, upto: int) -> JournalEnd:
    """Return the last checkpoint of a segment with its tree, or the tree of the segment's lines."""
    begin = first_seq_of(segment) - 1
    end = JournalEnd(Range(begin, begin), None, rotating=False)
    leaves: list[bytes] = []
    for line in read_lines(segment):
        seq = begin + line.number
        if not line.whole or seq > upto:
            break
        leaves.append(leaf_hash(line.data))
        if _CHECKPOINT in line.data and (sealed := _parse_checkpoint(line.data)) is not None:
            tree = sealed.tree.extend(leaves[-1:])
            end = replace(end, tree=tree, sealed=sealed, rotating=False)
            leaves.clear()
        elif _ROTATE in line.data and asks_for_key(parse(line.data).entry):
            end = replace(end, rotating=True)
        elif _KEY in line.data and (introduced := _parse_key(line.data)) is not None:
            end = replace(end, key=introduced[0], introduced=introduced[1])
    return replace(end, tree=end.tree.extend(leaves))


def _parse_key(line: bytes) -> tuple[PublicKey, Introduction] | None:
    try:
        record = parse(line)
        key = read_key(record)
    except (BadLine, BadNote):
        return None
    return (key, Introduction(record.seq, record.time)) if key is not None else None


def _parse_checkpoint(line: bytes) -> CheckpointRecord | None:
    try:
        record = parse(line)
        return read_checkpoint(record) if record.entry.stage == "checkpoint" else None
    except (BadLine, BadNote):
        return None
