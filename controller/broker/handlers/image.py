"""Images: visibility, pulls, removal, and the ledger of trusted images.

The name of a local image proves nothing. The ledger has the digests of pulls through the broker,
and the images that an operator vouched for.

The ledger has every image from the broker. An image stays while any container uses it. The
controller can't remove a pinned image either: a rollback would need the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from controller.broker.gate import redact, refusals
from controller.broker.gate.call import (
    Flow,
    GateRequest,
    engine_reply,
    engine_unavailable,
    parse_json,
    parse_list,
    read_accounts,
    read_engine,
    read_json,
    read_members,
    read_rows,
)
from controller.broker.gate.commands import Lost, ReadEngine, Rows
from controller.broker.gate.journal_entries import error_text, request_of, require_record
from controller.broker.gate.mutate import OUTCOME_UNKNOWN, Change, perform
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.routes import PULL_IDLE_S
from controller.broker.gate.state import GateState
from controller.broker.guards import lists
from controller.broker.guards.lists import ListRows
from controller.broker.guards.lookup import foreign_object
from controller.broker.wire import error_line, json_reply, refusal
from controller.core.admission import calls
from controller.core.encoding import json_values
from controller.core.encoding.identifiers import (
    is_image_id,
    matches,
    parse_reference,
    repository_of,
    without_credentials,
)
from controller.core.encoding.json_values import list_of, mapping_member, texts_of
from controller.core.engine_api import streams as pull_errors
from controller.core.records.parts import (
    ImagePart,
    RequestPart,
    ResultPart,
    SummaryPart,
    TrustedImagePart,
)
from controller.core.rules.context import ImageFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model.inventory import Inventory
from controller.model.mutations import TRUST, Mutation
from controller.model.policy.document import Policy
from controller.model.records import Reply, Role

#: A registry may be far away.
REGISTRY_S = 30.0
#: Statuses of the gate's own replies: no journal, no engine, or a lost reply.
_OURS = frozenset({502, 503, 504})
_DESCRIPTOR = ("mediaType", "digest", "size")
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_DIGEST_LINE = "Digest: "
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}", re.ASCII)
#: The number of build arguments that an engine writes before a command, followed by NAME=VALUE.
_ARGUMENTS = re.compile(r"(?:RUN )?\|[0-9]+ ", re.ASCII)
#: docker-py asks for the image of a container by a bare id. No repository can have such a name.
_BARE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def inspect_image(reference: str, ahead: tuple[str, ...] = ()) -> Flow[Any]:
    """Return the engine's inspect of an image, or None. The reads at *ahead* will follow."""
    return (yield from read_json(f"/images/{reference}/json", ahead))


def digest_of(inspect: dict[str, Any], reference: str, inventory: Inventory) -> str:
    """Return the digest by which a registry has an image in the repository of *reference*, or ''.

    In the containerd image store the id of every image is such a digest, also where no registry ever
    had the image. There a digest counts if a pull under this reference recorded it.
    """
    found = _named_digest(inspect, reference)
    trusted = inventory.ledger.get(reference)
    is_pulled = trusted is not None and trusted.digest == found
    return found if is_pulled or found != inspect.get("Id") else ""


def _named_digest(inspect: dict[str, Any], reference: str) -> str:
    """Return the digest of an image in the repository of *reference*, or ''."""
    try:
        repository = parse_reference(reference).repository
    except ValueError:
        return ""
    for name in inspect.get("RepoDigests") or ():
        try:
            known = parse_reference(str(name))
        except ValueError:
            continue
        if known.repository == repository:
            return known.digest
    return ""


def facts_of(inspect: dict[str, Any], reference: str, inventory: Inventory) -> ImageFacts:
    """Return the facts of an image for admission."""
    parts = (inspect.get("Os"), inspect.get("Architecture"), inspect.get("Variant"))
    return ImageFacts(
        id=str(inspect.get("Id", "")),
        digest=digest_of(inspect, reference, inventory),
        config=mapping_member(inspect, "Config"),
        platform="/".join(str(part) for part in parts if part),
    )


def with_accounts(facts: ImageFacts, inspect: dict[str, Any]) -> Flow[ImageFacts]:
    """Return the facts with the users and groups of the image, where its layers are folders."""
    data = mapping_member(mapping_member(inspect, "GraphDriver"), "Data")
    lower = str(data.get("LowerDir") or "")
    layers = tuple(filter(None, (str(data.get("UpperDir") or ""), *lower.split(":"))))
    return replace(facts, accounts=(yield from read_accounts(layers)))


def image_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /images/json``: list images under admitted names, with these names only."""
    asked = lists.parse_filters(call.query.get("filters", ""), lists.IMAGE_KEYS)
    for name in (*asked.get("before", ()), *asked.get("since", ())):
        if not is_known(name, call.policy, state.inventory):
            raise no_such_image(call, name)  # the engine's reply for a missing image
    return (yield from visible_images(call, asked))


def visible_images(call: GateRequest, asked: lists.Filters) -> Flow[Reply]:
    """Return the list of the images that the caller can see, after filters."""
    patterns = asked.pop("reference", [])
    query = {**call.query, "filters": lists.encode_filters(asked)}
    rows = ListRows(call.actor)

    def encode(row: dict[str, Any]) -> bytes | None:
        shown = admitted_names(row, call.policy, patterns)
        if shown is None:
            return None
        # The images of a repository share the size of whole rows, as the containers of an owner do.
        name = str(next(iter((*shown["RepoTags"], *shown["RepoDigests"]))))
        return rows.encode(shown, repository_of(name) or "")

    path = build_path("/images/json", query)
    return rows.finish((yield from read_rows(path, Rows(encode))))


def is_known(name: str, policy: Policy, inventory: Inventory) -> bool:
    """Return True if clients can ask about an image by this name or id."""
    if _ID.fullmatch(name):
        digits = name.removeprefix("sha256:")
        known = known_ids(inventory)
        return any(each.removeprefix("sha256:").startswith(digits) for each in known)
    return bool(_admitted_references([name], policy))


def known_ids(inventory: Inventory) -> set[str]:
    """Return the ids of the images that are pinned, or in the ledger."""
    pinned = {image.id for image in inventory.pins.values()}
    return pinned | {trusted.id for trusted in inventory.ledger.values()}


def admitted_names(
    image: dict[str, Any], policy: Policy, patterns: list[str] | None = None
) -> dict[str, Any] | None:
    """Return an image with its admitted names only; None without any."""
    names = (image.get("RepoTags") or (), image.get("RepoDigests") or ())
    tags, digests = (
        [
            name
            for name in _admitted_references(references, policy)
            if lists.is_name_wanted(patterns or [], name)
        ]
        for references in names
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
    """Handle ``GET /images/{image}/json``."""
    inspect = yield from _find_visible(call, state)
    if call.actor.role is not Role.OPERATOR:
        # Older engines repeat the build arguments of the last command here.
        inspect = {name: value for name, value in inspect.items() if name != "ContainerConfig"}
    return json_reply(200, inspect)


def image_history(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /images/{image}/history``."""
    inspect = yield from _find_visible(call, state)
    name = quote(str(inspect.get("Id")), safe=":", errors="replace")
    history = yield from read_engine(f"/images/{name}/history")
    if history.status >= 400:
        raise refusals.Answered(engine_reply(history))
    layers = map(json_values.mapping_of, parse_list(history))
    # A layer is an image too, and may have hidden names.
    shown = [
        {
            **_without_arguments(layer, call.actor.role),
            "Tags": _admitted_references(texts_of(layer.get("Tags")), call.policy),
        }
        for layer in layers
    ]
    return json_reply(200, shown)


def _without_arguments(layer: Mapping[str, Any], role: Role) -> Mapping[str, Any]:
    """Return a layer without the values of build arguments, which only operators see."""
    marked = _ARGUMENTS.match(str(layer.get("CreatedBy")))
    if marked is None or role is Role.OPERATOR:
        return layer
    return {**layer, "CreatedBy": f"{marked[0]}{redact.WITHHELD}"}


def distribution_inspect(call: GateRequest, _: GateState) -> Flow[Reply]:
    """Handle ``GET /distribution/{image}/json``: the engine asks the registry of a reference.

    Only for admitted references, since a reference could name any host. Credentials of a client are
    not forwarded.
    """
    judged = _admit(call, call.names["image"])
    reference = ImagePart.read(judged.summary).reference
    answer = yield ReadEngine(
        f"/distribution/{reference}/json",
        deadline_s=REGISTRY_S,
        registry=parse_reference(reference).host,
    )
    if isinstance(answer, Lost):
        raise refusals.Answered(engine_unavailable(answer))
    assert isinstance(answer, Reply), f"a look was answered by {answer!r}"
    if answer.status >= 400:
        raise refusals.Answered(engine_reply(answer))
    distribution = parse_json(answer)
    platforms = [_members(each, _PLATFORM) for each in list_of(distribution.get("Platforms"))]
    descriptor = _members(distribution.get("Descriptor"), _DESCRIPTOR)
    return json_reply(200, {"Descriptor": descriptor, "Platforms": platforms})


def _admit(call: GateRequest, name: str) -> AdmissionDecision:
    by_client = call.actor.role is Role.CLIENT
    return refusals.raise_if_denied(
        calls.admit_reference(name, policy=call.policy, by_client=by_client)
    )


def _members(value: object, known: tuple[str, ...]) -> dict[str, object]:
    members = value if isinstance(value, dict) else {}
    return {name: members[name] for name in known if name in members}


def _find_visible(call: GateRequest, state: GateState) -> Flow[dict[str, Any]]:
    name = call.names["image"]
    missing = no_such_image(call, name)
    if _BARE_ID.fullmatch(name):
        name = f"sha256:{name}"
    if is_image_id(name):
        return (yield from _find_visible_by_id(name, call, state, missing))
    try:
        _admit(call, name)
    except refusals.Denied as denied:
        # The controller reads every image that a document names. The create is refused and
        # recorded; a record of each read would fill the journal.
        if call.actor.role is Role.CONTROLLER:
            raise missing from denied
        # Clients that search all kinds of objects for a name ask here too: for them, a 404.
        denied.status, denied.message = 404, no_such_image_message(name)
        raise
    reference = parse_reference(name).canonical
    inspect = yield from inspect_image(reference)
    if inspect is None:
        raise missing
    # The controller gets a 404 for an image that a create would refuse, and so pulls the image.
    if call.actor.role is Role.CONTROLLER and not is_trusted(
        inspect, reference, call.policy, state.inventory
    ):
        raise missing
    shown = admitted_names(inspect, call.policy) or _hidden(inspect)
    if call.actor.role is Role.CONTROLLER and not digest_of(inspect, reference, state.inventory):
        # The controller takes a digest for one that a registry has.
        others = [each for each in shown["RepoDigests"] if not each.endswith(f"@{shown['Id']}")]
        shown = {**shown, "RepoDigests": others}
    return shown


def no_such_image_message(name: str) -> str:
    """Return the engine's message for a missing image."""
    return f"No such image: {redact.text(without_credentials(name))}"


def no_such_image(call: GateRequest, name: str) -> refusals.Answered:
    """Return the exception for a missing image, in the engine's wording: clients then pull.

    People also get the rule; for the controller a missing image is no refusal.
    """
    message = no_such_image_message(name)
    if call.actor.role is Role.CONTROLLER:
        return refusals.Answered(refusals.message_reply(404, message))
    denied = refusals.Denied("image.missing", "the image isn't here", "pull it first", 404, message)
    return refusals.Answered(denied.reply(call.id))


def _find_visible_by_id(
    name: str, call: GateRequest, state: GateState, missing: refusals.Answered
) -> Flow[dict[str, Any]]:
    inspect = yield from inspect_image(name)
    if inspect is None:
        raise missing
    kept = admitted_names(inspect, call.policy)
    # Asked last: there are thousands of pins, and nearly every image has an admitted name.
    if kept is None and name not in known_ids(state.inventory):
        raise missing
    return kept or _hidden(inspect)


def _hidden(inspect: dict[str, Any]) -> dict[str, Any]:
    return {**inspect, "RepoTags": [], "RepoDigests": []}


def is_trusted(
    inspect: dict[str, Any], reference: str, policy: Policy, inventory: Inventory
) -> bool:
    """Return True if the ledger, or the policy's trustLocal, vouches for a local image."""
    trusted = inventory.ledger.get(reference)
    if trusted is not None and trusted.id == inspect.get("Id"):
        return True
    return matches(parse_reference(reference), policy.images.trust_local)


def host_platform() -> Flow[str]:
    """Return the platform of the engine's host, ``OS/ARCHITECTURE``."""
    versions = (yield from read_json("/version")) or {}
    return f"{versions.get('Os', '')}/{versions.get('Arch', '')}"


def pull(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /images/create``: pull an image, and record its digest in the ledger."""
    host = (yield from host_platform()) if call.query.get("platform") else ""
    judged = refusals.raise_if_denied(
        calls.admit_pull(call.query, actor=call.actor, policy=call.policy, host=host)
    )
    summary = ImagePart.read(judged.summary)
    reference = summary.reference
    before = yield from inspect_image(reference)

    def learn(reply: Reply) -> Flow[ResultPart]:
        return (yield from _pull_details(reply, reference))

    path = build_path("/images/create", dict(judged.query))
    summary |= ImagePart(before=str((before or {}).get("Id", "")))
    change = replace(
        Change.of(Mutation.IMAGE_PULL, reference, path, judged, summary.members),
        stream=True,
        deadline_s=PULL_IDLE_S,
        registry=parse_reference(reference).host,
        code_of=partial(pull_errors.pull_error_code, reference),
    )
    reply = yield from perform(state, call.by, change, learn)
    is_local = before is not None and not is_trusted(
        before, reference, call.policy, state.inventory
    )
    return _explain_failure(reply, reference, call.id, state, is_local=is_local)


def _explain_failure(
    reply: Reply, reference: str, identifier: str, state: GateState, *, is_local: bool
) -> Reply:
    """Return the reply to a pull; for a failed pull, with an explanation.

    *is_local*: the engine has a local image of this name, without trust.

    If the client already got lines of the pull, the explanation is one more line.
    """
    error = _error_of(reply)
    if not error:
        return reply
    explanation = pull_errors.explain_pull_error(
        reference, error, access=state.access, is_local=is_local
    )
    status = reply.status if reply.status >= 400 else 500
    reply = refusal(
        status, explanation.code, explanation.reason, remedy=explanation.remedy, record=identifier
    )
    return replace(reply, body=error_line(reply))


def _error_of(reply: Reply) -> str:
    """Return the engine's error for a failed pull, or an error if the pull made no progress."""
    if reply.status < 400:
        return redact.text(read_progress(reply.body)[0])
    if reply.status in _OURS:
        rule, reason = refusals.rule_of(reply)
        if rule == OUTCOME_UNKNOWN and pull_errors.NO_PROGRESS in reason:
            return reason
        if rule:
            return ""  # the gate refused; the pull itself did not fail
    return error_text(reply)


def _pull_details(reply: Reply, reference: str) -> Flow[ResultPart]:
    """Read success or failure of a pull, and the digest, from the end of the progress.

    A status of 200 only means that the pull began, and an older image may have the same name.
    """
    error, digest = read_progress(reply.body)
    if error:
        return ResultPart(status=500, error=redact.text(error))
    inspect = yield from inspect_image(reference)
    if inspect is None:
        return ResultPart(status=500, error="the image isn't there after the pull")
    if not digest or _named_digest(inspect, reference) != digest:
        return ResultPart(error="the engine named no digest for it, so the ledger doesn't know it")
    image = TrustedImagePart(reference=reference, id=str(inspect.get("Id", "")), digest=digest)
    return ResultPart.read(image.members)


def read_progress(tail: bytes) -> tuple[str, str]:
    """Return the error and the digest in the last lines of a pull; '' for none."""
    error = digest = ""
    for line in tail.splitlines():
        try:
            progress = json_values.parse_json(line)
        except ValueError:  # the first line may be cut
            continue
        if not isinstance(progress, dict):
            continue
        error = redact.withhold_secrets(str(progress.get("error") or error), {})
        status = progress.get("status")
        if isinstance(status, str) and status.startswith(_DIGEST_LINE):
            digest = status.removeprefix(_DIGEST_LINE)
    return error, digest


def tag(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /images/{image}/tag``: an operator gives a trusted image another admitted name.

    Raises:
        Denied: ``image.untrusted``: the ledger vouches under no name for the image. As ``_admit``.
    """
    name = f"{call.query.get('repo', '')}:{call.query.get('tag') or 'latest'}"
    judged = _admit(call, name)
    named = parse_reference(name)
    inspect = yield from _find_visible(call, state)
    identifier = str(inspect.get("Id", ""))
    vouched = [each for each in state.inventory.ledger.values() if each.id == identifier]
    if not vouched:
        raise refusals.Denied(
            "image.untrusted",
            f"{redact.text(call.names['image'])} is a local image without trust: its content is unknown",
            "let an operator run `trimtab image trust NAME` first",
        )
    before = yield from inspect_image(named.canonical)

    def learn(_: Reply) -> Flow[ResultPart]:
        now = yield from inspect_image(named.canonical)
        if now is None or now.get("Id") != identifier:
            return ResultPart(error="the name means another image by now")
        # What documents of one owner built stays that owner's.
        trusted = TrustedImagePart(
            reference=named.canonical,
            id=identifier,
            digest="",
            builder=min(each.owner for each in vouched),
        )
        return ResultPart.read(trusted.members)

    summary = SummaryPart.read(judged.summary) | SummaryPart(
        before=str((before or {}).get("Id", ""))
    )
    query = {"repo": named.repository, "tag": named.tag}
    path = build_path(f"/images/{quote(identifier, safe=':')}/tag", query)
    change = Change.of(Mutation.IMAGE_TAG, named.canonical, path, judged, summary.members)
    return (yield from perform(state, call.by, change, learn))


def trust(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /trimtab/v1/trust``: an operator vouches for the local image of a reference."""
    body = call.body
    if not isinstance(body, dict) or set(body) != {"reference"}:
        raise refusals.Denied("body.invalid", 'expected {"reference": …}', status=400)
    name = str(body["reference"])
    _admit(call, name)
    reference = parse_reference(name).canonical
    inspect = yield from inspect_image(reference)
    if inspect is None:
        raise refusals.Answered(refusals.message_reply(404, f"No such image: {reference}"))
    trusted = TrustedImagePart(
        reference=reference,
        id=str(inspect.get("Id", "")),
        digest=digest_of(inspect, reference, state.inventory),
    ).members
    request = request_of("POST", TRUST, reference, trusted)
    yield from require_record("operator", call.by, request)
    return json_reply(200, trusted)


LEARNED_MAX = 64


def remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Judge and perform a removal: of a name, or of an image by its id."""
    judged = raise_if_denied(calls.admit_image_remove(call.query))
    named = call.names["image"]
    subject = named if is_image_id(named) else _canonical(named)
    inspect = yield from inspect_image(subject)
    if inspect is None:
        raise no_such_image(call, named)
    identifier = str(inspect.get("Id", ""))
    if not _is_in_ledger(state, subject, identifier, inspect):
        raise foreign_object(f"No such image: {redact.text(named)}", subject)
    yield from _refuse_if_used(call, state, subject, identifier)
    path = build_path(f"/images/{subject}", dict(judged.query))
    named_image = ImagePart(reference=subject, image_id=identifier).members
    summary = {**named_image, **dict(judged.query)}
    change = Change.of(Mutation.IMAGE_REMOVE, subject, path, judged, summary)
    return (yield from perform(state, call.by, change, _removal_details))


def _canonical(named: str) -> str:
    try:
        return parse_reference(named).canonical
    except ValueError as error:
        raise Denied(
            "image.invalid",
            redact.text(str(error)),
            "name the image with its registry and tag, or by its full id",
            status=400,
            subject=redact.text(named),
        ) from None


def _is_in_ledger(state: GateState, subject: str, identifier: str, inspect: dict[str, Any]) -> bool:
    """Return True if the ledger has the name of the image or, for an id, all names of the image.

    A removal by id removes every name, including names added by somebody else.
    """
    known = {r for r, trusted in state.inventory.ledger.items() if trusted.id == identifier}
    if subject != identifier:
        return subject in known
    tags = [str(tag) for tag in inspect.get("RepoTags") or ()]
    return bool(known) and known >= set(_canonical_references(tags))


def _canonical_references(references: Iterable[str]) -> Iterable[str]:
    for reference in references:
        try:
            yield parse_reference(reference).canonical
        except ValueError:
            yield reference


def _refuse_if_used(
    call: GateRequest, state: GateState, subject: str, identifier: str
) -> Flow[None]:
    """Refuse to remove the image of a container or of a create in progress, or a pinned image.

    Raises:
        Denied: ``image.used``, ``image.needed``.
    """
    listed = yield from read_members("/containers/json?all=1", "ImageID")
    users = sum(1 for each in listed if each.get("ImageID") == identifier)
    for intent in state.inventory.open.values():
        request = RequestPart.read(intent.request)
        creates = request.route == Mutation.CONTAINER_CREATE
        users += creates and request.summary.part(ImagePart).image_id == identifier
    if users:
        raise Denied(
            "image.used",
            f"{users} containers use it",
            "remove them first",
            status=409,
            subject=subject,
        )
    pinned = [r for r, image in state.inventory.pins.items() if image.id == identifier]
    if pinned and call.actor.role is Role.CONTROLLER:
        raise Denied(
            "image.needed",
            f"{len(pinned)} revisions are pinned to it",
            "let an operator remove it, if no rollback needs it",
            status=409,
            subject=subject,
        )


def _removal_details(reply: Reply) -> Flow[ResultPart]:
    """Return the removed names and images."""
    yield from ()
    rows = [each for each in parse_list(reply) if isinstance(each, dict)]
    untagged = _canonical_references(str(row["Untagged"]) for row in rows if "Untagged" in row)
    deleted = (str(row["Deleted"]) for row in rows if "Deleted" in row)
    return ResultPart(untagged=tuple(untagged)[:LEARNED_MAX], deleted=tuple(deleted)[:LEARNED_MAX])
