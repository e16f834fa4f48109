"""The supervisor: real threads around a toy engine; every wait has an end and none is a sleep."""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.core.drift.actions import Judge
from controller.core.status.facts import Report
from controller.loop.controller import Controller
from controller.loop.passes import PassPolicy
from controller.loop.prober import ProbedEngine, Prober, ProbeSockets
from controller.loop.shared_state import ControllerParts
from controller.loop.state.store import StateStore
from controller.loop.supervisor import ControlEndpoints, Supervisor
from controller.loop.workqueue import PULLS, WORKERS, Triggers, WorkerSlots
from controller.model.desired.plan import AnyAction, PullImage, StartContainer, StopContainer
from controller.model.errors import EngineError, EngineUnavailable, Refused
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context
from controller.ports import EVENTS_SILENT, EngineEvent
from controller.system.runtime import StopSignal
from tests import worlds
from tests.instance import eventually
from tests.unit.loop.toy import Files, ToyEngine
from tests.worlds import container, declared, service

pytestmark = pytest.mark.slow

PATIENCE_S = 20.0
AT_ONCE = {"minHealthy": "0s"}
WEB1 = "web.1-bbbbbbbb"
BROKEN = EngineUnavailable("events.lost", "the stream broke")
SILENT = EngineUnavailable(EVENTS_SILENT, "nothing for 90 s")


class Clock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


class Stream:
    """A subscription that yields what is put into it, and raises what is an error."""

    def __init__(self) -> None:
        self.said: queue.Queue[EngineEvent | EngineError | None] = queue.Queue()

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        said = self.said.get()
        if said is None:
            raise StopIteration
        if isinstance(said, EngineError):
            raise said
        return said

    def close(self) -> None:
        self.said.put(None)


class LiveEngine(ToyEngine):
    """The toy engine for several threads, with subscriptions."""

    def __init__(self, world: Observed) -> None:
        super().__init__(world)
        self.lock = threading.RLock()
        self.streams: queue.Queue[Stream] = queue.Queue()
        self.explode: set[Key] = set()

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        with self.lock:
            if only in self.explode:
                self.explode.discard(only)
                raise RuntimeError("nobody thought of this")
            return super().observe(images=images, only=only)

    def perform(self, action: AnyAction, context: Context) -> str:
        with self.lock:
            return super().perform(action, context)

    def events(self, *, since_ns: int) -> Stream:  # type: ignore[override]
        with self.lock:
            if self.away is not None:
                raise self.away
        stream = Stream()
        self.streams.put(stream)
        return stream


@dataclass
class Plant:
    """A supervisor that runs in a thread of its own."""

    engine: LiveEngine
    files: Files
    supervisor: Supervisor
    stop: StopSignal
    controller: Controller
    memory: StateStore
    peer: Path
    thread: threading.Thread
    lifeline: int
    wake: queue.Queue[Callable[[], None]]
    published: list[Report] = field(default_factory=list)

    def ask(self, **question: object) -> Any:
        """Ask on the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(PATIENCE_S)
            peer.connect(str(self.peer))
            peer.sendall(json.dumps(question).encode() + b"\n")
            with peer.makefile("rb") as file:
                return json.loads(file.readline())

    def await_done(self, *said: str) -> None:
        """Wait until these actions were done."""
        eventually(lambda: set(said) <= set(self.engine.done), what=f"{said} in {self.engine.done}")


@contextmanager
def plant(
    folder: Path,
    world: Observed,
    files: Files,
    *,
    paused: bool = False,
    explode: frozenset[Key] = frozenset(),
    fault: Callable[[AnyAction], EngineError | None] = lambda _action: None,
    kind: type[LiveEngine] = LiveEngine,
    judge: Judge = worlds.allow,
) -> Iterator[Plant]:
    """Run a supervisor during the block, and see it end in order."""
    engine, memory = kind(world), StateStore(folder / "state.json")
    engine.explode, engine.fault = set(explode), fault
    published: list[Report] = []
    probes = ProbeSockets(Clock().monotonic)
    triggers, worker_slots, stop = Triggers(time.monotonic), WorkerSlots(), StopSignal()
    controller = Controller(
        ControllerParts(
            source=files,
            engine=ProbedEngine(engine, Prober(probes, Clock(), triggers.check)),
            store=memory,
            clock=Clock(),
            random=lambda: 0.0,
            triggers=triggers,
            fetch_policy=lambda: PassPolicy(worlds.NAMES, judge, "policy"),
            publish=published.append,
            outside_slot=worker_slots.outside_slot,
            stopping=stop.is_set,
        )
    )
    wakes: queue.Queue[Callable[[], None]] = queue.Queue()

    def watch(wake: Callable[[], None], stop: threading.Event) -> None:
        wakes.put(wake)
        stop.wait()

    path = folder / "controller.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    reading, writing = os.pipe()
    supervisor = Supervisor(
        controller,
        engine,
        clock=Clock(),
        random=lambda: 0.0,
        worker_slots=worker_slots,
        stop=stop,
        endpoints=ControlEndpoints(watch=watch, listener=listener, lifeline=reading),
        paused=paused,
    )
    controller.begin()
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    made = Plant(
        engine, files, supervisor, stop, controller, memory, path, thread, writing, wakes, published
    )
    try:
        yield made
    finally:
        stop.set()
        thread.join(timeout=PATIENCE_S)
        listener.close()
        probes.close()
        if made.lifeline >= 0:
            os.close(writing)
        assert not thread.is_alive(), "it didn't end"


@pytest.fixture
def files() -> Files:
    return Files()


def test_a_changed_file_wakes_a_pass(tmp_path: Path, files: Files) -> None:
    with plant(tmp_path, worlds.engine(), files) as made:
        wake = made.wake.get(timeout=PATIENCE_S)
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]
        files.desired = declared(service(rollout=AT_ONCE))
        wake()
        made.await_done(f"start-container {WEB1}")


def test_an_event_wakes_a_pass_and_the_same_event_again_does_not(
    tmp_path: Path, files: Files
) -> None:
    files.desired = declared(service(rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(container()), files) as made:
        stream = made.engine.streams.get(timeout=PATIENCE_S)
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]
        with made.engine.lock:
            made.engine.change(WEB1, lambda _container: None)
        event = EngineEvent(5, "container", "destroy", f"id:{WEB1}", worlds.WEB)
        stream.said.put(event)
        made.await_done(f"start-container {WEB1}")
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]
        streams = [stream]

        def passes_nothing() -> bool:
            looks = made.engine.looks
            streams[-1].said.put(event)
            streams[-1].said.put(SILENT)  # its end shows that the event before it was read
            streams.append(made.engine.streams.get(timeout=PATIENCE_S))
            eventually(lambda: made.controller.keys.idle, what="all keys are handled")
            return made.engine.looks == looks

        # Once is enough: on a busy machine a look that was due anyway may fall into the first try.
        eventually(passes_nothing, what="the same event causes no look")


def test_a_broken_subscription_is_made_anew_and_everything_is_looked_at(
    tmp_path: Path, files: Files
) -> None:
    files.desired = declared(service(rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(container()), files) as made:
        stream = made.engine.streams.get(timeout=PATIENCE_S)
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]
        with made.engine.lock:
            made.engine.change(WEB1, lambda _container: None)
        stream.said.put(BROKEN)
        made.engine.streams.get(timeout=PATIENCE_S)
        made.await_done(f"start-container {WEB1}")


def test_a_pass_that_raises_ends_no_worker_and_is_tried_again(
    tmp_path: Path, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.desired = declared(service(rollout=AT_ONCE), service("api", rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(), files, explode=frozenset({worlds.WEB})) as made:
        made.await_done("start-container api.1-bbbbbbbb", f"start-container {WEB1}")
    raised = [record.getMessage() for record in caplog.records if record.exc_info]
    assert raised == ["a pass of Service/default/web failed"]


def test_a_refused_action_is_tried_at_once_if_a_pass_is_asked_for(
    tmp_path: Path, files: Files
) -> None:
    refuse = threading.Event()
    refuse.set()

    def fault(action: AnyAction) -> None:
        if action.verb == "create-container" and refuse.is_set():
            raise Refused("volume.foreign", "the name is taken")

    files.desired = declared(service(rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(), files, fault=fault) as made:
        reply = made.ask(do="pass", timeout_s=PATIENCE_S)
        assert (reply["converged"], reply["stuck"]) == (False, True)
        refuse.clear()  # somebody removed the cause
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]


def test_a_suspension_is_answered_once_what_was_begun_is_over(tmp_path: Path, files: Files) -> None:
    begun, over = threading.Event(), threading.Event()

    def fault(action: AnyAction) -> None:
        if action.verb == "create-container":
            begun.set()
            assert over.wait(PATIENCE_S)

    files.desired = declared(service(rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(), files, fault=fault) as made:
        assert begun.wait(PATIENCE_S)
        suspend = {"do": "suspend", "key": str(worlds.WEB)}
        told = made.ask(**suspend, timeout_s=0.05)
        assert (told["changed"], told["quiet"]) == (True, False)
        over.set()
        told = made.ask(**suspend, timeout_s=PATIENCE_S)
        assert (told["changed"], told["quiet"]) == (False, True)
        reply = made.ask(do="pass", timeout_s=PATIENCE_S)
        assert (reply["converged"], reply["stuck"]) == (False, True)
        assert [each["condition"] for each in reply["unmet"]] == ["Suspended"]
        assert made.engine.done == [f"create-container {WEB1}"], "and it wasn't started"
        resumed = made.ask(do="resume", key=str(worlds.WEB))
        assert (resumed["changed"], resumed["quiet"]) == (True, True)
        made.await_done(f"start-container {WEB1}")
        history = made.ask(do="history", key=str(worlds.WEB))
        assert [row["image"] for row in history["revisions"]] == [worlds.IMAGE]
        assert made.ask(do="history", key="Service/default/no")["error"]["code"] == (
            "service.unknown"
        )


def test_an_engine_that_is_away_at_the_start_is_found_later(tmp_path: Path, files: Files) -> None:
    files.desired = declared(service(rollout=AT_ONCE))
    world = worlds.engine()
    with plant(tmp_path, world, files) as made:
        made.engine.streams.get(timeout=PATIENCE_S)
        made.await_done(f"start-container {WEB1}")
        with made.engine.lock:
            made.engine.away = EngineUnavailable("broker.unavailable", "no broker answers")
        reply = made.ask(do="pass", timeout_s=0.2)
        assert (reply["converged"], reply["stuck"]) == (False, False), "it took too long"
        assert [p["code"] for p in reply["status"]["problems"]] == ["broker.unavailable"]
        with made.engine.lock:
            made.engine.away = None
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]


def test_a_pass_waits_until_all_is_as_desired(tmp_path: Path, files: Files) -> None:
    with plant(tmp_path, worlds.engine(networks=()), files) as made:
        files.desired = declared(
            service(replicas=3, rollout=AT_ONCE), service("api", rollout=AT_ONCE)
        )
        reply = made.ask(do="pass", timeout_s=PATIENCE_S, on_behalf_of="uid:0 alice")
        assert reply["converged"]
        assert {r["name"]: r["ready"] for r in reply["status"]["resources"]} == {
            "web": 3,
            "api": 1,
        }
        claims = {context.on_behalf_of for context in made.engine.contexts}
        assert claims <= {f"uid:{os.getuid()} alice", f"uid:{os.getuid()} uid:0 alice", ""}


def test_a_pass_waits_for_the_record_of_what_it_sees(tmp_path: Path, files: Files) -> None:
    """A look can see the end of a pass that isn't recorded yet."""

    class Slow(LiveEngine):
        """Answers the last start once everything was observed twice."""

        def __init__(self, world: Observed) -> None:
            super().__init__(world)
            self.seen_all = threading.Semaphore(0)

        def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
            seen = super().observe(images=images, only=only)
            if only is None and sum(c.running for c in seen.containers) == 3:
                self.seen_all.release()
            return seen

        def perform(self, action: AnyAction, context: Context) -> str:
            done = super().perform(action, context)
            if isinstance(action, StartContainer) and action.slot == 3:
                for _ in range(2):
                    assert self.seen_all.acquire(timeout=PATIENCE_S)
            return done

    with plant(tmp_path, worlds.engine(networks=()), files, kind=Slow) as made:
        files.desired = declared(service(replicas=3, rollout=AT_ONCE))
        reply = made.ask(do="pass", timeout_s=PATIENCE_S, on_behalf_of="uid:0 alice")
        assert reply["converged"]
        assert [each["ready"] for each in reply["status"]["resources"]] == [3]


def test_a_pass_that_a_person_must_help_comes_back_at_once(tmp_path: Path, files: Files) -> None:
    with plant(tmp_path, worlds.engine(), files) as made:
        files.desired = declared(service(network={"attach": ["nowhere"]}))
        began = time.monotonic()
        reply = made.ask(do="pass", timeout_s=PATIENCE_S * 10)
        assert (reply["converged"], reply["stuck"]) == (False, True)
        assert time.monotonic() - began < PATIENCE_S


def test_a_pass_ends_once_only_refused_actions_are_left(tmp_path: Path, files: Files) -> None:
    class Slow(LiveEngine):
        """Takes as long for a look at one service as a real engine."""

        def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
            if only is not None:
                threading.Event().wait(0.02)
            return super().observe(images=images, only=only)

    judge = worlds.deny("create-container", target=WEB1)
    with plant(tmp_path, worlds.engine(), files, kind=Slow, judge=judge) as made:
        files.desired = declared(service(rollout=AT_ONCE), service("api", rollout=AT_ONCE))
        began = time.monotonic()
        reply = made.ask(do="pass", timeout_s=PATIENCE_S * 10)
        assert (reply["converged"], reply["stuck"]) == (False, True)
        assert time.monotonic() - began < PATIENCE_S


def test_paused_it_acts_only_while_a_pass_is_asked_for_and_exactly_one_plan(
    tmp_path: Path, files: Files
) -> None:
    files.desired = declared(service(rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(), files, paused=True) as made:
        made.engine.streams.get(timeout=PATIENCE_S)
        plan = made.ask(do="plan")["plan"]
        assert [a["action"] for a in plan["actions"]] == ["create-container", "start-container"]
        assert made.engine.done == []
        changed = made.ask(do="pass", timeout_s=PATIENCE_S, plan="0" * 64)
        assert changed["error"]["code"] == "plan.changed"
        assert made.engine.done == []
        assert made.ask(do="pass", timeout_s=PATIENCE_S, plan=plan["digest"])["converged"]
        files.desired = declared(service(rollout=AT_ONCE), service("api", rollout=AT_ONCE))
        made.controller.observe_everything()
        assert made.ask(do="ping") == {"pong": True}
        assert len(made.engine.done) == 2
        assert made.ask(do="pass", timeout_s=PATIENCE_S)["converged"]
        assert len(made.engine.done) == 4


def test_the_end_of_the_lifeline_ends_it_with_everything_saved(
    tmp_path: Path, files: Files
) -> None:
    files.desired = declared(service(rollout=AT_ONCE))
    with plant(tmp_path, worlds.engine(), files) as made:
        made.await_done(f"start-container {WEB1}")
        os.close(made.lifeline)
        made.lifeline = -1
        made.thread.join(timeout=PATIENCE_S)
        assert not made.thread.is_alive()
        assert made.published
        again = StateStore(tmp_path / "state.json")
        assert again.load(stamp="1") is None
        assert again.states().keys() == {worlds.WEB}


def test_a_stop_waits_for_the_running_action_and_begins_no_other(
    tmp_path: Path, files: Files
) -> None:
    files.desired = declared(service(replicas=3, rollout=AT_ONCE))
    running, go_on = threading.Event(), threading.Event()

    def hold(_action: AnyAction) -> EngineError | None:
        running.set()
        go_on.wait(PATIENCE_S)
        return None

    with plant(tmp_path, worlds.engine(), files, fault=hold) as made:
        assert running.wait(PATIENCE_S)
        made.stop.set()
        go_on.set()
        made.thread.join(timeout=PATIENCE_S)
        assert len(made.engine.done) == 1
        assert len(made.engine.world.containers) <= 1


def test_a_stop_waits_until_what_is_down_for_its_successor_serves_again(
    tmp_path: Path, files: Files
) -> None:
    files.desired = declared(service(rollout={**AT_ONCE, "order": "StopFirst"}))
    stopping, go_on = threading.Event(), threading.Event()

    def hold(action: AnyAction) -> EngineError | None:
        if isinstance(action, StopContainer):
            stopping.set()
            go_on.wait(PATIENCE_S)
        return None

    world = worlds.engine(container(rev="a"))
    with plant(tmp_path, world, files, fault=hold) as made:
        assert stopping.wait(PATIENCE_S)
        made.stop.set()
        go_on.set()
        made.thread.join(timeout=PATIENCE_S)
        assert made.engine.done[-1] == "start-container web.1-bbbbbbbb"


def test_a_container_is_asked_by_its_check_and_its_health_is_told(
    tmp_path: Path, files: Files
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check = {"tcp": {"port": server.getsockname()[1]}}
        files.desired = declared(service(healthcheck=check, rollout=AT_ONCE))
        addresses = (("platform-network", "127.0.0.1"),)
        with plant(tmp_path, worlds.engine(container(addresses=addresses)), files) as made:

            def health() -> object:
                (resource,) = made.ask(do="status")["resources"] or [{"slots": []}]
                return [slot["health"] for slot in resource["slots"]]

            eventually(lambda: health() == ["healthy"], what="it is healthy")


class SlowRegistry(LiveEngine):
    """An engine whose pulls hang until ``answers`` is set."""

    def __init__(self, world: Observed) -> None:
        super().__init__(world)
        self.answers = threading.Event()
        self.pulling: set[str] = set()

    def perform(self, action: AnyAction, context: Context) -> str:
        if isinstance(action, PullImage):
            with self.lock:
                self.pulling.add(action.object.name)
            assert self.answers.wait(PATIENCE_S)
        return super().perform(action, context)


def test_a_registry_that_hangs_never_delays_the_healing_of_others(
    tmp_path: Path, files: Files
) -> None:
    waiting = [service(f"new-{n}", image="slow.example/x:1") for n in range(3 * PULLS)]
    files.desired = declared(service(rollout=AT_ONCE), *waiting)
    with plant(tmp_path, worlds.engine(container()), files, kind=SlowRegistry) as made:
        engine = made.engine
        assert isinstance(engine, SlowRegistry)
        stream = engine.streams.get(timeout=PATIENCE_S)
        eventually(lambda: len(engine.pulling) == PULLS, what="as many pulls run as may")

        with engine.lock:
            engine.change(WEB1, lambda _container: None)
        stream.said.put(EngineEvent(5, "container", "destroy", f"id:{WEB1}", worlds.WEB))
        made.await_done(f"create-container {WEB1}", f"start-container {WEB1}")
        assert len(engine.pulling) == PULLS
        assert "pull.busy" in json.dumps(made.ask(do="status"))

        engine.answers.set()
        made.await_done(*(f"start-container {each.key.name}.1-bbbbbbbb" for each in waiting))


class SlowPasses(LiveEngine):
    """An engine that lets a pass look for each permit."""

    def __init__(self, world: Observed) -> None:
        super().__init__(world)
        self.permits = threading.Semaphore(0)
        self.looking: list[str] = []

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        if only is not None:
            with self.lock:
                self.looking.append(only.name)
            assert self.permits.acquire(timeout=PATIENCE_S)
        return super().observe(images=images, only=only)


def test_keys_get_their_passes_in_the_order_of_the_queue(tmp_path: Path, files: Files) -> None:
    names = [f"w{number}" for number in range(10, 40)]
    files.desired = declared(*map(service, names))
    with plant(tmp_path, worlds.engine(), files, kind=SlowPasses) as made:
        engine = made.engine
        assert isinstance(engine, SlowPasses)
        for begun in range(WORKERS, len(names) + 1):
            eventually(lambda: len(engine.looking) >= begun, what=f"pass {begun}")  # noqa: B023
            engine.permits.release()
        engine.permits.release(1000)
        assert sorted(engine.looking[:WORKERS]) == names[:WORKERS]
        assert engine.looking[WORKERS : len(names)] == names[WORKERS:]
