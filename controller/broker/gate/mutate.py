"""The only path to change the engine: record the intent, forward, record the outcome.

``perform`` takes this path for every handler. A flow that is abandoned at any command (a crash)
leaves no intent, or an open intent for recovery to close.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from controller.broker.gate import commands, journal_entries, redact
from controller.broker.gate.call import Author, Flow, engine_reply, engine_unavailable
from controller.broker.gate.commands import RunBuild
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.routes import ROUTES
from controller.broker.gate.state import GateState
from controller.broker.wire import json_reply, refusal
from controller.core.encoding.json_values import texts_of
from controller.core.enforcement.settlement import Settled
from controller.core.records.parts import ProgramPart, RequestPart, ResultPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.mutations import Mutation, object_kind
from controller.model.records import Entry, Record, Reply, Verdict

#: The error code of a change without a reply from the engine.
OUTCOME_UNKNOWN = "outcome.unknown"
#: Timeouts of changes: of networks, volumes and violators, and of others.
SHORT_S, LONG_S = 15.0, 60.0
_METHODS = {route.name: route.method for route in ROUTES}


#: A step after a build, with its reply and what the log named.
BuildStep = Callable[[Reply, commands.BuildEnded], Flow[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An admitted change of the engine: the recorded request and the forwarded one."""

    mutation: Mutation
    #: The object: its full id, the name of an object to create, or the reference of an image.
    subject: str
    path: str
    #: The summary in the record.
    summary: Mapping[str, object]
    verdict: Verdict
    body: Mapping[str, object] | None = None
    #: Send the lines of the reply to the client as they come (``Forward.stream``).
    stream: bool = False
    deadline_s: float
    #: Yielded instead of sending method, path and body: a connection to open, a content to store, or a
    #: build to run.
    instead: commands.Relay | commands.StoreContent | RunBuild | None = None
    #: Runs after a build, under the same intent; returns the reply to record.
    finish: BuildStep | None = None
    #: The registry with the credentials that the engine needs.
    registry: str = ""
    #: Returns the code of an error text, for the outcome.
    code_of: Callable[[str], str] | None = None
    #: The command that a start runs, in the form of a create body: errors repeat the command.
    runs: Mapping[str, object] | None = None
    #: Entries ``NAME=value`` with values of Secrets, for the engine alone.
    secret_env: tuple[str, ...] = field(default=(), repr=False)

    @property
    def forwarded(self) -> Mapping[str, object] | None:
        """The engine's request body."""
        if self.body is None or not self.secret_env:
            return self.body
        return {**self.body, "Env": [*texts_of(self.body.get("Env")), *self.secret_env]}

    @property
    def method(self) -> str:
        """The method of the mutation's route."""
        return _METHODS[self.mutation]

    @classmethod
    def of(
        cls,
        mutation: Mutation,
        subject: str,
        path: str,
        judged: AdmissionDecision,
        summary: Mapping[str, object],
    ) -> Change:
        """Return the change that admission rebuilt."""
        return cls(
            mutation=mutation,
            subject=subject,
            path=path,
            summary=summary,
            verdict=judged.verdict,
            body=judged.body,
            deadline_s=SHORT_S if mutation.startswith(("network.", "volume.")) else LONG_S,
        )


#: Returns the members of an outcome besides the status, after a successful reply of the engine.
OutcomeDetails = Callable[[Reply], Flow[ResultPart]]
#: Runs after the intent is durable; returns the change to forward.
Preparation = Callable[[Change], Flow[Change]]


def learn_nothing(_: Reply) -> Flow[ResultPart]:
    """Record nothing but the status."""
    yield from ()
    return ResultPart()


def perform(
    state: GateState,
    by: Author,
    change: Change,
    learn: OutcomeDetails = learn_nothing,
    *,
    despite_hold: bool = False,
    prepare: Preparation | None = None,
) -> Flow[Reply]:
    """Record the intent, forward the change, record the outcome, and return the engine's reply.

    Without a durable intent nothing is forwarded. If the reply is lost, or the outcome can't be
    recorded, the intent stays open and the object is held until recovery closes the intent.

    *despite_hold* is only for stopping a container at once. *prepare* runs between the intent and
    the change, and may alter the change.

    Raises:
        Denied: ``held``, before anything is recorded.
    """
    if not despite_hold:
        refuse_if_held(state, change.mutation, change.subject)
    request = journal_entries.request_of(
        change.method,
        change.mutation,
        change.subject,
        change.summary,
        change.body,
        key=state.hash_key,
        secrets=_env_hashes(state, change),
    )
    intent = Entry(
        by.id,
        "intent",
        actor=journal_entries.actor_of(by.actor),
        request=request,
        verdict=journal_entries.verdict_of(change.verdict, by.policy),
        claims=journal_entries.claims_of(by.context),
    )
    if change.mutation is Mutation.CONTAINER_CREATE:
        state.split_brain.add_create(by.id)
    state.intents.in_flight.add(by.id)
    state.intents.recorded_at[by.id] = state.clock.monotonic()
    try:
        return (yield from _forward_recorded(state, intent, change, learn, prepare))
    finally:
        state.intents.in_flight.discard(by.id)
        if by.id not in state.inventory.open:
            del state.intents.recorded_at[by.id]


def _env_hashes(state: GateState, change: Change) -> dict[str, str]:
    """Return keyed hashes of the requested values in the environment of a change: not the image's."""
    summary = ProgramPart.read(change.summary)
    owner = summary.label(names.OWNER) or summary.owner
    asked = {*summary.environment}
    listed = texts_of((change.body or {}).get("Env"))
    return redact.hashes(
        state.hash_key, owner, [each for each in listed if each.partition("=")[0] in asked]
    )


def _forward_recorded(
    state: GateState,
    intent: Entry,
    change: Change,
    learn: OutcomeDetails,
    prepare: Preparation | None,
) -> Flow[Reply]:
    if not isinstance((yield commands.WriteRecord(intent)), Record):
        return journal_entries.journal_unavailable(intent.id)
    if prepare is not None:
        change = yield from prepare(change)
    started = state.clock.monotonic()
    forwarded = change.forwarded
    body = b"" if forwarded is None else json.dumps(forwarded, ensure_ascii=False).encode()
    answer = yield change.instead or commands.Forward(
        change.method,
        change.path,
        body,
        stream=change.stream,
        deadline_s=change.deadline_s,
        registry=change.registry,
        by=intent.id,
    )
    shared_with = ""
    if isinstance(change.instead, commands.StoreContent):
        answer = _stored_reply(change.instead, answer, intent.id)
    if isinstance(answer, commands.SharedPull):
        shared_with, answer = answer.by, answer.answer
    ended: commands.BuildEnded | None = None
    if isinstance(answer, commands.BuildEnded):
        ended, answer = answer, answer.answer
    if isinstance(answer, commands.Lost) and answer.sent:
        return refusal(
            504,
            OUTCOME_UNKNOWN,
            f"the engine's answer was lost: {redact.text(answer.reason)}",
            remedy="recovery settles the change: check the object before you repeat the request",
            record=intent.id,
        )
    if isinstance(answer, commands.Lost):
        reply = engine_unavailable(answer)
        learned = ResultPart(settled=Settled.NOT_APPLIED.value)
    else:
        assert isinstance(answer, Reply), f"a mutation was answered by {answer!r}"
        if change.finish is not None and ended is not None:
            answer = yield from change.finish(answer, ended)
        reply = _without_values(engine_reply(answer), change)
        learned = ResultPart()
        if answer.status < 400:
            learned = yield from _outcome_details(learn, answer)
    # The details take precedence over the status: a stream may end in an error after 200.
    error = learned.error or journal_entries.error_text(reply, change.runs or forwarded or {})
    result = ResultPart(
        status=reply.status,
        error=error,
        duration_ms=max(0, round((state.clock.monotonic() - started) * 1000)),
        shared_with=shared_with,
        code=change.code_of(error) if change.code_of is not None and error else "",
    )
    result |= learned
    outcome = Entry(intent.id, "outcome", actor=intent.actor, result=result.members)
    yield commands.WriteRecord(outcome)
    return reply


def _without_values(reply: Reply, change: Change) -> Reply:
    """Return a reply of the engine without its message, if the message repeats a value of a Secret."""
    values = [entry.partition("=")[2] for entry in change.secret_env]
    told = reply.body.decode("utf-8", "replace")
    if reply.status < 400 or not any(v in told or json.dumps(v)[1:-1] in told for v in values if v):
        return reply
    return json_reply(reply.status, {"message": "the engine's error repeats a value of a Secret"})


def _stored_reply(stores: commands.StoreContent, reason: object, identifier: str) -> Reply:
    """Return the reply to a delivery."""
    if reason == "":
        return json_reply(201, {"Content": stores.content})
    return refusal(
        507,
        "files.storage",
        str(reason),
        remedy="look at the disk of the state folder; the controller delivers again",
        record=identifier,
    )


def _outcome_details(learn: OutcomeDetails, answer: Reply) -> Flow[ResultPart]:
    try:
        return (yield from learn(answer))
    except Answered:  # the engine went away meanwhile: the outcome is recorded all the same
        return ResultPart()


def refuse_if_held(
    state: GateState, mutation: str, subject: str, *, under_way: bool = False
) -> None:
    """Refuse to change an object while an earlier change of the object is unsettled.

    With *under_way*, changes of other requests in progress count too: the engine may show their
    result before the inventory does.

    Raises:
        Denied: ``held``.
    """
    kind = object_kind(mutation)
    for identifier, intent in state.inventory.open.items():
        if identifier in state.intents.in_flight and not under_way:
            continue
        request = RequestPart.read(intent.request)
        if request.object == subject and object_kind(request.route) == kind:
            raise Denied(
                "held",
                f"the outcome of {request.route} {identifier} isn't known yet",
                "wait until recovery has settled the change",
                status=409,
                subject=subject,
            )
