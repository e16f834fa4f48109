"""The broker's side of the decryption worker (``system.children.framed_child``).

Hostile ciphertext can take a worker over. So only the code of an error leaves the worker: a text
could carry a key or a value into the status and the journal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from controller.core.secrets.contents import SecretFiles
from controller.core.secrets.sources import OpenRequest, contents_from_json, request_to_json
from controller.model.errors import SecretError
from controller.system.children.framed_child import (
    ChildBounds,
    FramedChild,
    WorkerFailed,
)

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
