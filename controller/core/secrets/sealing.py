"""Writing SOPS documents, and turning them into plain files for an editor and back.

In YAML and dotenv only the values are replaced, so comments, order and layout stay. Comments are
not encrypted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Members
from typing import assert_never

import yaml

from controller.core.secrets import formats
from controller.core.secrets.formats import (
    BINARY_KEY,
    SopsForm,
    decode,
    read_tree,
    resolve,
    split_metadata,
)
from controller.core.secrets.sops import SopsDocument, mac_of
from controller.core.secrets.sops_metadata import (
    EncryptionRule,
    Opened,
    Recipient,
    read_rule,
    seal_value,
)

#: The release of SOPS whose form the files have.
_VERSION = "3.11.0"
_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*", re.ASCII)
_AMBIGUOUS = frozenset({"y", "n", "yes", "no", "on", "off"})
_METADATA_BLOCK = re.compile(r"^sops:.*\n?(?:(?:[ \t#].*)?\n?)*?(?=^[^ \t#\n]|\Z)", re.MULTILINE)
_SEALED_COMMENT = re.compile(r"#\s*ENC\[AES256_GCM,")

RawMetadata = dict[str, object]


def new_metadata(recipients: list[Recipient], rule: EncryptionRule) -> RawMetadata:
    """Return the metadata of a new document, without time and MAC."""
    keys = [{"recipient": each.recipient, "enc": each.enc} for each in recipients]
    return {"age": keys, rule.kind: rule.text, "version": _VERSION}


def read_raw_metadata(source: bytes, form: SopsForm) -> RawMetadata:
    """Return all metadata of a document, also of keys that trimtab doesn't use.

    Raises:
        SecretError: not a SOPS document.
    """
    _, found = split_metadata(read_tree(source, form), form)
    if found is None:
        raise formats.invalid("the file isn't encrypted: it has no sops metadata")
    data = formats.plain(found)
    assert isinstance(data, dict)
    return data


def has_sealed_comments(source: bytes) -> bool:
    """Return True if a document may have comments that SOPS encrypted."""
    return _SEALED_COMMENT.search(decode(source)) is not None


def seal(
    source: bytes,
    form: SopsForm,
    *,
    metadata: RawMetadata,
    data_key: bytes,
    now: str,
    nonce: Callable[[], bytes],
) -> bytes:
    """Return a plain file as a SOPS document.

    *now* is RFC 3339 in UTC; *nonce* returns 32 random bytes.

    Raises:
        SecretError: encrypted already, or a file that the format can't hold.
    """
    rule = read_rule(metadata)
    if rule.kind.endswith("comment_regex"):
        raise formats.unsupported("the file's rule goes by comments", "change the file with sops")
    if form is SopsForm.BINARY:
        values: list[tuple[bool, bytes]] = [(True, source)]
        sealed = seal_value(source, key=data_key, nonce=nonce(), additional_data=f"{BINARY_KEY}:")
        body: object = {BINARY_KEY: sealed}
    else:
        tree, found = split_metadata(read_tree(source, form), form)
        if found is not None:
            raise formats.invalid(
                "the file is encrypted already", "change it with `trimtab secret edit`"
            )
        listed = formats.leaves(tree)
        covered = [leaf.scalar.value is not None and rule.is_encrypted(leaf) for leaf in listed]
        values = [
            (is_covered, formats.value_bytes(leaf.scalar.value))
            for leaf, is_covered in zip(listed, covered, strict=True)
        ]
        texts = [
            seal_value(
                leaf.scalar.value,
                key=data_key,
                nonce=nonce(),
                additional_data=leaf.additional_data,
            )
            if is_covered
            else None
            for leaf, is_covered in zip(listed, covered, strict=True)
        ]
        body = _replaced(decode(source), form, tree, listed, texts)
    only = str(metadata.get("mac_only_encrypted", "")).lower() in {"true", "1"}
    mac = seal_value(
        mac_of(iter(values), only_encrypted=only), key=data_key, nonce=nonce(), additional_data=now
    )
    return _render(body, form, {**metadata, "lastmodified": now, "mac": mac})


def reveal(source: bytes, form: SopsForm, document: SopsDocument) -> bytes:
    """Return a decrypted document as a plain file, in the layout of the encrypted one.

    Raises:
        SecretError: a value that isn't text, in a format of text.
    """
    if form is SopsForm.BINARY:
        return document.values[0].opened.data
    text = decode(source)
    if form is SopsForm.YAML:
        for as_block in (True, False):
            result = _reveal_yaml(text, document, as_block=as_block)
            if result is not None:
                return result.encode()
        raise formats.unsupported(
            "the layout of the file can't be kept", "change the file with sops"
        )
    if form is SopsForm.DOTENV:
        lines = [
            (value.leaf.scalar.span, _text(value.opened, value.leaf).replace("\n", "\\n"))
            for value in document.values
        ]
        kept = _splice(text, lines)
        return "".join(
            line for line in kept.splitlines(keepends=True) if not line.startswith("sops_")
        ).encode()
    tree, _ = split_metadata(read_tree(source, form), form)
    values = iter([_value(value.opened, value.leaf) for value in document.values])
    return _dump_json(_rebuilt(tree, values))


def _value(opened: Opened, leaf: formats.Leaf) -> formats.PlainValue:
    """Return a decrypted value with its type."""
    text = _text(opened, leaf)
    match opened.type:
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "bool":
            return text == "True"
        case "time":
            return formats.Timestamp(text)
        case _:
            return leaf.scalar.value if leaf.scalar.value is None else text


def _text(opened: Opened, leaf: formats.Leaf) -> str:
    try:
        return opened.data.decode()
    except UnicodeDecodeError:
        raise formats.unsupported(
            f"the value of {leaf.place} isn't text", "change the file with sops"
        ) from None


def _replaced(
    text: str,
    form: SopsForm,
    tree: formats.Mapping,
    listed: list[formats.Leaf],
    texts: list[str | None],
) -> object:
    """Return the body with sealed values: a text for YAML and dotenv, else a value for JSON."""
    if form is SopsForm.JSON:
        values = (
            leaf.scalar.value if sealed is None else sealed
            for leaf, sealed in zip(listed, texts, strict=True)
        )
        return _rebuilt(tree, values)
    return _splice(
        text,
        [
            (leaf.scalar.span, sealed if form is SopsForm.DOTENV or not sealed else f'"{sealed}"')
            for leaf, sealed in zip(listed, texts, strict=True)
            if sealed
        ],
    )


def _splice(text: str, replacements: list[tuple[tuple[int, int], str]]) -> str:
    """Replace spans of a text; blank space and comments at the end of a span stay."""
    parts: list[str] = []
    place = 0
    for (start, end), new in replacements:
        old = text[start:end]
        tail = re.search(r"(?:\n[ \t]*(?:#[^\n]*)?)*[ \t\n]*\Z", old) if old[:1] in "|>" else None
        parts += [text[place:start], new, tail.group() if tail else ""]
        place = end
    return "".join((*parts, text[place:]))


def _rebuilt(node: formats.Node, values: Iterator[object]) -> object:
    match node:
        case formats.Scalar():
            value = next(values)
            return value.text if isinstance(value, formats.Timestamp) else value
        case formats.Sequence(items=items):
            return [_rebuilt(item, values) for item in items]
        case formats.Mapping(items=pairs):
            return {key: _rebuilt(item, values) for key, item in pairs}


def _dump_json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent="\t") + "\n").encode()


def _render(body: object, form: SopsForm, metadata: RawMetadata) -> bytes:
    """Return a document of a body and its metadata, which stands at the end."""
    match form:
        case SopsForm.JSON | SopsForm.BINARY:
            assert isinstance(body, dict)
            return _dump_json({**body, "sops": metadata})
        case SopsForm.DOTENV | SopsForm.YAML:
            assert isinstance(body, str)
            head = body if not body or body.endswith("\n") else f"{body}\n"
            tail = _flat_lines(metadata) if form is SopsForm.DOTENV else _yaml_block(metadata)
            result = (head + tail).encode()
            _, found = split_metadata(read_tree(result, form), form)
            if found is None:
                raise formats.unsupported(
                    "the metadata can't stand after this file", "write a block mapping"
                )
            return result
        case _:
            assert_never(form)


def _flat_lines(metadata: RawMetadata) -> str:
    lines: list[str] = []

    def flatten(prefix: str, value: object) -> None:
        if isinstance(value, Members):
            for key, inner in value.items():
                flatten(f"{prefix}__map_{key}", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                flatten(f"{prefix}__list_{index}", inner)
        elif value is not None:
            lines.append(f"{prefix}={value}".replace("\n", "\\n"))

    for key, value in metadata.items():
        flatten(f"sops_{key}", value)
    return "".join(f"{line}\n" for line in lines)


class _MetadataDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_MetadataDumper.add_representer(str, _represent_text)


def _yaml_block(metadata: RawMetadata) -> str:
    return yaml.dump(
        {"sops": metadata}, Dumper=_MetadataDumper, sort_keys=False, indent=4, width=10_000
    )


def _reveal_yaml(text: str, document: SopsDocument, *, as_block: bool) -> str | None:
    """Return the plain text of a YAML document; None if the text would say something else."""
    replacements = [
        (value.leaf.scalar.span, _yaml_value(text, value.leaf, value.opened, as_block=as_block))
        for value in document.values
        if value.encrypted and value.opened.data
    ]
    result = _METADATA_BLOCK.sub("", _splice(text, replacements))
    tree, found = split_metadata(read_tree(result.encode(), SopsForm.YAML), SopsForm.YAML)
    wanted = [(value.leaf.path, value.opened.data) for value in document.values]
    got = [(leaf.path, formats.value_bytes(leaf.scalar.value)) for leaf in formats.leaves(tree)]
    return result if found is None and wanted == got else None


def _yaml_value(text: str, leaf: formats.Leaf, opened: Opened, *, as_block: bool) -> str:
    value = _text(opened, leaf)
    if opened.type != "str":
        return value.lower() if opened.type == "bool" else value
    if _BARE.fullmatch(value) and resolve(value) == value and value.lower() not in _AMBIGUOUS:
        return value
    if as_block and "\n" in value[:-1] and value.endswith("\n") and not value.endswith("\n\n"):
        start = text.rfind("\n", 0, leaf.scalar.span[0]) + 1
        head = re.match(r"[ -]*", text[start:])
        assert head is not None
        indent = " " * (len(head.group()) + 4)
        lines = value[:-1].split("\n")
        if (
            all(line == line.rstrip() and line.isprintable() for line in lines)
            and lines[0][:1] != " "
        ):
            return "|\n" + "\n".join(f"{indent}{line}" if line else "" for line in lines)
    return f'"{"".join(map(_escaped, value))}"'


def _escaped(letter: str) -> str:
    """Return a letter inside double quotes of YAML."""
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return f"\\U{ord(letter):08x}"
