"""Search for the bytes of a secret, in the forms in which a program can leave them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def forms_of(secret: bytes) -> dict[str, bytes]:
    """Return the encodings of a secret that are searched for, by their names."""
    text = secret.decode("utf-8", "replace")
    # Base64 of a secret inside other bytes depends on its place; the ends vary with the neighbors.
    aligned = {
        f"base64 at {shift}": base64.b64encode(b"\0" * shift + secret)[4 if shift else 0 : -4]
        for shift in range(3)
    }
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "JSON": json.dumps(text)[1:-1].encode(),
        "JSON with letters": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        **aligned,
    }


def found_in(data: bytes, secret: bytes) -> list[str]:
    """Return the forms of a secret that are in *data*."""
    return [name for name, form in forms_of(secret).items() if form in data]


def leaks_below(folder: Path, secret: bytes) -> Iterator[str]:
    """Yield each file below a folder with a form of a secret, and the form. Unpacks gzip."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        yield from (f"{path.relative_to(folder)}: {form}" for form in found_in(data, secret))
