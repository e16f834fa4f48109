"""Translation between the model and the Engine API (1.45): build bodies, read inspects.

The functions are pure and decide nothing. Bodies have canonical keys and only set values, so
defaults injected by the gate are visible as such. Inspects are read leniently, because new engine
versions add members.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, assert_never

from controller.core.encoding.json_members import only_set
from controller.core.engine_api.comparable_fields import LIMITS, unknown_members
from controller.core.engine_api.requests import ICC, MASQUERADE, RequestBody
from controller.core.engine_api.timestamps import ZERO_TIME, is_of_last_run
from controller.model import names, observed
from controller.model.desired.desired import Service
from controller.model.desired.plan import (
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    DisconnectNetwork,
    UpdateContainer,
)
from controller.model.desired.spec.files import FileMount
from controller.model.desired.spec.health import Healthcheck
from controller.model.desired.spec.mounts import BindMount, Mount, TmpfsMount, VolumeMount
from controller.model.desired.spec.network import NetworkMode, Port
from controller.model.desired.spec.rollout import RestartPolicy
from controller.model.desired.spec.service import ServiceSpec
from controller.model.files.delivery import FILE_KINDS, Delivery, MountedFiles
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.names import NetworkNames, qualified, workload_key
from controller.model.observed import ContainerState, Ending, Settings

#: The engine's name of each restart policy, and its number of retries.
RESTART = {
    RestartPolicy.ALWAYS: ("always", 0),
    RestartPolicy.ON_FAILURE: ("on-failure", 10),
    RestartPolicy.NEVER: ("no", 0),
}

_NS_PER_MS = 1_000_000
_NANO = 1_000_000_000
# The only network in the inspect of a container without networks.
_NO_NETWORK = "none"
_SHORT_ID = 12
#: The default number of failed probes in a row before a container is unhealthy.
HEALTH_RETRIES = 3
#: The limits of an update without a field of their own in ``Settings``.
_OTHERS = ("BlkioWeight", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpusetMems")


def create_body(
    service: Service,
    *,
    slot: int,
    image: str,
    networks: NetworkNames,
    with_alias: bool = True,
    occasion: str = "",
) -> RequestBody:
    """Return the body of ``POST /containers/create`` for one replica, without defaults.

    Limits without a value in the spec are absent: the policy provides them.

    Args:
        image: the image to run (a reference or an id). The label has the reference as written.
        with_alias: True adds the alias of the service's name.
        occasion: why a job's run is made; '' for a service. A run's slot is its number.
    """
    spec = service.spec
    return only_set(
        Image=image,
        Labels=_labels(service, slot, occasion),
        User=spec.user,
        WorkingDir=spec.working_dir,
        Env=[f"{name}={value}" for name, value in sorted(spec.env.items())],
        Entrypoint=list(spec.entrypoint or ()),
        Cmd=list(spec.command or ()),
        StopSignal=spec.stop_signal,
        Healthcheck=_healthcheck(spec.healthcheck),
        ExposedPorts={_port(port): {} for port in spec.ports},
        HostConfig=_host_config(service, networks),
        NetworkingConfig=_endpoints(service, networks, with_alias=with_alias),
    ) | {"StopTimeout": stop_timeout_s(spec)}


def stop_timeout_s(spec: ServiceSpec) -> int:
    """Return the grace period of a stop in whole seconds, rounded up."""
    return -(-spec.stop_grace_period // 1000)


def joined_networks(service: Service, base: NetworkNames) -> tuple[str, ...]:
    """Return the names of the networks of a service's containers, the primary one first.

    Published ports need an endpoint outside the internal network, so they add the ingress network.
    """
    spec, namespace = service.spec, service.key.namespace
    attached = tuple(qualified(namespace, name) for name in spec.network.attach)
    isolated = names.namespaced_network(base.isolated, namespace)
    match spec.network.mode:
        case NetworkMode.NONE:
            return ()
        case NetworkMode.BRIDGE:
            beside = (isolated,) if base.bridge_joins_isolated else ()
            return (names.namespaced_network(base.bridge, namespace), *beside, *attached)
        case NetworkMode.ISOLATED:
            ingress = names.namespaced_network(base.ingress, namespace)
            published = any(port.host is not None for port in spec.ports)
            return (isolated, *((ingress,) if published else ()), *attached)
        case _:
            assert_never(spec.network.mode)


def container_body(action: CreateContainer, networks: NetworkNames) -> RequestBody:
    """Return the create body of a planned container."""
    return create_body(
        action.service,
        slot=action.slot,
        image=action.image,
        networks=networks,
        with_alias=action.with_alias,
        occasion=action.occasion,
    )


def update_body(action: UpdateContainer) -> RequestBody:
    """Return the body of ``POST /containers/ID/update``; absent settings stay unchanged."""
    policy = only_set(Name=action.restart, MaximumRetryCount=action.restart_max)
    return ({"RestartPolicy": policy} if action.restart else {}) | limits_body(action.limits)


def limits_body(limits: Mapping[str, int]) -> RequestBody:
    """Return the set limits for an update's body, from their names in ``Settings``."""
    return only_set(**{LIMITS[name]: value for name, value in limits.items()})


def joining_body(action: ConnectNetwork | DisconnectNetwork) -> RequestBody:
    """Return the body of ``POST /networks/NAME/connect`` and ``…/disconnect``."""
    aliases = list(action.aliases) if isinstance(action, ConnectNetwork) else []
    return only_set(
        Container=action.precondition.id, EndpointConfig={"Aliases": aliases} if aliases else None
    )


def network_body(action: CreateNetwork) -> RequestBody:
    """Return the body of ``POST /networks/create``."""
    switches = {MASQUERADE: action.masquerade, ICC: action.icc}
    return only_set(
        Name=action.target,
        Driver="bridge",
        Internal=action.internal,
        Options={option: "false" for option, enabled in switches.items() if not enabled},
        Labels={names.OWNER: action.owner, names.NAMESPACE: action.object.namespace},
    )


def volume_body(action: CreateVolume) -> RequestBody:
    """Return the body of ``POST /volumes/create``."""
    return {
        "Name": action.target,
        "Driver": "local",
        "Labels": {names.OWNER: action.owner, names.NAMESPACE: action.object.namespace},
    }


def files_body(action: DeliverFiles) -> RequestBody:
    """Return the body of ``PUT /trimtab/v1/files/KIND/NAMESPACE/NAME``."""
    encoded = {name: base64.b64encode(data).decode() for name, data in action.files}
    return {"owner": action.owner, "files": encoded}


def _labels(service: Service, slot: int, occasion: str) -> dict[str, str]:
    labels = {
        **service.spec.container_labels,
        names.OWNER: service.owner,
        names.NAMESPACE: service.key.namespace,
        names.SERVICE: service.key.name,
        names.SLOT: names.run_slot(slot) if occasion else str(slot),
        names.REVISION: service.revision,
        names.IMAGE: service.spec.image,
        **({names.OCCASION: occasion} if occasion else {}),
    }
    return dict(sorted(labels.items()))


def _host_config(service: Service, networks: NetworkNames) -> RequestBody:
    spec = service.spec
    cpus = spec.resources.cpus
    joined = joined_networks(service, networks)
    return only_set(
        NetworkMode=joined[0] if joined else _NO_NETWORK,
        Memory=spec.resources.memory,
        NanoCpus=None if cpus is None else round(cpus * _NANO),
        PidsLimit=spec.resources.pids,
        ShmSize=spec.resources.shm,
        CapAdd=list(spec.security.cap_add),
        ReadonlyRootfs=spec.security.read_only_root_filesystem,
        Init=spec.init,
        Mounts=[_mount(mount, service) for mount in spec.mounts],
        PortBindings=_bindings(spec.ports),
        RestartPolicy=_restart(spec.restart.policy),
        LogConfig={
            "Type": "json-file",
            "Config": {"max-size": str(spec.logs.max_size), "max-file": str(spec.logs.max_files)},
        },
    )


def _endpoints(service: Service, networks: NetworkNames, *, with_alias: bool) -> RequestBody:
    joined = joined_networks(service, networks)
    if not joined:
        return {}
    end: RequestBody = {"Aliases": [service.key.name]} if with_alias else {}
    return {"EndpointsConfig": {name: dict(end) for name in joined}}


def _mount(mount: Mount, service: Service) -> RequestBody:
    match mount:
        case BindMount():
            kind, source = "bind", mount.source
        case VolumeMount():
            kind, source = "volume", qualified(service.key.namespace, mount.source)
        case TmpfsMount():
            options = {"SizeBytes": mount.size}
            return {"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options}
        case FileMount():
            found = (each for each in service.deliveries if each.target == mount.target)
            # A service without its contents is never created: its document is a problem.
            return _files(next(found, Delivery(mount.type, mount.source, "", mount.target)))
        case _:
            assert_never(mount)
    return only_set(Type=kind, Source=source, Target=mount.target, ReadOnly=mount.read_only)


def _files(delivery: Delivery) -> RequestBody:
    variant = delivery.variant
    options = only_set(
        Content=delivery.content,
        Uid=variant.uid,
        Gid=variant.gid,
        Mode=variant.mode,
        Keys=list(variant.keys),
        Key=delivery.key,
        Stable=delivery.is_stable,
    )
    return {
        "Type": delivery.kind,
        "Source": delivery.name,
        "Target": delivery.target,
        "ReadOnly": True,
        "Trimtab": options,
    }


def _port(port: Port) -> str:
    return f"{port.container}/{port.protocol}"


def _bindings(ports: tuple[Port, ...]) -> RequestBody:
    bindings: dict[str, list[RequestBody]] = {}
    for port in ports:
        if port.host is not None:
            binding = {"HostIp": port.host_ip, "HostPort": str(port.host)}
            bindings.setdefault(_port(port), []).append(binding)
    return bindings


def _restart(policy: RestartPolicy) -> RequestBody:
    name, count = RESTART[policy]
    return {"Name": name} | ({"MaximumRetryCount": count} if count else {})


def _healthcheck(check: Healthcheck | None) -> RequestBody:
    if check is None:
        return {}
    if check.exec is None:
        return {"Test": ["NONE"]}  # disables the image's own check
    return {
        "Test": ["CMD", *check.exec],
        "Interval": check.interval * _NS_PER_MS,
        "Timeout": check.timeout * _NS_PER_MS,
        "Retries": check.retries,
        # Zero inherits the image's value. The smallest value of the engine is 1 ms.
        "StartPeriod": max(1, check.start_period) * _NS_PER_MS,
    }


def settings(inspect: Mapping[str, Any]) -> Settings:
    """Return the settings in a container's inspect."""
    host = inspect.get("HostConfig") or {}
    restart = host.get("RestartPolicy") or {}
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    limits = {name: host.get(member) or 0 for name, member in LIMITS.items()}
    return Settings(
        name=str(inspect.get("Name") or "").removeprefix("/"),
        # -1, 0 and null all mean unlimited processes.
        **{**limits, "pids": max(0, limits["pids"])},
        cpuset=host.get("CpusetCpus") or "",
        restart=restart.get("Name") or "no",
        restart_max=restart.get("MaximumRetryCount") or 0,
        networks=tuple(sorted(name for name in joined if name != _NO_NETWORK)),
        others=tuple(f"{name}={host[name]}" for name in _OTHERS if host.get(name)),
    )


def container(
    inspect: Mapping[str, Any],
    item: ContainerItem | None,
    endings: Mapping[str, Ending] = MappingProxyType({}),
) -> observed.Container:
    """Return a container of this instance from its inspect and the inventory.

    The identity comes from the inventory, or from the labels of a container without an item there.
    *endings* are the ended runs in the inventory, by the container's id.
    """
    state = inspect.get("State") or {}
    ending = endings.get(inspect["Id"])
    if ending is not None and not is_of_last_run(ending, _instant(state.get("FinishedAt"))):
        ending = None
    source = item if item is not None else _item_of_labels(inspect)
    return observed.Container(
        id=inspect["Id"],
        key=workload_key(source.namespace, source.service, source.slot_label),
        slot=source.slot,
        revision=source.revision,
        owner=source.owner,
        origin=source.origin,
        intent=source.intent,
        image=source.image,
        image_id=inspect.get("Image") or "",
        state=ContainerState(state.get("Status") or "created"),
        settings=settings(inspect),
        admitted=None if item is None else item.admitted,
        health=_health(inspect),
        exit_code=state.get("ExitCode") or 0,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        started_at=_instant(state.get("StartedAt")),
        finished_at=_instant(state.get("FinishedAt")),
        restart_count=inspect.get("RestartCount") or 0,
        stop_grace_s=(inspect.get("Config") or {}).get("StopTimeout"),
        addresses=_addresses(inspect),
        ports=_ports(inspect),
        writes=_writes(inspect),
        aliases=endpoint_aliases(inspect),
        effective=source.effective,
        violation=source.violation,
        ending=ending,
        files=tuple(_mounted_files(source)),
        unknown=unknown_members(inspect),
    )


def _mounted_files(item: ContainerItem) -> Iterator[MountedFiles]:
    signalled = dict(text.rpartition("=")[::2] for text in item.signalled)
    for mount in item.confined.mounts if item.confined is not None else ():
        if mount.type in FILE_KINDS:
            seen = signalled.get(f"{mount.type}/{mount.source}", mount.content)
            content = seen if mount.stable else mount.content
            yield MountedFiles(mount.type, mount.source, content, mount.target, mount.stable)


def _item_of_labels(inspect: Mapping[str, Any]) -> ContainerItem:
    labels: Mapping[str, str] = (inspect.get("Config") or {}).get("Labels") or {}
    slot = labels.get(names.SLOT, "")
    run = names.run_of_slot(slot)
    return ContainerItem(
        id=inspect["Id"],
        namespace=labels.get(names.NAMESPACE, ""),
        service=labels.get(names.SERVICE, ""),
        slot=run or (int(slot) if slot.isascii() and slot.isdigit() else 0),
        is_run=run > 0,
        revision=labels.get(names.REVISION, ""),
        owner=labels.get(names.OWNER, ""),
        origin=labels.get(names.ORIGIN, ""),
        intent=labels.get(names.INTENT, ""),
        image=labels.get(names.IMAGE, ""),
        admitted=settings(inspect),
    )


def _health(inspect: Mapping[str, Any]) -> str:
    """Return the state of the engine's check; ``starting`` until the next probe after a pause.

    The engine reports ``unhealthy`` for a container without probes: a paused container, until the
    first probe after it is unpaused. Only with enough failures in a row is the state taken as
    unhealthy.
    """
    health = (inspect.get("State") or {}).get("Health") or {}
    status = str(health.get("Status") or "")
    check = (inspect.get("Config") or {}).get("Healthcheck") or {}
    running = (inspect.get("State") or {}).get("Status") == "running"
    failing = (health.get("FailingStreak") or 0) >= (check.get("Retries") or HEALTH_RETRIES)
    if status == "unhealthy" and running and not failing:
        return "starting"
    return "" if status == "none" else status


def _instant(text: str | None) -> str:
    return "" if not text or text == ZERO_TIME else text


def _addresses(inspect: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    pairs = ((name, (end or {}).get("IPAddress") or "") for name, end in joined.items())
    return tuple(sorted((name, address) for name, address in pairs if address))


def _ports(inspect: Mapping[str, Any]) -> tuple[observed.HostPort, ...]:
    bound = (inspect.get("NetworkSettings") or {}).get("Ports") or {}
    return tuple(
        sorted(
            observed.HostPort(each.get("HostIp") or "0.0.0.0", int(each["HostPort"]), protocol)  # noqa: S104 - the engine's default
            for port, bindings in bound.items()
            for protocol in [port.partition("/")[2]]
            for each in bindings or ()
            if str(each.get("HostPort") or "").isdigit()
        )
    )


def _writes(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    mounts = inspect.get("Mounts") or ()
    volumes = {str(m.get("Name")) for m in mounts if m.get("Type") == "volume" and m.get("RW")}
    return tuple(sorted(volumes))


def endpoint_aliases(inspect: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the requested aliases in each network of a container."""
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    by_itself = inspect["Id"][:_SHORT_ID]  # added by engines before 1.45
    asked = {
        name: tuple(sorted(set((end or {}).get("Aliases") or ()) - {by_itself}))
        for name, end in joined.items()
        if name != _NO_NETWORK
    }
    return tuple(sorted(asked.items()))


def network(inspect: Mapping[str, Any], belonging: OwnedObject | None) -> observed.ObservedNetwork:
    """Return a network. ``ours`` depends on the inventory alone."""
    options = inspect.get("Options") or {}
    return observed.ObservedNetwork(
        id=inspect["Id"],
        name=inspect["Name"],
        ours=belonging is not None,
        origin=belonging.origin if belonging else "",
        namespace=belonging.namespace if belonging else "",
        internal=bool(inspect.get("Internal")),
        driver=inspect.get("Driver") or "",
        masquerade=options.get(MASQUERADE, "true") == "true",
        icc=options.get(ICC, "true") == "true",
        containers=len(inspect.get("Containers") or {}),
    )


def volume(inspect: Mapping[str, Any], belonging: OwnedObject | None) -> observed.ObservedVolume:
    """Return a named volume. ``ours`` depends on the inventory alone."""
    return observed.ObservedVolume(
        name=inspect["Name"],
        ours=belonging is not None,
        origin=belonging.origin if belonging else "",
        driver=inspect.get("Driver") or "",
        options=tuple(sorted((inspect.get("Options") or {}).items())),
    )


def image(inspect: Mapping[str, Any], reference: str = "") -> observed.Image:
    """Return a local image, with the digest of *reference*'s repository if there is one."""
    digests = [text.partition("@") for text in inspect.get("RepoDigests") or ()]
    repository = reference.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    own = [digest for name, _, digest in digests if name == repository]
    return observed.Image(id=inspect["Id"], digest=(own or [d for _, _, d in digests] or [""])[0])


def declared_volumes(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the VOLUME paths of a local image."""
    return tuple(sorted((inspect.get("Config") or {}).get("Volumes") or ()))
