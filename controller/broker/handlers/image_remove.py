"""Handle ``DELETE /images/{image}``: remove unused images that came through the broker.

The ledger has every image from the broker. An image stays while any container uses it. The
controller can't remove a pinned image either: a rollback would need the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import Flow, GateRequest, parse_list, read_members
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards.lookup import foreign_object
from controller.broker.handlers import image as images
from controller.core.admission import calls
from controller.core.encoding.identifiers import is_image_id, parse_reference
from controller.core.records.parts import ImagePart, RequestPart, ResultPart
from controller.model.mutations import Mutation
from controller.model.records import Reply, Role

LEARNED_MAX = 64


def remove(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Judge and perform a removal: of a name, or of an image by its id."""
    judged = raise_if_denied(calls.admit_image_remove(call.query))
    named = call.names["image"]
    subject = named if is_image_id(named) else _canonical(named)
    inspect = yield from images.inspect_image(subject)
    if inspect is None:
        raise images.no_such_image(call, named)
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
