"""The effort of a pass: what it costs beside many other services, counted in function calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from tools.suite.simulated import SimulatedInstance
from tools.suite.stage import document

FEW, MANY = 5, 35
#: Per further service: its pin, which the broker writes and the controller reads.
CALLS_OF_EACH = 3


def calls_of_a_pass(folder: Path, services: int) -> int:
    """Return the calls of a pass in sync, by controller and broker, beside other services."""
    folder.mkdir(parents=True)
    for number in range(services):
        text = document(f"s{number}").replace("worker:1", "web:1")
        (folder / f"s{number}.yaml").write_text(text)
    instance = SimulatedInstance(folder)
    instance.live(15.0)
    assert len(instance.engine.containers) == services
    key = instance.loop.shared.view.desired.services[0].key
    count = 0

    def profile(_frame: FrameType, event: str, _value: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        instance.loop.handle(key)
    finally:
        sys.setprofile(None)
    return count


def test_a_pass_costs_nearly_the_same_beside_many_services(tmp_path: Path) -> None:
    few, many = (calls_of_a_pass(tmp_path / f"{n}" / "desired", n) for n in (FEW, MANY))
    assert many - few <= CALLS_OF_EACH * (MANY - FEW), f"{few} calls beside few, {many} beside many"
