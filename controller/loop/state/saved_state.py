"""Answers from the controller's saved files, for commands while no controller runs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from controller.core.manifests.dependencies import dependencies_of
from controller.core.service.history import history
from controller.loop.state.failed_runs import read_runs
from controller.loop.state.store import BROKEN, StateStore
from controller.model.container_output import FailedRun
from controller.model.desired.desired import Desired
from controller.model.errors import StateError
from controller.model.names import Key

_REMEDY = "run the command as root, or start the instance with 'trimtab up'"


def saved_dependencies(state_file: Path, declared: Desired) -> dict[Key, frozenset[Key]]:
    """Return the dependencies of each service: as declared, else as they were declared last."""
    store = StateStore(state_file)
    with suppress(OSError, *BROKEN):
        store.read()
    return {
        **store.dependencies(),
        **{
            service.key: frozenset(dependencies_of(service.key, service.spec))
            for service in declared.services
        },
    }


def saved_history(state_file: Path, name: str) -> dict[str, object]:
    """Return a service's history; *name* is ``NAME``, ``NAMESPACE/NAME`` or a whole key.

    Raises:
        StateError: the state can't be read, or has no such service.
    """
    store = StateStore(state_file)
    try:
        store.read()
    except (OSError, *BROKEN) as error:
        raise StateError(
            "state.unreadable",
            f"the controller's saved state can't be read: {error}",
            remedy=_REMEDY,
        ) from error
    wanted = tuple(name.split("/"))
    for key, overrides in sorted(store.all_overrides().items()):
        parts = (key.kind, key.namespace, key.name)
        if overrides.revisions and parts[-len(wanted) :] == wanted:
            generation = store.of(key).generation
            number = 0 if generation is None else generation.number
            declared = overrides.revisions[-1].revision
            return history(key, overrides, declared=declared, generation=number)
    raise StateError("service.unknown", f"no history is saved of a service {name}")


def saved_failures(failures_file: Path) -> tuple[FailedRun, ...]:
    """Return the failed runs; none if the file doesn't exist.

    Raises:
        StateError: the file can't be read.
    """
    try:
        return read_runs(failures_file)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            "state.unreadable",
            f"the saved output of failed containers can't be read: {error}",
            remedy=_REMEDY,
        ) from error
