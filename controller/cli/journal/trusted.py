"""What ``journal verify`` believes: public keys, and checkpoints that were kept elsewhere.

A module of its own, so that commands that only read don't load what checks signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from controller.core.transparency.checkpoint import Checkpoint, parse_checkpoint
from controller.core.transparency.signed_note import BadNote, PublicKey, parse_note, parse_public
from controller.journal.writer.signing_keys import earlier, read_public_keys
from controller.model.errors import StateError


class Unsigned(Exception):
    """A checkpoint that was kept isn't one, or nobody trusted signed it."""


def trusted_keys(given: tuple[str, ...]) -> dict[PublicKey, int | None]:
    """Return the keys that were named, or that are in the files that were.

    Each with the last record that it is believed of, None for one without an end.

    Raises:
        StateError: one is neither.
    """
    keys: dict[PublicKey, int | None] = {}
    for each in given:
        try:
            listed = _named(each)
        except (BadNote, OSError) as error:
            raise StateError(
                "journal.bad-key",
                f"--key {each}: {error}",
                remedy="name a copy of journal.pub, or one of the keys in it",
            ) from error
        for key, until in listed.items():
            keys[key] = earlier(keys.get(key), until)
    return keys


def _named(given: str) -> dict[PublicKey, int | None]:
    if not Path(given).exists():
        return {parse_public(given): None}
    listed = read_public_keys(Path(given))
    if not listed:
        raise BadNote("there is no key in it")
    return listed


def published_keys(path: Path) -> dict[PublicKey, int | None]:
    """Return the keys of the state folder, as ``trusted_keys``; none where no broker wrote any yet.

    Raises:
        StateError: they can't be read.
    """
    try:
        return read_public_keys(path)
    except FileNotFoundError:
        return {}
    except (BadNote, OSError) as error:
        raise StateError(
            "journal.bad-key",
            f"{path}: {error}",
            remedy="name the public key with --key; the broker writes the file anew at its start",
        ) from error


def kept_checkpoint(path: Path, keys: Mapping[PublicKey, int | None]) -> Checkpoint:
    """Return a checkpoint that was kept.

    Raises:
        Unsigned: it is none, or none of the keys signed it that are believed of as many records.
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
    believed = [key for key, end in keys.items() if end is None or checkpoint.size <= end]
    if keys and not any(map(note.is_signed_by, believed)):
        raise Unsigned(f"{path} isn't signed by a key that is trusted")
    return checkpoint
