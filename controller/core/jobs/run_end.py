"""How a run ended, from the engine's inspect of its container.

The exit code decides. A run that somebody stopped has not succeeded, whatever its exit code: many
programs end with 0 on SIGTERM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.jobs.memory import Outcome
from controller.model.observed import Ending

_WHY_MAX: Final = 256
#: Exit codes of a run that SIGKILL or SIGTERM ended, or that the engine lost.
CUT_CODES: Final = frozenset({137, 143, 255})
#: The engine's states of a container without a process that had one.
_ENDED: Final = frozenset({"exited", "dead"})
#: How a run ended that trimtab stopped, beyond its deadline or for another run.
STOPPED_BY_CONTROLLER: Final = "was stopped by trimtab"


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run."""

    outcome: Outcome
    why: str


#: The end of a run whose container was removed before anybody saw the run's end.
REMOVED_RUN: Final = RunEnd("cut", "was removed from outside before its end was recorded")
#: The end of a run whose container the broker removed at its start, because nobody had started it.
UNSTARTED_RUN: Final = RunEnd(
    "unstarted", "was never started, and the broker removed its container"
)


def end_of(inspect: Mapping[str, Any], ending: Ending | None) -> RunEnd | None:
    """Return how a run ended; None while the run goes on, or has not begun.

    *ending* is the mutation through the broker that ended the run, if one did.
    """
    state = inspect.get("State") or {}
    status, error = state.get("Status"), str(state.get("Error") or "")
    if status == "created" and error:
        return RunEnd("failed", f"failed to start: {error}"[:_WHY_MAX])
    if status not in _ENDED:
        return None
    code = state.get("ExitCode")
    code = code if isinstance(code, int) else -1
    if state.get("OOMKilled"):
        return RunEnd("failed", "was out of memory")
    if ending is not None:
        if ending.reason:
            return RunEnd("failed", f"was ended by the broker: {ending.reason}"[:_WHY_MAX])
        if ending.role == "controller":
            return RunEnd("failed", f"{STOPPED_BY_CONTROLLER}, and exited with {code}")
        return RunEnd("cut", f"was stopped by {ending.role}, and exited with {code}")
    if code == 0 and status == "exited":
        return RunEnd("succeeded", "exited with 0")
    if code in CUT_CODES or status == "dead":
        return RunEnd("cut", f"was cut from outside, and exited with {code}")
    return RunEnd("failed", f"exited with {code}")


def job_outcome(text: str) -> Outcome:
    """Return the outcome in a record; an unknown word counts as ``cut``."""
    match text:
        case "succeeded" | "failed" | "unstarted":
            return text
        case _:
            return "cut"
