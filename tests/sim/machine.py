"""A world that is led by hand, step by step: the rules of a Hypothesis machine.

What people, files, faults and time may do is a rule each; the checkers of the simulation are the
invariants, and that all converges in the end is what each run is over with. What breaks is shrunk to
a few steps, which are printed as a program.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.model.desired.desired import Verb
from controller.model.names import Key
from tests.sim.faults import Fault, Faults
from tests.sim.files import Doc
from tests.sim.people import DOINGS
from tests.sim.stories import APP, CHECK, DB, LAB, PROBE, WEB, Tale, service
from tests.sim.violation import Violation
from tests.sim.world import World

#: People who see that a rollout failed give the document out anew, so long after the faults.
REVISED_S = 700.0
#: What is done takes so long, so that of a few steps each meets something.
STEP_S = 0.2
VERBS: tuple[Verb, ...] = ("suspend", "resume", "rollback", "restart")
PORTS = [{"container": 8080, "host": 15432, "hostIP": "127.0.0.1"}]
DATA = [{"type": "volume", "source": "data", "target": "/data"}]
#: What is declared of each: its documents, from the first on.
DECLARED: dict[Key, tuple[Doc, ...]] = {
    WEB: (
        service(WEB, "web:1"),
        service(WEB, "web:2", replicas=2),
        service(WEB, "web:3", healthcheck=PROBE),
        service(WEB, "web:1", replicas=3, state="Stopped"),
    ),
    DB: (
        service(DB, "db:1", ports=PORTS, mounts=DATA, healthcheck=CHECK),
        service(DB, "db:2", ports=PORTS, mounts=DATA),
    ),
    APP: tuple(
        Doc(APP, {"image": f"ghcr.io/platformnetwork/app:{tag}", "dependsOn": [{"name": "db"}]})
        for tag in (1, 2)
    ),
    LAB: (service(LAB, "job:1"), service(LAB, "job:1", replicas=2)),
}
KEYS = st.sampled_from(sorted(DECLARED))


class LedWorld(World):
    """A world of one service, in which only happens what it is told."""

    def __init__(self) -> None:
        tale = Tale(does=frozenset(), begin=(DECLARED[WEB][0],), keep_s=30.0)
        super().__init__(0, story=tale, faults=Faults.none())

    def rest(self) -> None:
        if APP in self.files.docs and DB not in self.files.docs:
            self.files.put(DECLARED[DB][0])  # without it the other document makes no sense
        # "restart": it isn't called off with the rest.
        self.at(REVISED_S, "restart rollouts", self._revise)
        super().rest()

    def _revise(self) -> None:
        for key in sorted(self.files.docs):
            self.files.change(key, containerLabels={"revised": "yes"})
        self.files_changed()


def told(step: Callable[..., None]) -> Callable[..., None]:
    """Let Hypothesis see a violation, which nothing of the product's may catch."""

    @wraps(step)
    def checked(self: Machine, **named: object) -> None:
        try:
            step(self, **named)
        except Violation as violation:
            self.broken = True
            raise AssertionError(str(violation)) from violation

    return checked


class Machine(RuleBasedStateMachine):
    """The rules. ``steps`` are those that the last run took."""

    steps: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self._stack = ExitStack()
        self.world = LedWorld()
        self._stack.enter_context(self.world.begun())
        type(self).steps = ()

    def _happens(self, what: str, do: Callable[[], object]) -> None:
        type(self).steps = (*self.steps, what)
        self.world.at(0.0, what, do)
        self.world.live(STEP_S)

    # Files

    @rule(key=KEYS, which=st.integers(0, 3))
    @told
    def declare(self, key: Key, which: int) -> None:
        docs = DECLARED[key]
        doc = docs[which % len(docs)]
        self._edit(f"{key} is declared", partial(self.world.files.put, doc))

    @rule(key=KEYS)
    @told
    def withdraw(self, key: Key) -> None:
        if key in self.world.files.docs:
            self._edit(f"{key} is withdrawn", partial(self.world.files.drop, key))

    @rule(key=KEYS)
    @told
    def spoil(self, key: Key) -> None:
        if key in self.world.files.docs:
            self._edit(f"{key} is spoiled", partial(self.world.files.spoil, key))

    @rule(how=st.sampled_from(["litter", "empty", "vanish", "mend"]))
    @told
    def break_files(self, how: str) -> None:
        self._edit(f"files: {how}", getattr(self.world.files, how))

    def _edit(self, what: str, change: Callable[[], object]) -> None:
        def act() -> None:
            change()
            self.world.files_changed()

        self._happens(what, act)

    # People

    @rule(doing=st.sampled_from(sorted(set(DOINGS))))
    @told
    def meddle(self, doing: str) -> None:
        self._happens(doing, partial(self.world.people.meddle, doing))

    @rule(what=st.sampled_from(["copy", "run_client", "operate", "usurp"]))
    @told
    def interfere(self, what: str) -> None:
        self._happens(what, getattr(self.world.people, what))

    @rule(verb=st.sampled_from(VERBS), key=KEYS)
    @told
    def hold(self, verb: Verb, key: Key) -> None:
        self._happens(f"{verb} {key}", partial(self.world.hands.act, verb, key))

    @rule()
    @told
    def apply(self) -> None:
        self._happens("apply", self.world.apply_plan)

    # Faults

    @rule(fault=st.sampled_from(Fault))
    @told
    def meet(self, fault: Fault) -> None:
        type(self).steps = (*self.steps, f"next: {fault}")
        self.world.faults.arm(fault)

    @rule()
    @told
    def end_broker(self) -> None:
        self._happens("broker dies", self.world.broker.die)

    @rule(killed=st.booleans())
    @told
    def restart_engine(self, killed: bool) -> None:
        restart = self.world.engine.engine_restart
        self._happens("engine restarts", partial(restart, killed=killed))

    @rule(up=st.booleans())
    @told
    def switch_registry(self, up: bool) -> None:
        self._happens("registry", partial(setattr, self.world.engine, "registry_up", up))

    @rule(seconds=st.sampled_from([-3600.0, -5.0, 5.0, 3600.0]))
    @told
    def set_clock(self, seconds: float) -> None:
        self._happens("clock is set", partial(self.world.clock.jump, seconds))

    # Time

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0, 300.0]))
    @told
    def wait(self, seconds: float) -> None:
        type(self).steps = (*self.steps, f"{seconds:g} s")
        self.world.live(seconds)

    # What must be so

    @invariant()
    @told
    def nothing_is_broken(self) -> None:
        self.world.checkers.look()

    @told
    def _rest(self) -> None:
        self.world.rest()

    def teardown(self) -> None:
        try:
            if not self.broken:
                self._rest()
        finally:
            self._stack.close()
