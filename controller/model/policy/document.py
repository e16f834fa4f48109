"""The policy: the rules of the gate as written by root, closed and frozen.

Defaults are those of ``strict``, the values of the security analysis. A policy without an entry is
never looser than ``strict``. There is no entry for rights that no policy can grant: privileged
containers, the engine's socket, a host namespace.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from controller.model.desired.spec.fields import Model, PortNumber
from controller.model.names import DEFAULT_NAMESPACE, is_dns_label
from controller.model.policy import sections, values
from controller.model.policy.sections import (
    ROLLABLE,
    SOURCES_MAX,
    DeviceGrant,
    DeviceRules,
    Mode,
    SignedSource,
)
from controller.model.records import ViewerScope

#: The owner of objects created by operators by hand.
OPERATOR_OWNER = "operator"
#: The smallest memory limit accepted by the engine.
MEMORY_FLOOR = 6 * 1024**2


class Owner(Model):
    """An owner: its namespaces, bind sources, uids and quotas."""

    name: values.OwnerName
    namespaces: Annotated[tuple[values.Namespace, ...], Field(min_length=1)] = (DEFAULT_NAMESPACE,)
    #: Folders with the owner's bind sources; empty for every source allowed by the policy.
    sources: tuple[values.HostPath, ...] = ()
    uids: tuple[Annotated[int, Field(ge=1, le=2**32 - 2)], ...] = ()
    #: Containers; None for the policy's quota.
    quota: Annotated[int, Field(ge=0)] | None = None
    #: Volumes, and networks of its clients; None for the policy's.
    volumes: Annotated[int, Field(ge=0)] | None = None
    networks: Annotated[int, Field(ge=0)] | None = None
    #: Published ports of its containers; None for the policy's.
    ports: Annotated[int, Field(ge=0)] | None = None


class PolicyClient(Model):
    """A user of the host with access to the socket, on behalf of one owner."""

    uid: values.Uid
    owner: values.OwnerName


class PolicyViewer(Model):
    """A user of the host who reads the state of owners, and changes nothing."""

    uid: values.Uid
    owners: Literal["all"] | Annotated[tuple[values.OwnerName, ...], Field(min_length=1)]
    #: The owners of the containers with readable output.
    logs: Literal["none"] | Annotated[tuple[values.OwnerName, ...], Field(min_length=1)] = "none"

    @property
    def scope(self) -> ViewerScope:
        return ViewerScope(
            owners=None if self.owners == "all" else frozenset(self.owners),
            logs=frozenset() if self.logs == "none" else frozenset(self.logs),
        )


class Loosens(Model):
    """The rights granted by an exception. Unset fields grant nothing."""

    cap_add: tuple[values.Capability, ...] = ()
    memory_max: values.PolicyBytes | None = None
    cpus_max: values.Cpus | None = None
    pids_max: Annotated[int, Field(ge=1)] | None = None
    shm_max: values.PolicyBytes | None = None
    host_ports: tuple[PortNumber, ...] = ()
    host_ips: Annotated[tuple[values.Address, ...], Field(alias="hostIPs")] = ()
    mounts: tuple[values.HostPath, ...] = ()
    networks: tuple[str, ...] = ()  # names on the engine, of other namespaces
    modes: tuple[Literal["none", "bridge", "isolated"], ...] = ()
    runtimes: tuple[str, ...] = ()
    root: bool = False
    writable_root: bool = False
    anonymous_volumes: values.AnonymousVolumes = "refuse"
    #: The uid of an observer: a service with the host's network, processes and files, which can
    #: only read. Nobody else on the host has the uid.
    observer: Annotated[int, Field(ge=1000, le=2**31 - 1)] | None = None


class Exemption(Model):
    """A loosening for one service, with a reason and a last day (UTC)."""

    owner: values.OwnerName
    namespace: values.Namespace
    service: str
    repository: str
    #: Whose containers get it: those of the declared service, or those that clients of the owner
    #: made, and operators. Clients choose the label with the service's name.
    made_by: Annotated[Literal["documents", "clients"], Field(alias="for")] = "documents"
    reason: Annotated[str, Field(min_length=10)]
    expires: values.Day
    loosens: Loosens

    @property
    def ends_at(self) -> float:
        """The end of the exception, in seconds since the epoch."""
        day = date.fromisoformat(self.expires) + timedelta(days=1)
        return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()

    @property
    def label(self) -> str:
        return f"exception:{self.owner}/{self.namespace}/{self.service}"


@dataclass(frozen=True, slots=True)
class PolicyOrigin:
    """The file of a policy, with the line of each written key."""

    file: str
    lines: Mapping[str, int] = field(default_factory=dict)
    #: The file is part of the package, so nobody edits it.
    shipped: bool = False
    #: For a shipped policy: the policy ``home``, which possibly grants the denied request.
    home: Policy | None = None


class Policy(Model):
    """The whole policy."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    #: The purpose of the policy, with conditions on the file. ``strict``, ``home``: no condition.
    #: ``production``: ``owners`` is required. ``development``: only here is ``images.trustLocal``
    #: allowed.
    profile: Literal["strict", "production", "development", "home"] = "strict"
    images: sections.ImageRules = sections.ImageRules.model_construct()
    capabilities: sections.Capabilities = sections.Capabilities.model_construct()
    security: sections.SecurityRules = sections.SecurityRules.model_construct()
    resources: sections.ResourceRules = sections.ResourceRules.model_construct()
    engine: sections.EngineRules = sections.EngineRules.model_construct()
    mounts: sections.Mounts = sections.Mounts.model_construct()
    networks: sections.Networks = sections.Networks.model_construct()
    devices: DeviceRules = DeviceRules.model_construct()
    logs: sections.LogRules = sections.LogRules.model_construct()
    restart: sections.RestartRules = sections.RestartRules.model_construct()
    auto_remove: bool = True
    healthcheck: sections.HealthcheckRules = sections.HealthcheckRules.model_construct()
    env: sections.Env = sections.Env.model_construct()
    exec: sections.Exec = sections.Exec.model_construct()
    labels: sections.Labels = sections.Labels.model_construct()
    names: sections.Names = sections.Names.model_construct()
    quotas: sections.Quotas = sections.Quotas.model_construct()
    #: None accepts any owner.
    owners: Annotated[tuple[Owner, ...], Field(min_length=1)] | None = None
    #: Git sources with signed admission in their namespaces (``core.proofs``).
    sources: Annotated[tuple[SignedSource, ...], Field(max_length=SOURCES_MAX)] = ()
    operators: tuple[values.Uid, ...] = ()
    clients: tuple[PolicyClient, ...] = ()
    viewers: tuple[PolicyViewer, ...] = ()
    #: Uids allowed to connect from a container (another pid namespace than the broker's).
    container_peers: tuple[values.Uid, ...] = ()
    #: Rules that are not enforced yet, by their id; see ``model.policy.sections``.
    modes: dict[str, Mode] = Field(default_factory=dict)
    exceptions: tuple[Exemption, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for path, text in _contradictions(self):
            raise PydanticCustomError("policy", "{text}", {"path": path, "text": text})
        return self

    def owner(self, name: str) -> Owner | None:
        """Return the listed owner with the given name.

        Without a list of owners, return an owner for every valid name.
        """
        if self.owners is None:
            return Owner(name=name) if is_dns_label(name, length=values.OWNER_MAX) else None
        return next((owner for owner in self.owners if owner.name == name), None)

    def namespace_of(self, owner: str) -> str:
        """Return the namespace of an owner's clients.

        The first namespace of a listed owner, else ``default``.
        """
        listed = self.owner(owner) if self.owners is not None else None
        return listed.namespaces[0] if listed else DEFAULT_NAMESPACE

    def signed_source(self, namespace: str) -> SignedSource | None:
        """Return the signed source of a namespace; None without a signed source."""
        return next((rule for rule in self.sources if namespace in rule.namespaces), None)

    def to_json(self) -> dict[str, object]:
        """Return the policy as JSON for ``from_json``, with every default written out."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, value: object) -> Policy:
        """Parse the result of ``to_json``, or the value of a file's YAML.

        Raises:
            pydantic.ValidationError: *value* is not a policy.
        """
        return cls.model_validate_json(json.dumps(value))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values. The copy computes its own digest and text."""
        copied = super().model_copy(update=update, deep=deep)
        for derived in ("digest", "json_text"):
            copied.__dict__.pop(derived, None)
        return copied

    @cached_property
    def origin(self) -> PolicyOrigin | None:
        """The file of the policy; None if not read from a file. Not part of the value."""
        return None

    def read_from(self, origin: PolicyOrigin) -> Self:
        copied = self.model_copy()
        copied.__dict__["origin"] = origin
        return copied

    @cached_property
    def judged_at(self) -> float | None:
        """The time of a preview, in seconds since the epoch. Not part of the value.

        None: the facts of a request have the time.
        """
        return None

    def at(self, now: float) -> Self:
        """Return the policy for previews at a time: exceptions that ended by then permit nothing."""
        copied = self.model_copy()
        copied.__dict__["judged_at"] = now
        return copied

    @cached_property
    def directory(self) -> str:
        """The directory of the desired state, without links; '' if unknown. Not part of the value."""
        return ""

    def with_directory(self, path: str) -> Self:
        """Return the policy for documents of a directory, an absolute path without links."""
        copied = self.model_copy()
        copied.__dict__["directory"] = path
        return copied

    @property
    def projects(self) -> tuple[sections.Project, ...]:
        """The folders of projects, with the directory of the desired state last."""
        rule = self.mounts.directory
        if rule is None or not self.directory:
            return self.mounts.projects
        directory = sections.Project.model_construct(path=self.directory, uid=rule.uid)
        return (*self.mounts.projects, directory)

    @property
    def next_end(self) -> float:
        """When the next exception ends after ``judged_at``; infinity for never."""
        now = self.judged_at or 0.0
        return min((e.ends_at for e in self.exceptions if e.ends_at > now), default=math.inf)

    def ended_exceptions(self, now: float) -> tuple[Exemption, ...]:
        """Return the exceptions that permit nothing any more."""
        return tuple(each for each in self.exceptions if each.ends_at <= now)

    @cached_property
    def json_text(self) -> str:
        """The text of ``to_json``: the controller reads it before every list of containers."""
        return json.dumps(self.to_json(), ensure_ascii=False)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the policy's canonical JSON, in hex."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _contradictions(policy: Policy) -> Iterable[tuple[str, str]]:
    """Yield the contradictions: the path of the key to change, and the reason."""
    if policy.images.trust_local and policy.profile != "development":
        yield (
            "images.trustLocal",
            "needs `profile: development`; elsewhere use `trimtab image trust`",
        )
    if policy.profile == "production" and policy.owners is None:
        yield "owners", "`profile: production` needs the list of owners"
    resources = policy.resources
    for what, default, most in (
        ("memory", resources.memory.default, resources.memory.max),
        ("cpus", resources.cpus.default, resources.cpus.max),
        ("pids", resources.pids.default, resources.pids.max),
        ("tmpfs", resources.tmpfs.default, resources.tmpfs.max),
    ):
        if default > most:
            yield f"resources.{what}.default", "the default is above the maximum"
    if resources.memory.default < MEMORY_FLOOR:
        yield "resources.memory.default", "the engine needs at least 6Mi"
    yield from _projects(policy)
    logs = policy.logs
    if logs.default_size > logs.max_size:
        yield "logs.defaultSize", "the default is above the maximum"
    if logs.default_files > logs.max_files:
        yield "logs.defaultFiles", "the default is above the maximum"
    networks = policy.networks
    if len({networks.isolated, networks.ingress, networks.bridge}) != 3:
        yield "networks", "isolated, ingress and bridge need three different names"
    yield from _grants(policy)
    yield from _modes(policy)
    yield from _sources(policy)
    yield from _people(policy)


def _sources(policy: Policy) -> Iterable[tuple[str, str]]:
    namespaces: set[str] = set()
    for index, rule in enumerate(policy.sources):
        if any(rule.source == other.source for other in policy.sources[:index]):
            yield f"sources.{index}.source", f"{rule.source!r} is listed twice"
        for namespace in rule.namespaces:
            if namespace in namespaces:
                yield f"sources.{index}.namespaces", f"{namespace!r} is listed twice"
            namespaces.add(namespace)
    for index, client in enumerate(policy.clients):
        if policy.namespace_of(client.owner) in namespaces:
            yield f"clients.{index}.owner", "a client signs nothing: its namespace requires signed"


def _projects(policy: Policy) -> Iterable[tuple[str, str]]:
    for index, project in enumerate(policy.mounts.projects):
        for path in policy.mounts.forbidden:
            if PurePosixPath(path).is_relative_to(project.path):
                yield f"mounts.projects.{index}.path", f"it contains {path}, which is forbidden"


_OwnersGrant = DeviceGrant | sections.MacvlanGrant | sections.RemoteGrant


def _grants(policy: Policy) -> Iterable[tuple[str, str]]:
    listed: tuple[tuple[str, str, Sequence[_OwnersGrant]], ...] = (
        ("devices", "grants", policy.devices.grants),
        ("networks", "macvlan", policy.networks.macvlan),
        ("mounts", "remote", policy.mounts.remote),
    )
    numbered = (
        (f"{section}.{key}.{number}", grant)
        for section, key, grants in listed
        for number, grant in enumerate(grants)
    )
    for path, grant in numbered:
        owner = next((each for each in policy.owners or () if each.name == grant.owner), None)
        if owner is None:
            yield (
                f"{path}.owner",
                f"{grant.owner!r} isn't in the list of owners, and a grant needs it",
            )
        elif grant.namespace not in owner.namespaces:
            yield f"{path}.namespace", f"{grant.namespace!r} isn't a namespace of {grant.owner}"


def _modes(policy: Policy) -> Iterable[tuple[str, str]]:
    for rule in policy.modes:
        if rule not in ROLLABLE:
            rules = ", ".join(ROLLABLE)
            yield "modes", f"{rule!r} is always enforced; a mode may be given to {rules}"


def _observers(policy: Policy) -> Iterable[tuple[str, str]]:
    """The gate answers the uid of an observer nothing: its processes are in the host's pid namespace."""
    listed = {*policy.operators, *policy.container_peers, *(each.uid for each in policy.clients)}
    listed |= {each.uid for each in policy.viewers}
    listed |= {each.uid for each in policy.mounts.projects}
    listed |= {uid for owner in policy.owners or () for uid in owner.uids}
    for index, exemption in enumerate(policy.exceptions):
        uid, path = exemption.loosens.observer, f"exceptions.{index}.loosens.observer"
        if uid is not None and exemption.made_by != "documents":
            yield path, "an observer is a service that a document declares"
        if uid is not None and uid in listed:
            yield (
                path,
                f"the observer's uid {uid} is somebody's in this policy: choose one that nobody has",
            )


def _viewers(policy: Policy) -> Iterable[tuple[str, str]]:
    clients = [each.uid for each in policy.clients]
    for index, viewer in enumerate(policy.viewers):
        path = f"viewers.{index}"
        if viewer.uid in [each.uid for each in policy.viewers[:index]]:
            yield f"{path}.uid", f"the uid {viewer.uid} is listed twice"
        if viewer.uid == 0 or viewer.uid in {*policy.operators, *clients}:
            yield f"{path}.uid", f"the uid {viewer.uid} is an operator or a client already"
        if hidden := sorted(each for each in viewer.scope.logs if not viewer.scope.has(each)):
            yield f"{path}.logs", f"{hidden[0]!r} isn't among the viewer's owners"


def _people(policy: Policy) -> Iterable[tuple[str, str]]:
    owners = [owner.name for owner in policy.owners or ()]
    for index, name in enumerate(owners):
        if name == OPERATOR_OWNER:
            yield f"owners.{index}.name", "objects made by operators have that owner"
        if name in owners[:index]:
            yield f"owners.{index}.name", f"{name!r} is listed twice"
    uids = [client.uid for client in policy.clients]
    for index, client in enumerate(policy.clients):
        if client.uid in uids[:index]:
            yield f"clients.{index}.uid", f"the uid {client.uid} is listed twice"
        if client.uid == 0 or client.uid in policy.operators:
            yield f"clients.{index}.uid", f"the uid {client.uid} is an operator already"
        if client.owner == OPERATOR_OWNER:
            yield f"clients.{index}.owner", "objects made by operators have that owner"
    yield from _viewers(policy)
    yield from _observers(policy)
    used = [(f"clients.{index}.owner", c.owner) for index, c in enumerate(policy.clients)]
    used += [(f"exceptions.{index}.owner", e.owner) for index, e in enumerate(policy.exceptions)]
    used += [
        (f"viewers.{index}", owner)
        for index, viewer in enumerate(policy.viewers)
        for owner in sorted({*(viewer.scope.owners or ()), *viewer.scope.logs} - {OPERATOR_OWNER})
    ]
    for path, owner in used if policy.owners is not None else ():
        if owner not in owners:
            yield path, f"{owner!r} isn't in the list of owners"
