"""The services of the chosen profiles, and the resources of these services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.core.compose.text.nodes import ComposeNode


def select_profiles(tree: ComposeNode, profiles: Sequence[str]) -> set[str]:
    """Remove services of other profiles, in place, and return the removed names."""
    services = tree.members_of("services")
    removed: set[str] = set()
    for name, service in list(services.items()):
        names = {item.value for item in service.items_of("profiles")}
        if names and not names & {*profiles} and "*" not in profiles:
            removed.add(name)
            del services[name]
    return removed


def remove_unused(tree: ComposeNode) -> None:
    """Remove unused resources, in place."""
    used: dict[str, set[object]] = {
        "networks": set(),
        "volumes": set(),
        "secrets": set(),
        "configs": set(),
    }
    for service in tree.members_of("services").values():
        used["networks"] |= service.members_of("networks").keys()
        used["volumes"] |= set(_sources(_volumes(service)))
        used["secrets"] |= set(_sources(service.items_of("secrets")))
        used["configs"] |= set(_sources(service.items_of("configs")))
        build = service.get("build")
        if build is not None:
            used["secrets"] |= set(_sources(build.items_of("secrets")))
    for section, names in used.items():
        found = tree.get(section)
        if found is None:
            continue
        kept = {name: node for name, node in found.members.items() if name in names}
        if kept:
            found.value = kept
        else:
            del tree.members[section]


def _volumes(service: ComposeNode) -> Iterable[ComposeNode]:
    for mount in service.items_of("volumes"):
        kind = mount.get("type")
        if kind is not None and kind.value == "volume":
            yield mount


def _sources(mounts: Iterable[ComposeNode]) -> Iterable[object]:
    for mount in mounts:
        source = mount.get("source")
        if source is not None:
            yield source.value
