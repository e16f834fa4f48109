from __future__ import annotations

import re

import pytest

from controller.broker.dispatch import ENDPOINTS
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import (
    RequestTarget,
    build_path,
    detach_keys,
    flag,
    left_to_admission,
    must_be_unset,
    number,
    read_path,
    read_query,
    validate_query,
    without_repeats,
)
from controller.broker.gate.routes import DENIED, ROUTES, body_limit, find_route, may_be_large
from controller.core.enforcement.settlement import ProofKind
from controller.model.mutations import Mutation
from tests.unit.broker.gate.api_parameters import PARAMETERS

FULL = "ab" * 32


def refused(rule: str, run: object, *args: object, **kwargs: object) -> Denied:
    with pytest.raises(Denied) as denial:
        run(*args, **kwargs)  # type: ignore[operator]
    assert denial.value.rule == rule
    return denial.value


@pytest.mark.parametrize(
    ("raw", "path", "versioned"),
    [
        ("/_ping", "/_ping", False),
        ("/v1.44/_ping", "/_ping", True),
        ("/v1.45/containers/json", "/containers/json", True),
        ("/containers/json", "/containers/json", False),
        (
            "/v1.45/images/ghcr.io/platformnetwork/web:1.2.3/json",
            "/images/ghcr.io/platformnetwork/web:1.2.3/json",
            True,
        ),
        (
            "/v1.45/images/ghcr.io/platformnetwork/web%40sha256%3Aabc/json",
            "/images/ghcr.io/platformnetwork/web@sha256:abc/json",
            True,
        ),
        # Not a version that we take off: the router then knows no such route.
        ("/v9.99/containers/create", "/v9.99/containers/create", False),
        ("/V1.45/containers/create", "/V1.45/containers/create", False),
        ("/v01.45/containers/create", "/v01.45/containers/create", False),
        ("/v1.045/containers/create", "/v1.045/containers/create", False),
        ("/v1.45.0/containers/create", "/v1.45.0/containers/create", False),
        ("/v1.5/containers/create", "/v1.5/containers/create", False),
        ("/v./containers/create", "/v./containers/create", False),
    ],
)
def test_a_canonical_path_is_read(raw: str, path: str, versioned: bool) -> None:
    assert read_path(raw) == RequestTarget(path, versioned)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "/",
        "/v1.45/",
        "/v1.45//containers/create",
        "//containers/create",
        "/v1.45/containers/create/",
        "/v1.45/./containers/create",
        "/x/../containers/create",
        "/v1.45/%2e%2e/containers/create",
        "/v1.45/containers%2Fcreate",
        "/v1.45/containers/%63reate",
        f"/v1.45/containers/{FULL}%2Fexec",
        "/v1.45/containers/a%40b/start",
        "/v1.45/images/a%3ab/json",  # clients write it in capitals
        "/v1.45/images/a%2fb/json",
        "/v1.45\\containers\\create",
        "/v1.45/containers/create%0d%0aX:1",
        "/v1.45/conta\u0131ners/create",
        "/v1.45/containers/create;x",
        "/v1.45/containers/\x00/json",
        "/v1.23/containers/create",
        "/" + "a" * 1024,
    ],
)
def test_an_ambiguous_path_is_refused(raw: str) -> None:
    assert refused("path.malformed", read_path, raw).status == 400


def test_versions_that_we_do_not_speak_are_told_in_the_engines_words() -> None:
    old = refused("api.version", read_path, "/v1.43/containers/json")
    assert old.message == "client version 1.43 is too old. Minimum supported API version is 1.44"
    new = refused("api.version", read_path, "/v1.46/containers/json")
    assert new.message == "client version 1.46 is too new. Maximum supported API version is 1.45"


def test_a_query_is_decoded_once_and_kept_in_order() -> None:
    listed = ("flag", "t", "filters", "name")
    assert read_query("name=a&filters=%7B%22x%22%3A1%7D&t=1+2&flag&", listed) == {
        "name": "a",
        "filters": '{"x":1}',
        "t": "1 2",
        "flag": "",
    }


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ("name=a;name=b", "query.malformed"),
        ("name=a%", "query.malformed"),
        ("name=a%0", "query.malformed"),
        ("name=a%zz", "query.malformed"),
        ("name=a%00", "query.malformed"),
        ("name=a%0a", "query.malformed"),
        ("name=%ff", "query.malformed"),
        ("na%00me=a", "query.malformed"),
        ("name=\u00e9", "query.malformed"),
        ("name=" + "x" * 8193, "query.malformed"),
        ("&".join(f"p{n}=1" for n in range(1025)), "query.malformed"),
        ("other=1;name=b", "query.malformed"),
        ("other=%", "query.malformed"),
        ("name=a&name=b", "query.repeated"),
        ("name=a&n%61me=b", "query.repeated"),
        ("name=a&other=1&name=a", "query.repeated"),
        ("name=a&Name=a", "query.unknown"),
        ("NAME=", "query.unknown"),
        ("%4eame=b", "query.unknown"),
        ("ſize=1".encode().decode("latin-1"), "query.malformed"),
        ("%c5%bfize=1", "query.unknown"),
    ],
)
def test_a_query_that_readers_take_differently_is_refused(raw: str, rule: str) -> None:
    assert refused(rule, read_query, raw, ("name", "size")).status == 400


@pytest.mark.parametrize(
    "raw",
    [
        "Image=a&Cmd=sh&Cmd=-c&Cmd=echo%0Ax&name=web",
        "name=web&Env=" + "x" * 8193,
        "name=web&x=%ff%00",
        "na%20me=b&Labels[a]=1&=c&&name=web&name%20=d",
        "&".join(f"p{n}=1" for n in range(1023)) + "&name=web",
    ],
)
def test_a_parameter_that_no_engine_reads_is_dropped(raw: str) -> None:
    assert read_query(raw, ("name", "platform")) == {"name": "web"}


def test_a_route_of_trimtab_itself_has_no_further_parameter() -> None:
    denied = refused("query.unknown", read_query, "owner=a&servcie=b", ("owner",), closed=True)
    assert denied.reason == "this route has no parameter servcie"


def test_every_parameter_that_an_engine_reads_is_listed_for_its_route() -> None:
    # One that isn't listed is dropped, and the client believes that it has an effect.
    assert {
        re.sub(r"\{\w+\}", "{}", route.target): frozenset(route.query)
        for route in ROUTES
        if not route.own
    } == PARAMETERS


KNOWN = {"t": number(-1, 300), "force": flag, "link": must_be_unset, "name": left_to_admission}


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"t": 5, "A": 1}, {"t": "5"}),
        ({"t": "5", "A": 1}, {"t": "5"}),
        ({"force": True, "A": 1}, {"force": "1"}),
        ({"force": False, "A": 1}, {"force": "0"}),
        ({"name": "web", "A": 1}, {"name": "web"}),
        ({"name": {"a": [1]}, "A": 1}, {"name": '{"a":[1]}'}),
        ({"name": None, "t": None, "force": "", "link": False, "A": 1}, {}),
    ],
)
def test_a_member_of_the_body_that_repeats_the_query_is_dropped(
    body: object, query: dict[str, str]
) -> None:
    assert without_repeats(body, query, KNOWN) == {"A": 1}


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"t": 5}, {}),
        ({"t": 5}, {"t": "6"}),
        ({"t": 301}, {}),
        ({"t": 0}, {}),
        ({"force": True}, {"force": "0"}),
        ({"link": True}, {}),
        ({"name": "web"}, {"name": "db"}),
        ({"name": ["web"]}, {"name": "web"}),
        ({"name": None}, {"name": "web"}),
    ],
)
def test_a_body_that_says_otherwise_than_the_query_is_refused(
    body: object, query: dict[str, str]
) -> None:
    assert refused("query.repeated", without_repeats, body, query, KNOWN).status == 400


@pytest.mark.parametrize("body", [None, "x", [1], {}, {"T": 1}])
def test_a_body_without_repeats_is_left_as_it_is(body: object) -> None:
    assert without_repeats(body, {"t": "2"}, KNOWN) == body


def test_parameters_are_checked_rebuilt_and_zero_values_of_known_ones_dropped() -> None:
    known = {"t": number(-1, 300), "force": flag, "name": left_to_admission, "link": must_be_unset}
    asked = {"t": "007", "force": "True", "name": "x", "link": "0"}
    assert validate_query(asked, known) == {"t": "7", "force": "1", "name": "x"}
    assert validate_query({"force": "false"}, known) == {"force": "0"}


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ({"t": "301"}, "query.invalid"),
        ({"t": "1_0"}, "query.invalid"),
        ({"t": "\u0661"}, "query.invalid"),
        ({"force": "yes"}, "query.invalid"),
        ({"link": "1"}, "query.invalid"),
    ],
)
def test_invalid_parameters_are_refused(query: dict[str, str], rule: str) -> None:
    known = {"t": number(-1, 300), "force": flag, "link": must_be_unset}
    assert refused(rule, validate_query, query, known).status == 400


@pytest.mark.parametrize("keys", ["ctrl-p,ctrl-q", "ctrl-c", "ctrl-\\", "ctrl-@,a,B,1", "DEL", "^"])
def test_what_the_engine_knows_as_keys_detaches(keys: str) -> None:
    assert validate_query({"k": keys}, {"k": detach_keys}) == {"k": keys}


@pytest.mark.parametrize("keys", ["hunter2", "ctrl-p,hunter2", "ctrl-P", "ctrl-1", "a,,b", "a,"])
def test_what_is_no_key_is_refused_and_not_recorded(keys: str) -> None:
    assert (
        keys not in refused("query.invalid", validate_query, {"k": keys}, {"k": detach_keys}).reason
    )


def test_what_is_written_reads_back() -> None:
    query = {"filters": '{"label":["a=b&c;d"]}', "name": "x y"}
    target = build_path("/containers/json", query)
    path, _, raw = target.partition("?")
    assert (path, read_query(raw, query)) == ("/containers/json", query)
    assert build_path("/containers/json") == "/containers/json"


@pytest.mark.parametrize(
    ("method", "path", "name", "names"),
    [
        ("GET", "/_ping", "ping", {}),
        ("HEAD", "/_ping", "ping.head", {}),
        ("POST", "/containers/create", "container.create", {}),
        ("GET", "/containers/json", "container.list", {}),
        ("GET", f"/containers/{FULL}/json", "container.inspect", {"container": FULL}),
        ("DELETE", "/containers/web", "container.remove", {"container": "web"}),
        ("GET", "/images/json", "image.list", {}),
        (
            "GET",
            "/images/ghcr.io/p/web:1/json",
            "image.inspect",
            {"image": "ghcr.io/p/web:1"},
        ),
        (
            "GET",
            "/distribution/ghcr.io/p/web:1/json",
            "distribution.inspect",
            {"image": "ghcr.io/p/web:1"},
        ),
        ("DELETE", "/images/ghcr.io/p/web:1", "image.remove", {"image": "ghcr.io/p/web:1"}),
        ("POST", f"/containers/{FULL}/exec", "exec.create", {"container": FULL}),
        ("POST", f"/exec/{FULL}/start", "exec.start", {"exec": FULL}),
        ("POST", "/networks/net/connect", "network.connect", {"network": "net"}),
        ("GET", "/trimtab/v1/whoami", "own.whoami", {}),
    ],
)
def test_routes_are_found(method: str, path: str, name: str, names: dict[str, str]) -> None:
    match = find_route(method, path, versioned=False)
    assert (match.route.name, dict(match.names)) == (name, names)


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("POST", "/build/prune", "route.denied"),
        ("POST", "/commit", "route.denied"),
        ("POST", "/images/load", "route.denied"),
        ("GET", "/images/get", "route.denied"),
        ("POST", "/images/ghcr.io/p/web/push", "route.denied"),
        ("POST", "/images/prune", "route.denied"),
        ("PUT", f"/containers/{FULL}/archive", "route.denied"),
        ("HEAD", f"/containers/{FULL}/archive", "route.denied"),
        ("GET", f"/containers/{FULL}/export", "route.denied"),
        ("POST", f"/containers/{FULL}/checkpoints", "route.denied"),
        ("GET", f"/containers/{FULL}/attach/ws", "route.denied"),
        ("GET", f"/containers/{FULL}/exec", "route.unknown"),
        ("GET", "/exec/x/start", "route.unknown"),
        ("DELETE", "/exec/x", "route.unknown"),
        ("POST", "/swarm/init", "route.denied"),
        ("GET", "/plugins", "route.denied"),
        ("POST", "/session", "route.denied"),
        ("POST", "/grpc", "route.denied"),
        ("GET", "/debug/vars", "route.denied"),
        ("GET", "/metrics", "route.unknown"),
        ("POST", "/moby.buildkit.v1.Control/Solve", "route.unknown"),
        ("PATCH", f"/containers/{FULL}", "route.unknown"),
        ("OPTIONS", "/containers/create", "route.unknown"),
        ("HEAD", "/containers/json", "route.unknown"),
        ("POST", "/containers/a/b/start", "route.unknown"),
        ("POST", "/CONTAINERS/create", "route.unknown"),
        ("GET", "/trimtab/v1/nothing", "route.unknown"),
    ],
)
def test_a_request_outside_the_route_table_is_refused(method: str, path: str, rule: str) -> None:
    refused(rule, find_route, method, path, versioned=False)


@pytest.mark.parametrize(
    ("method", "path", "most", "beyond"),
    [
        ("POST", "/v1.45/containers/create", 1024 * 1024, "wire.body-size"),
        ("POST", f"/containers/{FULL}/update", 64 * 1024, "wire.body-size"),
        ("POST", "/trimtab/v1/trust", 64 * 1024, "wire.body-size"),
        ("POST", f"/v1.45/containers/{FULL}/start", 4096, "wire.body-size"),
        ("POST", "/v1.45/commit", 4096, "route.denied"),
        ("PUT", f"/v1.45/containers/{FULL}/archive", 4096, "route.denied"),
        ("POST", "/v1.45/nothing", 4096, "route.unknown"),
        ("POST", "/v1.45/containers/../build", 4096, "path.malformed"),
        ("POST", "/v1.99/containers/create", 4096, "api.version"),
    ],
)
def test_a_body_s_bound_is_its_route_s(method: str, path: str, most: int, beyond: str) -> None:
    bound = body_limit(method, path)
    assert (bound.most, bound.refusal.rule) == (most, beyond)


def test_the_context_of_a_build_is_left_to_the_handler() -> None:
    assert body_limit("POST", "/v1.45/build").streamed
    refusal = body_limit("POST", "/v1.45/build/prune").refusal
    assert (refusal.status, refusal.rule) == (403, "route.denied")


@pytest.mark.parametrize("query", ["fromSrc=-", "fromSrc=-&repo=x&tag=1", "fromImage=x&fromSrc=-"])
def test_an_archive_to_import_is_refused_before_it_is_read(query: str) -> None:
    refusal = body_limit("POST", f"/v1.45/images/create?{query}").refusal
    assert (refusal.status, refusal.rule) == (403, "image.import")
    assert "trimtab image trust" in refusal.remedy
    assert (
        body_limit("POST", "/images/create?fromImage=x&fromSrc=").refusal.rule == "wire.body-size"
    )


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/nodes", "This node is not a swarm manager."),
        ("GET", "/nodes/x", "This node is not a swarm manager."),
        ("GET", "/swarm", "This node is not a swarm manager."),
        ("GET", "/services", "This node is not a swarm manager."),
        ("GET", "/configs/x", "This node is not a swarm manager."),
        ("POST", "/swarm/leave", "This node is not part of a swarm"),
    ],
)
def test_everybody_reads_that_there_is_no_swarm(method: str, path: str, words: str) -> None:
    told = refused("route.denied", find_route, method, path, versioned=True)
    assert (told.status, told.message.startswith(words)) == (503, True)


def test_a_login_is_refused_with_the_place_for_credentials() -> None:
    told = refused("route.denied", find_route, "POST", "/auth", versioned=True)
    assert "/etc/trimtab/registry.json" in told.remedy


def test_a_change_of_a_swarm_is_refused() -> None:
    for path in ("/swarm/init", "/swarm/join", "/services/create", "/secrets/create"):
        told = refused("route.denied", find_route, "POST", path, versioned=True)
        assert told.status == 403


def test_own_routes_have_no_version() -> None:
    refused("route.unknown", find_route, "GET", "/trimtab/v1/whoami", versioned=True)


#: A delivery that nobody knows the end of is made again: it changes nothing then.
WITHOUT_PROOF = {"container.restart", "container.kill", "exec.create", "exec.start"}
WITHOUT_PROOF |= {"files.deliver"}


def test_every_route_has_its_handler_and_every_mutation_its_route() -> None:
    names = [route.name for route in ROUTES]
    assert sorted(names) == sorted(set(names))
    assert set(ENDPOINTS) == set(names)
    assert {str(mutation) for mutation in Mutation} <= set(names)
    for route in ROUTES:
        assert route.means and route.roles and route.deadline_s > 0
        if route.name in WITHOUT_PROOF:
            assert route.evidence is ProofKind.NONE
        elif route.name in set(Mutation):
            assert route.evidence is not ProofKind.NONE
    assert all(remedy for _, _, remedy in DENIED)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1.45/containers/json", True),
        ("GET", "/v1.45/containers/web/json", True),
        ("GET", "/v1.45/volumes", True),
        ("GET", "/images/json", True),
        ("GET", "/trimtab/v1/journal", True),
        ("GET", "/v1.45/distribution/web:1/json", False),
        ("GET", "/v1.45/exec/abc/json", False),
        ("GET", "/v1.45/networks/net", False),
        ("GET", "/v1.45/volumes/data", False),
        ("GET", "/v1.45/images/web:1/json", True),
        ("GET", "/trimtab/v1/health", False),
        ("GET", "/_ping", False),
        # Streams hold no answer.
        ("GET", "/v1.45/events", False),
        ("GET", "/v1.45/containers/web/logs", False),
        ("POST", "/v1.45/containers/create", False),
        ("GET", "/nothing", False),
    ],
)
def test_whose_answers_may_be_large(method: str, path: str, *, expected: bool) -> None:
    assert may_be_large(method, path) is expected
