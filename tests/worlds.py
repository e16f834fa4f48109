"""Builders of desired and observed states, and a toy engine that performs plans without fail.

Revisions are named by one hex letter: ``b`` is ``v2:bbbb…``. By default a service is ``web`` of
revision ``b``, and what it needs is on the engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from controller.core.drift.actions import Judge
from controller.core.drift.availability import Availability
from controller.core.engine_api.create_body import RESTART, joined_networks
from controller.core.files.content import with_delivered
from controller.core.manifests.job_checks import shared_service
from controller.core.planning import planner
from controller.core.planning.context import PendingMove, PlanContext, with_moves
from controller.core.planning.images_networks_volumes import VolumeRule, always_refuse
from controller.core.planning.quarantine import NO_QUARANTINE, Quarantine
from controller.core.planning.service_order import KnownServices
from controller.model import observed as seen
from controller.model.delivery import FileSet, MountedFiles, StoredContent
from controller.model.desired.desired import (
    Desired,
    Network,
    Release,
    Service,
    SourceIdentity,
    SourceLocation,
    Volume,
)
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    Blocked,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    DisconnectNetwork,
    MoveService,
    Plan,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RenameContainer,
    SignalContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    Wait,
)
from controller.model.desired.spec.mounts import VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem
from controller.model.names import Key, NetworkNames, container_name, service_key
from controller.model.observed import Container, ContainerState, Image, Observed, Settings
from controller.model.records import ALLOW, Verdict

IMAGE = "ghcr.io/platformnetwork/web:1"
IMAGE_ID = "sha256:" + "1" * 64
NAMES = NetworkNames()
WEB = service_key("default", "web")
ISOLATED = seen.ObservedNetwork(
    "n1", "platform-network", ours=True, origin="controller", namespace="default", internal=True
)
INGRESS = seen.ObservedNetwork(
    "n2",
    "platform-ingress",
    ours=True,
    origin="controller",
    namespace="default",
    masquerade=False,
    icc=False,
)
BRIDGE = seen.ObservedNetwork(
    "n3", "platform-bridge", ours=True, origin="controller", namespace="default"
)
HERE = SourceIdentity("desired-state", present=True, device=7, documents=3)


def revision(letter: str) -> str:
    return "v2:" + letter * 64


def service(
    name: str = "web",
    rev: str = "b",
    *,
    namespace: str = "default",
    owner: str = "team",
    **spec: object,
) -> Service:
    text = json.dumps({"image": IMAGE, **spec})
    return Service(
        key=service_key(namespace, name),
        owner=owner,
        spec=ServiceSpec.model_validate_json(text),
        revision=revision(rev),
        source=SourceLocation(f"{name}.yaml", 1),
    )


def network(name: str, *, namespace: str = "default", internal: bool = True) -> Network:
    source = SourceLocation(f"{name}.yaml", 1)
    return Network(Key("Network", namespace, name), "team", NetworkSpec(internal=internal), source)


def volume(name: str, *, namespace: str = "default") -> Volume:
    return Volume(
        Key("Volume", namespace, name), "team", VolumeSpec(), SourceLocation(f"{name}.yaml", 1)
    )


def release(name: str, *members: Key) -> Release:
    source = SourceLocation(f"{name}.yaml", 1)
    return Release(Key("Release", "default", name), "team", "validator", members, source)


def declared(
    *resources: Service | Network | Volume | Release,
    blind: bool = False,
    blind_keys: Iterable[Key] = (),
    problems: tuple[Problem, ...] = (),
    identity: SourceIdentity = HERE,
) -> Desired:
    return Desired(
        services=tuple(r for r in resources if isinstance(r, Service) and r.key.kind != "Job"),
        jobs=tuple(r for r in resources if isinstance(r, Service) and r.key.kind == "Job"),
        networks=tuple(r for r in resources if isinstance(r, Network)),
        volumes=tuple(r for r in resources if isinstance(r, Volume)),
        releases=tuple(r for r in resources if isinstance(r, Release)),
        problems=problems,
        blind=blind,
        blind_keys=frozenset(blind_keys),
        identity=identity,
        digest="desired",
    )


def container(
    name: str = "web",
    slot: int = 1,
    rev: str = "b",
    state: str = "running",
    *,
    attempt: int = 1,
    namespace: str = "default",
    origin: str = "controller",
    settings: Mapping[str, object] | None = None,
    admitted: Mapping[str, object] | None = None,
    known: bool = True,
    **fields: object,
) -> Container:
    """A container as admitted: ``settings`` differ now, ``admitted`` did from the start.

    Its id is ``id:`` and its name; with ``known=False`` the inventory has no settings of it.
    """
    own = container_name(namespace, name, slot=slot, revision=revision(rev), attempt=attempt)
    was = Settings(
        name=own,
        memory=512 << 20,
        memory_swap=512 << 20,
        nano_cpus=1_000_000_000,
        pids=256,
        restart="always",
        networks=("platform-network",),
    )
    was = replace(was, **(admitted or {}))  # type: ignore[arg-type]
    now = replace(was, **(settings or {}))  # type: ignore[arg-type]
    base = Container(
        id=f"id:{own}",
        key=service_key(namespace, name),
        slot=slot,
        revision=revision(rev),
        owner="team",
        origin=origin,
        intent="i",
        image=IMAGE,
        image_id=IMAGE_ID,
        state=ContainerState(state),
        settings=now,
        admitted=was if known else None,
        started_at="" if state == "created" else "2026-01-01T00:00:00Z",
        aliases=tuple((network, (name,)) for network in now.networks),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def engine(
    *containers: Container,
    networks: tuple[seen.ObservedNetwork, ...] = (ISOLATED,),
    volumes: tuple[seen.ObservedVolume, ...] = (),
    images: dict[str, Image | None] | None = None,
    pins: dict[str, Image] | None = None,
) -> Observed:
    return Observed(
        instance="here",
        engine_id="engine",
        engine_version="26.1.5",
        containers=containers,
        networks=networks,
        volumes=volumes,
        images={IMAGE: Image(IMAGE_ID)} if images is None else images,
        pins=pins or {},
    )


def allow(_action: AnyAction) -> Verdict:
    return ALLOW


def deny(*verbs: str, target: str = "") -> Judge:
    """A policy that denies these verbs, on one target where given."""

    def judge(action: AnyAction) -> Verdict:
        if action.verb in verbs and target in ("", action.target):
            return Verdict("deny", ("some.rule",), "it may not", "ask somebody")
        return ALLOW

    return judge


def every_key(desired: Desired, observed: Observed) -> frozenset[Key]:
    return planner.keys(desired, observed)


def plan(
    desired: Desired,
    observed: Observed,
    *,
    judge: Judge = allow,
    backoff: Mapping[tuple[Key, int], str] | None = None,
    prunable: frozenset[Key] | None = None,
    blocked: tuple[Blocked, ...] = (),
    only: Key | frozenset[Key] | None = None,
    controller_restarts: frozenset[tuple[Key, int]] = frozenset(),
    quarantine: Quarantine = NO_QUARANTINE,
    availability: Mapping[str, Availability] | None = None,
    replace_reasons: Mapping[str, str] | None = None,
    last_good: Mapping[Key, str] | None = None,
    last_pass_failed: frozenset[Key] = frozenset(),
    failing_predecessors: frozenset[str] = frozenset(),
    paused: Mapping[Key, str] | None = None,
    contended: Mapping[tuple[Key, int], Mapping[str, str]] | None = None,
    known_services: KnownServices = KnownServices(),  # noqa: B008 - frozen
    volume_rule: VolumeRule = always_refuse,
    moves: tuple[PendingMove, ...] = (),
    pulled: frozenset[tuple[Key, str]] = frozenset(),
) -> Plan:
    """The plan where everything is prunable and no slot is in backoff, unless said otherwise."""
    return planner.plan(
        desired,
        observed,
        networks=NAMES,
        judge=judge,
        prunable=every_key(desired, observed) if prunable is None else prunable,
        blocked=blocked,
        policy_digest="policy",
        only=only,
        context=PlanContext(
            backoff=backoff or {},
            controller_restarts=controller_restarts,
            availability=availability or {},
            replace_reasons=replace_reasons or {},
            last_good=last_good or {},
            last_pass_failed=last_pass_failed,
            failing_predecessors=failing_predecessors,
            paused=paused or {},
            contended=contended or {},
            quarantine=quarantine,
            known_services=known_services,
            pulled=pulled,
        ),
        volume_rule=volume_rule,
        moves=moves,
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One performed action, with the world before and after it."""

    before: Observed
    action: AnyAction
    after: Observed


def begun(plan: Plan) -> Plan:
    """What of a plan is done while every gate is closed."""
    kept: list[AnyAction] = []
    behind: set[Key] = set()
    for action in plan.actions:
        if action.object not in behind:
            kept.append(action)
        if isinstance(action, Barrier):
            behind.add(action.object)
    return replace(plan, actions=tuple(kept))


def perform(plan: Plan, observed: Observed) -> tuple[Observed, list[Step]]:
    """Perform a plan as if each action succeeds; what policy denied isn't performed.

    Raises:
        AssertionError: a precondition doesn't hold, or an engine would refuse the action.
    """
    steps: list[Step] = []
    for action in plan.actions:
        if action.verdict.decision == "deny":
            continue
        after = act(action, observed)
        steps.append(Step(observed, action, after))
        observed = after
    return observed, steps


def act(  # noqa: C901, PLR0912 - an arm for each action
    action: AnyAction, observed: Observed
) -> Observed:
    """Return the world after one action."""
    names = {c.name for c in observed.containers}
    match action:
        case PullImage():
            images = {**observed.images, action.target: Image(f"sha256:{action.target}")}
            return replace(observed, images=images)
        case CreateNetwork():
            _absent(action, {n.name for n in observed.networks})
            made = seen.ObservedNetwork(
                id=f"net:{action.target}",
                name=action.target,
                ours=True,
                origin="controller",
                namespace=action.object.namespace,
                internal=action.internal,
                masquerade=action.masquerade,
                icc=action.icc,
            )
            return replace(observed, networks=(*observed.networks, made))
        case RemoveNetwork():
            gone = next(n for n in observed.networks if n.id == action.precondition.id)
            users = [c for c in observed.containers if gone.name in c.settings.networks]
            assert not users, f"{gone.name} is in use"
            left = tuple(n for n in observed.networks if n is not gone)
            return replace(observed, networks=left)
        case RemoveVolume():
            kept = tuple(v for v in observed.volumes if v.name != action.target)
            assert not any(action.target in c.writes for c in observed.containers), "it is in use"
            return replace(observed, volumes=kept)
        case CreateVolume():
            _absent(action, {v.name for v in observed.volumes})
            made_volume = seen.ObservedVolume(action.target, ours=True, origin="controller")
            return replace(observed, volumes=(*observed.volumes, made_volume))
        case DeliverFiles():
            files = FileSet(action.kind, action.object.namespace, action.target)
            content = StoredContent(action.content, action.owner)
            stored = with_delivered(observed.files, files, content, ())
            return replace(observed, files=stored)
        case SignalContainer():
            return _changed(action, observed, lambda c: _signal(c, observed))
        case CreateContainer():
            _absent(action, names)
            return _created(action, observed)
        case StartContainer():
            return _changed(action, observed, _start)
        case UpdateContainer():
            return _changed(action, observed, lambda c: _update(c, action))
        case StopContainer():
            return _changed(action, observed, _stop)
        case UnpauseContainer():
            return _changed(action, observed, _unpause)
        case RenameContainer():
            assert action.name not in names, f"the name is taken: {action.name}"
            return _changed(action, observed, lambda c: _rename(c, action.name))
        case ConnectNetwork():
            assert action.network in {n.name for n in observed.networks}, "no such network"
            return _changed(action, observed, lambda c: _connect(c, action))
        case DisconnectNetwork():
            return _changed(action, observed, lambda c: _disconnect(c, action.network))
        case RemoveContainer():
            found = _find(action, observed)
            assert found.state not in (ContainerState.RUNNING, ContainerState.PAUSED), "it runs"
            left_over = tuple(c for c in observed.containers if c.id != found.id)
            return replace(observed, containers=left_over)
        case MoveService():
            move = PendingMove(action.source, service(action.target), 0)
            assert not observed.of(action.object), f"{action.object} is taken"
            return with_moves(observed, [move])
        case Wait():
            return observed
        case _:
            assert_never(action)


def _absent(action: AnyAction, names: set[str]) -> None:
    assert action.precondition.absent == action.target, f"no absence asked for: {action}"
    assert action.target not in names, f"the name is taken: {action.target}"


def _find(action: AnyAction, observed: Observed) -> Container:
    wanted = action.precondition
    if wanted.id:
        # Its name may have been given back to it by now.
        found = [c for c in observed.containers if c.id == wanted.id]
    else:
        found = [c for c in observed.containers if c.name == action.target]
    assert len(found) == 1, f"{len(found)} containers are called {action.target}"
    assert wanted.revision == found[0].revision, f"another revision: {action}"
    return found[0]


def _changed(
    action: AnyAction, observed: Observed, change: Callable[[Container], Container]
) -> Observed:
    found = _find(action, observed)
    containers = tuple(change(c) if c.id == found.id else c for c in observed.containers)
    return replace(observed, containers=containers)


def _created(action: CreateContainer, observed: Observed) -> Observed:
    wanted = action.service
    networks = joined_networks(wanted, NAMES)
    there = {n.name for n in observed.networks}
    assert set(networks) <= there, f"networks are missing: {set(networks) - there}"
    images = {i.id: i for i in observed.images.values() if i is not None}
    image = observed.images.get(action.image) or images.get(action.image)
    if image is None and action.image.startswith("sha256:"):
        image = Image(action.image)
    assert image is not None, f"the image is missing: {action.image}"
    restart, restart_max = RESTART[wanted.spec.restart.policy]
    settings = Settings(
        name=action.target,
        memory=512 << 20,
        memory_swap=512 << 20,
        nano_cpus=1_000_000_000,
        pids=256,
        restart=restart,
        restart_max=restart_max,
        networks=tuple(sorted(networks)),
    )
    made = Container(
        id=f"new:{action.target}",
        key=wanted.key,
        slot=action.slot,
        revision=wanted.revision,
        owner=wanted.owner,
        origin="controller",
        intent="i",
        image=wanted.spec.image,
        image_id=image.id,
        state=ContainerState.CREATED,
        settings=settings,
        admitted=settings,
        aliases=tuple(
            (name, (wanted.key.name,) if action.with_alias else ()) for name in settings.networks
        ),
        shares=_shared(wanted, action.slot, observed),
        files=tuple(
            MountedFiles(each.kind, each.name, each.content, each.target, each.is_stable)
            for each in wanted.deliveries
        ),
    )
    for each in wanted.deliveries:
        stored = observed.files.get(str(FileSet(each.kind, wanted.key.namespace, each.name)))
        found = stored.find(each.content) if stored is not None else None
        assert found is not None, f"the files aren't delivered: {each.name}"
        assert found.owner == wanted.owner, f"the files are another's: {each.name}"
    pins = {wanted.revision: image, **observed.pins}
    return replace(observed, containers=(*observed.containers, made), pins=pins)


def _shared(wanted: Service, slot: int, observed: Observed) -> tuple[str, ...]:
    """Return the running container whose namespaces a new one shares."""
    shared = shared_service(wanted.key, wanted.spec)
    if shared is None:
        return ()
    running = [c.id for c in observed.of(shared) if c.running and c.slot == slot]
    assert running, f"nothing runs that {wanted.key} could share"
    return (running[-1],)


def _start(found: Container) -> Container:
    assert found.state in (ContainerState.CREATED, ContainerState.EXITED), "it can't be started"
    again = datetime.fromisoformat(found.started_at or "2026-01-01T00:00:00Z") + timedelta(days=1)
    return replace(
        found,
        state=ContainerState.RUNNING,
        started_at=again.strftime("%Y-%m-%dT%H:%M:%SZ"),
        health="starting" if found.health else "",
    )


def _signal(found: Container, observed: Observed) -> Container:
    """Let a container see the contents of now."""
    assert found.state is ContainerState.RUNNING, "it doesn't run"
    files = tuple(
        replace(
            each, content=observed.files[f"{each.kind}/{found.key.namespace}/{each.name}"].current
        )
        if each.is_stable
        else each
        for each in found.files
    )
    return replace(found, files=files)


def _update(found: Container, action: UpdateContainer) -> Container:
    assert found.state not in (ContainerState.DEAD, ContainerState.REMOVING), "it is going"
    changes: dict[str, Any] = dict(action.limits)
    if action.restart:
        changes |= {"restart": action.restart, "restart_max": action.restart_max}
    assert changes, "nothing is changed"
    changed = replace(found.settings, **changes)
    if "memory" in changes:
        assert changed.memory_swap >= changed.memory, "the engine asks for both at a time"
    known = found.admitted and replace(found.admitted, **changes)
    return replace(found, settings=changed, admitted=known)


def _unpause(found: Container) -> Container:
    assert found.state is ContainerState.PAUSED, "it isn't paused"
    return replace(found, state=ContainerState.RUNNING)


def _rename(found: Container, name: str) -> Container:
    return replace(found, settings=replace(found.settings, name=name))


def _connect(found: Container, action: ConnectNetwork) -> Container:
    assert action.network not in found.settings.networks, f"it is in {action.network} already"
    assert found.admitted is not None, "nobody knows what it was admitted with"
    assert action.network in found.admitted.networks, f"not admitted with {action.network}"
    joined = tuple(sorted({*found.settings.networks, action.network}))
    aliases = tuple(sorted({**dict(found.aliases), action.network: action.aliases}.items()))
    return replace(found, settings=replace(found.settings, networks=joined), aliases=aliases)


def _disconnect(found: Container, network: str) -> Container:
    assert network in found.settings.networks, f"it isn't in {network}"
    left = tuple(name for name in found.settings.networks if name != network)
    aliases = tuple(each for each in found.aliases if each[0] != network)
    return replace(found, settings=replace(found.settings, networks=left), aliases=aliases)


def _stop(found: Container) -> Container:
    alive = (ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING)
    assert found.state in alive, "it doesn't run"
    assert found.settings.restart == "no", "an engine that restarts would revive it"
    return replace(found, state=ContainerState.EXITED, exit_code=143)


def settle(observed: Observed) -> Observed:
    """The world after what the engine is at by itself is done."""
    containers = tuple(
        replace(c, state=ContainerState.RUNNING) if c.state is ContainerState.RESTARTING else c
        for c in observed.containers
        if c.state is not ContainerState.REMOVING
    )
    return replace(observed, containers=containers)
