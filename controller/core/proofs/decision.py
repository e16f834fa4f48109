"""The decision on the controller's changes in a namespace that requires signed sources.

A change is admitted by the newest accepted commit, or by a revision that the broker has itself recorded
as started for the same service. Everything else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.jobs.memory import SCHEDULE
from controller.core.manifests.cron_schedule import next_instant, zone_of
from controller.core.proofs.proven_commit import ProvenCommit
from controller.core.proofs.rendering import (
    CreateShape,
    RenderedObject,
    RenderedWorkload,
    Rendering,
    are_names_of,
    are_same,
    shape_of,
)
from controller.core.records.parts import ProofPart
from controller.core.records.signed_revisions import find_revision, key_of
from controller.model import names
from controller.model.inventory import ContainerItem, Inventory, PinnedImage, SignedRevision
from controller.model.names import Key, short_commit
from controller.model.observed import NO_RUNS, Settings
from controller.model.policy.sections import SignedSource


class NotProven(Exception):
    """Nothing signed admits the change. The code is a rule id."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Evidence:
    """The broker's knowledge of a signed source: rule, rendered commit, and inventory."""

    rule: SignedSource
    rendering: Rendering | None
    inventory: Inventory
    #: The broker's clock, in seconds since the epoch.
    now: float

    def current(self) -> Rendering:
        """Return the rendering of the newest accepted commit.

        Raises:
            NotProven: there is none: no proof was uploaded since the start or the last reload.
        """
        accepted = self.inventory.accepted.get(self.rule.source)
        made = self.rendering
        if accepted is None or made is None or made.proven.commit != accepted.commit:
            raise NotProven(
                "proof.missing",
                f"the broker has no proof of the newest commit of Source {self.rule.source}",
                "nothing: the controller uploads the proof; if not, see `trimtab status`",
            )
        return made


@dataclass(frozen=True, slots=True)
class RunPins:
    """The image that a create's revision is pinned to, and the image that the gate found for the create."""

    own: PinnedImage | None
    found: PinnedImage | None


def admit_create(
    evidence: Evidence,
    key: str,
    asked: CreateShape | None,
    pins: RunPins,
    before: Iterable[CreateShape | None] = (),
) -> ProofPart:
    """Return the proof of a create.

    *before* are the shapes that the create would have under the earlier names of its service: a
    revision from before a move has one of them.

    Raises:
        NotProven: no document, and no recorded revision, is the create.
    """
    made = evidence.current()
    if asked is None:
        raise NotProven("proof.form", "the create has a form that no document has", _REMEDY)
    entry = made.find(key, asked.shape)
    pin = pins.own
    # A run with the image of a service counts for the rollout of that image alone.
    is_borrowed = entry is not None and key not in made.entries
    if entry is not None and entry.has_shape(asked.shape):
        declared, replicas = entry.endpoints, entry.replicas
        # Its occasion is that of the declared service, whose pin the gate found by the occasion.
        pin = pin or (pins.found if is_borrowed else None)
        proof = _part(key, made.proven, entry)
    elif not is_borrowed and (recorded := _first_recorded(evidence, key, (asked, *before))):
        declared = dict(recorded.endpoints)
        replicas = recorded.replicas if entry is None else entry.replicas
        proof = _part(key, recorded, recorded)
        if recorded.shape != asked.shape:
            proof |= ProofPart(former_shape=recorded.shape)
    else:
        raise _unproven(made, key)
    is_run = names.run_of_slot(asked.slot) > 0
    if not is_run and not 0 < names.number_of_slot(asked.slot) <= replicas:
        reason = f"slot {asked.slot} of {key} is beyond its {replicas} replicas"
        raise NotProven("proof.slot", reason, _REMEDY)
    if is_run and not _is_due(evidence, key, entry, asked.occasion):
        reason = f"{key} declares no run for {asked.occasion!r:.128}"
        raise NotProven(
            "proof.occasion", reason, f"trimtab run-job {key}, where its trigger permits"
        )
    # A recorded revision doesn't count: how many runs there are is not part of a revision.
    if asked.completions != ("" if entry is None else entry.completions):
        reason = f"{key} declares other completions than {asked.completions or 1!r:.128}"
        raise NotProven("proof.completions", reason, _REMEDY)
    if not are_names_of(asked.endpoints, declared):
        reason = f"the create has other names on its networks than {key} declares"
        raise NotProven("proof.names", reason, _REMEDY)
    _judge_image(asked, pin)
    return proof | _revision(asked.shape, asked.base, asked.updates, declared, replicas)


def admit_object(evidence: Evidence, name: str, body: object) -> ProofPart:
    """Return the proof of the creation of a network or a volume, or of a delivery.

    Raises:
        NotProven: no document declares the object with this body.
    """
    made = evidence.current()
    found = made.objects.get(name, {}).get(shape_of(body) or "")
    if found is None:
        reason = f"commit {short_commit(made.proven.commit)} declares no {name} in this form"
        raise NotProven("proof.unproven", reason, _REMEDY)
    return _part(found.resource, made.proven, found)


def admit_start(evidence: Evidence, item: ContainerItem) -> None:
    """Raise unless a container may start: by the newest commit, or by a recorded revision.

    Raises:
        NotProven: a proof admitted neither the container nor its revision.
    """
    made, key = evidence.current(), key_of(item)
    entry = made.find(key, item.signed)
    if not item.signed:
        raise NotProven(
            "proof.unproven",
            f"{item.admitted.name} was created without a proof",
            f"replace it: trimtab restart {item.service} -n {item.namespace}",
        )
    if entry is not None and entry.replicas == 0:
        raise NotProven("proof.stopped", f"{key} is declared as stopped", _REMEDY)
    is_current = entry is not None and entry.has_shape(item.signed)
    if not is_current and _recorded(evidence, made, key, item.signed) is None:
        raise _unproven(made, key)


def admit_update(evidence: Evidence, item: ContainerItem, body: object) -> ProofPart:
    """Return the proof of an update that gives a container another revision of its service.

    The proof is empty for declared values, for admitted values, and for the restart policy ``no``
    before the controller stops the container.

    Raises:
        NotProven: another value.
    """
    if not isinstance(body, dict):
        raise NotProven("proof.form", "the update has another form", _REMEDY)
    if body.keys() == {"RestartPolicy"} and are_same(
        "RestartPolicy", _NEVER, body["RestartPolicy"]
    ):
        return ProofPart()
    admit_start(evidence, item)
    for values, proof in _variants(evidence, item):
        if _leads_to(item.admitted, body, values):
            return proof
    entry = evidence.current().find(key_of(item), item.signed)
    for name, value in body.items():
        declared = [] if entry is None else entry.declared(name)
        is_declared = any(are_same(name, each, value) for each in declared)
        if not is_declared and not _is_admitted(item.admitted, name, value):
            reason = f"{key_of(item)} doesn't declare that {name}"
            raise NotProven("proof.update", reason, _REMEDY)
    return ProofPart()


def _variants(
    evidence: Evidence, item: ContainerItem
) -> Iterator[tuple[Mapping[str, object], ProofPart]]:
    """Yield the revisions that an update can lead a container to: values, and the proof.

    Candidates are the declared revision and the recorded revisions with otherwise equal settings.
    """
    made, key = evidence.current(), key_of(item)
    entry, known = made.find(key, item.signed), evidence.inventory.signed.get(key, ())
    mine = find_revision(evidence.inventory, key, item.signed)
    base = "" if mine is None else mine.base
    for shape in () if entry is None else entry.shapes:
        if entry is not None and shape.base == base:
            values = entry.updates_of(shape)
            asked = _revision(shape.shape, base, values, entry.endpoints, entry.replicas)
            yield values, _part(key, made.proven, entry) | asked
    for each in known if base else ():
        if each.base == base and each.started and each.key not in made.proven.revoked:
            values = {name: json.loads(text) for name, text in each.updates}
            asked = _revision(each.shape, base, values, dict(each.endpoints), each.replicas)
            yield values, _part(key, each, each) | asked


def _leads_to(admitted: Settings, body: Mapping[str, object], values: Mapping[str, object]) -> bool:
    """Return True if a container has all of the values after an update."""
    return body.keys() <= values.keys() and all(
        are_same(name, body[name], value) if name in body else _is_admitted(admitted, name, value)
        for name, value in values.items()
    )


def admit_join(
    evidence: Evidence, item: ContainerItem, network: str, aliases: tuple[str, ...]
) -> None:
    """Raise unless a container joins a network of its revision, with the names of its revision.

    Raises:
        NotProven: another network, or other names.
    """
    admit_start(evidence, item)
    key = key_of(item)
    entry = evidence.current().find(key, item.signed)
    known = find_revision(evidence.inventory, key, item.signed)
    declared: Mapping[str, tuple[str, ...]] = {} if known is None else dict(known.endpoints)
    if entry is not None and entry.has_shape(item.signed):
        declared = entry.endpoints
    if not are_names_of(((network, aliases),), declared):
        reason = f"{key} doesn't declare the network {network} with these names"
        raise NotProven("proof.names", reason, _REMEDY)


#: How much later than its starting deadline a run is created: an image can be pulled first.
LATE_S = 900.0
_NEVER = {"Name": "no"}
_SETTINGS = {member: name for name, member in LIMITS.items()}
_REMEDY = "commit the change, sign the commit, and let it be fetched"


def _first_recorded(
    evidence: Evidence, key: str, asked: Iterable[CreateShape | None]
) -> SignedRevision | None:
    """Return the first started revision with one of the shapes, as ``_recorded`` does.

    Raises:
        NotProven: revoked keys signed all revisions with these shapes.
    """
    made, revoked = evidence.current(), None
    for each in asked:
        try:
            found = None if each is None else _recorded(evidence, made, key, each.shape)
        except NotProven as error:
            # The revision of another name can be signed with a good key.
            revoked = revoked or error
        else:
            if found is not None:
                return found
    if revoked is not None:
        raise revoked
    return None


def _recorded(evidence: Evidence, made: Rendering, key: str, shape: str) -> SignedRevision | None:
    """Return the started revision with a shape, if the newest commit may still declare the key.

    Raises:
        NotProven: the key that signed the revision is revoked.
    """
    if not made.may_declare(key):
        return None
    found = find_revision(evidence.inventory, key, shape)
    if found is None or not found.started:
        return None
    if found.key in made.proven.revoked:
        reason = f"commit {short_commit(found.commit)} is signed with the key {found.key}, which is revoked"
        raise NotProven("proof.key-revoked", reason, _REMEDY)
    return found


def _is_due(evidence: Evidence, key: str, entry: RenderedWorkload | None, occasion: str) -> bool:
    """Return True if a job has runs for an occasion.

    The instant of a schedule is one of the schedule's, and isn't long ago unless it had a run. Whether
    an operator asked for a run, and whether a run is repeated, is for ``core.jobs.memory``.
    """
    if entry is None or not occasion.startswith(entry.occasions):
        return False
    if not occasion.startswith(SCHEDULE):
        return True
    schedule = entry.schedule
    try:
        instant = datetime.fromisoformat(occasion.removeprefix(SCHEDULE)).timestamp()
        if schedule is None:
            return False
        if next_instant(schedule.text, zone_of(schedule.zone), instant - 1) != instant:
            return False
    except ValueError:
        return False
    memory = evidence.inventory.jobs.get(Key.parse(key), NO_RUNS)
    had_run = any(each.name == occasion for each in memory.occasions)
    return had_run or instant >= evidence.now - schedule.deadline_s - LATE_S


def _judge_image(asked: CreateShape, pin: PinnedImage | None) -> None:
    """Raise unless the image is the document's reference, or the pin of a proven create."""
    if pin is None and asked.image == asked.reference:
        return
    if pin is not None and pin.signed:
        pinned = {pin.id, asked.reference, *([f"{pin.repository}@{pin.digest}"] * bool(pin.digest))}
        if asked.image in pinned or _is_digest_of(asked, pin):
            return
    reason = f"the revision isn't known to run {asked.image!r:.128} for {asked.reference!r:.128}"
    raise NotProven("proof.image", reason, "let an operator restart the service: trimtab restart")


def _is_digest_of(asked: CreateShape, pin: PinnedImage) -> bool:
    name, _, digest = asked.image.partition("@")
    return bool(pin.digest) and digest == pin.digest and asked.reference.startswith(name)


def _is_admitted(admitted: Settings, name: str, value: object) -> bool:
    if name == "RestartPolicy":
        policy = {"Name": admitted.restart, "MaximumRetryCount": admitted.restart_max}
        return are_same(name, policy, value)
    attribute = _SETTINGS.get(name)
    return attribute is not None and bool(getattr(admitted, attribute) == value)


def _unproven(made: Rendering, key: str) -> NotProven:
    commit = short_commit(made.proven.commit)
    if key in made.unsupported:
        reason = f"{key} can't be proven: {made.unsupported[key]}"
        return NotProven("proof.unsupported", reason, "declare it without, or lift the requirement")
    if made.find(key, "") is None:
        return NotProven("proof.undeclared", f"commit {commit} declares no {key}", _REMEDY)
    reason = f"the container isn't what commit {commit} declares for {key}"
    return NotProven("proof.unproven", reason, _REMEDY)


def _revision(
    shape: str,
    base: str,
    updates: Mapping[str, object],
    endpoints: Mapping[str, tuple[str, ...]],
    replicas: int,
) -> ProofPart:
    """Return the members of a proof by which a revision is remembered."""
    return ProofPart(
        shape=shape,
        base=base,
        updates=dict(updates),
        endpoints={network: list(aliases) for network, aliases in sorted(endpoints.items())},
        replicas=replicas,
    )


def _part(
    key: str,
    commit: ProvenCommit | SignedRevision,
    place: RenderedWorkload | RenderedObject | SignedRevision,
) -> ProofPart:
    """Return the proof by the commit that declares *key*, and by the place of the document.

    A recorded revision has both itself: the newest commit doesn't declare the revision.
    """
    return ProofPart(
        source=commit.source,
        commit=commit.commit,
        signer=commit.signer,
        key=commit.key,
        resource=key,
        path=place.path,
        blob=place.blob,
    )
