"""How a run ended: the exit code decides, unless somebody stopped the run."""

from __future__ import annotations

import pytest

from controller.core.jobs.memory import end_of, job_outcome
from controller.model.observed import Ending


def ended(code: int, **state: object) -> dict[str, object]:
    return {"State": {"Status": "exited", "ExitCode": code, **state}}


def by(role: str, reason: str = "") -> Ending:
    return Ending("c1", "container.stop", role, 0, "2026-03-01T12:00:00.000Z", reason)


@pytest.mark.parametrize(
    ("inspect", "ending", "outcome"),
    [
        (ended(0), None, "succeeded"),
        (ended(3), None, "failed"),
        (ended(137), None, "cut"),
        (ended(143), None, "cut"),
        (ended(255), None, "cut"),
        (ended(137, OOMKilled=True), None, "failed"),
        # Many programs end with 0 on SIGTERM.
        (ended(0), by("controller"), "failed"),
        (ended(0), by("operator"), "cut"),
        (ended(137), by("broker", "effective.mounts: a mount more"), "failed"),
        ({"State": {"Status": "dead", "ExitCode": 0}}, None, "cut"),
        ({"State": {"Status": "created", "Error": "no such file"}}, None, "failed"),
    ],
)
def test_an_end_has_an_outcome(
    inspect: dict[str, object], ending: Ending | None, outcome: str
) -> None:
    end = end_of(inspect, ending)
    assert end is not None
    assert end.outcome == outcome
    assert end.why


@pytest.mark.parametrize("status", ["running", "created", "paused", "restarting"])
def test_a_run_that_goes_on_has_no_end(status: str) -> None:
    assert end_of({"State": {"Status": status, "ExitCode": 0}}, None) is None


def test_an_unknown_word_of_a_record_counts_as_cut() -> None:
    assert [job_outcome(text) for text in ("succeeded", "failed", "cut", "")] == [
        "succeeded",
        "failed",
        "cut",
        "cut",
    ]
