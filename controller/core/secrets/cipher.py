"""Encrypted values of SOPS: AES-256-GCM with the path as additional data.

Source: ``aes/cipher.go`` of SOPS. Nonces have 32 bytes there.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controller.core.secrets.tree import PlainValue, Timestamp, go_float, invalid
from controller.model.errors import SecretError

NONCE_BYTES = 32
KEY_BYTES = 32
_TAG_BYTES = 16
_NONCE_MIN, _NONCE_MAX = 8, 128
_SEALED = re.compile(r"ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z]+)\]")
_TYPES = frozenset({"str", "int", "float", "bytes", "bool", "time", "comment"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted value."""

    #: The type that SOPS noted, such as ``str`` or ``int``.
    type: str
    data: bytes = field(repr=False)

    @property
    def content(self) -> bytes:
        """The value as a file has it: ``true`` for SOPS's ``True``."""
        return self.data.lower() if self.type == "bool" else self.data


def is_sealed(text: str) -> bool:
    """Return True if a text has the form of an encrypted value."""
    return _SEALED.fullmatch(text) is not None


def open_value(text: str, *, key: bytes, additional_data: str, place: str) -> Opened:
    """Decrypt a value. *place* names the value in messages.

    Raises:
        SecretError: no encrypted value, or changed, moved, or of another data key.
    """
    if not text:
        return Opened("str", b"")  # SOPS leaves empty texts as they are
    match = _SEALED.fullmatch(text)
    if match is None:
        raise invalid(f"the value of {place} isn't encrypted, though the metadata says so")
    try:
        data, nonce, tag = (base64.b64decode(part, validate=True) for part in match.groups()[:3])
    except binascii.Error:
        raise invalid(f"the value of {place} isn't base64") from None
    if len(tag) != _TAG_BYTES or not _NONCE_MIN <= len(nonce) <= _NONCE_MAX:
        raise invalid(f"the value of {place} has a nonce or tag of a wrong length")
    if match[4] not in _TYPES:
        raise invalid(f"the value of {place} has the unknown type {match[4]}")
    try:
        plain = AESGCM(key).decrypt(nonce, data + tag, additional_data.encode())
    except InvalidTag:
        raise SecretError(
            "secret.sops-tampered",
            f"the value of {place} doesn't decrypt: it was changed, or moved from another path",
            remedy="take the file from its history, or encrypt it again with sops",
        ) from None
    return Opened(match[4], plain)


def seal_value(value: PlainValue | bytes, *, key: bytes, nonce: bytes, additional_data: str) -> str:
    """Encrypt a value as SOPS does. An empty text stays empty."""
    assert len(nonce) == NONCE_BYTES, f"a nonce of {len(nonce)} bytes"
    kind, data = _typed(value)
    if not data:
        return ""
    sealed = AESGCM(key).encrypt(nonce, data, additional_data.encode())
    parts = (sealed[:-_TAG_BYTES], nonce, sealed[-_TAG_BYTES:])
    text, iv, tag = (base64.b64encode(part).decode() for part in parts)
    return f"ENC[AES256_GCM,data:{text},iv:{iv},tag:{tag},type:{kind}]"


def _typed(value: PlainValue | bytes) -> tuple[str, bytes]:
    match value:
        case bytes():
            return "str", value
        case bool():
            return "bool", b"True" if value else b"False"
        case str():
            return "str", value.encode()
        case int():
            return "int", str(value).encode()
        case float():
            return "float", go_float(value).encode()
        case Timestamp(text=text):
            return "time", text.encode()
        case None:
            raise AssertionError("a null is never encrypted")
