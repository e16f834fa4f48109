"""The runs of jobs at the gate: each number once, each run started once, each end recorded.

The gate knows the runs by its own inventory, which outlives the containers. So a controller that
forgot a run, or claims to, cannot repeat the run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controller.broker.gate.call import BROKER, Flow, read_json
from controller.broker.gate.commands import WriteRecord
from controller.broker.gate.journal_entries import actor_of, place_of, request_of
from controller.broker.gate.mutate import refuse_if_held
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.state import GateState
from controller.core.engine_api.requests import CreateRequest
from controller.core.jobs import memory as run_end
from controller.core.jobs.memory import ROLLOUT
from controller.core.records.parts import EndPart, RequestPart, ResultPart, SummaryPart
from controller.core.rules.context import RunFacts
from controller.model import mutations, names
from controller.model.inventory import ContainerItem, PinnedImage
from controller.model.names import Key
from controller.model.observed import NO_RUNS
from controller.model.records import Entry

#: Changes that can end a run.
_ENDING = frozenset({mutations.Mutation.CONTAINER_STOP, mutations.Mutation.CONTAINER_KILL})


def run_facts(state: GateState, labels: Mapping[str, Any]) -> RunFacts | None:
    """Return what the inventory knows of a new run's job; None for a container that is no run."""
    if not names.run_of_slot(str(labels.get(names.SLOT, ""))):
        return None
    namespace, job = (str(labels.get(name, "")) for name in (names.NAMESPACE, names.SERVICE))
    is_service = any(
        (item.namespace, item.service) == (namespace, job)
        and item.origin == "controller"
        and not item.is_run
        for item in state.inventory.containers.values()
    )
    memory = state.inventory.jobs.get(names.job_key(namespace, job), NO_RUNS)
    return RunFacts(memory, now=state.clock.now(), is_service=is_service)


def pin_of_service(state: GateState, request: CreateRequest) -> PinnedImage | None:
    """Return the pinned image of a service's revision, if a run for its rollout asks for that image.

    The service is of the same namespace and owner, and has a container of the revision.
    """
    occasion = request.label(names.OCCASION)
    if not occasion.startswith(ROLLOUT) or not names.run_of_slot(request.label(names.SLOT)):
        return None
    service, _, revision = occasion.removeprefix(ROLLOUT).partition("@")
    wanted = (request.label(names.NAMESPACE), request.label(names.OWNER), service)
    for item in state.inventory.containers.values():
        if (item.namespace, item.owner, item.service) != wanted or item.is_run:
            continue
        pin = state.inventory.pins.get(item.revision)
        if item.revision.partition(":")[2] == revision and pin and pin.id == request.image:
            return pin
    return None


def refuse_while_creating(state: GateState, labels: Mapping[str, Any]) -> None:
    """Refuse a run while the create of another run of its job has no outcome.

    The memory doesn't have that run yet. Both would have one number, if their revisions differ, and
    the memory would take the first alone.

    Raises:
        Denied: ``held``.
    """
    if not names.run_of_slot(str(labels.get(names.SLOT, ""))):
        return
    job = tuple(str(labels.get(name, "")) for name in (names.NAMESPACE, names.SERVICE))
    for identifier, intent in state.inventory.open.items():
        request = RequestPart.read(intent.request)
        other = request.summary
        is_run = names.run_of_slot(other.label(names.SLOT)) > 0
        same = (other.label(names.NAMESPACE), other.label(names.SERVICE)) == job
        if request.route == mutations.Mutation.CONTAINER_CREATE and is_run and same:
            raise Denied(
                "held",
                f"the outcome of {request.route} {identifier}, a run of the same job, isn't known yet",
                "wait until the change has its outcome, or recovery has settled it",
                status=409,
                subject=request.object,
            )


def refuse_second_start(state: GateState, item: ContainerItem) -> None:
    """Let a run be started once, by whomever.

    Raises:
        Denied: ``job.started``; ``held`` while a change of the container has no outcome, which can be
            the start.
    """
    if not item.is_run:
        return
    refuse_if_held(state, mutations.Mutation.CONTAINER_START, item.id, under_way=True)
    if item.started:
        raise Denied(
            "job.started",
            f"{item.admitted.name} is run {item.slot} of the job {item.service}, which was started",
            f"ask for another run: trimtab run-job {item.service}",
            status=409,
            subject=item.id,
        )


def look_for_end(state: GateState, identifier: str) -> Flow[None]:
    """Record the end of a run, if the engine shows the run as ended, or lacks its container."""
    if not _goes_on(state, identifier):
        return
    try:
        inspect = yield from read_json(f"/containers/{identifier}/json")
    except Answered:
        return  # the engine is away: the next check looks again
    if inspect is not None:
        yield from record_end(state, identifier, inspect)
    elif _goes_on(state, identifier):  # another look can have recorded the end meanwhile
        yield from _record(state, identifier, run_end.REMOVED_RUN, None)


def look_for_lost(state: GateState, job: Key, listed: Collection[str]) -> Flow[None]:
    """Record the end of each run of a job whose container the engine doesn't list any more."""
    for run in state.inventory.jobs.get(job, NO_RUNS).open_runs:
        if run.container not in listed:
            yield from look_for_end(state, run.container)


def _goes_on(state: GateState, identifier: str) -> bool:
    """Return True if the end of a container's run is neither recorded nor being recorded."""
    item = state.inventory.containers.get(identifier)
    if item is None or not item.is_run or identifier in state.ending_runs:
        return False
    memory = state.inventory.jobs.get(names.job_key(item.namespace, item.service), NO_RUNS)
    return any(run.container == identifier for run in memory.open_runs)


def record_end(state: GateState, identifier: str, inspect: Mapping[str, Any]) -> Flow[None]:
    """Record the end of a run that the engine shows as ended. A failed write changes nothing.

    A change under way can have ended the run: the change looks itself, when its outcome is known.
    """
    if not _goes_on(state, identifier) or _is_being_ended(state, identifier):
        return
    end = run_end.end_of(inspect, state.inventory.endings.get(identifier))
    if end is not None:
        code = (inspect.get("State") or {}).get("ExitCode")
        yield from _record(state, identifier, end, code if isinstance(code, int) else None)


def _is_being_ended(state: GateState, identifier: str) -> bool:
    for key, intent in state.inventory.open.items():
        request = RequestPart.read(intent.request)
        if (
            key in state.intents.in_flight
            and request.object == identifier
            and request.route in _ENDING
        ):
            return True
    return False


def _record(
    state: GateState, identifier: str, end: run_end.RunEnd, exit_code: int | None
) -> Flow[None]:
    item = state.inventory.containers[identifier]
    summary = SummaryPart.read(place_of(item)) | EndPart(outcome=end.outcome)
    result = ResultPart(exit_code=exit_code, reason=end.why)
    request = request_of("POST", mutations.JOB_ENDED, identifier, summary.members)
    entry = Entry(
        item.intent,
        "operator",
        actor=actor_of(BROKER),
        request=request,
        result=result.members,
    )
    # Until the record is folded, the inventory shows the run as going on to others who look.
    state.ending_runs.add(identifier)
    try:
        yield WriteRecord(entry)
    finally:
        state.ending_runs.discard(identifier)
