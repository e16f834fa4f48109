"""Adoption: unknown containers, networks and volumes with the label of the instance, taken over.

For a state folder that was lost, or is older than the objects. Each object is judged like a
create of today (``core.admission.adoption``), a running container also by the kernel's view, and
before anything is recorded. Nothing is forwarded to the engine. An adoption is one record for each
object, by an operator; the rest stays foreign and unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from controller.broker.gate import journal_entries, redact
from controller.broker.gate.call import (
    Author,
    Flow,
    GateRequest,
    inspect_paths,
    read_if_readable,
    read_json,
    read_members,
)
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import conflicts, kernel_verify, lookup, recovery
from controller.broker.handlers import adoption_joining, container_hooks
from controller.broker.handlers import image as images
from controller.broker.handlers.container_create import host_facts
from controller.broker.wire import json_reply
from controller.core.admission import adoption, create
from controller.core.admission.adoption import Claim, Defaults
from controller.core.admission.dns_names import clashes, of_summary
from controller.core.effective import is_reserved
from controller.core.encoding.identifiers import repository_of
from controller.core.enforcement.approvals import NOTE_MAX
from controller.core.engine_api import parse
from controller.core.engine_api.engine_objects import ENGINE_OBJECT, misfit
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.engine_api.translate import ZERO_TIME
from controller.core.files.content import config_root
from controller.core.records.inventory import fold_adoption
from controller.core.records.parts import AdoptionPart, SummaryPart
from controller.core.rules.confinement import data_path
from controller.core.rules.context import CreateFacts, Stamp
from controller.core.rules.verdict import AdmissionDecision, verdict_of
from controller.model.inventory import ContainerItem, Inventory, OwnedObject, PinnedImage
from controller.model.mutations import ADOPT
from controller.model.policy.document import Policy
from controller.model.records import Actor, Reply, Role, Verdict

#: Other mutations wait while the objects are judged.
OBJECTS_MAX = 100


@dataclass(slots=True)
class Candidate:
    """An object with this instance's label outside the inventory, and the findings about it."""

    claim: Claim
    inspect: Mapping[str, Any]
    state: str = ""
    created: str = ""
    findings: list[Finding] = field(default_factory=list)
    #: The summary for the record; of a container, once judged.
    summary: dict[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Whether the object can be adopted."""
        return verdict_of(self.findings)

    def to_json(self) -> dict[str, object]:
        """Return the candidate for an operator."""
        claim, verdict = self.claim, self.verdict
        texts = {
            name: redact.text(str(getattr(claim, name)))
            for name in (
                *("name", "origin", "owner", "namespace", "service"),
                *("slot", "revision", "intent", "image"),
            )
        }
        return {
            "kind": claim.kind,
            "id": claim.id,
            "subject": claim.subject,
            **texts,
            "madeAt": claim.made_s,
            "imageId": str(self.inspect.get("Image") or ""),
            "state": self.state,
            "verdict": {
                "decision": verdict.decision,
                "rules": list(verdict.rules),
                "reason": redact.text(verdict.reason),
                "remedy": redact.text(verdict.remedy),
            },
        }


def strangers(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET strangers``: list and judge the unknown objects with this instance's label.

    With a project: list its containers outside the inventory. With a state folder: judge as a broker on
    that folder would, whose files the containers mount.
    """
    if project := call.query.get("project"):
        listed = yield from adoption_joining.project_containers(state, project)
        return json_reply(200, {"project": redact.text(project), "containers": listed})
    if folder := call.query.get("state"):
        state = replace(state, file_roots={**state.file_roots, "config": config_root(folder)})
    found = yield from _Survey(call.policy, state).run()
    shown = [candidate.to_json() for candidate in found]
    restored = state.inventory.restored
    return json_reply(200, {"instance": state.instance, "objects": shown, "restored": restored})


def adopt_labelled(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Handle ``POST records``, act adopt: adopt the named objects, as far as admission allows."""
    wanted, remark = _read(body)
    found = yield from _Survey(call.policy, state, only=wanted.__contains__).run()
    taken, left = list[Candidate](), list[Candidate]()
    for candidate in found:
        if candidate.claim.subject not in wanted:
            continue
        if candidate.findings or _is_known(state.inventory, candidate.claim):
            left.append(candidate)
            continue
        by = Author(state.new_id(), call.actor, policy=call.policy.digest)
        request = journal_entries.request_of("POST", ADOPT, candidate.claim.id, candidate.summary)
        if not (yield from journal_entries.record_event("operator", by, request)):
            return journal_entries.journal_unavailable(call.id)
        taken.append(candidate)
    totals = {"act": "adopt", "adopted": len(taken), "left": len(left), "note": remark}
    request = journal_entries.request_of("POST", ADOPT, state.instance, totals)
    yield from journal_entries.require_record("operator", call.by, request)
    # An operator reviewed the present objects: from now on only newer ones are a rival's.
    state.split_brain.alone_since = state.clock.now()
    yield from recovery.survey(state)
    shown = {
        "adopted": [each.to_json() for each in taken],
        "left": [each.to_json() for each in left],
    }
    return json_reply(200, {"id": call.id, **shown})


def _read(body: Mapping[str, object]) -> tuple[frozenset[str], str]:
    objects, remark = body.get("objects"), body.get("note", "")
    fits = isinstance(objects, list) and len(objects) <= OBJECTS_MAX
    if not fits or not isinstance(remark, str) or len(remark) > NOTE_MAX:
        raise _invalid()
    assert isinstance(objects, list), "it was looked at"
    if not all(isinstance(each, str) for each in objects) or body.keys() - {
        "act",
        "objects",
        "note",
    }:
        raise _invalid()
    return frozenset(objects), remark


def _invalid() -> Denied:
    return Denied(
        "adopt.invalid",
        "the objects to adopt can't be read",
        f'send {{"act": "adopt", "objects": […], "note": …}} with at most {OBJECTS_MAX} objects',
        status=400,
    )


def _owned(inventory: Inventory, kind: str) -> Mapping[str, ContainerItem | OwnedObject]:
    """Return the objects of a kind in the inventory, by id."""
    known: dict[str, Mapping[str, ContainerItem | OwnedObject]] = {
        "container": inventory.containers,
        "network": inventory.networks,
        "volume": inventory.volumes,
    }
    return known[kind]


def _is_known(inventory: Inventory, claim: Claim) -> bool:
    return claim.id in _owned(inventory, claim.kind)


class _Survey:
    """Judges all objects with the label of the instance outside the inventory.

    The survey judges with a copy of the inventory and adds each adoptable object, since a
    container's network must be known before the container. The gate's own inventory stays
    unchanged.
    """

    def __init__(
        self,
        policy: Policy,
        state: GateState,
        *,
        only: Callable[[str], bool] = lambda _subject: True,
    ) -> None:
        self._policy = policy
        self._state = replace(state)
        self._only = only
        self._found: list[Candidate] = []
        self._images: dict[str, Any] = {}
        self._defaults = Defaults()

    def run(self) -> Flow[list[Candidate]]:
        """Return all candidates, networks and volumes first.

        Raises:
            Answered: the engine doesn't answer.
        """
        state = self._state
        self._defaults = Defaults.of((yield from read_json("/info")) or {})
        networks = yield from read_members(recovery.instance_list_path("/networks", state))
        volumes = yield from read_members(
            recovery.instance_list_path("/volumes", state), of="Volumes"
        )
        path = recovery.instance_list_path("/containers/json", state, all="1")
        listed = yield from read_members(path, "Id")
        self._found = [
            *self._candidates("network", networks),
            *self._candidates("volume", volumes),
        ]
        for each in listed:
            # A list has too few members of a container, under other names.
            inspect = yield from read_if_readable(f"/containers/{each.get('Id', '')}/json")
            self._found += self._candidates("container", () if inspect is None else (inspect,))
        self._found.sort(key=lambda c: (adoption.KINDS.index(c.claim.kind), c.created, c.claim.id))
        for candidate in self._found:
            if self._only(candidate.claim.subject):
                yield from self._judge(candidate)
        return [each for each in self._found if self._only(each.claim.subject)]

    def _candidates(
        self, kind: adoption.ObjectKind, inspects: Iterable[Any]
    ) -> Iterator[Candidate]:
        inventory = self._state.inventory
        for inspect in inspects:
            if misfit(inspect, ENGINE_OBJECT):
                continue  # an object of unexpected form is nobody's
            claim = adoption.claim_of(kind, inspect)
            if (
                _is_known(inventory, claim)
                or claim.id in inventory.released
                or claim.intent in inventory.open
            ):
                continue
            status = str((inspect.get("State") or {}).get("Status") or "")
            created = str(inspect.get("Created") or inspect.get("CreatedAt") or "")
            yield Candidate(claim, inspect, status, created)

    def _judge(self, candidate: Candidate) -> Flow[None]:
        candidate.findings += adoption.judge_claim(
            candidate.claim, taken=self._other_intents(candidate)
        )
        if candidate.findings:
            return
        if candidate.claim.kind == "container":
            yield from self._judge_container(candidate)
        else:
            candidate.findings += adoption.judge_plain(candidate.claim, candidate.inspect)
            candidate.summary = self._plain_summary(candidate)
        if not candidate.findings:
            request = journal_entries.request_of(
                "POST", ADOPT, candidate.claim.id, candidate.summary
            )
            inventory = self._state.inventory
            self._state.inventory = fold_adoption(inventory, inventory.seq, request)

    def _other_intents(self, candidate: Candidate) -> Iterator[str]:
        kind = candidate.claim.kind
        ours = _owned(self._state.inventory, kind).values()
        yield from (each.intent for each in ours if each.id != candidate.claim.id)
        for other in self._found:
            if other is not candidate and other.claim.kind == kind:
                yield other.claim.intent

    def _plain_summary(self, candidate: Candidate) -> dict[str, object]:
        labels = candidate.inspect.get("Labels") or {}
        reserved = {key: value for key, value in labels.items() if is_reserved(key)}
        kind, name = candidate.claim.kind, candidate.claim.name
        return AdoptionPart(act="adopt", kind=kind, name=name, labels=reserved).members

    def _judge_container(self, candidate: Candidate) -> Flow[None]:
        claim, inspect = candidate.claim, candidate.inspect
        image = yield from self._image(str(inspect.get("Image") or ""))
        if image is None:
            reason = "its image isn't there any more"
            candidate.findings.append(Finding("image.missing", "Image", reason, "pull it first"))
            return
        actor = adoption.actor_of(claim, self._policy)
        body = adoption.create_body_of(
            inspect, image, actor=actor, defaults=self._defaults, roots=self._state.file_roots
        )
        reference = claim.image if actor.role is Role.CONTROLLER else self._admitted_name(image)
        if actor.role is not Role.CONTROLLER:
            body["Image"] = reference
        places = adoption.delivered_places(inspect, self._state.file_roots)
        asked = adoption.with_known_variants(parse.parse_create(body), places)
        judged = yield from self._admit(claim, actor, asked, image, reference)
        candidate.findings += [f for f in judged.findings if judged.verdict.decision == "deny"]
        if candidate.findings:
            return
        assert judged.settings is not None, "an admitted create has settings"
        candidate.findings += adoption.judge_likeness(judged, inspect)
        candidate.findings += self._conflicts(judged.summary, claim, image)
        started = str((inspect.get("State") or {}).get("StartedAt") or ZERO_TIME) != ZERO_TIME
        candidate.summary = (
            judged.summary
            | AdoptionPart(
                act="adopt", kind="container", settings=judged.settings, started=started
            ).members
            | container_hooks.summary_of(self._state, asked.hooks).members
        )
        if candidate.state == "running" and not candidate.findings:
            yield from self._verify_running(candidate)

    def _image(self, identifier: str) -> Flow[Any]:
        if identifier not in self._images:
            self._images[identifier] = yield from images.inspect_image(identifier)
        return self._images[identifier]

    def _admitted_name(self, image: Mapping[str, Any]) -> str:
        """Return an admitted name of an image. The containers of clients don't record the name."""
        shown = images.admitted_names(dict(image), self._policy) or {}
        return next(iter((*shown.get("RepoTags", ()), *shown.get("RepoDigests", ()))), "")

    def _admit(
        self,
        claim: Claim,
        actor: Actor,
        request: CreateRequest,
        image: dict[str, Any],
        reference: str,
    ) -> Flow[AdmissionDecision]:
        """Judge the create of a container like the present one, by the present facts."""
        state, policy = self._state, self._policy
        wants = create.needs(request, actor=actor, policy=policy, volumes_root=state.volumes_root)
        networks, volumes = {}, {}
        for name in wants.networks:
            network = yield from lookup.find_network(state, name)
            if network is not None:
                networks[name] = network.facts
        for name in wants.volumes:
            volume = yield from lookup.find_volume(state, name)
            if volume is not None:
                volumes[name] = volume.facts
        data = (data_path(state.volumes_root, name) for name in wants.volumes)
        paths = yield from inspect_paths((*wants.paths, *data))
        shown = images.facts_of(image, reference, state.inventory)
        repository = repository_of(reference) or ""
        facts = CreateFacts(
            host=host_facts(state),
            image=shown,
            # The operator vouches for the running image, under its revision.
            pin=PinnedImage(shown.id, shown.digest, repository),
            paths=paths,
            networks=networks,
            volumes=volumes,
            files=state.inventory.files,
            existing=True,
        )
        return create.admit_create(
            request,
            name=claim.name,
            actor=actor,
            policy=policy,
            facts=facts,
            stamp=Stamp(instance=state.instance, intent=claim.intent),
        )

    def _conflicts(
        self, summary: Mapping[str, Any], claim: Claim, image: Mapping[str, Any]
    ) -> Iterator[Finding]:
        """Yield conflicts with own objects: DNS names, and the image of the revision."""
        mine = of_summary(SummaryPart.read(summary))
        others = conflicts.names_in_use(self._state, mine)
        yield from clashes(mine, others, policy=self._policy.networks)
        pin = self._state.inventory.pins.get(claim.revision)
        if claim.revision and pin is not None and pin.id != image.get("Id"):
            reason = f"its revision runs the image {pin.id}, and it is of {image.get('Id')}"
            yield Finding(
                "adopt.image", "Image", reason, "remove it, and let trimtab create it again"
            )

    def _verify_running(self, candidate: Candidate) -> Flow[None]:
        """Compare the kernel's view of a running container with its would-be admission."""
        request = journal_entries.request_of("POST", ADOPT, candidate.claim.id, candidate.summary)
        inventory = self._state.inventory
        item = fold_adoption(inventory, inventory.seq, request).containers[candidate.claim.id]
        sight = yield from kernel_verify.verify(self._state, item, self._policy)
        remedy = partial(Finding, remedy="find out who changed it; remove it, if it isn't needed")
        candidate.findings += [remedy(each.rule, "kernel", each.text) for each in sight.breaches]
        candidate.summary |= AdoptionPart(effective=sight.text).members
