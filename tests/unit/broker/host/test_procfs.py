"""The kernel's texts in their real form, and texts that no kernel writes."""

from __future__ import annotations

import pytest

from controller.broker.host.procfs import (
    Cgroups,
    Status,
    limits_v1,
    limits_v2,
    read_cgroups,
    read_id_map,
    read_mounts,
    read_status,
)
from controller.model.confinement import UNLIMITED, CgroupLimits, MountinfoLine

ID = "dc2eca17833782b4a5e87da0f5f518a98b86c3bf1bac59ece246c6db99b347d0"
STATUS = """\
Name:\tdocker-init
Umask:\t0022
State:\tS (sleeping)
Uid:\t65534\t1000\t65534\t65534
Gid:\t65534\t1001\t65534\t65534
Groups:\t6 1001
NSpid:\t6344\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000001
CapEff:\t0000000000000081
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000002
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
"""


def test_a_status() -> None:
    assert read_status(STATUS) == Status(
        name="docker-init",
        uid=1000,
        capabilities={"Inh": 0, "Prm": 1, "Eff": 0x81, "Bnd": 0x1FFFFFFFFFF, "Amb": 2},
        no_new_privileges=True,
        seccomp=2,
        state="S",
        gid=1001,
        groups=(6, 1001),
    )


@pytest.mark.parametrize(
    ("state", "ended"), [("R (running)", False), ("Z (zombie)", True), ("X (dead)", True)]
)
def test_one_that_has_ended_is_told_by_its_state(state: str, ended: bool) -> None:
    assert read_status(STATUS.replace("S (sleeping)", state)).has_ended is ended


@pytest.mark.parametrize(("name", "starting"), [("runc:[2:INIT]", True), ("sh", False)])
def test_the_runtimes_own_process_is_told_by_its_name(name: str, starting: bool) -> None:
    assert read_status(STATUS.replace("docker-init", name)).is_starting is starting


@pytest.mark.parametrize(
    "line",
    [
        "Name",
        "State",
        "Uid",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ],
)
def test_a_status_without_a_line_is_none(line: str) -> None:
    lines = [each for each in STATUS.splitlines() if not each.startswith(f"{line}:")]
    with pytest.raises(ValueError, match="status lacks"):
        read_status("\n".join(lines))


def test_mounts() -> None:
    text = (
        "98 79 254:0 /var/lib/docker/volumes/vol/_data /vol rw,relatime master:3 - "
        "ext4 /dev/vda rw,discard\n"
        "99 79 254:0 /srv/a\\040b\\134c /data\\011x\\012y ro shared:7 - ext4 /dev/vda rw\n"
        "97 79 0:48 / /scratch rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1024k\n"
    )
    assert read_mounts(text) == (
        MountinfoLine(
            id=98,
            root="/var/lib/docker/volumes/vol/_data",
            point="/vol",
            options=frozenset({"rw", "relatime"}),
            shared=False,
            filesystem="ext4",
            settings=frozenset({"rw", "discard"}),
            parent=79,
            device="254:0",
            source="/dev/vda",
        ),
        MountinfoLine(
            id=99,
            root="/srv/a b\\c",
            point="/data\tx\ny",
            options=frozenset({"ro"}),
            shared=True,
            filesystem="ext4",
            settings=frozenset({"rw"}),
            parent=79,
            device="254:0",
            source="/dev/vda",
        ),
        MountinfoLine(
            id=97,
            root="/",
            point="/scratch",
            options=frozenset({"rw", "nosuid", "nodev", "noexec"}),
            shared=False,
            filesystem="tmpfs",
            settings=frozenset({"rw", "size=1024k"}),
            parent=79,
            device="0:48",
            source="tmpfs",
        ),
    )


@pytest.mark.parametrize(
    "line", ["x", "1 2 3:4 / /x rw", "1 2 3:4 / /x rw - ext4 y", "a b c d e f - g h i"]
)
def test_what_is_no_line_of_mountinfo_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"mountinfo|invalid literal"):
        read_mounts(line)


V1 = f"""\
8:pids:/docker/{ID}
4:memory:/docker/{ID}
2:cpu,cpuacct:/docker/{ID}
1:name=systemd:/docker/{ID}
0::/system.slice/containerd.service
"""


def test_cgroups_of_version_1() -> None:
    found = read_cgroups(V1)
    assert found == Cgroups(
        "/system.slice/containerd.service",
        dict.fromkeys(("pids", "memory", "cpu", "cpuacct", "name=systemd"), f"/docker/{ID}"),
    )
    assert found.has_container(ID)


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        (f"4:memory:/\n1:name=systemd:/\n0::/docker/{ID}\n", True),
        (f"4:memory:/docker/{ID}\n0::/docker/{ID}\n", False),
        (f"1:name=systemd:/\n0::/docker/{ID}\n", False),
        (f"0::/docker/{ID}\n", False),
        ("4:memory:/\n0::/\n", False),  # another process altogether
    ],
)
def test_who_exits_leaves_the_hierarchies_of_version_1_first(text: str, leaves: bool) -> None:
    assert read_cgroups(text).is_leaving(ID) is leaves


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{ID}",
        f"/system.slice/docker-{ID}.scope",
        f"/docker/{ID}/init",
        f"/../../docker/{ID}",
    ],
)
def test_a_path_that_names_the_container(path: str) -> None:
    assert read_cgroups(f"0::{path}\n").has_container(ID)


@pytest.mark.parametrize(
    "path", ["/", f"/docker/{ID[:12]}", f"/docker/{ID}x", f"/x{ID}", f"/evil-{ID}.scope"]
)
def test_a_path_that_doesn_t(path: str) -> None:
    assert not read_cgroups(f"0::{path}\n").has_container(ID)


@pytest.mark.parametrize("text", ["x", "1:memory", "a:b:c"])
def test_what_is_no_cgroup_of_a_process_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        read_cgroups(text)


def test_limits_of_version_1() -> None:
    files = {
        "memory.limit_in_bytes": "67108864\n",
        "memory.memsw.limit_in_bytes": "67108864\n",
        "cpu.cfs_quota_us": "50000\n",
        "cpu.cfs_period_us": "100000\n",
        "pids.max": "100\n",
    }
    assert limits_v1(files) == CgroupLimits(64 << 20, 64 << 20, 500_000_000, 100)


def test_no_limits_of_version_1() -> None:
    files = {
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.memsw.limit_in_bytes": "9223372036854771712\n",
        "cpu.cfs_quota_us": "-1\n",
        "cpu.cfs_period_us": "100000\n",
        "pids.max": "max\n",
    }
    assert limits_v1(files) == CgroupLimits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


def test_limits_of_version_2() -> None:
    """In version 2 swap has its own limit, and 0 means no swap."""
    files = {
        "memory.max": "67108864\n",
        "memory.swap.max": "0\n",
        "cpu.max": "50000 100000\n",
        "pids.max": "100\n",
    }
    assert limits_v2(files) == CgroupLimits(64 << 20, 64 << 20, 500_000_000, 100)
    more = {**files, "memory.swap.max": "1048576\n"}
    assert limits_v2(more).memory_swap == 65 << 20


def test_no_limits_of_version_2() -> None:
    files = {
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "cpu.max": "max 100000\n",
        "pids.max": "max\n",
    }
    assert limits_v2(files) == CgroupLimits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)
    assert limits_v2({**files, "memory.max": "1\n"}).memory_swap == UNLIMITED


@pytest.mark.parametrize("read", [limits_v1, limits_v2])
def test_a_file_that_isn_t_there_isn_t_seen(read: object) -> None:
    assert callable(read)
    assert read({}) == CgroupLimits(None, None, None, None)


def test_a_kernel_without_swap_accounting_shows_no_limit_of_swap() -> None:
    assert limits_v2({"memory.max": "4096"}) == CgroupLimits(memory=4096)


def test_what_no_kernel_writes_is_an_error() -> None:
    with pytest.raises(ValueError, match="period"):
        limits_v2({"cpu.max": "1 0"})
    with pytest.raises(ValueError, match="invalid literal"):
        limits_v1({"pids.max": "many"})


@pytest.mark.parametrize(
    ("text", "host_root", "inside"),
    [
        ("         0          0 4294967295\n", True, 100999),
        ("         0     100000      65536\n", False, 999),
        ("0 1000 1\n1 100000 65536\n", False, 1000),
        ("", True, 100999),
    ],
)
def test_users(text: str, host_root: bool, inside: int) -> None:
    users = read_id_map(text)
    assert (users.has_host_root, users.inside(100999)) == (host_root, inside)


@pytest.mark.parametrize("text", ["0 0\n", "a b c\n", "0 0 1 1\n"])
def test_users_of_no_kernel(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|literal"):
        read_id_map(text)
