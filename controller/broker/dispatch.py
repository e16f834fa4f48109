"""The gate: one request in, commands out, one answer back. No I/O happens here.

In order: who asks, which route, whether that role may, which parameters, which body; then the
route's handler, which resolves objects, gathers facts, has admission judge, and changes the
engine by ``steps.perform`` alone. A refusal at any point is journaled and answered; nothing has
been forwarded by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from controller.broker.gate import context_header, redact, router
from controller.broker.gate.call import Author, Flow, GateRequest
from controller.broker.gate.commands import Follow, Relay
from controller.broker.gate.journal_entries import record_event, request_of
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.request_target import read_path
from controller.broker.gate.routes import Route
from controller.broker.gate.state import GateState
from controller.broker.guards import split_brain
from controller.broker.guards.scrub import scrub_reply
from controller.broker.handlers import (
    adoption,
    container_create,
    container_exec,
    container_lifecycle,
    container_read,
    image,
    image_remove,
    info,
    journal_api,
    networks_volumes,
    trimtab_api,
)
from controller.core.encoding import strict_json
from controller.model.desired.plan import Verdict
from controller.model.mutations import TRUST, Mutation
from controller.model.policy.document import Policy
from controller.model.records import Actor, Context, Reply, Request

REGISTRY_AUTH_MAX = 8192
_MEDIA_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.ASCII | re.IGNORECASE)

Handler = (
    Callable[[GateRequest, GateState], Flow[Reply]]
    | Callable[[GateRequest, GateState], Flow[Reply | Relay]]
    | Callable[[GateRequest, GateState], Flow[Follow]]
)

#: The handler of each route, by its name.
HANDLERS: dict[str, Handler] = {
    "ping": container_read.ping,
    "ping.head": container_read.ping_head,
    "version": container_read.version,
    "info": info.info,
    "system.df": container_read.system_df,
    "events": container_read.events,
    "container.list": container_read.container_list,
    "container.inspect": container_read.container_inspect,
    "container.logs": container_read.container_logs,
    "container.stats": container_read.container_stats,
    "container.top": container_read.container_top,
    "container.changes": container_read.container_changes,
    "container.attach": container_read.container_attach,
    "container.wait": container_read.container_wait,
    "container.resize": container_read.container_resize,
    Mutation.CONTAINER_CREATE: container_create.create,
    Mutation.CONTAINER_START: container_lifecycle.start,
    Mutation.CONTAINER_STOP: container_lifecycle.stop,
    Mutation.CONTAINER_RESTART: container_lifecycle.restart,
    Mutation.CONTAINER_KILL: container_lifecycle.kill,
    Mutation.CONTAINER_PAUSE: container_lifecycle.pause,
    Mutation.CONTAINER_UNPAUSE: container_lifecycle.unpause,
    Mutation.CONTAINER_RENAME: container_lifecycle.rename,
    Mutation.CONTAINER_UPDATE: container_lifecycle.update,
    Mutation.CONTAINER_REMOVE: container_lifecycle.remove,
    Mutation.EXEC_CREATE: container_exec.create,
    Mutation.EXEC_START: container_exec.start,
    "exec.inspect": container_exec.inspect,
    "exec.resize": container_exec.resize,
    "distribution.inspect": image.distribution_inspect,
    Mutation.IMAGE_REMOVE: image_remove.remove,
    "image.list": image.image_list,
    "image.inspect": image.image_inspect,
    "image.history": image.image_history,
    Mutation.IMAGE_PULL: image.pull,
    TRUST: image.trust,
    "network.list": networks_volumes.network_list,
    "network.inspect": networks_volumes.network_inspect,
    Mutation.NETWORK_CREATE: networks_volumes.network_create,
    Mutation.NETWORK_REMOVE: networks_volumes.network_remove,
    Mutation.NETWORK_CONNECT: networks_volumes.network_connect,
    Mutation.NETWORK_DISCONNECT: networks_volumes.network_disconnect,
    "volume.list": networks_volumes.volume_list,
    "volume.inspect": networks_volumes.volume_inspect,
    Mutation.VOLUME_CREATE: networks_volumes.volume_create,
    Mutation.VOLUME_REMOVE: networks_volumes.volume_remove,
    "own.whoami": trimtab_api.whoami,
    "own.health": trimtab_api.health,
    "own.policy": trimtab_api.policy,
    "own.inventory": trimtab_api.inventory,
    "own.journal": journal_api.journal,
    "own.journal.follow": journal_api.follow,
    "own.strangers": adoption.strangers,
    "own.records": trimtab_api.records,
}


def handle(request: Request, state: GateState) -> Flow[Reply | Relay | Follow]:
    """Serve one request: yield commands, and return the answer or how to relay it."""
    identifier = state.new_id()
    policy = state.policy
    actor, context, route = request.actor, None, ""
    try:
        actor, context = context_header.identify(request)
        call = _parse_request(request, policy, identifier, actor, context)
        route = call.route.name
        if call.route.kind == "mutate" and not call.route.own:
            yield from split_brain.refuse_if_forked(call, state)
        answer = yield from HANDLERS[route](call, state)
        return scrub_reply(answer, request, actor, state) if isinstance(answer, Reply) else answer
    except Answered as answered:
        return scrub_reply(answered.reply, request, actor, state)
    except Denied as denied:
        by = Author(identifier, actor, context, policy=policy.digest)
        return denied.reply((yield from _record_refusal(state, by, request, route, denied)))


def _parse_request(
    request: Request, policy: Policy, identifier: str, actor: Actor, context: Context | None
) -> GateRequest:
    """Return what is asked for, with a known route, checked parameters and a parsed body.

    Raises:
        Denied: that can't be read, or isn't this role's.
    """
    target = read_path(request.path)
    match = router.find_route(
        request.method, target.path, versioned=target.versioned, role=actor.role
    )
    route = match.route
    if actor.role not in route.roles:
        raise Denied(
            "role.denied",
            f"{route.name} isn't for the role {actor.role.value}",
            f"it is for {', '.join(sorted(role.value for role in route.roles))}",
        )
    query = router.read_parameters(route, request.query)
    return GateRequest(
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
        if request.body and not _is_empty_body(request, headers.get("content-type", "")):
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
        return strict_json.parse(request.body, bytes_max=route.body_max)
    except strict_json.InvalidJson as error:
        raise Denied(
            "body.malformed",
            f"the body: {redact.text(str(error))}",
            "send one JSON object that every reader reads alike",
            status=400,
        ) from error


def _is_empty_body(request: Request, media_type: str) -> bool:
    """Tell whether a body that isn't expected is an empty one: some clients send {} with each POST."""
    if request.method != "POST" or not _MEDIA_TYPE.fullmatch(media_type):
        return False
    return request.body.strip() in {b"{}", b"null"}


def _record_refusal(
    state: GateState, by: Author, request: Request, route: str, denied: Denied
) -> Flow[str]:
    """Journal a refusal; where that can't be done it is counted, and answered all the same.

    Return the id under which it is recorded: its own, or that of the summary that counts it.
    """
    subject = denied.subject or request.path
    verdict = denied.verdict or Verdict("deny", denied.rules, denied.reason, denied.remedy)
    told = request_of(request.method, route, subject, denied.summary)
    result: dict[str, object] = {"status": denied.status, "error": redact.text(denied.reason)}
    record = yield from record_event("refusal", by, told, verdict=verdict, result=result)
    if record is None:
        state.health.unrecorded_refusals += 1
        return by.id
    return record.entry.id
