"""Accepting the connections of one listening socket, a few in each turn of the event loop.

Requests of other peers take several turns, so each turn stays short under a flood of connections.
A failed accept never ends the acceptor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

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
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._resume()

    def stop(self) -> None:
        """Accept nothing more, and close the listening socket."""
        self._stopped = True
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
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
        os.close(self._spare)
        try:
            connected, _address = self._listening.accept()
            connected.close()
        except OSError:
            pass
        self._rest(PAUSE_S)
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = os.dup(self._listening.fileno())
