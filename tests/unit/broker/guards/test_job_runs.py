"""Runs of jobs at the gate: started once, and their end is recorded by whoever looks."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine, WriteRecord
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import job_runs
from controller.broker.guards.recovery import remove_stale, settle
from controller.core.jobs import memory as jobs
from controller.core.jobs.memory import UNSTARTED_RUN
from controller.model import mutations, names
from controller.model.inventory import OpenIntent
from controller.model.names import job_key, run_name
from controller.model.observed import NO_RUNS, JobRun
from controller.model.records import Entry, Reply
from tests.unit.broker.dialogue import (
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    Step,
    converse,
    lost,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import REFERENCE, REVISION, SLOT, image, inspect, inventory, item

JOB = job_key("default", "migrate")
NAME = run_name("default", "migrate", number=1, revision=REVISION)
LOOK = ReadEngine(f"/containers/{SLOT}/json")
AT = "2026-01-01T12:00:00.000Z"


def knowing(*, started: bool = True) -> GateState:
    """Return a gate with a run of a job, whose end isn't recorded."""
    run = item(
        SLOT,
        NAME,
        "team",
        origin="controller",
        namespace="default",
        service="migrate",
        slot=1,
        revision=REVISION,
        is_run=True,
        started=started,
    )
    memory = jobs.create(NO_RUNS, JobRun(1, REVISION, jobs.ON_CHANGE, SLOT, AT))
    return state(replace(inventory(), containers={SLOT: run}, jobs={JOB: memory}))


def ended(code: int) -> dict[str, Any]:
    shown = {"Status": "exited", "Running": False, "ExitCode": code}
    return inspect(SLOT, NAME, "team", State=shown)


def is_end(entry: Entry) -> bool:
    return entry.request.get("route") == mutations.JOB_ENDED


@pytest.mark.parametrize("actor", [CONTROLLER, OPERATOR])
def test_a_run_is_started_once_by_whomever(actor: Any) -> None:
    asked = request("POST", f"/containers/{SLOT}/start", actor=actor)
    answer = converse(
        handle(asked, knows := knowing()), [(LOOK, reply(ended(0))), ("refusal", RECORDED)], knows
    )
    assert (answer.status, answer.rule) == (409, "job.started")


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_run_isnt_started_while_its_first_start_has_no_outcome(verb: str) -> None:
    """A short run ends before the outcome of its start is recorded, and would run again."""
    knows = knowing(started=False)
    first: dict[str, object] = {"route": mutations.Mutation.CONTAINER_START, "object": SLOT}
    knows.inventory = replace(knows.inventory, open={"i": OpenIntent(9, AT, "controller", first)})
    knows.intents.in_flight.add("i")
    asked = request("POST", f"/containers/{SLOT}/{verb}", actor=OPERATOR)
    steps: list[Step] = [(LOOK, reply(ended(0))), ("refusal", RECORDED)]
    answer = converse(handle(asked, knows), steps, knows)
    assert (answer.status, answer.rule) == (409, "held")


def test_a_read_records_the_end_of_a_run_once() -> None:
    asked = request("GET", f"/containers/{SLOT}/json", actor=CONTROLLER)
    knows = knowing()
    dialogue: list[Step] = [(LOOK, reply(ended(3))), ("operator", RECORDED)]
    answer = converse(handle(asked, knows), dialogue, knows)
    (end,) = [entry for entry in answer.entries if is_end(entry)]
    assert end.result == {"exitCode": 3, "reason": "exited with 3"}
    memory = knows.inventory.jobs[JOB]
    assert memory.open_runs == ()
    assert memory.runs[0].outcome == "failed"
    again = converse(handle(asked, knows), [(LOOK, reply(ended(3)))], knows)
    assert [entry for entry in again.entries if is_end(entry)] == []


def test_a_stop_under_way_records_the_end_itself() -> None:
    """Others who see the ended run before the outcome don't take the end for one from outside."""
    knows = knowing()
    stop: dict[str, object] = {"route": mutations.Mutation.CONTAINER_STOP, "object": SLOT}
    before = knows.inventory
    knows.inventory = replace(before, open={"i": OpenIntent(9, AT, "controller", stop)})
    knows.intents.in_flight.add("i")
    read = request("GET", f"/containers/{SLOT}/json", actor=CONTROLLER)
    seen = converse(handle(read, knows), [(LOOK, reply(ended(137)))], knows)
    assert [entry for entry in seen.entries if is_end(entry)] == []
    knows.inventory = before
    running = inspect(SLOT, NAME, "team", State={"Status": "running", "Running": True})
    steps: list[Step] = [
        (LOOK, reply(running)),
        ("intent", RECORDED),
        (Forward("POST", f"/containers/{SLOT}/stop", by="id-2"), NO_CONTENT),
        ("outcome", RECORDED),
        (LOOK, reply(ended(137))),
        ("operator", RECORDED),
    ]
    asked = request("POST", f"/containers/{SLOT}/stop", actor=OPERATOR)
    answer = converse(handle(asked, knows), steps, knows)
    (end,) = [entry for entry in answer.entries if is_end(entry)]
    told = "was stopped by operator, and exited with 137"
    assert end.result == {"exitCode": 137, "reason": told}


def test_a_removal_records_the_end_before_the_container_is_gone() -> None:
    asked = request("DELETE", f"/containers/{SLOT}", actor=OPERATOR)
    knows = knowing()
    dialogue: list[Step] = [
        (LOOK, reply(ended(0))),
        ("operator", RECORDED),
        ("intent", RECORDED),
        (Forward("DELETE", f"/containers/{SLOT}"), reply(None, status=204)),
        ("outcome", RECORDED),
    ]
    converse(handle(asked, knows), dialogue, knows)
    assert SLOT not in knows.inventory.containers
    occasion = knows.inventory.jobs[JOB].occasion(REVISION, jobs.ON_CHANGE)
    assert occasion is not None
    assert occasion.outcome == "succeeded"


CREATED = reply(inspect(SLOT, NAME, "team", State={"Status": "created"}))
REMOVAL = Forward("DELETE", f"/containers/{SLOT}")


def test_a_run_that_nobody_started_is_cleaned_up_as_unstarted() -> None:
    knows = knowing(started=False)
    steps: list[Step] = [(LOOK, CREATED), ("intent", RECORDED), (REMOVAL, NO_CONTENT)]
    converse(remove_stale(knows, SLOT), [*steps, ("outcome", RECORDED)], knows)
    (run,) = knows.inventory.jobs[JOB].runs
    assert (run.outcome, run.why) == (UNSTARTED_RUN.outcome, UNSTARTED_RUN.why)


def test_a_run_that_is_started_during_its_clean_up_is_cut() -> None:
    """The engine can start, end and remove the run before the broker records the outcomes."""
    knows = knowing(started=False)
    steps: Any = remove_stale(knows, SLOT)
    steps.send(None)
    intent = steps.send(CREATED)
    steps.send(record(knows, intent.entry))
    start: dict[str, object] = {"route": mutations.Mutation.CONTAINER_START, "object": SLOT}
    other = OpenIntent(9, AT, "controller", start)
    knows.inventory = replace(knows.inventory, open={**knows.inventory.open, "start": other})
    record(knows, steps.send(NO_CONTENT).entry)
    assert [run.outcome for run in knows.inventory.jobs[JOB].runs] == ["cut"]


def test_a_clean_up_whose_answer_is_lost_leaves_the_run_cut() -> None:
    knows = knowing(started=False)
    steps: list[Step] = [(LOOK, CREATED), ("intent", RECORDED), (REMOVAL, lost())]
    converse(remove_stale(knows, SLOT), steps, knows)
    (intent,) = knows.inventory.open
    converse(
        settle(knows, intent, earlier=None), [(LOOK, NOT_FOUND), ("recovered", RECORDED)], knows
    )
    assert [run.outcome for run in knows.inventory.jobs[JOB].runs] == ["cut"]


def test_the_facts_of_a_run_are_those_of_its_job() -> None:
    knows = knowing()
    labels = {names.NAMESPACE: "default", names.SERVICE: "migrate"}
    facts = job_runs.run_facts(knows, {**labels, names.SLOT: "run-2"})
    assert facts is not None
    assert (facts.memory.last, facts.is_service) == (1, False)
    assert job_runs.run_facts(knows, {**labels, names.SLOT: "1"}) is None
    other = job_runs.run_facts(knows, {**labels, names.SERVICE: "other", names.SLOT: "run-1"})
    assert other is not None
    assert other.memory == NO_RUNS


def test_the_watch_records_the_end_of_a_run() -> None:
    knows = knowing()
    steps: list[Step] = [(LOOK, reply(ended(0))), ("operator", RECORDED)]
    converse(_quietly(knows), steps, knows)
    assert knows.inventory.jobs[JOB].open_runs == ()


def test_a_run_without_a_container_is_cut() -> None:
    knows = knowing()
    steps: list[Step] = [(LOOK, Reply(404)), ("operator", RECORDED)]
    converse(_looking(knows), steps, knows)
    (run,) = knows.inventory.jobs[JOB].runs
    assert run.outcome == "cut"
    assert run.why.startswith("was removed from outside")
    converse(_looking(knows), [], knows)


@pytest.mark.parametrize("shown", [reply(ended(0)), Reply(404)])
def test_two_looks_at_once_record_the_end_of_a_run_once(shown: Reply) -> None:
    knows = knowing()
    first, second = job_runs.look_for_end(knows, SLOT), job_runs.look_for_end(knows, SLOT)
    assert (next(first), next(second)) == (LOOK, LOOK)
    assert isinstance(first.send(shown), WriteRecord)
    # The second look has its answer before the record of the first is durable, or after that.
    with pytest.raises(StopIteration):
        second.send(shown)
    third = job_runs.look_for_end(knows, SLOT)
    with pytest.raises(StopIteration):
        next(third)
    with pytest.raises(StopIteration):
        first.send(None)
    # A write that failed leaves the run as it was: the next look records the end.
    assert next(job_runs.look_for_end(knows, SLOT)) == LOOK


def test_a_look_that_comes_late_records_no_second_end() -> None:
    knows = knowing()
    late = job_runs.look_for_end(knows, SLOT)
    assert next(late) == LOOK
    converse(_quietly(knows), [(LOOK, reply(ended(0))), ("operator", RECORDED)], knows)
    with pytest.raises(StopIteration):
        late.send(Reply(404))


def _looking(knows: GateState) -> Any:
    yield from job_runs.look_for_lost(knows, JOB, ())
    return reply(None, status=204)


def _quietly(knows: GateState) -> Any:
    yield from job_runs.look_for_end(knows, SLOT)
    return reply(None, status=204)


def test_a_run_waits_while_the_create_of_another_one_has_no_outcome() -> None:
    """Two creates at once would have one number, and the memory would know the first alone."""
    job = {names.NAMESPACE: "default", names.SERVICE: "migrate"}
    run = {**job, names.SLOT: "run-2"}
    for labels, is_held in (
        (run, True),
        ({**job, names.SLOT: "1"}, False),
        ({**run, names.SERVICE: "other"}, False),
        ({**run, names.NAMESPACE: "other"}, False),
    ):
        knows = knowing()
        create: dict[str, object] = {
            "route": mutations.Mutation.CONTAINER_CREATE,
            "object": "x",
            "summary": {"labels": labels},
        }
        intent = OpenIntent(9, AT, "controller", create)
        knows.inventory = replace(knows.inventory, open={"i": intent})
        with pytest.raises(Denied, match="isn't known yet") if is_held else nullcontext():
            job_runs.refuse_while_creating(knows, run)
        job_runs.refuse_while_creating(knows, {**run, names.SLOT: "2"})


def test_a_create_asks_for_creates_of_its_job_before_the_intent() -> None:
    made = {
        names.OWNER: "team",
        names.NAMESPACE: "default",
        names.SERVICE: "migrate",
        names.SLOT: "run-1",
        names.REVISION: REVISION,
        names.OCCASION: jobs.ON_CHANGE,
        names.IMAGE: REFERENCE,
    }
    knows = state(inventory())
    other: dict[str, object] = {
        "route": mutations.Mutation.CONTAINER_CREATE,
        "object": "x",
        "summary": {"labels": {**made, names.REVISION: "v2:" + "9" * 64}},
    }
    knows.inventory = replace(knows.inventory, open={"i": OpenIntent(9, AT, "controller", other)})
    knows.intents.in_flight.add("i")
    body = {"Image": REFERENCE, "Labels": made, "HostConfig": {"NetworkMode": "none"}}
    asked = request("POST", f"/containers/create?name={NAME}", actor=CONTROLLER, body=body)
    steps: list[Step] = [
        (ReadEngine(f"/images/{REFERENCE}/json"), reply(image())),
        (ReadEngine(f"/containers/{NAME}/json"), reply({"message": "no such container"}, 404)),
        ("refusal", RECORDED),
    ]
    answer = converse(handle(asked, knows), steps, knows)
    assert (answer.status, answer.rule) == (409, "held")
