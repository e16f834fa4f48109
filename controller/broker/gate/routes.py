"""The route table, and the router from a method and a path to one of its rows, or to a refusal.

The route table: every request that the gate serves, its roles, parameters and proof of effect.

Default deny: a request without a route is refused. ``router.DENIED`` lists paths that are refused
on purpose, with the alternative. ``dispatch.ENDPOINTS`` has the handler of each route by its name,
and the journal records a change under the name of its route.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Literal

from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import (
    RECORD_FILTER,
    Parameter,
    detach_keys,
    flag,
    flags,
    instant,
    left_to_admission,
    must_be_unset,
    number,
    one_of,
    read_path,
    read_query,
    rfc3339_time,
    short_text,
    tail,
    texts,
    validate_query,
)
from controller.broker.wire import BUILDKIT, CLASSIC_BUILDER, BodyLimit, Malformed
from controller.core.admission.calls import import_refused
from controller.core.encoding.identifiers import without_credentials
from controller.core.enforcement.settlement import ProofKind
from controller.core.secrets.formats import SOURCE_MAX
from controller.model.delivery import CONTENT_BYTES_MAX
from controller.model.mutations import TRUST, Mutation
from controller.model.records import Role

ALL = frozenset({Role.CONTROLLER, Role.OPERATOR, Role.CLIENT})
PEOPLE = frozenset({Role.OPERATOR, Role.CLIENT})
OPERATORS = frozenset({Role.OPERATOR})
CONTROLLER_AND_OPERATORS = frozenset({Role.CONTROLLER, Role.OPERATOR})
ALL_AND_VIEWERS = ALL | {Role.VIEWER}

#: The longest time of a pull without progress; the engine has no limit of its own.
PULL_IDLE_S = 120.0
CREATE_S = 20.0
#: In addition to the grace period of a stop or restart.
STOP_SPARE_S = 15.0
SHORT_S = 10.0
#: The longest body of a create. Other bodies are small, and smaller still the one of a route where
#: nobody reads it: some clients repeat the query there.
CREATE_BODY_MAX = 1024 * 1024
BODY_MAX = 64 * 1024
NO_BODY_MAX = 4096
#: For an approval of a thousand objects with the longest volume names.
RECORD_BODY_MAX = 384 * 1024
#: For the containers of a compose project.
ADOPTION_BODY_MAX = 4 * CREATE_BODY_MAX
#: For the largest content, in base64.
FILES_BODY_MAX = CONTENT_BYTES_MAX * 4 // 3 + CREATE_BODY_MAX
#: A source of a Secret: a file in base64, or texts with escaped line breaks.
SECRET_BODY_MAX = 2 * SOURCE_MAX


#: For the largest proof (``core.proofs.proven_commit.PROOF_MAX``).
PROOF_BODY_MAX = 16 << 20
#: The schema of a proof. Beside contexts the only body that isn't JSON.
PROOF_BODY = "proof"
#: The schema of the context of a build: a tar archive, which the handler reads itself.
CONTEXT_BODY = "context"
#: How long the engine may still work on a build after its connection ended.
BUILD_END_S = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table."""

    name: str
    #: Method and path. ``{container}`` and its like stand for one path segment, ``{image}`` for
    #: several.
    target: str
    #: The description in docs/gate.md.
    means: str
    kind: Literal["read", "mutate", "stream"] = field(kw_only=True)
    roles: frozenset[Role] = ALL
    #: All parameters that a published API has, or an engine reads. Others are dropped, except on a
    #: route of trimtab's own.
    query: Mapping[str, Parameter] = field(default_factory=dict)
    #: The schema of the body; '' if nobody reads one.
    body: str = ""
    #: The proof, after a crash, that the change took effect.
    evidence: ProofKind = ProofKind.NONE
    #: How long the engine may still work for a lost client, besides the grace (``settlement``).
    deadline_s: float = SHORT_S
    #: A route below /trimtab/v1, without a version prefix.
    own: bool = False
    #: Longest body in bytes, where BODY_MAX doesn't fit.
    body_most: int = 0

    @property
    def method(self) -> str:
        """The method of the target."""
        return self.target.partition(" ")[0]

    @property
    def template(self) -> str:
        """The path of the target, with its placeholders."""
        return self.target.partition(" ")[2]

    @property
    def body_max(self) -> int:
        """The longest body in bytes."""
        return self.body_most or (BODY_MAX if self.body else NO_BODY_MAX)


def _judged(*names: str) -> dict[str, Parameter]:
    """Return parameters that admission judges."""
    return dict.fromkeys(names, left_to_admission)


_read = partial(Route, kind="read")
_stream = partial(Route, kind="stream")
_change = partial(Route, kind="mutate")
_C = "/containers/{container}"
_LIST = _judged("filters")
_SIZE = {"h": number(1, 4096), "w": number(1, 4096)}
_BUILD = {
    **_judged("t", "dockerfile", "buildargs", "target", "labels", "networkmode", "memory"),
    **_judged("shmsize", "platform", "version", "remote", "cpusetcpus", "cpusetmems"),
    **flags("pull", "nocache", "rm", "forcerm", "q"),
    **dict.fromkeys(("cachefrom", "cgroupparent", "cpuperiod", "cpuquota"), must_be_unset),
    **dict.fromkeys(("cpushares", "memswap", "ulimits", "extrahosts", "squash"), must_be_unset),
    **dict.fromkeys(("outputs", "session", "securityopt", "isolation"), must_be_unset),
    "buildid": must_be_unset,
}
_PULL = ("fromImage", "tag", "platform", "fromSrc", "repo", "message", "changes")
OWN_PREFIX = "/trimtab/v1"
ROUTES = (
    # The engine
    _read("ping", "GET /_ping", "confirm that the engine answers"),
    _read("ping.head", "HEAD /_ping", "confirm that the engine answers, without a body"),
    _read("version", "GET /version", "versions of broker and engine"),
    _read("info", "GET /info", "the engine's facts, without private facts of the host"),
    _read(
        "system.df",
        "GET /system/df",
        "disk usage",
        roles=OPERATORS,
        query={
            "type": one_of("container", "image", "volume", "build-cache"),
            "verbose": must_be_unset,
        },
    ),
    _stream(
        "events",
        "GET /events",
        "events of objects of ours",
        query={"since": instant, "until": instant, **_LIST},
    ),
    # Reads of containers
    _read(
        "container.list",
        "GET /containers/json",
        "containers of ours",
        query={
            "all": flag,
            "limit": number(-1, 10_000),
            "size": flag,
            "since": must_be_unset,
            "before": must_be_unset,
            **_LIST,
        },
    ),
    _read(
        "container.inspect",
        f"GET {_C}/json",
        "a container of ours; env values for operators, and for the client that set them",
        query={"size": flag},
    ),
    _stream(
        "container.logs",
        f"GET {_C}/logs",
        "its output",
        roles=ALL_AND_VIEWERS,
        query={
            **flags("follow", "stdout", "stderr"),
            "since": instant,
            "until": instant,
            "timestamps": flag,
            "tail": tail,
            "details": flag,
            "format": must_be_unset,
        },
    ),
    _stream(
        "container.stats",
        f"GET {_C}/stats",
        "its resource usage",
        query={"stream": flag, "one-shot": flag},
    ),
    _read(
        "container.top",
        f"GET {_C}/top",
        "its processes; ps runs on the host: no options that show more than these",
        roles=PEOPLE,
        query={"ps_args": one_of("-ef", "aux")},
    ),
    _read("container.changes", f"GET {_C}/changes", "its changed files"),
    _stream(
        "container.attach",
        f"POST {_C}/attach",
        "its input and output, both ways",
        roles=PEOPLE,
        query={"detachKeys": detach_keys, **flags("logs", "stream", "stdin", "stdout", "stderr")},
    ),
    _stream(
        "container.wait",
        f"POST {_C}/wait",
        "wait until it stops",
        query={"condition": one_of("not-running", "next-exit", "removed")},
    ),
    _stream("container.resize", f"POST {_C}/resize", "the size of its terminal", query=_SIZE),
    # Changes of containers
    _change(
        Mutation.CONTAINER_CREATE,
        "POST /containers/create",
        "create a container as the policy admits it",
        query=_judged("name", "platform"),
        body="create",
        body_most=CREATE_BODY_MAX,
        evidence=ProofKind.LABEL,
        deadline_s=CREATE_S,
    ),
    _change(
        Mutation.CONTAINER_START,
        f"POST {_C}/start",
        "start it, if the policy still admits it",
        query={
            "checkpoint": left_to_admission,
            "checkpoint-dir": left_to_admission,
            "detachKeys": detach_keys,
        },
        evidence=ProofKind.STARTED,
        deadline_s=CREATE_S,
    ),
    _change(
        Mutation.CONTAINER_STOP,
        f"POST {_C}/stop",
        "stop it",
        query=_judged("t", "signal"),
        evidence=ProofKind.FINISHED,
        deadline_s=STOP_SPARE_S,
    ),
    _change(
        Mutation.CONTAINER_RESTART,
        f"POST {_C}/restart",
        "stop and start it",
        query=_judged("t", "signal"),
        deadline_s=STOP_SPARE_S + CREATE_S,
    ),
    _change(
        Mutation.CONTAINER_KILL, f"POST {_C}/kill", "send it a signal", query=_judged("signal")
    ),
    _change(Mutation.CONTAINER_PAUSE, f"POST {_C}/pause", "freeze it", evidence=ProofKind.FIELD),
    _change(Mutation.CONTAINER_UNPAUSE, f"POST {_C}/unpause", "thaw it", evidence=ProofKind.FIELD),
    _change(
        Mutation.CONTAINER_RENAME,
        f"POST {_C}/rename",
        "give it another name",
        query=_judged("name"),
        evidence=ProofKind.FIELD,
    ),
    _change(
        Mutation.CONTAINER_UPDATE,
        f"POST {_C}/update",
        "change its limits or restart policy",
        body="update",
        evidence=ProofKind.FIELD,
    ),
    _change(
        Mutation.CONTAINER_REMOVE,
        f"DELETE {_C}",
        "remove it; its volumes stay",
        query=_judged("force", "v", "link"),
        evidence=ProofKind.ABSENCE,
        deadline_s=CREATE_S,
    ),
    _change(
        "container.prune",
        "POST /containers/prune",
        "remove those that people of the caller's owner made and that don't run, each as by itself",
        roles=PEOPLE,
        query=_LIST,
    ),
    # Execs
    _change(
        Mutation.EXEC_CREATE,
        f"POST {_C}/exec",
        "prepare a command to run in it",
        roles=PEOPLE,
        body="exec",
    ),
    _change(
        Mutation.EXEC_START,
        "POST /exec/{exec}/start",
        "run a prepared command, once, for its creator; input and output both ways",
        roles=PEOPLE,
        body="exec-start",
    ),
    _read(
        "exec.inspect",
        "GET /exec/{exec}/json",
        "state and exit code of a command, for its creator",
        roles=PEOPLE,
    ),
    _stream(
        "exec.resize",
        "POST /exec/{exec}/resize",
        "the size of its terminal",
        roles=PEOPLE,
        query=_SIZE,
    ),
    # Images
    _read(
        "image.list",
        "GET /images/json",
        "images that the policy admits",
        query={
            **flags("all", "digests", "shared-size"),
            "manifests": must_be_unset,
            "identity": must_be_unset,
            "filter": must_be_unset,
            **_LIST,
        },
    ),
    _read(
        "image.inspect",
        "GET /images/{image}/json",
        "an image that the policy admits",
        query={"manifests": must_be_unset, "platform": must_be_unset},
    ),
    _read(
        "image.history",
        "GET /images/{image}/history",
        "its layers",
        query={"platform": must_be_unset},
    ),
    _change(
        Mutation.IMAGE_PULL,
        "POST /images/create",
        "pull an image that the policy admits; credentials are the broker's",
        query=_judged(*_PULL),
        evidence=ProofKind.DIGEST,
        deadline_s=PULL_IDLE_S,
    ),
    _change(
        Mutation.IMAGE_BUILD,
        "POST /build",
        "build an image from admitted bases, with the classic builder, within the policy's bounds",
        roles=CONTROLLER_AND_OPERATORS,
        query=_BUILD,
        body=CONTEXT_BODY,
        evidence=ProofKind.DIGEST,
        deadline_s=BUILD_END_S,
    ),
    _read(
        "distribution.inspect",
        "GET /distribution/{image}/json",
        "the registry's entry for a reference that the policy admits",
    ),
    _change(
        Mutation.IMAGE_TAG,
        "POST /images/{image}/tag",
        "give an image that is vouched for another admitted name; the trust follows the image's id",
        roles=OPERATORS,
        query=_judged("repo", "tag"),
        evidence=ProofKind.DIGEST,
    ),
    _change(
        Mutation.IMAGE_REMOVE,
        "DELETE /images/{image}",
        "remove an image that was pulled or vouched for through the broker, and isn't used",
        roles=CONTROLLER_AND_OPERATORS,
        query={**_judged("force", "noprune"), "platforms": must_be_unset},
        evidence=ProofKind.ABSENCE,
        deadline_s=CREATE_S,
    ),
    # Networks
    _read("network.list", "GET /networks", "networks of ours", query=_LIST),
    _read(
        "network.inspect",
        "GET /networks/{network}",
        "a network of ours",
        query={"verbose": flag, "scope": one_of("local", "swarm", "global")},
    ),
    _change(
        Mutation.NETWORK_CREATE,
        "POST /networks/create",
        "create a network as the policy admits it",
        body="network",
        evidence=ProofKind.LABEL,
    ),
    _change(
        Mutation.NETWORK_CONNECT,
        "POST /networks/{network}/connect",
        "join a container to a network",
        body="connect",
        evidence=ProofKind.FIELD,
    ),
    _change(
        Mutation.NETWORK_DISCONNECT,
        "POST /networks/{network}/disconnect",
        "take a container off a network",
        body="disconnect",
        evidence=ProofKind.FIELD,
    ),
    _change(
        Mutation.NETWORK_REMOVE,
        "DELETE /networks/{network}",
        "remove a network of ours",
        evidence=ProofKind.ABSENCE,
    ),
    _change(
        "network.prune",
        "POST /networks/prune",
        "remove those that people of the caller's owner made and nobody uses, each as by itself",
        roles=PEOPLE,
        query=_LIST,
    ),
    # Volumes
    _read("volume.list", "GET /volumes", "volumes of ours", query=_LIST),
    _read("volume.inspect", "GET /volumes/{volume}", "a volume of ours"),
    _change(
        Mutation.VOLUME_CREATE,
        "POST /volumes/create",
        "create a named volume",
        body="volume",
        evidence=ProofKind.LABEL,
    ),
    _change(
        Mutation.VOLUME_REMOVE,
        "DELETE /volumes/{volume}",
        "remove a volume: a person's own act; the controller's with an approval",
        query={"force": flag},
        evidence=ProofKind.ABSENCE,
    ),
    _change(
        "volume.prune",
        "POST /volumes/prune",
        "remove those that people of the caller's owner made and nobody uses, each as by itself",
        roles=PEOPLE,
        query=_LIST,
    ),
    # Files of containers
    _change(
        Mutation.FILES_DELIVER,
        "PUT /files/{kind}/{namespace}/{name}",
        "store the files of a Config, for containers of its namespace and owner",
        roles=frozenset({Role.CONTROLLER}),
        body="files",
        body_most=FILES_BODY_MAX,
        deadline_s=0.1,  # the request ends with the broker; recovery has nothing to wait for
        own=True,
    ),
    _read(
        "own.secret",
        "POST /secrets/{namespace}/{name}",
        "the content id of a Secret's source, and the names of its files",
        roles=frozenset({Role.CONTROLLER}),
        body="secret",
        body_most=SECRET_BODY_MAX,
        own=True,
    ),
    # The API of trimtab itself
    _read(
        "own.whoami",
        "GET /whoami",
        "the caller's role and owner",
        roles=ALL_AND_VIEWERS,
        own=True,
    ),
    _read("own.health", "GET /health", "engine, journal and policy", own=True),
    _read(
        "own.metrics",
        "GET /metrics",
        "the broker's metrics, as text for Prometheus; for viewers of all owners",
        roles=CONTROLLER_AND_OPERATORS | {Role.VIEWER},
        own=True,
    ),
    _read("own.policy", "GET /policy", "the policy in force", own=True),
    _read(
        "own.proofs",
        "GET /proofs",
        "the accepted commits of signed sources",
        own=True,
    ),
    _read(
        "own.proof",
        "POST /proofs",
        "accept a signed commit of a source, by the objects that prove the commit",
        roles=frozenset({Role.CONTROLLER}),
        query={"source": short_text},
        body=PROOF_BODY,
        body_most=PROOF_BODY_MAX,
        own=True,
    ),
    _read("own.inventory", "GET /inventory", "the inventory", own=True),
    _read(
        "own.observe",
        "GET /observe",
        "all that a pass of one service reads: containers, networks, volumes, images, inventory",
        roles=CONTROLLER_AND_OPERATORS,
        query={"namespace": short_text, "service": short_text, "images": texts, "have": texts},
        own=True,
    ),
    _read(
        "own.journal",
        "GET /journal",
        "records that the caller may read, one JSON line each",
        roles=ALL_AND_VIEWERS,
        query={**RECORD_FILTER, "limit": number(1, 10_000), "about": flag, "there": rfc3339_time},
        own=True,
    ),
    _stream(
        "own.journal.follow",
        "GET /journal/follow",
        "records as they become durable, those after one or from now on",
        roles=ALL_AND_VIEWERS,
        query={**RECORD_FILTER, "about": flag},
        own=True,
    ),
    _read(
        "own.strangers",
        "GET /strangers",
        "objects with this instance's label outside the inventory, with the verdict on adoption; "
        "or the containers of a compose project outside the inventory",
        roles=OPERATORS,
        query={"project": short_text, "state": short_text},
        own=True,
    ),
    _change(
        Mutation.CONTAINER_ADOPT,
        "POST /adoptions",
        "adopt running containers of nobody as found, under declared services",
        roles=OPERATORS,
        body="adoption",
        body_most=ADOPTION_BODY_MAX,
        evidence=ProofKind.FIELD,
        own=True,
    ),
    _change(
        Mutation.CONTAINER_RELEASE,
        "POST /releases",
        "turn a service's container into an ordinary one, which stays when trimtab goes",
        roles=OPERATORS,
        body="release",
        evidence=ProofKind.FIELD,
        own=True,
    ),
    _change(
        TRUST, "POST /trust", "vouch for a local image", roles=OPERATORS, body="trust", own=True
    ),
    _change(
        "own.settings",
        "POST /settings",
        "read the file of settings again, and put it in force",
        roles=OPERATORS,
        own=True,
    ),
    _read(
        "own.approvals",
        "POST /approvals",
        "the objects that an approval would cover, by the inventory, and their digest",
        roles=OPERATORS,
        body="approval",
        body_most=RECORD_BODY_MAX,
        own=True,
    ),
    _change(
        "own.records",
        "POST /records",
        "record an operator's act, or that a Git source is held",
        roles=CONTROLLER_AND_OPERATORS,
        body="record",
        body_most=RECORD_BODY_MAX,
        own=True,
    ),
)


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
