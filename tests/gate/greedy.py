"""A client at all its limits at once: connections, volumes, networks, lists, restarts, the journal,
and images with as large configurations as possible.

Silent connections take the places of the client's own requests. So it can hold back with one of
the two: ``connections`` alone, or ``requests`` alone.

Run as a script, it drops to the uid and goes on until its input ends, then prints how often it was
answered with each status. It needs only the standard library, and none of its folder is on its path.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Silent connections held at a time: more than any client may have.
HELD = 400
RESTARTED = 8
#: Containers of an image with a large configuration that each thread keeps.
NASTY_KEPT = 20
VARIABLES = [f"SECRET_{n}={'x' * 40}" for n in range(500)]
LISTS = (
    "/v1.45/containers/json?all=1",
    "/v1.45/volumes",
    "/v1.45/networks",
    "/v1.45/images/json",
    "/trimtab/v1/journal?limit=1000",
    "/trimtab/v1/inventory",
)


class Greedy:
    """The process of the client. ``close`` ends it and returns its answers by status."""

    def __init__(
        self,
        path: Path,
        uid: int,
        *,
        group: int,
        image: str,
        does: str,
        nasty: Sequence[str] = (),
    ) -> None:
        argv = [sys.executable, "-I", str(Path(__file__).resolve()), str(path), str(uid)]
        self._process = subprocess.Popen(
            [*argv, str(group), image, does, *nasty],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            text=True,
        )

    def close(self) -> dict[str, int]:
        """End the client. Return how often each act got each status."""
        told, _ = self._process.communicate("", timeout=60)
        return dict(json.loads(told)) if told else {}


class _Client:
    """What the threads of the client share."""

    def __init__(self, path: str, image: str, nasty: Sequence[str]) -> None:
        self.path = path
        self.image = image
        self.nasty = nasty
        self.over = threading.Event()
        self.answers: Counter[str] = Counter()

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(30)
        made.connect(self.path)
        return made

    def ask(self, act: str, method: str, path: str, body: object = None) -> Any:
        """Ask over a new connection. Return the JSON of the answer, None without one."""
        asked = http.client.HTTPConnection("localhost", timeout=30)
        try:
            asked.sock = self.connect()
            sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if sent else {}
            asked.request(method, path, sent, headers)
            answer = asked.getresponse()
            told = answer.read()
            self.answers[f"{act} {answer.status}"] += 1
            return json.loads(told) if answer.status < 300 and told else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.answers[f"{act} {type(error).__name__}"] += 1
            self.over.wait(0.05)
            return None
        finally:
            asked.close()

    def connections(self) -> None:
        held: deque[socket.socket] = deque()
        while not self.over.is_set():
            try:
                held.append(self.connect())
                self.answers["connection made"] += 1
            except OSError:
                self.over.wait(0.01)
            if len(held) > HELD:
                held.popleft().close()
        for each in held:
            each.close()

    def objects(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            labels = {f"l{n}": "x" * 4000 for n in range(15)}
            self.ask("volume", "POST", "/v1.45/volumes/create", {"Name": f"greedy-{number}"})
            self.ask("network", "POST", "/v1.45/networks/create", {"Name": f"greedy-{number}"})
            body = {"Name": f"greedy-l{number}", "Labels": labels}
            self.ask("labels", "POST", "/v1.45/volumes/create", body)

    def lists(self) -> None:
        while not self.over.is_set():
            for path in LISTS:
                self.ask("list", "GET", path)

    def journal(self) -> None:
        """Fill the journal: a name that is taken, with all the variables that are admitted."""
        body = {"Image": self.image, "Env": VARIABLES, "HostConfig": {"NetworkMode": "none"}}
        while not self.over.is_set():
            self.ask("create", "POST", "/v1.45/containers/create?name=greedy-0", body)

    def largest(self) -> None:
        """Send the largest bodies that are read, and a body in chunks that never ends."""
        many = b'{"Image":"x","Labels":{%s}}' % b",".join(b'"k%d":""' % n for n in range(9000))
        long = b'{"Image":"x","Cmd":["%s"]}' % (b"x" * (1024 * 1024 - 100))
        head = (
            b"POST /v1.45/containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n"
        )
        bomb = head + b"Content-Type: application/json\r\n\r\n" + b"1\r\n \r\n" * 200_000
        while not self.over.is_set():
            self.ask("many members", "POST", "/v1.45/containers/create", many)
            self.ask("long value", "POST", "/v1.45/containers/create", long)
            try:
                with self.connect() as connection:
                    connection.sendall(bomb)
                    connection.recv(4096)
                self.answers["chunks answered"] += 1
            except OSError:
                self.answers["chunks refused"] += 1

    def restarts(self) -> None:
        body = {"Image": self.image, "HostConfig": {"NetworkMode": "none"}}
        made: list[str] = []
        while not self.over.is_set() and len(made) < RESTARTED:
            me = threading.get_ident()
            name = f"greedy-r{me}-{len(made)}"
            found = self.ask("create", "POST", f"/v1.45/containers/create?name={name}", body)
            if found is not None:
                made.append(found["Id"])
        while not self.over.is_set():
            for identifier in made:
                path = f"/v1.45/containers/{identifier}/restart?t=0"
                self.ask("restart", "POST", path)

    def images(self) -> None:
        """Make, start, show and remove containers of images with large configurations."""
        number, me = 0, threading.get_ident()
        while not self.over.is_set():
            for image in self.nasty:
                number += 1
                self.ask("image", "GET", f"/v1.45/images/{image}/json")
                body = {"Image": image, "HostConfig": {"NetworkMode": "none"}}
                name = f"greedy-n{me}-{number}"
                made = self.ask("nasty", "POST", f"/v1.45/containers/create?name={name}", body)
                if made is not None:
                    self.ask("nasty start", "POST", f"/v1.45/containers/{name}/start")
                    self.ask("nasty inspect", "GET", f"/v1.45/containers/{name}/json")
                if number > NASTY_KEPT:
                    old = f"greedy-n{me}-{number - NASTY_KEPT}"
                    self.ask("nasty remove", "DELETE", f"/v1.45/containers/{old}?force=1")

    def run(self, does: str) -> None:
        """Do everything, or a part, side by side until the input ends."""
        body = {"Image": self.image, "HostConfig": {"NetworkMode": "none"}}
        self.ask("create", "POST", "/v1.45/containers/create?name=greedy-0", body)
        acts: list[Callable[[], None]] = []
        if does != "requests":
            acts += [self.connections, self.connections]
        if does != "connections":
            acts += [self.objects, self.lists, self.lists, self.journal]
            acts += [self.largest, self.restarts, self.restarts]
            acts += [self.images, self.images] if self.nasty else []
        threads = [threading.Thread(target=act) for act in acts]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self.over.set()
        until = time.monotonic() + 40
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        sys.stdout.write(json.dumps(self.answers))


if __name__ == "__main__":
    uid, group = int(sys.argv[2]), int(sys.argv[3])
    os.nice(10)  # what is of interest is what the broker makes of it, not who gets the cores
    os.setgroups([group])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _Client(sys.argv[1], sys.argv[4], sys.argv[6:]).run(sys.argv[5])
