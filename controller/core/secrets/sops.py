"""Reading SOPS documents: the data key by age, each value by its path, and the MAC over all.

No value is returned before the MAC over the whole document was compared. The reference is
``sops.go`` of SOPS; ``tests/unit/core/secrets`` compares with its program.

age files and identities, by ``pyrage``. Decrypts only: encryption needs randomness.

Opening a Secret's source with private keys. Only the decryption worker imports this module.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import pyrage

from controller.core.secrets import declared, formats
from controller.core.secrets.formats import (
    BINARY_KEY,
    SOURCE_MAX,
    SopsForm,
    read_tree,
    split_metadata,
)
from controller.core.secrets.sops_metadata import (
    KEY_BYTES,
    Opened,
    SopsMetadata,
    open_value,
    read_metadata,
)
from controller.model.errors import SecretError

IDENTITIES_MAX = 16
_IDENTITY = "AGE-SECRET-KEY-1"


@dataclass(frozen=True, slots=True)
class Identities:
    """The private keys of a namespace."""

    _keys: tuple[pyrage.x25519.Identity, ...] = field(repr=False)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys."""
        return tuple(str(key.to_public()) for key in self._keys)

    def open(self, sealed: str | bytes, what: str) -> bytes:
        """Decrypt an age file; *what* names the file in messages.

        Raises:
            SecretError: for other recipients, or no age file.
        """
        data = sealed.encode() if isinstance(sealed, str) else sealed
        # White space around armor is none of it, but the last bytes of a binary file can look like it.
        if not data.startswith(b"age-encryption.org/"):
            data = data.strip()
        try:
            return bytes(pyrage.decrypt(data, list(self._keys)))
        except pyrage.DecryptError as error:
            if "matching keys" in str(error).lower():
                raise self.wrong_key(what) from None
            raise SecretError(
                "secret.age-invalid",
                f"{what} isn't an age file, or was changed",
                remedy="encrypt it again: age --armor --recipient RECIPIENT",
            ) from None

    def wrong_key(self, what: str, others: Sequence[str] = ()) -> SecretError:
        """Return the error of a file that is for other recipients."""
        known = f"; the file is for {_short(others)}" if others else ""
        return SecretError(
            "secret.wrong-key",
            f"{what} isn't encrypted for this namespace's key {_short(self.recipients)}{known}",
            remedy="encrypt it for the namespace's recipient (trimtab secret list shows the recipient)",
        )


def _short(recipients: Sequence[str]) -> str:
    shown = [text if len(text) <= 64 else f"{text[:20]}…" for text in recipients[:3]]
    return ", ".join(shown) + (f" and {len(recipients) - 3} more" if len(recipients) > 3 else "")


def parse_identities(text: str, place: str) -> Identities:
    """Return the identities of a key file, as ``age-keygen`` writes such files.

    Raises:
        SecretError: no identity, or a line that is none. The message repeats no line.
    """
    keys = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            keys.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError:
            other = line.startswith("AGE-SECRET-KEY-") and not line.startswith(_IDENTITY)
            raise SecretError(
                "secret.key-invalid",
                f"line {number} of {place} is "
                + ("a key of another kind" if other else "no age key"),
                remedy="make a key with `trimtab secret keygen NAMESPACE` or `age-keygen`",
            ) from None
    if not keys or len(keys) > IDENTITIES_MAX:
        raise SecretError(
            "secret.key-invalid",
            f"{place} has {len(keys) or 'no'} age keys; expected 1 to {IDENTITIES_MAX}",
            remedy="make a key with `trimtab secret keygen NAMESPACE`",
        )
    return Identities(tuple(keys))


#: The start of a MAC over encrypted values alone (sops.go, MACOnlyEncryptedInitialization).
MAC_ONLY_ENCRYPTED = hashlib.sha256(b"sops").digest()


@dataclass(frozen=True, slots=True)
class PlainLeaf:
    """A value after decryption."""

    leaf: formats.Leaf
    encrypted: bool
    opened: Opened = field(repr=False)


@dataclass(frozen=True, slots=True)
class SopsDocument:
    """A decrypted and verified document."""

    metadata: SopsMetadata
    data_key: bytes = field(repr=False)
    values: tuple[PlainLeaf, ...] = field(repr=False)


def open_document(source: bytes, form: SopsForm, identities: Identities) -> SopsDocument:
    """Decrypt and verify a document.

    Raises:
        SecretError: not a SOPS document, for other keys, changed, or not supported.
    """
    tree, found = split_metadata(read_tree(source, form), form)
    if found is None:
        raise formats.invalid("the file isn't encrypted: it has no sops metadata")
    metadata = read_metadata(found)
    data_key = _data_key(metadata, identities)
    values = tuple(_open_leaves(formats.leaves(tree), metadata, data_key))
    _check_mac(values, metadata, data_key)
    return SopsDocument(metadata, data_key, values)


def contents_of(document: SopsDocument, form: SopsForm, name: str) -> declared.SecretFiles:
    """Return the files of a document: a binary document is one file called *name*.

    Raises:
        SecretError: a list, a null, or a key that can't name a file.
    """
    if form is SopsForm.BINARY:
        paths = [value.leaf.path for value in document.values]
        if paths != [(BINARY_KEY,)]:
            raise formats.invalid(
                "the file isn't a binary document of SOPS", "name it .json, .yaml or .env"
            )
        return declared.check_contents({name: document.values[0].opened.content})
    files: declared.SecretFiles = {}
    for value in document.values:
        leaf = value.leaf
        if leaf.in_list or leaf.scalar.value is None:
            raise formats.unsupported(
                f"{leaf.place} is a {'list' if leaf.in_list else 'null'}; each key becomes a file",
                "write a text, or encrypt the whole file as binary: sops --input-type binary",
            )
        path = "/".join(leaf.path)
        if path in files:
            raise formats.invalid(f"two keys give the file {path[:100]}")
        files[path] = value.opened.content
    return declared.check_contents(files)


def _data_key(metadata: SopsMetadata, identities: Identities) -> bytes:
    """Decrypt the data key: our own recipients first, then all, as a recipient may be mislabelled."""
    own = set(identities.recipients)
    ordered = sorted(metadata.recipients, key=lambda each: each.recipient not in own)
    failure: SecretError | None = None
    for recipient in ordered:
        try:
            key = identities.open(recipient.enc, "the file's data key")
        except SecretError as error:
            failure = failure or (error if error.code != "secret.wrong-key" else None)
            continue
        if len(key) != KEY_BYTES:
            raise formats.invalid(f"the data key has {len(key)} bytes")
        return key
    raise failure or identities.wrong_key("the file", [each.recipient for each in ordered])


def _open_leaves(
    found: list[formats.Leaf], metadata: SopsMetadata, data_key: bytes
) -> Iterator[PlainLeaf]:
    for leaf in found:
        value = leaf.scalar.value
        if value is None or not metadata.rule.is_encrypted(leaf):
            yield PlainLeaf(leaf, False, Opened(_type_of(value), formats.value_bytes(value)))
            continue
        if not isinstance(value, str):
            raise formats.invalid(
                f"the value of {leaf.place} isn't encrypted, though the metadata says so"
            )
        opened = open_value(
            value, key=data_key, additional_data=leaf.additional_data, place=leaf.place
        )
        yield PlainLeaf(leaf, True, opened)


def _type_of(value: formats.PlainValue) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case formats.Timestamp():
            return "time"
        case _:
            return "str"


def mac_of(values: Iterator[tuple[bool, bytes]], *, only_encrypted: bool) -> str:
    """Return the MAC of values, each with True if the value is encrypted."""
    digest = hashlib.sha512(MAC_ONLY_ENCRYPTED if only_encrypted else b"")
    for is_encrypted, data in values:
        if is_encrypted or not only_encrypted:
            digest.update(data)
    return digest.hexdigest().upper()


def _check_mac(values: tuple[PlainLeaf, ...], metadata: SopsMetadata, data_key: bytes) -> None:
    stored = open_value(
        metadata.mac, key=data_key, additional_data=metadata.last_modified, place="the MAC"
    )
    computed = mac_of(
        ((value.encrypted, value.opened.data) for value in values),
        only_encrypted=metadata.mac_only_encrypted,
    )
    if not hmac.compare_digest(stored.data, computed.encode()):
        raise SecretError(
            "secret.sops-mac",
            "the MAC doesn't match: a value was added, removed, moved or changed by hand",
            remedy="change the file with `sops` or `trimtab secret edit`, or take it from its history",
        )


def open_source(request: declared.OpenRequest) -> declared.SecretFiles:
    """Return the files of a Secret.

    Raises:
        SecretError: the source can't be decrypted with these keys, or is beyond the bounds.
    """
    identities = parse_identities(request.keys, request.place)
    match request.source:
        case declared.SopsSource(text=text, form=form, name=name):
            return contents_of(open_document(text, form, identities), form, name)
        case declared.AgeSource(files=files):
            if sum(map(len, files.values())) > SOURCE_MAX:
                raise SecretError(
                    "secret.bounds",
                    f"spec.age has more than {SOURCE_MAX} bytes",
                    remedy="split the Secret",
                )
            return declared.check_contents(
                {
                    key: identities.open(declared.check_armored(text, key), f"spec.age.{key}")
                    for key, text in files.items()
                }
            )
        case _:
            assert_never(request.source)
