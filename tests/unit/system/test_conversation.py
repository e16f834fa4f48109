"""A server of conversations: answers side by side, in bounds, until it is stopped."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from controller.system import conversation
from controller.system.conversation import (
    ANSWERS_OF_A_USER,
    GUEST_ANSWERS_OF_A_USER,
    OPEN_OF_A_USER,
    PIECES_MAX,
    QUESTION_MAX,
    TRUSTED_ANSWERS,
    ConversationServer,
    Guests,
    requester,
)
from controller.system.syscalls import peer_groups

PATIENCE_S = 30.0
STRANGER, GROUP = 61012, 61013
#: Asks as another user over some connections, and holds 400 silent ones until its input ends.
HOLD = """
import os, socket, sys
uid, path = int(sys.argv[1]), sys.argv[2]
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
held = [socket.socket(socket.AF_UNIX) for _ in range(400)]
for number, connection in enumerate(held):
    connection.connect(path)
    if number < 8:
        connection.sendall(b"{}\\n")
print("held", flush=True)
sys.stdin.read()
"""


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
def trusted() -> frozenset[int]:
    return frozenset()


@pytest.fixture
def path(desk: Desk, trusted: frozenset[int]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield from served(Path(folder) / "sock", desk, trusted)


def served(
    path: Path, desk: Desk, trusted: frozenset[int], guests: Guests | None = None
) -> Iterator[Path]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(200)
    server = ConversationServer(listener, desk.answer, trusted=trusted, guests=guests)
    server.start()
    yield path
    server.stop()
    server.stop()  # a second time, as by a caller's clean-up
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(path))


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))  # without a timeout: a full backlog is waited for, else EAGAIN
    client.settimeout(PATIENCE_S)
    return client


def ask(path: Path, do: str) -> bytes:
    with connected(path) as client:
        client.sendall(json.dumps({"do": do}).encode() + b"\n")
        return client.recv(100)


def test_a_question_is_answered_and_a_fault_ends_its_conversation_alone(path: Path) -> None:
    assert ask(path, "fail") == b""
    assert b'"uid"' in ask(path, "ping")


def test_so_many_questions_are_answered_at_a_time_and_so_many_connections_are_open(
    path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No question waits too long: only the limits end a connection.
    monkeypatch.setattr(conversation, "TIMEOUT_S", 10 * PATIENCE_S)
    desk.may_answer.clear()
    clients = [connected(path) for _ in range(ANSWERS_OF_A_USER + 1)]
    for client in clients:
        client.sendall(b"{}\n")
    for _ in range(ANSWERS_OF_A_USER):
        assert desk.asked.acquire(timeout=PATIENCE_S)
    silent = [connected(path) for _ in range(OPEN_OF_A_USER - len(clients))]
    with connected(path) as beyond:
        assert beyond.recv(1) == b""
    assert not desk.asked.acquire(blocking=False)
    desk.may_answer.set()
    for client in clients:
        assert b'"uid"' in client.recv(100)
    for client in (*clients, *silent):
        client.close()


def test_a_question_that_waits_too_long_for_its_turn_is_answered_so(
    path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.may_answer.clear()
    clients = [connected(path) for _ in range(ANSWERS_OF_A_USER)]
    for client in clients:
        client.sendall(b"{}\n")
        assert desk.asked.acquire(timeout=PATIENCE_S)
    monkeypatch.setattr(conversation, "TIMEOUT_S", 0.05)
    assert b"control.busy" in ask(path, "ping")
    desk.may_answer.set()
    for client in clients:
        client.close()


@pytest.mark.needs_root
@pytest.mark.parametrize("trusted", [frozenset({0})])
def test_other_users_take_no_connection_and_no_turn_of_a_trusted_one(
    path: Path, desk: Desk
) -> None:
    desk.may_answer.clear()
    script = [sys.executable, "-c", HOLD, str(STRANGER), str(path)]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for _ in range(ANSWERS_OF_A_USER):
            assert desk.asked.acquire(timeout=PATIENCE_S)
        clients = [connected(path) for _ in range(TRUSTED_ANSWERS)]
        for client in clients:
            client.sendall(b"{}\n")
            assert desk.asked.acquire(timeout=PATIENCE_S)
        desk.may_answer.set()
        for client in clients:
            assert b'"uid"' in client.recv(100)
            client.close()
        holder.communicate(b"")


#: Asks as a user of a group, and prints the answer.
ASK_IN_GROUP = """
import os, socket, sys
uid, group, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(uid, uid, uid)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    connection.sendall(b"{}\\n")
    sys.stdout.buffer.write(connection.recv(100))
"""


@pytest.mark.needs_root
def test_guests_have_answers_and_places_of_their_own(desk: Desk) -> None:
    at_desk = Desk()
    guests = Guests(
        lambda _question, uid: {"guest": at_desk.answer({}, uid)["uid"]},
        {STRANGER}.__contains__,
        peer_groups,
    )

    def answer_of(uid: int, group: int) -> bytes:
        argv = [sys.executable, "-c", ASK_IN_GROUP, str(uid), str(group), str(path)]
        return subprocess.run(argv, capture_output=True, check=True).stdout

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        for path in served(Path(folder) / "sock", desk, frozenset(), guests):
            os.chown(path, 0, GROUP)
            assert b'"uid"' in answer_of(STRANGER + 2, GROUP), "a user of the group"
            assert b'"guest"' in answer_of(STRANGER + 2, GROUP + 1), "a user of no group"
            assert b'"guest"' in answer_of(STRANGER, GROUP), "a guest who is in the group too"
            at_desk.may_answer.clear()
            script = [sys.executable, "-c", HOLD, str(STRANGER), str(path)]
            with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
                assert holder.stdout is not None
                assert holder.stdout.readline() == b"held\n"
                for _ in range(GUEST_ANSWERS_OF_A_USER):
                    assert at_desk.asked.acquire(timeout=PATIENCE_S)
                assert b'"uid"' in answer_of(STRANGER + 2, GROUP), "no guest takes a turn of others"
                at_desk.may_answer.set()
                holder.communicate(b"")


@pytest.mark.parametrize("text", [b"x" * (QUESTION_MAX + 1), b"{" * PIECES_MAX])
def test_a_question_that_is_too_long_or_comes_in_too_many_pieces_is_malformed(
    path: Path, text: bytes
) -> None:
    with connected(path) as client:
        if len(text) == PIECES_MAX:
            for at in range(PIECES_MAX):
                client.sendall(text[at : at + 1])
                while unread(client):  # each byte is a piece of its own
                    pass
        else:
            client.sendall(text)
        assert b"control.malformed" in client.recv(1000)


def unread(client: socket.socket) -> int:
    """Return how many bytes the server hasn't read yet (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_the_kernel_names_who_asks_and_a_claim_only_adds_to_it() -> None:
    assert requester("uid:0 alice", 0) == "uid:0 alice"
    assert requester("uid:0", 990) == "uid:990 uid:0"
