"""The requests of the control socket: one JSON object with a member ``do`` each, read into a class.

Every user in the group of the socket is allowed to read the status. A viewer of the policy reads the view
and metrics alone. The output of containers is restricted
to root, the controller's own user, and users that the policy lets read their logs. Only root and
the controller's own user are allowed to change anything. SO_PEERCRED determines the user; claims in
a request don't count.

Members that a request doesn't have are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationError,
)

from controller.core.records.parts import SCALED_MAX_S
from controller.model.desired.desired import Verb
from controller.model.errors import UsageError
from controller.model.names import REPLICAS_MAX, Key
from controller.model.records import ViewerScope
from controller.system.conversation import TEXT_MAX, printable_text, unknown_request, wrong_member

PASS_TIMEOUT_S = 60.0
PASS_TIMEOUT_MAX_S = 3600.0
#: The longest wait for a changed status.
WAIT_MAX_S = 60.0
#: The requests that only root and the controller's own user are allowed to send.
RESTRICTED: Final = (*get_args(Verb), "pass", "observe", "secrets", "state")

_EXPECTED: Final = {
    "approve_prune": "true or false",
    "for_s": f"a number of seconds up to {SCALED_MAX_S}",
    "key": "KIND/NAMESPACE/NAME",
    "only_ask": "true or false",
    "output": "true or false",
    "replicas": f"a number from 0 to {REPLICAS_MAX}",
    "since": "the number of an act",
    "timeout_s": f"a number of seconds up to {PASS_TIMEOUT_MAX_S:g}",
    "wait_s": f"a number of seconds up to {WAIT_MAX_S:g}",
}

Bare = Literal["ping", "plan", "failures", "secrets", "observe", "metrics", "stats"]
KeyText = Annotated[Key, PlainValidator(lambda text: Key.parse(str(text)))]
Text = Annotated[str, BeforeValidator(printable_text)]
TimeoutS = Annotated[float, Field(strict=True, gt=0, le=PASS_TIMEOUT_MAX_S)]


@dataclass(frozen=True, slots=True)
class BareRequest:
    """A request without other members."""

    do: Bare


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A request for the status. Answers to requests with *unless* have the status's version."""

    do: Literal["status"]
    #: With the last lines of failed containers.
    output: StrictBool = False
    #: The version of the status that the asker has, or ''; an unchanged status isn't sent again.
    unless: object = None
    #: How long the answer to a trusted user waits for a changed status.
    wait_s: Annotated[float, Field(strict=True, ge=0, le=WAIT_MAX_S)] = 0.0


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """A request for what changed in the view since a version (docs/view.md)."""

    do: Literal["view"]
    #: The version that the asker has; '' or an unknown one for everything.
    have: Text = ""
    #: How long the answer waits for a version after *have*.
    wait_s: Annotated[float, Field(strict=True, ge=0, le=WAIT_MAX_S)] = 0.0


@dataclass(frozen=True, slots=True)
class ReviewRequest:
    """A request for the review of everything, from a command of a version about a DIR."""

    do: Literal["review"]
    version: Text = ""
    directory: Text = ""


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """A request for the revisions of a service."""

    do: Literal["history"]
    key: KeyText
    #: With the last lines of failed containers.
    output: StrictBool = False


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request about a resource: all that the controller knows, or the last hour's samples of its use."""

    do: Literal["state", "samples"]
    key: KeyText


@dataclass(frozen=True, slots=True)
class ProgressRequest:
    """A request for the actions after a number."""

    do: Literal["progress"]
    since: StrictInt = 0


@dataclass(frozen=True, slots=True)
class PassRequest:
    """A request to converge everything, one key, or exactly one plan, and to wait for that."""

    do: Literal["pass"] = "pass"
    #: The only key to wait for; None: everything.
    key: KeyText | None = None
    #: The digest of the only plan to apply.
    plan: Text = ""
    #: An operator approves blocked removals, of the plan with the digest ``approved``.
    approve_prune: StrictBool = False
    approved: Text = ""
    on_behalf_of: Text = ""
    timeout_s: TimeoutS = PASS_TIMEOUT_S
    #: With the last lines of failed containers.
    output: StrictBool = False


@dataclass(frozen=True, slots=True)
class ActRequest:
    """A request to change an override of a service."""

    do: Verb
    key: KeyText
    #: The revision of a rollback.
    to: Text = ""
    #: The reason.
    note: Text = ""
    on_behalf_of: Text = ""
    #: The number of replicas of a scaling, and after how many seconds the scaling ends.
    replicas: Annotated[int, Field(strict=True, ge=0, le=REPLICAS_MAX)] | None = None
    for_s: Annotated[int, Field(strict=True, gt=0, le=SCALED_MAX_S)] | None = None
    #: Return the decision without changing anything.
    only_ask: StrictBool = False
    timeout_s: TimeoutS = PASS_TIMEOUT_S


ControlRequest = (
    BareRequest
    | ReportRequest
    | ViewRequest
    | ReviewRequest
    | HistoryRequest
    | KeyRequest
    | ProgressRequest
    | PassRequest
    | ActRequest
)
_REQUESTS: TypeAdapter[ControlRequest] = TypeAdapter(
    Annotated[ControlRequest, Field(discriminator="do")]
)


def read_request(question: Mapping[str, object]) -> ControlRequest:
    """Return the request of a JSON object.

    Raises:
        UsageError: the request is unknown, or a member has the wrong type.
    """
    try:
        return _REQUESTS.validate_python(question)
    except ValidationError as error:
        place = error.errors(include_url=False)[0]["loc"]
        if not place:
            raise unknown_request(question.get("do")) from error
        raise malformed(str(place[1])) from error


def malformed(member: str) -> UsageError:
    """Return the error for a request with a member of the wrong type, or without it."""
    return wrong_member(member, _EXPECTED.get(member, f"text of at most {TEXT_MAX} characters"))


def raise_if_not_allowed(question: Mapping[str, object], peer_uid: int, *, trusted: bool) -> None:
    """Raise UsageError for a request that a user isn't allowed to send."""
    if question.get("do") in RESTRICTED and not trusted:
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} is allowed to look, not to act",
            remedy="run the command as root",
        )


def raise_if_partial(scope: ViewerScope) -> None:
    """Raise UsageError for a viewer of some owners: metrics count the resources of all."""
    if scope.owners is not None:
        raise UsageError(
            "viewer.metrics",
            "metrics count the resources of all owners, and this viewer reads about some",
            remedy="write `owners: all` for the viewer in the policy",
        )


def unknown_viewer(uid: int) -> UsageError:
    """Return the error for a user who is neither in the socket's group nor a viewer."""
    return UsageError(
        "viewer.unknown",
        f"the policy that the controller read last has no viewer with uid {uid}",
        remedy="add the uid to `viewers` in the policy, then trimtab policy reload",
    )


def denied_to_viewers(request: str) -> UsageError:
    """Return the error for a request other than for the view and metrics."""
    return UsageError(
        "viewer.denied",
        f"a viewer reads the view and metrics, and {request!r} is neither",
        remedy="ask for the view; an operator's `trimtab` has the rest",
    )
