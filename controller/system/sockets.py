"""Unix sockets: addresses and access lists; and the TCP ports that are open.

Unix sockets: bind, detect a live listener, connect in turn, and the engine's address.

A broker at ``broker.sock`` has further sockets: ``broker-operator.sock``, ``broker-controller.sock`` and
``broker-viewer.sock``. Only operators, the controller, or viewers, are allowed to open them, so that
nobody else fills their backlogs.

The TCP ports of the host that are open on all addresses.

Lists are written as the kernel stores them: a version, then entries of a tag, permissions and an id
(linux/posix_acl_xattr.h, acl(5)).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from controller.model.errors import UsageError

#: Owner and group connect; nobody else does.
SOCKET_MODE = 0o660
#: The name of the controller's socket, beside the broker's.
CONTROLLER_SOCKET = "controller.sock"
_UNIX = "unix://"
#: The words in the names of a broker's reserved sockets. An operator's user is sometimes the
#: controller's user too.
OPERATOR, CONTROLLER, VIEWER = "operator", "controller", "viewer"


class SocketInUse(Exception):
    """A process listens on the socket already."""


def has_listener(path: Path) -> bool:
    """Return True if a process listens on the Unix socket *path*.

    A full backlog is a live listener: Linux answers EAGAIN at once (connect(2), AF_UNIX).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def connect_in_turn(connection: socket.socket, path: Path, *, timeout_s: float) -> None:
    """Connect a Unix socket. Wait for room in a full backlog, at most *timeout_s* seconds.

    A socket with Python's timeout doesn't wait: connect(2) answers EAGAIN. The kernel serves those
    who wait in turn. The socket has the timeout afterwards.

    Raises:
        BlockingIOError: the backlog stayed full.
        OSError: nobody listens, or this user is not allowed to connect.
    """
    seconds, part = divmod(timeout_s, 1)
    limit = struct.pack("ll", int(seconds), int(part * 1_000_000))  # struct timeval
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.connect(str(path))
    connection.settimeout(timeout_s)


def reserved_socket(path: Path, word: str) -> Path:
    """Return the path of a reserved socket (OPERATOR, CONTROLLER, VIEWER) of the broker at *path*."""
    return path.with_name(f"{path.stem}-{word}{path.suffix}")


def broker_sockets(path: Path) -> tuple[Path, ...]:
    """Return the paths of all sockets of the broker at *path*, the reserved ones first."""
    return (*(reserved_socket(path, word) for word in (OPERATOR, CONTROLLER, VIEWER)), path)


def connect_to_broker(path: Path, *, timeout_s: float) -> socket.socket:
    """Return a connection to the broker at *path*, over the best socket for this user.

    That is a reserved socket, or *path* if this user can't open one.

    Raises:
        OSError: as ``connect_in_turn``.
    """
    for each in broker_sockets(path):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connect_in_turn(connection, each, timeout_s=timeout_s)
        except OSError as error:
            connection.close()
            if each == path or isinstance(error, BlockingIOError):
                raise
        else:
            return connection
    raise AssertionError("the loop returns or raises at the last socket")


def bind_socket(
    listener: socket.socket, path: Path, *, group: int | None, mode: int = SOCKET_MODE
) -> None:
    """Bind *listener* to *path* with a mode, 0660. Replace the file of a process that ended.

    The caller calls ``listen`` afterwards, so no client connects before owner and mode are final.

    Args:
        listener: An unbound socket of the family AF_UNIX.
        path: The name of the socket.
        group: The group of the file. None leaves the group of this process.
        mode: The mode of the file.

    Raises:
        SocketInUse: a process listens on *path* already. Its socket stays.
        OSError: the name can't be bound.
    """
    if has_listener(path):
        raise SocketInUse(f"a process listens on {path}")
    path.unlink(missing_ok=True)
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    set_access(path, mode=mode, group=group)


def set_access(path: Path, *, mode: int, group: int | None) -> None:
    """Set the mode of a file or folder, and its group unless *group* is None.

    Raises:
        OSError: this user is not allowed to change them.
    """
    if group is not None and path.stat().st_gid != group:
        os.chown(path, -1, group)
    path.chmod(mode)


def engine_socket_path(engine: str) -> str:
    """Return the socket of an engine address such as ``unix:///var/run/docker.sock``.

    Raises:
        UsageError: the address is not a Unix socket.
    """
    path = engine.removeprefix(_UNIX)
    if engine.startswith(_UNIX) and path.startswith("/"):
        return path
    raise UsageError(
        "engine.address",
        f"the engine's address {engine!r} isn't unix:///PATH",
        remedy="name the engine's Unix socket with --engine or DOCKER_HOST",
    )


LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
ANYWHERE = ("00000000", "0" * 32)
FILES = ("/proc/net/tcp", "/proc/net/tcp6")


def open_ports(files: tuple[str, ...] = FILES) -> Iterator[int]:
    """Yield the ports of listening sockets that are bound to all addresses (proc(5))."""
    for name in files:
        try:
            lines = Path(name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING and address in ANYWHERE:
                yield int(port, 16)


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
