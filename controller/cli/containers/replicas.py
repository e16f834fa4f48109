"""Which containers a NAME on the command line means, as the broker lists them to the caller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.cli.clients.engine_api import EngineApi
from controller.model import names
from controller.model.errors import StateError

_SLOT = re.compile(r"(?P<service>.+)\.(?P<slot>[1-9][0-9]{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ContainerTarget:
    """What a NAME means: a service, one slot of it, or a container by its own name."""

    text: str
    namespace: str | None
    name: str
    service: str
    slot: int | None

    @classmethod
    def parse(cls, text: str) -> ContainerTarget:
        """Read NAME, NAMESPACE/NAME or NAME.SLOT."""
        namespace, slash, name = text.rpartition("/")
        match = _SLOT.fullmatch(name)
        service, slot = (match["service"], int(match["slot"])) if match else (name, None)
        return cls(text, namespace if slash else None, name, service, slot)

    def matches(self, *, namespace: str, service: str, slot: int, name: str) -> bool:
        """Return True if it means the container of that place and name."""
        if self.namespace not in (None, namespace):
            return False
        return name == self.name or (service == self.service and self.slot in (None, slot))

    def is_of_service(self, namespace: str, service: str) -> bool:
        """Return True if it means a service, or one slot of it."""
        return self.namespace in (None, namespace) and service == self.service


@dataclass(frozen=True, slots=True)
class VisibleContainer:
    """A container that is visible to the caller. ``slot`` is 0 for one that a client made."""

    id: str
    name: str
    namespace: str
    service: str
    slot: int
    state: str

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.state == "running"

    @property
    def label(self) -> str:
        """The shortest name that also works as NAME: ``web.1``, ``shop/web.1``."""
        return label_of(self.namespace, self.service, self.slot, self.name)

    def is_meant_by(self, target: ContainerTarget) -> bool:
        """Return True if *target* means it."""
        return target.matches(
            namespace=self.namespace, service=self.service, slot=self.slot, name=self.name
        )


def label_of(namespace: str, service: str, slot: int, name: str) -> str:
    """Return the shortest NAME of a slot; of a container without a slot its name."""
    if not slot:
        return name
    place = f"{service}.{slot}"
    return place if namespace == names.DEFAULT_NAMESPACE else f"{namespace}/{place}"


def list_replicas(api: EngineApi) -> list[VisibleContainer]:
    """Return all containers of this instance that are visible to the caller, by label and name."""
    filters = json.dumps({"label": [f"{names.MANAGED}=true"]})
    listed = api.get("/containers/json", {"all": "1", "filters": filters})
    return sorted(map(_replica, listed), key=lambda each: (each.label, each.name))


def find_replicas(api: EngineApi, targets: Sequence[ContainerTarget]) -> list[VisibleContainer]:
    """Return the containers that *targets* mean.

    Raises:
        StateError: one of them means none, or services of several namespaces.
    """
    replicas = list_replicas(api)
    found = [select(replicas, target) for target in targets]
    chosen = {replica.id for each in found for replica in each}
    return [replica for replica in replicas if replica.id in chosen]


def select(replicas: Iterable[VisibleContainer], target: ContainerTarget) -> list[VisibleContainer]:
    """Return the containers that one target means; raises as ``find_replicas``."""
    found = [each for each in replicas if each.is_meant_by(target)]
    if not found:
        raise StateError(
            "container.unknown",
            f"there is no container of {target.text}, or none that is visible to this user",
            remedy=f"see 'trimtab status'; if it failed, 'trimtab logs --previous {target.text}'",
        )
    services = sorted({f"{each.namespace}/{each.service}" for each in found})
    if len(services) > 1:
        raise StateError(
            "service.ambiguous",
            f"{target.text} means {', '.join(services)}",
            remedy="write NAMESPACE/NAME",
        )
    return found


def _replica(listed: Mapping[str, Any]) -> VisibleContainer:
    labels = listed.get("Labels") or {}
    slot = str(labels.get(names.SLOT) or "")
    return VisibleContainer(
        id=str(listed["Id"]),
        name=((listed.get("Names") or ("",))[0]).removeprefix("/"),
        namespace=str(labels.get(names.NAMESPACE) or ""),
        service=str(labels.get(names.SERVICE) or ""),
        slot=int(slot) if slot.isdigit() else 0,
        state=str(listed.get("State") or ""),
    )
