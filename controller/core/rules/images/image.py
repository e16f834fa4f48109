"""Rules of a create about its image: admitted by name, trusted by identity, on a known platform."""

from __future__ import annotations

from controller.core.encoding.image_reference import (
    Reference,
    is_image_id,
    matches,
    parse_reference,
    without_credentials,
)
from controller.core.encoding.quoting import quote
from controller.core.engine_api.requests import Finding, Findings, Grant
from controller.core.rules.context import Case, read_reference, reference_text
from controller.core.rules.facts import ImageFacts
from controller.core.rules.images.anonymous_volumes import uncovered
from controller.model import names
from controller.model.inventory import PinnedImage
from controller.model.policy.document import Policy


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
