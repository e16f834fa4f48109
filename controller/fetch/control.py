"""Requests of operators to the fetcher, on a socket of its own.

Every connected client is allowed to look; root and the instance's owner are allowed to change, and to
read files of commits. Through the controller, a usurped controller could approve a held commit.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Protocol

from controller.model.errors import TrimtabError, UsageError
from controller.system import conversation


class FetchBackend(Protocol):
    """The methods behind the socket."""

    def list_sources(self) -> dict[str, object]: ...

    def log(self, name: str) -> dict[str, object]: ...

    def files(self, name: str, commit: str) -> dict[str, object]: ...

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
        if question.get("do") in ("files", "sync", "hold", "resume", "approve"):
            _raise_if_not_allowed(peer_uid, operators)
        return _answer(question, conversation.requester(question, "by", peer_uid), backend)
    except TrimtabError as error:
        return conversation.failure(error.code, error.message, remedy=error.remedy)


def _answer(question: Mapping[str, object], by: str, backend: FetchBackend) -> dict[str, object]:
    name = conversation.text_member(question, "name")
    match question.get("do"):
        case "ping":
            return {"pong": True}
        case "list":
            return backend.list_sources()
        case "log":
            return backend.log(name)
        case "files":
            return backend.files(name, conversation.text_member(question, "commit"))
        case "sync":
            return backend.sync(name)
        case "hold":
            return backend.hold(name, by)
        case "resume":
            return backend.resume(name)
        case "approve":
            return backend.approve(name, conversation.text_member(question, "commit"), by)
        case other:
            raise conversation.unknown_request(other)


def _raise_if_not_allowed(peer_uid: int, operators: frozenset[int]) -> None:
    if peer_uid not in operators:
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} may look, and not act",
            remedy="run the command as root, or as the owner of the instance",
        )


def serve_requests(
    listener: socket.socket, backend: FetchBackend, *, operators: frozenset[int]
) -> conversation.ConversationServer:
    """Answer requests on a listening socket, until the returned server is stopped."""

    def reply(question: Mapping[str, object], peer_uid: int) -> dict[str, object]:
        return answer(question, peer_uid=peer_uid, operators=operators, backend=backend)

    server = conversation.ConversationServer(listener, reply, trusted=operators)
    server.start()
    return server
