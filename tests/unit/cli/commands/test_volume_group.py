"""The list of volumes, with the engine and without it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from controller.settings import StateFolder
from tests.unit.cli.commands.test_service import run
from tests.unit.cli.commands.test_service import state as state  # noqa: PLC0414 - a fixture

Answer = tuple[int, object]
DATA = {"name": "data", "namespace": "default", "owner": "shop", "origin": "controller"}
INVENTORY: Answer = (200, {"volumes": [DATA], "containers": []})
AWAY: Answer = (502, {"trimtab": {"rule": "engine.unavailable", "reason": "no engine"}})
SIZED: Answer = (200, {"Volumes": [{"Name": "data", "Options": {"size": "10g"}}]})

UNSIZED: Answer = (200, {"Volumes": [{"Name": "data", "Options": None}]})


@contextmanager
def answering(state: StateFolder, answers: Mapping[str, Answer]) -> Iterator[None]:
    """Be a broker that has one answer for each end of a path, while the block runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(state.broker_socket))
        listener.listen()

        def serve() -> None:
            for _ in answers:
                peer, _address = listener.accept()
                with peer:
                    path = peer.recv(65536).split()[1].decode()
                    status, told = next(a for end, a in answers.items() if path.endswith(end))
                    body = json.dumps(told)
                    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
                    peer.sendall(f"{head}{body}".encode())

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield
        server.join(timeout=10)


@pytest.mark.parametrize(
    ("engine", "size", "shown"),
    [(SIZED, 10 << 30, "10Gi"), (UNSIZED, None, "-"), (AWAY, None, "unknown")],
)
def test_the_list_needs_no_engine_but_for_sizes(
    state: StateFolder,
    capsys: pytest.CaptureFixture[str],
    engine: Answer,
    size: int | None,
    shown: str,
) -> None:
    answers = {"/trimtab/v1/inventory": INVENTORY, "/volumes": engine}
    with answering(state, answers):
        assert run(state, "volume", "list", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    (listed,) = report["volumes"]
    assert report["sizesKnown"] is (engine is not AWAY)
    assert (listed["name"], listed["sizeBytes"]) == ("data", size)
    state.broker_socket.unlink()
    with answering(state, answers):
        assert run(state, "volume", "list") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        *("data", "default", "shop", "controller", shown)
    ]
