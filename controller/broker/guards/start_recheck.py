"""Checks before a start: the engine must still resolve names to the admitted objects.

The engine resolves names again when a container starts: a bind source by its path, a network by
its name at the first start, a volume with its current options. Objects swapped since admission are
refused here. A swap after the check shows in the kernel (``kernel_verify``).
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.broker.deliveries.mounts import make_recorded
from controller.broker.gate.call import Flow, inspect_paths, read_cdi_devices
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import lookup
from controller.broker.guards.lookup import OwnContainer
from controller.core.engine_api.mount_grammar import is_known_volume
from controller.core.engine_api.translate import shared_ids
from controller.core.rules import networks as network_rules
from controller.core.rules.confinement import data_path, mounts_volume, number_text
from controller.core.rules.mounts import is_admitted_volume
from controller.model.confinement import ExpectedMount
from controller.model.host_paths import ENGINE_DATA, PathFacts, is_below
from controller.model.inventory import ContainerItem
from controller.model.policy.document import Policy


def refuse_if_violated(container: OwnContainer) -> None:
    """Refuse to start or change a container that was stopped for a violation.

    Raises:
        Denied: ``effective.violated``.
    """
    if container.item.violation:
        raise Denied(
            "effective.violated",
            f"it was stopped since it didn't run as admitted, see record {container.item.violation}",
            "remove the container and create it again",
            subject=container.item.id,
        )


def refuse_if_volume_held(state: GateState, item: ContainerItem) -> None:
    """Refuse to start a container while one of its volumes is dumped or restored.

    The end of a hold starts the containers, unless another volume of theirs is held.

    Raises:
        Denied: ``volume.held``.
    """
    for hold in state.inventory.holds.values():
        if (item.id, hold.volume) in state.holds.starting:
            continue
        if not hold.live and mounts_volume(item, hold.volume, state.volumes_root):
            raise Denied(
                "volume.held",
                f"the volume {hold.volume} is held for a {hold.act}, see record {hold.id}",
                "wait for its end: the container is started then",
                status=409,
                subject=item.id,
            )


def refuse_if_changed(state: GateState, container: OwnContainer, policy: Policy) -> Flow[None]:
    """Refuse if a network, a volume or a bind source isn't the admitted one.

    Raises:
        Denied: ``network.changed``, ``volume.changed``, ``mount.changed``, ``files.undelivered``,
            ``device.changed``, ``namespace.target``, ``observer``.
    """
    _refuse_lost_namespaces(state, container)
    yield from _refuse_changed_networks(state, container, policy)
    yield from _refuse_changed_volumes(state, container)
    yield from _refuse_changed_sources(state, container)
    yield from _refuse_taken_uid(state, container)
    yield from _refuse_changed_devices(container)


def _refuse_lost_namespaces(state: GateState, container: OwnContainer) -> None:
    """Refuse if a container whose namespaces are shared is no longer of the same owner."""
    place = (container.item.owner, container.item.namespace)
    for identifier in shared_ids(container.inspect):
        other = state.inventory.containers.get(identifier)
        if other is None or (other.owner, other.namespace) != place:
            raise Denied(
                "namespace.target",
                f"the container {identifier}, whose namespaces it shares, isn't there any more",
                "create the container again",
                status=409,
                subject=container.item.id,
            )


def paths_to_read(item: ContainerItem) -> tuple[str, ...]:
    """Return the engine paths for ``refuse_if_changed``."""
    networks = map(lookup.network_path, item.admitted.networks)
    return tuple(filter(None, (*networks, *map(lookup.volume_path, _volume_names(item)))))


def _refuse_changed_networks(
    state: GateState, container: OwnContainer, policy: Policy
) -> Flow[None]:
    """Refuse another network of an admitted name: one of another owner, or with other settings.

    A client doesn't learn whose the network is.
    """
    item = container.item
    for name in item.admitted.networks:
        network = yield from lookup.find_network(state, name)
        if network is None:
            continue
        if network.owned is None:
            changed, remedy = "was created again by somebody else", "remove it, and create"
        elif not network_rules.is_admitted(item, network.owned, policy):
            changed, remedy = "isn't the one of the container's create", "create"
        else:
            continue
        raise Denied(
            "network.changed",
            f"the network {name} {changed}",
            f"{remedy} the container again",
            subject=item.id,
        )


def _refuse_changed_volumes(state: GateState, container: OwnContainer) -> Flow[None]:
    for name in _volume_names(container.item):
        volume = yield from lookup.find_volume(state, name)
        if volume is None:
            changed = "isn't there any more"
        elif volume.owned is None:
            changed = "was created again by somebody else"
        elif not is_admitted_volume(container.item, volume.owned):
            changed = "isn't the one of the container's create"
        elif not is_known_volume(volume.facts.driver, volume.facts.options):
            changed = "has options now"
        else:
            continue
        raise Denied(
            "volume.changed",
            f"the volume {name} {changed}",
            "create the container again",
            subject=container.item.id,
        )


def _volume_names(item: ContainerItem) -> list[str]:
    return sorted({mount.source for mount in _admitted_mounts(item, "volume")} - {""})


def _admitted_mounts(item: ContainerItem, kind: str) -> Iterator[ExpectedMount]:
    for mount in item.confined.mounts if item.confined else ():
        if mount.type == kind:
            yield mount


def _refuse_changed_sources(state: GateState, container: OwnContainer) -> Flow[None]:
    """Refuse if a bind source was replaced, by a link for example, or is protected."""
    binds = {
        str(mount.get("Source"))
        for mount in container.inspect.get("Mounts") or ()
        if mount.get("Type") == "bind"
    }
    binds -= yield from make_recorded(state, container.item)
    known = {mount.source: mount for mount in _admitted_mounts(container.item, "bind")}
    known |= {
        data_path(state.volumes_root, mount.source): mount
        for mount in _admitted_mounts(container.item, "volume")
        if mount.inode
    }
    sources = sorted({*binds, *known})
    facts = yield from inspect_paths(tuple(sources))
    for source in sources:
        seen = facts.get(source, PathFacts(source, "unreadable"))
        if changed := _difference(state, seen, known.get(source)):
            raise Denied(
                "mount.changed",
                f"the bind source {source} is now {changed}",
                "put back what was admitted, or create the container again",
                subject=container.item.id,
            )


def _refuse_taken_uid(state: GateState, container: OwnContainer) -> Flow[None]:
    confined = container.item.confined
    if confined is None or not confined.observer:
        return
    if somebody := (yield from lookup.uid_user_of(state, confined.user, observes=True)):
        raise Denied(
            "observer",
            f"the uid of the observer is also that of {somebody}",
            "give the observer a uid that nobody has, in its exception and in its document",
            subject=container.item.id,
        )


def _refuse_changed_devices(container: OwnContainer) -> Flow[None]:
    """Refuse if a device node has another number, or a CDI specification another content.

    The engine reads both again at each start.
    """
    devices = container.item.confined.devices if container.item.confined else ()
    if not devices:
        return
    named = any(device.specification for device in devices)
    found = (yield from read_cdi_devices()) if named else {}
    nodes = dict(node.split("=", 1) for device in devices for node in device.nodes)
    facts = yield from inspect_paths(tuple(sorted(nodes)))
    for device in devices:
        changed = ""
        if device.specification:
            now = found.get(device.source)
            if now is None:
                changed = "isn't in a specification any more"
            elif now.digest != device.specification:
                changed = f"has another specification now ({now.file}, {now.digest})"
            elif now.never:
                changed = f"is defined by {now.file}: {now.never}"
        for node in device.nodes:
            path, _, number = node.partition("=")
            seen = facts.get(path, PathFacts(path, "unreadable"))
            changed = changed or _change_of(seen, number)
        if changed:
            raise Denied(
                "device.changed",
                f"{device.source} {changed}",
                "put back what was admitted, or create the container again",
                subject=container.item.id,
            )


def _change_of(seen: PathFacts, number: str) -> str:
    """Return how a device node differs from the one with a number; '' for no difference."""
    if seen.device_type != "character" or number_text(seen.number) != number:
        return f"isn't the device {number} any more"
    return "is a console of the host now" if seen.console else ""


def _difference(state: GateState, seen: PathFacts, admitted: ExpectedMount | None) -> str:
    """Return how a source differs from its admission; '' for no difference."""
    in_volume = is_below(seen.path, state.volumes_root) and seen.protected == ENGINE_DATA
    # The create admitted a folder of the directory; the same folder can't have become another place.
    in_directory = seen.in_directory and admitted is not None and admitted.inode != 0
    # Only an observer was admitted with the root filesystem, which contains every place of it.
    is_root = admitted is not None and admitted.source == "/"
    protected = "" if in_volume or in_directory or is_root else seen.protected
    if seen.kind not in {"dir", "file"} or protected:
        return protected or seen.kind
    if admitted is None or not admitted.inode:
        return ""
    same = (seen.device, seen.inode) == (admitted.device, admitted.inode)
    return "" if same else f"another {seen.kind}"
