"""Whatever people change on a container is seen, and put right without a restart if that can be."""

from __future__ import annotations

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.drifts import EXTRA, TABLE, Healed, Row
from tests.instance import Host, eventually, web

SPEC = "resources: {memory: 64Mi, cpus: 0.5, pids: 40}\nrollout: {minHealthy: 0s}"
HOST = (
    "Memory",
    "MemorySwap",
    "MemoryReservation",
    "NanoCpus",
    "CpuShares",
    "CpusetCpus",
    "PidsLimit",
    "RestartPolicy",
)
#: A replacement that fails the health checks of its first seconds is checked again after 30 s.
RIGHT_WITHIN_S = 60.0
NAMES = sorted({row.name for row in TABLE})

Inspect = dict[str, Any]


def test_what_people_change_is_seen_and_put_right(host: Host) -> None:
    for name in NAMES:
        host.write(f"{name}.yaml", web(name, extra=SPEC))
    host.engine.docker("network", "create", EXTRA)
    try:
        with host.running():
            before = _by_service(host)
            with ThreadPoolExecutor(4) as several:
                list(several.map(lambda row: _change(host, row, before[row.name]), TABLE))
            after = _put_right(host, before)
            host.await_ready()
            intents = [r for r in host.records() if r["stage"] == "intent"]
            wrong = [
                told
                for row in TABLE
                for told in _wrong(row, before[row.name], after[row.name], intents)
            ]
            assert wrong == []
            host.cli("plan", expect=0)
    finally:
        host.close()
        host.engine.docker("network", "rm", EXTRA)


def _put_right(host: Host, before: dict[str, Inspect]) -> dict[str, Inspect]:
    """Return the containers once all are as they were."""
    after: dict[str, Inspect] = {}

    def right() -> bool:
        nonlocal after
        # Two dozen containers are inspected only once the controller has nothing to do.
        if not host.all_ready():
            return False
        after = _by_service(host)
        return not _unhealed(before, after) and len(host.containers()) == len(NAMES)

    try:
        eventually(right, within_s=RIGHT_WITHIN_S)
    except AssertionError as error:
        found = _unhealed(before, _by_service(host))
        raise AssertionError(f"{found}\n{host.said()}") from error
    return after


def _by_service(host: Host) -> dict[str, Inspect]:
    found: dict[str, Inspect] = {}
    for inspect in host.containers():
        service = inspect["Config"]["Labels"]["io.trimtab.service"]
        if service not in found or inspect["Created"] > found[service]["Created"]:
            found[service] = inspect
    return found


def _change(host: Host, row: Row, before: Inspect) -> None:
    for command in row.commands:
        # A command may lose a race against what it is about: the healing.
        host.engine.docker(*shlex.split(command.format(it=before["Id"])), check=False)


def _shape(inspect: Inspect) -> dict[str, Any]:
    """What is compared, whatever the container's name and id are."""
    ends = inspect["NetworkSettings"]["Networks"]
    return {
        "host": {name: inspect["HostConfig"][name] for name in HOST},
        "networks": {name: end["Aliases"] for name, end in ends.items()},
        "status": inspect["State"]["Status"],
    }


def _unhealed(before: dict[str, Inspect], after: dict[str, Inspect]) -> dict[str, object]:
    """Return the rows that aren't put right as the table says, and how they are instead."""
    found: dict[str, object] = {}
    for row in TABLE:
        was, now = before[row.name], after.get(row.name)
        if now is None:
            found[row.name] = "no container"
            continue
        replaced, same_run = (
            now["Id"] != was["Id"],
            now["State"]["StartedAt"] == was["State"]["StartedAt"],
        )
        if _shape(now) != _shape(was):
            found[row.name] = _shape(now)
        elif not replaced and now["Name"] != was["Name"]:
            found[row.name] = now["Name"]
        elif (replaced, same_run) != (row.healed is Healed.REPLACED, row.restarts == 0):
            found[row.name] = f"replaced: {replaced}, restarted: {not same_run}"
    return found


def _wrong(row: Row, before: Inspect, after: Inspect, intents: list[Any]) -> list[str]:
    """Return what the journal doesn't say of a row; it was done already as the row says."""
    since = before["State"]["StartedAt"]
    mine = [
        str(r["claims"].get("cause", ""))
        for r in intents
        if r["request"]["summary"].get("service") == row.name and r["time"] > since[:23]
    ]
    if row.healed is Healed.IGNORED:
        return [f"{row.name}: {cause}" for cause in mine if cause != "look"]
    if any(re.search(row.cause, cause) for cause in mine):
        return []
    return [f"{row.name}: nothing says {row.cause!r}: {mine}"]
