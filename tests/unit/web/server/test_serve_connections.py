from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller.web.server.serve import client_uid

#: A client (40001) and a server (8123) on 127.0.0.1; a connection of port 40002 that ends; a listener.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1FBB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:9C41 0100007F:1FBB 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1FBB 0100007F:9C41 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:9C42 0100007F:1FBB 06 00000000:00000000 03:00000F5B 00000000     0        0 0 3 0
"""


@pytest.mark.parametrize(("port", "uid"), [(40001, 1000), (40002, None), (40003, None)])
def test_the_owner_of_the_client_s_end_is_found(port: int, uid: int | None) -> None:
    found = client_uid(TABLE, client=("127.0.0.1", port), server=("127.0.0.1", 8123))
    assert found == uid


def test_the_kernel_s_own_table_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            table = Path("/proc/net/tcp").read_text()
            import os

            assert client_uid(table, client=client.getsockname(), server=address) == os.getuid()
            assert client_uid(table, client=address, server=("127.0.0.1", 9)) is None
