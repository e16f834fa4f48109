"""The outcome of a commit in each namespace, from the status of what it declares."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.core.status.sources import KEPT_COMMITS, KEPT_UNSETTLED, commit_outcomes
from controller.model.desired.desired import (
    Desired,
    GitSource,
    OverrideReason,
    SourceIdentity,
    SourceLocation,
    SourceScope,
)
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import Key, service_key
from controller.model.sources import (
    CommitInfo,
    CommitOutcome,
    OutcomeState,
    SourceState,
    SourceStatus,
)

OLD, NEW, NEWEST = "a" * 40, "b" * 40, "c" * 40
STATUS = {"forge": "github", "credentials": "shop"}
WEB, API = service_key("shop", "web"), service_key("shop", "api")
SUSPENDED = OverrideReason(API, "suspended", "by root", "operator.suspended", "trimtab resume")
READY = {"Ready": "AsDeclared"}
#: Of a service whose newest document isn't acted on yet.
BEHIND = {**READY, "Behind": ""}


def world(
    *keys: Key,
    commit: str = OLD,
    problems: tuple[Problem, ...] = (),
    blind: bool = False,
    unread: tuple[str, ...] = (),
    report: SourceStatus | None = None,
    status: dict[str, str] | None = STATUS,
    namespaces: tuple[str, ...] = ("shop", "db"),
    **more: Any,
) -> Desired:
    git = {"url": "https://example.org/a/b.git", "status": status}
    spec = SourceSpec.model_validate_json(json.dumps({"git": git, "namespaces": namespaces}))
    source = GitSource(Key("Source", "default", "team"), "o", spec, SourceLocation("s", 1), report)
    identity = SourceIdentity("team", present=bool(commit), commit=commit)
    scope = SourceScope("team", identity, blind, frozenset(namespaces), frozenset(keys))
    scope = replace(scope, blind_namespaces=frozenset(unread))
    return Desired(sources=(source,), scopes=(scope,), problems=problems, **more)


def report(**rows: dict[str, str]) -> dict[str, object]:
    """Return a status report: the true conditions of services of the namespace ``shop``."""
    resources = [
        {
            "kind": "Service",
            "namespace": "shop",
            "name": name,
            "generation": 2,
            "observedGeneration": 1 if "Behind" in conditions else 2,
            "conditions": [
                {"type": kind, "status": "True", "reason": reason, "message": "secret"}
                for kind, reason in conditions.items()
            ],
        }
        for name, conditions in rows.items()
    ]
    return {"resources": resources}


def told(outcomes: tuple[CommitOutcome, ...], namespace: str = "shop") -> list[str]:
    return [
        f"{each.commit[:1]} {each.state}: {each.text}"
        for each in outcomes
        if each.namespace == namespace
    ]


def outcomes(desired: Desired, before: Any = (), **rows: dict[str, str]) -> list[str]:
    return told(commit_outcomes(desired, report(**rows), before))


def test_a_commit_is_pending_until_all_is_as_declared() -> None:
    desired = world(WEB, API)
    assert outcomes(desired, web=READY, api={}) == ["a pending: 1 of 2 services Ready"]
    acting = {**READY, "Progressing": "Acting"}
    assert outcomes(desired, web=READY, api=acting) == ["a pending: 1 of 2 services Ready"]
    assert outcomes(desired, web=READY, api=BEHIND) == ["a pending: 1 of 2 services Ready"]
    assert outcomes(desired, web=READY, api=READY) == ["a success: 2 services Ready"]


@pytest.mark.parametrize(
    ("api", "more", "expected"),
    [
        ({"PrunePending": "prune.share"}, {}, "a failure: api: PrunePending (prune.share)"),
        ({"Progressing": "Acting"}, {}, "a pending: api isn't removed yet"),
        # What nobody removes: an operator holds it, or an unread document possibly declares it.
        ({}, {"blind_keys": frozenset({API})}, "a success: 1 service Ready"),
        ({}, {"holds": (SUSPENDED,)}, "a success: 1 service Ready"),
        ({}, {"elsewhere": True}, "a success: 1 service Ready"),
    ],
)
def test_a_commit_is_no_success_before_what_it_removes_is_away(
    api: dict[str, str], more: dict[str, Any], expected: str
) -> None:
    elsewhere = more.pop("elsewhere", False)
    desired = world(WEB, **more)
    if elsewhere:
        directory = SourceScope("", SourceIdentity("", present=True), keys=frozenset({API}))
        desired = replace(desired, scopes=(directory, *desired.scopes))
    assert outcomes(desired, web=READY, api=api) == [expected]


def test_each_namespace_has_an_outcome() -> None:
    found = commit_outcomes(world(WEB), report(web=READY), ())
    assert told(found, "db") == ["a success: declares nothing in this namespace"]
    assert len(found) == 2


def test_a_resource_that_cannot_be_brought_there_is_a_failure_without_its_message() -> None:
    rolled_back = {**READY, "RolledBack": "Automatic"}
    assert outcomes(world(WEB, API), web=rolled_back, api=READY) == [
        "a failure: web: RolledBack (Automatic)"
    ]
    stalled = {"Stalled": "image.registry"}
    assert outcomes(world(WEB, API), web=stalled, api={"CrashLoop": "KeepsFailing"}) == [
        "a failure: api: CrashLoop (KeepsFailing), and 1 more"
    ]


def test_documents_that_cannot_be_read_are_an_error() -> None:
    broken = Problem("field.unknown", "secret", "team:web.yaml", 12, key=WEB)
    assert outcomes(world(API, problems=(broken,)), api=READY) == [
        "a error: web.yaml:12: field.unknown"
    ]
    found = commit_outcomes(world(API, problems=(broken,)), report(api=READY), ())
    assert told(found, "db") == ["a success: declares nothing in this namespace"]
    nowhere = replace(broken, key=None)
    foreign = replace(broken, key=service_key("other", "web"))
    for problem in (nowhere, foreign):
        found = commit_outcomes(world(API, problems=(problem,)), report(api=READY), ())
        assert [each.state for each in found] == [OutcomeState.ERROR] * 2
    for other in (
        replace(broken, severity=Severity.WARNING),
        replace(broken, file="web.yaml"),
        replace(broken, file="teams:web.yaml"),
    ):
        assert outcomes(world(API, problems=(other,)), api=READY) == ["a success: 1 service Ready"]
    assert outcomes(world(blind=True)) == ["a error: the documents can't be read"]


def test_a_success_stays_while_a_container_is_replaced() -> None:
    desired = world(WEB)
    before = commit_outcomes(desired, report(web=READY), ())
    assert outcomes(desired, before, web={}) == ["a success: 1 service Ready"]
    failed = commit_outcomes(desired, report(web={"CrashLoop": "KeepsFailing"}), before)
    assert told(failed) == ["a failure: web: CrashLoop (KeepsFailing)"]
    assert outcomes(desired, failed, web={}) == ["a pending: 0 of 1 services Ready"]


def test_an_earlier_commit_does_not_stay_pending() -> None:
    before = commit_outcomes(world(WEB), report(web={}), ())
    found = commit_outcomes(world(WEB, commit=NEW), report(web=READY), before)
    assert told(found) == [
        "b success: 1 service Ready",
        "a superseded: commit bbbbbbbbbbbb came before the end of the rollout",
    ]
    later = commit_outcomes(world(WEB, commit=NEWEST), report(web={}), found)
    assert told(later) == [
        "c pending: 0 of 1 services Ready",
        "b success: 1 service Ready",
        "a superseded: commit bbbbbbbbbbbb came before the end of the rollout",
    ]


def test_earlier_commits_are_few() -> None:
    before: tuple[CommitOutcome, ...] = ()
    for number in range(20):
        before = commit_outcomes(world(WEB, commit=f"{number:040x}"), report(web=READY), before)
    numbers = [int(each.commit, 16) for each in before if each.namespace == "shop"]
    assert numbers == [19, 18, 17, 16, 15][: KEPT_COMMITS + 1]


def test_a_held_commit_is_told_and_later_served() -> None:
    before = commit_outcomes(world(WEB, report=held(NEW)), report(web=READY), ())
    assert told(before) == ["b held: not served: source.unsigned", "a success: 1 service Ready"]
    assert told(before, "db")[0] == "b held: not served: source.unsigned"
    served = commit_outcomes(world(WEB, commit=NEW), report(web={}), before)
    assert told(served) == ["b pending: 0 of 1 services Ready", "a success: 1 service Ready"]


def held(commit: str) -> SourceStatus:
    return SourceStatus(
        *("team", SourceState.HELD, "https://example.org/a/b.git", "branch main"),
        reason="source.unsigned",
        message="secret",
        candidate=CommitInfo(commit),
    )


def test_the_served_commit_is_not_called_held_after_a_move_of_its_folder() -> None:
    assert outcomes(world(WEB, report=held(OLD)), web=READY) == ["a success: 1 service Ready"]


def test_a_commit_that_comes_back_is_pending_until_it_runs_again() -> None:
    first = commit_outcomes(world(WEB), report(web=READY), ())
    newer = commit_outcomes(world(WEB, commit=NEW, report=held(NEWEST)), report(web=READY), first)
    back = commit_outcomes(world(WEB), report(web={}), newer)
    assert told(back)[0] == "a pending: 0 of 1 services Ready"
    done = commit_outcomes(world(WEB), report(web=READY), back)
    assert outcomes(world(WEB, report=held(NEW)), done, web={})[1] == "a success: 1 service Ready"


def test_a_namespace_that_the_source_loses_does_not_stay_pending() -> None:
    desired, lost = world(WEB), world(WEB, namespaces=("db",))
    before = commit_outcomes(desired, report(web={}), ())
    for _ in range(2):
        before = commit_outcomes(lost, report(web={}), before)
        assert told(before) == ["a superseded: the source has this namespace no more"]
    assert outcomes(desired, before, web={}) == ["a pending: 0 of 1 services Ready"]
    ready = commit_outcomes(desired, report(web=READY), ())
    assert told(commit_outcomes(lost, report(web=READY), ready)) == []


def test_an_outcome_that_ends_a_pending_one_is_kept_for_longer() -> None:
    before: tuple[CommitOutcome, ...] = ()
    for number in range(30):
        before = commit_outcomes(world(WEB, commit=f"{number:040x}"), report(web={}), before)
    states = [each.state for each in before if each.namespace == "shop"]
    assert states == [OutcomeState.PENDING, *[OutcomeState.SUPERSEDED] * KEPT_UNSETTLED]


def test_the_newest_commits_of_all_sources_come_first() -> None:
    def both(commit: str) -> Desired:
        one = world(WEB, commit=commit)
        (source,), (scope,) = one.sources, one.scopes
        other = replace(source, key=Key("Source", "default", "zoo"))
        return replace(one, sources=(source, other), scopes=(scope, replace(scope, name="zoo")))

    before = commit_outcomes(both(OLD), report(web=READY), ())
    found = commit_outcomes(both(NEW), report(web=READY), before)
    places = [(each.commit[:1], each.source) for each in found if each.namespace == "shop"]
    assert places == [("b", "team"), ("b", "zoo"), ("a", "team"), ("a", "zoo")]
    assert commit_outcomes(both(NEW), report(web=READY), found) == found


def test_a_source_that_does_not_ask_has_no_outcomes() -> None:
    assert outcomes(world(WEB, status=None), web=READY) == []


def test_a_lost_folder_leaves_the_outcomes_as_they_were() -> None:
    before = commit_outcomes(world(WEB), report(web={}), ())
    assert commit_outcomes(world(WEB, commit=""), report(web={}), before) == before


def test_a_project_that_cannot_be_read_is_an_error_of_its_namespace_alone() -> None:
    problem = Problem("yaml.syntax", "mistake", "team:db/compose.yaml", 3)
    desired = world(WEB, problems=(problem,), unread=("db",))
    found = commit_outcomes(desired, report(web=READY), ())
    assert told(found) == ["a success: 1 service Ready"]
    assert told(found, "db") == ["a error: db/compose.yaml:3: yaml.syntax"]
