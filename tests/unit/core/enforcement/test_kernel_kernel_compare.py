"""What the kernel shows against what was admitted: each single deviation is found, and no other."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from controller.core.enforcement.kernel import (
    CAPABILITIES,
    NAMESPACES,
    ExpectedState,
    JoinedNetwork,
    PolicyBounds,
    compare_kernel,
    mask_of,
    names_of,
    size_of,
    texts_by_kind,
)
from controller.model.confinement import (
    UNLIMITED,
    CgroupLimits,
    Confinement,
    DifferenceKind,
    EffectiveState,
    ExpectedMount,
    KernelDifference,
    MountinfoLine,
    MountPath,
    Root,
)
from controller.model.observed import Settings

ID = "a1" * 32
MIB = 1024**2
ANONYMOUS = "/docker/volumes/" + "0f" * 32 + "/_data"


def mount(number: int, point: str, **more: Any) -> MountinfoLine:
    told: dict[str, Any] = {
        "root": "/",
        "options": frozenset({"rw"}),
        "shared": False,
        "filesystem": "ext4",
        "settings": frozenset({"rw"}),
        "parent": 1,
        **more,
    }
    for name in ("options", "settings"):
        told[name] = frozenset(told[name])
    return MountinfoLine(id=number, point=point, **told)


FASTENED = (
    ExpectedMount(
        "bind", "/data", "/srv/data", read_only=True, device=8, inode=70, place="/srv/data"
    ),
    ExpectedMount("bind", "/conf", "/srv/conf", device=8, inode=71, place="/srv/conf"),
    ExpectedMount(
        "volume", "/store", "store", device=8, inode=72, place="/docker/volumes/store/_data"
    ),
    ExpectedMount(
        "volume",
        "/part",
        "store",
        subpath="p",
        device=8,
        inode=72,
        place="/docker/volumes/store/_data",
    ),
    ExpectedMount("volume", "/cache"),
    ExpectedMount("tmpfs", "/scratch", size=MIB),
)
TMPFS = {"rw", "nosuid", "nodev", "noexec"}
MOUNTS = {
    1: mount(1, "/", filesystem="overlay", options={"ro"}),
    2: mount(2, "/proc", filesystem="proc"),
    3: mount(3, "/dev", filesystem="tmpfs"),
    4: mount(4, "/dev/pts", filesystem="devpts"),
    5: mount(5, "/dev/mqueue", filesystem="mqueue"),
    6: mount(6, "/dev/shm", filesystem="tmpfs", settings={"rw", "size=65536k"}),
    7: mount(7, "/dev/console", filesystem="devpts", root="/0"),
    8: mount(8, "/sys", filesystem="sysfs", options={"ro"}),
    9: mount(9, "/sys/fs/cgroup", filesystem="tmpfs"),
    10: mount(10, "/sys/fs/cgroup/cpu", filesystem="cgroup", root=f"/docker/{ID}", options={"ro"}),
    11: mount(11, "/etc/hosts", root=f"/docker/containers/{ID}/hosts"),
    12: mount(12, "/etc/hostname", root=f"/docker/containers/{ID}/hostname"),
    13: mount(13, "/etc/resolv.conf", root=f"/docker/containers/{ID}/resolv.conf"),
    14: mount(14, "/sbin/docker-init", root="/usr/bin/tini-static", options={"ro"}),
    15: mount(15, "/proc/sys", filesystem="proc", root="/sys", options={"ro"}),
    16: mount(16, "/proc/acpi", filesystem="tmpfs", options={"ro"}),
    17: mount(17, "/proc/keys", filesystem="tmpfs", root="/null"),
    18: mount(18, "/sys/firmware", filesystem="tmpfs", settings={"ro"}),
    20: mount(20, "/data", root="/srv/data", options={"ro"}),
    21: mount(21, "/conf", root="/srv/conf"),
    22: mount(22, "/store", root="/docker/volumes/store/_data"),
    23: mount(23, "/part", root="/docker/volumes/store/_data/p"),
    24: mount(24, "/cache", root=ANONYMOUS),
    25: mount(25, "/scratch", filesystem="tmpfs", options=TMPFS, settings={"rw", "size=1024k"}),
}
REACHED = {each.target: MountPath(each.target, 20 + n) for n, each in enumerate(FASTENED)}
ROOTS = {
    14: Root(14, 8, 60, "file"),
    20: Root(20, 8, 70),
    21: Root(21, 8, 71),
    22: Root(22, 8, 72),
    23: Root(23, 8, 99),
    24: Root(24, 8, 98),
    25: Root(25, 40, 1),
}
EXPECTED = ExpectedState(
    id=ID,
    confinement=Confinement(
        capabilities=("CHOWN", "SETUID"),
        read_only_root=True,
        non_root=True,
        private_cgroup=True,
        mounts=FASTENED,
    ),
    settings=Settings(
        name="web",
        memory=64 * MIB,
        memory_swap=64 * MIB,
        nano_cpus=500_000_000,
        pids=100,
        networks=("front",),
    ),
    bounds=PolicyBounds(memory=256 * MIB, nano_cpus=2_000_000_000, pids=200),
)
CHOWN, SETUID = 1 << 0, 1 << 7
EFFECTIVE = EffectiveState(
    uid=1000,
    capabilities={"Inh": 0, "Prm": CHOWN, "Eff": CHOWN, "Bnd": CHOWN | SETUID, "Amb": 0},
    mounts=tuple(MOUNTS.values()),
    reached=tuple(REACHED.values()),
    roots=tuple(ROOTS.values()),
    program=(8, 60),
    limits=CgroupLimits(64 * MIB, 64 * MIB, 500_000_000, 100),
    maskable=("/proc/acpi", "/proc/keys", "/proc/sys", "/sys/firmware"),
)
OWN = (JoinedNetwork("front", own=True),)


def check(
    effective: EffectiveState = EFFECTIVE,
    *,
    expected: ExpectedState = EXPECTED,
    joined: tuple[JoinedNetwork, ...] = OWN,
) -> list[str]:
    """Return the differences, as ``KIND RULE: TEXT``."""
    found = compare_kernel(expected, effective, joined)
    return [f"{each.kind} {each.rule}: {each.text}" for each in found]


def changed(number: int, **more: Any) -> EffectiveState:
    """Return what is effective with one mount otherwise."""
    for name in ("options", "settings"):
        if name in more:
            more[name] = frozenset(more[name])
    mounts = {**MOUNTS, number: replace(MOUNTS[number], **more)}
    return replace(EFFECTIVE, mounts=tuple(mounts.values()))


def lying(number: int, **more: Any) -> EffectiveState:
    """Return what is effective with another object at the root of a mount."""
    roots = {**ROOTS, number: replace(ROOTS[number], **more)}
    return replace(EFFECTIVE, roots=tuple(roots.values()))


def limited(**more: Any) -> EffectiveState:
    return replace(EFFECTIVE, limits=replace(EFFECTIVE.limits, **more))


def test_what_was_admitted_has_no_difference() -> None:
    assert check() == []


@pytest.mark.parametrize("name", ["Inh", "Prm", "Eff", "Bnd", "Amb"])
def test_a_capability_beside_those_admitted_is_a_breach(name: str) -> None:
    held = {**EFFECTIVE.capabilities, name: CHOWN | 1 << 21}
    assert check(replace(EFFECTIVE, capabilities=held)) == [
        f"breach effective.capabilities: Cap{name} has SYS_ADMIN in addition to the admitted ones"
    ]


@pytest.mark.parametrize(
    ("gid", "groups", "told"),
    [
        (1000, (), ""),
        (1000, (1000, 44), ""),
        (44, (), ""),  # setgid(2) among its own
        (0, (), "0"),
        (1000, (6, 1000, 999), "6, 999"),
    ],
)
def test_groups_beside_those_admitted_are_a_breach(
    gid: int, groups: tuple[int, ...], told: str
) -> None:
    bound = replace(EXPECTED.confinement, user="1000:1000", groups=("44",))
    seen = replace(EFFECTIVE, gid=gid, groups=groups)
    text = f"breach effective.groups: it is in the groups {told} in addition to the admitted ones"
    assert check(seen, expected=replace(EXPECTED, confinement=bound)) == ([text] if told else [])
    # Nobody knows those of a name, or of a container that can change them.
    assert check(seen) == []


def test_fewer_capabilities_than_admitted_are_no_difference() -> None:
    assert check(replace(EFFECTIVE, capabilities=dict.fromkeys(EFFECTIVE.capabilities, 0))) == []


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"no_new_privileges": False}, "effective.privileges: its programs can gain privileges"),
        ({"seccomp": 0}, "effective.seccomp: Seccomp is 0, not a filter"),
        ({"seccomp": 1}, "effective.seccomp: Seccomp is 1, not a filter"),
        ({"uid": 0}, "effective.user: it runs as root, which the policy refuses"),
        *(
            ({"shared": (name,)}, f"effective.namespace: it is in the host's {name} namespace")
            for name in (*NAMESPACES, "cgroup")
        ),
        ({"maskable": ("/proc/kcore",)}, "effective.mask: /proc/kcore is open to the container"),
    ],
)
def test_less_confinement_is_a_breach(what: dict[str, Any], told: str) -> None:
    assert check(replace(EFFECTIVE, **what)) == [f"breach {told}"]


def test_what_wasn_t_asked_for_isn_t_expected() -> None:
    """Root, a shared cgroup namespace, a writable root: only a breach where they were excluded."""
    loose = replace(
        EXPECTED.confinement, non_root=False, private_cgroup=False, read_only_root=False
    )
    shown = replace(changed(1, options={"rw"}), uid=0, shared=("cgroup",))
    assert check(shown, expected=replace(EXPECTED, confinement=loose)) == []


def test_an_engine_without_seccomp_leaves_a_doubt() -> None:
    assert check(replace(EFFECTIVE, seccomp=0), expected=replace(EXPECTED, seccomp=False)) == [
        "doubt effective.seccomp: the engine has no seccomp"
    ]


NOT_ADMITTED = "is mounted at {}, which was not admitted"


@pytest.mark.parametrize(
    ("number", "how", "told"),
    [
        (1, {"options": {"rw"}}, "overlay / " + NOT_ADMITTED.format("/")),
        (2, {"filesystem": "ext4"}, "ext4 / " + NOT_ADMITTED.format("/proc")),
        (3, {"filesystem": "devtmpfs"}, "devtmpfs / " + NOT_ADMITTED.format("/dev")),
        (6, {"settings": {"size=1048576k"}}, "tmpfs / " + NOT_ADMITTED.format("/dev/shm")),
        (6, {"settings": {"rw"}}, "tmpfs / " + NOT_ADMITTED.format("/dev/shm")),
        (8, {"options": {"rw"}}, "sysfs / " + NOT_ADMITTED.format("/sys")),
        (
            10,
            {"options": {"rw"}},
            f"cgroup /docker/{ID} " + NOT_ADMITTED.format("/sys/fs/cgroup/cpu"),
        ),
        (11, {"root": "/etc/hosts"}, "ext4 /etc/hosts " + NOT_ADMITTED.format("/etc/hosts")),
        (
            11,
            {"root": "/c/other/hosts"},
            "ext4 /c/other/hosts " + NOT_ADMITTED.format("/etc/hosts"),
        ),
        (14, {"root": "/tmp/evil"}, "ext4 /tmp/evil " + NOT_ADMITTED.format("/sbin/docker-init")),
        (
            14,
            {"options": {"rw"}},
            "ext4 /usr/bin/tini-static " + NOT_ADMITTED.format("/sbin/docker-init"),
        ),
        (20, {"options": {"rw"}}, "/data is writable, and was admitted read-only"),
        (21, {"shared": True}, "mounts of the host show through below /conf"),
        (23, {"root": "/etc"}, "/etc is mounted at /part, not a part of store"),
        (24, {"root": "/etc"}, "/etc is mounted at /cache, not a volume of its own"),
        (25, {"filesystem": "ext4"}, "ext4 / is mounted at /scratch, not a tmpfs of its own"),
        (25, {"options": TMPFS - {"nosuid"}}, "the tmpfs at /scratch isn't nosuid"),
        (25, {"options": TMPFS - {"nodev"}}, "the tmpfs at /scratch isn't nodev"),
        (25, {"options": TMPFS - {"noexec"}}, "the tmpfs at /scratch isn't noexec"),
        (25, {"settings": {"size=2048k"}}, "the tmpfs at /scratch may hold 2Mi, not 1Mi"),
        (25, {"settings": {"rw"}}, "the tmpfs at /scratch may hold any size, not 1Mi"),
    ],
)
def test_another_mount_is_a_breach(number: int, how: dict[str, Any], told: str) -> None:
    assert check(changed(number, **how)) == [f"breach effective.mount: {told}"]


@pytest.mark.parametrize(
    ("number", "how", "path"),
    [
        (15, {"options": {"rw"}}, "/proc/sys"),
        (16, {"options": {"rw"}}, "/proc/acpi"),
        (17, {"root": "/keys", "filesystem": "proc"}, "/proc/keys"),
        (18, {"settings": {"rw"}}, "/sys/firmware"),
    ],
)
def test_a_path_of_the_kernels_that_isn_t_hidden_is_a_breach(
    number: int, how: dict[str, Any], path: str
) -> None:
    told = check(changed(number, **how))
    assert f"breach effective.mask: {path} is open to the container" in told


def test_a_tmpfs_that_was_adopted_without_a_size_has_any_size_and_no_more_rights() -> None:
    confinement = EXPECTED.confinement
    *others, scratch = confinement.mounts
    unbounded = replace(confinement, mounts=(*others, replace(scratch, size=UNLIMITED)))
    expected = replace(EXPECTED, confinement=unbounded)
    assert check(changed(25, settings={"rw"}), expected=expected) == []
    assert check(changed(25, options=TMPFS - {"noexec"}), expected=expected) == [
        "breach effective.mount: the tmpfs at /scratch isn't noexec"
    ]


def test_a_mount_more_is_a_breach() -> None:
    more = (*EFFECTIVE.mounts, mount(30, "/host", root="/"))
    assert check(replace(EFFECTIVE, mounts=more)) == [
        "breach effective.mount: ext4 / is mounted at /host, which was not admitted"
    ]


def test_a_mount_under_an_admitted_one_is_a_breach() -> None:
    """What covers a mount of its own is reached; what lies below it was mounted all the same."""
    more = (*EFFECTIVE.mounts, mount(30, "/data", root="/etc"))
    assert check(replace(EFFECTIVE, mounts=more)) == [
        "breach effective.mount: ext4 /etc is mounted at /data, which was not admitted"
    ]


@pytest.mark.parametrize(
    ("number", "how", "told"),
    [
        (
            20,
            {"inode": 5},
            "/srv/data is mounted at /data, and was replaced on the host since it was admitted",
        ),
        (
            21,
            {"device": 9},
            "/srv/conf is mounted at /conf, and was replaced on the host since it was admitted",
        ),
        (
            22,
            {"inode": 2},
            "/docker/volumes/store/_data is mounted at /store, not the store that was admitted",
        ),
        (
            23,
            {"device": 9},
            "/docker/volumes/store/_data/p is mounted at /part, not a part of store",
        ),
    ],
)
def test_another_object_at_a_target_is_a_breach(
    number: int, how: dict[str, Any], told: str
) -> None:
    assert check(lying(number, **how)) == [f"breach effective.mount: {told}"]


@pytest.mark.parametrize(
    ("how", "is_breach"),
    [
        ({}, False),
        ({"filesystem": "cifs"}, False),
        ({"source": "10.0.0.8:/export"}, True),
        ({"filesystem": "ext4"}, True),
        ({"root": "/etc"}, True),
    ],
)
def test_a_folder_of_another_machine_is_known_by_its_source(
    how: dict[str, Any], is_breach: bool
) -> None:
    told = {"root": "/", "filesystem": "nfs4", "source": "10.0.0.9:/export", **how}
    store = ExpectedMount("volume", "/store", "store", device=8, inode=7, remote="10.0.0.9:/export")
    others = (each for each in FASTENED if each.target != "/store")
    found = check(shown(mount(22, "/store", **told)), expected=admitting(store, *others))
    assert [line.startswith("breach effective.mount") for line in found] == [True] * is_breach


def test_a_source_that_couldn_t_be_looked_at_is_a_doubt() -> None:
    unseen = tuple(replace(each, device=0, inode=0, place="") for each in FASTENED)
    expected = replace(EXPECTED, confinement=replace(EXPECTED.confinement, mounts=unseen))
    assert check(expected=expected) == [
        f"doubt effective.mount: the admitted source of {target} couldn't be inspected"
        for target in ("/data", "/conf", "/store", "/part")
    ]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"memory": UNLIMITED}, "memory have no limit"),
        ({"memory": 300 * MIB, "memory_swap": 300 * MIB}, "300Mi of memory: admitted are 64Mi"),
        ({"memory_swap": UNLIMITED}, "swap has no limit"),
        ({"memory_swap": 65 * MIB}, "1Mi of swap: none is admitted"),
        ({"nano_cpus": UNLIMITED}, "CPUs have no limit"),
        ({"nano_cpus": 3_000_000_000}, "3 of CPUs: admitted are 0.5"),
        ({"pids": UNLIMITED}, "processes have no limit"),
        ({"pids": 201}, "201 of processes: admitted are 100"),
    ],
)
def test_a_limit_beyond_the_policy_is_a_breach(how: dict[str, Any], told: str) -> None:
    assert check(limited(**how)) == [f"breach effective.limit: {told}"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (
            {"memory": 128 * MIB, "memory_swap": 128 * MIB},
            "128Mi of memory: admitted were 64Mi",
        ),
        ({"memory": 32 * MIB, "memory_swap": 32 * MIB}, "32Mi of memory: admitted were 64Mi"),
        ({"nano_cpus": 2_000_000_000}, "2 of CPUs: admitted were 0.5"),
        ({"pids": 200}, "200 of processes: admitted were 100"),
        ({"pids": 1}, "1 of processes: admitted were 100"),
    ],
)
def test_another_limit_within_the_policy_is_drift(how: dict[str, Any], told: str) -> None:
    assert check(limited(**how)) == [f"drift effective.limit: {told}"]


@pytest.mark.parametrize("name", ["memory", "memory_swap", "nano_cpus", "pids"])
def test_a_limit_that_can_t_be_seen_is_a_doubt(name: str) -> None:
    words = {"memory_swap": "swap", "nano_cpus": "CPUs", "pids": "processes"}
    told = f"doubt effective.limit: the limit of {words.get(name, name)} can't be seen"
    assert told in check(limited(**{name: None}))
    assert {line.split()[0] for line in check(limited(**{name: None}))} == {"doubt"}


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("memory", "Memory"),
        ("memory_swap", "MemorySwap"),
        ("nano_cpus", "NanoCpus"),
        ("nano_cpus", "CpuQuota"),
        ("pids", "PidsLimit"),
    ],
)
def test_a_limit_that_the_engine_ignores_with_the_policy_s_leave_is_not_looked_for(
    name: str, member: str
) -> None:
    lenient = replace(EXPECTED, ignored=frozenset({member, "MemorySwap"}))
    for value in (None, UNLIMITED):
        assert check(limited(**{name: value}), expected=lenient) == []
    if name != "memory_swap":
        (found,) = check(limited(**{name: 10**15}), expected=lenient)
        assert found.startswith("breach effective.limit"), "somebody set it"


def test_more_than_the_policy_has_today_is_as_it_was_admitted() -> None:
    """A policy that was tightened since makes no violation of what runs."""
    tight = replace(EXPECTED, bounds=PolicyBounds(memory=MIB, nano_cpus=1, pids=1))
    assert check(expected=tight) == []
    assert check(limited(pids=101), expected=tight) == [
        "breach effective.limit: 101 of processes: admitted are 100"
    ]


def test_numbers_are_compared_as_the_kernel_keeps_them() -> None:
    """Whole pages of memory, whole microseconds of a quota."""
    odd = replace(
        EXPECTED.settings, memory=64 * MIB + 1, memory_swap=64 * MIB + 1, nano_cpus=333_333_333
    )
    shown = limited(nano_cpus=333_330_000)
    assert check(shown, expected=replace(EXPECTED, settings=odd)) == []


def test_a_quota_is_cpus_too() -> None:
    assert Settings("web", cpu_quota=12345, cpu_period=70000).quota_cpus == 176_357_142
    assert Settings("web", cpu_quota=50_000).quota_cpus == 500_000_000
    assert Settings("web", nano_cpus=7).quota_cpus == 7


@pytest.mark.parametrize(
    ("joined", "told"),
    [
        ((*OWN, JoinedNetwork("bridge", own=False)), "breach {}network bridge: not admitted"),
        (
            (JoinedNetwork("front", own=False),),
            "breach {}network front: a foreign one of that name",
        ),
        ((*OWN, JoinedNetwork("back", own=True)), "drift {}network back"),
    ],
)
def test_networks(joined: tuple[JoinedNetwork, ...], told: str) -> None:
    assert check(joined=joined) == [told.format("effective.network: it is in the ")]


def test_a_network_less_is_drift() -> None:
    assert check(joined=()) == ["drift effective.network: it isn't in the network front"]


def test_breaches_are_told_first_and_worded_by_kind() -> None:
    found = compare_kernel(EXPECTED, limited(pids=UNLIMITED, memory_swap=None), ())
    assert [each.kind for each in found] == [
        DifferenceKind.BREACH,
        DifferenceKind.DRIFT,
        DifferenceKind.DOUBT,
    ]
    assert texts_by_kind((*found, KernelDifference("x", "y"))) == {
        DifferenceKind.BREACH: "processes have no limit; y",
        DifferenceKind.DRIFT: "it isn't in the network front",
        DifferenceKind.DOUBT: "the limit of swap can't be seen",
    }


def test_capabilities_are_the_kernels_bits() -> None:
    assert (CAPABILITIES.index("SYS_ADMIN"), CAPABILITIES.index("CHECKPOINT_RESTORE")) == (21, 40)
    assert names_of(mask_of(("SETUID", "CHOWN"))) == ["CHOWN", "SETUID"]
    assert names_of(1 << 60) == ["60"]
    assert mask_of(("UNHEARD_OF",)) == 0


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size=8"}, 8),
        ({"size=8k"}, 8192),
        ({"size=8m"}, 8 * MIB),
        ({"size=1g"}, 1024 * MIB),
        ({"size=5%"}, None),
        ({"rw", "mode=755"}, None),
    ],
)
def test_the_size_of_a_tmpfs(settings: set[str], size: int | None) -> None:
    assert size_of(mount(1, "/x", settings=settings)) == size


# Links and names inside the container: `effective_mounts`.


def shown(
    *mounts: MountinfoLine, reached: dict[str, int] | None = None, **more: Any
) -> EffectiveState:
    """Return what is effective with other mounts, and with targets that lead elsewhere."""
    changed_mounts = {**MOUNTS, **{each.id: each for each in mounts}}
    led = {**{each.target: each.mount for each in REACHED.values()}, **(reached or {})}
    return replace(
        EFFECTIVE,
        mounts=tuple(changed_mounts.values()),
        reached=tuple(MountPath(target, number) for target, number in led.items()),
        **more,
    )


def without_root(*numbers: int) -> tuple[Root, ...]:
    return tuple(root for root in EFFECTIVE.roots if root.mount not in numbers)


def admitting(*fastenings: ExpectedMount) -> ExpectedState:
    return replace(EXPECTED, confinement=replace(EXPECTED.confinement, mounts=fastenings))


@pytest.mark.parametrize(
    ("number", "point"),
    [
        (11, "/run/hosts"),
        (12, "/usr/share/nodename"),
        (13, "/opt/resolver/resolv.conf"),
        (14, "/usr/sbin/docker-init"),
        (14, "/moved/docker-init"),
    ],
)
def test_what_the_engine_mounts_is_known_wherever_links_led(number: int, point: str) -> None:
    assert check(changed(number, point=point)) == []


def test_a_sidecar_has_the_files_of_the_network_that_it_shares_and_of_no_other() -> None:
    other = "c3" * 32
    shared = replace(EXPECTED, confinement=replace(EXPECTED.confinement, network_of=other))
    files = {11: "hosts", 12: "hostname", 13: "resolv.conf"}
    moved = [
        replace(MOUNTS[number], root=f"/docker/containers/{other}/{name}")
        for number, name in files.items()
    ]
    assert check(shown(*moved), expected=shared) == []
    assert len(check(shown(*moved))) == 3
    assert len(check(shown(), expected=shared)) == 3


@pytest.mark.parametrize("leads_to", [1, 2, 14, 20, -1])
def test_a_container_that_leads_its_targets_elsewhere_is_as_it_was_admitted(leads_to: int) -> None:
    """It replaced a link, or moved the folder above: the mounts are those that were admitted."""
    moved = [
        replace(MOUNTS[number], point=f"/moved{MOUNTS[number].point}") for number in range(20, 26)
    ]
    assert check(shown(*moved, reached=dict.fromkeys(REACHED, leads_to))) == []


def test_the_same_place_twice_is_as_it_was_admitted_in_either_order() -> None:
    """/run and /var/run: one tmpfs covers the other, and each target leads to the upper one."""
    for under, over in ((MIB, 2 * MIB), (2 * MIB, MIB)):
        mounts = [
            mount(n, "/run", filesystem="tmpfs", options=TMPFS, settings={f"size={size // 1024}k"})
            for n, size in ((25, under), (26, over))
        ]
        expected = admitting(
            *FASTENED[:5],
            ExpectedMount("tmpfs", "/run", size=under),
            ExpectedMount("tmpfs", "/var/run", size=over),
        )
        there = shown(*mounts, reached={"/run": 26, "/var/run": 26})
        assert check(there, expected=expected) == []


@pytest.mark.parametrize("order", [(25, 26), (26, 25)])
def test_a_tmpfs_with_programs_takes_no_other_ones_place(order: tuple[int, int]) -> None:
    """The container moved the folder above both, so that neither target leads anywhere."""
    options = {25: TMPFS, 26: TMPFS - {"noexec"}}
    mounts = [
        mount(n, f"/moved/{n}", filesystem="tmpfs", options=options[n], settings={"size=1024k"})
        for n in order
    ]
    expected = admitting(
        *FASTENED[:5],
        ExpectedMount("tmpfs", "/run/x", size=MIB, executable=True),
        ExpectedMount("tmpfs", "/run/y", size=MIB),
    )
    there = shown(*mounts, reached={"/run/x": -1, "/run/y": -1})
    assert check(there, expected=expected) == []


def test_a_volume_that_another_mount_covers_is_a_doubt() -> None:
    """Nothing reaches it, and nothing can be opened there."""
    over = mount(30, "/srv", filesystem="tmpfs", options=TMPFS, settings={"size=8k"}, parent=1)
    covered = replace(MOUNTS[22], point="/srv/store", parent=1)
    expected = admitting(*FASTENED, ExpectedMount("tmpfs", "/srv", size=MIB))
    there = shown(covered, over, reached={"/store": -1, "/srv": 30}, roots=without_root(22))
    assert check(there, expected=expected) == [
        "doubt effective.mount: the mount for /store can't be looked at: another mount covers it"
    ]


def test_a_source_whose_filesystem_does_not_answer_is_a_doubt_and_no_breach() -> None:
    """A server that is down ends nobody; the other mounts are compared all the same."""
    silent = replace(EFFECTIVE, roots=(*without_root(22), Root(22, 0, 0, "unreadable")))
    doubt = "the mount for /store can't be looked at: its filesystem doesn't answer"
    assert check(silent) == [f"doubt effective.mount: {doubt}"]
    elsewhere = replace(changed(22, root="/etc"), roots=silent.roots)
    assert check(elsewhere) == [
        "breach effective.mount: /etc is mounted at /store, not the store that was admitted"
    ]


def test_a_mount_that_only_the_container_hides_is_a_breach() -> None:
    """It moves the folders above all the time: what lies there can't be compared."""
    there = shown(reached={"/store": -1}, roots=without_root(22))
    what = "ext4 /docker/volumes/store/_data " + NOT_ADMITTED.format("/store")
    assert check(there) == [
        f"breach effective.mount: {what}",
        "doubt effective.mount: nothing is mounted for /store",
    ]


def test_what_is_not_there_at_all_is_a_doubt() -> None:
    gone = replace(EFFECTIVE, mounts=tuple(m for n, m in MOUNTS.items() if n != 20))
    assert check(gone) == ["doubt effective.mount: nothing is mounted for /data"]


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (30, {"point": "/sbin/docker-init"}),
        (30, {"point": "/usr/sbin/docker-init"}),
        (14, {"program": (8, 61)}),
        (14, {"root": Root(14, 8, 60, "dir")}),
        (14, {"root": None}),
    ],
)
def test_only_what_the_process_executes_is_the_engines_init(
    number: int, how: dict[str, Any]
) -> None:
    """Another file or folder of that name is none, also in the place of the init."""
    root = how.get("root", Root(number, 8, 60 if number == 14 else 62, "file"))
    roots = (*without_root(number), *((root,) if root else ()))
    point = how.get("point", MOUNTS[14].point)
    there = shown(
        mount(number, point, root="/srv/secret/tini", options={"ro"}),
        roots=roots,
        program=how.get("program", EFFECTIVE.program),
    )
    what = "ext4 /srv/secret/tini " + NOT_ADMITTED.format(point)
    assert check(there) == [f"breach effective.mount: {what}"]


def test_a_swapped_program_is_not_the_engines_init_at_the_target_of_another_mount() -> None:
    """It is called as an init, and the container executes it."""
    there = shown(
        replace(MOUNTS[20], root="/home/bob/tini"),
        roots=(*without_root(14, 20), Root(20, 8, 60, "file")),
    )
    told = check(there)
    assert (
        "breach effective.mount: /home/bob/tini is mounted at /data, "
        "not the /srv/data that was admitted"
    ) in told


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"device": "0:24"}, "tmpfs / is mounted at /scratch, not a tmpfs of its own"),
        ({"root": "/user/1000"}, "tmpfs /user/1000 is mounted at /scratch, not a tmpfs of its own"),
    ],
)
def test_a_tmpfs_of_the_hosts_is_not_the_one_that_was_admitted(
    how: dict[str, Any], told: str
) -> None:
    there = replace(changed(25, **how), host_tmpfs=frozenset({"0:24"}))
    assert check(there) == [f"breach effective.mount: {told}"]


def test_one_source_twice_is_told_apart_by_what_each_may() -> None:
    """Read-only at one target, writable at the other: links that swap them change nothing."""
    writable = ExpectedMount("bind", "/edit", "/srv/data", device=8, inode=70, place="/srv/data")
    expected = admitting(*FASTENED, writable)
    more = mount(26, "/edit", root="/srv/data")
    roots = (*EFFECTIVE.roots, Root(26, 8, 70))
    there = shown(more, reached={"/edit": 20, "/data": 26}, roots=roots)
    assert check(there, expected=expected) == []
    both = shown(more, replace(MOUNTS[20], options=frozenset({"rw"})), roots=roots)
    both = replace(both, reached=(*both.reached, MountPath("/edit", 26)))
    assert check(both, expected=expected) == [
        "breach effective.mount: /data is writable, and was admitted read-only"
    ]


@pytest.mark.parametrize(
    ("number", "point", "device", "good"),
    [
        (26, "/dev/null", (1, 3), True),
        (26, "/dev/urandom", (1, 9), True),
        (26, "/dev/null", (8, 0), False),
        (26, "/dev/sda", (8, 0), False),
        (26, "/data/null", (1, 3), False),
    ],
)
def test_devices_that_a_runtime_mounts_are_known_by_their_numbers(
    number: int, point: str, device: tuple[int, int], good: bool
) -> None:
    """In a user namespace no device can be made."""
    more = mount(number, point, root="/x", filesystem="devtmpfs")
    root = Root(number, 5, 9, "character", os.makedev(*device))
    there = shown(more, roots=(*EFFECTIVE.roots, root))
    assert (check(there) == []) is good


@pytest.mark.parametrize(
    ("root", "host_root", "good"),
    [
        (f"/docker/{ID}", False, True),
        (f"/docker/{ID}", True, False),
        ("/docker/" + "b2" * 32, False, False),
        ("/", False, False),
    ],
)
def test_a_writable_cgroup_is_closed_only_to_users_of_its_own(
    root: str, host_root: bool, good: bool
) -> None:
    """In a user namespace a runtime can't mount it read-only; it belongs to the host's root."""
    there = replace(changed(10, root=root, options={"rw"}), host_root=host_root)
    assert (check(there) == []) is good
