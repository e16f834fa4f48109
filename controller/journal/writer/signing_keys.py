"""The files of the key that signs checkpoints: one secret of the broker's, one for everybody.

``broker/journal.key`` signs (0600). Its public key lies in the state folder itself, where everybody
may read it, to be copied to other hosts: ``journal.pub`` lists the keys, the one that signs now
first, and of the others until which record they did. A key that is being brought in lies beside the one before (``journal.key.next``) until the
checkpoint that both sign is durable.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.core.transparency.signed_note import (
    BadNote,
    Note,
    PrivateKey,
    PublicKey,
    parse_note,
    parse_private,
    parse_public,
)
from controller.journal.store.segments import open_regular
from controller.model.errors import StateError
from controller.system.atomic_file import fsync_folder, write_atomic

SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
_FILE_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Where they are. ``checkpoint`` is the last one, to be copied to other hosts as well."""

    secret: Path
    public: Path
    checkpoint: Path

    @property
    def coming(self) -> Path:
        """The secret key that is being brought in."""
        return self.secret.with_name(f"{self.secret.name}.next")


class SigningKeys:
    """The broker's keys. ``new_seed`` returns 32 random bytes.

    Raises:
        StateError: a secret key is open to others, another user's, or no key.
    """

    def __init__(self, files: KeyFiles, *, name: str, new_seed: Callable[[], bytes]) -> None:
        self._files = files
        self._name = name
        self._new_seed = new_seed
        self._key = _read_secret(files.secret)
        self._coming = _read_secret(files.coming)

    def signing(self) -> PrivateKey:
        """Return the key that signs, which is made where there is none.

        Raises:
            OSError: it can't be written.
        """
        if self._key is None:
            self._key = self._made(self._files.secret)
        return self._key

    def coming(self) -> PrivateKey:
        """Return the key that is to follow, which is made where there is none.

        Raises:
            OSError: it can't be written.
        """
        if self._coming is None:
            self._coming = self._made(self._files.coming)
        return self._coming

    def that_signed(self, note: Note) -> PublicKey | None:
        """Return which of the keys signed a note, the one that is to follow before the other."""
        ours = [each.public for each in (self._coming, self._key) if each is not None]
        return next((key for key in ours if note.signed_by(key)), None)

    def promote(self, key: PublicKey) -> None:
        """Let *key* be the one that signs, if it is the one that is to follow.

        Raises:
            OSError: the files can't be changed; a start after this one does it.
        """
        if self._coming is not None and self._coming.public == key:
            self._key, self._coming = self._coming, None
            self._files.coming.rename(self._files.secret)
            fsync_folder(self._files.secret.parent)

    def publish(self, *, since: int) -> None:
        """Write the public key for everybody, before those that signed until *since*.

        Raises:
            OSError: it can't be written. Nothing hangs on it but people's copies.
        """
        signing = str(self.signing().public)
        known = filter(_names_a_key, _lines(self._files.public))
        listed = [line for line in known if line.split()[0] != signing]
        older = [line if " until " in line else f"{line} until {since}" for line in listed]
        lines = "".join(f"{line}\n" for line in (signing, *older))
        write_atomic(self._files.public, lines.encode(), mode=PUBLIC_MODE)

    def publish_checkpoint(self, note: str) -> None:
        """Write the last checkpoint for everybody.

        Raises:
            OSError: it can't be written.
        """
        write_atomic(self._files.checkpoint, note.encode(), mode=PUBLIC_MODE)

    def published_checkpoint(self) -> Note | None:
        """Return the last checkpoint as everybody has it; None where there is none.

        Raises:
            BadNote, OSError: it can't be read.
        """
        try:
            with open_regular(self._files.checkpoint) as file:
                return parse_note(file.read(_FILE_MAX_BYTES).decode("utf-8", "replace"))
        except FileNotFoundError:
            return None

    def _made(self, path: Path) -> PrivateKey:
        key = PrivateKey(self._name, self._new_seed())
        write_atomic(path, f"{key.secret()}\n".encode(), mode=SECRET_MODE)
        return key


def read_public_keys(path: Path) -> dict[PublicKey, int | None]:
    """Return the keys of a list as ``publish`` leaves it, each with the last record that it signed.

    None: it signs. One is on a line; other words behind it are ignored.

    Raises:
        BadNote: a line is no key, or doesn't say until when.
        OSError: it can't be read.
    """
    with open_regular(path) as file:
        text = file.read(_FILE_MAX_BYTES).decode("utf-8", "replace")
    keys: dict[PublicKey, int | None] = {}
    for line in text.splitlines():
        told, *words = line.split() or ["#"]
        if told[0] == "#":
            continue
        key = parse_public(told)
        keys[key] = earlier(keys.get(key), _until(words))
    return keys


def earlier(one: int | None, other: int | None) -> int | None:
    """Return the first of two ends, of which each may be none."""
    return other if one is None or (other is not None and other < one) else one


def _until(words: list[str]) -> int | None:
    match words:
        case ["until", number, *_] if number.isdecimal():
            return int(number)
        case ["until", *_]:
            raise BadNote("a key until nobody knows which record")
        case _:
            return None


def hash_key(path: Path, *, new_seed: Callable[[], bytes]) -> bytes:
    """Return the key of keyed hashes, which is made where there is none.

    Raises:
        StateError: it can't be read or made, or is open to others.
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
            remedy="move it away: a new one is made, by which older hashes can't be compared",
        ) from error


def _check_private(path: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise OSError(f"{path.name} is open to others (mode {stat.S_IMODE(facts.st_mode):04o})")


def _lines(path: Path) -> list[str]:
    with suppress(OSError), open_regular(path) as file:
        text = file.read(_FILE_MAX_BYTES).decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    return []


def _names_a_key(line: str) -> bool:
    """Tell whether a line can be read; what somebody else wrote there isn't kept."""
    told, *words = line.split()
    with suppress(BadNote):
        parse_public(told)
        _until(words)
        return True
    return False


def _read_secret(path: Path) -> PrivateKey | None:
    try:
        with open_regular(path) as file:
            facts = os.fstat(file.fileno())
            told = file.read(_FILE_MAX_BYTES).decode("utf-8", "replace")
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
        return parse_private(told)
    except BadNote as error:
        raise StateError(
            "journal.bad-key",
            f"{path} holds no key",
            remedy="restore it from a copy; or move it away, and the journal goes on with a new "
            "key, which 'trimtab journal verify' then tells of",
        ) from error
