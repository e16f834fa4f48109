"""A world: the product over a simulated engine, among people and faults, all from one seed.

First everything may go wrong for a while; then the faults stop, what people broke beyond repair
is put right, and all must converge within a bounded virtual time. What the checkers find at any
moment ends the world with a ``Violation``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from controller.core.enforcement.approvals import planned_removals
from controller.engine.responses import event_of
from controller.loop.prober import Prober
from controller.loop.workqueue import Chore
from controller.model.errors import EngineError, UsageError
from controller.model.names import Key
from controller.model.records import Reply, Request, Role
from tests.sim.broker import BrokerDied, NobodyThere, SimBroker
from tests.sim.controller import ControllerDied, SimController, SimTransport
from tests.sim.faults import Action, Fault, Faults
from tests.sim.ground import Now, Story
from tests.sim.hands import Hands
from tests.sim.hazards import Hazards
from tests.sim.judge import Judge
from tests.sim.meanwhile import PATIENCE_S, Meanwhile
from tests.sim.people import People
from tests.sim.probes import SimProbes
from tests.sim.pulls import Pulls
from tests.sim.scenario import MENDED, NOBODYS, WEB, Scenario
from tests.sim.violation import Violation

TROUBLE_S = 900.0
CONVERGE_S = 40 * 60.0
#: For so long nobody mends a mistake.
MISTAKEN_S = 10 * 60.0
#: More of these in a world is a loop that goes nowhere.
STEPS_MAX = 6_000
PASSES_A_SECOND = 40


class World(Hazards):
    """One world, of a story and faults that are drawn from its seed if it isn't given others.

    ``run`` it once.
    """

    #: The share of the engine's events that the controller is told of.
    heard = 0.9

    def __init__(
        self, seed: int, *, story: Story | None = None, faults: Faults | None = None
    ) -> None:
        faults = faults or Faults(seed)
        story = story or Scenario(seed, {action for _fault, action in faults.aims})
        super().__init__(seed, faults, story.keep_s)
        self.story = story
        self.broker = SimBroker(self.places, self)
        self.people = People(seed, self.engine, self.marks, self.ask, self._knows)
        self.judge = Judge(self, self.broker, self.people)
        self.hands = Hands(
            seed,
            self.people,
            self.ask,
            lambda: self.controller,
            self.judge.truth_seen,
            self._bury_controller,
        )
        self.judge.hands = self.hands
        self.checkers.watch(self.judge, self.hands)
        self.pulls = Pulls(self.judge.truth_seen)
        self.hands.on_restart = self.pulls.forget
        self.meanwhile = Meanwhile(seed)
        self._passing: Key | None = None
        self._heard, self._followed = 0, 1
        self._passes: dict[Key, list[float]] = {}
        self._sent: list[str] = []  # the controller's mutations, of late

    # Life

    def run(self) -> None:
        """Live through trouble, then converge.

        Raises:
            Violation
        """
        with self.begun():
            self._trouble()
            self.rest()

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Have it going, with what its story begins with, until the block ends."""
        logger = logging.getLogger()
        logger.addHandler(self.logged)
        try:
            self._set_up()
            yield
        finally:
            logger.removeHandler(self.logged)
            self.files.close()

    def live(self, seconds: float) -> None:
        """Let so much time pass, with all that happens meanwhile."""
        end = self.clock.monotonic() + seconds
        for _ in range(STEPS_MAX):
            if self.clock.monotonic() >= end:
                return
            self._step(end)
        raise Violation(11, f"{STEPS_MAX} steps within {seconds:g} s")

    def rest(self) -> None:
        """Let the faults stop, and all converge."""
        self._calm_down()
        self._serve_on()
        self._converge()

    def _serve_on(self) -> None:
        """What can't be had is waited for, and what served before it serves; then it is mended."""
        mistaken = [key for key, doc in self.files.docs.items() if doc.spec.get("image") == NOBODYS]
        if not mistaken:
            return
        self.live(MISTAKEN_S)
        self.judge.check_serving(frozenset(mistaken))
        for key in mistaken:
            self.files.change(key, image=MENDED)
        self.files_changed()

    def _set_up(self) -> None:
        for doc in self.story.docs(self.secret):
            self.files.put(doc)
        self.engine.ill |= self.story.ill
        self.engine.flapping |= self.story.flapping
        self.engine.troubled = self.story.ill | self.story.flapping
        self._start_controller()
        for at, what, do in self.story.events(self):
            self.at(at, what, do)
        for at, what, change in self.files.mishaps(self.seed):
            self.at(at, what, partial(self._befall, change))

    def _befall(self, change: Callable[[], object]) -> None:
        change()
        self.files_changed()

    def _trouble(self) -> None:
        end = self.clock.monotonic() + TROUBLE_S
        steps = 0
        while self.clock.monotonic() < end:
            over = self.planned is None and self.faults.done and self.judge.quiet() == ""
            if over or steps > STEPS_MAX // 2:
                return
            self._step(end)
            steps += 1

    def _calm_down(self) -> None:
        self.note("faults stop")
        self.faults.stop()
        self.away = self.journal.full = False
        self.engine.registry_up = True
        self.engine.ill.clear()
        self.engine.flapping.clear()
        self.call_off()
        self.meanwhile.call_off()
        self.files.mend()
        if self.engine.troubled and WEB in self.files.docs:
            # Who mends a program gives it out anew: a rollout that failed isn't tried again.
            self.files.change(WEB, containerLabels={"mended": "yes"})
        self.files_changed()
        self.people.clear_names()
        self.people.remove_guests()
        for key in sorted(self.hands.suspended | self.hands.unsure):
            self.at(self.random.uniform(1, 30), "let go", partial(self._let_go, key))

    def _let_go(self, key: Key) -> str:
        """Resume a service once somebody is there to ask, and sees it."""
        told = self.hands.act("resume", key)
        if key in self.hands.suspended | self.hands.unsure:
            self.at(5.0, "let go", partial(self._let_go, key))
        return told

    def _converge(self) -> None:
        end = self.clock.monotonic() + CONVERGE_S
        steps = 0
        asked = False
        while (missing := self.judge.quiet() or self.judge.pending()) != "":
            if not asked and self.clock.monotonic() > end - CONVERGE_S / 2:
                asked = self.approve()
            if self.clock.monotonic() >= end or steps > STEPS_MAX:
                raise Violation(10, f"not converged {CONVERGE_S / 60:g} minutes later: {missing}")
            self._step(end)
            steps += 1
        self.judge.check_rest()

    def approve(self) -> bool:
        """An operator approves what the prune guard holds back."""
        if self.controller is None:
            return False
        self.note("approval")
        self.controller.transport.turn(None, stale=False)
        loop = self.controller.loop
        try:
            shown = loop.plan_everything()
            self.people.approve(shown.plan.digest, planned_removals(shown.plan, shown.observed))
            survey = loop.observe_everything(
                approved=True, requested_by="uid:0", plan=shown.plan.digest
            )
        except (EngineError, UsageError):
            return False
        except ControllerDied:
            self._bury_controller()
            return False
        self.judge.remember(survey.view.desired)
        self.checkers.approved()
        return True

    # One step

    def _step(self, end: float) -> None:
        """Do the next thing that is due, or let time pass until one is."""
        now = self.clock.monotonic()
        self.engine.settle()
        self._tell()
        if self.planned is not None and self.planned <= now:
            self.happen()
        elif self.broker.mend_at is not None and self.broker.mend_at <= now:
            self._mend()
        elif self.controller is not None and (what_next := self.controller.poll()) is not None:
            self._let_controller(what_next)
        else:
            self.clock.advance(max(0.001, min(self._next_due(), end) - now))

    def _next_due(self) -> float:
        dues = [self.clock.monotonic() + 60.0]
        dues += [self.planned] if self.planned is not None else []
        dues += [self.broker.mend_at] if self.broker.mend_at is not None else []
        dues += [due] if (due := self.engine.next_due()) is not None else []
        if self.controller is not None and (due := self.controller.next_due()) is not None:
            dues.append(due)
        return min(dues)

    def _mend(self) -> None:
        before = self.now
        self.now = Now(role=Role.BROKER)
        try:
            self.broker.mend()
        finally:
            self.now = before
        self._after_broker()

    def _let_controller(self, what: Chore | Key | Prober) -> None:
        controller = self.controller
        assert controller is not None
        key = what if isinstance(what, Key) else None
        controller.transport.turn(key, stale=key is not None and self.faults.stale())
        if key is not None:
            self._count_pass(key)
        self._passing = key
        try:
            with self.judge.passing() if key is not None else nullcontext():
                controller.do(what)
        except ControllerDied:
            self._bury_controller()
        except Exception as error:
            raise Violation(0, f"{what} raised {type(error).__name__}: {error}") from error
        finally:
            self._passing = None
        if self.controller is not None and what in (Chore.OBSERVE, Chore.RELOAD):
            self.judge.remember(controller.source.desired)
            if self.random.random() < 0.2:
                self._ask_for_a_plan()

    def amid(self, key: Key, what: str, change: Callable[[], object]) -> None:
        """Let a document change while a pass of *key* runs, or after a while."""
        waiting = self.meanwhile.wait(key, what, change)

        def late() -> str:
            if not self.meanwhile.take(waiting):
                return "it happened amid a pass"
            change()
            self.files_changed()
            return "no pass met it"

        self.at(PATIENCE_S, what, late)

    def _interrupt_pass(self) -> None:
        """Between two requests of a pass, make the change that waits for it, and do all chores."""
        key, controller = self._passing, self.controller
        change = None if key is None else self.meanwhile.at_request(key)
        if change is None or controller is None:
            return
        self.note(f"    amid a pass: {change.what}")
        change.make()
        controller.loop.files_changed()
        self._passing = None
        with controller.transport.aside():
            while (chore := controller.loop.chores.poll()) is not None:
                controller.do(chore)
                self.judge.remember(controller.source.desired)
        self._passing = key

    def _ask_for_a_plan(self) -> None:
        self.judge.look_at_plan()

    def _count_pass(self, key: Key) -> None:
        now = self.clock.monotonic()
        recent = [at for at in self._passes.get(key, ()) if at > now - 1.0]
        self._passes[key] = [*recent, now]
        if len(recent) >= PASSES_A_SECOND:
            raise Violation(11, f"{len(recent)} passes of {key} within a second")

    def _tell(self) -> None:
        """Pass on the engine's events, as hints; each may be lost."""
        count, self._heard = self.engine.emitted - self._heard, self.engine.emitted
        fresh = self.engine.events[-count:] if count else []
        self.broker.watch(fresh)
        if self.controller is None:
            return
        for event in map(event_of, fresh if not self.deaf else ()):
            if event is not None and self.random.random() < self.heard:
                self.controller.loop.handle_event(event)
            elif event is not None:
                self.controller.promptness.event_is_lost(event)
        if self.engine.lives != self._followed:
            self._followed = self.engine.lives
            self.controller.loop.events_lost()

    def apply_plan(self) -> str:
        """An operator looks at a plan and applies exactly that."""
        controller = self.controller
        if controller is None:
            return "nobody is there"
        controller.transport.turn(None, stale=False)
        self._sent = []
        try:
            plan = controller.loop.plan_everything().plan
            controller.operator.apply_exactly(plan.digest, approved=False, requested_by="uid:0")
        except (EngineError, UsageError) as error:
            return f"apply: {error}"
        except ControllerDied:
            self._bury_controller()
            return "died"
        finally:
            if self.controller is not None:
                self.judge.remember(controller.source.desired)
        wanted = [action.verb for action in plan.actions if action.verb != "wait"]
        if self._sent != wanted[: len(self._sent)]:
            raise Violation(8, f"an approved plan of {wanted} performed {self._sent}")
        return f"applied {len(self._sent)} of {len(wanted)}"

    # Requests, with their faults

    def act(self, action: Action, request: Request) -> Reply:
        """Send a mutation of the controller's to the broker."""
        assert self.controller is not None
        if self.controller.transport.stale:
            self.faults.count(Fault.STALE, action)
        fault = self.faults.draw(action)
        self._sent = [*self._sent[-1000:], action.value]
        self.note(f"{action.value} {_told(request)}{f'  [{fault.value}]' if fault else ''}")
        if fault is not None:
            self.begin_fault(fault, action, request)
        self.pulls.sent(action, request)
        before = self.now
        self.now = Now(Role.CONTROLLER, fault, action)
        try:
            self.checkers.request_begins(request)
            reply = self.broker.serve(request)
            if fault is Fault.BROKER_ANSWERED and reply.status < 400:
                self.faults.count(fault, action)
                self.broker.die()
        finally:
            self.now = before
        self._after_broker()
        self.note(f"    {reply.status} {reply.body[:160].decode(errors='replace')}")
        if fault is not None:
            self.end_fault(fault, action)
        elif not self.controller.transport.stale:  # an old snapshot lacks what was pulled since
            self.pulls.answered(action, request, reply)
        self._interrupt_pass()
        return reply

    def _knows(self, intent_id: str) -> bool:
        """Tell whether the journal says what came of a create."""
        intent = self.checkers.intents.get(intent_id)
        return intent is not None and intent.closed

    def ask(self, request: Request) -> Reply | None:
        """Send a request of somebody else's; faults leave it alone."""
        before = self.now
        # What somebody else does with the controller's user is no decision of the controller's.
        role = None if request.actor.role is Role.CONTROLLER else request.actor.role
        self.now = Now(role)
        try:
            self.checkers.request_begins()
            return self.broker.serve(request)
        except (NobodyThere, BrokerDied):
            return None
        finally:
            self.now = before

    def lose_state(self) -> None:
        """Lose the journal, the inventory and what the controller remembers: both begin anew."""
        self.journal.lose()
        self.checkers.forget()
        self.broker.lose()
        (self.folder / "memory.json").unlink(missing_ok=True)
        if self.controller is not None:
            self._start_controller()

    # Deaths and births

    def broker_died(self) -> None:
        self.note("broker died")
        self.at(self.random.uniform(0.1, 5.0), "restart broker", self.broker.start)

    def _bury_controller(self) -> None:
        self.note("controller died")
        self.controller = None
        self.at(self.random.uniform(0.1, 5.0), "restart controller", self._start_controller)

    def _start_controller(self) -> None:
        self.pulls.forget()
        self.controller = SimController(
            transport=SimTransport(self.broker, self.act, self._looked),
            probes=SimProbes(self.engine),
            files=self.files,
            memory=self.folder / "memory.json",
            clock=self.clock,
            seed=self.seed,
            reach=self._reach,
            is_deaf=lambda: self.deaf,
            keep_s=self.keep_s,
        )

    def _looked(self, request: Request, reply: Reply) -> None:
        """Looks go on whatever the journal does."""
        if self.journal.full and not self.away and reply.status >= 500:
            raise Violation(2, f"{request.path} answers {reply.status} while the disk is full")
        self._interrupt_pass()

    def _reach(self, point: str) -> None:
        """The controller may die while it saves, too."""
        if self.faults.on and point.startswith("state.") and self.random.random() < 0.005:
            self.note(f"controller dies at {point}")
            raise ControllerDied

    def _after_broker(self) -> None:
        state = self.broker.state
        if state is None:
            return
        inventory = state.inventory
        self.checkers.inventory_is(inventory.containers, inventory.networks)
        held = state.reservations
        claims = (held.objects, held.names, held.ports, held.addresses)
        self.checkers.at_rest(state.intents.in_flight, *claims)
        if self.random.random() < 0.05:
            self.broker.save()


def _told(request: Request) -> str:
    what = request.path.removeprefix("/v1.45")
    return f"{what}?{request.query}" if request.query else what
