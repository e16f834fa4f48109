"""Routes of the host, by what the kernel shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.broker.host.host_facts import host_routes
from controller.core.rules.host_routes import (
    EVERYWHERE,
    EVERYWHERE_IPV6,
    overlapping_route,
    parse_ipv6_routes,
    parse_routes,
)

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def route(destination: str, mask: str, flags: str = "0001") -> str:
    return f"eth0\t{destination}\t00000000\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n"


DEFAULT, HALF, OTHER_HALF = (
    route("00000000", "00000000", "0003"),
    route("00000000", "00000080"),
    route("00000080", "00000080"),
)
DOCKER, OWN, DOWN = (
    route("000011AC", "0000FFFF"),
    route("00001FAC", "00F0FFFF"),
    route("00000A0A", "0000FFFF", "0000"),
)


def test_routes_are_read_from_the_kernels_table() -> None:
    text = HEAD + DEFAULT + HALF + OTHER_HALF + DOCKER + OWN + OWN + DOWN
    assert parse_routes(text) == ("172.17.0.0/16", "172.31.0.0/20")
    assert parse_routes(HEAD) == ()


def test_a_subnet_overlaps_what_contains_it_and_what_it_contains() -> None:
    assert overlapping_route("172.31.2.0/24", ("10.0.0.0/8", "172.31.0.0/20")) == "172.31.0.0/20"
    assert overlapping_route("172.16.0.0/12", ("172.31.0.0/20",)) == "172.31.0.0/20"
    assert overlapping_route("172.30.0.0/16", ("172.31.0.0/20",)) == ""


@pytest.mark.parametrize("text", [None, HEAD + "eth0\n", HEAD + route("zz", "00000000")])
def test_what_cannot_be_read_overlaps_everything(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "route"
    if text is not None:
        file.write_text(text)
    assert host_routes(tmp_path) == (EVERYWHERE, EVERYWHERE_IPV6)


def test_a_kernel_without_ipv6_has_room_for_no_ipv6_network(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(HEAD + DOCKER)
    assert host_routes(tmp_path) == ("172.17.0.0/16", EVERYWHERE_IPV6)


def test_routes_of_ipv6_are_the_networks_that_are_up() -> None:
    def six(destination: str, prefix: str, flags: str = "00000001") -> str:
        return f"{destination} {prefix} {'0' * 32} 00 {'0' * 32} 00000100 1 0 {flags} eth0\n"

    text = six(f"fd12{'0' * 28}", "40") + six("0" * 32, "00") + six(f"fe80{'0' * 28}", "40")
    assert parse_ipv6_routes(text + six(f"fd13{'0' * 28}", "40", "00000000")) == ("fd12::/64",)
    with pytest.raises(ValueError, match="not a route"):
        parse_ipv6_routes("eth0\n")
    assert overlapping_route("fd12::/80", ("0.0.0.0/0", "fd12::/64")) == "fd12::/64"
    assert overlapping_route("fd13::/64", ("0.0.0.0/0", "fd12::/64")) == ""


def test_this_host_has_routes_that_can_be_read() -> None:
    assert EVERYWHERE not in host_routes()
