"""Containers of every image layout run: no honest one is ended for where its image's links lead.

The layout of an image decides where the engine's mounts appear: /sbin and /var/run are links in
most, /etc/hosts in some. What was admitted is recognised by its source, so neither the image's
links nor links that a container changes itself make a difference. The attacks at the end use
links to make a mount look like one that was admitted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.model import names
from tests import engine as engines
from tests.gate.fixtures import ALLOWED, World
from tests.gate.test_effective_state import (
    STOPPED_WITHIN_S,
    between,
    effective,
    ran_s,
    start,
    state,
    violations,
)
from tests.instance import eventually
from tools import debian_images
from tools.image_archive import Entry, folder, link

pytestmark = pytest.mark.needs_root

#: Mounts a path of the host inside a container, as root does who holds the engine's host.
MOUNT_INSIDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, source, point = sys.argv[1:]
def must(number):
    if number < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return number
tree = must(libc.syscall(428, -100, source.encode(), 1))  # open_tree(2), OPEN_TREE_CLONE
with open(f"/proc/{pid}/ns/mnt") as namespace:
    must(libc.setns(namespace.fileno(), 0x20000))
must(libc.syscall(429, tree, b"", -100, point.encode(), 4))  # move_mount(2), of the tree itself
"""

#: Entries that each layout has beside those of Debian or Alpine.
LAYOUTS: dict[str, tuple[str, tuple[Entry, ...]]] = {
    "debian": ("debian", ()),
    "alpine": ("alpine", ()),
    # Absolute and relative links, a chain of them, and links that lead to nothing yet.
    "links": (
        "debian",
        (
            link("sbin", "/opt/sbin"),
            folder("opt"),
            link("opt/sbin", "../usr/sbin"),
            link("etc/hosts", "../run/hosts"),
            link("etc/resolv.conf", "/opt/resolver/resolv.conf"),
            link("etc/hostname", "nodename"),
            link("data", "/srv/../mnt/data"),
            folder("mnt"),
            folder("mnt/data"),
            folder("srv"),
        ),
    ),
}
TMPFS = {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 1 << 20}}
FEATURES: dict[str, dict[str, Any]] = {
    "init, a volume below a link, a tmpfs on one": {
        "Init": True,
        "Mounts": [
            {"Type": "volume", "Source": "alice-store", "Target": "/var/run/store"},
            {**TMPFS, "Target": "/var/lock"},
        ],
    },
    # People list both, and one covers the other.
    "init, a read-only root, the same place twice": {
        "Init": True,
        "ReadonlyRootfs": True,
        "Mounts": [{**TMPFS, "Target": "/run"}, {**TMPFS, "Target": "/var/run"}],
    },
    "mounts in mounts, and a file": {
        "Mounts": [
            {"Type": "volume", "Source": "alice-store", "Target": "/data"},
            {**TMPFS, "Target": "/data/cache"},
            {"Type": "bind", "Source": "FOLDER/data", "Target": "/data/conf", "ReadOnly": True},
            {"Type": "bind", "Source": "FOLDER/file", "Target": "/var/run/file", "ReadOnly": True},
        ],
    },
}
CELLS = [(image, feature) for image in LAYOUTS for feature in FEATURES]
#: What user namespaces change isn't multiplied by the layouts.
REMAPPED = [cell for cell in CELLS if cell[0] == "links"]


@pytest.fixture(scope="module")
def world(engine: engines.PrivateEngine | engines.FoundEngine) -> Iterator[World]:
    with opened(engine) as made:
        yield made


@pytest.fixture(scope="module")
def remapped() -> Iterator[World]:
    """A world whose engine gives containers users of their own, and an init by itself."""
    engine = engines.PrivateEngine("--userns-remap=default", "--init")
    try:
        with opened(engine) as made:
            yield made
    finally:
        engine.close()


@contextmanager
def opened(engine: engines.PrivateEngine | engines.FoundEngine) -> Iterator[World]:
    made = World(engine, ())
    try:
        for name, (style, entries) in LAYOUTS.items():
            add_image(made, name, style, *entries)
        yield made
    finally:
        made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the policy admits as a bind source."""
    made = Path(tempfile.mkdtemp(prefix="trimtab-layouts-", dir="/tmp"))
    made.chmod(0o755)
    (made / "data").mkdir()
    (made / "file").write_text("text\n")
    # What attacks lead to. Never a folder of the host's own: a container that moves its folders
    # about copies what is mounted in them, and then removes it.
    (made / "elsewhere").mkdir()
    yield made
    shutil.rmtree(made)


def add_image(world: World, name: str, style: str, *entries: Entry, command: str = "") -> None:
    """Load an image of a layout, and let the gate know it."""
    reference = f"{ALLOWED}layout-{name}:1"
    config = {"Cmd": ["/bin/sh", "-c", command]} if command else {}
    archive = debian_images.layout(style, reference, *entries, config=config)
    debian_images.ensure(world.engine.host, archive)
    world.must("operator", "POST", "/trimtab/v1/trust", {"reference": reference})


@contextmanager
def container(world: World, image: str, place: Path, host: dict[str, Any]) -> Iterator[str]:
    """A container of alice's from an image of a layout, gone at the end."""
    body = {
        "Image": f"{ALLOWED}layout-{image}:1",
        "Labels": {names.OWNER: "alice", names.SERVICE: "web"},
        "HostConfig": json.loads(json.dumps(host).replace("FOLDER", str(place))),
    }
    made = str(world.must("alice", "POST", "/containers/create?name=alice-layout", body)["Id"])
    try:
        yield made
    finally:
        world.engine.remove(made)


def check_runs(world: World, image: str, place: Path, host: dict[str, Any]) -> None:
    with container(world, image, place, host) as made:
        answer = start(world, made)
        assert answer.status == 204, answer
        assert effective(world, made) == ["verified"]
        assert violations(world, made) == []
        assert state(world, made)["Running"]


@pytest.mark.parametrize(("image", "feature"), CELLS)
def test_no_honest_container_is_ended(world: World, place: Path, image: str, feature: str) -> None:
    check_runs(world, image, place, FEATURES[feature])


@pytest.mark.parametrize(("image", "feature"), REMAPPED)
def test_no_honest_container_with_users_of_its_own_is_ended(
    remapped: World, place: Path, image: str, feature: str
) -> None:
    check_runs(remapped, image, place, FEATURES[feature])


#: Everything on the way to a mount is replaced or moved: the links, and a folder above.
MOVES = """
rm /sbin /var/run /etc/hosts
mkdir /sbin /var/run /data2
mv /srv /moved
ln -s /proc /srv
echo moved
exec sleep 1000
"""


def test_a_container_that_changes_its_own_links_and_folders_goes_on(
    world: World, place: Path
) -> None:
    """It is looked at again when it is paused and goes on, and whenever the engine tells of it."""
    entries = (folder("srv"), folder("srv/app"), link("etc/hosts", "/run/hosts"))
    add_image(world, "moves", "debian", *entries, command=MOVES)
    host = {
        "Init": True,
        "Mounts": [
            {"Type": "volume", "Source": "alice-store", "Target": "/srv/app/data"},
            {"Type": "bind", "Source": "FOLDER/data", "Target": "/var/run/conf", "ReadOnly": True},
            {**TMPFS, "Target": "/srv/app/cache"},
        ],
    }
    with container(world, "moves", place, host) as made:
        assert start(world, made).status == 204
        eventually(lambda: "moved" in world.engine.docker("logs", made).stdout, what="its moves")
        for verb in ("pause", "unpause"):
            assert world.ask("alice", "POST", f"/containers/{made}/{verb}").status == 204
        assert effective(world, made)[1:] == ["verified"]
        assert violations(world, made) == []
        assert state(world, made)["Running"]


# Attacks: a link, or a name, that would make a mount look admitted.


def slipped(world: World, made: str, source: Path, instead: Path) -> list[list[str]]:
    """Swap a bind's source for a link, in the moment between the last look and the mount."""

    def swap() -> None:
        source.rename(source.with_name("was"))
        source.symlink_to(instead)

    answer = between(world, f"/containers/{made}/start", swap, lambda: start(world, made))
    assert (answer.status, answer.rule) == (403, "effective.mount")
    assert not state(world, made)["Running"]
    assert ran_s(world, made) < STOPPED_WITHIN_S
    return violations(world, made)


def test_a_swapped_source_is_seen_wherever_the_images_links_put_it(
    world: World, place: Path
) -> None:
    host = {"Mounts": [{"Type": "bind", "Source": "FOLDER/data", "Target": "/data"}]}
    with container(world, "links", place, host) as made:
        assert slipped(world, made, place / "data", place / "elsewhere") == [["effective.mount"]]


def test_a_swapped_source_is_seen_where_the_container_hides_the_way_to_it(
    world: World, place: Path
) -> None:
    """It moves the folder above back and forth, and leads the target's own path to /proc."""
    moves = "mv /srv /moved; ln -s /proc /srv; while :; do mv /moved /m2; mv /m2 /moved; done"
    add_image(world, "hides", "debian", folder("srv"), command=moves)
    host = {"Mounts": [{"Type": "bind", "Source": "FOLDER/data", "Target": "/srv/data"}]}
    with container(world, "hides", place, host) as made:
        assert slipped(world, made, place / "data", place / "elsewhere") == [["effective.mount"]]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_place_that_is_called_as_an_init_is_not_taken_for_the_engines(
    world: World, place: Path, kind: str
) -> None:
    """Neither in the init's own place, which the image's links lead to the target."""
    secret = place / "docker-init"
    secret.mkdir() if kind == "folder" else secret.write_text("secret")
    source = place / ("data" if kind == "folder" else "file")
    add_image(world, f"init-{kind}", "debian", link("usr/sbin", "/srv"), folder("srv"))
    mount = {"Type": "bind", "Source": str(source), "Target": "/srv/docker-init", "ReadOnly": True}
    with container(world, f"init-{kind}", place, {"Mounts": [mount]}) as made:
        assert slipped(world, made, source, secret) == [["effective.mount"]]


@pytest.mark.parametrize("kernels", ["/proc", "/dev/shm"])
def test_a_target_that_an_image_links_to_the_kernels_places_gives_nothing_else(
    world: World, place: Path, kernels: str
) -> None:
    """The engine refuses it, or mounts what was admitted over the place; nothing else is there."""
    name = kernels.strip("/").replace("/", "-")
    add_image(world, f"to-{name}", "debian", link("admitted", kernels))
    with container(
        world, f"to-{name}", place, {"Mounts": [{**TMPFS, "Target": "/admitted"}]}
    ) as made:
        answer = start(world, made)
        pid = state(world, made)["Pid"]
        if answer.status == 204:
            point = next(
                line.split()[8]
                for line in reversed(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
                if line.split()[4] == kernels
            )
            assert point == "tmpfs"
        else:
            assert pid == 0


@pytest.mark.parametrize(
    ("source", "point"),
    [("PLACE/docker-init", "/usr/local"), ("/dev/shm", "/run"), ("PLACE/data", "/run")],
)
def test_what_is_mounted_in_a_running_container_is_seen_under_any_name(
    world: World, place: Path, source: str, point: str
) -> None:
    """A folder called as an init, and a tmpfs or a bind of the host's over an admitted tmpfs."""
    (place / "docker-init").mkdir()
    add_image(world, "roomy", "debian", folder("usr/local"))
    host = {"Init": True, "Mounts": [{**TMPFS, "Target": "/var/run"}]}
    with container(world, "roomy", place, host) as made:
        assert start(world, made).status == 204
        pid = str(state(world, made)["Pid"])
        argv = [sys.executable, "-c", MOUNT_INSIDE, pid, source.replace("PLACE", str(place)), point]
        subprocess.run(argv, check=True)
        assert world.ask("alice", "POST", f"/containers/{made}/pause").status == 204
        assert world.ask("alice", "POST", f"/containers/{made}/unpause").rule == "effective.mount"
        assert violations(world, made) == [["effective.mount"]]
