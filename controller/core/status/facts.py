"""The facts about each resource in a status report: replicas, slots, details and projects.

Pure. ``core.status.conditions`` derives conditions from these facts, and ``core.status.report`` the
report.

An image brings its own entrypoint, command, user, working directory, health check and volumes. A
document overrides each by itself, and an entrypoint replaces the command of the image too.

Projects: the services of a namespace, which one change of the files brings to a new version together.

Pure. Services with revisions of one instant were declared by one reading of the files.

The details of a service in a status report: ports, mounts, variables, containers.

Pure. Details are only shown; no decision depends on them. A report has the names of variables,
never their values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from controller.core.drift.classify import (
    ALIVE,
    Drift,
    ReplicaState,
    SlotState,
    by_slot,
    cause_of,
    short_revision,
    slot_of,
    unhealthy_cause,
)
from controller.core.drift.failures import explain
from controller.core.engine_api.mount_grammar import size_of_volume
from controller.core.jobs.decision import NO_TIME, JobDecision, JobTime, JobWord, decide
from controller.core.jobs.rollout_hooks import RolloutHooks, RolloutStanding
from controller.core.planning.context import SlotPause, order_of, why_order
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.planning.planner import declared_resources, orphan_keys, unread_keys
from controller.core.rules.images import slot_volumes, uncovered
from controller.model.confinement import Gap
from controller.model.delivery import Delivery, MountedFiles
from controller.model.desired.desired import (
    Config,
    Desired,
    Network,
    OverrideReason,
    Overrides,
    Release,
    Secret,
    Service,
    SourceLocation,
    Volume,
)
from controller.model.desired.plan import Blocked, Plan
from controller.model.desired.spec.mounts import (
    BindMount,
    FileMount,
    Mount,
    TmpfsMount,
    VolumeMount,
)
from controller.model.desired.spec.network import SinglePort
from controller.model.desired.spec.service import JobSpec, RunState, ServiceSpec
from controller.model.errors import Act, Problem, Severity
from controller.model.names import Key, NetworkNames, SlotKey
from controller.model.observed import NO_RUNS, Container, JobMemory, JobOccasion, JobRun, Observed
from controller.model.records import Verdict

SPLIT = "project.split"


@dataclass(frozen=True, slots=True)
class RevisionTimes:
    """When the revisions of a service were declared (RFC 3339)."""

    declared: str
    #: Of the revision in force: the pinned one, else the declared one.
    in_force: str
    #: The revision to which a failed rollout went back; '' if none did.
    back_to: str = ""
    #: True if an earlier revision was good: one that never ran is no version to return to.
    has_earlier: bool = False


def revision_times(overrides: Overrides) -> RevisionTimes | None:
    """Return the times of a service's revisions; None without any."""
    if not overrides.revisions:
        return None
    declared, pin = overrides.revisions[-1].since, overrides.pin
    kept = None if pin is None else overrides.find_revision(pin.revision, pin.limits)
    return RevisionTimes(
        declared,
        declared if kept is None else kept.since,
        pin.revision if pin is not None and pin.automatic else "",
        any(each.outcome == "good" for each in overrides.revisions[:-1]),
    )


def split_projects(
    times: Mapping[Key, RevisionTimes], failed: Mapping[Key, str]
) -> Iterator[Problem]:
    """Yield a problem for each project with two versions: one service failed, and others went on.

    *failed* are the services whose rollout is paused.
    """
    projects = defaultdict[str, list[Key]](list)
    for key in sorted(times):
        projects[key.namespace].append(key)
    for namespace, keys in projects.items():
        behind = [k for k in keys if times[k].back_to or (k in failed and times[k].has_earlier)]
        changes = {times[key].declared for key in behind}
        ahead = [k for k in keys if k not in behind and times[k].in_force in changes]
        if ahead:
            yield Problem(
                SPLIT,
                f"project {namespace} runs two versions: {', '.join(_failure(k, times) for k in behind)}; "
                f"of the same change, {', '.join(key.name for key in ahead)} went on",
                severity=Severity.WARNING,
                remedy="correct what failed, or return the project to the version before: "
                f"trimtab rollback -n {namespace}",
            )


def _failure(key: Key, times: Mapping[Key, RevisionTimes]) -> str:
    back_to = times[key].back_to
    return f"{key.name} went back to {short_revision(back_to)}" if back_to else f"{key.name} failed"


#: The status as JSON, or an object within it.
Report = dict[str, object]

#: Container ports on which images usually serve HTTP. Their addresses become links.
HTTP_PORTS = frozenset({80, 3000, 5000, 8000, 8008, 8080, 8081, 8088, 8888, 9090})
HTTPS_PORTS = frozenset({443, 8443})


def details_of(
    spec: ServiceSpec, deliveries: Iterable[Delivery] = (), containers: Iterable[Container] = ()
) -> Report:
    """Return the members ``ports``, ``mounts`` and ``env``, without the empty ones.

    *deliveries* are the files of the mounts. A container of *containers* that was adopted with the gap
    ``ports`` publishes them on other addresses than the document's.
    """
    wider = [port for each in containers if Gap.PORTS in each.gaps for port in each.ports]
    found = {(port.port, port.protocol): port.address for port in reversed(wider)}
    contents = {each.target: each.content for each in deliveries if not each.variable}
    details = {
        "ports": [_port(port, spec, found) for each in spec.ports for port in each.each],
        "mounts": [_mount(mount, contents.get(mount.target, "")) for mount in spec.mounts],
        "env": sorted(spec.env),
    }
    return {name: value for name, value in details.items() if value}


def place_details(source: SourceLocation) -> Report:
    """Return the member ``declared``, the place of a resource that was made from another file's values."""
    return {"declared": f"{source.file}:{source.line}"} if source.places is not None else {}


def volume_details(service: Service, replicas: int) -> Report:
    """Return the member ``volumes``: the volumes of slots for the VOLUMEs of the image."""
    volumes = [
        {"slot": number, "path": volume.path, "keeping": volume.keeping, "volume": name}
        for number in range(1, replicas + 1)
        for volume, name in slot_volumes(service, number)
    ]
    return {"volumes": volumes} if volumes else {}


def container_details(container: Container) -> Report:
    """Return the members of a slot's row about its container, without the unknown ones."""
    details = {
        "id": container.id,
        "started": container.started_at if container.running else "",
        "addresses": [
            {"network": network, "address": address}
            for network, address in container.addresses
            if address
        ],
        "cause": explain(container),
        "effective": container.effective,
        "violation": container.violation,
        "files": [_files(mounted) for mounted in container.files],
        "adopted": container.adopted,
        "gaps": list(container.gaps),
    }
    return {name: value for name, value in details.items() if value}


def _files(mounted: MountedFiles) -> Report:
    """Return the content that a container sees at a target."""
    signalled = mounted.content if mounted.shown not in ("", mounted.content) else ""
    return {
        "source": f"{mounted.kind}/{mounted.name}",
        "target": mounted.target,
        "content": mounted.shown or mounted.content,
        # The container has had no signal for the content that it sees.
        **({"before": signalled} if signalled else {}),
    }


def _port(port: SinglePort, spec: ServiceSpec, found: Mapping[tuple[int, str], str]) -> Report:
    published = port.host is not None
    address = found.get((port.host or 0, port.protocol), port.host_ip)
    return {
        "container": port.container,
        "protocol": port.protocol,
        **({"host": port.host, "address": address} if published else {}),
        **({"scheme": scheme} if (scheme := _scheme(port, spec)) else {}),
    }


def _scheme(port: SinglePort, spec: ServiceSpec) -> str:
    """Return ``http`` or ``https`` if the port most probably serves it; '' otherwise."""
    if port.protocol != "tcp":
        return ""
    check = spec.healthcheck.http if spec.healthcheck else None
    if (check and check.port == port.container) or port.container in HTTP_PORTS:
        return "http"
    return "https" if port.container in HTTPS_PORTS else ""


def _mount(mount: Mount, content: str) -> Report:
    source = "" if isinstance(mount, TmpfsMount) else mount.source
    read_only = isinstance(mount, (BindMount, VolumeMount)) and mount.read_only
    files: Report = {}
    if isinstance(mount, FileMount):
        files = {"content": content, "onChange": mount.reaction}
        files |= {"key": mount.key} if mount.key else {}
    return {
        "type": mount.type,
        **({"source": source} if source else {}),
        "target": mount.target,
        **({"readOnly": True} if read_only else {}),
        **files,
    }


#: Occasions of a job in its status: the latest ones, and those of the remembered runs.
OCCASIONS_SHOWN = 10
#: A job that stands so needs nothing.
READY_WORDS = frozenset({JobWord.IDLE, JobWord.COMPLETE, JobWord.SUSPENDED})

#: The most names of files in a report.
FILES_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of the last pass of a key."""

    act: Act
    code: str
    message: str
    #: Seconds since the epoch; None if unknown.
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class SlotTrouble:
    """Failures of a slot's containers, and what another program does to them."""

    #: The cause of the last failure.
    cause: str = ""
    #: How often the slot failed; '' unless the slot is in a crash loop.
    crash_looping: str = ""
    #: The id of the violation's record, if the broker ended the last container of a crash loop.
    breach: str = ""
    #: The fields that another program keeps altering.
    contended: tuple[str, ...] = ()
    #: Until when a start or a repair waits.
    pause: SlotPause | None = None


NO_TROUBLE = SlotTrouble()


@dataclass(frozen=True)
class StatusInputs:
    """The inputs of a status report."""

    desired: Desired
    #: None if the engine is unreachable or, with ``looked`` False, was not observed yet.
    observed: Observed | None
    plan: Plan
    networks: NetworkNames
    #: By key: the generation of the accepted spec, and the last one that was fully applied.
    generations: Mapping[Key, tuple[int, int]] = field(default_factory=dict)
    troubles: Mapping[SlotKey, SlotTrouble] = field(default_factory=dict)
    #: Failed rollouts, with the reason.
    failed: Mapping[Key, str] = field(default_factory=dict)
    #: When the revisions of services were declared.
    times: Mapping[Key, RevisionTimes] = field(default_factory=dict)
    failures: Mapping[Key, Failure] = field(default_factory=dict)
    #: The progress of long actions under way.
    progress: Mapping[Key, str] = field(default_factory=dict)
    #: Verdicts on services that the policy no longer admits, or admits only for now
    #: (``audit-deny``).
    violations: Mapping[Key, Verdict] = field(default_factory=dict)
    #: The controller's own problems.
    problems: tuple[Problem, ...] = ()
    looked: bool = True
    #: When the controller began to read, as RFC 3339, until it has read the files and asked the engine;
    #: '' afterwards.
    unread_since: str = ""
    #: The time, for the runs of jobs.
    now: JobTime = NO_TIME
    #: How far the rollouts of services with jobs are.
    rollouts: Mapping[Key, RolloutStanding] = field(default_factory=dict)
    #: Why a destination gets nothing of a Notification.
    unsent: Mapping[Key, str] = field(default_factory=dict)

    @cached_property
    def troubles_by_key(self) -> Mapping[Key, Mapping[int, SlotTrouble]]:
        """The troubles of services with any, in the order of the slots."""
        found = defaultdict[Key, dict[int, SlotTrouble]](dict)
        for key, slot in sorted(self.troubles):
            found[key][slot] = self.troubles[key, slot]
        return dict(found)

    def troubles_of(self, key: Key) -> Mapping[int, SlotTrouble]:
        """Return the troubles of a service's slots, in the order of the slots."""
        return self.troubles_by_key.get(key, {})

    @cached_property
    def holds(self) -> Mapping[Key, tuple[OverrideReason, ...]]:
        """The holds of each held resource."""
        found = defaultdict[Key, tuple[OverrideReason, ...]](tuple)
        for hold in self.desired.holds:
            found[hold.key] += (hold,)
        return dict(found)

    @cached_property
    def blocked(self) -> Mapping[Key, Blocked]:
        """The first reason why a resource isn't removed."""
        return {each.key: each for each in reversed(self.plan.blocked)}

    @cached_property
    def errors(self) -> Mapping[Key | None, Problem]:
        """The first error of each resource."""
        problems = (*self.desired.problems, *self.plan.problems)
        return {p.key: p for p in reversed(problems) if p.severity is Severity.ERROR}

    def containers(self, key: Key) -> tuple[Container, ...]:
        """Return the observed containers of a service or job."""
        return () if self.observed is None else self.observed.of(key)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one resource."""

    key: Key
    owner: str
    desired: int
    ready: int
    serving: int = 0
    #: Slots in which an older container serves, because its successor is not there yet.
    earlier: int = 0
    revision: str = ""
    image: str = ""
    containers: tuple[Container, ...] = ()
    slots: tuple[Report, ...] = ()
    unhealthy: tuple[str, ...] = ()
    declared: bool = True
    #: Running replicas of a service that is declared Stopped.
    resting: int = 0
    #: Failed tasks that are not started again.
    failed: tuple[str, ...] = ()
    #: The order of replacements, and the reason for it.
    rollout: Report = field(default_factory=dict)
    #: Ports, mounts and variables.
    details: Report = field(default_factory=dict)
    #: How a job stands; None for other kinds.
    job: JobDecision | None = None


class FactsMemo:
    """The facts of the services in the last report.

    A service with the same document, containers and image has the same facts: a report after one
    change works out the facts of one service.
    """

    def __init__(self) -> None:
        #: All inputs of the facts of a service, and the facts.
        self._known: dict[Key, tuple[object, Facts]] = {}

    def facts_of(self, services: Iterable[Service], observed: Observed | None) -> Iterator[Facts]:
        """Yield the facts of all services. Each reading of the files makes new services, of the same parts."""
        before, self._known = self._known, {}
        for service in services:
            containers = () if observed is None else observed.of(service.key)
            given = (service, containers, _image_facts(service, observed))
            known = before.get(service.key)
            if known is None or known[0] != given:
                known = (given, _service_facts(service, observed))
            self._known[service.key] = known
            yield known[1]


def _image_facts(service: Service, observed: Observed | None) -> object:
    """Return what ``_service_facts`` takes from a snapshot besides the containers."""
    if observed is None:
        return None
    image = _image_id(service, observed)
    return image, observed.image_settings.get(image), observed.image_volumes.get(image)


def all_facts(inputs: StatusInputs, memo: FactsMemo) -> Iterator[Facts]:
    """Yield the facts of every resource except Releases."""
    desired = inputs.desired
    yield from memo.facts_of(desired.services, inputs.observed)
    for job in desired.jobs:
        yield job_facts(job, inputs)
    for resource in declared_resources(desired):
        yield _supply_facts(resource, inputs)
    for config in desired.configs:
        yield _config_facts(config)
    for secret in desired.secrets:
        yield _secret_facts(secret)
    if inputs.observed is None:
        return
    declared = {workload.key for workload in desired.workloads}
    there = inputs.observed.services
    unread = there & unread_keys(desired, inputs.observed) - declared
    for key in orphan_keys(desired, inputs.observed) | unread:
        yield _orphan_facts(key, inputs.observed.of(key))
    for key in desired.suspended - declared - there:
        # No container and no document is left, only the suspension.
        yield Facts(key, "", desired=0, ready=0, declared=False)


def _service_facts(service: Service, observed: Observed | None) -> Facts:
    resting = service.spec.state is RunState.STOPPED
    wanted = 0 if resting else service.spec.replicas
    containers = () if observed is None else observed.of(service.key)
    grouped = by_slot(containers)
    slots = [slot_of(n, grouped.get(n, ()), service) for n in range(1, service.spec.replicas + 1)]
    kept = [] if resting else [slot.current for slot in slots if slot.current is not None]
    replicas = [ReplicaState(container, service) for container in kept]
    finished = [r.container for r in replicas if r.is_finished]
    done = [c for c in finished if c.exit_code == 0]
    running = [c for c in kept if c.running and c.health in ("", "healthy")]
    serving = {c.slot for c in containers if c.running and not ReplicaState(c, service).is_surplus}
    current = {c.id for c in kept}
    # Of an earlier revision, or with a successor of the same one, as during a restart.
    earlier = {
        c.slot
        for c in containers
        if c.running and c.id not in current and c.health in ("", "healthy")
    }
    ill = [
        unhealthy_cause(c)
        for c in containers
        if c.running and c.health == "unhealthy" and ReplicaState(c, service).is_stale
        if c.slot in serving and c.slot not in earlier | {k.slot for k in running}
    ]
    surplus = sorted({c.slot for c in containers if ReplicaState(c, service).is_surplus})
    reported = () if observed is None else (*slots, *(_surplus(n, grouped[n]) for n in surplus))
    return Facts(
        key=service.key,
        owner=service.owner,
        desired=wanted,
        ready=len(running) + len(done),
        serving=len(serving | {c.slot for c in done}),
        earlier=len((earlier & serving) - {c.slot for c in running}),
        revision=service.revision,
        image=service.spec.image,
        containers=containers,
        slots=tuple(_slot_report(slot, service.spec.image) for slot in reported),
        unhealthy=(*(cause_of(r) for r in replicas if r.drift is Drift.UNHEALTHY), *ill),
        resting=sum(c.state in ALIVE for c in containers) if resting else 0,
        failed=tuple(f"{c.name} {explain(c)}" for c in finished if c.exit_code),
        rollout={"order": order_of(service).value, "why": why_order(service)},
        details=details_of(service.spec, service.deliveries, containers)
        | volume_details(service, wanted)
        | place_details(service.source)
        | origins_of(service.spec, observed, _image_id(service, observed)),
    )


def _image_id(service: Service, observed: Observed | None) -> str:
    """Return the id of a service's image; '' if it is unknown."""
    if observed is None:
        return ""
    image = observed.pins.get(service.revision) or observed.images.get(service.spec.image)
    return "" if image is None else image.id


def job_facts(job: Service, inputs: StatusInputs) -> Facts:
    """Return the facts about a job: a row for each run with a container, and how the job stands."""
    assert isinstance(job.spec, JobSpec), f"{job.key} is no job"
    observed = inputs.observed
    memory = NO_RUNS if observed is None else observed.jobs.get(job.key, NO_RUNS)
    containers = inputs.containers(job.key)
    decision = None
    if observed is not None:
        hooks = RolloutHooks(inputs.desired, observed, observed, inputs.now, inputs.rollouts)
        now, asked = inputs.now.of(job.key), hooks.asked(job)
        decision = decide(job.spec, job.revision, memory, now, asked)
    ready = decision is not None and decision.word in READY_WORDS
    return Facts(
        key=job.key,
        owner=job.owner,
        desired=1,
        ready=int(ready),
        serving=1,
        revision=job.revision,
        image=job.spec.image,
        containers=containers,
        slots=tuple(_row_of(each.slot, each, health="") for each in containers),
        details=details_of(job.spec)
        | place_details(job.source)
        | {"runs": [_run_row(run) for run in memory.runs]}
        | {"occasions": [_occasion_row(each) for each in _occasions_shown(memory)]},
        job=decision,
    )


def _run_row(run: JobRun) -> Report:
    members = {
        "run": run.number,
        "revision": run.revision,
        "occasion": run.occasion,
        "created": run.created,
        "ended": run.ended,
        "outcome": run.outcome,
        "why": run.why,
    }
    return {name: value for name, value in members.items() if value}


def _occasions_shown(memory: JobMemory) -> Iterator[JobOccasion]:
    remembered = {(run.revision, run.occasion) for run in memory.runs}
    earlier = len(memory.occasions) - OCCASIONS_SHOWN
    for number, each in enumerate(memory.occasions):
        if number >= earlier or (each.revision, each.name) in remembered:
            yield each


def _occasion_row(occasion: JobOccasion) -> Report:
    return {
        "occasion": occasion.name,
        "revision": occasion.revision,
        "completions": occasion.completions,
        "succeeded": int(occasion.is_complete) if occasion.completions == 1 else occasion.succeeded,
        "failed": occasion.failed,
        "complete": occasion.is_complete,
    }


def _surplus(number: int, containers: tuple[Container, ...]) -> SlotState:
    return SlotState(number, None, containers, Drift.ORPHAN, "")


def _slot_report(slot: SlotState, declared_image: str = "") -> Report:
    """Return a slot's row, for its current container or else the first container in the slot.

    The row has the container's image only if another one is declared.
    """
    fills = slot.current if slot.current and slot.current.running else None
    alive = next(iter(slot.alive), None)
    container = fills or alive or slot.current or next(iter(slot.extra), None)
    if container is None:
        missing = {"container": "", "state": "missing", "health": "", "restarts": 0}
        return {"slot": slot.number, **missing}
    image = {"image": container.image} if container.image != declared_image else {}
    return _row_of(slot.number, container, health=container.health) | image


def _row_of(number: int, container: Container, *, health: str) -> Report:
    return {
        "slot": number,
        "container": container.name,
        "state": container.state.value,
        "health": health,
        "restarts": container.restart_count,
        **container_details(container),
    }


def _supply_facts(resource: Network | Volume, inputs: StatusInputs) -> Facts:
    ready = 0
    name = resource.engine_name
    if inputs.observed is not None:
        prerequisites = Prerequisites(inputs.desired, inputs.observed, inputs.networks)
        there = (
            {network.name for network in inputs.observed.networks}
            if isinstance(resource, Network)
            else {volume.name for volume in inputs.observed.volumes}
        )
        sound = prerequisites.declared_problem(resource) is None
        is_outdated = isinstance(resource, Network) and prerequisites.outdated(name) is not None
        ready = int(name in there and sound and not is_outdated)
    details: Report = {"engineName": name} | _size_details(resource, inputs)
    return Facts(
        resource.key, resource.owner, desired=1, ready=ready, serving=ready, details=details
    )


def _size_details(resource: Network | Volume, inputs: StatusInputs) -> Report:
    """Return the member ``sizeBytes``: the size that the engine holds; none for no size."""
    if not isinstance(resource, Volume) or inputs.observed is None:
        return {}
    sizes = (
        size_of_volume(volume.options)
        for volume in inputs.observed.volumes
        if volume.name == resource.engine_name
    )
    size = next(sizes, None)
    return {} if size is None else {"sizeBytes": size}


def _config_facts(config: Config) -> Facts:
    """Return the facts of a Config, which is ready as soon as its files are read."""
    details: Report = {
        "content": config.content,
        "files": [name for name, _ in config.files[:FILES_SHOWN]],
        "fileCount": len(config.files),
    }
    return Facts(config.key, config.owner, desired=1, ready=1, serving=1, details=details)


def _secret_facts(secret: Secret) -> Facts:
    """Return the facts of a Secret, which is ready once the broker has opened its source."""
    opened = int(secret.content != "")
    details: Report = {"content": secret.content}
    return Facts(secret.key, secret.owner, desired=1, ready=opened, serving=opened, details=details)


def _orphan_facts(key: Key, containers: tuple[Container, ...]) -> Facts:
    running = sum(container.running for container in containers)
    slots = sorted(by_slot(containers).items())
    return Facts(
        key=key,
        owner=containers[0].owner,
        desired=0,
        ready=running,
        revision=containers[0].revision,
        image=containers[0].image,
        containers=containers,
        slots=tuple(_slot_report(_surplus(number, each)) for number, each in slots),
        declared=False,
    )


def release_facts(release: Release, ready: set[str]) -> Facts:
    """Return the facts of a release; *ready* has the keys of Ready resources, as text."""
    count = sum(str(member) in ready for member in release.members)
    return Facts(
        release.key,
        release.owner,
        desired=len(release.members),
        ready=count,
        serving=count,
        details={"members": [str(member) for member in release.members]},
    )


DOCUMENT, IMAGE, NONE = "document", "image", "none"
#: A document that sets the entrypoint drops the image's command with it.
DROPPED = "none: the entrypoint of the document drops the image's command"


def origins_of(spec: ServiceSpec, observed: Observed | None, image_id: str) -> Report:
    """Return the member ``origins``; nothing while the image is unknown.

    Each setting is ``document``, ``image``, or ``none`` (with a reason, if there is one). ``volumes``
    has the VOLUME paths of the image: ``document`` for a path that a mount covers.
    """
    brought = None if observed is None else observed.image_settings.get(image_id)
    if observed is None or brought is None:
        return {}
    written = {
        "entrypoint": spec.entrypoint,
        "command": spec.command,
        "user": spec.user,
        "workingDir": spec.working_dir,
        "healthcheck": spec.healthcheck,
    }
    origins: Report = {
        name: DOCUMENT if value is not None else IMAGE if name in brought else NONE
        for name, value in written.items()
    }
    if origins["command"] == IMAGE and spec.entrypoint is not None:
        origins["command"] = DROPPED
    declared = observed.image_volumes.get(image_id, ())
    own = {*uncovered(declared, (mount.target for mount in spec.mounts))}
    volumes = {path: IMAGE if path in own else DOCUMENT for path in uncovered(declared, ())}
    return {"origins": origins | ({"volumes": volumes} if volumes else {})}
