"""Conversations on a Unix socket: one JSON line in, one JSON line out, then the end.

The kernel determines the peer's user (SO_PEERCRED); claims in the question don't count.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping

from controller.model.errors import UsageError

QUESTION_MAX = 64 * 1024
TIMEOUT_S = 5.0
_TEXT_MAX = 512
_PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))

#: Returns the answer to a question of the user with a uid.
Answer = Callable[[Mapping[str, object], int], dict[str, object]]


def converse(peer: socket.socket, answer: Answer) -> None:
    """Read one question from a connection and send the answer; the caller closes the connection.

    A silent, malformed or broken connection costs a few seconds at most.
    """
    try:
        peer.settimeout(TIMEOUT_S)
        line = _read_line(peer)
        if line is None:
            return
        question = _parse_json(line)
        if question is None:
            reply = failure("control.malformed", "expected one JSON object on one line")
        else:
            reply = answer(question, peer_uid_of(peer))
        peer.sendall(json.dumps(reply, ensure_ascii=False).encode() + b"\n")
    except OSError:
        return  # the peer disconnected, or sent nothing in time


def failure(code: str, message: str, *, remedy: str = "") -> dict[str, object]:
    """Return the answer for an error."""
    return {"error": {"code": code, "message": message, "remedy": remedy}}


def text_member(question: Mapping[str, object], member: str) -> str:
    """Return a text of a question, without control characters; '' if it is missing.

    Raises:
        UsageError: the member is no text, or too long.
    """
    text = question.get(member) or ""
    if not isinstance(text, str) or len(text) > _TEXT_MAX:
        raise wrong_member(member, f"text of at most {_TEXT_MAX} characters")
    return "".join(character for character in text if character.isprintable())


def wrong_member(member: str, expected: str) -> UsageError:
    """Return the error for a member of the wrong type."""
    return UsageError("control.malformed", f"{member} must be {expected}")


def unknown_request(name: object) -> UsageError:
    """Return the error for a request that this program doesn't know."""
    return UsageError(
        "control.unknown",
        f"unknown request: {name!r}",
        remedy="use the trimtab command of the version that runs here",
    )


def peer_uid_of(peer: socket.socket) -> int:
    """Return the uid of the connected process (SO_PEERCRED)."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    _pid, uid, _gid = _PEERCRED.unpack(raw)
    return int(uid)


def _read_line(peer: socket.socket) -> bytes | None:
    """Return the line without its end; None if the peer disconnected before the end of the line."""
    data = b""
    while b"\n" not in data:
        if len(data) > QUESTION_MAX:
            return b""  # too long: answered as malformed
        chunk = peer.recv(8192)
        if not chunk:
            return None
        data += chunk
    return data.partition(b"\n")[0]


def _parse_json(line: bytes) -> Mapping[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
