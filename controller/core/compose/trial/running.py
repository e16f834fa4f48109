"""Settings of containers that trimtab completes or replaces: restarts, health checks, names, tmpfs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.core.compose.project import ComposeProject
from controller.core.compose.translation.rollout import restart_of
from controller.core.compose.translation.scope import Tree, items, mapping, texts
from controller.core.compose.trial.reach import specs_of
from controller.core.engine_api.create_body import RESTART
from controller.model.desired.desired import Desired
from controller.model.desired.spec.files import FileMount
from controller.model.desired.spec.job import JobSpec
from controller.model.desired.spec.mounts import TmpfsMount
from controller.model.desired.spec.network import NetworkMode
from controller.model.desired.spec.service import ServiceSpec
from controller.model.quantities import format_bytes, format_duration_ms


def completed_settings(
    project: ComposeProject, desired: Desired
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each setting that trimtab completes or replaces, in words, with the names of its services."""
    trees = mapping(project.tree.get("services"))
    by_text: dict[str, list[str]] = {}
    for name, spec in specs_of(project, desired).items():
        for text in _settings(mapping(trees[name]), spec):
            by_text.setdefault(text, []).append(name)
    for name, text in _links(trees):
        by_text.setdefault(text, []).append(name)
    for text, names in sorted(by_text.items()):
        yield text, tuple(names)


def _settings(tree: Tree, spec: ServiceSpec) -> Iterable[str]:
    if isinstance(spec, JobSpec):
        yield "a run of the job has a tmpfs at each VOLUME of its image that no mount covers"
    else:
        yield from _restart(tree, spec)
        yield from _secrets(spec)
        yield from _health(tree, spec)
        yield from _networking(spec)
    yield from _tmpfs(tree, spec)


def _restart(tree: Tree, spec: ServiceSpec) -> Iterator[str]:
    word, _ = restart_of(tree)
    policy, retries = RESTART[spec.restart.policy]
    if not word:
        yield f"restart isn't written, and becomes {policy}: an ended container is started again"
    elif word == "unless-stopped":
        yield (
            f"restart unless-stopped becomes {policy}: a container that somebody stops is started again; "
            "`trimtab suspend NAME` leaves it stopped"
        )
    elif word.startswith("on-failure"):
        yield (
            f"restart {word}: the engine restarts a failing container {retries} times, and trimtab goes on "
            "after growing pauses"
        )


def _secrets(spec: ServiceSpec) -> Iterator[str]:
    if any(isinstance(mount, FileMount) and mount.type == "secret" for mount in spec.mounts):
        yield (
            "a Secret is mounted: without trimtab-files.service, trimtab starts the containers at boot, and "
            "their restart policy on the engine is no"
        )


def _health(tree: Tree, spec: ServiceSpec) -> Iterator[str]:
    check = spec.healthcheck
    if check is None:
        return
    written = mapping(tree.get("healthcheck"))
    completed = (
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start_period", check.start_period),
    )
    missing = [f"{name} {format_duration_ms(v)}" for name, v in completed if not written.get(name)]
    if missing:
        yield f"the healthcheck is completed, whatever the image's own has: {', '.join(missing)}"


def _networking(spec: ServiceSpec) -> Iterator[str]:
    leads_in = spec.network.mode in (NetworkMode.ISOLATED, NetworkMode.DECLARED)
    if leads_in and any(port.host is not None for port in spec.ports):
        yield "published ports lead through a network of their own, which has no names"


def _links(trees: Tree) -> Iterator[tuple[str, str]]:
    """Yield the linked services, each with its second name in words."""
    for tree in trees.values():
        for link in texts(mapping(tree).get("links")):
            service, _, alias = link.partition(":")
            if alias and service in trees:
                yield service, f"links: {alias} names the service for all services of its networks"


def _tmpfs(tree: Tree, spec: ServiceSpec) -> Iterator[str]:
    unbounded = {
        entry.partition(":")[0].rstrip("/")
        for entry in texts(tree.get("tmpfs"))
        if "size=" not in entry
    }
    for each in items(tree.get("volumes")):
        terms = mapping(each)
        if terms.get("type") == "tmpfs" and not mapping(terms.get("tmpfs")).get("size"):
            unbounded.add(str(terms.get("target")).rstrip("/"))
    for mount in spec.mounts:
        if isinstance(mount, TmpfsMount) and mount.target in unbounded:
            yield f"the tmpfs {mount.target} has no size, and holds at most {format_bytes(mount.size)}"
