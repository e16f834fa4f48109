"""When a job's runs are due, which follow, and how the job stands: pure functions of memory and time.

When a job's runs are due, and how the job stands: pure functions of the broker's memory and the time.

A job without a schedule works on one occasion at a time. An occasion in which several runs must succeed
isn't left between two runs. Otherwise an operator's request comes first, then the trigger's own
occasion.

How a job with a schedule stands: the instant that is due, and the occasions in progress.

How far a job is with one occasion, and which runs follow: pure functions of memory and time.

An occasion begins with a run. A failed run is followed by another one after a growing pause, until
``backoffLimit`` is exceeded. With several completions an occasion goes on until so many runs have
succeeded, with at most ``parallelism`` runs at a time. The numbers with which an occasion began count
to its end; a lower ``parallelism`` counts at once.

Invariant: never more runs go on than successes are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from controller.core.jobs.memory import MANUAL, ON_CHANGE, ROLLOUT, SCHEDULE, STOPPED_BY_CONTROLLER
from controller.core.manifests.cron_schedule import ScheduleState, schedule_state, zone_of
from controller.model.desired.desired import Service
from controller.model.desired.spec.service import (
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


def decide(
    spec: JobSpec,
    revision: str,
    memory: JobMemory,
    now: JobTime,
    asked: Iterable[RolloutRun] = (),
) -> JobDecision:
    """Return how a job stands at *now*. Rollouts of services have *asked* for runs."""
    if spec.schedule is not None:
        return by_schedule(spec, spec.schedule, revision, memory, now)
    occasion = _occasion(spec, revision, memory, now)
    if occasion is not None:
        known = memory.occasion(revision, occasion)
        decision = decide_occasion(spec, memory, known, occasion, now)
    elif spec.trigger is Trigger.ROLLOUT:
        decision = _by_rollouts(spec, memory, now, asked)
    else:
        decision = JobDecision(
            JobWord.IDLE, f"trigger is {spec.trigger.value}: no run was asked for"
        )
    going = memory.open_runs
    if going and decision.word is not JobWord.RUNNING:
        return decide_running(spec, going, now)  # of another occasion, which ends first
    return unless_suspended(spec, decision)


# Rollouts


def attempt(spec: JobSpec, memory: JobMemory, run: RolloutRun, now: JobTime) -> JobDecision:
    """Return how a job stands for the rollout of one service."""
    known = memory.occasion(run.job.revision, run.occasion)
    decision = decide_occasion(spec, memory, known, run.occasion, now, excused=run.excused)
    return replace(decision, runs=tuple(replace(new, job=run.job) for new in decision.runs))


def _by_rollouts(
    spec: JobSpec, memory: JobMemory, now: JobTime, asked: Iterable[RolloutRun]
) -> JobDecision:
    """Return how a job of rollouts stands: a run that is due comes before a pause of another one."""
    decisions = [attempt(spec, memory, run, now) for run in asked]
    for word in (JobWord.RUNNING, JobWord.DUE, JobWord.WAITING):
        for decision in decisions:
            if decision.word is word:
                return decision
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None:
        return JobDecision(JobWord.IDLE, "trigger is Rollout: no rollout has asked for a run")
    how = f"{how_ended(spec, memory, latest)}, for {rollout_of(latest.name)}"
    return JobDecision(JobWord.COMPLETE if latest.is_complete else JobWord.FAILED, how)


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


def _occasion(spec: JobSpec, revision: str, memory: JobMemory, now: JobTime) -> str | None:
    """Return the occasion to work on; None if none has come."""
    if spec.image == FROM_SERVICE:
        return None  # without a service, there is no image
    if (begun := _begun(spec, revision, memory, now)) is not None:
        return begun
    if memory.requests:
        return f"{MANUAL}{memory.requests[0]}"
    asked = _last_request(revision, memory)
    if asked is not None and goes_on(spec, memory, asked, now):
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


def _begun(spec: JobSpec, revision: str, memory: JobMemory, now: JobTime) -> str | None:
    """Return the occasion that a request must not interrupt: some of its runs have succeeded or go on."""
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None or latest.revision != revision:
        return None
    by_trigger = latest.name == ON_CHANGE and spec.trigger is Trigger.ON_CHANGE
    if not by_trigger and not latest.name.startswith(MANUAL):
        return None
    return latest.name if is_between_runs(spec, memory, latest, now) else None
