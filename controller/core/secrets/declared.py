"""What a Secret declares: SOPS, age, files of the host, or values that the broker makes.

The form in JSON is what the controller sends, and what the broker stores. It holds ciphertext,
names and lengths, never plain text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from controller.core.encoding.canonical_json import canonical, digest
from controller.core.secrets.contents import FILES_MAX, is_file_name
from controller.core.secrets.formats import form_of
from controller.core.secrets.sources import AgeSource, SopsSource
from controller.core.secrets.tree import SOURCE_MAX
from controller.model.errors import SecretError

#: Lengths of generated values, in characters.
LENGTH_MIN, LENGTH_MAX = 8, 1024


@dataclass(frozen=True, slots=True)
class HostFileSource:
    """Keys with names of files below the namespace's folder of secret files."""

    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class GeneratedSource:
    """Keys with the lengths of the values that the broker makes once."""

    lengths: dict[str, int]


SecretSource = SopsSource | AgeSource | HostFileSource | GeneratedSource


def declared_to_json(source: SecretSource) -> dict[str, Any]:
    """Return a source as JSON."""
    match source:
        case SopsSource(text=text, name=name):
            return {"sops": {"name": name, "text": base64.b64encode(text).decode()}}
        case AgeSource(files=files):
            return {"age": files}
        case HostFileSource(files=files):
            return {"file": files}
        case GeneratedSource(lengths=lengths):
            return {"generate": lengths}
        case _:
            assert_never(source)


def declared_from_json(value: object) -> SecretSource:
    """Return the source of a JSON value.

    Raises:
        SecretError: not the form of ``declared_to_json``, or beyond the bounds.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise _malformed("a source is an object with one member")
    ((kind, members),) = value.items()
    if not isinstance(members, dict) or not members or len(members) > FILES_MAX:
        raise _malformed(f"{kind} is an object with 1 to {FILES_MAX} members")
    if kind == "sops":
        return _sops(members)
    if not all(isinstance(name, str) and is_file_name(name) for name in members):
        raise _malformed("a key is a relative path without . and ..")
    if kind == "generate":
        return GeneratedSource({name: _length(name, length) for name, length in members.items()})
    if kind not in {"age", "file"} or not all(isinstance(text, str) for text in members.values()):
        raise _malformed("expected sops, age, file or generate, with texts")
    if kind == "file" and not all(map(is_file_name, members.values())):
        raise _malformed("a file of the host is a relative path without . and ..")
    if sum(map(len, members.values())) > SOURCE_MAX:
        raise _malformed(f"more than {SOURCE_MAX} bytes")
    return AgeSource(dict(members)) if kind == "age" else HostFileSource(dict(members))


def _sops(members: Mapping[str, object]) -> SopsSource:
    name, text = members.get("name"), members.get("text")
    if members.keys() != {"name", "text"} or not isinstance(name, str) or not isinstance(text, str):
        raise _malformed("sops has a name and a text")
    if len(text) > 2 * SOURCE_MAX or not is_file_name(name):
        raise _malformed(f"the file has more than {SOURCE_MAX} bytes, or no name of a file")
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise _malformed("the text isn't base64") from None
    return SopsSource(data, form_of(name), name)


def _length(name: str, length: object) -> int:
    if not isinstance(length, int) or isinstance(length, bool):
        raise _malformed(f"the length of {name} is no number")
    if not LENGTH_MIN <= length <= LENGTH_MAX:
        raise _malformed(
            f"the length of {name} is {length}; {LENGTH_MIN} to {LENGTH_MAX} are possible"
        )
    return length


def _malformed(message: str) -> SecretError:
    return SecretError("secret.source", message, remedy="correct the Secret's spec")


def encode_declared(source: SecretSource, owner: str) -> bytes:
    """Return the bytes that the broker stores: the source with its owner."""
    return canonical({"owner": owner, "source": declared_to_json(source)})


def source_digest(source: SecretSource, owner: str) -> str:
    """Return the digest of a source, by which the controller knows a source that it asked for."""
    return digest({"owner": owner, "source": declared_to_json(source)})
