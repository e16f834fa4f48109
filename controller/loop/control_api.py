"""The control API: answers the requests of the control socket, among them passes on request."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace

from controller import __version__
from controller.core.status.conditions import ENDED, unmet
from controller.loop.control_socket import ActRequest, PassRequest
from controller.loop.full_plan import Convergence, FullPlan
from controller.loop.operator_api import OperatorApi
from controller.loop.worker_slots import PassLock
from controller.model.errors import EngineError, UsageError
from controller.model.names import Key
from controller.ports import Clock

#: How often a waiting request checks the convergence, besides after each action.
CONVERGENCE_S = 1.0
_KNOWN_TO_BROKER = frozenset({"Job", "Network", "Volume"})


class ControlApi:
    """``control_socket.ControlBackend`` over a controller. Thread-safe.

    *stopped* is set once the process stops: waiting requests then end. *directory* is the DIR of the
    controller.
    """

    def __init__(
        self,
        operator: OperatorApi,
        pass_lock: PassLock,
        clock: Clock,
        stopped: threading.Event,
        *,
        directory: str,
    ) -> None:
        self._operator = operator
        self._controller = operator.controller
        self._pass_lock = pass_lock
        self._clock = clock
        self._stopped = stopped
        self._directory = directory
        # These questions need no work of this class.
        self.status = self._controller.status
        self.published = self._controller.reporter.published
        self.await_published = self._controller.reporter.await_published
        self.progress = operator.progress
        self.history = operator.history
        self.state = operator.state
        self.secret_contents = operator.secret_contents
        self.failed_runs = operator.failed_runs

    def plan(self) -> dict[str, object]:
        """Return the plan of everything, and the removals permitted by an approval."""
        # A start prints no plan.
        from controller.core.enforcement import approvals
        from controller.core.review.plan_json import review_json

        full_plan = self._operator.plan()
        going = approvals.planned_removals(full_plan.plan, full_plan.observed)
        shown = review_json(self._operator.review(full_plan))
        return {"plan": shown, "going": [asdict(each) for each in going]}

    def review(self, *, version: str, directory: str) -> dict[str, object]:
        """Return the review of everything for a command of a version about a DIR.

        Reads the files at each request, and observes everything unless nothing changed.

        Raises:
            UsageError: the command has another version than this process, or is about another DIR.
        """
        if (version, directory) != (__version__, self._directory):
            raise UsageError(
                "control.differs",
                f"trimtab {__version__} runs here on {self._directory or 'no directory'}",
                remedy="name this directory, or restart the controller after an update",
            )
        from controller.core.review.plan_json import answer_json  # a start prints no plan

        return answer_json(self._operator.review(self._operator.plan()))

    def act(self, request: ActRequest) -> dict[str, object]:
        """Change an override of a service; passes carry it out later.

        The answer to a suspension or a stop waits until earlier actions have ended, at most
        until the request's timeout; ``quiet`` is False on timeout.
        """
        deadline = self._clock.monotonic() + request.timeout_s
        decision = self._operator.act(request.act, only_ask=request.only_ask)
        quiet = True
        if request.act.verb in ("suspend", "stop") and not request.only_ask:
            keys = self._controller.keys
            quiet = keys.await_done(request.act.key, timeout_s=request.timeout_s)
            left_s = max(0.0, deadline - self._clock.monotonic())
            quiet = self._pass_lock.await_shared(timeout_s=left_s) and quiet
        return {
            "changed": decision.changed,
            "text": decision.text,
            "revision": decision.revision,
            "anew": decision.anew,
            "quiet": quiet,
        }

    def observe(self) -> dict[str, object]:
        """Observe everything by the policy of now, and try at once what was refused.

        Raises:
            EngineError: engine or broker can't be reached.
        """
        full_plan = self._controller.observe_everything()
        self._operator.retry_refused()  # by the policy that was just read
        self._operator.forget_denials(full_plan)
        return {}

    def run_pass(self, request: PassRequest) -> dict[str, object]:
        """Converge until everything is as desired, no action is possible, or the timeout passes.

        The answer has all actions meanwhile, including the actions of other passes. A pass of everything
        has converged only if no resource stays otherwise than declared: a rolled back or suspended one
        does. ``unmet`` has the resources that aren't as declared.
        """
        began, before = self._clock.monotonic(), self._controller.reconciler.action_log.last
        deadline = began + request.timeout_s
        if request.plan:
            convergence = self._apply(request, deadline)
        else:
            with self._pass_lock.open():
                convergence = self._converge(request, deadline)
        status = self.status()
        left = unmet(status) if request.key is None else []
        ended = convergence.converged and any(each["standing"] in ENDED for each in left)
        return {
            "converged": convergence.converged and not ended,
            "stuck": convergence.stuck or ended,
            "seconds": round(self._clock.monotonic() - began, 1),
            "unmet": left,
            **self._operator.done_since(before),
            "status": status,
        }

    def _apply(self, request: PassRequest, deadline: float) -> Convergence:
        """Perform one plan while no pass runs."""
        wait_s = max(0.0, deadline - self._clock.monotonic())
        with self._pass_lock.exclusive(timeout_s=wait_s) as granted:
            if not granted:
                raise UsageError(
                    "controller.busy",
                    "passes that run already didn't end in time",
                    remedy="try again, or with a longer --timeout",
                )
            execution = self._operator.apply_exactly(
                request.plan, approved=request.approve_prune, requested_by=request.on_behalf_of
            )
            if execution.error is not None:
                raise execution.error
            convergence = self._operator.convergence()
            while convergence.converged and convergence.starting and not self._is_over(deadline):
                self._pass_lock.wait_for(self._stopped.is_set, timeout_s=CONVERGENCE_S)
                convergence = self._operator.convergence()
            converged = convergence.converged and not execution.refused
            return replace(convergence, converged=converged and not convergence.starting)

    def _is_over(self, deadline: float) -> bool:
        """Return True if a request must be answered now."""
        return self._clock.monotonic() >= deadline or self._stopped.is_set()

    def _converge(self, request: PassRequest, deadline: float) -> Convergence:
        keys, approved = self._controller.keys, request.approve_prune
        log, is_first, was_stuck = self._controller.reconciler.action_log, True, False
        # A requested run of a job, or an adopted object, changes nothing but what the broker knows.
        is_known_there = request.key is not None and request.key.kind in _KNOWN_TO_BROKER
        unchanged = None if approved or is_known_there else self._plan_unchanged()
        if unchanged is not None:
            convergence = self._operator.convergence_of(unchanged, request.key)
            if convergence.settled:
                return convergence
        self._operator.retry_refused(request.key)
        while True:
            acted, convergence = log.last, Convergence(converged=False, stuck=False)
            try:
                full_plan = self._controller.observe_everything(
                    approved=approved,
                    requested_by=request.on_behalf_of,
                    plan=request.approved if approved else "",
                )
                approved = False
                convergence = self._operator.convergence_of(full_plan, request.key)
                if (
                    is_first and not convergence.settled
                ):  # the prune guard removes after a second look
                    convergence = self._operator.convergence(request.key)
                is_first = False
                # A pass that still runs records the snapshot from before its actions.
                if convergence.settled and not self._is_busy(request.key):
                    return convergence
                # Observing queues the keys with actions, so the queue is busy right afterwards.
                # Only a key that is still stuck after its pass waits for a person.
                if convergence.stuck and (was_stuck or keys.idle):
                    return convergence
                was_stuck = convergence.stuck
            except EngineError as error:
                self._controller.connection_lost(error)
            if self._is_over(deadline):
                return Convergence(converged=False, stuck=False)
            left_s = deadline - self._clock.monotonic()
            self._wait_for_news(convergence, acted, min(CONVERGENCE_S, left_s))
            # A look queues each container in quarantine, so the queue is never idle right after it.
            if convergence.settled and log.last == acted and not self._is_busy(request.key):
                return convergence

    def _is_busy(self, only: Key | None) -> bool:
        """Return True if a pass of any key, or of *only* one key, runs or is due."""
        keys = self._controller.keys
        return keys.is_queued(only) if only is not None else not keys.idle

    def _plan_unchanged(self) -> FullPlan | None:
        try:
            return self._operator.plan_unchanged()
        except EngineError:
            return None

    def _wait_for_news(self, convergence: Convergence, acted: int, longest_s: float) -> None:
        """Wait until passes have changed something since action *acted*, at most *longest_s*.

        Each look queues the keys with actions. While these wait for a health check or for time, their
        passes find nothing to do: a look after each of these passes would keep a processor busy.
        """
        keys, log, shared = (
            self._controller.keys,
            self._controller.reconciler.action_log,
            self._controller.shared,
        )
        is_over, version = convergence.settled or convergence.stuck, shared.version

        def has_news() -> bool:
            if self._stopped.is_set():
                return True
            # Without actions no look queued a key: then a pass follows an event, such as a new health.
            is_passed = convergence.starting and convergence.converged and shared.version != version
            return keys.idle and (is_over or is_passed or log.last != acted)

        self._pass_lock.wait_for(has_news, timeout_s=longest_s)
