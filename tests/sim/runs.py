"""Invariant 15: a job runs as often as declared for each revision, and again only after a run that failed.

A new revision of a service starts after the jobs before its rollout succeeded.

The checker looks at the starts on the wire and at the processes in the engine, never at what the
broker remembers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from controller.core.jobs.memory import ROLLOUT
from controller.model import names
from controller.model.mutations import Mutation
from tests.sim.objects import SimContainer
from tests.sim.places import label, run_of
from tests.sim.violation import Violation

DOUBLED: Final = 15


class Started(Protocol):
    """A mutation on the wire."""

    @property
    def route(self) -> str: ...


class Runs:
    """The runs of jobs that had a process."""

    def __init__(self) -> None:
        #: By job, revision and occasion, in the order of their starts.
        self._begun: dict[tuple[str, ...], list[SimContainer]] = {}
        #: Runs that had failed, or that somebody had removed, when their end was recorded. People
        #: may run them again past the gate.
        self._failed: set[str] = set()

    def ended(self, identifier: str, container: SimContainer | None) -> None:
        """The end of a run is recorded: did the run fail, or is it gone with nobody the wiser?"""
        if container is None or not _succeeded(container):
            self._failed.add(identifier)

    def forwarding(self, mutated: Started, container: SimContainer | None) -> None:
        """Check a start right before it reaches the engine.

        Raises:
            Violation: the run had a process, or the other runs of the same occasion need no further one.
        """
        starts = mutated.route in {Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART}
        if container is None or not starts or not run_of(container):
            return
        if container.started_at is not None:
            raise Violation(DOUBLED, f"{container.name} is started a second time")
        place = (names.NAMESPACE, names.SERVICE, names.REVISION, names.OCCASION)
        before = self._begun.setdefault(tuple(label(container, name) for name in place), [])
        others = [run for run in before if run is not container]
        going = [run for run in others if run.alive]
        done = [run for run in others if _succeeded(run) and run.id not in self._failed]
        # The numbers of the first run count. A single run of an occasion has no label.
        first = label(before[0] if before else container, names.COMPLETIONS) or "1/1"
        completions, at_once = map(int, first.split("/"))
        if len(going) >= at_once:
            raise Violation(DOUBLED, f"{container.name} begins while {going[-1].name} goes on")
        if len(done) >= completions:
            raise Violation(DOUBLED, f"{container.name} repeats {done[-1].name}, which succeeded")
        if len(done) + len(going) >= completions:
            raise Violation(
                DOUBLED, f"{container.name} begins beside {going[-1].name}, the last one"
            )
        if container not in before:
            before.append(container)

    def starting(self, container: SimContainer, jobs: Iterable[str]) -> None:
        """Check the first start of a service's container, whose rollout names *jobs* before it.

        Raises:
            Violation: no run of a job succeeded for the revision.
        """
        namespace, service = label(container, names.NAMESPACE), label(container, names.SERVICE)
        revision = label(container, names.REVISION).partition(":")[2]
        occasion = f"{ROLLOUT}{service}@{revision}"
        for job in jobs:
            runs = [
                run
                for (space, name, _, why), each in self._begun.items()
                if (space, name, why) == (namespace, job, occasion)
                for run in each
            ]
            wanted = label(runs[0], names.COMPLETIONS) if runs else ""
            if sum(map(_succeeded, runs)) < int(wanted.partition("/")[0] or 1):
                raise Violation(DOUBLED, f"{container.name} starts before {job} succeeded for it")


def _succeeded(container: SimContainer) -> bool:
    ended = container.started_at is not None and container.status == "exited"
    return ended and container.exit_code == 0 and not container.manually_stopped
