"""Hooks of a container's life: the commands of its document, after a start and before a stop.

The broker runs hooks as its own execs. Nobody names a command here: the commands come from the
container's label. The gate wrote the label at the create; the inventory has its keyed digest. A
hook has no more rights than the container, and its output is discarded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import BROKER, Author, Flow, find_numbers, parse_json, read_json
from controller.broker.gate.commands import Lost, ReadEngine, WriteRecord
from controller.broker.gate.journal_entries import actor_of, error_text, place_of, request_of
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Answered
from controller.broker.gate.state import GateState
from controller.broker.handlers import container_exec
from controller.core.admission.calls import admit_hook
from controller.core.engine_api.requests import HookRequest, HookRequests
from controller.core.records.parts import CreatePart, ExecPart, RequestPart, ResultPart, SummaryPart
from controller.core.rules.container import hooks_text, read_hooks
from controller.core.rules.verdict import AdmissionDecision
from controller.model import mutations, names
from controller.model.desired.spec.container import HOOKS_S
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.observed import HOOKS_PENDING, HOOKS_SUCCEEDED, POST_START, PRE_STOP
from controller.model.policy.document import Policy
from controller.model.records import ALLOW, Context, Entry, Reply

#: The part of a stop's grace period for hooks. The program has the rest.
GRACE_PART = 0.8
#: Pauses between two looks at a running hook, in seconds.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5
FAILED = "failed"
_STARTS = frozenset({Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART})
_EXECS = frozenset({Mutation.EXEC_CREATE, Mutation.EXEC_START})


@dataclass(frozen=True, slots=True)
class _Run:
    """The hooks of an event in a container."""

    item: ContainerItem
    policy: Policy
    event: str
    hooks: tuple[HookRequest, ...]
    user: str  # of the container
    pid: int  # of its first process
    ends_at: float  # monotonic
    #: Identifies this run in ``ExecState.hook_runs``.
    token: object

    def is_overtaken(self, state: GateState) -> bool:
        """Return True if the hooks of a later start of the container are run."""
        starts = self.event == POST_START
        return starts and state.execs.hook_runs.get(self.item.id) is not self.token


def summary_of(state: GateState, hooks: HookRequests) -> CreatePart:
    """Return the members of a create's summary about hooks: their keyed digest, no argument."""
    if not hooks.all:
        return CreatePart()
    return CreatePart(
        hooks=_digest(state, hooks_text(hooks)), has_post_start=bool(hooks.post_start)
    )


def run_post_start(
    state: GateState, identifier: str, policy: Policy, *, has_started: bool = False
) -> Flow[None]:
    """Run the hooks of a start, and record their result. A container without hooks: nothing.

    The caller has reserved the container. With *has_started*, the caller has just started the
    container, and the hooks are due, whatever the end of an earlier start's hooks has recorded.
    """
    item = state.inventory.containers.get(identifier)
    if item is None or not item.post_start:
        return
    if item.post_start != HOOKS_PENDING and not has_started:
        return
    inspect = yield from _inspect(identifier)
    if inspect is None or not (inspect.get("State") or {}).get("Running"):
        return  # the next start runs them
    yield from _run_event(state, item, inspect, policy, POST_START, HOOKS_S)


def run_pre_stop(
    state: GateState, item: ContainerItem, inspect: Mapping[str, Any], policy: Policy, grace_s: int
) -> Flow[float]:
    """Run the hooks of a stop, whatever their result; return the seconds that they took.

    If another stop of the container runs the hooks, wait for their end, within the own time.
    """
    begin = state.clock.monotonic()
    status = inspect.get("State") or {}
    runs = status.get("Running") and not status.get("Paused") and not status.get("Restarting")
    if item.hooks and runs:
        within_s = min(HOOKS_S, grace_s * GRACE_PART)
        if item.id in state.execs.stopping:
            yield from _await_other_stop(state, item.id, begin + within_s)
            return state.clock.monotonic() - begin
        state.execs.stopping.add(item.id)
        try:
            yield from _run_event(state, item, inspect, policy, PRE_STOP, within_s)
        finally:
            state.execs.stopping.discard(item.id)
    return state.clock.monotonic() - begin


def _await_other_stop(state: GateState, identifier: str, ends_at: float) -> Flow[None]:
    while identifier in state.execs.stopping and state.clock.monotonic() < ends_at:
        pause = min(LAST_PAUSE_S, ends_at - state.clock.monotonic())
        yield ReadEngine(f"/containers/{identifier}/json", after_s=pause)


def complete(state: GateState, identifier: str) -> Flow[bool]:
    """Run the hooks of a start that a broker left unfinished when it ended.

    Return True to be called again: a start is in progress, or its outcome isn't known yet, or a hook
    of the earlier broker may still be running.
    """
    item = state.inventory.containers.get(identifier)
    if item is None or not item.post_start:
        return False
    requests = _open_requests(state, identifier)
    if identifier in state.execs.hooked or any(each.route in _STARTS for each in requests):
        return True
    if item.post_start != HOOKS_PENDING:
        return False
    if _has_hook(state, identifier):
        return True
    with reserved(state, identifier):
        yield from run_post_start(state, identifier, state.policy)
    return False


def _has_hook(state: GateState, identifier: str) -> bool:
    """Return True if a hook of a container has no recorded end, or may have been started."""
    sessions = state.inventory.sessions.values()
    return any(each.container == identifier and each.hook for each in sessions) or any(
        each.route in _EXECS and each.summary.part(ExecPart).hook
        for each in _open_requests(state, identifier)
    )


def _open_requests(state: GateState, identifier: str) -> list[RequestPart]:
    """Return the requests for a container whose outcome isn't known."""
    requests = (RequestPart.read(intent.request) for intent in state.inventory.open.values())
    return [each for each in requests if each.object == identifier]


@contextmanager
def reserved(state: GateState, identifier: str, *, begins: bool = True) -> Iterator[None]:
    """Keep others from running the hooks of a start; without *begins*, do nothing."""
    if not begins:
        yield
        return
    state.execs.hooked[identifier] += 1
    try:
        yield
    finally:
        state.execs.hooked[identifier] -= 1
        if not state.execs.hooked[identifier]:
            del state.execs.hooked[identifier]


def _run_event(
    state: GateState,
    item: ContainerItem,
    inspect: Mapping[str, Any],
    policy: Policy,
    event: str,
    within_s: float,
) -> Flow[None]:
    hooks = _hooks_of(state, item, inspect)
    if hooks is None:
        yield from _record_result(
            state, item, event, "the label of its hooks isn't the recorded one"
        )
        return
    asked = hooks.post_start if event == POST_START else hooks.pre_stop
    if not asked:
        return
    user = str((inspect.get("Config") or {}).get("User") or "")
    ends_at = state.clock.monotonic() + within_s
    pid = (inspect.get("State") or {}).get("Pid")
    pid = pid if isinstance(pid, int) else 0
    run = _Run(item, policy, event, asked, user, pid, ends_at, token=object())
    if event == POST_START:
        state.execs.hook_runs[item.id] = run.token
    why = yield from _run_all(state, run)
    if run.is_overtaken(state):
        return
    if event == POST_START:
        del state.execs.hook_runs[item.id]
    yield from _record_result(state, item, event, why)


def _run_all(state: GateState, run: _Run) -> Flow[str]:
    """Run hooks in order, up to the first failure. Return the cause, '' for success."""
    for number, hook in enumerate(run.hooks, 1):
        if run.is_overtaken(state):
            return "is overtaken by a later start"
        try:
            why = yield from _run_hook(state, run, hook)
        except Answered as answered:
            why = f"failed: {error_text(answered.reply) or 'the engine does not answer'}"
        if why:
            program = redact.text(next(iter(hook.command[0].split()), ""), limit=128)
            return f"{run.event} hook {number} ({program}) {why}"
    return ""


def _run_hook(state: GateState, run: _Run, hook: HookRequest) -> Flow[str]:
    user = yield from find_numbers(hook.user, run.pid, run.policy)
    judged = admit_hook(replace(hook, user=user), policy=run.policy, container_user=run.user)
    if judged.verdict.decision == "deny":
        return f"is refused by the policy: {judged.verdict.reason}"
    if state.clock.monotonic() >= run.ends_at:
        return "had no time left"
    summary = {**place_of(run.item), **judged.summary, **ExecPart(hook=run.event).members}
    path = f"/containers/{run.item.id}/exec"
    create = Change.of(Mutation.EXEC_CREATE, run.item.id, path, judged, summary)
    create = replace(create, deadline_s=run.ends_at - state.clock.monotonic())
    # An exec of somebody else without an outcome says nothing about this one.
    reply = yield from perform(
        state, _author(state, run), create, container_exec.exec_details, despite_hold=True
    )
    if reply.status >= 400:
        return f"was not created: {error_text(reply, judged.body)}"
    identifier = str(parse_json(reply).get("Id", ""))
    state.execs.attached.add(identifier)
    try:
        return (yield from _start(state, run, hook, identifier, judged))
    finally:
        state.execs.attached.discard(identifier)


def _start(
    state: GateState, run: _Run, hook: HookRequest, identifier: str, judged: AdmissionDecision
) -> Flow[str]:
    allowed = AdmissionDecision(ALLOW, {"Detach": True, "Tty": False})
    place = ExecPart(exec=identifier, hook=run.event, detach=True).members
    change = Change.of(
        Mutation.EXEC_START,
        run.item.id,
        f"/exec/{identifier}/start",
        allowed,
        {**place_of(run.item), **place},
    )
    left_s = run.ends_at - state.clock.monotonic()
    if left_s <= 0:
        return "had no time left"
    seconds = min(hook.timeout_ms / 1000, left_s)
    ends_at = state.clock.monotonic() + seconds
    change = replace(change, deadline_s=left_s)
    reply = yield from perform(state, _author(state, run), change, despite_hold=True)
    if reply.status >= 400:
        return f"was not started: {error_text(reply, judged.body)}"
    return (yield from _await_end(state, identifier, ends_at, seconds))


def _await_end(state: GateState, identifier: str, ends_at: float, seconds: float) -> Flow[str]:
    """Wait for the end of a hook, and end a late hook."""
    pause = FIRST_PAUSE_S
    while True:
        answer = yield ReadEngine(f"/exec/{identifier}/json", after_s=pause)
        if isinstance(answer, Lost):
            return "was lost: the engine doesn't answer"
        assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
        shown = parse_json(answer) if answer.status < 400 else None
        session = state.inventory.sessions.get(identifier)
        if shown is None or session is None:
            return "was lost: the engine doesn't have it any more"
        if not shown.get("Running"):
            yield from container_exec.record_exit(state, session, shown)
            code = shown.get("ExitCode")
            return "" if code == 0 else f"exited with {code}"
        left = ends_at - state.clock.monotonic()
        if left <= 0:
            yield from container_exec.cut_off(
                state, session, shown, f"it took longer than {seconds:.3g} s"
            )
            return f"took longer than {seconds:.3g} s"
        pause = min(pause * 2, LAST_PAUSE_S, left)


def _hooks_of(
    state: GateState, item: ContainerItem, inspect: Mapping[str, Any]
) -> HookRequests | None:
    """Return the hooks of a container; None for a label other than the recorded label."""
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    text = str(labels.get(names.HOOKS) or "")
    return read_hooks(text) if text and _digest(state, text) == item.hooks else None


def _digest(state: GateState, text: str) -> str:
    return redact.keyed_digest(state.hash_key, [text])


def _author(state: GateState, run: _Run) -> Author:
    context = Context(cause=f"{run.event} of {run.item.admitted.name}")
    return Author(state.new_id(), BROKER, context, policy=run.policy.digest)


def _record_result(state: GateState, item: ContainerItem, event: str, why: str) -> Flow[None]:
    outcome = FAILED if why else HOOKS_SUCCEEDED
    place = SummaryPart.read(place_of(item)) | ExecPart(hook=event, outcome=outcome)
    request = request_of("POST", mutations.HOOK_END, item.id, place.members)
    result = ResultPart(reason=redact.text(why))
    yield WriteRecord(
        Entry(
            state.new_id(),
            "operator",
            actor=actor_of(BROKER),
            request=request,
            result=result.members,
        )
    )


def _inspect(identifier: str) -> Flow[Mapping[str, Any] | None]:
    try:
        inspect = yield from read_json(f"/containers/{identifier}/json")
    except Answered:
        return None
    return inspect if isinstance(inspect, dict) else None
