"""The control socket: one JSON line in, one JSON line out, then the server closes the connection.

Every connected client is allowed to read the status. The output of containers is restricted
to root, the controller's own user, and users that the policy lets read their logs. Only root and
the controller's own user are allowed to change anything. SO_PEERCRED determines the user; claims in
the question don't count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.core.drift import failures
from controller.core.service.history import with_failures
from controller.core.status.report import with_last_lines
from controller.model.container_output import FailedRun
from controller.model.desired.desired import ServiceAct, Verb
from controller.model.errors import TrimtabError, UsageError
from controller.model.names import Key
from controller.system.conversation import (
    Answer,
    failure,
    requester,
    text_member,
    unknown_request,
    wrong_member,
)

PASS_TIMEOUT_S = 60.0
PASS_TIMEOUT_MAX_S = 3600.0
#: The longest wait for a changed status.
WAIT_MAX_S = 60.0
_UNCHANGED: Mapping[str, object] = {"unchanged": True}


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

    def published(self) -> int:
        """Return the number of statuses that were published so far."""

    def await_published(self, number: int, *, timeout_s: float) -> None:
        """Wait until more than *number* statuses were published, at most *timeout_s* seconds."""

    def plan(self) -> dict[str, object]: ...

    def review(self, *, version: str, directory: str) -> dict[str, object]: ...

    def progress(self, since: int) -> dict[str, object]: ...

    def history(self, key: Key) -> dict[str, object]: ...

    def state(self, key: Key) -> dict[str, object]: ...

    def secret_contents(self) -> dict[str, object]: ...

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]: ...

    def run_pass(self, request: PassRequest) -> dict[str, object]: ...

    def act(self, request: ActRequest) -> dict[str, object]: ...

    def observe(self) -> dict[str, object]:
        """Observe everything, and try at once what was refused; the policy has changed."""


def answer(
    question: Mapping[str, object], *, peer_uid: int, own_uid: int, backend: ControlBackend
) -> dict[str, object]:
    """Return the answer to one question; a TrimtabError becomes ``{"error": …}``."""
    try:
        return _answer(question, peer_uid=peer_uid, own_uid=own_uid, backend=backend)
    except TrimtabError as error:
        return failure(error.code, error.message, remedy=error.remedy)


def _answer(
    question: Mapping[str, object], *, peer_uid: int, own_uid: int, backend: ControlBackend
) -> dict[str, object]:
    match question.get("do"):
        case "ping":
            return {"pong": True}
        case "status" | "plan" | "history" | "failures" as what:
            is_trusted = peer_uid in (0, own_uid)
            number, wait_s = backend.published(), _wait_s(question)
            runs = backend.failed_runs(peer_uid, owns_all=is_trusted)
            reply = _read(what, question, backend, runs)
            if wait_s == 0.0 or not is_trusted or reply != _UNCHANGED:
                return reply
            backend.await_published(number, timeout_s=wait_s)
            return _read(what, question, backend, backend.failed_runs(peer_uid, owns_all=True))
        case "review":
            version, directory = (text_member(question, name) for name in ("version", "directory"))
            return backend.review(version=version, directory=directory)
        case "state":
            _raise_if_not_allowed(peer_uid, own_uid)
            return backend.state(_key(question.get("key")))
        case "secrets" | "observe" as what:
            _raise_if_not_allowed(peer_uid, own_uid)
            return backend.secret_contents() if what == "secrets" else backend.observe()
        case "progress":
            return backend.progress(_since(question))
        case "pass":
            _raise_if_not_allowed(peer_uid, own_uid)
            done = backend.run_pass(pass_request(question, peer_uid=peer_uid))
            # The failures of this pass are known only now.
            runs = backend.failed_runs(peer_uid, owns_all=True)
            return _with_last_lines(done, runs) if question.get("output") is True else done
        case "rollback" | "restart" | "suspend" | "resume" | "stop" | "start" as verb:
            _raise_if_not_allowed(peer_uid, own_uid)
            return backend.act(act_request(verb, question, peer_uid=peer_uid))
        case other:
            raise unknown_request(other)


def _read(
    what: str, question: Mapping[str, object], backend: ControlBackend, runs: tuple[FailedRun, ...]
) -> dict[str, object]:
    """Answer a read-only question; *runs* are the failed runs whose output the peer may read."""
    output = question.get("output") is True
    match what:
        case "status":
            report = with_last_lines(backend.status(), runs) if output else backend.status()
            return _unless_known(report, question)
        case "plan":
            return backend.plan()
        case "history":
            history = backend.history(_key(question.get("key")))
            return with_failures(history, runs) if output else history
        case _:
            return {"runs": [failures.FORM.to_json(run) for run in runs]}


def _unless_known(report: dict[str, object], question: Mapping[str, object]) -> dict[str, object]:
    """Return a report with its version. A question names the version that the asker has, or ''.

    Asked again and again, an unchanged report costs neither side more than a digest. Trusted users
    can ask for an answer only after a change: ``wait_s`` is the longest wait.
    """
    known = question.get("unless")
    if known is None:
        return report
    # The controller makes equal reports in the same order, and canonical JSON takes four times as long.
    version = hashlib.sha256(json.dumps(report).encode()).hexdigest()
    return dict(_UNCHANGED) if version == known else {**report, "version": version}


def _with_last_lines(done: dict[str, object], runs: Iterable[FailedRun]) -> dict[str, object]:
    """Return the answer to a pass, with the failed runs in its status."""
    status = done["status"]
    assert isinstance(status, dict), "a pass is answered with a status"
    return {**done, "status": with_last_lines(status, runs)}


def _raise_if_not_allowed(peer_uid: int, own_uid: int) -> None:
    if peer_uid not in (0, own_uid):
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} is allowed to look, not to act",
            remedy="run the command as root",
        )


def pass_request(question: Mapping[str, object], *, peer_uid: int) -> PassRequest:
    """Parse a request for a pass.

    Raises:
        UsageError: a member has the wrong type.
    """
    key = question.get("key")
    return PassRequest(
        _timeout_s(question),
        _flag(question, "approve_prune"),
        requester(question, "on_behalf_of", peer_uid),
        None if key is None else _key(key),
        text_member(question, "plan"),
        text_member(question, "approved"),
    )


def act_request(verb: Verb, question: Mapping[str, object], *, peer_uid: int) -> ActRequest:
    """Parse a request to change an override.

    Raises:
        UsageError: a member has the wrong type.
    """
    act = ServiceAct(
        verb,
        _key(question.get("key")),
        requester(question, "on_behalf_of", peer_uid),
        to=text_member(question, "to"),
        reason=text_member(question, "note"),
    )
    return ActRequest(act, _flag(question, "only_ask"), _timeout_s(question))


def _flag(question: Mapping[str, object], member: str) -> bool:
    flag = question.get(member, False)
    if not isinstance(flag, bool):
        raise wrong_member(member, "true or false")
    return flag


def _timeout_s(question: Mapping[str, object]) -> float:
    timeout_s = question.get("timeout_s", PASS_TIMEOUT_S)
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, int | float)
        or not 0 < timeout_s <= PASS_TIMEOUT_MAX_S
    ):
        raise wrong_member("timeout_s", f"a number of seconds up to {PASS_TIMEOUT_MAX_S:g}")
    return float(timeout_s)


def _wait_s(question: Mapping[str, object]) -> float:
    wait_s = question.get("wait_s", 0.0)
    if (
        isinstance(wait_s, bool)
        or not isinstance(wait_s, int | float)
        or not 0 <= wait_s <= WAIT_MAX_S
    ):
        raise wrong_member("wait_s", f"a number of seconds up to {WAIT_MAX_S:g}")
    return float(wait_s)


def _since(question: Mapping[str, object]) -> int:
    since = question.get("since", 0)
    if isinstance(since, bool) or not isinstance(since, int):
        raise wrong_member("since", "the number of an act")
    return since


def _key(text: object) -> Key:
    try:
        return Key.parse(str(text))
    except ValueError as error:
        raise wrong_member("key", "KIND/NAMESPACE/NAME") from error


def answer_with(backend: ControlBackend, *, own_uid: int) -> Answer:
    """Return the answers of *backend*, for a ``ConversationServer``."""

    def reply(question: Mapping[str, object], peer_uid: int) -> dict[str, object]:
        return answer(question, peer_uid=peer_uid, own_uid=own_uid, backend=backend)

    return reply
