"""The executor: performs a plan's actions in order, and decides nothing.

Right before each action it checks that action's precondition against what the engine shows then;
it ends at the first that doesn't hold or fails. No mutation is ever repeated here. A stretch of
actions that belong together (``core.drift.actions``) is begun only if all of it may be done now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from controller.core.drift.actions import denied, stretches
from controller.loop.workers.shared_creations import SharedCreations, existing
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    UnpauseContainer,
    UpdateContainer,
    Wait,
)
from controller.model.errors import Conflict, EngineError
from controller.model.names import Key
from controller.model.observed import Container, Observed
from controller.model.records import Context
from controller.ports import ActionPerformer

#: A precondition that the engine's state doesn't meet: somebody else acted. Look again.
UNMET = "precondition.unmet"


#: What puts a container in place where it stands.
_IN_PLACE = (
    UpdateContainer,
    UnpauseContainer,
    RenameContainer,
    ConnectNetwork,
    DisconnectNetwork,
)


@dataclass(frozen=True, slots=True)
class ActionDone:
    """An action that succeeded, and the id of what it made or acted on ('' for a pull).

    ``shared``: another pass made it meanwhile.
    """

    action: AnyAction
    id: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of a sequence of actions.

    ``waits`` and ``refused`` (denied in the plan already) were passed over: nothing in a plan
    depends on them, but on a wait that is a gate all that is behind it. ``held`` are those whose own earlier failure isn't to be repeated yet, with
    what follows them in their slot.
    """

    done: tuple[ActionDone, ...] = ()
    waits: tuple[Wait, ...] = ()
    refused: tuple[AnyAction, ...] = ()
    held: tuple[AnyAction, ...] = ()
    failed: AnyAction | None = None
    error: EngineError | None = None
    interrupted: bool = False

    @property
    def changed(self) -> bool:
        """Tell whether anything was done to the engine, or may have been."""
        return bool(self.done) or self.failed is not None


def never(_action: AnyAction) -> bool:
    """Hold back nothing."""
    return False


def not_stopping() -> bool:
    """Go on to the end."""
    return False


def closed(_gate: Barrier) -> bool:
    """Pass no gate: what is behind it is for a later pass."""
    return False


def execute(  # noqa: PLR0913 - the seam of passes and exact plans, each input by name
    actions: Iterable[AnyAction],
    *,
    engine: ActionPerformer,
    context: Callable[[AnyAction], Context],
    look: Callable[[AnyAction], Observed],
    observed: Observed | None = None,
    held: Callable[[AnyAction], bool] = never,
    passes: Callable[[Barrier], bool] = closed,
    creations: SharedCreations | None = None,
    stopping: Callable[[], bool] = not_stopping,
) -> Execution:
    """Perform *actions* in order until one fails; an error of the engine's is a result, not raised.

    Args:
        actions: one key's sequence, or a whole plan.
        engine: who performs them.
        context: the claims to send with an action.
        look: takes a fresh snapshot that shows what an action acts on.
        observed: a snapshot taken just now, which the first precondition is checked against.
        held: tells of an action that it isn't to be tried now.
        passes: tells, when a gate is reached, whether to go on behind it. It may wait for that, and
            raise an EngineError.
        creations: shares what is created with other executions that run side by side; without it
            nobody else acts, and what is there already is a conflict.
        stopping: tells that the process is to end: the running stretch is finished, no more begun.
    """
    sequence = tuple(actions)
    leaving = frozenset(a.target for a in sequence if isinstance(a, RemoveContainer))
    run = _Run(engine, context, look, observed, leaving, creations)
    for stretch in stretches(sequence):
        first = run.trying = stretch[0]
        if first.object in run.behind:
            continue
        try:
            if isinstance(first, Wait):
                run.wait(first, passes)
            elif refused := [action for action in stretch if denied(action)]:
                run.refused += refused
            elif run.holds(stretch, held):
                run.held += stretch
            elif stopping():
                return run.result(interrupted=True)
            else:
                for action in stretch:
                    run.perform(action)
        except EngineError as error:
            return run.result(failed=run.trying, error=error)
    return run.result()


class _Run:
    """The state of one execution."""

    def __init__(
        self,
        engine: ActionPerformer,
        context: Callable[[AnyAction], Context],
        look: Callable[[AnyAction], Observed],
        observed: Observed | None,
        leaving: frozenset[str],
        creations: SharedCreations | None,
    ) -> None:
        self._engine = engine
        self._leaving = leaving  # the names of what is removed
        self._creations = creations
        self._context = context
        self._look = look
        self._observed = observed  # used once
        self._made: dict[str, str] = {}  # container name -> id
        self.done: list[ActionDone] = []
        self.waits: list[Wait] = []
        self.refused: list[AnyAction] = []
        self.held: list[AnyAction] = []
        self.behind: set[Key] = set()  # whose gate is closed
        self.trying: AnyAction | None = None  # the one that is being done

    def wait(self, action: Wait, passes: Callable[[Barrier], bool]) -> None:
        """Pass a wait over; at a closed gate the sequence of its key ends."""
        if isinstance(action, Barrier) and passes(action):
            self._observed = None
            return
        self.waits.append(action)
        if isinstance(action, Barrier):
            self.behind.add(action.object)

    def holds(self, stretch: Sequence[AnyAction], held: Callable[[AnyAction], bool]) -> bool:
        """Tell whether a stretch, or an action before it that it depends on, is held."""
        if any(self._depends(action, on) for action in stretch for on in self.held):
            return True
        # What is taken down is asked for last: it may use up a share, which the rest must need.
        return any(held(action) for action in reversed(stretch))

    def _depends(self, action: AnyAction, on: AnyAction) -> bool:
        """Tell whether an action is of no use without another one that stands before it."""
        # Slot 0 is what all slots share: networks, volumes, the image.
        if action.object != on.object or on.slot not in (0, action.slot):
            return False
        # What is to go is put in place for the time until then: nothing else needs that.
        return not (isinstance(on, _IN_PLACE) and on.target in self._leaving)

    def perform(self, action: AnyAction) -> None:
        """Check one action's precondition, and do it."""
        self.trying = action
        if self._creations is not None and isinstance(action, CreateNetwork | CreateVolume):
            with self._creations.turn(action):
                self._observed = self._look(action)
                if there := existing(action, self._observed):
                    self.done.append(ActionDone(action, there, shared=True))
                else:
                    self._perform(action)
            return
        self._perform(action)

    def _perform(self, action: AnyAction) -> None:
        ready = self._resolved(action)
        made = self._engine.perform(ready, self._context(action))
        if isinstance(action, CreateContainer):
            self._made[action.target] = made
        self.done.append(ActionDone(action, made or ready.precondition.id))

    def _resolved(self, action: AnyAction) -> AnyAction:
        """Return the action with its id, its precondition checked.

        Raises:
            Conflict: the precondition doesn't hold.
        """
        wanted = action.precondition
        if isinstance(action, PullImage):
            self._observed = None  # it may take long
            return action
        observed, self._observed = self._observed or self._look(action), None
        if isinstance(action, CreateNetwork | CreateVolume | CreateContainer):
            if wanted.absent and wanted.absent in _names(observed, action):
                raise Conflict(UNMET, f"{wanted.absent} is there already")
            return action
        if isinstance(action, RemoveNetwork):
            if all(network.id != wanted.id for network in observed.networks):
                raise Conflict(UNMET, f"the network {action.target} is gone")
            return action
        container = self._container(action, observed)
        if container is None:
            raise Conflict(UNMET, f"the container {action.target} is gone")
        if wanted.revision and container.revision != wanted.revision:
            raise Conflict(UNMET, f"{action.target} is of revision {container.revision}")
        return replace(action, precondition=replace(wanted, id=container.id))

    def _container(self, action: AnyAction, observed: Observed) -> Container | None:
        """Return the container that an action is on: by id, or as this execution created it."""
        container_id = action.precondition.id or self._made.get(action.target, "")
        return next((c for c in observed.containers if c.id == container_id), None)

    def result(
        self,
        *,
        failed: AnyAction | None = None,
        error: EngineError | None = None,
        interrupted: bool = False,
    ) -> Execution:
        """Return what became of it all."""
        return Execution(
            done=tuple(self.done),
            waits=tuple(self.waits),
            refused=tuple(self.refused),
            held=tuple(self.held),
            failed=failed,
            error=error,
            interrupted=interrupted,
        )


def _names(observed: Observed, action: AnyAction) -> set[str]:
    match action:
        case CreateNetwork():
            return {network.name for network in observed.networks}
        case CreateVolume():
            return {volume.name for volume in observed.volumes}
        case _:
            return {container.name for container in observed.containers}
