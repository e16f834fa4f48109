"""The broker's listening sockets, and accepting a few connections in each turn of the event loop.

Requests of other peers take several turns, so each turn stays short under a flood of connections.
A failed accept never ends the acceptor.

The broker's listening sockets: a socket for clients, and three reserved sockets.

Operators, the controller and viewers have their own sockets, so others can't fill these backlogs. An access
control list names the users: modes know a single group only. Lists also let viewers, who are in no group,
search the folder of the sockets and open the controller's socket.

The lock file of the state folder decides which broker serves; the sockets are only addresses. So a
socket file without a listener belongs to a dead broker, and is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Self

from controller.broker.host.peer_credentials import PeerRules
from controller.model.errors import StateError
from controller.system.sockets import (
    ACL,
    CONTROLLER,
    CONTROLLER_SOCKET,
    OPERATOR,
    READ_WRITE,
    SEARCH,
    SOCKET_MODE,
    VIEWER,
    SocketInUse,
    access_list,
    bind_socket,
    let_in,
    reserved_socket,
    set_access,
)
from controller.system.systemd import WAITING_MAX

LOG = logging.getLogger(__name__)
#: Connections accepted in one turn of the event loop.
ACCEPTED_AT_ONCE = 32
#: A paced acceptor rests after so many refused connections.
REFUSED_AT_ONCE = 8
#: The rest of a paced acceptor. A refusal takes about 0.06 ms, so a flood gets at most a fifth of
#: the event loop's time. The other connections wait in the backlog.
REST_S = 0.002
#: The pause after an accept that failed for want of resources.
PAUSE_S = 0.1


class Acceptor:
    """Accepts the connections of a socket that listens and doesn't block.

    *admit* takes over a connection, and returns False if it has refused the connection. A *paced*
    acceptor rests after refusals.
    """

    def __init__(
        self,
        listening: socket.socket,
        admit: Callable[[socket.socket], bool],
        *,
        paced: bool = False,
    ) -> None:
        self._listening = listening
        self._admit = admit
        self._paced = paced
        self._stopped = False
        #: None: another thread took the place of the spare descriptor.
        self._spare: int | None = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._resume()

    def stop(self) -> None:
        """Accept nothing more, and close the listening socket."""
        self._stopped = True
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        if self._spare is not None:
            os.close(self._spare)

    def _resume(self) -> None:
        if not self._stopped:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _rest(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        """Accept the connections that wait in the backlog, a few at a time."""
        refused = 0
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            refused += not self._admit(connected)
            if self._paced and refused == REFUSED_AT_ONCE:
                self._rest(REST_S)
                return

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a moment: the process, or the host, has no resources left.

        The limits are below the process's own, so that is the host's limit. The first connection of
        the backlog is closed with the spare descriptor, and learns at once that it isn't served.
        """
        LOG.warning("accept.failed error=%s", error)
        self._rest(PAUSE_S)
        # Closed once: from then on the number can be a file of another thread.
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)
            with suppress(OSError):
                self._listening.accept()[0].close()
        with suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


FOLDER_MODE = 0o750
#: Reserved sockets are for the owner, and for the users of the access control list.
RESERVED_MODE = 0o600
#: Connections that wait for the accept. A flood of a client fills the backlog that clients share: a
#: short one makes others wait for fewer connections of the flood (``unix_socket.connect_in_turn``).
BACKLOG = 64


class Listening(NamedTuple):
    """A listening socket."""

    socket: socket.socket
    #: True if only operators, or the controller, can open the socket.
    reserved: bool


class BrokerSockets:
    """The listening sockets of a broker, until ``remove``.

    *rules* name operators, controller and the group of clients. *held* are the sockets that a service
    manager holds, by path. They get owner, mode and access control list here, before the broker
    accepts a connection; they stay, so that connections wait until the next broker accepts.

    Raises:
        StateError: a live process serves a path already, or the folder can't be used.
    """

    def __init__(
        self, path: Path, rules: PeerRules, held: Mapping[Path, socket.socket] | None = None
    ) -> None:
        self._held = dict(held or {})
        self._folder = path.parent
        #: The viewers that a controller's socket lets in, with the socket's inode.
        self._let_in: tuple[int, frozenset[int]] | None = None
        self._reserved: dict[str, Path] = {}
        self._removal = ExitStack()
        with ExitStack() as failed:
            failed.callback(self.remove)
            found = []
            # A process that waits for the socket of clients finds the reserved sockets then.
            for word in (OPERATOR, CONTROLLER, VIEWER):
                reserved = reserved_socket(path, word)
                try:
                    made = self._listen(reserved, group=rules.group, mode=RESERVED_MODE)
                except StateError as error:
                    if error.code != "state.socket":
                        raise
                    LOG.warning("socket.skipped path=%s error=%s", reserved, error.message)
                    continue
                failed.callback(made.close)
                self._reserved[word] = reserved
                found.append(Listening(made, reserved=word != VIEWER))
            self.reserve(rules)
            made = self._listen(path, group=rules.group, mode=SOCKET_MODE)
            found.append(Listening(made, reserved=False))
            self.listening: tuple[Listening, ...] = tuple(found)
            failed.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()

    def reserve(self, rules: PeerRules) -> None:
        """Let operators, the controller, or viewers, and the owner open a reserved socket, and nobody else.

        On a file system without access control lists, others than the owner have the socket of
        clients, and viewers none.
        """
        users = {
            OPERATOR: rules.operating,
            CONTROLLER: (rules.controller_uid,),
            VIEWER: rules.viewers.keys(),
        }
        for word, path in self._reserved.items():
            try:
                os.setxattr(path, ACL, access_list(users[word]))
            except OSError as error:
                LOG.warning("socket.no-acl path=%s error=%s", path, error.strerror)
                with suppress(OSError):
                    path.chmod(RESERVED_MODE)  # also takes the rights of an earlier list away
        self._open_folder(rules.viewers.keys())
        self.open_controller(rules.viewers.keys())

    def _open_folder(self, viewers: Collection[int]) -> None:
        """Let viewers search the folder of the sockets, unless everybody can."""
        try:
            status = self._folder.stat()
            if status.st_uid == os.geteuid() and not status.st_mode & stat.S_IXOTH:
                let_in(self._folder, viewers, SEARCH)
        except OSError as error:
            LOG.warning("socket.no-acl path=%s error=%s", self._folder, error.strerror)

    def open_controller(self, viewers: Collection[int]) -> None:
        """Let viewers open the controller's socket in the folder, also one that appeared since.

        A link, or a socket of the controller's own user, is left to that user.
        """
        path = self._folder / CONTROLLER_SOCKET
        try:
            status = path.lstat()
            wanted = (status.st_ino, frozenset(viewers))
            is_own = stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()
            # The mode of a socket without rights of its group isn't final yet.
            if is_own and status.st_mode & stat.S_IRWXG and wanted != self._let_in:
                self._let_in = wanted
                let_in(path, viewers, READ_WRITE)
        except FileNotFoundError:
            return
        except OSError as error:
            LOG.warning("socket.no-acl path=%s error=%s", path, error.strerror)

    def remove(self) -> None:
        """Remove the files of the broker's own sockets. The listener closes the sockets."""
        self._removal.close()

    def wait_for_another(self) -> None:
        """Let more connections wait in the held sockets, until the next broker accepts them."""
        for listener in self._held.values():
            with suppress(OSError):  # closed already
                listener.listen(WAITING_MAX)

    def _listen(self, path: Path, *, group: int | None, mode: int) -> socket.socket:
        """Return the listening socket at *path*: the held one, or one of the broker's own.

        Raises:
            StateError: as ``listen``, or the held socket's file can't be changed.
        """
        held = self._held.get(path)
        if held is None:
            made = listen(path, group=group, mode=mode)
            status = path.lstat()
            self._removal.callback(remove_socket, path, (status.st_dev, status.st_ino))
            return made
        try:
            set_access(path, mode=mode, group=group)
            # Also makes this process the one that peers see as the server (SO_PEERCRED).
            held.listen(BACKLOG)
        except OSError as error:
            raise _unusable(path, error) from error
        held.setblocking(False)
        return held


def listen(path: Path, *, group: int | None, mode: int = SOCKET_MODE) -> socket.socket:
    """Return a listening socket at *path*, with a mode and the group *group* (None: leave it).

    A missing folder is created with mode 0750 and the same group.

    Raises:
        StateError: a live process serves the path already, or the folder can't be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if not path.parent.exists():  # an existing folder keeps its mode: /run is possible
            path.parent.mkdir(mode=FOLDER_MODE, parents=True)
            set_access(path.parent, mode=FOLDER_MODE, group=group)
        bind_socket(listener, path, group=group, mode=mode)
        listener.listen(BACKLOG)
    except SocketInUse as error:
        listener.close()
        raise StateError(
            "state.served",
            f"a process serves {path} already",
            remedy="stop it first, or name another state folder with --state",
        ) from error
    except OSError as error:
        listener.close()
        raise _unusable(path, error) from error
    listener.setblocking(False)
    return listener


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(
        "state.socket",
        f"{path}: {error.strerror or error}",
        remedy="let the broker write in the folder of its socket",
    )


def remove_socket(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket's file, unless another broker has replaced the file.

    *identity* is the device and inode of the own socket.
    """
    with suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == identity:
            path.unlink()
