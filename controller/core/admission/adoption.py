"""Adoption of unknown objects: those with this instance's label, and foreign ones that an operator names.

Adoption: an instance takes over objects with its label that its journal did not create.

Pure. The create that would have led to the container is reconstructed from the engine's inspect.
The rules judge this create like a new one, and the container must equal its result. A container
with more rights than the policy gives is not adopted: the inventory alone records the admitted
rights, and a label proves nothing. Such a container keeps running, and nobody can touch it through
the gate.

Adoption of one foreign volume or network by an operator, for the documents of a namespace.

Pure. The object was made past the gate, so an operator vouches for the object. Only plain local
volumes and plain bridge networks can be adopted: others can reach any path of the host, or another
network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from controller.core.encoding.identifiers import timestamp_s
from controller.core.encoding.json_values import mapping_member
from controller.core.encoding.text import quote
from controller.core.enforcement.kernel import SHM_DEFAULT
from controller.core.engine_api.comparable_fields import describe_difference, differing_settings
from controller.core.engine_api.mount_grammar import is_plain_volume
from controller.core.engine_api.requests import (
    ICC,
    MASQUERADE,
    CreateRequest,
    Finding,
    Grant,
    MountRequest,
)
from controller.core.engine_api.translate import endpoint_aliases, settings
from controller.core.files.content import MountedPlace, mounted_place
from controller.core.records.parts import AdoptionPart, SummaryPart
from controller.core.rules.container import hooks_text, read_hooks
from controller.core.rules.identity import adopt_remedy, judge_name, judge_owner
from controller.core.rules.networks import WAY_OUT
from controller.core.rules.verdict import AdmissionDecision, enforced_findings
from controller.model import names
from controller.model.inventory import OwnedObject
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.records import Actor, Role

ObjectKind = Literal["network", "volume", "container"]
#: In order of adoption: containers need networks and volumes.
KINDS: tuple[ObjectKind, ...] = ("network", "volume", "container")
ORIGINS = {Role.CONTROLLER.value, Role.CLIENT.value}

#: Members of Config that a container inherits from its image.
_INHERITED = frozenset(
    {
        *("ArgsEscaped", "Cmd", "Entrypoint", "Healthcheck", "OnBuild"),
        *("Shell", "StopSignal", "User", "WorkingDir"),
    }
)
#: Paths that the engine hides or write-protects in /proc and /sys by default. Newer versions have
#: more. ``core.enforcement.kernel`` checks the kernel's state as well.
_MASKED = frozenset({"/proc/kcore", "/proc/keys", "/sys/firmware"})
_READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
#: Members of HostConfig that the gate writes for every request.
_HARDENED = ("CapDrop", "SecurityOpt", "LogConfig")


@dataclass(frozen=True, slots=True)
class Claim:
    """The labels of an object. Anybody with the engine's socket can write them."""

    kind: ObjectKind
    id: str  # for a volume, its name
    name: str
    origin: str = ""
    owner: str = ""
    namespace: str = ""
    service: str = ""
    slot: str = ""
    revision: str = ""
    intent: str = ""
    image: str = ""

    @property
    def subject(self) -> str:
        """The operator's name for the object."""
        return self.id if self.kind == "container" else f"{self.kind}:{self.id}"

    @property
    def made_s(self) -> float | None:
        """The time of its intent, in seconds since the epoch; None if the intent is malformed."""
        return timestamp_s(self.intent)


def claim_of(kind: ObjectKind, inspect: Mapping[str, Any]) -> Claim:
    """Return the labels of an object."""
    config = inspect.get("Config") or {} if kind == "container" else inspect
    labels = config.get("Labels") or {}
    name = str(inspect.get("Name") or "").removeprefix("/")
    return Claim(
        kind=kind,
        id=name if kind == "volume" else str(inspect.get("Id") or ""),
        name=name,
        origin=str(labels.get(names.ORIGIN, "")),
        owner=str(labels.get(names.OWNER, "")),
        namespace=str(labels.get(names.NAMESPACE, "")),
        service=str(labels.get(names.SERVICE, "")),
        slot=str(labels.get(names.SLOT, "")),
        revision=str(labels.get(names.REVISION, "")),
        intent=str(labels.get(names.INTENT, "")),
        image=str(labels.get(names.IMAGE, "")),
    )


def judge_claim(claim: Claim, *, taken: Iterable[str]) -> Iterator[Finding]:
    """Yield the reasons why an object's labels cannot be the instance's own.

    *taken* are the intents of other objects with the instance's label.
    """
    if claim.origin not in ORIGINS or claim.made_s is None:
        reason = "its labels aren't as a broker writes them"
        yield Finding("adopt.labels", "Labels", reason, "remove it, if it isn't needed")
    elif claim.intent in taken:
        reason = f"another object has its intent {claim.intent}: one of them is a copy"
        yield Finding("adopt.copied", "Labels", reason, "remove the copy")


def actor_of(claim: Claim, policy: Policy) -> Actor:
    """Return the creator of an object, as far as its labels say."""
    if claim.origin == Role.CONTROLLER.value:
        return Actor(uid=-1, gid=-1, pid=0, role=Role.CONTROLLER)
    if claim.owner == OPERATOR_OWNER:
        return Actor(uid=0, gid=0, pid=0, role=Role.OPERATOR)
    uid = next((each.uid for each in policy.clients if each.owner == claim.owner), -1)
    return Actor(uid=uid, gid=-1, pid=0, role=Role.CLIENT, owner=claim.owner)


def judge_plain(claim: Claim, inspect: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the reasons why a network or volume cannot be ours: another driver, or options."""
    wanted = "bridge" if claim.kind == "network" else "local"
    if inspect.get("Driver") != wanted or (claim.kind == "volume" and inspect.get("Options")):
        reason = f"the {claim.kind} {claim.name} has options or a driver, so its content is unknown"
        yield Finding(f"{claim.kind}.options", "Driver", reason, "create it again, without options")
    by_controller = claim.origin == Role.CONTROLLER.value
    if by_controller and not names.is_dns_label(claim.namespace, length=names.NAMESPACE_MAX):
        reason = "its labels aren't as a broker writes them"
        yield Finding("adopt.labels", "Labels", reason, "remove it, if it isn't needed")


# Containers


@dataclass(frozen=True, slots=True)
class Defaults:
    """The engine's defaults, as the engine reports them."""

    cgroupns: str = "private"
    runtime: str = "runc"

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Defaults:
        cgroupns = "host" if str(info.get("CgroupVersion") or "") == "1" else "private"
        return cls(cgroupns, str(info.get("DefaultRuntime") or "runc"))


def create_body_of(
    inspect: Mapping[str, Any],
    image: Mapping[str, Any],
    *,
    actor: Actor,
    defaults: Defaults,
    roots: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, object]:
    """Return the create body, in a client's form, that leads to such a container.

    *roots* are the folders of delivered files, by kind: mounts of the container's namespace from there
    are mounts of files, without their variant.
    """
    config, own = inspect.get("Config") or {}, image.get("Config") or {}
    body: dict[str, object] = {
        member: value
        for member, value in config.items()
        if member not in _INHERITED or value != own.get(member)
    }
    if body.get("Hostname") == str(inspect.get("Id", ""))[:12]:
        del body["Hostname"]
    if check := mapping_member(body, "Healthcheck"):
        # The engine fills each unset member from the check of the image.
        images = mapping_member(own, "Healthcheck")
        body["Healthcheck"] = {
            member: value for member, value in check.items() if value != images.get(member)
        }
    body["Image"] = str(inspect.get("Image") or "")
    body["Env"] = [
        entry for entry in config.get("Env") or () if entry not in (own.get("Env") or ())
    ]
    for member in ("Volumes", "ExposedPorts"):
        body[member] = {
            name: value
            for name, value in (config.get(member) or {}).items()
            if name not in (own.get(member) or {})
        }
    body["Labels"] = _asked_labels(config.get("Labels") or {}, own.get("Labels") or {}, actor)
    if hooks := read_hooks(str((config.get("Labels") or {}).get(names.HOOKS) or "")):
        body["TrimtabHooks"] = json.loads(hooks_text(hooks))
    host = _asked_host(inspect.get("HostConfig") or {}, defaults)
    places = delivered_places(inspect, roots)
    host["Mounts"] = [
        _file_mount(mount, places[mount["Target"]]) if mount.get("Target") in places else mount
        for mount in (inspect.get("HostConfig") or {}).get("Mounts") or ()
    ]
    body["HostConfig"] = host
    ends = {name: {"Aliases": list(asked)} for name, asked in endpoint_aliases(inspect)}
    body["NetworkingConfig"] = {"EndpointsConfig": ends} if ends else {}
    return body


def delivered_places(
    inspect: Mapping[str, Any], roots: Mapping[str, str]
) -> dict[str, MountedPlace]:
    """Return the read-only mounts of files that the instance delivered to a container, by target."""
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    found = {}
    for mount in (inspect.get("HostConfig") or {}).get("Mounts") or ():
        if mount.get("Type") == "bind" and mount.get("ReadOnly"):
            place = mounted_place(roots, str(mount.get("Source") or ""))
            if place is not None and place.files.namespace == labels.get(names.NAMESPACE):
                found[str(mount.get("Target"))] = place
    return found


def _file_mount(mount: Mapping[str, Any], place: MountedPlace) -> dict[str, object]:
    files = {"Content": place.content, "Key": place.key, "Stable": place.stable}
    return {
        "Type": place.files.kind,
        "Source": place.files.name,
        "Target": mount["Target"],
        "ReadOnly": True,
        "Trimtab": {name: value for name, value in files.items() if value},
    }


def with_known_variants(
    request: CreateRequest, places: Mapping[str, MountedPlace]
) -> CreateRequest:
    """Return a request whose mounts of files have the variants that their paths name."""

    def known(mount: MountRequest) -> MountRequest:
        if mount.files is None or mount.target not in places:
            return mount
        variant = places[mount.target].variant
        return replace(mount, files=replace(mount.files, known_variant=variant))

    return replace(request, mounts=tuple(map(known, request.mounts)))


def _asked_labels(
    labels: Mapping[str, str], images: Mapping[str, str], actor: Actor
) -> dict[str, str]:
    """Return the labels without the broker's and the image's."""
    written = {*names.BROKER_LABELS, names.HOOKS}
    if actor.role is not Role.CONTROLLER:
        written |= {*names.CONTROLLER_LABELS}
    return {
        key: value
        for key, value in labels.items()
        if key not in written and not (key in images and value in ("", images[key]))
    }


def _asked_host(host: Mapping[str, Any], defaults: Defaults) -> dict[str, object]:
    """Return HostConfig without the values that the engine filled in."""
    asked = dict(host)
    if set(host.get("MaskedPaths") or ()) >= _MASKED:
        asked.pop("MaskedPaths")
    if set(host.get("ReadonlyPaths") or ()) >= _READ_ONLY:
        asked.pop("ReadonlyPaths")
    filled = {
        "CgroupnsMode": defaults.cgroupns,
        "Runtime": defaults.runtime,
        "ShmSize": SHM_DEFAULT,
        "OomKillDisable": False,
    }
    for member, value in filled.items():
        if asked.get(member) == value:
            asked.pop(member)
    return asked


def judge_likeness(admission: AdmissionDecision, inspect: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the differences between a container and the gate's result for its create.

    The gate would add a limit that the container lacks, and leave out a network that the create
    does not name.
    """
    assert admission.settings is not None, "an admitted create has settings"
    now = settings(inspect)
    for setting in differing_settings(now, admission.settings):
        yield _unlike(
            describe_difference(setting, now, admission.settings).replace(
                "admitted", "would be given"
            )
        )
    made = (admission.body or {}).get("HostConfig")
    host = inspect.get("HostConfig") or {}
    for member in _HARDENED:
        if isinstance(made, Mapping) and made.get(member) != host.get(member):
            yield _unlike(f"{member} is {host.get(member)!r}, and would be {made.get(member)!r}")
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    for label, value in sorted(mapping_member(admission.summary, "labels").items()):
        if labels.get(label) != value:
            reason = f"its label {label} is {labels.get(label)!r}, and would be {value!r}"
            yield Finding(
                "adopt.labels", "Labels", reason, "remove it; trimtab then creates it again"
            )


def _unlike(reason: str) -> Finding:
    remedy = "correct it with the docker command, or remove it; trimtab then creates it again"
    return Finding("adopt.unlike", "HostConfig", reason, remedy)


#: The name of a volume that the engine named.
_UNNAMED = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: The engine's own networks.
_ENGINES = frozenset({"bridge", "host", "none", "default", "ingress", "docker_gwbridge"})
#: Options of a bridge that reach nothing beyond the network.
_HARMLESS = frozenset(
    {MASQUERADE, ICC, "com.docker.network.bridge.name", "com.docker.network.driver.mtu"}
)


@dataclass(frozen=True, slots=True)
class ObjectUser:
    """A container that mounts the volume, or is joined to the network."""

    name: str
    running: bool
    #: In the inventory.
    ours: bool


@dataclass(frozen=True, slots=True)
class AdoptionRequest:
    """An operator's request to adopt a foreign object."""

    kind: Literal["volume", "network"]
    #: The engine's name.
    name: str
    namespace: str
    owner: str


def judge_object(
    request: AdoptionRequest,
    inspect: Mapping[str, Any],
    *,
    owned: OwnedObject | None,
    users: tuple[ObjectUser, ...],
    instance: str,
    policy: Policy,
) -> tuple[Finding, ...]:
    """Return the reasons why an object can't be adopted.

    *owned* is its item in the inventory; *users* are the containers with the volume or network.
    """
    found = [
        *_names(request, policy),
        *_labels(request, inspect, instance),
        *(_volume(inspect) if request.kind == "volume" else _network(inspect, policy)),
        *_users(request, owned, users),
    ]
    return tuple(enforced_findings(found, policy.modes))


def _names(request: AdoptionRequest, policy: Policy) -> Iterator[Finding]:
    if not names.is_dns_label(request.namespace, length=names.NAMESPACE_MAX):
        reason = f"{quote(request.namespace)} is no namespace"
        yield Finding("adopt.namespace", "namespace", reason, "name it as --as NAMESPACE/NAME")
        return
    yield from judge_owner(policy, Role.CONTROLLER, request.owner, request.namespace)
    # The engine names a volume by 64 hex digits, and finds volumes by their whole names alone.
    if not (request.kind == "volume" and _UNNAMED.fullmatch(request.name)):
        yield from judge_name(request.name, "Name", most=policy.names.max)
    bases = (policy.networks.isolated, policy.networks.ingress, policy.networks.bridge)
    implied = any(request.name == base or request.name.startswith(f"{base}.") for base in bases)
    if request.kind == "network" and (implied or request.name in _ENGINES):
        reason = f"{request.name} is a network of the engine, or of every namespace"
        yield Finding("name.reserved", "Name", reason, "adopt a network that somebody made")


def _labels(
    request: AdoptionRequest, inspect: Mapping[str, Any], instance: str
) -> Iterator[Finding]:
    made_by = str((inspect.get("Labels") or {}).get(names.INSTANCE) or "")
    if made_by == instance:
        reason = f"the {request.kind} {request.name} carries this instance's label"
        yield Finding("adopt.labels", "Labels", reason, "use 'trimtab adopt --yes'")
    elif made_by:
        reason = f"the labels of {request.name} name the instance {quote(made_by)}"
        yield Finding("adopt.labels", "Labels", reason, adopt_remedy(made_by))


def _volume(inspect: Mapping[str, Any]) -> Iterator[Finding]:
    options = {str(name): str(value) for name, value in (inspect.get("Options") or {}).items()}
    if not is_plain_volume(str(inspect.get("Driver")), options.items()):
        reason = "the volume has options or a driver, and can reach any path of the host"
        remedy = "copy its data into a plain local volume"
        yield Finding("volume.options", "Driver", reason, remedy)


def _network(inspect: Mapping[str, Any], policy: Policy) -> Iterator[Finding]:
    ipam = inspect.get("IPAM") or {}
    special = [name for name in ("Ingress", "ConfigOnly") if inspect.get(name)]
    options = sorted((inspect.get("Options") or {}).keys() - _HARMLESS)
    plain = inspect.get("Driver") == "bridge" and str(inspect.get("Scope") or "local") == "local"
    if not plain or special or options or str(ipam.get("Driver") or "default") != "default":
        unusual = ", ".join((*special, *options)) or f"the driver {inspect.get('Driver')!r}"
        reason = f"the network isn't a plain bridge: {unusual}"
        yield Finding("network.options", "Driver", reason, "make a network without options")
    if inspect.get("EnableIPv6") and not policy.networks.ipv6:
        reason = "IPv6 needs a firewall of its own (CVE-2024-32473)"
        remedy, permit = "make the network without IPv6", Grant("set", "networks.ipv6", True)
        yield Finding("network.ipv6", "EnableIPv6", reason, remedy, permit=permit)
    if not inspect.get("Internal") and "bridge" not in policy.networks.modes:
        reason = "the network has a way out, which the policy doesn't grant"
        remedy = "grant bridge, or make it internal"
        yield Finding("network.internal", "Internal", reason, remedy, permit=WAY_OUT)


def _users(
    request: AdoptionRequest, owned: OwnedObject | None, users: tuple[ObjectUser, ...]
) -> Iterator[Finding]:
    if owned is not None and not owned.adopted:
        reason = f"the {request.kind} {request.name} is this instance's already"
        yield Finding("adopt.known", "Name", reason, "leave out engineName, or name another one")
        return
    mine = [user.name for user in users if user.ours]
    moves = owned is not None and (owned.namespace, owned.owner) != (
        request.namespace,
        request.owner,
    )
    if moves and owned is not None and mine:
        reason = f"{mine[0]} of the namespace {owned.namespace} uses {request.name}"
        yield Finding("adopt.in-use", "namespace", reason, "remove that container first")
    # A stopped container can't write. A network shows its running members only to each other.
    others = [user.name for user in users if not user.ours and user.running]
    if others:
        reason = f"{others[0]} runs with {request.name}, and isn't this instance's"
        yield Finding("adopt.in-use", "Name", reason, "stop that container, or adopt it first")


def summary_of(request: AdoptionRequest, *, identity: str, intent: str, note: str) -> SummaryPart:
    """Return the summary of the record, from which the inventory takes the object."""
    labels = {
        names.INTENT: intent,
        names.NAMESPACE: request.namespace,
        names.ORIGIN: Role.CONTROLLER.value,
        names.OWNER: request.owner,
    }
    return AdoptionPart(
        act="adopt-object",
        kind=request.kind,
        name=request.name,
        namespace=request.namespace,
        owner=request.owner,
        labels=labels,
        identity=identity,
        note=note,
    )
