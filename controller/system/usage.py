"""The use of processor and memory: of this process, and of containers by their cgroups.

The files are those of cgroups(7), of version 1 and 2. The folder of a container has its whole id in the
name: ``ID`` below the engine's parent, or ``docker-ID.scope`` in a slice of systemd.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from controller.model.observed import ContainerUse

ROOT: Final = Path("/sys/fs/cgroup")
#: Folders of version 1, by what is counted there; some systems join the first two.
_CPU: Final = ("cpuacct", "cpu,cpuacct")
#: Where engines put containers by default.
_PARENTS: Final = ("docker", "system.slice")
#: The pause between two searches for containers with another parent, and the most folders of a search.
SEARCH_S: Final = 60.0
FOLDERS_MAX: Final = 20_000
_READ_MAX: Final = 64 * 1024


def process_use() -> tuple[float, int]:
    """Return the processor time of this process in seconds, and its resident memory in bytes."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return time.process_time(), int(pages) * resource.getpagesize()


class CgroupReader:
    """Reads what the kernel counts of containers. Belongs to one thread at a time."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        root: Path = ROOT,
        *,
        folders_max: int = FOLDERS_MAX,
    ) -> None:
        self._monotonic = monotonic
        self._folders_max = folders_max
        self._is_v2 = (root / "cgroup.controllers").exists()
        cpu = next((root / name for name in _CPU if (root / name).is_dir()), root)
        #: The tree in which containers are searched.
        self._cpu = root if self._is_v2 else cpu
        self._memory = root if self._is_v2 else root / "memory"
        self._pids = root if self._is_v2 else root / "pids"
        self._parents = dict.fromkeys(_PARENTS)
        self._searched_at: float | None = None

    def read(self, ids: Collection[str]) -> Mapping[str, ContainerUse]:
        """Return the use of the containers with these ids; those without a folder are left out."""
        found: dict[str, ContainerUse] = {}
        missing = [each for each in ids if not self._add(each, found)]
        if missing and self._may_search():
            self._parents |= dict.fromkeys(self._search(frozenset(missing)))
            for each in missing:
                self._add(each, found)
        return found

    def _add(self, identifier: str, found: dict[str, ContainerUse]) -> bool:
        for parent in self._parents:
            for name in (identifier, f"docker-{identifier}.scope"):
                try:
                    found[identifier] = self._use(f"{parent}/{name}")
                except (OSError, ValueError, KeyError):
                    continue
                return True
        return False

    def _use(self, folder: str) -> ContainerUse:
        memory = _members(_read(f"{self._memory}/{folder}/memory.stat"))
        if self._is_v2:
            cpu_s = int(_members(_read(f"{self._cpu}/{folder}/cpu.stat"))["usage_usec"]) / 1e6
            size, inactive = f"{self._memory}/{folder}/memory.current", "inactive_file"
        else:
            cpu_s = int(_read(f"{self._cpu}/{folder}/cpuacct.usage")) / 1e9
            size, inactive = f"{self._memory}/{folder}/memory.usage_in_bytes", "total_inactive_file"
        used = int(_read(size)) - int(memory.get(inactive, 0))
        return ContainerUse(cpu_s, max(0, used), int(_read(f"{self._pids}/{folder}/pids.current")))

    def _may_search(self) -> bool:
        now = self._monotonic()
        if self._searched_at is not None and now - self._searched_at < SEARCH_S:
            return False
        self._searched_at = now
        return True

    def _search(self, ids: frozenset[str]) -> Iterator[str]:
        """Yield the parents of the folders of containers, relative to the root."""
        count = 0
        for folder, names, _ in os.walk(self._cpu):
            count += len(names)
            if count > self._folders_max:
                return
            if any(name.removeprefix("docker-").removesuffix(".scope") in ids for name in names):
                yield os.path.relpath(folder, self._cpu)


def _members(text: str) -> dict[str, str]:
    pairs = (line.partition(" ") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_MAX).decode()
    finally:
        os.close(descriptor)
