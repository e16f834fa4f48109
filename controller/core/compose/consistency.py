"""Consistency of a whole project: references, values that contradict one another, cycles.

The reference is ``loader/validate.go`` of compose-go.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.core.compose.attributes import FIELD_ROWS
from controller.core.compose.nodes import (
    ComposeNode,
    Fault,
    NodePath,
    ReadingReport,
    fail,
    problem_at,
)
from controller.core.compose.project import SERVICE

#: The attributes of limits that stand at a second place, below ``deploy.resources``, too.
_TWICE = tuple(
    (path[0], other)
    for path, row in FIELD_ROWS
    for other, twin in FIELD_ROWS
    if len(path) == 1 and other[:2] == ("deploy", "resources") and twin.field == row.field
)
_TESTS = ("CMD", "CMD-SHELL", "NONE")


def check_consistency(tree: ComposeNode, disabled: set[str], report: ReadingReport) -> None:
    """Report contradictions of a project; *disabled* are services of other profiles."""
    members = tree.members_of("services")
    checks = _Checks(tree, members, disabled)
    for name, service in members.items():
        for check in (
            checks.image,
            checks.build,
            checks.networks,
            checks.health,
            checks.dependencies,
            checks.references,
            checks.scale,
            checks.limits,
        ):
            try:
                check(service, ("services", name))
            except Fault as fault:
                report.add(fault.problem)
    for name, secret in tree.members_of("secrets").items():
        given = (secret.get(source) for source in ("external", "file", "environment"))
        if not any(node is not None and node.value for node in given):
            message, remedy = "neither file nor environment is given", "add file"
            report.add(problem_at(secret, "compose.missing", message, remedy, ("secrets", name)))
    if not report.failed:
        _check_cycles(members, report)


class _Checks:
    """The checks of a service. Each check reports at most a single problem."""

    def __init__(
        self, tree: ComposeNode, services: dict[str, ComposeNode], disabled: set[str]
    ) -> None:
        self._tree = tree
        self._services = services
        self._disabled = disabled

    def image(self, service: ComposeNode, path: NodePath) -> None:
        image = service.get("image")
        has_image = image is not None and image.value
        if not has_image and not {"build", "provider"} & service.members.keys():
            message = "the service has neither an image nor a build"
            fail(service, "compose.missing", message, "add image", path)

    def build(self, service: ComposeNode, path: NodePath) -> None:
        build = service.get("build")
        if build is None:
            return
        if {"dockerfile", "dockerfile_inline"} <= build.members.keys():
            message = "dockerfile and dockerfile_inline exclude one another"
            fail(build, "compose.conflict", message, "keep one of them", path)

        platform = service.get("platform")
        platforms = [item.value for item in build.items_of("platforms")]
        if platforms and platform is not None and platform.value not in platforms:
            message = f"build.platforms does not contain the platform {platform.value}"
            fail(platform, "compose.conflict", message, "add the platform there", path)

    def networks(self, service: ComposeNode, path: NodePath) -> None:
        mode, names = service.get("network_mode"), service.members_of("networks")
        if mode is not None and names:
            message = "network_mode and networks exclude one another"
            fail(mode, "compose.conflict", message, "keep one of them", path)
        declared = self._tree.members_of("networks")
        for name, node in names.items():
            if name not in declared:
                self._undefined(node, "network", name, path)
        if mode is not None and mode.text is not None and mode.text.startswith(SERVICE):
            name = mode.text.removeprefix(SERVICE)
            if name not in self._services and name not in self._disabled:
                self._undefined(mode, "service", name, path)

    def health(self, service: ComposeNode, path: NodePath) -> None:
        check = service.get("healthcheck")
        test = check.items_of("test") if check is not None else []
        if test and test[0].value not in _TESTS:
            message = f"the test begins with {test[0].value!r}"
            remedy = "begin the list with CMD, CMD-SHELL or NONE, or write a string"
            fail(test[0], "compose.value", message, remedy, (*path, "healthcheck", "test"))

    def dependencies(self, service: ComposeNode, path: NodePath) -> None:
        for name, node in service.members_of("depends_on").items():
            required = node.get("required")
            is_optional = required is None or required.value is False
            if name in self._services or (name in self._disabled and is_optional):
                continue
            if name in self._disabled:
                message = f"depends on {name!r}, and no profile of {name!r} is chosen"
                remedy = "choose a profile in x-trimtab.profiles, or write required: false"
                fail(node, "compose.undefined", message, remedy, path)
            self._undefined(node, "service", name, path)

    def references(self, service: ComposeNode, path: NodePath) -> None:
        for section, mounts in (
            ("volumes", [each for each in volumes_of(service) if "source" in each.members]),
            ("configs", service.items_of("configs")),
            ("secrets", service.items_of("secrets")),
        ):
            declared = self._tree.members_of(section)
            for mount in mounts:
                source = mount.get("source")
                name = str(source.value) if source is not None else ""
                if name not in declared:
                    self._undefined(mount, section.removesuffix("s"), name, path)

    def _undefined(self, node: ComposeNode, kind: str, name: str, path: NodePath) -> None:
        message = f"the {kind} {name!r} is not defined"
        fail(node, "compose.undefined", message, f"add {name} to {kind}s", path)

    def scale(self, service: ComposeNode, path: NodePath) -> None:
        scale, deploy, name = (service.get(key) for key in ("scale", "deploy", "container_name"))
        replicas = deploy.get("replicas") if deploy is not None else None
        if scale is not None and deploy is not None:
            if replicas is not None and replicas.value != scale.value:
                self._distinct(scale, "scale and deploy.replicas", path)
            deploy.members["replicas"] = scale
        number = scale or replicas
        if name is not None and number is not None and _number(number) > 1:
            message = f"{number.value} containers can't have one container_name"
            fail(name, "compose.conflict", message, "remove container_name", path)

    def limits(self, service: ComposeNode, path: NodePath) -> None:
        deploy = service.get("deploy")
        resources = deploy.get("resources") if deploy is not None else None
        if resources is None:
            return
        for attribute, (_, _, kind, name) in _TWICE:
            own, group = service.get(attribute), resources.get(kind)
            if own is None or group is None:
                continue
            other = group.get(name)
            if other is None or other.value != own.value:
                both = f"{attribute} and deploy.resources.{kind}.{name}"
                self._distinct(own, both, path)

    def _distinct(self, node: ComposeNode, names: str, path: NodePath) -> None:
        message = f"{names} have different values"
        fail(node, "compose.conflict", message, "write one value, or remove one of them", path)


def _number(node: ComposeNode) -> int:
    return node.value if isinstance(node.value, int) else 0


def volumes_of(service: ComposeNode) -> Iterator[ComposeNode]:
    """Yield the mounts of volumes, without those of other kinds."""
    for mount in service.items_of("volumes"):
        kind = mount.get("type")
        if kind is not None and kind.value == "volume":
            yield mount


def _check_cycles(services: dict[str, ComposeNode], report: ReadingReport) -> None:
    """Report the first cycle of dependencies."""
    done: set[str] = set()
    for start, service in services.items():
        stack: list[tuple[str, Iterator[str]]] = [(start, _dependencies(service))]
        open_names = {start}
        while stack:
            name, rest = stack[-1]
            following = next((each for each in rest if each in services), None)
            if following is None or name in done:
                done.add(name)
                open_names.discard(name)
                stack.pop()
            elif following in open_names:
                names = [each for each, _ in stack]
                cycle = " → ".join([*names[names.index(following) :], following])
                message = f"a cycle of depends_on: {cycle}"
                remedy = "remove one dependency of the cycle"
                node = services[name].members["depends_on"].members[following]
                path = ("services", name, "depends_on")
                report.add(problem_at(node, "compose.depends-cycle", message, remedy, path))
                return
            elif following not in done:
                stack.append((following, _dependencies(services[following])))
                open_names.add(following)


def _dependencies(service: ComposeNode) -> Iterator[str]:
    return iter(list(service.members_of("depends_on")))
