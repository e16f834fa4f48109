"""Published ports as links, or as ``ADDRESS:PORT->CONTAINER PORT``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Addresses that stand for every address of the host, each with the address to use on the host.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_DEFAULT_PORTS = {"http": 80, "https": 443}


def addresses_of(resource: dict[str, Any]) -> list[str]:
    """Return the published ports of a resource: ``http://127.0.0.1:18080``, ``127.0.0.1:5432->5432``.

    A port on every address of the host is shown as such.
    """
    return [*dict.fromkeys(_addresses(resource, {}))]


def urls_of(resource: dict[str, Any]) -> list[str]:
    """Return the published ports of a resource that a browser on the host can open."""
    found = dict.fromkeys(_addresses(resource, _EVERYWHERE))
    return [address for address in found if "://" in address]


def urls_in_network(resource: dict[str, Any], slot: dict[str, Any]) -> list[str]:
    """Return the URLs of a replica's web ports in its network, published or not."""
    addresses = [endpoint["address"] for endpoint in slot.get("addresses", [])][:1]
    return [
        _url(port["scheme"], address, port["container"])
        for address in addresses
        for port in resource.get("ports", [])
        if port.get("scheme")
    ]


def _addresses(resource: dict[str, Any], reached_at: Mapping[str, str]) -> Iterator[str]:
    for port in resource.get("ports", []):
        if "host" not in port:
            continue
        if scheme := port.get("scheme"):
            yield _url(scheme, reached_at.get(port["address"], port["address"]), port["host"])
        else:
            udp = "/udp" if port["protocol"] == "udp" else ""
            yield f"{_url_host(port['address'])}:{port['host']}->{port['container']}{udp}"


def _url(scheme: str, address: str, port: int) -> str:
    host = _url_host(address)
    return f"{scheme}://{host}" if _DEFAULT_PORTS[scheme] == port else f"{scheme}://{host}:{port}"


def _url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def clip_addresses(cell: str, room: int) -> str:
    """Return as many addresses as fit, and the number of others: ``http://127.0.0.1:80, +2``.

    An address is never cut, since a part of an address is useless.
    """
    addresses = cell.split(", ")
    for count in range(len(addresses) - 1, 0, -1):
        short = f"{', '.join(addresses[:count])}, +{len(addresses) - count}"
        if len(short) <= room:
            return short
    return f"{addresses[0]}, +{len(addresses) - 1}" if len(addresses) > 1 else cell
