"""The gate's rules for the create of a run, besides the rules for every container.

The broker alone knows all runs. A run has the next number of the job. A successful occasion is not
repeated, and an occasion has one run at a time. With several completions, the first run declares the
numbers of successes and of runs at a time. A run by request needs a recorded request.
No engine restarts a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from controller.core.engine_api.requests import CreateRequest, Finding, Findings
from controller.core.jobs.memory import MANUAL, ON_CHANGE, ROLLOUT, SCHEDULE
from controller.core.rules.context import Case, RunFacts
from controller.model import names
from controller.model.observed import JobMemory, JobOccasion

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
