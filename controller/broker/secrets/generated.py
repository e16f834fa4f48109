"""Values that the broker made for Secrets: made once, and kept until an operator forgets them.

One file for each Secret, encrypted under a key of the broker: a copy of the file alone shows
nothing. The key is derived from ``secrets.key``, so a backup of the state folder has both. A lost
file isn't replaced: programs know the old values, such as a database. Only an operator's act leaves
the mark of forgotten values, and new ones are made.

The folder in memory that containers mount Secrets from.

``/run/trimtab/secrets`` if that lies on a tmpfs, else a folder below ``/dev/shm``. Nothing of a
Secret reaches a disk, except through swap: a tmpfs of its own with ``noswap``, mounted there before
the broker starts, prevents that.

Every user can make folders in ``/dev/shm``, also one with the name of the broker's. Then the broker
makes a folder with a further part in its name that nobody can know before.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import string
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controller.core.secrets.declared import GeneratedSource, SecretFiles, SecretName
from controller.model.errors import SecretError
from controller.system.durable_files import write_atomic

#: Whether missing values are made: ``unless-lost`` if values of the Secret were made before.
Make = Literal["always", "unless-lost", "never"]
_NONCE_BYTES = 12
#: The content of the file of forgotten values. Shorter than a nonce.
_FORGOTTEN = b"forgotten"
_LETTERS = (string.ascii_letters + string.digits).encode()


@dataclass(frozen=True, slots=True)
class GeneratedValues:
    """The generated values of an instance."""

    folder: Path
    hash_key: bytes = field(repr=False)
    #: Returns that many random bytes.
    random: Callable[[int], bytes]

    def open(self, bound: SecretName, source: GeneratedSource, *, make: Make) -> SecretFiles:
        """Return the values of a Secret. Values that don't exist are made first, as *make* says.

        A value that exists keeps its length. Values of keys that the document no longer has stay.

        Raises:
            SecretError: another owner's, lost, missing while none may be made, or a file that can't be
                used.
        """
        found = self._read(bound)
        if found is None and make != "always":
            name = f"{bound.namespace}/{bound.name}"
            raise SecretError(
                "secret.generated-lost",
                f"no generated values of {name} are here, and there may have been some: "
                f"{self._path(bound.namespace, bound.name)} is missing",
                remedy="restore broker/generated and broker/secrets.key from one backup; or declare "
                f"the values that programs know, with 'file'; or 'trimtab secret forget {name}': the "
                "broker makes new ones, and programs that keep the old ones must be told",
            )
        known = found or {}
        missing = [key for key in source.lengths if key not in known]
        if missing and make == "never":
            raise SecretError(
                "secret.forgotten",
                f"the generated values of {bound.namespace}/{bound.name} were forgotten",
                remedy="nothing: the controller asks for new values",
            )
        if missing:
            known |= {key: self._value(source.lengths[key]) for key in missing}
            self._write(bound, known)
        return {key: known[key] for key in source.lengths}

    def forget(self, namespace: str, name: str) -> bool:
        """Forget the values of a Secret, also lost ones. Return False if there are none.

        Raises:
            OSError: the mark can't be written.
        """
        path = self._path(namespace, name)
        is_there = path.exists() and path.read_bytes() != _FORGOTTEN
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, _FORGOTTEN, mode=0o600)
        return is_there

    def _value(self, length: int) -> bytes:
        """Return letters and digits, each equally likely."""
        found = bytearray()
        limit = 256 - 256 % len(_LETTERS)
        while len(found) < length:
            found += bytes(
                _LETTERS[byte % len(_LETTERS)] for byte in self.random(length) if byte < limit
            )
        return bytes(found[:length])

    def _path(self, namespace: str, name: str) -> Path:
        return self.folder / namespace / name

    def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(self.hash_key, b"trimtab generated values v1", hashlib.sha256))

    def _read(self, bound: SecretName) -> SecretFiles | None:
        """Return the values of a Secret, none if they were forgotten; None without a file."""
        path = self._path(bound.namespace, bound.name)
        place = f"{bound.namespace}/{bound.name}".encode()
        try:
            stored = path.read_bytes()
            if stored == _FORGOTTEN:
                return {}
            plain = self._cipher().decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], place)
        except FileNotFoundError:
            return None
        except (InvalidTag, ValueError):
            raise SecretError(
                "secret.generated-damaged",
                f"{path} can't be decrypted: it was changed, or the state folder has another secrets.key",
                remedy="restore both from one backup; or 'trimtab secret forget "
                f"{bound.namespace}/{bound.name}': the broker makes new values, and programs that "
                "keep the old ones must be told",
            ) from None
        data = json.loads(plain)
        if data["owner"] != bound.owner:
            raise SecretError(
                "secret.foreign",
                f"the generated values of {bound.namespace}/{bound.name} belong to another owner",
                remedy=f"choose another name, or remove {self._path(bound.namespace, bound.name)} as root",
            )
        return {key: base64.b64decode(text) for key, text in data["values"].items()}

    def _write(self, bound: SecretName, values: SecretFiles) -> None:
        path = self._path(bound.namespace, bound.name)
        encoded = {key: base64.b64encode(data).decode() for key, data in values.items()}
        plain = json.dumps({"owner": bound.owner, "values": encoded}).encode()
        nonce = self.random(_NONCE_BYTES)
        place = f"{bound.namespace}/{bound.name}".encode()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, nonce + self._cipher().encrypt(nonce, plain, place), mode=0o600)
        except OSError as error:
            raise SecretError(
                "secret.generated-unwritable",
                f"{path}: {error.strerror}",
                remedy="look at the disk of the state folder",
            ) from None


_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})
_RUN = Path("/run/trimtab/secrets")
_SHARED = Path("/dev/shm")  # noqa: S108 — only a folder of the broker's own is used there


def usual_bases() -> tuple[Path, ...]:
    """Return the places for the folders of instances, the best first."""
    return _RUN, _SHARED / f"trimtab-secrets-{os.geteuid()}"


def secret_folder(instance: str, bases: tuple[Path, ...] | None = None) -> Path | None:
    """Return the folder of an instance; None if no memory can be used.

    The folder around it is made with mode 0700. The folder itself is made with the first Secret: an
    instance without Secrets leaves nothing behind.
    """
    for base in bases or usual_bases():
        try:
            if _filesystem(base) in _FILESYSTEMS:
                base.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                folder = _own_base(base) / instance
                return _own(folder) if os.path.lexists(folder) else folder
        except OSError:
            continue
    return None


def _own_base(base: Path) -> Path:
    """Make a folder, under another name if somebody else has taken the name.

    A folder with another name stays in use until the memory is emptied, so that containers find it.

    Raises:
        OSError: no folder can be made there.
    """
    for folder in sorted(base.parent.glob(f"{base.name}.*")):
        with suppress(OSError):
            return _own(folder)
    try:
        return _own(base)
    except (FileExistsError, PermissionError):
        return Path(tempfile.mkdtemp(prefix=f"{base.name}.", dir=base.parent))


def _own(folder: Path) -> Path:
    """Make a folder that nobody else can enter.

    Raises:
        OSError: another user's folder is there, or a link.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
    return folder


def _filesystem(path: Path) -> str:
    """Return the type of the file system that holds a path, '' if unknown."""
    mounts = [
        (line.split()[1], line.split()[2])
        for line in Path("/proc/mounts").read_text("utf-8").splitlines()
    ]
    # Of two mounts at one place the later covers the earlier.
    above = [each for each in mounts if each[0] == str(path) or Path(each[0]) in path.parents]
    return max(enumerate(above), key=lambda pair: (len(pair[1][0]), pair[0]))[1][1] if above else ""
