"""Connections to elsewhere: which addresses are public, and that no other one is connected to."""

from __future__ import annotations

import socket
import threading

import pytest

from controller.system.outgoing import HttpLimits, Unanswered, is_public, post
from tests.git.forge import ForgeServer

SHORT = HttpLimits(silence_s=5.0, life_s=0.3)
LONG = HttpLimits(silence_s=5.0, life_s=10.0)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1"),
        "::ffff:0:127.0.0.1",
    ],
)
def test_addresses_of_this_host_and_its_networks_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def test_a_name_that_leads_to_this_host_is_not_connected_to() -> None:
    with ForgeServer() as server:
        port = server.server_address[1]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"):
            with pytest.raises(Unanswered, match="isn't public"):
                url = f"http://{host}:{port}/"
                post(url, {}, b"{}", authority=None, limits=LONG, is_permitted=is_public)
        assert server.received == []
        assert post(f"{server.url}/x?y=1", {}, b"{}", authority=None, limits=LONG).status == 201
        assert [each.path for each in server.received] == ["/x?y=1"]


def test_a_server_that_drips_is_cut_at_the_end_of_the_life() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cut = threading.Event()

        def drip() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 200 OK\r\n")
                while peer.recv(65536):
                    pass
            cut.set()

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(Unanswered, match="takes too long"):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            post(url, {}, b"{}", authority=None, limits=SHORT)
        assert cut.wait(10)
