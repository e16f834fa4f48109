"""The status report of the running controller, and which of its resources a name means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.cli.api import BrokerApi, ask_controller
from controller.cli.common import open_state
from controller.model.errors import Problem, TrimtabError


def fetch_status(state: Path | None) -> dict[str, Any]:
    """Return the running controller's status, with what ails its broker among the problems.

    Raises:
        EngineUnavailable: no controller runs.
    """
    found, _ = open_state(state)
    answer = ask_controller(found.controller_socket, {"do": "status"})
    assert isinstance(answer, dict)
    return {**answer, "problems": [*broker_problems(found.broker_socket), *answer["problems"]]}


def broker_problems(path: Path) -> list[dict[str, Any]]:
    """Return what the broker says is wrong with itself; none where it can't be asked."""
    try:
        health = BrokerApi(path).get("health")
    except TrimtabError:
        return []  # the controller misses it too, and says so
    found = []
    if not health["journal"]["writable"]:
        message = (
            f"nothing is changed while the journal can't be written: {health['journal']['error']}"
        )
        remedy = "free space under the state folder, or make it writable; no restart is needed"
        found.append(Problem("journal.unavailable", message, remedy=remedy))
    elif health["journal"].get("reserved"):
        message = "the journal's disk is almost full: clients are refused, refusals not recorded"
        remedy = "free space under the state folder; no restart is needed"
        found.append(Problem("journal.reserved", message, remedy=remedy))
    if health["policy"]["error"]:
        message = f"the last good policy stays in force: {health['policy']['error']}"
        remedy = "mend the policy's file, then send the broker SIGHUP"
        found.append(Problem("policy.invalid", message, remedy=remedy))
    if health["registryAuth"]["error"]:
        message = f"the last good credentials stay in use: {health['registryAuth']['error']}"
        remedy = "mend the file: it is read again by itself at the next pull"
        found.append(Problem("registry-auth.invalid", message, remedy=remedy))
    if some := health.get("rivals", {}).get("some"):
        made = ", ".join(sorted(name or identifier[:12] for identifier, name in some.items()))
        message = f"nothing is changed: another broker of this instance made {made}"
        remedy = "see 'trimtab doctor'"
        found.append(Problem("state.forked", message, remedy=remedy))
    if not found:
        return []
    from controller.core.text import problem_json  # loads much, and all is well most times

    return [problem_json(problem) for problem in found]


def place_of(problem: dict[str, Any]) -> str:
    """Return ``FILE:LINE:COLUMN``, or as much of it as a problem has."""
    return ":".join(str(problem[part]) for part in ("file", "line", "column") if problem.get(part))


def matches(resource: dict[str, Any], name: str) -> bool:
    """Tell whether ``NAME``, ``NAMESPACE/NAME`` or ``KIND/NAMESPACE/NAME`` means a resource."""
    full = (resource["kind"], resource["namespace"], resource["name"])
    wanted = tuple(name.split("/"))
    return full[-len(wanted) :] == wanted if len(wanted) <= len(full) else False
