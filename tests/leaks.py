"""Search for the bytes of a secret, in the forms in which a program can leave them."""

from __future__ import annotations

import base64
import gzip
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
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


def leaks_in_memory(pid: int, secret: bytes) -> list[str]:
    """Return the mappings of a process with a form of a secret: what a core dump would hold, and more."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode, *_ = line.split()
            start, _, end = span.partition("-")
            if not mode.startswith("rw"):
                continue
            try:
                memory.seek(int(start, 16))
                data = memory.read(int(end, 16) - int(start, 16))
            except OSError:
                continue  # the mapping went in between
            found += [f"{line}: {form}" for form in found_in(data, secret)]
    return found


def core_limits(pid: int) -> list[str]:
    """Return the soft and the hard limit of a process's core file."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("Max core file size"))
    return line.split()[4:6]


@contextmanager
def core_files_permitted() -> Iterator[None]:
    """Let the programs that are started in the block write core files, if they don't forbid it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
