"""Rules about images: admitted images, and volumes that images declare.

The paths at which a container needs an unnamed volume, and the names of these volumes.

Names are deterministic: a later container of the same slot finds the same volume.

Rules of a create about its image: admitted by name, trusted by identity, on a known platform.

The policy's mounts for unnamed volumes: a VOLUME of the image, or one that the request asks for.

Without them the engine would create a volume with a random name, lost to later containers.
The policy decides instead (``images.anonymousVolumes``):

- ``refuse``: the create is refused; the remedy names the mount to add.
- ``slot``: a named, permanent volume. A service's replica gets the volume of its slot
  (``shop.redis.1.data-1a2b3c``), so its successor finds the same data. A client's container gets
  a volume named after the container. With ``--rm`` it gets a tmpfs instead, since nothing would
  use the volume again.
- ``scratch``: a tmpfs of the policy's default size, empty at each start.

Names are deterministic, and no volume is ever removed here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from controller.core.encoding.identifiers import (
    Reference,
    is_image_id,
    matches,
    parse_reference,
    without_credentials,
)
from controller.core.encoding.json_values import digest
from controller.core.encoding.text import quote
from controller.core.engine_api.requests import Finding, Findings, Grant, MountRequest
from controller.core.rules.context import Case, ImageFacts, name_of, read_reference, reference_text
from controller.model import names
from controller.model.inventory import PinnedImage
from controller.model.names import Key, qualified
from controller.model.policy.document import Policy

if TYPE_CHECKING:
    from controller.model.desired.desired import ImageVolume, Service


#: Fixed for good: another bound would change the names of existing volumes.
VOLUME_NAME_MAX = 63
_TAIL_MAX = 20
#: The least number of characters for the path. The longest slot has 52 characters.
_TAIL_MIN = 3
_MARK = 6
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_OF_A_SLOT = re.compile(r"[a-z0-9.-]+\.[1-9][0-9]{0,2}\.[A-Za-z0-9_-]+-[0-9a-f]{6}", re.ASCII)


def uncovered(declared: Iterable[str], targets: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of *declared* without a mount among *targets*, normalized and sorted."""
    covered = set(targets)
    return tuple(sorted({posixpath.normpath(path) for path in declared} - covered))


def volume_name(holder: str, path: str) -> str:
    """Return the name of the volume of *holder* at *path*.

    The holder is a slot, or a client's container.
    Example: ``volume_name("shop.redis.1", "/data")`` is ``shop.redis.1.data-`` and 6 hex digits.
    """
    mark = digest(path)[:_MARK]
    room = VOLUME_NAME_MAX - len(holder) - _MARK - 2
    if room < _TAIL_MIN:
        mark, room = digest([holder, path])[:_MARK], _TAIL_MIN
        holder = holder[: VOLUME_NAME_MAX - _MARK - 2 - _TAIL_MIN]
    last = _UNFIT.sub("-", path.rpartition("/")[2]).strip("-") or "data"
    return f"{holder}.{last[: min(room, _TAIL_MAX)]}-{mark}"


def slot_volume(key: Key, slot: int | str, path: str) -> str:
    """Return the name of a slot's volume at *path*."""
    return volume_name(qualified(key.namespace, f"{key.name}.{slot}"), path)


def is_slot_volume(name: str) -> bool:
    """Return True if a name has the form of a slot's volume, which only the controller creates."""
    return _OF_A_SLOT.fullmatch(name) is not None


def slot_volumes(service: Service, slot: int) -> tuple[tuple[ImageVolume, str], ...]:
    """Return a slot's volumes at the image's VOLUMEs, each with its name ('': a tmpfs)."""
    return tuple(
        (each, slot_volume(service.key, slot, each.path) if each.keeping == "slot" else "")
        for each in service.image_volumes or ()
    )


def describe(volume: ImageVolume, name: str) -> str:
    """Return a line about such a path: ``/data: volume shop.redis.1.data-1a2b3c (slot)``."""
    kind = f"volume {name}" if name else "tmpfs"
    return f"{volume.path}: {kind} ({volume.keeping})"


def image_allowed(case: Case) -> Findings:
    """The reference is valid, and the policy admits it."""
    text = reference_text(case.request, case.actor)
    yield from judge_reference(text, case.policy, path="Image")
    asked = case.request.image
    if not case.by_controller or asked == text or is_image_id(asked):
        return
    named, written = read_reference(asked), case.reference
    if named is None or written is None or named.repository != written.repository:
        # Later slots and repairs are admitted by the label's reference.
        label, actual = without_credentials(text), without_credentials(asked)
        reason = f"the label {names.IMAGE} says {label!r}, the image is {actual!r}"
        remedy = "label the container with the reference that it is made from"
        yield Finding("image.mismatch", "Image", reason, remedy)


def judge_reference(text: str, policy: Policy, *, path: str) -> Findings:
    """Yield the reasons why a reference is not admitted."""
    try:
        reference = parse_reference(text)
    except ValueError as error:
        remedy = "name the image as REGISTRY/PATH:TAG, or with @sha256:DIGEST"
        yield Finding("image.invalid", path, str(error), remedy)
        return
    images = policy.images
    if not matches(reference, images.allow):
        allowed = ", ".join(images.allow)
        reason = f"{_named(text, reference)} is not under an admitted prefix ({allowed})"
        folder = reference.repository.rpartition("/")[0] + "/"
        permit, remedy = Grant("add", "images.allow", folder), "use an image under one of them"
        yield Finding("image.not-allowed", path, reason, remedy, permit=permit)
    if images.require_digest and not reference.digest:
        reason = f"{_named(text, reference)} has a tag, which can move, and no digest"
        permit, remedy = Grant("set", "images.requireDigest", False), "add @sha256:DIGEST"
        yield Finding("image.mutable", path, reason, remedy, tolerable=True, permit=permit)


def _named(text: str, reference: Reference) -> str:
    """Return a reference as written, and its canonical form if that differs."""
    full = "" if text == reference.canonical else f" ({reference.canonical})"
    return f"{quote(text)}{full}"


def image_trusted(case: Case) -> Findings:
    """The engine's image for the reference is the one that the gate admitted under it.

    A pinned image is trusted under the repository of its pin, and with the digest that the reference
    names, if it names one.
    """
    facts, reference = case.facts, case.reference
    if facts is None or reference is None or not matches(reference, case.policy.images.allow):
        return
    image, pin = facts.image, facts.pin
    name = reference.canonical
    asked = case.request.image
    named = read_reference(asked)
    if image is None:
        yield Finding("image.missing", "Image", f"{name} isn't here", "pull it first")
    elif is_image_id(asked) and asked != image.id:
        yield Finding("image.moved", "Image", f"{asked} isn't the pinned image of {name}")
    elif named is not None and named.digest and image.digest not in {"", named.digest}:
        yield Finding("image.moved", "Image", f"{name} isn't {named.digest} here")
    elif pin is not None and (conflict := _pin_conflict(case, pin, reference, image)):
        yield conflict
    elif not _has_trusted_pin(pin):
        yield from _judge_ledger(case, reference, image)


def _judge_ledger(case: Case, reference: Reference, image: ImageFacts) -> Findings:
    """Yield why nothing vouches for an image: the ledger, or the policy for names of local images."""
    trusted = case.facts.trusted if case.facts is not None else None
    name = reference.canonical
    is_known = trusted is not None and trusted.id == image.id
    if trusted is not None and is_known and trusted.owner not in {"", case.owner}:
        reason = f"{name} was built here by documents of another owner"
        yield Finding("image.untrusted", "Image", reason, "build or pull an image of your own")
    elif is_known or matches(reference, case.policy.images.trust_local):
        return
    elif trusted is None:
        reason = f"{name} is a local image without trust: its content is unknown"
        remedy = f"pull it through the gate, or let an operator run `trimtab image trust {name}`"
        yield Finding("image.untrusted", "Image", reason, remedy)
    else:
        reason = f"{name} means another image now than the one that was let in ({trusted.id})"
        remedy = f"pull it through the gate again, or run `trimtab image trust {name}`"
        yield Finding("image.moved", "Image", reason, remedy)


def _pin_conflict(
    case: Case, pin: PinnedImage, reference: Reference, image: ImageFacts
) -> Finding | None:
    """Return the finding if a revision's pin is no image of the reference, else None."""
    revision = case.request.label(names.REVISION)
    remedy = "a change of the service's document makes another revision, with an image of its own"
    if pin.repository != reference.repository:
        reason = (
            f"revision {revision} runs an image of {pin.repository}: "
            f"it can't be created as {reference.canonical}"
        )
        return Finding("image.mismatch", "Image", reason, remedy)
    # The id is a digest of the image, too: in the containerd image store that of its manifest.
    if reference.digest in {"", image.digest, image.id} or _is_in_ledger(case):
        return None
    actual = image.digest or "a local image without a digest"
    reason = f"revision {revision} runs {actual}, and {reference.canonical} names another digest"
    return Finding("image.moved", "Image", reason, remedy)


def _has_trusted_pin(pin: PinnedImage | None) -> bool:
    return pin is not None and not pin.by_policy


def _is_in_ledger(case: Case) -> bool:
    """Return True if the gate admitted this very image under this very reference."""
    facts = case.facts
    if facts is None or facts.image is None or facts.trusted is None:
        return False
    return facts.trusted.id == facts.image.id


def is_trusted_by_policy(case: Case) -> bool:
    """Return True if only the policy's ``images.trustLocal`` vouches for the image of a create."""
    facts = case.facts
    if facts is None or facts.image is None:
        return False
    return not _has_trusted_pin(facts.pin) and not _is_in_ledger(case)


def platform_known(case: Case) -> Findings:
    """The platform is the host's own or a listed one: another platform is another manifest.

    The image is judged by the config of the platform that the engine shows. In the containerd image store
    another platform, with another config, can have the same id.
    """
    host = case.facts.host.platform if case.facts else ""
    if host:  # unknown in a preview
        yield from judge_platform(case.platform, host, case.policy)
    shown = case.facts.image.platform if case.facts and case.facts.image else ""
    if shown and case.platform and shown.split("/")[:2] != case.platform.split("/")[:2]:
        reason = f"the engine shows the image for {shown}, and {case.platform!r} is asked for"
        yield Finding(
            "image.platform", "platform", reason, f"leave it out, or remove the image for {shown}"
        )


#: The variants of an architecture. Clients append them to the platform.
_VARIANTS = {
    "linux/amd64": ("v1", "v2", "v3", "v4"),
    "linux/arm64": ("v8", "v9"),
    "linux/arm": ("v5", "v6", "v7"),
}


def judge_platform(asked: str, host: str, policy: Policy) -> Findings:
    """Yield a finding for a platform other than the host's own and the listed ones."""
    own = (host, *(f"{host}/{variant}" for variant in _VARIANTS.get(host, ())))
    if asked and asked not in (*own, *policy.images.platforms):
        reason = f"the platform {asked!r}" + (f", on a host of {host}" if host else "")
        permit = Grant("add", "images.platforms", asked)
        yield Finding("image.platform", "platform", reason, "leave it out", permit=permit)


def anonymous_volumes(case: Case) -> Findings:
    """No anonymous volumes: they have no owner and no quota, and each recreate loses their data."""
    if case.policy.images.anonymous_volumes != "refuse":
        return
    # Clients list the targets of their mounts in ``Volumes`` too: those have a volume.
    mounted = {mount.target for mount in case.request.mounts}
    for mount in case.request.mounts:
        if mount.type == "volume" and not mount.source:
            yield _anonymous(mount.path, mount.target, "asked for")
    for path in uncovered(case.request.volumes, mounted):
        if f"Volumes.{path}" in case.inherited:
            yield _anonymous("Image", path, "declared by the image")
        else:
            yield _anonymous(f"Volumes.{path}", path, "asked for")


def _anonymous(where: str, path: str, how: str) -> Finding:
    reason = f"the volume at {path} is {how} and has no name: its data is lost at each recreate"
    remedy = f"mount a volume there: {{type: volume, source: NAME, target: {path}}}, or a tmpfs"
    permit = Grant("set", "images.anonymousVolumes", "slot")
    return Finding("volume.anonymous", where, reason, remedy, tolerable=True, permit=permit)


# A create at the gate


def mounts_of(case: Case) -> tuple[MountRequest, ...]:
    """Return the mounts of a create: the requested ones with their volumes, then the policy's own.

    An existing container keeps its mounts.
    """
    if case.facts is not None and case.facts.existing:
        return case.request.mounts
    asked = tuple(
        _with_source(case, mount) if mount.type == "volume" and not mount.source else mount
        for mount in case.request.mounts
    )
    paths = uncovered(case.request.volumes, (mount.target for mount in asked))
    if case.policy.images.anonymous_volumes == "refuse":
        return asked
    return (
        *asked,
        *(_with_source(case, MountRequest("volume", "", path, path="Image")) for path in paths),
    )


def _with_source(case: Case, mount: MountRequest) -> MountRequest:
    """Return an unnamed volume mount as a named volume or a tmpfs, by the policy.

    Unchanged under ``refuse``: the rule ``image.anonymous_volumes`` reports the mount.
    """
    match case.policy.images.anonymous_volumes:
        case "slot" if not case.request.auto_remove and not _is_run(case):
            return replace(mount, source=volume_name(_holder(case), mount.target))
        case "slot" | "scratch":
            size = case.policy.resources.tmpfs.default
            return MountRequest(
                "tmpfs", "", mount.target, mount.read_only, path=mount.path, size=size
            )
        case _:
            return mount


def kept_volumes(case: Case) -> tuple[str, ...]:
    """Return the names of the volumes that the gate creates if they are absent.

    These are the policy's own volumes and, if the policy allows, a client's named volumes.
    Empty if there are too many mounts: an image can declare thousands, each a look-up.
    """
    if len(mounts_of(case)) > case.policy.mounts.max:
        return ()
    named = () if makes_named(case) else {mount.source for mount in case.request.mounts}
    # A mode of the rule may tolerate an unnamed volume: then the engine creates it.
    sources = (mount.source for mount in mounts_of(case) if mount.type == "volume")
    return tuple(source for source in sources if source and source not in named)


def makes_named(case: Case) -> bool:
    """Return True if the gate creates an absent volume that the create names."""
    return case.policy.mounts.create_volumes and not case.by_controller


def _holder(case: Case) -> str:
    if not case.by_controller:
        return name_of(case)
    slot = case.request.label(names.SLOT)
    return qualified(case.namespace, f"{case.service}.{slot}")


def _is_run(case: Case) -> bool:
    """Return True for a run of a job: no later run would find its volume, so it gets a tmpfs."""
    return names.run_of_slot(case.request.label(names.SLOT)) > 0
