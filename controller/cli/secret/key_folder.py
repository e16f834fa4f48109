"""The private keys of the host: make a key, and list recipients."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controller.broker.secrets.key_files import KEYS, key_path, read_key
from controller.core.secrets.age import Identities, parse_identities
from controller.model.errors import SecretError, StateError, UsageError
from controller.model.names import NAMESPACE_MAX, is_dns_label
from controller.system.atomic_file import fsync_folder

_ENDING = ".age"


@dataclass(frozen=True, slots=True)
class NamespaceKey:
    """A key file of a namespace."""

    namespace: str
    recipients: tuple[str, ...]
    #: Why the key can't be used; '' if it can.
    problem: str = ""


def check_namespace(namespace: str) -> str:
    """Return a valid namespace.

    Raises:
        UsageError: not a valid name.
    """
    if not is_dns_label(namespace, length=NAMESPACE_MAX):
        raise UsageError(
            "secret.namespace",
            f"{namespace[:100]!r} is not a valid namespace",
            remedy=f"lower-case letters, digits and - inside, at most {NAMESPACE_MAX} characters",
        )
    return namespace


def make_key(namespace: str, *, now: float, folder: Path = KEYS) -> str:
    """Make a namespace's key, and return its recipient. Never replaces a key.

    Raises:
        UsageError: there is a key, or the namespace isn't valid.
        StateError: the file can't be written.
    """
    from pyrage import x25519

    path = key_path(check_namespace(namespace), folder)
    identity = x25519.Identity.generate()
    recipient = str(identity.to_public())
    created = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    text = f"# created: {created}\n# public key: {recipient}\n{identity}\n"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            os.fchmod(handle, 0o600)
            file.write(text)
            file.flush()
            os.fsync(handle)
        fsync_folder(folder)
    except FileExistsError:
        raise UsageError(
            "secret.key-exists",
            f"{path} is there already",
            remedy="keep it: Secrets of the namespace are encrypted for it; to change keys, move it "
            "away, make another, and `trimtab secret rotate` each file",
        ) from None
    except OSError as error:
        raise StateError(
            "secret.key-unwritable", f"{path}: {error.strerror}", remedy="run it as root"
        ) from None
    return recipient


def list_keys(folder: Path = KEYS) -> list[NamespaceKey]:
    """Return the keys of this host.

    Raises:
        StateError: the folder can't be read.
    """
    try:
        names = sorted(path.stem for path in folder.glob(f"*{_ENDING}"))
    except OSError as error:
        raise StateError(
            "secret.keys-unreadable", f"{folder}: {error.strerror}", remedy="run it as root"
        ) from None
    return [_listed(name, folder) for name in names]


def _listed(namespace: str, folder: Path) -> NamespaceKey:
    try:
        return NamespaceKey(namespace, identities_of(namespace, folder).recipients)
    except SecretError as error:
        return NamespaceKey(namespace, (), error.message)


def identities_of(namespace: str, folder: Path = KEYS) -> Identities:
    """Return the identities of a namespace.

    Raises:
        SecretError: no key, or a key that can't be used.
    """
    key = read_key(check_namespace(namespace), folder)
    return parse_identities(key.text, key.place)
