"""The two sides of the contract: the simulated engine and a dockerd, asked in the same words."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from tests.engine import Engine
from tests.sim.clock import VirtualClock
from tests.sim.engine import SimEngine
from tests.sim.objects import SimImage

API = "/v1.45"
LABEL = "contract.test"
WORKER = "trimtab.local/worker:1"
WEB = "trimtab.local/web:1"
PATIENCE_S = 20.0

#: The demo images, as the simulation has them.
IMAGES = (
    SimImage(WORKER, "sha256:" + "1" * 64, command=("/bin/work",), labels=(("io.demo", "w"),)),
    SimImage(
        WEB,
        "sha256:" + "2" * 64,
        labels=(("io.demo", "b"),),
        exposed=("8080/tcp",),
        healthcheck={
            "Test": ["CMD", "/bin/wget"],
            "Interval": 5_000_000_000,
            "StartPeriod": 10_000_000_000,
            "StartInterval": 1_000_000_000,
            "Retries": 3,
        },
    ),
)


class Side(Protocol):
    """An engine to ask, and ways to let time pass and to restart it."""

    def raw(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]: ...

    def now(self) -> float: ...

    def let_pass(self, seconds: float) -> None: ...

    def restart(self, *, killed: bool) -> None: ...

    def is_ready(self, identifier: str) -> bool:
        """Return True if a started worker is ready to handle signals: it has printed a line."""
        ...


class SimSide:
    """The simulation, on virtual time."""

    def __init__(self) -> None:
        self.engine = SimEngine(VirtualClock(), images=IMAGES)

    def raw(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        return self.engine.call(method, target, body)

    def now(self) -> float:
        return self.engine.clock.now()

    def let_pass(self, seconds: float) -> None:
        self.engine.clock.advance(seconds)
        self.engine.settle()

    def restart(self, *, killed: bool) -> None:
        self.engine.engine_restart(killed=killed)

    def is_ready(self, identifier: str) -> bool:
        return True  # a simulated process handles signals from its start


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


class RealSide:
    """A dockerd, on real time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def raw(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        connection = _UnixConnection(self._engine.socket)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, API + target, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)

    def let_pass(self, seconds: float) -> None:
        time.sleep(seconds)

    def restart(self, *, killed: bool) -> None:
        if killed:
            self._engine.kill()
            self._engine.start()
        else:
            self._engine.restart()

    def is_ready(self, identifier: str) -> bool:
        return bool(self.raw("GET", f"/containers/{identifier}/logs?stdout=1&tail=1", None)[1])


@dataclass(slots=True)
class Asked:
    """One answer, for assertions."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


@dataclass(slots=True)
class Conversation:
    """What a test says to one side; it removes what it made."""

    side: Side
    _made: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Asked:
        encoded = {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
        target = f"{path}?{urlencode(encoded)}" if encoded else path
        return Asked(*self.side.raw(method, target, None if body is None else _bytes(body)))

    def create(self, name: str, image: str = WORKER, **body: Any) -> str:
        """Create a container that must be creatable; return its id."""
        made = self.create_raw(name, image, **body)
        assert made.status == 201, made.body
        return str(made.json["Id"])

    def create_raw(self, name: str, image: str = WORKER, **body: Any) -> Asked:
        labels = {LABEL: name, **body.pop("Labels", {})}
        host = {"NetworkMode": "none", **body.pop("HostConfig", {})}
        asked = {"Image": image, "Labels": labels, "HostConfig": host, **body}
        return self.ask("POST", "/containers/create", asked, name=name)

    def run(self, name: str, image: str = WORKER, **body: Any) -> str:
        identifier = self.create(name, image, **body)
        if image == WORKER and not {"Entrypoint", "Cmd"} & body.keys():
            self.start_worker(identifier)
        else:
            assert self.act(identifier, "start") == 204
        return identifier

    def start_worker(self, identifier: str) -> None:
        """Start a container of WORKER and wait until it handles SIGTERM."""
        assert self.act(identifier, "start") == 204
        self.until(lambda: self.side.is_ready(identifier))

    def act(self, identifier: str, verb: str, body: Any = None, **query: Any) -> int:
        return self.ask("POST", f"/containers/{identifier}/{verb}", body, **query).status

    def inspect(self, identifier: str) -> Any:
        return self.ask("GET", f"/containers/{identifier}/json").json

    def state(self, identifier: str) -> Any:
        return self.inspect(identifier)["State"]

    def status(self, identifier: str) -> str:
        return str(self.state(identifier)["Status"])

    def network(self, name: str, **body: Any) -> str:
        made = self.ask("POST", "/networks/create", {"Name": name, "Labels": {LABEL: ""}, **body})
        assert made.status == 201, made.body
        return str(made.json["Id"])

    def until(self, holds: Callable[[], bool]) -> None:
        """Let time pass until something holds."""
        waited = 0.0
        while not holds():
            assert waited < PATIENCE_S, "it never came to hold"
            self.side.let_pass(0.05)
            waited += 0.05

    def clean(self) -> None:
        mine = {"label": [LABEL]}
        for each in self.ask("GET", "/containers/json", all="1", filters=mine).json:
            self.ask("DELETE", f"/containers/{each['Id']}", force="1", v="1")
        for each in self.ask("GET", "/networks", filters=mine).json:
            self.ask("DELETE", f"/networks/{each['Id']}")
        for each in self.ask("GET", "/volumes").json["Volumes"]:
            if each["Name"].startswith("contract-"):
                self.ask("DELETE", f"/volumes/{each['Name']}")


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()
