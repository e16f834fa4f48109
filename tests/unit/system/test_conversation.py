"""A server of conversations: answers side by side, in bounds, until it is stopped."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from controller.system import conversation
from controller.system.conversation import (
    CONVERSATIONS,
    WAITING_MAX,
    ConversationServer,
    requester,
)

PATIENCE_S = 30.0


class Desk:
    """Answers once it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Semaphore(0)

    def answer(self, question: Mapping[str, object], peer_uid: int) -> dict[str, object]:
        self.asked.release()
        self.may_answer.wait(PATIENCE_S)
        if question.get("do") == "fail":
            raise RuntimeError("a fault of the desk's")
        return {"uid": peer_uid}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def path(tmp_path: Path, desk: Desk) -> Iterator[Path]:
    path = tmp_path / "sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(200)
    server = ConversationServer(listener, desk.answer)
    server.start()
    yield path
    server.stop()
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(path))


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


def ask(path: Path, do: str) -> bytes:
    with connected(path) as client:
        client.sendall(json.dumps({"do": do}).encode() + b"\n")
        return client.recv(100)


def test_a_question_is_answered_and_a_fault_ends_its_conversation_alone(path: Path) -> None:
    assert ask(path, "fail") == b""
    assert b'"uid"' in ask(path, "ping")


def test_so_many_are_answered_and_so_many_wait_and_others_are_turned_away(
    path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody is turned away for waiting too long: only the bound ends a connection.
    monkeypatch.setattr(conversation, "TIMEOUT_S", 10 * PATIENCE_S)
    desk.may_answer.clear()
    clients = [connected(path) for _ in range(CONVERSATIONS)]
    for client in clients:
        client.sendall(b"{}\n")
        assert desk.asked.acquire(timeout=PATIENCE_S)
    waiting = [connected(path) for _ in range(WAITING_MAX)]
    with connected(path) as beyond:
        assert beyond.recv(1) == b""
    desk.may_answer.set()
    for client in clients:
        assert b'"uid"' in client.recv(100)
    for client in (*clients, *waiting):
        client.close()


def test_the_kernel_names_who_asks_and_a_claim_only_adds_to_it() -> None:
    assert requester({"by": "uid:0 alice"}, "by", 0) == "uid:0 alice"
    assert requester({"by": "uid:0"}, "by", 990) == "uid:990 uid:0"
