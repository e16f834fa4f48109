"""The broker's side of the decryption worker: starts the child, and exchanges frames with it.

A request has a deadline. A child that dies or is late is ended, and the next request starts
another; the request itself fails and isn't repeated, because the request may be the reason. A child
is also ended after any other fault within a request: its next answer would belong to this request.

Hostile ciphertext can take a worker over. So only the code of an error leaves the worker: a text
could carry a key or a value into the status and the journal.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from controller.core.secrets.contents import SecretFiles
from controller.core.secrets.sources import OpenRequest, contents_from_json, request_to_json
from controller.model.errors import SecretError

#: -I: nothing of the environment adds code. The child gets no environment anyway.
COMMAND = (sys.executable, "-I", "-m", "controller.process.secret_worker")
START_S = 30.0
REQUEST_S = 5.0
#: The shortest time between two starts. A request waits for the rest: it isn't the one that failed.
RESTART_S = 1.0
#: A child is replaced after so many requests, before it ends by itself.
RENEWED_AFTER = 900
ANSWER_MAX = 4 * 1024 * 1024
_LENGTH_BYTES = 4


class _ChildFailed(Exception):
    """The child ended, was late, or broke the protocol."""


class SecretWorker:
    """The decryption worker. Threads take turns."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        command: Sequence[str] = COMMAND,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._command = command
        self._wait = wait
        self._served = 0
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._started: float | None = None

    @property
    def pid(self) -> int | None:
        """The child's pid; None while there is no child."""
        return self._child.pid if self._child is not None else None

    def open(self, request: OpenRequest) -> SecretFiles:
        """Decrypt a Secret.

        Raises:
            SecretError: it can't be decrypted, or the worker failed.
        """
        with self._lock:
            try:
                child = self._running()
                return self._answer(child, request)
            except _ChildFailed as error:
                self._end()
                raise SecretError(
                    "secret.worker",
                    f"the decryption worker failed: {error}",
                    remedy="check the Secret's file with `sops decrypt FILE`; the next change of the "
                    "file is tried again",
                ) from None
            except SecretError:
                raise
            except BaseException:
                self._end()
                raise

    def start(self) -> None:
        """Start the child now, so that the first request doesn't wait for its imports.

        Raises:
            SecretError: the child can't be started or can't be locked down.
        """
        with self._lock:
            try:
                self._running()
            except _ChildFailed as error:
                self._end()
                raise SecretError("secret.worker", f"the decryption worker: {error}") from None

    def stop(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        is_worn = self._served >= RENEWED_AFTER
        if self._child is not None and self._child.poll() is None and not is_worn:
            return self._child
        self._end()
        early = 0.0 if self._started is None else self._started + RESTART_S - self._monotonic()
        if early > 0 and not is_worn:
            self._wait(early)
        self._started, self._served = self._monotonic(), 0
        try:
            self._child = subprocess.Popen(
                list(self._command),
                env={},
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise _ChildFailed(f"it can't be started: {error.strerror}") from None
        hello = self._receive(self._child, self._monotonic() + START_S)
        if hello != {"ready": True}:
            reason = hello.get("unsafe", "an unknown greeting")
            raise _ChildFailed(f"this machine can't lock it down: {reason}")
        return self._child

    def _answer(self, child: subprocess.Popen[bytes], request: OpenRequest) -> SecretFiles:
        self._served += 1
        deadline = self._monotonic() + REQUEST_S
        self._send(child, json.dumps(request_to_json(request)).encode(), deadline)
        answer = self._receive(child, deadline)
        if (code := answer.get("error")) is not None:
            error = error_of(code)
            if error is None:
                raise _ChildFailed("its answer has an unknown error")
            raise error
        try:
            return contents_from_json(answer.get("files"))
        except ValueError as failure:
            raise _ChildFailed(f"its answer has {failure}") from None
        except SecretError as failure:  # a child keeps the bounds, unless foreign code runs in it
            raise _ChildFailed(f"its answer is beyond the bounds ({failure.code})") from None

    def _send(self, child: subprocess.Popen[bytes], data: bytes, deadline: float) -> None:
        assert child.stdin is not None
        handle = child.stdin.fileno()
        os.set_blocking(handle, False)
        frame = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        while frame:
            left = deadline - self._monotonic()
            if left <= 0 or not _is_ready(handle, select.POLLOUT, left):
                raise _ChildFailed("it didn't read the request in time")
            try:
                frame = frame[os.write(handle, frame) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise _ChildFailed("it ended") from None

    def _receive(self, child: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        length = int.from_bytes(self._read(child, _LENGTH_BYTES, deadline), "big")
        if length > ANSWER_MAX:
            raise _ChildFailed(f"its answer has {length} bytes")
        try:
            answer = json.loads(self._read(child, length, deadline))
        except ValueError:
            raise _ChildFailed("its answer isn't JSON") from None
        if not isinstance(answer, dict):
            raise _ChildFailed("its answer isn't an object")
        return answer

    def _read(self, child: subprocess.Popen[bytes], count: int, deadline: float) -> bytes:
        assert child.stdout is not None
        handle = child.stdout.fileno()
        data = bytearray()
        while len(data) < count:
            left = deadline - self._monotonic()
            if left <= 0 or not _is_ready(handle, select.POLLIN, left):
                raise _ChildFailed(f"no answer within {REQUEST_S:g} s")
            chunk = os.read(handle, count - len(data))
            if not chunk:
                raise _ChildFailed("it ended")
            data += chunk
        return bytes(data)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
        child.wait()


def _is_ready(handle: int, event: int, within_s: float) -> bool:
    """Wait for a pipe. Unlike select(2), poll(2) takes descriptors beyond 1023."""
    waiting = select.poll()
    waiting.register(handle, event)
    return bool(waiting.poll(math.ceil(within_s * 1000)))


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
