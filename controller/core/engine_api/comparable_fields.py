"""The members of a container's inspect: the compared members, and how differences are handled.

The inspect is compared with the admitted state (decision 0007). The admitted state already includes
the defaults of the image and of the policy, so nothing is subtracted first. A container is
identified by its id. Members without possible changes under one id need no comparison. A recreated
container has a new id, which is not in the inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from controller.model.observed import Settings
from controller.model.quantities import format_bytes


class Handling(StrEnum):
    """How a differing member is handled."""

    IGNORED = "ignored"  # runtime state, or internal to the engine
    IN_PLACE = "in place"  # restored in the container, if the engine can: see SETTINGS
    RECREATE = "recreate"  # restored by a new container only
    REPORT = "report"  # unknown meaning: reported, never restored


@dataclass(frozen=True, slots=True)
class Row:
    """Members of one section of an inspect ('' is the top level, ``*`` all members)."""

    section: str
    members: str
    handling: Handling
    why: str


#: In order, first match wins. Members without a row are REPORT.
MEMBERS: Final = (
    Row("", "Name", Handling.IN_PLACE, "the container's own name is restored"),
    Row(
        "",
        "Created Id ResolvConfPath HostnamePath HostsPath LogPath Driver GraphDriver Storage ExecIDs "
        "MountLabel ProcessLabel AppArmorProfile Platform SizeRw SizeRootFs RestartCount Node",
        Handling.IGNORED,
        "internal to the engine, or runtime state; confinement is verified in the kernel",
    ),
    Row(
        "",
        "Image ImageManifestDescriptor Path Args Mounts",
        Handling.RECREATE,
        "fixed at the create; mounts are verified in the kernel",
    ),
    Row("State", "Paused", Handling.IN_PLACE, "the container is unpaused"),
    Row("State", "Dead", Handling.RECREATE, "only the removal can be retried"),
    Row(
        "State",
        "*",
        Handling.IGNORED,
        "runtime state: the container is started, restarted or replaced",
    ),
    Row(
        "HostConfig",
        "Memory MemorySwap NanoCpus PidsLimit RestartPolicy",
        Handling.IN_PLACE,
        "every container is admitted with values, and an update restores them",
    ),
    Row(
        "HostConfig",
        "MemoryReservation CpuQuota CpuPeriod CpuShares",
        Handling.IN_PLACE,
        "restored if admitted with a value; else recreated, because no update unsets it",
    ),
    Row(
        "HostConfig",
        "CpusetCpus CpusetMems BlkioWeight CpuRealtimePeriod CpuRealtimeRuntime",
        Handling.RECREATE,
        "never admitted, and no update unsets it",
    ),
    Row(
        "HostConfig",
        "Annotations AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps "
        "BlkioDeviceWriteIOps BlkioWeightDevice CapAdd CapDrop Cgroup CgroupParent CgroupnsMode "
        "ConsoleSize ContainerIDFile CpuCount CpuPercent DeviceCgroupRules DeviceRequests Devices "
        "Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth IOMaximumIOps Init IpcMode "
        "Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths MemorySwappiness Mounts "
        "NetworkMode OomKillDisable OomScoreAdj PidMode PortBindings Privileged PublishAllPorts "
        "ReadonlyPaths ReadonlyRootfs Runtime SecurityOpt ShmSize StorageOpt Sysctls Tmpfs UTSMode "
        "Ulimits UsernsMode VolumeDriver VolumesFrom",
        Handling.RECREATE,
        "fixed at the create",
    ),
    Row(
        "Config",
        "ArgsEscaped AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env "
        "ExposedPorts Healthcheck Hostname Image Labels MacAddress NetworkDisabled OnBuild OpenStdin "
        "Shell StdinOnce StopSignal StopTimeout Tty User Volumes WorkingDir",
        Handling.RECREATE,
        "fixed at the create, with the image's defaults",
    ),
    Row(
        "NetworkSettings",
        "Networks",
        Handling.IN_PLACE,
        "extra networks are disconnected first of all",
    ),
    Row(
        "NetworkSettings",
        "Bridge EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen HairpinMode IPAddress "
        "IPPrefixLen IPv6Gateway LinkLocalIPv6Address LinkLocalIPv6PrefixLen MacAddress Ports "
        "SandboxID SandboxKey SecondaryIPAddresses SecondaryIPv6Addresses",
        Handling.IGNORED,
        "addresses and places assigned by the engine",
    ),
    Row(
        "Networks",
        "Aliases",
        Handling.IN_PLACE,
        "a container with another container's name reconnects under its own",
    ),
    Row(
        "Networks",
        "DNSNames DriverOpts EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen GwPriority "
        "IPAMConfig IPAddress IPPrefixLen IPv6Gateway Links MacAddress NetworkID",
        Handling.IGNORED,
        "the network assigns addresses, and nothing relies on the other members",
    ),
)
_SECTIONS: Final = ("State", "HostConfig", "Config", "NetworkSettings")


def _table() -> dict[tuple[str, str], Handling]:
    table: dict[tuple[str, str], Handling] = {}
    for row in MEMBERS:
        for member in row.members.split():
            table.setdefault((row.section, member), row.handling)
    return table | {("", section): Handling.IGNORED for section in _SECTIONS}


_HANDLING: Final = _table()


def handling(section: str, member: str) -> Handling:
    """Return how a difference of one member is handled."""
    known = _HANDLING.get((section, member)) or _HANDLING.get((section, "*"))
    return known or Handling.REPORT


def unknown_members(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the set members without a row, by their paths."""
    return tuple(sorted(_unknown(inspect)))


def _unknown(inspect: Mapping[str, Any]) -> Iterator[str]:
    sections = [("", "", inspect)]
    sections += [(name, f"{name}.", inspect.get(name) or {}) for name in _SECTIONS]
    ends = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    sections += [("Networks", "NetworkSettings.Networks.*.", end or {}) for end in ends.values()]
    for section, path, members in sections:
        for member, value in members.items():
            if value and handling(section, member) is Handling.REPORT:
                yield f"{path}{member}"


# Compared settings


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of ``Settings``: how to print its values, and whether the engine can restore it."""

    name: str
    show: Callable[..., str]
    #: Called with the present and the admitted settings. 0 and '' mean "no change" in an update, so an
    #: update cannot restore an unset value.
    in_place: Callable[[Settings, Settings], bool]


def _bytes(count: int) -> str:
    return {0: "unlimited", -1: "unlimited"}.get(count) or format_bytes(count)


def _cpus(nano: int) -> str:
    return f"{nano / 1_000_000_000:g}" if nano else "unlimited"


def _count(number: int) -> str:
    return str(number) if number else "unlimited"


def _names(names: tuple[str, ...]) -> str:
    return "+".join(names) or "none"


def _text(value: object) -> str:
    return str(value) or "unset"


#: Every field of Settings, in the order of the sentences.
SETTINGS: Final = (
    Setting("name", _text, lambda _, __: True),
    Setting("memory", _bytes, lambda _, was: was.memory > 0),
    Setting("memory_swap", _bytes, lambda _, was: was.memory_swap != 0 and was.memory > 0),
    Setting("memory_reservation", _bytes, lambda _, was: was.memory_reservation > 0),
    # The engine cannot switch between the two ways of limiting CPUs.
    Setting("nano_cpus", _cpus, lambda now, was: was.nano_cpus > 0 and not _by_quota(now)),
    Setting("cpu_quota", _text, lambda now, was: was.cpu_quota > 0 and not now.nano_cpus),
    Setting("cpu_period", _text, lambda now, was: was.cpu_period > 0 and not now.nano_cpus),
    Setting("cpu_shares", _text, lambda _, was: was.cpu_shares > 0),
    Setting("cpuset", _text, lambda _, __: False),
    Setting("others", _names, lambda _, __: False),
    Setting("pids", _count, lambda _, was: was.pids > 0),
    Setting("restart", _text, lambda _, __: True),
    Setting("restart_max", _text, lambda _, __: True),
    Setting("networks", _names, lambda _, __: True),
)


def _by_quota(settings: Settings) -> bool:
    return settings.cpu_quota != 0 or settings.cpu_period != 0


def differing_settings(now: Settings, admitted: Settings) -> Iterator[Setting]:
    """Yield the settings with a value other than the admitted one, in order."""
    for setting in SETTINGS:
        if getattr(now, setting.name) != getattr(admitted, setting.name):
            yield setting


def describe_difference(setting: Setting, now: Settings, admitted: Settings) -> str:
    """Return the sentence on a differing setting."""
    is_now, was = (setting.show(getattr(each, setting.name)) for each in (now, admitted))
    return f"{setting.name.replace('_', ' ')} is {is_now}, admitted {was}"
