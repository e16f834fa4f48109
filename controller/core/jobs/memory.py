"""The memory of a job's runs, folded from the journal's records, and what the gate requires of the next run.

Invariant: no number is ever used by two runs of a job, and numbers only grow. The memory outlives
the containers, so a removed container makes no run due again.

How a run ended, from the engine's inspect of its container.

The exit code decides. A run that somebody stopped has not succeeded, whatever its exit code: many
programs end with 0 on SIGTERM.

The broker alone knows all runs. A run has the next number of the job. A successful occasion is not
repeated, and an occasion has one run at a time. With several completions, the first run declares the
numbers of successes and of runs at a time. A run by request needs a recorded request.
No engine restarts a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from controller.core.engine_api.requests import CreateRequest, Finding, Findings
from controller.core.rules.context import Case, RunFacts
from controller.model import names
from controller.model.inventory import JOBS_MAX
from controller.model.names import Key, completions_of
from controller.model.observed import Ending, JobMemory, JobOccasion, JobRun

#: Runs kept in the memory. A run that goes on is always kept.
RUNS_KEPT: Final = 10
#: The same of a job with several completions: enough for all runs of the longest occasion.
RUNS_KEPT_OF_MANY: Final = 100
#: Occasions kept. An OnChange job runs again if its document returns to a revision that 64 later
#: ones displaced.
OCCASIONS_KEPT: Final = 64
#: Of them, occasions of a schedule, which have no use once a later one exists.
SCHEDULED_KEPT: Final = 4
#: The same of a job with several completions: more than can be in progress.
SCHEDULED_KEPT_OF_MANY: Final = 12
REQUESTS_MAX: Final = 16

#: Occasions as the label says them.
ON_CHANGE: Final = "change"
MANUAL: Final = "manual:"
SCHEDULE: Final = "schedule:"
ROLLOUT: Final = "rollout:"

#: ``unstarted``: the broker removed the run's container before any start. Such a run is no failure.
Outcome = Literal["succeeded", "failed", "cut", "unstarted"]
Jobs = Mapping[Key, JobMemory]


def create(memory: JobMemory, run: JobRun, completions: str = "") -> JobMemory:
    """Return the memory with a new run; a known number changes nothing.

    *completions* is the label of the run. The label of an occasion's first run counts for the occasion.
    """
    if any(known.number == run.number for known in memory.runs):
        return memory
    before = memory.occasion(run.revision, run.occasion)
    if before is None:
        wanted, at_once = completions_of(completions) or (1, 1)
        before = JobOccasion(run.revision, run.occasion, completions=wanted, parallelism=at_once)
    occasion = replace(before, runs=before.runs + 1, last=run.number)
    if before.completions == 1:
        occasion = replace(occasion, outcome="", ended="", why="")
    occasions = _with_occasion(memory, occasion)
    return replace(
        memory,
        last=max(memory.last, run.number),
        runs=_kept_runs((*memory.runs, run), occasions),
        occasions=occasions,
        requests=tuple(r for r in memory.requests if f"{MANUAL}{r}" != run.occasion),
    )


def start(memory: JobMemory, container: str, time: str) -> JobMemory:
    """Return the memory after the start of a run."""
    runs = (replace(r, started=time) if r.container == container else r for r in memory.runs)
    return replace(memory, runs=tuple(runs))


def end(memory: JobMemory, container: str, *, time: str, outcome: Outcome, why: str) -> JobMemory:
    """Return the memory after the end of a run; the first end of a run counts."""
    run = next((r for r in memory.runs if r.container == container and not r.ended), None)
    if run is None:
        return memory
    ended = replace(run, ended=time, outcome=outcome, why=why)
    occasions = memory.occasions
    before = memory.occasion(run.revision, run.occasion)
    if before is not None:
        after = replace(
            before,
            failed=before.failed + (outcome in ("failed", "cut")),
            cut=before.cut + (outcome == "cut"),
            succeeded=before.succeeded + (outcome == "succeeded"),
        )
        # A run that never started says nothing about its program: an earlier end stays the last one.
        if outcome != "unstarted" or before.outcome in ("", "unstarted"):
            after = replace(after, outcome=outcome, ended=time, why=why)
        occasions = tuple(after if o is before else o for o in occasions)
    runs = tuple(ended if r is run else r for r in memory.runs)
    return replace(memory, runs=_kept_runs(runs, occasions), occasions=occasions)


def adopt(memory: JobMemory, revision: str, container: str, *, time: str, why: str) -> JobMemory:
    """Return the memory with a run that succeeded before its job was known, as that of the revision.

    A revision that ran, or runs, stays as it is.
    """
    if memory.occasion(revision, ON_CHANGE) is not None:
        return memory
    run = JobRun(memory.last + 1, revision, ON_CHANGE, container, time, started=time)
    return end(create(memory, run), container, time=time, outcome="succeeded", why=why)


def hold(memory: JobMemory, revision: str, *, time: str, why: str) -> JobMemory:
    """Return the memory with a revision that runs by an operator's request alone."""
    if memory.occasion(revision, ON_CHANGE) is not None:
        return memory
    held = JobOccasion(revision, ON_CHANGE, outcome="held", ended=time, why=why)
    return replace(memory, occasions=_with_occasion(memory, held))


def request(memory: JobMemory, identifier: str) -> JobMemory:
    """Return the memory with an operator's request for a run."""
    return replace(memory, requests=(*memory.requests, identifier)[-REQUESTS_MAX:])


def with_job(jobs: Jobs, key: Key, memory: JobMemory) -> Jobs:
    """Return the memories with one replaced, as the one that was used last.

    Beyond the limit the memory that was used least recently is forgotten, unless a run of the job
    goes on.
    """
    kept = dict(jobs)
    kept.pop(key, None)
    if (surplus := len(kept) + 1 - JOBS_MAX) > 0:
        idle = [other for other, each in kept.items() if not each.open_runs]
        for other in idle[:surplus]:
            del kept[other]
    kept[key] = memory
    return kept


def _kept_runs(runs: tuple[JobRun, ...], occasions: tuple[JobOccasion, ...]) -> tuple[JobRun, ...]:
    """Return the runs to remember, without the earliest ended runs.

    A run can end after many later runs. The first run of an occasion gives the begin of its deadline.
    """
    surplus = len(runs) - (RUNS_KEPT_OF_MANY if _has_many(occasions) else RUNS_KEPT)
    ended = sorted((run for run in runs if run.ended), key=lambda run: run.ended)
    dropped = {run.number for run in ended[: max(0, surplus)]}
    return tuple(r for r in runs if r.number not in dropped)


def _with_occasion(memory: JobMemory, changed: JobOccasion) -> tuple[JobOccasion, ...]:
    """Return the occasions to remember. An occasion with an open run is never forgotten."""
    key = (changed.revision, changed.name)
    others = [o for o in memory.occasions if (o.revision, o.name) != key]
    going = {(run.revision, run.occasion) for run in memory.open_runs}
    scheduled = [o for o in others if o.name.startswith(SCHEDULE)]
    kept = SCHEDULED_KEPT_OF_MANY if _has_many((*scheduled, changed)) else SCHEDULED_KEPT
    surplus = scheduled[: max(0, len(scheduled) - kept + 1)]
    dropped = [o for o in surplus if (o.revision, o.name) not in going]
    return (*(o for o in others if o not in dropped), changed)[-OCCASIONS_KEPT:]


def _has_many(occasions: Iterable[JobOccasion]) -> bool:
    return any(occasion.completions > 1 for occasion in occasions)


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


#: How far the controller's clock can be ahead of the broker's, in seconds.
AHEAD_S: Final = 60.0
#: No run is made before an operator asks for one: the job was adopted without a run that counts.
HELD: Final = "job.held"
_LABEL = f"Labels.{names.OCCASION}"
_COMPLETIONS = f"Labels.{names.COMPLETIONS}"
_OCCASION = re.compile(
    rf"{ON_CHANGE}|{MANUAL}[0-9a-f-]{{36}}"
    rf"|{SCHEDULE}[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z"
    rf"|{ROLLOUT}[a-z0-9-]{{1,27}}@[0-9a-f]{{64}}",
    re.ASCII,
)


def runs_once(case: Case) -> Findings:
    """A run of a job is made once, for an occasion, and nothing starts the run again."""
    if not case.by_controller:
        return
    number = names.run_of_slot(case.request.label(names.SLOT))
    if not number:
        for name in names.RUN_LABELS:
            if case.request.label(name):
                reason = "only a job's run has it"
                yield Finding("label.reserved", f"Labels.{name}", reason, "leave it out")
        return
    faults = [*judge_text(case.request, number)]
    yield from faults
    if not faults and case.facts is not None and case.facts.run is not None:
        yield from judge_facts(case.request, number, case.facts.run)


def is_occasion(text: str) -> bool:
    """Return True if a text is the occasion of a run."""
    if not _OCCASION.fullmatch(text):
        return False
    try:  # there is no 30 February
        instant = text.removeprefix(SCHEDULE)
        return instant == text or datetime.fromisoformat(instant).year > 0
    except ValueError:
        return False


def judge_text(request: CreateRequest, number: int) -> Iterator[Finding]:
    """Yield the faults of a run's create that its text shows."""
    occasion, job = request.label(names.OCCASION), request.label(names.SERVICE)
    if not is_occasion(occasion):
        reason = f"{occasion!r:.64} is no occasion of a run"
        yield Finding("job.occasion", _LABEL, reason, "name why the run is made, such as change")
    if names.completions_of(request.label(names.COMPLETIONS)) is None:
        reason = (
            f"expected COMPLETIONS/PARALLELISM, from 2/1 to {names.COMPLETIONS_MAX}/"
            f"{names.PARALLELISM_MAX}, or no label"
        )
        yield Finding("job.completions", _COMPLETIONS, reason, "correct the label")
    if not names.is_dns_label(job, length=names.JOB_NAME_MAX):
        reason = f"a job's name has at most {names.JOB_NAME_MAX} characters"
        yield Finding("job.name", f"Labels.{names.SERVICE}", reason, "choose a shorter name")
    if request.restart.name not in {"", "no"}:
        reason = f"run {number} of a job is started once, and never by the engine"
        yield Finding("job.restart", "HostConfig.RestartPolicy", reason, "leave it out")
    if any(end.aliases for end in request.endpoints):
        reason = "nobody connects to a run, so a run has no alias"
        yield Finding("job.alias", "NetworkingConfig", reason, "leave the aliases out")


def judge_facts(request: CreateRequest, number: int, facts: RunFacts) -> Iterator[Finding]:
    """Yield the faults of a run's create by the broker's memory of the job."""
    memory, job = facts.memory, request.label(names.SERVICE)
    slot, occasion = f"Labels.{names.SLOT}", request.label(names.OCCASION)
    if facts.is_service:
        reason = f"{job} is a service with containers"
        yield Finding("job.name", f"Labels.{names.SERVICE}", reason, "choose another name")
    if number != memory.last + 1:
        word = "was made already" if number <= memory.last else "is not the next one"
        reason = f"run {number} of {job} {word}: the last one is {memory.last}"
        yield Finding("job.number", slot, reason, f"look again: the next one is {memory.last + 1}")
    known = memory.occasion(request.label(names.REVISION), occasion)
    rolls = occasion.startswith(ROLLOUT)
    if known is not None and known.is_complete and not rolls:
        yield _done(job, known)
    elif known is not None and known.outcome == "held":
        reason = f"{job} {known.why}"
        yield Finding(HELD, _LABEL, reason, f"ask for a run: trimtab run-job {job}")
    elif known is not None and (going := _full(known, memory)):
        reason = f"run {going} of {job} for {occasion} goes on"
        if known.completions > 1:
            reason += f"; {known.progress}, and at most {known.parallelism} at a time"
        yield Finding("job.running", _LABEL, reason, "wait until that one has ended")
    if rolls:
        yield from _judge_rollout(job, occasion, memory)
    if occasion.startswith(SCHEDULE) and known is None:
        yield from _judge_instant(occasion, facts)
    asked = occasion.removeprefix(MANUAL) in memory.requests
    if occasion.startswith(MANUAL) and known is None and not asked:
        reason = f"nobody asked for a run of {job} by that record"
        yield Finding("job.request", _LABEL, reason, f"ask for one: trimtab run-job {job}")


def _full(known: JobOccasion, memory: JobMemory) -> int:
    """Return the number of a run that has to end before another one begins; 0 for none.

    No more runs go on than successes are missing, so an occasion never has surplus successes.
    """
    going = [run.number for run in memory.runs_of(known) if not run.ended]
    missing = known.completions - (known.succeeded if known.completions > 1 else 0)
    return going[-1] if going and len(going) >= min(known.parallelism, missing) else 0


def _done(job: str, known: JobOccasion) -> Finding:
    how = f"run {known.last} succeeded" if known.completions == 1 else known.progress
    return Finding(
        "job.done", _LABEL, f"{job} ran for {known.name}: {how}", "nothing is to be done"
    )


def _judge_rollout(job: str, occasion: str, memory: JobMemory) -> Iterator[Finding]:
    """Yield the faults of a run for a rollout: a success of any revision of the job counts."""
    for other in memory.occasions:
        if other.name == occasion and other.is_complete:
            yield _done(job, other)
            return


def _judge_instant(occasion: str, facts: RunFacts) -> Iterator[Finding]:
    """Yield the faults of the first run for an instant of a schedule.

    The broker doesn't know the schedule. An instant has the runs of one revision, and none is made
    ahead of time.
    """
    if any(each.name == occasion for each in facts.memory.occasions):
        reason = f"{occasion} had its run, of another revision"
        yield Finding("job.done", _LABEL, reason, "nothing is to be done")
    instant = datetime.fromisoformat(occasion.removeprefix(SCHEDULE)).timestamp()
    if instant > facts.now + AHEAD_S:
        reason = f"{occasion} is in the future, by the broker's clock"
        yield Finding("job.schedule", _LABEL, reason, "compare the clocks of both processes")
