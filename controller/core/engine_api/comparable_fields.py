"""The members of a container's inspect: the compared members, and how differences are handled.

The inspect is compared with the admitted state (decision 0007). The admitted state already includes
the defaults of the image and of the policy, so nothing is subtracted first. A container is
identified by its id. Members without possible changes under one id need no comparison. A recreated
container has a new id, which is not in the inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from controller.core.engine_api import container_fields
from controller.core.engine_api.container_fields import (
    FIELDS,
    ChangedBy,
    ContainerField,
    as_it_is,
    camel_case,
)
from controller.core.engine_api.field_reader import Field
from controller.core.engine_api.field_tables import CONFIG, ENDPOINT, HOST_CONFIG
from controller.model.observed import LimitValue, Settings

if TYPE_CHECKING:
    # The broker compares containers, and loads no document.
    from controller.model.desired.desired import DeclaredLimits


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


def _changed_by(way: ChangedBy) -> str:
    return " ".join(field.member for field in FIELDS if field.changed_by is way)


_RESTORED: Final = _changed_by(ChangedBy.UPDATE)
_SET_ONLY: Final = _changed_by(ChangedBy.UPDATE_IF_SET)
#: The members that are never admitted, and that an update past the gate can set.
FOREIGN: Final = _changed_by(ChangedBy.FOREIGN)


def _rest(table: Sequence[Field], *named: str) -> str:
    """Return the fields of a body's table that no other row names."""
    return " ".join(sorted({entry.name for entry in table} - set(" ".join(named).split())))


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
        _RESTORED,
        Handling.IN_PLACE,
        "every container is admitted with values, and an update restores them",
    ),
    Row(
        "HostConfig",
        _SET_ONLY,
        Handling.IN_PLACE,
        "restored if admitted with a value; else recreated, because no update unsets it",
    ),
    Row(
        "HostConfig",
        FOREIGN,
        Handling.RECREATE,
        "never admitted, and no update unsets it",
    ),
    Row(
        "HostConfig",
        _rest(HOST_CONFIG, _RESTORED, _SET_ONLY, FOREIGN),
        Handling.RECREATE,
        "fixed at the create",
    ),
    Row(
        "Config",
        _rest(CONFIG, "HostConfig NetworkingConfig Runtime"),
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
        _rest(ENDPOINT, "Aliases"),
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

_UNSET: Final = Settings(name="")


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of ``Settings``; a limit if it has a ``member``."""

    name: str
    #: The field of a document, or ``container.NAME`` for a setting without a field.
    path: str
    #: Returns a value in words.
    show: Callable[..., str]
    #: The member in ``HostConfig`` and in the body of an update.
    member: str | None = None

    def in_place(self, now: Settings, admitted: Settings) -> bool:
        """Return True if the engine can restore the admitted value.

        0 and '' mean "no change" in an update, so an update cannot restore an unset value.
        """
        match self.name:
            case "others":
                return False
            case "cpuset":
                return admitted.cpuset != ""
            case "memory_swap":
                return admitted.memory_swap != 0 and admitted.memory > 0
            # The engine cannot switch between the two ways of limiting CPUs.
            case "nano_cpus" if now.cpu_quota or now.cpu_period:
                return False
            case "cpu_quota" | "cpu_period" if now.nano_cpus:
                return False
            case _:
                return self.member is None or getattr(admitted, self.name) > 0


def _names(names: tuple[str, ...]) -> str:
    return "+".join(names) or "none"


def _limit(field: ContainerField) -> Setting:
    name = field.gate.attribute
    assert name is not None and field.show is not None, f"{field.member} is a limit"
    return Setting(
        name, field.document or f"container.{camel_case(name)}", field.show, field.member
    )


#: Every field of Settings, in the order of the sentences.
SETTINGS: Final = (
    Setting("name", "container.name", as_it_is),
    *map(_limit, container_fields.LIMITS),
    Setting("others", "container.otherLimits", _names),
    Setting("restart", "spec.restart.policy", as_it_is),
    Setting("restart_max", "container.restartRetries", as_it_is),
    Setting("networks", "container.networks", _names),
)
#: The limits that an update can change: the field of Settings, and the engine's member.
LIMITS: Final = {each.name: each.member for each in SETTINGS if each.member is not None}
#: The setting behind each member of HostConfig that is compared.
MEMBERS_OF: Final[Mapping[str, str]] = {
    **LIMITS,
    "restart": "RestartPolicy",
    "restart_max": "RestartPolicy",
}
#: The limits that every container gets, by the policy's words, with the members that set them.
REQUIRED_LIMITS: Final[Mapping[str, frozenset[str]]] = {
    "memory": frozenset({"Memory"}),
    "swap": frozenset({"MemorySwap"}),
    "cpus": frozenset({"NanoCpus", "CpuQuota", "CpuPeriod"}),
    "pids": frozenset({"PidsLimit"}),
}
#: The value of each limit if it is unset.
UNSET: Final[Mapping[str, LimitValue]] = {name: getattr(_UNSET, name) for name in LIMITS}


def differing_settings(now: Settings, admitted: Settings) -> Iterator[Setting]:
    """Yield the settings with a value other than the admitted one, in order."""
    if now == admitted:
        return  # of nearly all containers, and asked often
    for setting in SETTINGS:
        if getattr(now, setting.name) != getattr(admitted, setting.name):
            yield setting


def member_text(member: str) -> str:
    """Return the field of a document that sets a member of a create; the member without one."""
    paths = (each.path for each in SETTINGS if MEMBERS_OF.get(each.name) == member)
    return next((path for path in paths if path.startswith("spec.")), member)


def is_ignored(setting: Setting, now: Settings, ignored: Collection[str]) -> bool:
    """Return True if the engine dropped a setting, so that its difference is nobody's alteration.

    *ignored* are the members that the engine dropped. Another value than an unset one is an
    alteration all the same: somebody set it.
    """
    if MEMBERS_OF.get(setting.name) not in ignored:
        return False
    value = getattr(now, setting.name)
    if setting.name == "memory_swap" and value == 2 * now.memory:
        return True  # the engine's own default
    return value in (-1, getattr(_UNSET, setting.name))


def describe_difference(setting: Setting, now: Settings, admitted: Settings) -> str:
    """Return the sentence on a differing setting."""
    is_now, was = (setting.show(getattr(each, setting.name)) for each in (now, admitted))
    return f"{setting.name.replace('_', ' ')} is {is_now}, admitted {was}"


def limits_text(limits: DeclaredLimits) -> str:
    """Return declared limits in words, such as ``memory 64Mi, cpus 0.5, restart Always``."""
    values = limits.engine_limits
    named = [
        f"{setting.path.rpartition('.')[2]} {setting.show(values[setting.name])}"
        for setting in declared_settings(values)
    ]
    boot = [] if limits.boot is None else [f"boot {limits.boot}"]
    return ", ".join([*named, f"restart {limits.restart}", *boot])


def declared_settings(limits: Collection[str]) -> Iterator[Setting]:
    """Yield the settings of declared limits, in order. Swap, which follows the memory, is left out."""
    for setting in SETTINGS:
        if setting.name in limits and setting.name != "memory_swap":
            yield setting


def describe_limits(admitted: Settings, limits: Mapping[str, LimitValue]) -> str:
    """Return the sentence on the limits that a document changes."""
    return "; ".join(
        f"{setting.path.rpartition('.')[2]} is {setting.show(getattr(admitted, setting.name))}, "
        f"want {setting.show(limits[setting.name])}"
        for setting in declared_settings(limits)
    )
