"""Healing: how long a removed container is away on a busy host, beside a bare create and start.

Fifty services run under a controller and its broker. One container after the other is removed by
force on the engine's own socket; measured is from the end of that to the start of its successor, as
the engine's events tell. Between two of them the same container is created and started on that
socket, with nobody in between. Both in one run, in turn.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from tests import engine as engines
from tests.instance import LABEL, Host, web
from tools.benches.measure import milliseconds, ratio, row

SERVICES, ROUNDS = 50, 20


def connection(path: Path) -> http.client.HTTPConnection:
    """Return a connection to the engine's socket."""
    made = http.client.HTTPConnection("localhost", timeout=60)
    made.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.sock.connect(str(path))
    return made


def ask(engine: Path, method: str, path: str, body: object = None) -> Any:
    """Ask the engine one thing."""
    asked = connection(engine)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    asked.request(method, f"/v1.45{path}", None if body is None else json.dumps(body), headers)
    answer = asked.getresponse()
    told = answer.read()
    asked.close()
    assert answer.status < 400, f"{method} {path}: {answer.status} {told!r}"
    return json.loads(told) if told else None


def starts(engine: Path) -> Iterator[str]:
    """Yield the service of each container of ours that is started, from now on."""
    return (labels[f"{LABEL}.service"] for labels in labels_of_starts(engine))


def labels_of_starts(engine: Path) -> Iterator[dict[str, str]]:
    """Return an iterator of the labels of each container of ours that is started, from now on."""
    asked = connection(engine)
    filters = {"type": ["container"], "event": ["start"], "label": [f"{LABEL}.managed=true"]}
    asked.request("GET", "/v1.45/events?filters=" + json.dumps(filters).replace(" ", ""))
    answer = asked.getresponse()
    lines = iter(answer.readline, b"")
    return (json.loads(line)["Actor"]["Attributes"] for line in lines)


def bare(engine: Path, like: dict[str, Any], number: int) -> float:
    """Create and start a container like another one; return the seconds that it took."""
    config, host = like["Config"], like["HostConfig"]
    network = host["NetworkMode"]
    body = {
        **{name: config[name] for name in ("Image", "Env", "Cmd", "StopTimeout")},
        "Labels": {f"bench.{n}": "x" for n in range(10)},
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [f"bare{number}"]}}},
    }
    began = monotonic()
    made = ask(engine, "POST", f"/containers/create?name=bare-{number}", body)["Id"]
    ask(engine, "POST", f"/containers/{made}/start")
    took_s = monotonic() - began
    ask(engine, "DELETE", f"/containers/{made}?force=1")
    return took_s


def run() -> None:
    if os.geteuid() != 0:
        print("  needs root: an engine of its own", file=sys.stderr)
        return
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        assert isinstance(engine, engines.PrivateEngine), "as root the engine is its own"
        host = Host(engine)
        stack.callback(host.close)
        for number in range(SERVICES):
            host.write(f"s{number}.yaml", web(f"s{number}", extra="image: trimtab.local/worker:1"))
            text = (host.directory / f"s{number}.yaml").read_text()
            host.write(f"s{number}.yaml", text.replace("  image: trimtab.local/web:1\n", ""))
        host.up()
        stack.callback(host.stop)
        host.await_ready(within_s=120)
        healed, plain = [], []
        for number in range(ROUNDS):
            name = f"s{number}"
            (victim,) = host.containers(name)
            plain.append(bare(engine.socket, victim, number))
            heard = starts(engine.socket)
            ask(engine.socket, "DELETE", f"/containers/{victim['Id']}?force=1")
            began = monotonic()
            next(service for service in heard if service == name)
            healed.append(monotonic() - began)
        one, other = statistics.median(healed), statistics.median(plain)
        row("removed to running again", p50=milliseconds(one), max=milliseconds(max(healed)))
        row("bare create and start", p50=milliseconds(other), max=milliseconds(max(plain)))
        row("ratio of the medians", ratio=ratio(one, other), goal="at most 1.5x")
