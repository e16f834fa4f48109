"""The executor: performs a plan's actions in order, and decides nothing.

Each action's precondition is sent with its request, and the broker checks the precondition. A
failed action ends the execution. No mutation is ever repeated here. An atomic group of actions
(``core.drift.actions.atomic_groups``) begins only if policy and retries allow the whole group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from controller.core.drift.actions import atomic_groups, is_denied
from controller.loop.worker_slots import SharedCreations, existing
from controller.model.desired.plan import (
    IN_PLACE,
    AnyAction,
    Barrier,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    MoveService,
    PullImage,
    RemoveContainer,
    Wait,
)
from controller.model.errors import Conflict, EngineError
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import UNMET, Context
from controller.ports import ActionPerformer


@dataclass(frozen=True, slots=True)
class ActionDone:
    """A successful action."""

    action: AnyAction
    #: The id of the object that the action created or changed; '' for a pull.
    id: str
    #: Another pass created the object meanwhile.
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """The results of a sequence of actions."""

    done: tuple[ActionDone, ...] = ()
    #: Waits. Later actions of a key don't depend on a wait, except on a closed barrier.
    waits: tuple[Wait, ...] = ()
    #: Actions that the policy denied in the plan; later actions don't depend on them.
    refused: tuple[AnyAction, ...] = ()
    #: Actions whose retry isn't due, and the actions of their slot that follow.
    deferred: tuple[AnyAction, ...] = ()
    failed: AnyAction | None = None
    error: EngineError | None = None
    interrupted: bool = False

    @property
    def attempted(self) -> tuple[tuple[AnyAction, ...], AnyAction | None]:
        """The successful actions, and the failed one."""
        return tuple(done.action for done in self.done), self.failed

    @property
    def changed(self) -> bool:
        """True if the engine was changed, or possibly was."""
        return bool(self.done) or self.failed is not None


def never(_action: AnyAction | None = None) -> bool:
    """Return False: defer no action, open no barrier, do not stop."""
    return False


def execute(
    actions: Iterable[AnyAction],
    *,
    engine: ActionPerformer,
    context: Callable[[AnyAction], Context],
    observe: Callable[[AnyAction], Observed],
    is_deferred: Callable[[AnyAction], bool] = never,
    await_open: Callable[[Barrier], bool] = never,
    creations: SharedCreations | None = None,
    stopping: Callable[[], bool] = never,
) -> Execution:
    """Perform *actions* in order until one fails. Errors of the engine are returned, not raised.

    Args:
        actions: one key's sequence, or a whole plan.
        engine: performs the actions.
        context: returns the claims to send with an action.
        observe: takes a fresh snapshot with an action's object, to find a shared creation.
        is_deferred: returns True for an action whose retry isn't due.
        await_open: called at a barrier; returns True to perform the actions behind the barrier. May
            block, and raise an EngineError.
        creations: shares created objects with concurrent executions. None: no other execution runs,
            and an existing object is a conflict.
        stopping: returns True if the process stops: the current group is finished, no further
            group begins.
    """
    sequence = tuple(actions)
    removed = frozenset(a.target for a in sequence if isinstance(a, RemoveContainer))
    run = _Run(engine, context, observe, removed, creations)
    for group in atomic_groups(sequence):
        first = run.current = group[0]
        if first.object in run.closed:
            continue
        try:
            if isinstance(first, Wait):
                run.wait(first, await_open)
            elif refused := [action for action in group if is_denied(action)]:
                run.refused += refused
            elif run.is_deferred(group, is_deferred):
                run.deferred += group
            elif stopping():
                return replace(run.result(), interrupted=True)
            else:
                for action in group:
                    run.perform(action)
        except EngineError as error:
            return run.result(run.current, error)
    return run.result()


@dataclass(slots=True)
class _Run:
    """The state of one execution."""

    engine: ActionPerformer
    context: Callable[[AnyAction], Context]
    observe: Callable[[AnyAction], Observed]
    #: The names of the containers that the sequence removes.
    removed: frozenset[str]
    creations: SharedCreations | None
    #: The ids of created containers, by name.
    created: dict[str, str] = field(default_factory=dict)
    done: list[ActionDone] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    refused: list[AnyAction] = field(default_factory=list)
    deferred: list[AnyAction] = field(default_factory=list)
    #: The keys whose barrier is closed.
    closed: set[Key] = field(default_factory=set)
    current: AnyAction | None = None

    def wait(self, action: Wait, await_open: Callable[[Barrier], bool]) -> None:
        """Skip a wait; a closed barrier ends the sequence of its key."""
        if isinstance(action, Barrier) and await_open(action):
            return
        self.waits.append(action)
        if isinstance(action, Barrier):
            self.closed.add(action.object)

    def is_deferred(
        self, group: Sequence[AnyAction], is_deferred: Callable[[AnyAction], bool]
    ) -> bool:
        """Return True if an action of a group, or one of its dependencies, is deferred."""
        if any(self._depends(action, on) for action in group for on in self.deferred):
            return True
        # From last to first: a stop takes from the disruption budget, which must not be spent on a
        # group whose other actions are deferred.
        return any(is_deferred(action) for action in reversed(group))

    def _depends(self, action: AnyAction, on: AnyAction) -> bool:
        """Return True if an action is useless without the earlier action *on*."""
        # Slot 0 is shared by all slots: networks, volumes, the image.
        if action.object != on.object or on.slot not in (0, action.slot):
            return False
        # No action depends on the repair of a container that the sequence removes.
        return not (isinstance(on, IN_PLACE) and on.target in self.removed)

    def perform(self, action: AnyAction) -> None:
        """Perform one action, or share the creation of another pass."""
        self.current = action
        if self.creations is None or not isinstance(action, CreateNetwork | CreateVolume):
            self._perform(action)
            return
        with self.creations.creating(action) as waited:
            if waited and self._share(action):
                return
            try:
                self._perform(action)
            except Conflict as error:
                if error.code != UNMET or not self._share(action):
                    raise

    def _share(self, action: CreateNetwork | CreateVolume) -> bool:
        """Return True if another pass created the object; the action is then done."""
        existing_id = existing(action, self.observe(action))
        if existing_id:
            self.done.append(ActionDone(action, existing_id, shared=True))
        return bool(existing_id)

    def _perform(self, action: AnyAction) -> None:
        ready = self._resolve(action)
        created_id = self.engine.perform(ready, self.context(action))
        if isinstance(action, CreateContainer):
            self.created[action.target] = created_id
        self.done.append(ActionDone(action, created_id or ready.precondition.id))

    def _resolve(self, action: AnyAction) -> AnyAction:
        """Return an action with the id of its object, known from the plan or from the creation.

        Raises:
            Conflict: the execution didn't create the object that the action needs.
        """
        wanted = action.precondition
        creates = isinstance(action, CreateNetwork | CreateVolume | CreateContainer)
        if creates or wanted.id or isinstance(action, PullImage | DeliverFiles | MoveService):
            return action
        created_id = self.created.get(action.target)
        if created_id is None:
            raise Conflict(UNMET, f"the container {action.target} is gone")
        return replace(action, precondition=replace(wanted, id=created_id))

    def result(
        self, failed: AnyAction | None = None, error: EngineError | None = None
    ) -> Execution:
        """Return the results so far."""
        done, waits = tuple(self.done), tuple(self.waits)
        refused, deferred = tuple(self.refused), tuple(self.deferred)
        return Execution(done, waits, refused, deferred, failed, error)
