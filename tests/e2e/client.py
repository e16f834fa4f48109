"""Who hits a service throughout: the asker, in a stranger's container on the network, and what it got."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.instance import Host

ASKER = Path(__file__).with_name("asker.py")
NETWORK = "platform-network"


@dataclass(frozen=True, slots=True)
class Client:
    """A client that asks, and what it got."""

    said: Path

    def answers(self, name: str) -> int:
        """Return how many requests were answered."""
        return sum(each[:2] == [name, "ok"] for each in self._lines())

    def failures(self, *names: str) -> list[list[str]]:
        """Return the requests that failed, to *names* or to all."""
        return [
            each for each in self._lines() if each[1] != "ok" and (not names or each[0] in names)
        ]

    def outage_ms(self, name: str) -> int:
        """Return the longest time from one good answer to the next."""
        good = [float(each[3]) for each in self._lines() if each[:2] == [name, "ok"]]
        return round(1000 * max((b - a for a, b in pairwise(good)), default=0.0))

    def _lines(self) -> list[list[str]]:
        whole = self.said.read_text().rpartition("\n")[0]
        return [line.split("\t") for line in whole.splitlines()]


@contextlib.contextmanager
def asking(
    host: Host, *names: str, patience_s: float = 4.0, network: str = NETWORK
) -> Iterator[Client]:
    """Ask each service again and again, by its name or NAME:PORT.

    Connections are waited for so long. It must be longer than an engine takes to make an address work that its DNS
    tells already: who gives up before that may find its predecessor gone.
    """
    options = ["run", "--detach", "--init", "--network", network]
    stranger = host.engine.docker(*options, "trimtab.local/worker:1").stdout.strip()
    pid = host.engine.docker("inspect", "--format", "{{.State.Pid}}", stranger).stdout.strip()
    said = host.folder / f"asked-{pid}.log"
    with said.open("wb") as out:
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, str(ASKER)]
        argv += [str(patience_s), *names]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out)
        try:
            yield Client(said)
        finally:
            process.communicate()
            host.engine.docker("rm", "--force", stranger)
