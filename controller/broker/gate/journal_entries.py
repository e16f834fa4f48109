"""Journal entries: the recorded form of requests, actors and verdicts."""

from __future__ import annotations

from collections.abc import Mapping

from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest
from controller.broker.gate.commands import WriteRecord
from controller.broker.gate.refusals import Answered
from controller.broker.wire.responses import refusal
from controller.core.encoding.canonical_json import digest
from controller.core.encoding.image_reference import without_credentials
from controller.core.encoding.json_members import mapping_of, parse_json
from controller.core.records import parts
from controller.model.inventory import ContainerItem
from controller.model.records import Actor, Context, Entry, Record, Reply, Stage, Verdict


def actor_of(actor: Actor) -> dict[str, object]:
    """Return an actor in its recorded form."""
    return parts.ActorPart(
        uid=actor.uid,
        gid=actor.gid,
        pid=actor.pid,
        role=actor.role.value,
        separated=actor.separated,
    ).members


def claims_of(context: Context | None) -> dict[str, object]:
    """Return the controller's claims about its request, in their recorded form."""
    if context is None:
        return {}
    source = parts.SourcePart(
        file=redact.text(context.file),
        first_line=context.line,
        commit=redact.text(context.commit),
        lines=dict(context.lines),
    )
    return parts.ClaimsPart(
        cause=redact.text(context.cause),
        source=source,
        plan=redact.text(context.plan),
        on_behalf_of=redact.text(context.on_behalf_of),
    ).members


def verdict_of(verdict: Verdict, policy: str) -> dict[str, object]:
    """Return a verdict in its recorded form, with the digest of the policy.

    The reason is included only where a mode let the request through: a refusal has its reason as
    the error.
    """
    let_through = verdict.decision == "audit-deny"
    return parts.VerdictPart(
        decision=verdict.decision,
        rules=verdict.rules,
        reason=redact.text(verdict.reason) if let_through else "",
        mutations=tuple(map(redact.text, verdict.mutations)),
        policy=policy,
    ).members


def place_of(item: ContainerItem) -> dict[str, object]:
    """Return the name and the owner of a container, for a record."""
    return parts.SummaryPart(
        name=item.admitted.name,
        owner=item.owner,
        namespace=item.namespace,
        service=item.service,
    ).members


def request_of(
    method: str,
    route: str,
    subject: str,
    summary: Mapping[str, object],
    body: Mapping[str, object] | None = None,
    *,
    key: bytes = b"",
    secrets: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return a request in its recorded form.

    The digest covers the summary, and the body without the values of the environment. A plain
    digest would let a reader guess unrecorded parts of a body, such as arguments. With a body the
    digest is therefore keyed; without a *key* the digest doesn't cover the body.
    """
    redacted = parts.SummaryPart.read(redact.summary(summary))
    if body and key:
        proof = redact.keyed_digest(
            key, {"summary": redacted.members, "body": redact.summary(body)}
        )
    else:
        proof = digest({"summary": redacted.members, "body": {}})
    return parts.RequestPart(
        method=method,
        route=str(route),
        object=redact.text(without_credentials(subject)),
        summary=redacted,
        digest=proof,
        secrets=secrets or {},
    ).members


def record_event(
    stage: Stage,
    by: Author,
    request: dict[str, object],
    *,
    verdict: Verdict | None = None,
    result: dict[str, object] | None = None,
) -> Flow[Record | None]:
    """Record an event that isn't a change of the engine; None if the record can't be written.

    Beyond the rate limit of the caller, the returned record is the summary that counts the event.
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


def require_record(
    stage: Stage, by: Author, request: dict[str, object], *, verdict: Verdict | None = None
) -> Flow[None]:
    """Record an event that counts only with its record.

    Raises:
        Answered: the record can't be written.
    """
    if not (yield from record_event(stage, by, request, verdict=verdict)):
        raise Answered(journal_unavailable(by.id))


def record_read(call: GateRequest, subject: str) -> Flow[None]:
    """Record a read of the output or content of a container.

    Reads succeed even if the journal can't be written.
    """
    request = request_of(call.request.method, call.route.name, subject, {"query": call.query})
    yield from record_event("read", call.by, request)


def error_text(reply: Reply, config: Mapping[str, object] | None = None) -> str:
    """Return the message of an engine error, escaped and cut; '' for a success.

    The engine may repeat the command. The secrets of *config* are removed
    (``redact.withhold_secrets``).
    """
    if reply.status < 400:
        return ""
    try:
        message = str(mapping_of(parse_json(reply.body)).get("message", ""))
    except ValueError:
        message = reply.body.decode("utf-8", "replace")
    return redact.text(redact.withhold_secrets(message, config or {}))


def journal_unavailable(identifier: str) -> Reply:
    """Return the reply to a change that can't be recorded."""
    return refusal(
        503,
        "journal.unavailable",
        "the journal can't be written, so nothing may change",
        remedy="look at 'trimtab status' and the disk of the state folder; reads go on",
        record=identifier,
    )
