"""The decryption worker: decrypts Secrets for the broker, and can do nothing else.

The broker starts ``python -I -m controller.process.secret_worker`` with two pipes as standard input
and output. Each request and answer is a frame: four bytes of length, then JSON. The worker parses
what users wrote, with a private key in memory. So before the first request it gives up its
capabilities, all files but the pipes, and all system calls but a few
(docs/decisions/0055-secrets.md).

The worker ends at the end of its input, after ``REQUESTS_MAX`` requests, and at any fault that no
file of a person causes. The broker then starts another.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

import pyrage

from controller.core.secrets.formats import SopsForm
from controller.core.secrets.metadata import EncryptionRule, Recipient
from controller.core.secrets.opening import open_source
from controller.core.secrets.sealing import new_metadata, seal
from controller.core.secrets.sources import (
    OpenRequest,
    SopsSource,
    contents_to_json,
    request_from_json,
)
from controller.model.errors import SecretError
from controller.system import seccomp, syscalls

#: A worker serves this many requests. What a hostile request left in memory ends with the worker.
REQUESTS_MAX = 1000
REQUEST_MAX = 4 * 1024 * 1024
MEMORY_MAX = 256 * 1024 * 1024
#: Processor time of a worker's whole life; the broker's deadline bounds each request.
CPU_MAX_S = 300
_INPUT, _OUTPUT = 0, 1
_LENGTH_BYTES = 4


def main() -> None:
    """Load everything, lock the process, and serve."""
    _warm_up()
    try:
        _lock_down()
    except OSError as error:
        _write({"unsafe": f"{error}"})
        sys.exit(1)
    _write({"ready": True})
    for _ in range(REQUESTS_MAX):
        request = _read()
        if request is None:
            return
        _write(_answer(request))
        del request


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"files": contents_to_json(open_source(request_from_json(request)))}
    except SecretError as error:
        return {"error": error.code}


def _warm_up() -> None:
    """Run each kind of request once: modules that are loaded on use must be loaded now."""
    identity = pyrage.x25519.Identity.generate()
    recipient = identity.to_public()
    data_key = os.urandom(32)
    enc = pyrage.encrypt(data_key, [recipient], armored=True).decode()
    for form, text in (
        (SopsForm.YAML, b"a: b\nc: 2024-01-01\n"),
        (SopsForm.JSON, b'{"a": "b"}'),
        (SopsForm.DOTENV, b"A=b\n"),
        (SopsForm.BINARY, b"a"),
    ):
        metadata = new_metadata(
            [Recipient(str(recipient), enc)], EncryptionRule("encrypted_regex", "a|A|data")
        )
        sealed = seal(
            text,
            form,
            metadata=metadata,
            data_key=data_key,
            now="2026-01-01T00:00:00Z",
            nonce=lambda: os.urandom(32),
        )
        open_source(OpenRequest(SopsSource(sealed, form, "x"), str(identity), "the key"))
    for files in ({"a": enc}, {"a": "x"}):
        _answer({"source": {"age": files}, "keys": str(identity), "place": "the key"})


def _lock_down() -> None:
    """Give up everything but the pipes. Raises OSError if the kernel refuses a step."""
    os.closerange(_OUTPUT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_MAX),
        (resource.RLIMIT_CPU, CPU_MAX_S),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    if os.geteuid() == 0:
        syscalls.limit_capability_sets()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    seccomp.permit_computing_only()


def _read() -> dict[str, Any] | None:
    """Return the next request; None at the end of the input."""
    head = _read_bytes(_LENGTH_BYTES)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    assert length <= REQUEST_MAX, f"a request of {length} bytes"
    request = json.loads(_read_bytes(length))
    assert isinstance(request, dict)
    return request


def _read_bytes(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = os.read(_INPUT, count - len(data))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)


def _write(answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    frame = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    while frame:
        frame = frame[os.write(_OUTPUT, frame) :]


if __name__ == "__main__":
    main()
