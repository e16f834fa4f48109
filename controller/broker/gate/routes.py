"""The route table: every request that the gate serves, its roles, parameters and proof of effect.

Default deny: a request without a route is refused. ``router.DENIED`` lists paths that are refused
on purpose, with the alternative. ``dispatch.ENDPOINTS`` has the handler of each route by its name,
and the journal records a change under the name of its route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from controller.broker.gate.query_params import (
    RECORD_FILTER,
    Parameter,
    detach_keys,
    flag,
    flags,
    ignore,
    instant,
    left_to_admission,
    must_be_unset,
    number,
    one_of,
    rfc3339_time,
    tail,
)
from controller.core.enforcement.settlement import ProofKind
from controller.model.mutations import TRUST, Mutation
from controller.model.records import Role

ALL = frozenset({Role.CONTROLLER, Role.OPERATOR, Role.CLIENT})
PEOPLE = frozenset({Role.OPERATOR, Role.CLIENT})
OPERATORS = frozenset({Role.OPERATOR})
CONTROLLER_AND_OPERATORS = frozenset({Role.CONTROLLER, Role.OPERATOR})

#: The longest time of a pull without progress; the engine has no limit of its own.
PULL_IDLE_S = 120.0
CREATE_S = 20.0
#: In addition to the grace period of a stop or restart.
STOP_SPARE_S = 15.0
SHORT_S = 10.0
#: The longest body of a create. Other bodies are small; a route without a body reads just enough
#: to refuse a body.
CREATE_BODY_MAX = 1024 * 1024
BODY_MAX = 64 * 1024
NO_BODY_MAX = 4096
#: For an approval of a thousand objects with the longest volume names.
RECORD_BODY_MAX = 384 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table."""

    name: str
    method: str
    #: ``{container}`` and its like stand for one path segment, ``{image}`` for several.
    template: str
    kind: Literal["read", "mutate", "stream"]
    #: The description in docs/gate.md.
    means: str
    roles: frozenset[Role] = ALL
    query: Mapping[str, Parameter] = field(default_factory=dict)
    #: The schema of the body; '' for no body.
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
    def body_max(self) -> int:
        """The longest body in bytes."""
        return self.body_most or (BODY_MAX if self.body else NO_BODY_MAX)


_own = partial(Route, own=True)
_C = "/containers/{container}"
_LIST = {"filters": left_to_admission}
_SIZE = {"h": number(1, 4096), "w": number(1, 4096)}
_PULL = ("fromImage", "tag", "platform", "fromSrc", "repo", "message", "changes")
OWN_PREFIX = "/trimtab/v1"
ROUTES = (
    # The engine
    Route("ping", "GET", "/_ping", "read", "tell that the engine answers"),
    Route("ping.head", "HEAD", "/_ping", "read", "tell that the engine answers, without a body"),
    Route("version", "GET", "/version", "read", "versions of broker and engine"),
    Route("info", "GET", "/info", "read", "the engine, without what is private to the host"),
    Route(
        "system.df",
        "GET",
        "/system/df",
        "read",
        "disk usage",
        roles=OPERATORS,
        query={"type": one_of("container", "image", "volume", "build-cache")},
    ),
    Route(
        "events",
        "GET",
        "/events",
        "stream",
        "events of objects of ours",
        query={"since": instant, "until": instant, **_LIST},
    ),
    # Reads of containers
    Route(
        "container.list",
        "GET",
        "/containers/json",
        "read",
        "containers of ours",
        query={
            "all": flag,
            "limit": number(-1, 10_000),
            "size": flag,
            "trunc_cmd": ignore,
            "since": must_be_unset,
            "before": must_be_unset,
            **_LIST,
        },
    ),
    Route(
        "container.inspect",
        "GET",
        f"{_C}/json",
        "read",
        "a container of ours; env values only for operators",
        query={"size": flag},
    ),
    Route(
        "container.logs",
        "GET",
        f"{_C}/logs",
        "stream",
        "its output",
        query={
            **flags("follow", "stdout", "stderr"),
            "since": instant,
            "until": instant,
            "timestamps": flag,
            "tail": tail,
            "details": flag,
        },
    ),
    Route(
        "container.stats",
        "GET",
        f"{_C}/stats",
        "stream",
        "its resource usage",
        query={"stream": flag, "one-shot": flag},
    ),
    Route(
        "container.top",
        "GET",
        f"{_C}/top",
        "read",
        "its processes; ps runs on the host: no options that show more than these",
        query={"ps_args": one_of("-ef", "aux")},
    ),
    Route("container.changes", "GET", f"{_C}/changes", "read", "its changed files"),
    Route(
        "container.attach",
        "POST",
        f"{_C}/attach",
        "stream",
        "its input and output, both ways",
        roles=PEOPLE,
        query={
            "detachKeys": detach_keys,
            **flags("logs", "stream", "stdin", "stdout", "stderr"),
        },
    ),
    Route(
        "container.wait",
        "POST",
        f"{_C}/wait",
        "stream",
        "wait until it stops",
        query={"condition": one_of("not-running", "next-exit", "removed")},
    ),
    Route(
        "container.resize",
        "POST",
        f"{_C}/resize",
        "stream",
        "the size of its terminal",
        query=_SIZE,
    ),
    # Changes of containers
    Route(
        Mutation.CONTAINER_CREATE,
        "POST",
        "/containers/create",
        "mutate",
        "create a container as the policy admits it",
        query={"name": left_to_admission, "platform": left_to_admission},
        body="create",
        body_most=CREATE_BODY_MAX,
        evidence=ProofKind.LABEL,
        deadline_s=CREATE_S,
    ),
    Route(
        Mutation.CONTAINER_START,
        "POST",
        f"{_C}/start",
        "mutate",
        "start it, if the policy still admits it",
        query={
            "checkpoint": left_to_admission,
            "checkpoint-dir": left_to_admission,
            "detachKeys": detach_keys,
        },
        evidence=ProofKind.STARTED,
        deadline_s=CREATE_S,
    ),
    Route(
        Mutation.CONTAINER_STOP,
        "POST",
        f"{_C}/stop",
        "mutate",
        "stop it",
        query={"t": left_to_admission, "signal": left_to_admission},
        evidence=ProofKind.FINISHED,
        deadline_s=STOP_SPARE_S,
    ),
    Route(
        Mutation.CONTAINER_RESTART,
        "POST",
        f"{_C}/restart",
        "mutate",
        "stop and start it",
        query={"t": left_to_admission, "signal": left_to_admission},
        deadline_s=STOP_SPARE_S + CREATE_S,
    ),
    Route(
        Mutation.CONTAINER_KILL,
        "POST",
        f"{_C}/kill",
        "mutate",
        "send it a signal",
        query={"signal": left_to_admission},
    ),
    Route(
        Mutation.CONTAINER_PAUSE,
        "POST",
        f"{_C}/pause",
        "mutate",
        "freeze it",
        evidence=ProofKind.FIELD,
    ),
    Route(
        Mutation.CONTAINER_UNPAUSE,
        "POST",
        f"{_C}/unpause",
        "mutate",
        "thaw it",
        evidence=ProofKind.FIELD,
    ),
    Route(
        Mutation.CONTAINER_RENAME,
        "POST",
        f"{_C}/rename",
        "mutate",
        "give it another name",
        query={"name": left_to_admission},
        evidence=ProofKind.FIELD,
    ),
    Route(
        Mutation.CONTAINER_UPDATE,
        "POST",
        f"{_C}/update",
        "mutate",
        "change its limits or restart policy",
        body="update",
        evidence=ProofKind.FIELD,
    ),
    Route(
        Mutation.CONTAINER_REMOVE,
        "DELETE",
        _C,
        "mutate",
        "remove it; its volumes stay",
        query={"force": left_to_admission, "v": left_to_admission, "link": left_to_admission},
        evidence=ProofKind.ABSENCE,
        deadline_s=CREATE_S,
    ),
    # Execs
    Route(
        Mutation.EXEC_CREATE,
        "POST",
        f"{_C}/exec",
        "mutate",
        "prepare a command to run in it",
        roles=OPERATORS,
        body="exec",
    ),
    Route(
        Mutation.EXEC_START,
        "POST",
        "/exec/{exec}/start",
        "mutate",
        "run such a command, once, by who prepared it; its input and output both ways",
        roles=OPERATORS,
        body="exec-start",
    ),
    Route(
        "exec.inspect",
        "GET",
        "/exec/{exec}/json",
        "read",
        "whether it runs, and its exit code; for who prepared it",
        roles=OPERATORS,
    ),
    Route(
        "exec.resize",
        "POST",
        "/exec/{exec}/resize",
        "stream",
        "the size of its terminal",
        roles=OPERATORS,
        query=_SIZE,
    ),
    # Images
    Route(
        "image.list",
        "GET",
        "/images/json",
        "read",
        "images that the policy admits",
        query={
            **flags("all", "digests", "shared-size"),
            "manifests": must_be_unset,
            "only_ids": ignore,
            "filter": must_be_unset,
            **_LIST,
        },
    ),
    Route(
        "image.inspect",
        "GET",
        "/images/{image}/json",
        "read",
        "an image that the policy admits",
        query={"manifests": must_be_unset, "platform": must_be_unset},
    ),
    Route("image.history", "GET", "/images/{image}/history", "read", "its layers"),
    Route(
        Mutation.IMAGE_PULL,
        "POST",
        "/images/create",
        "mutate",
        "pull an image that the policy admits; credentials are the broker's",
        query=dict.fromkeys(_PULL, left_to_admission),
        evidence=ProofKind.DIGEST,
        deadline_s=PULL_IDLE_S,
    ),
    Route(
        "distribution.inspect",
        "GET",
        "/distribution/{image}/json",
        "read",
        "what its registry has under a reference that the policy admits",
    ),
    Route(
        Mutation.IMAGE_REMOVE,
        "DELETE",
        "/images/{image}",
        "mutate",
        "remove an image that was pulled or vouched for through the broker, and isn't used",
        roles=CONTROLLER_AND_OPERATORS,
        query={"force": left_to_admission, "noprune": left_to_admission},
        evidence=ProofKind.ABSENCE,
        deadline_s=CREATE_S,
    ),
    # Networks
    Route("network.list", "GET", "/networks", "read", "networks of ours", query=_LIST),
    Route(
        "network.inspect",
        "GET",
        "/networks/{network}",
        "read",
        "a network of ours",
        query={"verbose": flag, "scope": one_of("local", "swarm", "global")},
    ),
    Route(
        Mutation.NETWORK_CREATE,
        "POST",
        "/networks/create",
        "mutate",
        "create a network as the policy admits it",
        body="network",
        evidence=ProofKind.LABEL,
    ),
    Route(
        Mutation.NETWORK_CONNECT,
        "POST",
        "/networks/{network}/connect",
        "mutate",
        "join a container to a network",
        body="connect",
        evidence=ProofKind.FIELD,
    ),
    Route(
        Mutation.NETWORK_DISCONNECT,
        "POST",
        "/networks/{network}/disconnect",
        "mutate",
        "take a container off a network",
        body="disconnect",
        evidence=ProofKind.FIELD,
    ),
    Route(
        Mutation.NETWORK_REMOVE,
        "DELETE",
        "/networks/{network}",
        "mutate",
        "remove a network of ours",
        evidence=ProofKind.ABSENCE,
    ),
    # Volumes
    Route("volume.list", "GET", "/volumes", "read", "volumes of ours", query=_LIST),
    Route("volume.inspect", "GET", "/volumes/{volume}", "read", "a volume of ours"),
    Route(
        Mutation.VOLUME_CREATE,
        "POST",
        "/volumes/create",
        "mutate",
        "create a named volume",
        body="volume",
        evidence=ProofKind.LABEL,
    ),
    Route(
        Mutation.VOLUME_REMOVE,
        "DELETE",
        "/volumes/{volume}",
        "mutate",
        "remove a volume: a person's own act; the controller's with an approval",
        query={"force": flag},
        evidence=ProofKind.ABSENCE,
    ),
    # The API of trimtab itself
    _own("own.whoami", "GET", "/whoami", "read", "who the caller is to the gate"),
    _own("own.health", "GET", "/health", "read", "engine, journal and policy"),
    _own("own.policy", "GET", "/policy", "read", "the policy in force"),
    _own("own.inventory", "GET", "/inventory", "read", "what is ours"),
    _own(
        "own.journal",
        "GET",
        "/journal",
        "read",
        "records, one JSON line each; what the caller may know of them",
        query={**RECORD_FILTER, "limit": number(1, 10_000), "about": flag, "there": rfc3339_time},
    ),
    _own(
        "own.journal.follow",
        "GET",
        "/journal/follow",
        "stream",
        "records as they become durable, those after one or from now on",
        query={**RECORD_FILTER, "about": flag},
    ),
    _own(
        "own.strangers",
        "GET",
        "/strangers",
        "read",
        "what carries this instance's label and isn't ours, and whether it could be adopted",
        roles=OPERATORS,
    ),
    _own(
        TRUST,
        "POST",
        "/trust",
        "mutate",
        "vouch for a local image",
        roles=OPERATORS,
        body="trust",
    ),
    _own(
        "own.records",
        "POST",
        "/records",
        "mutate",
        "record an operator's act",
        roles=OPERATORS,
        body="record",
        body_most=RECORD_BODY_MAX,
    ),
)
