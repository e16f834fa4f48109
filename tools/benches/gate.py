"""The gate: what it costs beside the engine's own socket, and what a flood of refusals costs others.

Both sockets are asked in turn, in one run, over connections that stand, for the same things.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from controller.app.state_folder import trimtab_gid
from controller.model import names
from tests import engine as engines
from tests.gate.fixtures import CONTEXT, IMAGE, RUNS, Gate
from tests.gate.load import Flood
from tests.gate.roles import ALICE, BOB, CONTROLLER, Peer
from tests.instance import eventually
from tools.benches.measure import milliseconds, percentile, row, taken

CREATES, READS, LISTED = 40, 400, 20
FLOOD_S = 20
CONNECTIONS = 1000
#: What strict makes of a create that asks for nothing, so that the engine has the same to do.
HOST = {
    "NetworkMode": "none",
    "Memory": 2 * 1024**3,
    "MemorySwap": 2 * 1024**3,
    "NanoCpus": 10**9,
    "PidsLimit": 256,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
}


REVISION = "v1:" + "0123456789abcdef" * 4


def labels(slot: int) -> dict[str, str]:
    """Return what the controller labels a container with."""
    return {
        names.OWNER: "platform-team",
        names.NAMESPACE: "default",
        names.SERVICE: "bench",
        names.SLOT: str(slot),
        names.REVISION: REVISION,
        names.IMAGE: IMAGE,
    }


class Caller:
    """One connection that stands."""

    def __init__(self, made: socket.socket, headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("localhost")
        self._connection.sock = made
        self._headers = headers or {}

    def ask(self, method: str, path: str, body: object = None) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if sent else {})}
        self._connection.request(method, f"/v1.45{path}", sent, headers)
        answer = self._connection.getresponse()
        told = answer.read()
        assert answer.status < 400, f"{method} {path}: {answer.status} {told!r}"
        return json.loads(told) if told else None

    def send(self, path: str, content: bytes) -> None:
        """Send bytes to the broker's own API, which takes them."""
        status, told = self.offer(path, content)
        assert status == 200, f"{path}: {status} {told!r}"

    def offer(self, path: str, content: bytes) -> tuple[int, bytes]:
        """Send bytes to the broker's own API. Return status and answer."""
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        self._connection.request("POST", path, content, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def own(self, path: str) -> Any:
        """Ask the broker's own API."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        told = answer.read()
        assert answer.status == 200, f"{path}: {answer.status} {told!r}"
        return json.loads(told)


class Side:
    """The engine's socket, or the gate's."""

    def __init__(self, caller: Caller, *, prefix: str = "") -> None:
        self.caller = caller
        self._prefix = prefix
        self.made: list[str] = []
        self._number = 0

    def create_and_start(self) -> None:
        self._number += 1
        body = {"Image": IMAGE, "HostConfig": HOST, "Labels": labels(self._number)}
        name = f"{self._prefix}{names.container_name('default', 'bench', slot=self._number, revision=REVISION)}"
        made = self.caller.ask("POST", f"/containers/create?name={name}", body)["Id"]
        self.made.append(made)
        self.caller.ask("POST", f"/containers/{made}/start")

    def clear(self) -> None:
        for made in self.made:
            self.caller.ask("DELETE", f"/containers/{made}?force=1")
        self.made.clear()

    def list(self) -> None:
        assert len(self.caller.ask("GET", "/containers/json?all=1")) >= LISTED

    def inspect(self) -> None:
        self.caller.ask("GET", f"/containers/{self.made[0]}/json")


def run() -> None:
    if os.geteuid() != 0:
        print("  needs root: an engine of its own, and callers of other uids", file=sys.stderr)
        return
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        gate = Gate(folder, engine=engine.socket)
        stack.callback(gate.close)
        eventually(gate.serves, within_s=30, what="the broker's socket")
        engine.docker("tag", RUNS, IMAGE)
        vouch(gate.socket)
        peer = stack.enter_context(Peer(CONTROLLER, [trimtab_gid()]))
        broker = Side(Caller(peer.connect(gate.socket), {"Trimtab-Context": CONTEXT}))
        straight = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        straight.connect(str(engine.socket))
        direct = Side(Caller(straight), prefix="straight-")
        overhead(direct, broker)
        under_load(broker, gate)


def vouch(path: Path) -> None:
    operator = http.client.HTTPConnection("localhost")
    operator.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    operator.sock.connect(str(path))
    sent = json.dumps({"reference": IMAGE}).encode()
    headers = {"Content-Type": "application/json"}
    operator.request("POST", "/trimtab/v1/trust", sent, headers)
    answer = operator.getresponse()
    assert answer.status == 200, answer.read()
    operator.close()


def overhead(direct: Side, broker: Side) -> None:
    """Ask both sockets in turn."""
    waits: dict[str, tuple[list[float], list[float]]] = {}

    def compare(name: str, times: int, act: Callable[[Side], None], *, clear: bool) -> None:
        mine, theirs = waits.setdefault(name, ([], []))
        for _ in range(times):
            mine.append(taken(lambda: act(broker)))
            theirs.append(taken(lambda: act(direct)))
            if clear:
                broker.clear()
                direct.clear()

    compare("create + start", CREATES, Side.create_and_start, clear=True)
    for _ in range(LISTED):
        broker.create_and_start()
    direct.made = broker.made[:1]
    compare(f"list, {LISTED} containers", READS, Side.list, clear=False)
    compare("inspect", READS, Side.inspect, clear=False)
    direct.made = []
    broker.clear()
    for name, (mine, theirs) in waits.items():
        mine.sort()
        theirs.sort()
        for share in (0.5, 0.99):
            through, straight = percentile(mine, share), percentile(theirs, share)
            row(
                f"{name}, p{share * 100:.0f}",
                direct=milliseconds(straight),
                broker=milliseconds(through),
                overhead=milliseconds(through - straight),
            )


def under_load(broker: Side, gate: Gate) -> None:
    """Have the controller change things, alone and beside a thousand connections of others."""
    broker.create_and_start()
    quiet = changes(broker, lambda: False)
    flood = Flood(
        gate.socket,
        (ALICE, BOB, 61004, 61005),
        group=trimtab_gid(),
        connections=CONNECTIONS // 4,
        each=1_000_000,
        seconds=FLOOD_S,
    )
    loaded = changes(broker, lambda: flood.over)
    counted = flood.wait()
    broker.clear()
    for act, alone in quiet.items():
        beside = loaded[act]
        for share in (0.5, 0.99):
            before, after = percentile(alone, share), percentile(beside, share)
            row(
                f"{act}, p{share * 100:.0f}",
                alone=milliseconds(before),
                flooded=milliseconds(after),
                delay=milliseconds(after - before),
            )
    row(
        f"{CONNECTIONS} connections, {FLOOD_S} s",
        refused=f"{counted.refused:,}",
        turned_away=f"{sum(counted.answers.values()) - counted.refused:,}",
        changes=f"{sum(map(len, loaded.values())):,}",
    )


def changes(side: Side, over: Callable[[], bool]) -> dict[str, list[float]]:
    """Have the controller change things for a while, and return what each took, sorted."""
    running = side.made[0]
    waits: dict[str, list[float]] = {"pause or unpause": [], "create + start": []}
    until = monotonic() + FLOOD_S
    while monotonic() < until and not over():
        for verb in ("pause", "unpause") * 4:
            ask = partial(side.caller.ask, "POST", f"/containers/{running}/{verb}")
            waits["pause or unpause"].append(taken(ask))
        waits["create + start"].append(taken(side.create_and_start))
        side.caller.ask("DELETE", f"/containers/{side.made.pop()}?force=1")
    return {act: sorted(found) for act, found in waits.items()}
