"""A content as one file: a line of JSON with names and sizes, then the bytes of all files.

One file is written and fsynced at once, so that a content is stored whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


class DamagedContent(Exception):
    """The stored bytes aren't the content of their name."""


class UnopenedContent(Exception):
    """The stored bytes can't be opened now: a key is missing, or the decryption failed."""


def encode(files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a stored content."""
    names = sorted(files)
    head = json.dumps([[name, len(files[name])] for name in names], ensure_ascii=False)
    return b"\n".join([head.encode(), b"".join(files[name] for name in names)])


def decode(blob: bytes) -> dict[str, bytes]:
    """Return the files of a stored content.

    Raises:
        DamagedContent: the bytes don't have the form that ``encode`` writes.
    """
    head, found, data = blob.partition(b"\n")
    try:
        sizes = [(str(name), int(size)) for name, size in json.loads(head)]
    except (ValueError, TypeError) as error:
        raise DamagedContent("its list of files can't be read") from error
    if not found or sum(size for _, size in sizes) != len(data):
        raise DamagedContent("it isn't whole")
    files, start = {}, 0
    for name, size in sizes:
        files[name] = data[start : start + size]
        start += size
    return files
