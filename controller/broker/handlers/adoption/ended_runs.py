"""Ended runs of docker compose that count as runs of jobs: a migration doesn't run twice.

Nothing is adopted: the container stays that of docker compose. An operator names job and container. The
run counts as that of the job's revision if it succeeded, and if the container has the image, the program,
the variables, the user and the mounts of the document. Otherwise the revision is held: no run is made
before an operator asks for one. Decision 89 has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.state import GateState
from controller.broker.handlers.adoption import joining
from controller.broker.handlers.adoption.judging import AdoptionCandidate, AdoptionJudge, Asked
from controller.core.adoption import likeness
from controller.core.engine_api.parse import parse_create
from controller.core.engine_api.requests import Finding
from controller.core.jobs.memory import ON_CHANGE
from controller.core.jobs.run_end import end_of
from controller.core.records.parts import JobPart
from controller.model import names
from controller.model.mutations import JOB_ADOPTED
from controller.model.names import Key
from controller.model.observed import NO_RUNS

ACT = "adopt-run"


@dataclass(slots=True)
class EndedRun:
    """A job of a request, with the ended container of docker compose."""

    asked: Asked
    job: Key
    revision: str
    id: str = ""
    name: str = ""
    #: Why the revision is held; empty if the run counts.
    findings: list[Finding] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """The outcome in the record."""
        return "held" if self.findings else "succeeded"

    def to_json(self) -> dict[str, object]:
        """Return the run for an operator."""
        return {
            "job": str(self.job),
            "container": self.id,
            "name": redact.text(self.name),
            "outcome": self.outcome,
            "reasons": [redact.text(f"{each.path}: {each.reason}") for each in self.findings],
        }


def run_of(asked: Asked) -> EndedRun | None:
    """Return the run that a request names; None if its create is no job's first run of a revision."""
    labels = asked.create.get("Labels")
    texts = {str(k): str(v) for k, v in labels.items()} if isinstance(labels, Mapping) else {}
    is_run = names.run_of_slot(texts.get(names.SLOT, "")) > 0
    namespace, name = texts.get(names.NAMESPACE, ""), texts.get(names.SERVICE, "")
    revision = texts.get(names.REVISION, "")
    fits = (
        is_run
        and texts.get(names.OCCASION) == ON_CHANGE
        and names.is_dns_label(namespace, length=names.NAMESPACE_MAX)
        and names.is_dns_label(name, length=names.JOB_NAME_MAX)
        and names.is_revision(revision)
    )
    return EndedRun(asked, names.job_key(namespace, name), revision) if fits else None


def judge_runs(judge: AdoptionJudge, runs: list[EndedRun], state: GateState) -> Flow[None]:
    """Find out which runs count, and drop those of revisions that ran or are held. Changes nothing."""
    known = state.inventory.jobs
    runs[:] = [
        run for run in runs if known.get(run.job, NO_RUNS).occasion(run.revision, ON_CHANGE) is None
    ]
    for run in runs:
        yield from _judge(judge, run, state)


def _judge(judge: AdoptionJudge, run: EndedRun, state: GateState) -> Flow[None]:
    inspect = yield from joining.find_foreign(run.asked.container)
    if inspect is None or str(inspect.get("Id", "")) in state.inventory.containers:
        run.findings.append(Finding("adopt.unknown", "container", "no ended container is there"))
        return
    run.id, run.name = str(inspect["Id"]), str(inspect.get("Name") or "").removeprefix("/")
    end = end_of(inspect, None)
    if end is None or end.outcome != "succeeded":
        how = "has not ended" if end is None else end.why
        run.findings.append(Finding("adopt.run", "State", f"{run.name} {how}"))
        return
    candidate = AdoptionCandidate(run.asked, state.new_id(), id=run.id, found_name=run.name)
    admitted = yield from judge.admit_document(candidate, inspect)
    if admitted is not None:
        document, existing = (
            parse_create(candidate.taken.create),
            judge.request_of(inspect, admitted[1]),
        )
        candidate.findings += likeness.differences_of_run(existing, document, admitted[1])
        yield from judge.compare_contents(candidate)
    run.findings = candidate.findings


def record_runs(call: GateRequest, state: GateState, runs: list[EndedRun], note: str) -> Flow[None]:
    """Record each run that counts, and a hold for each other job."""
    for run in runs:
        by = Author(state.new_id(), call.actor, policy=call.policy.digest)
        labels = {names.NAMESPACE: run.job.namespace, names.SERVICE: run.job.name}
        summary = JobPart(
            act=ACT,
            labels=labels,
            revision=run.revision,
            outcome=run.outcome,
            name=redact.text(run.name),
            identity=run.id,
            note=note,
        )
        request = request_of("POST", JOB_ADOPTED, str(run.job), summary.members)
        yield from require_record("operator", by, request)
