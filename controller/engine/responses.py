"""The broker's responses as errors, inventory, and places that a network lost; and events as hints.

Parsing the broker's responses into errors and the inventory; encoding the context header.

Pure functions on whole responses. ``adapter`` sends the requests.

Stale endpoints: endpoints of a container without an entry in their network.

After a failed join, an engine still shows the endpoint at the container, with address and aliases.
But no other container can resolve the name. Engine 26.1 fails in this way with every container that
outlived a restart of the engine (live-restore). The old interface stays after the container leaves
a network, and blocks the next join.

Events of the engine as hints, from the broker's stream of lines.

Bound host ports in the network namespace of the process, from ``/proc/net``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, ParamSpec, TypeVar

from controller.core import disruption
from controller.core.addresses import key_of
from controller.core.drift.contention import parse_sockets
from controller.core.encoding import json_values
from controller.core.encoding.json_values import canonical, parse_object
from controller.core.encoding.stored_form import StoredForm
from controller.core.engine_api import streams, translate
from controller.core.engine_api.engine_objects import ENGINE_OBJECT, misfit
from controller.core.records.inventory_json import ITEM, addresses_from_json, mapping_from_json
from controller.engine.requests import ConnectionBroken, EngineResponse, EngineStream, Silent
from controller.model import names
from controller.model.delivery import StoredFiles
from controller.model.errors import (
    Conflict,
    EngineError,
    EngineFailed,
    EngineUnavailable,
    NotFound,
    OverShare,
    PullFailed,
    Refused,
    ReplyLost,
)
from controller.model.inventory import OwnedObject
from controller.model.names import ForeignContainer, Key, workload_key
from controller.model.observed import Container, Ending, HostPort, Image, JobMemory
from controller.model.records import Context, Precondition
from controller.ports import EVENTS_SILENT, EngineEvent

#: States with real endpoints. In other states the engine only shows the requested endpoints.
_CONNECTED = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class ObservedEndpoint:
    """An endpoint of a container in a network, during one run of the container."""

    #: The name of the network.
    network: str
    id: str
    started_at: str


def endpoints_of(inspect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a container's inspect that ``stale_endpoints`` reads."""
    state, settings = inspect.get("State") or {}, inspect.get("NetworkSettings") or {}
    return {
        "Id": inspect["Id"],
        "State": {"Status": state.get("Status"), "StartedAt": state.get("StartedAt")},
        "NetworkSettings": {"Networks": settings.get("Networks")},
    }


def stale_endpoints(
    inspect: Mapping[str, Any], networks: Iterable[Mapping[str, Any]]
) -> frozenset[ObservedEndpoint]:
    """Return the endpoints in a container's inspect without an entry in the network's inspect.

    Endpoints in networks outside of *networks* are ignored.
    """
    state = inspect.get("State") or {}
    if state.get("Status") not in _CONNECTED:
        return frozenset()
    members = {each["Id"]: each.get("Containers") or {} for each in networks}
    joined = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return frozenset(
        ObservedEndpoint(name, str(end.get("EndpointID") or ""), str(state.get("StartedAt") or ""))
        for name, end in joined.items()
        if end and inspect["Id"] not in members.get(end.get("NetworkID"), {inspect["Id"]})
    )


T = TypeVar("T")
P = ParamSpec("P")
#: The engine's JSON of one object.
Inspect = dict[str, Any]

MESSAGE_MAX = 1000
CAUSE_MAX = 500
PATH_MAX = 1000
#: Statuses of a proxy without a response from its server.
_UNAVAILABLE = (429, 502, 503)
_NO_REPLY = 504
#: The broker's rule for a lost response, in a response with a good status.
OUTCOME_UNKNOWN = "outcome.unknown"
#: The broker's codes for a build that began and ended without an image. The first ones can succeed later.
_BUILD_RETRIED = frozenset({"build.failed", "build.cancelled", "build.disk"})
_BUILD_ENDED = _BUILD_RETRIED | {"build.time", "build.size", "build.pids", "build.log"}
#: What a value of an unexpected type raises.
UNEXPECTED = (AttributeError, KeyError, TypeError, ValueError, OverflowError)
#: The beginning of a list, with its end if the list is empty; and what follows a row.
_LIST: Final = re.compile(r"\s*\[\s*(\]?)")
_AFTER_ROW: Final = re.compile(r"\s*([,\]])\s*")


def encode_context(context: Context) -> str:
    """Return the value of the header Trimtab-Context, 4 KiB at most."""
    claims: dict[str, object] = {"cause": context.cause[:CAUSE_MAX]}
    if context.file or context.commit:
        claims["source"] = {
            "file": context.file[:PATH_MAX],
            "line": context.line,
            "commit": context.commit,
            **({"lines": dict(context.lines)} if context.lines else {}),
        }
    if context.plan:
        claims["plan"] = context.plan
    if context.on_behalf_of:
        claims["onBehalfOf"] = context.on_behalf_of
    if expected := _encode_precondition(context.precondition):
        claims["precondition"] = expected
    return base64.urlsafe_b64encode(canonical(claims)).decode().rstrip("=")


def _encode_precondition(precondition: Precondition) -> dict[str, object]:
    members = {
        "absent": precondition.absent,
        "id": precondition.id,
        "revision": precondition.revision,
    }
    return {name: value for name, value in members.items() if value}


def error_of(response: EngineResponse, *, mutation: bool) -> EngineError:
    """Return the error of a response with a status of 400 or more."""
    payload = parse_object(response.body)
    gate = payload.get("trimtab")
    gate = gate if isinstance(gate, dict) else {}
    message = str(gate.get("reason") or payload.get("message") or f"status {response.status}")
    message, remedy = message[:MESSAGE_MAX], str(gate.get("remedy") or "")[:MESSAGE_MAX]
    rule = str(gate.get("rule") or "")
    if rule in streams.PULL_ERROR_ACTS:
        return PullFailed(rule, message, act=streams.PULL_ERROR_ACTS[rule], remedy=remedy)
    kind, code = _kind_of(response.status, rule=rule, mutation=mutation)
    return kind(rule or code, message, remedy=remedy, status=response.status)


def _kind_of(status: int, *, rule: str, mutation: bool) -> tuple[type[EngineError], str]:
    if status in _UNAVAILABLE:
        return EngineUnavailable, "engine.unavailable"
    if status == _NO_REPLY:
        return (ReplyLost, "reply.lost") if mutation else (EngineUnavailable, "engine.unavailable")
    if status == 409:
        return Conflict, "engine.conflict"
    if rule == disruption.RULE:
        return OverShare, rule
    if status == 403 or rule:
        return Refused, "refused"
    if status == 404:
        return NotFound, "engine.not-found"
    return EngineFailed, "engine.failed"


def pull_error(response: EngineResponse, image: str) -> EngineError | None:
    """Return the error of a pull from its status and last line, None after a success.

    A good status only reports the start of the pull. The last line reports its result.
    """
    if response.status >= 400:
        return error_of(response, mutation=True)
    payload = parse_object(response.body)
    gate = payload.get("trimtab")
    if isinstance(gate, dict):
        lost = gate.get("rule") == OUTCOME_UNKNOWN
        return error_of(EngineResponse(_NO_REPLY if lost else 500, response.body), mutation=True)
    if payload.get("error"):
        return EngineFailed(streams.PULL_ERROR_OTHER, f"{image}: {payload['error']}"[:MESSAGE_MAX])
    return None


def build_error(response: EngineResponse, image: str, log: Iterable[str]) -> EngineError | None:
    """Return the error of a build from its status and last line, None after a success.

    *log* are the last lines of the build's output: the message has the last one in its first line, and all
    below. A command that failed is tried again; a bound of
    the policy that was passed needs a person.
    """
    error = pull_error(response, image)
    if error is None or error.code not in _BUILD_ENDED:
        return error
    message = f"{image}: {' '.join(error.message.split())}"
    if error.remedy:
        message += f" ({error.remedy})"
    for place, line in enumerate(lines := [*log]):
        message += f"{f'; {lines[-1]}' if place == 0 else ''}\n  {line}"
    kind = EngineFailed if error.code in _BUILD_RETRIED else Refused
    return kind(error.code, message)


def parse_json(response: EngineResponse) -> Any:
    """Return the JSON of a successful response.

    Raises:
        EngineFailed: the body is no JSON.
    """
    try:
        return json_values.parse_json(response.body)
    except ValueError as error:
        raise EngineFailed("engine.garbled", f"an answer isn't JSON: {error}") from error


def parse_rows(response: EngineResponse) -> Iterator[Any]:
    """Yield the rows of a list in a successful response, each as it is parsed.

    One call of the parser for the list of 50,000 containers would keep the interpreter from all
    other threads for half a second, and make all rows at once.

    Raises:
        EngineFailed: the body is no list.
    """
    try:
        yield from _rows(response.body.decode())
    except (ValueError, RecursionError) as error:
        raise EngineFailed("engine.garbled", f"an answer isn't a list: {error}") from error


def _rows(text: str) -> Iterator[Any]:
    """Yield the rows of a list; raises ValueError for another text."""
    parse, begin = json_values.DECODER.raw_decode, _LIST.match(text)
    if begin is None:
        raise ValueError(f"it begins with {text[:20]!r}")
    at, ended = begin.end(), begin[1] == "]"
    while not ended:
        row, at = parse(text, at)
        yield row
        if (after := _AFTER_ROW.match(text, at)) is None:
            raise ValueError(f"it breaks off at {at}")
        at, ended = after.end(), after[1] == "]"
    if text[at:].strip():
        raise ValueError("it goes on after its end")


#: Members of an inventory with their tags, by name.
Tagged = Mapping[str, tuple[str, Any]]
_OBJECT, _FOREIGN = StoredForm(OwnedObject), StoredForm(ForeignContainer)
NOTHING_TAGGED: Tagged = MappingProxyType({})


class InventoryResponse:
    """The inventory in the response of the broker's route ``/trimtab/v1/inventory``.

    *tagged* has the members that a request named by their tags: the response lacks these.
    """

    def __init__(self, payload: Mapping[str, Any], tagged: Tagged = NOTHING_TAGGED) -> None:
        self.instance = str(payload.get("instance") or "")
        self.engine_id = str(payload.get("engineId") or "")
        self.engine_version = str(payload.get("engineVersion") or "")
        self.untested = str(payload.get("untested") or "")
        self.containers = {
            item["id"]: ITEM.from_json(item) for item in payload.get("containers") or ()
        }
        self.networks = {
            each["id"]: _OBJECT.from_json(each) for each in payload.get("networks") or ()
        }
        self.volumes = {
            each["name"]: _OBJECT.from_json(each) for each in payload.get("volumes") or ()
        }
        tags = payload.get("tags") or {}
        self.pins: dict[str, Image] = _known(tagged, tags, "pins") or {
            revision: Image(id=image.id, digest=image.digest)
            for revision, image in mapping_from_json("pins", payload.get("pins") or ()).items()
        }
        self.endings: dict[str, Ending] = _known(tagged, tags, "endings") or mapping_from_json(
            "endings", payload.get("endings") or ()
        )
        #: The members with their tags, for the next request.
        self.tagged: Tagged = {name: (tag, getattr(self, name)) for name, tag in tags.items()}
        self.taken_down = str(payload.get("takenDown") or "")
        self.files: dict[str, StoredFiles] = mapping_from_json("files", payload.get("files") or ())
        self.jobs: dict[Key, JobMemory] = mapping_from_json("jobs", payload.get("jobs") or ())
        self.foreign = tuple(map(_FOREIGN.from_json, payload.get("foreign") or ()))
        #: The addresses of slots: pairs of the network's name and the address, by the slot's key.
        self.addresses: dict[str, dict[str, str]] = {}
        for network, slots in addresses_from_json(payload.get("addresses") or ()).items():
            if (known := self.networks.get(network)) is not None:
                for slot, address in slots.items():
                    self.addresses.setdefault(slot, {})[known.name] = address


def reads(read: Callable[P, T]) -> Callable[P, T]:
    """Let a method that reads raise EngineFailed for an answer with values of unexpected types."""

    @wraps(read)
    def method(*args: P.args, **named: P.kwargs) -> T:
        try:
            return read(*args, **named)
        except UNEXPECTED as error:
            raise EngineFailed("engine.garbled", f"an answer can't be read: {error!r}") from error

    return method


def readable(read: Callable[[Inspect], T], inspects: Iterable[Inspect]) -> tuple[T, ...]:
    """Return the results of *read*. An object with a value of an unexpected type is left out."""
    found = list[T]()
    for inspect in inspects:
        with suppress(*UNEXPECTED):
            found.append(read(inspect))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Inspected:
    """A container, and the parts of the inspect to compare with the networks later.

    An inspect takes 20 KiB of memory. One observation reads thousands.
    """

    container: Container
    is_known: bool  # in the inventory
    endpoints: Inspect

    @classmethod
    def of(cls, inspect: Inspect, inventory: InventoryResponse) -> Inspected:
        """Return an inspect, translated.

        Raises:
            EngineFailed: the inspect has values of unexpected types.
        """
        if wrong := misfit(inspect, ENGINE_OBJECT):
            raise EngineFailed("engine.garbled", f"{wrong} of an inspect has an unexpected type")
        return cls._of(inspect, inventory)

    @classmethod
    @reads
    def _of(cls, inspect: Inspect, inventory: InventoryResponse) -> Inspected:
        item = inventory.containers.get(inspect["Id"])
        slot = "" if item is None else key_of(item)
        made = translate.container(
            inspect,
            item,
            inventory.endings,
            inventory.files,
            inventory.addresses.get(slot, {}),
        )
        return cls(made, item is not None, endpoints_of(inspect))


@dataclass(frozen=True, slots=True)
class BrokerObservation:
    """The engine's JSON of one observation, with the inventory.

    Networks were read after containers. The inventory was read after the list of containers.
    """

    inventory: InventoryResponse
    containers: list[Inspected]
    networks: list[Inspect]
    volumes: list[Inspect]
    images: Mapping[str, Inspect | None]
    #: Why a container of a service can't be read (``Observed.unread``).
    unread: Mapping[Key, str] = field(default_factory=dict)

    @classmethod
    def of(cls, payload: Mapping[str, Any], tagged: Tagged) -> BrokerObservation:
        """Return the response of the broker's route ``/trimtab/v1/observe``."""
        inventory = InventoryResponse(payload["inventory"], tagged)
        return cls(
            inventory,
            [Inspected.of(each, inventory) for each in payload["containers"]],
            payload["networks"],
            payload["volumes"],
            payload["images"],
        )


def _known(tagged: Tagged, tags: Mapping[str, str], name: str) -> Any:
    """Return the known value of an omitted member; None for a member of the response."""
    tag, value = tagged.get(name, ("", None))
    return value if tag and tag == tags.get(name) else None


_CONTAINER_EVENTS = """
    create destroy die health_status kill oom pause rename restart start stop unpause update
"""
WATCHED = {
    "container": frozenset(_CONTAINER_EVENTS.split()),
    "network": frozenset({"connect", "destroy", "disconnect"}),
    "volume": frozenset({"destroy"}),
}

#: The engine leaves out the others: each run of a health check is three events of an exec.
WATCHED_ACTIONS = sorted(frozenset[str]().union(*WATCHED.values()))


class EventStream:
    """A running subscription. Yields relevant events as hints."""

    def __init__(self, stream: EngineStream) -> None:
        self._stream = stream
        self._lines = stream.lines()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> EngineEvent:
        while True:
            try:
                events = readable(event_of, [parse_object(next(self._lines))])
            except Silent as error:
                raise EngineUnavailable(EVENTS_SILENT, str(error)) from error
            except ConnectionBroken as error:
                raise EngineUnavailable("events.lost", str(error)) from error
            for event in events:
                if event is not None:
                    return event

    def close(self) -> None:
        """End the subscription. Any thread can call this."""
        self._stream.close()


def event_of(event: Mapping[str, Any]) -> EngineEvent | None:
    """Return an engine event as a hint, None for an irrelevant event."""
    kind = str(event.get("Type") or "")
    action, _, detail = str(event.get("Action") or "").partition(":")  # "health_status: healthy"
    if action not in WATCHED.get(kind, ()):
        return None
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    subject = str(actor.get("ID") or "")
    key = None
    if kind == "network" and action != "destroy":
        # The relevant object is the container that joined or left.
        kind, subject = "container", str(attributes.get("container") or "")
    elif attributes.get(names.SERVICE) and attributes.get(names.NAMESPACE):
        slot = str(attributes.get(names.SLOT) or "")
        key = workload_key(attributes[names.NAMESPACE], attributes[names.SERVICE], slot)
    health = detail.strip() if action == "health_status" else ""
    signal = str(attributes.get("signal") or "") if action == "kill" else ""
    return EngineEvent(int(event.get("timeNano") or 0), kind, action, subject, key, health, signal)


def bound_ports() -> frozenset[HostPort]:
    """Return the bound TCP and UDP ports. Unreadable tables are skipped."""
    ports: frozenset[HostPort] = frozenset()
    for protocol in ("tcp", "udp"):
        for version in ("", "6"):
            with suppress(OSError):
                text = Path(f"/proc/net/{protocol}{version}").read_text("ascii")
                ports |= parse_sockets(text, protocol)
    return ports
