"""Reading logs through the broker: framings, order, and logs that can't be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cli.clients.socket_client import EngineApi, RequestQuery, Streamed
from controller.cli.commands.log_lines import LinePrinter
from controller.cli.commands.logs import CONTAINERS_MAX, print_logs, read_log
from controller.core.engine_api.streams import MULTIPLEXED
from controller.model.errors import EngineFailed, StateError
from tests.unit.cli.commands.test_replicas import WEB_1, WEB_2, replica
from tests.unit.core.engine_api.test_streams_log_stream import ONE, TWO, message

THREE = "2026-01-02T03:04:05.000000003Z"
RAW = "application/vnd.docker.raw-stream"


class Logs(EngineApi):
    """A broker with the logs of containers by id; an exception is raised when it is asked for."""

    def __init__(self, logs: Mapping[str, tuple[str, bytes] | Exception]) -> None:
        super().__init__(Path("/nowhere"))
        object.__setattr__(self, "logs", logs)

    @contextmanager
    def stream(self, route: str, query: RequestQuery = None) -> Iterator[Streamed]:
        assert query == {}
        logs: Mapping[str, tuple[str, bytes] | Exception] = vars(self)["logs"]
        answer = logs[route.split("/")[2]]
        if isinstance(answer, Exception):
            raise answer
        yield Streamed(answer[0], iter([answer[1][:20], answer[1][20:]]))


def printer() -> LinePrinter:
    return LinePrinter(timestamps=False, as_json=False)


def test_replicas_are_interleaved_by_time_in_either_framing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    framed = message(ONE, b"first\n") + message(THREE, b"third\n")
    logs = Logs({WEB_1.id: (MULTIPLEXED, framed), WEB_2.id: (RAW, f"{TWO} second\r\n".encode())})
    last = print_logs(logs, [WEB_1, WEB_2], {}, printer())
    assert capsys.readouterr().out == "web.1 | first\nweb.2 | second\nweb.1 | third\n"
    assert last == {WEB_1.id: THREE, WEB_2.id: TWO}


@pytest.mark.parametrize(
    ("answer", "code", "part"),
    [
        (
            EngineFailed("http.501", "configured logging driver does not support reading"),
            "logs.unreadable",
            "web.1-aaaaaaaa: its log driver keeps no readable log",
        ),
        (EngineFailed("http.500", "the disk is full"), "http.500", "the disk is full"),
        ((MULTIPLEXED, b"no header of a frame"), "logs.garbled", "web.1-aaaaaaaa can't be read"),
    ],
)
def test_a_log_that_can_not_be_read_is_named(
    answer: tuple[str, bytes] | Exception, code: str, part: str
) -> None:
    with pytest.raises(EngineFailed) as caught:
        list(read_log(Logs({WEB_1.id: answer}), WEB_1, {}))
    assert caught.value.code == code
    assert part in caught.value.message


def test_too_many_containers_are_refused_before_any_is_read() -> None:
    many = [replica(f"web.{n}", "web", n) for n in range(1, CONTAINERS_MAX + 2)]
    with pytest.raises(StateError, match="these are 65 containers; at most 64"):
        print_logs(Logs({}), many, {}, printer())
