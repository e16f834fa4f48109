"""The public keys that may sign the commits of a source: a folder of root's.

Files: ``allowed_signers`` (ssh-keygen(1), ALLOWED SIGNERS), ``revoked_keys`` (a key revocation list or
public keys), and OpenPGP certificates as ``*.asc`` or ``*.pgp``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import SourceError

ALLOWED_SIGNERS = "allowed_signers"
REVOKED_KEYS = "revoked_keys"
CERTIFICATES_MAX = 64


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The files of keys. A format without a file isn't accepted."""

    folder: Path
    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    certificates: tuple[Path, ...] = ()


def read_keys(folder: Path, *, owners: Iterable[int]) -> TrustedKeys:
    """Return the key files of a folder.

    *owners* are the uids that may own the folder and its files: root, or who runs trimtab.

    Raises:
        SourceError: the folder is missing, holds no key, or another user can change it.
    """
    trusted = frozenset(owners)
    try:
        _raise_if_foreign(folder, trusted)
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        for name in names:
            _raise_if_foreign(folder / name, trusted)
    except OSError as error:
        raise _unusable(folder, error.strerror or type(error).__name__) from error
    certificates = tuple(folder / name for name in names if name.endswith((".asc", ".pgp")))
    keys = TrustedKeys(
        folder,
        allowed_signers=folder / ALLOWED_SIGNERS if ALLOWED_SIGNERS in names else None,
        revoked_keys=folder / REVOKED_KEYS if REVOKED_KEYS in names else None,
        certificates=certificates[:CERTIFICATES_MAX],
    )
    if keys.allowed_signers is None and not keys.certificates:
        raise _unusable(folder, f"has neither {ALLOWED_SIGNERS} nor a certificate (*.asc, *.pgp)")
    return keys


def _raise_if_foreign(path: Path, owners: frozenset[int]) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _unusable(path, "is a link")
    if status.st_uid not in owners:
        raise _unusable(path, f"belongs to uid {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(path, f"has mode {stat.S_IMODE(status.st_mode):04o}: others can change it")


def _unusable(path: Path, why: str) -> SourceError:
    return SourceError(
        "source.keys",
        f"the keys can't be used: {path} {why}",
        remedy="put public keys there, owned by root and writable by nobody else (docs/git.md)",
    )
