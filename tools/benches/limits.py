"""A client at all its limits at once, and what others notice of it: operators, services, breaches.

Services run under a controller and its broker. The engine has images with configurations as large as a
broker reads, and far larger ones. For a while a client opens connections without a
pause, makes volumes and networks, asks for lists, restarts containers, sends the largest bodies,
makes containers of those images and fills the journal. A second client does so without the connections, which take the places of the
first one's own requests. Meanwhile an operator pings the broker, containers of services are removed by
force, and a container of another client is joined to a foreign network behind the broker's back.

The processors are shared: with the clients, the engine, the controller and this bench. So an
operator's ping stands beside the same ping through a bare relay, which nobody floods (``relay``).
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, perf_counter
from typing import NamedTuple

import yaml

from controller.app.state_folder import trimtab_gid
from controller.system.sockets import connect_to_broker
from tests import engine as engines
from tests.gate.greedy import Greedy
from tests.gate.roles import ALICE, BOB, Peer
from tests.instance import Host, web
from tests.nasty_images import BEYOND, WITHIN, nasty_image
from tools import image_archive
from tools.benches.engine_api import ask, connection, starts
from tools.benches.gate import Caller
from tools.benches.measure import Figure, milliseconds, percentile, ratio, row, taken
from tools.benches.relay import relay

SECONDS = int(os.environ.get("SECONDS", "60"))
CAROL = 61005
IMAGE = "trimtab.local/worker:1"
NASTY = {"trimtab.local/nasty:1": BEYOND, "trimtab.local/nasty:2": WITHIN}
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
        for reference, size in NASTY.items():
            image_archive.load(engine.host, nasty_image(reference, size))
        host.up()
        stack.callback(host.stop)
        host.await_ready(within_s=120)
        bob = stack.enter_context(Peer(BOB, [trimtab_gid()]))
        bare = host.folder / "relay.sock"
        stack.enter_context(relay(bare, engine.socket))
        return measured(host, engine.socket, bob, bare)


def with_clients(host: Host) -> None:
    """Give the host's policy three clients."""
    policy = yaml.safe_load(Path(host.policy).read_text())
    owners = {ALICE: "alice", BOB: "bob", CAROL: "carol"}
    policy["clients"] = [{"uid": uid, "owner": owner} for uid, owner in owners.items()]
    path = host.folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    path.chmod(0o644)
    host.policy = str(path)


def measured(host: Host, engine: Path, bob: Peer, bare: Path) -> list[Figure]:
    broker = host.pid_of("broker")
    quiet_until = monotonic() + QUIET_S
    quiet = pings(host.broker_socket, lambda: monotonic() > quiet_until, operator=True)
    greedy = [
        Greedy(
            host.broker_socket,
            uid,
            group=trimtab_gid(),
            image=IMAGE,
            does=does,
            nasty=[*NASTY],
        )
        for uid, does in ((ALICE, "everything"), (CAROL, "requests"))
    ]
    began = monotonic()
    over = threading.Event()
    broker_socket = host.broker_socket
    acts: dict[str, Callable[[], list[Ping]]] = {
        "flooded": lambda: pings(broker_socket, over.is_set, operator=True),
        "over the socket of clients": lambda: pings(broker_socket, over.is_set),
        "through a bare relay": lambda: pings(bare, over.is_set),
        "an operator's list, flooded": lambda: reads(broker_socket, LIST, over.is_set),
        "the engine's own ping, flooded": lambda: reads(engine, PING, over.is_set),
    }
    healed, ended = [], []
    number = 0
    with ThreadPoolExecutor(len(acts)) as pool:
        pending = {name: pool.submit(act) for name, act in acts.items()}
        while monotonic() - began < SECONDS:
            next_at = monotonic() + EACH_S
            healed.append(heal(host, engine, f"s{number}"))
            ended.append(breach(host, engine, bob, number))
            number += 1
            over.wait(max(0.0, next_at - monotonic()))
        health = host_health(host)
        over.set()
    found = {"an operator's ping, quiet": quiet}
    found |= {name: future.result() for name, future in pending.items()}
    answers = [each.close() for each in greedy]
    status = Path(f"/proc/{broker}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    for name, asked in found.items():
        row_of(name, [each.whole_s for each in asked])
        if any(each.connect_s for each in asked):
            row_of("  until connected", [each.connect_s for each in asked])
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
    p99, bare_p99 = (
        percentile(sorted(each.whole_s for each in found[name]), 0.99)
        for name in ("flooded", "through a bare relay")
    )
    return [
        Figure("operator's ping beside a greedy client, p99", milliseconds(p99), "50 ms"),
        Figure("the same through a bare relay, p99", milliseconds(bare_p99), ""),
        Figure("operator's ping / bare relay, p99", ratio(p99, bare_p99), ""),
        Figure("heals of others' services, longest", milliseconds(max(healed)), "2 s"),
        Figure("a breach is ended after, longest", milliseconds(max(ended)), "1 s"),
        Figure("memory of the broker, most", f"{peak_kib // 1024} MiB", "200 MB"),
    ]


def row_of(name: str, seconds: list[float]) -> None:
    row(
        name,
        p50=milliseconds(percentile(sorted(seconds), 0.5)),
        p99=milliseconds(percentile(sorted(seconds), 0.99)),
        max=milliseconds(max(seconds)),
        count=str(len(seconds)),
    )


class Ping(NamedTuple):
    """A request over a new connection: the time until it was connected (0: not taken), and all."""

    connect_s: float
    whole_s: float


def pings(path: Path, over: Callable[[], bool], *, operator: bool = False) -> list[Ping]:
    """Ping a socket as root over new connections; as an *operator*, over the reserved socket."""
    found = []
    while not over():
        began = perf_counter()
        asked = operator_connection(path) if operator else connection(path)
        connected = perf_counter()
        read(asked, PING)
        found.append(Ping(connected - began, perf_counter() - began))
        threading.Event().wait(PING_S)
    return found


def operator_connection(path: Path) -> http.client.HTTPConnection:
    """Return a connection to a broker as trimtab's commands make it."""
    made = http.client.HTTPConnection("localhost", timeout=60)
    made.sock = connect_to_broker(path, timeout_s=60)
    return made


def reads(path: Path, target: str, over: Callable[[], bool]) -> list[Ping]:
    """Read something as root over new connections."""
    found = []
    while not over():
        found.append(Ping(0.0, taken(lambda: read(operator_connection(path), target))))
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
