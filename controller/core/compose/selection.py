"""The services of the chosen profiles, and the resources of these services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.core.compose.text.nodes import ComposeNode


def select_profiles(tree: ComposeNode, profiles: Sequence[str]) -> set[str]:
    """Remove services of other profiles, in place, and return the removed names."""
    services = tree.get("services")
    removed: set[str] = set()
    for name, service in list(services.members.items()) if services is not None else ():
        own = service.get("profiles")
        names = {item.value for item in own.items} if own is not None else set()
        if names and not names & {*profiles} and "*" not in profiles:
            removed.add(name)
            assert services is not None, "it has members"
            del services.members[name]
    return removed


def remove_unused(tree: ComposeNode) -> None:
    """Remove unused resources, in place."""
    services = tree.get("services")
    used: dict[str, set[object]] = {
        "networks": set(),
        "volumes": set(),
        "secrets": set(),
        "configs": set(),
    }
    for service in services.members.values() if services is not None else ():
        networks = service.get("networks")
        used["networks"] |= networks.members.keys() if networks is not None else set()
        used["volumes"] |= set(_sources(_volumes(service)))
        used["secrets"] |= set(_sources(_items(service, "secrets")))
        used["configs"] |= set(_sources(_items(service, "configs")))
        build = service.get("build")
        if build is not None:
            used["secrets"] |= set(_sources(_items(build, "secrets")))
    for section, names in used.items():
        found = tree.get(section)
        if found is None:
            continue
        kept = {name: node for name, node in found.members.items() if name in names}
        if kept:
            found.value = kept
        else:
            del tree.members[section]


def _items(node: ComposeNode, name: str) -> list[ComposeNode]:
    found = node.get(name)
    return found.items if found is not None else []


def _volumes(service: ComposeNode) -> Iterable[ComposeNode]:
    for mount in _items(service, "volumes"):
        kind = mount.get("type")
        if kind is not None and kind.value == "volume":
            yield mount


def _sources(mounts: Iterable[ComposeNode]) -> Iterable[object]:
    for mount in mounts:
        source = mount.get("source")
        if source is not None:
            yield source.value
