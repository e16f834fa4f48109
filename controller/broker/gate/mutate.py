"""The steps that handlers are made of: looking, recording, and the one way to change the engine.

``perform`` is that way: intent, forward, outcome. Abandoned at any of its yields (a crash), it
leaves either no intent, or an open one that recovery closes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from controller.broker.gate import redact
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    InspectPaths,
    JournalNotReadable,
    Lost,
    QueryJournal,
    ReadEngine,
    Relay,
    SharedPull,
    WriteRecord,
    engine_remedy,
)
from controller.broker.gate.refusals import Answered, Denied, told_reply
from controller.broker.gate.routes import Route
from controller.broker.gate.state import GateState
from controller.core.encoding.canonical_json import digest
from controller.core.encoding.image_reference import without_credentials
from controller.core.records.views import Page, Question
from controller.model import names
from controller.model.desired.plan import Verdict
from controller.model.host_paths import PathFacts
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import Actor, Context, Entry, Record, Reply, Request, Role, Stage

T = TypeVar("T")
#: A generator of commands that ends with a value.
Flow = Generator[Command, CommandResult, T]

#: How a change is answered whose own answer didn't come.
OUTCOME_UNKNOWN = "outcome.unknown"
#: The broker acting for itself: recovery, clean-up, implied networks.
BROKER = Actor(uid=0, gid=0, pid=0, role=Role.BROKER)


@dataclass(frozen=True, slots=True)
class GateRequest:
    """A request that found its route: who asks, for what, under which id it is recorded.

    ``policy`` judges all of it, also when another one is loaded meanwhile.
    """

    id: str
    policy: Policy
    request: Request
    actor: Actor  # with the role that this request has
    context: Context | None
    route: Route
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: object = None

    @property
    def by(self) -> Author:
        """Whom its records name."""
        return Author(self.id, self.actor, self.context, policy=self.policy.digest)


@dataclass(frozen=True, slots=True)
class Change:
    """One admitted mutation: what is recorded of it, and what is forwarded."""

    mutation: Mutation
    subject: str  # full id; the name of what is created; an image's reference
    method: str
    path: str
    summary: Mapping[str, object]
    verdict: Verdict
    body: Mapping[str, object] | None = None
    stream: bool = False
    deadline_s: float = 60.0
    relay: Relay | None = None  # sent instead of method, path and body, and opened
    registry: str = ""  # whose credentials the engine needs for it
    code_of: Callable[[str], str] | None = None  # what the text of a failure is called
    runs: Mapping[str, object] | None = None  # what a start runs, as a body of it has it


@dataclass(frozen=True, slots=True)
class Author:
    """Who a change is recorded for, and under which id."""

    id: str
    actor: Actor
    context: Context | None = None
    policy: str = field(default="", kw_only=True)  # digest of the policy that judged


#: What the outcome tells beside the status: a look at what a good answer led to.
OutcomeDetails = Callable[[Reply], Flow[dict[str, object]]]
#: What the client gets of a good answer of the engine's; None: that isn't known before the outcome
#: is recorded.
ReplyHook = Callable[[Reply], Reply | None]


# Looking


def look(path: str, ahead: tuple[str, ...] = ()) -> Flow[Reply]:
    """Read from the engine; what is *ahead* is looked at next.

    Raises:
        Answered: it doesn't answer.
    """
    answer = yield ReadEngine(path, ahead=ahead)
    if isinstance(answer, Lost):
        raise Answered(unreachable(answer))
    assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
    return answer


def seen(path: str, ahead: tuple[str, ...] = ()) -> Flow[Any]:
    """Return the JSON of a read, or None where there is no such object.

    Raises:
        Answered: anything else went wrong; the answer is the engine's.
    """
    reply = yield from look(path, ahead)
    if reply.status == 404:
        return None
    if reply.status >= 400:
        raise Answered(engine_reply(reply))
    return loaded(reply)


def examine(paths: tuple[str, ...]) -> Flow[dict[str, PathFacts]]:
    """Look at paths of the host."""
    if not paths:
        return {}
    answer = yield InspectPaths(paths)
    assert isinstance(answer, tuple), f"an examination was answered by {answer!r}"
    return {facts.path: facts for facts in answer if isinstance(facts, PathFacts)}


def recall(question: Question) -> Flow[Page]:
    """Ask the journal.

    Raises:
        Answered: it can't be asked now.
    """
    answer = yield QueryJournal(question)
    if isinstance(answer, JournalNotReadable):
        raise Answered(told_reply(503, answer.code, answer.reason, remedy=answer.remedy))
    assert isinstance(answer, Page), f"a recall was answered by {answer!r}"
    return answer


def loaded(reply: Reply) -> Any:
    """Return the JSON of an answer of the engine.

    Raises:
        Answered: it isn't JSON, which the engine never sends on these routes.
    """
    try:
        return json.loads(reply.body)
    except ValueError as error:
        raise Answered(
            told_reply(502, "engine.garbled", "the engine's answer can't be read")
        ) from error


def engine_reply(reply: Reply) -> Reply:
    """Return an answer of the engine as the client gets it: of its headers only the type."""
    kept = tuple((name, value) for name, value in reply.headers if name == "content-type")
    return Reply(reply.status, reply.body, kept)


def unreachable(lost: Lost) -> Reply:
    """Return the answer while the engine doesn't."""
    return told_reply(502, "engine.unavailable", silence(lost), remedy=engine_remedy(lost.reason))


def silence(lost: Lost) -> str:
    """Return that the engine doesn't answer and why, said once."""
    reason = redact.text(lost.reason)
    return reason if reason.startswith("the engine at ") else f"the engine doesn't answer: {reason}"


# Recording


def actor_of(actor: Actor) -> dict[str, object]:
    """Return an actor as the journal has it."""
    return {
        "uid": actor.uid,
        "gid": actor.gid,
        "pid": actor.pid,
        "role": actor.role.value,
        "separated": actor.separated,
    }


def claims_of(context: Context | None) -> dict[str, object]:
    """Return what the controller says of its request."""
    if context is None:
        return {}
    source = {
        "file": redact.text(context.file),
        "line": context.line,
        "commit": redact.text(context.commit),
        **({"lines": dict(context.lines)} if context.lines else {}),
    }
    return {
        "cause": redact.text(context.cause),
        "source": source,
        "plan": redact.text(context.plan),
        "onBehalfOf": redact.text(context.on_behalf_of),
    }


def verdict_of(verdict: Verdict, policy: str) -> dict[str, object]:
    """Return a verdict as the journal has it, with the digest of the policy.

    What a rule's mode let through says why: a refusal tells that as its error.
    """
    let_through = verdict.decision == "audit-deny"
    return {
        "decision": verdict.decision,
        "rules": list(verdict.rules),
        **({"reason": redact.text(verdict.reason)} if let_through else {}),
        "mutations": [redact.text(mutation) for mutation in verdict.mutations],
        "policy": policy,
    }


def place_of(item: ContainerItem) -> dict[str, object]:
    """Return what a record tells of a container beside its id: how it is called, and whose it is."""
    return {
        "name": item.admitted.name,
        "owner": item.owner,
        "namespace": item.namespace,
        "service": item.service,
    }


def request_of(
    method: str,
    route: str,
    subject: str,
    summary: Mapping[str, object],
    body: Mapping[str, object] | None = None,
    *,
    key: bytes = b"",
) -> dict[str, object]:
    """Return a request as the journal has it.

    The digest covers the summary, and the body without env values. What of a body isn't told, such
    as arguments, could be guessed at by a plain digest: with a body it is a keyed one, and without
    a *key* it doesn't cover the body.
    """
    told = redact.summary(summary)
    if body and key:
        proof = redact.keyed_digest(key, {"summary": told, "body": redact.summary(body)})
    else:
        proof = digest({"summary": told, "body": {}})
    return {
        "method": method,
        "route": str(route),
        "object": redact.text(without_credentials(subject)),
        "summary": told,
        "digest": proof,
    }


def note(
    stage: Stage,
    by: Author,
    request: dict[str, object],
    *,
    verdict: Verdict | None = None,
    result: dict[str, object] | None = None,
) -> Flow[Record | None]:
    """Record something that isn't a mutation; None if it couldn't be recorded.

    Beyond its peer's limit, the record is the summary that counts it (``meter``).
    """
    entry = Entry(
        by.id,
        stage,
        actor=actor_of(by.actor),
        request=request,
        verdict=verdict_of(verdict, by.policy) if verdict is not None else {},
        claims=claims_of(by.context),
        result=result or {},
    )
    answer = yield WriteRecord(entry)
    return answer if isinstance(answer, Record) else None


def note_read(call: GateRequest, subject: str) -> Flow[None]:
    """Record a read that reveals what a container says or holds. Reads go on without a journal."""
    request = request_of(call.request.method, call.route.name, subject, {"query": call.query})
    yield from note("read", call.by, request)


# Changing


def nothing(_: Reply) -> Flow[dict[str, object]]:
    """Learn nothing beyond the status."""
    yield from ()
    return {}


def waits(_: Reply) -> None:
    """Let the client wait for the outcome's record."""


def as_it_is(reply: Reply) -> Reply:
    """Let the client have the engine's answer."""
    return reply


def perform(
    state: GateState,
    by: Author,
    change: Change,
    learn: OutcomeDetails = nothing,
    *,
    told: ReplyHook = waits,
    despite_hold: bool = False,
) -> Flow[Reply]:
    """Record the intent, forward, record the outcome, and return the engine's answer.

    Without a durable intent nothing is forwarded. When the reply is lost, or the outcome can't be
    recorded, the intent stays open and its object is held until recovery closes it. What is *told*
    of a good answer the controller gets while the outcome is written: it must be all that the
    caller would say. Only what must be stopped now is changed *despite_hold*.

    Raises:
        Denied: ``held``, before anything is recorded.
    """
    if not despite_hold:
        refuse_if_held(state, change.mutation, change.subject)
    request = request_of(
        change.method,
        change.mutation,
        change.subject,
        change.summary,
        change.body,
        key=state.hash_key,
    )
    if secrets := _hashes(state, change):
        request["secrets"] = secrets
    intent = Entry(
        by.id,
        "intent",
        actor=actor_of(by.actor),
        request=request,
        verdict=verdict_of(change.verdict, by.policy),
        claims=claims_of(by.context),
    )
    if change.mutation is Mutation.CONTAINER_CREATE:
        state.mint(by.id)
    state.in_flight.add(by.id)
    state.begun[by.id] = state.clock.monotonic()
    try:
        return (yield from _recorded(state, intent, change, learn, told))
    finally:
        state.in_flight.discard(by.id)
        if by.id not in state.inventory.open:
            del state.begun[by.id]


def _hashes(state: GateState, change: Change) -> dict[str, str]:
    """Return what is told of the values of a change's environment."""
    labels = change.summary.get("labels")
    owned = labels if isinstance(labels, Mapping) else {}
    owner = str(owned.get(names.OWNER) or change.summary.get("owner") or "")
    return redact.hashes(state.hash_key, owner, (change.body or {}).get("Env"))


def _recorded(
    state: GateState, intent: Entry, change: Change, learn: OutcomeDetails, told: ReplyHook
) -> Flow[Reply]:
    if not isinstance((yield WriteRecord(intent)), Record):
        return journal_unavailable(intent.id)
    started = state.clock.monotonic()
    body = b"" if change.body is None else json.dumps(change.body, ensure_ascii=False).encode()
    answer = yield change.relay or Forward(
        change.method,
        change.path,
        body,
        stream=change.stream,
        deadline_s=change.deadline_s,
        registry=change.registry,
        by=intent.id,
    )
    shared: dict[str, object] = {}
    if isinstance(answer, SharedPull):
        shared = {"with": answer.by}
        answer = answer.answer
    if isinstance(answer, Lost) and answer.sent:
        return told_reply(
            504,
            OUTCOME_UNKNOWN,
            f"the engine's answer was lost: {redact.text(answer.reason)}",
            remedy="recovery will settle it: look again before you repeat it",
            identifier=intent.id,
        )
    if isinstance(answer, Lost):
        reply, learned = unreachable(answer), {}
    else:
        assert isinstance(answer, Reply), f"a mutation was answered by {answer!r}"
        reply = engine_reply(answer)
        learned = (yield from _learned(learn, answer)) if answer.status < 400 else {}
    # What was learned may tell more than the status: a stream that ended in an error.
    result: dict[str, object] = {
        "status": reply.status,
        "error": error_text(reply, change.runs or change.body or {}),
        "durationMs": max(0, round((state.clock.monotonic() - started) * 1000)),
        **learned,
        **shared,
    }
    if change.code_of is not None and result["error"]:
        result["code"] = change.code_of(str(result["error"]))
    outcome = Entry(intent.id, "outcome", actor=intent.actor, result=result)
    yield WriteRecord(outcome, _early(told, reply, intent.actor.get("role")))
    return reply


def _early(told: ReplyHook, reply: Reply, role: object) -> Reply | None:
    """Return what the controller gets early. Others are told what is recorded, and so is a failure."""
    if role != Role.CONTROLLER or reply.status >= 400:
        return None
    try:
        return told(reply)
    except (Answered, TypeError):  # an answer that can't be read has its outcome all the same
        return None


def _learned(learn: OutcomeDetails, answer: Reply) -> Flow[dict[str, object]]:
    try:
        return (yield from learn(answer))
    except Answered:  # the engine went away since: the outcome is recorded all the same
        return {}


def error_text(reply: Reply, config: Mapping[str, object] | None = None) -> str:
    """Return the engine's message of an error, escaped and cut; '' for a good answer.

    It may repeat a command: of *config* it has nothing that isn't told (``redact.withholding``).
    """
    if reply.status < 400:
        return ""
    try:
        told = json.loads(reply.body)
    except ValueError:
        message = reply.body.decode("utf-8", "replace")
    else:
        message = str(told.get("message", "")) if isinstance(told, dict) else ""
    return redact.text(redact.withholding(message, config or {}))


def journal_unavailable(identifier: str) -> Reply:
    """Return the answer to a mutation that can't be recorded."""
    return told_reply(
        503,
        "journal.unavailable",
        "the journal can't be written, so nothing may change",
        remedy="look at 'trimtab status' and the disk of the state folder; reads go on",
        identifier=identifier,
    )


def refuse_if_held(
    state: GateState, mutation: str, subject: str, *, under_way: bool = False
) -> None:
    """Refuse a change of an object whose last change isn't settled.

    With *under_way* also one whose last change another request is just making: what it made may
    show on the engine before its outcome is in the inventory.

    Raises:
        Denied: ``held``.
    """
    kind = _kind(mutation)
    for identifier, intent in state.inventory.open.items():
        if identifier in state.in_flight and not under_way:
            continue
        request = intent.request
        if request.get("object") == subject and _kind(str(request.get("route"))) == kind:
            raise Denied(
                "held",
                f"what became of {request.get('route')} {identifier} isn't known yet",
                "wait until recovery has settled it",
                status=409,
                subject=subject,
            )


def _kind(mutation: str) -> str:
    if mutation in {Mutation.NETWORK_CONNECT, Mutation.NETWORK_DISCONNECT}:
        return "container"  # these are recorded as changes of the container
    return mutation.partition(".")[0]
