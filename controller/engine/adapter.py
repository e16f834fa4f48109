"""The engine port over a transport: an action is one request, an observation is a few requests.

Rules:

- A mutation is sent once and never repeated.
- A missing response to a mutation is ``ReplyLost``, neither success nor failure.
- Only reads are repeated, and only after a failed connection.

The adapter takes no decisions.

The engine as a snapshot shows it: it can be observed, and nothing can be changed.

Caches of the broker's policy, by digest, and of the policy's verdicts on creates.

A create is judged while its key is planned, again in each further plan, and for the status. Only
the first of these judges.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from controller.core.encoding.json_values import parse_object
from controller.core.engine_api import streams as build_log
from controller.core.engine_api import streams as pull_progress
from controller.core.engine_api import translate
from controller.core.engine_api.engine_objects import ENGINE_OBJECT, misfit
from controller.core.engine_api.streams import (
    BadFrame,
    BuildLog,
    LogLines,
    PullProgress,
    is_multiplexed,
)
from controller.engine import requests, responses
from controller.engine.requests import (
    ConnectionBroken,
    EngineResponse,
    EngineStream,
    NotSent,
    OutgoingRequest,
    Transport,
)
from controller.engine.responses import WATCHED, WATCHED_ACTIONS, EventStream, stale_endpoints
from controller.model import names, observed
from controller.model.container_output import LogLine
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.plan import (
    AnyAction,
    BuildImage,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    MoveService,
    PullImage,
    Wait,
)
from controller.model.desired.spec.container import Build
from controller.model.errors import EngineFailed, EngineUnavailable, NotFound, Refused, ReplyLost
from controller.model.mutations import SOURCE_HELD
from controller.model.names import WORKLOADS, Key, NetworkNames, short_commit, workload_key
from controller.model.observed import HostPort, Observed
from controller.model.records import Context, Role, Verdict
from controller.ports import ContainerSummary, Events

if TYPE_CHECKING:
    from controller.model.sources import SourceHold


READ_TIMEOUT_S = 15.0
OBSERVE_TIMEOUT_S = 60.0  # a read of the engine for each container, network and image
TEXTS_MAX = 16  # the broker takes at most so many images in a look, and as many known parts
#: Images whose inspects are kept. The broker needn't read these again while a container uses them.
IMAGES_KEPT = 256
#: The broker's code for a look with too many or too large objects for one response.
OBSERVE_TOO_LARGE = "observe.too-large"
#: The broker ends a pull after 120 s without progress. This timeout covers a hanging broker.
PULL_IDLE_TIMEOUT_S = 150.0
#: After this time without a byte the stream counts as dead, even if only no event happened.
EVENTS_IDLE_TIMEOUT_S = 90.0
READ_ATTEMPTS = 3
#: Lines of a container's output: more than are stored, because the next run can have begun. The
#: engine cuts lines at 16 KiB, so this is 3.2 MiB at most.
OUTPUT_LINES = 200
OUTPUT_TIMEOUT_S = 2.0
READ_PAUSE_S = 0.05
READ_PAUSE_MAX_S = 1.0

_OBSERVE_CONTEXT = responses.encode_context(Context(cause="observe"))
_OUTPUT_CONTEXT = responses.encode_context(
    Context(cause="keep the last output of a failed container")
)


def ignore_progress(_key: Key, _text: str) -> None:
    """Ignore the progress of a long action."""


def no_archive(_build: Build) -> Iterator[bytes]:
    """Return no archive, for engines without the files of a desired state."""
    return iter(())


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
        on_progress: Callable[[Key, str], None] = ignore_progress,
        archive: Callable[[Build], Iterator[bytes]] = no_archive,
    ) -> None:
        #: Returns the pieces of a context's archive.
        self._archive = archive
        #: By owner: held during a build.
        self._builds: dict[str, threading.Lock] = {}
        self._transport = transport
        self._listening = listening
        self._networks = networks  # a function: a reloaded policy can rename networks
        #: Called with how far a long action of a key is; '' once it has ended.
        self._on_progress = on_progress
        self._reach = reach
        #: The parts of the inventory that every look repeats, with the broker's tags. Replaced whole.
        self._tagged: responses.Tagged = responses.NOTHING_TAGGED
        #: The images that were read last, by id. Replaced whole.
        self._images: Mapping[str, responses.Inspect] = {}
        self._reads = Retrying(
            stop=stop_after_attempt(READ_ATTEMPTS),
            wait=wait_exponential(multiplier=READ_PAUSE_S, max=READ_PAUSE_MAX_S),
            retry=retry_if_exception_type((NotSent, ConnectionBroken)),
            sleep=pause,
            reraise=True,
        )

    # Observing

    def read_own_route(self, name: str) -> Any:
        """Return the JSON of one of the broker's own routes, for example ``policy``."""
        return self._get(f"/trimtab/v1/{name}")

    def read_metrics(self) -> str:
        """Return the broker's metrics as text for Prometheus."""
        return self._read("/trimtab/v1/metrics").body.decode(errors="replace")

    def ask_content(self, request: OutgoingRequest, cause: str) -> str:
        """Return the broker's answer to a question about a Secret, its content id."""
        return self._send(request, Context(cause=cause))

    @responses.reads
    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        """Return one snapshot.

        *only* limits the containers to one service, and the networks to its namespace. The list
        of containers is read before the inventory, so the inventory knows each listed container.
        """
        seen = self._look_at(only, images) or self._read_parts(images, only)
        inventory, containers = seen.inventory, tuple(self._containers(seen))
        networks = responses.readable(
            lambda each: translate.network(each, inventory.networks[each["Id"]]), seen.networks
        )
        if held := [network for network in networks if network.held]:
            containers = tuple(translate.with_holders(each, held) for each in containers)
        local = [inspect for inspect in seen.images.values() if inspect]
        self._keep(local)
        return Observed(
            instance=inventory.instance,
            engine_id=inventory.engine_id,
            engine_version=inventory.engine_version,
            untested=inventory.untested,
            containers=containers,
            networks=networks,
            volumes=responses.readable(
                lambda each: translate.volume(each, inventory.volumes.get(each["Name"])),
                sorted(seen.volumes, key=lambda each: str(each.get("Name"))),
            ),
            images={
                name: None if inspect is None else translate.image(inspect, name)
                for name, inspect in seen.images.items()
            },
            pins=inventory.pins,
            endings=inventory.endings,
            taken_down=inventory.taken_down,
            files=inventory.files,
            jobs=inventory.jobs,
            foreign=inventory.foreign,
            unread=seen.unread,
            image_volumes={each["Id"]: translate.declared_volumes(each) for each in local},
            image_settings={each["Id"]: translate.image_settings(each) for each in local},
            # The kernel takes milliseconds to list its sockets, and only `host_ports.taken` uses
            # them: for services whose own containers publish ports.
            listening=self._listening() if any(c.ports for c in containers) else frozenset(),
        )

    def _look_at(
        self, key: Key | None, images: frozenset[str]
    ) -> responses.BrokerObservation | None:
        """Read a service's objects in one request; return None if several requests are needed."""
        if key is None or key.kind not in WORKLOADS or len(images) > TEXTS_MAX:
            return None
        query = {"namespace": key.namespace, "service": key.name}
        if images:
            query["images"] = json.dumps(sorted(images))
        tagged, kept = self._tagged, self._images
        have = [*sorted(tag for tag, _ in tagged.values()), *sorted(images & kept.keys())]
        if have:
            query["have"] = json.dumps(have[:TEXTS_MAX])
        try:
            shown = self._get("/trimtab/v1/observe", query, timeout_s=OBSERVE_TIMEOUT_S)
        except Refused as error:
            if error.code != OBSERVE_TOO_LARGE:
                raise
            return None
        look = responses.BrokerObservation.of(shown, tagged)
        self._tagged = look.inventory.tagged
        in_use = {name: kept[name] for name in images - look.images.keys()}
        return replace(look, images={**look.images, **in_use})

    def _keep(self, images: Iterable[responses.Inspect]) -> None:
        """Keep what an observation says about images, under the ids of the images."""
        read = {each["Id"]: translate.image_part(each) for each in images}
        older = [(each, kept) for each, kept in self._images.items() if each not in read]
        self._images = dict([*older, *read.items()][-IMAGES_KEPT:])

    def _read_parts(self, images: frozenset[str], only: Key | None) -> responses.BrokerObservation:
        """Read with a request for each object: everything would be too large for one response."""
        listed = responses.readable(_id_and_instance_of, self._list(only))
        inventory = responses.InventoryResponse(self._get("/trimtab/v1/inventory"))
        own = [identifier for identifier, instance in listed if instance == inventory.instance]
        containers, unread = self._inspect_containers(own, inventory)
        return responses.BrokerObservation(
            inventory,
            containers,
            list(self._inspect_networks(inventory, only)),
            self._get("/volumes").get("Volumes") or [],
            {name: self._inspect_image(name) for name in sorted(images)},
            unread,
        )

    @responses.reads
    def list_containers(self) -> frozenset[ContainerSummary]:
        """Return the managed containers of one list request."""
        return frozenset(responses.readable(_summary_of, self._list(None)))

    def last_output(self, container: str) -> tuple[LogLine, ...]:
        """Return the last lines of a container's output. One attempt, two seconds at most."""
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": str(OUTPUT_LINES)}
        path = f"/containers/{container}/logs"
        request = OutgoingRequest("GET", path, query, timeout_s=OUTPUT_TIMEOUT_S)
        with _translated_errors(mutation=False):
            response = self._transport.call(request, _OUTPUT_CONTEXT)
        if response.status >= 400:
            raise responses.error_of(response, mutation=False)
        lines = LogLines(multiplexed=is_multiplexed(response.body))
        try:
            return (*lines.feed(response.body), *lines.finish())
        except BadFrame as error:
            raise EngineFailed("logs.garbled", f"its output can't be read: {error}") from error

    def _list(self, only: Key | None) -> Iterable[dict[str, Any]]:
        if only is not None and only.kind == "Volume":
            return ()  # the state of a volume doesn't depend on containers
        labels = [f"{names.MANAGED}=true"]
        if only is not None and only.kind in WORKLOADS:
            labels += [f"{names.NAMESPACE}={only.namespace}", f"{names.SERVICE}={only.name}"]
        query = {"all": "1", "filters": json.dumps({"label": labels})}
        return responses.parse_rows(self._read("/containers/json", query))

    def _inspect_containers(
        self, ids: list[str], inventory: responses.InventoryResponse
    ) -> tuple[list[responses.Inspected], dict[Key, str]]:
        """Return the containers, and why some of a service can't be read, by the service."""
        found, unread = list[responses.Inspected](), dict[Key, str]()
        for container_id in sorted(ids):
            try:
                inspect = self._find(f"/containers/{container_id}/json")
                if inspect is not None:  # else removed since the list
                    found.append(responses.Inspected.of(inspect, inventory))
            except (Refused, EngineFailed) as error:
                item = inventory.containers.get(container_id)
                if item is not None and item.origin == Role.CONTROLLER.value:
                    key = workload_key(item.namespace, item.service, item.slot_label)
                    unread[key] = f"{item.admitted.name}: {error.message}"
        return found, unread

    def _containers(self, seen: responses.BrokerObservation) -> Iterator[observed.Container]:
        for each in seen.containers:
            # The broker hides members of a network that are not in the inventory.
            stale = stale_endpoints(each.endpoints, seen.networks) if each.is_known else frozenset()
            if not stale:
                yield each.container
            elif (found := self._find(f"/containers/{each.container.id}/json")) is not None:
                # Only an endpoint stale in both inspects is stale. Otherwise the container ended or
                # left the network between the two requests.
                again = responses.Inspected.of(found, seen.inventory)
                stale &= stale_endpoints(again.endpoints, seen.networks)
                cut_off = tuple(sorted({each.network for each in stale}))
                yield replace(again.container, cut_off=cut_off)

    def _inspect_networks(
        self, inventory: responses.InventoryResponse, only: Key | None
    ) -> Iterator[responses.Inspect]:
        networks = [
            each
            for each in inventory.networks.values()
            if only is None or each.namespace == only.namespace
        ]
        for network in sorted(networks, key=lambda each: (each.name, each.id)):
            inspect = self._find(f"/networks/{network.id}")
            if inspect and inspect.get("Id") and not misfit(inspect, ENGINE_OBJECT):
                yield inspect

    def _inspect_image(self, reference: str) -> responses.Inspect | None:
        try:
            found = self._find(f"/images/{quote(reference, safe='/:@')}/json")
        except Refused:
            return None  # an image hidden by the gate is unusable too; a create reports the reason
        return found if found and found.get("Id") else None

    def _find(self, path: str) -> Any | None:
        try:
            return self._get(path)
        except NotFound:
            return None

    def _get(
        self, path: str, query: dict[str, str] | None = None, *, timeout_s: float = READ_TIMEOUT_S
    ) -> Any:
        return responses.parse_json(self._read(path, query, timeout_s=timeout_s))

    def _read(
        self, path: str, query: dict[str, str] | None = None, *, timeout_s: float = READ_TIMEOUT_S
    ) -> EngineResponse:
        request = OutgoingRequest("GET", path, query or {}, timeout_s=timeout_s)
        with _translated_errors(mutation=False):
            response = self._reads(self._transport.call, request, _OBSERVE_CONTEXT)
        if response.status >= 400:
            raise responses.error_of(response, mutation=False)
        return response

    # Acting

    def perform(self, action: AnyAction, context: Context | None) -> str:
        """Send the request of an action. Return the id of a created object, else ''.

        Without a context the request is sent as an act of the user, even if the user has the
        controller's uid: the context marks a request of the controller.

        An action on an existing object needs the object's id in its precondition. The broker checks
        the precondition of a request with a context: an unmet one is a Conflict.
        """
        if context is not None:
            context = replace(context, precondition=action.precondition)
        match action:
            case BuildImage():
                return self._build(action, context)
            case PullImage():
                return self._pull(action, context)
            case CreateNetwork() | CreateVolume() | DeliverFiles() | CreateContainer():
                return self._send(requests.create_request(action, self._networks()), context)
            case MoveService():
                return self._send(requests.move_request(action), context)
            case Wait():
                raise AssertionError("a wait is nothing to perform")
            case _:
                return self._send(requests.change_request(action), context)

    def record_hold(self, hold: SourceHold) -> None:
        """Let the broker record that a Git source doesn't serve a newer commit.

        Raises:
            EngineError: the hold isn't recorded.
        """
        told: dict[str, object] = {"act": SOURCE_HELD, "object": str(hold.key)}
        body = told | {"commit": hold.commit, "reason": hold.reason, "message": hold.message}
        cause = f"commit {short_commit(hold.commit)} isn't served: {hold.reason}"
        context = Context(cause=cause, file=hold.file, line=hold.line, commit=hold.commit)
        self._send(OutgoingRequest("POST", "/trimtab/v1/records", body=body), context)

    def _send(self, request: OutgoingRequest, context: Context | None) -> str:
        self._reach("broker.send.before")
        with _translated_errors(mutation=True):
            response = self._transport.call(
                request, "" if context is None else responses.encode_context(context)
            )
        self._reach_received()
        if response.status >= 400:
            raise responses.error_of(response, mutation=True)
        if not request.id_member:
            return ""
        return str(parse_object(response.body).get(request.id_member) or "")

    def _reach_received(self) -> None:
        # A call is one step here: at these crash points the response exists and is still unused.
        self._reach("broker.send.after")
        self._reach("broker.receive.before")
        self._reach("broker.receive.after")

    def _pull(self, action: PullImage, context: Context | None) -> str:
        repository, tag = requests.split_reference(action.target)
        query = {"fromImage": repository, "tag": tag}
        request = OutgoingRequest("POST", "/images/create", query, timeout_s=PULL_IDLE_TIMEOUT_S)
        self._reach("broker.send.before")
        self._on_progress(action.object, _describe(action, PullProgress()))
        try:
            with _translated_errors(mutation=True):
                stream = self._transport.stream(
                    request, "" if context is None else responses.encode_context(context)
                )
                last = self._follow_pull(stream, action)
        finally:
            self._on_progress(action.object, "")
        self._reach_received()
        error = responses.pull_error(EngineResponse(stream.status, last), action.target)
        if error is not None:
            raise error
        return ""

    def _build(self, action: BuildImage, context: Context | None) -> str:
        """Send the context of a build, and follow its log.

        Raises:
            Conflict: the files aren't those of the desired state any more.
            EngineFailed: the build failed; the message has the last lines of its log.
        """
        request = requests.build_request(action, self._archive(action.build))
        log, last = BuildLog(), b""
        self._on_progress(action.object, f"{action.target}: waits for other builds")
        # The broker runs one build of an owner at a time. The next one waits here, as no failure.
        with self._builds.setdefault(action.owner, threading.Lock()):
            self._reach("broker.send.before")
            self._on_progress(action.object, build_log.describe_build(action.target, log))
            try:
                with _translated_errors(mutation=True):
                    stream = self._transport.stream(
                        request, "" if context is None else responses.encode_context(context)
                    )
                    for last in stream.lines():
                        step, log = log.step, build_log.advance_build(log, last)
                        if log.step != step:
                            text = build_log.describe_build(action.target, log)
                            self._on_progress(action.object, text)
            finally:
                self._on_progress(action.object, "")
        self._reach_received()
        answer = EngineResponse(stream.status, last)
        error = responses.build_error(answer, action.target, log.lines)
        if error is not None:
            raise error
        return ""

    def _follow_pull(self, stream: EngineStream, action: PullImage) -> bytes:
        """Report the progress of a pull until its end. Return the last line."""
        last, progress = b"", PullProgress()
        shown = _describe(action, progress)
        for line in stream.lines():
            last = line
            progress = pull_progress.advance_pull(progress, line)
            text = _describe(action, progress)
            if text != shown and stream.status < 400:
                self._on_progress(action.object, text)
                shown = text
        return last

    # Events

    def events(self, *, since_ns: int) -> EventStream:
        """Subscribe to events. Returns after the engine's response."""
        seconds, rest = divmod(max(0, since_ns), 1_000_000_000)
        query = {
            "since": f"{seconds}.{rest:09d}",
            "filters": json.dumps({"type": sorted(WATCHED), "event": WATCHED_ACTIONS}),
        }
        request = OutgoingRequest("GET", "/events", query, timeout_s=EVENTS_IDLE_TIMEOUT_S)
        with _translated_errors(mutation=False):
            stream = self._transport.stream(request, _OBSERVE_CONTEXT)
            if stream.status >= 400:
                raise responses.error_of(
                    EngineResponse(stream.status, _read_whole(stream)), mutation=False
                )
        return EventStream(stream)


@contextmanager
def _translated_errors(*, mutation: bool) -> Iterator[None]:
    """Turn errors of the connection into errors of the engine port."""
    try:
        yield
    except NotSent as error:
        raise EngineUnavailable("broker.unavailable", str(error)) from error
    except ConnectionBroken as error:
        if mutation:
            raise ReplyLost("reply.lost", str(error)) from error
        raise EngineUnavailable("broker.unavailable", str(error)) from error


def _describe(action: PullImage, progress: PullProgress) -> str:
    return f"{action.target}: {pull_progress.describe_pull(progress)}"


def _read_whole(stream: EngineStream) -> bytes:
    try:
        return b"\n".join(stream.lines())
    finally:
        stream.close()


def _id_and_instance_of(listed: Mapping[str, Any]) -> tuple[str, str]:
    return str(listed["Id"]), str((listed.get("Labels") or {}).get(names.INSTANCE) or "")


def _summary_of(listed: Mapping[str, Any]) -> ContainerSummary:
    labels = listed.get("Labels") or {}
    joined = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerSummary(
        id=listed["Id"],
        name=((listed.get("Names") or ("",))[0]).removeprefix("/"),
        state=str(listed.get("State") or ""),
        key=workload_key(
            labels.get(names.NAMESPACE) or "",
            labels.get(names.SERVICE) or "",
            labels.get(names.SLOT) or "",
        ),
        networks=tuple(sorted(name for name in joined if name != "none")),
    )


class SnapshotEngine:
    """A ``ports.Engine`` with a recorded observation."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:  # noqa: ARG002
        """Return the observation; an image that wasn't looked up then counts as missing."""
        return self._observed

    def list_containers(self) -> frozenset[ContainerSummary]:
        _refuse()

    def perform(self, action: AnyAction, context: Context) -> str:  # noqa: ARG002
        _refuse()

    def events(self, *, since_ns: int) -> Events:  # noqa: ARG002
        _refuse()


def _refuse() -> NoReturn:
    raise EngineUnavailable("engine.snapshot", "a snapshot of a host has no engine")


class ParsedPolicy(Protocol):
    """The members of a parsed policy that the cache reads."""

    @property
    def digest(self) -> str: ...

    @property
    def networks(self) -> NetworkNames: ...

    @property
    def valid_until(self) -> float: ...


P = TypeVar("P", bound=ParsedPolicy)


class PolicyCache(Generic[P]):
    """The policy in force, as of the last update.

    *parse* makes a policy from the payload of the broker's route ``/trimtab/v1/policy``, and the time
    that *now* returns.
    """

    def __init__(
        self, parse: Callable[[Mapping[str, Any], float], P], now: Callable[[], float]
    ) -> None:
        self._parse = parse
        self._now = now
        self._digest = ""
        self._policy: P | None = None

    def update(self, payload: Mapping[str, Any]) -> P:
        """Return the policy of *payload*: the cached object while the digest is the same, and it is
        valid.
        """
        now = self._now()
        if (
            self._policy is None
            or (self._digest != payload["digest"])
            or now >= self._policy.valid_until
        ):
            self._digest, self._policy = payload["digest"], self._parse(payload, now)
        return self._policy

    def networks(self) -> NetworkNames:
        """Return the network names of the policy; the defaults before the first update."""
        return NetworkNames() if self._policy is None else self._policy.networks


#: The replicas of a large instance; a verdict without findings takes some 100 bytes.
VERDICTS_MAX: Final = 4096


class VerdictCache:
    """The latest verdicts. A cache belongs to one policy, and is dropped with the policy."""

    def __init__(self, size_max: int = VERDICTS_MAX) -> None:
        self._size_max = size_max
        self._lock = threading.Lock()
        #: The least recently used first.
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()

    def get(self, digest: str, judge: Callable[[], Verdict]) -> Verdict:
        """Return the verdict on the request of *digest*; call *judge* for an unknown request."""
        with self._lock:
            if digest in self._verdicts:
                self._verdicts.move_to_end(digest)
                return self._verdicts[digest]
        verdict = judge()
        with self._lock:
            self._verdicts[digest] = verdict
            if len(self._verdicts) > self._size_max:
                self._verdicts.popitem(last=False)
        return verdict
