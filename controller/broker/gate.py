"""The gate: one request in, commands out, one answer back. No I/O happens here.

In order: who asks, which route, whether that role may, which parameters, which body; then the
route's handler, which resolves objects, gathers facts, has admission judge, and changes the
engine by ``steps.perform`` alone. A refusal at any point is journaled and answered; nothing has
been forwarded by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from controller.broker import (
    adoption,
    claims,
    creates,
    disposal,
    execs,
    history,
    images,
    info,
    lifecycle,
    networks,
    own,
    reads,
    redact,
    rivals,
    routing,
    volumes,
)
from controller.broker.commands import Follow, Relay
from controller.broker.discretion import discreet
from controller.broker.endpoints import Route
from controller.broker.refusals import Answered, Denied
from controller.broker.state import GateState
from controller.broker.steps import By, Call, Steps, note, request_of
from controller.broker.targets import read_path
from controller.core import strictjson
from controller.model.entries import Actor, Context, Reply, Request
from controller.model.mutations import TRUST, Mutation
from controller.model.plan import Verdict
from controller.model.policy import Policy

REGISTRY_AUTH_MAX = 8192
_MEDIA_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.ASCII | re.IGNORECASE)

Handler = (
    Callable[[Call, GateState], Steps[Reply]]
    | Callable[[Call, GateState], Steps[Reply | Relay]]
    | Callable[[Call, GateState], Steps[Follow]]
)

#: The handler of each route, by its name.
HANDLERS: dict[str, Handler] = {
    "ping": reads.ping,
    "ping.head": reads.ping_head,
    "version": reads.version,
    "info": info.info,
    "system.df": reads.system_df,
    "events": reads.events,
    "container.list": reads.container_list,
    "container.inspect": reads.container_inspect,
    "container.logs": reads.container_logs,
    "container.stats": reads.container_stats,
    "container.top": reads.container_top,
    "container.changes": reads.container_changes,
    "container.attach": reads.container_attach,
    "container.wait": reads.container_wait,
    "container.resize": reads.container_resize,
    Mutation.CONTAINER_CREATE: creates.create,
    Mutation.CONTAINER_START: lifecycle.start,
    Mutation.CONTAINER_STOP: lifecycle.stop,
    Mutation.CONTAINER_RESTART: lifecycle.restart,
    Mutation.CONTAINER_KILL: lifecycle.kill,
    Mutation.CONTAINER_PAUSE: lifecycle.pause,
    Mutation.CONTAINER_UNPAUSE: lifecycle.unpause,
    Mutation.CONTAINER_RENAME: lifecycle.rename,
    Mutation.CONTAINER_UPDATE: lifecycle.update,
    Mutation.CONTAINER_REMOVE: lifecycle.remove,
    Mutation.EXEC_CREATE: execs.create,
    Mutation.EXEC_START: execs.start,
    "exec.inspect": execs.inspect,
    "exec.resize": execs.resize,
    "distribution.inspect": images.distribution,
    Mutation.IMAGE_REMOVE: disposal.remove,
    "image.list": images.image_list,
    "image.inspect": images.image_inspect,
    "image.history": images.image_history,
    Mutation.IMAGE_PULL: images.pull,
    TRUST: images.trust,
    "network.list": networks.network_list,
    "network.inspect": networks.network_inspect,
    Mutation.NETWORK_CREATE: networks.create,
    Mutation.NETWORK_REMOVE: networks.remove,
    Mutation.NETWORK_CONNECT: networks.connect,
    Mutation.NETWORK_DISCONNECT: networks.disconnect,
    "volume.list": volumes.volume_list,
    "volume.inspect": volumes.volume_inspect,
    Mutation.VOLUME_CREATE: volumes.create,
    Mutation.VOLUME_REMOVE: volumes.remove,
    "own.whoami": own.whoami,
    "own.health": own.health,
    "own.policy": own.policy,
    "own.inventory": own.inventory,
    "own.journal": history.journal,
    "own.journal.follow": history.follow,
    "own.strangers": adoption.strangers,
    "own.records": own.records,
}


def handle(request: Request, state: GateState) -> Steps[Reply | Relay | Follow]:
    """Serve one request: yield commands, and return the answer or how to relay it."""
    identifier = state.new_id()
    policy = state.policy
    actor, context, route = request.actor, None, ""
    try:
        actor, context = claims.identified(request)
        call = _read(request, policy, identifier, actor, context)
        route = call.route.name
        if call.route.kind == "mutate" and not call.route.own:
            yield from rivals.refuse_if_forked(call, state)
        answer = yield from HANDLERS[route](call, state)
        return discreet(answer, request, actor, state) if isinstance(answer, Reply) else answer
    except Answered as answered:
        return discreet(answered.reply, request, actor, state)
    except Denied as denied:
        by = By(identifier, actor, context, policy=policy.digest)
        return denied.reply((yield from _record_refusal(state, by, request, route, denied)))


def _read(
    request: Request, policy: Policy, identifier: str, actor: Actor, context: Context | None
) -> Call:
    """Return what is asked for, with a known route, checked parameters and a parsed body.

    Raises:
        Denied: that can't be read, or isn't this role's.
    """
    target = read_path(request.path)
    match = routing.find(request.method, target.path, versioned=target.versioned, role=actor.role)
    route = match.route
    if actor.role not in route.roles:
        raise Denied(
            "role.denied",
            f"{route.name} isn't for the role {actor.role.value}",
            f"it is for {', '.join(sorted(role.value for role in route.roles))}",
        )
    query = routing.parameters(route, request.query)
    return Call(
        id=identifier,
        policy=policy,
        request=request,
        actor=actor,
        context=context,
        route=route,
        names=match.names,
        query=query,
        body=_read_body(request, route),
    )


def _read_body(request: Request, route: Route) -> object:
    headers = dict(request.headers)
    if len(headers.get("x-registry-auth", "")) > REGISTRY_AUTH_MAX:
        raise Denied(
            "header.too-long",
            f"X-Registry-Auth is longer than {REGISTRY_AUTH_MAX} bytes",
            "registry credentials are the broker's to send: leave it out",
            status=400,
        )
    if headers.get("content-encoding", "identity") != "identity":
        raise Denied("body.encoded", "the body is encoded", "send it plain", status=400)
    if not route.body:
        if request.body and not _says_nothing(request, headers.get("content-type", "")):
            raise Denied(
                "body.unexpected",
                f"{route.name} takes no body",
                "send parameters in the query",
                status=400,
            )
        return None
    media_type = headers.get("content-type", "")
    if request.body and not _MEDIA_TYPE.fullmatch(media_type):
        raise Denied(
            "body.media-type",
            f"the body is {redact.text(media_type) or 'of no type'}",
            "send JSON as application/json in UTF-8",
            status=400,
        )
    try:
        return strictjson.parse(request.body, bytes_max=route.body_max)
    except strictjson.Ambiguous as error:
        raise Denied(
            "body.malformed",
            f"the body: {redact.text(str(error))}",
            "send one JSON object that every reader reads alike",
            status=400,
        ) from error


def _says_nothing(request: Request, media_type: str) -> bool:
    """Tell whether a body that isn't expected is an empty one: some clients send {} with each POST."""
    if request.method != "POST" or not _MEDIA_TYPE.fullmatch(media_type):
        return False
    return request.body.strip() in {b"{}", b"null"}


def _record_refusal(
    state: GateState, by: By, request: Request, route: str, denied: Denied
) -> Steps[str]:
    """Journal a refusal; where that can't be done it is counted, and answered all the same.

    Return the id under which it is recorded: its own, or that of the summary that counts it.
    """
    subject = denied.subject or request.path
    verdict = denied.verdict or Verdict("deny", denied.rules, denied.reason, denied.remedy)
    told = request_of(request.method, route, subject, denied.summary)
    result: dict[str, object] = {"status": denied.status, "error": redact.text(denied.reason)}
    record = yield from note("refusal", by, told, verdict=verdict, result=result)
    if record is None:
        state.unjournaled += 1
        return by.id
    return record.entry.id
