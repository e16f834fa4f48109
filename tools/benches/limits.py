"""A client at all its limits at once, and what others notice of it: operators, services, breaches.

Services run under a controller and its broker. For a while a client opens connections without a
pause, makes volumes and networks, asks for lists, restarts containers, sends the largest bodies and
fills the journal. A second client does so without the connections, which take the places of the
first one's own requests. Meanwhile an operator pings the broker, containers of services are removed by
force, and a container of another client is joined to a foreign network behind the broker's back.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, perf_counter
from typing import NamedTuple

import yaml

from controller.app.users import trimtab_gid
from tests import engine as engines
from tests.gate.greedy import Greedy
from tests.gate.roles import ALICE, BOB, Peer
from tests.instance import Host, web
from tools.benches.engine_api import ask, connection, starts
from tools.benches.gate import Caller
from tools.benches.measure import Figure, milliseconds, percentile, row, taken

SECONDS = int(os.environ.get("SECONDS", "60"))
CAROL = 61005
IMAGE = "trimtab.local/worker:1"
PING, LIST = "/v1.45/_ping", "/v1.45/containers/json?all=1"
PING_S, READ_S, EACH_S, QUIET_S = 0.02, 0.2, 8.0, 3.0
#: Each service loses its container once: a second time the controller would wait on purpose.
SERVICES = int(SECONDS / EACH_S) + 2


def run() -> list[Figure]:
    if os.geteuid() != 0:
        print("  needs root: an engine of its own, and callers of other uids", file=sys.stderr)
        return []
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        host = Host(engine)
        stack.callback(host.close)
        with_clients(host)
        for number in range(SERVICES):
            text = web(f"s{number}", extra=f"image: {IMAGE}")
            host.write(f"s{number}.yaml", text.replace("  image: trimtab.local/web:1\n", ""))
        host.up()
        stack.callback(host.stop)
        host.await_ready(within_s=120)
        bob = stack.enter_context(Peer(BOB, [trimtab_gid()]))
        return measured(host, engine.socket, bob)


def with_clients(host: Host) -> None:
    """Give the host's policy three clients."""
    policy = yaml.safe_load(Path(host.policy).read_text())
    owners = {ALICE: "alice", BOB: "bob", CAROL: "carol"}
    policy["clients"] = [{"uid": uid, "owner": owner} for uid, owner in owners.items()]
    path = host.folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    path.chmod(0o644)
    host.policy = str(path)


def measured(host: Host, engine: Path, bob: Peer) -> list[Figure]:
    broker = host.pid_of("broker")
    quiet_until = monotonic() + QUIET_S
    quiet = pings(host.broker_socket, lambda: monotonic() > quiet_until)
    greedy = [
        Greedy(host.broker_socket, uid, group=trimtab_gid(), image=IMAGE, does=does)
        for uid, does in ((ALICE, "everything"), (CAROL, "requests"))
    ]
    began = monotonic()
    over = threading.Event()
    loaded: list[Ping] = []
    lists: list[float] = []
    floor: list[float] = []

    def watch() -> None:
        loaded.extend(pings(host.broker_socket, over.is_set))

    def list_all() -> None:
        lists.extend(reads(host.broker_socket, LIST, over.is_set))

    def watch_engine() -> None:
        floor.extend(reads(engine, PING, over.is_set))

    beside = [threading.Thread(target=act) for act in (watch, list_all, watch_engine)]
    for each in beside:
        each.start()
    healed, ended = [], []
    number = 0
    while monotonic() - began < SECONDS:
        next_at = monotonic() + EACH_S
        healed.append(heal(host, engine, f"s{number}"))
        ended.append(breach(host, engine, bob, number))
        number += 1
        over.wait(max(0.0, next_at - monotonic()))
    health = host_health(host)
    over.set()
    for each in beside:
        each.join()
    answers = [each.close() for each in greedy]
    status = Path(f"/proc/{broker}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    times = {
        "an operator's ping, quiet": [each.whole_s for each in quiet],
        "flooded": [each.whole_s for each in loaded],
        "  until connected": [each.connect_s for each in loaded],
        "an operator's list, flooded": lists,
        "the engine's own ping, flooded": floor,
    }
    for name, found in times.items():
        row(
            name,
            p50=milliseconds(percentile(sorted(found), 0.5)),
            p99=milliseconds(percentile(sorted(found), 0.99)),
            max=milliseconds(max(found)),
            count=str(len(found)),
        )
    row(
        "heals",
        p50=milliseconds(percentile(sorted(healed), 0.5)),
        max=milliseconds(max(healed)),
        count=str(len(healed)),
    )
    row("breaches", max=milliseconds(max(ended)), count=str(len(ended)))
    row("the broker", memory=f"{peak_kib // 1024} MiB", **health)
    for name, told in zip(("everything", "requests"), answers, strict=True):
        for answer, count in sorted(told.items()):
            row(f"  {name}: {answer}", count=f"{count:,}")
    p99 = percentile(sorted(times["flooded"]), 0.99)
    return [
        Figure("operator's ping beside a greedy client, p99", milliseconds(p99), "50 ms"),
        Figure("heals of others' services, longest", milliseconds(max(healed)), "2 s"),
        Figure("a breach is ended after, longest", milliseconds(max(ended)), "1 s"),
        Figure("memory of the broker, most", f"{peak_kib // 1024} MiB", "200 MB"),
    ]


class Ping(NamedTuple):
    """A ping over a new connection: the time until it was connected, and the whole time."""

    connect_s: float
    whole_s: float


def pings(path: Path, over: Callable[[], bool]) -> list[Ping]:
    """Ping a socket as root over new connections."""
    found = []
    while not over():
        began = perf_counter()
        asked = connection(path)
        connected = perf_counter()
        read(asked, PING)
        found.append(Ping(connected - began, perf_counter() - began))
        threading.Event().wait(PING_S)
    return found


def reads(path: Path, target: str, over: Callable[[], bool]) -> list[float]:
    """Read something as root over new connections, and return the seconds that each took."""
    found = []
    while not over():
        found.append(taken(lambda: read(connection(path), target)))
        threading.Event().wait(READ_S)
    return found


def read(asked: http.client.HTTPConnection, target: str) -> None:
    asked.request("GET", target)
    answer = asked.getresponse()
    told = answer.read()
    assert answer.status == 200, told
    asked.close()


def host_health(host: Host) -> dict[str, str]:
    asked = connection(host.broker_socket)
    told = Caller(asked.sock).own("/trimtab/v1/health")
    return {
        "stall": f"{told['loop']['longestStallMs']} ms",
        "refused": f"{told['connections']['refused']:,}",
    }


def heal(host: Host, engine: Path, name: str) -> float:
    """Remove the container of a service by force. Return the seconds until its successor starts."""
    (victim,) = host.containers(name)
    heard = starts(engine)
    ask(engine, "DELETE", f"/containers/{victim['Id']}?force=1")
    began = monotonic()
    next(service for service in heard if service == name)
    return monotonic() - began


def breach(host: Host, engine: Path, bob: Peer, number: int) -> float:
    """Join bob's container to a foreign network. Return the seconds until it is ended."""
    caller = Caller(bob.connect(host.broker_socket))
    body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
    made = caller.ask("POST", f"/containers/create?name=bob-{number}", body)["Id"]
    caller = Caller(bob.connect(host.broker_socket))
    caller.ask("POST", f"/containers/{made}/start")
    ask(engine, "POST", "/networks/none/disconnect", {"Container": made})
    ask(engine, "POST", "/networks/bridge/connect", {"Container": made})
    began = monotonic()
    while ask(engine, "GET", f"/containers/{made}/json")["State"]["Running"]:
        assert monotonic() - began < 60, "nobody ended the breach"
        threading.Event().wait(0.02)
    took = monotonic() - began
    ask(engine, "DELETE", f"/containers/{made}?force=1")
    return took
