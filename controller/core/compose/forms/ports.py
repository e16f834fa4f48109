"""The short form of ports: ``[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]``, with ranges.

The reference is ``nat.ParsePortSpec`` of go-connections.
"""

from __future__ import annotations

import ipaddress
import re

from controller.core.compose.text.nodes import ComposeNode, NodePath, fail

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
_REMEDY = "write HOST:CONTAINER, such as 8080:80, or the long form"
_CODE = "compose.port"


def parse_port(node: ComposeNode, spec: str, path: NodePath = ()) -> list[dict[str, object]]:
    """Return the long form of a port, one mapping for each container port, as plain values.

    Raises:
        Fault: no port, an invalid address or protocol, or ranges of different lengths.
    """
    address, host, container, protocol = _split(spec)
    address = _address(node, address, path)
    if not container:
        fail(node, _CODE, f"no container port in {spec!r}", _REMEDY, path)
    first, last = _range(node, container, "container", path)
    host_first, host_last = _range(node, host, "host", path) if host else (0, 0)
    if host and last != first and last - first != host_last - host_first:
        message = f"the ranges {container} and {host} have different lengths"
        fail(node, _CODE, message, "write ranges of one length", path)
    if protocol not in _PROTOCOLS:
        fail(node, _CODE, f"unknown protocol {protocol!r}", "write tcp, udp or sctp", path)
    ports: list[dict[str, object]] = []
    for offset in range(last - first + 1):
        published = str(host_first + offset) if host else ""
        if first == last and host_first != host_last:
            published = f"{published}-{host_last}"
        fields: dict[str, object] = {
            "mode": "ingress",
            "host_ip": address,
            "target": first + offset,
        }
        fields |= {"published": published, "protocol": protocol}
        ports.append({name: value for name, value in fields.items() if value})
    return sorted(ports, key=lambda port: f"{port.get('target', 0)}/{protocol}")


def _split(spec: str) -> tuple[str, str, str, str]:
    """Return address, host port, container port and protocol."""
    *before, last = spec.split(":")
    host = before[-1] if before else ""
    container, _, protocol = last.partition("/")
    protocol = protocol.partition("/")[0]
    return ":".join(before[:-1]), host, container, protocol.lower() or "tcp"


def _address(node: ComposeNode, text: str, path: NodePath) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        return ""
    if ":" in bare and bare == text:
        fail(node, _CODE, f"invalid address {text!r}", f"write [{text}]", path)
    try:
        ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        fail(node, _CODE, f"invalid address {text!r}", "write an IP address", path)
    return bare


def _range(node: ComposeNode, text: str, side: str, path: NodePath) -> tuple[int, int]:
    parts = text.split("-")[:2]
    if not all(_PORT.fullmatch(part) and int(part) < 65536 for part in parts):
        message = f"invalid {side} port {text!r}"
        fail(node, _CODE, message, "write a number up to 65535, or a range such as 8000-8010", path)
    first, last = int(parts[0]), int(parts[-1])
    if last < first:
        fail(node, _CODE, f"the range {text} ends before its start", "swap the ports", path)
    return first, last
