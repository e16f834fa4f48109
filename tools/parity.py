"""The field of a Service for each member of a create that the gate allows, constrains or replaces.

``docs/desired-state.md`` has the table, made from this module and the gate's own tables. A test
compares the rows with both: a new member of the gate needs a field, or a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.core.engine_api import container_fields, field_tables
from controller.core.engine_api.field_reader import Field, Posture

#: The tables of a create, each with the place of its object in the body.
TABLES: tuple[tuple[str, Sequence[Field]], ...] = (
    ("", field_tables.CONFIG),
    ("HostConfig", field_tables.HOST_CONFIG),
    ("HostConfig.Mounts[]", field_tables.MOUNT),
    ("HostConfig.Mounts[].Trimtab", field_tables.FILE_OPTIONS),
    ("HostConfig.Mounts[].BindOptions", field_tables.BIND_OPTIONS),
    ("HostConfig.Mounts[].VolumeOptions", field_tables.VOLUME_OPTIONS),
    ("HostConfig.Mounts[].VolumeOptions.DriverConfig", field_tables.DRIVER_CONFIG),
    ("HostConfig.Mounts[].TmpfsOptions", field_tables.TMPFS_OPTIONS),
    ("HostConfig.PortBindings.*[]", field_tables.PORT_BINDING),
    ("HostConfig.RestartPolicy", field_tables.RESTART_POLICY),
    ("HostConfig.LogConfig", field_tables.LOG_CONFIG),
    ("HostConfig.Ulimits[]", field_tables.ULIMIT),
    ("HostConfig.Devices[]", field_tables.DEVICE),
    ("HostConfig.DeviceRequests[]", field_tables.DEVICE_REQUEST),
    ("Healthcheck", field_tables.HEALTHCHECK),
    ("TrimtabHooks", field_tables.HOOKS),
    ("TrimtabShares", field_tables.SHARES),
    ("TrimtabHooks.PostStart[]", field_tables.HOOK),
    ("TrimtabHooks.PreStop[]", field_tables.HOOK),
    ("NetworkingConfig", field_tables.NETWORKING_CONFIG),
    ("NetworkingConfig.EndpointsConfig.*", field_tables.ENDPOINT),
    ("NetworkingConfig.EndpointsConfig.*.IPAMConfig", field_tables.ENDPOINT_IPAM),
)
_DETACHED = "a supervised container runs detached; `trimtab logs` and `trimtab exec` reach it"
_PRIVATE = "every service has a namespace of its own"
#: The fields of a document by the place in the create.
FIELDS: Mapping[str, tuple[str, ...]] = {
    **{field.place: (field.path,) for field in container_fields.FIELDS if field.path},
    "ExposedPorts": ("spec.ports[].container",),
    "TrimtabShares.Host": ("spec.observe.network", "spec.observe.pid"),
    "TrimtabShares.Service": ("spec.shares.service",),
    "TrimtabShares.Network": ("spec.shares.network",),
    "TrimtabShares.Ipc": ("spec.shares.ipc",),
    "TrimtabShares.Pid": ("spec.shares.pid",),
    "TrimtabHooks.PostStart": ("spec.lifecycle.postStart",),
    "TrimtabHooks.PreStop": ("spec.lifecycle.preStop",),
    **{
        f"TrimtabHooks.{event}[].{name}": (f"spec.lifecycle.{member}[].{field}",)
        for event, member in (("PostStart", "postStart"), ("PreStop", "preStop"))
        for name, field in (
            ("Cmd", "exec"),
            ("User", "user"),
            ("Env", "env"),
            ("WorkingDir", "workingDir"),
            ("TimeoutMs", "timeout"),
        )
    },
    "HostConfig.Tmpfs": ("spec.mounts[tmpfs].exec",),
    "HostConfig.PortBindings": ("spec.ports[].host",),
    "HostConfig.RestartPolicy": ("spec.restart.policy", "spec.restart.boot"),
    "HostConfig.Mounts[].Type": (
        "spec.mounts[bind].type",
        "spec.mounts[volume].type",
        "spec.mounts[tmpfs].type",
    ),
    "HostConfig.Mounts[].Source": ("spec.mounts[bind].source", "spec.mounts[volume].source"),
    "HostConfig.Mounts[].Target": (
        "spec.mounts[bind].target",
        "spec.mounts[volume].target",
        "spec.mounts[tmpfs].target",
    ),
    "HostConfig.Mounts[].ReadOnly": ("spec.mounts[bind].readOnly", "spec.mounts[volume].readOnly"),
    "HostConfig.Mounts[].VolumeOptions": (
        "spec.mounts[volume].subpath",
        "spec.mounts[volume].noCopy",
    ),
    "HostConfig.Mounts[].VolumeOptions.NoCopy": ("spec.mounts[volume].noCopy",),
    "HostConfig.Mounts[].VolumeOptions.Subpath": ("spec.mounts[volume].subpath",),
    "HostConfig.Mounts[].Trimtab": ("spec.mounts[config]",),
    "HostConfig.Mounts[].Trimtab.Uid": ("spec.mounts[config].uid",),
    "HostConfig.Mounts[].Trimtab.Gid": ("spec.mounts[config].gid",),
    "HostConfig.Mounts[].Trimtab.Mode": ("spec.mounts[config].mode",),
    "HostConfig.Mounts[].Trimtab.Keys": ("spec.mounts[config].keys",),
    "HostConfig.Mounts[].Trimtab.Key": ("spec.mounts[config].key",),
    "HostConfig.Mounts[].Trimtab.Stable": ("spec.mounts[config].onChange",),
    "HostConfig.Mounts[].TmpfsOptions": ("spec.mounts[tmpfs].size", "spec.mounts[tmpfs].mode"),
    "HostConfig.Mounts[].TmpfsOptions.SizeBytes": ("spec.mounts[tmpfs].size",),
    "HostConfig.Mounts[].TmpfsOptions.Mode": ("spec.mounts[tmpfs].mode",),
    "HostConfig.PortBindings.*[].HostIp": ("spec.ports[].hostIP",),
    "HostConfig.PortBindings.*[].HostPort": ("spec.ports[].host",),
    "HostConfig.RestartPolicy.Name": ("spec.restart.policy", "spec.restart.boot"),
    "HostConfig.LogConfig.Type": ("spec.logs.driver",),
    "HostConfig.LogConfig.Config": (
        "spec.logs.options",
        "spec.logs.maxSize",
        "spec.logs.maxFiles",
        "spec.logs.compress",
    ),
    "HostConfig.Ulimits[].Name": ("spec.ulimits",),
    "HostConfig.Ulimits[].Soft": ("spec.ulimits.NAME.soft",),
    "HostConfig.Ulimits[].Hard": ("spec.ulimits.NAME.hard",),
    "HostConfig.Devices[].PathOnHost": ("spec.devices[].path",),
    "HostConfig.Devices[].PathInContainer": ("spec.devices[].target",),
    "HostConfig.Devices[].CgroupPermissions": ("spec.devices[].permissions",),
    "HostConfig.DeviceRequests[].DeviceIDs": ("spec.devices[].cdi",),
    "Healthcheck.Test": ("spec.healthcheck.exec",),
    "Healthcheck.Interval": ("spec.healthcheck.interval",),
    "Healthcheck.Timeout": ("spec.healthcheck.timeout",),
    "Healthcheck.Retries": ("spec.healthcheck.retries",),
    "Healthcheck.StartPeriod": ("spec.healthcheck.startPeriod",),
    "Healthcheck.StartInterval": ("spec.healthcheck.startInterval",),
    "NetworkingConfig.EndpointsConfig": ("spec.network.attach[].name",),
    "NetworkingConfig.EndpointsConfig.*.IPAMConfig": ("spec.network.attach[].address",),
    "NetworkingConfig.EndpointsConfig.*.IPAMConfig.IPv4Address": ("spec.network.attach[].address",),
    "NetworkingConfig.EndpointsConfig.*.Aliases": (
        "spec.network.aliases",
        "spec.network.attach[].aliases",
    ),
}
#: Why a member has no field.
REASONS: Mapping[str, str] = {
    "AttachStdin": _DETACHED,
    "AttachStdout": _DETACHED,
    "AttachStderr": _DETACHED,
    "StdinOnce": _DETACHED,
    "Shell": "for checks of the kind CMD-SHELL: write `healthcheck.exec: [sh, -c, COMMAND]`",
    "Volumes": "a volume without a name: write a named one in `mounts`",
    "NetworkDisabled": "`network.mode: none` is the same",
    "Runtime": "an old place of `HostConfig.Runtime`",
    "HostConfig": "see its members",
    "HostConfig.MemorySwappiness": "containers use no swap",
    "HostConfig.CpuQuota": "`resources.cpus` sets the same limit",
    "HostConfig.CpuPeriod": "`resources.cpus` sets the same limit",
    "HostConfig.Binds": "`mounts` has the same mounts",
    "HostConfig.AutoRemove": "a supervised container is restarted, and removed by the controller",
    "HostConfig.ConsoleSize": _DETACHED,
    "HostConfig.CapDrop": "all capabilities are dropped, always",
    "HostConfig.CgroupnsMode": _PRIVATE,
    "HostConfig.SecurityOpt": "no new privileges, always",
    "HostConfig.Isolation": "Windows only",
    "HostConfig.Mounts[].BindOptions": "see its members",
    "HostConfig.Mounts[].BindOptions.Propagation": "mounts never propagate to the host",
    "HostConfig.Mounts[].VolumeOptions.DriverConfig": "volumes are local",
    "HostConfig.Mounts[].VolumeOptions.DriverConfig.Name": "volumes are local",
    "HostConfig.Mounts[].Trimtab.Content": "the controller's: the content that the document has",
    "HostConfig.RestartPolicy.MaximumRetryCount": (
        "OnFailure tries ten times; then the controller goes on, with growing pauses"
    ),
    "HostConfig.DeviceRequests[].Driver": "CDI is the only driver",
}


@dataclass(frozen=True, slots=True)
class ParityRow:
    """A member of a create: the treatment by the gate, and the fields of a Service or the reason for none."""

    place: str
    posture: Posture
    fields: tuple[str, ...]
    reason: str


def rows() -> Iterator[ParityRow]:
    """Yield a row for each member that the gate does not refuse or drop."""
    for parent, table in TABLES:
        for entry in table:
            if entry.posture in (Posture.DENY, Posture.DROP):
                continue
            place = f"{parent}.{entry.name}" if parent else entry.name
            yield ParityRow(place, entry.posture, FIELDS.get(place, ()), REASONS.get(place, ""))
