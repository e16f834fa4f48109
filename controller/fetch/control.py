"""Requests of operators to the fetcher, on a socket of its own.

Every connected client is allowed to read; root and the instance's owner are allowed to change. Through
the controller, a usurped controller could approve a held commit.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from controller.model.errors import TrimtabError, UsageError
from controller.system import conversation
from controller.system.conversation import TIMEOUT_S, failure, text_member, unknown_request

CONVERSATIONS = 8
#: The pause after a failed accept, such as one without a free descriptor.
_PAUSE_S = 0.5

log = logging.getLogger("trimtab.fetch")


class FetchBackend(Protocol):
    """The methods behind the socket."""

    def list_sources(self) -> dict[str, object]: ...

    def log(self, name: str) -> dict[str, object]: ...

    def sync(self, name: str) -> dict[str, object]: ...

    def hold(self, name: str, by: str) -> dict[str, object]: ...

    def resume(self, name: str) -> dict[str, object]: ...

    def approve(self, name: str, commit: str, by: str) -> dict[str, object]: ...


def answer(
    question: Mapping[str, object],
    *,
    peer_uid: int,
    operators: frozenset[int],
    backend: FetchBackend,
) -> dict[str, object]:
    """Return the answer to one question; a TrimtabError becomes ``{"error": …}``."""
    try:
        if question.get("do") in ("sync", "hold", "resume", "approve"):
            _raise_if_not_allowed(peer_uid, operators)
        return _answer(question, _asker(question, peer_uid), backend)
    except TrimtabError as error:
        return failure(error.code, error.message, remedy=error.remedy)


def _answer(question: Mapping[str, object], by: str, backend: FetchBackend) -> dict[str, object]:
    name = text_member(question, "name")
    match question.get("do"):
        case "ping":
            return {"pong": True}
        case "list":
            return backend.list_sources()
        case "log":
            return backend.log(name)
        case "sync":
            return backend.sync(name)
        case "hold":
            return backend.hold(name, by)
        case "resume":
            return backend.resume(name)
        case "approve":
            return backend.approve(name, text_member(question, "commit"), by)
        case other:
            raise unknown_request(other)


def _asker(question: Mapping[str, object], peer_uid: int) -> str:
    """Return the requesting user: the kernel's uid, followed by the claim."""
    who = f"uid:{peer_uid}"
    claim = text_member(question, "by").removeprefix(who).strip()[:200]
    return f"{who} {claim}".strip()


def _raise_if_not_allowed(peer_uid: int, operators: frozenset[int]) -> None:
    if peer_uid not in operators:
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} may look, and not act",
            remedy="run the command as root, or as the owner of the instance",
        )


class ControlServer:
    """Serves a listening socket until it is stopped: a short-lived thread for each connection."""

    def __init__(
        self, listener: socket.socket, backend: FetchBackend, *, operators: frozenset[int]
    ) -> None:
        self._listener = listener
        self._backend = backend
        self._operators = operators
        self._slots = threading.Semaphore(CONVERSATIONS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Accept connections in a thread of its own, which ends with the process."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no further connection."""
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # Closed later: a closed descriptor's number can be that of another server's socket by then.
        self._thread.join(_PAUSE_S * 10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                self._stopped.wait(_PAUSE_S)
                continue
            threading.Thread(
                target=self._serve, args=(peer,), name="conversation", daemon=True
            ).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            if not self._slots.acquire(timeout=TIMEOUT_S):
                return
            try:
                conversation.converse(peer, self._reply)
            except Exception:
                log.exception("answering on the fetcher's socket failed")
            finally:
                self._slots.release()

    def _reply(self, question: Mapping[str, object], peer_uid: int) -> dict[str, object]:
        return answer(question, peer_uid=peer_uid, operators=self._operators, backend=self._backend)
