"""A toy engine, files in memory and a clock that stands: all that the loop needs, in one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller.core.drift.actions import Judge
from controller.core.drift.probe_verdict import Probe, ProbeOutcome, ProbeResult
from controller.core.planning.quarantine import AT_ONCE, QuarantineRules
from controller.core.status.facts import Report
from controller.loop.control_api import ControlApi
from controller.loop.controller import Controller
from controller.loop.executor import never
from controller.loop.passes import PassPolicy
from controller.loop.prober import ProbedEngine, Prober
from controller.loop.sampler import ReadUse, read_no_use
from controller.loop.shared_state import ControllerParts, ignore_commits
from controller.loop.state.failed_runs import FailureLog
from controller.loop.state.store import StateStore
from controller.loop.workqueue import Chore, PassLock, Triggers
from controller.model.desired.desired import Desired
from controller.model.desired.plan import AnyAction, CreateContainer
from controller.model.errors import Conflict, EngineError
from controller.model.names import Key
from controller.model.observed import Container, Observed
from controller.model.records import UNMET, Context
from controller.ports import ContainerSummary, EngineEvent
from tests import worlds


class Watch:
    """Both clocks of ``ports.Clock``, moved by hand; the wall's may jump as well."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.jumped = 0.0

    def now(self) -> float:
        return self.time + self.jumped

    def monotonic(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class ToyEngine:
    """``ports.Engine`` over one ``Observed``. ``faults`` decide what goes wrong at a call."""

    world: Observed = field(default_factory=worlds.engine)
    done: list[str] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    looks: int = 0
    #: The key of each look; None for a look at everything.
    looked_at: list[Key | None] = field(default_factory=list)
    asked_images: list[frozenset[str]] = field(default_factory=list)
    away: EngineError | None = None
    fault: Callable[[AnyAction], EngineError | None] = lambda _action: None
    before_look: Callable[[ToyEngine], None] = lambda _engine: None
    #: Called once a look at everything is taken, and before it is returned.
    after_look: Callable[[], None] = lambda: None
    before_list: Callable[[ToyEngine], None] = lambda _engine: None

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        self.looks += 1
        self.looked_at.append(only)
        if self.away is not None:
            raise self.away
        self.before_look(self)
        self.asked_images.append(images)
        containers = self.world.containers
        if only is not None and only.kind == "Service":
            containers = tuple(c for c in containers if c.key == only)
        by_id = {image.id: image for image in self.world.images.values() if image is not None}
        known = {**self.world.images, **by_id}
        seen = replace(
            self.world, containers=containers, images={name: known.get(name) for name in images}
        )
        if only is None:
            self.after_look()
        return seen

    def list_containers(self) -> frozenset[ContainerSummary]:
        if self.away is not None:
            raise self.away
        self.before_list(self)
        return frozenset(
            ContainerSummary(c.id, c.name, c.state.value, c.key, c.settings.networks)
            for c in self.world.containers
        )

    def perform(self, action: AnyAction, context: Context) -> str:
        if self.away is not None:
            raise self.away
        self._check(action)
        error = self.fault(action)
        self.done.append(f"{action.verb} {action.target}" + ("" if error is None else " !"))
        self.contexts.append(context)
        if error is not None:
            raise error
        self.world = worlds.act(action, self.world)
        made = (c.id for c in self.world.containers if c.name == action.target)
        return next(made) if isinstance(action, CreateContainer) else ""

    def _check(self, action: AnyAction) -> None:
        """Raise a Conflict unless the precondition holds, as the gate does."""
        wanted, world = action.precondition, self.world
        taken = {each.name for each in world.networks if each.ours}
        taken |= {each.name for each in world.volumes if each.ours}
        if wanted.absent and wanted.absent in taken | {c.name for c in world.containers}:
            raise Conflict(UNMET, f"{wanted.absent} is there already")
        if not wanted.id:
            return
        revisions = {each.id: each.revision for each in world.containers}
        revisions |= {each.id: "" for each in world.networks}
        if wanted.id not in revisions:
            raise Conflict(UNMET, f"{action.target} is gone")
        if wanted.revision and revisions[wanted.id] != wanted.revision:
            raise Conflict(UNMET, f"{action.target} is of revision {revisions[wanted.id]}")

    def events(self, *, since_ns: int) -> NoEvents:
        if self.away is not None:
            raise self.away
        return NoEvents()

    def change(self, name: str, change: Callable[[Container], Container | None]) -> None:
        """Meddle with one container; None removes it."""
        changed = (change(c) if c.name == name else c for c in self.world.containers)
        self.world = replace(self.world, containers=tuple(c for c in changed if c is not None))


class NoEvents:
    """A subscription that ends at once."""

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        raise StopIteration

    def close(self) -> None:
        pass


@dataclass
class ToyProbes:
    """``ports.ProbeTransport`` that answers at once, all well unless ``said`` has another word."""

    said: dict[str, ProbeOutcome] = field(default_factory=dict)
    asked: list[Probe] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    silent: bool = False
    _open: list[Probe] = field(default_factory=list)

    def ask(self, probe: Probe) -> None:
        self.asked.append(probe)
        self._open.append(probe)

    def answers(self, *, wait_s: float) -> list[ProbeResult]:
        self.waits.append(wait_s)
        if self.silent:
            return []
        answered, self._open = self._open, []
        return [self._answer(probe) for probe in answered]

    def _answer(self, probe: Probe) -> ProbeResult:
        verdict = self.said.get(probe.container, ProbeOutcome.GOOD)
        return ProbeResult(probe.container, verdict, "" if verdict is ProbeOutcome.GOOD else "no")

    def wake(self) -> None:
        pass


@dataclass
class Files:
    """``ports.DesiredSource`` in memory."""

    desired: Desired = field(default_factory=worlds.declared)
    loaded: threading.Event = field(default_factory=threading.Event)

    def load(self) -> Desired:
        self.loaded.set()
        return self.desired


@dataclass
class House:
    """A controller with all around it, driven by hand."""

    folder: Path
    engine: ToyEngine = field(default_factory=ToyEngine)
    probes: ToyProbes = field(default_factory=ToyProbes)
    files: Files = field(default_factory=Files)
    watch: Watch = field(default_factory=Watch)
    judge: Judge = worlds.allow
    policy: str = "policy"
    keeping: QuarantineRules = AT_ONCE
    published: list[Report] = field(default_factory=list)
    publish_commits: Callable[[Desired, Report], None] = ignore_commits
    failure_log: FailureLog | None = None
    stopping: Callable[[], bool] = never
    read_use: ReadUse = read_no_use
    controller: Controller = field(init=False)
    operator: ControlApi = field(init=False)
    triggers: Triggers = field(init=False)
    memory: StateStore = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start the controller anew, as after a crash: only what was saved is left."""
        self.store = StateStore(self.folder / "state.json")
        problem = self.store.load(stamp="1")
        self.triggers = Triggers(self.watch.monotonic)
        prober = Prober(self.probes, self.watch, self.triggers.check)
        self.controller = Controller(
            ControllerParts(
                source=self.files,
                engine=ProbedEngine(self.engine, prober),
                store=self.store,
                clock=self.watch,
                random=lambda: 0.0,
                triggers=self.triggers,
                fetch_policy=self.rules,
                publish=self.published.append,
                publish_commits=self._publish_commits,
                quarantine_rules=self.keeping,
                failure_log=self.failure_log,
                stopping=self._is_stopping,
                read_use=self.read_use,
            )
        )
        self.operator = ControlApi(self.controller, PassLock(), threading.Event())
        self.controller.begin(problem=problem)
        self.controller.subscribed()

    def _publish_commits(self, desired: Desired, report: Report) -> None:
        self.publish_commits(desired, report)

    def _is_stopping(self) -> bool:
        return self.stopping()

    def rules(self) -> PassPolicy:
        if self.engine.away is not None:
            raise self.engine.away
        return PassPolicy(worlds.NAMES, self.judge, self.policy)

    def declare(self, *resources: object) -> None:
        """Change the files, and have the change noticed."""
        self.files.desired = worlds.declared(*resources)  # type: ignore[arg-type]
        self.controller.files_changed()

    def step(self) -> bool:
        """Do one chore or one pass; return whether there was any."""
        chores, keys = self.controller.chores, self.controller.keys
        chore = chores.poll()
        if chore is not None:
            self.controller.run_chore(chore)
            chores.done(chore)
            return True
        key = keys.poll()
        if key is not None:
            self.controller.handle(key)
            keys.done(key)
            return True
        due = self.controller.prober.next_due()
        if due is not None and due <= self.watch.time:
            self.controller.prober.step(longest_s=0.0)
            return True
        return False

    def settle(self) -> list[str]:
        """Do all that is ready now; return what was done to the engine."""
        before = len(self.engine.done)
        for _ in range(200):
            if not self.step():
                return self.engine.done[before:]
        raise AssertionError(f"it never rests: {self.engine.done[before:]}")

    def let_pass(self, seconds: float) -> list[str]:
        """Let time pass, doing what becomes due on the way."""
        before = len(self.engine.done)
        end = self.watch.time + seconds
        while True:
            self.settle()
            controller = self.controller
            queues = (controller.chores, controller.keys, controller.prober)
            dues = [queue.next_due() for queue in queues]
            due = min((due for due in dues if due is not None), default=end)
            if due > end:
                self.watch.time = end
                return self.engine.done[before:]
            self.watch.time = max(self.watch.time, due)

    def condition(self, name: str, type_: str) -> tuple[str, str]:
        """Return a condition's status and reason."""
        found = self._condition(name, type_)
        return (found["status"], found["reason"]) if found else ("", "")

    def message(self, name: str, type_: str) -> str:
        """Return a condition's message."""
        return self._condition(name, type_).get("message", "")

    def _condition(self, name: str, type_: str) -> dict[str, str]:
        resources = self.controller.status()["resources"]
        assert isinstance(resources, list)
        (resource,) = [r for r in resources if r["name"] == name]
        found: list[dict[str, str]] = [c for c in resource["conditions"] if c["type"] == type_]
        return found[0] if found else {}

    def problems(self) -> list[str]:
        """Return the codes of all problems."""
        problems = self.controller.status()["problems"]
        assert isinstance(problems, list)
        return [problem["code"] for problem in problems]


__all__ = ["Chore", "Files", "House", "ToyEngine", "ToyProbes", "Watch"]
