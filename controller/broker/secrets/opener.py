"""Opening Secrets in the broker: source and key in, files and content id out.

The binding is checked here: a source is opened with the key of its own namespace, and a content id
holds namespace, owner and name. SecretFiles of a Secret that nobody has seen before are limited, since
each content id answers one guess.

The broker's side of the decryption worker (``system.child_programs``).

Hostile ciphertext can take a worker over. So only the code of an error leaves the worker: a text
could carry a key or a value into the status and the journal.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from controller.broker.gate.commands import OpenSecret, SecretNotOpened, SecretOpened
from controller.broker.secrets.generated import GeneratedValues, Make
from controller.broker.secrets.key_files import FILES, KEYS, read_host_file, read_key
from controller.core.files.content import DamagedContent, UnopenedContent
from controller.core.secrets import declared
from controller.core.secrets.declared import (
    AgeSource,
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
