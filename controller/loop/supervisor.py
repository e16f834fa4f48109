"""The supervisor: all concurrency of the controller, and nothing else.

Threads: files, events and probes only put something into a queue; one does the chores; workers run
passes; one accepts on the control socket and starts a short-lived one for each question. Nothing that a
key or a peer does ends a thread. Stopping lets what was begun be finished, saves, and returns within
``FINISH_S`` and ``JOIN_S``: threads are daemons, so that whatever hangs ends with the process.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial

from controller.core.enforcement import disruption_budget
from controller.core.review import text
from controller.core.review.plan_json import review_json
from controller.loop import control_socket
from controller.loop.control_socket import ActRequest, PassRequest
from controller.loop.controller import Controller
from controller.loop.full_plan import Convergence
from controller.loop.workers.pass_lock import PassLock
from controller.loop.workers.worker_slots import WorkerSlots
from controller.model.container_output import FailedRun
from controller.model.errors import EngineError, StateError, UsageError
from controller.model.names import Key
from controller.ports import EVENTS_SILENT, Clock, Engine, EngineEvent, Events

WORKERS = 4
#: Pulls that run beside them at most.
PULLS = 8
#: How long the end waits for what was begun: a container that is down for its successor, say. Most
#: stop at once, few take longer than the engine's default grace.
FINISH_S = 30.0
#: And then for all threads, also those that pull.
JOIN_S = 8.0
RECONNECT_FIRST_S = 0.8
RECONNECT_LONGEST_S = 30.0
#: A subscription that stood this long was a good one: reconnecting begins anew.
RECONNECT_RESET_S = 120.0
#: How far before the last event a new subscription begins.
OVERLAP_NS = 5_000_000_000
SEEN_MAX = 2048
CONVERSATIONS = 8
#: How often a waiting pass looks whether everything is as desired, beside after each pass.
STANDING_S = 1.0

log = logging.getLogger("trimtab.loop")


@dataclass(frozen=True, slots=True)
class ControlEndpoints:
    """Where the supervisor is reached from outside; each may be missing.

    ``watch`` blocks, calling its first argument after changes of the files, until the event is
    set. ``listener`` is the control socket, ``lifeline`` a pipe whose end says that the parent
    is gone.
    """

    watch: Callable[[Callable[[], None], threading.Event], None] | None = None
    listener: socket.socket | None = None
    lifeline: int | None = None


class Supervisor:
    """Runs a controller until it is told to stop."""

    def __init__(
        self,
        controller: Controller,
        engine: Engine,
        *,
        clock: Clock,
        random: Callable[[], float],
        doors: ControlEndpoints,
        workers: int = WORKERS,
        paused: bool = False,
    ) -> None:
        """Take what is to run; *paused*: no pass runs but while one is asked for."""
        self._controller = controller
        self._engine = engine
        self._clock = clock
        self._random = random
        self._doors = doors
        self._stopping = False
        self._stop = threading.Event()
        # Written to by ``stop``: a signal handler may run while its own thread holds a lock.
        self._wakeup = os.pipe()
        self._turns = PassLock(paused=paused)
        self._lanes = WorkerSlots(workers=workers, outside=PULLS)
        self._seen: OrderedDict[tuple[int, str, str], None] = OrderedDict()
        self._events: Events | None = None
        self._conversations = threading.BoundedSemaphore(CONVERSATIONS)
        controller.sideline(self._lanes.outside_slot)
        controller.stopping = lambda: self._stopping

    def stop(self) -> None:
        """Ask it to stop; safe in a signal handler, and more than once."""
        self._stopping = True
        with suppress(OSError):
            os.write(self._wakeup[1], b".")

    def run(self) -> None:
        """Run until ``stop``, or the end of the lifeline; then finish in order."""
        threads = [self._start("chores", self._do_chores)]
        threads += [
            self._start(f"worker-{n}", self._work) for n in range(1, self._lanes.threads + 1)
        ]
        threads.append(self._start("probes", self._probe))
        self._start("events", self._listen)
        if self._doors.watch is not None:
            self._start("files", self._watch)
        if self._doors.listener is not None:
            self._start("control", self._accept)
        self._await_end()
        self._stopping = True
        self._stop.set()
        self._finish(threads)
        asked, ask = self._wakeup
        self._wakeup = (-1, -1)
        os.close(asked)
        os.close(ask)

    def _await_end(self) -> None:
        """Wait for ``stop``, or for the end of the lifeline: then the parent is gone."""
        watched = [self._wakeup[0]]
        if self._doors.lifeline is not None:
            watched.append(self._doors.lifeline)
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self._wakeup[0] in ready:
                return
            if not os.read(ready[0], 1):
                log.warning("the parent is gone; stopping")
                return

    def _start(self, name: str, body: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        return thread

    def _finish(self, threads: list[threading.Thread]) -> None:
        self._controller.keys.shut_down()
        self._controller.chores.shut_down()
        self._controller.prober.wake()
        self._turns.close()
        if self._events is not None:
            self._events.close()
        if self._doors.listener is not None:
            with suppress(OSError):
                self._doors.listener.shutdown(socket.SHUT_RDWR)
        if not self._lanes.finish(within_s=FINISH_S, monotonic=self._clock.monotonic):
            log.warning("what was begun isn't over after %.0f s; ending without it", FINISH_S)
        deadline = self._clock.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        for name, finish in (
            ("memory", self._controller.save),
            ("status", self._controller.publish),
        ):
            try:
                finish()
            except StateError as error:
                log.error("the %s is lost: %s", name, error)  # noqa: TRY400 - no bug of ours

    # Threads

    def _do_chores(self) -> None:
        chores = self._controller.chores
        while (chore := chores.get()) is not None:
            try:
                self._controller.do(chore)
            except Exception:
                log.exception("the chore %s failed", chore)
                chores.add_after(chore, STANDING_S)
            finally:
                chores.done(chore)

    def _work(self) -> None:
        keys = self._controller.keys
        while (key := keys.get()) is not None:
            with self._lanes.working():  # taken now: who waits for a key needs no place
                self._pass(key)

    def _pass(self, key: Key) -> None:
        try:
            with self._turns.passing() as granted:
                if granted:
                    self._controller.handle(key)
        except Exception as error:
            log.exception("a pass of %s failed", key)
            self._controller.crashed(key, error)
        finally:
            self._controller.keys.done(key)

    def _probe(self) -> None:
        prober = self._controller.prober
        while not self._stop.is_set():
            try:
                prober.step(longest_s=STANDING_S)
            except Exception:
                log.exception("probing failed; it goes on")
                self._stop.wait(STANDING_S)

    def _watch(self) -> None:
        assert self._doors.watch is not None
        while not self._stop.is_set():
            try:
                self._doors.watch(self._controller.files_changed, self._stop)
            except Exception:
                log.exception("watching the files failed; it begins again")
            if not self._stop.wait(RECONNECT_FIRST_S):
                self._controller.files_changed()

    def _listen(self) -> None:
        """Keep a subscription to events, and look at everything after each new one."""
        last_ns = int(self._clock.now() * 1_000_000_000)
        delay_s, silent = RECONNECT_FIRST_S, False
        while not self._stop.is_set():
            try:
                events = self._engine.events(since_ns=last_ns - OVERLAP_NS)
            except EngineError as error:
                self._controller.lost(error)
                self._stop.wait(delay_s * (1 + self._random() / 4))
                delay_s, silent = min(RECONNECT_LONGEST_S, delay_s * 2), False
                continue
            since = self._clock.monotonic()
            self._controller.subscribed(after_silence=silent)
            last_ns, silent = self._follow(events, last_ns)
            if silent or self._clock.monotonic() - since >= RECONNECT_RESET_S:
                delay_s = RECONNECT_FIRST_S
            if not silent:
                self._stop.wait(delay_s * (1 + self._random() / 4))
                delay_s = min(RECONNECT_LONGEST_S, delay_s * 2)

    def _follow(self, events: Events, last_ns: int) -> tuple[int, bool]:
        """Read one subscription to its end; return the last event's time, and if it was silent."""
        self._events = events
        if self._stop.is_set():
            events.close()  # whoever stopped us may have missed it
        try:
            for event in events:
                last_ns = max(last_ns, event.time_ns)
                if self._is_new(event):
                    self._controller.hint(event)
        except EngineError as error:
            return last_ns, error.code == EVENTS_SILENT
        except Exception:
            log.exception("reading events failed; the subscription begins again")
        finally:
            events.close()
        return last_ns, False

    def _is_new(self, event: EngineEvent) -> bool:
        """Tell whether an event didn't come before: subscriptions overlap."""
        key = (event.time_ns, event.id, event.action)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return True

    def _accept(self) -> None:
        listener = self._doors.listener
        assert listener is not None
        while not self._stop.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                # Out of descriptors, or shut down: don't spin.
                self._stop.wait(RECONNECT_FIRST_S)
                continue
            self._start("conversation", partial(self._converse, peer))

    def _converse(self, peer: socket.socket) -> None:
        with peer:
            if not self._conversations.acquire(timeout=control_socket.TIMEOUT_S):
                return
            try:
                control_socket.converse(peer, own_uid=os.geteuid(), desk=self)
            except Exception:
                log.exception("answering on the control socket failed")
            finally:
                self._conversations.release()

    # The desk

    def status(self) -> dict[str, object]:
        """Return the status of every resource."""
        return self._controller.status()

    def plan(self) -> dict[str, object]:
        """Return the plan of everything, and what an approval of it is about; change nothing."""
        survey = self._controller.survey()
        plan = survey.plan
        going = [asdict(each) for each in disruption_budget.planned_removals(plan, survey.observed)]
        shown = review_json(self._controller.review(survey))
        return {"plan": shown, "text": text.render(plan), "going": going}

    def progress(self, since: int) -> dict[str, object]:
        """Return what was done after an act of that number, and how far pulls are."""
        return self._controller.progress(since)

    def history(self, key: Key) -> dict[str, object]:
        """Return a service's revisions, and what people want of it."""
        return self._controller.history(key)

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]:
        """Return the failed runs that a user may read the output of."""
        return self._controller.failed_runs(uid, owns_all=owns_all)

    def act(self, request: ActRequest) -> dict[str, object]:
        """Do what somebody wants of a service; it goes on from there, but for a suspension.

        That is answered once nothing that was begun before goes on (``quiet``), or time is up.
        """
        deadline = self._clock.monotonic() + request.timeout_s
        decision = self._controller.act(request.act, only_ask=request.only_ask)
        quiet = True
        if request.act.verb == "suspend" and not request.only_ask:
            quiet = self._controller.keys.await_done(request.act.key, timeout_s=request.timeout_s)
            left_s = max(0.0, deadline - self._clock.monotonic())
            quiet = self._turns.await_shared(timeout_s=left_s) and quiet
        return {
            "changed": decision.changed,
            "text": decision.text,
            "revision": decision.revision,
            "anew": decision.anew,
            "quiet": quiet,
        }

    def run_pass(self, request: PassRequest) -> dict[str, object]:
        """Converge until everything is as desired, nothing more can be done, or time is up.

        The answer has what was done meanwhile, by passes that nobody asked for too.
        """
        began, before = self._clock.monotonic(), self._controller.acts.last
        deadline = began + request.timeout_s
        if request.plan:
            standing = self._apply(request, deadline)
        else:
            with self._turns.open():
                standing = self._converge(request, deadline)
        return {
            "converged": standing.converged,
            "stuck": standing.stuck,
            "seconds": round(self._clock.monotonic() - began, 1),
            **self._controller.done_since(before),
            "status": self.status(),
        }

    def _apply(self, request: PassRequest, deadline: float) -> Convergence:
        """Perform one plan, while nobody else acts."""
        wait_s = max(0.0, deadline - self._clock.monotonic())
        with self._turns.exclusive(timeout_s=wait_s) as granted:
            if not granted:
                raise UsageError(
                    "controller.busy",
                    "passes that run already didn't end in time",
                    remedy="try again, or with a longer --timeout",
                )
            done = self._controller.apply_exactly(
                request.plan, approved=request.approve_prune, asked_by=request.on_behalf_of
            )
            if done.error is not None:
                raise done.error
            standing = self._controller.standing()
            return replace(standing, converged=standing.converged and not done.refused)

    def _converge(self, request: PassRequest, deadline: float) -> Convergence:
        keys, approved = self._controller.keys, request.approve_prune
        was_stuck = False
        while True:
            try:
                self._controller.look(
                    approved=approved,
                    asked_by=request.on_behalf_of,
                    plan=request.approved if approved else "",
                )
                approved = False
                standing = self._controller.standing(request.key)
                settled = standing.converged and not standing.starting
                # A look wakes the keys that want something, so they are busy right after it: what is
                # still stuck after their passes waits for a person.
                if settled or (standing.stuck and (was_stuck or keys.idle)):
                    return standing
                was_stuck = standing.stuck
            except EngineError as error:
                self._controller.lost(error)
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0 or self._stop.is_set():
                return Convergence(converged=False, stuck=False)
            self._wait_for_passes(min(STANDING_S, left_s))

    def _wait_for_passes(self, longest_s: float) -> None:
        """Wait until all that is ready was handled, or something hinders that for long."""
        keys = self._controller.keys
        if keys.idle:
            self._stop.wait(min(longest_s, STANDING_S / 4))
        else:
            self._turns.wait_for(lambda: keys.idle or self._stop.is_set(), timeout_s=longest_s)
