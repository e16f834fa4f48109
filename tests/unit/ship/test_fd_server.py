"""The broker opens the journal's files for the shipper's user, and for nobody else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.model.errors import StateError
from controller.ship.fd_server import LocalFiles, connect, serve_connections

SEGMENT = f"{1:020}.jsonl"


@contextmanager
def serving(tmp_path: Path, uids: Collection[int]) -> Iterator[Path]:
    (tmp_path / SEGMENT).write_text("{}\n")
    path = tmp_path / "ship.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)  # as a service manager leaves it
        files = LocalFiles(tmp_path)
        thread = threading.Thread(
            target=serve_connections, args=(listener, files), kwargs={"uids": uids}
        )
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_shippers_user_gets_read_only_descriptors_of_the_journal_alone(tmp_path: Path) -> None:
    with serving(tmp_path, {os.getuid()}) as path:
        files = connect(path)
        assert files is not None
        assert files.names() == (SEGMENT,)
        handle = files.open(SEGMENT)
        assert os.read(handle, 10) == b"{}\n"
        with pytest.raises(OSError, match=r"Bad file descriptor"):
            os.write(handle, b"x")
        os.close(handle)
        with pytest.raises(FileNotFoundError):
            files.open("../journal.key")
        files.close()


def test_another_user_gets_no_answer(tmp_path: Path) -> None:
    with serving(tmp_path, {os.getuid() + 1}) as path:
        files = connect(path)
        assert files is not None
        with pytest.raises(StateError, match=r"gone"):
            files.names()
        files.close()


def test_without_a_socket_nobody_opens_the_files(tmp_path: Path) -> None:
    assert connect(tmp_path / "ship.sock") is None
