"""The trust anchors of ``journal verify``: public keys, and saved checkpoints.

A separate module, so that commands that only read don't import the code for signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from controller.core.records.checkpoint import Checkpoint, parse_checkpoint
from controller.core.transparency.signed_note import BadNote, PublicKey, parse_note, parse_public
from controller.journal.writer.signing_keys import earlier, read_public_keys
from controller.model.errors import StateError


class Unsigned(Exception):
    """A saved checkpoint isn't valid, or has no signature of a trusted key."""


def trusted_keys(values: tuple[str, ...]) -> dict[PublicKey, int | None]:
    """Return the keys of the ``--key`` options: keys, or files of keys.

    Each key has the last record for which its signature is trusted; None for no limit.

    Raises:
        StateError: a value is neither a key nor a file of keys.
    """
    keys: dict[PublicKey, int | None] = {}
    for value in values:
        try:
            keys_of_value = _parse_keys(value)
        except (BadNote, OSError) as error:
            raise StateError(
                "journal.bad-key",
                f"--key {value}: {error}",
                remedy="name a copy of journal.pub, or one of the keys in it",
            ) from error
        for key, until in keys_of_value.items():
            keys[key] = earlier(keys.get(key), until)
    return keys


def _parse_keys(value: str) -> dict[PublicKey, int | None]:
    if not Path(value).exists():
        return {parse_public(value): None}
    keys = read_public_keys(Path(value))
    if not keys:
        raise BadNote("there is no key in it")
    return keys


def published_keys(path: Path) -> dict[PublicKey, int | None]:
    """Return the keys of a state folder, as ``trusted_keys``; empty before a broker's first start.

    Raises:
        StateError: the keys can't be read.
    """
    try:
        return read_public_keys(path)
    except FileNotFoundError:
        return {}
    except (BadNote, OSError) as error:
        raise StateError(
            "journal.bad-key",
            f"{path}: {error}",
            remedy="name the public key with --key; the broker rewrites the file at its start",
        ) from error


def read_checkpoint(path: Path, keys: Mapping[PublicKey, int | None]) -> Checkpoint:
    """Return a saved checkpoint.

    Raises:
        Unsigned: the file has no checkpoint, or no signature of a key trusted for its records.
        StateError: the file can't be read.
    """
    try:
        note = parse_note(path.read_text(encoding="utf-8"))
        checkpoint = parse_checkpoint(note)
    except OSError as error:
        raise StateError(
            "journal.no-checkpoint",
            f"{path}: {error.strerror}",
            remedy="name a copy of journal.checkpoint",
        ) from error
    except (BadNote, UnicodeDecodeError) as error:
        raise Unsigned(f"{path} is no checkpoint: {error}") from error
    valid = [key for key, end in keys.items() if end is None or checkpoint.size <= end]
    if keys and not any(map(note.is_signed_by, valid)):
        raise Unsigned(f"{path} isn't signed by a key that is trusted")
    return checkpoint
