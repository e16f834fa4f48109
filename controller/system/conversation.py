"""Conversations on a Unix socket: one JSON line in, one JSON line out, then the end.

The kernel determines the peer's user (SO_PEERCRED); claims in the question don't count.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from controller.model.errors import UsageError

QUESTION_MAX = 64 * 1024
TIMEOUT_S = 5.0
CONVERSATIONS = 8
WAITING_MAX = 64
#: The pause after a failed accept, such as one without a free descriptor.
_PAUSE_S = 0.5
_TEXT_MAX = 512
_CLAIM_MAX = 200
_PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))

log = logging.getLogger("trimtab.control")

#: Returns the answer to a question of the user with a uid.
Answer = Callable[[Mapping[str, object], int], dict[str, object]]


class ConversationServer:
    """Serves a listening socket until it is stopped: a short-lived thread for each connection.

    At most ``CONVERSATIONS`` are answered at a time, and ``WAITING_MAX`` wait for their turn.
    """

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        self._listener = listener
        self._answer = answer
        self._open = threading.BoundedSemaphore(CONVERSATIONS + WAITING_MAX)
        self._turns = threading.BoundedSemaphore(CONVERSATIONS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Accept connections in a thread of its own, which ends with the process."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no further connection. Conversations in progress go on."""
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
                # Out of descriptors, or shut down: don't spin.
                self._stopped.wait(_PAUSE_S)
                continue
            if not self._open.acquire(blocking=False):
                peer.close()
                continue
            threading.Thread(
                target=self._serve, args=(peer,), name="conversation", daemon=True
            ).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            with peer:
                if not self._turns.acquire(timeout=TIMEOUT_S):
                    return
                try:
                    converse(peer, self._answer)
                except Exception:
                    log.exception("answering on a socket failed")
                finally:
                    self._turns.release()
        finally:
            self._open.release()


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


def requester(question: Mapping[str, object], member: str, peer_uid: int) -> str:
    """Return the requesting user: the kernel's uid, followed by the claim in a member."""
    who = f"uid:{peer_uid}"
    claim = text_member(question, member).removeprefix(who).strip()[:_CLAIM_MAX]
    return f"{who} {claim}".strip()


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
