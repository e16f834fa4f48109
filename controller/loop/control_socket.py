"""The control socket: one JSON line in, one JSON line out, then the server closes the connection.

Every connected client is allowed to read the status. The output of containers is restricted
to root, the controller's own user, and users that the policy lets read their logs. Only root and
the controller's own user are allowed to change anything. SO_PEERCRED determines the user; claims in
the question don't count.
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
    """A request to converge everything, one key, or exactly one plan, and to wait for that."""

    timeout_s: float
    approve_prune: bool
    on_behalf_of: str
    #: The only key to wait for; None: everything.
    key: Key | None
    #: The digest of the only plan to apply.
    plan: str = ""
    #: The digest of the plan that an operator approved, including blocked removals.
    approved: str = ""


@dataclass(frozen=True, slots=True)
class ActRequest:
    """A request to change an override of a service."""

    act: ServiceAct
    #: Return the decision without changing anything.
    only_ask: bool
    timeout_s: float


class ControlBackend(Protocol):
    """The methods behind the socket."""

    def status(self) -> dict[str, object]: ...

    def plan(self) -> dict[str, object]: ...

    def progress(self, since: int) -> dict[str, object]: ...

    def history(self, key: Key) -> dict[str, object]: ...

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]: ...

    def run_pass(self, request: PassRequest) -> dict[str, object]: ...

    def act(self, request: ActRequest) -> dict[str, object]: ...


def answer(
    question: Mapping[str, object], *, peer_uid: int, own_uid: int, backend: ControlBackend
) -> dict[str, object]:
    """Return the answer to one question; a TrimtabError becomes ``{"error": …}``."""
    try:
        return _answer(question, peer_uid=peer_uid, own_uid=own_uid, backend=backend)
    except TrimtabError as error:
        return failure(error.code, error.message, remedy=error.remedy)


def failure(code: str, message: str, *, remedy: str = "") -> dict[str, object]:
    """Return the answer for an error."""
    return {"error": {"code": code, "message": message, "remedy": remedy}}


def _answer(
    question: Mapping[str, object], *, peer_uid: int, own_uid: int, backend: ControlBackend
) -> dict[str, object]:
    match question.get("do"):
        case "ping":
            return {"pong": True}
        case "status" | "plan" | "history" | "failures" as what:
            runs = backend.failed_runs(peer_uid, owns_all=peer_uid in (0, own_uid))
            return _read(what, question, backend, runs)
        case "progress":
            return backend.progress(_since(question))
        case "pass":
            _raise_if_not_allowed(peer_uid, own_uid)
            return backend.run_pass(pass_request(question, peer_uid=peer_uid))
        case "rollback" | "restart" | "suspend" | "resume" as verb:
            _raise_if_not_allowed(peer_uid, own_uid)
            return backend.act(act_request(verb, question, peer_uid=peer_uid))
        case other:
            raise UsageError(
                "control.unknown",
                f"nobody here knows how to do {other!r}",
                remedy="use the trimtab command of the version that runs here",
            )


def _read(
    what: str, question: Mapping[str, object], backend: ControlBackend, runs: tuple[FailedRun, ...]
) -> dict[str, object]:
    """Answer a read-only question; *runs* are the failed runs whose output the peer may read."""
    output = question.get("output") is True
    match what:
        case "status":
            return with_last_lines(backend.status(), runs) if output else backend.status()
        case "plan":
            return backend.plan()
        case "history":
            history = backend.history(_key(question.get("key")))
            return with_failures(history, runs) if output else history
        case _:
            return {"runs": [failures.to_json(run) for run in runs]}


def _raise_if_not_allowed(peer_uid: int, own_uid: int) -> None:
    if peer_uid not in (0, own_uid):
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} may look, and not act",
            remedy="run the command as root",
        )


def pass_request(question: Mapping[str, object], *, peer_uid: int) -> PassRequest:
    """Parse a request for a pass.

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
    """Parse a request to change an override.

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
    """Return the requesting user: the kernel's uid, followed by the claim."""
    who = f"uid:{peer_uid}"
    claim = _text(question, "on_behalf_of").removeprefix(who).strip()[:_CLAIM_MAX]
    return f"{who} {claim}".strip()


def _wrong(member: str, expected: str) -> UsageError:
    return UsageError("control.malformed", f"{member} must be {expected}")


def peer_uid_of(peer: socket.socket) -> int:
    """Return the uid of the connected process (SO_PEERCRED)."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    _pid, uid, _gid = _PEERCRED.unpack(raw)
    return int(uid)


def converse(peer: socket.socket, *, own_uid: int, backend: ControlBackend) -> None:
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
            peer_uid = peer_uid_of(peer)
            reply = answer(question, peer_uid=peer_uid, own_uid=own_uid, backend=backend)
        peer.sendall(json.dumps(reply, ensure_ascii=False).encode() + b"\n")
    except OSError:
        return  # the peer disconnected, or sent nothing in time


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
