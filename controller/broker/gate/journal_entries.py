"""Journal entries: how requests, actors and verdicts are recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping

from controller.broker.gate import redact
from controller.broker.gate.call import (
    Author,
    Flow,
    GateRequest,
)
from controller.broker.gate.commands import (
    WriteRecord,
)
from controller.broker.wire.responses import refusal
from controller.core.encoding.canonical_json import digest
from controller.core.encoding.image_reference import without_credentials
from controller.model.desired.plan import Verdict
from controller.model.inventory import ContainerItem
from controller.model.records import Actor, Context, Entry, Record, Reply, Stage


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


def record_event(
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


def record_read(call: GateRequest, subject: str) -> Flow[None]:
    """Record a read that reveals what a container says or holds. Reads go on without a journal."""
    request = request_of(call.request.method, call.route.name, subject, {"query": call.query})
    yield from record_event("read", call.by, request)


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
    return redact.text(redact.withhold_secrets(message, config or {}))


def journal_unavailable(identifier: str) -> Reply:
    """Return the answer to a mutation that can't be recorded."""
    return refusal(
        503,
        "journal.unavailable",
        "the journal can't be written, so nothing may change",
        remedy="look at 'trimtab status' and the disk of the state folder; reads go on",
        record=identifier,
    )
