"""The controller's metrics: what was counted, the status report in numbers, and the use of services."""

from __future__ import annotations

from collections import Counter

from controller import __version__
from controller.core.metrics.controller_values import ControllerFacts, controller_values
from controller.core.metrics.families import MetricsOwner, ProcessFacts, text_of
from controller.core.metrics.samples import SAMPLE_S
from controller.core.status.facts import Report
from controller.loop.controller import Controller
from controller.system.usage import process_use


class ControllerMetrics:
    """Makes the text of metrics. *began*: when the process began to count, in Unix time. Thread-safe."""

    def __init__(self, controller: Controller, began: float) -> None:
        self._controller = controller
        self._began = began

    def text(self, report: Report | None = None) -> str:
        """Return the metrics as text for Prometheus, of a *report* or of the present status.

        Causes no pass and no observation.
        """
        controller = self._controller
        shared, reconciler = controller.shared, controller.reconciler
        report = controller.status() if report is None else report
        look = controller.sampler.look(fresh_s=2 * SAMPLE_S)
        with shared.lock:
            counted: Counter[tuple[str, ...]] = shared.counted.copy()
            restarts = reconciler.tracker.restarts.copy()
            pass_s, observed_at = shared.pass_s, shared.observed_at
            is_reachable = shared.unreachable is None and observed_at is not None
        for (verb, outcome), number in reconciler.action_log.counted().items():
            counted["trimtab_actions_total", verb, outcome] = number
        facts = ControllerFacts(
            report=report,
            is_engine_reachable=is_reachable,
            observed_at=observed_at,
            pass_s=pass_s,
            queued=controller.keys.waiting,
            restarts=restarts,
            use=look.services,
        )
        cpu_s, memory_bytes = process_use()
        process = ProcessFacts(__version__, cpu_s, memory_bytes, began=self._began)
        return text_of(MetricsOwner.CONTROLLER, controller_values(facts, counted), process)
