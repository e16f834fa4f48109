"""Two processes see the same host, or a folder of it differs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from controller.system.systemd import FOLDERS, OWN_ROOT, differing_folder, root_of, server_of


def made(root: Path) -> Path:
    for folder in FOLDERS:
        (root / folder.lstrip("/")).mkdir(parents=True)
    return root


def test_the_same_folders_are_no_difference(tmp_path: Path) -> None:
    one = made(tmp_path / "one")
    assert differing_folder(one, one) == ""
    assert differing_folder(OWN_ROOT, root_of(os.getpid())) == ""


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_its_own_is_named(tmp_path: Path, folder: str) -> None:
    one, other = made(tmp_path / "one"), tmp_path / "other"
    other.mkdir()
    for each in FOLDERS:
        if each != folder:
            (other / each.lstrip("/")).symlink_to(one / each.lstrip("/"))
    assert differing_folder(one, other) == folder
    (other / folder.lstrip("/")).mkdir()
    assert differing_folder(one, other) == folder


def test_a_process_that_ended_has_no_view(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        differing_folder(made(tmp_path / "one"), tmp_path / "gone")


def test_the_server_of_a_socket_is_the_process_that_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert server_of(path) == os.getpid()
    with pytest.raises(ConnectionRefusedError):
        server_of(path)
