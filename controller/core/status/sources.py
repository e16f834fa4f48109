"""The Git sources in a status report: what each serves, and what it waits for.

Pure. The fetcher's report is shown and never an input of a decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from controller.core.status.details import Report
from controller.model.desired.desired import Declared, Desired, GitSource, SourceScope
from controller.model.errors import Problem, Severity
from controller.model.sources import CommitInfo, SourceState, SourceStatus

HELD, FAILING, UNREPORTED = "SourceHeld", "SourceFailing", "SourceUnreported"
SHORT_COMMIT = 12
#: The state of a source whose served files have errors.
DEGRADED = "Degraded"
#: The states that need attention, with the code of the problem.
_CODES = {SourceState.HELD: HELD, SourceState.FAILING: FAILING}


def source_rows(desired: Desired) -> list[Report]:
    """Return a row for each Git source, declared or remembered, by name."""
    declared = {source.key.name: source for source in desired.sources}
    rows = [
        _row(scope, declared.get(scope.name), desired) for scope in desired.scopes if scope.name
    ]
    return sorted(rows, key=lambda row: str(row["name"]))


def source_problems(desired: Desired) -> Iterator[Problem]:
    """Yield a problem for each source that is held, that can't be fetched, or whose forge has no
    commit statuses.
    """
    for source in desired.sources:
        status = source.report
        if status is not None and status.forge_reason:
            yield Problem(
                UNREPORTED,
                f"Source {source.key.name}: commit statuses aren't sent: {status.forge_message}",
                source.source.file,
                source.source.line,
                remedy=status.forge_remedy,
                severity=Severity.WARNING,
                key=source.key,
            )
        if status is None or status.state not in _CODES:
            continue
        name, newer = source.key.name, status.candidate
        if status.state is SourceState.FAILING:
            message = f"Source {name} can't be fetched: {status.message}"
        else:
            commit = f"commit {newer.commit[:SHORT_COMMIT]}" if newer else "a newer commit"
            message = f"Source {name}: {commit} isn't served: {status.message}"
        yield Problem(
            _CODES[status.state],
            message,
            source.source.file,
            source.source.line,
            remedy=status.remedy,
            severity=Severity.WARNING,
            key=source.key,
        )


def origins(desired: Desired) -> dict[str, Report]:
    """Return the place of each resource that a Git source declares, by key."""
    places = {one.key: one.source for one in desired.workloads}
    places |= {one.key: one.source for one in desired.networks}
    places |= {one.key: one.source for one in desired.volumes}
    places |= {one.key: one.source for one in desired.releases}
    return {
        str(key): {
            "name": place.origin,
            "file": place.file,
            "line": place.line,
            "commit": place.commit,
        }
        for key, place in places.items()
        if place.origin
    }


def _row(scope: SourceScope, source: GitSource | None, desired: Desired) -> Report:
    status = None if source is None else source.report
    mistakes = _mistakes(scope, desired)
    state = _state(scope, status)
    if state == SourceState.READY.value and mistakes:
        state = DEGRADED
    return {
        "name": scope.name,
        "state": state,
        "commit": scope.identity.commit,
        "namespaces": sorted(scope.namespaces or ()),
        "resources": len(scope.keys),
        "blind": scope.blind or bool(scope.blind_namespaces),
        "url": source.spec.git.url if source else "",
        "ref": str(source.spec.git.ref) if source else "",
        "path": source.spec.git.path if source else "",
        "reason": status.reason if status else "",
        "message": mistakes if state == DEGRADED else _message(scope, status),
        "remedy": status.remedy if status else "",
        "current": _commit(status.current) if status else None,
        "candidate": _commit(status.candidate) if status else None,
        "approvedBy": status.approved_by if status else "",
        "since": status.since if status else "",
        "lastFetch": status.last_fetch if status else "",
        "lastSuccess": status.last_success if status else "",
        "nextFetch": status.next_fetch if status else "",
        "failures": status.failures if status else 0,
        "feedback": _feedback(status),
    }


def _state(scope: SourceScope, status: SourceStatus | None) -> str:
    if scope.declared is Declared.REMOVED:
        return "Removed"
    if scope.declared is Declared.BROKEN:
        return "Broken"
    if status is not None:
        return status.state.value
    if scope.declared is Declared.SUSPENDED:
        return SourceState.SUSPENDED.value
    return "Unknown" if scope.identity.present else SourceState.PENDING.value


def _mistakes(scope: SourceScope, desired: Desired) -> str:
    """Return the first error in the files that a source serves, and the number of others; '' if none."""
    found = [
        problem
        for problem in desired.problems
        if problem.severity is Severity.ERROR and problem.file.startswith(f"{scope.name}:")
    ]
    if not found:
        return ""
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0].place}: {found[0].message}{more}; what can't be read is left as it is"


def _message(scope: SourceScope, status: SourceStatus | None) -> str:
    if scope.declared is Declared.REMOVED:
        return "its document was removed; its services are removed after 'trimtab approve'"
    if scope.declared is Declared.BROKEN:
        return "its document has errors; what it declared is left as it is"
    if status is None:
        return "the fetcher hasn't reported yet"
    return status.message


def _feedback(status: SourceStatus | None) -> Report | None:
    """Return why the forge has no commit statuses; None if it has them, or nobody asks for them."""
    if status is None or not status.forge_reason:
        return None
    return {
        "reason": status.forge_reason,
        "message": status.forge_message,
        "remedy": status.forge_remedy,
    }


def _commit(info: CommitInfo | None) -> Report | None:
    return None if info is None else asdict(info)
