"""Rollouts on a real engine, with a client that asks by name throughout.

All services are rolled out at once in one instance, each to a revision that is bad in its own way
(or good). What serves goes on serving without one failed request; status and journal tell why.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.engine import PrivateEngine
from tests.instance import Host, eventually, has, web

QUICK = "rollout: {minHealthy: 1s, progressDeadline: 25s}"
CHECK = (
    'healthcheck: {exec: [/bin/wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s,'
    " timeout: 1s, retries: 2, startPeriod: %s}"
)
ASKER = Path(__file__).with_name("asker.py")
SHELL = 'entrypoint: [/bin/sh, -c, "%s"]'


@dataclass(frozen=True, slots=True)
class Scene:
    """A second revision, what becomes of it, and what status or journal must say."""

    name: str
    revision: tuple[str, ...]
    ends: str  # new, or old
    says: str = ""  # a pattern


SCENES = (
    Scene("good", ("env: {COLOUR: green}", QUICK), "new"),
    Scene("badtag", ("image: trimtab.local/web:none", QUICK), "old", "image|pull|trimtab.local"),
    Scene(
        "nobind",
        ("mounts: [{type: bind, source: /tmp/isnt/there, target: /x, readOnly: true}]", QUICK),
        "old",
        "/tmp/isnt",
    ),
    Scene(
        "oom",
        (SHELL % "exec tail /dev/zero", "resources: {memory: 32Mi}", QUICK),
        "old",
        "out of memory",
    ),
    Scene(
        "dies",
        (SHELL % "/bin/serve & sleep 5; exit 3", "rollout: {minHealthy: 8s}"),
        "old",
        "failed 3 times in a row|exited with 3",
    ),
    Scene(
        "never",
        (
            "healthcheck: {exec: [/bin/false], interval: 1s, timeout: 1s, retries: 2, startPeriod: 0s}",
            QUICK,
        ),
        "old",
        "unhealthy",
    ),
    Scene("slow", (SHELL % "sleep 6; exec /bin/serve", CHECK % "20s", QUICK), "new"),
    Scene("late", (SHELL % "sleep 90; exec /bin/serve", CHECK % "2s", QUICK), "old", "unhealthy"),
)


@contextlib.contextmanager
def asking(host: Host, *names: str, network: str = "platform-network") -> Iterator[Client]:
    """Ask each service again and again, from a stranger's container on the network."""
    options = ["run", "--detach", "--init", "--network", network]
    stranger = host.engine.docker(*options, "trimtab.local/worker:1").stdout.strip()
    pid = host.engine.docker("inspect", "--format", "{{.State.Pid}}", stranger).stdout.strip()
    said = host.folder / f"asked-{pid}.log"
    with said.open("wb") as out:
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, str(ASKER), *names]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out)
        try:
            yield Client(said)
        finally:
            process.communicate()
            host.engine.docker("rm", "--force", stranger)


@dataclass(frozen=True, slots=True)
class Client:
    """A client that asks, and what it got."""

    said: Path

    def answers(self, name: str) -> int:
        return sum(each[:2] == [name, "ok"] for each in self._lines())

    def failures(self, name: str = "") -> list[list[str]]:
        return [each for each in self._lines() if each[1] != "ok" and name in ("", each[0])]

    def outage_ms(self, name: str) -> int:
        """The longest time between two good answers, from the first failure on."""
        good = [float(each[3]) for each in self._lines() if each[:2] == [name, "ok"]]
        return round(1000 * max((b - a for a, b in pairwise(good)), default=0.0))

    def _lines(self) -> list[list[str]]:
        whole = self.said.read_text().rpartition("\n")[0]
        return [line.split("\t") for line in whole.splitlines()]


def told(host: Host, name: str) -> str:
    """All that status and journal say of a service."""
    resource = host.resource(name)
    conditions = [f"{c['type']} {c['reason']} {c['message']}" for c in resource["conditions"]]
    history = host.cli("history", name).stdout
    causes = [str(r.get("claims", {}).get("cause")) for r in host.journal("--service", name)]
    return "\n".join([*conditions, history, *causes])


def revisions(host: Host, name: str) -> list[str]:
    """The revisions that run."""
    return [
        str(c["Config"]["Labels"]["io.trimtab.revision"])
        for c in host.containers(name)
        if c["State"]["Status"] == "running"
    ]


def test_what_serves_goes_on_serving_whatever_the_next_revision_is_like(host: Host) -> None:
    names = [scene.name for scene in SCENES]
    for name in names:
        host.write(f"{name}.yaml", web(name, extra=QUICK))
    with host.running(), asking(host, *names) as client:
        old = {name: revisions(host, name) for name in names}
        eventually(lambda: all("good" in host.cli("history", n).stdout for n in names))
        eventually(lambda: all(client.answers(name) for name in names))
        for scene in SCENES:
            text = web(scene.name, extra="\n".join(scene.revision))
            if scene.revision[0].startswith("image:"):
                text = text.replace("  image: trimtab.local/web:1\n", "")
            host.write(f"{scene.name}.yaml", text)

        def ended(scene: Scene) -> bool:
            now = revisions(host, scene.name)
            if scene.ends == "new":
                return len(now) == 1 and now != old[scene.name]
            return now == old[scene.name] and any(
                has(host.resource(scene.name), word) for word in ("RolledBack", "Stalled")
            )

        for scene in SCENES:
            eventually(lambda scene=scene: ended(scene), what=scene.name)  # type: ignore[misc]
        for scene in SCENES:
            assert re.search(scene.says, told(host, scene.name)), told(host, scene.name)
        before = {name: client.answers(name) for name in names}
        eventually(lambda: all(client.answers(n) > before[n] for n in names), what="it serves on")
        assert client.failures() == []


@contextlib.contextmanager
def listening(host: Host, port: int) -> Iterator[None]:
    """Another program that holds a port of the host."""
    code = f"import socket, sys; s = socket.create_server(('127.0.0.1', {port})); sys.stdin.read()"
    argv = host.engine.inside(sys.executable, "-c", code)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env=host.environment())
    try:
        yield
    finally:
        process.communicate()


def published(port: int) -> str:
    return web("port", extra=f"ports: [{{container: 8080, host: {port}}}]\n{QUICK}")


def test_taken_ports_quick_edits_and_a_killed_controller_cost_no_request(host: Host) -> None:
    host.write("port.yaml", published(18200))
    for name in ("edits", "killed"):
        host.write(f"{name}.yaml", web(name, extra=QUICK))
    with contextlib.ExitStack() as stack:
        stack.callback(host.stop)
        host.up()
        host.await_ready()
        client = stack.enter_context(asking(host, "edits", "killed"))
        eventually(lambda: client.answers("edits") and client.answers("killed"))
        (serves,) = host.running_ids("port")
        with listening(host, 18201):
            host.write("port.yaml", published(18201))
            host.write("edits.yaml", web("edits", extra=f"{SHELL % 'exec sleep 999'}\n{QUICK}"))
            host.write("edits.yaml", web("edits", extra=f"env: {{COLOUR: green}}\n{QUICK}"))
            slowly = QUICK.replace("1s", "4s")
            host.write("killed.yaml", web("killed", extra=f"env: {{COLOUR: green}}\n{slowly}"))
            eventually(lambda: len(host.running_ids("killed")) == 2, what="it is under way")
            host.stop(signal.SIGKILL)
            host.up()
            eventually(lambda: "18201" in str(host.resource("port")), what="the port is told")
            assert host.running_ids("port") == [serves]
        for name in ("port", "edits", "killed"):
            eventually(lambda name=name: rolled_out(host, name), what=name)  # type: ignore[misc]
        assert host.running_ids("port") != [serves]
        assert client.failures() == []


def rolled_out(host: Host, name: str) -> bool:
    """Tell whether one replica is left, of what its document says."""
    resource = host.resource(name)
    return has(resource, "Ready") and revisions(host, name) == [resource["revision"]]


@pytest.mark.owns_engine
@pytest.mark.parametrize("live", [False, True], ids=["killed", "live-restore"])
def test_an_engine_killed_in_the_middle_ends_with_one_of_each_and_nothing_that_was_stopped(
    host: Host, live: bool
) -> None:
    slowly = "rollout: {minHealthy: 4s}"
    host.write("web.yaml", web(extra=slowly))
    host.write("rests.yaml", web("rests"))
    engine = host.engine
    assert isinstance(engine, PrivateEngine), "it owns its engine"
    with contextlib.ExitStack() as stack:
        if live:
            stack.callback(plain, engine)
            engine.options = ("--live-restore",)
            engine.restart()
        stack.enter_context(host.running())
        host.write("rests.yaml", web("rests", extra="state: Stopped"))
        eventually(lambda: not host.running_ids("rests"))
        client = stack.enter_context(asking(host, "web"))
        eventually(lambda: client.answers("web"))
        host.write("web.yaml", web(extra=f"env: {{COLOUR: green}}\n{slowly}"))
        eventually(lambda: len(host.running_ids("web")) == 2, what="it is under way")
        before = started(host)
        engine.kill()
        engine.start()
        if live:  # what ran went on running, and nobody was refused meanwhile
            assert before.items() <= started(host).items()
            # The engine's own DNS is down with it.
            assert [each for each in client.failures() if "no name" not in each[1]] == []
        eventually(lambda: rolled_out(host, "web"), within_s=30)
        eventually(lambda: len(host.containers("web")) == 1, what="its predecessor is cleared away")
        assert host.running_ids("rests") == []
        assert len(host.containers("rests")) == 1


def started(host: Host) -> dict[str, str]:
    """When each container of the service that runs was started, by its id."""
    running = (c for c in host.containers("web") if c["State"]["Running"])
    return {str(c["Id"]): str(c["State"]["StartedAt"]) for c in running}


def plain(engine: PrivateEngine) -> None:
    """Have the engine as it was, for the tests that follow."""
    engine.options = ()
    engine.restart()
