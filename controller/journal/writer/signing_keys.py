"""The files of the keys that sign checkpoints: a secret key of the broker, and a public list.

``broker/journal.key`` (mode 0600) holds the signing key. ``journal.pub`` in the state folder lists
the public keys, readable by everybody, to be copied to other hosts: first the signing key, then
earlier keys. Each line has the last record that the key signed, and the record that introduced the
key: ``KEY [until SEQ] [from SEQ TIME]``. During a rotation the new secret key is in
``journal.key.next``, until the checkpoint that both keys sign is durable.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from controller.core.transparency import signed_note
from controller.journal.store.segments import open_regular
from controller.model.errors import StateError
from controller.system.atomic_file import fsync_folder, write_atomic

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

    key: signed_note.PublicKey
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

    def signing(self) -> signed_note.PrivateKey:
        """Return the signing key; a new key is made if there is none.

        Raises:
            OSError: the new key can't be written.
        """
        if self._key is None:
            self._key = self._make_key(self._files.secret)
        return self._key

    def coming(self) -> signed_note.PrivateKey:
        """Return the next signing key; a new key is made if there is none.

        Raises:
            OSError: the new key can't be written.
        """
        if self._coming is None:
            self._coming = self._make_key(self._files.coming)
        return self._coming

    def signer_of(self, note: signed_note.Note) -> signed_note.PublicKey | None:
        """Return the key that signed a note: the next signing key if both did, None if neither."""
        ours = [each.public for each in (self._coming, self._key) if each is not None]
        return next((key for key in ours if note.is_signed_by(key)), None)

    def promote(self, key: signed_note.PublicKey) -> None:
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

    def published_checkpoint(self) -> signed_note.Note | None:
        """Return the published checkpoint, or None if the file is missing.

        Raises:
            BadNote, OSError: the file can't be read.
        """
        try:
            return signed_note.parse_note(_read_text(self._files.checkpoint))
        except FileNotFoundError:
            return None

    def _make_key(self, path: Path) -> signed_note.PrivateKey:
        key = signed_note.PrivateKey(self._name, self._new_seed())
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


def ends_of(published: Iterable[PublishedKey]) -> dict[signed_note.PublicKey, int | None]:
    """Return the last record that each key signed; the smallest of several lines."""
    keys: dict[signed_note.PublicKey, int | None] = {}
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
            raise signed_note.BadNote("a key until nobody knows which record")
        until, words = int(words[1]), words[2:]
    introduced = None
    if words[:1] == ["from"] and len(words) > 2 and words[1].isdecimal():
        introduced = Introduction(int(words[1]), words[2])
    return PublishedKey(signed_note.parse_public(encoded), until, introduced)


def _published_or_none(line: str) -> Iterator[PublishedKey]:
    """Yield the key of a line, if the line has a valid one; ``publish`` drops other lines."""
    with suppress(signed_note.BadNote):
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


def _read_secret(path: Path) -> signed_note.PrivateKey | None:
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
        return signed_note.parse_private(encoded)
    except signed_note.BadNote as error:
        raise StateError(
            "journal.bad-key",
            f"{path} holds no key",
            remedy="restore it from a copy; or move it away, and the journal goes on with a new "
            "key, which 'trimtab journal verify' then tells of",
        ) from error
