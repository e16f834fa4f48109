"""The body that the engine receives in place of the client's, rebuilt from typed values.

This module writes every key, in the engine's own spelling. Every value comes from a typed request
or from the policy. No object of a client passes through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.core.admission.dns_names import extra_names
from controller.core.effective import is_reserved
from controller.core.encoding.identifiers import without_credentials
from controller.core.encoding.json_values import only_set
from controller.core.encoding.text import shorten
from controller.core.engine_api import field_tables, requests
from controller.core.engine_api.comparable_fields import LIMITS, REQUIRED_LIMITS
from controller.core.engine_api.field_reader import members_of
from controller.core.engine_api.grammar import CDI_DRIVER
from controller.core.engine_api.mount_grammar import TMPFS_FLAGS
from controller.core.records.parts import CreatePart, DevicePart, MountPart
from controller.core.rules.confinement import confinement_of, number_text
from controller.core.rules.container import capability, hooks_text, variable_names
from controller.core.rules.context import Case, Stamp, make_case, name_of, reference_text
from controller.core.rules.images import is_trusted_by_policy, mounts_of
from controller.core.rules.logs import log_with_defaults
from controller.core.rules.networks import JoinedNetworks, host_address, joined, network_facts
from controller.core.rules.verdict import AdmissionPatch
from controller.model import names
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.policy.values import NANO, format_cpus
from controller.model.quantities import format_bytes
from controller.model.records import Actor, Role

#: Characters of each text in the summary of a refused create.
_TEXT_MAX = 256
NO_NEW_PRIVILEGES = "no-new-privileges:true"


@dataclass(frozen=True, slots=True)
class FinalRequest:
    """An admitted create with all defaults filled in, and the list of changes."""

    name: str
    image: str
    request: requests.CreateRequest
    networks: JoinedNetworks
    labels: tuple[tuple[str, str], ...]
    changes: tuple[AdmissionPatch, ...]
    #: The path of the host for each mount of delivered files, by its target.
    file_paths: Mapping[str, str] = field(default_factory=dict)
    #: The container whose namespaces are shared; in a preview the name of its service.
    shared: str = ""
    #: The members that are not sent, because the engine would refuse the create for them.
    left_out: frozenset[str] = frozenset()

    @property
    def settings(self) -> Settings:
        """The settings that the inventory records as admitted."""
        limits: dict[str, Any] = {name: getattr(self.request.limits, name) for name in LIMITS}
        return Settings(
            name=self.name,
            **limits,
            restart=self.request.restart.name or "no",
            restart_max=self.request.restart.max_retries,
            networks=self.networks.names,
        )


def finish(case: Case) -> FinalRequest:
    """Return the create with the policy's defaults; requested values stay as they are."""
    request, policy = case.request, case.policy
    request = replace(
        request,
        limits=with_defaults(request.limits, policy, case.facts.host.cpus if case.facts else 0),
        log=log_with_defaults(request.log, policy),
        exposed_ports=_exposed(request),
        ports=tuple(port_with_address(port, policy) for port in request.ports),
        mounts=tuple(_bounded(mount, policy) for mount in mounts_of(case)),
        cap_add=tuple(dict.fromkeys(capability(text) for text in request.cap_add)),
    )
    name = name_of(case)
    networks = joined(case)
    image = case.image.id if case.image else request.image
    paths = case.facts.file_paths if case.facts else {}
    target = case.facts.shared if case.facts else None
    shared = target.id if target else request.shares.service
    ignored = case.facts.host.ignores if case.facts else ()
    final = FinalRequest(
        *(name, image, request, networks, labels_of(case), (), paths, shared),
        left_out=REQUIRED_LIMITS["cpus"].intersection(ignored),
    )
    return replace(final, changes=tuple(_changes(case, final)))


def with_defaults(
    limits: requests.ResourceLimits, policy: Policy, cpus: int
) -> requests.ResourceLimits:
    """Return limits with a default for each unset one; never more CPUs than the host has."""
    resources = policy.resources
    memory = limits.memory or resources.memory.default
    most = min(resources.cpus.default, cpus * NANO) if cpus else resources.cpus.default
    return replace(
        limits,
        memory=memory,
        memory_swap=memory,
        nano_cpus=0 if limits.cpu_quota else limits.nano_cpus or most,
        pids=limits.pids or resources.pids.default,
    )


def _exposed(request: requests.CreateRequest) -> tuple[str, ...]:
    """Return the exposed ports and the published ones: the engine ignores unexposed ports."""
    published = (f"{port.container}/{port.protocol}" for port in request.ports)
    return tuple(sorted({*request.exposed_ports, *published}))


def port_with_address(port: requests.PortRequest, policy: Policy) -> requests.PortRequest:
    """Return a port with an address of the host, by default the policy's first address."""
    address = host_address(port.host_ip) or policy.networks.ports.host_ips[0]
    return replace(port, host_ip=address)


def _bounded(mount: requests.MountRequest, policy: Policy) -> requests.MountRequest:
    if mount.type != "tmpfs":
        return mount
    return replace(mount, size=mount.size or policy.resources.tmpfs.default)


def labels_of(case: Case) -> tuple[tuple[str, str], ...]:
    """Return all labels: ours override the client's, and both override the image's.

    A label of the image that containers don't keep is overridden by ''.
    """
    request = case.request
    ours = dict.fromkeys(names.CONTROLLER_LABELS, "")
    if case.by_controller:
        ours = {label: request.label(label) for label in names.CONTROLLER_LABELS}
        ours |= {label: text for label in names.RUN_LABELS if (text := request.label(label))}
    ours |= origin_labels(case.actor, case.stamp)
    if request.hooks.all:
        ours |= {names.HOOKS: hooks_text(request.hooks)}
    ours |= {names.OWNER: case.owner, names.SERVICE: case.service}
    own = {key: value for key, value in request.labels if not is_reserved(key)}
    return tuple(sorted({**dict.fromkeys(case.blanked, ""), **own, **ours}.items()))


def origin_labels(actor: Actor, stamp: Stamp) -> dict[str, str]:
    """Return the labels that only the broker writes."""
    return {
        names.MANAGED: "true",
        names.INSTANCE: stamp.instance,
        names.INTENT: stamp.intent,
        names.ORIGIN: "controller" if actor.role is Role.CONTROLLER else "client",
    }


def _changes(case: Case, final: FinalRequest) -> list[AdmissionPatch]:
    """Return a patch for each change of the request."""
    asked, limits = case.request, final.request.limits
    rows = [
        ("image.pinned", f"runs the image {final.image}", case.image is not None),
        ("name.given", f"is called {final.name}", not case.name),
        ("default.memory", f"memory {format_bytes(limits.memory)}", not asked.limits.memory),
        ("default.swap", "no swap beside the memory", not asked.limits.memory_swap),
        (
            "default.cpus",
            f"{format_cpus(limits.nano_cpus)} CPUs",
            not asked.limits.nano_cpus and not asked.limits.cpu_quota,
        ),
        ("engine.ignores", "no limit of CPUs, which the engine can't keep", bool(final.left_out)),
        ("default.pids", f"{limits.pids} processes", not asked.limits.pids),
        ("hardening.capabilities", "all capabilities dropped but those asked for", True),
        ("hardening.privileges", "no new privileges", not asked.security_opt),
        ("default.logs", "logs rotate", final.request.log != asked.log),
        (
            "port.loopback",
            "ports without an address are published on loopback",
            any(not port.host_ip for port in asked.ports),
        ),
        (
            "port.exposed",
            "published ports are exposed",
            set(final.request.exposed_ports) != set(asked.exposed_ports),
        ),
        (
            "default.tmpfs",
            "memory filesystems have a size",
            any(mount.type == "tmpfs" and not mount.size for mount in asked.mounts),
        ),
        (
            "hardening.tmpfs",
            "no set-user-id programs or devices in memory filesystems",
            any(mount.form == "tmpfs" for mount in asked.mounts),
        ),
        (
            "files.mounted",
            "delivered files are mounted from the broker's own folder",
            any(mount.files is not None for mount in asked.mounts),
        ),
        *_volume_changes(asked, final.request),
        (
            "network.mode",
            f"joins {', '.join(final.networks.names) or 'no network'}",
            not case.by_controller and final.networks.mode != asked.network_mode,
        ),
        (
            "network.slot-address",
            "has the address of its slot",
            any(end.address for end in final.networks.networks),
        ),
    ]
    return [AdmissionPatch(rule, text) for rule, text, applies in rows if applies]


def _volume_changes(
    asked: requests.CreateRequest, final: requests.CreateRequest
) -> Iterator[tuple[str, str, bool]]:
    """Yield the mounts that the policy chose for unnamed volumes."""
    for mount in final.mounts:
        rule = _added_by(asked, mount)
        if rule == "volume.slot":
            yield rule, f"{mount.target}: volume {mount.source} (kept)", True
        elif rule:
            size = format_bytes(mount.size)
            yield rule, f"{mount.target}: tmpfs of {size} (empty at each start)", True


def _added_by(asked: requests.CreateRequest, mount: requests.MountRequest) -> str:
    """Return the rule by which the policy chose a mount's volume, '' for a requested mount."""
    named = {(each.target, each.type, each.source) for each in asked.mounts}
    if (mount.target, mount.type, mount.source) in named:
        return ""
    return "volume.slot" if mount.type == "volume" else "volume.scratch"


def body_of(final: FinalRequest) -> requests.RequestBody:
    """Return the body to forward."""
    request = final.request
    ends = {end.network: endpoint_body(end) for end in final.networks.networks}
    return {
        **members_of(field_tables.CONFIG, request),
        **only_set(
            ExposedPorts={port: {} for port in request.exposed_ports},
            Healthcheck=request.healthcheck
            and members_of(field_tables.HEALTHCHECK, request.healthcheck),
            Volumes={path: {} for path in request.volumes},
            NetworkingConfig={"EndpointsConfig": ends} if ends else None,
        ),
        "Image": final.image,
        "Labels": dict(final.labels),
        "HostConfig": _host_config(final),
    }


def endpoint_body(end: requests.EndpointRequest) -> requests.RequestBody:
    """Return the settings of an endpoint, with the address that the gate chose."""
    chosen = {"IPAMConfig": {"IPv4Address": end.address}} if end.address else {}
    return {**members_of(field_tables.ENDPOINT, end), **chosen}


def outline_body(
    request: requests.CreateRequest, *, name: str, actor: Actor, policy: Policy
) -> dict[str, object]:
    """Return the gate's body for a create, also for a refused create.

    For display only: the gate never forwards this body. Refused values appear unchanged.
    """
    return body_of(finish(make_case(request, name=name, actor=actor, policy=policy)))


def _host_config(final: FinalRequest) -> requests.RequestBody:
    request, mounts = final.request, final.request.mounts
    body = {
        **members_of(field_tables.HOST, request),
        **members_of(field_tables.RESOURCES, request.limits),
        "NanoCpus": request.limits.nano_cpus,
        **only_set(
            Binds=[_bind(mount) for mount in mounts if mount.form == "binds"],
            Mounts=[_mount(mount, final) for mount in mounts if mount.form == "mounts"],
            Tmpfs={mount.target: _tmpfs(mount) for mount in mounts if mount.form == "tmpfs"},
            PortBindings=_bindings(request.ports),
            ConsoleSize=list(request.console_size) if any(request.console_size) else [],
            StorageOpt=dict(request.storage),
            Runtime=request.runtime,
            Devices=[_device(device) for device in request.devices if not device.cdi],
            DeviceRequests=_device_requests(request),
            Sysctls=dict(request.sysctls),
            Ulimits=[{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in request.ulimits],
            RestartPolicy=members_of(field_tables.RESTART_POLICY, request.restart),
        ),
        "NetworkMode": final.networks.mode,
        **_shared_modes(final),
        "CapDrop": ["ALL"],
        "SecurityOpt": [NO_NEW_PRIVILEGES],
        "LogConfig": {"Type": request.log.type, "Config": dict(request.log.options)},
    }
    return {name: value for name, value in body.items() if name not in final.left_out}


def _shared_modes(final: FinalRequest) -> requests.RequestBody:
    """Return the modes of the namespaces that are another container's."""
    shared = final.request.shares
    mode = "host" if shared.host else f"container:{final.shared}"
    return {
        name: mode
        for name, is_shared in (
            ("NetworkMode", shared.network),
            ("IpcMode", shared.ipc),
            ("PidMode", shared.pid),
        )
        if is_shared
    }


def _device(device: requests.DeviceRequest) -> requests.RequestBody:
    return {
        "PathOnHost": device.source,
        "PathInContainer": device.target,
        "CgroupPermissions": device.permissions,
    }


def _device_requests(request: requests.CreateRequest) -> list[requests.RequestBody]:
    names = [device.source for device in request.devices if device.cdi]
    return [{"Driver": CDI_DRIVER, "DeviceIDs": names}] if names else []


def _bind(mount: requests.MountRequest) -> str:
    return ":".join(part for part in (mount.source, mount.target, mount.access) if part)


def _tmpfs(mount: requests.MountRequest) -> str:
    mode = f",mode={mount.mode:o}" if mount.mode is not None else ""
    access = "ro" if mount.read_only else "rw"
    flags = ",".join((*TMPFS_FLAGS, "exec" if mount.executable else "noexec"))
    return f"{access},{flags},size={mount.size}{mode}"


def _mount(mount: requests.MountRequest, final: FinalRequest) -> requests.RequestBody:
    members = members_of(field_tables.MOUNT, mount)
    if mount.files is not None:
        return members | {"Type": "bind", "Source": final.file_paths.get(mount.target, "")}
    if mount.type == "tmpfs":
        return members | {"TmpfsOptions": members_of(field_tables.TMPFS_OPTIONS, mount)}
    driver = {"DriverConfig": {"Name": mount.driver}} if mount.driver else {}
    binding = members_of(field_tables.BIND_OPTIONS, mount)
    # An observer sees the root filesystem alone: no sockets below /run, no /proc, no Secrets.
    binding |= {"NonRecursive": True} if mount.source == "/" else {}
    return members | only_set(
        BindOptions=binding,
        VolumeOptions=members_of(field_tables.VOLUME_OPTIONS, mount) | driver,
    )


def _bindings(ports: tuple[requests.PortRequest, ...]) -> requests.RequestBody:
    bindings: dict[str, list[requests.RequestBody]] = {}
    for port in ports:
        binding = {"HostIp": port.host_ip, "HostPort": port.host_text}
        bindings.setdefault(f"{port.container}/{port.protocol}", []).append(binding)
    return dict(bindings)


def summary_of(case: Case, final: FinalRequest) -> dict[str, object]:
    """Return the journal's summary of a create: no values of variables, no arguments."""
    request = final.request
    return CreatePart(
        name=final.name,
        image=reference_text(request, case.actor),
        image_id=case.image.id if case.image else "",
        digest=case.image.digest if case.image else "",
        trusted_by_policy=is_trusted_by_policy(case),
        # Hooks have arguments, which may be secret: the record has their digest.
        labels={k: v for k, v in final.labels if is_reserved(k) and k != names.HOOKS},
        aliases=tuple(extra_names(request, final.networks.aliases)),
        network_aliases=_network_aliases(case, final) if case.by_controller else {},
        slot_addresses={
            facts.id: end.address or end.asked
            for end in final.networks.networks
            if case.by_controller
            and (end.address or end.asked)
            and (facts := network_facts(case, end.network)) is not None
            and facts.subnet
        },
        environment=(
            *variable_names(tuple(_asked_env(case))),
            *(variable.name for variable in request.variables),
        ),
        mounts=tuple(
            MountPart(
                type=mount.type,
                source=mount.source,
                target=mount.target,
                read_only=mount.read_only,
                rule=_added_by(case.request, mount),
            )
            for mount in request.mounts
        ),
        capabilities=request.cap_add,
        devices=tuple(_device_part(case, device) for device in request.devices),
        groups=request.groups,
        extra_hosts=request.extra_hosts,
        shares=tuple(_shares(case)),
        ports=tuple(
            f"{port.host_ip}:{port.host_text}:{port.container}/{port.protocol}"
            for port in request.ports
        ),
        # The kind of the test only. Its arguments may hold secrets, and no run has a record.
        healthcheck=request.healthcheck.test[:1] if request.healthcheck else (),
        exceptions=case.exceptions,
        confinement=confinement_of(case, request),
    ).members


def _asked_env(case: Case) -> Iterator[str]:
    """Yield the variables of the request itself."""
    for index, entry in enumerate(case.request.env):
        if f"Env[{index}]" not in case.inherited:
            yield entry


def _shares(case: Case) -> Iterator[str]:
    """Yield the shared namespaces, with the service and the id of the container that the gate found."""
    asked, found = case.request.shares, case.facts.shared if case.facts else None
    for name in asked.names:
        yield f"{name}:{asked.service}" + (f":{found.id}" if found else "")


def _device_part(case: Case, device: requests.DeviceRequest) -> DevicePart:
    paths = case.facts.paths if case.facts else {}
    found = case.facts.cdi.get(device.source) if case.facts else None
    nodes = found.nodes if found else (device.source,)
    return DevicePart(
        source=device.source,
        target="" if device.cdi else device.target,
        permissions=device.permissions,
        numbers=tuple(number_text(paths[node].number) for node in nodes if node in paths),
        specification=found.digest if found else "",
    )


def _network_aliases(case: Case, final: FinalRequest) -> dict[str, object]:
    further = {
        end.network: [alias for alias in end.aliases if alias != case.service]
        for end in final.networks.networks
    }
    return {network: aliases for network, aliases in further.items() if aliases}


def refused_summary(case: Case) -> dict[str, object]:
    """Return the journal's summary of a refused create: owner, service, name and image, shortened.

    Any other part of a refused create may be a secret.
    """
    image = without_credentials(reference_text(case.request, case.actor))
    return CreatePart(
        name=shorten(case.name, _TEXT_MAX),
        image=shorten(image, _TEXT_MAX),
        owner=shorten(case.owner, _TEXT_MAX),
        service=shorten(case.service, _TEXT_MAX),
    ).members
