"""What the controller remembers across restarts, in one file that is whole or the one before.

Losing it costs waiting times, counters, and what people want beside the files (pins, suspensions;
the journal has who asked for them), never a container: what is desired is in the files, what is
there is on the engine, and what is ours is in the broker's inventory. So nothing begins anew in the
place of a file that may be good: one that can't be read now ends the controller, and one that isn't
what was written is kept beside it.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.core.drift import backoff, contention, failures
from controller.core.drift.backoff import SlotHistory
from controller.core.drift.contention import Contention
from controller.core.drift.failures import ExitCursor
from controller.core.planning import quarantine
from controller.core.planning.quarantine import QuarantinedContainer
from controller.core.service import prune_guard as prune
from controller.core.service import revisions
from controller.core.service import rollout_progress as course
from controller.core.service.prune_guard import PruneMemory
from controller.core.service.rollout_progress import RolloutProgress
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.overrides import NO_OVERRIDES, Overrides
from controller.model.errors import Problem, StateError
from controller.model.names import Key, SlotKey
from controller.system.atomic_file import write_atomic

VERSION = 1
SIZE_MAX = 64 * 1024 * 1024
#: What reading a file raises that isn't ours.
BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

#: A numbered place of a service.


@dataclass(frozen=True, slots=True)
class Generation:
    """How often a resource's accepted spec changed, and which change was last acted on fully."""

    digest: str
    number: int = 1
    observed: int = 0


class StateStore:
    """The controller's memory. Safe to use from several threads; saved when it changed."""

    def __init__(self, file: Path, *, reach: Reach = pass_by) -> None:
        self._file = file
        self._reach = reach
        self._lock = threading.RLock()
        self._saving = threading.Lock()
        self._histories: dict[SlotKey, SlotHistory] = {}
        self._marks: dict[SlotKey, ExitCursor] = {}
        self._generations: dict[Key, Generation] = {}
        self._steerings: dict[Key, Overrides] = {}
        self._courses: dict[Key, RolloutProgress] = {}
        self._fights: dict[SlotKey, dict[str, Contention]] = {}
        self._dependencies: dict[Key, frozenset[Key]] = {}
        self._prune = PruneMemory()
        self._kept: dict[str, QuarantinedContainer] = {}
        self._taken_down = ""
        self._changed = False

    # What a pass remembers

    def history(self, slot: SlotKey) -> SlotHistory:
        """Return a slot's failures."""
        with self._lock:
            return self._histories.get(slot, backoff.CLEAN)

    def histories(self) -> dict[SlotKey, SlotHistory]:
        """Return the failures of all slots that have some."""
        with self._lock:
            return dict(self._histories)

    def remember(self, slot: SlotKey, history: SlotHistory) -> None:
        """Replace a slot's failures; clean ones take no room."""
        with self._lock:
            self._set(self._histories, slot, None if history == backoff.CLEAN else history)

    def forgive(self, key: Key) -> None:
        """Forget the failures and contentions of all slots of a service: what failed is tried at once."""
        with self._lock:
            for table in (self._histories, self._fights):
                for slot in [slot for slot in table if slot[0] == key]:
                    self._set(table, slot, None)

    @property
    def taken_down(self) -> str:
        """The record of the last ``trimtab down`` that was taken account of."""
        with self._lock:
            return self._taken_down

    def start_over(self, taken_down: str) -> None:
        """Forget how containers failed, and which rollouts did: ``trimtab down`` removed them all.

        What people want beside the files stays, and so do generations and revisions that held.
        """
        with self._lock:
            for table in (self._histories, self._marks, self._fights):
                table.clear()
            self._courses = {key: course.again(each) for key, each in self._courses.items()}
            self._taken_down, self._changed = taken_down, True

    def mark(self, slot: SlotKey) -> ExitCursor | None:
        """Return what was counted of a slot's container."""
        with self._lock:
            return self._marks.get(slot)

    def set_mark(self, slot: SlotKey, mark: ExitCursor) -> None:
        """Replace what was counted of a slot's container."""
        with self._lock:
            self._set(self._marks, slot, mark)

    def course(self, key: Key) -> RolloutProgress:
        """Return how a service's rollout goes."""
        with self._lock:
            return self._courses.get(key, course.NEW)

    def courses(self) -> dict[Key, RolloutProgress]:
        """Return how all rollouts go."""
        with self._lock:
            return dict(self._courses)

    def set_course(self, key: Key, value: RolloutProgress) -> None:
        """Replace how a service's rollout goes."""
        with self._lock:
            self._set(self._courses, key, None if value == course.NEW else value)

    def fights(self, slot: SlotKey) -> dict[str, Contention]:
        """Return what is remembered of a slot's altered fields, by the field."""
        with self._lock:
            return dict(self._fights.get(slot, {}))

    def all_fights(self) -> dict[SlotKey, dict[str, Contention]]:
        """Return that of all slots that have some."""
        with self._lock:
            return dict(self._fights)

    def set_fights(self, slot: SlotKey, fights: dict[str, Contention]) -> None:
        """Replace what is remembered of a slot's altered fields."""
        with self._lock:
            self._set(self._fights, slot, fights or None)

    @property
    def prune(self) -> PruneMemory:
        """What the prune guard remembers."""
        with self._lock:
            return self._prune

    @prune.setter
    def prune(self, memory: PruneMemory) -> None:
        with self._lock:
            self._changed |= memory != self._prune
            self._prune = memory

    @property
    def kept(self) -> dict[str, QuarantinedContainer]:
        """What is in quarantine, by the container's id."""
        with self._lock:
            return dict(self._kept)

    def keep(
        self, kept: dict[str, QuarantinedContainer], *, only: frozenset[str] | None = None
    ) -> None:
        """Replace what is in quarantine: of *only* these containers, where they are given."""
        with self._lock:
            for identifier in self._kept.keys() | kept.keys() if only is None else only:
                self._set(self._kept, identifier, kept.get(identifier))

    def generation(self, key: Key) -> Generation | None:
        """Return a resource's generation; None: it was never accepted."""
        with self._lock:
            return self._generations.get(key)

    def generations(self) -> dict[Key, Generation]:
        """Return the generations of all resources."""
        with self._lock:
            return dict(self._generations)

    def accept(self, key: Key, digest: str) -> bool:
        """Note the accepted spec of a resource; return whether it is another than before."""
        with self._lock:
            before = self._generations.get(key)
            if before is not None and before.digest == digest:
                return False
            number = 1 if before is None else before.number + 1
            observed = 0 if before is None else before.observed
            self._set(self._generations, key, Generation(digest, number, observed))
            return True

    def acted_on(self, key: Key, number: int) -> None:
        """Note that a generation was fully acted on; an older one never replaces a newer."""
        with self._lock:
            before = self._generations.get(key)
            if before is not None and before.observed < number <= before.number:
                self._set(self._generations, key, Generation(before.digest, before.number, number))

    def steering(self, key: Key) -> Overrides:
        """Return what is remembered of a service's course."""
        with self._lock:
            return self._steerings.get(key, NO_OVERRIDES)

    def steerings(self) -> dict[Key, Overrides]:
        """Return the steering of each service by its key."""
        with self._lock:
            return dict(self._steerings)

    def steer(self, key: Key, steering: Overrides) -> None:
        """Replace what is remembered of a service's course."""
        with self._lock:
            self._set(self._steerings, key, None if steering == NO_OVERRIDES else steering)

    def dependencies(self) -> dict[Key, frozenset[Key]]:
        """Return what services depended on when they were last declared."""
        with self._lock:
            return dict(self._dependencies)

    def depend(self, dependencies: Mapping[Key, frozenset[Key]]) -> None:
        """Note what declared services depend on; the others keep what was noted of them."""
        with self._lock:
            for key, others in dependencies.items():
                self._set(self._dependencies, key, others or None)

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Forget what is neither declared nor there any more, so that memory stays bounded."""
        with self._lock:
            for table in (self._histories, self._marks, self._fights):
                for entry in [entry for entry in table if entry[0] not in keys]:
                    self._set(table, entry, None)
            by_key: tuple[dict[Key, Any], ...] = (
                self._generations,
                self._steerings,
                self._courses,
                self._dependencies,
            )
            for mapping in by_key:
                for key in [key for key in mapping if key not in keys]:
                    self._set(mapping, key, None)

    def _set(self, table: dict[Any, Any], key: object, value: object | None) -> None:
        if table.get(key) == value:
            return
        self._changed = True
        if value is None:
            del table[key]
        else:
            table[key] = value

    # The file

    def read(self) -> None:
        """Read the file, as it is.

        Raises:
            OSError: it can't be read.
            BROKEN: it isn't ours.
        """
        self._restore(json.loads(_read_ordinary(self._file)))

    def load(self, *, stamp: str) -> Problem | None:
        """Read the file, if there is one; a broken one is moved aside, as *stamp* names it.

        Without a stamp that one is left where it is, for whoever doesn't save.

        Returns:
            The problem to show, if there was one.

        Raises:
            StateError: it can't be read now, or not moved aside. It stays as it is, and may be good.
        """
        try:
            self.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._file, "can't be read", error) from error
        except BROKEN as error:
            aside = self._file.with_name(f"{self._file.name}.broken-{stamp}")
            try:
                if stamp:
                    self._file.rename(aside)
            except OSError as failure:
                what = f"isn't what was written ({error}), and can't be moved aside"
                raise _unreadable(self._file, what, failure) from failure
            return _damaged(self._file, error, aside if stamp else self._file)
        return None

    def save(self) -> bool:
        """Write the file if anything changed; return whether it was written.

        Raises:
            StateError: it can't be written. What changed is kept, and written the next time.
        """
        with self._saving:
            with self._lock:
                if not self._changed:
                    return False
                text = json.dumps(self._as_json(), separators=(",", ":"), sort_keys=True)
                self._changed = False
            try:
                write_atomic(self._file, text.encode(), reach=self._reach, points="state")
            except OSError as error:
                with self._lock:
                    self._changed = True
                raise StateError(
                    "state.unwritable",
                    f"{self._file}: {error.strerror}",
                    remedy="free space on its disk, or make the folder writable",
                ) from error
            return True

    def _as_json(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "prune": prune.to_json(self._prune),
            "quarantine": {
                identifier: quarantine.to_json(kept) for identifier, kept in self._kept.items()
            },
            "slots": [
                [
                    str(slot[0]),
                    slot[1],
                    _optional(self._histories, slot, backoff.to_json),
                    _optional(self._marks, slot, failures.to_json),
                ]
                for slot in sorted(self._histories.keys() | self._marks.keys())
            ],
            "generations": {
                str(key): [each.digest, each.number, each.observed]
                for key, each in self._generations.items()
            },
            "steerings": {
                str(key): revisions.to_json(each) for key, each in self._steerings.items()
            },
            "fights": [
                [str(slot[0]), slot[1], contention.to_json(fights)]
                for slot, fights in sorted(self._fights.items())
            ],
            "takenDown": self._taken_down,
            "courses": {str(key): course.to_json(each) for key, each in self._courses.items()},
            "dependencies": {
                str(key): sorted(map(str, others)) for key, others in self._dependencies.items()
            },
        }

    def _restore(self, value: Mapping[str, Any]) -> None:
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']} is not {VERSION}")
        remembered = prune.from_json(value["prune"])
        # Files of controllers before there was a quarantine have none.
        told = value.get("quarantine", {}).items()
        kept = {identifier: quarantine.from_json(each) for identifier, each in told}
        histories: dict[SlotKey, SlotHistory] = {}
        marks: dict[SlotKey, ExitCursor] = {}
        for key, slot, history, mark in value["slots"]:
            place = (Key.parse(key), int(slot))
            if history is not None:
                histories[place] = backoff.from_json(history)
            if mark is not None:
                marks[place] = failures.from_json(mark)
        fights: dict[SlotKey, dict[str, Contention]] = {
            (Key.parse(key), int(slot)): contention.from_json(each)
            for key, slot, each in value.get("fights", ())  # older files lack it
        }
        generations = {
            Key.parse(key): Generation(str(digest), int(number), int(observed))
            for key, (digest, number, observed) in value["generations"].items()
        }
        # What was written before there were any has none.
        steerings = {
            Key.parse(key): revisions.from_json(each)
            for key, each in value.get("steerings", {}).items()
        }
        dependencies = {
            Key.parse(key): frozenset(map(Key.parse, others))
            for key, others in value.get("dependencies", {}).items()
        }
        courses = {
            Key.parse(key): course.from_json(each) for key, each in value.get("courses", {}).items()
        }
        with self._lock:
            self._fights = fights
            self._taken_down = str(value.get("takenDown", ""))  # older files lack it
            self._prune, self._histories, self._marks = remembered, histories, marks
            self._generations, self._kept = generations, kept
            self._steerings, self._courses = steerings, courses
            self._dependencies = dependencies


def _optional(
    table: Mapping[SlotKey, Any], slot: SlotKey, to_json: Callable[[Any], dict[str, object]]
) -> dict[str, object] | None:
    return to_json(table[slot]) if slot in table else None


def _read_ordinary(path: Path) -> bytes:
    """Read a file that is no link and no pipe: root reads here too, in the controller's folder."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not an ordinary file")
        return file.read(SIZE_MAX + 1)


def _unreadable(file: Path, what: str, error: OSError) -> StateError:
    return StateError(
        "state.unreadable",
        f"the controller's memory {file} {what}: {error.strerror}",
        remedy="look at its disk and its owner, and start again: nothing is changed meanwhile, so "
        "that no pin and no suspension is undone; to begin without them, move the file away",
    )


def _damaged(file: Path, error: Exception, aside: Path) -> Problem:
    return Problem(
        code="state.damaged",
        message=f"the controller's memory isn't what was written: {error}; it is now {aside}; "
        "pins and suspensions are lost",
        file=str(file),
        remedy="it begins anew; repeat what people asked for: trimtab journal list --stage operator",
    )
