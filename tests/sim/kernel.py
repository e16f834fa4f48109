"""What the simulated kernel shows of a container's process: what its engine was told to give it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.broker.gate.commands import ReadProcess
from controller.core.enforcement.kernel import mask_of
from controller.model.confinement import (
    UNLIMITED,
    CgroupLimits,
    EffectiveState,
    MountinfoLine,
    MountPath,
    NotReadable,
    Root,
)
from tests.sim.engine import SimEngine
from tests.sim.objects import SimContainer

#: Device and inode of every path of the simulated host.
DEVICE, INODE = 1, 7
_TMPFS = frozenset({"rw", "nosuid", "nodev", "noexec"})


def process(engine: SimEngine, asked: ReadProcess) -> EffectiveState | NotReadable:
    """Read the process of a container."""
    container = engine.containers.get(asked.container)
    if container is None or not container.alive or container.pid != asked.pid:
        return NotReadable("its process ended", gone=True)
    dropped = "ALL" in (container.host["CapDrop"] or ())
    mask = mask_of(tuple(container.host["CapAdd"] or ())) if dropped else mask_of(("NET_RAW",))
    mounts = tuple(_mounts(container))
    by_point = {mount.point: mount for mount in mounts}
    return EffectiveState(
        uid=65534,
        gid=_gid(container.config["User"]),
        capabilities={"Bnd": mask, "Eff": 0, "Prm": 0, "Inh": 0, "Amb": 0},
        no_new_privileges="no-new-privileges:true" in (container.host["SecurityOpt"] or ()),
        mounts=mounts,
        reached=tuple(
            MountPath(target, by_point[target].id) for target in asked.targets if target in by_point
        ),
        roots=tuple(Root(mount.id, DEVICE, INODE) for mount in mounts),
        limits=_limits(container.host),
    )


def _gid(user: str) -> int:
    """Return the group of a user in numbers; root's for any other."""
    group = user.partition(":")[2]
    return int(group) if group.isdigit() else 0


def _limits(host: dict[str, Any]) -> CgroupLimits:
    quota = host["CpuQuota"] * 1_000_000_000 // (host["CpuPeriod"] or 100_000)
    return CgroupLimits(
        memory=host["Memory"] or UNLIMITED,
        memory_swap=host["MemorySwap"] or UNLIMITED,
        nano_cpus=host["NanoCpus"] or quota or UNLIMITED,
        pids=host["PidsLimit"] or UNLIMITED,
    )


def _mounts(container: SimContainer) -> Iterator[MountinfoLine]:
    number = 10
    yield _mount(number, "/", "/", "overlay", writable=not container.host["ReadonlyRootfs"])
    for shown in container.mounts:
        number += 1
        point, kind = shown["Destination"], shown["Type"]
        if kind == "tmpfs":
            yield _mount(number, "/", point, "tmpfs", size=_size(container, point))
        else:
            anonymous = kind == "volume" and not shown.get("Name")
            root = f"/volumes/{container.id}/_data" if anonymous else "/somewhere"
            yield _mount(number, f"/data{root}", point, "ext4", writable=shown["RW"])


def _size(container: SimContainer, point: str) -> int:
    for mount in container.host.get("Mounts") or ():
        if mount["Target"] == point:
            return int((mount.get("TmpfsOptions") or {}).get("SizeBytes", 0))
    return 0


def _mount(
    number: int, root: str, point: str, filesystem: str, *, writable: bool = True, size: int = 0
) -> MountinfoLine:
    options = _TMPFS if filesystem == "tmpfs" else frozenset({"rw" if writable else "ro"})
    settings = frozenset({"rw", f"size={size // 1024}k"})
    return MountinfoLine(
        number, root, point, options, shared=False, filesystem=filesystem, settings=settings
    )
