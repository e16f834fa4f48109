"""The judgement of containers that are to be adopted as found, and of ended runs of their jobs.

The judgement of containers that are to be adopted as found. Changes nothing.

The document is admitted first, like a create of the controller. Then the container is compared with
the admitted create, field by field, and with the kernel's view.

Ended runs of docker compose that count as runs of jobs: a migration doesn't run twice.

Nothing is adopted: the container stays that of docker compose. An operator names job and container. The
run counts as that of the job's revision if it succeeded, and if the container has the image, the program,
the variables, the user and the mounts of the document. Otherwise the revision is held: no run is made
before an operator asks for one. Decision 89 has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest, read_engine, read_json
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards import kernel_verify
from controller.broker.handlers import adoption_joining, container_create
from controller.broker.handlers import image as images
from controller.broker.handlers.volumes import JudgedObject, judge_adoption, record_of
from controller.core.admission.adoption import AdoptionRequest, Defaults
from controller.core.admission.calls import judge_memory_in_use, memory_in_use
from controller.core.admission.engine_body import port_with_address
from controller.core.adoption import forms, likeness
from controller.core.adoption import gaps as hardening
from controller.core.effective import is_reserved
from controller.core.encoding.json_values import mapping_of, texts_of
from controller.core.enforcement.kernel import REVERSIBLE
from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.engine_api.parse import parse_create
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.engine_api.translate import endpoint_aliases, limits_body, settings
from controller.core.jobs.memory import ON_CHANGE, end_of
from controller.core.policy.grants import with_grants
from controller.core.records.container_effects import adopt_container
from controller.core.records.inventory import fold_adoption
from controller.core.records.parts import (
    AdoptionPart,
    Closing,
    CreatePart,
    JobPart,
    RequestPart,
    ResultPart,
)
from controller.core.rules.context import CONTROLLER
from controller.core.rules.identity import judge_labels
from controller.core.rules.logs import log_with_defaults
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.confinement import Gap
from controller.model.inventory import ContainerItem, Inventory, next_name
from controller.model.mutations import JOB_ADOPTED, Mutation
from controller.model.names import Key
from controller.model.observed import NO_RUNS, Settings
from controller.model.records import Reply, Role

#: The labels of a slot, and the changes that give a slot a container.
_PLACE = (names.NAMESPACE, names.SERVICE, names.SLOT, names.ORIGIN)
_MAKES = frozenset({Mutation.CONTAINER_CREATE, Mutation.CONTAINER_ADOPT})


@dataclass(frozen=True, slots=True)
class Asked:
    """One container of a request: the create of its document, and the admitted gaps."""

    container: str
    #: The name that trimtab would give to a container of the slot.
    name: str
    create: Mapping[str, Any]
    admit: frozenset[str]
    #: The declared paths of the mounted files, by target (``forms.DeclaredFiles``).
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class AdoptionCandidate:
    """A container to adopt, with the findings about it."""

    asked: Asked
    #: The id of its intent.
    intent: str
    id: str = ""
    found_name: str = ""
    gaps: tuple[str, ...] = ()
    #: The document's create with the container's files, and the fields of other forms.
    taken: forms.FoundFiles = field(default_factory=lambda: forms.FoundFiles({}))
    forms: tuple[forms.FoundForm, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    summary: AdoptionPart = field(default_factory=AdoptionPart)
    #: The body of the update.
    update: dict[str, object] = field(default_factory=dict)
    #: The networks of the document, with the aliases there.
    joins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: The networks that it has joined already.
    joined: frozenset[str] = frozenset()
    leaves: tuple[str, ...] = ()
    #: Networks of the document in which it has other names, so that it joins them again.
    rejoins: tuple[str, ...] = ()
    effective: str = ""
    lookups: container_create.Lookups | None = None
    #: The compared fields.
    compared: likeness.Comparable = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str, str]:
        """Namespace, service and slot."""
        labels = mapping_of(self.asked.create.get("Labels"))
        namespace, service, slot = (
            redact.text(str(labels.get(each, "")))
            for each in (names.NAMESPACE, names.SERVICE, names.SLOT)
        )
        return namespace, service, slot

    def to_json(self) -> dict[str, object]:
        """Return the candidate for an operator."""
        namespace, service, slot = self.place
        return {
            "container": redact.text(self.asked.container),
            "id": self.id,
            "name": redact.text(self.found_name),
            "namespace": namespace,
            "service": service,
            "slot": slot,
            "gaps": [
                {
                    "gap": gap,
                    "means": hardening.DESCRIPTIONS[gap],
                    "admitted": gap in self.asked.admit,
                    "fields": [redact.text(each.text) for each in self.forms if each.gap == gap],
                }
                for gap in self.gaps
            ],
            "joins": sorted(self.joins.keys() - self.joined),
            "leaves": [redact.text(each) for each in self.leaves],
            "rejoins": [redact.text(each) for each in self.rejoins],
            "publishes": bool(self.summary.ports),
            "update": sorted(self.update),
            "findings": [finding_to_json(each) for each in self.findings],
        }


class AdoptionJudge:
    """Judges the candidates of a request. Changes nothing."""

    def __init__(
        self,
        call: GateRequest,
        state: GateState,
        leave: frozenset[str],
        note: str,
        *,
        folder: str = "",
    ) -> None:
        self._call = call
        # A copy: adopted objects are added to its inventory, since documents name them.
        self._state = replace(state)
        self._leave = leave
        self._note = note
        self._folder = folder
        self.objects: list[JudgedObject] = []
        self._defaults = Defaults()

    def run(
        self, candidates: list[AdoptionCandidate], objects: list[AdoptionRequest]
    ) -> Flow[None]:
        """Judge the volumes and networks, and then all candidates.

        Raises:
            Answered: the engine doesn't answer.
        """
        self._defaults = Defaults.of((yield from read_json("/info")) or {})
        inspects = []
        for candidate in candidates:
            inspect = yield from adoption_joining.find_foreign(candidate.asked.container)
            inspects.append(inspect)
            if inspect is not None:
                candidate.id = str(inspect.get("Id") or "")
                candidate.found_name = str(inspect.get("Name") or "").removeprefix("/")
        together = frozenset(each.id for each in candidates)
        for request in objects:
            yield from self._judge_object(request, together)
        slots = [each.place for each in candidates]
        ids = [each.id for each in candidates]
        for candidate, inspect in zip(candidates, inspects, strict=True):
            if inspect is None:
                reason, remedy = "the engine has no such container", "look at 'docker ps'"
                candidate.findings.append(Finding("adopt.unknown", "container", reason, remedy))
                continue
            candidate.findings += judge_place(self._state.inventory, candidate)
            if slots.count(candidate.place) > 1:
                namespace, service, slot = candidate.place
                reason = f"slot {slot} of {namespace}/{service} is named twice in the request"
                remedy = "name another slot"
                candidate.findings.append(Finding("adopt.slot-taken", "slot", reason, remedy))
            if ids.count(candidate.id) > 1:
                reason, remedy = "the request names it twice", "name it once, for one slot"
                candidate.findings.append(Finding("adopt.owned", "container", reason, remedy))
            was_ours = candidate.id in self._state.inventory.released
            candidate.findings += likeness.judge_identity(inspect, was_ours=was_ours)
            if not candidate.findings:
                yield from self._judge(candidate, inspect)
            if not any(each.rule == "adopt.owned" for each in candidate.findings):
                yield from self._judge_networks(candidate, inspect, together)

    def _judge_object(self, request: AdoptionRequest, together: frozenset[str]) -> Flow[None]:
        """Judge a volume or network, and count it as ours for the containers."""
        policy, intent = self._call.policy, self._state.new_id()
        try:
            judged = yield from judge_adoption(
                self._state, request, policy, intent=intent, note=self._note, together=together
            )
        except Denied as denied:
            finding = Finding(denied.rules[0], "Name", denied.reason, denied.remedy)
            judged = JudgedObject(request, (finding,))
        judged = replace(judged, findings=with_grants(judged.findings, policy))
        self.objects.append(judged)
        if not judged.findings:
            inventory = self._state.inventory
            recorded = record_of(judged)
            self._state.inventory = fold_adoption(inventory, inventory.seq, recorded)

    def _judge(self, candidate: AdoptionCandidate, inspect: Mapping[str, Any]) -> Flow[None]:
        admitted = yield from self.admit_document(candidate, inspect)
        if admitted is None:
            return
        judged, image = admitted
        assert judged.settings is not None, "an admitted create has settings"
        now = settings(inspect)
        wanted = replace(judged.settings, name=candidate.found_name)
        self._compare(candidate, inspect, image, wanted)
        yield from self.compare_contents(candidate)
        candidate.joins = adoption_joining.endpoints_of(judged.body or {})
        if not candidate.findings:
            yield from self._refuse_memory_in_use(candidate, now, wanted)
            candidate.update = _update_body(wanted)
            candidate.summary = self._summary(candidate, judged, inspect, wanted)
            yield from self._verify(candidate)

    def admit_document(
        self, candidate: AdoptionCandidate, inspect: Mapping[str, Any]
    ) -> Flow[tuple[AdmissionDecision, Mapping[str, Any]] | None]:
        """Return the admission of a candidate's document, and the image; None with a finding."""
        asked = candidate.asked
        existing = self.request_of(inspect, {})
        project = forms.DeclaredFiles(self._folder, asked.files)
        wanted_create = parse_create(dict(asked.create))
        candidate.taken = forms.with_found_files(asked.create, existing, project, wanted_create)
        candidate.findings += candidate.taken.findings
        if candidate.findings:
            return None
        try:
            found, judged = yield from self._admit_create(candidate)
        except Denied as denied:
            candidate.findings.append(
                Finding(denied.rules[0], "document", denied.reason, denied.remedy)
            )
            return None
        except Answered as answered:
            if answered.reply.status >= 500:
                raise
            reason = answered.reply.body.decode("utf-8", "replace")
            candidate.findings.append(Finding("adopt.image", "document", reason, "pull it first"))
            return None
        image = yield from images.inspect_image(found.image.id)
        if inspect.get("Image") != found.image.id or image is None:
            reason = f"it runs {inspect.get('Image')}, and the document leads to {found.image.id}"
            remedy = "name the image that it runs, by its digest for example"
            candidate.findings.append(Finding("adopt.differs", "spec.image", reason, remedy))
            return None
        candidate.lookups = found
        return judged, image

    def request_of(self, inspect: Mapping[str, Any], image: Mapping[str, Any]) -> CreateRequest:
        """Return the create of an existing container."""
        return likeness.request_of(inspect, image, self._defaults)

    def _admit_create(
        self, candidate: AdoptionCandidate
    ) -> Flow[tuple[container_create.Lookups, AdmissionDecision]]:
        """Judge the create of the document, as one of the controller's."""
        # A released container may have the very name that its document leads to.
        known = self._state.inventory
        released = known.released.get(candidate.id)
        name = candidate.asked.name if released is None else next_name(known, released)
        call = replace(
            self._call,
            id=candidate.intent,
            actor=CONTROLLER,
            body=candidate.taken.create,
            query={"name": name},
        )
        found, _, judged = yield from container_create.judge(call, self._state, makes_networks=True)
        return found, judged

    def _compare(
        self,
        candidate: AdoptionCandidate,
        inspect: Mapping[str, Any],
        image: Mapping[str, Any],
        wanted: Settings,
    ) -> None:
        """Compare the container with its document, field by field."""
        policy, host = self._call.policy, mapping_of(inspect.get("HostConfig"))
        document = parse_create(candidate.taken.create)
        document = replace(
            document,
            log=log_with_defaults(document.log, policy),
            ports=tuple(port_with_address(port, policy) for port in document.ports),
        )
        existing = self.request_of(inspect, image)
        present = mapping_of(mapping_of(inspect.get("Config")).get("Labels"))
        inherited = mapping_of(mapping_of(image.get("Config")).get("Labels"))
        was_ours = candidate.id in self._state.inventory.released
        labels = {key: value for key, value in present.items() if not is_reserved(key)}
        asked = {key: value for key, value in document.labels if not is_reserved(key)}
        found = candidate.compared = likeness.comparable(existing, image)
        listed = (*candidate.taken.forms, *forms.found_forms(existing, document))
        taken, seen = forms.take_forms(found, likeness.comparable(document, image), listed)
        pair, candidate.forms = (found, taken), tuple(seen)
        gaps = [*hardening.gaps_of(host, document), *(each.gap for each in seen)]
        candidate.gaps = tuple(dict.fromkeys(gap.value for gap in gaps))
        candidate.findings += [
            *existing.findings,
            *(() if was_ours else likeness.judge_reserved_labels(present, inherited)),
            *judge_labels(labels.items(), policy, Role.CONTROLLER, ""),
            *hardening.judge_hardening(host, document, policy.logs.drivers),
            *likeness.judge_mode(inspect, document),
            *likeness.differences(*pair, (labels, asked)),
            *likeness.judge_limits(settings(inspect), wanted),
            *hardening.judge_gaps(map(Gap, candidate.gaps), candidate.asked.admit, candidate.forms),
        ]

    def compare_contents(self, candidate: AdoptionCandidate) -> Flow[None]:
        """Compare the files that the container sees with the document's Configs."""
        for content in candidate.taken.contents:
            path = build_path(f"/containers/{candidate.id}/archive", {"path": content.target})
            try:
                reply = yield from read_engine(path)
            except Answered:
                reply = Reply(502)
            archive = reply.body if reply.status == 200 else b""
            candidate.findings += forms.judge_content(content, archive)

    def _refuse_memory_in_use(
        self, candidate: AdoptionCandidate, now: Settings, wanted: Settings
    ) -> Flow[None]:
        if 0 < now.memory <= wanted.memory:
            return
        path = f"/containers/{candidate.id}/stats?stream=false&one-shot=true"
        used = memory_in_use((yield from read_json(path)) or {})
        candidate.findings += judge_memory_in_use(wanted.memory, used)

    def _summary(
        self,
        candidate: AdoptionCandidate,
        judged: AdmissionDecision,
        inspect: Mapping[str, Any],
        wanted: Settings,
    ) -> AdoptionPart:
        """Return the summary of the intent: a create's summary, with the findings."""
        image = candidate.lookups.image if candidate.lookups else None
        admitted = CreatePart.read(judged.summary)
        existing = self.request_of(inspect, {})
        ports = forms.found_ports(existing) if Gap.PORTS in candidate.gaps else admitted.ports
        host = mapping_of(inspect.get("HostConfig"))
        confined = admitted.confinement
        if confined is not None:
            confined = replace(
                confined,
                capabilities=tuple(sorted(hardening.capabilities_of(host))),
                read_only_root=bool(host.get("ReadonlyRootfs")),
                new_privileges=Gap.NEW_PRIVILEGES in candidate.gaps,
                user="",  # it keeps the groups that it has
                groups=(),
            )
            confined = forms.with_found_sizes(confined, existing)
        compared = likeness.fingerprint_of(candidate.compared, host, settings(inspect))
        key = self._state.hash_key
        return admitted | AdoptionPart(
            act="adopt",
            kind="container",
            name=candidate.found_name,
            image_id=image.id if image else "",
            digest=image.digest if image else "",
            settings=wanted,
            confinement=confined,
            updated_members=tuple(sorted(candidate.update)),
            gaps=candidate.gaps,
            ports=ports,
            fingerprint=redact.keyed_digest(key, compared) if key else "",
            capabilities=confined.capabilities if confined is not None else (),
            network_aliases=self._kept_aliases(candidate, admitted, inspect),
            started=True,
            note=self._note,
        )

    def _kept_aliases(
        self, candidate: AdoptionCandidate, admitted: CreatePart, inspect: Mapping[str, Any]
    ) -> dict[str, object]:
        """Return the document's aliases by network, with the container's name where it has it.

        Docker compose gives each container its name as an alias. The name resolves anyway.
        """
        aliases = {name: texts_of(each) for name, each in admitted.network_aliases.items()}
        for network, present in endpoint_aliases(inspect):
            if network in candidate.joins and candidate.found_name in present:
                aliases[network] = (*aliases.get(network, ()), candidate.found_name)
        return {name: list(each) for name, each in aliases.items()}

    def _verify(self, candidate: AdoptionCandidate) -> Flow[None]:
        """Compare the kernel's view with the future admission. Limits and networks come later."""
        item = _item_of(candidate)
        sight = yield from kernel_verify.verify(self._state, item, self._call.policy)
        lasting = [each for each in sight.breaches if each.rule not in REVERSIBLE]
        remedy = "find out who changed it; let trimtab create the container"
        candidate.findings += [Finding(each.rule, "kernel", each.text, remedy) for each in lasting]
        candidate.effective = replace(sight, breaches=()).text

    def _judge_networks(
        self, candidate: AdoptionCandidate, inspect: Mapping[str, Any], together: frozenset[str]
    ) -> Flow[None]:
        """Find the networks to leave. One with containers of others needs the operator's word."""
        joined = settings(inspect).networks
        candidate.joined = frozenset(joined)
        candidate.leaves = tuple(name for name in joined if name not in candidate.joins)
        candidate.rejoins = tuple(
            network
            for network, present in endpoint_aliases(inspect)
            if network in candidate.joins
            and not adoption_joining.has_names(
                present, candidate.joins[network], candidate.found_name
            )
        )
        for name in candidate.leaves:
            others = yield from adoption_joining.others_in(self._state, name, together)
            if others and name not in self._leave:
                reason = f"{len(others)} more containers are in the network {redact.text(name)}"
                remedy = (
                    f"adopt them together, or name the network with --leave {redact.text(name)}"
                )
                finding = Finding("adopt.network-shared", "NetworkSettings", reason, remedy)
                candidate.findings.append(finding)


def judge_place(inventory: Inventory, candidate: AdoptionCandidate) -> Iterator[Finding]:
    """Yield why a container, or its slot, is taken already, also by a change in progress."""
    namespace, service, slot = candidate.place
    items = inventory.containers
    if candidate.id in items:
        reason = f"it is {items[candidate.id].admitted.name} of this instance already"
        yield Finding("adopt.owned", "container", reason, "leave it as it is")
        return
    for item in inventory.items.of_service(namespace, service):
        if item.origin == Role.CONTROLLER.value and item.slot_label == slot:
            reason = f"slot {slot} has the container {item.admitted.name}"
            remedy = "suspend the service before its first container is made, or remove that"
            yield Finding("adopt.slot-taken", "slot", reason, remedy)
            return
    place = (*candidate.place, Role.CONTROLLER.value)
    for intent in inventory.open.values():
        request = RequestPart.read(intent.request)
        labels = tuple(map(request.summary.label, _PLACE))
        if request.route in _MAKES and labels == place:
            reason = f"a container of slot {slot} is being created or adopted"
            remedy = "suspend the service, and look again"
            yield Finding("adopt.slot-taken", "slot", reason, remedy)
            return


def finding_to_json(finding: Finding) -> dict[str, str]:
    """Return a finding for an operator."""
    return {
        "rule": finding.rule,
        "path": redact.text(finding.path),
        "reason": redact.text(finding.reason),
        "remedy": redact.text(finding.advice),
    }


def _update_body(wanted: Settings) -> dict[str, object]:
    """Return the update that brings limits and restart policy to the document's."""
    limits = {name: value for name in LIMITS if (value := getattr(wanted, name))}
    policy: dict[str, object] = {"Name": wanted.restart}
    if wanted.restart_max:
        policy["MaximumRetryCount"] = wanted.restart_max
    return limits_body(limits) | {"RestartPolicy": policy}


def _item_of(candidate: AdoptionCandidate) -> ContainerItem:
    """Return the inventory's item for an adopted container."""
    closing = Closing(
        id=candidate.intent,
        seq=0,
        role=Role.OPERATOR.value,
        object=candidate.id,
        summary=candidate.summary,
        result=ResultPart(),
        recovered=False,
        applied=True,
    )
    return adopt_container(Inventory(), closing).containers[candidate.id]


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
    inspect = yield from adoption_joining.find_foreign(run.asked.container)
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
    """Record for each job that its ended run succeeded, or why the job is held."""
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
