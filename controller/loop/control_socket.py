"""The controller's own socket: one JSON line in, one JSON line out, then it hangs up.

Whoever can connect may ask for status. What containers printed is only for root, the controller's
own user, and those whom the policy lets read their logs. Who wants something done must be root or the controller's
own user, told by SO_PEERCRED: the user who connected, whatever the question claims.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.core.drift import failed_runs as failures
from controller.core.service.history import with_failures
from controller.core.status.output import with_last_lines
from controller.model.container_output import FailedRun
from controller.model.desired.overrides import ServiceAct, Verb
from controller.model.errors import TrimtabError, UsageError
from controller.model.names import Key

QUESTION_MAX = 64 * 1024
TIMEOUT_S = 5.0
PASS_TIMEOUT_S = 60.0
PASS_TIMEOUT_MAX_S = 3600.0
_CLAIM_MAX = 200
_TEXT_MAX = 512
_PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))


@dataclass(frozen=True, slots=True)
class PassRequest:
    """Converge now: everything, one key, or exactly one plan; and wait until then."""

    timeout_s: float
    approve_prune: bool
    on_behalf_of: str
    key: Key | None
    plan: str = ""  # digest of the only plan to apply
    approved: str = ""  # digest of the plan that an operator approved, with what it holds back


@dataclass(frozen=True, slots=True)
class ActRequest:
    """What somebody wants of a service. ``only_ask``: say what would be, and do nothing."""

    act: ServiceAct
    only_ask: bool
    timeout_s: float


class ControlApi(Protocol):
    """What the socket speaks for."""

    def status(self) -> dict[str, object]: ...

    def plan(self) -> dict[str, object]: ...

    def progress(self, since: int) -> dict[str, object]: ...

    def history(self, key: Key) -> dict[str, object]: ...

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]: ...

    def run_pass(self, request: PassRequest) -> dict[str, object]: ...

    def act(self, request: ActRequest) -> dict[str, object]: ...


def answer(
    question: Mapping[str, object], *, peer_uid: int, own_uid: int, desk: ControlApi
) -> dict[str, object]:
    """Return the answer to one question; errors of ours become ``{"error": …}``."""
    try:
        return _answer(question, peer_uid=peer_uid, own_uid=own_uid, desk=desk)
    except TrimtabError as error:
        return failure(error.code, error.message, remedy=error.remedy)


def failure(code: str, message: str, *, remedy: str = "") -> dict[str, object]:
    """Return an answer that says what went wrong."""
    return {"error": {"code": code, "message": message, "remedy": remedy}}


def _answer(
    question: Mapping[str, object], *, peer_uid: int, own_uid: int, desk: ControlApi
) -> dict[str, object]:
    match question.get("do"):
        case "ping":
            return {"pong": True}
        case "status" | "plan" | "history" | "failures" as what:
            runs = desk.failed_runs(peer_uid, owns_all=peer_uid in (0, own_uid))
            return _look(what, question, desk, runs)
        case "progress":
            return desk.progress(_since(question))
        case "pass":
            _check_may_act(peer_uid, own_uid)
            return desk.run_pass(pass_request(question, peer_uid=peer_uid))
        case "rollback" | "restart" | "suspend" | "resume" as verb:
            _check_may_act(peer_uid, own_uid)
            return desk.act(act_request(verb, question, peer_uid=peer_uid))
        case other:
            raise UsageError(
                "control.unknown",
                f"nobody here knows how to do {other!r}",
                remedy="use the trimtab command of the version that runs here",
            )


def _look(
    what: str, question: Mapping[str, object], desk: ControlApi, runs: tuple[FailedRun, ...]
) -> dict[str, object]:
    """Answer a question that changes nothing; *runs* are the failed ones that the peer may read."""
    output = question.get("output") is True
    match what:
        case "status":
            return with_last_lines(desk.status(), runs) if output else desk.status()
        case "plan":
            return desk.plan()
        case "history":
            history = desk.history(_key(question.get("key")))
            return with_failures(history, runs) if output else history
        case _:
            return {"runs": [failures.to_json(run) for run in runs]}


def _check_may_act(peer_uid: int, own_uid: int) -> None:
    if peer_uid not in (0, own_uid):
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} may look, and not act",
            remedy="run the command as root",
        )


def pass_request(question: Mapping[str, object], *, peer_uid: int) -> PassRequest:
    """Return what is asked for.

    Raises:
        UsageError: a member has the wrong type.
    """
    approve, key = question.get("approve_prune", False), question.get("key")
    if not isinstance(approve, bool):
        raise _wrong("approve_prune", "true or false")
    return PassRequest(
        _timeout_s(question),
        approve,
        _who(question, peer_uid),
        None if key is None else _key(key),
        _text(question, "plan"),
        _text(question, "approved"),
    )


def act_request(verb: Verb, question: Mapping[str, object], *, peer_uid: int) -> ActRequest:
    """Return what is wanted of a service.

    Raises:
        UsageError: a member has the wrong type.
    """
    only_ask = question.get("only_ask", False)
    if not isinstance(only_ask, bool):
        raise _wrong("only_ask", "true or false")
    act = ServiceAct(
        verb,
        _key(question.get("key")),
        _who(question, peer_uid),
        to=_text(question, "to"),
        reason=_text(question, "note"),
    )
    return ActRequest(act, only_ask, _timeout_s(question))


def _timeout_s(question: Mapping[str, object]) -> float:
    timeout_s = question.get("timeout_s", PASS_TIMEOUT_S)
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, int | float)
        or not 0 < timeout_s <= PASS_TIMEOUT_MAX_S
    ):
        raise _wrong("timeout_s", f"a number of seconds up to {PASS_TIMEOUT_MAX_S:g}")
    return float(timeout_s)


def _since(question: Mapping[str, object]) -> int:
    since = question.get("since", 0)
    if isinstance(since, bool) or not isinstance(since, int):
        raise _wrong("since", "the number of an act")
    return since


def _key(text: object) -> Key:
    try:
        return Key.parse(str(text))
    except ValueError as error:
        raise _wrong("key", "KIND/NAMESPACE/NAME") from error


def _text(question: Mapping[str, object], member: str) -> str:
    text = question.get(member) or ""
    if not isinstance(text, str) or len(text) > _TEXT_MAX:
        raise _wrong(member, f"text of at most {_TEXT_MAX} characters")
    return "".join(character for character in text if character.isprintable())


def _who(question: Mapping[str, object], peer_uid: int) -> str:
    """Return who asks: a claim may add to what the kernel says, never replace it."""
    who = f"uid:{peer_uid}"
    claim = _text(question, "on_behalf_of").removeprefix(who).strip()[:_CLAIM_MAX]
    return f"{who} {claim}".strip()


def _wrong(member: str, expected: str) -> UsageError:
    return UsageError("control.malformed", f"{member} must be {expected}")


def peer_uid_of(peer: socket.socket) -> int:
    """Return the uid of whoever connected."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    _pid, uid, _gid = _PEERCRED.unpack(raw)
    return int(uid)


def converse(peer: socket.socket, *, own_uid: int, desk: ControlApi) -> None:
    """Read one question from a connection and send its answer; the caller closes it.

    A peer that is silent, talks nonsense or hangs up costs a few seconds at most.
    """
    try:
        peer.settimeout(TIMEOUT_S)
        line = _read_line(peer)
        if line is None:
            return
        question = _parsed(line)
        if question is None:
            reply = failure("control.malformed", "expected one JSON object on one line")
        else:
            peer_uid = peer_uid_of(peer)
            reply = answer(question, peer_uid=peer_uid, own_uid=own_uid, desk=desk)
        peer.sendall(json.dumps(reply, ensure_ascii=False).encode() + b"\n")
    except OSError:
        return  # it went away, or said nothing in time: nobody is left to tell


def _read_line(peer: socket.socket) -> bytes | None:
    """Return the line without its end; None when the peer hung up before one was whole."""
    data = b""
    while b"\n" not in data:
        if len(data) > QUESTION_MAX:
            return b""  # too long: answered as malformed
        chunk = peer.recv(8192)
        if not chunk:
            return None
        data += chunk
    return data.partition(b"\n")[0]


def _parsed(line: bytes) -> Mapping[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
