"""Files in a plan: deliver contents before containers need them, and put changed contents in place.

A content that is part of the revision is delivered before the create. A content that changes in
place is delivered while its containers run; then those that ask for it get a signal, once each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from controller.core.drift.actions import ContainerHandle
from controller.core.files.mounts import KINDS
from controller.model.desired.desired import Config, Desired, Secret, Service
from controller.model.desired.plan import AnyAction, DeliverFiles
from controller.model.errors import Problem
from controller.model.files.delivery import Delivery, FileSet, MountedFiles, short_content
from controller.model.names import Key
from controller.model.observed import Container, Observed


@dataclass(frozen=True, slots=True)
class FileDeliveries:
    """Contents at the broker, and contents of declared Configs and Secrets."""

    desired: Desired
    observed: Observed
    _declared: dict[Key, Config | Secret] = field(init=False)

    def __post_init__(self) -> None:
        """Index the Configs and Secrets."""
        declared: list[Config | Secret] = [*self.desired.configs, *self.desired.secrets]
        object.__setattr__(self, "_declared", {each.key: each for each in declared})

    def missing(self, service: Service) -> Iterator[DeliverFiles]:
        """Yield the deliveries before a container of the service can be created."""
        for delivery in _once(service.deliveries):
            if not self._is_there(delivery, service):
                config = self._config(delivery, service)
                if config is not None:
                    yield _deliver(delivery, service, config)

    def problem(self, service: Service) -> Problem | None:
        """Return the problem of a content that is lost; None without a lost content."""
        for delivery in service.deliveries:
            there = self._is_there(delivery, service)
            if not there and self._config(delivery, service) is None:
                source, what = service.source, f"{KINDS[delivery.kind]} {delivery.name}"
                return Problem(
                    "files.lost",
                    f"the content {short_content(delivery.content)} of {what}, which this revision "
                    "mounts, is neither declared nor kept",
                    source.file,
                    source.line,
                    remedy=f"declare {what} with that content again, or change the service",
                    key=service.key,
                )
        return None

    def _is_there(self, delivery: Delivery, service: Service) -> bool:
        stored = self.observed.files.get(str(files_of(delivery, service)))
        found = None if stored is None else stored.find(delivery.content)
        if stored is None or found is None or found.owner != service.owner:
            return False
        return not delivery.is_stable or stored.current == delivery.content

    def _config(self, delivery: Delivery, service: Service) -> Config | Secret | None:
        """Return the declared Config or Secret with the content of a delivery."""
        key = Key(KINDS[delivery.kind], service.key.namespace, delivery.name)
        config = self._declared.get(key)
        return config if config is not None and config.content == delivery.content else None


def changed_files(
    service: Service,
    containers: Iterable[Container],
    desired: Desired,
    observed: Observed,
    *,
    made: Collection[tuple[str, str]],
) -> list[AnyAction]:
    """Return the actions for contents that change in running containers.

    The plan has deliveries of *made* (kind, name) already.
    """
    stable = [delivery for delivery in service.deliveries if delivery.is_stable]
    running = [each for each in containers if each.running and _mounted(each, stable)]
    if not running:
        return []
    deliveries = FileDeliveries(desired, observed)
    actions: list[AnyAction] = [
        action
        for action in deliveries.missing(service)
        if (action.kind, action.target) not in made
        and any((d.kind, d.name) == (action.kind, action.target) for d in stable)
    ]
    for container in running:
        mounted = {each.target: each for each in container.files}
        for signal in sorted({d.signal for d in stable if d.signal}):
            late = [d for d in stable if d.signal == signal and _is_late(mounted.get(d.target), d)]
            if late:
                names = ", ".join(sorted({d.name for d in late}))
                cause = f"the content of {names} has changed"
                actions.append(ContainerHandle.of(container).send_signal(signal, cause))
    return actions


def _mounted(container: Container, deliveries: Iterable[Delivery]) -> bool:
    targets = {each.target for each in container.files if each.is_stable}
    return any(delivery.target in targets for delivery in deliveries)


def _is_late(mounted: MountedFiles | None, delivery: Delivery) -> bool:
    """Return True if a container has had no signal for the content of now."""
    if mounted is None or not mounted.is_stable or mounted.name != delivery.name:
        return False
    return mounted.content != delivery.content


def files_of(delivery: Delivery, service: Service) -> FileSet:
    """Return the name under which the broker stores the files."""
    return FileSet(delivery.kind, service.key.namespace, delivery.name)


def _deliver(delivery: Delivery, service: Service, config: Config | Secret) -> DeliverFiles:
    return DeliverFiles(
        object=service.key,
        target=delivery.name,
        cause=f"the content {short_content(delivery.content)} isn't with the broker",
        kind=delivery.kind,
        owner=config.owner,
        content=delivery.content,
        files=config.files if isinstance(config, Config) else (),
        secret=None if isinstance(config, Config) else config.declared,
    )


def _once(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    seen: set[tuple[str, str]] = set()
    for delivery in deliveries:
        if (delivery.kind, delivery.name) not in seen:
            seen.add((delivery.kind, delivery.name))
            yield delivery
