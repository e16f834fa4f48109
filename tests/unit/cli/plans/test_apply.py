"""What an apply that didn't converge says."""

from __future__ import annotations

from typing import Any

from controller.cli.plans.apply import why_not_converged


def answer(*, stuck: bool, **ready: str) -> dict[str, Any]:
    """The controller's answer; *ready* has the status of the condition Ready, by service."""
    resources = [
        {
            "kind": "Service",
            "namespace": "default",
            "name": name,
            "conditions": [{"type": "Ready", "status": status}],
        }
        for name, status in ready.items()
    ]
    return {"converged": False, "stuck": stuck, "status": {"resources": resources}}


def test_it_is_told_whether_a_person_must_act_or_time_was_up() -> None:
    assert why_not_converged(answer(stuck=True, web="False", db="True", api="Unknown"), 300.0) == (
        "not converged, and nothing more happens by itself: Service/default/web, "
        "Service/default/api (act on what the status says, then run 'trimtab apply' again)"
    )
    assert why_not_converged(answer(stuck=False, web="False"), 90.0) == (
        "not converged within 90s: Service/default/web (run it again, or with a longer --timeout)"
    )
    assert why_not_converged(answer(stuck=True), 90.0) == (
        "not converged, and nothing more happens by itself "
        "(act on what the status says, then run 'trimtab apply' again)"
    )
