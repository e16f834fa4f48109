"""The body of a container's create, from the document of its service.

The functions are pure and decide nothing. A body has canonical keys and only set values, so
defaults injected by the gate are visible as such.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, assert_never

from controller.core.encoding.json_values import only_set
from controller.core.engine_api.container_fields import FIELDS, ContainerField, snake_case
from controller.core.engine_api.requests import RequestBody
from controller.core.engine_api.translate import NO_NETWORK
from controller.model import names
from controller.model.delivery import Delivery
from controller.model.desired.desired import Service
from controller.model.desired.plan import CreateContainer
from controller.model.desired.spec import mounts
from controller.model.desired.spec.container import Device, Healthcheck, Hook, IpcMode, Logs
from controller.model.desired.spec.fields import host_addresses
from controller.model.desired.spec.network import NetworkMode, Port, SinglePort
from controller.model.desired.spec.service import JobSpec, RestartPolicy, ServiceSpec
from controller.model.names import NetworkNames

#: The engine's name of each restart policy, and its number of retries.
RESTART = {
    RestartPolicy.ALWAYS: ("always", 0),
    RestartPolicy.ON_FAILURE: ("on-failure", 10),
    RestartPolicy.NEVER: ("no", 0),
}

_NS_PER_MS = 1_000_000


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
        **_copied(spec, _OF_CONFIG),
        Image=image,
        Labels=_labels(service, slot, occasion),
        Env=[f"{name}={value}" for name, value in sorted(spec.texts_of_env.items())],
        TrimtabEnv=[variable_text(each) for each in service.deliveries if each.variable],
        Healthcheck=_healthcheck(spec.healthcheck),
        TrimtabHooks=only_set(
            PostStart=[_hook(hook) for hook in spec.lifecycle.post_start],
            PreStop=[_hook(hook) for hook in spec.lifecycle.pre_stop],
        ),
        TrimtabShares=_shares(spec),
        ExposedPorts={_port(port): {} for each in spec.ports for port in each.each},
        HostConfig=_host_config(service, networks),
        NetworkingConfig=_endpoints(service, networks, with_alias=with_alias),
    ) | {"StopTimeout": stop_timeout_s(spec)}


def _getters(*, is_of_host: bool) -> tuple[tuple[ContainerField, attrgetter[Any]], ...]:
    return tuple(
        (field, attrgetter(snake_case(field.document.removeprefix("spec."))))
        for field in FIELDS
        if field.document and field.is_of_host is is_of_host
    )


#: The fields that a create copies, each with the way to its value in a spec.
_OF_CONFIG, _OF_HOST = _getters(is_of_host=False), _getters(is_of_host=True)


def _copied(
    spec: ServiceSpec, fields: Iterable[tuple[ContainerField, attrgetter[Any]]]
) -> RequestBody:
    return {field.member: field.form(value_of(spec)) for field, value_of in fields}


#: Stands for a content that nobody has asked for yet. No content has it.
UNKNOWN_CONTENT = f"hmac:{'0' * 64}"


def variable_text(delivery: Delivery) -> str:
    """Return the request for a variable with the value of a Secret's file (``VariableRequest``)."""
    # Without a broker the content is unknown: the policy judges the name of the variable meanwhile.
    content = delivery.content or UNKNOWN_CONTENT
    return f"{delivery.variable}={delivery.name}/{delivery.key}@{content}"


def _hook(hook: Hook) -> RequestBody:
    return only_set(
        Cmd=list(hook.exec),
        User=hook.user,
        WorkingDir=hook.working_dir,
        Env=[f"{name}={value}" for name, value in sorted(hook.env.items())],
        TimeoutMs=hook.timeout,
    )


def _shares(spec: ServiceSpec) -> RequestBody:
    shares, observe = spec.shares, spec.observe
    if observe is not None and (observe.network or observe.pid):
        return only_set(Host=True, Network=observe.network, Pid=observe.pid)
    if shares is None:
        return {}
    # The gate finds the container: no id is part of the request, or of a proof of it.
    return only_set(Service=shares.service, Network=shares.network, Ipc=shares.ipc, Pid=shares.pid)


def has_network_of_another(spec: ServiceSpec) -> bool:
    """Return True if a service's containers have the network of another service, or the host's."""
    sidecar = spec.shares is not None and spec.shares.network
    return sidecar or (spec.observe is not None and spec.observe.network)


def stop_timeout_s(spec: ServiceSpec) -> int:
    """Return the grace period of a stop in whole seconds, rounded up."""
    return -(-spec.stop_grace_period // 1000)


def joined_networks(service: Service, base: NetworkNames) -> tuple[str, ...]:
    """Return the names of the networks of a service's containers, the primary one first.

    Published ports need an endpoint outside the internal network, so they add the ingress network, unless
    an adopted network with a way out takes the place of the implied one.
    """
    spec, namespace = service.spec, service.key.namespace
    if has_network_of_another(spec):
        return ()
    attached = tuple(service.network_name(each.name) for each in spec.network.attach)
    isolated = names.namespaced_network(base.isolated, namespace)
    ingress = names.namespaced_network(base.ingress, namespace)
    published = (ingress,) if any(port.host is not None for port in spec.ports) else ()
    match spec.network.mode:
        case NetworkMode.NONE:
            return ()
        case NetworkMode.BRIDGE:
            beside = (isolated,) if base.bridge_joins_isolated else ()
            return (names.namespaced_network(base.bridge, namespace), *beside, *attached)
        case NetworkMode.ISOLATED:
            return (isolated, *published, *attached)
        case NetworkMode.DECLARED:
            has_way_out = any(bound.has_way_out for bound in service.bound_names)
            return attached if has_way_out else (*attached, *published)
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
    spec = service.spec
    if isinstance(spec, JobSpec) and spec.completions > 1:
        labels[names.COMPLETIONS] = names.completions_label(spec.completions, spec.parallelism)
    return dict(sorted(labels.items()))


def _host_config(service: Service, networks: NetworkNames) -> RequestBody:
    spec = service.spec
    joined = joined_networks(service, networks)
    shares_network = has_network_of_another(spec)
    return only_set(
        **_copied(spec, _OF_HOST),
        NetworkMode=joined[0] if joined else None if shares_network else NO_NETWORK,
        IpcMode=None if spec.ipc is IpcMode.PRIVATE else spec.ipc.value,
        Ulimits=[
            {"Name": name, "Soft": limit.soft, "Hard": limit.hard}
            for name, limit in sorted(spec.ulimits.items())
        ],
        Devices=[_device(device) for device in spec.devices if device.path is not None],
        DeviceRequests=_device_requests(spec),
        ExtraHosts=[
            f"{name}:{address}"
            for name, addresses in sorted(spec.extra_hosts.items())
            for address in host_addresses(addresses)
        ],
        **_mounts(service),
        PortBindings=_bindings(spec.ports),
        RestartPolicy=_restart(service),
        LogConfig={"Type": spec.logs.driver, "Config": _log_options(spec.logs)},
    )


def _endpoints(service: Service, networks: NetworkNames, *, with_alias: bool) -> RequestBody:
    joined = joined_networks(service, networks)
    if not joined:
        return {}
    attached = service.spec.network.attach
    chosen = {service.network_name(each.name): each.address for each in attached if each.address}
    return {
        "EndpointsConfig": {
            name: only_set(
                Aliases=list(aliases_on(service, name, networks)) if with_alias else None,
                IPAMConfig={"IPv4Address": chosen[name]} if name in chosen else None,
            )
            for name in joined
        }
    }


def aliases_on(service: Service, network: str, base: NetworkNames) -> tuple[str, ...]:
    """Return the names of a service's containers on one of its networks, the service's own first.

    ``spec.network.aliases`` are for the first network, which the mode implies.
    """
    spec = service.spec
    declared = {service.network_name(each.name): each.aliases for each in spec.network.attach}
    if spec.network.aliases and network == joined_networks(service, base)[0]:
        return (service.key.name, *spec.network.aliases)
    return (service.key.name, *declared.get(network, ()))


def _device(device: Device) -> RequestBody:
    return {
        "PathOnHost": device.path,
        "PathInContainer": device.target or device.path,
        "CgroupPermissions": device.permissions,
    }


def _device_requests(spec: ServiceSpec) -> list[RequestBody]:
    names = [device.cdi for device in spec.devices if device.cdi is not None]
    return [{"Driver": "cdi", "DeviceIDs": names}] if names else []


def _mounts(service: Service) -> RequestBody:
    """Return ``Mounts``, and ``Tmpfs`` for files that can be executed: only it has the option."""
    body: RequestBody = {"Mounts": [], "Tmpfs": {}}
    for mount in service.spec.mounts:
        if isinstance(mount, mounts.TmpfsMount) and mount.exec:
            mode = f",mode={mount.mode}" if mount.mode else ""
            body["Tmpfs"][mount.target] = f"exec,size={mount.size}{mode}"
        else:
            body["Mounts"].append(_mount(mount, service))
    return body


def _mount(mount: mounts.Mount, service: Service) -> RequestBody:
    match mount:
        case mounts.BindMount():
            kind, source = "bind", mount.source
        case mounts.VolumeMount():
            kind, source = "volume", service.volume_name(mount.source)
        case mounts.TmpfsMount():
            options = only_set(SizeBytes=mount.size, Mode=mount.mode and int(mount.mode, 8))
            return {"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options}
        case mounts.FileMount():
            mounted = (each for each in service.deliveries if not each.variable)
            found = (each for each in mounted if each.target == mount.target)
            # A service without its contents is never created: its document is a problem.
            return _files(next(found, Delivery(mount.type, mount.source, "", mount.target)))
        case _:
            assert_never(mount)
    members = only_set(Type=kind, Source=source, Target=mount.target, ReadOnly=mount.read_only)
    if isinstance(mount, mounts.VolumeMount) and (mount.subpath or mount.no_copy):
        members["VolumeOptions"] = only_set(Subpath=mount.subpath, NoCopy=mount.no_copy)
    return members


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


def _log_options(logs: Logs) -> RequestBody:
    compress = None if logs.compress is None else str(logs.compress).lower()
    kept = {
        "max-size": str(logs.max_size),
        "max-file": str(logs.max_files),
        **only_set(compress=compress),
    }
    if logs.is_local:
        return kept
    return {**logs.options, **{f"cache-{name}": value for name, value in kept.items()}}


def _port(port: SinglePort) -> str:
    return f"{port.container}/{port.protocol}"


def _bindings(ports: tuple[Port, ...]) -> RequestBody:
    bindings: dict[str, list[RequestBody]] = {}
    for port in (port for each in ports for port in each.each):
        if port.host is not None:
            binding = {"HostIp": port.host_ip, "HostPort": str(port.host)}
            bindings.setdefault(_port(port), []).append(binding)
    return bindings


def engine_restart(service: Service) -> tuple[str, int]:
    """Return the restart policy, and its retries, for the engine to use on a service's containers."""
    return ("no", 0) if service.is_boot_ordered else RESTART[service.spec.restart.policy]


def _restart(service: Service) -> RequestBody:
    name, count = engine_restart(service)
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
        **only_set(StartInterval=(check.start_interval or 0) * _NS_PER_MS),
    }
