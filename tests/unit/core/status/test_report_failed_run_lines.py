"""What a report says of failed runs to those who may read their output."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.drift.failures import run_json
from controller.core.status.report import RIGHTS_REMEDY, with_last_lines
from controller.model.container_output import FailedRun
from tests.unit.core.drift.test_failures_failed_runs import line, run_of

CAUSE = "slot 1 failed 5 times in 10 min: exited with 1"


def report(*conditions: tuple[str, str, str], revision: str = "v2:b") -> dict[str, Any]:
    return {
        "resources": [
            {
                "kind": "Service",
                "namespace": "default",
                "name": "web",
                "revision": revision,
                "conditions": [
                    {"type": name, "status": "True", "reason": reason, "message": message}
                    for name, reason, message in conditions
                ],
                "slots": [{"slot": 1}, {"slot": 2}],
            }
        ],
        "problems": [],
    }


def explained(given: dict[str, Any], *runs: FailedRun) -> dict[str, Any]:
    resources = with_last_lines(given, runs)["resources"]
    assert isinstance(resources, list)
    found: dict[str, Any] = resources[0]
    return found


def messages(given: dict[str, Any], *runs: FailedRun) -> list[str]:
    return [each["message"] for each in explained(given, *runs)["conditions"]]


FATAL = run_of(lines=(line("starting"), line("FATAL: \x1b[31mpassword\x1b[0m missing\x07")))
HINT = "(trimtab logs --previous web)"


def test_a_crash_loop_ends_with_the_last_line_escaped() -> None:
    assert messages(report(("CrashLoop", "KeepsFailing", CAUSE)), FATAL) == [
        f'{CAUSE}: "FATAL: password missing\\u0007" {HINT}'
    ]


def test_a_rollback_ends_with_what_the_failed_check_said_escaped() -> None:
    said = "rolled back: web.1-a is unhealthy: its check exited with 22"
    run = run_of(revision="v2:a", check="curl: (22) \x1b[31merror: 500\n", lines=(line("Booting"),))
    assert messages(report(("RolledBack", "Automatic", said)), run) == [
        f'{said}: "curl: (22) error: 500" {HINT}'
    ]


def test_a_run_that_printed_nothing_still_leads_to_what_is_kept() -> None:
    assert messages(report(("CrashLoop", "KeepsFailing", CAUSE)), run_of()) == [f"{CAUSE} {HINT}"]


@pytest.mark.parametrize(
    "said", ["chown: /data: Operation not permitted", "sh: can't open /data/x: Permission denied"]
)
def test_a_program_that_lacks_a_right_leads_to_the_fields_that_grant_it(said: str) -> None:
    run = run_of(lines=(line(said), line("bye")))
    remedy = f"{RIGHTS_REMEDY}; trimtab logs --previous web"
    assert messages(report(("CrashLoop", "KeepsFailing", CAUSE)), run) == [
        f'{CAUSE}: "bye" ({remedy})'
    ]


def test_after_a_rollback_the_line_is_of_the_revision_that_failed() -> None:
    good = run_of(lines=(line("of the old one"),), revision="v2:a", slot=2)
    given = report(("RolledBack", "Automatic", "rolled back"), revision="v2:a")
    assert messages(given, FATAL, good) == [f'rolled back: "FATAL: password missing\\u0007" {HINT}']


@pytest.mark.parametrize(
    "condition",
    [
        ("Stalled", "port.taken", "the port is taken"),
        ("Degraded", "TooFew", "1 of 2 running"),
        ("Suspended", "Suspended", "suspended"),
    ],
)
def test_a_condition_that_no_failed_run_explains_stays_as_it_is(
    condition: tuple[str, str, str],
) -> None:
    assert messages(report(condition), FATAL) == [condition[2]]


def test_only_the_gravest_condition_has_the_line() -> None:
    given = report(
        ("Stalled", "rollout.failed", "it failed (resume it)"), ("CrashLoop", "KeepsFailing", CAUSE)
    )
    assert messages(given, FATAL)[0] == "it failed (resume it)"
    assert messages(given, FATAL)[1].startswith(f"{CAUSE}: ")


def test_a_slot_has_its_last_failed_run() -> None:
    slots = explained(report(), run_of(1), FATAL)["slots"]
    assert slots == [{"slot": 1, "lastFailure": run_json(FATAL)}, {"slot": 2}]


def test_a_report_is_never_changed_itself() -> None:
    given = report(("CrashLoop", "KeepsFailing", CAUSE))
    with_last_lines(given, [FATAL])
    assert given == report(("CrashLoop", "KeepsFailing", CAUSE))
