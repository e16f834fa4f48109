"""Secrets in the broker: values that it made, and sources that it opens.

The binding is checked here: a source is opened with the key of its own namespace, and a content id
holds namespace, owner and name. SecretFiles of a Secret that nobody has seen before are limited, since
each content id answers one guess.

The broker's side of the decryption worker (``system.child_programs``).

Hostile ciphertext can take a worker over. So only the code of an error leaves the worker: a text
could carry a key or a value into the status and the journal.

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
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controller.broker.gate.commands import OpenSecret, SecretNotOpened, SecretOpened
from controller.broker.secrets.key_files import FILES, KEYS, read_host_file, read_key
from controller.core.files.content import DamagedContent, UnopenedContent
from controller.core.secrets import declared
from controller.core.secrets.declared import (
    AgeSource,
    GeneratedSource,
    OpenRequest,
    SecretFiles,
    SecretName,
    SopsSource,
    check_contents,
    content_id,
    contents_from_json,
    request_to_json,
)
from controller.model.delivery import FileSet
from controller.model.errors import SecretError
from controller.system.child_programs import ChildBounds, FramedChild, WorkerFailed
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


#: -I: nothing of the environment adds code. The child gets no environment anyway.
COMMAND = (sys.executable, "-I", "-m", "controller.process.secret_worker")
RENEWED_AFTER = 900
BOUNDS = ChildBounds(request_s=5.0, answer_max=4 * 1024 * 1024, renewed_after=RENEWED_AFTER)


class SecretWorker:
    """The decryption worker. Threads take turns."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        command: Sequence[str] = COMMAND,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._child = FramedChild(command, BOUNDS, monotonic=monotonic, wait=wait)

    @property
    def pid(self) -> int | None:
        """The child's pid; None while there is no child."""
        return self._child.pid

    def open(self, request: OpenRequest) -> SecretFiles:
        """Decrypt a Secret.

        Raises:
            SecretError: it can't be decrypted, or the worker failed.
        """
        try:
            answer = self._answer(request)
        except WorkerFailed as error:
            raise SecretError(
                "secret.worker",
                f"the decryption worker failed: {error}",
                remedy="check the Secret's file with `sops decrypt FILE`; the next change of the "
                "file is tried again",
            ) from None
        if isinstance(answer, SecretError):
            raise answer
        return answer

    def start(self) -> None:
        """Start the child now, so that the first request doesn't wait for its imports.

        Raises:
            SecretError: the child can't be started or can't be locked down.
        """
        try:
            self._child.start()
        except WorkerFailed as error:
            raise SecretError("secret.worker", f"the decryption worker: {error}") from None

    def stop(self) -> None:
        """End the child."""
        self._child.stop()

    def _answer(self, request: OpenRequest) -> SecretFiles | SecretError:
        """Return the files, or the error of a Secret that can't be decrypted."""
        with self._child.turn() as ask:
            answer = ask(request_to_json(request))
            if (code := answer.get("error")) is not None:
                error = error_of(code)
                if error is None:
                    raise WorkerFailed("its answer has an unknown error")
                return error
            try:
                return contents_from_json(answer.get("files"))
            except ValueError as failure:
                raise WorkerFailed(f"its answer has {failure}") from None
            except (
                SecretError
            ) as failure:  # a child keeps the bounds, unless foreign code runs in it
                raise WorkerFailed(f"its answer is beyond the bounds ({failure.code})") from None


_SEE: Final = "see the place: `sudo trimtab secret list FILE -n NAMESPACE`"

#: Message and remedy by code.
WORDS: Final = {
    "secret.age-invalid": (
        "a value isn't an armored age file, or was changed",
        "encrypt again: `age --armor --recipient RECIPIENT`",
    ),
    "secret.bounds": (
        "the Secret has no key, more than 256 keys, or more than 1 MiB",
        "split the Secret",
    ),
    "secret.key-invalid": (
        "the namespace's key file has no age key, or a line that is none",
        "make a key: `trimtab secret keygen NAMESPACE`",
    ),
    "secret.key-name": (
        "a key of the Secret can't name a file",
        "name each a relative path of at most 8 steps, and no key below another",
    ),
    "secret.no-recipient": (
        "the SOPS file has no age recipient",
        "sops rotate --in-place --add-age RECIPIENT FILE",
    ),
    "secret.sops-invalid": (
        "the file isn't as SOPS writes files, or isn't encrypted",
        "encrypt it with sops or `trimtab secret encrypt`",
    ),
    "secret.sops-mac": (
        "a value was added, removed, moved or changed by hand: the MAC of the file is another",
        "change the file with `sops` or `trimtab secret edit` only",
    ),
    "secret.sops-tampered": (
        "an encrypted value was changed, or moved from another path",
        "take the file from its history, or encrypt again",
    ),
    "secret.sops-unsupported": (
        "the file uses a part of SOPS that trimtab doesn't read, such as lists or key groups",
        _SEE,
    ),
    "secret.source": ("the source has another form, or is beyond its bounds", _SEE),
    "secret.wrong-key": (
        "it is encrypted for other recipients than the namespace's key",
        "encrypt it for the namespace's recipient: `trimtab secret list` shows recipients",
    ),
}


def error_of(code: object) -> SecretError | None:
    """Return the error of a code; None for an unknown code."""
    words = WORDS.get(code) if isinstance(code, str) else None
    if words is None:
        return None
    assert isinstance(code, str), "only texts have words"
    return SecretError(code, words[0], remedy=words[1])


#: New contents of one Secret in one window.
NEW_MAX = 20
WINDOW_S = 3600.0
#: Secrets with new contents in one window. Further ones are refused, so that none is uncounted.
COUNTED_MAX = 10_000
#: A source that the worker failed at is refused for so long.
STALLED_S = 600.0
STALLED_MAX = 256
#: The code of a worker that ended or was late.
FAILED_WORKER = "secret.worker"
#: Why a stored Secret has to be delivered again. Every other fault can pass by itself, or by a person.
_LOST = frozenset({"secret.changed", "secret.forgotten", "secret.generated-damaged"})


@dataclass(frozen=True, slots=True)
class OpenedSecret:
    """An opened Secret: its id and names for everybody, its files for the mount alone."""

    content: str
    files: SecretFiles = field(repr=False)
    #: The bytes to store: the source with its owner.
    stored: bytes = field(repr=False)


@dataclass(slots=True)
class SecretOpener:
    """Opens the Secrets of an instance. Blocks: call in a thread. Answers are given one at a time, so
    that each new content is counted before the next one is looked at.
    """

    worker: SecretWorker
    generated: GeneratedValues
    hash_key: bytes = field(repr=False)
    monotonic: Callable[[], float]
    keys: Path = KEYS
    host_files: Path = FILES
    #: When the worker failed at a source, and how, by the digest of the source.
    _stalled: dict[tuple[SecretName, bytes], tuple[float, SecretError]] = field(
        default_factory=dict
    )
    _seen: dict[SecretName, deque[tuple[float, str]]] = field(default_factory=dict)
    _answering: threading.Lock = field(default_factory=threading.Lock)

    def open(
        self,
        bound: SecretName,
        source: declared.SecretSource,
        *,
        known: Collection[str] = (),
        doubted: bool = False,
    ) -> OpenedSecret:
        """Open a Secret for a delivery; *known* are the content ids that the broker has stored.

        With known contents, or *doubted*, values were generated before: no others are made in the place
        of lost ones.

        Raises:
            SecretError: it can't be opened, or had too many new contents within the hour.
        """
        self._raise_if_spent(bound)
        files = self._first_files(
            bound, source, make="unless-lost" if known or doubted else "always"
        )
        content = content_id(files, bound=bound, key=self.hash_key)
        if content not in known:
            self._count(bound, content)
        return OpenedSecret(content, files, declared.encode_declared(source, bound.owner))

    def _first_files(
        self, bound: SecretName, source: declared.SecretSource, *, make: Make
    ) -> SecretFiles:
        """Return the files of a source. A source that the worker failed at is refused at once for a
        while: each try can take as long as the worker's deadline, and others wait meanwhile.
        """
        place = (bound, hashlib.sha256(declared.encode_declared(source, bound.owner)).digest())
        failed = self._stalled.get(place)
        if failed is not None and self.monotonic() < failed[0] + STALLED_S:
            raise failed[1]
        self._stalled.pop(place, None)
        try:
            return self._files(bound, source, make=make)
        except SecretError as error:
            if error.code == FAILED_WORKER:
                oldest = [*self._stalled][: max(0, len(self._stalled) - STALLED_MAX + 1)]
                for other in oldest:
                    del self._stalled[other]
                self._stalled[place] = (self.monotonic(), error)
            raise

    def reopen(self, namespace: str, name: str, content: str, stored: bytes) -> Mapping[str, bytes]:
        """Return the files of a stored Secret, whose id is *content*.

        Raises:
            SecretError: it can't be opened any more, or gives other files.
        """
        data = json.loads(stored)
        bound = SecretName(namespace, data["owner"], name)
        files = self._files(bound, declared.declared_from_json(data["source"]), make="never")
        if content_id(files, bound=bound, key=self.hash_key) != content:
            raise SecretError(
                "secret.changed",
                f"the values behind {namespace}/{name} have changed on the host",
                remedy="nothing: the controller delivers the new content",
            )
        return files

    def answer(self, command: OpenSecret) -> SecretOpened | SecretNotOpened:
        """Execute a command of the gate: nothing of the answer is plain text."""
        with self._answering:
            return self._answer(command)

    def _answer(self, command: OpenSecret) -> SecretOpened | SecretNotOpened:
        # With the contents of earlier answers in the present window.
        known = command.known | {content for _, content in self._seen.get(command.bound, ())}
        try:
            opened = self.open(command.bound, command.source, known=known, doubted=command.doubted)
        except SecretError as error:
            return SecretNotOpened(error.code, error.message, error.remedy)
        is_new = opened.content not in known
        return SecretOpened(opened.content, tuple(sorted(opened.files)), opened.stored, is_new)

    def forget(self, files: FileSet) -> bool:
        """Forget the generated values of a Secret. Return False if there are none."""
        with self._answering:
            return self.generated.forget(files.namespace, files.name)

    def reopen_stored(self, files: FileSet, content: str, stored: bytes) -> Mapping[str, bytes]:
        """Return the files of a stored Secret, for its mount.

        Raises:
            DamagedContent: the content has to be delivered again.
            UnopenedContent: the content can't be opened now.
        """
        try:
            return self.reopen(files.namespace, files.name, content, stored)
        except SecretError as error:
            fault = DamagedContent if error.code in _LOST else UnopenedContent
            raise fault(f"{error.message} ({error.remedy})") from None

    def _files(
        self, bound: SecretName, source: declared.SecretSource, *, make: Make
    ) -> SecretFiles:
        match source:
            case SopsSource() | AgeSource():
                key = read_key(bound.namespace, self.keys)
                return self.worker.open(OpenRequest(source, key.text, key.place))
            case declared.HostFileSource(files=names):
                return check_contents(
                    {
                        key: read_host_file(bound.namespace, name, self.host_files)
                        for key, name in names.items()
                    }
                )
            case declared.GeneratedSource():
                return self.generated.open(bound, source, make=make)
            case _:
                assert_never(source)

    def _raise_if_spent(self, bound: SecretName) -> None:
        """Refuse a Secret beyond its limit. Counts of past hours are dropped first."""
        expired = self.monotonic() - WINDOW_S
        for name in list(self._seen):
            seen = self._seen[name]
            while seen and seen[0][0] <= expired:
                seen.popleft()
            if not seen:
                del self._seen[name]
        is_full = bound not in self._seen and len(self._seen) >= COUNTED_MAX
        if is_full or len(self._seen.get(bound, ())) >= NEW_MAX:
            raise SecretError(
                "secret.too-many",
                f"{bound.namespace}/{bound.name} had {NEW_MAX} new contents within an hour",
                remedy="wait; each new content of a Secret answers a guess of its values",
            )

    def _count(self, bound: SecretName, content: str) -> None:
        self._seen.setdefault(bound, deque()).append((self.monotonic(), content))
