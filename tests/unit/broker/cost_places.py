"""The places of requests that a client fills, for each route, and what fills them.

The places come from the gate's own tables: routes, their parameters, and the fields of bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from controller.broker.gate.routes import CONTEXT_BODY, OWN_PREFIX, PROOF_BODY, ROUTES, Route
from controller.broker.wire import HEADERS_MAX
from controller.core.engine_api import field_tables as tables
from controller.core.engine_api.field_reader import Field
from controller.model.records import Actor, Role
from tests.unit.broker.dialogue import ALICE, CONTROLLER, OPERATOR
from tests.unit.broker.world import NETWORK, REFERENCE, REVISION, SLOT, WEB

#: The tables of objects inside other objects, by the field that has them.
NESTED = {
    "HostConfig": tables.HOST_CONFIG,
    "NetworkingConfig": tables.NETWORKING_CONFIG,
    "Healthcheck": tables.HEALTHCHECK,
    "TrimtabHooks": tables.HOOKS,
    "TrimtabShares": tables.SHARES,
    "RestartPolicy": tables.RESTART_POLICY,
    "LogConfig": tables.LOG_CONFIG,
    "BindOptions": tables.BIND_OPTIONS,
    "Trimtab": tables.FILE_OPTIONS,
    "VolumeOptions": tables.VOLUME_OPTIONS,
    "TmpfsOptions": tables.TMPFS_OPTIONS,
    "DriverConfig": tables.DRIVER_CONFIG,
    "IPAM": tables.IPAM,
    "IPAMConfig": tables.ENDPOINT_IPAM,
    "EndpointConfig": tables.ENDPOINT,
}
#: The tables of objects in a list, or under any name.
LISTED = {
    "Mounts": tables.MOUNT,
    "Ulimits": tables.ULIMIT,
    "PostStart": tables.HOOK,
    "PreStop": tables.HOOK,
    "Devices": tables.DEVICE,
    "DeviceRequests": tables.DEVICE_REQUEST,
    "Config": tables.IPAM_CONFIG,
}
#: The table and the least body of each schema.
BODIES: dict[str, tuple[tuple[Field, ...], dict[str, Any]]] = {
    "create": (tables.CONFIG, {"Image": REFERENCE}),
    "update": (tables.UPDATE, {}),
    "exec": (tables.EXEC, {"Cmd": ["ls"]}),
    "exec-start": (tables.EXEC_START, {}),
    "network": (tables.NETWORK, {"Name": "n", "Internal": True}),
    "connect": (tables.CONNECT, {"Container": WEB}),
    "disconnect": (tables.DISCONNECT, {"Container": WEB}),
    "volume": (tables.VOLUME, {"Name": "v"}),
}
#: Bodies that no table describes: one of each form. Proofs and contexts aren't JSON, and have no fields.
OTHER_BODIES: dict[str, tuple[dict[str, Any], ...]] = {
    "trust": ({"reference": REFERENCE},),
    "files": ({"owner": "team", "files": {"a": "QQ=="}},),
    "secret": (
        {"owner": "team", "source": {"sops": {"name": "a.yaml", "text": "QQ=="}}},
        {"owner": "team", "source": {"age": {"a": "x"}}},
    ),
    "adoption": (
        {
            "containers": [{"container": "old", "name": "x", "create": {}, "admit": ["logs"]}],
            "objects": [],
            "leave": ["bridge"],
            "note": "x",
        },
    ),
    "release": ({"container": SLOT, "files": {"/a": "/b"}, "keepRestart": True, "note": "x"},),
    "approval": ({"plan": "a" * 64, "objects": [WEB]},),
    "record": (
        {"act": "note", "object": "x", "note": "x"},
        {"act": "approve", "plan": "a" * 64, "objects": [WEB], "shown": "b" * 64},
        {"act": "adopt", "objects": [WEB], "note": "x"},
        {"act": "service.pin", "object": "Service/default/web", "revision": REVISION, "note": "x"},
    ),
    PROOF_BODY: (),
    CONTEXT_BODY: (),
}
#: Distinct items that a client would send in a field: number *i*, for lists and members.
ITEMS: dict[str, Callable[[int], Any]] = {
    "Binds": lambda i: f"/srv/{i}:/m{i}",
    "Env": lambda i: f"A{i}=1",
    "Mounts": lambda i: {"Type": "volume", "Source": f"v{i}", "Target": f"/m{i}"},
    "ExtraHosts": lambda i: f"h{i}:10.0.0.1",
    "Aliases": lambda i: f"a{i}",
    "GroupAdd": str,
    "CapAdd": lambda i: f"CAP_{i}",
    "PostStart": lambda i: {"Cmd": [f"c{i}"], "TimeoutMs": 1000},
    "PreStop": lambda i: {"Cmd": [f"c{i}"], "TimeoutMs": 1000},
    "Ulimits": lambda i: {"Name": f"u{i}", "Soft": 1, "Hard": 1},
    "Devices": lambda i: {"PathOnHost": f"/dev/d{i}", "CgroupPermissions": "rw"},
    "DeviceRequests": lambda i: {"Driver": "cdi", "DeviceIDs": [f"a.example/b={i}"]},
    "objects": lambda i: f"{i:064x}",
    "Config": lambda i: {"Subnet": f"10.{i // 250}.{i % 250}.0/24"},
}
MEMBERS: dict[str, Callable[[int], tuple[str, Any]]] = {
    "PortBindings": lambda i: (f"{i + 1024}/tcp", [{"HostPort": str(i + 1024)}]),
    "ExposedPorts": lambda i: (f"{i + 1}/tcp", {}),
    "EndpointsConfig": lambda i: (f"n{i}", {"Aliases": [f"a{i}"]}),
    "Volumes": lambda i: (f"/v{i}", {}),
    "Tmpfs": lambda i: (f"/t{i}", "size=1m"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a request that a client fills, and what it fills the place with."""

    route: str
    #: For example ``body HostConfig.Binds: items``.
    name: str
    actor: Actor
    #: Returns the request with *n* bytes more or less in the place.
    fill: Callable[[int], bytes]

    def __str__(self) -> str:
        return f"{self.route}  {self.name}"

    @property
    def part(self) -> str:
        """The part of the request: ``path``, ``query``, ``header``, or ``body`` for fields."""
        return self.name.partition(" ")[0]


# What a place is filled with.


def _repeat(make: Callable[[int], Any], n: int) -> list[Any]:
    """Return distinct items of about *n* bytes of JSON in all."""
    found: list[Any] = []
    size = 0
    while size < n:
        item = make(len(found))
        size += len(json.dumps(item, separators=(",", ":"))) + 1
        found.append(item)
    return found


def fillings(name: str) -> dict[str, Callable[[int], Any]]:
    """Return the values that a field gets, by a word: each of about *n* bytes of JSON."""
    item = ITEMS.get(name, lambda i: f"x{i}")
    member = MEMBERS.get(name, lambda i: (f"k{i}", "x"))
    return {
        "text": lambda n: "x" * n,
        "foreign text": lambda n: "é" * (n // 2),
        "quotes": lambda n: '"\\' * (n // 4),
        "path": lambda n: "/a" * (n // 2),
        "number": lambda n: int("9" * min(n, 4000)),
        "items": lambda n: _repeat(item, n),
        "equal items": lambda n: [item(0)] * (n // (len(json.dumps(item(0))) + 1)),
        "one item": lambda n: ["x" * n],
        "empty objects": lambda n: [{}] * (n // 3),
        "nested lists": lambda n: [[["x"]]] * (n // 8),
        "members": lambda n: dict(_repeat(member, n)),
        "foreign members": lambda n: {f"é{i}": "" for i in range(n // 12)},
        "long member": lambda n: {"k" * n: "x"},
        "foreign long member": lambda n: {"\ufdfa" * (n // 3): "x"},
        "lists under one member": lambda n: {member(0)[0]: [{}] * (n // 3)},
    }


def _member(base: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    return {**base, name: value}


def _in_list(value: object) -> list[object]:
    return [value]


def _below(
    base: dict[str, Any],
    name: str,
    wrap: Callable[[Any], Any],
    make: Callable[[Any], Any],
    value: object,
) -> dict[str, Any]:
    return {**base, name: wrap(make(value))}


def _inner(entry: Field) -> tuple[str, Callable[[Any], Any], Sequence[Field]] | None:
    """Return the table below a field, with how its objects are named and wrapped."""
    if entry.name in NESTED:
        return "", lambda value: value, NESTED[entry.name]
    if entry.name in LISTED:
        return "[]", _in_list, LISTED[entry.name]
    if entry.name == "EndpointsConfig":
        return ".n1", lambda value: {"n1": value}, tables.ENDPOINT
    if entry.name == "PortBindings":
        return ".80/tcp[]", lambda value: {"80/tcp": [value]}, tables.PORT_BINDING
    return None


def _fields(
    table: Sequence[Field], base: dict[str, Any]
) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield the path of each field, and a function from a value to the body with that value."""
    for entry in table:
        for name in filter(None, (entry.name, entry.spelling)):
            yield name, partial(_member, base, name)
        below = _inner(entry)
        if below is None or (table is tables.LOG_CONFIG):
            continue
        shown, wrap, fields = below
        for path, make in _fields(fields, {}):
            yield f"{entry.name}{shown}.{path}", partial(_below, base, entry.name, wrap, make)


def tables_reached() -> set[int]:
    """Return the ids of the tables whose fields are filled."""
    found = {id(table) for table, _ in BODIES.values()}
    found |= {id(table) for table in (*NESTED.values(), *LISTED.values())}
    return found | {id(tables.ENDPOINT), id(tables.PORT_BINDING)}


# The requests.


def _http(
    route: Route,
    *,
    names: dict[str, str] | None = None,
    query: str = "",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    chunks: int = 0,
) -> bytes:
    known = {"container": WEB, "exec": "f" * 64, "image": REFERENCE, "network": NETWORK}
    known |= {"kind": "config", "namespace": "default", "name": "site"}
    known |= {"volume": "alice-data", **(names or {})}
    path = (OWN_PREFIX if route.own else "/v1.45") + route.template.format(**known)
    target = f"{path}?{query}" if query else path
    lines = [f"{route.method} {target} HTTP/1.1", "Host: d"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is None:
        return "\r\n".join([*lines, "", ""]).encode()
    if not any(name.lower() == "content-type" for name, _ in headers):
        lines.append("Content-Type: application/json")
    if not chunks:
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body
    lines.append("Transfer-Encoding: chunked")
    parts = (body[at : at + chunks] for at in range(0, len(body), chunks))
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return "\r\n".join([*lines, "", ""]).encode() + sent + b"0\r\n\r\n"


def _actor_of(route: Route) -> Actor:
    by_role = {Role.CLIENT: ALICE, Role.OPERATOR: OPERATOR, Role.CONTROLLER: CONTROLLER}
    return next(actor for role, actor in by_role.items() if role in route.roles)


def all_places() -> Iterator[Place]:
    """Yield the places of all routes."""
    for route in ROUTES:
        yield from places(route)


def places(route: Route) -> Iterator[Place]:
    """Yield every place of a route's requests."""
    actor = _actor_of(route)
    least = BODIES[route.body][1] if route.body in BODIES else {}
    body = json.dumps(least).encode() if route.body else None

    def place(name: str, fill: Callable[[int], bytes]) -> Place:
        return Place(route.name, name, actor, fill)

    for name in re.findall(r"\{(\w+)\}", route.template):
        yield place(f"path {name}", partial(_with_name, route, body, name, "x"))
        yield place(f"path {name}: dots", partial(_with_name, route, body, name, "a."))
    for name in (*route.query, "unknown"):
        for word, value in _query_values().items():
            filled = partial(_with_parameter, route, body, name, value)
            yield place(f"query {name}: {word}", filled)
    yield place("query: parameters", partial(_with_parameters, route, body))
    for name in ("Trimtab-Context", "X-Registry-Auth", "Content-Type", "Connection", "X"):
        yield place(f"header {name}", partial(_with_header, route, body, name))
    yield place("headers", partial(_with_headers, route, body))
    if not route.body:
        yield place("body: unexpected", lambda n: _http(route, body=b" " * n))
        return
    yield from _body_places(route, least, place)


def _body_places(
    route: Route, least: dict[str, Any], place: Callable[[str, Callable[[int], bytes]], Place]
) -> Iterator[Place]:
    yield place("body: chunks", lambda n: _http(route, body=b" " * (n // 6), chunks=1))
    yield place("body: garbage", lambda n: _http(route, body=b'{"a":' * (n // 5)))
    for word, value in fillings("").items():
        yield place(f"body: {word}", partial(_with_body, route, lambda value: value, value))
    fields: Iterable[tuple[str, Callable[[Any], Any]]]
    if route.body in BODIES:
        fields = _fields(BODIES[route.body][0], least)
    else:
        fields = (
            (f"{base.get('act', '')}.{name}", partial(_member, base, name))
            for base in OTHER_BODIES[route.body]
            for name in base
        )
    for path, make in fields:
        for word, value in fillings(path.rpartition(".")[2]).items():
            yield place(f"body {path}: {word}", partial(_with_body, route, make, value))


def _with_name(route: Route, body: bytes | None, name: str, text: str, n: int) -> bytes:
    return _http(route, names={name: text * (n // len(text))}, body=body)


def _with_parameter(
    route: Route, body: bytes | None, name: str, value: Callable[[int], str], n: int
) -> bytes:
    return _http(route, query=f"{name}={quote(value(n), safe='')}", body=body)


def _with_parameters(route: Route, body: bytes | None, n: int) -> bytes:
    return _http(route, query="&".join(f"p{i}=1" for i in range(n // 5)), body=body)


def _with_header(route: Route, body: bytes | None, name: str, n: int) -> bytes:
    return _http(route, headers=((name, "x," * (n // 2)),), body=body)


def _with_headers(route: Route, body: bytes | None, n: int) -> bytes:
    count = min(n // 8, HEADERS_MAX - 8)
    return _http(route, headers=[(f"X-{i}", "1") for i in range(count)], body=body)


def _with_body(
    route: Route, make: Callable[[Any], Any], value: Callable[[int], Any], n: int
) -> bytes:
    text = json.dumps(make(value(n)), separators=(",", ":"), ensure_ascii=False)
    return _http(route, body=text.encode())


def _query_values() -> dict[str, Callable[[int], str]]:
    return {
        "text": lambda n: "x" * n,
        "commas": lambda n: "a," * (n // 2),
        "digits": lambda n: "1" * n,
        "durations": lambda n: "1h" * (n // 2),
        "filters": lambda n: json.dumps({"label": _repeat(lambda i: f"l{i}", n)}),
        "filter names": lambda n: json.dumps({f"f{i}": ["x"] for i in range(n // 10)}),
        "filter members": lambda n: json.dumps({"label": {f"l{i}": True for i in range(n // 12)}}),
    }
