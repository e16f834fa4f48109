"""Probes into the simulated world: who is at an address, and whether it answers now."""

from __future__ import annotations

from controller.core.drift.probe_verdict import Probe, ProbeOutcome, ProbeResult
from controller.model import names
from tests.sim.engine import SimEngine
from tests.sim.objects import SimContainer
from tests.sim.places import label
from tests.sim.violation import Violation

#: Where every program listens, once it ran for so long.
PORT = 8080
WARM_UP_S = 0.4
#: A flapping program answers for so long, and then doesn't for as long.
FLAP_S = 95.0


class SimProbes:
    """``ports.ProbeTransport``: a question is answered by whoever has that address now."""

    def __init__(self, engine: SimEngine) -> None:
        self._engine = engine
        self._open: list[Probe] = []

    def ask(self, probe: Probe) -> None:
        self._open.append(probe)
        asked = self._engine.containers.get(probe.container)
        if asked is not None and probe.address and probe.address not in asked.addresses:
            raise Violation(4, f"{asked.name} never had the address {probe.address}")

    def answers(self, *, wait_s: float) -> list[ProbeResult]:
        answered, self._open = self._open, []
        return [self._answer(probe) for probe in answered]

    def _answer(self, probe: Probe) -> ProbeResult:
        for container in self._engine.containers.values():
            addresses = {end.address for end in container.networks.values()}
            if container.alive and probe.address and probe.address in addresses:
                well = probe.port == PORT and is_well(self._engine, container)
                return ProbeResult(
                    probe.container, ProbeOutcome.GOOD if well else ProbeOutcome.BAD, "no"
                )
        return ProbeResult(probe.container, ProbeOutcome.UNREACHED, "nobody is there")

    def wake(self) -> None:
        pass


def is_well(engine: SimEngine, container: SimContainer) -> bool:
    """Tell whether a container's program answers now."""
    reference = label(container, names.IMAGE)
    if container.status != "running" or reference in engine.ill:
        return False
    if engine.clock.monotonic() - container.up_since < WARM_UP_S:
        return False
    return reference not in engine.flapping or engine.clock.monotonic() % (2 * FLAP_S) < FLAP_S


def is_troubled(engine: SimEngine, container: SimContainer) -> bool:
    """Tell whether a health check may say that a container doesn't serve."""
    cut_off = not any(end.address for end in container.networks.values())
    probed = container.config.get("Healthcheck") == {"Test": ["NONE"]}
    return probed and (cut_off or label(container, names.IMAGE) in engine.troubled)
