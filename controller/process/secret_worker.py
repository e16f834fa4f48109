"""The decryption worker: decrypts Secrets for the broker, and can do nothing else.

The broker starts ``python -I -m controller.process.secret_worker`` (``process.locked_worker``). The
worker parses what users wrote, with a private key in memory (docs/decisions/0055-secrets.md).
"""

from __future__ import annotations

import os
from typing import Any

import pyrage

from controller.core.secrets.declared import (
    OpenRequest,
    SopsSource,
    contents_to_json,
    request_from_json,
)
from controller.core.secrets.formats import SopsForm
from controller.core.secrets.sealing import new_metadata, seal
from controller.core.secrets.sops import open_source
from controller.core.secrets.sops_metadata import EncryptionRule, Recipient
from controller.model.errors import SecretError
from controller.process.locked_worker import WorkerLimits, serve

REQUESTS_MAX = 1000
LIMITS = WorkerLimits(
    requests=REQUESTS_MAX, request_bytes=4 * 1024 * 1024, memory_bytes=256 * 1024 * 1024
)


def main() -> None:
    """Load everything, lock the process, and serve."""
    _warm_up()
    serve(_answer, LIMITS)


def _answer(request: dict[str, Any], _raw: bytes = b"") -> dict[str, Any]:
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


if __name__ == "__main__":
    main()
