"""Translation between the model and the Engine API (1.45): bodies of changes, and inspects.

The functions are pure and decide nothing. Bodies have canonical keys and only set values. Inspects are read leniently, because new engine
versions add members.

Instants in the notation of the engine, and the end of a run at an instant.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from controller.core.addresses import slot_subnet
from controller.core.encoding.json_values import list_of, mapping_of, only_set
from controller.core.encoding.text import shorten
from controller.core.engine_api.comparable_fields import FOREIGN, LIMITS, UNSET, unknown_members
from controller.core.engine_api.requests import (
    ICC,
    MACVLAN,
    MASQUERADE,
    PARENT,
    VOLUME_SIZE,
    RequestBody,
)
from controller.model import names, observed
from controller.model.delivery import FILE_KINDS, MountedFiles, StoredFiles
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.mutations import SERVICE_MOVED
from controller.model.names import workload_key
from controller.model.observed import (
    HOOKS_PENDING,
    HOOKS_SUCCEEDED,
    ContainerState,
    Ending,
    LimitValue,
    Settings,
)

if TYPE_CHECKING:
    from controller.model.desired import plan as actions


#: The engine's notation of no time: a container that never started or never ended.
ZERO_TIME = "0001-01-01T00:00:00Z"
#: The most seconds that a record precedes the end of its run; the two have different clocks.
_RECORDED_S = 2.0


def is_of_last_run(ending: Ending, finished_at: str) -> bool:
    """Return True if *ending* is the end of the run that ended at *finished_at*."""
    ended, recorded = timestamp_seconds(finished_at), timestamp_seconds(ending.time)
    return ended is not None and recorded is not None and ended <= recorded + _RECORDED_S


def timestamp_seconds(instant: str) -> float | None:
    """Return an instant in the engine's notation (RFC 3339) in seconds since the epoch."""
    head, dot, tail = instant.partition(".")
    # datetime reads at most six digits of a second; the engine writes up to nine.
    digits = len(tail) - len(tail.lstrip("0123456789"))
    text = f"{head}.{tail[:digits][:6]}{tail[digits:]}" if dot else instant
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


#: The only network in the inspect of a container without networks.
NO_NETWORK = "none"
#: What the engine shows as the network of a container without one of its own.
NOT_JOINED = (NO_NETWORK, "host")

_SHORT_ID = 12
#: The mode of a namespace that is another container's.
_JOINED = "container:"
#: The default number of failed probes in a row before a container is unhealthy.
HEALTH_RETRIES = 3
#: Characters of the output of a failed check that are kept.
CHECK_OUTPUT_MAX = 512
#: The engine's exit code of a check that exceeded its timeout, or that couldn't be run.
NOT_RUN = -1

#: The broker's member of a network's inspect: how many containers are not of the controller.
OUTSIDERS = "TrimtabOutsiders"
#: The broker's member of a network: the names of containers of others at addresses of slots, by address.
HELD = "TrimtabHeld"


def update_body(action: actions.UpdateContainer) -> RequestBody:
    """Return the body of ``POST /containers/ID/update``; absent settings stay unchanged."""
    policy = only_set(Name=action.restart, MaximumRetryCount=action.restart_max)
    return ({"RestartPolicy": policy} if action.restart else {}) | limits_body(action.limits)


def move_body(action: actions.MoveService) -> RequestBody:
    """Return the body of the record of a move: containers go on under another name."""
    return {
        "act": SERVICE_MOVED,
        "object": str(action.object),
        "from": str(action.source),
        "owner": action.owner,
    }


def limits_body(limits: Mapping[str, LimitValue]) -> RequestBody:
    """Return the set limits for an update's body, from their names in ``Settings``."""
    return only_set(**{LIMITS[name]: value for name, value in limits.items()})


def joining_body(container: str, aliases: Sequence[str] = ()) -> RequestBody:
    """Return the body of ``POST /networks/NAME/connect`` and ``…/disconnect``."""
    endpoint = {"Aliases": list(aliases)} if aliases else None
    return only_set(Container=container, EndpointConfig=endpoint)


def network_body(action: actions.CreateNetwork) -> RequestBody:
    """Return the body of ``POST /networks/create``."""
    switches = {MASQUERADE: action.masquerade, ICC: action.icc}
    four = only_set(Subnet=action.subnet, IPRange=action.ip_range, Gateway=action.gateway)
    pools = [pool for pool in (four, only_set(Subnet=action.ipv6_subnet)) if pool]
    return only_set(
        Name=action.target,
        Driver=MACVLAN if action.macvlan else "bridge",
        Internal=action.internal,
        Options={option: "false" for option, enabled in switches.items() if not enabled}
        | only_set(parent=action.macvlan),
        EnableIPv6=bool(action.ipv6_subnet),
        IPAM={"Config": pools} if pools else None,
        Labels={names.OWNER: action.owner, names.NAMESPACE: action.object.namespace},
    )


def build_query(action: actions.BuildImage) -> dict[str, str]:
    """Return the parameters of ``POST /build``. The gate adds the limits."""
    build = action.build
    place = {
        names.OWNER: action.owner,
        names.NAMESPACE: action.object.namespace,
        names.SERVICE: action.object.name,
    }
    parameters = {
        "t": action.target,
        "version": "1",
        "dockerfile": build.dockerfile,
        "buildargs": json.dumps(build.args) if build.args else "",
        "labels": json.dumps({**build.labels, **place}),
        "target": build.target or "",
        "networkmode": build.network or "",
        "shmsize": str(build.shm or ""),
        "pull": "1" if build.pull else "",
    }
    return {name: value for name, value in parameters.items() if value}


def volume_body(action: actions.CreateVolume) -> RequestBody:
    """Return the body of ``POST /volumes/create``."""
    options = dict(action.remote)
    options |= {} if action.size is None else {VOLUME_SIZE: str(action.size)}
    return only_set(
        Name=action.target,
        Driver="local",
        DriverOpts=options,
        Labels={names.OWNER: action.owner, names.NAMESPACE: action.object.namespace},
    )


def files_body(action: actions.DeliverFiles) -> RequestBody:
    """Return the body of ``PUT /trimtab/v1/files/KIND/NAMESPACE/NAME``."""
    if action.secret is not None:
        return {"owner": action.owner, "source": dict(action.secret)}
    encoded = {name: base64.b64encode(data).decode() for name, data in action.files}
    return {"owner": action.owner, "files": encoded}


def settings(inspect: Mapping[str, Any]) -> Settings:
    """Return the settings in a container's inspect."""
    host = inspect.get("HostConfig") or {}
    restart = host.get("RestartPolicy") or {}
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    limits: dict[str, Any] = {
        name: host.get(member) or UNSET[name] for name, member in LIMITS.items()
    }
    return Settings(
        name=str(inspect.get("Name") or "").removeprefix("/"),
        # -1, 0 and null all mean unlimited processes.
        **{**limits, "pids": max(0, limits["pids"])},
        restart=restart.get("Name") or "no",
        restart_max=restart.get("MaximumRetryCount") or 0,
        networks=tuple(sorted(name for name in joined if name not in NOT_JOINED)),
        others=tuple(f"{name}={host[name]}" for name in sorted(FOREIGN.split()) if host.get(name)),
    )


def container(
    inspect: Mapping[str, Any],
    item: ContainerItem | None,
    endings: Mapping[str, Ending] = MappingProxyType({}),
    stored: Mapping[str, StoredFiles] = MappingProxyType({}),
    slot_addresses: Mapping[str, str] = MappingProxyType({}),
) -> observed.Container:
    """Return a container of this instance from its inspect and the inventory.

    The identity comes from the inventory, or from the labels of a container without an item there.
    *endings* are the ended runs in the inventory, by the container's id, *stored* its contents of
    files, and *slot_addresses* those of the container's slot by the name of the network.
    """
    state = inspect.get("State") or {}
    answer = _failed_check(inspect)
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
        health=_health_with_hooks(inspect, source.post_start),
        complaint=source.post_start if _has_failed(source.post_start) else _why_failed(answer),
        check_output=shorten(str(answer.get("Output") or "").strip(), CHECK_OUTPUT_MAX),
        exit_code=state.get("ExitCode") or 0,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        started_at=_instant(state.get("StartedAt")),
        finished_at=_instant(state.get("FinishedAt")),
        restart_count=inspect.get("RestartCount") or 0,
        stop_grace_s=(inspect.get("Config") or {}).get("StopTimeout"),
        addresses=_addresses(inspect),
        chosen=_chosen(inspect),
        slot_addresses=tuple(sorted(slot_addresses.items())),
        ports=_ports(inspect),
        writes=_writes(inspect),
        aliases=endpoint_aliases(inspect),
        admitted_aliases=source.network_aliases,
        effective=source.effective,
        violation=source.violation,
        ending=ending,
        files=tuple(_mounted_files(source, stored)),
        adopted=source.adopted,
        gaps=source.gaps,
        unknown=unknown_members(inspect),
        former=source.former,
        post_start=source.post_start,
        shares=shared_ids(inspect),
        ignored=source.ignored,
    )


def shared_ids(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the containers whose namespaces a container shares."""
    host = inspect.get("HostConfig") or {}
    modes = (str(host.get(name) or "") for name in ("NetworkMode", "IpcMode", "PidMode"))
    joined = (mode.removeprefix(_JOINED) for mode in modes if mode.startswith(_JOINED))
    return tuple(dict.fromkeys(joined))


def _mounted_files(
    item: ContainerItem, stored: Mapping[str, StoredFiles]
) -> Iterator[MountedFiles]:
    signalled = dict(text.rpartition("=")[::2] for text in item.signalled)
    for mount in item.confined.mounts if item.confined is not None else ():
        if mount.type in FILE_KINDS:
            seen = signalled.get(f"{mount.type}/{mount.source}", mount.content)
            content = seen if mount.stable else mount.content
            known = stored.get(f"{mount.type}/{item.namespace}/{mount.source}")
            shown = known.current if known is not None and mount.stable else content
            yield MountedFiles(mount.type, mount.source, content, mount.target, mount.stable, shown)


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


def _failed_check(inspect: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the last failed probe of an unhealthy container, as the engine logs it; empty without one."""
    if _health(inspect) != "unhealthy":
        return {}
    log = ((inspect.get("State") or {}).get("Health") or {}).get("Log") or ()
    return next((each for each in reversed(log) if each.get("ExitCode")), {})


def _why_failed(answer: Mapping[str, Any]) -> str:
    """Return why a probe failed, without its output; '' for no probe."""
    if not answer:
        return ""
    if answer["ExitCode"] != NOT_RUN:
        return f"its check exited with {answer['ExitCode']}"
    is_late = str(answer.get("Output") or "").startswith("Health check exceeded timeout")
    return "its check took longer than its timeout" if is_late else "its check can't be run"


def _health_with_hooks(inspect: Mapping[str, Any], post_start: str) -> str:
    """Return the health, with the hooks of the start: before their success nothing is ready."""
    if not (inspect.get("State") or {}).get("Running") or post_start in ("", HOOKS_SUCCEEDED):
        return _health(inspect)
    return "unhealthy" if _has_failed(post_start) else "starting"


def _has_failed(post_start: str) -> bool:
    return post_start not in ("", HOOKS_PENDING, HOOKS_SUCCEEDED)


def _instant(text: str | None) -> str:
    return "" if not text or text == ZERO_TIME else text


def _addresses(inspect: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    pairs = ((name, (end or {}).get("IPAddress") or "") for name, end in joined.items())
    return tuple(sorted((name, address) for name, address in pairs if address))


def _chosen(inspect: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    asked = {name: (end or {}).get("IPAMConfig") or {} for name, end in joined.items()}
    pairs = ((name, config.get("IPv4Address") or "") for name, config in asked.items())
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
        if name not in NOT_JOINED
    }
    return tuple(sorted(asked.items()))


def network(inspect: Mapping[str, Any], belonging: OwnedObject | None) -> observed.ObservedNetwork:
    """Return a network. ``ours`` depends on the inventory alone."""
    options = inspect.get("Options") or {}
    pools = (inspect.get("IPAM") or {}).get("Config") or ()
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
        adopted=belonging is not None and belonging.adopted != "",
        subnets=tuple(sorted(str(pool.get("Subnet")) for pool in pools if pool.get("Subnet"))),
        parent=str(options.get(PARENT) or ""),
        ip_range=next((str(pool["IPRange"]) for pool in pools if pool.get("IPRange")), ""),
        outsiders=int(inspect.get(OUTSIDERS) or 0),
        has_slot_addresses=belonging is not None
        and not belonging.adopted
        and slot_subnet(inspect) != "",
        held=tuple(sorted((inspect.get(HELD) or {}).items())),
    )


def with_holders(
    container: observed.Container, networks: Iterable[observed.ObservedNetwork]
) -> observed.Container:
    """Return a container with the containers of others that are at the addresses of its slot."""
    known = dict(container.slot_addresses)
    holders = tuple(
        (network.name, address, holder)
        for network in networks
        for address, holder in network.held
        if known.get(network.name) == address
    )
    return replace(container, holders=holders) if holders else container


def volume(inspect: Mapping[str, Any], belonging: OwnedObject | None) -> observed.ObservedVolume:
    """Return a named volume. ``ours`` depends on the inventory alone."""
    return observed.ObservedVolume(
        name=inspect["Name"],
        ours=belonging is not None,
        origin=belonging.origin if belonging else "",
        driver=inspect.get("Driver") or "",
        options=tuple(sorted((inspect.get("Options") or {}).items())),
        belongs_to=_namespace_of(inspect, belonging),
        dumped=belonging.dumped if belonging else "",
    )


def _namespace_of(inspect: Mapping[str, Any], belonging: OwnedObject | None) -> str:
    """Return the namespace of an adopted volume; '' if its label and name say so."""
    label = (inspect.get("Labels") or {}).get(names.NAMESPACE)
    if belonging is None or not (belonging.adopted or label):
        return ""
    return "" if belonging.namespace == label else belonging.namespace


def image(inspect: Mapping[str, Any], reference: str = "") -> observed.Image:
    """Return a local image, with the digest of *reference*'s repository if there is one."""
    digests = [text.partition("@") for text in inspect.get("RepoDigests") or ()]
    repository = reference.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    own = [digest for name, _, digest in digests if name == repository]
    return observed.Image(id=inspect["Id"], digest=(own or [d for _, _, d in digests] or [""])[0])


#: The members of an image's config that a document can override, by their names in documents.
_OF_THE_IMAGE = {
    "entrypoint": "Entrypoint",
    "command": "Cmd",
    "user": "User",
    "workingDir": "WorkingDir",
    "healthcheck": "Healthcheck",
}


def image_settings(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that an image brings, by their names in documents."""
    config = inspect.get("Config") or {}
    check = (config.get("Healthcheck") or {}).get("Test") or []
    brought = {**config, "Healthcheck": check if check[:1] != ["NONE"] else None}
    return tuple(name for name, member in _OF_THE_IMAGE.items() if brought.get(member))


def declared_volumes(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the VOLUME paths of a local image."""
    return tuple(sorted((inspect.get("Config") or {}).get("Volumes") or ()))


def layers_size(history: object) -> int:
    """Return the bytes of an image's layers as files, by its history; 0 if that can't be read.

    In the containerd image store the size of an inspect is that of the packed layers: 100 MB of zeros are
    100 KB there.
    """
    sizes = [mapping_of(row).get("Size") for row in list_of(history)]
    return sum(size for size in sizes if isinstance(size, int))


def image_part(inspect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an image's inspect that this module reads: no variables, no labels."""
    config = inspect.get("Config") or {}
    members = (*_OF_THE_IMAGE.values(), "Volumes")
    kept = {member: config[member] for member in members if member in config}
    return {"Id": inspect["Id"], "RepoDigests": inspect.get("RepoDigests"), "Config": kept}
