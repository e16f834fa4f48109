"""The user of a container, in numbers, as the engine's runtime reads it (libcontainer, ``user.go``).

A name means what the image's ``/etc/passwd`` and ``/etc/group`` say, so the image chooses the numbers,
and every further group. A pair of numbers means itself, without further groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: The characters of each file that are read.
FILE_MAX = 1024 * 1024
_ROOT = "0"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The texts of an image's ``/etc/passwd`` and ``/etc/group``; '' for a missing file."""

    passwd: str = ""
    group: str = ""


def is_number(text: str) -> bool:
    """Return True for an id in ASCII digits."""
    return text.isascii() and text.isdigit()


def is_named(user: str) -> bool:
    """Return True if only the image's files tell the numbers of a user: ``app``, ``1000:www-data``."""
    name, _, group = user.partition(":")
    return not (name in {"", "root"} or is_number(name)) or not (group == "" or is_number(group))


def in_numbers(user: str, accounts: Accounts | None) -> str:
    """Return a user as ``UID:GID``; '' if its files don't know it, or aren't known.

    A number without a group is in the group of the same number, whatever the image says of it. The
    engine would give it the group of the image's passwd, or root's.
    """
    name, _, group = user.partition(":")
    uid, gid = name, ""
    if name in {"", "root"}:
        uid, gid = _ROOT, _ROOT
    elif is_number(name):
        uid = gid = str(int(name))
    else:
        entry = _entry(accounts.passwd if accounts else "", name)
        uid, gid = (entry[2], entry[3]) if len(entry) > 3 else ("", "")
    if group:
        entry = _entry(accounts.group if accounts and not is_number(group) else "", group)
        gid = str(int(group)) if is_number(group) else entry[2] if len(entry) > 2 else ""
    return f"{uid}:{gid}" if is_number(uid) and is_number(gid) else ""


def _entry(text: str, name: str) -> list[str]:
    """Return the fields of the first line for a name, () for none."""
    return next((fields for fields in _lines(text) if fields[0] == name), [])


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        yield [field.strip() for field in line.split(":")]
