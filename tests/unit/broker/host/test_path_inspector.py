"""The facts of a bind source, without following links, and the protected places it touches."""

import ctypes
import errno
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.broker.host import path_inspector
from controller.broker.host.path_inspector import PathInspector, ProtectedPlace, protected_places
from controller.model.host_paths import DIRECTORY, ENGINE_DATA, PathFacts, StickyParent


def look(path: Path | str, *places: ProtectedPlace, own_uid: int | None = None) -> PathFacts:
    uid = os.geteuid() if own_uid is None else own_uid
    (facts,) = PathInspector(tuple(places), own_uid=uid).inspect((str(path),))
    return facts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder without a link in its path, closed to others."""
    folder = tmp_path.resolve()
    folder.chmod(0o755)
    return folder


def test_a_path_is_classified_without_following_links(root: Path) -> None:
    (root / "file").write_text("")
    (root / "dir" / "below").mkdir(parents=True)
    (root / "link").symlink_to(root / "dir")
    (root / "loop").symlink_to(root / "loop")
    (root / "nowhere").symlink_to(root / "missing")
    os.mkfifo(root / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "s"))
    listener.close()
    paths = {
        "dir": "dir",
        "dir/below": "dir",
        "file": "file",
        "s": "socket",
        "pipe": "other",
        "link": "symlink",
        "link/below": "symlink",
        "link/missing": "symlink",
        "loop": "symlink",
        "nowhere": "symlink",
        "missing": "missing",
        "missing/below": "missing",
        "file/below": "missing",
    }
    assert {name: look(root / name).kind for name in paths} == paths
    assert look("/proc/self/cwd").kind == "symlink"
    assert look("/proc/self/root/etc").kind == "symlink"
    assert look("/").kind == "dir"


def mount_point(path: Path) -> str:
    while not path.is_mount():
        path = path.parent
    return str(path).rstrip("/")


def test_the_facts_are_those_of_the_object(root: Path) -> None:
    path = root / "file"
    path.write_text("")
    path.chmod(0o4751)
    status = path.stat()
    assert look(path) == PathFacts(
        path=str(path),
        kind="file",
        device=status.st_dev,
        inode=status.st_ino,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=0o4751,
        sticky_parents=look(root).sticky_parents,
        parent_owners=look(root).parent_owners,
        place=look(path).place,
    )
    assert look(path).place.endswith(str(path).removeprefix(mount_point(path)))


@pytest.mark.parametrize(
    "path",
    ["", "etc", "/etc/", "/tmp/../etc", "/./etc", "//etc", "/tmp//x", "/a\0b", "/" + "a" * 4096],
)
def test_a_path_that_isn_t_plain_is_unreadable(path: str) -> None:
    assert look(path) == PathFacts(path, "unreadable")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EIO])
def test_what_the_kernel_won_t_open_is_unreadable(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Also without openat2 (ENOSYS), or if a container's seccomp profile denies it (EPERM)."""

    class Refusing:
        def syscall(self, *_arguments: object) -> int:
            ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(path_inspector, "_libc", Refusing())
    assert look(root) == PathFacts(str(root), "unreadable")


def test_a_parent_that_others_may_write_to_is_named(root: Path) -> None:
    open_one = root / "open"
    (open_one / "inner" / "below").mkdir(parents=True)
    (open_one / "inner").chmod(0o755)
    open_one.chmod(0o777)
    assert look(open_one / "inner" / "below").parents_writable_by_others == str(open_one)
    assert look(open_one).parents_writable_by_others == ""  # its own mode is told by `mode`
    open_one.chmod(0o755)
    assert look(open_one / "inner" / "below").parents_writable_by_others == ""
    if os.geteuid() == 0:
        os.chown(open_one, 0, 1234)
    open_one.chmod(0o775)
    by_group = "" if open_one.stat().st_gid == 0 else str(open_one)
    assert look(open_one / "inner").parents_writable_by_others == by_group


def test_a_sticky_parent_comes_with_the_component_below_it(root: Path) -> None:
    sticky = root / "sticky"
    (sticky / "next" / "below").mkdir(parents=True)
    sticky.chmod(0o1777)
    (sticky / "next").chmod(0o750)
    facts = look(sticky / "next" / "below")
    assert facts.parents_writable_by_others == ""
    assert facts.sticky_parents[-1] == StickyParent(str(sticky), os.geteuid(), 0o750)


@pytest.mark.needs_root
def test_owners_of_parents_besides_root_and_the_broker_are_told(root: Path) -> None:
    (root / "a" / "b" / "c").mkdir(parents=True)
    os.chown(root / "a", 1234, 1234)
    os.chown(root / "a" / "b", 1235, 1235)
    os.chown(root / "a" / "b" / "c", 1236, 1236)
    assert look(root / "a" / "b" / "c").parent_owners == (1234, 1235)
    assert look(root / "a" / "b" / "c", own_uid=1235).parent_owners == (1234,)


def check(path: Path | str, place: Path | str, *, protected: bool) -> None:
    expected = "the place" if protected else ""
    assert look(path, ProtectedPlace("the place", str(place))).protected == expected


def test_what_is_contains_or_lies_under_a_protected_place_is_protected(root: Path) -> None:
    place = root / "a" / "state"
    (place / "broker").mkdir(parents=True)
    (place / "file").write_text("")
    (root / "a" / "state2").mkdir()
    check(place, place, protected=True)
    check(place / "broker", place, protected=True)
    check(place / "file", place, protected=True)
    check(root / "a", place, protected=True)
    check("/", place, protected=True)
    check(root / "a" / "state2", place, protected=False)
    check(root / "a", root / "nowhere", protected=False)
    check(root / "a" / "state2", place / "missing", protected=False)


def test_without_mountinfo_device_and_inode_still_tell(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_inspector, "_mounts", dict)
    place = root / "a" / "state"
    (place / "broker").mkdir(parents=True)
    (root / "a" / "state2").mkdir()
    for path, protected in ((place / "broker", True), (root / "a", True), (place, True)):
        check(path, place, protected=protected)
    check(root / "a" / "state2", place, protected=False)


def test_a_hard_link_to_a_protected_file_is_protected(root: Path) -> None:
    policy = root / "policy.yaml"
    policy.write_text("")
    (root / "other").mkdir()
    (root / "other" / "harmless").hardlink_to(policy)
    check(root / "other" / "harmless", policy, protected=True)


def test_the_links_that_lead_to_a_protected_place_are_protected_too(root: Path) -> None:
    """A user who can change the link can change the place."""
    (root / "real" / "state").mkdir(parents=True)
    (root / "links" / "more").mkdir(parents=True)
    (root / "links" / "state").symlink_to("more/again")
    (root / "links" / "more" / "again").symlink_to(root / "real" / "state")
    (root / "apart").mkdir()
    for path, protected in (
        ("real", True),
        ("links", True),
        ("links/more", True),
        ("apart", False),
    ):
        check(root / path, root / "links" / "state", protected=protected)


@pytest.fixture
def mounted(root: Path) -> Iterator[Path]:
    """``mounted/j`` shows ``state/journal``, ``mounted/up`` what holds the state folder."""
    (root / "host" / "state" / "journal" / "deep").mkdir(parents=True)
    (root / "host" / "apart").mkdir()
    points = {"j": "host/state/journal", "up": "host", "apart": "host/apart", "a b": "host/state"}
    for name, target in points.items():
        (root / "mounted" / name).mkdir(parents=True)
        subprocess.run(["mount", "--bind", root / target, root / "mounted" / name], check=True)
    yield root
    for name in points:
        subprocess.run(["umount", root / "mounted" / name], check=True)


@pytest.mark.needs_root
def test_a_bind_mount_of_a_protected_place_is_protected_under_its_other_name(
    mounted: Path,
) -> None:
    state = mounted / "host" / "state"
    for path, protected in (
        ("mounted/j", True),
        ("mounted/j/deep", True),
        ("mounted/up", True),
        ("mounted/up/state", True),
        ("mounted/up/state/journal", True),
        ("mounted/up/apart", False),
        ("mounted/a b/journal", True),
        ("mounted/apart", False),
        ("host/apart", False),
    ):
        check(mounted / path, state, protected=protected)
    # The place itself may be known by its other name, too.
    check(mounted / "host", mounted / "mounted" / "j", protected=True)
    check(mounted / "host" / "state", mounted / "mounted" / "j", protected=True)
    check(mounted / "host" / "apart", mounted / "mounted" / "j", protected=False)


@pytest.mark.needs_root
def test_a_folder_of_the_directory_under_another_name_is_closed_to_containers(
    mounted: Path,
) -> None:
    """The readers of the directory know it by one name, and close the folders below that."""
    directory, other = mounted / "host" / "state", mounted / "mounted" / "up" / "state"
    for top, source, in_directory in (
        (directory, directory, True),
        (directory, other, False),
        (other, other, True),
        (other, directory, False),
    ):
        for name in ("journal", "new"):
            facts = look(source / name, ProtectedPlace(DIRECTORY, str(top)))
            assert (facts.protected, facts.in_directory) == (DIRECTORY, in_directory), source


def test_what_is_guarded_of_a_broker() -> None:
    found = protected_places(
        state="/var/lib/trimtab",
        policy="/etc/trimtab/strict.yaml",
        settings="/etc/trimtab/trimtab.yaml",
        desired_state="/srv/desired",
        sockets=(("broker socket", "/srv/run/b.sock"), ("engine socket", "/run/docker.sock")),
        engine_data="/var/lib/docker",
    )
    places = {place.path: place.what for place in found}
    assert places == {
        "/var/lib/trimtab": "state folder",
        "/etc/trimtab/strict.yaml": "policy",
        "/etc/trimtab/trimtab.yaml": "file of settings",
        "/srv/desired": "desired-state directory",
        "/srv/run/b.sock": "broker socket",
        "/srv/run": "folder of the broker socket",
        "/run/docker.sock": "engine socket",
        "/run/containerd/containerd.sock": "containerd socket",
        "/run/docker/containerd/containerd.sock": "containerd socket",
        "/run/docker/containerd": "folder of the containerd socket",
        "/run/docker": "engine's exec root",
        "/run/containerd": "engine's exec root",
        "/var/lib/containerd": "engine's exec root",
        "/var/lib/docker": ENGINE_DATA,
    }


def test_the_engine_s_data_has_a_word_of_its_own_for_admission(root: Path) -> None:
    (root / "volumes" / "v" / "_data").mkdir(parents=True)
    place = ProtectedPlace(ENGINE_DATA, str(root))
    assert look(root / "volumes" / "v" / "_data", place).protected == ENGINE_DATA


def test_a_volume_is_called_the_engines_data_also_beside_the_engines_socket(tmp_path: Path) -> None:
    volume = tmp_path / "data" / "volumes" / "v" / "_data"
    volume.mkdir(parents=True)
    places = protected_places(
        state=str(tmp_path / "state"),
        policy="",
        sockets=(("engine socket", str(tmp_path / "docker.sock")),),
        engine_data=str(tmp_path / "data"),
    )
    examiner = PathInspector(places, own_uid=os.geteuid())
    (of_volume,) = examiner.inspect((str(volume),))
    assert of_volume.protected == ENGINE_DATA
    (tmp_path / "other").mkdir()
    (beside,) = examiner.inspect((str(tmp_path / "other"),))
    assert beside.protected == "folder of the engine socket"


def test_a_device_is_told_by_its_type_and_number() -> None:
    inspector = PathInspector((), own_uid=0)
    zero, folder = inspector.inspect(("/dev/zero", "/dev"))
    assert (zero.kind, zero.device_type, zero.number) == ("other", "character", os.makedev(1, 5))
    assert (folder.device_type, folder.number) == ("", 0)
    assert not zero.console


def test_the_time_zone_of_the_host_is_the_file_behind_its_link(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones, link = root / "zoneinfo", root / "localtime"
    (zones / "Etc").mkdir(parents=True)
    (zones / "Etc" / "UTC").write_text("TZif")
    (root / "secret").write_text("")
    monkeypatch.setattr(path_inspector, "ZONES", str(zones))
    monkeypatch.setattr(path_inspector, "TIME_ZONE", (str(link),))
    link.symlink_to("zoneinfo/Etc/UTC")
    behind = look(zones / "Etc" / "UTC")
    assert look(link) == replace(behind, path=str(link))
    (zones / "Etc").chmod(0o777)
    assert look(link).parents_writable_by_others == str(zones / "Etc")
    for target in ("secret", "zoneinfo/../secret", "zoneinfo/Etc/None"):
        link.unlink()
        link.symlink_to(target)
        assert look(link).kind == ("missing" if "None" in target else "symlink"), target


def test_a_folder_of_the_directory_is_told_from_the_directory_and_what_else_is_protected(
    root: Path,
) -> None:
    directory, state = root / "stacks", root / "stacks" / "shop" / "state"
    (directory / "shop" / "data").mkdir(parents=True)
    state.mkdir()
    (directory / "shop" / "compose.yaml").write_text("")
    places = [ProtectedPlace("state folder", str(state)), ProtectedPlace(DIRECTORY, str(directory))]

    def seen(path: str) -> tuple[str, bool, str]:
        facts = look(os.path.normpath(directory / path), *places)
        return facts.protected, facts.in_directory, facts.declares

    assert seen("shop/data") == (DIRECTORY, True, "")
    assert seen("shop/data/new") == (DIRECTORY, True, "")
    assert seen("new/and/below") == (DIRECTORY, True, "")
    assert seen("shop/compose.yaml") == (DIRECTORY, True, "")
    assert seen("shop") == ("state folder", False, "")
    assert seen("shop/state/new") == ("state folder", False, "")
    assert seen("") == ("state folder", False, "")
    assert seen("../new") == ("", False, "")
    state.rmdir()
    places = places[1:]
    assert seen("shop") == (DIRECTORY, True, "compose.yaml")
    assert seen("") == (DIRECTORY, False, "")
    assert seen("..") == (DIRECTORY, False, "")
    (directory / "shop" / "data" / ".git").mkdir()
    assert seen("shop/data") == (DIRECTORY, True, ".git")


def test_a_missing_path_has_the_facts_of_the_folders_above_it(root: Path) -> None:
    assert look(root / "a" / "b").parents_writable_by_others == ""
    root.chmod(0o1777)
    assert look(root / "a" / "b").parents_writable_by_others == str(root)
    (root / "a").mkdir(mode=0o755)
    facts = look(root / "a" / "b")
    assert facts.parents_writable_by_others == ""
    assert facts.sticky_parents[-1] == StickyParent(str(root), os.geteuid(), 0o755)
    assert look(root / "a", own_uid=4242).parent_owners == ((os.geteuid(),) if os.geteuid() else ())


def test_a_device_is_a_console_where_the_kernel_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "consoles"
    monkeypatch.setattr(path_inspector, "CONSOLES", listed)

    def is_console() -> bool:
        return PathInspector((), own_uid=0).inspect(("/dev/zero",))[0].console

    listed.write_text("ttyS0                -W- (EC  p a)    4:64\nzero    -W- (E) 1:5\n")
    assert is_console()
    listed.write_text("ttyS0                -W- (EC  p a)    1:50\n")
    assert not is_console()


def test_a_serial_port_is_a_console_where_the_kernel_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_inspector, "CONSOLES", tmp_path / "missing")
    port = tmp_path / "ttyUSB0"
    os.mknod(port, 0o600 | stat.S_IFCHR, os.makedev(188, 0))
    found, zero = PathInspector((), own_uid=0).inspect((str(port), "/dev/zero"))
    assert (found.console, zero.console) == (True, False)
