"""The broker's sockets: owner, group, mode and users, and a live broker's is never replaced."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.broker.host import sockets as listen_socket
from controller.broker.host.peer_credentials import PeerRules
from controller.broker.host.sockets import BrokerSockets
from controller.model.errors import StateError
from controller.model.records import ViewerScope
from controller.system.sockets import CONTROLLER_SOCKET, SOCKET_MODE, bind_socket, broker_sockets

CONTROLLER, OPERATOR, CLIENT, VIEWER, CLIENTS, NOBODY = 61001, 61002, 61003, 61004, 61010, 65534
#: Prints the names of the sockets that a uid of the group can connect to.
CONNECTS = """
import os, socket, sys
uid, group = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([group])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
for path in sys.argv[3:]:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except (PermissionError, FileNotFoundError):
            continue
    print(os.path.basename(path))
"""


def rules(*operators: int, group: int | None = None, viewers: tuple[int, ...] = ()) -> PeerRules:
    return PeerRules(
        controller_uid=CONTROLLER,
        own_uid=os.geteuid(),
        operators=frozenset(operators),
        group=group,
        viewers=dict.fromkeys(viewers, ViewerScope()),
    )


@contextmanager
def serving(path: Path, found: PeerRules) -> Iterator[BrokerSockets]:
    with BrokerSockets(path, found) as sockets:
        try:
            yield sockets
        finally:
            for each in sockets.listening:
                each.socket.close()


def reached(uid: int, path: Path, *, group: int = CLIENTS) -> list[str]:
    """Return the names of the sockets that a uid of a group connects to: the broker's and the controller's."""
    paths = [str(each) for each in (*broker_sockets(path), path.with_name(CONTROLLER_SOCKET))]
    argv = [sys.executable, "-I", "-c", CONNECTS, str(uid), str(group), *paths]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_the_socket_is_for_owner_and_group_and_a_folder_that_is_made_too(tmp_path: Path) -> None:
    path = tmp_path / "run" / "b.sock"
    before = os.umask(0)
    try:
        with closing(listen_socket.listen(path, group=os.getegid())):
            modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
    finally:
        os.umask(before)
    assert modes == [0o660, 0o750]
    assert path.stat().st_gid == os.getegid()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    with closing(listen_socket.listen(tmp_path / "b.sock", group=None)):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o711


@pytest.mark.needs_root
def test_the_socket_is_given_to_the_group(tmp_path: Path) -> None:
    path = tmp_path / "run" / "b.sock"
    with closing(listen_socket.listen(path, group=1234)):
        found = [(each.stat().st_uid, each.stat().st_gid) for each in (path, path.parent)]
    assert found == [(0, 1234), (0, 1234)]


def test_a_dead_broker_s_socket_is_replaced_and_a_live_one_s_is_not(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    first = listen_socket.listen(path, group=None)
    with pytest.raises(StateError) as caught:
        listen_socket.listen(path, group=None)
    assert caught.value.code == "state.served"
    first.close()
    assert path.exists()
    with closing(listen_socket.listen(path, group=None)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    identity = (path.lstat().st_dev, path.lstat().st_ino + 1)
    listen_socket.remove_socket(path, identity)
    assert path.exists(), "another broker's socket stays"
    listen_socket.remove_socket(path, (path.lstat().st_dev, path.lstat().st_ino))
    assert not path.exists()


def test_a_place_where_no_socket_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "b.sock", tmp_path / ("x" * 120) / "b.sock"):
        with pytest.raises(StateError) as caught:
            listen_socket.listen(path, group=None)
        assert caught.value.code == "state.socket"
        assert str(path) in str(caught.value)


@pytest.mark.needs_root
def test_operators_and_controller_have_a_socket_that_nobody_else_opens() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "run" / "broker.sock"
        with serving(path, rules(OPERATOR, group=CLIENTS)) as sockets:
            Path(folder).chmod(0o755)
            assert [each.reserved for each in sockets.listening] == [True, True, False, False]
            assert reached(OPERATOR, path) == ["broker-operator.sock", "broker.sock"]
            assert reached(CONTROLLER, path) == ["broker-controller.sock", "broker.sock"]
            assert reached(CLIENT, path) == ["broker.sock"]
            sockets.reserve(rules(CLIENT, group=CLIENTS))
            assert reached(OPERATOR, path) == ["broker.sock"], "no operator by the new policy"
            assert reached(CLIENT, path) == ["broker-operator.sock", "broker.sock"]
        assert not list(path.parent.iterdir())


@pytest.mark.needs_root
def test_viewers_open_their_own_socket_and_the_controllers_without_a_group() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "run" / "broker.sock"
        Path(folder).chmod(0o755)
        both, controllers = (
            ["broker-viewer.sock", CONTROLLER_SOCKET],
            path.with_name(CONTROLLER_SOCKET),
        )
        with serving(path, rules(group=CLIENTS, viewers=(VIEWER,))) as sockets:
            assert reached(VIEWER, path, group=NOBODY) == both[:1]
            with closing(socket.socket(socket.AF_UNIX)) as late:
                bind_socket(late, controllers, group=CLIENTS)
                late.listen()
                sockets.open_controller({VIEWER})
                assert reached(VIEWER, path, group=NOBODY) == both
                assert reached(CLIENT, path, group=NOBODY) == []
                assert reached(CLIENT, path) == ["broker.sock", CONTROLLER_SOCKET]
                sockets.reserve(rules(group=CLIENTS, viewers=(OPERATOR,)))
                assert reached(VIEWER, path, group=NOBODY) == [], "no viewer by the new policy"
                assert reached(OPERATOR, path, group=NOBODY) == both
                sockets.reserve(rules(group=CLIENTS))
                assert reached(OPERATOR, path, group=NOBODY) == []
                assert reached(CLIENT, path) == ["broker.sock", CONTROLLER_SOCKET]
                modes = [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, controllers)]
                assert modes == [0o750, 0o660]
            controllers.unlink()


@pytest.mark.needs_root
def test_no_viewer_gets_what_the_controllers_user_put_in_place_of_its_socket(
    tmp_path: Path,
) -> None:
    path, secret = tmp_path / "run" / "broker.sock", tmp_path / "secret"
    secret.write_text("")
    with serving(path, rules(group=CLIENTS)) as sockets:
        path.with_name(CONTROLLER_SOCKET).symlink_to(secret)
        sockets.reserve(rules(group=CLIENTS, viewers=(VIEWER,)))
        assert not os.listxattr(secret)
        path.with_name(CONTROLLER_SOCKET).unlink()


def test_without_access_lists_only_the_owner_has_the_reserved_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    path = tmp_path / "broker.sock"
    with serving(path, rules(OPERATOR)) as sockets:
        assert stat.S_IMODE(broker_sockets(path)[0].stat().st_mode) == 0o660, "the list's mask"
        monkeypatch.setattr(os, "setxattr", fail)
        sockets.reserve(rules(OPERATOR))
        modes = [stat.S_IMODE(each.stat().st_mode) for each in broker_sockets(path)]
    assert modes == [0o600, 0o600, 0o600, 0o660]


def test_a_path_that_is_too_long_for_reserved_sockets_still_serves(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (102 - len(str(tmp_path)) - len("/.sock")) + ".sock")
    with serving(path, rules()) as sockets:
        assert [each.reserved for each in sockets.listening] == [False]
        assert list(tmp_path.iterdir()) == [path]


def test_a_live_brokers_reserved_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with serving(path, rules()):
        path.unlink()
        with pytest.raises(StateError) as caught:
            BrokerSockets(path, rules())
    assert caught.value.code == "state.served"


def test_held_sockets_get_owner_and_mode_before_connections_are_accepted_and_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "broker.sock"
    held = {}
    for each in broker_sockets(path):
        held[each] = socket.socket(socket.AF_UNIX)
        held[each].bind(str(each))
        each.chmod(0o600)
        held[each].listen(1)
    kept = {each: listener.dup() for each, listener in held.items()}
    with BrokerSockets(path, rules(), held) as sockets:
        assert {each.socket for each in sockets.listening} == set(held.values())
        assert stat.S_IMODE(path.stat().st_mode) == SOCKET_MODE
        sockets.wait_for_another()
    for listening in sockets.listening:
        listening.socket.close()
    for each, listener in kept.items():
        with listener, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(each))  # it waits for the next broker
            listener.setblocking(True)
            listener.accept()[0].close()
