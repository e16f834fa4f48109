"""The controller's status report, and the selection of resources by name."""

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

#: Bytes; a controller publishes smaller reports.
REPORT_MAX = 64 * 1024 * 1024

#: The codes for a name of several resources, and of none, by kind.
AMBIGUOUS = {"Service": "service.ambiguous", "Job": "job.ambiguous"}
UNKNOWN = {"Service": "service.unknown", "Job": "job.unknown"}


@dataclass(frozen=True, slots=True)
class FetchedReport:
    """The report of the running controller, or the last known report."""

    report: dict[str, Any]
    #: The reason why the report isn't current; None if it is.
    lost: TrimtabError | None = None
    age_s: float = 0.0

    @property
    def warning(self) -> str:
        """The age of a report that isn't current, and the reason; empty for a current report."""
        if self.lost is None:
            return ""
        return f"{self.lost.message}: this is the last known state, {span(self.age_s)} old"


def fetch(state: Path | None, *, now: float) -> FetchedReport:
    """Return the running controller's report; if nothing runs, the last written report.

    Raises:
        EngineUnavailable: no controller runs, and no report can be read.
    """
    try:
        return FetchedReport(fetch_status(state))
    except EngineUnavailable as error:
        path = open_state(state)[0].controller / "status.json"
        try:
            report, written_at = read_published(path)
        except (OSError, ValueError):
            # There is no report yet, or the user has no access to the controller's folder.
            raise error from None
        match report:
            case {"resources": list(), "problems": list()}:
                return FetchedReport(report, error, max(0.0, now - written_at))
            case _:
                raise error from None


def read_published(path: Path, *, longest: int = REPORT_MAX) -> tuple[Any, float]:
    """Return the JSON that an unprivileged process published, and its time of writing.

    The process's user owns the folder, and could replace the file by a link, a FIFO or a large file.

    Raises:
        OSError, ValueError: the file can't be read, or isn't JSON within the bound.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} isn't a file")
        try:
            return json.loads(file.read(longest)), status.st_mtime
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deeply") from error


def select(
    report: dict[str, Any], *, name: str | None, namespace: str | None = None
) -> dict[str, Any]:
    """Return the report with only the resources that NAME and NAMESPACE select."""
    resources = [
        resource
        for resource in report["resources"]
        if (name is None or matches(resource, name))
        and (namespace is None or resource["namespace"] == namespace)
    ]
    return {**report, "resources": resources}


def raise_if_unknown(report: dict[str, Any], selected: dict[str, Any], name: str | None) -> None:
    """Raise an error if NAME selects no resource of a report; the remedy has the nearest name.

    Raises:
        EngineUnavailable: the controller hasn't read everything yet.
        StateError: there is no such resource.
    """
    if name is None or selected["resources"]:
        return
    raise_if_unread(report)
    raise StateError(
        "resource.unknown",
        f"there is no resource {name}",
        remedy=f"{suggestion(name, report['resources'])}'trimtab status' lists all",
    )


def raise_if_unread(report: dict[str, Any]) -> None:
    """Raise EngineUnavailable if the controller hasn't read everything yet."""
    if "unread" in report:
        raise EngineUnavailable(
            "controller.starting",
            f"not read yet, since {report['unread']['since']}: the controller has just started",
            remedy="ask again in a second",
        )


def suggestion(name: str, resources: Iterable[dict[str, Any]]) -> str:
    """Return ``did you mean NAME? `` with the nearest name of a resource, else an empty text."""
    from difflib import get_close_matches  # a slow import

    names = sorted({resource["name"] for resource in resources})
    near = get_close_matches(name.rpartition("/")[2], names, n=1)
    return f"did you mean {near[0]}? " if near else ""


def fetch_status(state: Path | None) -> dict[str, Any]:
    """Return the running controller's status, with the broker's problems.

    Raises:
        EngineUnavailable: no controller runs.
    """
    folder, _ = open_state(state)
    answer = ask_controller(folder.controller_socket, {"do": "status", "output": True})
    assert isinstance(answer, dict)
    return {**answer, "problems": [*broker_problems(folder.broker_socket), *answer["problems"]]}


def broker_problems(path: Path) -> list[dict[str, Any]]:
    """Return the problems that the broker reports; empty if the broker doesn't answer."""
    try:
        health = BrokerApi(path).get("health")
    except TrimtabError:
        return []  # the controller reports that the broker is missing
    problems = []
    # The broker omits the error for clients.
    if not health["journal"]["writable"]:
        error = health["journal"].get("error", "")
        message = f"nothing is changed while the journal can't be written: {error}".rstrip(": ")
        remedy = "free space under the state folder, or make it writable; no restart is needed"
        problems.append(Problem("journal.unavailable", message, remedy=remedy))
    elif health["journal"].get("reserved"):
        message = "the journal's disk is almost full: clients are refused, refusals not recorded"
        remedy = "free space under the state folder; no restart is needed"
        problems.append(Problem("journal.reserved", message, remedy=remedy))
    if error := health["policy"].get("error"):
        message = f"the last good policy stays in force: {error.replace(chr(10), '; ')}"
        remedy = "correct the policy's file, then send the broker SIGHUP"
        problems.append(Problem("policy.invalid", message, remedy=remedy))
    if error := health.get("registryAuth", {}).get("error"):
        message = f"the last good credentials stay in use: {error}"
        remedy = "correct the file: it is read again at the next pull"
        problems.append(Problem("registry-auth.invalid", message, remedy=remedy))
    if some := health.get("rivals", {}).get("some"):
        made = ", ".join(sorted(name or identifier[:12] for identifier, name in some.items()))
        message = f"nothing is changed: another broker of this instance made {made}"
        remedy = "see 'trimtab doctor'"
        problems.append(Problem("state.forked", message, remedy=remedy))
    if not problems:
        return []
    from controller.core.review.flat_plan import problem_json  # a slow import, and rarely needed

    return [problem_json(problem) for problem in problems]


def matches(resource: dict[str, Any], name: str) -> bool:
    """Return True if ``NAME``, ``NAMESPACE/NAME`` or ``KIND/NAMESPACE/NAME`` names a resource."""
    key = (resource["kind"], resource["namespace"], resource["name"])
    parts = tuple(name.split("/"))
    return key[-len(parts) :] == parts if len(parts) <= len(key) else False


def resource_of(state: StateFolder, key: str) -> dict[str, Any]:
    """Return the resource with a key from the running controller's report; empty without one.

    Raises:
        EngineUnavailable: no controller answers.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    return next((dict(row) for row in status["resources"] if key_text(row) == key), {})


def key_of(state: StateFolder, name: str, *, kind: str = "Service") -> str:
    """Return the key of the service, or resource of a kind, NAME or NAMESPACE/NAME.

    Raises:
        EngineUnavailable: nothing runs, or the controller hasn't read everything yet.
        StateError: no service has the name, or several have it.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    return key_text(_named(status, name, kind))


def services_of(
    state: StateFolder, names: Iterable[str], namespace: str | None
) -> list[dict[str, Any]]:
    """Return the services NAME or NAMESPACE/NAME, or without names all of a namespace.

    Raises:
        EngineUnavailable: nothing runs.
        StateError: no service has a name, or several have it; the namespace has no service.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    every = status["resources"]
    rows = [r for r in every if namespace is None or r["namespace"] == namespace]
    if names := dict.fromkeys(names):
        chosen = {**status, "resources": rows}
        found = {key_text(row): row for name in names for row in [_named(chosen, name, "Service")]}
        return list(found.values())
    services = [row for row in rows if row["kind"] == "Service"]
    if not services:
        raise_if_unread(status)
        from difflib import get_close_matches  # a slow import

        there = sorted({row["namespace"] for row in every if row["kind"] == "Service"})
        near = get_close_matches(namespace or "", there, n=1)
        raise StateError(
            "namespace.unknown",
            f"there is no service in the namespace {namespace}",
            remedy=f"{f'did you mean {near[0]}? ' if near else ''}'trimtab status' lists all",
        )
    return services


def key_text(resource: dict[str, Any]) -> str:
    """Return the key of a resource: ``KIND/NAMESPACE/NAME``."""
    return f"{resource['kind']}/{resource['namespace']}/{resource['name']}"


def _named(status: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    """Return the only resource of a kind with a name.

    Raises:
        StateError: none has the name, or several have it.
    """
    others = [r for r in status["resources"] if r["kind"] == kind]
    found: list[dict[str, Any]] = [r for r in others if matches(r, name)]
    if len(found) > 1:
        raise StateError(
            AMBIGUOUS[kind],
            f"{name} means {', '.join(map(key_text, found))}",
            remedy="write NAMESPACE/NAME",
        )
    if not found:
        raise_if_unread(status)
        raise StateError(
            UNKNOWN[kind],
            f"there is no {kind.lower()} {name}",
            remedy=f"{suggestion(name, others)}'trimtab status' lists all",
        )
    return found[0]
