"""Encrypted values of SOPS, and the metadata of its documents.

Encrypted values of SOPS: AES-256-GCM with the path as additional data.

Source: ``aes/cipher.go`` of SOPS. Nonces have 32 bytes there.

The metadata of a SOPS document: recipients, the rule for what is encrypted, and the MAC.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controller.core.secrets.formats import (
    Leaf,
    Mapping,
    PlainValue,
    Timestamp,
    go_float,
    invalid,
    plain,
    unsupported,
)
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


DEFAULT_SUFFIX: Final = "_unencrypted"
_RULES: Final = (
    "unencrypted_suffix",
    "encrypted_suffix",
    "unencrypted_regex",
    "encrypted_regex",
    "unencrypted_comment_regex",
    "encrypted_comment_regex",
)
#: Kinds of keys other than age, with the words for messages.
_OTHER_KEYS: Final = {
    "pgp": "PGP",
    "kms": "AWS KMS",
    "gcp_kms": "GCP KMS",
    "hckms": "Huawei KMS",
    "azure_kv": "Azure Key Vault",
    "hc_vault": "Vault",
}
_RECIPIENTS_MAX = 64


@dataclass(frozen=True, slots=True)
class EncryptionRule:
    """Decides by its path whether a value is encrypted."""

    kind: str = "unencrypted_suffix"
    text: str = DEFAULT_SUFFIX

    def is_encrypted(self, leaf: Leaf) -> bool:
        """Return True if the value of the leaf is encrypted.

        Raises:
            SecretError: the rule is a regular expression that Python doesn't read.
        """
        if self.kind.endswith("comment_regex"):
            # Comments aren't kept. The MAC fails if the form of a value is not what it seems.
            return isinstance(leaf.scalar.value, str) and is_sealed(leaf.scalar.value)
        if self.kind.endswith("suffix"):
            matches = any(key.endswith(self.text) for key in leaf.path)
        else:
            try:
                matches = any(re.search(self.text, key) for key in leaf.path)
            except re.error as error:
                raise unsupported(
                    f"{self.kind} {self.text[:100]!r} can't be used: {error}",
                    "write a simpler expression",
                ) from None
        return matches is not self.kind.startswith("unencrypted")


@dataclass(frozen=True, slots=True)
class Recipient:
    """An age recipient with the data key encrypted for it."""

    recipient: str
    #: An armored age file.
    enc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SopsMetadata:
    """The metadata that reading needs."""

    recipients: tuple[Recipient, ...]
    last_modified: str
    mac: str
    mac_only_encrypted: bool = False
    rule: EncryptionRule = EncryptionRule()


def read_metadata(node: Mapping) -> SopsMetadata:
    """Return the metadata of a document.

    Raises:
        SecretError: incomplete, without age recipients, or with parts that trimtab doesn't read.
    """
    data = plain(node)
    assert isinstance(data, dict)
    for name in ("lastmodified", "mac"):
        if not isinstance(data.get(name), str) or not data[name]:
            raise invalid(f"the metadata has no {name}")
    return SopsMetadata(
        recipients=_recipients(data),
        last_modified=_rfc3339(data["lastmodified"]),
        mac=data["mac"],
        mac_only_encrypted=str(data.get("mac_only_encrypted", "")).lower() in {"true", "1"},
        rule=read_rule(data),
    )


def _rfc3339(text: str) -> str:
    """Return a time as Go formats the time that it parsed: UTC is ``Z``."""
    return re.sub(r"(?:\.[0-9]+)?(?:[+-]00:00|Z)\Z", "Z", text)


def read_rule(data: dict[str, object]) -> EncryptionRule:
    """Return the rule of a document's metadata.

    Raises:
        SecretError: the metadata has two rules.
    """
    given = [(kind, text) for kind in _RULES if (text := data.get(kind))]
    if len(given) > 1:
        raise invalid(f"the metadata has both {given[0][0]} and {given[1][0]}")
    return EncryptionRule(given[0][0], str(given[0][1])) if given else EncryptionRule()


def _recipients(data: dict[str, object]) -> tuple[Recipient, ...]:
    groups = data.get("key_groups")
    if isinstance(groups, list) and len(groups) > 1:
        raise unsupported(
            "the data key is split among several key groups", "encrypt the file for one key group"
        )
    if isinstance(groups, list) and groups and isinstance(groups[0], dict):
        data = groups[0]
    listed = data.get("age")
    found = [
        Recipient(str(entry.get("recipient", "")), str(entry["enc"]))
        for entry in (listed if isinstance(listed, Sequence) else ())
        if isinstance(entry, dict) and isinstance(entry.get("enc"), str)
    ]
    if not found:
        others = " and ".join(words for kind, words in _OTHER_KEYS.items() if data.get(kind))
        raise SecretError(
            "secret.no-recipient",
            "the file has no age recipient" + (f", only keys of {others}" if others else ""),
            remedy="add the namespace's recipient: sops rotate --in-place --add-age RECIPIENT FILE",
        )
    if len(found) > _RECIPIENTS_MAX:
        raise unsupported(
            f"the file has more than {_RECIPIENTS_MAX} recipients", "remove recipients"
        )
    return tuple(found)
