"""The broker's socket: owner, group and mode, and a live broker's socket is never replaced."""

import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from controller.broker.host import listen_socket
from controller.model.errors import StateError


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
