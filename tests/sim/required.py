"""The checker of preconditions: what a request of the controller's requires holds where it is forwarded.

This belongs to invariant 8: what is done is what was planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.broker.gate import journal_entries
from controller.model import names
from controller.model.mutations import Mutation
from controller.model.records import NO_PRECONDITION, Precondition, Request, Role
from tests.sim.places import label
from tests.sim.violation import Violation

if TYPE_CHECKING:
    from tests.sim.checkers import Mutated, Scene

#: The kind of what is created, by the route.
_CREATES = {
    Mutation.CONTAINER_CREATE: "container",
    Mutation.NETWORK_CREATE: "network",
    Mutation.VOLUME_CREATE: "volume",
}


class Required:
    """What the request that is in the gate requires, and what was there when it came."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._wanted = NO_PRECONDITION
        self._before: set[tuple[str, str, str]] = set()

    def begins(self, request: Request | None) -> None:
        """Note a request of the controller's; None for anybody else's."""
        headers = () if request is None else request.headers
        values = [value for name, value in headers if name == journal_entries.CONTEXT_HEADER]
        self._wanted = (
            journal_entries.read_context(values[0]).precondition if values else NO_PRECONDITION
        )
        self._before = self._there()

    def _there(self) -> set[tuple[str, str, str]]:
        """Return kind, name and id of everything."""
        engine = self._scene.engine
        return {
            *(("container", each.name, each.id) for each in engine.containers.values()),
            *(("network", each.name, each.id) for each in engine.networks.values()),
            *(("volume", name, name) for name in engine.volumes),
        }

    def forwarding(self, mutated: Mutated) -> None:
        """Check a mutation right before it reaches the engine."""
        if self._scene.role() is not Role.CONTROLLER or self._wanted == NO_PRECONDITION:
            return
        wanted, kind = self._wanted, _CREATES.get(Mutation(mutated.route), "")
        if kind:
            self._check_absent(wanted, kind, mutated)
        elif wanted.id and mutated.subject != wanted.id:
            raise Violation(8, f"{mutated.route} of {mutated.subject}, and not of {wanted.id}")
        container = self._scene.engine.find(mutated.subject)
        if wanted.revision and container is not None:
            revision = label(container, names.REVISION)
            if revision != wanted.revision:
                raise Violation(8, f"{mutated.route} of the revision {revision}")

    def _check_absent(self, wanted: Precondition, kind: str, mutated: Mutated) -> None:
        if mutated.subject != wanted.absent:
            return  # a network or volume that the broker creates for a container
        # What appears while the request is in the gate may come too late for it.
        for each in sorted(self._before & self._there()):
            if each[:2] == (kind, wanted.absent):
                raise Violation(8, f"{mutated.route} of {wanted.absent}, which is there")
