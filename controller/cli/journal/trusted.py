"""The trust anchors of ``journal verify``: public keys, and saved checkpoints.

A separate module, so that commands that only read don't import the code for signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.core.records.checkpoint import Checkpoint, parse_checkpoint
from controller.core.transparency.signed_note import BadNote, PublicKey, parse_note, parse_public
from controller.journal.writer.signing_keys import PublishedKey, ends_of, read_published_keys
from controller.model.errors import StateError, error_reason


class Unsigned(Exception):
    """A saved checkpoint isn't valid, or has no signature of a trusted key."""


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """The public keys for a verification."""

    published: tuple[PublishedKey, ...] = ()
    #: The file with the keys, if it lies beside the journal; '' if the keys come from elsewhere.
    beside: str = ""

    @property
    def ends(self) -> dict[PublicKey, int | None]:
        """The last record for which each key's signature is good; None for no limit."""
        return ends_of(self.published)


def trusted_keys(values: tuple[str, ...], journal: Path) -> GivenKeys:
    """Return the keys of the ``--key`` options: keys, or files of keys.

    A file lies beside the journal if it is anywhere in the state folder. For a copy of the journal
    alone, that is the folder *journal* and what is directly in one of the two above. Who changes one
    can change the other.

    Raises:
        StateError: a value is neither a key nor a file of keys.
    """
    published: list[PublishedKey] = []
    beside = ""
    for value in values:
        try:
            published += _parse_keys(value)
        except (BadNote, OSError) as error:
            raise StateError(
                "journal.bad-key",
                f"--key {value}: {error_reason(error)}",
                remedy="name a copy of journal.pub, or one of the keys in it",
            ) from error
        if Path(value).exists() and _is_beside(Path(value), journal):
            beside = beside or value
    return GivenKeys(tuple(published), beside)


def _is_beside(file: Path, journal: Path) -> bool:
    file, folder = file.resolve(), journal.resolve()
    if file.is_relative_to(folder) or file.parent in folder.parents[:2]:
        return True
    is_in_state = folder.parts[-2:] == ("broker", "journal")
    return is_in_state and file.is_relative_to(folder.parents[1])


def _parse_keys(value: str) -> tuple[PublishedKey, ...]:
    if not Path(value).exists():
        return (PublishedKey(parse_public(value)),)
    keys = read_published_keys(Path(value))
    if not keys:
        raise BadNote("there is no key in it")
    return keys


def published_keys(path: Path) -> GivenKeys:
    """Return the keys of a state folder; none before a broker's first start.

    Raises:
        StateError: the keys can't be read.
    """
    try:
        keys = read_published_keys(path)
    except FileNotFoundError:
        return GivenKeys()
    except (BadNote, OSError) as error:
        raise StateError(
            "journal.bad-key",
            f"{path}: {error_reason(error)}",
            remedy="name the public key with --key; the broker rewrites the file at its start",
        ) from error
    return GivenKeys(keys, str(path) if keys else "")


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
        raise Unsigned(f"{path} isn't signed by one of the given keys")
    return checkpoint


def compare_published(path: Path, *, signed: int) -> tuple[str, ...]:
    """Return notes on ``journal.checkpoint`` of a state folder whose journal is *signed* so far.

    The file is missing, empty or outdated after a crash, until the next checkpoint; or somebody
    changed it. The journal itself has the checkpoint, so no record is in doubt.
    """
    if not signed:
        return ()
    try:
        content = path.read_text(encoding="utf-8")
        size = parse_checkpoint(parse_note(content)).size if content else 0
    except FileNotFoundError:
        return (f"{path} is missing: the broker's next checkpoint writes it",)
    except (BadNote, OSError, UnicodeDecodeError):
        return ()  # reported before, or replaced meanwhile
    if not content:
        return (f"{path} is empty: the broker's next checkpoint writes it",)
    if size < signed:
        how = f"is of the first {size} records, and the journal's last checkpoint of {signed}"
        return (f"{path} {how}: a crash left it behind, or an older copy was put there",)
    return ()
