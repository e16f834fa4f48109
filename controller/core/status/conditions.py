"""The conditions of a resource, and whether it is as declared.

The conditions of a resource: Ready, Progressing, Degraded, Stalled, and others while they hold.

Pure. A condition has a reason for programs and a message for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal

from controller.core.adoption.gaps import gaps_in_words
from controller.core.drift.actions import is_denied, refusals
from controller.core.drift.availability import FAILED as DEPENDENCY_FAILED
from controller.core.drift.classify import still_ignored
from controller.core.drift.contention import ENDED as CONTENTION_ENDED
from controller.core.engine_api.comparable_fields import member_text
from controller.core.jobs.decision import JobDecision, JobWord
from controller.core.planning.service_order import HOOK_FAILED
from controller.core.policy.refusals import with_remedies
from controller.core.service.overrides import STOPPED, display_name
from controller.core.status.facts import NO_TROUBLE, READY_WORDS, Facts, StatusInputs
from controller.model.desired.desired import Desired, OverrideReason
from controller.model.desired.plan import AnyAction, Barrier, NeedsOperator, QuarantineWait, Wait
from controller.model.desired.spec.service import JobSpec, Trigger
from controller.model.errors import Act
from controller.model.names import Key
from controller.model.records import Verdict

ConditionStatus = Literal["True", "False", "Unknown"]
#: The reason if the broker ended a container because of a violation.
BREACHED = "effective.violated"
#: The remedies for a failed rollout.
PAUSED_REMEDY = "change its document, or try the same again: trimtab resume {}"


#: The condition of a service with a container that was adopted as found.
ADOPTED = "AdoptedAsFound"
#: The condition of a service with containers that lack what the engine dropped.
IGNORED = "EngineIgnores"
#: Conditions that keep no service from being Ready.
_NOTES = frozenset({ADOPTED, IGNORED})
#: The reason if a job has failed, and the remedies.
JOB_FAILED = "job.failed"
JOB_REMEDY = "see 'trimtab logs {0}'; change its document, or run it again: trimtab run-job {0}"
#: The same for a job that rollouts ask for: a run outside of a rollout helps none of them.
ROLLOUT_JOB_REMEDY = "see 'trimtab logs {0}'; correct it, then try the rollout again: {1}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A statement about a resource, with its reason."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


def conditions_of(facts: Facts, inputs: StatusInputs) -> list[Condition]:
    """Return a resource's conditions. The first four are always Ready, Progressing, Degraded,
    Stalled.
    """
    stalled = _stalled(facts, inputs) or _unsent(facts, inputs)
    held = [_held(hold) for hold in inputs.holds.get(facts.key, ())]
    suspended = [condition for condition in held if condition.type == "Suspended"][:1]
    possible = (
        *_job_conditions(facts),
        _paused(facts, inputs),
        _crash_loop(facts, inputs),
        _contended(facts, inputs),
        _violation(facts, inputs),
        _quarantined(facts, inputs),
        _adopted(facts),
        _ignored(facts),
    )
    named = [condition for condition in possible if condition is not None]
    pending = []
    if (blocked := inputs.blocked.get(facts.key)) is not None:
        message = f"{blocked.reason} ({blocked.remedy})"
        pending = [Condition("PrunePending", "True", blocked.code, message)]
    progressing = _progressing(facts, inputs)
    hindering = [condition for condition in named if condition.type not in _NOTES]
    blockers = [*suspended, *pending, *stalled, *hindering, *progressing]
    if facts.job is None:
        ready = _ready(facts, inputs, blockers)
    else:
        ready = _job_ready(facts.job, blockers)
    if ready.reason == "AsDeclared" and not (blockers or held):
        progressing = [*_behind(facts, inputs)]
    return [
        ready,
        *(progressing or [Condition("Progressing", "False", "NothingToDo")]),
        _degraded(facts, inputs),
        *(stalled or [Condition("Stalled", "False", "NothingToDo")]),
        *pending,
        *named,
        *suspended,
        *(condition for condition in held if condition.type != "Suspended"),
        *_moved(facts),
    ]


def _moved(facts: Facts) -> Iterator[Condition]:
    """Yield the condition Moved while containers answer to an earlier name of their service."""
    former = sorted({container.former for container in facts.containers if container.former})
    if former:
        count = sum(1 for container in facts.containers if container.former)
        whose = "its container answers" if count == 1 else f"{count} containers answer"
        yield Condition(
            "Moved",
            "True",
            "AnswersToFormerName",
            f"{whose} to {', '.join(former)} until the next replacement "
            f"(trimtab restart {display_name(facts.key)})",
        )


def _job_conditions(facts: Facts) -> Iterator[Condition]:
    """Yield the condition Complete or Failed of a job."""
    if facts.job is None:
        return
    if facts.job.word is JobWord.COMPLETE:
        yield Condition("Complete", "True", "Succeeded", facts.job.message)
    elif facts.job.word is JobWord.FAILED:
        yield Condition("Failed", "True", JOB_FAILED, facts.job.message)


#: The condition of an override.
_OF_HOLD: Final = {"suspended": "Suspended", "pinned": "RolledBack", "scaled": "Scaled"}


def _held(hold: OverrideReason) -> Condition:
    return Condition(_OF_HOLD[hold.word], "True", hold.code, f"{hold.reason} ({hold.remedy})")


def _ready(facts: Facts, inputs: StatusInputs, blockers: Sequence[Condition]) -> Condition:
    """Return the condition Ready. If false, the most severe of *blockers* gives the reason."""
    if inputs.desired.is_unread(facts.key):
        message = "its document can't be read: it is left as it is"
        return Condition("Ready", "Unknown", "Blind", message)
    is_on_engine = facts.key.kind not in NOT_ON_ENGINE
    if not inputs.looked and is_on_engine:
        return Condition("Ready", "Unknown", "NotSeen", "the engine has not been asked yet")
    if inputs.observed is None and is_on_engine:
        return Condition(
            "Ready", "Unknown", "EngineUnavailable", "unknown: the engine can't be reached"
        )
    count = f"{facts.ready} of {facts.desired}"
    # A Release that can't be rendered has no member, and all of them are ready.
    is_served = is_on_engine or not any(b.type == "Stalled" for b in blockers)
    if facts.declared and facts.ready == facts.desired and not facts.resting and is_served:
        return Condition("Ready", "True", "AsDeclared", f"{count} ready" if facts.desired else "")
    if (kept := _quarantined(facts, inputs)) is not None:
        return Condition("Ready", "True", "Quarantined", kept.message)
    for blocker in blockers:
        return Condition("Ready", "False", blocker.reason, blocker.message)
    if facts.failed:
        return Condition("Ready", "False", "Failed", "; ".join(facts.failed))
    if not facts.declared:
        return Condition("Ready", "False", "NotDeclared", "nothing declares it any more")
    if facts.resting:
        message = f"{facts.resting} still up, state Stopped is declared"
        return Condition("Ready", "False", "NotStopped", message)
    return Condition("Ready", "False", "NotReady", f"{count} ready")


def _job_ready(job: JobDecision, blockers: Iterable[Condition]) -> Condition:
    """Return the condition Ready of a declared job: True if nothing is to be done."""
    word, message = job.word.value, job.message
    if job.word in READY_WORDS:
        return Condition("Ready", "True", word, message)
    for blocker in () if job.word is JobWord.RUNNING else blockers:
        word, message = blocker.reason, blocker.message
        break
    return Condition("Ready", "False", word, message)


def _progressing(facts: Facts, inputs: StatusInputs) -> list[Condition]:
    pending = (
        a for a in inputs.plan.of(facts.key) if not isinstance(a, QuarantineWait | NeedsOperator)
    )
    actions = [action for action in pending if not is_denied(action)]
    now = takewhile(lambda action: not isinstance(action, Barrier), actions)
    acting = [action for action in now if not isinstance(action, Wait)]
    pulling = inputs.progress.get(facts.key)
    if pulling is not None:
        service = inputs.desired.workload(facts.key)
        built = service is not None and service.spec.build is not None
        return [Condition("Progressing", "True", "Building" if built else "Pulling", pulling)]
    failure = inputs.failures.get(facts.key)
    if failure is not None and failure.act is not Act.STALLED:
        word = "Retrying" if failure.act is Act.RETRY else "Waiting"
        return [Condition("Progressing", "True", word, f"{failure.code}: {failure.message}")]
    if acting:
        return [Condition("Progressing", "True", "Acting", _next(acting[0]))]
    if actions:
        return [Condition("Progressing", "True", "Waiting", actions[0].cause)]
    return []


def _behind(facts: Facts, inputs: StatusInputs) -> Iterator[Condition]:
    """Yield the condition Progressing between a change of a service's document and the pass on it."""
    generation, observed = inputs.generations.get(facts.key, (0, 0))
    if facts.key.kind == "Service" and observed < generation:
        yield Condition("Progressing", "True", "Waiting", "its document has changed; a pass is due")


def _next(action: AnyAction) -> str:
    return f"{action.verb} {action.target}: {action.cause}"


def _degraded(facts: Facts, inputs: StatusInputs) -> Condition:
    if inputs.observed is None or inputs.desired.is_unread(facts.key):
        return Condition("Degraded", "Unknown", "NotSeen")
    if any(hold.code == STOPPED for hold in inputs.holds.get(facts.key, ())):
        return Condition("Degraded", "False", STOPPED)
    if facts.serving < facts.desired:
        texts = [_missing(facts), *facts.failed]
        return Condition("Degraded", "True", "TooFew", "; ".join(texts))
    if facts.unhealthy:
        return Condition("Degraded", "True", "Unhealthy", "; ".join(facts.unhealthy))
    return Condition("Degraded", "False", "AsDeclared")


#: The kinds that the engine has nothing of.
NOT_ON_ENGINE: Final = frozenset({"Release", "Notification"})
#: What a resource without containers lacks.
_LACKING: Final = {
    "Network": "no network on the host as declared",
    "Volume": "no volume on the host as declared",
    "Secret": "no content opened by the broker",
}


def _missing(facts: Facts) -> str:
    """Return the shortfall in words: of running containers, or of the object on the host."""
    count = f"{facts.serving} of {facts.desired} running"
    return _LACKING.get(facts.key.kind, count)


def _unsent(facts: Facts, inputs: StatusInputs) -> list[Condition]:
    """Return the condition Stalled of a Notification that a destination gets nothing of."""
    why = inputs.unsent.get(facts.key)
    return [Condition("Stalled", "True", "notification.destination", why)] if why else []


def _stalled(facts: Facts, inputs: StatusInputs) -> list[Condition]:
    """Return the condition Stalled if a person must act; empty otherwise."""
    if (problem := inputs.errors.get(facts.key)) is not None:
        message = f"{problem.message} ({problem.remedy})" if problem.remedy else problem.message
        return [Condition("Stalled", "True", problem.code, message)]
    for action in refusals(inputs.plan.of(facts.key)):
        return [Condition("Stalled", "True", *_of(action.verdict))]
    failure = inputs.failures.get(facts.key)
    if failure is not None and failure.act is Act.STALLED and failure.code != DEPENDENCY_FAILED:
        return [Condition("Stalled", "True", failure.code, failure.message)]
    # The plan knows whether the dependency still fails; the last pass may not.
    for action in inputs.plan.of(facts.key):
        if isinstance(action, NeedsOperator) and action.code != HOOK_FAILED:
            return [Condition("Stalled", "True", action.code, action.cause)]
    if any(trouble.breach for trouble in inputs.troubles_of(facts.key).values()):
        messages = [*_breaches(facts, inputs)][:1]
        return [Condition("Stalled", "True", BREACHED, message) for message in messages]
    if facts.job is not None and facts.job.word is JobWord.FAILED and facts.job.next_run is None:
        message = f"{facts.job.message} ({_job_remedy(facts.key, inputs.desired)})"
        return [Condition("Stalled", "True", JOB_FAILED, message)]
    if why := inputs.failed.get(facts.key):
        message = f"{why} ({PAUSED_REMEDY.format(display_name(facts.key))})"
        return [Condition("Stalled", "True", "rollout.failed", message)]
    return []


def _job_remedy(key: Key, desired: Desired) -> str:
    """Return what to do about a failed job."""
    name = display_name(key)
    asking = [
        f"trimtab resume {display_name(service.key)}"
        for service in desired.services
        if service.key.namespace == key.namespace
        and key.name in (*service.spec.rollout.before, *service.spec.rollout.after)
    ]
    is_of_rollouts = any(
        isinstance(job.spec, JobSpec) and job.spec.trigger is Trigger.ROLLOUT
        for job in desired.jobs
        if job.key == key
    )
    if is_of_rollouts and asking:
        return ROLLOUT_JOB_REMEDY.format(name, " or ".join(asking))
    return JOB_REMEDY.format(name)


def _paused(facts: Facts, inputs: StatusInputs) -> Condition | None:
    why = inputs.failed.get(facts.key)
    return None if why is None else Condition("Paused", "True", "rollout.failed", why)


def _contended(facts: Facts, inputs: StatusInputs) -> Condition | None:
    """Return the condition Contended if another program keeps altering or ending containers."""
    mine = [(slot, each.contended) for slot, each in inputs.troubles_of(facts.key).items()]
    altered = [
        f"slot {slot}: {', '.join(name.replace('_', ' ') for name in fields)}"
        for slot, names in mine
        if (fields := [name for name in names if name not in CONTENTION_ENDED])
    ]
    ended = [
        f"slot {slot}: its container is {' and '.join(words)}"
        for slot, names in mine
        if (words := [name for name in names if name in CONTENTION_ENDED])
    ]
    remedy = "find out who else changes it; trimtab repairs it after growing pauses"
    if not altered and not ended:
        return None
    texts = [f"altered again and again: {'; '.join(altered)}"] if altered else []
    texts += [f"ended from outside again and again: {'; '.join(ended)}"] if ended else []
    reason = "AlteredAgain" if altered else "EndedAgain"
    return Condition("Contended", "True", reason, f"{'; '.join(texts)} ({remedy})")


def _crash_loop(facts: Facts, inputs: StatusInputs) -> Condition | None:
    failing = [
        f"slot {slot} failed {each.crash_looping}" + (f": {each.cause}" if each.cause else "")
        for slot, each in inputs.troubles_of(facts.key).items()
        if each.crash_looping
    ]
    if not failing or not facts.desired:
        return None
    return Condition("CrashLoop", "True", "KeepsFailing", "; ".join(failing))


def _violation(facts: Facts, inputs: StatusInputs) -> Condition | None:
    """Return the condition PolicyViolation if the policy would not admit the service now."""
    verdict = inputs.violations.get(facts.key)
    refused = refusals(inputs.plan.of(facts.key))
    if verdict is None and refused:
        verdict = refused[0].verdict
    if verdict is None:
        message = next(_breaches(facts, inputs), "")
        return Condition("PolicyViolation", "True", BREACHED, message) if message else None
    # A rule in audit mode admits the service: a warning, and nothing is blocked.
    kind = "PolicyViolation" if verdict.decision == "deny" else "PolicyWarning"
    return Condition(kind, "True", *_of(verdict))


def _breaches(facts: Facts, inputs: StatusInputs) -> Iterator[str]:
    """Yield a message for each slot whose container the broker ended because of a violation."""
    for row in facts.slots:
        slot = int(str(row["slot"]))
        trouble = inputs.troubles.get((facts.key, slot), NO_TROUBLE)
        record = row.get("violation") or trouble.breach
        if not record:
            continue
        # The row can already show the next container.
        name = row["container"] if row.get("violation") else f"the last container of slot {slot}"
        cause = row.get("cause") if row.get("violation") else trouble.cause
        why = cause or "was ended by the broker"
        yield f"{name} {why} (see 'trimtab journal show {record}'; find out who else changes it)"


def _quarantined(facts: Facts, inputs: StatusInputs) -> Condition | None:
    """Return the condition Quarantined if the service was pruned and is still kept."""
    actions = inputs.plan.of(facts.key)
    if not actions or not all(isinstance(action, QuarantineWait) for action in actions):
        return None
    return Condition("Quarantined", "True", "Pruned", actions[0].cause)


def _adopted(facts: Facts) -> Condition | None:
    """Return the condition AdoptedAsFound while a container was adopted, with its gaps."""
    texts = [
        f"slot {container.slot}: {container.name} lacks {', '.join(gaps_in_words(container.gaps))}"
        if container.gaps
        else f"slot {container.slot}: {container.name}"
        for container in facts.containers
        if container.adopted
    ]
    if not texts:
        return None
    message = f"{'; '.join(texts)} (its next replacement is an ordinary container)"
    has_gaps = any(container.gaps for container in facts.containers if container.adopted)
    return Condition(ADOPTED, "True", "Gaps" if has_gaps else "NoGaps", message)


def _ignored(facts: Facts) -> Condition | None:
    """Return the condition EngineIgnores while a container lacks what the engine dropped."""
    texts = [
        f"slot {container.slot}: {', '.join(map(member_text, members))}"
        for container in facts.containers
        if (members := still_ignored(container))
    ]
    if not texts:
        return None
    message = f"the engine ignores {'; '.join(texts)}"
    return Condition(IGNORED, "True", "engine.ignores", message)


def _of(verdict: Verdict) -> tuple[str, str]:
    return (", ".join(verdict.rules) or "denied", with_remedies(verdict))
