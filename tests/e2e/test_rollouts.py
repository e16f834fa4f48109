"""Rollouts on a real engine, with a client that asks by name throughout.

All services are rolled out at once in one instance, each to a revision that is bad in its own way
(or good). What serves goes on serving without one failed request; status and journal tell why.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from controller.app.process import SystemClock
from tests.disk import small_disk
from tests.e2e.client import NETWORK, Client, asking
from tests.engine import PrivateEngine
from tests.instance import Host, eventually, has, web
from tests.registry import Registry, admit, write_credentials
from tools import demo_images

QUICK = "rollout: {minHealthy: 1s}"
GREEN = "env: {COLOUR: green}"
CHECK = (
    'healthcheck: {exec: [/bin/wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s,'
    " timeout: 1s, retries: 2, startPeriod: %s}"
)
SHELL = 'entrypoint: [/bin/sh, -c, "%s"]'
#: Registries on loopback: the password of one is changed, one goes down, one has nothing.
LOCKED, DOWN, EMPTY = "127.0.0.1:5061", "127.0.0.1:5062", "127.0.0.1:5063"


@dataclass(frozen=True, slots=True)
class Scene:
    """A second revision, which one serves in the end, and what condition and journal say of it."""

    name: str
    revision: tuple[str, ...]
    ends: str  # new, or old
    condition: str  # a pattern of TYPE REASON: MESSAGE
    journal: str  # a pattern of a record
    image: str = ""  # of the first revision, where it isn't the usual one


SCENES = (
    Scene("good", (GREEN, QUICK), "new", "Ready AsDeclared", "takes the name good"),
    Scene(
        "badtag",
        (f"image: {EMPTY}/team/app:none", QUICK),
        "old",
        "Stalled image.notfound: .*has no such image",
        '"code":"image.notfound"',
    ),
    Scene(
        "down",
        (f"image: {DOWN}/team/app:2", "rollout: {minHealthy: 1s, progressDeadline: 10s}"),
        "old",
        "RolledBack Automatic: .*got no further within 10s.*registry can't be reached",
        '"code":"image.registry"',
        image=f"{DOWN}/team/app:1",
    ),
    Scene(
        "expired",
        (f"image: {LOCKED}/team/app:2", QUICK),
        "old",
        "Stalled image.denied: .*refuses these credentials",
        '"code":"image.denied"',
        image=f"{LOCKED}/team/app:1",
    ),
    Scene(
        "nobind",
        ("mounts: [{type: bind, source: /tmp/isnt/there, target: /x, readOnly: true}]", QUICK),
        "old",
        "Stalled mount.missing: .*/tmp/isnt/there isn't there",
        '"stage":"refusal".*"rules":\\["mount.missing"\\]',
    ),
    Scene(
        "oom",
        (SHELL % "exec tail /dev/zero", "resources: {memory: 32Mi}", QUICK),
        "old",
        "RolledBack Automatic: .*out of memory",
        "rolled back by trimtab, since .*out of memory",
    ),
    Scene(
        "dies",
        (SHELL % "/bin/serve & sleep 3; exit 3", "rollout: {minHealthy: 6s}"),
        "old",
        "RolledBack Automatic: .*failed 3 times in a row: it exited with 3",
        "rolled back by trimtab, since .*exited with 3",
    ),
    Scene(
        "never",
        (
            'healthcheck: {exec: [/bin/sh, -c, "exit 22"], interval: 1s, timeout: 1s, retries: 2, startPeriod: 1s}',
            QUICK,
        ),
        "old",
        "RolledBack Automatic: .*is unhealthy: its check exited with 22",
        "rolled back by trimtab, since .*is unhealthy: its check exited with 22",
    ),
    Scene(
        "slow",
        (SHELL % "sleep 6; exec /bin/serve", CHECK % "20s", QUICK),
        "new",
        "Ready AsDeclared",
        "takes the name slow",
    ),
)


def document(name: str, *lines: str) -> str:
    """Return a document of which *lines* are the spec, with the usual image unless they name one."""
    text = web(name, extra="\n".join(lines))
    own = any(line.startswith("image:") for line in lines)
    return text.replace("  image: trimtab.local/web:1\n", "") if own else text


def told(host: Host, name: str) -> str:
    """Return what a service's conditions say, a line each."""
    conditions = host.resource(name).get("conditions", ())  # none while the controller starts
    holding = (each for each in conditions if each["status"] == "True")
    return "\n".join("{type} {reason}: {message}".format(**each) for each in holding)


def journaled(host: Host) -> dict[str, str]:
    """Return the journal's records of each service, a line each: with its file, or closing such a one."""
    lines: dict[str, list[str]] = defaultdict(list)
    opened: dict[str, str] = {}
    for record in host.records():
        if source := record.get("claims", {}).get("source"):
            # A Git source precedes its files by its name.
            file = str(source["file"]).rpartition(":")[2]
            opened[record["id"]] = file.removesuffix(".yaml")
        if record["id"] in opened:
            line = json.dumps(record, separators=(",", ":"), sort_keys=True)
            lines[opened[record["id"]]].append(line)
    return {name: "\n".join(found) for name, found in lines.items()}


def revisions(host: Host, name: str) -> list[str]:
    """The revisions that run."""
    return [
        str(c["Config"]["Labels"]["io.trimtab.revision"])
        for c in host.containers(name)
        if c["State"]["Status"] == "running"
    ]


@contextlib.contextmanager
def registries(host: Host) -> Iterator[tuple[Registry, Registry]]:
    """Have a registry that asks for ann's password, one that doesn't, and an empty one."""
    admit(host, LOCKED, DOWN, EMPTY)
    made: dict[str, Registry] = {}
    with contextlib.ExitStack() as stack:
        for address in (LOCKED, DOWN, EMPTY):
            folder = host.folder / address
            folder.mkdir()
            made[address] = Registry(folder, host.engine, host=address)
            stack.callback(made[address].stop)
        for scene in SCENES:
            if scene.image:
                made[scene.image.partition("/")[0]].push(scene.image, demo_images.web("1"))
        made[LOCKED].stop()
        made[LOCKED].let_in("first")
        made[LOCKED].start()
        yield made[LOCKED], made[DOWN]


def test_what_serves_goes_on_serving_whatever_the_next_revision_is_like(host: Host) -> None:
    names = [scene.name for scene in SCENES]
    credentials = host.folder / "registry.json"
    write_credentials(credentials, LOCKED, "first")
    for scene in SCENES:
        image = (f"image: {scene.image}",) if scene.image else ()
        host.write(f"{scene.name}.yaml", document(scene.name, *image, QUICK))
    with contextlib.ExitStack() as stack:
        locked, down = stack.enter_context(registries(host))
        stack.enter_context(host.running("--registry-auth", str(credentials)))
        client = stack.enter_context(asking(host, *names))
        old = {name: revisions(host, name) for name in names}
        for name in names:
            eventually(lambda name=name: held(host, name), what=f"{name} is good")  # type: ignore[misc]
        eventually(lambda: all(client.answers(name) for name in names))
        locked.let_in("second")
        down.stop()
        for scene in SCENES:
            host.write(f"{scene.name}.yaml", document(scene.name, *scene.revision))

        await_ends(host, SCENES, old)
        serve_on(client, *names)
        assert client.failures() == []


def await_ends(host: Host, scenes: Sequence[Scene], old: Mapping[str, list[str]]) -> None:
    """Wait until of each scene that serves which is to, and is told; *old* is what ran before."""

    def ended(scene: Scene) -> bool:
        now = revisions(host, scene.name)
        new = len(now) == 1 and now != old[scene.name]
        there = new if scene.ends == "new" else now == old[scene.name]
        return there and re.search(scene.condition, told(host, scene.name)) is not None

    for scene in scenes:
        try:
            eventually(lambda scene=scene: ended(scene), what=scene.name)  # type: ignore[misc]
        except AssertionError as error:
            error.add_note(f"told: {told(host, scene.name)}; runs: {revisions(host, scene.name)}")
            error.add_note(f"recorded: {journaled(host)[scene.name]}")
            raise
    # A container that failed is removed once its last output was read.
    for scene in scenes:
        eventually(
            lambda scene=scene: re.search(scene.journal, journaled(host)[scene.name]),  # type: ignore[misc]
            what=f"{scene.journal} in the journal of {scene.name}",
        )


def held(host: Host, name: str) -> bool:
    """Tell whether a revision of a service was good, so that it may be gone back to."""
    return any(each["outcome"] == "good" for each in host.history(name))


def serve_on(client: Client, *names: str) -> None:
    """Wait until each service has answered once more."""
    before = {name: client.answers(name) for name in names}
    eventually(lambda: all(client.answers(n) > before[n] for n in names), what="it serves on")


def test_a_full_disk_of_the_journal_holds_a_rollout_up_and_costs_no_request(host: Host) -> None:
    slowly = "rollout: {minHealthy: 5s}"
    host.write("web.yaml", document("web", slowly))
    host.write("other.yaml", document("other"))
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(host.state / "broker", image=host.folder / "disk"))
        stack.enter_context(host.running())
        client = stack.enter_context(asking(host, "web"))
        eventually(lambda: client.answers("web"))
        (old,), (other,) = host.running_ids("web"), host.running_ids("other")
        host.write("web.yaml", document("web", GREEN, slowly))
        eventually(lambda: len(host.running_ids("web")) == 2, what="it is under way")

        def refused() -> int:
            done = host.docker_through_broker("kill", "--signal", "CONT", other, check=False)
            return done.returncode

        disk.leave(0)
        # What is left of the journal's last block takes a record or more.
        eventually(refused, what="no change is let through")
        eventually(lambda: "journal.unavailable" in told(host, "web"), what="a condition says so")
        assert old in host.running_ids("web")
        serve_on(client, "web")
        disk.free()
        eventually(lambda: rolled_out(host, "web"), what="it goes on to its end")
        assert client.failures() == []
        repairs = host.json("journal", "verify")["repairs"]
        assert any("No space left" in each["what"] for each in repairs), repairs


@contextlib.contextmanager
def listening(host: Host, port: int) -> Iterator[None]:
    """Another program that holds a port of the host."""
    code = (
        f"import socket, sys; s = socket.create_server(('127.0.0.1', {port}));"
        " print('listens', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        host.engine.inside(sys.executable, "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=host.environment(),
    )
    try:
        assert process.stdout is not None, "it is a pipe"
        assert process.stdout.readline() == b"listens\n"
        yield
    finally:
        process.communicate()


def published(port: int) -> str:
    return document("port", f"ports: [{{container: 8080, host: {port}}}]", QUICK)


#: It is about a second; this is for a machine that is busy with other things.
OUTAGE_MAX_MS = 20_000
VOLUME = "mounts: [{type: volume, source: data, target: /data}]"


def test_taken_ports_quick_edits_and_a_killed_controller_cost_no_request(host: Host) -> None:
    host.write("port.yaml", published(18200))
    host.write("volume.yaml", document("volume", VOLUME, QUICK))
    for name in ("edits", "killed"):
        host.write(f"{name}.yaml", document(name, QUICK))
    everybody = ("port", "volume", "edits", "killed")
    with contextlib.ExitStack() as stack:
        stack.callback(host.stop)
        host.up()
        host.await_ready()
        client = stack.enter_context(asking(host, "edits", "killed"))
        impatient = stack.enter_context(asking(host, "port", "volume", patience_s=1.0))
        eventually(lambda: all(client.answers(name) for name in ("edits", "killed")))
        eventually(lambda: all(impatient.answers(name) for name in ("port", "volume")))
        (serves,) = host.running_ids("port")
        with listening(host, 18201):
            host.write("port.yaml", published(18201))
            host.write("edits.yaml", document("edits", SHELL % "exec sleep 999", QUICK))
            host.write("edits.yaml", document("edits", GREEN, QUICK))
            slowly = QUICK.replace("1s", "4s")
            host.write("killed.yaml", document("killed", GREEN, slowly))
            eventually(lambda: len(host.running_ids("killed")) == 2, what="it is under way")
            host.stop(signal.SIGKILL)
            host.up()
            taken = "port 18201 on 127.0.0.1 is taken by another program"
            eventually(lambda: taken in told(host, "port"), what="the port is told")
            assert host.running_ids("port") == [serves]
            assert impatient.failures("port") == []
        host.write("volume.yaml", document("volume", VOLUME, GREEN, QUICK))
        for name in everybody:
            eventually(lambda name=name: rolled_out(host, name), what=name)  # type: ignore[misc]
        assert host.running_ids("port") != [serves]
        journal = journaled(host)
        for name in everybody:
            assert re.search("revision is .*, want ", journal[name]), journal[name]
        # What only one can have is interrupted, for as long as a stop and a start take.
        for name in ("port", "volume"):
            serve_on(impatient, name)
            print(f"{name}: {impatient.outage_ms(name)} ms without an answer")
            assert impatient.outage_ms(name) < OUTAGE_MAX_MS
        assert client.failures() == []


#: Each fails in its own way, after what served was stopped for it; all but the first.
STOPPED_FOR = (
    Scene(
        "badtag",
        (f"image: {EMPTY}/team/app:none",),
        "old",
        "Stalled image.notfound: .*has no such image",
        '"code":"image.notfound"',
    ),
    Scene(
        "noexec",
        ("entrypoint: [/not/there]",),
        "old",
        "RolledBack Automatic: .*failed 3 times in a row: it failed to start",
        "rolled back by trimtab, since .*failed to start",
    ),
    Scene(
        "sick",
        (
            "healthcheck: {exec: [/bin/false], interval: 1s, timeout: 1s, retries: 2, startPeriod: 1s}",
        ),
        "old",
        "RolledBack Automatic: .*is unhealthy",
        "rolled back by trimtab, since .*is unhealthy",
    ),
)


def test_what_is_stopped_first_serves_again_whatever_the_next_revision_is_like(host: Host) -> None:
    """In the end the controller is told to end between a stop and a start: it ends after the start."""
    slowly = SHELL % "trap 'sleep 2; exit 0' TERM; /bin/serve & wait"
    host.write("data.yaml", document("data", VOLUME, slowly, QUICK))
    for scene in STOPPED_FOR:
        host.write(
            f"{scene.name}.yaml", document(scene.name, VOLUME.replace("data", scene.name), QUICK)
        )
    names = [scene.name for scene in STOPPED_FOR]
    with contextlib.ExitStack() as stack:
        stack.enter_context(registries(host))
        stack.enter_context(host.running())
        client = stack.enter_context(asking(host, *names, patience_s=1.0))
        (serves,) = host.running_ids("data")
        old = {name: revisions(host, name) for name in names}
        for name in names:
            eventually(lambda name=name: held(host, name), what=f"{name} is good")  # type: ignore[misc]
        eventually(lambda: all(client.answers(name) for name in names))
        for scene in STOPPED_FOR:
            volume = VOLUME.replace("data", scene.name)
            host.write(f"{scene.name}.yaml", document(scene.name, volume, *scene.revision, QUICK))

        await_ends(host, STOPPED_FOR, old)
        serve_on(client, *names)
        assert client.failures("badtag") == [], "nothing is stopped for what can't be had"
        for name in names:
            print(f"{name}: {client.outage_ms(name)} ms without an answer at a time")
            assert client.outage_ms(name) < OUTAGE_MAX_MS
        host.write("data.yaml", document("data", VOLUME, slowly, GREEN, QUICK))
        eventually(lambda: '"container.stop"' in journaled(host)["data"], what="it's being stopped")
        assert host.stop(signal.SIGTERM) == 0
        (follows,) = host.running_ids("data")
        assert follows != serves


def rolled_out(host: Host, name: str) -> bool:
    """Tell whether one replica is left, of what its document says."""
    resource = host.resource(name)
    return has(resource, "Ready") and revisions(host, name) == [resource["revision"]]


@pytest.mark.owns_engine
@pytest.mark.parametrize("live", [False, True], ids=["killed", "live-restore"])
def test_an_engine_killed_in_the_middle_ends_with_one_of_each_and_nothing_that_was_stopped(
    host: Host, live: bool
) -> None:
    """With live-restore what ran runs on, and nobody's request fails who holds the addresses that DNS
    told: that is silent while the engine is away. What outlived an engine of 26.1 can't be joined to its network
    again, and so can't be given its name: that successor is replaced by another one. Of what ends then the engine
    leaves the interface behind, and gives its address away; until the kernel has taken that away, which takes
    long on a busy machine, requests end there and not at who has the address now.

    Nor can it leave: a predecessor that outlived the engine has the address of the slot until its end, however
    long that takes, and takes no requests there any more.
    """
    slowly = "rollout: {minHealthy: 3s}"
    ends_slowly = SHELL % "trap 'kill $P; sleep 3; exit 0' TERM; /bin/serve & P=$!; wait"
    host.write("web.yaml", document("web", slowly))
    host.write("rests.yaml", document("rests"))
    engine = host.engine
    assert isinstance(engine, PrivateEngine), "it owns its engine"
    with contextlib.ExitStack() as stack:
        if live:
            stack.callback(plain, engine)
            engine.options = ("--live-restore",)
            engine.restart()
        stack.enter_context(host.running())
        host.write("rests.yaml", document("rests", "state: Stopped"))
        eventually(lambda: not host.running_ids("rests"))
        client = stack.enter_context(asking(host, "web"))
        eventually(lambda: client.answers("web"))
        host.write("web.yaml", document("web", ends_slowly, slowly))
        eventually(lambda: len(host.running_ids("web")) == 2, what="it is under way")
        before = started(host)
        killed = time.monotonic()
        engine.kill()
        engine.start()
        if live:
            assert before.items() <= started(host).items(), "what ran runs on"
        eventually(lambda: rolled_out(host, "web"))
        eventually(lambda: len(host.containers("web")) == 1, what="its predecessor is cleared away")
        assert host.running_ids("rests") == []
        assert len(host.containers("rests")) == 1
        if live:
            lost = [from_an_end_until_nothing_is_left(host, killed)]
            serve_on(client, "web")
            (outlives,) = host.containers("web")
            killed = time.monotonic()
            engine.kill()
            engine.start()
            host.write("web.yaml", document("web", GREEN, ends_slowly, slowly))
            eventually(
                lambda: host.running_ids("web") != [outlives["Id"]] and rolled_out(host, "web"),
                what="what outlived the engine is replaced",
            )
            eventually(lambda: [*map(at, host.containers("web"))] == [at(outlives)])
            lost.append(from_an_end_until_nothing_is_left(host, killed))
            serve_on(client, "web")
            assert [each for each in client.failures() if not within(each, lost)] == [], lost


def at(container: Mapping[str, Any]) -> str:
    """Return the address of a container; '' while it moves to another one."""
    return str(container["NetworkSettings"]["Networks"].get(NETWORK, {}).get("IPAddress", ""))


def from_an_end_until_nothing_is_left(host: Host, since: float) -> tuple[float, float]:
    """Wait until no interface of what ended is left; return when the first container ended since, and now.

    By the clock of those who ask.
    """
    eventually(lambda: not left_behind(host), what="nothing is left of what ended")
    gone, now = time.monotonic(), SystemClock().now()
    span = (f"--since={now - gone + since:.3f}", f"--until={now:.3f}")
    argv = ("events", *span, "--filter=event=die", "--format={{.TimeNano}}")
    first, *_ = host.engine.docker(*argv).stdout.split()
    return int(first) / 1e9 - now + gone, gone


def within(failure: Sequence[str], spans: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a request was under way at a time within one of *spans*."""
    _, _, took_ms, began = failure
    ended = float(began) + int(took_ms) / 1000
    return any(float(began) <= end and start <= ended for start, end in spans)


def left_behind(host: Host) -> bool:
    """Tell whether the network has interfaces that are no container's."""
    (network,) = json.loads(host.engine.docker("network", "inspect", NETWORK).stdout)
    argv = host.engine.inside("ip", "-brief", "link", "show", "master", f"br-{network['Id'][:12]}")
    shown = subprocess.run(argv, env=host.environment(), capture_output=True, text=True, check=True)
    return len(shown.stdout.splitlines()) > len(network["Containers"])


def started(host: Host) -> dict[str, str]:
    """When each container of the service that runs was started, by its id."""
    running = (c for c in host.containers("web") if c["State"]["Running"])
    return {str(c["Id"]): str(c["State"]["StartedAt"]) for c in running}


def plain(engine: PrivateEngine) -> None:
    """Have the engine as it was, for the tests that follow."""
    engine.options = ()
    engine.restart()
