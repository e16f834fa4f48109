"""The Git sources in a status report, their holds, and the outcome of each commit.

The Git sources in a status report: what each serves, and what it waits for.

Pure. The fetcher's report is shown and never an input of a decision.

The holds of Git sources that the journal has no record of yet. Pure.

A hold is one commit with one reason. A hold that goes on over outages, suspensions and restarts is the
same hold; after the source was Ready, the same commit is held anew.

The outcome of each commit of a Git source, one a namespace, for the forge.

Pure. A text has names, conditions and codes, and never a message: a forge can be public. A success
never becomes pending again, as while a lost container is replaced; it can become a failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from controller.core.status.facts import Report
from controller.core.status.standing import Word, standing_of
from controller.model.desired.desired import Declared, Desired, GitSource, SourceScope
from controller.model.errors import Problem, Severity
from controller.model.names import Key, short_commit
from controller.model.sources import (
    CommitInfo,
    CommitOutcome,
    OutcomeState,
    SourceHold,
    SourceState,
    SourceStatus,
)

HELD, FAILING, UNREPORTED = "SourceHeld", "SourceFailing", "SourceUnreported"
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
            commit = f"commit {short_commit(newer.commit)}" if newer else "a newer commit"
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
    places |= {one.key: one.source for one in desired.notifications}
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


VERSION = 1
HOLDS_MAX = 64
MESSAGE_MAX = 400
#: The commit and the reason of the last recorded hold, by source.
Holds = Mapping[str, tuple[str, str]]


def new_holds(desired: Desired, recorded: Holds) -> Iterator[SourceHold]:
    """Yield the holds without a record."""
    for source in desired.sources:
        status = source.report
        if status is None or status.state is not SourceState.HELD or status.candidate is None:
            continue
        commit, reason = status.candidate.commit, status.reason
        if recorded.get(source.key.name) != (commit, reason):
            yield SourceHold(
                source.key,
                commit,
                reason,
                status.message[:MESSAGE_MAX],
                source.source.file,
                source.source.line,
            )


def without_ended(desired: Desired, recorded: Holds) -> dict[str, tuple[str, str]]:
    """Return the holds of sources that aren't Ready: other holds have ended."""
    ready = {
        source.key.name
        for source in desired.sources
        if source.report is not None and source.report.state is SourceState.READY
    }
    return {name: hold for name, hold in recorded.items() if name not in ready}


def render_holds(recorded: Holds) -> bytes:
    """Return the file of the recorded holds; of too many, the latest."""
    latest = dict(list(recorded.items())[-HOLDS_MAX:])
    return f"{json.dumps({'version': VERSION, 'holds': latest}, indent=1)}\n".encode()


def parse_holds(data: bytes) -> dict[str, tuple[str, str]]:
    """Return the recorded holds of a file.

    Raises:
        ValueError: the file is damaged, or of another version.
    """
    try:
        body = json.loads(data)
        if body["version"] != VERSION:
            raise ValueError(f"the file isn't of version {VERSION}")
        return {str(name): (str(c), str(r)) for name, (c, r) in body["holds"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the file has another form: {error}") from error


#: Earlier commits of a source whose outcomes are kept, for a forge that was away.
KEPT_COMMITS = 4
#: The same for outcomes without which the forge goes on to show "pending".
KEPT_UNSETTLED = 20
_UNSETTLED = {OutcomeState.PENDING, OutcomeState.SUPERSEDED}
_SHORT = 12


def commit_outcomes(
    desired: Desired, report: Report, before: Iterable[CommitOutcome]
) -> tuple[CommitOutcome, ...]:
    """Return the outcomes of the sources that ask for statuses: the newest commit of each source, then
    the second of each, and so on. A file without space for all has the newest.

    *report* is the status report of *desired*; *before* are the outcomes of the previous call.
    """
    known = tuple(before)
    resources = report["resources"]
    assert isinstance(resources, list), "a report has a list of resources"
    rows = {Key(row["kind"], row["namespace"], row["name"]): row for row in resources}
    scopes = {scope.name: scope for scope in desired.scopes}
    found: list[tuple[int, CommitOutcome]] = []
    for source in sorted(desired.sources, key=lambda each: each.key.name):
        if source.spec.git.status is not None and source.key.name in scopes:
            mine = [each for each in known if each.source == source.key.name]
            outcomes = _of_source(source, scopes[source.key.name], desired, rows, mine)
            commits = [*dict.fromkeys(each.commit for each in outcomes)]
            found += [(commits.index(each.commit), each) for each in outcomes]
    return tuple(each for _, each in sorted(found, key=lambda ranked: ranked[0]))


def _of_source(
    source: GitSource,
    scope: SourceScope,
    desired: Desired,
    rows: Mapping[Key, dict[str, Any]],
    before: list[CommitOutcome],
) -> list[CommitOutcome]:
    commit = scope.identity.commit
    new = [*_held(source, commit)]
    if commit:
        known = {each.namespace: each for each in before if each.commit == commit}
        is_back = commit != _served(before)
        for namespace in sorted(source.spec.namespaces):
            state, text = _state_of(source.key.name, scope, desired, rows, namespace)
            outcome = CommitOutcome(source.key.name, commit, namespace, state, text)
            earlier = known.get(namespace)
            if earlier is not None and state is OutcomeState.PENDING and not is_back:
                is_settled = earlier.state is OutcomeState.SUCCESS
                outcome = earlier if is_settled else outcome
            new.append(outcome)
        new += _of_lost_namespaces(source, known)
    commits = {each.commit for each in new}
    earlier_commits = dict.fromkeys(each.commit for each in before if each.commit not in commits)
    age = {earlier: number for number, earlier in enumerate(earlier_commits)}
    old = [
        each
        for each in before
        if each.commit in age
        and age[each.commit] < (KEPT_UNSETTLED if each.state in _UNSETTLED else KEPT_COMMITS)
    ]
    return [*new, *(_superseded(each, commit) if commit else each for each in old)]


def _served(before: list[CommitOutcome]) -> str:
    """Return the commit that was served at the previous call; '' for none."""
    return next((each.commit for each in before if each.state is not OutcomeState.HELD), "")


def _of_lost_namespaces(
    source: GitSource, known: Mapping[str, CommitOutcome]
) -> Iterator[CommitOutcome]:
    """Yield the outcomes of the served commit that would stay pending, as nothing reports them."""
    for namespace, outcome in known.items():
        if namespace not in source.spec.namespaces and outcome.state in _UNSETTLED:
            text = "the source has this namespace no more"
            yield CommitOutcome(*outcome.place, OutcomeState.SUPERSEDED, text)


def _held(source: GitSource, served: str) -> Iterator[CommitOutcome]:
    """Yield the outcome of a newer commit that isn't served.

    The served commit itself is held if ``spec.git.path`` moves to a folder that can't be served.
    """
    status = source.report
    if status is None or status.state is not SourceState.HELD or status.candidate is None:
        return
    if status.candidate.commit == served:
        return
    for namespace in sorted(source.spec.namespaces):
        yield CommitOutcome(
            source.key.name,
            status.candidate.commit,
            namespace,
            OutcomeState.HELD,
            f"not served: {status.reason}",
        )


def _superseded(outcome: CommitOutcome, newer: str) -> CommitOutcome:
    """Return the outcome of an earlier commit, which doesn't stay pending."""
    if outcome.state is not OutcomeState.PENDING:
        return outcome
    text = f"commit {newer[:_SHORT]} came before the end of the rollout"
    return CommitOutcome(*outcome.place, OutcomeState.SUPERSEDED, text)


def _state_of(
    name: str,
    scope: SourceScope,
    desired: Desired,
    rows: Mapping[Key, dict[str, Any]],
    namespace: str,
) -> tuple[OutcomeState, str]:
    for problem in desired.problems:
        if _is_about(problem, name, scope, namespace):
            place = problem.place.partition(":")[2]
            return OutcomeState.ERROR, f"{place}: {problem.code}"
    if scope.blind or namespace in scope.blind_namespaces:
        return OutcomeState.ERROR, "the documents can't be read"
    keys = sorted(key for key in scope.keys if key.namespace == namespace)
    mine = [rows[key] for key in keys if key in rows]
    leftover = _leftover(desired, rows, namespace)
    failed = [
        f"{row['name']}: {standing.condition} ({standing.reason})"
        for row in (*mine, *leftover)
        if (standing := standing_of(row)).word is Word.FAILED
    ]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return OutcomeState.FAILURE, f"{failed[0]}{more}"
    services = [row for row in mine if row["kind"] == "Service"]
    shown = services or mine
    count = sum(map(_is_done, shown))
    word = "service" if services else "resource"
    if all(map(_is_done, mine)):
        plural = "" if count == 1 else "s"
        text = f"{count} {word}{plural} Ready" if mine else "declares nothing in this namespace"
        if not leftover:
            return OutcomeState.SUCCESS, text
        return OutcomeState.PENDING, f"{leftover[0]['name']} isn't removed yet"
    return OutcomeState.PENDING, f"{count} of {len(shown)} {word}s Ready"


def _leftover(
    desired: Desired, rows: Mapping[Key, dict[str, Any]], namespace: str
) -> list[dict[str, Any]]:
    """Return the resources of a namespace that nothing declares any more, and that are to go."""
    kept = frozenset().union(
        desired.blind_keys, desired.suspended, *(s.keys for s in desired.scopes)
    )
    return [
        row for key, row in sorted(rows.items()) if key.namespace == namespace and key not in kept
    ]


def _is_about(problem: Problem, name: str, scope: SourceScope, namespace: str) -> bool:
    """Return True if an error in the files of a source concerns a namespace.

    An error without a resource, or about one of a foreign namespace, concerns all of them; of a Compose
    project that can't be read, its own.
    """
    if problem.severity is not Severity.ERROR or not problem.file.startswith(f"{name}:"):
        return False
    key = problem.key
    if key is None and scope.blind_namespaces and not scope.blind:
        return namespace in scope.blind_namespaces
    if key is None or key.kind == "Source":
        return True
    return key.namespace == namespace or key.namespace not in (scope.namespaces or ())


def _is_done(row: Mapping[str, Any]) -> bool:
    """Return True if a resource is as declared, and nothing is under way."""
    return standing_of(row).word is Word.AS_DECLARED
