"""Adds the VOLUMEs of images to the services of a plan, by the policy's rule.

``core.rules.images.image_volumes`` has the choices of a policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from controller.core.planning.images_networks_volumes import KnownImages
from controller.core.rules.context import (
    Placement,
    exceptions_of,
    in_force,
    read_reference,
    with_exceptions,
)
from controller.core.rules.images.anonymous_volumes import uncovered
from controller.model.desired.desired import Desired, ImageVolume, Service
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from controller.model.policy.values import AnonymousVolumes
from controller.model.records import Role

#: Returns the policy's treatment of a service's image volumes.
VolumeRule = Callable[[Service], AnonymousVolumes]


def always_refuse(_service: Service) -> AnonymousVolumes:
    """Return ``refuse``, as the policy ``strict`` does."""
    return "refuse"


def volume_rule_of(policy: Policy) -> VolumeRule:
    """Return a policy's rule for image volumes, with the exceptions in force at ``judged_at``."""

    def rule(service: Service) -> AnonymousVolumes:
        place = Placement(service.owner, service.key.namespace, service.key.name)
        image = read_reference(service.spec.image)
        holding = exceptions_of(policy, place, image, role=Role.CONTROLLER)
        return with_exceptions(policy, in_force(holding, policy.judged_at)).images.anonymous_volumes

    return rule


def assume_none(rule: VolumeRule, observed: Observed) -> VolumeRule:
    """Return *rule* for a preview: an image that isn't here counts as an image without VOLUMEs.

    A plan that is carried out waits for the image instead.
    """
    images = KnownImages(observed)
    return lambda service: "refuse" if images.pull(service) is not None else rule(service)


def with_image_volumes(
    desired: Desired,
    observed: Observed,
    rule: VolumeRule,
    *,
    only: frozenset[Key] | None = None,
    pulled: frozenset[tuple[Key, str]] = frozenset(),
) -> Desired:
    """Return *desired* with each service's image volumes that no mount covers.

    ``image_volumes`` is None if the image is not present yet and its volumes matter. With *only*,
    the other services stay unchanged. *pulled*: see ``PlanContext``.
    """
    images = KnownImages(observed, pulled)
    changed: dict[Key, Service] = {}
    chosen = desired.services if only is None else map(desired.service, only)
    for service in filter(None, chosen):
        made = _with_volumes(service, images, rule(service))
        if made != service:
            changed[service.key] = made
    if not changed:
        return desired
    services = tuple(changed.get(each.key, each) for each in desired.services)
    return replace(desired, services=services)


def _with_volumes(service: Service, images: KnownImages, keeping: AnonymousVolumes) -> Service:
    if keeping == "refuse":
        return service
    declared = None if images.pull(service) is not None else images.volumes(service)
    if declared is None:
        return service if keeping == "scratch" else replace(service, image_volumes=None)
    targets = (mount.target for mount in service.spec.mounts)
    volumes = tuple(ImageVolume(path, keeping) for path in uncovered(declared, targets))
    return replace(service, image_volumes=volumes) if volumes else service
