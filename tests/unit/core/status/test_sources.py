"""The Git sources in the status: what runs, what waits, and why."""

from dataclasses import replace

from controller.core.status.sources import origins, source_problems, source_rows
from controller.model.desired.desired import (
    Declared,
    Desired,
    GitSource,
    SourceIdentity,
    SourceLocation,
    SourceScope,
)
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.sources import CommitInfo, SourceState, SourceStatus
from tests import worlds

OLD, NEW = "a" * 40, "b" * 40
SPEC = SourceSpec.model_validate(
    {"git": {"url": "https://example.org/x.git"}, "namespaces": ("shop",)}
)
KEY = Key("Source", "default", "team")
STATUS = SourceStatus(
    "team",
    SourceState.HELD,
    "https://example.org/x.git",
    "branch main",
    reason="signature.missing",
    message="the commit isn't signed",
    remedy="sign it, or approve it",
    current=CommitInfo(OLD, "ann"),
    candidate=CommitInfo(NEW, "bob"),
    next_fetch="2026-01-01T00:01:00Z",
)


def world(
    status: SourceStatus | None,
    *,
    present: bool = True,
    declared: Declared = Declared.ACTIVE,
) -> Desired:
    source = GitSource(KEY, "team", SPEC, SourceLocation("team.yaml", 3), status)
    identity = SourceIdentity("team", present, 7, 2, commit=OLD if present else "")
    scopes = (
        SourceScope("", SourceIdentity("dir", True, 7, 1)),
        SourceScope("team", identity, namespaces=frozenset({"shop"}), declared=declared),
    )
    return Desired(sources=(source,), scopes=scopes)


def test_a_held_source_shows_the_commit_that_runs_and_the_one_that_waits():
    (row,) = source_rows(world(STATUS))
    assert (row["name"], row["state"], row["commit"]) == ("team", "Held", OLD)
    assert row["candidate"] == {
        **dict.fromkeys(("authored", "committed", "subject"), ""),
        "commit": NEW,
        "author": "bob",
        "signature": None,
    }
    assert (row["nextFetch"], row["ref"]) == ("2026-01-01T00:01:00Z", "branch main")


def test_held_and_failing_sources_are_problems_at_their_documents():
    failing = replace(STATUS, state=SourceState.FAILING, message="host unreachable")
    told = [
        (p.code, p.file, p.line, p.severity.value, p.message)
        for status in (STATUS, failing, replace(STATUS, state=SourceState.READY), None)
        for p in source_problems(world(status))
    ]
    assert told == [
        (
            *("SourceHeld", "team.yaml", 3, "warning"),
            "Source team: commit bbbbbbbbbbbb isn't served: the commit isn't signed",
        ),
        (
            *("SourceFailing", "team.yaml", 3, "warning"),
            "Source team can't be fetched: host unreachable",
        ),
    ]


def test_without_a_report_the_state_is_that_of_the_files():
    states_of = (
        world(None),
        world(None, present=False),
        world(None, declared=Declared.SUSPENDED),
        world(None, declared=Declared.REMOVED),
        world(None, declared=Declared.BROKEN),
    )
    states = [row["state"] for each in states_of for row in source_rows(each)]
    assert states == ["Unknown", "Pending", "Suspended", "Removed", "Broken"]


def test_a_resource_of_a_source_shows_its_place():
    place = SourceLocation("team:web.yaml", 4, OLD, origin="team")
    desired = worlds.declared(replace(worlds.service("web"), source=place), worlds.network("own"))
    assert origins(desired) == {
        "Service/default/web": {"name": "team", "file": "team:web.yaml", "line": 4, "commit": OLD}
    }


def test_a_forge_without_commit_statuses_is_a_problem_beside_the_state() -> None:
    status = replace(
        STATUS,
        forge_reason="forge.denied",
        forge_message="GitHub refuses the token (401)",
        forge_remedy="renew it",
    )
    found = [
        (p.code, p.severity.value, p.message, p.remedy) for p in source_problems(world(status))
    ]
    assert found[0] == (
        *("SourceUnreported", "warning"),
        "Source team: commit statuses aren't sent: GitHub refuses the token (401)",
        "renew it",
    )
    assert [code for code, *_ in found] == ["SourceUnreported", "SourceHeld"]
    (row,) = source_rows(world(status))
    assert row["feedback"] == {
        "reason": "forge.denied",
        "message": "GitHub refuses the token (401)",
        "remedy": "renew it",
    }
    assert source_rows(world(STATUS))[0]["feedback"] is None


def test_a_source_whose_files_have_errors_is_degraded_with_the_place() -> None:
    ready = replace(STATUS, state=SourceState.READY)
    mistakes = tuple(
        Problem("yaml.syntax", f"mistake {line}", "team:shop/compose.yaml", line) for line in (3, 9)
    )
    elsewhere = (Problem("yaml.syntax", "mistake", "own.yaml", 1),)
    states = [
        (row["state"], row["message"])
        for status in (ready, STATUS)
        for problems in (mistakes, elsewhere)
        for row in source_rows(replace(world(status), problems=problems))
    ]
    place = "team:shop/compose.yaml:3: mistake 3; 1 more; what can't be read is left as it is"
    assert states == [
        ("Degraded", place),
        ("Ready", STATUS.message),
        # What waits outside is the first thing to act on.
        ("Held", STATUS.message),
        ("Held", STATUS.message),
    ]
