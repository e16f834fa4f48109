"""Who hits a service throughout: the asker, in a stranger's container on the network, and what it got."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.instance import Host

ASKER = Path(__file__).with_name("asker.py")
OPEN_LOOP = Path(__file__).with_name("open_loop.py")
#: A request without an answer or an error after this time hangs.
HANGS_S = 3.0
NETWORK = "platform-network"


@dataclass(slots=True)
class Client:
    """A client that asks, and what it got."""

    said: Path
    #: What was read of it: a look reads no more than what was said since.
    read: int = 0
    good: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: list[list[str]] = field(default_factory=list)

    def answers(self, name: str) -> int:
        """Return how many requests were answered."""
        self._look()
        return len(self.good[name])

    def failures(self, *names: str) -> list[list[str]]:
        """Return the requests that failed, to *names* or to all."""
        self._look()
        return [each for each in self.failed if not names or each[0] in names]

    def outage_ms(self, name: str) -> int:
        """Return the longest time from one good answer to the next."""
        self._look()
        return round(1000 * max((b - a for a, b in pairwise(self.good[name])), default=0.0))

    def pause_ms(self, name: str) -> int:
        """Return the longest time without a good answer, also if none came any more."""
        last_good = max(self.good[name], default=0.0)
        last = max((float(each[3]) for each in self.failures(name)), default=0.0)
        return max(self.outage_ms(name), round(1000 * (last - last_good)))

    def _look(self) -> None:
        with self.said.open("rb") as said:
            said.seek(self.read)
            whole = said.read().rpartition(b"\n")[0]
        if whole:
            self.read += len(whole) + 1
        for line in whole.decode().splitlines():
            name, outcome, took_ms, began = line.split("\t")
            if outcome == "ok":
                self.good[name].append(float(began))
            else:
                self.failed.append([name, outcome, took_ms, began])


@contextlib.contextmanager
def asking(
    host: Host,
    *names: str,
    patience_s: float = 4.0,
    network: str = NETWORK,
    first_address: bool = False,
) -> Iterator[Client]:
    """Ask each service again and again, by its name or NAME:PORT.

    Connections are waited for so long. It must be longer than an engine takes to make an address work that its DNS
    tells already: who gives up before that may find its predecessor gone. With *first_address*, a request fails
    that the first address of the name doesn't answer in that time.
    """
    options = ["run", "--detach", "--init", "--network", network]
    stranger = host.engine.docker(*options, "trimtab.local/worker:1").stdout.strip()
    pid = host.engine.docker("inspect", "--format", "{{.State.Pid}}", stranger).stdout.strip()
    said = host.folder / f"asked-{pid}.log"
    with said.open("wb") as out:
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, str(ASKER)]
        argv += [str(patience_s), "first" if first_address else "all", *names]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out)
        try:
            yield Client(said)
        finally:
            process.communicate()
            host.engine.docker("rm", "--force", stranger)


@contextlib.contextmanager
def pressing(
    host: Host, port: int, *, address: str = "127.0.0.1", per_s: int = 50
) -> Iterator[Client]:
    """Ask a port of the engine's host *per_s* times a second, whatever became of earlier requests.

    The name of the requests is "ADDRESS:PORT". A request that has neither an answer nor an error within ``HANGS_S``
    has the outcome "hung", or "late" if its answer came before twice that time.
    """
    said = host.folder / f"pressed-{port}.log"
    with said.open("wb") as out:
        argv = [sys.executable, str(OPEN_LOOP), address, str(port), str(per_s), str(HANGS_S)]
        process = subprocess.Popen(host.engine.inside(*argv), stdin=subprocess.PIPE, stdout=out)
        try:
            yield Client(said)
        finally:
            process.communicate()
