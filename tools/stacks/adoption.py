"""A stack started by docker compose and adopted as it runs, by ``trimtab adopt --project``."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.core.compose.translation.scope import dns_name
from controller.model.confinement import GAPS
from tests.engine import FoundEngine, PrivateEngine
from tests.instance import Host, eventually
from tools.stacks.compare import Inspect
from tools.stacks.sides import READY_S, ComposeSide, Replica, TrimtabSide

#: The names of volumes that the engine chose.
_UNNAMED: Final = re.compile("[0-9a-f]{64}")
#: What the folder adds to its unchanged Compose file. Docker Compose ignores it.
KEPT: Final = {"volumes": "compose", "networks": "compose"}


@dataclass(frozen=True, slots=True)
class Adopted:
    """The outcome for one stack."""

    stack: str
    containers: int
    adopted: int
    #: Containers with another id, or another start, after the adoption.
    restarted: int
    #: Containers with another network, address or name on a network, after the adoption and its plan.
    moved: int
    #: The reasons of refused containers, by service.
    refused: tuple[tuple[str, str], ...]
    #: Services with the condition AdoptedAsFound.
    shown: int
    #: Actions of the plan afterwards, of the adopted services.
    planned: int
    #: How many containers have each gap.
    gaps: dict[str, int]
    #: Containers that `docker compose up -d` replaced by mistake, and actions of the plan after it.
    mistaken: tuple[int, int]


def adopt_stack(engine: PrivateEngine | FoundEngine, stack: Path) -> Adopted:
    """Start a stack with docker compose, and adopt all containers that can be adopted."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        copy = Path(shutil.copytree(stack, Path(folder) / stack.name))
        compose = ComposeSide(engine, copy)
        side = TrimtabSide(engine, stack)
        try:
            compose.run("up", "-d", "--quiet-pull")
            with side.running() as host:
                try:
                    return _adopt(compose, side, host, copy)
                finally:
                    # Adopted containers hold the instance's networks, which end with the instance.
                    host.stop()
                    compose.down()
        finally:
            compose.down()


def _adopt(compose: ComposeSide, side: TrimtabSide, host: Host, folder: Path) -> Adopted:
    before = compose.containers()
    running = {replica for replica, each in before.items() if each["State"]["Running"]}
    side.put()
    kept = _found_volumes(before)
    _mark(side.folder, {**KEPT, "suspend": True}, kept)
    eventually(lambda: (host.status() or {"resources": []})["resources"], within_s=READY_S)
    admit = [part for gap in sorted(GAPS) for part in ("--admit", gap)]
    answer = host.cli(
        *("adopt", "--project", side.stack, "--from", str(folder), *admit, "--json"),
        expect=(0, 4),
    )
    report = json.loads(answer.stdout)
    refused = _refused(report, before)
    adopted = set(report["adopted"])
    now = compose.containers()
    restarted = sum(_life(before[each]) != _life(now[each]) for each in running)
    _mark(side.folder, KEPT, kept)
    names = {dns_name(name) for name, _ in running if before[name, 1]["Id"] in adopted}
    if adopted:
        eventually(lambda: _shown(host, side.stack, names) == len(names), within_s=READY_S)
    planned = _planned(host, names)
    after = compose.containers()
    moved = sum(_places(before[each]) != _places(after[each]) for each in running)
    # It runs jobs again.
    compose.run("up", "-d", "--quiet-pull", check=False)
    later = compose.containers()
    stayed = [each for each in running if before[each]["Id"] in adopted]
    replaced = sum(_life(before[each]) != _life(later[each]) for each in stayed)
    return Adopted(
        side.stack,
        len(running),
        len(adopted),
        restarted,
        moved,
        refused,
        _shown(host, side.stack, names),
        planned,
        dict(Counter(gap["gap"] for each in report["containers"] for gap in each["gaps"])),
        (replaced, _planned(host, names)),
    )


def _found_volumes(before: dict[Replica, Inspect]) -> dict[str, Any]:
    """Return what keeps the volumes without a name: they are named as found, in the override file."""
    services, volumes = dict[str, Any](), dict[str, Any]()
    for (service, number), each in sorted(before.items()):
        for mount in each["Mounts"]:
            if mount["Type"] == "volume" and _UNNAMED.fullmatch(mount["Name"]) and number == 1:
                name = f"kept-{len(volumes)}"
                volumes[name] = {"external": True, "name": mount["Name"]}
                entry = {"type": "volume", "source": name, "target": mount["Destination"]}
                services.setdefault(service, {"volumes": []})["volumes"].append(entry)
    return {"services": services, "volumes": volumes} if volumes else {}


def _mark(folder: Path, extension: dict[str, Any], kept: dict[str, Any]) -> None:
    """Write ``x-trimtab`` and the kept volumes into the override file, beside the stack's own."""
    path = folder / "compose.override.yaml"
    text = path.read_text().partition("x-trimtab:")[0] if path.exists() else ""
    assert not (kept and text), f"{path} has services of its own"
    members = {"x-trimtab": extension, **kept}
    added = "".join(f"{name}: {json.dumps(value)}\n" for name, value in members.items())
    path.write_text(f"{text}{added}")


def _refused(report: Any, before: dict[Replica, Inspect]) -> tuple[tuple[str, str], ...]:
    service = {each["Id"]: name for (name, _), each in before.items()}
    found = [
        (service[each["container"]], f"{finding['path']}: {finding['reason']}")
        for each in report["containers"]
        for finding in each["findings"]
    ]
    found += [(service[each["container"]], each["problem"]) for each in report["problems"]]
    found += [
        (each["name"], finding["reason"])
        for each in report["objects"]
        for finding in each["findings"]
    ]
    return tuple(sorted(set(found)))


def _life(inspect: Inspect) -> tuple[str, str, int]:
    return inspect["Id"], inspect["State"]["StartedAt"], inspect["RestartCount"]


def _places(inspect: Inspect) -> dict[str, tuple[str, str, frozenset[str]]]:
    ends = inspect["NetworkSettings"]["Networks"]
    return {
        name: (end["NetworkID"], end["IPAddress"], frozenset(end["Aliases"] or ()))
        for name, end in ends.items()
    }


def _shown(host: Host, namespace: str, names: set[str]) -> int:
    """Return how many services have the condition AdoptedAsFound."""
    return sum(
        any(each["type"] == "AdoptedAsFound" and each["status"] == "True" for each in conditions)
        for found in (host.status() or {"resources": []})["resources"]
        if (found["kind"], found["namespace"]) == ("Service", namespace) and found["name"] in names
        for conditions in [found.get("conditions", [])]
    )


def _planned(host: Host, names: set[str]) -> int:
    actions = host.json("plan", expect=(0, 2, 3))["actions"]
    return sum(each["object"].rpartition("/")[2] in names for each in actions)
