"""Dispatch: a request in, commands out, one reply back. No I/O happens here.

``handle`` checks in this order: the caller, the route, the role, the parameters, the body. Then
the handler of the route looks up objects, gathers facts, asks admission for a verdict, and
changes the engine by ``gate.mutate.perform`` alone. A refusal at any point is journaled and
answered before anything was forwarded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from controller.broker import deliveries
from controller.broker.gate import journal_entries, redact, routes
from controller.broker.gate.call import Author, Flow, GateRequest
from controller.broker.gate.commands import Follow, Relay
from controller.broker.gate.journal_entries import record_event, request_of
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.request_target import read_path, without_repeats
from controller.broker.gate.routes import CONTEXT_BODY, PROOF_BODY, Route
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares, recovery
from controller.broker.guards.lists import scrub_reply
from controller.broker.handlers import (
    adoption_as_found,
    adoption_labelled,
    container_create,
    container_exec,
    container_lifecycle,
    container_read,
    container_release,
    image,
    image_build,
    networks_volumes,
    proof_uploads,
    prune,
    trimtab_api,
    trimtab_reads,
)
from controller.core.encoding import json_values
from controller.model.mutations import TRUST, Mutation
from controller.model.policy.document import Policy
from controller.model.records import Actor, Context, Reply, Request, Verdict

REGISTRY_AUTH_MAX = 8192
_MEDIA_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.ASCII | re.IGNORECASE)
_ARCHIVES = ("", "application/x-tar", "application/tar", "application/octet-stream")

Handler = (
    Callable[[GateRequest, GateState], Flow[Reply]]
    | Callable[[GateRequest, GateState], Flow[Reply | Relay]]
    | Callable[[GateRequest, GateState], Flow[Follow]]
)


#: The handler of each route, by the name of the route.
ENDPOINTS: dict[str, Handler] = {
    "ping": container_read.ping,
    "ping.head": container_read.ping,
    "version": container_read.version,
    "info": container_read.info,
    "system.df": container_read.system_df,
    "events": container_read.events,
    "container.list": container_read.container_list,
    "container.inspect": container_read.container_inspect,
    "container.logs": container_read.container_stream,
    "container.stats": container_read.container_stream,
    "container.top": container_read.container_report,
    "container.changes": container_read.container_report,
    "container.attach": container_read.container_stream,
    "container.wait": container_read.container_stream,
    "container.resize": container_read.container_stream,
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
    "container.prune": prune.containers,
    "network.prune": prune.networks,
    "volume.prune": prune.volumes,
    Mutation.CONTAINER_ADOPT: adoption_as_found.adopt,
    Mutation.CONTAINER_RELEASE: container_release.release,
    Mutation.EXEC_CREATE: container_exec.create,
    Mutation.EXEC_START: container_exec.start,
    "exec.inspect": container_exec.inspect,
    "exec.resize": container_exec.resize,
    "distribution.inspect": image.distribution_inspect,
    Mutation.IMAGE_REMOVE: image.remove,
    Mutation.IMAGE_BUILD: image_build.build,
    "image.list": image.image_list,
    "image.inspect": image.image_inspect,
    "image.history": image.image_history,
    Mutation.IMAGE_PULL: image.pull,
    Mutation.IMAGE_TAG: image.tag,
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
    Mutation.FILES_DELIVER: deliveries.deliver,
    "own.secret": deliveries.look,
    "own.whoami": trimtab_api.whoami,
    "own.health": trimtab_api.health,
    "own.metrics": trimtab_reads.metrics,
    "own.policy": trimtab_api.policy,
    "own.inventory": trimtab_api.inventory,
    "own.observe": trimtab_reads.observe,
    "own.journal": trimtab_reads.journal,
    "own.journal.follow": trimtab_reads.follow,
    "own.strangers": adoption_labelled.strangers,
    "own.approvals": trimtab_api.approvals,
    "own.records": trimtab_api.records,
    "own.settings": trimtab_api.reload_settings,
    "own.proofs": proof_uploads.proofs,
    "own.proof": proof_uploads.upload,
}


def handle(request: Request, state: GateState) -> Flow[Reply | Relay | Follow]:
    """Serve a request: yield commands, and return the reply, or a stream to relay or follow."""
    identifier = state.new_id()
    policy = state.policy
    actor, context, route = request.actor, None, ""
    try:
        actor, context = journal_entries.identify_context(request)
        call = _parse_request(request, policy, identifier, actor, context)
        route = call.route.name
        client_shares.refuse_if_spent(call, state)
        if call.route.kind == "mutate":
            recovery.refuse_if_restored(call, state)
        if call.route.kind == "mutate" and not call.route.own:
            yield from recovery.refuse_if_forked(call, state)
        elif route == "own.secret":  # it may generate values
            yield from recovery.survey_in_doubt(state)
        answer = yield from ENDPOINTS[route](call, state)
        return scrub_reply(answer, request, actor, state) if isinstance(answer, Reply) else answer
    except Answered as answered:
        return scrub_reply(answered.reply, request, actor, state)
    except Denied as denied:
        by = Author(identifier, actor, context, policy=policy.digest)
        return denied.reply((yield from _record_refusal(state, by, request, route, denied)))


def _parse_request(
    request: Request, policy: Policy, identifier: str, actor: Actor, context: Context | None
) -> GateRequest:
    """Return the request with a known route, checked parameters and a parsed body.

    Raises:
        Denied: the request is malformed, or the route isn't open to the role.
    """
    target = read_path(request.path)
    match = routes.find_route(request.method, target.path, versioned=target.versioned)
    route = match.route
    if actor.role not in route.roles:
        raise Denied(
            "role.denied",
            f"{route.name} isn't for the role {actor.role.value}",
            f"it is for {', '.join(sorted(role.value for role in route.roles))}",
        )
    query = routes.read_parameters(route, request.query)
    return GateRequest(
        id=identifier,
        policy=policy,
        request=request,
        actor=actor,
        context=context,
        route=route,
        names=match.names,
        query=query,
        body=_read_body(request, route, query),
    )


def _read_body(request: Request, route: Route, query: Mapping[str, str]) -> object:
    """Return the parsed body of a request; None if nobody reads one on this route.

    Such a body is checked and dropped, since some clients repeat the query in it.
    """
    headers = dict(request.headers)
    if len(headers.get("x-registry-auth", "")) > REGISTRY_AUTH_MAX:
        raise Denied(
            "header.too-long",
            f"X-Registry-Auth is longer than {REGISTRY_AUTH_MAX} bytes",
            "only the broker sends registry credentials: leave the header out",
            status=400,
        )
    # The engine looks into the archive of a context, and not at this header.
    is_encoded = headers.get("content-encoding", "identity") != "identity"
    if is_encoded and route.body != CONTEXT_BODY:
        raise Denied("body.encoded", "the body is encoded", "send it plain", status=400)
    media_type = headers.get("content-type", "")
    if route.body == PROOF_BODY:
        return _read_proof(request, media_type)
    if route.body == CONTEXT_BODY:
        _expect_context(media_type)
        return None
    if request.body and not _MEDIA_TYPE.fullmatch(media_type):
        raise Denied(
            "body.media-type" if route.body else "body.unexpected",
            f"the body of {route.name} is {redact.text(media_type) or 'of no type'}",
            "send JSON as application/json in UTF-8",
            status=400,
        )
    if not request.body and not route.body:
        return None
    try:
        body = json_values.parse_strict(request.body, bytes_max=route.body_max)
    except json_values.InvalidJson as error:
        raise Denied(
            "body.malformed",
            f"the body: {redact.text(str(error))}",
            "send one JSON object that every reader reads alike",
            status=400,
        ) from error
    body = without_repeats(body, query, route.query)
    return body if route.body else None


def _read_proof(request: Request, media_type: str) -> bytes:
    """Return the objects of a proof. The hashes of the objects are checked later."""
    if media_type != "application/octet-stream":
        raise Denied(
            "body.media-type",
            f"the body is {redact.text(media_type) or 'of no type'}",
            "send the objects as application/octet-stream",
            status=400,
        )
    return request.body


def _expect_context(media_type: str) -> None:
    """Check the type of an archive. The handler reads the archive itself, once the request is judged."""
    if media_type not in _ARCHIVES:
        raise Denied(
            "body.media-type",
            f"the body is {redact.text(media_type)}",
            "send a tar archive as application/x-tar",
            status=400,
        )


def _record_refusal(
    state: GateState, by: Author, request: Request, route: str, denied: Denied
) -> Flow[str]:
    """Journal a refusal, and return the id of its record.

    Beyond the rate limit of the caller, the record is the summary that counts the refusal. If the
    journal can't be written, the refusal is counted and answered all the same.
    """
    subject = denied.subject or request.path
    verdict = denied.verdict or Verdict("deny", denied.rules, denied.reason, denied.remedy)
    refused = request_of(request.method, route, subject, denied.summary)
    result: dict[str, object] = {"status": denied.status, "error": redact.text(denied.reason)}
    record = yield from record_event("refusal", by, refused, verdict=verdict, result=result)
    if record is None:
        state.health.unrecorded_refusals += 1
        return by.id
    return record.entry.id
