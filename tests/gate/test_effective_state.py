"""Effective state before a real engine: what runs as admitted is let alone, what doesn't is ended.

Scenarios S1 (a source swapped between create and start), S2 (a volume made anew with options) and
changes behind the broker's back, each against what the kernel shows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from controller.model import names
from tests.engine import FoundEngine, PrivateEngine
from tests.gate.fixtures import IMAGE, World
from tests.gate.wire import Answer
from tests.instance import eventually

pytestmark = pytest.mark.needs_root
T = TypeVar("T")
Engine = PrivateEngine | FoundEngine
#: What ends a container that differs: measured between the engine's own events.
#: Generous: a busy machine is no fault. Alone, it takes well under a second.
STOPPED_WITHIN_S = 10.0
#: Of containers in a race. What must hold holds of each; the next test hits the moment for certain.
STARTS = 5

SWAP = """
import os, sys, time
place, aside = sys.argv[1:3]
print("swaps", flush=True)
while True:  # ended by whoever started it
    os.rename(place, aside + ".was"); os.rename(aside, place); os.rename(aside + ".was", aside)
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def world(engine: Engine) -> Iterator[World]:
    made = World(engine, ())
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the policy admits as a bind source, and that only root may write to."""
    made = Path(tempfile.mkdtemp(prefix="trimtab-effective-", dir="/tmp"))
    made.chmod(0o755)
    (made / "data").mkdir()
    (made / "elsewhere").mkdir()  # what attacks lead to; never a folder of the host's own
    yield made
    shutil.rmtree(made)


def create(world: World, name: str, **more: Any) -> str:
    """Create a container of alice's."""
    labels = {names.OWNER: "alice", names.SERVICE: "web"}
    body = {"Image": IMAGE, "Labels": labels, **more}
    return str(world.must("alice", "POST", f"/containers/create?name={name}", body)["Id"])


@contextmanager
def container(world: World, name: str, **more: Any) -> Iterator[str]:
    """A container of alice's, gone at the end."""
    made = create(world, name, **more)
    try:
        yield made
    finally:
        world.engine.remove(made)


def between(world: World, path: str, act: Callable[[], None], ask: Callable[[], T]) -> T:
    """Ask for a change, and act once its request is at the engine's door."""
    with ThreadPoolExecutor(1) as aside, world.tap.holding("POST", path) as hold:
        answer = aside.submit(ask)
        hold.await_kept()
        act()
        hold.let_go()
        return answer.result()


def start(world: World, identifier: str) -> Answer:
    return world.ask("alice", "POST", f"/containers/{identifier}/start")


def journal(world: World) -> list[dict[str, Any]]:
    """Return every record of the broker's journal."""
    segments = sorted((world.gate.state / "broker" / "journal").glob("*.jsonl"))
    return [json.loads(line) for path in segments for line in path.read_text().splitlines()]


def effective(world: World, identifier: str) -> list[str]:
    """Return what each start of a container showed."""
    records = journal(world)
    starts = {
        r["id"]
        for r in records
        if r["stage"] == "intent"
        and r["request"]["object"] == identifier
        and r["request"]["route"] in {"container.start", "container.restart", "container.unpause"}
    }
    return [
        r["result"].get("effective", "")
        for r in records
        if r["stage"] == "outcome" and r["id"] in starts and r["result"]["status"] < 400
    ]


def violations(world: World, identifier: str) -> list[list[str]]:
    """Return the rules of each violation of a container."""
    return [
        record["verdict"]["rules"]
        for record in journal(world)
        if record["stage"] == "violation" and record["request"]["object"] == identifier
    ]


def state(world: World, identifier: str) -> dict[str, Any]:
    return dict(world.engine.inspect(identifier)["State"])


def stopped(world: World, identifier: str) -> Callable[[], bool]:
    return lambda: not state(world, identifier)["Running"]


def ran_s(world: World, identifier: str) -> float:
    """Return how long a container's last run lasted, by the engine's clock."""
    told = state(world, identifier)
    begun, ended = (instant(told[member]) for member in ("StartedAt", "FinishedAt"))
    return ended - begun


def instant(text: str) -> float:
    return datetime.fromisoformat(f"{text[:26].rstrip('Z')}+00:00").timestamp()


#: Features that can stand in one container do: each is compared by itself.
FEATURES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "capabilities, root, init, limits": {
        "User": "0:0",
        "HostConfig": {
            "CapAdd": ["CHOWN", "SETUID"],
            "Init": True,
            "Memory": 64 << 20,
            "NanoCpus": 333_000_000,
            "PidsLimit": 33,
        },
    },
    "terminal, health, ports": {
        "Tty": True,
        "OpenStdin": True,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9},
        "HostConfig": {"PortBindings": {"8080/tcp": [{"HostPort": "18181"}]}},
    },
    "no network, odd limits, a read-only root": {
        "HostConfig": {
            "NetworkMode": "none",
            "Memory": (64 << 20) + 1,
            "NanoCpus": 333_333_333,
            "ReadonlyRootfs": True,
        }
    },
    "bridge, quota, cgroups and shared memory of its own": {
        "HostConfig": {
            "NetworkMode": "bridge",
            "CpuQuota": 12345,
            "CpuPeriod": 70000,
            "CgroupnsMode": "private",
            "ShmSize": 8 << 20,
        }
    },
    "own network, no ipc, a bind": {
        "HostConfig": {
            "NetworkMode": "alice-isle",
            "IpcMode": "none",
            "Binds": ["{folder}/data:/data"],
        }
    },
    "a read-only bind, a volume, a tmpfs": {
        "HostConfig": {
            "Binds": ["{folder}/data:/data:ro", "alice-store:/store"],
            "Tmpfs": {"/scratch": "size=1m"},
        }
    },
    "a mounted bind, a read-only volume, a mounted tmpfs": {
        "HostConfig": {
            "Mounts": [
                {"Type": "bind", "Source": "{folder}/data", "Target": "/a/b c/d", "ReadOnly": True},
                {"Type": "volume", "Source": "alice-store", "Target": "/store", "ReadOnly": True},
                {"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 999_999}},
            ]
        }
    },
}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_container_started_as_admitted_is_verified_and_keeps_running(
    world: World, folder: Path, feature: str
) -> None:
    """Also when it is restarted, frozen and thawed."""
    text = json.dumps(FEATURES[feature]).replace("{folder}", str(folder))
    with container(world, "alice-feature", **json.loads(text)) as made:
        assert start(world, made).status == 204
        for verb in ("restart?t=0", "pause", "unpause"):
            assert world.ask("alice", "POST", f"/containers/{made}/{verb}").status == 204
        assert effective(world, made) == ["verified"] * 3
        assert violations(world, made) == []
        assert state(world, made)["Running"]


def test_a_part_of_a_volume_is_verified(world: World) -> None:
    with container(
        world, "alice-filler", User="0:0", HostConfig={"Binds": ["alice-store:/store"]}
    ) as filler:
        start(world, filler)
        world.engine.docker("exec", filler, "sh", "-c", "mkdir -p /store/part || :>/dev/null")
        root = world.engine.inspect(filler)["Mounts"][0]["Source"]
        (Path(root) / "part").mkdir(exist_ok=True)
    mount = {
        "Type": "volume",
        "Source": "alice-store",
        "Target": "/part",
        "VolumeOptions": {"Subpath": "part"},
    }
    with container(world, "alice-part", HostConfig={"Mounts": [mount]}) as made:
        assert start(world, made).status == 204
        assert effective(world, made) == ["verified"]


def test_what_exited_at_once_is_unverified_and_that_is_all(world: World) -> None:
    with container(world, "alice-brief", Cmd=["sh", "-c", ":"], Entrypoint=[]) as made:
        answers = [start(world, made).status for _ in range(5)]
        eventually(stopped(world, made), what="its end")
        assert set(answers) <= {204, 304}
        assert set(effective(world, made)) <= {"unverified: exited already", "verified"}
        assert violations(world, made) == []


# S1: the source of a bind is swapped between create and start.


def test_a_source_that_is_another_directory_at_its_start_is_refused(
    world: World, folder: Path
) -> None:
    with container(world, "alice-swapped", HostConfig={"Binds": [f"{folder}/data:/data"]}) as made:
        (folder / "data").rename(folder / "was")
        (folder / "data").mkdir()
        assert start(world, made).rule == "mount.changed"
        (folder / "data").rmdir()
        (folder / "was").rename(folder / "data")
        assert start(world, made).status == 204
        assert effective(world, made) == ["verified"]


def test_what_was_to_remove_itself_goes_when_its_start_is_refused(
    world: World, folder: Path
) -> None:
    """`docker run --rm` waits for the removal, which the engine sees to only when a start fails."""
    host = {"Binds": [f"{folder}/data:/data"], "AutoRemove": True}
    made = create(world, "alice-swapped-rm", HostConfig=host)
    (folder / "data").rename(folder / "was")
    (folder / "data").mkdir()
    assert start(world, made).rule == "mount.changed"
    assert world.ask("alice", "GET", f"/containers/{made}/json").status == 404


@pytest.mark.parametrize("pause_s", ["0.005", "0.05"])
def test_no_race_of_swaps_gets_another_place_into_a_container(
    world: World, folder: Path, pause_s: str
) -> None:
    """S1: while a process swaps directory and link in a loop, each start is right or ended."""
    place, aside = folder / "data", folder / "link"
    inode = place.stat().st_ino
    aside.symlink_to(folder / "elsewhere")
    binds = {"Binds": [f"{place}:/data:ro"]}
    made = [create(world, f"alice-race-{number}", HostConfig=binds) for number in range(STARTS)]
    argv = [sys.executable, "-c", SWAP, str(place), str(aside), pause_s]
    caught = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            for identifier in made:
                answer = start(world, identifier)
                if answer.status == 204:
                    pid = state(world, identifier)["Pid"]
                    assert Path(f"/proc/{pid}/root/data").stat().st_ino == inode
                    assert effective(world, identifier) == ["verified"]
                elif answer.rule != "mount.changed" and answer.status == 403:
                    caught.append(identifier)
                    assert answer.rule == "effective.mount", answer
                    assert violations(world, identifier) == [["effective.mount"]]
                    assert not state(world, identifier)["Running"]
                    assert ran_s(world, identifier) < STOPPED_WITHIN_S
        finally:
            swapper.kill()
            for identifier in made:
                world.engine.remove(identifier)
    print(f"{len(caught)} of {len(made)} starts were caught by what the kernel showed")


def test_what_slips_past_every_look_is_stopped_soon(world: World, folder: Path) -> None:
    """The swap hits the moment between the last look and the engine's mount, each time."""
    place = folder / "data"
    with container(
        world,
        "alice-slipped",
        HostConfig={"Binds": [f"{place}:/data"], "RestartPolicy": {"Name": "always"}},
    ) as made:

        def swap() -> None:
            place.rename(folder / "was")
            place.symlink_to(folder / "elsewhere")

        answer = between(world, f"/containers/{made}/start", swap, lambda: start(world, made))
        assert (answer.status, answer.rule) == (403, "effective.mount")
        assert violations(world, made) == [["effective.mount"]]
        record = next(r for r in journal(world) if r["id"] == answer.json["trimtab"]["id"])
        assert (record["stage"], record["actor"]["role"]) == ("violation", "broker")
        assert not state(world, made)["Running"]
        assert ran_s(world, made) < STOPPED_WITHIN_S
        told = world.engine.inspect(made)
        assert told["HostConfig"]["RestartPolicy"]["Name"] == "no"
        assert start(world, made).rule == "effective.violated"
        ended = [
            (r["request"]["route"], r["claims"]["cause"])
            for r in journal(world)
            if r["stage"] == "intent"
            and r.get("claims", {}).get("cause", "").endswith(record["id"])
        ]
        cause = f"violation {record['id']}"
        assert ended == [("container.update", cause), ("container.kill", cause)]


# S2: a volume is made anew with options.


def test_a_volume_made_anew_with_options_reaches_no_container(world: World, folder: Path) -> None:
    """S2: in the moment between the last look at the volume and the engine's create."""
    world.must("alice", "POST", "/volumes/create", {"Name": "alice-bait"})
    docker = world.engine.docker

    def swap() -> None:
        docker("volume", "rm", "alice-bait")
        bind = ("type=none", "o=bind", f"device={folder / 'elsewhere'}")
        options = [f"--opt={each}" for each in bind]
        docker("volume", "create", *options, "alice-bait")

    binds = {"Binds": ["alice-bait:/data"]}
    made = between(
        world,
        "/containers/create",
        swap,
        lambda: create(world, "alice-baited", HostConfig=binds),
    )
    try:
        assert start(world, made).rule == "volume.changed"
        # Somebody who starts it past the broker: the mount tells.
        docker("start", made)
        eventually(stopped(world, made), what="its end")
        assert "effective.mount" in violations(world, made)[0]
        assert ran_s(world, made) < STOPPED_WITHIN_S
    finally:
        world.engine.remove(made)
        docker("volume", "rm", "alice-bait")


def test_a_foreign_network_of_an_admitted_name_is_refused_at_the_first_start(world: World) -> None:
    """A container that never ran finds its networks by name."""
    world.must("alice", "POST", "/networks/create", {"Name": "alice-decoy"})
    docker = world.engine.docker
    with container(world, "alice-decoyed", HostConfig={"NetworkMode": "alice-decoy"}) as made:
        docker("network", "rm", "alice-decoy")
        docker("network", "create", "alice-decoy")
        assert start(world, made).rule == "network.changed"
        docker("start", made)
        eventually(stopped(world, made), what="its end")
        assert violations(world, made) == [["effective.network"]]
        assert ran_s(world, made) < STOPPED_WITHIN_S
    docker("network", "rm", "alice-decoy")


OF_CAROL = {names.OWNER: "carol", names.NAMESPACE: "pins"}
#: Who makes a network of the name that alice's had, and how.
LATER: dict[str, dict[str, Any]] = {
    "bob": {"Name": "alice-moth"},
    "controller": {"Name": "pins.back", "Internal": True, "Labels": OF_CAROL},
}


@pytest.mark.parametrize("who", LATER)
def test_another_owners_network_of_the_admitted_name_is_never_joined(
    world: World, who: str
) -> None:
    """Whether the name changes hands before the start, after the last look, or past the gate."""
    name = LATER[who]["Name"]

    def give_away() -> None:
        world.must("alice", "DELETE", f"/networks/{name}")
        world.must(who, "POST", "/networks/create", LATER[who])

    def take_back() -> None:
        world.must("operator", "DELETE", f"/networks/{name}")
        world.must("alice", "POST", "/networks/create", {"Name": name})

    world.must("alice", "POST", "/networks/create", {"Name": name})
    with container(world, "alice-moth-1", HostConfig={"NetworkMode": name}) as made:
        give_away()
        assert start(world, made).rule == "network.changed"
        world.engine.docker("start", made)
        eventually(stopped(world, made), what="its end")
        assert violations(world, made) == [["effective.network"]]
    take_back()
    with container(world, "alice-moth-2", HostConfig={"NetworkMode": name}) as made:
        path = f"/containers/{made}/start"
        answer = between(world, path, give_away, lambda: start(world, made))
        assert answer.rule == "effective.network"
        assert not state(world, made)["Running"]
    world.must("operator", "DELETE", f"/networks/{name}")


# Behind the broker's back.

BREACHES = {
    "memory": (["update", "--memory", "9g", "--memory-swap", "9g"], "effective.limit"),
    "swap": (["update", "--memory-swap", "128m"], "effective.limit"),
    "processes": (["update", "--pids-limit", "-1"], "effective.limit"),
    "network": (["network", "connect", "bridge"], "effective.network"),
}


@pytest.mark.parametrize("what", BREACHES)
def test_a_breach_behind_the_brokers_back_is_a_violation(world: World, what: str) -> None:
    command, rule = BREACHES[what]
    with container(
        world, "alice-loosened", HostConfig={"NetworkMode": "alice-isle", "Memory": 64 << 20}
    ) as made:
        assert start(world, made).status == 204
        world.engine.docker(*command, made)
        eventually(stopped(world, made), what="its end")
        assert violations(world, made) == [[rule]]
        assert start(world, made).rule == "effective.violated"


def test_what_differs_within_the_policy_is_left_to_the_controller(world: World) -> None:
    """Other limits than those admitted, and a network of its own namespace, are drift."""
    world.must("alice", "POST", "/networks/create", {"Name": "alice-isle-2"})
    with container(
        world, "alice-drifting", HostConfig={"NetworkMode": "alice-isle", "Memory": 64 << 20}
    ) as made:
        assert start(world, made).status == 204
        docker = world.engine.docker
        docker("update", "--memory", "128m", "--memory-swap", "128m", "--pids-limit", "300", made)
        docker("network", "connect", "alice-isle-2", made)
        # What the broker sees last shows that it looked at what came before.
        docker("update", "--pids-limit", "-1", made)
        eventually(stopped(world, made), what="its end")
        (found,) = [
            r["result"]["found"]
            for r in journal(world)
            if r["stage"] == "violation" and r["request"]["object"] == made
        ]
        assert found == ["processes have no limit"]


def test_an_update_that_takes_effect_nowhere_is_no_violation(world: World) -> None:
    """The kernel decides: `docker update --memory 0` is answered well, and changes nothing."""
    with container(world, "alice-unmoved", HostConfig={"NetworkMode": "none"}) as made:
        assert start(world, made).status == 204
        world.engine.docker("update", "--memory", "0", made)
        assert world.ask("alice", "POST", f"/containers/{made}/restart?t=0").status == 204
        assert effective(world, made) == ["verified", "verified"]
        assert violations(world, made) == []


def test_a_limit_that_was_lifted_while_it_was_down_shows_at_its_start(world: World) -> None:
    with container(world, "alice-lifted", HostConfig={"NetworkMode": "none"}) as made:
        world.engine.docker("update", "--pids-limit", "-1", made)
        answer = start(world, made)
        assert (answer.status, answer.rule) == (403, "effective.limit")
        assert ran_s(world, made) < STOPPED_WITHIN_S


def test_a_broker_looks_at_what_ran_while_it_was_away(world: World) -> None:
    with container(world, "alice-meanwhile", HostConfig={"NetworkMode": "alice-isle"}) as made:
        assert start(world, made).status == 204
        world.gate.kill()
        world.engine.docker("network", "connect", "bridge", made)
        world.gate.start()
        eventually(world.gate.serves, what="the broker's socket")
        eventually(stopped(world, made), what="its end")
        assert violations(world, made) == [["effective.network"]]
