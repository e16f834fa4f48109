"""Implicit parts of a project: the default network, names, dependencies from other attributes.

The reference is ``loader/normalize.go`` of compose-go.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.core.compose.forms.long_forms import clean_path, nodes_of
from controller.core.compose.text.nodes import ComposeNode

_NAMESPACES = ("network_mode", "ipc", "pid", "uts", "cgroup")
_SECTIONS = ("networks", "volumes", "configs", "secrets")
_SERVICE = "service:"


def normalize(tree: ComposeNode, name: str, variables: Mapping[str, str]) -> None:
    """Add the implicit parts of a project, in place."""
    _add_default_network(tree)
    for service in tree.members_of("services").values():
        _normalize_service(service, variables)
    _add_names(tree, name)


def _add_default_network(tree: ComposeNode) -> None:
    used = False
    for service in tree.members_of("services").values():
        networks = service.get("networks")
        if "network_mode" in service.members:
            continue
        if networks is None or not networks.members:
            service.members["networks"] = service.at({"default": service.at(None)})
            used = True
        elif "default" in networks.members:
            used = True
    if used and "default" not in tree.members_of("networks"):
        section = tree.members.get("networks")
        if section is None or not isinstance(section.value, dict):
            section = tree.members["networks"] = tree.at({})
        section.members["default"] = tree.at(None)


def _normalize_service(service: ComposeNode, variables: Mapping[str, str]) -> None:
    policy = service.get("pull_policy")
    if policy is not None and policy.value == "if_not_present":
        policy.value = "missing"
    build = service.get("build")
    if build is not None:
        _normalize_build(build, variables)
    _resolve(service.get("environment"), variables, keep=True)
    for mount in service.items_of("volumes"):
        target = mount.get("target")
        if target is not None and target.text is not None:
            target.value = clean_path(target.text)
    _add_dependencies(service)


def _normalize_build(build: ComposeNode, variables: Mapping[str, str]) -> None:
    if build.get("dockerfile") is None and build.get("dockerfile_inline") is None:
        build.members["dockerfile"] = build.at("Dockerfile")
    _resolve(build.get("args"), variables, keep=False)


def _resolve(node: ComposeNode | None, variables: Mapping[str, str], *, keep: bool) -> None:
    """Give values to names without a value; without *keep*, remove names that stay without."""
    if node is None:
        return
    if isinstance(node.value, dict):
        for name, member in list(node.value.items()):
            if member.value is None and name in variables:
                member.value = variables[name]
            elif member.value is None and not keep:
                del node.value[name]
        return
    kept = []
    for item in node.items:
        if item.text is not None and "=" not in item.text:
            if item.text in variables:
                item.value = f"{item.text}={variables[item.text]}"
            elif not keep:
                continue
        kept.append(item)
    node.value = kept


def _add_dependencies(service: ComposeNode) -> None:
    found: list[tuple[str, ComposeNode, bool]] = []
    for link in service.items_of("links"):
        parts = (link.text or "").split(":")
        found.append((parts[0] if len(parts) == 2 else link.text or "", link, True))
    for name in _NAMESPACES:
        mode = service.get(name)
        if mode is not None and mode.text is not None and mode.text.startswith(_SERVICE):
            found.append((mode.text.removeprefix(_SERVICE), mode, True))
    found += [
        (source.text.partition(":")[0], source, False)
        for source in service.items_of("volumes_from")
        if source.text is not None and not source.text.startswith("container:")
    ]
    if not found:
        return
    depends_on = service.members.setdefault("depends_on", service.at({}))
    for name, node, restart in found:
        fields = {"condition": "service_started", "restart": restart, "required": True}
        if name not in depends_on.members:
            depends_on.members[name] = nodes_of(node, fields)


def _add_names(tree: ComposeNode, project: str) -> None:
    for section in _SECTIONS:
        members = tree.members_of(section)
        for key, resource in members.items():
            if not isinstance(resource.value, dict):
                resource.value = {}
            name = resource.get("name")
            if name is None or name.value is None:
                external = resource.get("external")
                is_external = external is not None and external.value in {True, "true", "1"}
                resource.members["name"] = resource.at(key if is_external else f"{project}_{key}")
