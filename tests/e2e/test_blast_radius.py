"""What a controller may take down, and what an operator lets go, on a real engine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controller.app.process import SystemClock
from controller.cli.clients.socket_client import BrokerApi
from controller.engine.responses import encode_context
from controller.model import names
from controller.model.records import Context
from controller.system.sockets import has_listener
from tests.gate import wire
from tests.gate.roles import Peer
from tests.instance import TRIMTAB, Host, eventually, has, web

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

IMAGE = "trimtab.local/web:1"
#: Names are the engine's: other tests run instances beside the shared one.
NETWORK = "seven-services"
NAMES = tuple(f"s{number}" for number in range(7))
VOLUME = """\
apiVersion: trimtab/v1
kind: Volume
metadata: {name: data, owner: team}
spec: {}
"""


#: Asked seldom: the checks of dozens of containers keep processors busy.
SELDOM = "healthcheck: {exec: [/bin/echo], interval: 60s}"


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    """Seven declared services and a volume, for one test after the other."""
    host = Host(engine)
    host.use_networks_of_its_own(NETWORK)
    for name in NAMES:
        host.write(f"{name}.yaml", web(name, extra=SELDOM))
    host.write("data.yaml", VOLUME)
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def seven(shared: Host) -> Iterator[Host]:
    """The seven services as declared, under a running controller; whatever a test did to them is undone."""
    shared.up()
    shared.await_ready(*NAMES)
    started = shared.containers()
    eventually(lambda: all(counts_as_up(each) for each in started))
    yield shared
    shared.stop()


def counts_as_up(container: dict[str, Any]) -> bool:
    """Return True if the disruption budget counts a container as up: 5 s after its start."""
    started = datetime.fromisoformat(container["State"]["StartedAt"][:19] + "+00:00")
    return SystemClock().now() - started.timestamp() > 7


class Usurper:
    """Somebody with the controller's user, and a client made by hand."""

    def __init__(self, host: Host, peer: Peer, connection: socket.socket | None = None) -> None:
        self._socket = host.broker_socket
        self._peer = peer
        self._connection = connection

    def ask(self, method: str, path: str, body: object = None, *, plan: str = "") -> wire.Answer:
        """Send one request as the controller does, as part of *plan*."""
        claim = encode_context(Context(cause="all of it", plan=plan))
        target = f"/v1.45{path}".encode()
        data = None if body is None else json.dumps(body).encode()
        raw = wire.request(method, target, data, headers={"Trimtab-Context": claim})
        return wire.ask(self._connection or self._peer.connect(self._socket), raw)

    def upload(self, path: str, data: bytes) -> wire.Answer:
        """Send bytes as the controller does."""
        claim = encode_context(Context(cause="all of it"))
        kind = "application/octet-stream"
        raw = wire.request(
            "POST", path.encode(), data, headers={"Trimtab-Context": claim, "Content-Type": kind}
        )
        return wire.ask(self._connection or self._peer.connect(self._socket), raw)

    def stop(self, identifier: str, *, plan: str = "") -> tuple[int, str]:
        """Ask for a stop; return status and rule."""
        answer = self.ask("POST", f"/containers/{identifier}/stop?t=1", plan=plan)
        return answer.status, answer.rule

    def update(self, identifier: str, **limits: object) -> int:
        """Ask for other limits; return the status."""
        return self.ask("POST", f"/containers/{identifier}/update", limits).status

    def start_helper(self, name: str, *command: str) -> tuple[int, int]:
        """Create and start another slot of a service; return both statuses."""
        revision = "v2:" + "cd" * 32
        labels = {
            names.OWNER: "team",
            names.NAMESPACE: "default",
            names.SERVICE: name,
            names.SLOT: "9",
            names.REVISION: revision,
            names.IMAGE: IMAGE,
        }
        body = {
            "Image": IMAGE,
            "Entrypoint": [],
            "Cmd": list(command),
            "Labels": labels,
            "HostConfig": {"NetworkMode": NETWORK, "RestartPolicy": {"Name": "no"}},
            "NetworkingConfig": {"EndpointsConfig": {NETWORK: {"Aliases": [name]}}},
        }
        called = names.container_name("default", name, slot=9, revision=revision, attempt=1)
        made = self.ask("POST", f"/containers/create?name={called}", body)
        started = self.ask("POST", f"/containers/{(made.json or {}).get('Id', '')}/start")
        return made.status, started.status


def connections(host: Host, peer: Peer) -> list[socket.socket]:
    """Return a connection for each service, to be used side by side."""
    return [peer.connect(host.broker_socket) for _ in NAMES]


@contextmanager
def broker_alone(host: Host, policy: str = "") -> Iterator[None]:
    """Have a broker without a controller during the block."""
    argv = [TRIMTAB, "broker", "--policy", policy or host.policy, "--state", str(host.state)]
    with host.log.open("ab") as log:
        broker = subprocess.Popen(
            host.engine.inside(*argv), env=host.environment(), stdout=log, stderr=log
        )
    try:
        eventually(lambda: has_listener(host.broker_socket), what="the broker serves")
        yield
    finally:
        broker.terminate()
        broker.wait(timeout=60)


@contextmanager
def controllers_user(host: Host) -> Iterator[Peer]:
    """Be the controller's user, once the instance has ended."""
    status = Path(f"/proc/{host.pid_of('controller')}").stat()
    host.stop()
    with Peer(status.st_uid, [status.st_gid]) as peer:
        yield peer


@contextmanager
def usurped(host: Host) -> Iterator[Usurper]:
    """Have the controller's user, while the controller itself is ended and the broker serves."""
    with controllers_user(host) as peer, broker_alone(host):
        yield Usurper(host, peer)


def ids(host: Host) -> dict[str, str]:
    """Return the container of each service."""
    label = "io.trimtab.service"
    return {each["Config"]["Labels"][label]: each["Id"] for each in host.containers()}


def met_the_radius(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    refusals = (r for r in records if r["stage"] == "refusal")
    return [r for r in refusals if "blast.radius" in r["verdict"]["rules"]]


def running(host: Host) -> set[str]:
    """Return the services with a container that runs."""
    return {
        str(each["Config"]["Labels"][names.SERVICE])
        for each in host.containers()
        if each["State"]["Status"] == "running"
    }


def approve(host: Host, plan: str, *objects: str) -> str:
    broker = BrokerApi(host.broker_socket)
    shown = broker.post("approvals", {"plan": plan, "objects": list(objects)})["digest"]
    told = {"act": "approve", "plan": plan, "objects": list(objects), "note": "by hand"}
    return str(broker.post("records", {**told, "shown": shown})["id"])


@pytest.mark.needs_root
def test_a_controller_that_asks_to_stop_everything_stops_at_its_share(seven: Host) -> None:
    host, mine = seven, ids(seven)
    with controllers_user(host) as peer:
        with broker_alone(host), ThreadPoolExecutor(len(NAMES)) as pool:
            usurpers = [Usurper(host, peer, connection) for connection in connections(host, peer)]
            told = sorted(pool.map(Usurper.stop, usurpers, mine.values()))
            assert told == [(204, "")] * 3 + [(403, "blast.radius")] * 4
        up = sorted(running(host))
        assert len(up) == 4
        with broker_alone(host):
            usurper = Usurper(host, peer)
            # A new broker lets no more go.
            assert {usurper.stop(mine[name]) for name in up} == {(403, "blast.radius")}
            takes_no_more_in_other_ways(usurper, [mine[name] for name in up])
            down = sorted({*NAMES} - {*up})
            makes_room_and_goes_on(host, usurper, mine, up=up, down=down)
            needs_an_approval_for_a_volume(host, usurper)


def takes_no_more_in_other_ways(usurper: Usurper, identifiers: list[str]) -> None:
    for identifier in identifiers:
        for method, path in (
            ("DELETE", f"/containers/{identifier}?force=1"),
            ("POST", f"/containers/{identifier}/kill"),
            ("POST", f"/containers/{identifier}/pause"),
            ("POST", f"/containers/{identifier}/restart?t=1"),
        ):
            assert usurper.ask(method, path).rule == "blast.radius"


def makes_room_and_goes_on(
    host: Host, usurper: Usurper, mine: dict[str, str], *, up: list[str], down: list[str]
) -> None:
    """Of seven services *down* are down: one of them is removed, one started, and others may go."""
    gone, back, _ = down
    a, b, c, d = up
    # What is down may be removed, and what runs again isn't counted.
    assert usurper.ask("DELETE", f"/containers/{mine[gone]}").status == 204
    assert usurper.ask("POST", f"/containers/{mine[back]}/start").status == 204
    started = time.monotonic()
    eventually(lambda: usurper.stop(mine[a]) == (204, ""))
    assert time.monotonic() - started >= 4.9, "the one that was started had not run for 5 s"
    assert usurper.stop(mine[b]) == (403, "blast.radius")
    assert running(host) == {back, b, c, d}

    # With an approval exactly its objects, once, as part of its plan.
    plan = "ab" * 32
    record = approve(host, plan, mine[b], mine[c])
    assert usurper.stop(mine[b]) == (403, "blast.radius")
    assert usurper.stop(mine[d], plan=plan) == (403, "blast.radius")
    assert usurper.stop(mine[b], plan=plan) == (204, "")
    assert usurper.ask("POST", f"/containers/{mine[b]}/start").status == 204
    assert usurper.stop(mine[b], plan=plan) == (403, "blast.radius")
    assert usurper.stop(mine[c], plan=plan) == (204, "")
    assert running(host) == {back, b, d}
    intents = [r for r in host.records() if r["stage"] == "intent"]
    spent = [
        r["request"]["object"] for r in intents if f"approval:{record}" in r["verdict"]["rules"]
    ]
    assert sorted(spent) == sorted([mine[b], mine[c]])


def needs_an_approval_for_a_volume(host: Host, usurper: Usurper) -> None:
    assert usurper.ask("DELETE", "/volumes/data").rule == "volume.approval"
    approve(host, "cd" * 32, "volume:data")
    assert usurper.ask("DELETE", "/volumes/data", plan="ef" * 32).rule == "volume.approval"
    assert usurper.ask("DELETE", "/volumes/data", plan="cd" * 32).rule == "volume.not-dumped"
    host.cli("volume", "dump", "data", "-o", "data.tar")
    approve(host, "ce" * 32, "volume:data")
    assert usurper.ask("DELETE", "/volumes/data", plan="ce" * 32).status == 204
    assert usurper.ask("DELETE", "/volumes/data", plan="ce" * 32).status == 404


def stop_beside_a_helper(usurper: Usurper, name: str, identifier: str) -> int:
    """Stop a slot while another one runs, which ends by itself."""
    assert usurper.start_helper(name, "sleep", "4") == (201, 204)
    return usurper.ask("POST", f"/containers/{identifier}/stop?t=0").status


def poison(usurper: Usurper, _name: str, identifier: str) -> int:
    """Restart a program that can't start any process; return 204 if it was let through.

    The engine says 500 of about one in thirty such starts on a busy host: the one process that the
    limit allows ends before it is started.
    """
    usurper.update(identifier, RestartPolicy={"Name": "no"}, PidsLimit=1)
    answer = usurper.ask("POST", f"/containers/{identifier}/restart?t=0")
    return 204 if b"cannot start a stopped process" in answer.body else answer.status


def starve(usurper: Usurper, _name: str, identifier: str) -> int:
    return usurper.update(identifier, Memory=6 << 20, NanoCpus=10_000_000)


def disconnect(usurper: Usurper, _name: str, identifier: str) -> int:
    body = {"Container": identifier, "Force": True}
    return usurper.ask("POST", f"/networks/{NETWORK}/disconnect", body).status


def restart(usurper: Usurper, _name: str, identifier: str) -> int:
    return usurper.ask("POST", f"/containers/{identifier}/restart?t=0").status


def repair(usurper: Usurper, name: str, identifier: str) -> None:
    """Undo whatever was done."""
    always = {"Name": "always"}
    limits = {"PidsLimit": 256, "Memory": 2 << 30, "NanoCpus": 10**9}
    usurper.update(identifier, RestartPolicy=always, **limits)
    joined = {"Container": identifier, "EndpointConfig": {"Aliases": [name]}}
    usurper.ask("POST", f"/networks/{NETWORK}/connect", joined)
    usurper.ask("POST", f"/containers/{identifier}/start")


@pytest.mark.needs_root
@pytest.mark.timeout(600)
def test_helpers_poison_and_starvation_take_no_more_down_than_stops(seven: Host) -> None:
    host, mine = seven, ids(seven)
    with usurped(host) as usurper:
        for way in (stop_beside_a_helper, poison, starve, disconnect, restart):
            began, told, shares = time.monotonic(), [], []
            # A helper is a container more for each attempt: two beyond the share are enough.
            for name in NAMES[:5] if way is stop_beside_a_helper else NAMES:
                told.append(way(usurper, name, mine[name]))
                # What was restarted is up again after 5 s, and makes room for the next three.
                passed = int((time.monotonic() - began) / 5) if way is restart else 0
                shares.append(1 + passed)
            # The services that were repaired just now count still, and may go down again.
            assert [status < 400 for status in told[:3]] == [True] * 3, (way, told)
            for number, share in enumerate(shares, start=1):
                assert sum(status < 400 for status in told[:number]) <= 3 * share, (way, told)
            assert {status for status in told if status >= 400} == {403}
            assert usurper.ask("DELETE", f"/networks/{NETWORK}").rule == "blast.radius"
            if way is stop_beside_a_helper:  # once the helpers have ended
                eventually(lambda: running(host) == {*NAMES[3:]})
            assert running(host) >= {*NAMES[3:]}
            for name in NAMES[:3]:
                repair(usurper, name, mine[name])
    assert running(host) == {*NAMES}


def route_of(record: dict[str, Any]) -> str:
    return str(record.get("request", {}).get("route", ""))


def summary_of(record: dict[str, Any]) -> dict[str, Any]:
    return dict(record.get("request", {}).get("summary", {}))


def test_what_the_guard_holds_back_goes_once_it_is_approved(host: Host) -> None:
    """More services go at once than the share, by an approval, with the plan that was shown."""
    rounds = {"approve": ("approve", "--yes"), "apply": ("apply", "--approve-prune")}
    names = {each: [f"{each}{number}" for number in range(4)] for each in rounds}
    for name in (*names["approve"], *names["apply"], "stays"):
        host.write(f"{name}.yaml", web(name))
    with host.running():
        mine = ids(host)
        for each, command in rounds.items():
            for name in names[each]:
                host.remove(f"{name}.yaml")
            eventually(lambda: has(host.resource(names[each][3]), "PrunePending"))  # noqa: B023
            digest = host.json("plan", expect=2)["digest"]
            assert mine.keys() >= {*names[each]} == {*names[each]} & ids(host).keys()
            if each == "approve":
                refused = host.cli("approve", "00" * 32, "--yes", expect=64)
                assert "plan.changed" in refused.stderr
                assert "approve.unconfirmed" in host.cli("approve", expect=64).stderr
            shown = host.cli(*command, "--timeout", "90s")
            assert digest in shown.stdout
            assert ids(host).keys().isdisjoint(names[each])
            assert not host.resource(names[each][3])
            was_approved(host, digest, [mine[name] for name in names[each]])
        assert list(ids(host)) == ["stays"]
    records = host.records()
    assert met_the_radius(records) == []
    assert [route_of(r) for r in records].count("plan.approve") == len(rounds)


def was_approved(host: Host, digest: str, objects: list[str]) -> None:
    """Check that the last approval is of a plan and its objects, and that each was used."""
    records = host.records()
    approval = [r for r in records if route_of(r) == "plan.approve"][-1]
    told = approval["request"]["summary"]
    assert (told["plan"], sorted(told["objects"])) == (digest, sorted(objects))
    used = [
        record["request"]["object"]
        for record in records
        if record["stage"] == "intent"
        and f"approval:{approval['id']}" in record["verdict"]["rules"]
    ]
    assert sorted(used) == sorted(objects)


@pytest.mark.timeout(900)
def test_a_changed_variable_of_many_services_rolls_out_by_itself(host: Host) -> None:
    """Some stop first, three of them for their ports, without saying so; others start first.

    Replacements count as healthy long before the disruption budget counts them as up. In the end an
    operator takes all of it down.
    """
    stopping = [f"stop{number}" for number in range(5)]
    starting = [f"start{number}" for number in range(4)]

    def declare(names: list[str], order: str, level: int) -> None:
        for number, name in enumerate(names):
            how = f"rollout: {{order: {order}, minHealthy: 1s}}"
            if names is stopping and number < 3:
                how = "rollout: {minHealthy: 1s}\n"
                how += f"ports: [{{container: 8080, host: {18200 + number}, hostIP: 127.0.0.1}}]"
            extra = f'{how}\n{SELDOM}\nenv: {{LEVEL: "{level}"}}\nresources: {{memory: 32Mi}}'
            host.write(f"{name}.yaml", web(name, extra=extra))

    declare(stopping, "StopFirst", 1)
    declare(starting, "StartFirst", 1)
    host.command_timeout_s = 330
    with host.running():
        host.await_ready(*stopping, *starting, within_s=300)
        before = ids(host)
        declare(stopping, "StopFirst", 2)
        declare(starting, "StartFirst", 2)
        host.cli("apply", "--timeout", "300s")
        after = ids(host)
        assert after.keys() == before.keys()
        assert all(after[name] != before[name] for name in after)
    records = host.records()
    assert met_the_radius(records) == []
    assert [r for r in records if route_of(r) == "plan.approve"] == []
    host.cli("down")
    was_taken_down(host, len(stopping) + len(starting), separated=os.geteuid() == 0)


@pytest.mark.needs_root
def test_an_operator_with_the_controllers_uid_takes_all_of_it_down(host: Host) -> None:
    names = [f"o{number}" for number in range(4)]
    for name in names:
        host.write(f"{name}.yaml", web(name))
    host.up()
    host.await_ready(*names)
    status = Path(f"/proc/{host.pid_of('controller')}").stat()
    host.stop()
    # The same user is controller and operator: what it asks without a context is its own.
    text = Path(host.policy).read_text()
    own = host.folder / "operators.yaml"
    own.write_text(f"{text}\noperators: [{status.st_uid}]\n")
    user = [f"--reuid={status.st_uid}", f"--regid={status.st_gid}", "--clear-groups"]
    # The command may lie under a folder that only root may enter.
    user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    argv = ["setpriv", *user, TRIMTAB, "down", "--state", str(host.state)]
    with broker_alone(host, str(own)):
        down = subprocess.run(
            host.engine.inside(*argv),
            env=host.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=host.folder,
        )
        assert down.returncode == 0, down.stdout + down.stderr
    was_taken_down(host, len(names), separated=False)


def was_taken_down(host: Host, count: int, *, separated: bool) -> None:
    """Check that an operator removed everything, and that the journal says so."""
    assert host.containers() == []
    records = host.records()
    (act,) = [r for r in records if summary_of(r).get("act") == "down"]
    assert act["stage"] == "operator"
    assert act["actor"]["separated"] is separated
    removals = [
        r
        for r in records
        if r["stage"] == "intent" and route_of(r) == "container.remove" and r["seq"] > act["seq"]
    ]
    assert len(removals) == count
    assert {r["actor"]["role"] for r in removals} == {"operator"}
