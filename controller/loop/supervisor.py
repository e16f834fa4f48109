"""The supervisor: the threads of the controller.

- ``files``, ``events`` and ``probes`` only queue keys and chores.
- ``samples`` and ``metrics`` take samples and write metrics, if somebody wants them.
- ``chores`` runs the chores, ``worker-N`` the passes.
- ``control`` accepts connections on the control socket, and starts a short-lived thread for each.

No key and no client can end a thread. On stop, begun actions are finished, the state is saved, and
``run`` returns within ``FINISH_S`` and ``JOIN_S``: threads are daemons, so that a hanging thread
ends with the process.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from controller.loop.control_api import ControlApi
from controller.loop.controller import Controller
from controller.loop.metrics import ControllerMetrics
from controller.loop.workqueue import Chore, PassLock, WorkerSlots
from controller.model.errors import EngineError, StateError
from controller.model.names import Key
from controller.ports import EVENTS_SILENT, Clock, Engine, EngineEvent, Events
from controller.system.conversation import ConversationServer, Guests
from controller.system.runtime import StopSignal, keep_out_of_collections, postpone_full_collections
from controller.system.syscalls import peer_groups

#: Seconds after which a thread hands the interpreter on: requests wait for a thread that plans.
SWITCH_S = 0.0005
#: How long a stop waits for begun actions, such as the start that follows a stop. Most end at once,
#: few take longer than the engine's default grace.
FINISH_S = 30.0
#: How long a stop waits for all threads afterwards, including those with pulls.
JOIN_S = 8.0
RECONNECT_FIRST_S = 0.8
RECONNECT_LONGEST_S = 30.0
#: After a subscription that lasted this long, the reconnect delay starts from the first again.
RECONNECT_RESET_S = 120.0
#: How far before the last event a new subscription begins.
OVERLAP_NS = 5_000_000_000
SEEN_MAX = 2048
#: The pause after an unexpected error.
STEP_S = 1.0
#: The longest step of the prober. A container to probe ends a step.
PROBER_STEP_S = 60.0
#: The pause between two writes of the metrics' file.
METRICS_S = 15.0

log = logging.getLogger("trimtab.loop")


@dataclass(frozen=True, slots=True)
class ControlEndpoints:
    """The supervisor's connections to the outside; each is optional."""

    #: Blocks until the event is set, and calls its first argument after changes of the files.
    watch: Callable[[Callable[[], None], threading.Event], None] | None = None
    #: The control socket.
    listener: socket.socket | None = None
    #: The read end of a pipe that closes when the parent ends.
    lifeline: int | None = None
    #: The DIR of the controller, for requests that name it.
    directory: str = ""
    #: The digest of the controller's settings, for its reports.
    settings: str = ""
    #: Writes the controller's metrics, with the broker's. Raises OSError.
    write_metrics: Callable[[str], None] | None = None
    #: Called after each chore and each pass.
    progressed: Callable[[], None] = lambda: None


class Supervisor:
    """Runs a controller until a stop is requested.

    *random* returns a number in [0, 1), for jitter. *stop* is the request to stop, which the
    controller checks too. *paused*: passes run only on request.
    """

    def __init__(
        self,
        controller: Controller,
        engine: Engine,
        *,
        clock: Clock,
        random: Callable[[], float],
        endpoints: ControlEndpoints,
        worker_slots: WorkerSlots,
        stop: StopSignal,
        paused: bool = False,
    ) -> None:
        self._controller = controller
        self._engine = engine
        self._clock = clock
        self._random = random
        self._endpoints = endpoints
        self._worker_slots = worker_slots
        self._stop = stop
        self._stopped = threading.Event()
        self._pass_lock = PassLock(paused=paused)
        self._seen: OrderedDict[tuple[int, str, str], None] = OrderedDict()
        self._events: Events | None = None
        self._control: ConversationServer | None = None

    def run(self) -> None:
        """Run until a stop is requested or the parent ends; then finish in order."""
        sys.setswitchinterval(SWITCH_S)
        postpone_full_collections()
        threads = [self._start("chores", self._run_chores)]
        threads += [
            self._start(f"worker-{n}", self._work) for n in range(1, self._worker_slots.threads + 1)
        ]
        threads.append(self._start("probes", self._probe))
        self._start("samples", self._sample)
        metrics = ControllerMetrics(self._controller, self._clock.now())
        if (write := self._endpoints.write_metrics) is not None:
            threads.append(self._start("metrics", partial(self._write_metrics, metrics, write)))
        self._start("events", self._subscribe)
        if self._endpoints.watch is not None:
            self._start("files", self._watch)
        if self._endpoints.listener is not None:
            trusted = frozenset({0, os.geteuid()})
            api = ControlApi(
                self._controller,
                self._pass_lock,
                self._stopped,
                directory=self._endpoints.directory,
                settings=self._endpoints.settings,
                trusted=trusted,
                metrics=metrics,
            )
            self._control = ConversationServer(
                self._endpoints.listener,
                api.answer,
                trusted=trusted,
                guests=Guests(api.answer_viewer, api.has_viewer, peer_groups),
            )
            self._control.start()
        self._await_stop()
        self._stop.set()
        self._stopped.set()
        self._finish(threads)
        self._stop.close()

    def _await_stop(self) -> None:
        """Wait until a stop is requested, or the lifeline ends with the parent."""
        watched = [self._stop.fileno()]
        if self._endpoints.lifeline is not None:
            watched.append(self._endpoints.lifeline)
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self._stop.fileno() in ready:
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
        self._controller.sampler.stop()
        self._pass_lock.close()
        if self._events is not None:
            self._events.close()
        if self._control is not None:
            self._control.stop()
        if not self._worker_slots.finish(within_s=FINISH_S):
            log.warning("running passes aren't done after %.0f s; ending without them", FINISH_S)
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

    # Bodies of threads

    def _run_chores(self) -> None:
        chores = self._controller.chores
        while (chore := chores.get()) is not None:
            try:
                self._controller.run_chore(chore)
                if chore is Chore.OBSERVE:
                    keep_out_of_collections()  # the new snapshot stays
            except Exception:
                log.exception("the chore %s failed", chore)
                chores.add_after(chore, STEP_S)
            finally:
                chores.done(chore)
                self._endpoints.progressed()

    def _work(self) -> None:
        while self._controller.keys.await_ready():  # waiting for a key needs no slot
            self._worker_slots.hold_while(self._run_next_pass)

    def _run_next_pass(self) -> bool:
        """Run the pass of the next key; return False without one."""
        # A key taken before its slot would wait behind all keys of the queue.
        if (key := self._controller.keys.poll()) is None:
            return False
        self._pass(key)
        return True

    def _pass(self, key: Key) -> None:
        with self._pass_lock.passing() as granted:
            try:
                if granted:
                    self._controller.handle(key)
            except Exception as error:
                log.exception("a pass of %s failed", key)
                self._controller.crashed(key, error)
            finally:
                # Before the lock wakes those that wait until no key is in a worker's hands.
                self._controller.keys.done(key)
                self._endpoints.progressed()

    def _probe(self) -> None:
        prober = self._controller.prober
        while not self._stopped.is_set():
            try:
                prober.step(longest_s=PROBER_STEP_S)
            except Exception:
                log.exception("probing failed; it goes on")
                self._stopped.wait(STEP_S)

    def _sample(self) -> None:
        while not self._stopped.is_set():
            try:
                self._controller.sampler.run()
            except Exception:
                log.exception("sampling failed; it goes on")
                self._stopped.wait(STEP_S)

    def _write_metrics(self, metrics: ControllerMetrics, write: Callable[[str], None]) -> None:
        """Write the metrics again and again; a failed write is logged, once for each reason."""
        logged = ""
        while not self._stopped.wait(METRICS_S):
            try:
                write(metrics.text())
                logged = ""
            except OSError as error:
                if str(error) != logged:
                    logged = str(error)
                    log.warning("metrics.unwritable error=%s", logged)
            except Exception:
                log.exception("writing metrics failed; it goes on")

    def _watch(self) -> None:
        assert self._endpoints.watch is not None
        while not self._stopped.is_set():
            try:
                self._endpoints.watch(self._controller.files_changed, self._stopped)
            except Exception:
                log.exception("watching the files failed; it begins again")
            if not self._stopped.wait(RECONNECT_FIRST_S):
                self._controller.files_changed()

    def _subscribe(self) -> None:
        """Keep a subscription to events; everything is observed after each new subscription."""
        last_ns = int(self._clock.now() * 1_000_000_000)
        delay_s, silent = RECONNECT_FIRST_S, False
        while not self._stopped.is_set():
            try:
                events = self._engine.events(since_ns=last_ns - OVERLAP_NS)
            except EngineError as error:
                self._controller.connection_lost(error)
                self._stopped.wait(delay_s * (1 + self._random() / 4))
                delay_s, silent = min(RECONNECT_LONGEST_S, delay_s * 2), False
                continue
            since = self._clock.monotonic()
            self._controller.subscribed(after_silence=silent)
            last_ns, silent = self._follow(events, last_ns)
            if not silent:
                self._controller.events_lost()
            if silent or self._clock.monotonic() - since >= RECONNECT_RESET_S:
                delay_s = RECONNECT_FIRST_S
            if not silent:
                self._stopped.wait(delay_s * (1 + self._random() / 4))
                delay_s = min(RECONNECT_LONGEST_S, delay_s * 2)

    def _follow(self, events: Events, last_ns: int) -> tuple[int, bool]:
        """Read one subscription to its end.

        Returns:
            The time of the last event, and True if the subscription ended because it was silent.
        """
        self._events, shared = events, self._controller.shared
        if self._stopped.is_set():
            events.close()  # `_finish` possibly ran before the assignment
        shared.followed = True
        try:
            for event in events:
                last_ns = max(last_ns, event.time_ns)
                if self._is_new(event):
                    self._controller.handle_event(event)
        except EngineError as error:
            return last_ns, error.code == EVENTS_SILENT
        except Exception:
            log.exception("reading events failed; the subscription begins again")
        finally:
            shared.followed = False
            events.close()
        return last_ns, False

    def _is_new(self, event: EngineEvent) -> bool:
        """Return True if an event wasn't handled before; subscriptions overlap."""
        key = (event.time_ns, event.id, event.action)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return True
