"""The kernel's texts about a process, read: status, mountinfo, cgroup, and the limits of cgroups.

Pure, and strict: a text that isn't what the kernel writes is a ValueError, never a guess.
Sources: proc_pid_status(5), proc_pid_mountinfo(5), cgroups(7), the kernel's cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.model.confinement import UNLIMITED, CgroupLimits, MountinfoLine

CAPABILITY_SETS = ("Inh", "Prm", "Eff", "Bnd", "Amb")
#: What version 1 shows for "no limit" is the largest multiple of the page size below 2^63.
_NO_LIMIT_V1 = 2**62
_NANO = 1_000_000_000
#: The runtime's own process, before it becomes the container's program.
_STARTING = ("runc:[", "crun")


@dataclass(frozen=True, slots=True)
class Status:
    """What /proc/PID/status tells."""

    name: str
    uid: int  # the effective one
    capabilities: dict[str, int]
    no_new_privileges: bool
    seccomp: int
    state: str  # a letter: R, S, … Z and X where it has ended

    @property
    def ended(self) -> bool:
        """Tell whether it has ended, and waits at most for its parent to learn how."""
        return self.state in {"Z", "X"}

    @property
    def starting(self) -> bool:
        """Tell whether it calls itself what the runtime's first process does."""
        return self.name.startswith(_STARTING)


def read_status(text: str) -> Status:
    """Return what /proc/PID/status tells.

    Raises:
        ValueError: a line is missing, or isn't what the kernel writes.
    """
    told = dict(_pairs(text, ":"))
    try:
        return Status(
            name=told["Name"],
            uid=int(told["Uid"].split()[1]),
            capabilities={name: int(told[f"Cap{name}"], 16) for name in CAPABILITY_SETS},
            no_new_privileges=told["NoNewPrivs"] == "1",
            seccomp=int(told["Seccomp"]),
            state=told["State"][:1],
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"the process's status lacks {error}") from error


def _pairs(text: str, separator: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        found.append((name.strip(), value.strip()))
    return found


@dataclass(frozen=True, slots=True)
class Users:
    """The users of a user namespace: ranges of first inside, first outside and count."""

    ranges: tuple[tuple[int, int, int], ...]

    @property
    def has_host_root(self) -> bool:
        """Return True if the host's root is one of them, or none is listed yet."""
        outside = [first for _, first, _ in self.ranges]
        return not outside or 0 in outside

    def inside(self, uid: int) -> int:
        """Return the uid as the namespace numbers it; as it is if it isn't one of them."""
        for first, outside, count in self.ranges:
            if outside <= uid < outside + count:
                return first + uid - outside
        return uid


def read_users(text: str) -> Users:
    """Return the users that /proc/PID/uid_map lists.

    Raises:
        ValueError: a line isn't what the kernel writes.
    """
    ranges = []
    for line in text.splitlines():
        first, outside, count = (int(field) for field in line.split())
        ranges.append((first, outside, count))
    return Users(tuple(ranges))


def read_mounts(text: str) -> tuple[MountinfoLine, ...]:
    """Return the mounts of /proc/PID/mountinfo, in its order.

    Raises:
        ValueError: a line isn't what the kernel writes.
    """
    return tuple(_mount(line) for line in text.split("\n") if line)


def _mount(line: str) -> MountinfoLine:
    before, dash, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(rest) < 3:
        raise ValueError(f"not a line of mountinfo: {line[:200]!r}")
    return MountinfoLine(
        id=int(fields[0]),
        root=unescaped(fields[3]),
        point=unescaped(fields[4]),
        options=frozenset(fields[5].split(",")),
        shared=any(field.startswith("shared:") for field in fields[6:]),
        filesystem=rest[0],
        settings=frozenset(rest[2].split(",")),
        parent=int(fields[1]),
        device=fields[2],
    )


def unescaped(field: str) -> str:
    """Return a field of mountinfo with its octal escapes undone."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where a process is: ``unified`` in the one hierarchy, '' by controller in those of v1."""

    unified: str
    by_controller: Mapping[str, str]

    def names(self, identifier: str) -> bool:
        """Tell whether a container's id is a component of one of the paths, in a driver's form."""
        return any(
            _names(path, identifier) for path in (self.unified, *self.by_controller.values())
        )

    def leaves(self, identifier: str) -> bool:
        """Tell whether it is leaving a container's cgroups: it exits, and its status may not say so.

        Whoever exits is shown at the root of each hierarchy of version 1 at once, and stays where it
        was in the unified one.
        """
        paths = [path for name, path in self.by_controller.items() if not name.startswith("name=")]
        outside = bool(paths) and not any(_names(path, identifier) for path in paths)
        return outside and _names(self.unified, identifier)


def _names(path: str, identifier: str) -> bool:
    known = {identifier, f"docker-{identifier}.scope", f"libpod-{identifier}.scope"}
    return not known.isdisjoint(path.split("/"))


def read_cgroups(text: str) -> Cgroups:
    """Return where /proc/PID/cgroup says that a process is.

    Raises:
        ValueError: a line isn't what the kernel writes.
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
    """Return the limits that the files of version 1 say, by file name; absent ones aren't seen.

    Raises:
        ValueError: a file isn't what the kernel writes.
    """
    quota, period = (_number(files, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return CgroupLimits(
        memory=_v1(_number(files, "memory.limit_in_bytes")),
        memory_swap=_v1(_number(files, "memory.memsw.limit_in_bytes")),
        nano_cpus=_nano(quota, period),
        pids=_number(files, "pids.max"),
    )


def limits_v2(files: Mapping[str, str]) -> CgroupLimits:
    """Return the limits that the files of version 2 say, by file name; absent ones aren't seen.

    Raises:
        ValueError: a file isn't what the kernel writes.
    """
    memory, swap = _number(files, "memory.max"), _number(files, "memory.swap.max")
    quota, _, period = files.get("cpu.max", "").strip().partition(" ")
    return CgroupLimits(
        memory=memory,
        memory_swap=_together(memory, swap),
        nano_cpus=_nano(_value(quota), int(period)) if quota else None,
        pids=_number(files, "pids.max"),
    )


def _together(memory: int | None, swap: int | None) -> int | None:
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
