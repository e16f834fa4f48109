"""What a Secret declares, what it is made of, and the files and ids that come of it.

What a Secret declares: SOPS, age, files of the host, or values that the broker makes.

The form in JSON is what the controller sends, and what the broker stores. It holds ciphertext,
names and lengths, never plain text.

What a Secret is made of, as the decryption worker gets it, and the files that come of it.

The files of a Secret, their bounds, and the ids that show equality without showing content.

The form of an armored age file, without decrypting it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from controller.core.encoding.json_values import canonical, digest
from controller.core.secrets.formats import SOURCE_MAX, SopsForm, form_of
from controller.model.errors import SecretError

#: Bounds of one Secret.
CONTENT_MAX = 1024 * 1024
FILES_MAX = 256
SEGMENTS_MAX = 8
SEGMENT_MAX = 200

#: The files of a Secret: names with bytes.
SecretFiles = dict[str, bytes]
#: The version of the id's form, part of each HMAC.
_FORM = b"trimtab secret content v1"


@dataclass(frozen=True, slots=True)
class SecretName:
    """The binding of a Secret: contents of one binding are never delivered under another."""

    namespace: str
    owner: str
    name: str


def is_file_name(name: str) -> bool:
    """Return True if a key can name a file below a mount: a relative path without dots as steps."""
    steps = name.split("/")
    return len(steps) <= SEGMENTS_MAX and all(
        0 < len(step.encode()) <= SEGMENT_MAX
        and not step.startswith("..")
        and step != "."
        and step.isprintable()
        for step in steps
    )


def check_contents(files: SecretFiles) -> SecretFiles:
    """Return *files*, which are within the bounds.

    Raises:
        SecretError: no file, too many, too large, a bad name, or one name below another.
    """
    size = sum(map(len, files.values()))
    if not files:
        raise _too_big("the Secret has no key", "write at least one key")
    if len(files) > FILES_MAX:
        raise _too_big(f"the Secret has more than {FILES_MAX} keys", "split the Secret")
    if size > CONTENT_MAX:
        raise _too_big(
            f"the Secret has {size} bytes; {CONTENT_MAX} are allowed", "split the Secret"
        )
    check_names(files)
    return files


def check_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of files, each of which can lie below a mount.

    Raises:
        SecretError: a bad name, or one name below another.
    """
    found = frozenset(names)
    for name in found:
        above = name.split("/")[:-1]
        parents = ["/".join(above[: count + 1]) for count in range(len(above))]
        if not is_file_name(name) or any(parent in found for parent in parents):
            raise SecretError(
                "secret.key-name",
                f"the key {name[:100]!r} can't name a file",
                remedy=f"write a relative path of at most {SEGMENTS_MAX} steps, without . and ..",
            )
    return found


def _too_big(message: str, remedy: str) -> SecretError:
    return SecretError("secret.bounds", message, remedy=remedy)


def content_id(files: SecretFiles, *, bound: SecretName, key: bytes) -> str:
    """Return the id of contents: ``hmac:`` and 64 hex digits.

    Equal contents of one Secret have equal ids. Without *key* an id shows nothing, and contents of
    different Secrets have different ids although their bytes are equal.
    """
    outer = hmac.new(key, _FORM, hashlib.sha256)
    for part in (bound.namespace, bound.owner, bound.name):
        outer.update(_framed(part.encode()))
    for name in sorted(files):
        outer.update(_framed(name.encode()))
        outer.update(key_digest(files[name], bound=bound, name=name, key=key))
    return f"hmac:{outer.hexdigest()}"


def key_digest(data: bytes, *, bound: SecretName, name: str, key: bytes) -> bytes:
    """Return the HMAC of one key's bytes."""
    inner = hmac.new(key, _FORM, hashlib.sha256)
    for part in (bound.namespace, bound.owner, bound.name, name):
        inner.update(_framed(part.encode()))
    inner.update(data)
    return inner.digest()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@dataclass(frozen=True, slots=True)
class SopsSource:
    """A SOPS file."""

    text: bytes
    form: SopsForm
    #: The file's name, which is the key of a binary document.
    name: str


@dataclass(frozen=True, slots=True)
class AgeSource:
    """Keys with armored age files."""

    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request to the decryption worker."""

    source: SopsSource | AgeSource
    #: The text of the namespace's key file.
    keys: str = field(repr=False)
    #: The path of the key file, for messages.
    place: str


# --- the form between broker and worker


def request_to_json(request: OpenRequest) -> dict[str, Any]:
    """Return a request as JSON."""
    match request.source:
        case SopsSource(text=text, form=form, name=name):
            source: dict[str, Any] = {
                "sops": base64.b64encode(text).decode(),
                "form": form.value,
                "name": name,
            }
        case AgeSource(files=files):
            source = {"age": files}
        case _:
            assert_never(request.source)
    return {"source": source, "keys": request.keys, "place": request.place}


def request_from_json(data: dict[str, Any]) -> OpenRequest:
    """Return the request of a JSON value that ``request_to_json`` made."""
    source = data["source"]
    parsed: SopsSource | AgeSource = (
        AgeSource(source["age"])
        if "age" in source
        else SopsSource(base64.b64decode(source["sops"]), SopsForm(source["form"]), source["name"])
    )
    return OpenRequest(parsed, data["keys"], data["place"])


def contents_to_json(files: SecretFiles) -> dict[str, str]:
    """Return files as JSON."""
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def contents_from_json(data: object) -> SecretFiles:
    """Return the files of a JSON value, within the bounds.

    Raises:
        ValueError: not the form of ``contents_to_json``.
        SecretError: beyond the bounds.
    """
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise ValueError("no mapping of texts")
    try:
        return check_contents(
            {str(name): base64.b64decode(text, validate=True) for name, text in data.items()}
        )
    except binascii.Error as error:
        raise ValueError("no base64") from error


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


ARMOR = "-----BEGIN AGE ENCRYPTED FILE-----"


def check_armored(text: str, key: str) -> str:
    """Return an armored age file.

    Raises:
        SecretError: another text; the message doesn't repeat it.
    """
    if not text.strip().startswith(ARMOR):
        raise SecretError(
            "secret.age-invalid",
            f"spec.age.{key} isn't an armored age file",
            remedy=f"write the output of age --armor, which begins with {ARMOR}",
        )
    return text
