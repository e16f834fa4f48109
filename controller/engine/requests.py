"""Requests to the broker: each action of a plan is a single request; and the transport that carries them.

The content ids of Secrets, asked from the broker once for each source and remembered.

A source with files of the host, or with generated values, is asked for at each reading of the
documents: files can change, and an operator can forget values. So is a source whose key or file
on the host was missing or unsafe: a person can repair it at any time. An answer holds no plain text.

``docker_client`` implements the port with the Docker SDK. The simulation has an implementation
over the real gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, assert_never
from urllib.parse import quote

from controller.core.engine_api import create_body, translate
from controller.core.planning.deliveries import SecretContents, SecretFault
from controller.model.desired import plan as actions
from controller.model.desired.desired import Secret
from controller.model.desired.spec.container import HOOKS_S
from controller.model.errors import EngineError
from controller.model.names import Key, NetworkNames

#: How long a mutation takes at most, unless the engine waits for a container.
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request to send."""

    method: str
    #: Begins with ``/`` and has no API version.
    path: str
    query: dict[str, str] = field(default_factory=dict)
    #: Sent as JSON.
    body: dict[str, object] | None = None
    #: Sent as application/octet-stream, in place of *body*.
    data: bytes = field(default=b"", repr=False)
    #: Pieces of a tar archive, sent in place of *body*. Only of streams.
    pieces: Iterator[bytes] | None = field(default=None, repr=False, compare=False)
    #: For the whole response; of a stream, the longest time without a byte.
    timeout_s: float = TIMEOUT_S
    #: The member of the response with the id of a created object, '' for no object.
    id_member: str = ""


@dataclass(frozen=True, slots=True)
class EngineResponse:
    """One whole response."""

    status: int
    body: bytes = b""


class NotSent(Exception):
    """No part of the request reached the broker: the request certainly changed nothing."""


class ConnectionBroken(Exception):
    """The connection broke or timed out, after a part of the request was possibly sent."""


class Silent(ConnectionBroken):
    """A stream sent nothing within its idle timeout. Possibly no event happened."""


class EngineStream(Protocol):
    """A response with a body of lines that arrive over time."""

    @property
    def status(self) -> int: ...

    def lines(self) -> Iterator[bytes]:
        """Yield lines without line ends. Blank lines are skipped.

        Raises:
            ConnectionBroken: the connection broke.
            Silent: the idle timeout is over.
        """
        ...

    def close(self) -> None:
        """End the stream. Another thread can call this, also twice."""
        ...


class Transport(Protocol):
    """Requests to the broker. *context* is the header Trimtab-Context, '' for no header."""

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        """Send one request. Return the response, also of a refused or failed request.

        Raises:
            NotSent, ConnectionBroken
        """
        ...

    def stream(self, request: OutgoingRequest, context: str) -> EngineStream:
        """Send one request. Returns as soon as the head of the response arrives.

        Raises:
            NotSent, ConnectionBroken
        """
        ...


STOP_MARGIN_S = 15.0
#: A step of a build can be silent for long. The broker bounds the time of the whole build.
BUILD_IDLE_TIMEOUT_S = 86_400.0

CreateAction = (
    actions.CreateNetwork | actions.CreateVolume | actions.DeliverFiles | actions.CreateContainer
)
ChangeAction = actions.ContainerChange | actions.RemoveNetwork | actions.RemoveVolume


def create_request(action: CreateAction, networks: NetworkNames) -> OutgoingRequest:
    """Return the request that creates an object."""
    match action:
        case actions.CreateNetwork():
            body = translate.network_body(action)
            return OutgoingRequest("POST", "/networks/create", body=body, id_member="Id")
        case actions.CreateVolume():
            body = translate.volume_body(action)
            return OutgoingRequest("POST", "/volumes/create", body=body, id_member="Name")
        case actions.DeliverFiles():
            path = f"/trimtab/v1/files/{action.kind}/{action.object.namespace}/{action.target}"
            return OutgoingRequest("PUT", path, body=translate.files_body(action))
        case actions.CreateContainer():
            body = create_body.container_body(action, networks)
            query = {"name": action.target}
            return OutgoingRequest("POST", "/containers/create", query, body, id_member="Id")
        case _:
            assert_never(action)


def build_request(action: actions.BuildImage, archive: Iterator[bytes]) -> OutgoingRequest:
    """Return the request that builds an image from the archive of a context."""
    query = translate.build_query(action)
    return OutgoingRequest("POST", "/build", query, pieces=archive, timeout_s=BUILD_IDLE_TIMEOUT_S)


def move_request(action: actions.MoveService) -> OutgoingRequest:
    """Return the request to record a move. It changes the broker's inventory alone."""
    return OutgoingRequest("POST", "/trimtab/v1/records", body=translate.move_body(action))


def change_request(action: ChangeAction) -> OutgoingRequest:
    """Return the request that changes or removes the object with the precondition's id."""
    assert action.precondition.id, "an action on an existing object has its id"
    subject = quote(action.precondition.id, safe="")
    container = f"/containers/{subject}"
    match action:
        case actions.StartContainer():
            # The reply comes after the hooks of the start.
            return OutgoingRequest("POST", f"{container}/start", timeout_s=TIMEOUT_S + HOOKS_S)
        case actions.UpdateContainer():
            body = translate.update_body(action)
            return OutgoingRequest("POST", f"{container}/update", body=body)
        case actions.StopContainer():
            query = {"t": str(action.grace_s)}
            timeout_s = action.grace_s + STOP_MARGIN_S
            return OutgoingRequest("POST", f"{container}/stop", query, timeout_s=timeout_s)
        case actions.SignalContainer():
            return OutgoingRequest("POST", f"{container}/kill", {"signal": action.signal})
        case actions.UnpauseContainer():
            return OutgoingRequest("POST", f"{container}/unpause")
        case actions.RenameContainer():
            return OutgoingRequest("POST", f"{container}/rename", {"name": action.name})
        case actions.ConnectNetwork() | actions.DisconnectNetwork():
            return _membership_request(action)
        case actions.RemoveContainer():
            return OutgoingRequest("DELETE", container)
        case actions.RemoveNetwork() | actions.RemoveVolume():
            kind = "networks" if isinstance(action, actions.RemoveNetwork) else "volumes"
            return OutgoingRequest("DELETE", f"/{kind}/{subject}")
        case _:
            assert_never(action)


def split_reference(reference: str) -> tuple[str, str]:
    """Return the two parameters of a pull: the repository, and its digest or tag."""
    repository, at, digest = reference.partition("@")
    stem, colon, tag = repository.rpartition(":")
    tagged = bool(colon) and "/" not in tag
    if at:
        return (stem if tagged else repository, digest)
    return (stem, tag) if tagged else (repository, "latest")


def _membership_request(
    action: actions.ConnectNetwork | actions.DisconnectNetwork,
) -> OutgoingRequest:
    network, container = quote(action.network, safe=""), action.precondition.id
    if isinstance(action, actions.ConnectNetwork):
        body = translate.joining_body(container, action.aliases)
        return OutgoingRequest("POST", f"/networks/{network}/connect", body=body)
    body = translate.joining_body(container)
    return OutgoingRequest("POST", f"/networks/{network}/disconnect", body=body)


#: Seconds until a source that can't be opened is asked for again.
RETRY_S = 60.0
#: The faults of keys and files on the host (``broker.secrets.key_files``), cheap to look for.
OF_HOST = frozenset(
    f"secret.{name}" for name in ("file-missing", "file-open", "key-missing", "key-invalid")
)
#: The longest time for the questions of one reading, in seconds. Further ones are asked by the next.
READING_S = 20.0
LATE = SecretFault(
    "secret.late",
    f"other Secrets took {READING_S:g} s to open",
    "nothing: the next reading asks again; check the Secrets that can't be opened",
)


class BrokerSecrets:
    """Answers for the declared Secrets."""

    def __init__(
        self, ask: Callable[[OutgoingRequest, str], str], monotonic: Callable[[], float]
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[tuple[Key, str], str] = {}
        self._failed: dict[tuple[Key, str], tuple[float, SecretFault]] = {}

    def __call__(self, secrets: Iterable[Secret]) -> SecretContents:
        """Return the content id of each Secret, or why it isn't known. Forgets all others."""
        with self._lock:
            wanted = {(secret.key, secret.digest): secret for secret in secrets}
            self._known = {each: found for each, found in self._known.items() if each in wanted}
            self._failed = {each: found for each, found in self._failed.items() if each in wanted}
            until = self._monotonic() + READING_S
            return {secret.key: self._answer(secret, until) for secret in wanted.values()}

    def forget(self) -> None:
        """Ask for every source again at the next reading.

        For the time after the proof of a signed source. A Secret that the broker couldn't open for the
        proof holds services back, until a later answer has the content of the Secret.
        """
        with self._lock:
            self._known = {}

    def _answer(self, secret: Secret, until: float) -> str | SecretFault:
        place = (secret.key, secret.digest)
        changes = secret.spec.file is not None or secret.spec.generate is not None
        if (known := self._known.get(place)) is not None and not changes:
            return known
        failed_at, fault = self._failed.get(place, (None, None))
        if failed_at is not None and fault is not None and self._monotonic() < failed_at + RETRY_S:
            return fault
        if self._monotonic() >= until:
            return LATE if known is None else known
        try:
            content = self._ask(_question(secret), f"the content of {secret.key}")
        except EngineError as error:
            fault = SecretFault(error.code, error.message, error.remedy)
            # A conflict passes by itself: the proof of a signed source isn't accepted yet. Generated
            # values cost no decryption, and an operator who forgets lost ones waits for the answer.
            passes = error.status == HTTPStatus.CONFLICT or error.code in OF_HOST
            if not passes and secret.spec.generate is None:
                self._failed[place] = (self._monotonic(), fault)
            return fault
        self._failed.pop(place, None)
        self._known[place] = content
        return content


def _question(secret: Secret) -> OutgoingRequest:
    path = f"/trimtab/v1/secrets/{secret.key.namespace}/{secret.key.name}"
    body: dict[str, object] = {"owner": secret.owner, "source": dict(secret.declared)}
    return OutgoingRequest("POST", path, body=body, id_member="Content")
