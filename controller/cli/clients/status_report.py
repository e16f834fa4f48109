"""The status report of the running controller, and which of its resources a name means."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.options import open_state
from controller.cli.output.times import span
from controller.model.errors import EngineUnavailable, Problem, StateError, TrimtabError
from controller.settings import StateFolder

#: Nothing that a controller publishes is larger.
REPORT_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FetchedReport:
    """A report: of the running controller, or the last known one with why and its age."""

    report: dict[str, Any]
    lost: TrimtabError | None = None
    age_s: float = 0.0

    @property
    def warning(self) -> str:
        """What a person must know about a report that isn't of now; '' if it is."""
        if self.lost is None:
            return ""
        return f"{self.lost.message}: this is the last known state, {span(self.age_s)} old"


def fetch(state: Path | None, *, now: float) -> FetchedReport:
    """Return the running controller's report; where nothing runs, the one that it wrote last.

    Raises:
        EngineUnavailable: no controller runs, and no report can be read.
    """
    try:
        return FetchedReport(fetch_status(state))
    except EngineUnavailable as error:
        path = open_state(state)[0].controller / "status.json"
        try:
            report, written_at = _read_report(path)
        except (OSError, ValueError):
            # Nothing was written yet, or this user is not allowed to look into the controller's folder.
            raise error from None
        return FetchedReport(report, error, max(0.0, now - written_at))


def _read_report(path: Path) -> tuple[dict[str, Any], float]:
    """Return a published report, and when it was written.

    The folder is the controller's: what is there may be a link, a FIFO or anything else.

    Raises:
        OSError, ValueError: it can't be read, or isn't a report.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} isn't a file")
        report = json.loads(file.read(REPORT_MAX))
    match report:
        case {"resources": list(), "problems": list()}:
            return report, facts.st_mtime
        case _:
            raise ValueError(f"{path} isn't a report")


def select(
    report: dict[str, Any], *, name: str | None, namespace: str | None = None
) -> dict[str, Any]:
    """Return the report with the resources that NAME and NAMESPACE mean."""
    resources = [
        resource
        for resource in report["resources"]
        if (name is None or matches(resource, name))
        and (namespace is None or resource["namespace"] == namespace)
    ]
    return {**report, "resources": resources}


def raise_if_unknown(report: dict[str, Any], found: dict[str, Any], name: str | None) -> None:
    """Raise StateError if NAME means no resource of a report; the remedy has the nearest name."""
    if name is None or found["resources"]:
        return
    raise StateError(
        "resource.unknown",
        f"there is no resource {name}",
        remedy=f"{suggestion(name, report['resources'])}'trimtab status' lists all",
    )


def suggestion(name: str, resources: Iterable[dict[str, Any]]) -> str:
    """Return ``did you mean NAME? `` with the nearest name of a resource, or ``''``."""
    from difflib import get_close_matches  # takes a while to load

    names = sorted({resource["name"] for resource in resources})
    near = get_close_matches(name.rpartition("/")[2], names, n=1)
    return f"did you mean {near[0]}? " if near else ""


def fetch_status(state: Path | None) -> dict[str, Any]:
    """Return the running controller's status, with what ails its broker among the problems.

    Raises:
        EngineUnavailable: no controller runs.
    """
    found, _ = open_state(state)
    answer = ask_controller(found.controller_socket, {"do": "status", "output": True})
    assert isinstance(answer, dict)
    return {**answer, "problems": [*broker_problems(found.broker_socket), *answer["problems"]]}


def broker_problems(path: Path) -> list[dict[str, Any]]:
    """Return what the broker says is wrong with itself; none where it can't be asked."""
    try:
        health = BrokerApi(path).get("health")
    except TrimtabError:
        return []  # the controller misses it too, and says so
    found = []
    # A client is told whether something is wrong, and not why.
    if not health["journal"]["writable"]:
        error = health["journal"].get("error", "")
        message = f"nothing is changed while the journal can't be written: {error}".rstrip(": ")
        remedy = "free space under the state folder, or make it writable; no restart is needed"
        found.append(Problem("journal.unavailable", message, remedy=remedy))
    elif health["journal"].get("reserved"):
        message = "the journal's disk is almost full: clients are refused, refusals not recorded"
        remedy = "free space under the state folder; no restart is needed"
        found.append(Problem("journal.reserved", message, remedy=remedy))
    if error := health["policy"].get("error"):
        message = f"the last good policy stays in force: {error}"
        remedy = "correct the policy's file, then send the broker SIGHUP"
        found.append(Problem("policy.invalid", message, remedy=remedy))
    if error := health.get("registryAuth", {}).get("error"):
        message = f"the last good credentials stay in use: {error}"
        remedy = "correct the file: it is read again at the next pull"
        found.append(Problem("registry-auth.invalid", message, remedy=remedy))
    if some := health.get("rivals", {}).get("some"):
        made = ", ".join(sorted(name or identifier[:12] for identifier, name in some.items()))
        message = f"nothing is changed: another broker of this instance made {made}"
        remedy = "see 'trimtab doctor'"
        found.append(Problem("state.forked", message, remedy=remedy))
    if not found:
        return []
    from controller.core.review.text import problem_json  # loads much, and all is well most times

    return [problem_json(problem) for problem in found]


def matches(resource: dict[str, Any], name: str) -> bool:
    """Tell whether ``NAME``, ``NAMESPACE/NAME`` or ``KIND/NAMESPACE/NAME`` means a resource."""
    full = (resource["kind"], resource["namespace"], resource["name"])
    wanted = tuple(name.split("/"))
    return full[-len(wanted) :] == wanted if len(wanted) <= len(full) else False


def key_of(state: StateFolder, name: str) -> str:
    """Return the key of the service that NAME or NAMESPACE/NAME means.

    Raises:
        EngineUnavailable: nothing runs.
        StateError: there is no such service, or several.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    services = [r for r in status["resources"] if r["kind"] == "Service" and matches(r, name)]
    keys = [f"Service/{r['namespace']}/{r['name']}" for r in services]
    if len(keys) > 1:
        raise StateError(
            "service.ambiguous",
            f"{name} means {', '.join(keys)}",
            remedy="write NAMESPACE/NAME",
        )
    if not keys:
        others = [r for r in status["resources"] if r["kind"] == "Service"]
        raise StateError(
            "service.unknown",
            f"there is no service {name}",
            remedy=f"{suggestion(name, others)}'trimtab status' lists all",
        )
    return keys[0]
