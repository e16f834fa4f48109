"""No byte of a client's reaches the engine but in a field that the gate wrote itself.

A marker is put wherever the gate's tables know nothing: into unknown fields at every depth of every
body, into fields that are dropped or refused, into other spellings of known ones, into headers and
parameters of every route. Made from the route table and the field tables: a route or an object
that is added to them and has no base here fails.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from controller.broker.gate.routes import CONTEXT_BODY, OWN_PREFIX, ROUTES, Route
from controller.core.encoding.json_values import fold
from controller.core.engine_api import field_tables
from controller.core.engine_api.field_reader import Field, Posture, an_object
from controller.model import names
from tests.gate import wire
from tests.gate.fixtures import CONTEXT, IMAGE, World

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine
    from tests.gate.wire import Answer

pytestmark = pytest.mark.needs_root
MARK = "Zmarkz"
VALUES: tuple[object, ...] = (MARK, [MARK], {MARK: MARK}, [{MARK: MARK}], {MARK: {}})
ZEROES: tuple[object, ...] = (None, "", 0, False, [], {})
ROOTS: dict[str, Sequence[Field]] = {
    "create": field_tables.CONFIG,
    "update": field_tables.UPDATE,
    "exec": field_tables.EXEC,
    "exec-start": field_tables.EXEC_START,
    "network": field_tables.NETWORK,
    "connect": field_tables.CONNECT,
    "disconnect": field_tables.DISCONNECT,
    "volume": field_tables.VOLUME,
}
#: Which table the objects in a field have; ``*`` stands for each item or member.
INSIDE: dict[str, tuple[str, Sequence[Field]]] = {
    "HostConfig": ("", field_tables.HOST_CONFIG),
    "NetworkingConfig": ("", field_tables.NETWORKING_CONFIG),
    "EndpointsConfig": ("*", field_tables.ENDPOINT),
    "EndpointConfig": ("", field_tables.ENDPOINT),
    "Healthcheck": ("", field_tables.HEALTHCHECK),
    "TrimtabHooks": ("", field_tables.HOOKS),
    "TrimtabShares": ("", field_tables.SHARES),
    "LogConfig": ("", field_tables.LOG_CONFIG),
    "RestartPolicy": ("", field_tables.RESTART_POLICY),
    "Ulimits": ("*", field_tables.ULIMIT),
    "PortBindings": ("**", field_tables.PORT_BINDING),
    "Mounts": ("*", field_tables.MOUNT),
    "BindOptions": ("", field_tables.BIND_OPTIONS),
    "VolumeOptions": ("", field_tables.VOLUME_OPTIONS),
    "TmpfsOptions": ("", field_tables.TMPFS_OPTIONS),
    "DriverConfig": ("", field_tables.DRIVER_CONFIG),
    "IPAM": ("", field_tables.IPAM),
}
#: A body of each schema with every object that a table knows; ``$`` words are filled in.
BASES: dict[str, dict[str, Any]] = {
    "create": {
        "Image": IMAGE,
        "Labels": {names.SERVICE: "web"},
        "Healthcheck": {"Test": ["NONE"]},
        "TrimtabHooks": {},  # a client has none
        "TrimtabShares": {},  # a client has none
        "HostConfig": {
            "NetworkMode": "alice-isle",
            "LogConfig": {"Type": "json-file", "Config": {}},
            "RestartPolicy": {"Name": "no"},
            "Ulimits": [{"Name": "nofile", "Soft": 8, "Hard": 8}],
            "PortBindings": {"80/tcp": [{"HostPort": ""}]},
            "Mounts": [
                {"Type": "bind", "Source": "/tmp/policy-x", "Target": "/a", "BindOptions": {}},
                {
                    "Type": "volume",
                    "Source": "alice-store",
                    "Target": "/b",
                    "VolumeOptions": {"DriverConfig": {"Name": "local"}},
                },
                {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 4096}},
            ],
        },
        "NetworkingConfig": {"EndpointsConfig": {"alice-isle": {"Aliases": ["web"]}}},
    },
    "update": {"CpuShares": 512, "RestartPolicy": {"Name": "no"}},
    "exec": {"Cmd": ["true"]},
    "exec-start": {"Detach": True},
    "network": {"Name": "$new", "IPAM": {"Driver": "default"}},
    "connect": {"Container": "$own", "EndpointConfig": {"Aliases": []}},
    "disconnect": {"Container": "$own"},
    "volume": {"Name": "$new"},
}
#: Bodies of our own routes go no further than the broker. A context is no JSON: the engine gets another
#: archive (unit/broker/builds/test_context_archive.py).
OWN_BODIES = {route.body for route in ROUTES if route.own} | {CONTEXT_BODY}
#: Those that the gate reads nothing of stand in one request: none of them can hide another.
IGNORED = f"X-{MARK} User-Agent Cookie Authorization Referer X-Forwarded-For Via Forwarded"
HEADERS: tuple[dict[str, str | None], ...] = (
    dict.fromkeys(f"{IGNORED} X-HTTP-Method-Override".split(), MARK),
    {"X-Registry-Auth": MARK, "X-Registry-Config": MARK, "Accept": MARK},
    {"Host": MARK},
)


class Taint:
    """Asks through the broker, and keeps what came through the tap."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._numbers = itertools.count()
        world.renew_own("joined")

    def path(self, route: Route) -> str:
        """A path of a route, for an object that is there."""
        words = {
            "container": self.world.own,
            "image": IMAGE,
            "network": "alice-isle" if route.name != "network.connect" else "taint-more",
            "volume": "alice-store",
            "exec": "0" * 64,
            "kind": "config",
            "namespace": "default",
            "name": "site",
        }
        if route.name == "network.remove":
            words["network"] = "nobody"
        if route.name in {"volume.remove", "container.remove", "image.remove"}:
            words |= {"volume": "nobody", "container": "nobody", "image": "ghcr.io/nobody/x:1"}
        if route.body == "exec-start":
            # Whatever was asked of it before, it runs.
            self.world.ask("alice", "POST", f"/containers/{self.world.own}/unpause")
            self.world.must("alice", "POST", f"/containers/{self.world.own}/start")
            self.world.make_exec("OWN_EXEC")
            words["exec"] = self.world.tokens["OWN_EXEC"]
        return (OWN_PREFIX if route.own else "/v1.45") + route.template.format(**words)

    def ask(
        self,
        route: Route,
        body: object = None,
        *,
        query: str = "",
        headers: Mapping[str, str | None] | None = None,
    ) -> tuple[Answer, bytes]:
        """Ask as somebody who may; return the answer, and every byte on the engine's side."""
        # The policy lets operators alone run commands.
        roles = {str(role.value) for role in route.roles} - (
            {"client"} if route.name.startswith("exec.") else set()
        )
        who = "alice" if "client" in roles else "operator" if "operator" in roles else "controller"
        number = next(self._numbers)
        if route.name == "container.create":
            query = f"name=taint{number}" + (f"&{query}" if query else "")
        if route.name.endswith(".prune"):  # the objects of the world stay
            kept = "filters=%7B%22label%22%3A%5B%22taint%22%5D%7D"
            query = kept + (f"&{query}" if query else "")
        sent = None
        if body is not None:
            filled = json.dumps(body).replace("$own", self.world.own)
            sent = filled.replace("$new", f"taint{number}").encode()
        target = self.path(route) + (f"?{query}" if query else "")
        context: dict[str, str | None] = {"Trimtab-Context": CONTEXT} if who == "controller" else {}
        raw = wire.request(route.method, target.encode(), sent, {**context, **(headers or {})})
        mark = self.world.tap.mark()
        answer = wire.ask(self.world.connect(who), raw, to_head=route.method == "HEAD")
        seen = b"".join(each.raw for each in self.world.tap.since(mark))
        self._remove(route, number, answer)
        return answer, seen

    def _remove(self, route: Route, number: int, answer: Answer) -> None:
        kind, _, verb = route.name.partition(".")
        if verb == "create" and answer.good and kind in {"container", "network", "volume"}:
            self.world.must("alice", "DELETE", f"/{kind}s/taint{number}")


@pytest.fixture(scope="module")
def taint(engine: PrivateEngine | FoundEngine) -> Iterator[Taint]:
    world = World(engine, [])
    try:
        made = Taint(world)
        world.must("alice", "POST", "/networks/create", {"Name": "taint-more"})
        yield made
    finally:
        world.close()


Path = tuple[str | int, ...]


def places(
    table: Sequence[Field], value: Mapping[str, Any], path: Path = ()
) -> Iterator[tuple[Path, Sequence[Field]]]:
    """Yield every object of a base that has a table, where it is."""
    yield path, table
    for name, member in value.items():
        if name in INSIDE:
            depth, inner = INSIDE[name]
            for at, found in _objects(member, len(depth)):
                yield from places(inner, found, (*path, name, *at))


def _objects(value: Any, depth: int) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if depth == 0:
        yield (), value
        return
    items: Iterable[tuple[str | int, Any]] = (
        value.items() if isinstance(value, dict) else enumerate(value)
    )
    for key, member in items:
        for at, found in _objects(member, depth - 1):
            yield (key, *at), found


def with_member(base: Mapping[str, Any], path: Path, key: str, value: object) -> dict[str, Any]:
    """Return a base with one member more in the object at *path*."""
    changed = deepcopy(dict(base))
    spot: Any = changed
    for step in path:
        spot = spot[step]
    spot[key] = value
    return changed


BODY_ROUTES = [route for route in ROUTES if route.body and route.body not in OWN_BODIES]


def test_every_body_has_a_base_with_every_object_that_its_tables_know() -> None:
    assert {route.body for route in BODY_ROUTES} == set(BASES) == set(ROOTS)
    for name, base in BASES.items():
        for path, table in places(ROOTS[name], base):
            spot: Any = base
            for step in path:
                spot = spot[step]
            objects = {
                field.name
                for field in table
                if field.read is an_object and field.posture is not Posture.DENY
            }
            if table is field_tables.MOUNT:  # each mount has the options of its own kind
                objects &= {f"{spot['Type'].title()}Options"}
            assert objects <= set(spot), f"{name}: {path}"
            assert objects <= set(INSIDE), f"{name}: {path}"


@pytest.mark.parametrize("route", BODY_ROUTES, ids=lambda route: route.name)
def test_a_base_is_admitted_and_reaches_the_engine(taint: Taint, route: Route) -> None:
    """Else nothing of what follows would prove anything."""
    answer, seen = taint.ask(route, BASES[route.body])
    assert answer.good, answer.body
    assert f"{route.method} /v1.45".encode() in seen


def test_a_marker_in_a_field_that_is_admitted_is_seen(taint: Taint) -> None:
    route = next(each for each in BODY_ROUTES if each.name == "container.create")
    answer, seen = taint.ask(route, {**BASES["create"], "Env": [f"A={MARK}"]})
    assert answer.good
    assert MARK.encode() in seen


@pytest.mark.parametrize("route", BODY_ROUTES, ids=lambda route: route.name)
def test_a_value_of_an_unknown_field_appears_nowhere(taint: Taint, route: Route) -> None:
    base = BASES[route.body]
    for path, _ in places(ROOTS[route.body], base):
        for value in (VALUES[0], VALUES[1 + len(path) % 4]):
            answer, seen = taint.ask(route, with_member(base, path, f"X{MARK}", value))
            assert 400 <= answer.status < 500, (path, value, answer)
            assert answer.rule, answer
            assert MARK.encode() not in seen, (path, value)
        # An empty one is how clients of another version say nothing: it is dropped.
        answer, seen = taint.ask(route, with_member(base, path, f"X{MARK}", ZEROES[len(path) % 6]))
        assert MARK.encode() not in seen, path


@pytest.mark.parametrize("route", BODY_ROUTES, ids=lambda route: route.name)
def test_what_is_in_a_field_that_is_dropped_or_refused_reaches_nobody(
    taint: Taint, route: Route
) -> None:
    base = BASES[route.body]
    for path, table in places(ROOTS[route.body], base):
        for field in table:
            if field.posture not in {Posture.DENY, Posture.DROP}:
                continue
            for value in (VALUES[0], VALUES[1 + len(field.name) % 4]):
                answer, seen = taint.ask(route, with_member(base, path, field.name, value))
                assert MARK.encode() not in seen, (path, field.name, value)
                if field.posture is Posture.DENY:
                    assert 400 <= answer.status < 500, (path, field.name, value, answer)


@pytest.mark.parametrize("route", BODY_ROUTES, ids=lambda route: route.name)
def test_another_spelling_of_a_known_field_is_refused(taint: Taint, route: Route) -> None:
    base = BASES[route.body]
    # Of several objects with the same table one is enough.
    by_table = {id(table): (path, table) for path, table in places(ROOTS[route.body], base)}
    for path, table in by_table.values():
        for field in table:
            for key in _spellings(field.name):
                answer, seen = taint.ask(route, with_member(base, path, key, MARK))
                assert 400 <= answer.status < 500, (path, key, answer)
                assert MARK.encode() not in seen, (path, key)


def _spellings(name: str) -> list[str]:
    odd = name.replace("s", "\u017f", 1).replace("k", "\u212a", 1)
    return [each for each in (name.lower(), odd) if each != name and fold(each) == fold(name)]


@pytest.mark.parametrize("name", field_tables.LEGACY_NAMES.split())
def test_a_field_of_host_config_at_the_top_reaches_nobody(taint: Taint, name: str) -> None:
    route = next(each for each in BODY_ROUTES if each.name == "container.create")
    if name in {field.name for field in field_tables.CONFIG}:
        return
    answer, seen = taint.ask(route, {**BASES["create"], name: MARK})
    assert (answer.status, answer.rule) == (400, "body.legacy")
    assert MARK.encode() not in seen


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_headers_and_unknown_parameters_reach_nobody(taint: Taint, route: Route) -> None:
    body = None if route.own else BASES.get(route.body)
    for headers in HEADERS:
        _, seen = taint.ask(route, body, headers=headers)
        assert MARK.encode() not in seen, headers
    for query in (f"{MARK}={MARK}", f"{MARK}=", f"x={MARK}&x=%ff{MARK}&[]={MARK}"):
        answer, seen = taint.ask(route, body, query=query)
        assert not route.own or 400 <= answer.status < 500, query
        assert MARK.encode() not in seen, query
    for name in route.query:
        # The engine matches the names of parameters exactly; what it ignores isn't sent either.
        answer, seen = taint.ask(route, body, query=f"{name.swapcase()}={MARK}")
        assert MARK.encode() not in seen, name
        assert 400 <= answer.status < 500, name


@pytest.mark.parametrize(
    "route",
    [each for each in ROUTES if each.method == "POST" and not each.body],
    ids=lambda route: route.name,
)
def test_a_body_that_nobody_reads_reaches_nobody(taint: Taint, route: Route) -> None:
    for value in VALUES:
        _, seen = taint.ask(route, {MARK: value, "Privileged": True})
        assert MARK.encode() not in seen, value
    for name in route.query:
        # Where the body says otherwise than the query, one of the two isn't meant.
        answer, seen = taint.ask(route, {name: MARK})
        assert (answer.status, answer.rule) == (400, "query.repeated"), name
        assert MARK.encode() not in seen, name
