"""The share of gate and journal in a create and start through the broker."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from controller.app.state_folder import trimtab_gid
from tests.gate.fixtures import CONTEXT, IMAGE, RUNS, Gate
from tests.gate.roles import CONTROLLER, Peer
from tests.instance import eventually
from tools.benches.gate import Caller, Side, vouch
from tools.benches.measure import taken
from tools.benches.timedbroker import WAITS
from tools.suite.figures import Figure, milliseconds, ratios
from tools.suite.line import Line
from tools.suite.rounds import interleave
from tools.suite.stage import Stage

#: Creates and starts in a round; a round's value is their sum.
_EACH: Final = 4


@contextmanager
def _sides(stage: Stage) -> Iterator[tuple[Side, Side, Path]]:
    """Yield the broker's side, the engine's side, and the file of the broker's waits."""
    with ExitStack() as stack:
        engine = stage.engine
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        waits = folder / "waits"
        gate = Gate(
            folder,
            engine=engine.socket,
            program="tools.benches.timedbroker",
            environment={WAITS: str(waits)},
        )
        stack.callback(gate.close)
        eventually(gate.serves, within_s=30, what="the broker's socket")
        engine.docker("tag", RUNS, IMAGE)
        vouch(gate.socket)
        peer = stack.enter_context(Peer(CONTROLLER, [trimtab_gid()]))
        through = Side(Caller(peer.connect(gate.socket), {"Trimtab-Context": CONTEXT}))
        straight = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        straight.connect(str(engine.socket))
        yield through, Side(Caller(straight), prefix="straight-"), waits


def waits_of(lines: Iterable[str]) -> dict[str, float]:
    """Return the seconds that a broker waited for records and for the engine, by kind."""
    waited = {"record": 0.0, "engine": 0.0}
    for line in lines:
        wait = json.loads(line)
        waited[wait["for"]] += wait["waited"]
    return waited


def _measure(stage: Stage) -> list[Figure]:
    engine_s: list[float] = []
    record_s: list[float] = []
    with _sides(stage) as (through, direct, waits):

        def ours(_round: int) -> float:
            waits.write_bytes(b"")
            seconds = sum(taken(through.create_and_start) for _ in range(_EACH))
            waited = waits_of(waits.read_text().splitlines())
            through.clear()
            engine_s.append(waited["engine"])
            record_s.append(waited["record"])
            return seconds

        def bare(_round: int) -> float:
            seconds = sum(taken(direct.create_and_start) for _ in range(_EACH))
            direct.clear()
            return seconds

        # The first create opens connections and fills caches.
        ours(0)
        engine_s.clear()
        record_s.clear()
        seconds = interleave({"ours": ours, "bare": bare}, stage.rounds)
    whole = seconds["ours"]
    own = [total - engine for total, engine in zip(whole, engine_s, strict=True)]
    return [
        Figure(
            name="gate and journal, of create + start",
            unit="%",
            values=tuple(100 * share for share in ratios(own, whole)),
            goal=3,
        ),
        Figure(
            name="of it waiting for durable records",
            unit="%",
            values=tuple(100 * share for share in ratios(record_s, whole)),
        ),
        Figure(
            name="through the broker / bare engine", unit="x", values=ratios(whole, seconds["bare"])
        ),
        Figure(name="create + start, through", unit="ms", values=_each(whole)),
        Figure(name="create + start, bare", unit="ms", values=_each(seconds["bare"])),
    ]


def _each(seconds: list[float]) -> tuple[float, ...]:
    return tuple(value / _EACH for value in milliseconds(seconds))


LINE: Final = Line(
    name="share",
    title="The share of gate and journal in a create and start",
    how=f"Through a broker and straight on the engine's socket in turn, {_EACH} creates and starts"
    " a round. The broker writes down its waits for the engine's answers to the forwarded"
    " mutations; the remaining time of the client's wait is the gate's and the journal's: parsing,"
    " judging, reads of facts, durable records, the check of the started process.",
    run=_measure,
)
