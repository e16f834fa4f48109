"""Execs: commands of a person in a container, from creation to end.

Creating an exec is a mutation, and so is starting an exec. The engine starts any exec by its id, so
the gate accepts only ids of its own execs: for the same user, once, within a minute, while the
container still runs and the current policy still admits the command. A started exec is a session
in the inventory until a record (``exec.end``) has its result. When a session runs out of time, its
connection is cut and its processes are ended.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import (
    BROKER,
    Flow,
    GateRequest,
    find_numbers,
    parse_json,
    read_json,
)
from controller.broker.gate.commands import EndProcess, Lost, ReadEngine, Relay, WriteRecord
from controller.broker.gate.journal_entries import actor_of, place_of, request_of
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Answered, Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import CreatedExec, GateState
from controller.broker.guards import lookup
from controller.broker.guards.lookup import OwnContainer
from controller.broker.wire import json_reply
from controller.core.admission.calls import admit_exec, admit_exec_of_client, admit_exec_start
from controller.core.enforcement.settlement import age_s
from controller.core.engine_api import parse
from controller.core.engine_api.requests import ExecRequest
from controller.core.records.parts import ExecPart, ResultPart, SummaryPart
from controller.model import mutations
from controller.model.desired.spec.container import HOOKS_S
from controller.model.inventory import ExecSession
from controller.model.mutations import Mutation
from controller.model.records import Entry, Record, Reply, Role

#: Most execs in memory, started or not.
EXECS_MAX = 1000
#: Of these, most of all clients together, and of a single one.
EXECS_OF_CLIENTS_MAX, EXECS_OF_CLIENT_MAX = 500, 32
#: The time limit between creation and start.
START_S = 60.0
#: How long the exit code is available after the end.
KEPT_S = 600.0
#: Attempts to end a process before the record says that the process was left.
TRIES_MAX = 5

_SHOWN = ("ID", "Running", "ExitCode", "OpenStdin", "OpenStderr", "OpenStdout", "ContainerID")
_SHOWN_PROCESS = ("tty", "entrypoint", "arguments", "privileged", "user")


# Creation and start


def create(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /containers/{container}/exec``: create an exec for the caller."""
    _refuse_client(call)
    container = yield from _find_running(call, state, call.names["container"])
    request = parse.parse_exec(call.body)
    user = yield from find_numbers(request.user, _pid(container), call.policy)
    request = replace(request, user=user)
    _refuse_client(call, container, request)
    judged = raise_if_denied(
        admit_exec(request, policy=call.policy, container_user=_user(container))
    )
    _refuse_other_user(container, request.user)
    _make_room(call, state)
    summary = {**place_of(container.item), **judged.summary}
    path = f"{container.path}/exec"
    change = Change.of(Mutation.EXEC_CREATE, container.item.id, path, judged, summary)
    reply = yield from perform(state, call.by, change, exec_details)
    if reply.status >= 400:
        return reply
    identifier = str(parse_json(reply).get("Id", ""))
    state.execs.created[identifier] = CreatedExec(
        container=container.item.id,
        uid=call.actor.uid,
        role=call.actor.role,
        created_at=state.clock.monotonic(),
        container_started=_started(container),
        request=request,
    )
    return json_reply(reply.status, {"Id": identifier})


def _refuse_other_user(container: OwnContainer, user: str) -> None:
    """Refuse a command of another user in an observer: it would read the host's files as that user."""
    confined = container.item.confined
    if confined is not None and confined.observer:
        own = confined.user.partition(":")[0]
        if user not in {"", own, confined.user}:
            reason = f"commands in an observer of the host run as its own user, {own}"
            raise Denied("observer", reason, "leave out --user", subject=container.item.id)


def exec_details(reply: Reply) -> Flow[ResultPart]:
    """Return the id of a created exec, for the outcome."""
    yield from ()
    return ResultPart(exec=str(parse_json(reply).get("Id", "")))


def start(call: GateRequest, state: GateState) -> Flow[Reply | Relay]:
    """Handle ``POST /exec/{exec}/start``: start an exec, if all its conditions still hold."""
    _refuse_client(call)
    identifier = call.names["exec"]
    created = _find_created(call, state, identifier)
    if created.request is None:
        raise _refusal("exec.started", "it was started before", identifier)
    if state.clock.monotonic() - created.created_at > START_S:
        raise _refusal("exec.expired", f"it wasn't started within {START_S:g} s", identifier)
    container = yield from _find_unchanged(call, state, identifier, created)
    _refuse_client(call, container, created.request)
    yield from _refuse_if_different(identifier, created)
    request, created.request = created.request, None
    if request is None:  # another request started the exec meanwhile
        raise _refusal("exec.started", "it was started before", identifier)
    made = raise_if_denied(admit_exec(request, policy=call.policy, container_user=_user(container)))
    judged = raise_if_denied(
        admit_exec_start(parse.parse_exec_start(call.body), request, hijack=_is_hijack(call))
    )
    assert judged.body is not None, "an admitted start has a body"
    summary = {**place_of(container.item), "exec": identifier, **judged.summary}
    path = f"/exec/{identifier}/start"
    change = Change.of(Mutation.EXEC_START, container.item.id, path, judged, summary)
    change = replace(change, runs=made.body)
    created.started_at = state.clock.monotonic()
    if judged.body["Detach"]:
        reply: Reply | Relay = yield from perform(state, call.by, change)
    else:
        reply = yield from _start_attached(call, state, change, identifier)
    if identifier not in state.inventory.sessions:
        created.ended_at = state.clock.monotonic()  # as far as known, the exec never began
    return reply


def _start_attached(
    call: GateRequest, state: GateState, change: Change, identifier: str
) -> Flow[Reply | Relay]:
    """Start an exec with its input and output on the caller's connection, until its time limit."""
    relay = Relay(
        change.method,
        change.path,
        json.dumps(change.body).encode(),
        hijack=_is_hijack(call),
        mutates=True,
        within_s=_limit_s(state),
        exec=identifier,
    )
    reply = yield from perform(state, call.by, replace(change, instead=relay))
    return relay if reply.status < 400 else reply


def _is_hijack(call: GateRequest) -> bool:
    return any(name == "upgrade" for name, _ in call.request.headers)


def _refuse_client(
    call: GateRequest, container: OwnContainer | None = None, request: ExecRequest | None = None
) -> None:
    """Refuse a client's exec unless the policy lets it run commands in this container.

    Without the container, only by the policy: no look-up is needed.
    """
    if call.actor.role is not Role.CLIENT:
        return
    judged = admit_exec_of_client(call.policy)
    if container is not None:
        item, user = container.item, request.user if request is not None else ""
        judged = admit_exec_of_client(
            call.policy,
            is_own=(item.origin, item.uid) == (Role.CLIENT.value, call.actor.uid),
            has_binds=_has_binds(container.inspect),
            changes_user=user not in ("", _user(container)),
        )
    raise_if_denied(judged)


def _has_binds(inspect: dict[str, Any]) -> bool:
    """Return True unless all mounts are volumes and tmpfs."""
    mounts = inspect.get("Mounts")
    known = ("volume", "tmpfs")
    return not isinstance(mounts, list) or any(each.get("Type") not in known for each in mounts)


def _find_running(call: GateRequest, state: GateState, name: str) -> Flow[OwnContainer]:
    container = yield from lookup.find_container(state, call.actor, name)
    status = container.inspect.get("State") or {}
    if not status.get("Running") or status.get("Paused"):
        raise Denied(
            "exec.not-running",
            f"the container is {status.get('Status', 'not running')}",
            "start it, or thaw it, first",
            status=409,
            subject=container.item.id,
        )
    return container


def _find_unchanged(
    call: GateRequest, state: GateState, identifier: str, created: CreatedExec
) -> Flow[OwnContainer]:
    """Return the container of an exec, if it has run without a restart since the creation.

    Raises:
        Denied: ``exec.changed``, ``exec.not-running``, ``foreign``.
    """
    try:
        container = yield from _find_running(call, state, created.container)
    except Answered as answered:
        if answered.reply.status != 404:
            raise
        raise _refusal("exec.changed", "its container is gone", identifier) from None
    if _started(container) != created.container_started:
        raise _refusal("exec.changed", "its container was restarted since", identifier)
    return container


def _refuse_if_different(identifier: str, created: CreatedExec) -> Flow[None]:
    """Refuse an exec if the engine lost it, or shows other members than at creation."""
    shown = yield from read_json(f"/exec/{identifier}/json")
    if shown is None:
        raise _refusal("exec.changed", "the engine doesn't have it any more", identifier)
    privileged = (shown.get("ProcessConfig") or {}).get("privileged")
    if shown.get("ContainerID") != created.container or shown.get("Running") or privileged:
        raise _refusal("exec.changed", "the engine shows it as another one", identifier)


def _refusal(rule: str, reason: str, identifier: str) -> Denied:
    return Denied(rule, reason, "create the exec again", status=409, subject=identifier)


def _find_created(call: GateRequest, state: GateState, identifier: str) -> CreatedExec:
    """Return an exec created by this caller.

    Raises:
        Denied: ``exec.unknown``: also for execs of other callers.
    """
    created = state.execs.created.get(identifier)
    mine = created is not None and (created.uid, created.role) == (call.actor.uid, call.actor.role)
    if created is None or not mine:
        raise _unknown(identifier)
    return created


def _unknown(identifier: str) -> Denied:
    shown = redact.text(identifier, limit=64)
    return Denied(
        "exec.unknown",
        "no exec of that id was made through this broker for this caller",
        "create one with POST /containers/NAME/exec",
        status=404,
        message=f"No such exec instance: {shown}",
        subject=shown,
    )


def _make_room(call: GateRequest, state: GateState) -> None:
    """Forget expired and ended execs. Clients' execs leave room for those of operators.

    Raises:
        Denied: ``exec.too-many``.
    """
    now = state.clock.monotonic()
    for identifier, created in list(state.execs.created.items()):
        ended = created.ended_at is not None and now - created.ended_at > KEPT_S
        unused = not created.started_at and now - created.created_at > START_S
        if ended or unused:
            del state.execs.created[identifier]
    most, count = EXECS_MAX, max(len(state.execs.created), len(state.inventory.sessions))
    if call.actor.role is Role.CLIENT:
        of_clients = Counter(e.uid for e in state.execs.created.values() if e.role is Role.CLIENT)
        count = max(count, of_clients.total() + EXECS_MAX - EXECS_OF_CLIENTS_MAX)
        if of_clients[call.actor.uid] >= EXECS_OF_CLIENT_MAX:
            most = count = EXECS_OF_CLIENT_MAX
    if count >= most:
        raise Denied(
            "exec.too-many",
            f"{most} execs are open",
            "wait until some have ended",
            status=429,
        )


def _started(container: OwnContainer) -> str:
    return str((container.inspect.get("State") or {}).get("StartedAt", ""))


def _pid(container: OwnContainer) -> int:
    pid = (container.inspect.get("State") or {}).get("Pid")
    return pid if isinstance(pid, int) else 0


def _user(container: OwnContainer) -> str:
    return str((container.inspect.get("Config") or {}).get("User") or "")


# Reads


def inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /exec/{exec}/json``."""
    _refuse_client(call)
    identifier = call.names["exec"]
    _refuse_unless_mine(call, state, identifier)
    details = yield from read_json(f"/exec/{identifier}/json")
    if details is None:
        raise _unknown(identifier)
    _refuse_if_cut(state, identifier, details)
    process = details.get("ProcessConfig") or {}
    shown = {name: details[name] for name in _SHOWN if name in details}
    shown["ProcessConfig"] = {name: process[name] for name in _SHOWN_PROCESS if name in process}
    return json_reply(200, shown)


def _refuse_if_cut(state: GateState, identifier: str, details: dict[str, Any]) -> None:
    """Refuse to show a running exec whose output an earlier broker carried until its end.

    Clients ask when the output ends, and take "no exit code yet" for a success.

    Raises:
        Denied: ``exec.interrupted``.
    """
    session = state.inventory.sessions.get(identifier)
    carried = session is None or session.detached or identifier in state.execs.created
    if not carried and details.get("Running"):
        raise Denied(
            "exec.interrupted",
            "the broker was replaced while the command ran: its output is cut, and the command goes on",
            "run it again; trimtab journal list --action exec.end shows how this one ends",
            status=409,
            subject=identifier,
        )


def resize(call: GateRequest, state: GateState) -> Flow[Reply | Relay]:
    """Handle ``POST /exec/{exec}/resize``."""
    _refuse_client(call)
    identifier = call.names["exec"]
    _refuse_unless_mine(call, state, identifier)
    yield from ()
    return Relay("POST", build_path(f"/exec/{identifier}/resize", call.query))


def _refuse_unless_mine(call: GateRequest, state: GateState, identifier: str) -> None:
    session = state.inventory.sessions.get(identifier)
    if session is None or session.uid != call.actor.uid:
        _find_created(call, state, identifier)


# Time limit and end


def supervise(state: GateState, identifier: str) -> Flow[None]:
    """Record the result of an ended session, and end a session after its time limit.

    A hook of this process is left alone: ``container_hooks`` ends the hook. A failed read changes
    nothing: ``broker.server.background_tasks`` repeats the call. A second call at once does nothing, so each
    event has one record.
    """
    session, supervised = state.inventory.sessions.get(identifier), state.execs.supervised
    if session is None or identifier in supervised:
        return
    over = _is_over(state, session)
    if identifier in state.execs.attached and (session.hook or not over):
        return
    supervised.add(identifier)
    try:
        yield from _supervise(state, session, over=over)
    finally:
        supervised.discard(identifier)


def _supervise(state: GateState, session: ExecSession, *, over: bool) -> Flow[None]:
    identifier = session.id
    answer = yield ReadEngine(f"/exec/{identifier}/json")
    if isinstance(answer, Lost):
        return
    assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
    if answer.status == 404:
        yield from _record_end(
            state, session, ResultPart(error="the engine doesn't have it any more")
        )
        return
    try:
        shown = parse_json(answer) if answer.status < 400 else None
    except Answered:
        shown = None
    if not isinstance(shown, dict):
        return
    if not shown.get("Running"):
        yield from record_exit(state, session, shown)
    elif over:
        yield from cut_off(
            state, session, shown, f"it took longer than {_limit_s(state, session):g} s"
        )


def record_exit(state: GateState, session: ExecSession, shown: dict[str, Any]) -> Flow[None]:
    """Record the exit code of an ended session."""
    code = shown.get("ExitCode")
    is_known = isinstance(code, int)
    result = ResultPart(exit_code=code) if is_known else ResultPart(error="it never ran")
    yield from _record_end(state, session, result)


def _is_over(state: GateState, session: ExecSession) -> bool:
    """Return True if a session is beyond its time limit.

    By the monotonic clock for a session of this process. For an older session by the wall clock or,
    if the wall clock was set back, by the uptime of the process.
    """
    limit, now = _limit_s(state, session), state.clock.monotonic()
    created = state.execs.created.get(session.id)
    if created is not None and created.started_at:
        return now - created.started_at >= limit
    return age_s(session, state.clock.now()) >= limit or now - state.start_monotonic >= limit


def _limit_s(state: GateState, session: ExecSession | None = None) -> float:
    is_hook = session is not None and session.hook
    return HOOKS_S if is_hook else state.policy.exec.max_duration / 1000


def cut_off(
    state: GateState, session: ExecSession, shown: dict[str, Any], reason: str
) -> Flow[None]:
    """End the processes of a session: recorded first, and given up after some attempts."""
    if session.id not in state.execs.end_attempts:
        result = ResultPart(reason=reason)
        if not (yield from _record(state, session, mutations.EXEC_CUT, result)):
            return
    state.execs.end_attempts[session.id] = state.execs.end_attempts.get(session.id, 0) + 1
    pid = shown.get("Pid")
    why = yield EndProcess(pid if isinstance(pid, int) else 0, session.container)
    assert isinstance(why, str), f"ending a process was answered by {why!r}"
    if not why and state.execs.end_attempts[session.id] < TRIES_MAX:
        return  # the next call reads the exit code
    left = why or "its process doesn't end"
    yield from _record_end(state, session, ResultPart(error=f"cut, and left running: {left}"))


def _record_end(state: GateState, session: ExecSession, result: ResultPart) -> Flow[None]:
    result |= ResultPart(was_cut=session.id in state.execs.end_attempts)
    if not (yield from _record(state, session, mutations.EXEC_END, result)):
        return
    state.execs.end_attempts.pop(session.id, None)
    created = state.execs.created.get(session.id)
    if created is not None:
        created.ended_at = state.clock.monotonic()


def _record(state: GateState, session: ExecSession, route: str, result: ResultPart) -> Flow[bool]:
    """Record an event of a session, under the id of its start."""
    item = state.inventory.containers.get(session.container)
    place = SummaryPart()
    if item is not None:
        place = SummaryPart(name=item.admitted.name, owner=item.owner)
    summary = place | ExecPart(exec=session.id)
    request = request_of("POST", route, session.container, summary.members)
    entry = Entry(
        session.intent, "operator", actor=actor_of(BROKER), request=request, result=result.members
    )
    return isinstance((yield WriteRecord(entry)), Record)
