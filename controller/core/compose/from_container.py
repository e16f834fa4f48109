"""A container, or a request to create a container, as a service of a Compose project.

The result is translated like the service of any project, so that there is a single way to
documents. A setting without an attribute becomes a refused attribute with the setting's own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.compose.attributes import read_values
from controller.core.compose.long_forms import PROPAGATIONS, nodes_of
from controller.core.compose.nodes import ComposeNode, ReadingReport, project_of
from controller.core.compose.project import ComposeProject
from controller.core.engine_api.container_fields import FIELDS

_NS_PER_MS: Final = 1_000_000
_NANO: Final = 1_000_000_000
_SIGNAL_DEFAULT: Final = "SIGTERM"
_SHM_DEFAULT: Final = 64 * 1024**2
#: Labels that tools write for themselves.
_TOOL_LABELS: Final = ("com.docker.compose.", "io.trimtab.", "desktop.docker.io/")
#: Settings without an attribute that say nothing: defaults, and facts about a container that exists.
_SILENT: Final = frozenset(
    {
        *("AttachStderr", "AttachStdin", "AttachStdout", "StdinOnce", "OnBuild", "ArgsEscaped"),
        *("ConsoleSize", "ContainerIDFile", "AutoRemove", "MaskedPaths", "ReadonlyPaths"),
        *("MemorySwap", "Isolation", "Shell", "Platform"),
    }
)
#: The values of settings that say nothing, besides those of the image.
_DEFAULTS: Final = {
    "CgroupnsMode": ("private",),
    "Runtime": ("runc",),
    "StopSignal": (_SIGNAL_DEFAULT,),
}
#: Options of a mount that say nothing: missing folders are never made.
_SILENT_TERMS: Final = frozenset({"CreateMountpoint"})
#: The options of a mount, its attribute, and the names there. Others are lost by name.
_MOUNT_TERMS: Final = (
    ("TmpfsOptions", "tmpfs", {"SizeBytes": "size", "Mode": "mode"}),
    ("BindOptions", "bind", {"Propagation": "propagation"}),
    ("VolumeOptions", "volume", {"NoCopy": "nocopy", "Subpath": "subpath"}),
)
_READ: Final = frozenset(
    {
        "Volumes",
        "HostConfig",
        "Binds",
        *(each.member for each in FIELDS if each.compose or each.path),
    }
)


@dataclass(frozen=True, slots=True)
class ConvertedContainer:
    """A container as a service."""

    name: str
    #: The attributes of the service, in long form.
    service: Mapping[str, Any]
    #: The named volumes of the service.
    volumes: tuple[str, ...]
    networks: tuple[str, ...]
    #: Settings that no attribute has.
    lost: tuple[str, ...]


def service_of(
    name: str, body: Mapping[str, Any], image: Mapping[str, Any] | None = None
) -> ConvertedContainer:
    """Return the service for the body of a create. Settings equal to the *image* config's are left out."""
    host, of_image = body.get("HostConfig") or {}, image or {}
    tree: dict[str, Any] = {"image": body.get("Image")}
    for field in FIELDS:
        value = (host if field.is_of_host else body).get(field.member)
        defaults = (None, -1, of_image.get(field.member), *_DEFAULTS.get(field.member, ()))
        if field.compose and value and value not in defaults:
            tree[field.compose] = value
    mounts = [*_mounts(host)]
    mounted = {*(of_image.get("Volumes") or ()), *(each["target"] for each in mounts)}
    anonymous = [path for path in body.get("Volumes") or () if path not in mounted]
    mounts += [{"type": "volume", "target": path} for path in anonymous]
    networks = dict(_networks(body, host))
    mode = str(host.get("NetworkMode") or "default")
    if mode in ("none", "host") or mode.startswith("container:"):
        tree["network_mode"], networks = mode, {}
    found: dict[str, Any] = {
        **dict(_program(body, of_image)),
        **dict(_limits(host)),
        "healthcheck": _healthcheck(body, of_image),
        "ports": [*_ports(host)],
        "volumes": mounts,
        "tmpfs": [
            f"{path}:{text}" if text else path for path, text in (host.get("Tmpfs") or {}).items()
        ],
        "networks": networks,
        "restart": _restart(host.get("RestartPolicy") or {}),
        "logging": _logging(host.get("LogConfig") or {}),
    }
    tree |= {attribute: value for attribute, value in found.items() if value}
    volumes = tuple(m["source"] for m in mounts if m["type"] == "volume" and m.get("source"))
    return ConvertedContainer(name, tree, volumes, tuple(networks), tuple(_lost(body, host)))


def body_of_inspect(inspect: Mapping[str, Any], *, cgroup_version: str = "2") -> dict[str, Any]:
    """Return the body of a create that makes the container of an inspect.

    *cgroup_version* is the engine's: its default for the cgroup namespace depends on it.
    """
    config = dict(inspect.get("Config") or {})
    short = str(inspect.get("Id") or "")[:12]
    if config.get("Hostname") == short:
        config.pop("Hostname")  # the engine's own choice
    endpoints = {
        name: {"Aliases": [each for each in end.get("Aliases") or () if each != short]}
        for name, end in ((inspect.get("NetworkSettings") or {}).get("Networks") or {}).items()
    }
    host = dict(inspect.get("HostConfig") or {})
    if host.get("CgroupnsMode") == "host" and cgroup_version == "1":
        host.pop("CgroupnsMode")
    return {
        **config,
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }


def project_of_containers(name: str, containers: tuple[ConvertedContainer, ...]) -> ComposeProject:
    """Return a project with the services, their volumes and networks."""
    networks = {name for each in containers for name in each.networks if name != "default"}
    tree = {
        "name": name,
        "services": {each.name: dict(each.service) for each in containers},
        "volumes": {name: {} for each in containers for name in each.volumes},
        "networks": {name: {} for name in sorted(networks)},
    }
    root, report = nodes_of(ComposeNode(None, "container", 1, 1), tree), ReadingReport()
    read_values(root, report)
    return project_of(root, name, report)


def _program(body: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for setting, attribute in (("Entrypoint", "entrypoint"), ("Cmd", "command")):
        value = body.get(setting)
        if value and value != image.get(setting):
            yield attribute, [value] if isinstance(value, str) else value
    given = set(image.get("Env") or ())
    if env := [entry for entry in body.get("Env") or () if entry not in given]:
        yield "environment", {n: v if eq else None for n, eq, v in (e.partition("=") for e in env)}
    own = image.get("Labels") or {}
    labels = {
        name: value
        for name, value in (body.get("Labels") or {}).items()
        if own.get(name) != value and not name.startswith(_TOOL_LABELS)
    }
    if labels:
        yield "labels", labels
    if timeout := body.get("StopTimeout"):
        yield "stop_grace_period", f"{timeout}s"


def _limits(host: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if nano := host.get("NanoCpus"):
        yield "cpus", nano / _NANO
    if (shm := host.get("ShmSize")) and shm != _SHM_DEFAULT:
        yield "shm_size", str(shm)
    if limits := host.get("Ulimits"):
        yield (
            "ulimits",
            {each["Name"]: {"soft": each["Soft"], "hard": each["Hard"]} for each in limits},
        )
    if (ipc := host.get("IpcMode")) and ipc not in ("private", "shareable"):
        yield "ipc", ipc
    devices = [
        {
            "source": each["PathOnHost"],
            "target": each.get("PathInContainer") or each["PathOnHost"],
            "permissions": each.get("CgroupPermissions") or "rwm",
        }
        for each in host.get("Devices") or ()
    ]
    for request in host.get("DeviceRequests") or ():
        if request.get("Driver") == "cdi":
            devices += [{"source": name} for name in request.get("DeviceIDs") or ()]
        else:
            yield (
                "gpus",
                [{"driver": request.get("Driver") or "", "count": request.get("Count", -1)}],
            )
    if devices:
        yield "devices", devices


def _healthcheck(body: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    check = body.get("Healthcheck") or {}
    if not check.get("Test") or check == image.get("Healthcheck"):
        return {}
    found: dict[str, Any] = {"test": check["Test"]}
    for setting, attribute in (
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("StartPeriod", "start_period"),
        ("StartInterval", "start_interval"),
    ):
        if value := check.get(setting):
            found[attribute] = f"{value // _NS_PER_MS}ms"
    if retries := check.get("Retries"):
        found["retries"] = retries
    return found


def _ports(host: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for port, bindings in (host.get("PortBindings") or {}).items():
        number, _, protocol = port.partition("/")
        for binding in bindings or [{}]:
            entry = {"target": int(number), "protocol": protocol or "tcp"}
            if binding.get("HostPort"):
                entry["published"] = binding["HostPort"]
            if binding.get("HostIp"):
                entry["host_ip"] = binding["HostIp"]
            yield entry


def _mounts(host: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for bind in host.get("Binds") or ():
        source, _, rest = bind.partition(":")
        target, _, text = rest.partition(":")
        options = text.split(",")
        mount = {"type": "bind" if source.startswith("/") else "volume", "source": source}
        mount |= {"target": target, "read_only": "ro" in options}
        terms = dict(_bind_terms(options))
        if terms:
            mount["bind"] = terms
        if "nocopy" in options:
            mount["volume"] = {"nocopy": True}
        yield mount
    for each in host.get("Mounts") or ():
        mount = {"type": each.get("Type"), "target": each.get("Target")}
        if each.get("Source"):
            mount["source"] = each["Source"]
        if each.get("ReadOnly"):
            mount["read_only"] = True
        for setting, attribute, names in _MOUNT_TERMS:
            given = each.get(setting) or {}
            if terms := {new: given[old] for old, new in names.items() if given.get(old)}:
                mount[attribute] = terms
        yield mount


def _bind_terms(options: Iterable[str]) -> Iterator[tuple[str, str]]:
    for option in options:
        if option in PROPAGATIONS and option != "rprivate":
            yield "propagation", option
        elif option in ("z", "Z"):
            yield "selinux", option


def _networks(body: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    ends = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    mode = str(host.get("NetworkMode") or "default")
    named = [*ends] or ([] if mode in ("default", "bridge") else [mode])
    for name in named:
        if name in ("bridge", "default"):
            yield "default", None
            continue
        aliases = (ends.get(name) or {}).get("Aliases") or []
        yield name, {"aliases": aliases} if aliases else None


def _restart(policy: Mapping[str, Any]) -> str:
    name, count = str(policy.get("Name") or ""), policy.get("MaximumRetryCount") or 0
    return f"{name}:{count}" if name == "on-failure" and count else name


def _logging(config: Mapping[str, Any]) -> dict[str, Any]:
    driver, options = str(config.get("Type") or ""), config.get("Config") or {}
    if driver in ("", "json-file") and not options:
        return {}
    return {"driver": driver or "json-file", **({"options": options} if options else {})}


def _lost(body: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[str]:
    for settings in (body, host):
        for name, value in settings.items():
            if value and value != -1 and name not in _READ | _SILENT:
                yield name
    for each in host.get("Mounts") or ():
        for setting, _, names in _MOUNT_TERMS:
            for name, value in (each.get(setting) or {}).items():
                if value and name not in names and name not in _SILENT_TERMS:
                    yield f"{setting}.{name} of {each.get('Target')}"
