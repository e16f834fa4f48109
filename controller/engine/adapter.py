"""The engine port over a transport: each action is one request, each look is a few.

Rules that hold here: a mutation is sent once and never again; a reply that didn't come is
``ReplyLost``, neither success nor failure; only reads are repeated, and only when the connection
failed. Nothing here decides what should be done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import starmap
from typing import Any
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from controller.core.engine_api import pull_progress, translate
from controller.core.engine_api.log_stream import BadFrame, LogLines, is_multiplexed
from controller.core.engine_api.pull_progress import PullProgress
from controller.engine import requests
from controller.engine.requests import OutgoingRequest
from controller.engine.responses import (
    InventoryResponse,
    error_of,
    header,
    object_of,
    parsed,
    pull_error,
)
from controller.engine.stale_endpoints import strays
from controller.engine.transport import (
    ConnectionBroken,
    EngineResponse,
    EngineStream,
    NotSent,
    Silent,
    Transport,
)
from controller.model import names, observed
from controller.model.container_output import LogLine
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.plan import (
    AnyAction,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    PullImage,
    Wait,
)
from controller.model.errors import EngineFailed, EngineUnavailable, NotFound, Refused, ReplyLost
from controller.model.inventory import OwnedObject
from controller.model.names import Key, NetworkNames, service_key
from controller.model.observed import HostPort, Observed
from controller.model.records import Context
from controller.ports import EVENTS_SILENT, ContainerSummary, EngineEvent, EngineFacts

READ_TIMEOUT_S = 15.0
#: The broker gives a pull up after 120 s without progress: this is for a broker that hangs.
PULL_IDLE_TIMEOUT_S = 150.0
#: No byte for that long: the stream is taken for dead, though it may be that nothing happened.
EVENTS_IDLE_TIMEOUT_S = 90.0
READ_ATTEMPTS = 3
#: Of a container's output: more than is kept, since a next run may have begun already. The engine
#: cuts lines at 16 KiB, so this is 3.2 MiB at most.
OUTPUT_LINES = 200
OUTPUT_TIMEOUT_S = 2.0
READ_PAUSE_S = 0.05
READ_PAUSE_MAX_S = 1.0

#: What the engine says of one object.
Inspect = dict[str, Any]

_LOOKING = header(Context(cause="look"))
_KEEPING_OUTPUT = header(Context(cause="keep the last output of a failed container"))
_WATCHED = {
    "container": frozenset(
        {
            "create",
            "destroy",
            "die",
            "health_status",
            "kill",
            "oom",
            "pause",
            "rename",
            "restart",
            "start",
            "stop",
            "unpause",
            "update",
        }
    ),
    "network": frozenset({"connect", "destroy", "disconnect"}),
    "volume": frozenset({"destroy"}),
}


class BrokerEngine:
    """``ports.Engine`` over the broker."""

    def __init__(
        self,
        transport: Transport,
        *,
        networks: Callable[[], NetworkNames],
        pause: Callable[[float], None],
        reach: Reach = pass_by,
        listening: Callable[[], frozenset[HostPort]] = frozenset,
    ) -> None:
        self._transport = transport
        self._listening = listening
        self._networks = networks  # a function: a reloaded policy can rename networks
        #: Told how far an action for a key is that takes long; '' once it is over.
        self.progress: Callable[[Key, str], None] = lambda _key, _text: None
        self._reach = reach
        self._reads = Retrying(
            stop=stop_after_attempt(READ_ATTEMPTS),
            wait=wait_exponential(multiplier=READ_PAUSE_S, max=READ_PAUSE_MAX_S),
            retry=retry_if_exception_type((NotSent, ConnectionBroken)),
            sleep=pause,
            reraise=True,
        )

    # Looking

    def facts(self) -> EngineFacts:
        """Return who answers behind the broker.

        Raises:
            EngineUnavailable: no broker, or no engine behind it.
        """
        engine = self._get("/trimtab/v1/health").get("engine") or {}
        if not engine.get("reachable"):
            raise EngineUnavailable("engine.unreachable", "the broker can't reach the engine")
        return EngineFacts(
            engine_id=str(engine.get("id") or ""),
            version=str(engine.get("version") or ""),
            api_version=str(engine.get("apiVersion") or ""),
            cpus=int(engine.get("cpus") or 0),
            memory_bytes=int(engine.get("memoryBytes") or 0),
        )

    def own_route(self, name: str) -> Any:
        """Return the JSON of one of the broker's own routes (policy, whoami, health)."""
        return self._get(f"/trimtab/v1/{name}")

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        """Return one snapshot; ``only`` narrows containers to one service's, and networks to its
        namespace's.

        The list comes before the inventory, so that whatever is listed is known by then.
        """
        listed = self._list(only)
        inventory = InventoryResponse(self._get("/trimtab/v1/inventory"))
        ours = [each["Id"] for each in listed if _instance(each) == inventory.instance]
        inspects = tuple(self._inspects(ours))
        networks = tuple(self._look_at_networks(inventory, only))
        local = {name: self._image(name) for name in sorted(images)}
        return Observed(
            instance=inventory.instance,
            engine_id=inventory.engine_id,
            containers=tuple(self._containers(inspects, [told for told, _ in networks], inventory)),
            networks=tuple(starmap(translate.network, networks)),
            volumes=tuple(self._volumes(inventory)),
            images={
                name: None if told is None else translate.image(told, name)
                for name, told in local.items()
            },
            pins=inventory.pins,
            endings=inventory.endings,
            taken_down=inventory.taken_down,
            image_volumes={
                told["Id"]: translate.declared_volumes(told) for told in local.values() if told
            },
            listening=self._listening(),
        )

    def list_containers(self) -> frozenset[ContainerSummary]:
        """Return what one list request shows of all containers of ours."""
        return frozenset(_glimpse(each) for each in self._list(None))

    def last_output(self, container: str) -> tuple[LogLine, ...]:
        """Return the last lines that a container printed: tried once, within two seconds."""
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": str(OUTPUT_LINES)}
        path = f"/containers/{container}/logs"
        try:
            answer = self._transport.call(
                "GET",
                path,
                query=query,
                body=None,
                context=_KEEPING_OUTPUT,
                timeout_s=OUTPUT_TIMEOUT_S,
            )
        except (NotSent, ConnectionBroken) as error:
            raise EngineUnavailable("broker.unavailable", str(error)) from error
        if answer.status >= 400:
            raise error_of(answer, mutation=False)
        lines = LogLines(multiplexed=is_multiplexed(answer.body))
        try:
            return (*lines.feed(answer.body), *lines.finish())
        except BadFrame as error:
            raise EngineFailed("logs.garbled", f"its output can't be read: {error}") from error

    def _list(self, only: Key | None) -> list[dict[str, Any]]:
        if only is not None and only.kind == "Volume":
            return []  # nothing about a volume depends on containers
        labels = [f"{names.MANAGED}=true"]
        if only is not None and only.kind == "Service":
            labels += [f"{names.NAMESPACE}={only.namespace}", f"{names.SERVICE}={only.name}"]
        query = {"all": "1", "filters": json.dumps({"label": labels})}
        return list(self._get("/containers/json", query))

    def _inspects(self, ids: list[str]) -> Iterator[Inspect]:
        for container_id in sorted(ids):
            inspect = self._find(f"/containers/{container_id}/json")
            if inspect is not None:  # else it vanished since the list
                yield inspect

    def _containers(
        self, inspects: Iterable[Inspect], networks: Iterable[Inspect], inventory: InventoryResponse
    ) -> Iterator[observed.Container]:
        """Yield containers; *networks* were inspected after them."""
        for inspect in inspects:
            item = inventory.containers.get(inspect["Id"])
            # The broker shows nobody of a network whom the inventory doesn't know.
            if item is None or not (lost := strays(inspect, networks)):
                yield translate.container(inspect, item, inventory.endings)
            elif (again := self._find(f"/containers/{item.id}/json")) is not None:
                # Only what was so before and after is so: else it ended or left between the two looks.
                lost &= strays(again, networks)
                cut_off = tuple(sorted({each.network for each in lost}))
                yield replace(translate.container(again, item, inventory.endings), cut_off=cut_off)

    def _look_at_networks(
        self, inventory: InventoryResponse, only: Key | None
    ) -> Iterator[tuple[Inspect, OwnedObject]]:
        mine = [
            each
            for each in inventory.networks.values()
            if only is None or each.namespace == only.namespace
        ]
        for belonging in sorted(mine, key=lambda each: (each.name, each.id)):
            inspect = self._find(f"/networks/{belonging.id}")
            if inspect is not None:
                yield inspect, belonging

    def _volumes(self, inventory: InventoryResponse) -> Iterator[observed.ObservedVolume]:
        told = self._get("/volumes").get("Volumes") or ()
        for inspect in sorted(told, key=lambda each: str(each["Name"])):
            yield translate.volume(inspect, inventory.volumes.get(inspect["Name"]))

    def _image(self, reference: str) -> Inspect | None:
        try:
            return self._find(f"/images/{quote(reference, safe='/:@')}/json")
        except Refused:
            return None  # what the gate won't show can't be used either; a create says why

    def _find(self, path: str) -> Any | None:
        try:
            return self._get(path)
        except NotFound:
            return None

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        try:
            answer = self._reads(
                self._transport.call,
                "GET",
                path,
                query=query or {},
                body=None,
                context=_LOOKING,
                timeout_s=READ_TIMEOUT_S,
            )
        except (NotSent, ConnectionBroken) as error:
            raise EngineUnavailable("broker.unavailable", str(error)) from error
        if answer.status >= 400:
            raise error_of(answer, mutation=False)
        return parsed(answer)

    # Acting

    def perform(self, action: AnyAction, context: Context | None) -> str:
        """Send the one request that an action is; return the id of what was made, or ''.

        Without a context it is sent as its user's own act, also where that user has the uid of
        the controller: the context is what makes a request the controller's.

        An action on something that exists needs its id in the precondition.
        """
        match action:
            case PullImage():
                return self._pull(action, context)
            case CreateNetwork() | CreateVolume() | CreateContainer():
                return self._send(requests.creation(action, self._networks()), context)
            case Wait():
                raise AssertionError("a wait is nothing to perform")
            case _:
                return self._send(requests.change(action), context)

    def _send(self, request: OutgoingRequest, context: Context | None) -> str:
        self._reach("broker.send.before")
        try:
            answer = self._transport.call(
                request.method,
                request.path,
                query=request.query,
                body=request.body,
                context="" if context is None else header(context),
                timeout_s=request.timeout_s,
            )
        except NotSent as error:
            raise EngineUnavailable("broker.unavailable", str(error)) from error
        except ConnectionBroken as error:
            raise ReplyLost("reply.lost", str(error)) from error
        self._received()
        if answer.status >= 400:
            raise error_of(answer, mutation=True)
        return str(object_of(answer.body).get(request.made) or "") if request.made else ""

    def _received(self) -> None:
        # A call is one step here: between these points the answer is there, and nobody used it.
        self._reach("broker.send.after")
        self._reach("broker.receive.before")
        self._reach("broker.receive.after")

    def _pull(self, action: PullImage, context: Context | None) -> str:
        repository, tag = requests.split_reference(action.target)
        self._reach("broker.send.before")
        self.progress(action.object, _how_far(action, PullProgress()))
        try:
            stream = self._transport.stream(
                "POST",
                "/images/create",
                query={"fromImage": repository, "tag": tag},
                context="" if context is None else header(context),
                idle_timeout_s=PULL_IDLE_TIMEOUT_S,
            )
            last = self._follow(stream, action)
        except NotSent as failure:
            raise EngineUnavailable("broker.unavailable", str(failure)) from failure
        except ConnectionBroken as failure:
            raise ReplyLost("reply.lost", str(failure)) from failure
        finally:
            self.progress(action.object, "")
        self._received()
        error = pull_error(EngineResponse(stream.status, last), action.target)
        if error is not None:
            raise error
        return ""

    def _follow(self, stream: EngineStream, action: PullImage) -> bytes:
        """Tell how far a pull is until its end; return its last line."""
        last, progress = b"", PullProgress()
        shown = _how_far(action, progress)
        for line in stream.lines():
            last = line
            progress = pull_progress.advance(progress, line)
            text = _how_far(action, progress)
            if text != shown and stream.status < 400:
                self.progress(action.object, text)
                shown = text
        return last

    # Listening

    def events(self, *, since_ns: int) -> EventStream:
        """Subscribe, and return once the engine answered."""
        seconds, rest = divmod(max(0, since_ns), 1_000_000_000)
        filters = {"type": sorted(_WATCHED)}
        try:
            stream = self._transport.stream(
                "GET",
                "/events",
                query={"since": f"{seconds}.{rest:09d}", "filters": json.dumps(filters)},
                context=_LOOKING,
                idle_timeout_s=EVENTS_IDLE_TIMEOUT_S,
            )
            if stream.status >= 400:
                raise error_of(EngineResponse(stream.status, _whole(stream)), mutation=False)
        except (NotSent, ConnectionBroken) as error:
            raise EngineUnavailable("broker.unavailable", str(error)) from error
        return EventStream(stream)


class EventStream:
    """A running subscription: the events worth a look, as hints."""

    def __init__(self, stream: EngineStream) -> None:
        self._stream = stream
        self._lines = stream.lines()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> EngineEvent:
        while True:
            try:
                event = event_of(object_of(next(self._lines)))
            except Silent as error:
                raise EngineUnavailable(EVENTS_SILENT, str(error)) from error
            except ConnectionBroken as error:
                raise EngineUnavailable("events.lost", str(error)) from error
            if event is not None:
                return event

    def close(self) -> None:
        """End it, from any thread."""
        self._stream.close()


def event_of(told: Mapping[str, Any]) -> EngineEvent | None:
    """Return an event of the engine's as a hint, or None when it is worth none."""
    kind = str(told.get("Type") or "")
    action = str(told.get("Action") or "").partition(":")[0]  # "health_status: healthy"
    if action not in _WATCHED.get(kind, ()):
        return None
    actor = told.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    subject = str(actor.get("ID") or "")
    key = None
    if kind == "network" and action != "destroy":
        # What matters of it is the container that joined or left.
        kind, subject = "container", str(attributes.get("container") or "")
    elif attributes.get(names.SERVICE) and attributes.get(names.NAMESPACE):
        key = service_key(attributes[names.NAMESPACE], attributes[names.SERVICE])
    return EngineEvent(int(told.get("timeNano") or 0), kind, action, subject, key)


def _how_far(action: PullImage, progress: PullProgress) -> str:
    return f"{action.target}: {pull_progress.describe(progress)}"


def _whole(stream: EngineStream) -> bytes:
    try:
        return b"\n".join(stream.lines())
    finally:
        stream.close()


def _instance(listed: Mapping[str, Any]) -> str:
    return str((listed.get("Labels") or {}).get(names.INSTANCE) or "")


def _glimpse(listed: Mapping[str, Any]) -> ContainerSummary:
    labels = listed.get("Labels") or {}
    joined = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerSummary(
        id=listed["Id"],
        name=((listed.get("Names") or ("",))[0]).removeprefix("/"),
        state=str(listed.get("State") or ""),
        key=service_key(labels.get(names.NAMESPACE) or "", labels.get(names.SERVICE) or ""),
        networks=tuple(sorted(name for name in joined if name != "none")),
    )
