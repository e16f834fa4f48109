"""Sockets that a service manager holds, and the states that it is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.system.systemd import ServiceManager, without_manager

PID = 42


def made(environ: dict[str, str], now: float = 0.0, first: int = 3) -> ServiceManager:
    return ServiceManager(environ, pid=PID, monotonic=lambda: now, first=first)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def told(receiver: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(receiver.recv(4096).decode())
        except BlockingIOError:
            return found


def test_sockets_are_known_by_their_paths_and_stay_with_no_child(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(tmp_path / "gate.sock"))
        listener.listen()
        # Two descriptors in a row, as a manager hands them: one listens, the other doesn't.
        first = 200
        for handle, given in enumerate((listener, other), first):
            os.dup2(given.fileno(), handle, inheritable=True)
        environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "gate:x", "A": "b"}
        found = made(environ, first=first).sockets
        assert [*found] == [tmp_path / "gate.sock"]
        assert environ == {"A": "b"}
        (held,) = found.values()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(first + 1)
        assert not os.get_inheritable(held.fileno())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "gate.sock"))
            held.accept()[0].close()
        held.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "41", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(PID)},
        {"LISTEN_PID": str(PID), "LISTEN_FDS": "x"},
    ],
    ids=["none", "for another process", "without a number", "no number"],
)
def test_nothing_is_taken_that_was_not_handed_to_this_process(environ: dict[str, str]) -> None:
    assert made(environ, first=0).sockets == {}
    assert environ == {}


def test_states_are_told_as_assignments(manager: socket.socket, tmp_path: Path) -> None:
    made({"NOTIFY_SOCKET": str(tmp_path / "notify")}).tell(READY=1, STATUS="serving")
    assert told(manager) == ["READY=1\nSTATUS=serving"]


def test_an_abstract_address_is_told_too() -> None:
    name = f"\0trimtab-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        made({"NOTIFY_SOCKET": f"@{name[1:]}"}).tell(STOPPING=1)
        assert receiver.recv(100) == b"STOPPING=1"


def test_nobody_is_told_without_a_manager_and_a_lost_one_is_no_error(tmp_path: Path) -> None:
    without_manager().tell(READY=1)
    made({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)


def test_signs_of_life_are_told_a_few_times_within_the_limit(
    manager: socket.socket, tmp_path: Path
) -> None:
    times = iter((0.0, 1.0, 4.9, 5.0))
    fed = ServiceManager(
        {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"},
        pid=PID,
        monotonic=lambda: next(times),
    )
    assert fed.watchdog_s == 30.0
    for _ in range(4):
        fed.feed()
    assert told(manager) == ["WATCHDOG=1", "WATCHDOG=1"]


def test_no_sign_of_life_is_told_unless_this_process_is_watched(
    manager: socket.socket, tmp_path: Path
) -> None:
    address = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    made(address.copy()).feed()
    made({**address, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "41"}).feed()
    assert told(manager) == []
