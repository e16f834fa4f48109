"""Debian's static busybox: all that is inside the demo images."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

ELFCLASS64 = 2
PT_INTERP = 3


def is_static(program: Path) -> bool:
    """Whether a 64-bit ELF program names no dynamic loader, so that it runs in an empty image."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or head[4] != ELFCLASS64:
            return False
        order = "<" if head[5] == 1 else ">"
        (table,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        file.seek(table)
        entries = file.read(size * count)
    return all(
        struct.unpack_from(f"{order}I", entries, index * size)[0] != PT_INTERP
        for index in range(count)
    )


def find_static_busybox() -> Path | None:
    """The machine's static busybox; None if there is none, or only the dynamic one."""
    for place in (shutil.which("busybox"), "/bin/busybox", "/usr/bin/busybox"):
        if place and Path(place).is_file() and is_static(Path(place)):
            return Path(place).resolve()
    return None
