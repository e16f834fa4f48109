"""Ending the connections of another process: who waits for an answer learns that none comes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from controller.broker.host.processes import execute

pytestmark = pytest.mark.needs_root

#: Accepts and never answers.
SERVER = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
kept = []
while True:
    kept.append(listening.accept())
    print("accepted", flush=True)
"""
#: Text of every /proc/PID/cgroup: the server stands for a container.
ANY = "/"


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


#: With the capabilities of a broker: some kernels refuse more than others without the rest.
BROKER = """
import sys
from controller.broker.host.capabilities import drop_privileges
from controller.broker.host.processes import execute
drop_privileges()
sys.stdout.write(execute(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


def execute_as_broker(pid: int, address: str) -> str:
    argv = [sys.executable, "-c", BROKER, str(pid), ANY, address]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout


def said(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().strip()


def test_a_client_that_waits_is_reset_and_a_new_one_gets_no_answer(
    server: subprocess.Popen[str],
) -> None:
    place = ("127.0.0.1", int(said(server)))
    with socket.create_connection(place) as waiting:
        assert said(server) == "accepted"
        assert execute_as_broker(server.pid, "127.0.0.9") == "", "it has no connection there"
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
        waiting.setblocking(True)
        assert execute_as_broker(server.pid, "127.0.0.1") == ""
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)
    with socket.socket() as late:
        late.setblocking(False)
        late.connect_ex(place)  # neither taken nor refused: the client tries again
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(OSError, match="not connected"):
            late.getpeername()
    assert execute_as_broker(server.pid, "") == ""
    with socket.create_connection(place):
        assert said(server) == "accepted"


def test_a_process_of_another_container_is_left_alone(server: subprocess.Popen[str]) -> None:
    place = ("127.0.0.1", int(said(server)))
    with socket.create_connection(place) as waiting:
        assert said(server) == "accepted"
        assert execute(server.pid, "f" * 64, "127.0.0.1") == ""
        assert execute(0, ANY, "127.0.0.1") == execute(2**22 + 1, ANY, "127.0.0.1") == ""
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
