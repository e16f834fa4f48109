"""One stack, run by docker compose and then by trimtab, and its containers compared."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.core.compose.translation.scope import dns_name
from tests.engine import FoundEngine, PrivateEngine
from tools.stacks.compare import Difference, Fields, differences, fields_of
from tools.stacks.sides import READY_S, ComposeSide, Replica, TrimtabSide


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome for one stack."""

    stack: str
    containers: int
    fields: int
    differences: tuple[Difference, ...]
    #: Replicas that only one of the two programs started.
    missing: tuple[str, ...]

    @property
    def announced(self) -> tuple[Difference, ...]:
        """The differences that ``trimtab try`` announces."""
        return tuple(each for each in self.differences if each.announced)

    @property
    def unannounced(self) -> tuple[Difference, ...]:
        """The faults: differences that ``trimtab try`` doesn't announce."""
        return tuple(each for each in self.differences if not each.announced)


def compare_stack(engine: PrivateEngine | FoundEngine, stack: Path) -> Compared:
    """Run a stack with both programs, one after the other, and compare its containers."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        return _compare(engine, Path(shutil.copytree(stack, Path(folder) / stack.name)))


def _compare(engine: PrivateEngine | FoundEngine, stack: Path) -> Compared:
    kept, volumes = _with_compose(engine, stack)
    services = sorted({service for service, _ in kept})
    trimtab = TrimtabSide(engine, stack)
    with trimtab.running() as host:
        tried = trimtab.tried(stack)
        trimtab.put()
        host.await_ready(*map(dns_name, services), within_s=READY_S)
        assert host.json("plan")["actions"] == [], "nothing is left to be done"
        names = trimtab.renaming(volumes)
        after = trimtab.containers(services).items()
        found = {replica: fields_of(each, names) for replica, each in after}
    both = sorted(kept.keys() & found.keys())
    differing: list[Difference] = []
    for service, number in both:
        replica, said = (service, number), announcements(tried, service)
        differing += differences(service, kept[replica], found[replica], said)
    missing = tuple(f"{name}.{number}" for name, number in sorted(kept.keys() ^ found.keys()))
    fields = sum(len(kept[each]) for each in both)
    return Compared(stack.name, len(both), fields, tuple(differing), missing)


def _with_compose(
    engine: PrivateEngine | FoundEngine, stack: Path
) -> tuple[dict[Replica, Fields], list[str]]:
    """Return the fields of the containers of docker compose, and the declared volumes."""
    compose = ComposeSide(engine, stack)
    try:
        compose.run("up", "-d", "--quiet-pull")
        assert not compose.failed(), f"docker compose runs {stack.name}: {compose.failed()}"
        names = compose.renaming()
        fields = {
            each: fields_of(made, names) | compose.copied_files(each, made["Id"])
            for each, made in compose.containers().items()
        }
        return fields, [*compose.volumes().values()]
    finally:
        compose.down()


def announcements(tried: Mapping[str, Any], service: str) -> list[str]:
    """Return the texts in which ``trimtab try --json`` speaks of a service."""
    return [*_announcements(tried, service)]


def _announcements(tried: Mapping[str, Any], service: str) -> Iterator[str]:
    own = dns_name(service)
    for resource in tried["resources"]:
        kind, _, name = resource["object"].split("/")
        if kind in ("Service", "Job") and name == own:
            yield from resource["verdict"].get("mutations", ())
    for problem in tried["problems"]:
        if f"{problem['field']}.".startswith(f"services.{service}."):
            yield problem["message"]
    for change in (*tried["gains"], *tried["losses"]):
        if own in change["services"] or service in change["services"]:
            yield change["text"]
