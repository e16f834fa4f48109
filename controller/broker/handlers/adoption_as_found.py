"""Adoption of running containers as found: containers of nobody, under declared services.

Handles ``POST /trimtab/v1/adoptions``, for operators only. All containers of a request are judged
before the first change; one refusal refuses the request. Decision 62 has the attack model.

An adoption is the intent ``container.adopt``, one update of the engine (limits, restart policy) and
the outcome, which adds the container to the inventory. Then the container joins the networks of its
document, and leaves all others. Should the broker die in between, the controller heals the rest.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from controller.broker import signed_acts
from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest, parse_json
from controller.broker.gate.journal_entries import require_record
from controller.broker.gate.mutate import Change, perform, refuse_if_held
from controller.broker.gate.refusals import Denied, refuse_for, rule_of
from controller.broker.gate.state import GateState
from controller.broker.guards import conflicts, kernel_verify
from controller.broker.handlers import adoption_joining, adoption_judging
from controller.broker.handlers.adoption_judging import (
    AdoptionCandidate,
    AdoptionJudge,
    Asked,
    EndedRun,
    finding_to_json,
    judge_place,
)
from controller.broker.handlers.volumes import JudgedObject, read_object, record_of
from controller.broker.wire import json_reply
from controller.core.admission import create as host_ports
from controller.core.admission.adoption import AdoptionRequest
from controller.core.admission.dns_names import of_summary
from controller.core.adoption import gaps
from controller.core.encoding.json_values import mapping_of, texts_of
from controller.core.enforcement.approvals import NOTE_MAX
from controller.core.engine_api.grammar import is_clean
from controller.core.engine_api.requests import Finding
from controller.core.policy.grants import granted_way_out
from controller.core.records.parts import AdoptionPart, ProofPart, ResultPart, SummaryPart
from controller.core.rules.context import CONTROLLER
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.confinement import GAPS
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import Reply, Verdict

#: Other mutations wait while the containers are judged.
CONTAINERS_MAX = 50
OBJECTS_MAX = 50
RUNS_MAX = 50
_MEMBERS = {"containers", "objects", "runs", "leave", "dryRun", "note", "folder"}
_MEMBERS_OF_ONE = {"container", "name", "create", "admit", "files"}


def adopt(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST adoptions``."""
    asked = _read(call.body)
    judge = AdoptionJudge(call, state, asked.leave, asked.note, folder=asked.folder)
    candidates = [
        AdoptionCandidate(each, call.id if not n else state.new_id())
        for n, each in enumerate(asked.containers)
    ]
    yield from judge.run(candidates, asked.objects)
    yield from adoption_judging.judge_runs(judge, asked.runs, state)
    if asked.is_dry:
        _find_missing_proofs(call, state, candidates)
    shown: dict[str, object] = {
        "dryRun": asked.is_dry,
        "containers": [each.to_json() for each in candidates],
        "objects": [_object_to_json(each, call.policy) for each in judge.objects],
        "runs": [each.to_json() for each in asked.runs],
    }
    if asked.is_dry:
        return json_reply(200, shown)
    for each in judge.objects:
        if each.findings:
            first = each.findings[0]
            subject = redact.text(each.request.name)
            raise Denied(first.rule, f"{subject}: {first.reason}", first.remedy, subject=subject)
    for candidate in candidates:
        if candidate.findings:
            first = candidate.findings[0]
            more = len(candidate.findings) - 1
            namespace, service, _ = candidate.place
            name = redact.text(candidate.found_name)
            raise Denied(
                first.rule,
                f"{redact.text(candidate.asked.container)}: {first.path}: {first.reason}"
                + (f"; and {more} more" if more else ""),
                first.remedy,
                subject=candidate.id or redact.text(candidate.asked.container),
                summary=SummaryPart(name=name, namespace=namespace, service=service).members,
            )
    for candidate in candidates:
        _proof_of(call, state, candidate)  # refuses before the first change
    ids = [each.id for each in candidates]
    with state.verification.holding(*ids):
        for each in judge.objects:
            by = Author(state.new_id(), call.actor, policy=call.policy.digest)
            yield from require_record("operator", by, record_of(each))
        yield from adoption_judging.record_runs(call, state, asked.runs, asked.note)
        done, failed = yield from _adopt_all(call, state, candidates)
    for identifier in [each.id for each in done]:
        yield from kernel_verify.verify_container(state, identifier)
    result = {**shown, "adopted": [each.id for each in done], "failed": failed}
    return json_reply(200, {"id": call.id, **result})


def _object_to_json(judged: JudgedObject, policy: Policy) -> dict[str, object]:
    """Return a judged volume or network for an operator.

    A network with a way out has the words of the policy that grant it.
    """
    request = judged.request
    return {
        "granted": granted_way_out(policy) if judged.has_way_out else "",
        "kind": request.kind,
        "name": redact.text(request.name),
        "namespace": redact.text(request.namespace),
        "findings": [finding_to_json(each) for each in judged.findings],
    }


def _find_missing_proofs(
    call: GateRequest, state: GateState, candidates: list[AdoptionCandidate]
) -> None:
    """Add the refusal of each adoption without a proof and without another finding."""
    for candidate in candidates:
        if not candidate.findings:
            try:
                _proof_of(call, state, candidate)
            except Denied as denied:
                candidate.findings.append(
                    Finding(denied.rule, "document", denied.reason, denied.remedy)
                )


def _adopt_all(
    call: GateRequest, state: GateState, candidates: list[AdoptionCandidate]
) -> Flow[tuple[list[AdoptionCandidate], list[dict[str, object]]]]:
    """Adopt all candidates, join the new networks, and only then leave the old networks.

    Return the adopted containers, and the failures. Containers of a common old network meet on the
    new network before any of them leaves the old network.
    """
    done, failed = list[AdoptionCandidate](), list[dict[str, object]]()
    for candidate in candidates:
        reply = yield from _adopt_one(call, state, candidate)
        if reply.status >= 400:
            failed.append(_failure(candidate, "adopt", reply))
            break
        done.append(candidate)
    steps = [("join", each, name) for each in done for name in each.joins]
    steps += [("leave", each, name) for each in done for name in each.leaves]
    # The engine publishes ports in the first network with a way out: the old one goes before.
    steps.sort(key=lambda step: (_is_late(call, step), step[0] == "leave"))
    for step, candidate, network in steps:
        item = state.inventory.containers.get(candidate.id)
        if item is None:
            continue
        by = Author(state.new_id(), call.actor, policy=call.policy.digest)
        if step == "join":
            reply = yield from adoption_joining.join(
                state, by, item, network, candidate.joins[network]
            )
        else:
            reply = yield from adoption_joining.leave(state, by, item, network)
        if reply.status >= 400:
            failed.append(_failure(candidate, f"{step} {network}", reply))
    return done, failed


def _is_late(call: GateRequest, step: tuple[str, AdoptionCandidate, str]) -> bool:
    """Return True for a join of a network that publishes ports."""
    act, candidate, network = step
    published = bool(candidate.summary.ports)
    base = call.policy.networks.isolated
    isolated = names.namespaced_network(base, candidate.place[0])
    return act == "join" and published and network != isolated


def _failure(candidate: AdoptionCandidate, step: str, reply: Reply) -> dict[str, object]:
    rule, reason = rule_of(reply)
    text = reason or str(mapping_of(parse_json(reply)).get("message", ""))
    return {
        "id": candidate.id,
        "step": redact.text(step),
        "rule": rule,
        "reason": redact.text(text),
    }


def _adopt_one(call: GateRequest, state: GateState, candidate: AdoptionCandidate) -> Flow[Reply]:
    """Adopt a judged candidate: the intent, the update, the outcome."""
    by = Author(candidate.intent, call.actor, policy=call.policy.digest)
    if candidate.lookups is not None:
        yield from adoption_joining.make_networks(call, state, candidate.lookups)
    rules = tuple(f"adopt.gap:{gap}" for gap in candidate.gaps)

    def learn(_: Reply) -> Flow[ResultPart]:
        yield from ()
        return ResultPart(container=candidate.id, effective=candidate.effective)

    of_this = replace(call, id=candidate.intent)
    try:
        # Last: a commit can have been accepted since the comparison.
        summary = candidate.summary | AdoptionPart(proof=_proof_of(call, state, candidate))
        change = Change.of(
            Mutation.CONTAINER_ADOPT,
            candidate.id,
            f"/containers/{candidate.id}/update",
            AdmissionDecision(Verdict("allow", rules), candidate.update),
            summary.members,
        )
        _refuse_if_overtaken(state, candidate)
        with ExitStack() as reserved:
            mine = of_summary(candidate.summary)
            ports = host_ports.host_ports_of_summary(candidate.summary)
            reserved.enter_context(conflicts.reserve_names(of_this, state, mine))
            reserved.enter_context(conflicts.reserve_ports(of_this, state, ports))
            return (yield from perform(state, by, change, learn))
    except Denied as denied:
        return denied.reply(candidate.intent)


def _proof_of(call: GateRequest, state: GateState, candidate: AdoptionCandidate) -> ProofPart:
    """Return the proof of the document's create, to which the container was compared.

    Raises:
        Denied: ``proof.missing``: the broker has no rendering of the accepted commit now.
    """
    of_document = replace(
        call,
        actor=CONTROLLER,
        body=dict(candidate.asked.create),
        query={"name": candidate.asked.name},
    )
    pin = None if candidate.lookups is None else candidate.lookups.pin
    return signed_acts.proof_of_adoption(of_document, state, pin)


def _refuse_if_overtaken(state: GateState, candidate: AdoptionCandidate) -> None:
    """Refuse if another request took the container or the slot since the comparison.

    Raises:
        Denied: ``held``, ``adopt.owned``, ``adopt.slot-taken``.
    """
    refuse_if_held(state, Mutation.CONTAINER_ADOPT, candidate.id, under_way=True)
    refuse_for(judge_place(state.inventory, candidate), subject=candidate.id)


# Reading


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request to adopt containers."""

    containers: list[Asked]
    #: Volumes and networks of documents with ``engineName``, to adopt before the containers.
    objects: list[AdoptionRequest]
    #: Ended runs of jobs.
    runs: list[EndedRun]
    #: The networks to leave although others are in them.
    leave: frozenset[str]
    is_dry: bool
    note: str
    #: The folder in which docker compose ran; '' if unnamed.
    folder: str = ""


def _read(body: object) -> _Asked:
    """Return a request to adopt containers.

    Raises:
        Denied: ``adopt.invalid``, ``body.invalid``.
    """
    members = mapping_of(body)
    containers, leave = members.get("containers"), members.get("leave", [])
    objects, runs = members.get("objects", []), members.get("runs", [])
    note, is_dry = members.get("note", ""), members.get("dryRun", False)
    folder = members.get("folder", "")
    fits = (
        members.keys() <= _MEMBERS
        and isinstance(containers, list)
        and len(containers) <= CONTAINERS_MAX
        and isinstance(runs, list)
        and len(runs) <= RUNS_MAX
        and len(containers) + len(runs) > 0
        and isinstance(objects, list)
        and len(objects) <= OBJECTS_MAX
        and isinstance(leave, list)
        and all(isinstance(each, str) for each in leave)
        and isinstance(note, str)
        and len(note) <= NOTE_MAX
        and isinstance(is_dry, bool)
        and isinstance(folder, str)
        and (folder == "" or (is_clean(folder) and folder != "/"))
    )
    if not fits or not isinstance(containers, list):
        raise _invalid()
    ended = [adoption_judging.run_of(_read_one(each)) for each in runs]
    if None in ended:
        raise _invalid()
    return _Asked(
        [_read_one(each) for each in containers],
        [read_object(each) for each in objects],
        [each for each in ended if each is not None],
        frozenset(texts_of(leave)),
        bool(is_dry),
        str(note),
        str(folder),
    )


def _read_one(value: object) -> Asked:
    members = mapping_of(value)
    container, name = members.get("container"), members.get("name")
    create, admit = members.get("create"), gaps.read_gaps(members.get("admit", []))
    files = members.get("files", {})
    if (
        not members.keys() <= _MEMBERS_OF_ONE
        or not isinstance(container, str)
        or not isinstance(name, str)
        or not isinstance(create, dict)
        or admit is None
        or not isinstance(files, dict)
        or not all(isinstance(each, str) for each in files.values())
    ):
        raise _invalid()
    return Asked(container, name, create, admit, files)


def _invalid() -> Denied:
    return Denied(
        "adopt.invalid",
        "the containers to adopt can't be read",
        'send {"containers": [{"container", "name", "create", "admit", "files"}], "runs", "folder"} with at most '
        f"{CONTAINERS_MAX} containers; gaps are {', '.join(GAPS)}",
        status=400,
    )
