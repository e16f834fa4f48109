"""Which volumes without a name the services of a plan need, by the policy's rule for them.

See ``core.rules.image_volumes`` for what the policy can decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from controller.core.planning.prerequisites import KnownImages
from controller.core.rules.anonymous_volumes import uncovered
from controller.core.rules.context import exceptions_of, read_reference, with_exceptions
from controller.model.desired.desired import Desired, ImageVolume, Service
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from controller.model.policy.values import AnonymousVolumes

#: Returns what the policy does with a service's volumes without a name.
VolumeRule = Callable[[Service], AnonymousVolumes]


def always_refuse(_service: Service) -> AnonymousVolumes:
    """Return that a volume without a name is refused, as ``strict`` does."""
    return "refuse"


def volume_rule_of(policy: Policy) -> VolumeRule:
    """Return a policy's rule for services' volumes without a name, exceptions included.

    An exception counts as if it were not expired: the broker, which knows the time, decides.
    """

    def rule(service: Service) -> AnonymousVolumes:
        holding = exceptions_of(
            policy,
            owner=service.owner,
            namespace=service.key.namespace,
            service=service.key.name,
            reference=read_reference(service.spec.image),
            now=None,
        )
        return with_exceptions(policy, holding).images.anonymous_volumes

    return rule


def with_image_volumes(
    desired: Desired, observed: Observed, rule: VolumeRule, *, only: Key | None = None
) -> Desired:
    """Return *desired* with what each service's image declares and no mount covers.

    ``image_volumes`` is None where that must be known and isn't yet: the image isn't here.
    With *only*, other services are left as they are.
    """
    images = KnownImages(observed)
    services = tuple(
        _with_volumes(each, images, rule(each)) if only in (None, each.key) else each
        for each in desired.services
    )
    return desired if services == desired.services else replace(desired, services=services)


def _with_volumes(service: Service, images: KnownImages, keeping: AnonymousVolumes) -> Service:
    if keeping == "refuse":
        return service
    declared = None if images.pull(service) is not None else images.volumes(service)
    if declared is None:
        return service if keeping == "scratch" else replace(service, image_volumes=None)
    targets = (mount.target for mount in service.spec.mounts)
    found = tuple(ImageVolume(path, keeping) for path in uncovered(declared, targets))
    return replace(service, image_volumes=found) if found else service
