"""Images: which may be seen, pulling, and the ledger that tells pulled from forged.

A local image proves nothing by its name. The ledger has what the engine said after a pull that
the broker asked for, or what an operator vouched for (gate hazards H24 and H25).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import (
    Flow,
    GateRequest,
    engine_reply,
    engine_unavailable,
    parse_json,
    read_engine,
    read_json,
)
from controller.broker.gate.commands import Lost, ReadEngine
from controller.broker.gate.journal_entries import (
    error_text,
    journal_unavailable,
    record_event,
    request_of,
)
from controller.broker.gate.mutate import OUTCOME_UNKNOWN, Change, perform
from controller.broker.gate.refusals import (
    Answered,
    Denied,
    message_reply,
    raise_if_denied,
    rule_of,
)
from controller.broker.gate.request_target import build_path
from controller.broker.gate.routes import PULL_IDLE_S
from controller.broker.gate.state import GateState
from controller.broker.guards import list_filters
from controller.broker.wire.responses import json_reply, refusal
from controller.core.admission import calls
from controller.core.encoding.image_reference import (
    is_image_id,
    matches,
    parse_reference,
    without_credentials,
)
from controller.core.engine_api import pull_errors
from controller.core.rules.facts import ImageFacts
from controller.model.inventory import Inventory
from controller.model.mutations import TRUST, Mutation
from controller.model.policy.document import Policy
from controller.model.records import Reply, Role

#: A registry may be far away.
REGISTRY_S = 30.0
#: By which the gate itself answers a change: journal or engine are away, or its answer was lost.
_OURS = frozenset({502, 503, 504})
_DESCRIPTOR = ("mediaType", "digest", "size")
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_DIGEST_LINE = "Digest: "
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}", re.ASCII)
#: How docker-py asks for a container's image. No repository may be called so.
_BARE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def inspect_image(reference: str, ahead: tuple[str, ...] = ()) -> Flow[Any]:
    """Return the engine's inspect of an image, or None; what is *ahead* is looked at next."""
    return (yield from read_json(f"/images/{reference}/json", ahead))


def digest_of(inspect: dict[str, Any], reference: str) -> str:
    """Return the digest under which *reference*'s repository has the image, or ''."""
    try:
        repository = parse_reference(reference).repository
    except ValueError:
        return ""
    for told in inspect.get("RepoDigests") or ():
        try:
            known = parse_reference(str(told))
        except ValueError:
            continue
        if known.repository == repository:
            return known.digest
    return ""


def facts_of(inspect: dict[str, Any], reference: str) -> ImageFacts:
    """Return what admission must know of an image."""
    config = inspect.get("Config") or {}
    parts = (inspect.get("Os"), inspect.get("Architecture"), inspect.get("Variant"))
    return ImageFacts(
        id=str(inspect.get("Id", "")),
        digest=digest_of(inspect, reference),
        volumes=tuple(sorted(config.get("Volumes") or ())),
        labels=tuple(sorted((str(k), str(v)) for k, v in (config.get("Labels") or {}).items())),
        user=str(config.get("User") or ""),
        exposed_ports=tuple(sorted(config.get("ExposedPorts") or ())),
        platform="/".join(str(part) for part in parts if part),
    )


def image_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /images/json: images under names that the policy admits, under those names only."""
    asked = list_filters.parse(call.query.get("filters", ""), list_filters.IMAGE_KEYS)
    for name in (*asked.get("before", ()), *asked.get("since", ())):
        if not is_known(name, call.policy, state.inventory):
            raise no_such_image(call, name)  # as the engine says it of an image that isn't there
    return json_reply(200, (yield from visible_images(call, asked)))


def visible_images(call: GateRequest, asked: list_filters.Filters) -> Flow[list[dict[str, Any]]]:
    """Return the images that the caller may see, of those that filters ask for."""
    patterns = asked.pop("reference", [])
    query = {**call.query, "filters": list_filters.encode(asked)}
    told = parse_json((yield from _read_ok(build_path("/images/json", query))))
    found = (admitted_names(image, call.policy, patterns) for image in told)
    return [image for image in found if image is not None]


def is_known(name: str, policy: Policy, inventory: Inventory) -> bool:
    """Tell whether clients may ask about an image by this name or id: others aren't there."""
    if _ID.fullmatch(name):
        told = name.removeprefix("sha256:")
        known = {pin.id for pin in inventory.pins.values()}
        known |= {trusted.id for trusted in inventory.ledger.values()}
        return any(each.removeprefix("sha256:").startswith(told) for each in known)
    return calls.admit_reference(name, policy=policy).verdict.decision != "deny"


def _read_ok(path: str) -> Flow[Reply]:
    reply = yield from read_engine(path)
    if reply.status >= 400:
        raise Answered(reply)
    return reply


def admitted_names(
    image: dict[str, Any], policy: Policy, patterns: list[str] | None = None
) -> dict[str, Any] | None:
    """Return an image with those of its names that the policy admits; None if there are none."""
    names = (image.get("RepoTags") or (), image.get("RepoDigests") or ())
    tags, digests = (
        [
            name
            for name in _admitted_references(told, policy)
            if list_filters.is_name_wanted(patterns or [], name)
        ]
        for told in names
    )
    if not tags and not digests:
        return None
    return {**image, "RepoTags": tags, "RepoDigests": digests}


def _admitted_references(references: Iterable[str], policy: Policy) -> list[str]:
    return [
        reference
        for reference in references
        if calls.admit_reference(reference, policy=policy).verdict.decision != "deny"
    ]


def image_inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /images/{image}/json."""
    return json_reply(200, (yield from _find_visible(call, state)))


def image_history(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /images/{image}/history."""
    inspect = yield from _find_visible(call, state)
    layers = parse_json((yield from _read_ok(f"/images/{inspect['Id']}/history")))
    # A layer is also an image, and may have names that aren't shown.
    shown = [
        {**layer, "Tags": _admitted_references(layer.get("Tags") or (), call.policy)}
        for layer in layers
    ]
    return json_reply(200, shown)


def distribution_inspect(call: GateRequest, _: GateState) -> Flow[Reply]:
    """GET /distribution/{image}/json: the engine asks the registry of an admitted reference.

    Only of one: it could be any host otherwise. What credentials a client sends stay here.
    """
    judged = raise_if_denied(
        calls.admit_reference(
            call.names["image"], policy=call.policy, by_client=call.actor.role is Role.CLIENT
        )
    )
    reference = str(judged.summary["reference"])
    answer = yield ReadEngine(
        f"/distribution/{reference}/json",
        deadline_s=REGISTRY_S,
        registry=parse_reference(reference).host,
    )
    if isinstance(answer, Lost):
        raise Answered(engine_unavailable(answer))
    assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
    if answer.status >= 400:
        raise Answered(engine_reply(answer))
    told = parse_json(answer)
    return json_reply(
        200,
        {
            "Descriptor": _members(told.get("Descriptor"), _DESCRIPTOR),
            "Platforms": [_members(each, _PLATFORM) for each in told.get("Platforms") or ()],
        },
    )


def _members(value: object, known: tuple[str, ...]) -> dict[str, object]:
    told = value if isinstance(value, dict) else {}
    return {name: told[name] for name in known if name in told}


def _find_visible(call: GateRequest, state: GateState) -> Flow[dict[str, Any]]:
    name = call.names["image"]
    missing = no_such_image(call, name)
    if _BARE_ID.fullmatch(name):
        name = f"sha256:{name}"
    if is_image_id(name):
        return (yield from _find_visible_by_id(name, call, state, missing))
    try:
        raise_if_denied(
            calls.admit_reference(
                name, policy=call.policy, by_client=call.actor.role is Role.CLIENT
            )
        )
    except Denied as denied:
        # The controller looks at every image that a document names. The create is refused and
        # recorded; a record of each look would fill the journal.
        if call.actor.role is Role.CONTROLLER:
            raise missing from denied
        # Clients that look for any kind of object by a name ask here too: to them it isn't there.
        denied.status, denied.message = 404, no_such_image_message(name)
        raise
    reference = parse_reference(name).canonical
    inspect = yield from inspect_image(reference)
    if inspect is None:
        raise missing
    # An image that a create would refuse isn't there for the controller: so it pulls it.
    if call.actor.role is Role.CONTROLLER and not is_trusted(
        inspect, reference, call.policy, state.inventory
    ):
        raise missing
    return _hide_other_names(inspect, call.policy)


def no_such_image_message(name: str) -> str:
    """Return the engine's words for an image that isn't there."""
    return f"No such image: {redact.text(without_credentials(name))}"


def no_such_image(call: GateRequest, name: str) -> Answered:
    """Return that there is no image of that name, as the engine says it: clients then pull.

    People also get the rule; to the controller a missing image is no refusal.
    """
    message = no_such_image_message(name)
    if call.actor.role is Role.CONTROLLER:
        return Answered(message_reply(404, message))
    told = Denied("image.missing", "the image isn't here", "pull it first", 404, message)
    return Answered(told.reply(call.id))


def _find_visible_by_id(
    name: str, call: GateRequest, state: GateState, missing: Answered
) -> Flow[dict[str, Any]]:
    inspect = yield from inspect_image(name)
    if inspect is None:
        raise missing
    known = {pin.id for pin in state.inventory.pins.values()}
    known |= {trusted.id for trusted in state.inventory.ledger.values()}
    if name not in known and admitted_names(inspect, call.policy) is None:
        raise missing
    return _hide_other_names(inspect, call.policy)


def _hide_other_names(inspect: dict[str, Any], policy: Policy) -> dict[str, Any]:
    kept = admitted_names(inspect, policy)
    return {**inspect, "RepoTags": [], "RepoDigests": []} if kept is None else kept


def is_trusted(
    inspect: dict[str, Any], reference: str, policy: Policy, inventory: Inventory
) -> bool:
    """Tell whether the ledger, or the policy's trustLocal, vouches for a local image."""
    trusted = inventory.ledger.get(reference)
    if trusted is not None and trusted.id == inspect.get("Id"):
        return True
    return matches(parse_reference(reference), policy.images.trust_local)


def host_platform() -> Flow[str]:
    """Return the platform of the engine's host, ``OS/ARCHITECTURE``."""
    told = (yield from read_json("/version")) or {}
    return f"{told.get('Os', '')}/{told.get('Arch', '')}"


def pull(call: GateRequest, state: GateState) -> Flow[Reply]:
    """POST /images/create: pull; what the engine then says of the image goes into the ledger."""
    host = (yield from host_platform()) if call.query.get("platform") else ""
    judged = raise_if_denied(
        calls.admit_pull(call.query, actor=call.actor, policy=call.policy, host=host)
    )
    reference = str(judged.summary.get("reference", ""))
    before = yield from inspect_image(reference)

    def learn(reply: Reply) -> Flow[dict[str, object]]:
        return (yield from _pull_details(reply, reference))

    change = Change(
        mutation=Mutation.IMAGE_PULL,
        subject=reference,
        method="POST",
        path=build_path("/images/create", dict(judged.query)),
        summary={**judged.summary, "before": str((before or {}).get("Id", ""))},
        verdict=judged.verdict,
        stream=True,
        deadline_s=PULL_IDLE_S,
        registry=parse_reference(reference).host,
        code_of=partial(pull_errors.code_of, reference),
    )
    reply = yield from perform(state, call.by, change, learn)
    return _explain_failure(reply, reference, call.id, state)


def _explain_failure(reply: Reply, reference: str, identifier: str, state: GateState) -> Reply:
    """Return the answer to a pull; of one that failed, what a person understands of it.

    Where the lines of it went to the client already, this is one more, in the form of an error's.
    """
    error = _error_of(reply)
    if not error:
        return reply
    told = pull_errors.explain(reference, error, access=state.access)
    status = reply.status if reply.status >= 400 else 500
    reply = refusal(status, told.code, told.reason, remedy=told.remedy, record=identifier)
    value = json.loads(reply.body)
    line = {"error": value["message"], "errorDetail": {"message": value["message"]}}
    return Reply(status, json.dumps({**value, **line}).encode(), reply.headers)


def _error_of(reply: Reply) -> str:
    """Return what the engine said of a pull that failed, or that it said nothing new for long."""
    if reply.status < 400:
        return redact.text(read_progress(reply.body)[0])
    if reply.status in _OURS:
        rule, reason = rule_of(reply)
        if rule == OUTCOME_UNKNOWN and pull_errors.NO_PROGRESS in reason:
            return reason
        if rule:
            return ""  # it isn't the pull that failed
    return error_text(reply)


def _pull_details(reply: Reply, reference: str) -> Flow[dict[str, object]]:
    """Read the end of the progress: it alone tells whether the pull succeeded, and of what.

    A good status only says that the pull began; an image of that name may have been there before.
    """
    error, digest = read_progress(reply.body)
    if error:
        return {"status": 500, "error": redact.text(error)}
    inspect = yield from inspect_image(reference)
    if inspect is None:
        return {"status": 500, "error": "the image isn't there after the pull"}
    if not digest or digest_of(inspect, reference) != digest:
        return {"error": "the engine named no digest for it, so the ledger doesn't know it"}
    return {"reference": reference, "id": str(inspect.get("Id", "")), "digest": digest}


def read_progress(tail: bytes) -> tuple[str, str]:
    """Return the error and the digest that the last lines of a pull tell, '' for none."""
    error = digest = ""
    for line in tail.splitlines():
        try:
            told = json.loads(line)
        except ValueError:  # the first line may be cut
            continue
        if not isinstance(told, dict):
            continue
        error = redact.withhold_secrets(str(told.get("error") or error), {})
        status = told.get("status")
        if isinstance(status, str) and status.startswith(_DIGEST_LINE):
            digest = status.removeprefix(_DIGEST_LINE)
    return error, digest


def trust(call: GateRequest, _: GateState) -> Flow[Reply]:
    """POST /trimtab/v1/trust: an operator vouches for the local image of a reference."""
    body = call.body
    if not isinstance(body, dict) or set(body) != {"reference"}:
        raise Denied("body.invalid", 'expected {"reference": …}', status=400)
    name = str(body["reference"])
    raise_if_denied(
        calls.admit_reference(name, policy=call.policy, by_client=call.actor.role is Role.CLIENT)
    )
    reference = parse_reference(name).canonical
    inspect = yield from inspect_image(reference)
    if inspect is None:
        raise Answered(message_reply(404, f"No such image: {reference}"))
    told: dict[str, object] = {
        "reference": reference,
        "id": str(inspect.get("Id", "")),
        "digest": digest_of(inspect, reference),
    }
    request = request_of("POST", TRUST, reference, told)
    if not (yield from record_event("operator", call.by, request)):
        return journal_unavailable(call.id)
    return json_reply(200, told)
