"""The metadata of a SOPS document: recipients, the rule for what is encrypted, and the MAC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.core.secrets.cipher import is_sealed
from controller.core.secrets.tree import Leaf, Mapping, invalid, plain, unsupported
from controller.model.errors import SecretError

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
