"""How a job with a schedule stands: the instant that is due, and the occasions in progress."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from controller.core.jobs.memory import MANUAL, ON_CHANGE, ROLLOUT, SCHEDULE
from controller.core.jobs.progress import (
    JobDecision,
    JobTime,
    JobWord,
    decide_occasion,
    decide_running,
    goes_on,
    how_ended,
    is_between_runs,
    new_runs,
    seconds,
    unless_suspended,
)
from controller.core.manifests.jobs.schedule import ScheduleState, schedule_state, zone_of
from controller.model.desired.spec.job import ConcurrencyPolicy, JobSpec
from controller.model.observed import JobMemory, JobOccasion
from controller.model.quantities import format_duration_ms, format_instant

#: An instant with a run this far ahead, in seconds, is of a clock that was wrong.
AHEAD_MAX_S: Final = 86_400.0
#: Runs of a job at a time, and occasions in progress, with ``concurrencyPolicy: Allow``.
GOING_MAX: Final = 10


def by_schedule(
    spec: JobSpec, schedule: str, revision: str, memory: JobMemory, now: JobTime
) -> JobDecision:
    """Return how a job with a schedule stands."""
    since_s = now.wall_s if now.since_s is None else now.since_s
    last_s = last_instant(memory, now.wall_s)
    asked = schedule_state(
        schedule,
        zone_of(spec.time_zone),
        last_s=since_s if last_s is None else last_s,
        now_s=now.wall_s,
        deadline_s=spec.starting_deadline / 1000,
    )
    begun = _in_progress(spec, revision, memory, now)
    decision = _progress(spec, begun, memory, now)
    if asked.due_s is not None and not spec.suspend and not memory.requests:
        decision = _due_run(spec, memory, asked.due_s, decision, len(begun))
    if decision is None:
        decision = _since_last(spec, revision, memory, now)
    return _with_next(spec, unless_suspended(spec, decision), asked)


def _in_progress(
    spec: JobSpec, revision: str, memory: JobMemory, now: JobTime
) -> list[JobOccasion]:
    """Return the occasions with several completions in progress, the earliest first.

    Without ``Allow`` only the latest goes on by itself, and a failed run gives way to the next instant.
    """
    is_allowed = spec.concurrency_policy is ConcurrencyPolicy.ALLOW
    begun = []
    for occasion in memory.occasions:
        if occasion.completions == 1 or not occasion.name.startswith((SCHEDULE, MANUAL)):
            continue
        if occasion.revision != revision:
            continue  # the gate would take the run for another run of the same instant
        has_run = any(not run.ended for run in memory.runs_of(occasion))
        is_last = occasion is memory.occasions[-1]
        follows = is_last and is_between_runs(spec, memory, occasion, now)
        if has_run or follows or (is_allowed and goes_on(spec, memory, occasion, now)):
            begun.append(occasion)
    return begun


def _progress(
    spec: JobSpec, begun: list[JobOccasion], memory: JobMemory, now: JobTime
) -> JobDecision | None:
    """Return the decision about all runs and occasions in progress; None without any."""
    going = memory.open_runs
    parts = [decide_occasion(spec, memory, each, each.name, now) for each in begun]
    if not parts:
        return decide_running(spec, going, now) if going else None
    if len(parts) == 1 and len(going) == sum(not r.ended for r in memory.runs_of(begun[0])):
        return parts[0]
    whole = next((part for part in parts if part.word is JobWord.DUE), parts[0])
    if going:
        whole = decide_running(spec, going, now)
    runs = [run for part in parts for run in part.runs][: GOING_MAX - len(going)]
    times = [part.until for part in (whole, *parts) if part.until is not None]
    return replace(
        whole,
        runs=tuple(replace(run, number=memory.last + at) for at, run in enumerate(runs, 1)),
        until=min(times, default=None),
        overdue=tuple(sorted({n for part in (whole, *parts) for n in part.overdue})),
    )


def _due_run(
    spec: JobSpec, memory: JobMemory, due_s: float, running: JobDecision | None, begun: int
) -> JobDecision:
    """Return the decision for a due instant; *running* is the decision while occasions go on."""
    instant = format_instant(due_s)
    cause = f"scheduled for {instant}"
    count = min(spec.completions, spec.parallelism)
    runs = new_runs(memory, count, f"{SCHEDULE}{instant}", cause)
    going = memory.open_runs
    if running is None:
        return JobDecision(JobWord.DUE, cause, runs)
    match spec.concurrency_policy:
        case ConcurrencyPolicy.ALLOW if max(len(going), begun) < GOING_MAX:
            added = (*running.runs, *runs)[: GOING_MAX - len(going)]
            numbered = (replace(run, number=memory.last + at) for at, run in enumerate(added, 1))
            return replace(running, runs=tuple(numbered))
        case ConcurrencyPolicy.REPLACE if not going:
            return JobDecision(JobWord.DUE, cause, runs)
        case ConcurrencyPolicy.REPLACE:
            numbers = tuple(each.number for each in going)
            message = f"{running.message}; replaced by the run for {instant}"
            return replace(running, message=message, runs=(), overdue=numbers)
        case _:
            return replace(running, message=f"{running.message}; the run for {instant} waits")


def _since_last(spec: JobSpec, revision: str, memory: JobMemory, now: JobTime) -> JobDecision:
    """Return how a scheduled job stands between two instants."""
    if memory.requests:
        occasion = f"{MANUAL}{memory.requests[0]}"
        known = memory.occasion(revision, occasion)
        return decide_occasion(spec, memory, known, occasion, now)
    last = memory.occasions[-1] if memory.occasions else None
    if last is None or last.name == ON_CHANGE or last.name.startswith(ROLLOUT):
        return JobDecision(JobWord.SUSPENDED if spec.suspend else JobWord.IDLE)
    decision = decide_occasion(spec, memory, last, last.name, now)
    if last.revision != revision and goes_on(spec, memory, last, now):
        # The gate would take a run of another revision for another run of the same instant.
        return JobDecision(JobWord.IDLE, how_ended(spec, memory, last))
    return decision


def _with_next(spec: JobSpec, decision: JobDecision, asked: ScheduleState) -> JobDecision:
    """Return a decision with the next instant, and with a missed one."""
    texts = [decision.message] if decision.message else []
    if asked.missed_s is not None and asked.due_s is None:
        limit = format_duration_ms(spec.starting_deadline)
        instant = format_instant(asked.missed_s)
        texts.append(f"the run for {instant} was missed: startingDeadline is {limit}")
    following = None if spec.suspend else asked.next_s
    if spec.suspend and decision.word is not JobWord.SUSPENDED:
        texts.append("suspended")
    if following is not None:
        texts.append(f"next at {format_instant(following)}")
    times = [each for each in (decision.until, following) if each is not None]
    return replace(
        decision,
        message="; ".join(texts),
        until=min(times) if times else None,
        next_run=following,
    )


def last_instant(memory: JobMemory, now_s: float) -> float | None:
    """Return the last instant of the schedule that had a run; None if there was none.

    An instant more than a day ahead is of a clock that was wrong, and is ignored: otherwise no run
    would begin until the time is reached again.
    """
    instants = (
        seconds(occasion.name.removeprefix(SCHEDULE))
        for occasion in memory.occasions
        if occasion.name.startswith(SCHEDULE)
    )
    return max((each for each in instants if each <= now_s + AHEAD_MAX_S), default=None)
