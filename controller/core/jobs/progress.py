"""How far a job is with one occasion, and which runs follow: pure functions of memory and time.

An occasion begins with a run. A failed run is followed by another one after a growing pause, until
``backoffLimit`` is exceeded. With several completions an occasion goes on until so many runs have
succeeded, with at most ``parallelism`` runs at a time. The numbers with which an occasion began count
to its end; a lower ``parallelism`` counts at once.

Invariant: never more runs go on than successes are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from controller.core.jobs.memory import MANUAL, ROLLOUT
from controller.core.jobs.run_end import STOPPED_BY_CONTROLLER
from controller.model.desired.desired import Service
from controller.model.desired.spec.job import Interrupted, JobSpec
from controller.model.names import Key
from controller.model.observed import JobMemory, JobOccasion, JobRun
from controller.model.quantities import format_duration_ms, format_instant

#: The pause after the first failed run of an occasion, in seconds; it doubles up to the maximum.
FIRST_PAUSE_S: Final = 10.0
LAST_PAUSE_S: Final = 360.0
#: A record this much later than now, in seconds, is of a clock that was set back since.
CLOCK_SLACK_S: Final = 2.0


class JobWord(StrEnum):
    """How a job stands."""

    #: No occasion for a run has come yet.
    IDLE = "Idle"
    #: A run is to be made now, and none goes on.
    DUE = "Due"
    RUNNING = "Running"
    #: A failed run is followed by another one later.
    WAITING = "Waiting"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    #: No run is made before an operator asks for one.
    HELD = "Held"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to make now."""

    number: int
    occasion: str
    cause: str
    #: The job as it runs for a service; None: as declared.
    job: Service | None = None


@dataclass(frozen=True, slots=True)
class JobDecision:
    """How a job stands, and the runs to make now."""

    word: JobWord
    #: In words for people, for example ``run 3 exited with 1``.
    message: str = ""
    #: In the order of their numbers, which follow the job's last one.
    runs: tuple[NewRun, ...] = ()
    #: When time alone changes the decision, in seconds since the epoch; None: never.
    until: float | None = None
    #: The runs to stop: beyond their deadline, of an occasion that has failed, or replaced by the next
    #: run. By number.
    overdue: tuple[int, ...] = ()
    #: The next instant of the schedule, in seconds since the epoch.
    next_run: float | None = None


@dataclass(frozen=True, slots=True)
class JobTime:
    """The time of a decision, in seconds since the epoch."""

    #: The wall clock.
    wall_s: float = 0.0
    #: A clock without jumps while the controller runs, for pauses and deadlines.
    steady_s: float = 0.0
    #: Since when the job is known, on the wall clock. Earlier instants of its schedule never ran.
    since_s: float | None = None
    #: The same of all jobs.
    first_seen: Mapping[Key, float] = field(default_factory=dict, hash=False)

    def of(self, key: Key) -> JobTime:
        """Return the time for one job."""
        return replace(self, since_s=self.first_seen.get(key), first_seen={})


NO_TIME = JobTime()


def decide_occasion(
    spec: JobSpec,
    memory: JobMemory,
    known: JobOccasion | None,
    occasion: str,
    now: JobTime,
    *,
    excused: int = 0,
) -> JobDecision:
    """Return how an occasion stands, and the runs that follow now. The first *excused* failures don't count.

    *known* is the memory of the occasion; None before its first run.
    """
    if known is None:
        cause = _first_cause(occasion)
        count = min(spec.completions, spec.parallelism)
        return JobDecision(JobWord.DUE, cause, new_runs(memory, count, occasion, cause))
    if known.outcome == "held":
        return JobDecision(JobWord.HELD, known.why)
    if known.is_complete:
        how = how_ended(spec, memory, known) if known.completions == 1 else known.progress
        return JobDecision(JobWord.COMPLETE, how)
    going = tuple(run for run in memory.runs_of(known) if not run.ended)
    if failure := _failure(spec, memory, known, now, excused):
        if going:
            numbers = tuple(run.number for run in going)
            return JobDecision(JobWord.RUNNING, f"{failure}; the others stop", overdue=numbers)
        return JobDecision(JobWord.FAILED, failure)
    return _go_on(spec, memory, known, now, max(0, known.failed - excused))


def _go_on(
    spec: JobSpec, memory: JobMemory, known: JobOccasion, now: JobTime, failed: int
) -> JobDecision:
    """Return the decision on an occasion that has not ended, after *failed* failures."""
    going = tuple(run for run in memory.runs_of(known) if not run.ended)
    running = None
    if going:
        running = decide_running(spec, going, now, _ends(spec, memory, known, going, failed))
        running = replace(running, message=_with_progress(known, running.message))
    missing = known.completions - known.succeeded
    room = min(known.parallelism, spec.parallelism, missing) - len(going)
    if running is not None and room <= 0:
        return running
    how = how_ended(spec, memory, known)
    pause_end = _pause_end(known, now, failed)
    if pause_end is not None:
        if running is not None:
            return replace(running, until=min(pause_end, running.until or pause_end))
        message = _with_progress(known, f"{how}, next run at {format_instant(pause_end)}")
        return JobDecision(JobWord.WAITING, message, until=pause_end)
    cause = _with_progress(known, "" if known.outcome in ("", "succeeded") else how)
    runs = new_runs(memory, room, known.name, cause)
    return JobDecision(JobWord.DUE, cause, runs) if running is None else replace(running, runs=runs)


def _pause_end(known: JobOccasion, now: JobTime, failed: int) -> float | None:
    """Return when the pause after a failed run ends, on the wall clock; None without a pause.

    A success ends the pause of an earlier failure.
    """
    if known.outcome not in ("failed", "cut"):
        return None
    ended = seconds(known.ended)
    # A clock that was set back must not delay the next run for hours.
    left_s = ended + pause_after(failed) - now.steady_s
    is_over = left_s <= 0 or ended > now.steady_s + CLOCK_SLACK_S
    return None if is_over else now.wall_s + left_s


def goes_on(
    spec: JobSpec, memory: JobMemory, occasion: JobOccasion, now: JobTime, excused: int = 0
) -> bool:
    """Return True if a further run follows in an occasion, now or later."""
    return not occasion.is_complete and not _failure(spec, memory, occasion, now, excused)


def is_between_runs(spec: JobSpec, memory: JobMemory, occasion: JobOccasion, now: JobTime) -> bool:
    """Return True if several runs must succeed, and the next run needs no pause after a failure."""
    undisturbed = occasion.completions > 1 and occasion.outcome not in ("failed", "cut")
    return undisturbed and goes_on(spec, memory, occasion, now)


def _failure(
    spec: JobSpec, memory: JobMemory, known: JobOccasion, now: JobTime, excused: int
) -> str:
    """Return why no further run follows in an occasion, in words; '' if one can follow."""
    failed = max(0, known.failed - excused)
    how = how_ended(spec, memory, known)
    if failed and spec.interrupted is Interrupted.FAIL and _was_cut(memory, known, failed):
        return _with_progress(known, f"{how}, and spec.interrupted is Fail")
    if failed > spec.backoff_limit:
        times = "1 run" if failed == 1 else f"{failed} runs"
        limit = f"spec.backoffLimit is {spec.backoff_limit}"
        prefix = f"{how}; " if known.outcome else ""
        return _with_progress(known, f"{prefix}{times} failed, and {limit}")
    if known.completions > 1:
        end = _deadline(spec, memory, known, failed)
        if end is not None and end <= now.steady_s:
            limit = f"activeDeadline {format_duration_ms(spec.active_deadline)}"
            return _with_progress(known, f"beyond {limit}")
    return ""


def _was_cut(memory: JobMemory, known: JobOccasion, failed: int) -> bool:
    if known.completions == 1:
        return known.outcome == "cut"
    return any(run.outcome == "cut" for run in _runs_since(memory, known, failed))


def _runs_since(memory: JobMemory, known: JobOccasion, failed: int) -> list[JobRun]:
    """Return the runs of an occasion that belong to its last *failed* failures, the latest first.

    Earlier failures are of an earlier try of a rollout.
    """
    runs: list[JobRun] = []
    for run in reversed(memory.runs_of(known)):
        failed -= run.outcome in ("failed", "cut")
        if failed < 0:
            break
        runs.append(run)
    return runs


def _deadline(spec: JobSpec, memory: JobMemory, known: JobOccasion, failed: int) -> float | None:
    """Return when an occasion with several completions is out of time.

    None if no run is remembered that goes on or was started.
    """
    runs = [run for run in _runs_since(memory, known, failed) if run.outcome != "unstarted"]
    return seconds(runs[-1].created) + spec.active_deadline / 1000 if runs else None


def _ends(
    spec: JobSpec, memory: JobMemory, known: JobOccasion, going: tuple[JobRun, ...], failed: int
) -> dict[int, float] | None:
    """Return when each run is out of time, if the occasion has one end for all; None otherwise."""
    end = _deadline(spec, memory, known, failed) if known.completions > 1 else None
    return None if end is None else {run.number: end for run in going}


def decide_running(
    spec: JobSpec,
    going: tuple[JobRun, ...],
    now: JobTime,
    ends: Mapping[int, float] | None = None,
) -> JobDecision:
    """Return how a job stands while runs go on; *ends* are their deadlines, by number."""
    limit_s = spec.active_deadline / 1000
    if ends is None:
        ends = {run.number: seconds(run.started) + limit_s for run in going if run.started}
    overdue = tuple(number for number, end in ends.items() if end <= now.steady_s)
    numbers = " and ".join(str(run.number) for run in going)
    word = "run" if len(going) == 1 else "runs"
    later = [end for end in ends.values() if end > now.steady_s]
    until = now.wall_s + min(later) - now.steady_s if later else None
    message = f"{word} {numbers} in progress"
    if overdue:
        message += f", beyond activeDeadline {format_duration_ms(spec.active_deadline)}"
    return JobDecision(JobWord.RUNNING, message, until=until, overdue=overdue)


def unless_suspended(spec: JobSpec, decision: JobDecision) -> JobDecision:
    """Return a decision without new runs if the job is suspended."""
    if not spec.suspend:
        return decision
    if decision.word in (JobWord.DUE, JobWord.WAITING):
        return JobDecision(JobWord.SUSPENDED, "spec.suspend is true: no run begins")
    return replace(decision, runs=())


def new_runs(memory: JobMemory, count: int, occasion: str, cause: str) -> tuple[NewRun, ...]:
    """Return the next runs of a job."""
    return tuple(NewRun(memory.last + at, occasion, cause) for at in range(1, count + 1))


def how_ended(spec: JobSpec, memory: JobMemory, known: JobOccasion) -> str:
    """Return how the run of an occasion that ended last ended, such as ``run 3 exited with 1``."""
    number = known.last
    if known.completions == 1:
        last = (run for run in memory.runs_of(known) if run.number == number)
        late = any(_is_stopped_late(spec, run) for run in last)
        limit = f", beyond activeDeadline {format_duration_ms(spec.active_deadline)}"
        return f"run {number} {known.why}{limit if late else ''}"
    # The end of an unstarted run doesn't take the place of another run's end (``memory.end``).
    passed_over = "" if known.outcome == "unstarted" else "unstarted"
    ended = [run for run in memory.runs_of(known) if run.ended and run.outcome != passed_over]
    number = max(ended, key=lambda run: (run.ended, run.number)).number if ended else number
    return f"run {number} {known.why}"


def _is_stopped_late(spec: JobSpec, run: JobRun) -> bool:
    """Return True if trimtab stopped a run for its deadline: it stops no other run that goes on."""
    if not run.started or not run.ended or not run.why.startswith(STOPPED_BY_CONTROLLER):
        return False
    return seconds(run.ended) - seconds(run.started) >= spec.active_deadline / 1000


def _with_progress(known: JobOccasion, text: str) -> str:
    """Return a text about an occasion, with the number of its successes if there are several."""
    if known.completions == 1:
        return text
    return f"{known.progress}; {text}" if text else known.progress


def _first_cause(occasion: str) -> str:
    if occasion.startswith(MANUAL):
        return "an operator asked for a run"
    if occasion.startswith(ROLLOUT):
        return rollout_of(occasion)
    return "this revision has not run yet"


def rollout_of(occasion: str) -> str:
    """Return the service of an occasion, in words."""
    service = occasion.removeprefix(ROLLOUT).partition("@")[0]
    return "a request" if service == occasion else f"the rollout of {service}"


def pause_after(failed: int) -> float:
    """Return the pause after so many failed runs, in seconds."""
    return min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (max(1, failed) - 1))


def seconds(instant: str) -> float:
    """Return the seconds since the epoch of a record's time."""
    return datetime.fromisoformat(instant).timestamp()
