"""Published ports as addresses."""

from __future__ import annotations

from typing import Any

import pytest

from controller.cli.status.table import addresses_of, clip_addresses, urls_of


def port(**members: Any) -> dict[str, Any]:
    return {"container": 8080, "host": 18080, "address": "127.0.0.1", "protocol": "tcp", **members}


@pytest.mark.parametrize(
    ("members", "address"),
    [
        ({"scheme": "http"}, "http://127.0.0.1:18080"),
        ({"scheme": "http", "host": 80}, "http://127.0.0.1"),
        ({"scheme": "https", "host": 8443}, "https://127.0.0.1:8443"),
        ({"container": 5432, "address": "0.0.0.0"}, "0.0.0.0:18080->5432"),
        ({"address": "::1", "protocol": "udp"}, "[::1]:18080->8080/udp"),
    ],
)
def test_a_published_port_is_an_address(members: dict[str, Any], address: str) -> None:
    assert addresses_of({"ports": [port(**members)]}) == [address]
    assert urls_of({"ports": [port(**members)]}) == ([address] if "://" in address else [])


@pytest.mark.parametrize(
    ("everywhere", "shown", "link"),
    [
        ("0.0.0.0", "http://0.0.0.0:18080", "http://127.0.0.1:18080"),
        ("::", "http://[::]:18080", "http://[::1]:18080"),
    ],
)
def test_a_port_on_every_address_is_shown_so_and_its_link_works_on_the_host(
    everywhere: str, shown: str, link: str
) -> None:
    resource = {"ports": [port(scheme="http", address=everywhere)]}
    assert addresses_of(resource) == [shown]
    assert urls_of(resource) == [link]


def test_a_port_on_two_addresses_is_one_link() -> None:
    both = [port(address=address, scheme="http") for address in ("127.0.0.1", "0.0.0.0")]
    assert len(urls_of({"ports": both})) == 1


def test_a_port_that_is_not_published_has_no_address() -> None:
    assert addresses_of({"ports": [{"container": 8080, "protocol": "tcp"}]}) == []
    assert addresses_of({}) == []


def test_addresses_are_counted_and_never_cut() -> None:
    cell = "http://127.0.0.1:18080, http://127.0.0.1:18081, 127.0.0.1:5432->5432"
    assert clip_addresses(cell, 50) == "http://127.0.0.1:18080, http://127.0.0.1:18081, +1"
    assert clip_addresses(cell, 5) == "http://127.0.0.1:18080, +2"
    assert clip_addresses("http://127.0.0.1:18080", 5) == "http://127.0.0.1:18080"
