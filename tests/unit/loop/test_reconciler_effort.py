"""The effort of a pass: what it costs beside many other services, counted in calls and lines of Python.

A line is counted again at each turn of a loop, and of a comprehension.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from controller.broker.gate.commands import Forward, Lost
from controller.model import names
from controller.model.records import Reply
from tools.suite.simulated import SimulatedInstance
from tools.suite.stage import document

FEW, MANY = 5, 35
#: Per further service: its pin, its place in the snapshot, and looks at its state. A loop in a loop costs more.
CALLS_OF_EACH = 10
#: A comprehension is a function of its own before 3.12, with lines that are traced once more.
LINES_OF_EACH = 60 if sys.version_info >= (3, 12) else 80
#: The simulation around controller and broker searches through everything.
SIMULATION = ("/tests/sim/", "/tools/suite/")


@dataclass(frozen=True)
class Effort:
    """The effort of two passes, by controller and broker."""

    #: The calls of a pass in sync.
    calls: int
    #: The lines from the event of a removed container to the create of its successor.
    lines: int


class Lines:
    """Counts the lines of controller and broker inside the block, until ``stop``."""

    def __init__(self) -> None:
        self.count = 0
        self._counts = False

    def __enter__(self) -> Self:
        self._counts = True
        sys.settrace(self._enter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.settrace(None)

    def stop(self) -> None:
        """Count no further line."""
        self._counts = False

    def _enter(self, frame: FrameType, _event: str, _value: object) -> Any:
        is_simulation = any(part in frame.f_code.co_filename for part in SIMULATION)
        return None if is_simulation else self._notice

    def _notice(self, _frame: FrameType, event: str, _value: object) -> Any:
        self.count += self._counts and event == "line"
        return self._notice


def effort(folder: Path, services: int) -> Effort:
    """Return the effort of passes of one service beside others."""
    folder.mkdir(parents=True)
    for number in range(services):
        text = document(f"s{number:02}").replace("worker:1", "web:1")
        (folder / f"s{number:02}.yaml").write_text(text)
    instance = SimulatedInstance(folder)
    instance.live(15.0)
    assert len(instance.engine.containers) == services
    key = instance.loop.shared.view.desired.services[0].key
    calls = 0

    def profile(_frame: FrameType, event: str, _value: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(profile)
    try:
        instance.loop.handle(key)
    finally:
        sys.setprofile(None)
    labels = ((each, each.config["Labels"]) for each in instance.engine.containers.values())
    victim = next(each for each, label in labels if label[names.SERVICE] == key.name)
    return Effort(calls, lines_until_the_create(instance, victim.id))


def lines_until_the_create(instance: SimulatedInstance, victim: str) -> int:
    """Remove a container by force; return the lines until the create of its successor is forwarded."""
    forward, lines = instance.wire.forward, Lines()

    def notice(command: Forward) -> Reply | Lost:
        lines.stop()
        return forward(command)

    instance.live(1.0)
    instance.engine.call("DELETE", f"/containers/{victim}?force=1")
    instance.wire.forward = notice  # type: ignore[method-assign]
    with lines:
        instance.hear()
        key = instance.loop.keys.poll()
        assert key is not None, "the event queued the service"
        instance.loop.handle(key)
        instance.loop.keys.done(key)
    return lines.count


def test_a_pass_costs_nearly_the_same_beside_many_services(tmp_path: Path) -> None:
    few, many = (effort(tmp_path / f"{n}" / "desired", n) for n in (FEW, MANY))
    assert many.calls - few.calls <= CALLS_OF_EACH * (MANY - FEW)

    assert many.lines - few.lines <= LINES_OF_EACH * (MANY - FEW)
