"""A long-lived child of another version than its parent is never started."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from controller.system.child_programs import ChildBounds, FramedChild, WorkerFailed

ECHO = """
import json, os
def frame(value):
    data = json.dumps(value).encode()
    os.write(1, len(data).to_bytes(4, "big") + data)
frame({"ready": True})
while head := os.read(0, 4):
    frame(json.loads(os.read(0, int.from_bytes(head, "big"))))
"""


def test_a_running_child_goes_on_and_none_is_started_from_a_replaced_package(
    tmp_path: Path,
) -> None:
    package = tmp_path / "__init__.py"
    package.write_text("")
    bounds = ChildBounds(request_s=30.0, answer_max=1000, renewed_after=100)
    child = FramedChild(
        (sys.executable, "-I", "-c", ECHO),
        bounds,
        monotonic=time.monotonic,
        package=str(package),
    )
    with child.turn() as ask:
        assert ask({"a": 1}) == {"a": 1}
    unpacked = tmp_path / "unpacked"
    unpacked.write_text("")
    unpacked.rename(package)
    with child.turn() as ask:
        assert ask({"a": 2}) == {"a": 2}
    child.stop()
    with pytest.raises(WorkerFailed, match="was replaced"):
        child.start()
    assert child.pid is None
