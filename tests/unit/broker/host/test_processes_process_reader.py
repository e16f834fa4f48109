"""Reading a process: real processes, and processes outside of the container."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.broker.host.processes import (
    EXEC_POLL_S,
    EXEC_POLLS,
    cgroup_folder,
    read_process,
    root_of,
    wait_for_program,
)
from controller.broker.host.procfs import Status, read_cgroups, read_mounts
from controller.core.enforcement.kernel import NAMESPACES
from controller.model.confinement import EffectiveState, MountinfoLine, NotReadable

ID = "ab" * 32


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its end."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
        yield running
        running.kill()


@pytest.fixture
def own_name() -> str:
    """A component of this process's cgroup path, in place of a container's id."""
    cgroups = read_cgroups(Path("/proc/self/cgroup").read_text())
    paths = (cgroups.unified, *cgroups.by_controller.values())
    return next((part for path in paths for part in path.split("/") if part), "")


def test_a_process_counts_only_while_its_cgroup_names_the_container(
    process: subprocess.Popen[bytes],
) -> None:
    assert read_process(process.pid, ID, ()) == NotReadable(
        "the broker sees another process under that number"
    )


def test_a_process_that_isn_t_there_isn_t_seen() -> None:
    assert read_process(2**22 + 1, ID, ()) == NotReadable("its process isn't in the broker's /proc")


def test_one_that_ended_and_is_not_reaped_yet_has_ended(own_name: str) -> None:
    with subprocess.Popen(["true"]) as ending:
        os.waitid(os.P_PID, ending.pid, os.WEXITED | os.WNOWAIT)
        assert read_process(ending.pid, own_name, ()) == NotReadable("its process ended", gone=True)


@pytest.mark.parametrize(
    ("names", "shown", "pauses"),
    [
        (["cat"], "cat", 0),
        (["runc:[2:INIT]", "runc:[2:INIT]", "cat"], "cat", 2),
        (["runc:[2:INIT]"] * 30, "runc:[2:INIT]", EXEC_POLLS),
    ],
)
def test_a_program_has_a_moment_to_begin_and_no_more(
    names: list[str], shown: str, pauses: int
) -> None:
    told, paused = iter(names), list[float]()
    status = wait_for_program(lambda: Status(next(told), 0, {}, False, 2, "R"), paused.append)
    assert status.name == shown
    assert paused == [EXEC_POLL_S] * pauses


@pytest.mark.needs_root
def test_what_the_kernel_shows_of_a_process(
    process: subprocess.Popen[bytes], own_name: str, tmp_path: Path
) -> None:
    """An unconfined process shares every namespace, and has the mounts of the host."""
    file = tmp_path / "here"
    file.write_text("")
    link = tmp_path / "link"
    link.symlink_to(file)
    targets = (str(file), str(link), str(tmp_path / "nothing"), "/proc")
    shown = read_process(process.pid, own_name, targets)
    assert isinstance(shown, EffectiveState), shown
    assert shown.shared == (*NAMESPACES, "cgroup")
    assert shown.uid == os.geteuid()
    assert not shown.starting
    here, through, nothing, proc = shown.reached
    assert here.mount == through.mount != -1
    assert nothing.mount == -1
    points = {mount.id: mount.point for mount in shown.mounts}
    status = Path(points[here.mount]).stat()
    (root,) = (root for root in shown.roots if root.mount == here.mount)
    assert (root.device, root.inode, root.kind) == (status.st_dev, status.st_ino, "dir")
    program = Path("/usr/bin/cat").stat()
    assert shown.program == (program.st_dev, program.st_ino)
    assert {mount.id: mount.filesystem for mount in shown.mounts}[proc.mount] == "proc"
    assert all(Path(path).exists() for path in shown.maskable)


@pytest.mark.parametrize(
    ("root", "path", "folder"),
    [
        ("/", f"/docker/{ID}", f"/sys/fs/cgroup/memory/docker/{ID}"),
        (
            "/",
            f"/system.slice/docker-{ID}.scope",
            f"/sys/fs/cgroup/memory/system.slice/docker-{ID}.scope",
        ),
        ("/", f"/docker/{ID}/init", f"/sys/fs/cgroup/memory/docker/{ID}"),
        ("/docker", f"/docker/{ID}", f"/sys/fs/cgroup/memory/{ID}"),
        ("/else", f"/docker/{ID}", None),
        ("/", f"/../docker/{ID}", None),
        ("/", "/docker", None),
    ],
)
def test_the_folder_of_a_containers_cgroup(root: str, path: str, folder: str | None) -> None:
    found = cgroup_folder("/sys/fs/cgroup/memory", root, path, ID)
    assert found == (None if folder is None else Path(folder))


@pytest.mark.needs_root
def test_the_root_of_a_mount_is_found_without_links_and_not_where_folders_moved(
    tmp_path: Path,
) -> None:
    """A path with a link, a path that is too long, and a missing path have no root."""
    (tmp_path / "link").symlink_to("/proc")
    long = "/".join([str(tmp_path), *["d" * 250] * 20])
    mounts = [
        MountinfoLine(
            1, "/", point, frozenset(), shared=False, filesystem="ext4", settings=frozenset()
        )
        for point in (f"{tmp_path}/link/self", f"{tmp_path}/gone", long)
    ]
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        assert [root_of(root, mount) for mount in mounts] == [None] * 3
    finally:
        os.close(root)


@pytest.mark.needs_root
def test_the_root_of_a_filesystem_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    """A FUSE mount without its server is unreadable, and hides nothing else."""
    # Made here, since not every root has it in /dev: misc(4), the number of fuse.
    device, point = tmp_path / "fuse", tmp_path / "point"
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(10, 229))
    point.mkdir()
    server = os.open(device, os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    mount = ["mount", "-i", "-t", "fuse", "-o", options, "gone", str(point)]
    subprocess.run(mount, check=True, pass_fds=[server])
    os.close(server)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        mounts = read_mounts(Path("/proc/self/mountinfo").read_text())
        (gone,) = (each for each in mounts if each.point == str(point))
        found = root_of(root, gone)
        below = root_of(root, replace(gone, point=f"{point}/nested"))
        assert (found and found.kind, below and below.kind) == ("unreadable", "unreadable")
    finally:
        os.close(root)
        subprocess.run(["umount", str(point)], check=True)
