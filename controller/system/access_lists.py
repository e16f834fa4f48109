"""POSIX access control lists of sockets and folders: further users beside owner and group.

Lists are written as the kernel stores them: a version, then entries of a tag, permissions and an id
(linux/posix_acl_xattr.h, acl(5)).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

ACL = "system.posix_acl_access"
READ_WRITE, SEARCH = 6, 1
_VERSION, _ENTRY = struct.pack("<I", 2), struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFF_FFFF


def access_list(
    uids: Iterable[int],
    *,
    permissions: int = READ_WRITE,
    owner: int = READ_WRITE,
    group: int = 0,
    other: int = 0,
) -> bytes:
    """Return a list that gives *permissions* to users, beside those of owner, group and others."""
    named = [(_USER, permissions, uid) for uid in sorted(set(uids))]
    mask = [(_MASK, permissions | group, _NO_ID)] if named else []
    entries = [
        (_OWNER, owner, _NO_ID),
        *named,
        (_GROUP, group, _NO_ID),
        *mask,
        (_OTHER, other, _NO_ID),
    ]
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def let_in(path: Path, uids: Iterable[int], permissions: int) -> None:
    """Give users permissions to a file or folder, and no other users; owner, group and others keep theirs.

    Links aren't followed.

    Raises:
        OSError: the file is another user's, or its file system has no access control lists.
    """
    mode = stat.S_IMODE(path.lstat().st_mode)
    group = _group_of(path)
    entries = access_list(
        uids,
        permissions=permissions,
        owner=mode >> 6,
        group=mode >> 3 & 7 if group is None else group,
        other=mode & 7,
    )
    os.setxattr(path, ACL, entries, follow_symlinks=False)


def _group_of(path: Path) -> int | None:
    """Return the group's permissions in the list of a file: with a list, the mode has the mask."""
    try:
        entries = os.getxattr(path, ACL, follow_symlinks=False)[len(_VERSION) :]
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
    return next(int(granted) for tag, granted, _ in _ENTRY.iter_unpack(entries) if tag == _GROUP)
