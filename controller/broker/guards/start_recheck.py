"""Before a start: what a container was admitted with must still be what it would get.

Names are resolved again by the engine when a container starts: a bind source by its path, a
network by its name at the first start, a volume with the options that it has then. What was
swapped since is refused here; what is swapped after this look shows in the kernel (``verifying``).
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.broker.gate.call import Flow, inspect_paths
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import lookup
from controller.broker.guards.lookup import OwnContainer
from controller.core.engine_api.grammar import is_below
from controller.core.rules.confinement import data_path
from controller.model.confinement import ExpectedMount
from controller.model.host_paths import ENGINE_DATA, PathFacts
from controller.model.inventory import ContainerItem


def refuse_if_violated(found: OwnContainer) -> None:
    """Refuse to let a container run, or change it, that was stopped for a violation.

    Raises:
        Denied: ``effective.violated``.
    """
    if found.item.violation:
        raise Denied(
            "effective.violated",
            f"it was stopped since it didn't run as admitted, see record {found.item.violation}",
            "remove the container and create it anew",
            subject=found.item.id,
        )


def refuse_if_changed(state: GateState, found: OwnContainer) -> Flow[None]:
    """Refuse when a network, a volume or a bind source isn't what was admitted any more.

    Raises:
        Denied: ``network.changed``, ``volume.changed``, ``mount.changed``.
    """
    yield from _refuse_changed_networks(state, found)
    yield from _refuse_changed_volumes(state, found)
    yield from _refuse_changed_sources(state, found)


def paths_to_read(item: ContainerItem) -> tuple[str, ...]:
    """Return what ``refuse_if_changed`` asks the engine for."""
    networks = map(lookup.network_path, item.admitted.networks)
    return tuple(filter(None, (*networks, *map(lookup.volume_path, _volume_names(item)))))


def _refuse_changed_networks(state: GateState, found: OwnContainer) -> Flow[None]:
    for name in found.item.admitted.networks:
        network = yield from lookup.find_network(state, name)
        if network is not None and network.belonging is None:
            raise Denied(
                "network.changed",
                f"the network {name} was made anew by somebody else",
                "remove it, and create the container anew",
                subject=found.item.id,
            )


def _refuse_changed_volumes(state: GateState, found: OwnContainer) -> Flow[None]:
    for name in _volume_names(found.item):
        volume = yield from lookup.find_volume(state, name)
        if volume is None:
            changed = "isn't there any more"
        elif volume.belonging is None:
            changed = "was made anew by somebody else"
        elif volume.facts.options:
            changed = "has options now"
        else:
            continue
        raise Denied(
            "volume.changed",
            f"the volume {name} {changed}",
            "create the container anew",
            subject=found.item.id,
        )


def _volume_names(item: ContainerItem) -> list[str]:
    return sorted({mount.source for mount in _admitted_mounts(item, "volume")} - {""})


def _admitted_mounts(item: ContainerItem, kind: str) -> Iterator[ExpectedMount]:
    for mount in item.confined.mounts if item.confined else ():
        if mount.type == kind:
            yield mount


def _refuse_changed_sources(state: GateState, found: OwnContainer) -> Flow[None]:
    """Refuse when a source isn't any more what was admitted: swapped for a link, or ours."""
    binds = {
        str(mount.get("Source"))
        for mount in found.inspect.get("Mounts") or ()
        if mount.get("Type") == "bind"
    }
    known = {mount.source: mount for mount in _admitted_mounts(found.item, "bind")}
    known |= {
        data_path(state.volumes_root, mount.source): mount
        for mount in _admitted_mounts(found.item, "volume")
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
                "put back what was admitted, or create the container anew",
                subject=found.item.id,
            )


def _difference(state: GateState, seen: PathFacts, admitted: ExpectedMount | None) -> str:
    """Return what a source is now; '' while it is what was admitted."""
    in_volume = is_below(seen.path, state.volumes_root) and seen.protected == ENGINE_DATA
    protected = "" if in_volume else seen.protected
    if seen.kind not in {"dir", "file"} or protected:
        return protected or seen.kind
    if admitted is None or not admitted.inode:
        return ""
    same = (seen.device, seen.inode) == (admitted.device, admitted.inode)
    return "" if same else f"another {seen.kind}"
