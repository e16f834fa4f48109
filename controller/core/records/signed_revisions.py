"""Accepted commits and signed revisions, folded from records.

A source has a single accepted commit, the last recorded. A service has the last revisions, each once. A
revision counts as started with the first successful start of a container, and with an update by which
a started container came to have all values of the revision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from controller.core.encoding.json_values import canonical, texts_of
from controller.core.records.parts import Closing, ProofPart, RequestPart
from controller.model.inventory import (
    SIGNED_MAX,
    SIGNED_REVISIONS_MAX,
    AcceptedCommit,
    ContainerItem,
    Inventory,
    SignedRevision,
)
from controller.model.mutations import Mutation
from controller.model.names import Key
from controller.model.records import Record

_MAKES = frozenset({Mutation.CONTAINER_CREATE, Mutation.CONTAINER_ADOPT})
_STARTS = frozenset({Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART})


def accept_commit(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory with a newly accepted commit of a source."""
    proof = RequestPart.read(record.entry.request).summary.proof
    accepted = AcceptedCommit(
        source=proof.source,
        commit=proof.commit,
        since=proof.since,
        signer=proof.signer,
        key=proof.key,
        record=record.entry.id,
        time=record.time,
    )
    return replace(inventory, accepted={**inventory.accepted, proof.source: accepted})


def approve_line(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory after an operator approved a commit of another line."""
    proof = RequestPart.read(record.entry.request).summary.proof
    known = inventory.accepted.get(proof.source)
    if known is None or known.commit != proof.since:
        return inventory
    approved = replace(known, next=proof.commit)
    return replace(inventory, accepted={**inventory.accepted, proof.source: approved})


def record_signed(inventory: Inventory, route: str, closing: Closing) -> Inventory:
    """Return the inventory after a closing record of a create or an update with a proof, or of a start."""
    if not closing.applied:
        return inventory
    if route in _MAKES:
        item = inventory.containers.get(closing.result.container or closing.object)
        return inventory if item is None or not item.signed else _created(inventory, item, closing)
    if route == Mutation.CONTAINER_UPDATE:
        item = inventory.containers.get(closing.object)
        proof = closing.summary.proof
        return inventory if item is None or not proof.shape else _updated(inventory, item, proof)
    if route not in _STARTS:
        return inventory
    item = inventory.containers.get(closing.object)
    return inventory if item is None or not item.signed else _started(inventory, item)


def key_of(item: ContainerItem) -> str:
    """Return the key of a container's service or job."""
    return f"{'Job' if item.is_run else 'Service'}/{item.namespace}/{item.service}"


def find_revision(inventory: Inventory, key: str, shape: str) -> SignedRevision | None:
    """Return the remembered revision with a shape."""
    return next((each for each in inventory.signed.get(key, ()) if each.shape == shape), None)


def former_names(inventory: Inventory, key: str) -> tuple[str, ...]:
    """Return the former names of a service in its namespace, by proven moves."""
    return next((each.formers for each in reversed(inventory.signed.get(key, ()))), ())


def all_former_names(
    inventory: Inventory, namespaces: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the former names of the services in some namespaces, by their keys."""
    found = {key: former_names(inventory, key) for key in inventory.signed}
    return {
        k: names for k, names in found.items() if names and Key.parse(k).namespace in namespaces
    }


def move_revisions(inventory: Inventory, source: Key, target: Key) -> Inventory:
    """Return the inventory after a move: the revisions of a service stand under the new name."""
    before, moved = (inventory.signed.get(str(each), ()) for each in (source, target))
    formers = dict.fromkeys((*former_names(inventory, str(source)), source.name))
    formers.pop(target.name, None)
    renamed = [
        replace(
            each,
            formers=tuple(formers)[-SIGNED_REVISIONS_MAX:],
            endpoints=tuple(
                (network, (target.name, *names[1:]) if names else names)
                for network, names in each.endpoints
            ),
        )
        for each in before
    ]
    kept = [each for each in moved if each.shape not in {r.shape for r in renamed}]
    inventory = _with_revisions(inventory, str(source), ())
    return _with_revisions(inventory, str(target), (*kept, *renamed)[-SIGNED_REVISIONS_MAX:])


def _created(inventory: Inventory, item: ContainerItem, closing: Closing) -> Inventory:
    proof = closing.summary.proof
    shapes = (item.signed, proof.former_shape or item.signed)
    known = (find_revision(inventory, key_of(item), each) for each in shapes)
    # An adopted container runs already.
    started = item.started or any(each is not None and each.started for each in known)
    return _with_revision(inventory, item, proof, started=started)


def _updated(inventory: Inventory, item: ContainerItem, proof: ProofPart) -> Inventory:
    """Return the inventory after an update by which a container is of another revision."""
    before = find_revision(inventory, key_of(item), item.signed)
    now = replace(item, signed=proof.shape)
    inventory = replace(inventory, containers=inventory.items.having(now))
    known = find_revision(inventory, key_of(now), now.signed)
    started = any(each is not None and each.started for each in (before, known))
    return _with_revision(inventory, now, proof, started=started)


def _with_revision(
    inventory: Inventory, item: ContainerItem, proof: ProofPart, *, started: bool
) -> Inventory:
    """Return the inventory in which a container's revision is the last one of its service."""
    key = key_of(item)
    revision = SignedRevision(
        shape=item.signed,
        commit=proof.commit,
        endpoints=tuple(sorted((name, texts_of(each)) for name, each in proof.endpoints.items())),
        replicas=proof.replicas or 0,
        started=started,
        source=proof.source,
        signer=proof.signer,
        key=proof.key,
        path=proof.path,
        blob=proof.blob,
        base=proof.base,
        updates=tuple(
            (name, canonical(value).decode()) for name, value in sorted(proof.updates.items())
        ),
    )
    revision = replace(revision, formers=former_names(inventory, key))
    others = [each for each in inventory.signed.get(key, ()) if each.shape != item.signed]
    return _with_revisions(inventory, key, (*others, revision)[-SIGNED_REVISIONS_MAX:])


def _started(inventory: Inventory, item: ContainerItem) -> Inventory:
    key = key_of(item)
    known = find_revision(inventory, key, item.signed)
    if known is None or known.started:
        return inventory
    started = replace(known, started=True)
    revisions = (started if each is known else each for each in inventory.signed[key])
    return _with_revisions(inventory, key, tuple(revisions))


def _with_revisions(
    inventory: Inventory, key: str, revisions: tuple[SignedRevision, ...]
) -> Inventory:
    others = {name: each for name, each in inventory.signed.items() if name != key}
    now = [(key, revisions)] if revisions else []
    kept: Mapping[str, tuple[SignedRevision, ...]] = dict([*others.items(), *now][-SIGNED_MAX:])
    return replace(inventory, signed=kept)
