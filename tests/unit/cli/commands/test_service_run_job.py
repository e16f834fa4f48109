"""``run-job``: the request is recorded, and its run is awaited by the status."""

from __future__ import annotations

from typing import Any

import pytest

from controller.cli.commands import service
from controller.settings import StateFolder
from tests.unit.cli.commands.test_service import Both, condition, run
from tests.unit.cli.commands.test_service import resource as service_resource
from tests.unit.cli.commands.test_service import state as state  # noqa: PLC0414 - a fixture

OCCASION = "manual:record-1"
DENIED = {"error": {"code": "control.denied", "message": "only root may ask for a pass"}}


def job(why: str = "") -> dict[str, Any]:
    """Return the job in the status: before its run, or after it."""
    found: dict[str, Any] = {**service_resource(condition("Ready")), "kind": "Job"}
    if why:
        found["runs"] = [{"run": 1, "occasion": OCCASION, "why": why, "ended": "later"}]
        found["occasions"] = [{"occasion": OCCASION, "complete": why == "succeeded"}]
    return found


def test_a_job_that_only_a_rollout_can_run_is_refused_at_once(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    both = Both(state, DENIED, {**job(), "image": "{fromService: true}"})
    try:
        assert run(state, "run-job", "web") == 64
    finally:
        both.close()
    assert both.said == []
    assert "[job.from-service]" in capsys.readouterr().err


def test_an_operator_whom_the_controller_does_not_obey_waits_for_the_run(
    state: StateFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_AGAIN_S", 0.001)
    both = Both(state, DENIED, job(), job(), job("succeeded"))
    try:
        assert run(state, "run-job", "web", "--note", "why") == 0
    finally:
        both.close()
    assert capsys.readouterr().out == "Job/default/web: run 1 succeeded\n"
    record, look = both.said
    assert record == ("broker", {"act": "job.run", "object": "Job/default/web", "note": "why"})
    assert (look[0], look[1]["do"], look[1]["key"]) == ("controller", "pass", "Job/default/web")
