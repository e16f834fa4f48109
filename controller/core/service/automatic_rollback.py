"""The automatic rollback of a service after a failed rollout."""

from __future__ import annotations

from collections.abc import Iterable

from controller.model.desired.desired import Service
from controller.model.desired.overrides import (
    Overrides,
)
from controller.model.desired.spec.rollout import OnFailure
from controller.model.observed import Container


def should_roll_back(
    service: Service, overrides: Overrides, containers: Iterable[Container]
) -> bool:
    """Return True if a service rolls back automatically from its revision after a failed rollout.

    A revision is rolled back once. After a retry by a person, a second failure causes a rollback
    only if some slot has no serving container of an older revision.
    """
    if overrides.pin is not None or service.spec.rollout.on_failure is not OnFailure.ROLLBACK:
        return False
    kept = overrides.find_revision(service.revision, service.limits)
    if kept is None or not kept.left:
        return True
    others = (c for c in containers if c.revision != service.revision)
    serving = {c.slot for c in others if c.running and c.health != "unhealthy"}
    return not serving >= set(range(1, service.spec.replicas + 1))
