"""Journal entries: the recorded form of requests, actors, verdicts and the controller's claims.

The header Trimtab-Context: the controller's claims about its request, never facts.

The precondition is the exception: a condition that the gate checks, and nothing to believe.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest
from controller.broker.gate.commands import WriteRecord
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.wire import refusal
from controller.core.encoding import json_values
from controller.core.encoding.identifiers import without_credentials
from controller.core.encoding.json_values import digest, mapping_of, parse_json
from controller.core.records import parts
from controller.model.inventory import ContainerItem
from controller.model.records import (
    Actor,
    Context,
    Entry,
    Precondition,
    Record,
    Reply,
    Request,
    Role,
    Stage,
    Verdict,
)


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


CONTEXT_HEADER = "trimtab-context"
BYTES_MAX = 4096
TEXT_MAX = 2048
_MEMBERS = frozenset({"cause", "source", "plan", "onBehalfOf", "precondition"})
_SOURCE = frozenset({"file", "line", "commit", "lines"})
_PRECONDITION = frozenset({"absent", "id", "revision"})
#: The path of a field, and the number of fields that are read.
_FIELD = re.compile(r"[A-Za-z]{1,32}(\.[A-Za-z]{1,32})?")
_FIELDS_MAX = 32
#: Three of five requests for a new service are looks, with the same header.
_HEADERS_KEPT = 8


def identify_context(request: Request) -> tuple[Actor, Context | None]:
    """Return the caller, with the role of this very request, and the controller's claims.

    Only a request with the context header gets the controller's role. Where operator and controller
    share a uid (``separated`` is false) the header is the only difference between them.

    Raises:
        Denied: ``role.denied`` (the controller without a context), ``context.malformed``.
    """
    actor = request.actor
    values = [value for name, value in request.headers if name == CONTEXT_HEADER]
    if len(values) > 1:
        raise _malformed("it is repeated")
    context = read_context(values[0]) if values else None
    shared = not actor.separated and actor.role in {Role.CONTROLLER, Role.OPERATOR}
    if shared:
        role = Role.CONTROLLER if context is not None else Role.OPERATOR
        return replace(actor, role=role), context
    if actor.role is Role.CONTROLLER and context is None:
        raise Denied(
            "role.denied",
            "the controller's user has no rights besides the controller's requests",
            "use another user, or send the request through the controller",
        )
    # A context from any other caller is ignored.
    return actor, context if actor.role is Role.CONTROLLER else None


@lru_cache(_HEADERS_KEPT)
def read_context(value: str) -> Context:
    """Return the claims in the value of a header: base64url of a closed JSON object.

    Raises:
        Denied: ``context.malformed``.
    """
    if len(value) > BYTES_MAX:
        raise _malformed(f"it is longer than {BYTES_MAX} bytes")
    try:
        padded = value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
        data = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        told = json_values.parse_strict(data, bytes_max=BYTES_MAX)
    except (UnicodeEncodeError, binascii.Error, json_values.InvalidJson) as error:
        raise _malformed(f"it isn't base64url of JSON: {error}") from error
    members = _closed(told, _MEMBERS)
    source = _closed(members.get("source") or {}, _SOURCE)
    expected = _closed(members.get("precondition") or {}, _PRECONDITION)
    return Context(
        cause=_text(members, "cause"),
        file=_text(source, "file"),
        line=_line(source.get("line", 0)),
        commit=_text(source, "commit"),
        plan=_text(members, "plan"),
        on_behalf_of=_text(members, "onBehalfOf"),
        lines=_lines(source.get("lines") or {}),
        precondition=Precondition(
            absent=_text(expected, "absent"),
            id=_text(expected, "id"),
            revision=_text(expected, "revision"),
        ),
    )


def _closed(value: object, members: frozenset[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _malformed("an object was expected")
    unknown = value.keys() - members
    if unknown:
        raise _malformed(f"it has no member {min(unknown)!r:.64}")
    return value


def _line(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _malformed("line isn't a number of a line")
    return value


def _lines(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, dict) or len(value) > _FIELDS_MAX:
        raise _malformed(f"lines isn't an object of at most {_FIELDS_MAX} members")
    for name in value:
        if not _FIELD.fullmatch(name):
            raise _malformed(f"{name!r:.64} isn't the path of a field")
    return tuple((name, _line(line)) for name, line in sorted(value.items()))


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise _malformed(f"{name} isn't a text of at most {TEXT_MAX} characters")
    return value


def _malformed(reason: str) -> Denied:
    return Denied(
        "context.malformed",
        f"Trimtab-Context: {reason}",
        "send base64url of {cause, source, plan, onBehalfOf, precondition}, at most 4 KiB",
        status=400,
    )
