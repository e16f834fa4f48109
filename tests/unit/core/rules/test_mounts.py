"""What of the host, and which volumes, a container may see."""

from dataclasses import replace
from functools import partial

import pytest

from controller.core.admission.create import admit_create
from controller.core.rules.context import HostFacts, VolumeFacts
from controller.model.delivery import FileSet, StoredContent, StoredFiles
from controller.model.host_paths import DIRECTORY, ENGINE_DATA, PathFacts, StickyParent
from tests.unit.core.creates import (
    CLIENT,
    FACTS,
    OPERATOR,
    STRICT,
    VOLUMES,
    denials,
    host_of,
    judged,
    judged_for_controller,
    looked_at,
    policy,
)

SOURCE = "/var/lib/platform/x"
EVERYTHING = policy(mounts={"forbidden": [], "allowed": ["/"]})


def bind(source, *, target="/m", rules=STRICT, facts=None, read_only=True, **changes):
    """Return what denies a bind of *source*, whose facts are plain but for *changes*."""
    mount = {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
    found = facts if facts is not None else looked_at(source, **changes)
    return denials(judged(host={"Mounts": [mount]}, rules=rules, facts=found))


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        (SOURCE, ()),
        ("/tmp/x", ()),
        ("/tmp/a..b", ()),
        # With its slash the prefix is what lies below.
        ("/tmp", ("mount.not-allowed",)),
        ("/var/lib/platform", ("mount.not-allowed",)),
        ("/var/lib/platformevil/x", ("mount.not-allowed",)),
        ("/srv", ("mount.not-allowed",)),
        ("/etc", ("mount.forbidden",)),  # it contains what is forbidden
        ("/etc/shadow", ("mount.forbidden",)),
        ("/etc/shadow2", ("mount.not-allowed",)),
        ("/root", ("mount.forbidden",)),
        ("/root/.ssh", ("mount.forbidden",)),
        ("/home/u", ("mount.forbidden",)),
        ("/rooted", ("mount.not-allowed",)),
    ],
)
def test_sources_are_compared_by_whole_components(source, rules):
    assert bind(source) == rules


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/proc",
        "/proc/1/root",
        "/sys",
        "/dev/sda",
        "/run",
        "/var",
        "/var/run",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/var/lib",
        "/var/lib/docker",
        "/var/lib/docker/containers",
        "/var/lib/docker/volumes/../containers".replace("/volumes/..", ""),
        "/var/lib/containerd",
        "/var/lib/trimtab/broker",
        "/tmp/docker.sock",
        "/tmp/state/run/broker.sock",
        "/tmp/state/run/broker-operator.sock",
        "/tmp/state/run/broker-controller.sock",
    ],
)
def test_some_sources_no_policy_allows(source):
    assert bind(source) == ("mount.never",)
    assert bind(source, rules=EVERYTHING) == ("mount.never",)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("symlink", "mount.symlink"),
        ("missing", "mount.missing"),
        ("socket", "mount.socket"),
        ("other", "mount.kind"),
        ("unreadable", "mount.unreadable"),
        ("other-view", "mount.other-view"),
    ],
)
def test_a_source_is_a_folder_or_a_file_that_is_there(kind, rule):
    assert bind(SOURCE, kind=kind) == (rule,)
    assert bind(SOURCE, kind=kind, rules=EVERYTHING) == (rule,)
    assert bind(SOURCE, kind="file") == ()


def test_a_source_that_nobody_looked_at_is_refused():
    assert bind(SOURCE, facts=FACTS) == ("mount.unreadable",)


@pytest.mark.parametrize("protected", ["state folder", "policy", ENGINE_DATA])
def test_the_brokers_own_paths_are_refused_under_every_policy(protected):
    assert bind(SOURCE, protected=protected) == ("mount.never",)
    assert bind(SOURCE, protected=protected, rules=EVERYTHING) == ("mount.never",)


def test_a_source_that_another_user_can_swap_is_refused():
    assert bind(SOURCE, parents_writable_by_others="/var/lib/platform") == ("mount.parent",)
    assert bind(SOURCE, parent_owners=(1001,)) == ("mount.parent",)
    alice = policy(owners=[{"name": "alice", "uids": [1001]}])
    assert bind(SOURCE, parent_owners=(1001,), rules=alice) == ()
    assert bind(SOURCE, parent_owners=(1001, 1002), rules=alice) == ("mount.parent",)
    writable = {"parents_writable_by_others": "/var/lib/platform"}
    assert bind(SOURCE, **writable, rules=alice) == ("mount.parent",)


@pytest.mark.parametrize(
    ("uid", "mode", "rules"),
    [
        (0, 0o755, ()),
        (0, 0o777, ("mount.parent",)),
        (0, 0o775, ("mount.parent",)),
        (1001, 0o755, ()),
        (1001, 0o757, ("mount.parent",)),
        (1002, 0o755, ("mount.parent",)),
    ],
)
def test_a_sticky_parent_does_no_harm_when_what_is_below_cant_be_replaced(uid, mode, rules):
    alice = policy(owners=[{"name": "alice", "uids": [1001]}])
    sticky = (StickyParent("/tmp", uid, mode),)
    assert bind("/tmp/x", sticky_parents=sticky, rules=alice) == rules


def test_a_folder_of_the_callers_own_is_refused_with_the_line_that_admits_it():
    """Nobody else can swap it, but the caller can: by a link, before the engine mounts the folder."""
    mount = {"Type": "bind", "Source": "/tmp/x", "Target": "/m"}
    own, other = (
        looked_at("/tmp/x", sticky_parents=(StickyParent("/tmp", uid, 0o700),))
        for uid in (1000, 1003)
    )
    (finding,) = judged(host={"Mounts": [mount]}, facts=own).findings
    assert (finding.rule, finding.reason) == (
        "mount.parent",
        "uid 1000 could put a link in the place of /tmp/x before the engine mounts it",
    )
    assert finding.remedy.startswith("use a volume, or let root list /tmp/x in mounts.projects")
    (finding,) = judged(host={"Mounts": [mount]}, facts=other).findings
    assert finding.remedy.startswith("let root own the folders above it")
    listed = policy(mounts={"projects": [{"path": "/tmp/x", "uid": 1000}]})
    assert (
        denials(judged({"User": "1000:1000"}, host={"Mounts": [mount]}, rules=listed, facts=own))
        == ()
    )


def test_an_owners_sources_stand_instead_of_the_policys():
    alice = policy(owners=[{"name": "alice", "sources": ["/srv/alice/", "/home/alice"]}])
    assert bind("/srv/alice/x", rules=alice) == ()
    assert bind(SOURCE, rules=alice) == ("mount.not-allowed",)
    # What is forbidden stays so.
    assert bind("/home/alice", rules=alice) == ("mount.forbidden",)


def test_below_the_volumes_root_a_path_is_judged_as_a_mount_of_that_volume():
    root = "/var/lib/docker/volumes"
    own, bobs = f"{root}/alice-data/_data", f"{root}/bob-data/_data"
    data = {"protected": ENGINE_DATA, "parents_writable_by_others": "/var/lib/docker"}
    assert bind(own, facts=looked_at(own, **data)) == ()
    assert bind(bobs, facts=looked_at(bobs, **data)) == ("volume.foreign",)
    assert bind(f"{root}/plain/_data") == ("volume.foreign",)
    assert bind(f"{root}/none/_data") == ("volume.missing",)
    assert bind(f"{root}/root/_data") == ("volume.foreign", "volume.options")
    assert bind(own, facts=looked_at(own, protected="state folder")) == ("mount.never",)
    assert bind(own, facts=looked_at(own, kind="symlink")) == ("mount.symlink",)
    for not_data in (root, f"{root}/metadata.db", f"{root}/alice-data", f"{root}/alice-data/x"):
        assert bind(not_data) == ("mount.forbidden",)


@pytest.mark.parametrize("actor", [CLIENT, OPERATOR])
@pytest.mark.parametrize("access", ["ro", "rw"])
def test_no_part_of_a_volume_is_mounted_by_its_path(actor, access):
    # A container with the volume turns the folder into a link to /etc between the look and the start.
    part = "/var/lib/docker/volumes/alice-data/_data/sub"
    facts = looked_at(part, protected=ENGINE_DATA)
    binds = {"Binds": [f"{part}:/x:{access}"]}
    assert denials(judged(host=binds, actor=actor, facts=facts)) == ("mount.parent",)
    options = {"VolumeOptions": {"Subpath": "sub"}}
    mount = {"Type": "volume", "Source": "alice-data", "Target": "/x", **options}
    assert denials(judged(host={"Mounts": [mount]}, actor=actor, facts=facts)) == ()


def test_the_volumes_root_is_the_engines_own():
    elsewhere = "/data/docker/volumes/alice-data/_data"
    facts = looked_at(elsewhere, protected=ENGINE_DATA)
    host = HostFacts(cpus=8, volumes_root="/data/docker/volumes")
    assert bind(elsewhere, facts=facts) == ("mount.not-allowed",)
    assert bind(elsewhere, facts=replace(facts, host=host)) == ()
    # The usual place is then another engine's: none of our volumes.
    usual = "/var/lib/docker/volumes/alice-data/_data"
    assert bind(usual, facts=replace(looked_at(usual), host=host)) == ("mount.never",)


@pytest.mark.parametrize("kind", ["dir", "file"])
def test_what_an_application_has_below_etc_may_be_mounted(kind):
    for target in ("/etc/app", "/etc/nginx/nginx.conf", "/etc/my.cnf", "/etc/letsencrypt"):
        assert bind(SOURCE, target=target, kind=kind) == ()
        assert bind(SOURCE, target=target, kind=kind, read_only=False) == ()
        assert volume("alice-data", target=target) == ()
        assert denials(judged(host={"Tmpfs": {target: "size=1m"}})) == ()


@pytest.mark.parametrize(
    "target",
    [
        *("/etc/ssl", "/etc/ssl/certs", "/etc/ca-certificates.conf", "/etc/ssh/sshd_config"),
        *("/etc/apt", "/etc/apk/repositories", "/etc/default/x", "/etc/python3.11", "/etc/perl"),
        *("/etc/localtime", "/etc/timezone", "/etc/os-release", "/etc/services", "/etc/host.conf"),
    ],
)
def test_what_the_system_of_an_image_reads_below_etc_is_covered_read_only(target):
    assert bind(SOURCE, target=target, kind="file") == ()
    assert bind(SOURCE, target=target, kind="file", read_only=False) == ("mount.target",)
    assert volume("alice-data", target=target) == ("mount.target",)


@pytest.mark.parametrize(
    "target",
    [
        "/etc",
        *("/etc/passwd", "/etc/passwd-", "/etc/shadow", "/etc/group", "/etc/subuid"),
        *("/etc/sudoers", "/etc/sudoers.d/app", "/etc/sudo.conf", "/etc/doas.conf"),
        *("/etc/pam.d", "/etc/pam.d/su", "/etc/pam.conf", "/etc/security/limits.conf"),
        *("/etc/nsswitch.conf", "/etc/login.defs", "/etc/hosts.equiv", "/etc/hosts.allow"),
        "/etc/ld-musl-x86_64.path",  # of Alpine
        *("/etc/ld.so.preload", "/etc/ld.so.conf.d/app.conf", "/etc/alternatives/awk"),
        *("/etc/profile", "/etc/profile.d/app.sh", "/etc/bash.bashrc", "/etc/environment"),
        *("/etc/init.d/app", "/etc/inittab", "/etc/rc.local", "/etc/rc2.d", "/etc/systemd/system"),
        *("/etc/crontab", "/etc/cron.d/app", "/etc/anacrontab"),
        *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab"),
    ],
)
def test_what_decides_over_rights_code_and_names_is_not_covered(target):
    assert bind(SOURCE, target=target, kind="file") == ("mount.target",)
    assert volume("alice-data", target=target) == ("mount.target",)


@pytest.mark.parametrize("path", ["/etc/localtime", "/etc/timezone"])
def test_the_time_zone_of_the_host_may_be_mounted_read_only(path):
    def zone(**changes):
        return bind(path, **{"target": path, "kind": "file", **changes})

    assert zone() == ()
    assert zone(target="/usr/share/zoneinfo/Etc/UTC") == ()
    assert zone(rules=policy(mounts={"forbidden": ["/etc"]})) == ("mount.forbidden",)
    assert zone(target="/zone", read_only=False) == ("mount.not-allowed",)
    assert zone(kind="symlink") == ("mount.symlink",)
    assert zone(parents_writable_by_others="/usr/share") == ("mount.parent",)
    assert bind(f"{path}.old", target="/x", kind="file") == ("mount.not-allowed",)


DIR = "/home/me/stacks"
HOME = policy(mounts={"directory": {"uid": 1000}}).with_directory(DIR)
IN_DIR = {"protected": DIRECTORY, "in_directory": True, "parent_owners": (1000,)}


def folder(
    source=f"{DIR}/shop/data", *, read_only=False, rules=HOME, actor="controller", **changes
):
    mount = {"Type": "bind", "Source": source, "Target": "/m", "ReadOnly": read_only}
    judge = judged_for_controller if actor == "controller" else partial(judged, actor=actor)
    return judge(
        host={"Mounts": [mount]}, rules=rules, facts=looked_at(source, **{**IN_DIR, **changes})
    )


def test_a_document_mounts_a_folder_of_the_directory_where_the_policy_says_so():
    assert denials(folder()) == ()
    assert denials(folder(read_only=True)) == ()
    without = policy().with_directory(DIR)
    assert denials(folder(rules=without)) == ("mount.directory",)
    assert denials(folder(rules=policy(mounts={"allowed": ["/home"], "forbidden": []}))) == (
        "mount.never",
    )
    # Before anything is looked at: the preview of a plan says the same.
    mount = {"Type": "bind", "Source": f"{DIR}/shop/data", "Target": "/m"}
    for rules, refused in ((HOME, ()), (without, ("mount.directory",))):
        shown = judged_for_controller(host={"Mounts": [mount]}, rules=rules, facts=None)
        assert denials(shown) == refused
    listed = policy(mounts={"projects": [{"path": DIR, "uid": 1000}]})
    assert denials(folder(rules=listed)) == ()
    assert denials(folder(rules=listed.with_directory(DIR))) == ()


def test_the_folders_of_the_directory_are_closed_to_clients_and_operators():
    listed = policy(mounts={"projects": [{"path": DIR, "uid": 1000}], "directory": {}})
    for actor in (CLIENT, OPERATOR):
        assert "mount.never" in denials(folder(rules=listed.with_directory(DIR), actor=actor))
        assert denials(folder(actor=actor)) == ("mount.forbidden",)


def test_no_container_writes_beside_what_is_declared():
    for holds in ("compose.yaml", ".git"):
        assert denials(folder(declares=holds)) == ("mount.directory",)
        assert denials(folder(declares=holds, read_only=True)) == ()
    assert denials(folder(kind="file")) == ("mount.directory",)
    assert denials(folder(kind="file", read_only=True)) == ()
    assert denials(folder(f"{DIR}/.git/hooks")) == ("mount.never",)
    # The directory itself, or a folder with the state folder in it.
    assert denials(folder(DIR, in_directory=False)) == ("mount.never",)
    assert denials(folder(f"{DIR}/shop", in_directory=False, protected="state folder")) == (
        "mount.never",
    )


def test_only_the_user_whom_the_policy_names_may_own_folders_above_a_folder_of_the_directory():
    assert denials(folder(parent_owners=(999,))) == ("mount.parent",)
    assert denials(folder(parents_writable_by_others=DIR)) == ("mount.parent",)
    roots = policy(mounts={"directory": {}}).with_directory(DIR)
    assert denials(folder(rules=roots)) == ("mount.parent",)


def test_a_missing_folder_is_made_for_the_user_whom_the_policy_names():
    missing = {"kind": "missing"}
    assert folder(**missing).folders == ((f"{DIR}/shop/data", 1000),)
    assert denials(folder(**missing)) == ()
    assert folder().folders == ()
    elsewhere = policy(mounts={"projects": [{"path": "/opt/shop", "uid": 7}]})
    own = {"in_directory": False, "protected": "", "parent_owners": (7,), **missing}
    assert folder("/opt/shop/x/y", rules=elsewhere, **own).folders == (("/opt/shop/x/y", 7),)
    # A typing error, a disk that isn't mounted, or nobody whose folder it would be.
    assert denials(folder(read_only=True, **missing)) == ("mount.missing",)
    assert denials(folder("/opt/shop/x", rules=elsewhere, actor=OPERATOR, **own)) == (
        "mount.missing",
    )
    assert denials(folder("/tmp/x", **own)) == ("mount.missing",)
    assert denials(folder(parents_writable_by_others="/tmp", **missing)) == ("mount.parent",)


def test_the_point_of_a_mount_in_a_read_only_folder_is_made():
    app = f"{DIR}/shop"

    def made(*others, read_only=True, **changes):
        outer = {"Type": "bind", "Source": app, "Target": "/app", "ReadOnly": read_only}
        inner = [{"Type": "volume", "Source": "alice-data", "Target": each} for each in others]
        facts = looked_at(app, **{**IN_DIR, "declares": "compose.yaml" if read_only else ""})
        paths = {
            f"{app}{each.removeprefix('/app')}": PathFacts(
                f"{app}{each.removeprefix('/app')}", **{"kind": "missing", **IN_DIR, **changes}
            )
            for each in others
        }
        judged_create = judged_for_controller(
            host={"Mounts": [outer, *inner]},
            rules=HOME,
            facts=replace(facts, paths={**facts.paths, **paths}),
        )
        assert denials(judged_create) == ()
        return judged_create.folders

    assert made("/app/node_modules") == ((f"{app}/node_modules", 1000),)
    assert made("/app/a/b") == ((f"{app}/a/b", 1000),)
    assert made("/app/node_modules", kind="dir") == ()
    assert made("/application") == ()
    assert made("/app/x", read_only=False) == ()  # the engine makes it
    assert made("/app/x", parent_owners=(7,)) == ()
    assert made("/app/x", in_directory=False, protected="state folder") == ()


def test_a_writable_bind_is_a_warning():
    mount = {"Type": "bind", "Source": SOURCE, "Target": "/m"}
    admission = judged(host={"Mounts": [mount]}, facts=looked_at(SOURCE))
    assert denials(admission) == ()
    assert admission.warnings == (f"{SOURCE} is mounted writable: read-only is safer",)
    quiet = judged(host={"Mounts": [{**mount, "ReadOnly": True}]}, facts=looked_at(SOURCE))
    assert quiet.warnings == ()


def volume(name, *, target="/m", **changes):
    mount = {"Type": "volume", "Source": name, "Target": target}
    return denials(judged(host={"Mounts": [mount]}, **changes))


def test_volumes_are_the_owners_own_and_plain():
    assert volume("alice-data") == ()
    assert volume("bob-data") == ("volume.foreign",)
    assert volume("bob-data", actor=OPERATOR) == ()
    assert volume("plain") == ("volume.foreign",)
    assert volume("root") == ("volume.foreign", "volume.options")
    assert volume("fresh") == ("volume.missing",)


def test_a_volume_of_ours_with_options_is_refused_all_the_same():
    odd = VolumeFacts("odd", ours=True, owner="alice", options=(("type", "tmpfs"),))
    driver = VolumeFacts("driver", ours=True, owner="alice", driver="nfs")
    facts = replace(FACTS, volumes={"odd": odd, "driver": driver})
    assert volume("odd", facts=facts) == ("volume.options",)
    assert volume("driver", facts=facts) == ("volume.options",)


def test_the_controllers_volumes_are_the_namespaces():
    def named(name, rules=STRICT, facts=FACTS):
        mount = {"Type": "volume", "Source": name, "Target": "/m"}
        return denials(judged_for_controller(host={"Mounts": [mount]}, rules=rules, facts=facts))

    assert named("alice-data") == ()
    assert named("bob-data") == ("volume.foreign",)
    shared = VolumeFacts("shared", ours=True, owner="bob", namespace="default")
    facts = replace(FACTS, volumes={"shared": shared})
    assert named("shared", facts=facts) == ()
    # Where owners are listed, they may share a namespace and not their data.
    listed = policy(owners=[{"name": "alice"}, {"name": "bob"}])
    assert named("shared", facts=facts, rules=listed) == ("volume.foreign",)


def test_memory_filesystems_are_bounded():
    mount = {"Type": "tmpfs", "Target": "/m"}
    admission = judged(host={"Mounts": [mount], "Tmpfs": {"/n": "", "/o": "size=1m,ro"}})
    assert host_of(admission)["Mounts"] == [
        {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 64 * 1024**2}}
    ]
    assert host_of(admission)["Tmpfs"] == {
        "/n": "rw,nosuid,nodev,noexec,size=67108864",
        "/o": "ro,nosuid,nodev,noexec,size=1048576",
    }
    huge = {**mount, "TmpfsOptions": {"SizeBytes": 2**40}}
    assert denials(judged(host={"Mounts": [huge]})) == ("mount.tmpfs",)
    assert denials(judged(host={"Tmpfs": {"/n": "size=1g"}})) == ("mount.tmpfs",)
    negative = {**mount, "TmpfsOptions": {"SizeBytes": -1}}
    assert denials(judged(host={"Mounts": [negative]})) == ("mount.tmpfs",)


def test_mounts_keep_the_form_in_which_they_were_asked_for():
    host = {
        "Binds": [f"{SOURCE}:/a:ro", "alice-data:/b", "alice-data:/e:rw"],
        "Mounts": [
            {
                "Type": "bind",
                "Source": SOURCE,
                "Target": "/c",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate"},
            },
            {
                "Type": "volume",
                "Source": "alice-data",
                "Target": "/d",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Subpath": "x",
                    "DriverConfig": {"Name": "local"},
                },
            },
        ],
    }
    rebuilt = host_of(judged(host=host, facts=looked_at(SOURCE)))
    assert {key: rebuilt[key] for key in host} == host


def test_there_are_only_so_many_mounts():
    many = {f"/m{n}": "" for n in range(65)}
    assert denials(judged(host={"Tmpfs": many})) == ("mount.count",)


def test_a_preview_judges_by_names_alone():
    mounts = [
        {"Type": "bind", "Source": SOURCE, "Target": "/a"},
        {"Type": "volume", "Source": "fresh", "Target": "/b"},
    ]
    assert denials(judged(host={"Mounts": mounts}, facts=None)) == ()
    never = {"Type": "bind", "Source": "/run/docker.sock", "Target": "/a"}
    assert denials(judged(host={"Mounts": [never]}, facts=None)) == ("mount.never",)
    assert VOLUMES["alice-data"].ours
    assert admit_create.__doc__
    assert PathFacts("/x", "dir").protected == ""


@pytest.mark.parametrize(
    ("shown_last", "stable", "rules"),
    [("alice", True, ()), ("bob", False, ()), ("bob", True, ("files.foreign",))],
)
def test_a_folder_that_stays_shows_no_content_of_another_owner(
    shown_last: str, stable: bool, rules: tuple[str, ...]
) -> None:
    """The content that the create names is alice's, and the folder shows the last one."""
    named, last = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    site = FileSet("config", "default", "site")
    stored = StoredFiles(site, (StoredContent(named, "alice"), StoredContent(last, shown_last)))
    facts = replace(FACTS, files={str(site): stored})
    mount = {
        "Type": "config",
        "Source": "site",
        "Target": "/srv/site",
        "ReadOnly": True,
        "Trimtab": {"Content": named, "Stable": stable},
    }
    assert denials(judged_for_controller(host={"Mounts": [mount]}, facts=facts)) == rules
