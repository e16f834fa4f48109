"""The journal's share of a create and start: how long these wait for their records to be durable.

Through a broker and straight on the engine in turn, in one run. A create and start waits for two
records, its intents; and the start's for what is left of the create's outcome when it comes. Beside
it, what the disk itself takes for as many flushes as there are records.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from controller.app.users import trimtab_gid
from tests import engine as engines
from tests.gate.fixtures import CONTEXT, IMAGE, RUNS, Gate
from tests.gate.roles import CONTROLLER, Peer
from tests.instance import eventually
from tools.benches.gate import Caller, Side, vouch
from tools.benches.measure import Figure, milliseconds, percentile, ratio, row, taken
from tools.benches.timedbroker import WAITS

ROUNDS: Final = 60
#: The first ones start what is then there: the engine's and the broker's connections, say.
WARM_UP: Final = 5
GOAL: Final = "under 2 ms"


def run() -> list[Figure]:
    if os.geteuid() != 0:
        print("  needs root: an engine of its own, and a caller of another uid", file=sys.stderr)
        return []
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        told = folder / "waits"
        gate = Gate(
            folder,
            engine=engine.socket,
            program="tools.benches.timedbroker",
            environment={WAITS: str(told)},
        )
        stack.callback(gate.close)
        eventually(gate.serves, within_s=30, what="the broker's socket")
        engine.docker("tag", RUNS, IMAGE)
        vouch(gate.socket)
        peer = stack.enter_context(Peer(CONTROLLER, [trimtab_gid()]))
        through = Side(Caller(peer.connect(gate.socket), {"Trimtab-Context": CONTEXT}))
        straight = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        straight.connect(str(engine.socket))
        direct = Side(Caller(straight), prefix="straight-")
        return compared(direct, through, told, folder)


def compared(direct: Side, through: Side, told: Path, folder: Path) -> list[Figure]:
    """Create and start on both sides in turn, and return what the journal's share is."""
    shares, left, whole, bare, flushed = [], [], [], [], []
    for number in range(WARM_UP + ROUNDS):
        told.write_bytes(b"")
        mine = taken(through.create_and_start)
        share, rest = share_of(told.read_text().splitlines())
        theirs = taken(direct.create_and_start)
        through.clear()
        direct.clear()
        if number >= WARM_UP:
            shares.append(share)
            left.append(rest)
            whole.append(mine)
            bare.append(theirs)
            flushed.append(sum(flushes(folder / "flushed", 4)))
    for values in (shares, left, whole, bare, flushed):
        values.sort()
    for name, values in (
        ("the journal's share", shares),
        ("of it, an outcome's rest", left),
        ("through the broker", whole),
        ("bare", bare),
        ("4 bare write + fsync", flushed),
    ):
        shown = {
            f"p{share:.0f}": milliseconds(percentile(values, share / 100)) for share in (50, 90)
        }
        row(name, **shown, to_bare=ratio(percentile(values, 0.5), percentile(bare, 0.5)))
    share, one = percentile(shares, 0.5), percentile(bare, 0.5)
    return [
        Figure("the journal's share of a create + start, p50", milliseconds(share), GOAL),
        Figure("  its ratio to the bare call", ratio(share, one), f"(bare: {milliseconds(one)})"),
    ]


def share_of(lines: Iterable[str]) -> tuple[float, float]:
    """Return how long a create and start waited for records, of what the broker told of each.

    The second is the part of it that the start waited for the create's outcome. They come one after
    the other: none is waited for while another is.
    """
    waits = [json.loads(line) for line in lines]
    what = [wait["for"] for wait in waits]
    assert what == ["before", "intent"] * 2, f"not a create and a start: {what}"
    seconds = [float(wait["waited"]) for wait in waits]
    return sum(seconds), seconds[0] + seconds[2]


def flushes(path: Path, count: int) -> list[float]:
    """Append and flush lines as long as a record: what the disk takes for them."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def flush() -> None:
        os.write(file, b"x" * 1100)
        os.fsync(file)

    try:
        return [taken(flush) for _ in range(count)]
    finally:
        os.close(file)
