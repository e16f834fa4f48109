"""No value that may be a secret reaches the journal, wherever in a request of whatever route it stands.

The real gate over a simulated engine. A marker is put where secrets are given (variables, arguments,
credentials), where nobody expects them (fields that aren't known, of other types, in other
spellings), in queries and before the name of an image, and around them all is drawn. Names, labels,
images, paths, networks, signals and the program that is run are no secrets: they are what the
journal is about.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.broker.gate.routes import ROUTES, Route
from controller.model.mutations import Mutation
from controller.model.records import Record, Request
from tests.sim.test_recovery_sweep import ROOT, WEB, World, container

MARK = "hunter2Zq9"
GIVEN = (MARK, f"x{MARK}", f"{MARK}\n", f"a b {MARK}", f"\x1b{MARK}")
#: Values of every type that hold the marker.
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(GIVEN),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(["A", "b", "Env", "x-y"]), inner, min_size=1, max_size=2),
    ),
    max_leaves=3,
)
ENTRIES = st.sampled_from(["A={}", "A=b={}", "={}", "A =\t{}", "DB_URL=postgres://u:{}@db/x"])
ENV = st.one_of(
    st.lists(st.builds(lambda form, value: form.format(value), ENTRIES, st.sampled_from(GIVEN)),
             min_size=1, max_size=3),
    VALUES,
)  # fmt: skip
#: Where a secret may stand in a body, by the path to it.
CREATE = (
    "Env", "ENV", "env", "Cmd", "Entrypoint", "Healthcheck.Test", "Secret", "HostConfig.Password",
    "HostConfig.LogConfig.Config", "HostConfig.StorageOpt", "HostConfig.Sysctls", "Args", "Shell",
    "HostConfig.Memory", "HostConfig.Privileged", "AttachStdin", "StopTimeout", "OnBuild",
)  # fmt: skip
EXEC = ("Env", "env", "Cmd", "Secret", "Tty", "Privileged", "DetachKeys")
BODIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "/containers/create": (
        {"Image": WEB, "HostConfig": {"NetworkMode": "none"}, "Labels": {}},
        CREATE,
    ),
    "/containers/OWN/exec": ({"Cmd": ["true"]}, EXEC),
    "/containers/OWN/update": ({"CpuShares": 512}, ("Secret", "Memory", "RestartPolicy.Secret")),
    "/networks/create": ({"Name": "lan"}, ("Secret", "Options", "IPAM.Options", "Internal")),
    "/networks/lan/connect": ({"Container": "OWN"}, ("Secret", "EndpointConfig.DriverOpts")),
    "/networks/lan/disconnect": ({"Container": "OWN"}, ("Secret", "Force")),
    "/volumes/create": (
        {"Name": "data"},
        ("Secret", "DriverOpts", "DriverOpts.size", "ClusterVolumeSpec"),
    ),
    "/exec/" + "e" * 64 + "/start": ({"Detach": True}, ("Secret", "Tty", "ConsoleSize")),
}
BODILESS = (
    ("POST", "/containers/OWN/start"),
    ("POST", "/containers/OWN/stop"),
    ("POST", "/containers/OWN/kill"),
    ("DELETE", "/containers/OWN"),
    ("GET", "/containers/OWN/json"),
    ("POST", "/images/create"),
    ("DELETE", "/volumes/data"),
)


class Watched(World):
    """A world whose journal's lines are kept."""

    def _written(self, record: Record, line: bytes) -> None:
        super()._written(record, line)
        self.__dict__.setdefault("lines", []).append(line)

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], query: str = ""
    ) -> bytes:
        """Have it served; return what is answered."""
        told = (("content-type", "application/json"), *headers.items()) if body else ()
        told = told or tuple(headers.items())
        reply = self.broker.serve(Request(method, f"/v1.45{path}", query, told, body, ROOT))
        return reply.body

    @property
    def written(self) -> bytes:
        return b"\n".join(self.__dict__["lines"])


def begun() -> tuple[Watched, str]:
    world = Watched()
    assert world.broker.state is not None
    world.broker.state.hash_key = bytes(32)
    return world, container(world)


def put(body: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return the body with *value* at a path."""
    name, _, rest = path.partition(".")
    if not rest:
        return {**body, name: value}
    inner = body.get(name)
    return {**body, name: put(inner if isinstance(inner, dict) else {}, rest, value)}


def drawn_for(path: str, place: str) -> st.SearchStrategy[Any]:
    """Return what is drawn at a place of a body: in an exec's command, behind the program."""
    if place.casefold() == "env":
        return ENV
    if (path, place) != ("/containers/OWN/exec", "Cmd"):
        return VALUES
    programs = st.sampled_from(["sh", f"sh -c {MARK}"])
    behind = st.lists(st.sampled_from(GIVEN), max_size=2)
    return st.one_of(
        st.builds(lambda program, rest: [program, *rest], programs, behind),
        VALUES.filter(lambda value: not isinstance(value, list)),
    )


def check_unseen(world: Watched) -> None:
    for form in (MARK, MARK.lower(), base64.b64encode(MARK.encode()).decode().rstrip("=")[:-1]):
        assert form.encode() not in world.written, [
            line for line in world.written.splitlines() if form.encode() in line
        ]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_no_secret_of_a_body_reaches_the_journal(data: st.DataObject) -> None:
    world, own = begun()
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body, places = BODIES[path]
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)):
        body = put(body, place, data.draw(drawn_for(path, place)))
    text = json.dumps(body).replace('"OWN"', f'"{own}"')
    if data.draw(st.integers(0, 9)) == 0:  # not JSON at all
        text = text[:-1] + data.draw(st.sampled_from(["", ",}", "}}", f'"{MARK}"', "\x00"]))
    world.send("POST", path.replace("OWN", own), text.encode(), {})
    check_unseen(world)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(BODILESS),
    st.sampled_from(
        ["x-registry-auth", "authorization", "cookie", "x-secret", "x-registry-config"]
    ),
    st.sampled_from([MARK, base64.b64encode(f'{{"password":"{MARK}"}}'.encode()).decode()]),
    st.sampled_from([b"", MARK.encode(), f'{{"password":"{MARK}"}}'.encode()]),
)
def test_no_secret_of_a_header_or_a_body_that_nobody_reads_reaches_the_journal(
    asked: tuple[str, str], header: str, value: str, body: bytes
) -> None:
    world, own = begun()
    world.send(asked[0], asked[1].replace("OWN", own), body, {header: value})
    check_unseen(world)


#: Parameters that say what is acted on, and how: told as they were sent.
TOLD = frozenset({"fromImage", "tag", "platform", "name", "signal", "t"})
#: What no engine reads, and the gate drops.
UNKNOWN = ("password", "Env", "buildargs", "X-Registry-Auth")
#: The marker alone, and as a filter's value.
ASKED = (*GIVEN, f'{{"label":["{MARK}"]}}', f'{{"name":{{"{MARK}":true}}}}', f'["{MARK}"]')


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if not route.own], ids=lambda route: route.name
)
def test_no_secret_of_a_query_reaches_the_journal(route: Route) -> None:
    world, own = begun()
    names = {"container": own, "exec": "e" * 64, "image": WEB, "network": "lan", "volume": "data"}
    path = route.template.format(**names)
    left_out = TOLD | {"repo"} if route.name == Mutation.IMAGE_TAG else TOLD
    if route.kind == "stream" or route.name == "system.df":
        # What a stream is filtered by isn't recorded, and the simulation relays none.
        left_out = left_out | {"filters", *UNKNOWN}
    for name, value in product(sorted({*route.query, *UNKNOWN} - left_out), ASKED):
        content = b"{}" if route.body else b""
        world.send(route.method, path, content, {}, f"{name}={quote(value)}")
    check_unseen(world)


#: How some write credentials before an image's name, and how it is then escaped.
REFERENCES = tuple(
    prefix + form.format(MARK) + rest
    for prefix in ("", "https://")
    for form in ("u:{}@", "{}@", "{}:@", "u:a/{}@", "u:a@{}@", "u:{}%40")
    for rest in ("reg.io/x", "reg.io/x:1", "ghcr.io/platformnetwork/app:1", f"h/x@sha256:{'a' * 64}")
)  # fmt: skip
#: Where an image is named, REF, as a path, a query or a body has it.
NAMED = (
    ("POST", "/images/create", "fromImage=REF", None),
    ("POST", "/images/create", "fromImage=REF&tag=1", None),
    ("POST", "/images/create", "fromSrc=REF", None),
    ("GET", "/images/json", 'filters={"before":["REF"]}', None),
    ("GET", "/images/json", 'filters={"reference":["REF"]}', None),
    ("GET", "/images/REF/json", "", None),
    ("GET", "/images/REF/history", "", None),
    ("DELETE", "/images/REF", "", None),
    ("GET", "/distribution/REF/json", "", None),
    ("POST", "/images/REF/push", "", None),
    ("POST", "/images/REF/tag", "repo=REF", None),
    ("POST", "/containers/create", "name=web", {"Image": "REF"}),
    ("POST", "/containers/create", "name=", {"Image": WEB, "Labels": {"io.trimtab.image": "REF"}}),
    ("POST", "/build", "remote=REF", None),
)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(NAMED), st.sampled_from(REFERENCES), st.booleans())
def test_credentials_before_an_image_name_are_withheld(
    named: tuple[str, str, str, object], reference: str, escaped: bool
) -> None:
    method, path, query, body = named
    world, _ = begun()
    shown = quote(reference, safe="/") if escaped else reference
    content = b"" if body is None else json.dumps(body).replace("REF", reference).encode()
    inside = quote(query.replace("REF", reference), safe="=&")
    answer = world.send(method, path.replace("REF", shown), content, {}, inside)
    assert MARK.encode() not in answer
    check_unseen(world)


def test_a_secret_that_is_admitted_leaves_its_name_and_a_keyed_hash() -> None:
    """The marker is really on its way: the engine gets it, and the journal can be asked for it."""
    world, _ = begun()
    body = {"Image": WEB, "HostConfig": {"NetworkMode": "none"}, "Env": [f"DB={MARK}"]}
    for name in ("one", "two"):
        world.must("POST", "/containers/create", body, f"name={name}")
    made = [c for c in world.engine.containers.values() if c.name in {"one", "two"}]
    assert [f"DB={MARK}" in c.config["Env"] for c in made] == [True, True]
    check_unseen(world)
    *_, one, two = (
        r.entry.request for r in world.records
        if r.entry.stage == "intent" and r.entry.request["route"] == "container.create"
    )  # fmt: skip
    assert one["secrets"] == two["secrets"]
    assert list(dict(one["secrets"])) == ["DB"]  # type: ignore[call-overload]
