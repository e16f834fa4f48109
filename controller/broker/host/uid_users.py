"""Who has a uid on this host: accounts, ranges of other namespaces, and processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ETC, PROC = Path("/etc"), Path("/proc")


def find_user(uid: int, own: tuple[str, ...], *, etc: Path = ETC, proc: Path = PROC) -> str:
    """Return who has a uid or the gid of the same number; '' for nobody.

    *own* are the ids of containers whose processes don't count. What can't be read counts as taken.
    """
    try:
        found = (*_accounts(uid, etc), *_processes(uid, own, proc))
    except (OSError, ValueError) as error:
        return f"somebody, perhaps ({error})"
    return next(iter(found), "")


def _accounts(uid: int, etc: Path) -> Iterator[str]:
    for name, columns in (("passwd", (2, 3)), ("group", (2,))):
        for line in _lines(etc / name):
            if str(uid) in {line[column] for column in columns if column < len(line)}:
                yield f"the account {line[0]} in {etc / name}"
    for name in ("subuid", "subgid"):
        for line in _lines(etc / name):
            if len(line) == 3 and int(line[1]) <= uid < int(line[1]) + int(line[2]):
                yield f"the range of {line[0]} in {etc / name}"


def _lines(file: Path) -> list[list[str]]:
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line.split(":") for line in text.splitlines() if ":" in line]


def _processes(uid: int, own: tuple[str, ...], proc: Path) -> Iterator[str]:
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "status").read_text("utf-8", "replace").splitlines()
            ids = {word for line in status if line[:4] in ("Uid:", "Gid:") for word in line.split()}
            if str(uid) in ids and not _is_own(folder, own):
                yield f"the process {folder.name}"
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile


def _is_own(folder: Path, own: tuple[str, ...]) -> bool:
    cgroup = (folder / "cgroup").read_text("utf-8", "replace")
    return any(each in cgroup for each in own)
