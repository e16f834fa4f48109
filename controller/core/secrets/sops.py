"""Reading SOPS documents: the data key by age, each value by its path, and the MAC over all.

No value is returned before the MAC over the whole document was compared. The reference is
``sops.go`` of SOPS; ``tests/unit/core/secrets`` compares with its program.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field

from controller.core.secrets import tree as trees
from controller.core.secrets.age import Identities
from controller.core.secrets.cipher import KEY_BYTES, Opened, open_value
from controller.core.secrets.contents import SecretFiles, check_contents
from controller.core.secrets.formats import BINARY_KEY, SopsForm, read_tree, split_metadata
from controller.core.secrets.metadata import SopsMetadata, read_metadata
from controller.model.errors import SecretError

#: The start of a MAC over encrypted values alone (sops.go, MACOnlyEncryptedInitialization).
MAC_ONLY_ENCRYPTED = hashlib.sha256(b"sops").digest()


@dataclass(frozen=True, slots=True)
class PlainLeaf:
    """A value after decryption."""

    leaf: trees.Leaf
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
        raise trees.invalid("the file isn't encrypted: it has no sops metadata")
    metadata = read_metadata(found)
    data_key = _data_key(metadata, identities)
    values = tuple(_open_leaves(trees.leaves(tree), metadata, data_key))
    _check_mac(values, metadata, data_key)
    return SopsDocument(metadata, data_key, values)


def contents_of(document: SopsDocument, form: SopsForm, name: str) -> SecretFiles:
    """Return the files of a document: a binary document is one file called *name*.

    Raises:
        SecretError: a list, a null, or a key that can't name a file.
    """
    if form is SopsForm.BINARY:
        paths = [value.leaf.path for value in document.values]
        if paths != [(BINARY_KEY,)]:
            raise trees.invalid(
                "the file isn't a binary document of SOPS", "name it .json, .yaml or .env"
            )
        return check_contents({name: document.values[0].opened.content})
    files: SecretFiles = {}
    for value in document.values:
        leaf = value.leaf
        if leaf.in_list or leaf.scalar.value is None:
            raise trees.unsupported(
                f"{leaf.place} is a {'list' if leaf.in_list else 'null'}; each key becomes a file",
                "write a text, or encrypt the whole file as binary: sops --input-type binary",
            )
        path = "/".join(leaf.path)
        if path in files:
            raise trees.invalid(f"two keys give the file {path[:100]}")
        files[path] = value.opened.content
    return check_contents(files)


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
            raise trees.invalid(f"the data key has {len(key)} bytes")
        return key
    raise failure or identities.wrong_key("the file", [each.recipient for each in ordered])


def _open_leaves(
    found: list[trees.Leaf], metadata: SopsMetadata, data_key: bytes
) -> Iterator[PlainLeaf]:
    for leaf in found:
        value = leaf.scalar.value
        if value is None or not metadata.rule.is_encrypted(leaf):
            yield PlainLeaf(leaf, False, Opened(_type_of(value), trees.value_bytes(value)))
            continue
        if not isinstance(value, str):
            raise trees.invalid(
                f"the value of {leaf.place} isn't encrypted, though the metadata says so"
            )
        opened = open_value(
            value, key=data_key, additional_data=leaf.additional_data, place=leaf.place
        )
        yield PlainLeaf(leaf, True, opened)


def _type_of(value: trees.PlainValue) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case trees.Timestamp():
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
