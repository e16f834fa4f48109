"""Parsers for the kernel's texts about a process: status, mountinfo, cgroup and cgroup limits.

The functions are pure and strict: a text in another form raises ValueError. Sources:
proc_pid_status(5), proc_pid_mountinfo(5), cgroups(7), the kernel's cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.model.confinement import UNLIMITED, CgroupLimits, MountinfoLine

CAPABILITY_SETS = ("Inh", "Prm", "Eff", "Bnd", "Amb")
#: In version 1, "no limit" is the largest multiple of the page size below 2^63.
_NO_LIMIT_V1 = 2**62
_NANO = 1_000_000_000
#: Names of the runtime's process, before it executes the container's program.
_STARTING = ("runc:[", "crun")


@dataclass(frozen=True, slots=True)
class Status:
    """The fields of /proc/PID/status."""

    name: str
    #: The effective uid and gid.
    uid: int
    #: Capability masks by set, for example ``Eff``.
    capabilities: dict[str, int]
    no_new_privileges: bool
    seccomp: int
    #: A letter: R, S, …; Z and X after the end of the process.
    state: str
    gid: int = 0
    groups: tuple[int, ...] = ()

    @property
    def has_ended(self) -> bool:
        """True if the process ended. A zombie only waits for its parent."""
        return self.state in {"Z", "X"}

    @property
    def is_starting(self) -> bool:
        """True if the process has a name of the runtime's first process."""
        return self.name.startswith(_STARTING)


def read_status(text: str) -> Status:
    """Parse /proc/PID/status.

    Raises:
        ValueError: a line is missing, or is not in the kernel's form.
    """
    fields = dict(_pairs(text, ":"))
    try:
        return Status(
            name=fields["Name"],
            uid=int(fields["Uid"].split()[1]),
            capabilities={name: int(fields[f"Cap{name}"], 16) for name in CAPABILITY_SETS},
            no_new_privileges=fields["NoNewPrivs"] == "1",
            seccomp=int(fields["Seccomp"]),
            state=fields["State"][:1],
            gid=int(fields["Gid"].split()[1]),
            groups=tuple(map(int, fields["Groups"].split())),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"the process's status lacks {error}") from error


def _pairs(text: str, separator: str) -> list[tuple[str, str]]:
    pairs = []
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        pairs.append((name.strip(), value.strip()))
    return pairs


@dataclass(frozen=True, slots=True)
class IdMap:
    """The uid or gid map of a user namespace."""

    #: Ranges of: first id inside, first id outside, count.
    ranges: tuple[tuple[int, int, int], ...]

    @property
    def has_host_root(self) -> bool:
        """True if the host's root is in the map, or the map is still empty."""
        outside = [first for _, first, _ in self.ranges]
        return not outside or 0 in outside

    def inside(self, number: int) -> int:
        """Return the id inside the namespace for an id outside. An unmapped id stays the same."""
        for first, outside, count in self.ranges:
            if outside <= number < outside + count:
                return first + number - outside
        return number


def read_id_map(text: str) -> IdMap:
    """Parse /proc/PID/uid_map, or gid_map.

    Raises:
        ValueError: a line is not in the kernel's form.
    """
    ranges = []
    for line in text.splitlines():
        first, outside, count = (int(field) for field in line.split())
        ranges.append((first, outside, count))
    return IdMap(tuple(ranges))


def read_mounts(text: str) -> tuple[MountinfoLine, ...]:
    """Parse /proc/PID/mountinfo. The order of the lines stays.

    Raises:
        ValueError: a line is not in the kernel's form.
    """
    return tuple(_mount(line) for line in text.split("\n") if line)


def _mount(line: str) -> MountinfoLine:
    before, dash, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(rest) < 3:
        raise ValueError(f"not a line of mountinfo: {line[:200]!r}")
    return MountinfoLine(
        id=int(fields[0]),
        root=_unescape(fields[3]),
        point=_unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        shared=any(field.startswith("shared:") for field in fields[6:]),
        filesystem=rest[0],
        settings=frozenset(rest[2].split(",")),
        parent=int(fields[1]),
        device=fields[2],
        source=_unescape(rest[1]),
    )


def _unescape(field: str) -> str:
    """Return a field of mountinfo without its octal escapes."""
    if "\\" not in field:
        return field
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The cgroup paths of a process."""

    #: The path in the unified hierarchy, '' without one.
    unified: str
    #: The paths in the hierarchies of version 1, by controller.
    by_controller: Mapping[str, str]

    def has_container(self, identifier: str) -> bool:
        """Return True if a path component is the container's id, in a form of a cgroup driver."""
        return any(
            _has_component(path, identifier)
            for path in (self.unified, *self.by_controller.values())
        )

    def is_leaving(self, identifier: str) -> bool:
        """Return True if the process exits, even if its status doesn't show the exit yet.

        The kernel moves an exiting process to the root of each hierarchy of version 1 at once, and
        leaves the process in its place in the unified hierarchy.
        """
        paths = [path for name, path in self.by_controller.items() if not name.startswith("name=")]
        outside = bool(paths) and not any(_has_component(path, identifier) for path in paths)
        return outside and _has_component(self.unified, identifier)


def _has_component(path: str, identifier: str) -> bool:
    forms = {identifier, f"docker-{identifier}.scope", f"libpod-{identifier}.scope"}
    return not forms.isdisjoint(path.split("/"))


def read_cgroups(text: str) -> Cgroups:
    """Parse /proc/PID/cgroup.

    Raises:
        ValueError: a line is not in the kernel's form.
    """
    unified = ""
    by_controller: dict[str, str] = {}
    for line in text.splitlines():
        number, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if not first or not second or not number.isdigit():
            raise ValueError(f"not a line of a process's cgroups: {line[:200]!r}")
        if number == "0":
            unified = path
        else:
            by_controller |= dict.fromkeys(controllers.split(","), path)
    return Cgroups(unified, by_controller)


def limits_v1(files: Mapping[str, str]) -> CgroupLimits:
    """Parse the limit files of version 1, by file name. A missing file gives None.

    Raises:
        ValueError: a file is not in the kernel's form.
    """
    quota, period = (_number(files, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return CgroupLimits(
        memory=_v1(_number(files, "memory.limit_in_bytes")),
        memory_swap=_v1(_number(files, "memory.memsw.limit_in_bytes")),
        nano_cpus=_nano(quota, period),
        pids=_number(files, "pids.max"),
    )


def limits_v2(files: Mapping[str, str]) -> CgroupLimits:
    """Parse the limit files of version 2, by file name. A missing file gives None.

    Raises:
        ValueError: a file is not in the kernel's form.
    """
    memory, swap = _number(files, "memory.max"), _number(files, "memory.swap.max")
    quota, _, period = files.get("cpu.max", "").strip().partition(" ")
    return CgroupLimits(
        memory=memory,
        memory_swap=_sum(memory, swap),
        nano_cpus=_nano(_value(quota), int(period)) if quota else None,
        pids=_number(files, "pids.max"),
    )


def _sum(memory: int | None, swap: int | None) -> int | None:
    if memory is None or swap is None:
        return None
    return UNLIMITED if UNLIMITED in {memory, swap} else memory + swap


def _nano(quota: int | None, period: int | None) -> int | None:
    if quota is None or period is None:
        return None
    if period <= 0:
        raise ValueError(f"a period of {period}")
    return UNLIMITED if quota < 0 else quota * _NANO // period


def _v1(number: int | None) -> int | None:
    return UNLIMITED if number is not None and number >= _NO_LIMIT_V1 else number


def _number(files: Mapping[str, str], name: str) -> int | None:
    return _value(files[name].strip()) if name in files else None


def _value(text: str) -> int:
    return UNLIMITED if text == "max" else int(text)
