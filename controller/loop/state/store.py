"""The controller's persistent state, in a file with atomic replacement.

Losing the file costs waiting times, counters, and operators' overrides (pins and suspensions; the
journal names the operators). No container is lost: the files have the desired state, the engine
has the containers, and the broker's inventory has their ownership.

The controller never starts empty in place of a possibly intact file. If the file can't be
read now, the controller exits. If its content is damaged, the file is moved aside.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from controller.core.drift import backoff, contention, failures
from controller.core.drift.backoff import SlotHistory
from controller.core.drift.contention import Contention
from controller.core.drift.failures import ExitCursor
from controller.core.planning import quarantine
from controller.core.planning.quarantine import QuarantinedContainer
from controller.core.service import prune_memory as prune
from controller.core.service import revisions, rollout_progress
from controller.core.service.prune_memory import PruneMemory
from controller.core.service.rollout_progress import RolloutProgress
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.overrides import NO_OVERRIDES, Overrides
from controller.model.errors import Problem, StateError
from controller.model.names import Key, SlotKey
from controller.system.atomic_file import write_atomic

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
#: By field.
Contentions = Mapping[str, Contention]

VERSION = 1
SIZE_MAX = 64 * 1024 * 1024
#: The errors that parsing raises if the content of a file is damaged.
BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Generation:
    """The generation of a resource: a counter of accepted changes of its spec."""

    #: The digest of the accepted spec.
    digest: str
    number: int = 1
    #: The last generation that was fully acted on.
    observed: int = 0


class StateTable(Generic[K, V, D]):
    """Entries of one kind. Thread-safe. A key without an entry has the *default* value."""

    def __init__(self, store: StateStore, default: D) -> None:
        self._store = store
        self._default = default
        self._entries: dict[K, V] = {}

    def __getitem__(self, key: K) -> V | D:
        with self._store.lock:
            return self._entries.get(key, self._default)

    def __setitem__(self, key: K, value: V | D) -> None:
        with self._store.lock:
            if self._entries.get(key, self._default) == value:
                return
            self._store.changed = True
            if value == self._default:
                del self._entries[key]
            else:
                self._entries[key] = cast("V", value)

    def all(self) -> dict[K, V]:
        """Return all entries."""
        with self._store.lock:
            return dict(self._entries)

    def drop(self, is_dropped: Callable[[K], bool]) -> None:
        """Drop the entries of keys for which *is_dropped* returns True."""
        for key in filter(is_dropped, self.all()):
            self[key] = self._default

    def restore(self, entries: dict[K, V]) -> None:
        """Replace all entries by those of the file."""
        with self._store.lock:
            self._entries = entries


class StateStore:
    """The persistent state of all services. Thread-safe. ``save`` writes changes."""

    def __init__(self, file: Path, *, reach: Reach = pass_by) -> None:
        self._file = file
        self._reach = reach
        self.lock = threading.RLock()
        self._saving = threading.Lock()
        #: True if the file is outdated.
        self.changed = False
        #: The failures of each slot.
        self.histories = StateTable[SlotKey, SlotHistory, SlotHistory](self, backoff.CLEAN)
        #: The exits of each slot's container that are counted already.
        self.exit_cursors = StateTable[SlotKey, ExitCursor, None](self, None)
        #: The contentions of each slot, by field.
        self.contentions = StateTable[SlotKey, Contentions, Contentions](self, {})
        self.rollouts = StateTable[Key, RolloutProgress, RolloutProgress](
            self, rollout_progress.NEW
        )
        #: None if no spec was ever accepted.
        self.generations = StateTable[Key, Generation, None](self, None)
        #: The overrides and kept revisions of each service.
        self.overrides = StateTable[Key, Overrides, Overrides](self, NO_OVERRIDES)
        #: The dependencies of each service when it was last declared.
        self.dependencies = StateTable[Key, frozenset[Key], frozenset[Key]](self, frozenset())
        #: By container id.
        self.quarantined = StateTable[str, QuarantinedContainer, None](self, None)
        self._prune = PruneMemory()
        self._taken_down = ""

    def clear_failures(self, key: Key) -> None:
        """Forget failures and contentions of all slots of a service, so that retries start at once."""
        self.histories.drop(lambda slot: slot[0] == key)
        self.contentions.drop(lambda slot: slot[0] == key)

    @property
    def taken_down(self) -> str:
        """The journal record of the last ``trimtab down`` handled by ``reset_after_down``."""
        with self.lock:
            return self._taken_down

    def reset_after_down(self, taken_down: str) -> None:
        """Forget failures of containers and rollouts, because ``trimtab down`` removed everything.

        Overrides, generations and the outcomes of revisions stay.
        """
        with self.lock:
            for table in (self.histories, self.exit_cursors, self.contentions):
                table.restore({})
            for key, rollout in self.rollouts.all().items():
                self.rollouts[key] = rollout_progress.resume(rollout)
            self._taken_down, self.changed = taken_down, True

    def accept_spec(self, key: Key, digest: str) -> bool:
        """Accept the spec of a resource; return True after a change, and count its generation up."""
        with self.lock:
            before = self.generations[key] or Generation("", 0)
            if before.digest == digest:
                return False
            self.generations[key] = Generation(digest, before.number + 1, before.observed)
            return True

    def mark_acted_on(self, key: Key, number: int) -> None:
        """Record that a generation was fully acted on; an older number never replaces a newer."""
        with self.lock:
            before = self.generations[key]
            if before is not None and before.observed < number <= before.number:
                self.generations[key] = replace(before, observed=number)

    @property
    def prune(self) -> PruneMemory:
        """The state of the prune guard."""
        with self.lock:
            return self._prune

    @prune.setter
    def prune(self, memory: PruneMemory) -> None:
        with self.lock:
            self.changed |= memory != self._prune
            self._prune = memory

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Drop resources that are neither declared nor running, to bound the state."""
        with self.lock:
            for slots in (self.histories, self.exit_cursors, self.contentions):
                slots.drop(lambda slot: slot[0] not in keys)
            for table in (self.generations, self.overrides, self.rollouts, self.dependencies):
                table.drop(lambda key: key not in keys)

    # The file

    def read(self) -> None:
        """Read the file.

        Raises:
            OSError: the file can't be read.
            BROKEN: the content is damaged.
        """
        self._restore(read_state(self._file))

    def load(self, *, stamp: str) -> Problem | None:
        """Read an existing file; move a damaged file aside, to a name ending in *stamp*.

        Without a stamp, a damaged file stays in place: the caller never saves.

        Returns:
            The problem to show, if the file was damaged.

        Raises:
            StateError: the file can't be read now, or can't be moved aside. The possibly
                intact file stays in place.
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
        """Write the file if anything changed; return True after a write.

        Raises:
            StateError: the file can't be written; the next save tries again.
        """
        with self._saving:
            with self.lock:
                if not self.changed:
                    return False
                text = json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True)
                self.changed = False
            try:
                write_state(self._file, text.encode(), self._reach)
            except StateError:
                with self.lock:
                    self.changed = True
                raise
            return True

    def to_json(self) -> dict[str, object]:
        """Return the content of the file. Member names are a stored form: they never change."""
        histories, cursors = self.histories.all(), self.exit_cursors.all()
        return {
            "version": VERSION,
            "prune": prune.to_json(self._prune),
            "quarantine": {
                container_id: quarantine.to_json(container)
                for container_id, container in self.quarantined.all().items()
            },
            "slots": [
                [
                    str(slot[0]),
                    slot[1],
                    backoff.to_json(histories[slot]) if slot in histories else None,
                    failures.to_json(cursors[slot]) if slot in cursors else None,
                ]
                for slot in sorted(histories.keys() | cursors.keys())
            ],
            "generations": _by_text(self.generations, lambda g: [g.digest, g.number, g.observed]),
            "steerings": _by_text(self.overrides, revisions.to_json),
            "fights": [
                [str(slot[0]), slot[1], contention.to_json(contentions)]
                for slot, contentions in sorted(self.contentions.all().items())
            ],
            "takenDown": self._taken_down,
            "courses": _by_text(self.rollouts, rollout_progress.to_json),
            "dependencies": _by_text(self.dependencies, lambda keys: sorted(map(str, keys))),
        }

    def _restore(self, value: Mapping[str, Any]) -> None:
        """Parse a file's content. Members missing in earlier versions are optional."""
        rows = [((Key.parse(key), int(number)), *row) for key, number, *row in value["slots"]]
        memory = prune.from_json(value["prune"])
        # All of it is parsed before any of it is used.
        tables: tuple[tuple[StateTable[Any, Any, Any], dict[Any, Any]], ...] = (
            (
                self.quarantined,
                {c: quarantine.from_json(v) for c, v in value.get("quarantine", {}).items()},
            ),
            (self.histories, {slot: backoff.from_json(h) for slot, h, _ in rows if h is not None}),
            (
                self.exit_cursors,
                {slot: failures.from_json(c) for slot, _, c in rows if c is not None},
            ),
            (
                self.contentions,
                {
                    (Key.parse(key), int(number)): contention.from_json(fields)
                    for key, number, fields in value.get("fights", ())
                },
            ),
            (self.generations, _by_key(value["generations"], _generation)),
            (self.overrides, _by_key(value.get("steerings", {}), revisions.from_json)),
            (
                self.dependencies,
                _by_key(value.get("dependencies", {}), lambda v: frozenset(map(Key.parse, v))),
            ),
            (self.rollouts, _by_key(value.get("courses", {}), rollout_progress.from_json)),
        )
        with self.lock:
            self._taken_down, self._prune = str(value.get("takenDown", "")), memory
            for table, entries in tables:
                table.restore(entries)


def _by_text(table: StateTable[Key, V, Any], to_json: Callable[[V], object]) -> dict[str, object]:
    return {str(key): to_json(value) for key, value in table.all().items()}


def _by_key(value: Mapping[str, Any], from_json: Callable[[Any], V]) -> dict[Key, V]:
    return {Key.parse(key): from_json(member) for key, member in value.items()}


def _generation(value: Any) -> Generation:
    digest, number, observed = value
    return Generation(str(digest), int(number), int(observed))


def write_state(file: Path, data: bytes, reach: Reach) -> None:
    """Replace a state file.

    Raises:
        StateError: the file can't be written.
    """
    try:
        write_atomic(file, data, reach=reach, points="state")
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{file}: {error.strerror}",
            remedy="free space on its disk, or make the folder writable",
        ) from error


def read_state(path: Path, size_max: int = SIZE_MAX) -> Any:
    """Parse a regular file; never a link or a pipe, because root reads the controller's folder too.

    Raises:
        OSError: the file can't be read.
        BROKEN: the content is damaged.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not an ordinary file")
        value = json.loads(file.read(size_max + 1))
    if value["version"] != VERSION:
        raise ValueError(f"version {value['version']} is not {VERSION}")
    return value


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
        message=f"the controller's saved state is damaged: {error}; it is now {aside}; "
        "pins and suspensions are lost",
        file=str(file),
        remedy="the controller starts with an empty state; "
        "repeat the operators' actions: trimtab journal list --stage operator",
    )
