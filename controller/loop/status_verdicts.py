"""Admissions: which of the services that run the policy wouldn't admit any more.

Nothing is stopped for it: a changed policy makes nothing stale. The status says it.
"""

from __future__ import annotations

from controller.core.planning.prerequisites import Prerequisites
from controller.core.planning.successor import hypothetical_create
from controller.loop.passes import PassPolicy
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import Verdict
from controller.model.names import Key
from controller.model.observed import Observed


class StatusVerdicts:
    """Verdicts on services as declared, each asked for once per spec and policy."""

    def __init__(self) -> None:
        self._digest = ""
        self._verdicts: dict[Key, tuple[Service, Verdict]] = {}

    def violations(
        self, desired: Desired, observed: Observed | None, rules: PassPolicy | None
    ) -> dict[Key, Verdict]:
        """Return the denials, and what is let through for now, by service."""
        if rules is None or observed is None:
            return {}
        if rules.digest != self._digest:
            self._digest, self._verdicts = rules.digest, {}
        found = {}
        for service in desired.services:
            before = self._verdicts.get(service.key)
            if before is None or before[0] != service:
                prerequisites = Prerequisites(desired, observed, rules.networks)
                verdict = rules.judge(hypothetical_create(service, prerequisites))
                before = self._verdicts[service.key] = (service, verdict)
            if before[1].decision in {"deny", "audit-deny"}:
                found[service.key] = before[1]
        for key in self._verdicts.keys() - {service.key for service in desired.services}:
            del self._verdicts[key]
        return found
