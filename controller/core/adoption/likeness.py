"""The comparison of an existing container with the create of its document, and the labels shown of it.

Pure. Both sides are typed creates, completed with the settings of the image, and compared field by
field. Left out are the fields that change in place (limits, restart policy, networks, name), the
gaps (``core.adoption.gaps``), and fields without effect on a running container.

Invariant: every member of a container's inspect is parsed by the closed schema of a create. An
unknown member is a finding, never ignored.

The labels that the broker shows for an adopted container, or for one with too many to be read.

An existing container cannot get labels. Clients find the containers of an instance by labels, so
the broker adds labels to the engine's answers. The labels come from the inventory alone, and replace
every label of the container with the same key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.core.admission.adoption import Defaults, create_body_of
from controller.core.effective import is_reserved
from controller.core.encoding.json_values import fold, list_of, mapping_of
from controller.core.encoding.text import quote, shorten
from controller.core.enforcement.kernel import SHM_DEFAULT
from controller.core.engine_api.comparable_fields import LIMITS, UNSET
from controller.core.engine_api.container_fields import FIELDS
from controller.core.engine_api.parse import parse_create
from controller.core.engine_api.requests import (
    CreateRequest,
    Finding,
    HealthcheckRequest,
    MountRequest,
    PortRequest,
    RequestBody,
)
from controller.core.rules.context import CONTROLLER
from controller.core.rules.identity import is_controllers_name
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.observed import Settings

#: Fields by their paths in a document; ``container.NAME`` for a field without one.
Comparable = dict[str, object]

_STOP_TIMEOUT_S = 10
_SIGNAL = "SIGTERM"
_NS = 1_000_000_000
#: The engine's defaults of a health check.
_INTERVAL, _TIMEOUT, _RETRIES, _START_INTERVAL = 30 * _NS, 30 * _NS, 3, 5 * _NS
_IN_SHELL, _SHELL = "CMD-SHELL", ("/bin/sh", "-c")
_SHORTEST_NS = 1_000_000
_SHOWN_MAX = 120
#: The default mount propagation.
_PRIVATE = "rprivate"
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared, never bound
#: Fields with possible secrets: a difference is named without the values.
_HIDDEN = (
    *("spec.entrypoint", "spec.command", "spec.env.", "spec.healthcheck"),
    "spec.containerLabels.",
)
#: The fields that decide what the program of a run does.
_OF_RUNS = (
    *("spec.entrypoint", "spec.command", "spec.env.", "spec.user", "spec.workingDir"),
    "spec.mounts.",
)
#: HostConfig members that ``core.adoption.gaps`` judges, or that change in place.
_ELSEWHERE = ("CapAdd", "CapDrop", "SecurityOpt", "LogConfig", "ReadonlyRootfs", "RestartPolicy")
#: The limits that change in place, by their members of HostConfig.
_IN_PLACE = (*LIMITS.values(), "MemorySwappiness")
#: The labels with a meaning.
_WRITTEN = (
    *names.BROKER_LABELS,
    *names.CONTROLLER_LABELS,
    *names.RUN_LABELS,
    *names.CLIENT_LABELS,
    names.ADOPTED,
)
#: The fields that are compared as they are, by the attribute of a create. ``comparable`` has a form of
#: the others; gaps and limits are judged elsewhere.
_ALIKE = tuple(
    (field.document, field.gate.attribute)
    for field in FIELDS
    if field.document and field.gate.attribute and field.member not in (*_ELSEWHERE, *_IN_PLACE)
)
#: Network modes that lead to a network of the container's own.
_SHARING = ("host", "container:", "ns:", "service:")


def request_of(
    inspect: Mapping[str, Any], image: Mapping[str, Any], defaults: Defaults
) -> CreateRequest:
    """Return the create of an existing container; ``findings`` refuse the adoption.

    Gaps, limits and networks are left out, and judged elsewhere.
    """
    body = create_body_of(inspect, image, actor=CONTROLLER, defaults=defaults)
    config = mapping_of(inspect.get("Config"))
    for member in ("Entrypoint", "Cmd"):
        # The image's arguments count only beside the image's own program.
        body[member] = config.get(member)
    host: RequestBody = dict(mapping_of(body["HostConfig"]))
    for member in (*_ELSEWHERE, *_IN_PLACE, "NetworkMode"):
        host.pop(member, None)
    request = parse_create({**body, "HostConfig": host, "NetworkingConfig": {}})
    return replace(request, mounts=_with_found_volumes(request.mounts, inspect))


def _with_found_volumes(
    mounts: Iterable[MountRequest], inspect: Mapping[str, Any]
) -> tuple[MountRequest, ...]:
    """Return the mounts with the names of volumes that the create left to the engine."""
    by_target = {mount.target: mount for mount in mounts}
    for each in map(mapping_of, list_of(inspect.get("Mounts"))):
        target, name = str(each.get("Destination") or ""), str(each.get("Name") or "")
        mount = by_target.get(target, MountRequest("volume", "", target))
        if each.get("Type") == "volume" and mount.type == "volume" and not mount.source:
            by_target[target] = replace(mount, source=name)
    return tuple(by_target.values())


def comparable(request: CreateRequest, image: Mapping[str, Any]) -> Comparable:
    """Return the compared fields of a create, completed with the settings of the image."""
    config = mapping_of(image.get("Config"))
    own_program = request.entrypoint is not None and bool([*filter(None, request.entrypoint)])
    program = request.entrypoint if own_program else _texts(config.get("Entrypoint"))
    inherited = () if own_program else _texts(config.get("Cmd"))
    fields: Comparable = {
        **{path: getattr(request, attribute) for path, attribute in _ALIKE},
        "spec.entrypoint": tuple(filter(None, program or ())),
        "spec.command": request.command or inherited,
        "spec.user": request.user or str(config.get("User") or ""),
        "spec.workingDir": request.working_dir or str(config.get("WorkingDir") or "") or "/",
        "spec.stopSignal": _signal(request.stop_signal or str(config.get("StopSignal") or "")),
        "spec.stopGracePeriod": _STOP_TIMEOUT_S
        if request.stop_timeout is None
        else request.stop_timeout,
        "spec.healthcheck": _check(
            request.healthcheck, mapping_of(config.get("Healthcheck")), _texts(config.get("Shell"))
        ),
        "spec.init": bool(request.init),
        "spec.ports": tuple(sorted(map(_port, request.ports))),
        "spec.extraHosts": tuple(sorted(request.extra_hosts)),
        "spec.groupAdd": tuple(sorted(request.groups)),
        "spec.ulimits": tuple(sorted((u.name, u.soft, u.hard) for u in request.ulimits)),
        "spec.sysctls": request.sysctls,
        "spec.devices": tuple(sorted((d.source, d.target, d.permissions) for d in request.devices)),
        "spec.resources.shm": request.shm_size or SHM_DEFAULT,
        "spec.resources.disk": request.storage,
        "spec.security.runtime": request.runtime,
        "container.ipcMode": request.ipc_mode or "private",
        "container.cgroupnsMode": request.cgroupns_mode or "private",
        "container.isolation": request.isolation,
        "container.autoRemove": request.auto_remove,
        "container.networkDisabled": request.network_disabled,
        "container.volumes": tuple(sorted(request.volumes)),
    }
    fields |= {f"spec.env.{name}": value for name, value in _variables(request, config).items()}
    fields |= {f"spec.mounts.{mount.target}": _mount(mount) for mount in request.mounts}
    return fields


def differences(
    found: Comparable, document: Comparable, labels: tuple[Mapping[str, str], Mapping[str, str]]
) -> Iterator[Finding]:
    """Yield a finding for each field in which a container differs from its document.

    *labels* are the labels of the container, and the labels of the document.
    """
    present, wanted = labels
    found = {**found, **_labels(present, only=wanted)}
    document = {**document, **_labels(wanted, only=wanted)}
    for path in sorted(found.keys() | document.keys()):
        now, then = found.get(path), document.get(path)
        if now != then:
            yield Finding(
                "adopt.differs",
                path,
                _describe(path, now, then),
                _remedy(now),
            )


def differences_of_run(
    existing: CreateRequest, document: CreateRequest, image: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield the differences of an ended run from its document that change what its program did.

    Left out are limits, hardening and networks, and the volumes without a name that a run has for the
    paths of its image.
    """
    own = mapping_of(mapping_of(image.get("Config")).get("Volumes"))
    named = {mount.target for mount in document.mounts if mount.type != "tmpfs"}
    ignored = {f"spec.mounts.{path}" for path in own.keys() - named}
    sides = [
        {
            path: value
            for path, value in comparable(each, image).items()
            if path.startswith(_OF_RUNS) and path not in ignored
        }
        for each in (existing, document)
    ]
    return differences(sides[0], sides[1], ({}, {}))


def _remedy(now: object) -> str:
    if isinstance(now, tuple) and now[:1] == ("volume",):
        # The next container would have another volume there, without the data.
        name = quote(shorten(str(now[1]), _SHOWN_MAX))
        return f"keep its data: mount a volume there with the engineName {name}"
    return "change the document, or let trimtab create the container"


def judge_identity(inspect: Mapping[str, Any], *, was_ours: bool = False) -> Iterator[Finding]:
    """Yield the reasons why the name or the state of a container refuse its adoption.

    *was_ours*: it was released, so trimtab gave it its name.
    """
    name = str(inspect.get("Name") or "").removeprefix("/")
    if is_controllers_name(name) and not was_ours:
        reason = f"{quote(name)} is a name as trimtab gives them to its own containers"
        yield Finding("adopt.name", "Name", reason, "rename it, if it isn't a forgery")
    state = mapping_of(inspect.get("State"))
    status = str(state.get("Status") or "")
    if status != "running":
        reason = f"it is {quote(status)}: only a running container can be adopted"
        remedy = (
            "start it, or remove it; a program that is done is a job: in a Compose file, deploy: "
            "{mode: replicated-job}"
        )
        yield Finding("adopt.not-running", "State", reason, remedy)
    mode = str(mapping_of(inspect.get("HostConfig")).get("NetworkMode") or "")
    if mode.startswith(_SHARING):
        reason = f"its network mode is {quote(mode)}"
        remedy = "no operator can admit it: let trimtab create the container"
        yield Finding("network.mode", "HostConfig.NetworkMode", reason, remedy)


def judge_reserved_labels(labels: Mapping[str, str], image: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for labels that only a broker writes.

    Labels of the image with the prefix don't count, apart from labels with a meaning.
    """
    known = {fold(key) for key in _WRITTEN}
    forged = sorted(
        key
        for key, value in labels.items()
        if is_reserved(key) and (fold(key) in known or image.get(key) != value)
    )
    if forged:
        reason = f"it carries {quote(shorten(forged[0], _SHOWN_MAX))}, which only a broker writes"
        remedy = "of an instance with a lost state folder: trimtab adopt --instance ID"
        yield Finding("adopt.labels", "Config.Labels", reason, remedy)


def judge_mode(inspect: Mapping[str, Any], document: CreateRequest) -> Iterator[Finding]:
    """Yield a finding if one of container and document has no network, and the other has one.

    The engine joins a container without a network to none later.
    """
    none = str(mapping_of(inspect.get("HostConfig")).get("NetworkMode") or "") == "none"
    if none != (document.network_mode == "none"):
        reason = f"it has {'no network' if none else 'networks'}, unlike the document"
        remedy = "change the document, or let trimtab create the container"
        yield Finding("adopt.differs", "spec.network.mode", reason, remedy)


def judge_limits(now: Settings, wanted: Settings) -> Iterator[Finding]:
    """Yield the limits that no update can bring from *now* to *wanted*."""
    for name in LIMITS:
        has, wants = getattr(now, name), getattr(wanted, name)
        if wants == UNSET[name] and has != wants and name != "memory_swap":
            reason = f"its {name.replace('_', ' ')} is {has}, and an update can't unset it"
            remedy = "declare it, or let trimtab create the container"
            yield Finding("adopt.differs", f"container.{name}", reason, remedy)
    if now.others:
        reason = f"it has {quote(shorten(', '.join(now.others), _SHOWN_MAX))}"
        remedy = "no operator can admit it: let trimtab create the container"
        yield Finding("adopt.differs", "container.others", reason, remedy)


def fingerprint_of(found: Comparable, host: Mapping[str, Any], now: Settings) -> dict[str, object]:
    """Return everything that was judged, as texts, for a keyed digest."""
    fields = {path: repr(value) for path, value in found.items()}
    hardening = {member: repr(host.get(member)) for member in _ELSEWHERE}
    return {"fields": fields, "hardening": hardening, "settings": repr(now)}


# Values


def _texts(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, list_of(value)))


def _signal(text: str) -> str:
    upper = text.upper()
    if upper in {"", "15"}:
        return _SIGNAL
    return upper if upper.startswith("SIG") or upper.isdigit() else f"SIG{upper}"


def _check(
    check: HealthcheckRequest | None, inherited: Mapping[str, Any], shell: tuple[str, ...]
) -> object:
    """Return a health check with its defaults, a shell's command written out; None for no check."""
    test = (check.test if check else ()) or _texts(inherited.get("Test"))
    if test[:1] in {(), ("NONE",)}:
        return None
    check = check or HealthcheckRequest()
    if test[0] == _IN_SHELL:
        test = ("CMD", *(shell or _SHELL), *test[1:])

    def value(own: int, member: str, default: int) -> int:
        chosen = own or int(inherited.get(member) or 0)
        return default if chosen <= _SHORTEST_NS and member != "Retries" else chosen or default

    return (
        test,
        value(check.interval_ns, "Interval", _INTERVAL),
        value(check.timeout_ns, "Timeout", _TIMEOUT),
        value(check.retries, "Retries", _RETRIES),
        value(check.start_period_ns, "StartPeriod", 0),
        value(check.start_interval_ns, "StartInterval", _START_INTERVAL),
    )


def _port(port: PortRequest) -> tuple[str, str]:
    return (
        f"{port.container}/{port.protocol}",
        f"{port.host_ip or _EVERY_ADDRESS}:{port.host_text}",
    )


def _mount(mount: MountRequest) -> object:
    propagation = mount.propagation or (_PRIVATE if mount.type == "bind" else "")
    return (
        *(mount.type, mount.source, mount.read_only, mount.subpath, mount.size),
        *(mount.executable, mount.mode, propagation, mount.driver or "local", mount.files),
    )


def _variables(request: CreateRequest, config: Mapping[str, Any]) -> dict[str, str]:
    # An entry without "=" removes the image's variable of that name.
    removed = {entry for entry in request.env if "=" not in entry}
    inherited = (e for e in _texts(config.get("Env")) if e.partition("=")[0] not in removed)
    entries = (*inherited, *(entry for entry in request.env if "=" in entry))
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def _labels(labels: Mapping[str, str], *, only: Iterable[str]) -> Comparable:
    return {f"spec.containerLabels.{key}": labels[key] for key in only if key in labels}


def _describe(path: str, now: object, then: object) -> str:
    if path.startswith(_HIDDEN):
        if now is None:
            return "the container lacks it"
        return "the document lacks it" if then is None else "the values differ"
    return f"is {_show(now)}, and the document leads to {_show(then)}"


def _show(value: object) -> str:
    if value in (None, (), ""):
        return "unset"
    if isinstance(value, tuple):
        value = " ".join(_show(each) if isinstance(each, tuple) else str(each) for each in value)
    return quote(shorten(str(value), _SHOWN_MAX))


def labels_of(item: ContainerItem, instance: str) -> dict[str, str]:
    """Return the labels of a container by the inventory."""
    adopted = {names.ADOPTED: "true"} if item.adopted else {}
    return {
        names.MANAGED: "true",
        names.INSTANCE: instance,
        names.INTENT: item.intent,
        names.ORIGIN: item.origin,
        names.OWNER: item.owner,
        names.NAMESPACE: item.namespace,
        names.SERVICE: item.service,
        names.SLOT: item.slot_label,
        names.REVISION: item.revision,
        names.IMAGE: item.image,
        **adopted,
    }


def place_labels(item: ContainerItem) -> dict[str, str]:
    """Return the labels that a move changes, with the present names."""
    return {names.NAMESPACE: item.namespace, names.SERVICE: item.service}


def show_on_inspect(inspect: dict[str, Any], item: ContainerItem, instance: str) -> dict[str, Any]:
    """Return the inspect of a container, with the shown labels if it was adopted."""
    if not item.adopted:
        return inspect
    config = mapping_of(inspect.get("Config"))
    labels = {**mapping_of(config.get("Labels")), **labels_of(item, instance)}
    return {**inspect, "Config": {**config, "Labels": labels}}


def show_on_row(row: Mapping[str, Any], item: ContainerItem, instance: str) -> dict[str, Any]:
    """Return the row of an adopted container in a list, with the shown labels."""
    return {**row, "Labels": {**mapping_of(row.get("Labels")), **labels_of(item, instance)}}


def match_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Return True if labels match each ``KEY`` or ``KEY=VALUE`` of a filter, as the engine does."""
    for each in wanted:
        key, has_value, value = each.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    return True
