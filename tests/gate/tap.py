"""A tap between broker and engine: it records every request, byte for byte, before it passes it on.

There is no registry in the tests: the tap answers pulls and questions to registries itself, and
tells of the trusted image the digest that a registry would have given it. Shielded, it also
answers everything that isn't a GET, so that what a careless gate lets through changes no engine.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.gate.wire import dechunked
from tools import dockerd

READ = 64 * 1024
#: The longest that a request is kept at the door.
HELD_S = 60.0
#: What a manifest's digest looks like; no manifest has this one.
DIGEST = "5ca1ab1e" * 8
_VERSION = re.compile(r"^/v[0-9.]+(?=/)")
_INSPECT = re.compile(r"^/images/(?P<name>.+)/json$")
_REGISTRY = re.compile(r"^/distribution/.+/json$")
#: As long as an id, and nobody's.
NO_ID = "0" * 64


@dataclass(slots=True)
class Tapped:
    """One request that reached the engine's side."""

    method: str
    target: str
    raw: bytes

    @property
    def path(self) -> str:
        """The path as the engine routes it, without the version."""
        return unquote(_VERSION.sub("", self.target.partition("?")[0]))

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def body(self) -> bytes:
        head, _, body = self.raw.partition(b"\r\n\r\n")
        return dechunked(body) if b"\r\ntransfer-encoding:" in head.lower() else body

    @property
    def json(self) -> Any:
        """The body as JSON, None where there is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def changes(self) -> bool:
        """Whether it is anything but a look."""
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


class Hold:
    """Requests that are kept at the engine's door: they arrived, and the engine knows nothing yet.

    So that what happens between a request's admission and its effect happens there, without a
    wait for a time. All that match are kept (at most *most* of them), until ``let_go`` or ``drop``.
    """

    def __init__(self, wanted: Callable[[Tapped], bool], most: float = inf) -> None:
        self.wanted = wanted
        self._most = most
        self.kept: list[Tapped] = []
        self._changed = threading.Condition()
        self._let_go: bool | None = None

    def pass_by(self, tapped: Tapped) -> bool:
        """Keep a request for as long as it takes; tell whether it goes on to the engine."""
        with self._changed:
            if self._let_go is not None or len(self.kept) >= self._most:
                return True  # what comes later isn't kept
            self.kept.append(tapped)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._let_go is not None, HELD_S)
            return bool(self._let_go)

    def await_kept(self, number: int = 1) -> list[Tapped]:
        """Return the requests once so many of them are at the door."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.kept) >= number, HELD_S)
            assert there, f"{len(self.kept)} of {number} came: {', '.join(map(str, self.kept))}"
            return list(self.kept)

    def let_go(self) -> None:
        """Let the engine have them."""
        self._end(let_go=True)

    def drop(self) -> None:
        """Hang up on them: the engine never hears of them."""
        self._end(let_go=False)

    def _end(self, *, let_go: bool) -> None:
        with self._changed:
            self._let_go = let_go if self._let_go is None else self._let_go
            self._changed.notify_all()


class Tap:
    """Serves *path* in threads until ``close``; ``since`` tells what went through."""

    def __init__(self, path: Path, *, engine_host: str, shielded: bool = False) -> None:
        self.path = path
        self._host = engine_host
        self.shielded = shielded
        self._lock = threading.Lock()
        self._seen: list[Tapped] = []
        self._holds: list[Hold] = []
        #: The requests that the tap itself answered.
        self.answered: list[Tapped] = []
        self.trusted_id = ""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end with their ends."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def mark(self) -> int:
        """Return a position for ``since``."""
        with self._lock:
            return len(self._seen)

    def since(self, mark: int) -> list[Tapped]:
        """Return the requests that came after a mark."""
        with self._lock:
            return self._seen[mark:]

    @contextlib.contextmanager
    def holding(self, method: str, path: str, *, most: float = inf) -> Iterator[Hold]:
        """Keep the requests of a method whose path matches; at the end they are let go.

        The method ``*`` is every one that changes something. After the first *most* requests, the
        others go on, or to a hold that was put up later.
        """
        pattern = re.compile(path)

        def wanted(told: Tapped) -> bool:
            of_method = told.changes if method == "*" else told.method == method
            return of_method and bool(pattern.fullmatch(told.path))

        hold = Hold(wanted, most)
        self._holds.append(hold)
        try:
            yield hold
        finally:
            self._holds.remove(hold)
            hold.let_go()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            tapped = _read(connection)
            if tapped is None:
                return
            with self._lock:
                self._seen.append(tapped)
            for hold in tuple(self._holds):
                if hold.wanted(tapped) and not hold.pass_by(tapped):
                    return
            answer = self._answer(tapped)
            if answer is not None:
                connection.sendall(answer)
                self.answered.append(tapped)
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
                engine.connect(self._host.removeprefix("unix://"))
                engine.sendall(_alone(tapped.raw))
                _pump(connection, engine, tapped)

    def _answer(self, tapped: Tapped) -> bytes | None:
        """Return the tap's own answer, None for the engine to give it."""
        if tapped.method == "POST" and tapped.path == "/images/create":
            return _reply(200, *PULLED)
        if tapped.method == "GET" and _REGISTRY.match(tapped.path):
            return _reply(200, {"Descriptor": {"digest": f"sha256:{DIGEST}"}, "Platforms": []})
        if tapped.method == "GET" and (asked := _INSPECT.match(tapped.path)):
            return self._image(asked["name"])
        if self.shielded and tapped.changes:
            return _reply(201, {"Id": NO_ID, "Name": "shielded", "Warnings": []})
        return None

    def _image(self, name: str) -> bytes:
        """Answer as an engine that pulled the trusted image from the registry of its name."""
        repository, _, digest = name.partition("@")
        asked = self.trusted_id if digest == f"sha256:{DIGEST}" else name
        status, body = dockerd.call(self._host, "GET", f"/images/{asked}/json")
        found = json.loads(body)
        if status == 200 and found["Id"] == self.trusted_id:
            repositories = {_repository(tag) for tag in [*found["RepoTags"], repository]}
            known = sorted(each for each in repositories if "/" in each)
            found["RepoDigests"] = [f"{each}@sha256:{DIGEST}" for each in known]
        return _reply(status, found)


def _alone(raw: bytes) -> bytes:
    """Return a request after which the engine ends the connection: each one is to be seen."""
    head, end, body = raw.partition(b"\r\n\r\n")
    told = re.search(rb"\r\nconnection:", head, re.IGNORECASE)
    return raw if told else head + b"\r\nConnection: close" + end + body


PULLED = (
    {"status": "Pulling from a registry", "id": "1.2.3"},
    {"status": f"Digest: sha256:{DIGEST}"},
    {"status": "Status: Image is up to date"},
)


def _repository(reference: str) -> str:
    head, slash, last = reference.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _reply(status: int, *lines: object) -> bytes:
    body = b"".join(json.dumps(line).encode() + b"\r\n" for line in lines)
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _read(connection: socket.socket) -> Tapped | None:
    """Read a head and the body that its Content-Length announces; the rest is pumped."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = connection.recv(READ)
        if not part:
            break
        raw += part
    if not raw:
        return None
    head, _, body = raw.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].decode("utf-8", "replace").split(" ")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0:
        part = connection.recv(READ)
        if not part:
            break
        raw, missing = raw + part, missing - len(part)
    return Tapped(words[0], words[1] if len(words) > 1 else "", raw)


def _pump(client: socket.socket, engine: socket.socket, tapped: Tapped) -> None:
    """Carry bytes both ways until both ends are done; more of the client is recorded, too."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, engine)
        selector.register(engine, selectors.EVENT_READ, client)
        while selector.get_map():
            for key, _ in selector.select():
                source, sink = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                part = source.recv(READ)
                if not part:
                    selector.unregister(source)
                    with contextlib.suppress(OSError):
                        sink.shutdown(socket.SHUT_WR)
                    if source is engine:
                        return
                    continue
                if source is client:
                    tapped.raw += part
                sink.sendall(part)
