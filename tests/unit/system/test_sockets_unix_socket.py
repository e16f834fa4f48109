"""A live listener is recognised whatever its backlog, and its socket is never replaced."""

import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from controller.system.sockets import (
    SocketInUse,
    bind_socket,
    broker_sockets,
    connect_in_turn,
    connect_to_broker,
    has_listener,
)
from tests.backlog import filled

FAMILY = socket.AF_UNIX


def bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind_socket(listener, path, group=None)
    except SocketInUse:
        listener.close()
        raise
    return listener


def test_a_full_backlog_is_a_live_listener(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with closing(bound(path)) as listener, filled(listener, path):
        assert has_listener(path)
        inode = path.stat().st_ino
        with pytest.raises(SocketInUse):
            bound(path)
        assert path.stat().st_ino == inode, "the live socket stays"


def test_a_connection_waits_for_room_in_a_full_backlog(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with closing(bound(path)) as listener, filled(listener, path), socket.socket(FAMILY) as client:
        with pytest.raises(BlockingIOError):
            connect_in_turn(client, path, timeout_s=0.02)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(connect_in_turn, client, path, timeout_s=30.0)
            accepted = [listener.accept()[0]]
            waiting.result()
        assert client.gettimeout() == 30.0
        accepted[0].close()


def test_a_socket_without_a_listener_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    assert not has_listener(path)
    bound(path).close()
    assert path.exists()
    assert not has_listener(path)
    with closing(bound(path)) as listener:
        assert not has_listener(path), "no client connects before listen()"
        listener.listen()
        assert has_listener(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_broker_is_reached_by_the_best_socket_that_is_served(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    assert [each.name for each in broker_sockets(path)] == [
        "broker-operator.sock",
        "broker-controller.sock",
        "broker-viewer.sock",
        "broker.sock",
    ]
    with pytest.raises(FileNotFoundError):
        connect_to_broker(path, timeout_s=1.0)
    bound(broker_sockets(path)[0]).close()  # a dead broker left it
    with ExitStack() as stack:
        for best in reversed(broker_sockets(path)):
            stack.enter_context(closing(bound(best))).listen()
            with closing(connect_to_broker(path, timeout_s=1.0)) as connection:
                assert connection.getpeername() == str(best)
                assert connection.gettimeout() == 1.0


def test_a_reserved_socket_with_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    operators, *_ = broker_sockets(path)
    with closing(bound(path)) as shared, closing(bound(operators)) as listener:
        shared.listen()
        with filled(listener, operators), pytest.raises(BlockingIOError):
            connect_to_broker(path, timeout_s=0.02)
