"""The last output of a container, through the broker: one short attempt."""

from __future__ import annotations

import pytest

from controller.engine.requests import ConnectionBroken, EngineResponse
from controller.model.container_output import LogLine
from controller.model.errors import EngineFailed, EngineUnavailable, NotFound
from tests.unit.core.engine_api.test_streams_log_stream import ONE, TWO, message
from tests.unit.engine.test_adapter import Wire, engine

PATH = "GET /containers/c1/logs"


def test_it_is_asked_for_once_with_times_and_read_by_its_framing() -> None:
    wire = Wire({PATH: EngineResponse(200, message(ONE, b"out\n") + message(TWO, b"err\n", 2))})
    assert engine(wire).last_output("c1") == (
        LogLine(ONE, "stdout", "out"),
        LogLine(TWO, "stderr", "err"),
    )
    ((_, _, query, _),) = wire.sent
    assert query == {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": "200"}
    assert (wire.timeouts, wire.contexts[0]["cause"]) == (
        [2.0],
        "keep the last output of a failed container",
    )
    wire = Wire({PATH: EngineResponse(200, f"{ONE} of a terminal\r\n".encode())})
    assert engine(wire).last_output("c1") == (LogLine(ONE, "stdout", "of a terminal"),)
    assert engine(Wire({PATH: EngineResponse(200)})).last_output("c1") == ()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ConnectionBroken("too slow"), EngineUnavailable),
        (EngineResponse(404, b'{"message": "no such container"}'), NotFound),
        (EngineResponse(500, b'{"message": "the disk is full"}'), EngineFailed),
        (EngineResponse(200, message(ONE, b"out\n") + b"\x01\x02 garbled"), EngineFailed),
    ],
)
def test_what_can_not_be_read_is_an_error_without_a_second_try(
    answer: object, error: type[Exception]
) -> None:
    wire = Wire({PATH: answer})
    with pytest.raises(error):
        engine(wire).last_output("c1")
    assert len(wire.sent) == 1
