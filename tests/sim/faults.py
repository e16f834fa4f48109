"""Which fault meets which action: drawn from the seed, counted, and shown as a table.

A world is aimed at two cells of the table: at their actions, their faults are certain. Other
faults come by chance. Every fault is tied to a mutation that the controller sends; what lasts (a directory
that is gone, lost wakeups) begins there.
"""

from __future__ import annotations

import random
from collections import Counter
from enum import StrEnum


class Action(StrEnum):
    """The mutations that the controller sends, by the plan's word."""

    PULL = "pull-image"
    CREATE_NETWORK = "create-network"
    REMOVE_NETWORK = "remove-network"
    CREATE_VOLUME = "create-volume"
    DELIVER = "deliver-files"
    MOVE = "move-service"
    CREATE = "create-container"
    START = "start-container"
    UPDATE = "update-container"
    STOP = "stop-container"
    RESTART = "restart-container"
    SIGNAL = "signal-container"
    UNPAUSE = "unpause-container"
    RENAME = "rename-container"
    CONNECT = "connect-network"
    DISCONNECT = "disconnect-network"
    REMOVE = "remove-container"
    PROVE = "upload-proof"


class Fault(StrEnum):
    """What goes wrong around one action."""

    REFUSED = "engine refuses"
    LOST_UNDONE = "reply lost, not done"
    LOST_DONE = "reply lost, done"
    LOST_LATE = "reply lost, done later"
    AWAY = "engine away"
    FULL_INTENT = "disk full at the intent"
    FULL_OUTCOME = "disk full at the outcome"
    BROKER_BEFORE_INTENT = "broker dies before the intent"
    BROKER_AFTER_INTENT = "broker dies after the intent"
    BROKER_AFTER_FORWARD = "broker dies after forwarding"
    BROKER_ANSWERED = "broker dies once it answered"
    BROKER_AFTER_OUTCOME = "broker dies after the outcome"
    ANSWER_LOST = "broker's answer lost"
    CONTROLLER_BEFORE = "controller dies before sending"
    CONTROLLER_AFTER = "controller dies after the answer"
    ENGINE_RESTART_BEFORE = "engine restarts before"
    ENGINE_KILLED_AFTER = "engine killed after"
    MEDDLED = "somebody was there first"
    STALE = "snapshot is stale"
    DEAF = "wakeups are lost"
    BAD_FILE = "a file is bad"
    EMPTIED = "directory is emptied"
    VANISHED = "directory vanishes"
    CLOCK = "clock is set back"


#: Actions that no random world plans: no fault can meet them. Stories deliver files, rename services,
#: and upload proofs.
UNPLANNED = frozenset({Action.RESTART, Action.DELIVER, Action.SIGNAL, Action.MOVE, Action.PROVE})
PLANNED = tuple(action for action in Action if action not in UNPLANNED)

#: A fault, and the action that it meets.
Cell = tuple[Fault, Action]

#: Of these the controller keeps nothing from an answer.
LATE = frozenset(
    {
        Action.PULL,
        Action.CREATE_NETWORK,
        Action.REMOVE_NETWORK,
        Action.CREATE_VOLUME,
        Action.CONNECT,
        Action.DISCONNECT,
    }
)
#: Cells that can't be met, and why.
UNREACHABLE: dict[Cell, str] = {
    (Fault.BROKER_ANSWERED, action): "a death after the outcome is the same" for action in LATE
}

#: All cells, in the order in which seeds are aimed at them.
CELLS: tuple[Cell, ...] = tuple(
    (fault, action) for fault in Fault for action in PLANNED if (fault, action) not in UNREACHABLE
)

#: How likely a fault by chance is, from world to world.
LIKELIHOODS = (0.0, 0.03, 0.1, 0.2)


class Faults:
    """The faults of one world; ``none`` are those of a world in which nothing goes wrong by itself."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"faults {seed}")
        half = len(CELLS) // 2
        self.aims: tuple[Cell, ...] = (
            CELLS[seed % len(CELLS)],
            CELLS[(seed + half) % len(CELLS)],
        )
        self._left = set(self.aims)
        self._armed: list[Fault] = []
        self.on = True
        self.met: Counter[tuple[Fault, Action]] = Counter()
        self._likelihood = self._random.choice(LIKELIHOODS)
        # The first of its kind is most often the one in an empty world: aim at later ones too.
        # The first create is in an empty world: some worlds aim at a later one.
        late = self._random.random() < 0.3
        self._passed_over = {Action.CREATE: int(late), Action.START: int(late)}

    @classmethod
    def none(cls) -> Faults:
        """Return faults that meet only what they are told to (``arm``)."""
        faults = cls(0)
        faults.on, faults.aims, faults._left, faults._likelihood = False, (), set(), 0.0
        return faults

    def arm(self, fault: Fault) -> None:
        """Meet the next action with a fault, whatever it is; ``STALE`` meets the next pass."""
        self._armed.append(fault)

    def stop(self) -> None:
        """Meet nothing any more."""
        self.on = False
        self._armed.clear()

    @property
    def done(self) -> bool:
        """Tell whether the cells that were aimed at were met."""
        return all(self.met[aim] for aim in self.aims)

    def draw(self, action: Action) -> Fault | None:
        """Return the fault that meets an action now, if one does; ``STALE`` is drawn by passes."""
        for fault in self._armed:
            if fault is not Fault.STALE:
                self._armed.remove(fault)
                return fault
        if not self.on:
            return None
        for fault, aimed in self.aims:
            if action is not aimed or fault is Fault.STALE or (fault, aimed) not in self._left:
                continue
            if self._passed_over.get(action, 0):
                self._passed_over[action] -= 1
                continue
            self._left.discard((fault, aimed))
            return fault
        if self._random.random() < self._likelihood:
            return self._random.choice([each for each in Fault if each is not Fault.STALE])
        return None

    def stale(self) -> bool:
        """Tell whether a pass sees an old snapshot."""
        if Fault.STALE in self._armed:
            self._armed.remove(Fault.STALE)
            return True
        if not self.on:
            return False
        if any(aim[0] is Fault.STALE and not self.met[aim] for aim in self.aims):
            return self._random.random() < 0.6
        return self._random.random() < self._likelihood / 2

    def chance(self, share: float) -> bool:
        """Tell whether something happens here, *share* as likely as a fault by chance."""
        return self._random.random() < self._likelihood * share

    def count(self, fault: Fault, action: Action) -> None:
        self.met[fault, action] += 1


def table(met: Counter[tuple[Fault, Action]]) -> list[str]:
    """Return the table fault by action as lines."""
    lines = [
        f"{'':34}" + " ".join(f"{action.value.replace('-container', ''):>14}" for action in PLANNED)
    ]
    for fault in Fault:
        cells = [
            "-" if (fault, action) in UNREACHABLE else str(met[fault, action]) for action in PLANNED
        ]
        lines.append(f"{fault.value:34}" + " ".join(f"{cell:>14}" for cell in cells))
    return lines


def holes(met: Counter[tuple[Fault, Action]]) -> list[str]:
    """Return the cells that nothing met."""
    return [f"{fault.value} x {action.value}" for fault, action in CELLS if not met[fault, action]]
