"""The checker of the order among services: who comes first, and who goes last.

This is invariant 14; ``checkers`` has the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.model import names
from controller.model.mutations import Mutation
from controller.model.names import Key, service_key
from tests.sim.places import label
from tests.sim.violation import Violation

if TYPE_CHECKING:
    from tests.sim.checkers import Known, Mutated, Scene
    from tests.sim.files import Doc, Truth
    from tests.sim.objects import SimContainer

ORDER = 14
#: What goes waits for so long, and some looks, for what should go before it.
FAREWELL_S = 280.0


class Orders:
    """What services depended on when the controller read it last, and since when they go."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._depended: dict[Key, dict[Key, str]] = {}
        self._going: dict[Key, float] = {}
        self._ordered: set[Key] = set()  # who starts in order at each boot

    def forwarding(
        self,
        mutated: Mutated,
        container: SimContainer | None,
        known: Known,
        suspended: set[Key],
    ) -> None:
        """Check a mutation of the controller's right before it reaches the engine.

        What is *suspended* stays as it is, so that nothing waits for it to go.
        """
        truth = known.truth_seen()
        if truth is None:
            return
        self._note(truth)
        if mutated.route == Mutation.CONTAINER_CREATE:
            self._check_comes(mutated)
        elif container is not None and mutated.route == Mutation.CONTAINER_STOP:
            self._check_goes(container, suspended)
        elif container is not None and mutated.route == Mutation.CONTAINER_START:
            self._check_starts(container)

    def _note(self, truth: Truth) -> None:
        now = self._scene.clock.monotonic()
        readable = truth.present and truth.documents and not truth.unreadable
        for key, doc in truth.declared.items():
            if wanted := _depends(key, doc):
                self._depended[key] = wanted
            if doc.spec.get("restart", {}).get("boot") == "Ordered":
                self._ordered.add(key)
        for key in self._depended.keys() | {k for each in self._depended.values() for k in each}:
            doc_of = truth.declared.get(key)
            stays = doc_of is not None and doc_of.spec.get("state") != "Stopped"
            if stays or truth.hides(key) or not readable:
                self._going.pop(key, None)
            else:
                self._going.setdefault(key, now)

    def _check_comes(self, mutated: Mutated) -> None:
        labels = mutated.body.get("Labels") or {}
        key = service_key(labels.get(names.NAMESPACE, ""), labels.get(names.SERVICE, ""))
        for other, condition in self._depended.get(key, {}).items():
            been = self._scene.engine.been.get((other.namespace, other.name), set())
            word = "healthy" if condition == "Healthy" else "running"
            if word not in been:
                raise Violation(ORDER, f"{key} comes, and {other} never was {word}")

    def _check_starts(self, container: SimContainer) -> None:
        """Check that a service in boot order starts only while its dependencies are up."""
        key = service_key(label(container, names.NAMESPACE), label(container, names.SERVICE))
        if key not in self._ordered or container.policy != "no":
            return
        for other, condition in self._depended.get(key, {}).items():
            if condition == "Completed":
                continue  # a job doesn't stay up
            up = [
                each
                for each in self._scene.engine.containers.values()
                if label(each, names.NAMESPACE) == other.namespace
                and label(each, names.SERVICE) == other.name
                and each.status == "running"
                and (condition != "Healthy" or each.health == "healthy")
            ]
            if not up:
                raise Violation(ORDER, f"{container.name} starts, and {other} isn't {condition}")

    def _check_goes(self, container: SimContainer, suspended: set[Key]) -> None:
        key = service_key(label(container, names.NAMESPACE), label(container, names.SERVICE))
        since = self._going.get(key)
        if since is None or self._scene.clock.monotonic() - since > FAREWELL_S:
            return
        for other, wanted in self._depended.items():
            going = other in self._going and other not in suspended
            if key in wanted and going and (left := self._running(other)):
                raise Violation(ORDER, f"{container.name} goes, and {left} depends on it")

    def _running(self, key: Key) -> str:
        for each in self._scene.engine.containers.values():
            mine = (label(each, names.NAMESPACE), label(each, names.SERVICE))
            touched = each.id in self._scene.marks.touched | self._scene.marks.foreign
            if mine == (key.namespace, key.name) and each.status == "running" and not touched:
                return each.name
        return ""


def _depends(key: Key, doc: Doc) -> dict[Key, str]:
    return {
        service_key(key.namespace, each["name"]): each.get("condition", "Started")
        for each in doc.spec.get("dependsOn", ())
    }
