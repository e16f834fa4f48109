"""When a job's run is due, and how the job stands: pure functions of the broker's memory and the time.

A job works on one occasion at a time. An operator's request comes first, then the trigger's own
occasion. An occasion begins with a run, and a failed run is followed by another one after a growing
pause, until a run succeeds or ``backoffLimit`` is exceeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from controller.core.jobs.memory import MANUAL, ON_CHANGE, ROLLOUT, SCHEDULE
from controller.core.manifests.jobs.schedule import ScheduleState, schedule_state, zone_of
from controller.model.desired.desired import Service
from controller.model.desired.spec.job import (
    FROM_SERVICE,
    ConcurrencyPolicy,
    Interrupted,
    JobSpec,
    Trigger,
)
from controller.model.names import Key
from controller.model.observed import JobMemory, JobOccasion, JobRun
from controller.model.quantities import format_duration_ms, format_instant

#: The pause after the first failed run of an occasion, in seconds; it doubles up to the maximum.
FIRST_PAUSE_S: Final = 10.0
LAST_PAUSE_S: Final = 360.0
#: A record this much later than now, in seconds, is of a clock that was set back since.
CLOCK_SLACK_S: Final = 2.0
#: An instant with a run this far ahead, in seconds, is of a clock that was wrong.
AHEAD_MAX_S: Final = 86_400.0
#: Runs of a job at a time, with ``concurrencyPolicy: Allow``.
GOING_MAX: Final = 10


class JobWord(StrEnum):
    """How a job stands."""

    #: No occasion for a run has come yet.
    IDLE = "Idle"
    #: A run is to be made now.
    DUE = "Due"
    RUNNING = "Running"
    #: A failed run is followed by another one later.
    WAITING = "Waiting"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


@dataclass(frozen=True, slots=True)
class RolloutRun:
    """A run that the rollout of a service asks for."""

    #: The job as it runs for the service.
    job: Service
    #: The name of the service.
    service: str
    occasion: str
    #: Failed runs of an earlier try, which don't count.
    excused: int = 0


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
    """How a job stands, and the run to make now."""

    word: JobWord
    #: In words for people, for example ``run 3 exited with 1``.
    message: str = ""
    run: NewRun | None = None
    #: When time alone changes the decision, in seconds since the epoch; None: never.
    until: float | None = None
    #: The runs to stop: beyond their deadline, or replaced by the next run. By number.
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


def decide(
    spec: JobSpec,
    revision: str,
    memory: JobMemory,
    now: JobTime,
    asked: Iterable[RolloutRun] = (),
) -> JobDecision:
    """Return how a job stands at *now*. Rollouts of services have *asked* for runs."""
    going = memory.open_runs
    if spec.schedule is not None:
        return _by_schedule(spec, spec.schedule, revision, memory, now)
    if going:
        return _running(spec, going, now)
    occasion = _occasion(spec, revision, memory)
    if occasion is not None:
        decision = _attempt(spec, memory, memory.occasion(revision, occasion), occasion, now)
    elif spec.trigger is Trigger.ROLLOUT:
        decision = _by_rollouts(spec, memory, now, asked)
    else:
        decision = JobDecision(
            JobWord.IDLE, f"trigger is {spec.trigger.value}: no run was asked for"
        )
    return _unless_suspended(spec, decision)


def _unless_suspended(spec: JobSpec, decision: JobDecision) -> JobDecision:
    if spec.suspend and decision.word in (JobWord.DUE, JobWord.WAITING):
        return JobDecision(JobWord.SUSPENDED, "spec.suspend is true: no run begins")
    return decision


# Rollouts


def attempt(spec: JobSpec, memory: JobMemory, run: RolloutRun, now: JobTime) -> JobDecision:
    """Return how a job stands for the rollout of one service."""
    known = memory.occasion(run.job.revision, run.occasion)
    decision = _attempt(spec, memory, known, run.occasion, now, excused=run.excused)
    if decision.run is None:
        return decision
    return replace(decision, run=replace(decision.run, job=run.job))


def _by_rollouts(
    spec: JobSpec, memory: JobMemory, now: JobTime, asked: Iterable[RolloutRun]
) -> JobDecision:
    """Return how a job of rollouts stands: a run that is due comes before a pause of another one."""
    decisions = [attempt(spec, memory, run, now) for run in asked]
    for word in (JobWord.DUE, JobWord.WAITING):
        for decision in decisions:
            if decision.word is word:
                return decision
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None:
        return JobDecision(JobWord.IDLE, "trigger is Rollout: no rollout has asked for a run")
    how = f"run {latest.last} {latest.why}, for {_rollout_of(latest.name)}"
    succeeded = latest.outcome == "succeeded"
    return JobDecision(JobWord.COMPLETE if succeeded else JobWord.FAILED, how)


def _rollout_of(occasion: str) -> str:
    """Return the service of an occasion, in words."""
    service = occasion.removeprefix(ROLLOUT).partition("@")[0]
    return "a request" if service == occasion else f"the rollout of {service}"


# Schedules


def _by_schedule(
    spec: JobSpec, schedule: str, revision: str, memory: JobMemory, now: JobTime
) -> JobDecision:
    since_s = now.wall_s if now.since_s is None else now.since_s
    last_s = last_instant(memory, now.wall_s)
    asked = schedule_state(
        schedule,
        zone_of(spec.time_zone),
        last_s=since_s if last_s is None else last_s,
        now_s=now.wall_s,
        deadline_s=spec.starting_deadline / 1000,
    )
    going = memory.open_runs
    due = asked.due_s is not None and not spec.suspend
    decision = _running(spec, going, now) if going else None
    if due and asked.due_s is not None and not memory.requests:
        decision = _due_run(spec, memory, asked.due_s, decision)
    if decision is None:
        decision = _since_last(spec, revision, memory, now)
    return _with_next(spec, decision, asked)


def _due_run(
    spec: JobSpec, memory: JobMemory, due_s: float, running: JobDecision | None
) -> JobDecision:
    """Return the decision for a due instant; *running* is the decision while runs go on."""
    instant = format_instant(due_s)
    run = NewRun(memory.last + 1, f"{SCHEDULE}{instant}", f"scheduled for {instant}")
    if running is None:
        return JobDecision(JobWord.DUE, run.cause, run=run)
    match spec.concurrency_policy:
        case ConcurrencyPolicy.ALLOW if len(memory.open_runs) < GOING_MAX:
            return replace(running, run=run)
        case ConcurrencyPolicy.REPLACE:
            going = tuple(each.number for each in memory.open_runs)
            message = f"{running.message}; replaced by the run for {instant}"
            return replace(running, message=message, overdue=going)
        case _:
            return replace(running, message=f"{running.message}; the run for {instant} waits")


def _since_last(spec: JobSpec, revision: str, memory: JobMemory, now: JobTime) -> JobDecision:
    """Return how a scheduled job stands between two instants."""
    if memory.requests:
        occasion = f"{MANUAL}{memory.requests[0]}"
        attempt = _attempt(spec, memory, memory.occasion(revision, occasion), occasion, now)
        return _unless_suspended(spec, attempt)
    last = memory.occasions[-1] if memory.occasions else None
    if last is None or last.name == ON_CHANGE or last.name.startswith(ROLLOUT):
        return JobDecision(JobWord.SUSPENDED if spec.suspend else JobWord.IDLE)
    if last.revision != revision and _goes_on(spec, last):
        # The gate would take a run of another revision for another run of the same instant.
        return JobDecision(JobWord.IDLE, f"run {last.last} {last.why}")
    return _unless_suspended(spec, _attempt(spec, memory, last, last.name, now))


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


# Looks


def next_look_s(
    spec: JobSpec,
    revision: str,
    memory: JobMemory,
    now: JobTime,
    *,
    containers: frozenset[str] = frozenset(),
    asked: Iterable[RolloutRun] = (),
) -> float | None:
    """Return when time alone changes what a job needs, in seconds from now; None: never.

    *containers* are the ids of the job's containers, for the time at which ``ttl`` ends.
    """
    decision = decide(spec, revision, memory, now, asked)
    waits = [] if decision.until is None else [decision.until - now.wall_s]
    if spec.ttl is not None:
        ends = (seconds(r.ended) for r in memory.runs if r.ended and r.container in containers)
        waits += [end + spec.ttl / 1000 - now.steady_s for end in ends]
    return max(0.0, min(waits)) if waits else None


def _last_request(revision: str, memory: JobMemory) -> JobOccasion | None:
    """Return the last occasion, if an operator asked for it and the revision is the same."""
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None or latest.revision != revision or not latest.name.startswith(MANUAL):
        return None
    return latest


def _occasion(spec: JobSpec, revision: str, memory: JobMemory) -> str | None:
    """Return the occasion to work on; None if none has come."""
    if spec.image == FROM_SERVICE:
        return None  # without a service, there is no image
    if memory.requests:
        return f"{MANUAL}{memory.requests[0]}"
    asked = _last_request(revision, memory)
    if asked is not None and _goes_on(spec, asked):
        return asked.name
    match spec.trigger:
        case Trigger.ON_CHANGE:
            # After a run by request, the job stands as that run ended.
            ran = asked is not None and memory.occasion(revision, ON_CHANGE) is not None
            return asked.name if asked is not None and ran else ON_CHANGE
        case Trigger.MANUAL:
            return None if asked is None else asked.name
        case Trigger.ROLLOUT:
            return None
        case _:
            assert_never(spec.trigger)


def _goes_on(spec: JobSpec, occasion: JobOccasion) -> bool:
    return occasion.outcome != "succeeded" and not _is_spent(spec, occasion)


def _running(spec: JobSpec, going: tuple[JobRun, ...], now: JobTime) -> JobDecision:
    limit_s = spec.active_deadline / 1000
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


def _is_spent(spec: JobSpec, occasion: JobOccasion, excused: int = 0) -> bool:
    """Return True if no further run follows a failed one; the first *excused* failures don't count."""
    failed = occasion.failed - excused
    if failed > 0 and spec.interrupted is Interrupted.FAIL and occasion.outcome == "cut":
        return True
    return failed > spec.backoff_limit


def _attempt(
    spec: JobSpec,
    memory: JobMemory,
    known: JobOccasion | None,
    occasion: str,
    now: JobTime,
    *,
    excused: int = 0,
) -> JobDecision:
    number = memory.last + 1
    if known is None:
        run = NewRun(number, occasion, _cause(occasion))
        return JobDecision(JobWord.DUE, run.cause, run=run)
    how = f"run {known.last} {known.why}"
    if known.outcome == "succeeded":
        return JobDecision(JobWord.COMPLETE, how)
    failed = max(0, known.failed - excused)
    if _is_spent(spec, known, excused):
        if known.outcome == "cut" and spec.interrupted is Interrupted.FAIL:
            return JobDecision(JobWord.FAILED, f"{how}, and spec.interrupted is Fail")
        times = "1 run" if failed == 1 else f"{failed} runs"
        limit = f"spec.backoffLimit is {spec.backoff_limit}"
        return JobDecision(JobWord.FAILED, f"{how}; {times} failed, and {limit}")
    ended, pause_s = seconds(known.ended), pause_after(failed)
    # A clock that was set back must not delay the next run for hours.
    left_s = ended + pause_s - now.steady_s
    if left_s > 0 and ended <= now.steady_s + CLOCK_SLACK_S:
        until = now.wall_s + left_s
        return JobDecision(
            JobWord.WAITING, f"{how}, next run at {format_instant(until)}", until=until
        )
    run = NewRun(number, occasion, how)
    return JobDecision(JobWord.DUE, how, run=run)


def _cause(occasion: str) -> str:
    if occasion.startswith(MANUAL):
        return "an operator asked for a run"
    if occasion.startswith(ROLLOUT):
        return _rollout_of(occasion)
    return "this revision has not run yet"


def pause_after(failed: int) -> float:
    """Return the pause after so many failed runs, in seconds."""
    return min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (max(1, failed) - 1))


def seconds(instant: str) -> float:
    """Return the seconds since the epoch of a record's time."""
    return datetime.fromisoformat(instant).timestamp()
