"""Handle ``POST /containers/create``: gather facts, judge, forward the rebuilt body, tell what was dropped.

A request with a refused text causes no look-up. The forwarded body comes from the admission, with
the image by id: only the judged body is forwarded.

Creates and updates that an engine does in part: learn what it dropped, tell, and refuse.

The engine is asked right after the change. A container without a limit that the policy requires is
removed again, and no other one is created until the engine, its kernel or the policy is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.broker import deliveries, signed_acts
from controller.broker.gate.call import (
    BROKER,
    Author,
    Flow,
    GateRequest,
    inspect_paths,
    parse_json,
    read_cdi_devices,
    read_json,
)
from controller.broker.gate.mutate import Change, perform, refuse_if_held
from controller.broker.gate.refusals import (
    Answered,
    Denied,
    message_reply,
    raise_if_denied,
    refuse_for,
)
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState, reserving
from controller.broker.guards import conflicts, job_runs, lookup
from controller.broker.guards.recovery import remove_unstarted
from controller.broker.handlers import container_hooks, networks_volumes
from controller.broker.handlers import image as images
from controller.broker.wire import json_reply, refusal
from controller.core.admission import create as host_ports
from controller.core.admission.create import judge_create, needs
from controller.core.admission.dns_names import of_summary
from controller.core.admission.networks_volumes import admit_implied_network, admit_kept_volume
from controller.core.effective import needs_accounts
from controller.core.encoding.identifiers import is_image_id
from controller.core.enforcement import limits
from controller.core.enforcement.kept_settings import (
    ignored_by_create,
    ignored_by_update,
    judge_ignored,
)
from controller.core.engine_api import parse
from controller.core.engine_api.cdi import CdiDevice
from controller.core.engine_api.requests import CreateRequest
from controller.core.records.parts import CreatePart, ProofPart, ResultPart, SummaryPart
from controller.core.rules import images as image_volumes
from controller.core.rules.confinement import data_path
from controller.core.rules.container import paths_of
from controller.core.rules.context import (
    Case,
    CreateFacts,
    HostFacts,
    ImageFacts,
    Needs,
    NetworkFacts,
    SharedContainer,
    Stamp,
    VolumeFacts,
    implied,
    make_case,
)
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.host_paths import PathFacts
from controller.model.inventory import ContainerItem, OwnedObject, PinnedImage
from controller.model.mutations import Mutation
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.records import Reply, Role, Verdict

RULE = "engine.ignores"


@dataclass(slots=True)
class Kept:
    """What became of a change: the gate's warnings, and the members that the engine dropped."""

    state: GateState
    policy: Policy
    warnings: tuple[str, ...]
    #: The body of the change.
    body: Mapping[str, Any]
    #: The admitted settings of a create; None for an update.
    settings: Settings | None = None
    #: The container of an update; '' until the answer to a create.
    container: str = ""
    ignored: tuple[str, ...] = field(default=(), init=False)

    def learn(self, reply: Reply) -> Flow[ResultPart]:
        """Return what the outcome says besides the status."""
        created = "" if self.settings is None else str(parse_json(reply).get("Id", ""))
        self.container = created or self.container
        try:
            inspect = (yield from read_json(f"/containers/{self.container}/json")) or {}
        except Answered:
            inspect = {}
        if not inspect:  # unknown: the container is gone, or the engine
            return ResultPart(container=created)
        if self.settings is None:
            self.ignored = ignored_by_update(self.body, inspect)
        else:
            self.ignored = ignored_by_create(self.body, self.settings, inspect)
            # Not of an update: others know the container, and can change it at the same time.
            self.state.learn_dropped(self.ignored)
        return ResultPart(container=created, ignored=self.ignored)

    def answer(self, reply: Reply) -> Reply | None:
        """Return the reply with all warnings; None for a create that the broker undoes."""
        if reply.status >= 400:
            return reply
        if self.is_refused:
            return None
        told = (f"{RULE}: the engine ignores {name}" for name in self.ignored)
        warnings = (*self.warnings, *told)
        if not warnings:
            return reply
        shown = parse_json(reply)
        engines = shown.get("Warnings") or ()
        return json_reply(reply.status, {**shown, "Warnings": [*engines, *warnings]})

    @property
    def is_refused(self) -> bool:
        """Return True for a create without a limit that the policy requires."""
        return self.settings is not None and any(judge_ignored(self.ignored, self.policy))

    def settle(self, reply: Reply, record: str) -> Flow[Reply]:
        """Return the caller's reply; remove a container without a required limit first."""
        answer = self.answer(reply)
        if answer is not None:
            return answer
        known = self.state.inventory
        item = known.containers.get(self.container) or known.released.get(self.container)
        if item is not None:
            yield from remove_unstarted(self.state, item, Verdict("allow", (RULE,)))
        findings = tuple(judge_ignored(self.ignored, self.policy))
        return refusal(
            403,
            RULE,
            "; ".join(each.reason for each in findings),
            remedy=findings[0].remedy,
            record=record,
        )


def refuse_without_limits(state: GateState, policy: Policy, item: ContainerItem) -> None:
    """Refuse to start a container that would run without a limit that the policy requires.

    Raises:
        Denied: ``engine.ignores``.
    """
    refuse_for(judge_ignored(state.ignores, policy), subject=item.id)


def refuse_update(
    state: GateState, policy: Policy, judged: AdmissionDecision, subject: str
) -> None:
    """Refuse an update of a limit that the engine ignores without the policy's leave.

    Raises:
        Denied: ``engine.ignores``.
    """
    touched = set(state.ignores) & set(judged.body or ())
    refuse_for(judge_ignored(touched, policy), subject=subject)


def create(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST /containers/create``."""
    found, wants, judged = yield from judge(call, state)
    signed_acts.proof_of_create(call, state, found.pin)
    if found.unmade or found.unmade_volumes or judged.folders:
        # Only an admitted create makes its networks, volumes and folders; the result is judged again.
        with reserving(state.reservations.objects, _implied_objects(found)):
            yield from make_implied(call, state, found)
            yield from deliveries.make_sources(judged.folders)
        yield from _gather(call, state, wants, found, again=True)
        judged = yield from _judge_by_facts(call, state, found)
    labels = _labels(found.by_text)
    with networks_volumes.reserve(call, state, networks_volumes.slot_of(labels), judged):
        job_runs.refuse_while_creating(state, labels)
        # Only for an admitted create: a refused one leaves no folder.
        namespace = _placement(labels)[1]
        yield from deliveries.make_requested(state, found.request, namespace)
        values = yield from deliveries.values_of(state, found.request, namespace)
        # Last: a commit can have been accepted during the look-ups.
        proof = signed_acts.proof_of_create(call, state, found.pin)
        _refuse_moved_volumes(state, found)
        return (yield from create_judged(call, state, judged, found, values=values, proof=proof))


def _refuse_moved_volumes(state: GateState, found: Lookups) -> None:
    """Refuse a volume that went to another namespace or owner during the look-ups.

    Other changes are admitted as soon as a network or volume is made for the container.

    Raises:
        Denied: ``held``.
    """
    for name, facts in found.volumes.items():
        owned = state.inventory.volumes.get(name)
        if owned is not None and (owned.namespace, owned.owner) != (facts.namespace, facts.owner):
            reason = f"the volume {name} went to another namespace or owner meanwhile"
            raise Denied("held", reason, "look again", status=409, subject=name)


def judge(
    call: GateRequest, state: GateState, *, makes_networks: bool = False
) -> Flow[tuple[Lookups, Needs, AdmissionDecision]]:
    """Return the look-ups for a create, and its admission. Changes nothing.

    *makes_networks*: the gate will make the missing networks of the namespace, for the controller
    as for clients.

    Raises:
        Answered: the engine has no such image.
        Denied: admission denies the create.
    """
    request = parse.parse_create(call.body)
    by_text = raise_if_denied(judge_create(_make_case(call, state, request), call.policy))
    wants = needs(request, actor=call.actor, policy=call.policy, volumes_root=state.volumes_root)
    image, pin = yield from _find_image(
        call, state, request, wants.image, _paths_to_read(wants, by_text)
    )
    # The image's config is merged here, once.
    case = _make_case(call, state, request, CreateFacts(host=host_facts(state), image=image))
    kept = image_volumes.kept_volumes(case)
    wants = replace(wants, volumes=tuple(sorted({*wants.volumes, *kept})), kept=kept)
    if makes_networks:
        own = implied(call.policy, _placement(_labels(by_text))[1]).all()
        wants = replace(wants, implied=tuple(name for name in wants.networks if name in own))
    found = Lookups(request, case, by_text, wants.image, image, pin)
    yield from _gather(call, state, wants, found)
    return found, wants, (yield from _judge_by_facts(call, state, found))


def _make_case(
    call: GateRequest, state: GateState, request: CreateRequest, facts: CreateFacts | None = None
) -> Case:
    return make_case(
        request,
        name=call.query.get("name", ""),
        actor=call.actor,
        policy=call.policy,
        facts=facts,
        stamp=Stamp(instance=state.instance, intent=call.id),
        platform=call.query.get("platform", ""),
    )


def _paths_to_read(wants: Needs, by_text: AdmissionDecision) -> tuple[str, ...]:
    """Return the engine paths for ``_gather``."""
    name = dict(by_text.query).get("name", "")
    found = (*map(lookup.network_path, wants.networks), *map(lookup.volume_path, wants.volumes))
    return (*filter(None, found), *((conflicts.name_path(name),) if name else ()))


def _judge_by_facts(call: GateRequest, state: GateState, found: Lookups) -> Flow[AdmissionDecision]:
    """Return the admission by all facts; nothing is yielded between counting and admitting.

    Raises:
        Denied: admission denies the create.
    """

    def judge() -> AdmissionDecision:
        facts = _facts(state, found, call.actor.role)
        return judge_create(replace(found.case, facts=facts), call.policy)

    def has_taken_ports(judged: AdmissionDecision) -> bool:
        ports = host_ports.host_ports_of_summary(SummaryPart.read(judged.summary))
        is_admitted = judged.verdict.decision != "deny"
        return is_admitted and conflicts.find_port_conflict(state, ports) is not None

    return (yield from networks_volumes.judge_within_quotas(state, judge, has_taken_ports))


def _find_image(
    call: GateRequest,
    state: GateState,
    request: CreateRequest,
    reference: str,
    ahead: tuple[str, ...],
) -> Flow[tuple[ImageFacts, PinnedImage | None]]:
    """Return the image to run, and the pin of the revision.

    Raises:
        Answered: no such image, in the engine's wording, so that clients pull.
    """
    revision = request.label(names.REVISION) if call.actor.role is Role.CONTROLLER else ""
    pin = state.inventory.pins.get(revision) or job_runs.pin_of_service(state, request)
    if pin is not None:
        inspect = yield from images.inspect_image(pin.id, ahead)
        if inspect is None:
            pinned = f"{pin.id}, which the revision is pinned to"
            raise Answered(message_reply(404, f"No such image: {reference} ({pinned})"))
        facts = yield from _facts_of_image(call, state, request, inspect, reference)
        return replace(facts, digest=pin.digest or facts.digest), pin
    inspect = yield from images.inspect_image(reference, ahead)
    if inspect is None and reference in state.inventory.ledger:
        inspect = yield from images.inspect_image(state.inventory.ledger[reference].id)
    if inspect is None:
        raise images.no_such_image(call, reference)
    return (yield from _facts_of_image(call, state, request, inspect, reference)), None


def _facts_of_image(
    call: GateRequest,
    state: GateState,
    request: CreateRequest,
    inspect: dict[str, Any],
    reference: str,
) -> Flow[ImageFacts]:
    facts = images.facts_of(inspect, reference, state.inventory)
    if not needs_accounts(request, facts.config, call.policy):
        return facts
    return (yield from images.with_accounts(facts, inspect))


def _implied_objects(found: Lookups) -> dict[str, limits.Counted]:
    """Return the networks and volumes that are created with a container, by their intent."""
    networks = {
        identifier: limits.counted_of("network", SummaryPart.read(judged.summary))
        for identifier, judged in found.unmade.values()
    }
    volumes = {
        identifier: limits.counted_of("volume", SummaryPart.read(judged.summary))
        for identifier, judged in found.unmade_volumes.values()
    }
    return {**networks, **volumes}


def make_implied(call: GateRequest, state: GateState, found: Lookups) -> Flow[None]:
    """Create the missing networks and volumes of a container."""
    for name, (identifier, judged) in found.unmade.items():
        _refuse_while_made(state, Mutation.NETWORK_CREATE, name)
        change = networks_volumes.network_change(name, judged)
        by = Author(identifier, BROKER, policy=call.policy.digest)
        reply = yield from perform(state, by, change, networks_volumes.network_details)
        if reply.status >= 400:
            raise Answered(reply)
    for name, (identifier, judged) in found.unmade_volumes.items():
        _refuse_while_made(state, Mutation.VOLUME_CREATE, name)
        by = Author(identifier, BROKER, policy=call.policy.digest)
        reply = yield from networks_volumes.create_admitted_volume(state, by, name, judged)
        if reply.status >= 400:
            raise Answered(reply)


def _plan_implied(
    call: GateRequest, state: GateState, name: str, by_text: AdmissionDecision
) -> Flow[tuple[str, AdmissionDecision]]:
    """Return the id of the intent and the admission of an implied network."""
    identifier, taken = state.new_id(), (yield from networks_volumes.taken_subnets(state))
    stamp = Stamp(instance=state.instance, intent=identifier)
    owner, namespace, _ = _placement(_labels(by_text))
    asked = (owner, namespace) if call.actor.role is Role.CONTROLLER else ("", "")
    return identifier, raise_if_denied(
        admit_implied_network(
            name, actor=call.actor, policy=call.policy, stamp=stamp, asked=asked, taken=taken
        )
    )


def _plan_kept(
    call: GateRequest, state: GateState, name: str, by_text: AdmissionDecision
) -> tuple[str, AdmissionDecision]:
    """Return the id of the intent and the admission of a kept volume."""
    identifier = state.new_id()
    owner, namespace, service = _placement(_labels(by_text))
    return identifier, raise_if_denied(
        admit_kept_volume(
            name,
            owner=owner,
            namespace=namespace,
            service=service,
            actor=call.actor,
            stamp=Stamp(instance=state.instance, intent=identifier),
        )
    )


def _future_facts(name: str, judged: AdmissionDecision) -> NetworkFacts:
    """Return the facts of a network before its creation."""
    labels = _labels(judged)
    owner, namespace, _ = _placement(labels)
    origin = str(labels.get(names.ORIGIN, ""))
    owned = OwnedObject("", name, namespace=namespace, owner=owner, origin=origin, intent="")
    return lookup.FoundNetwork({"Name": name, **(judged.body or {})}, owned).facts


def _refuse_while_made(state: GateState, route: Mutation, name: str) -> None:
    for intent in state.inventory.open.values():
        request = intent.request
        if request.get("route") == route and request.get("object") == name:
            what = "network" if route is Mutation.NETWORK_CREATE else "volume"
            raise Denied(
                "held",
                f"the {what} {name} is being created",
                "try again",
                status=409,
                subject=name,
            )


@dataclass(slots=True)
class Lookups:
    """The looked-up facts for a create."""

    request: CreateRequest
    #: The request, completed by the image's config. Each judgement adds the facts of its time.
    case: Case
    by_text: AdmissionDecision
    reference: str
    image: ImageFacts
    pin: PinnedImage | None
    host: HostFacts = field(default_factory=HostFacts)
    paths: Mapping[str, PathFacts] = field(default_factory=dict)
    networks: dict[str, NetworkFacts] = field(default_factory=dict)
    volumes: dict[str, VolumeFacts] = field(default_factory=dict)
    uid_user: str = ""  # who else has the uid of an observer
    cdi: Mapping[str, CdiDevice] = field(default_factory=dict)
    shared: SharedContainer | None = None
    name_taken: str = ""
    name_of: str = ""
    #: Implied networks to create, by name: the id of the intent, and the admission.
    unmade: dict[str, tuple[str, AdmissionDecision]] = field(default_factory=dict)
    #: Kept volumes to create, likewise.
    unmade_volumes: dict[str, tuple[str, AdmissionDecision]] = field(default_factory=dict)


def _gather(
    call: GateRequest, state: GateState, wants: Needs, found: Lookups, *, again: bool = False
) -> Flow[None]:
    """Look up all facts; *again*: only those of created networks and volumes, as a start checks the rest."""
    platform = found.host.platform
    if call.query.get("platform") and not again:
        platform = yield from images.host_platform()
    found.host = host_facts(state, platform=platform)
    networks = tuple(found.unmade) if again else wants.networks
    volumes = tuple(found.unmade_volumes) if again else wants.volumes
    found.unmade, found.unmade_volumes = {}, {}
    for name in networks:
        network = yield from lookup.find_network(state, name)
        if network is not None:
            found.networks[name] = network.facts
        elif name in wants.implied:
            found.unmade[name] = yield from _plan_implied(call, state, name, found.by_text)
            found.networks[name] = _future_facts(name, found.unmade[name][1])
    for name in volumes:
        volume = yield from lookup.find_volume(state, name)
        if volume is not None:
            found.volumes[name] = volume.facts
        elif name in wants.kept:
            judged = _plan_kept(call, state, name, found.by_text)
            found.unmade_volumes[name] = judged
            labels = _labels(judged[1])
            owner, namespace = str(labels[names.OWNER]), str(labels[names.NAMESPACE])
            found.volumes[name] = VolumeFacts(name, ours=True, owner=owner, namespace=namespace)
    name = dict(found.by_text.query).get("name", "")
    taken = yield from conflicts.find_holder(state, name)
    found.name_taken = "foreign" if taken.id and taken.item is None else ""
    found.name_of = taken.instance
    if found.name_taken:
        # A container of an open intent isn't in the inventory yet, but isn't foreign either.
        refuse_if_held(state, Mutation.CONTAINER_CREATE, name, under_way=True)
    conflicts.refuse_if_taken(call, name, taken)
    lookup.refuse_if_present(call, name, ours=taken.item is not None)
    found.shared = yield from lookup.find_shared(
        state, found.request.shares, _labels(found.by_text)
    )
    found.uid_user = yield from lookup.uid_user_of(
        state, found.request.user, observes=found.request.observes
    )
    # Last, as close to the create as possible: paths can be swapped.
    found.cdi = (yield from read_cdi_devices()) if wants.cdi else {}
    brought = paths_of(found.cdi, iter(wants.cdi))
    data = (data_path(state.volumes_root, name) for name in wants.volumes)
    found.paths = yield from inspect_paths((*wants.paths, *data, *brought))


def host_facts(state: GateState, *, platform: str = "") -> HostFacts:
    """Return the facts of the engine's host for admission."""
    return HostFacts(
        cpus=state.engine.cpus,
        memory_bytes=state.engine.memory_bytes,
        platform=platform,
        volumes_root=state.volumes_root,
        now=state.clock.now(),
        cdi_folders=state.engine.cdi_folders,
        ignores=state.ignores,
    )


def _facts(state: GateState, found: Lookups, role: Role) -> CreateFacts:
    """Return all facts, with the current counts."""
    owner, namespace, service = _placement(_labels(found.by_text))
    counted = limits.all_counted(state.inventory, state.reservations.objects)
    return CreateFacts(
        host=found.host,
        image=found.image,
        trusted=state.inventory.ledger.get(found.reference),
        pin=found.pin,
        paths=found.paths,
        networks=found.networks,
        volumes=found.volumes,
        cdi=found.cdi,
        shared=found.shared,
        uid_user=found.uid_user,
        service_count=limits.count_of_service(
            state.inventory,
            state.reservations.objects,
            owner=owner,
            namespace=namespace,
            service=service,
        ),
        owner_count=limits.containers_of(counted, owner),
        counts=limits.count(counted, owner=owner, role=role),
        new_volumes=len(found.unmade_volumes),
        new_networks=len(found.unmade),
        files=state.inventory.files,
        file_paths=deliveries.paths_of(state, found.request, namespace),
        replaces=_replaces(state, found.by_text),
        name_taken=found.name_taken,
        name_of=found.name_of,
        run=job_runs.run_facts(state, _labels(found.by_text)),
        addresses=networks_volumes.of_slot(
            state,
            _labels(found.by_text),
            found.networks,
            {end.network: end.asked for end in found.request.endpoints},
        ),
    )


def _replaces(state: GateState, judged: AdmissionDecision) -> bool:
    """Return True if the slot already has a container, for the new one to replace."""
    labels = _labels(judged)
    slot, place = str(labels.get(names.SLOT, "")), _placement(labels)
    return slot != "" and any(
        item.slot_label == slot and item.owner == place[0]
        for item in state.inventory.items.of_service(place[1], place[2])
    )


def _identities(found: Lookups, summary: CreatePart) -> CreatePart:
    """Return which networks and volumes were judged: the engine finds them by name at the start."""
    joined = set(summary.settings.networks)
    return CreatePart(
        network_ids={
            each.name: each.id
            for each in found.networks.values()
            if each.id and each.name in joined
        },
        volume_ids={each.name: each.identity for each in found.volumes.values() if each.identity},
    )


def _labels(judged: AdmissionDecision) -> Mapping[str, Any]:
    return SummaryPart.read(judged.summary).labels


def _placement(labels: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return owner, namespace and service in the labels of a container."""
    owner, namespace, service = (
        str(labels.get(name, "")) for name in (names.OWNER, names.NAMESPACE, names.SERVICE)
    )
    return owner, namespace, service


def create_judged(
    call: GateRequest,
    state: GateState,
    judged: AdmissionDecision,
    found: Lookups,
    *,
    values: tuple[str, ...] = (),
    proof: ProofPart | None = None,
    released: bool = False,
) -> Flow[Reply]:
    """Create an admitted container, with the *values* of its Secrets in the environment.

    *released*: it takes the place of a released one, and is never supervised.
    """
    assert judged.settings is not None, "an admitted create has settings"
    image = found.image
    query = dict(judged.query)
    summary = SummaryPart.read(judged.summary) | CreatePart(
        image_id=image.id,
        digest=image.digest,
        settings=judged.settings,
        proof=proof or ProofPart(),
        is_released=released,
    )
    summary |= container_hooks.summary_of(state, found.request.hooks)
    summary |= _identities(found, summary)
    path, name = build_path("/containers/create", query), query.get("name", "")
    change = Change.of(Mutation.CONTAINER_CREATE, name, path, judged, summary.members)
    change = replace(change, secret_env=values)
    assert is_image_id(str((judged.body or {}).get("Image"))), "an image is forwarded by its id"
    mine = of_summary(summary)
    kept = Kept(state, call.policy, judged.warnings, judged.body or {}, judged.settings)
    counted = limits.counted_of("container", SummaryPart.read(judged.summary))
    with (
        reserving(state.reservations.objects, {call.id: counted}),
        conflicts.reserve_names(call, state, mine),
        conflicts.reserve_ports(call, state, host_ports.host_ports_of_summary(summary)),
    ):
        reply = yield from perform(state, call.by, change, kept.learn)
    return (yield from kept.settle(reply, call.id))
