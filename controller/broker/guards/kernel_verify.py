"""Verification: whether the kernel confines a container as admission decided, and the reaction.

On containers of the controller, changed limits and networks are restored. A container that is
changed again and again, and any other breach, is stopped.

A breach counts only if several observations within a quarter of a second show it. A runtime's
first process gets its last restrictions just before it becomes the program of the container, and
an engine changes two limits one after the other. A violation is recorded before any reaction;
stopping a container is an intent of the broker's own, like every change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from controller.broker import deliveries
from controller.broker.gate import redact
from controller.broker.gate.call import BROKER, Author, Flow, read_json
from controller.broker.gate.commands import ReadProcess, WriteRecord
from controller.broker.gate.journal_entries import (
    actor_of,
    journal_unavailable,
    place_of,
    request_of,
    verdict_of,
)
from controller.broker.gate.mutate import SHORT_S, Change, Preparation, perform
from controller.broker.gate.refusals import Answered
from controller.broker.gate.state import GateState
from controller.broker.guards import conflicts
from controller.broker.wire import refusal
from controller.core.enforcement import kernel
from controller.core.enforcement.kept_settings import admitted_ignored
from controller.core.engine_api.translate import limits_body, settings
from controller.core.records.parts import EndpointPart, ResultPart, SettingsPart, SummaryPart
from controller.core.rules.context import exceptions_of_item
from controller.core.rules.networks import could_join
from controller.core.rules.verdict import AdmissionDecision
from controller.model.confinement import (
    Confinement,
    DifferenceKind,
    EffectiveState,
    KernelDifference,
    NotReadable,
)
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.records import Context, Entry, Record, Reply, Role, Verdict

#: Pause before each observation, in seconds. A difference counts if the last observation shows it.
PAUSES_S = (0.0, 0.02, 0.05, 0.1)
#: Extra observations while the first process is still the runtime's own.
STARTING_LOOKS = 8
REMEDY = "remove the container and create it again; find out who changes containers outside trimtab"
CAUSE = "violation"
#: A container is restored at most this often within this time; then it is stopped.
PUT_BACK_MAX = 3
PUT_BACK_WITHIN_S = 600.0
_OLD = "it was created before trimtab recorded settings to compare"
_EXITED = "exited already"
_LIMITS = ("memory", "memory_swap", "nano_cpus", "cpu_quota", "cpu_period", "pids")
_NOTHING = Settings("")


class RecheckReason(Enum):
    """Why a container without a difference is observed again."""

    STARTING = "its program hasn't begun yet"
    UNSEEN = "the engine may not have seen yet that it ended"


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of comparing a container with its admission."""

    breaches: tuple[KernelDifference, ...] = ()
    #: Why the container could be observed only in part.
    doubt: str = ""
    drift: str = ""
    #: The settings in the engine.
    now: Settings = _NOTHING
    #: Joined networks that the container has no right to.
    foreign: tuple[kernel.JoinedNetwork, ...] = ()

    @property
    def text(self) -> str:
        """The result in the outcome of a start."""
        if self.breaches:
            return "violation"
        if self.doubt:
            return f"unverified: {redact.text(self.doubt)}"
        return "verified"


def verify(state: GateState, item: ContainerItem, policy: Policy) -> Flow[VerificationResult]:
    """Compare the kernel's view of a container with its admission."""
    if item.confined is None:
        return VerificationResult(doubt=_OLD)
    result, waited = VerificationResult(), 0
    pauses = list(PAUSES_S)
    try:
        while pauses:
            confined = yield from deliveries.with_present_sources(state, item, item.confined)
            result, again = yield from _observe(state, item, confined, policy, pauses.pop(0))
            if not result.breaches and not again:
                break
            if again is RecheckReason.STARTING and not pauses and waited < STARTING_LOOKS:
                pauses.append(PAUSES_S[-1])
                waited += 1
    except Answered:
        return VerificationResult(doubt="the engine doesn't answer")
    return result


def _observe(
    state: GateState, item: ContainerItem, confined: Confinement, policy: Policy, pause_s: float
) -> Flow[tuple[VerificationResult, RecheckReason | None]]:
    """Observe a container once; return also why another observation may differ."""
    inspect = (yield from read_json(f"/containers/{item.id}/json")) or {}
    foreign = conflicts.find_names(state, item, policy, inspect)
    pid = (inspect.get("State") or {}).get("Pid")
    if not isinstance(pid, int) or pid <= 0:
        return VerificationResult(doubt=_EXITED), None
    runtime = str((inspect.get("HostConfig") or {}).get("Runtime") or "")
    if runtime not in {"", "runc", "io.containerd.runc.v2", "crun"}:
        return _unverified(f"the runtime {runtime} shows no processes", inspect, policy), None
    targets = tuple(sorted({mount.target for mount in confined.mounts}))
    answer = yield ReadProcess(pid, item.id, targets, pause_s)
    if isinstance(answer, NotReadable):
        if answer.gone:
            return VerificationResult(doubt=_EXITED), None
        return _unverified(answer.reason, inspect, policy), RecheckReason.UNSEEN
    assert isinstance(answer, EffectiveState), f"a process was answered by {answer!r}"
    expected = kernel.ExpectedState(
        id=item.id,
        confinement=confined,
        settings=item.admitted,
        bounds=bounds_of(policy, item, state.clock.now()),
        seccomp=state.seccomp,
        ignored=admitted_ignored({*item.ignored, *state.ignores}, policy),
    )
    joined = joined_of(state, item, policy, inspect)
    differences = kernel.compare_kernel(expected, answer, joined)
    texts = kernel.texts_by_kind(differences)
    breaches = (
        *(each for each in differences if each.kind is DifferenceKind.BREACH),
        *(
            KernelDifference(
                "effective.name", f"it answers to {name!r} of another owner's container"
            )
            for name in foreign
        ),
    )
    result = _unverified(texts.get(DifferenceKind.DOUBT, ""), inspect, policy)
    whole = replace(
        result,
        breaches=(*breaches, *result.breaches),
        drift=texts.get(DifferenceKind.DRIFT, ""),
        foreign=tuple(network for network in joined if not network.own),
    )
    return whole, RecheckReason.STARTING if answer.starting else None


def _unverified(doubt: str, inspect: Mapping[str, Any], policy: Policy) -> VerificationResult:
    """Return the result that the policy demands for an incomplete observation."""
    now = settings(inspect)
    if doubt and policy.security.unverified == "stop":
        return VerificationResult(
            (KernelDifference("effective.unverified", doubt),), doubt, now=now
        )
    return VerificationResult(doubt=doubt, now=now)


def bounds_of(policy: Policy, item: ContainerItem, now: float) -> kernel.PolicyBounds:
    """Return the highest limits that the policy admits for a container, with its exceptions."""
    resources = policy.resources
    grants = [each.loosens for each in exceptions_of_item(policy, item, now=now)]
    return kernel.PolicyBounds(
        memory=max([resources.memory.max, *(grant.memory_max or 0 for grant in grants)]),
        nano_cpus=max([resources.cpus.max, *(grant.cpus_max or 0 for grant in grants)]),
        pids=max([resources.pids.max, *(grant.pids_max or 0 for grant in grants)]),
    )


def joined_of(
    state: GateState, item: ContainerItem, policy: Policy, inspect: Mapping[str, Any]
) -> tuple[kernel.JoinedNetwork, ...]:
    """Return the networks that a container has joined, by their ids in the engine.

    A network is the container's own by its id, or if the container could have been created with it.
    The name alone proves nothing: another owner can have made a network of that name since.
    """
    ends = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    admitted = dict(item.network_ids)
    joined = []
    for name, end in ends.items():
        identifier = str((end or {}).get("NetworkID") or "")
        if name in {"none", "host"} or not identifier:
            continue
        made = state.inventory.networks.get(identifier)
        own = made is not None and (
            admitted.get(made.name) == identifier
            or could_join(item, made, policy)
            or (made.owner != "" and made.owner == item.owner)
        )
        joined.append(kernel.JoinedNetwork(name, own, identifier))
    return tuple(joined)


def perform_verified(
    state: GateState,
    call_by: Author,
    item: ContainerItem,
    policy: Policy,
    change: Change,
    *,
    prepare: Preparation | None = None,
) -> Flow[Reply]:
    """Perform a change that leaves a container running, and stop the container after a breach."""
    results: list[VerificationResult] = []

    def learn(_: Reply) -> Flow[ResultPart]:
        results.append((yield from verify(state, item, policy)))
        return ResultPart(effective=results[0].text)

    with state.verification.holding(item.id):
        reply = yield from perform(state, call_by, change, learn, prepare=prepare)
        if results and results[0].breaches:
            return (yield from stop_violator(state, item, results[0], policy))
    return reply


def verify_container(state: GateState, identifier: str) -> Flow[VerificationResult | None]:
    """Verify a container after an event; None if the container is unknown or under verification."""
    item = state.inventory.containers.get(identifier)
    if item is None or identifier in state.verification.in_progress:
        return None
    policy = state.policy
    with state.verification.holding(identifier):
        result = yield from verify(state, item, policy)
        if result.breaches and _can_restore(state, item, result):
            yield from _restore(state, item, result, policy)
            result = yield from verify(state, item, policy)
        if result.breaches:
            yield from stop_violator(state, item, result, policy)
    return result


def stop_violator(
    state: GateState, item: ContainerItem, result: VerificationResult, policy: Policy
) -> Flow[Reply]:
    """Record a violation, then stop the container and disable its restart policy."""
    reason = "; ".join(each.text for each in result.breaches)
    identifier, recorded = yield from _record_violation(state, item, result, policy)
    if not recorded:
        return journal_unavailable(identifier)
    changes = [_kill(item)]
    if result.now.restart != "no":
        changes.insert(0, _disable_restart(item, result.now))
    yield from _perform_all(state, changes, f"{CAUSE} {identifier}", policy)
    return refusal(
        403,
        result.breaches[0].rule,
        f"the container was stopped, since it didn't run as admitted: {redact.text(reason)}",
        remedy=REMEDY,
        record=identifier,
    )


def _record_violation(
    state: GateState,
    item: ContainerItem,
    result: VerificationResult,
    policy: Policy,
    *,
    is_put_back: bool = False,
) -> Flow[tuple[str, bool]]:
    """Record a violation; return the id of the record, and whether the record is durable."""
    identifier = state.new_id()
    rules = tuple(dict.fromkeys(each.rule for each in result.breaches))
    reason = "; ".join(each.text for each in result.breaches)
    entry = Entry(
        identifier,
        "violation",
        actor=actor_of(BROKER),
        request=request_of("POST", Mutation.CONTAINER_START, item.id, place_of(item)),
        verdict=verdict_of(Verdict("deny", rules, reason, REMEDY), policy.digest),
        result=ResultPart(
            differences=tuple(redact.text(each.text) for each in result.breaches),
            is_put_back=is_put_back,
        ).members,
    )
    return identifier, isinstance((yield WriteRecord(entry)), Record)


def _perform_all(
    state: GateState, changes: Iterable[Change], cause: str, policy: Policy
) -> Flow[None]:
    for change in changes:
        by = Author(state.new_id(), BROKER, Context(cause=cause), policy=policy.digest)
        yield from perform(state, by, replace(change, deadline_s=SHORT_S), despite_hold=True)


def _can_restore(state: GateState, item: ContainerItem, result: VerificationResult) -> bool:
    """Return True if a breach can be undone: on the controller's containers, and not too often.

    Containers of clients are never restored, but stopped: their limits are the client's business.
    """
    since = state.clock.monotonic() - PUT_BACK_WITHIN_S
    # Drop removed containers and old times.
    state.verification.restored_at = {
        identifier: recent
        for identifier, times in state.verification.restored_at.items()
        if identifier in state.inventory.containers
        and (recent := tuple(at for at in times if at > since))
    }
    again = len(state.verification.restored_at.get(item.id, ()))
    reversible = all(each.rule in kernel.REVERSIBLE for each in result.breaches)
    return item.origin == Role.CONTROLLER.value and reversible and again < PUT_BACK_MAX


def _restore(
    state: GateState, item: ContainerItem, result: VerificationResult, policy: Policy
) -> Flow[None]:
    """Record a violation, then restore the admitted limits and networks of the container."""
    times = state.verification.restored_at.get(item.id, ())
    state.verification.restored_at[item.id] = (*times, state.clock.monotonic())
    identifier, recorded = yield from _record_violation(
        state, item, result, policy, is_put_back=True
    )
    if not recorded:
        return
    changes = [_disconnect(item, network) for network in result.foreign]
    if any(each.rule == "effective.limit" for each in result.breaches):
        changes.append(_restore_limits(item, result.now))
    reason = "; ".join(redact.text(each.text) for each in result.breaches)
    yield from _perform_all(state, changes, f"{CAUSE} {identifier}: {reason}", policy)


def _disconnect(item: ContainerItem, network: kernel.JoinedNetwork) -> Change:
    path = f"/networks/{network.id}/disconnect"
    judged = _judged("violation.put-back", {"Container": item.id})
    summary = place_of(item) | EndpointPart(network=network.name).members
    return Change.of(Mutation.NETWORK_DISCONNECT, item.id, path, judged, summary)


def _restore_limits(item: ContainerItem, now: Settings) -> Change:
    """Return the update of all limits: inspect can show a changed limit as unchanged."""
    limits: dict[str, Any] = {name: getattr(item.admitted, name) for name in _LIMITS}
    body = limits_body(limits)
    changed = SettingsPart(settings=replace(now, **limits), updated_members=tuple(sorted(body)))
    return _update(item, _judged("violation.put-back", body), changed)


def _disable_restart(item: ContainerItem, now: Settings) -> Change:
    """Return the update that keeps the engine from restarting the container."""
    body: dict[str, object] = {"RestartPolicy": {"Name": "no"}}
    settings = replace(now, restart="no", restart_max=0)
    changed = SettingsPart(settings=settings, updated_members=tuple(body))
    return _update(item, _judged("violation.stop", body), changed)


def _update(item: ContainerItem, judged: AdmissionDecision, changed: SummaryPart) -> Change:
    path, summary = f"/containers/{item.id}/update", place_of(item) | changed.members
    return Change.of(Mutation.CONTAINER_UPDATE, item.id, path, judged, summary)


def _kill(item: ContainerItem) -> Change:
    path, judged = f"/containers/{item.id}/kill", _judged("violation.stop")
    return Change.of(Mutation.CONTAINER_KILL, item.id, path, judged, place_of(item))


def _judged(rule: str, body: dict[str, object] | None = None) -> AdmissionDecision:
    verdict = Verdict("allow", (rule,), "it doesn't run as it was admitted")
    return AdmissionDecision(verdict, body=body)
