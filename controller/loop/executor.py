"""The executor: performs a plan's actions in order, and decides nothing.

Each action's precondition is sent with its request, and the broker checks the precondition. A
failed action ends the execution. No mutation is ever repeated here. An atomic group of actions
(``core.drift.actions.atomic_groups``) begins only if policy and retries allow the whole group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from controller.core.drift.actions import atomic_groups, is_denied
from controller.loop.state.failed_runs import ActionLog
from controller.loop.workqueue import OutsideSlot, SharedCreations, existing, in_place
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
from controller.model.errors import Conflict, EngineError, TooManyRequests
from controller.model.names import Key
from controller.model.records import UNMET, Context
from controller.ports import Engine


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


def never() -> bool:
    """Return False: do not stop."""
    return False


class Executor(ABC):
    """Performs one sequence of actions, in order until one fails.

    Each performed action is an entry of *log*. A subclass decides what is deferred, whether a barrier is
    open, and when to stop. *creations* shares created objects with other executors; None: there is no
    other one, and an existing object is a conflict. *outside_slot*: how pulls leave their worker's slot.
    """

    def __init__(
        self,
        engine: Engine,
        log: ActionLog,
        creations: SharedCreations | None = None,
        outside_slot: OutsideSlot = in_place,
    ) -> None:
        self._engine = engine
        self._log = log
        self._creations = creations
        self._outside_slot = outside_slot
        #: The names of the containers that the sequence removes.
        self._removed: frozenset[str] = frozenset()
        #: The ids of created containers, by name.
        self._created: dict[str, str] = {}
        self._done: list[ActionDone] = []
        self._waits: list[Wait] = []
        self._refused: list[AnyAction] = []
        self._deferred: list[AnyAction] = []
        #: The keys whose barrier is closed.
        self._closed: set[Key] = set()
        self._current: AnyAction | None = None

    # Decisions of a subclass

    @abstractmethod
    def context(self, action: AnyAction) -> Context:
        """Return the claims to send with an action."""

    @abstractmethod
    def stopping(self) -> bool:
        """Return True to finish the current group and begin no further one."""

    def is_deferred(self, _action: AnyAction) -> bool:
        """Return True for an action whose retry isn't due."""
        return False

    def await_open(self, _barrier: Barrier) -> bool:
        """Return True to perform the actions behind a barrier. May block, and raise an EngineError."""
        return False

    # Execution

    def execute(self, actions: Iterable[AnyAction]) -> Execution:
        """Perform *actions*: one key's sequence, or a whole plan.

        Errors of the engine are returned, not raised.
        """
        sequence = tuple(actions)
        self._removed = frozenset(a.target for a in sequence if isinstance(a, RemoveContainer))
        for group in atomic_groups(sequence):
            first = self._current = group[0]
            if first.object in self._closed:
                continue
            try:
                if isinstance(first, Wait):
                    self._wait(first)
                elif refused := [action for action in group if is_denied(action)]:
                    self._refused += refused
                elif self._is_deferred(group):
                    self._deferred += group
                elif self.stopping():
                    return replace(self._result(), interrupted=True)
                else:
                    for action in group:
                        self._perform_or_share(action)
            except EngineError as error:
                return replace(self._result(), failed=self._current, error=error)
        return self._result()

    def _wait(self, action: Wait) -> None:
        """Skip a wait; a closed barrier ends the sequence of its key."""
        if isinstance(action, Barrier) and self.await_open(action):
            return
        self._waits.append(action)
        if isinstance(action, Barrier):
            self._closed.add(action.object)

    def _is_deferred(self, group: Sequence[AnyAction]) -> bool:
        """Return True if an action of a group, or one of its dependencies, is deferred."""
        if any(self._depends(action, on) for action in group for on in self._deferred):
            return True
        # From last to first: a stop takes from the disruption budget, which must not be spent on a
        # group whose other actions are deferred.
        return any(self.is_deferred(action) for action in reversed(group))

    def _depends(self, action: AnyAction, on: AnyAction) -> bool:
        """Return True if an action is useless without the earlier action *on*."""
        # Slot 0 is shared by all slots: networks, volumes, the image.
        if action.object != on.object or on.slot not in (0, action.slot):
            return False
        # No action depends on the repair of a container that the sequence removes.
        return not (isinstance(on, IN_PLACE) and on.target in self._removed)

    def _perform_or_share(self, action: AnyAction) -> None:
        """Perform one action, or share the creation of another executor."""
        self._current = action
        if self._creations is None or not isinstance(action, CreateNetwork | CreateVolume):
            self._perform(action)
            return
        with self._creations.creating(action) as waited:
            if waited and self._share(action):
                return
            try:
                self._perform(action)
            except Conflict as error:
                if error.code != UNMET or not self._share(action):
                    raise

    def _share(self, action: CreateNetwork | CreateVolume) -> bool:
        """Return True if another executor created the object; the action is then done."""
        existing_id = existing(action, self._engine.observe(images=frozenset(), only=action.object))
        if existing_id:
            self._done.append(ActionDone(action, existing_id, shared=True))
        return bool(existing_id)

    def _perform(self, action: AnyAction) -> None:
        ready = self._resolve(action)
        try:
            created_id = self._send(ready)
        except EngineError as error:
            self._log.append(ready, error)
            raise
        self._log.append(ready)
        if isinstance(action, CreateContainer):
            self._created[action.target] = created_id
        self._done.append(ActionDone(action, created_id or ready.precondition.id))

    def _send(self, action: AnyAction) -> str:
        """Send one action to the engine, a pull outside the worker's slot.

        Raises:
            TooManyRequests: the action is a pull, and the limit of pulls is reached.
        """
        if not isinstance(action, PullImage):
            return self._engine.perform(action, self.context(action))
        with self._outside_slot() as granted:
            if not granted:
                raise TooManyRequests("pull.busy", "as many pulls run as may at a time")
            return self._engine.perform(action, self.context(action))

    def _resolve(self, action: AnyAction) -> AnyAction:
        """Return an action with the id of its object, known from the plan or from the creation.

        Raises:
            Conflict: the execution didn't create the object that the action needs.
        """
        wanted = action.precondition
        creates = isinstance(action, CreateNetwork | CreateVolume | CreateContainer)
        if creates or wanted.id or isinstance(action, PullImage | DeliverFiles | MoveService):
            return action
        created_id = self._created.get(action.target)
        if created_id is None:
            raise Conflict(UNMET, f"the container {action.target} is gone")
        return replace(action, precondition=replace(wanted, id=created_id))

    def _result(self) -> Execution:
        """Return the results so far."""
        done, waits = tuple(self._done), tuple(self._waits)
        return Execution(done, waits, tuple(self._refused), tuple(self._deferred))
