"""What an apply that didn't converge says."""

from __future__ import annotations

from typing import Any

from controller.cli.commands.apply import why_not_converged


def answer(*, stuck: bool, **unmet: str) -> dict[str, Any]:
    """The controller's answer; *unmet* has the condition that isn't met, by service."""
    left = [
        {"object": f"Service/default/{name}", "condition": condition}
        for name, condition in unmet.items()
    ]
    return {"converged": False, "stuck": stuck, "unmet": left}


def test_it_is_told_whether_a_person_must_act_or_time_was_up() -> None:
    assert why_not_converged(answer(stuck=True, web="RolledBack", api="Ready"), 300.0) == (
        "not converged, and nothing more happens by itself: Service/default/web (RolledBack), "
        "Service/default/api (act on what the status says, then run 'trimtab apply' again)"
    )
    assert why_not_converged(answer(stuck=False, web="Ready"), 90.0) == (
        "not converged within 90s: Service/default/web (run it again, or with a longer --timeout)"
    )
    assert why_not_converged(answer(stuck=True), 90.0) == (
        "not converged, and nothing more happens by itself "
        "(act on what the status says, then run 'trimtab apply' again)"
    )
