"""The files of a Secret, their bounds, and the ids that show equality without showing content."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

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
