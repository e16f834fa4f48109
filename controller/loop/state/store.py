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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class StateStore:
    """The persistent state of all services. Thread-safe. ``save`` writes changes."""

    def __init__(self, file: Path, *, reach: Reach = pass_by) -> None:
        self._file = file
        self._reach = reach
        self._lock = threading.RLock()
        self._saving = threading.Lock()
        self._histories: dict[SlotKey, SlotHistory] = {}
        self._cursors: dict[SlotKey, ExitCursor] = {}
        self._generations: dict[Key, Generation] = {}
        self._overrides: dict[Key, Overrides] = {}
        self._rollouts: dict[Key, RolloutProgress] = {}
        self._contentions: dict[SlotKey, dict[str, Contention]] = {}
        self._dependencies: dict[Key, frozenset[Key]] = {}
        self._prune = PruneMemory()
        self._quarantined: dict[str, QuarantinedContainer] = {}
        self._taken_down = ""
        self._changed = False

    # Failures of slots

    def history(self, slot: SlotKey) -> SlotHistory:
        """Return a slot's failures."""
        with self._lock:
            return self._histories.get(slot, backoff.CLEAN)

    def histories(self) -> dict[SlotKey, SlotHistory]:
        """Return the failures of all slots."""
        with self._lock:
            return dict(self._histories)

    def set_history(self, slot: SlotKey, history: SlotHistory) -> None:
        """Replace a slot's failures."""
        with self._lock:
            self._set(self._histories, slot, None if history == backoff.CLEAN else history)

    def clear_failures(self, key: Key) -> None:
        """Forget failures and contentions of all slots of a service, so that retries start at once."""
        with self._lock:
            for table in (self._histories, self._contentions):
                for slot in [slot for slot in table if slot[0] == key]:
                    self._set(table, slot, None)

    @property
    def taken_down(self) -> str:
        """The journal record of the last ``trimtab down`` handled by ``reset_after_down``."""
        with self._lock:
            return self._taken_down

    def reset_after_down(self, taken_down: str) -> None:
        """Forget failures of containers and rollouts, because ``trimtab down`` removed everything.

        Overrides, generations and the outcomes of revisions stay.
        """
        with self._lock:
            for table in (self._histories, self._cursors, self._contentions):
                table.clear()
            self._rollouts = {
                key: rollout_progress.resume(rollout) for key, rollout in self._rollouts.items()
            }
            self._taken_down, self._changed = taken_down, True

    def exit_cursor(self, slot: SlotKey) -> ExitCursor | None:
        """Return which exits of a slot's container are counted already."""
        with self._lock:
            return self._cursors.get(slot)

    def set_exit_cursor(self, slot: SlotKey, cursor: ExitCursor) -> None:
        """Replace a slot's exit cursor."""
        with self._lock:
            self._set(self._cursors, slot, cursor)

    def contentions(self, slot: SlotKey) -> dict[str, Contention]:
        """Return a slot's contentions, by field."""
        with self._lock:
            return dict(self._contentions.get(slot, {}))

    def all_contentions(self) -> dict[SlotKey, dict[str, Contention]]:
        """Return the contentions of all slots."""
        with self._lock:
            return dict(self._contentions)

    def set_contentions(self, slot: SlotKey, contentions: dict[str, Contention]) -> None:
        """Replace a slot's contentions."""
        with self._lock:
            self._set(self._contentions, slot, contentions or None)

    # Rollouts, generations and overrides of services

    def rollout(self, key: Key) -> RolloutProgress:
        """Return the progress of a service's rollout."""
        with self._lock:
            return self._rollouts.get(key, rollout_progress.NEW)

    def rollouts(self) -> dict[Key, RolloutProgress]:
        """Return the progress of all rollouts."""
        with self._lock:
            return dict(self._rollouts)

    def set_rollout(self, key: Key, rollout: RolloutProgress) -> None:
        """Replace the progress of a service's rollout."""
        with self._lock:
            self._set(self._rollouts, key, None if rollout == rollout_progress.NEW else rollout)

    def generation(self, key: Key) -> Generation | None:
        """Return a resource's generation; None if no spec was ever accepted."""
        with self._lock:
            return self._generations.get(key)

    def generations(self) -> dict[Key, Generation]:
        """Return the generations of all resources."""
        with self._lock:
            return dict(self._generations)

    def accept_spec(self, key: Key, digest: str) -> bool:
        """Accept the spec of a resource; return True after a change, and count its generation up."""
        with self._lock:
            before = self._generations.get(key)
            if before is not None and before.digest == digest:
                return False
            number = 1 if before is None else before.number + 1
            observed = 0 if before is None else before.observed
            self._set(self._generations, key, Generation(digest, number, observed))
            return True

    def mark_acted_on(self, key: Key, number: int) -> None:
        """Record that a generation was fully acted on; an older number never replaces a newer."""
        with self._lock:
            before = self._generations.get(key)
            if before is not None and before.observed < number <= before.number:
                self._set(self._generations, key, Generation(before.digest, before.number, number))

    def overrides(self, key: Key) -> Overrides:
        """Return a service's overrides and kept revisions."""
        with self._lock:
            return self._overrides.get(key, NO_OVERRIDES)

    def all_overrides(self) -> dict[Key, Overrides]:
        """Return the overrides of all services."""
        with self._lock:
            return dict(self._overrides)

    def set_overrides(self, key: Key, overrides: Overrides) -> None:
        """Replace a service's overrides and kept revisions."""
        with self._lock:
            self._set(self._overrides, key, None if overrides == NO_OVERRIDES else overrides)

    def dependencies(self) -> dict[Key, frozenset[Key]]:
        """Return the dependencies of services, as they were declared last."""
        with self._lock:
            return dict(self._dependencies)

    def set_dependencies(self, dependencies: Mapping[Key, frozenset[Key]]) -> None:
        """Save the dependencies of declared services; other services keep their saved ones."""
        with self._lock:
            for key, others in dependencies.items():
                self._set(self._dependencies, key, others or None)

    # Pruning

    @property
    def prune(self) -> PruneMemory:
        """The state of the prune guard."""
        with self._lock:
            return self._prune

    @prune.setter
    def prune(self, memory: PruneMemory) -> None:
        with self._lock:
            self._changed |= memory != self._prune
            self._prune = memory

    @property
    def quarantined(self) -> dict[str, QuarantinedContainer]:
        """The quarantined containers, by container id."""
        with self._lock:
            return dict(self._quarantined)

    def set_quarantined(
        self,
        quarantined: dict[str, QuarantinedContainer],
        *,
        only: frozenset[str] | None = None,
    ) -> None:
        """Replace the quarantined containers; with *only*, only containers with these ids."""
        with self._lock:
            for container_id in (
                self._quarantined.keys() | quarantined.keys() if only is None else only
            ):
                self._set(self._quarantined, container_id, quarantined.get(container_id))

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Drop resources that are neither declared nor running, to bound the state."""
        with self._lock:
            for table in (self._histories, self._cursors, self._contentions):
                for slot in [slot for slot in table if slot[0] not in keys]:
                    self._set(table, slot, None)
            by_key: tuple[dict[Key, Any], ...] = (
                self._generations,
                self._overrides,
                self._rollouts,
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
        """Read the file.

        Raises:
            OSError: the file can't be read.
            BROKEN: the content is damaged.
        """
        self._restore(json.loads(_read_ordinary(self._file)))

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
            with self._lock:
                if not self._changed:
                    return False
                text = json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True)
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

    def to_json(self) -> dict[str, object]:
        """Return the content of the file. Member names are a stored form: they never change."""
        return {
            "version": VERSION,
            "prune": prune.to_json(self._prune),
            "quarantine": {
                container_id: quarantine.to_json(container)
                for container_id, container in self._quarantined.items()
            },
            "slots": [
                [
                    str(slot[0]),
                    slot[1],
                    _optional(self._histories, slot, backoff.to_json),
                    _optional(self._cursors, slot, failures.to_json),
                ]
                for slot in sorted(self._histories.keys() | self._cursors.keys())
            ],
            "generations": {
                str(key): [generation.digest, generation.number, generation.observed]
                for key, generation in self._generations.items()
            },
            "steerings": {
                str(key): revisions.to_json(overrides) for key, overrides in self._overrides.items()
            },
            "fights": [
                [str(slot[0]), slot[1], contention.to_json(contentions)]
                for slot, contentions in sorted(self._contentions.items())
            ],
            "takenDown": self._taken_down,
            "courses": {
                str(key): rollout_progress.to_json(rollout)
                for key, rollout in self._rollouts.items()
            },
            "dependencies": {
                str(key): sorted(map(str, others)) for key, others in self._dependencies.items()
            },
        }

    def _restore(self, value: Mapping[str, Any]) -> None:
        """Parse a file's content. Members missing in earlier versions are optional."""
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']} is not {VERSION}")
        prune_memory = prune.from_json(value["prune"])
        quarantined = {
            container_id: quarantine.from_json(container)
            for container_id, container in value.get("quarantine", {}).items()
        }
        histories: dict[SlotKey, SlotHistory] = {}
        cursors: dict[SlotKey, ExitCursor] = {}
        for key, number, history, cursor in value["slots"]:
            slot = (Key.parse(key), int(number))
            if history is not None:
                histories[slot] = backoff.from_json(history)
            if cursor is not None:
                cursors[slot] = failures.from_json(cursor)
        contentions: dict[SlotKey, dict[str, Contention]] = {
            (Key.parse(key), int(number)): contention.from_json(fields)
            for key, number, fields in value.get("fights", ())
        }
        generations = {
            Key.parse(key): Generation(str(digest), int(number), int(observed))
            for key, (digest, number, observed) in value["generations"].items()
        }
        overrides = {
            Key.parse(key): revisions.from_json(member)
            for key, member in value.get("steerings", {}).items()
        }
        dependencies = {
            Key.parse(key): frozenset(map(Key.parse, others))
            for key, others in value.get("dependencies", {}).items()
        }
        rollouts = {
            Key.parse(key): rollout_progress.from_json(member)
            for key, member in value.get("courses", {}).items()
        }
        with self._lock:
            self._contentions = contentions
            self._taken_down = str(value.get("takenDown", ""))
            self._prune, self._histories, self._cursors = prune_memory, histories, cursors
            self._generations, self._quarantined = generations, quarantined
            self._overrides, self._rollouts = overrides, rollouts
            self._dependencies = dependencies


def _optional(
    table: Mapping[SlotKey, Any], slot: SlotKey, to_json: Callable[[Any], dict[str, object]]
) -> dict[str, object] | None:
    return to_json(table[slot]) if slot in table else None


def _read_ordinary(path: Path) -> bytes:
    """Read a regular file; never a link or a pipe, because root reads the controller's folder too."""
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
        message=f"the controller's saved state is damaged: {error}; it is now {aside}; "
        "pins and suspensions are lost",
        file=str(file),
        remedy="the controller starts with an empty state; repeat the operators' actions: trimtab journal list --stage operator",
    )
