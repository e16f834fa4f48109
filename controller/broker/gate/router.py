"""The router: from a method and a path to a row of the route table, or to a refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from controller.broker.gate.query_params import validate_query
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import read_path, read_query
from controller.broker.gate.routes import CONTEXT_BODY, NO_BODY_MAX, OWN_PREFIX, ROUTES, Route
from controller.broker.wire.request_reader import BUILDKIT, CLASSIC_BUILDER, BodyLimit, Malformed
from controller.core.admission.calls import import_refused
from controller.core.encoding.image_reference import without_credentials
from controller.model.mutations import Mutation

_BY_FILE = "change the desired state instead"
_BY_MOUNT = (
    "mount a volume instead; for one file: `docker exec -i NAME sh -c 'cat >FILE' <FILE`; for configs and "
    "secrets of compose, put the project's folder into the directory of trimtab"
)
_BY_REGISTRY_FILE = (
    "as root, write the registry's credentials into /etc/trimtab/registry.json: the broker alone"
    " sends credentials (docs/operations/images.md)"
)
SWARM = r"/(?:swarm|nodes|services|tasks|secrets|configs)(?:/.*)?"
_NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect'
    " this node to swarm and try again."
)
#: Replies of an engine without a swarm to requests about swarms: method, path, message. SDKs
#: continue after these replies, but fail on a refusal.
NO_SWARM = (
    ("GET", SWARM, _NOT_A_MANAGER),
    ("POST", "/swarm/leave", "This node is not part of a swarm"),
)

#: Paths that are refused on purpose: method (``*``: any), path, and the alternative.
DENIED = (
    ("POST", r"/build/.+|/commit", "build images from a Dockerfile, or elsewhere, and pull them"),
    ("*", r"/images/(?:load|get|search)", "pull images by reference from an admitted registry"),
    ("POST", r"/images/.+/push", "push where the image is built"),
    ("GET", r"/images/.+/(?:get|attestations)", "copy images through a registry"),
    ("POST", r"/images/prune", "an operator removes images one by one: docker image rm NAME"),
    ("*", r"/containers/[^/]+/(?:archive|export|copy)", _BY_MOUNT),
    ("*", r"/containers/[^/]+/checkpoints(?:/.*)?", "stop and start the container"),
    ("*", r"/containers/[^/]+/attach/ws", "attach without a web socket"),
    ("PUT", r"/volumes/.+", _BY_FILE),
    ("*", SWARM, _BY_FILE),
    ("*", r"/plugins(?:/.*)?", "install engine plugins on the host, as root"),
    ("*", BUILDKIT, CLASSIC_BUILDER),
    ("*", r"/auth", _BY_REGISTRY_FILE),
    ("*", r"/debug(?:/.*)?", "no supported client needs the route"),
)


@dataclass(frozen=True, slots=True)
class Match:
    """A route, and the names in the path."""

    route: Route
    names: Mapping[str, str]


def _without_swarm(refused: Denied, method: str, path: str) -> Denied:
    """Return a refusal with the reply of an engine without a swarm, for requests about swarms.

    The reply names the gate's own rule too.
    """
    for asked, pattern, message in NO_SWARM:
        if method == asked and re.fullmatch(pattern, path, re.ASCII):
            refused.status, refused.message = 503, message
    return refused


_SEGMENT = re.compile(r"\{(\w+)\}", re.ASCII)


def _pattern(route: Route) -> re.Pattern[str]:
    template = (OWN_PREFIX if route.own else "") + route.template
    parts = _SEGMENT.split(template)
    names = parts[1::2]
    groups = [f"(?P<{name}>{'.+' if name == 'image' else '[^/]+'})" for name in names]
    fixed = [re.escape(part) for part in parts[0::2]]
    text = "".join(a + b for a, b in zip(fixed, [*groups, ""], strict=True))
    return re.compile(text, re.ASCII)


_PATTERNS = tuple((route, route.method, _pattern(route)) for route in ROUTES)
_DENIED_PATTERNS = tuple(
    (method, re.compile(path, re.ASCII), remedy) for method, path, remedy in DENIED
)
_BY_NAME = {route.name: route for route in ROUTES}


def route_named(name: str) -> Route | None:
    """Return the route with this name in the journal."""
    return _BY_NAME.get(name)


def body_limit(method: str, raw_target: str) -> BodyLimit:
    """Return the longest body of a request, by its route.

    A denied or unknown route is refused as such, not for a body that nobody would read. Invalid
    parameters of a route without a body are refused as such too.
    """
    raw_path, _, raw_query = raw_target.partition("?")
    try:
        target = read_path(raw_path)
        found = find_route(method, target.path, versioned=target.versioned)
        if not found.route.body:
            read_parameters(found.route, raw_query)
    except Denied as denied:
        refused = Malformed(denied.rule, denied.reason, denied.status, denied.remedy)
        return BodyLimit(NO_BODY_MAX, refused)
    return BodyLimit(found.route.body_max, streamed=found.route.body == CONTEXT_BODY)


#: Reads with an answer of a few kilobytes.
_SMALL = frozenset(
    {
        "ping",
        "ping.head",
        "version",
        "info",
        "distribution.inspect",
        "exec.inspect",
        "network.inspect",
        "volume.inspect",
        "own.whoami",
        "own.health",
        "own.policy",
    }
)


def may_be_large(method: str, raw_path: str) -> bool:
    """Return True for a read whose answer may be megabytes, and is held until it is sent."""
    try:
        target = read_path(raw_path)
        route = find_route(method, target.path, versioned=target.versioned).route
    except Denied:
        return False
    return route.kind == "read" and route.name not in _SMALL


_IMPORT = re.compile(r"(?:^|&)fromSrc=[^&]", re.ASCII)


def read_parameters(route: Route, raw_query: str) -> dict[str, str]:
    """Return the checked parameters of a raw query.

    Raises:
        Denied: the query is malformed or has invalid parameters; ``image.import`` for an import, in
            any spelling.
    """
    if route.name == Mutation.IMAGE_PULL and _IMPORT.search(raw_query):
        refused = import_refused("fromSrc")
        raise Denied(refused.rule, refused.reason, refused.remedy)
    return {**_parameters(route.name, raw_query)}


#: A request is read for the limit of its body, for the slot of its answer, and by the gate.
_LOOKUPS_KEPT = 64
_QUERIES_KEPT = 8


@lru_cache(_QUERIES_KEPT)
def _parameters(route: str, raw_query: str) -> Mapping[str, str]:
    known, closed = _BY_NAME[route].query, _BY_NAME[route].own
    return validate_query(read_query(raw_query, known, closed=closed), known)


@lru_cache(_LOOKUPS_KEPT)
def _find_served(method: str, path: str, *, versioned: bool) -> Match | None:
    for route, route_method, pattern in _PATTERNS:
        if route_method != method or (route.own and versioned):
            continue
        match = pattern.fullmatch(path)
        if match is not None:
            return Match(route, MappingProxyType(match.groupdict()))
    return None


def find_route(method: str, path: str, *, versioned: bool) -> Match:
    """Return the route of a canonical path.

    Raises:
        Denied: ``route.denied`` (refused on purpose) or ``route.unknown``.
    """
    found = _find_served(method, path, versioned=versioned)
    if found is not None:
        return found
    shown = without_credentials(path)
    for denied_method, pattern, remedy in _DENIED_PATTERNS:
        if denied_method in {"*", method} and pattern.fullmatch(path):
            refused = Denied("route.denied", f"{method} {shown} isn't served to any role", remedy)
            raise _without_swarm(refused, method, path)
    raise Denied(
        "route.unknown",
        f"no route {method} {shown}",
        "see the table of routes in the documentation for what is served",
        status=404,
    )
