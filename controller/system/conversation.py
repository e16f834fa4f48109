"""Conversations on a Unix socket: one JSON line in, one JSON line out, then the end.

The kernel determines the peer's user (SO_PEERCRED); claims in the question don't count.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from controller.model.errors import UsageError
from controller.system.runtime import StopSignal

QUESTION_MAX = 64 * 1024
#: How long a piece of a question takes at most, and how long a connection waits for its answer to begin.
TIMEOUT_S = 5.0
#: Questions of trusted users answered at a time, and their open connections.
TRUSTED_ANSWERS, TRUSTED_OPEN = 16, 128
#: Questions of all other users answered at a time, and those of one of them.
ANSWERS, ANSWERS_OF_A_USER = 8, 4
#: Open connections of all other users, and of one of them.
OPEN, OPEN_OF_A_USER = 64, 32
#: Questions of all guests answered at a time, a wait for the next view among them, and those of one of them.
GUEST_ANSWERS, GUEST_ANSWERS_OF_A_USER = 24, 8
#: Open connections of all guests, and of one of them.
GUEST_OPEN, GUEST_OPEN_OF_A_USER = 48, 16
#: The pause after a failed accept, such as one without a free descriptor.
_PAUSE_S = 0.5
#: A question arrives in few pieces. Each may take ``TIMEOUT_S``.
PIECE_BYTES, PIECES_MAX = 8192, 32
TEXT_MAX = 512
_CLAIM_MAX = 200
_PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))

log = logging.getLogger("trimtab.control")

#: An answer: a JSON object, or its text.
AnswerLine = dict[str, object] | bytes
#: Returns the answer to a question of the user with a uid.
Answer = Callable[[Mapping[str, object], int], AnswerLine]


class _Places:
    """A number of places for threads: in total, and for one user."""

    def __init__(self, total: int, of_a_user: int) -> None:
        self._total = total
        self._of_a_user = of_a_user
        self._taken: Counter[int] = Counter()
        self._changed = threading.Condition()

    def take(self, uid: int, *, timeout_s: float = 0.0) -> bool:
        """Take a place. Return False if none is free in time."""

        def has_room() -> bool:
            return self._taken.total() < self._total and self._taken[uid] < self._of_a_user

        with self._changed:
            if not self._changed.wait_for(has_room, timeout_s):
                return False
            self._taken[uid] += 1
            return True

    def leave(self, uid: int) -> None:
        with self._changed:
            self._taken -= Counter((uid,))  # without users that have none left
            self._changed.notify_all()


class Guests(NamedTuple):
    """Users who get other answers than the group of the socket."""

    answer: Answer
    #: Returns True for the uid of a guest who is possibly in the group too.
    has: Callable[[int], bool]
    #: Returns the groups of a peer (``peer_groups``, which loads ctypes: commands import this module too).
    groups_of: Callable[[socket.socket], frozenset[int]]


class _Audience(NamedTuple):
    """Users with answers and places in common."""

    answer: Answer
    open: _Places
    answers: _Places


class ConversationServer:
    """Serves a listening socket until it is stopped: a short-lived thread for each connection.

    *trusted* users, and *guests*, have connections and answers of their own, which no other user takes. With guests,
    a user outside the group of the socket's file is one. Every
    other user has a share. A connection over the limit is closed at once. A connection without a
    question takes no other's turn.
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Answer,
        *,
        trusted: frozenset[int] = frozenset(),
        guests: Guests | None = None,
    ) -> None:
        self._listener = listener
        self._trusted = trusted
        self._guests = guests
        self._of_trusted = _Audience(
            answer, _Places(TRUSTED_OPEN, TRUSTED_OPEN), _Places(TRUSTED_ANSWERS, TRUSTED_ANSWERS)
        )
        self._of_others = _Audience(
            answer, _Places(OPEN, OPEN_OF_A_USER), _Places(ANSWERS, ANSWERS_OF_A_USER)
        )
        self._of_guests = _Audience(
            answer if guests is None else guests.answer,
            _Places(GUEST_OPEN, GUEST_OPEN_OF_A_USER),
            _Places(GUEST_ANSWERS, GUEST_ANSWERS_OF_A_USER),
        )
        self._stopped = StopSignal()
        self._listener.setblocking(False)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Accept connections in a thread of its own, which ends with the process."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no further connection. Conversations in progress go on.

        The socket itself isn't shut down: a service manager keeps it for the next process.
        """
        self._stopped.set()
        # Closed later: a closed descriptor's number can be that of another server's socket by then.
        self._thread.join(_PAUSE_S * 10)
        self._listener.close()
        self._stopped.close()

    def _accept(self) -> None:
        waited = (self._listener.fileno(), self._stopped.fileno())
        while select.select(waited, (), ())[0] and not self._stopped.is_set():
            try:
                peer, _ = self._listener.accept()
            except BlockingIOError:
                continue  # another process accepted the connection
            except OSError:
                # Out of descriptors: don't spin.
                select.select(waited[1:], (), (), _PAUSE_S)
                continue
            try:
                uid = peer_uid_of(peer)
                audience = self._audience_of(peer, uid)
            except OSError:
                peer.close()
                continue
            if not audience.open.take(uid):
                peer.close()
                continue
            threading.Thread(
                target=self._serve, args=(peer, uid, audience), name="conversation", daemon=True
            ).start()

    def _audience_of(self, peer: socket.socket, uid: int) -> _Audience:
        """Return the users to whom a peer belongs.

        Raises:
            OSError: the peer disconnected, or the socket's file is gone.
        """
        if uid in self._trusted:
            return self._of_trusted
        if self._guests is None:
            return self._of_others
        group = Path(self._listener.getsockname()).stat().st_gid
        is_guest = self._guests.has(uid) or group not in self._guests.groups_of(peer)
        return self._of_guests if is_guest else self._of_others

    def _serve(self, peer: socket.socket, uid: int, audience: _Audience) -> None:
        def answer_in_turn(question: Mapping[str, object], peer_uid: int) -> AnswerLine:
            if not audience.answers.take(uid, timeout_s=TIMEOUT_S):
                remedy = "wait for the answers to your other questions"
                return failure("control.busy", "too many questions at a time", remedy=remedy)
            try:
                return audience.answer(question, peer_uid)
            finally:
                audience.answers.leave(uid)

        try:
            with peer:
                converse(peer, answer_in_turn)
        except Exception:
            log.exception("answering on a socket failed")
        finally:
            audience.open.leave(uid)


def converse(peer: socket.socket, answer: Answer) -> None:
    """Read one question from a connection and send the answer; the caller closes the connection.

    A silent, malformed or broken connection costs a few seconds at most.
    """
    try:
        line = _read_line(peer)
        if line is None:
            return
        question = _parse_json(line)
        reply: AnswerLine
        if question is None:
            reply = failure("control.malformed", "expected one JSON object on one line")
        else:
            reply = answer(question, peer_uid_of(peer))
        text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        peer.sendall(text + b"\n")
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
    try:
        return printable_text(question.get(member))
    except ValueError as error:
        raise wrong_member(member, str(error)) from error


def printable_text(value: object) -> str:
    """Return a text without control characters; '' for a missing one.

    Raises:
        ValueError: *value* is no text, or too long.
    """
    text = value or ""
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise ValueError(f"text of at most {TEXT_MAX} characters")
    return "".join(character for character in text if character.isprintable())


def requester(claim: str, peer_uid: int) -> str:
    """Return the requesting user: the kernel's uid, followed by the *claim* of a question."""
    who = f"uid:{peer_uid}"
    return f"{who} {claim.removeprefix(who).strip()[:_CLAIM_MAX]}".strip()


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
    """Return the line without its end; None if the peer disconnected before the end of the line.

    A line in too many pieces counts as malformed, like one that is too long.
    """
    peer.settimeout(TIMEOUT_S)
    data = bytearray()
    for _ in range(PIECES_MAX):
        piece = peer.recv(PIECE_BYTES)
        if not piece:
            return None
        data += piece
        if b"\n" in piece:
            return bytes(data.partition(b"\n")[0])
        if len(data) > QUESTION_MAX:
            break
    return b""


def _parse_json(line: bytes) -> Mapping[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
