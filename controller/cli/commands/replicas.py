"""Find the containers of a NAME on the command line, among those visible to the caller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.cli.clients.socket_client import EngineApi
from controller.model import names
from controller.model.errors import StateError

_SLOT = re.compile(r"(?P<service>.+)\.(?P<slot>[1-9][0-9]{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ContainerTarget:
    """A parsed NAME: a service, a slot of a service, or a container."""

    text: str  # as given
    namespace: str | None  # None for any namespace
    name: str  # the whole name, for a container
    service: str
    slot: int | None  # None for all slots

    @classmethod
    def parse(cls, text: str) -> ContainerTarget:
        """Parse NAME, NAMESPACE/NAME or NAME.SLOT."""
        namespace, slash, name = text.rpartition("/")
        match = _SLOT.fullmatch(name)
        service, slot = (match["service"], int(match["slot"])) if match else (name, None)
        return cls(text, namespace if slash else None, name, service, slot)

    def matches(self, *, namespace: str, service: str, slot: int, name: str) -> bool:
        """Return True if the target includes a container."""
        if self.namespace not in (None, namespace):
            return False
        return name == self.name or (service == self.service and self.slot in (None, slot))

    def is_of_service(self, namespace: str, service: str) -> bool:
        """Return True if the target is a service, or a slot of the service."""
        return self.namespace in (None, namespace) and service == self.service


@dataclass(frozen=True, slots=True)
class VisibleContainer:
    """A container that is visible to the caller."""

    id: str
    name: str
    namespace: str
    service: str
    slot: int  # 0 for a client's container
    state: str

    @property
    def is_running(self) -> bool:
        """Return True if the container runs."""
        return self.state == "running"

    @property
    def label(self) -> str:
        """The shortest form that is valid as NAME: ``web.1``, ``shop/web.1``."""
        return label_of(self.namespace, self.service, self.slot, self.name)

    def matches(self, target: ContainerTarget) -> bool:
        """Return True if *target* includes the container."""
        return target.matches(
            namespace=self.namespace, service=self.service, slot=self.slot, name=self.name
        )


def label_of(namespace: str, service: str, slot: int, name: str) -> str:
    """Return the shortest NAME of a slot, or the name of a container without a slot."""
    if not slot:
        return name
    label = f"{service}.{slot}"
    return label if namespace == names.DEFAULT_NAMESPACE else f"{namespace}/{label}"


def list_replicas(api: EngineApi) -> list[VisibleContainer]:
    """Return the instance's containers that are visible to the caller, sorted by label and name."""
    filters = json.dumps({"label": [f"{names.MANAGED}=true"]})
    entries = api.get("/containers/json", {"all": "1", "filters": filters})
    return sorted(map(_replica, entries), key=lambda replica: (replica.label, replica.name))


def find_replicas(api: EngineApi, targets: Sequence[ContainerTarget]) -> list[VisibleContainer]:
    """Return the containers of targets.

    Raises:
        StateError: a target has no container, or has services in several namespaces.
    """
    replicas = list_replicas(api)
    ids = {replica.id for target in targets for replica in select(replicas, target)}
    return [replica for replica in replicas if replica.id in ids]


def select(replicas: Iterable[VisibleContainer], target: ContainerTarget) -> list[VisibleContainer]:
    """Return the containers of a target; raises as ``find_replicas``."""
    selected = [replica for replica in replicas if replica.matches(target)]
    if not selected:
        raise StateError(
            "container.unknown",
            f"there is no container of {target.text}, or none that is visible to this user",
            remedy=f"see 'trimtab status'; if it failed, 'trimtab logs --previous {target.text}'",
        )
    services = sorted({f"{replica.namespace}/{replica.service}" for replica in selected})
    if len(services) > 1:
        raise StateError(
            "service.ambiguous",
            f"{target.text} means {', '.join(services)}",
            remedy="write NAMESPACE/NAME",
        )
    return selected


def _replica(entry: Mapping[str, Any]) -> VisibleContainer:
    labels = entry.get("Labels") or {}
    slot = str(labels.get(names.SLOT) or "")
    return VisibleContainer(
        id=str(entry["Id"]),
        name=((entry.get("Names") or ("",))[0]).removeprefix("/"),
        namespace=str(labels.get(names.NAMESPACE) or ""),
        service=str(labels.get(names.SERVICE) or ""),
        slot=names.run_of_slot(slot) or (int(slot) if slot.isdigit() else 0),
        state=str(entry.get("State") or ""),
    )
