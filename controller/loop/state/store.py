"""The controller's persistent state, in a file with atomic replacement.

Losing the file costs waiting times, counters, and operators' overrides (pins and suspensions; the
journal names the operators). No container is lost: the files have the desired state, the engine
has the containers, and the broker's inventory has their ownership.

The controller never starts empty in place of a possibly intact file. If the file can't be
read now, the controller exits. If its content is damaged, the file is moved aside.

Generations: count the accepted changes of each resource's spec.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.core.drift.contention import Contention
from controller.core.drift.failures import CLEAN, ExitCursor, SlotHistory
from controller.core.encoding.json_values import digest
from controller.core.encoding.stored_form import StoredForm
from controller.core.manifests.job_checks import dependencies_of
from controller.core.manifests.revision_hash import spec_digest
from controller.core.planning import planner
from controller.core.planning.planner import KeyPlan
from controller.core.planning.quarantine import QuarantinedContainer
from controller.core.service import history, rollout_progress
from controller.core.service.prune_guard import PruneMemory
from controller.core.service.rollout_progress import RolloutProgress
from controller.core.status.facts import Failure
from controller.loop.state.service_state import Generation, ServiceState, SlotMemory
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Desired,
    Network,
    Overrides,
    Service,
    Volume,
)
from controller.model.desired.plan import DisconnectNetwork, Plan, RemoveNetwork, Wait
from controller.model.errors import Act, Problem, StateError
from controller.model.names import Key, SlotKey
from controller.model.observed import Observed
from controller.system.durable_files import write_atomic

VERSION = 1
SIZE_MAX = 64 * 1024 * 1024
#: The errors that parsing raises if the content of a file is damaged.
BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class SavedState:
    """The content of the file. Its member names are a stored form: they never change."""

    version: int
    prune: PruneMemory
    #: Key and number of each slot with failures or counted exits; None for no failure.
    slots: tuple[tuple[Key, int, SlotHistory | None, ExitCursor | None], ...]
    #: Digest, number and acted-on number.
    generations: dict[Key, tuple[str, int, int]]
    quarantine: dict[str, QuarantinedContainer] = field(default_factory=dict)
    takenDown: str = ""  # noqa: N815 - a member's name
    #: Contentions by slot.
    fights: tuple[tuple[Key, int, dict[str, Contention]], ...] = ()
    #: Overrides.
    steerings: dict[Key, Overrides] = field(default_factory=dict)
    #: The progress of rollouts.
    courses: dict[Key, RolloutProgress] = field(default_factory=dict)
    dependencies: dict[Key, tuple[Key, ...]] = field(default_factory=dict)


FORM = StoredForm(SavedState)


class StateStore:
    """The state of all services, and of the loop. Thread-safe. ``save`` writes changes."""

    def __init__(self, file: Path, *, reach: Reach = pass_by) -> None:
        self._file = file
        self._reach = reach
        self.lock = threading.RLock()
        self._saving = threading.Lock()
        self._states: dict[Key, ServiceState] = {}
        #: The pruned containers that are kept, by id.
        self.quarantined: dict[str, QuarantinedContainer] = {}
        #: The state of the prune guard.
        self.prune = PruneMemory()
        #: The journal record of the last ``trimtab down`` handled by ``reset_after_down``.
        self.taken_down = ""
        #: The networks that passes are remaking, by the engine's name.
        self.networks_remade: frozenset[str] = frozenset()
        #: The content of the file, as far as it is known.
        self._written = self._content()

    def of(self, key: Key) -> ServiceState:
        """Return the state of a resource; a new one of an unknown resource."""
        with self.lock:
            if key not in self._states:
                self._states[key] = ServiceState(key)
            return self._states[key]

    @contextmanager
    def remaking(self, plan: Plan) -> Iterator[None]:
        """Note the networks that a pass remakes by *plan* until the block ends."""
        removed = {a.target for a in plan.actions if isinstance(a, RemoveNetwork)}
        names = {a.network for a in plan.actions if isinstance(a, DisconnectNetwork)} & removed
        with self.lock:
            self.networks_remade |= names
        try:
            yield
        finally:
            with self.lock:
                self.networks_remade -= names

    def approve(self, keys: Iterable[Key], plan: str) -> None:
        """Let passes of *keys* claim the approved plan; what was refused before is tried at once."""
        with self.lock:
            for key in keys:
                state = self.of(key)
                state.approved_plan, state.attempts = plan, {}

    def copy_moved(self, key: Key, sources: Iterable[Key]) -> None:
        """Give a service without a state the state of its earlier key, with the history."""
        with self.lock:
            state = self._states.get(key)
            if state is not None and state.generation is not None:
                return
            known = (self._states[each] for each in sources if each in self._states)
            before = next((each for each in known if each.generation is not None), None)
            if before is None:
                return
            now = self.of(key)
            now.generation = before.generation
            now.rollout = before.rollout
            now.overrides = history.moved(before.overrides, key)
            now.good_since, now.advanced_at = before.good_since, before.advanced_at
            for number, memory in before.slots.items():
                slot = self.slot((key, number))
                slot.history, slot.contentions = memory.history, memory.contentions
                slot.exit_cursor, slot.counted_at = memory.exit_cursor, memory.counted_at

    def slot(self, slot: SlotKey) -> SlotMemory:
        """Return the state of a slot."""
        with self.lock:
            slots = self.of(slot[0]).slots
            if slot[1] not in slots:
                slots[slot[1]] = SlotMemory(slot)
            return slots[slot[1]]

    def states(self) -> dict[Key, ServiceState]:
        """Return all states."""
        with self.lock:
            return dict(self._states)

    def troubled(self) -> dict[SlotKey, SlotMemory]:
        """Return the slots with failures or contentions."""
        with self.lock:  # which an added slot takes
            return {
                slot.slot: slot
                for state in self._states.values()
                for slot in state.slots.values()
                if slot.contentions or (slot.history is not CLEAN and slot.history != CLEAN)
            }

    def all_overrides(self) -> dict[Key, Overrides]:
        """Return the overrides and kept revisions of each service with any."""
        states = self.states().items()
        return {k: state.overrides for k, state in states if state.overrides != NO_OVERRIDES}

    def dependencies(self) -> dict[Key, frozenset[Key]]:
        """Return the dependencies of each service when it was last declared."""
        return {k: s.dependencies for k, s in self.states().items() if s.dependencies}

    def plans(self) -> dict[Key, KeyPlan]:
        """Return the last plan of each resource; none for a resource that changed since."""
        return {k: state.plan for k, state in self.states().items() if state.plan is not None}

    def record_plan(self, plan: Plan, keys: Iterable[Key]) -> None:
        """Record the last plan of *keys*."""
        with self.lock:
            for key in keys:
                self.of(key).plan = planner.part(plan, key)

    def failures(self) -> dict[Key, Failure]:
        """Return how last passes failed."""
        found = ((k, state.failure) for k, state in self.states().items())
        return {k: failure for k, failure in found if failure is not None}

    def waits(self) -> dict[Key, tuple[Wait, ...]]:
        """Return the waits of the resources that wait for others."""
        found = ((k, state.waits) for k, state in self.states().items())
        return {k: waits for k, waits in found if waits}

    def pulled(self) -> frozenset[tuple[Key, str]]:
        """Return the revisions whose image was pulled, while no create was tried since."""
        found = ((k, state.pulled) for k, state in self.states().items())
        return frozenset((k, revision) for k, revision in found if revision is not None)

    def down_since(self) -> dict[Key, float]:
        """Return since when services are down that the controller took down."""
        found = ((k, state.down_since) for k, state in self.states().items())
        return {k: since for k, since in found if since is not None}

    def restart_passes(self, key: Key) -> None:
        """Forget the failures of a resource, so that the next pass tries everything at once."""
        with self.lock:
            state = self.of(key)
            for slot in state.slots.values():
                slot.forget_failures()
            state.failure, state.attempts, state.acting = None, {}, 0

    def forget_refusals(self, only: Key | None = None) -> frozenset[Key]:
        """Forget the refused actions of all resources, or of *only* one; return the resources.

        Other failures keep their delays, and containers that fail keep theirs.
        """
        with self.lock:
            refused = set()
            for key, state in self._states.items():
                attempts = {
                    a: t for a, t in state.attempts.items() if t.error.act is not Act.STALLED
                }
                if only in (None, key) and len(attempts) < len(state.attempts):
                    state.attempts, state.failure = attempts, None
                    refused.add(key)
            return frozenset(refused)

    def reset_after_down(self, taken_down: str) -> None:
        """Forget failures of containers and rollouts, because ``trimtab down`` removed everything.

        Overrides, generations and the outcomes of revisions stay.
        """
        with self.lock:
            for state in self._states.values():
                state.rollout = rollout_progress.resume(state.rollout)
                for slot in state.slots.values():
                    slot.forget_failures()
                    slot.exit_cursor = None
            self.taken_down = taken_down

    def accept_spec(self, key: Key, digest: str) -> bool:
        """Accept the spec of a resource; return True after a change, and count its generation up."""
        with self.lock:
            state = self.of(key)
            before = state.generation or Generation("", 0)
            if before.digest == digest:
                return False
            state.generation = Generation(digest, before.number + 1, before.observed)
            return True

    def mark_acted_on(self, key: Key, number: int) -> None:
        """Record that a generation was fully acted on; an older number never replaces a newer."""
        with self.lock:
            before = self.of(key).generation
            if before is not None and before.observed < number <= before.number:
                self.of(key).generation = replace(before, observed=number)

    def keep_only(self, keys: frozenset[Key]) -> None:
        """Drop resources that are neither declared nor running, to bound the state.

        A service that the controller took down counts in the disruption budget a while longer.
        """
        with self.lock:
            gone = {k for k, s in self._states.items() if k not in keys and s.down_since is None}
            for key in gone:
                del self._states[key]

    # The file

    def read(self) -> None:
        """Read the file.

        Raises:
            OSError: the file can't be read.
            BROKEN: the content is damaged.
        """
        self._restore(FORM.from_json(read_state(self._file)))

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
            content = self._content()
            if content == self._written:
                return False
            data = json.dumps(FORM.to_json(content), separators=(",", ":"), sort_keys=True)
            write_state(self._file, data.encode(), self._reach)
            self._written = content
            return True

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        content: dict[str, Any] = FORM.to_json(self._content())
        return content

    def _content(self) -> SavedState:
        states = sorted(self.states().items())
        slots = [slot for _, state in states for _, slot in sorted(state.slots.copy().items())]
        return SavedState(
            VERSION,
            self.prune,
            tuple(
                (*slot.slot, None if slot.history == CLEAN else slot.history, slot.exit_cursor)
                for slot in slots
                if slot.history != CLEAN or slot.exit_cursor
            ),
            {k: (g.digest, g.number, g.observed) for k, s in states if (g := s.generation)},
            self.quarantined.copy(),
            self.taken_down,
            tuple((*slot.slot, dict(slot.contentions)) for slot in slots if slot.contentions),
            {k: s.overrides for k, s in states if s.overrides != NO_OVERRIDES},
            {k: s.rollout for k, s in states if s.rollout != rollout_progress.NEW},
            {k: tuple(sorted(s.dependencies)) for k, s in states if s.dependencies},
        )

    def _restore(self, saved: SavedState) -> None:
        states: dict[Key, ServiceState] = {}

        def state_of(key: Key) -> ServiceState:
            return states.setdefault(key, ServiceState(key))

        def slot_of(key: Key, number: int) -> SlotMemory:
            return state_of(key).slots.setdefault(number, SlotMemory((key, number)))

        for key, number, failures, cursor in saved.slots:
            slot_of(key, number).history = CLEAN if failures is None else failures
            slot_of(key, number).exit_cursor = cursor
        for key, number, contentions in saved.fights:
            slot_of(key, number).contentions = contentions
        for key, generation in saved.generations.items():
            state_of(key).generation = Generation(*generation)
        for key, overrides in saved.steerings.items():
            state_of(key).overrides = overrides
        for key, rollout in saved.courses.items():
            state_of(key).rollout = rollout
        for key, dependencies in saved.dependencies.items():
            state_of(key).dependencies = frozenset(dependencies)
        with self.lock:
            self._states, self.prune = states, saved.prune
            self.quarantined, self.taken_down = saved.quarantine, saved.takenDown
        self._written = self._content()


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


def accept_desired(
    declared: Desired, store: StateStore, observed: Observed | None, *, now: str
) -> set[Key]:
    """Increment the generation of each resource whose spec changed; return their keys.

    Also saves the revisions and dependencies of services, and ends the overrides that a new
    document ends. *now* is RFC 3339. A resource whose document can't be read keeps its generation.
    """
    for service in declared.workloads:
        store.of(service.key).dependencies = frozenset(dependencies_of(service.key, service.spec))
    changed = set()
    resources: tuple[Service | Network | Volume, ...] = (
        *declared.workloads,
        *declared.networks,
        *declared.volumes,
    )
    for resource in resources:
        if resource.key not in declared.blind_keys and store.accept_spec(
            resource.key, spec_digest(resource)
        ):
            changed.add(resource.key)
    for release in declared.releases:
        members = [str(member) for member in release.members]
        if store.accept_spec(release.key, digest([release.owner, release.chart, members])):
            # A Release has no passes: its members carry it out.
            generation = store.of(release.key).generation
            assert generation is not None
            store.mark_acted_on(release.key, generation.number)
    _save_revisions(declared, store, observed, now)
    return changed


def _save_revisions(
    declared: Desired, store: StateStore, observed: Observed | None, now: str
) -> None:
    grown = False
    for service in declared.services:
        state = store.of(service.key)
        if state.generation is None:
            continue  # the document has errors: no spec was accepted
        before = state.overrides
        state.overrides = history.record_document(
            before,
            service,
            generation=state.generation.number,
            since=now,
            containers=None if observed is None else observed.of(service.key),
        )
        grown = grown or state.overrides.revisions != before.revisions
    if grown:
        for key, overrides in history.drop_old_specs(store.all_overrides()).items():
            store.of(key).overrides = overrides
