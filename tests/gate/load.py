"""Many connections of one uid that ask for what is refused, and count what they are answered.

Run as a script, it drops to the uid, and prints one JSON object at its end; ``Flood`` starts such
processes. It needs only the standard library, and none of its folder is on its path.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

_CREATE = b'{"Image":"x","HostConfig":{"Privileged":true}}'


def _request(line: str, body: bytes = b"") -> bytes:
    head = [line + " HTTP/1.1", "Host: d", "Content-Type: application/json"]
    if not line.startswith("GET"):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


#: What is refused: by the route, by the body's text, after a look at the engine, by the framing.
REFUSED = (
    _request("POST /v1.45/build"),
    _request("POST /v1.45/containers/create?name=flood", _CREATE),
    _request("GET /v1.45/containers/somebody-elses/json"),
    b"GET /v1.45/version HTTP/1.1\r\nHost: d\r\nHost: e\r\n\r\n",
)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a flood was answered: how often each rule refused, under how many record ids."""

    answers: dict[str, int]  # by "STATUS RULE"
    records: int
    broken: int  # requests without an answer

    @property
    def refused(self) -> int:
        """Refusals of the gate: not what it had no place for."""
        return sum(n for told, n in self.answers.items() if not told.startswith("503"))


class Flood:
    """Processes of several uids, each with so many connections, each of which asks so often.

    They connect at once and ask as fast as they are answered; ``seconds`` bounds all of it.
    """

    def __init__(
        self,
        path: Path,
        uids: Sequence[int],
        *,
        group: int,
        connections: int,
        each: int,
        seconds: int,
    ) -> None:
        script = [sys.executable, "-I", str(Path(__file__).resolve()), str(path)]
        told = [str(number) for number in (group, connections, each, seconds)]
        self._processes = [
            subprocess.Popen([*script, str(uid), *told], stdout=subprocess.PIPE, cwd="/", text=True)
            for uid in uids
        ]

    @property
    def over(self) -> bool:
        """Whether all have got their answers."""
        return all(process.poll() is not None for process in self._processes)

    def wait(self) -> Counted:
        """Return what all of them counted."""
        answers: Counter[str] = Counter()
        records = broken = 0
        for process in self._processes:
            told, _ = process.communicate(timeout=300)
            assert process.returncode == 0, "a process of the flood failed"
            counted = json.loads(told)
            answers.update(counted["answers"])
            records += counted["records"]
            broken += counted["broken"]
        return Counted(dict(answers), records, broken)

    def close(self) -> None:
        """End those that still ask."""
        for process in self._processes:
            process.kill()
            process.wait(timeout=60)


class _Asker:
    """What the connections of one process share."""

    def __init__(self, path: str, until: float) -> None:
        self.path = path
        self.until = until
        self.answers: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.broken = 0

    async def ask(self, requests: Iterable[bytes]) -> None:
        """Ask for each in turn, over one connection as long as that stands."""
        reader: Any = None
        writer: Any = None
        for raw in requests:
            if time.monotonic() > self.until:
                break
            if writer is None:
                reader, writer = await self._connect()
            if not await self._one(reader, writer, raw):
                writer.close()
                writer = None
        if writer is not None:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_unix_connection(self.path)
            except BlockingIOError:  # the backlog is full
                await asyncio.sleep(0.01)

    async def _one(self, reader: Any, writer: Any, raw: bytes) -> bool:
        """Ask once; tell whether the connection stands."""
        try:
            writer.write(raw)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].split("\r\n")[0])
            told = json.loads(await reader.readexactly(length))["trimtab"]
        except (OSError, asyncio.IncompleteReadError):
            self.broken += 1
            return False
        self.answers[f"{head.split()[1]} {told['rule']}"] += 1
        self.ids.add(told["id"])
        return "connection: close" not in head


async def _flood(path: str, connections: int, each: int, seconds: int) -> None:
    asker = _Asker(path, time.monotonic() + seconds)
    kinds = len(REFUSED)
    wanted = (islice(cycle(REFUSED), n % kinds, n % kinds + each) for n in range(connections))
    await asyncio.gather(*map(asker.ask, wanted))
    told = {"answers": asker.answers, "records": len(asker.ids), "broken": asker.broken}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    uid, group = int(sys.argv[2]), int(sys.argv[3])
    os.nice(10)  # what is of interest is what the broker makes of it, not who gets the cores
    os.setgroups([group])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    asyncio.run(_flood(sys.argv[1], *map(int, sys.argv[4:7])))
