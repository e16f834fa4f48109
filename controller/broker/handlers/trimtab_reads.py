"""The reads of trimtab itself: the journal, the metrics, and what a pass observes.

Each caller gets the records, and the parts of a record, that the caller can see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from controller import __version__
from controller.broker import wire
from controller.broker.gate.call import Flow, GateRequest, announcing, query_journal
from controller.broker.gate.commands import Follow, GiveWay
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares, job_runs, lookup, recovery
from controller.broker.guards.lists import scrub_text
from controller.broker.handlers import container_read, image, networks_volumes
from controller.broker.handlers.trimtab_api import shared_items
from controller.broker.wire import json_reply, refusal
from controller.core.enforcement.limits import all_counted, quota_use
from controller.core.metrics.broker_values import BrokerFacts, broker_values
from controller.core.metrics.families import CONTENT_TYPE, MetricsOwner, ProcessFacts, text_of
from controller.core.records.inventory_json import ITEM, addresses_to_json, mapping_to_json
from controller.core.records.query import (
    Filter,
    QueryResult,
    Question,
    Reader,
    redact_record,
    redact_subject,
    subject_to_json,
)
from controller.core.records.record import line_of
from controller.model import names
from controller.model.records import RESTRICTED, Actor, Reply, Role

#: Records in one answer; of clients and viewers.
PAGE_MAX = 500
PAGE_MAX_OF_CLIENTS = 200
#: Bytes of lines that are made at a time. A short line costs as much as one of so many bytes.
TURN_BYTES, LINE_BYTES = 64 * 1024, 2 * 1024
NDJSON = ("content-type", "application/x-ndjson")
#: The header with the next ``after``, if there may be more records.
FOLLOWING = "trimtab-following"
_MANY = frozenset({"stages", "routes", "ids"})
_NUMBERS = frozenset({"after", "upto"})


def journal(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET journal``: the last matching records, or the first ones ``after`` a number."""
    query, actor = call.query, call.actor
    most = PAGE_MAX_OF_CLIENTS if actor.role in RESTRICTED else PAGE_MAX
    question = Question(
        filter_of(query),
        reader_of(actor),
        limit=min(int(query.get("limit", most)), most),
        last="after" not in query,
        there=query.get("there", ""),
    )
    page = yield from query_journal(question)
    line = _line_for(call, state)
    lines: list[bytes] = []
    size = 0
    for found in page.found:
        lines.append(line(found))
        size += LINE_BYTES + len(lines[-1])
        if size > TURN_BYTES:
            size = 0
            yield GiveWay()
    following = ((FOLLOWING, str(page.following)),) if page.following else ()
    return Reply(200, b"".join(lines), (NDJSON, *following))


def follow(call: GateRequest, state: GateState) -> Flow[Follow]:
    """Handle ``GET journal/follow``: matching records as they become durable, ``after`` one or from
    now.
    """
    yield from ()
    wanted = filter_of({"after": str(state.inventory.seq), **call.query})
    return Follow(Question(wanted, reader_of(call.actor)), _line_for(call, state))


def filter_of(query: Mapping[str, str]) -> Filter:
    """Return the filter of checked parameters."""
    members: dict[str, Any] = {}
    for each in fields(Filter):
        value = query.get(each.name, "")
        if each.name in _MANY:
            members[each.name] = frozenset(value.split(",")) if value else frozenset()
        elif each.name in _NUMBERS:
            members[each.name] = int(value or 0)
        elif each.name == "actor":
            members[each.name] = value.removeprefix("uid:")
        else:
            members[each.name] = value
    return Filter(**members)


def reader_of(actor: Actor) -> Reader:
    """Return the actor as a reader of records."""
    return Reader(actor.role, actor.uid, actor.owner, actor.scope)


def _line_for(call: GateRequest, state: GateState) -> partial[bytes]:
    return partial(
        line_for, actor=call.actor, state=state, with_about=call.query.get("about") == "1"
    )


def line_for(found: QueryResult, *, actor: Actor, state: GateState, with_about: bool) -> bytes:
    """Return the line of a record for this caller; an operator gets the line of the segment."""
    reader = reader_of(actor)
    if actor.role is Role.OPERATOR:
        line = line_of(found.record)
    else:
        shown = redact_record(found.record, reader)
        result = shown.get("result")
        if actor.role in RESTRICTED and result and result.get("error"):
            said = str(shown.get("request", ""))
            result = {**result, "error": scrub_text(str(result["error"]), said, actor, state)}
            shown = {**shown, "result": result}
        line = json.dumps(shown, ensure_ascii=False).encode()
    if with_about:
        about = json.dumps(
            subject_to_json(redact_subject(found, reader)), ensure_ascii=False
        ).encode()
        line = b'{"about":' + about + b',"record":' + line + b"}"
    return line + b"\n"


def metrics(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET metrics``. Asks neither the engine nor the disk.

    Raises:
        Denied: ``viewer.metrics``: the viewer doesn't read about all owners, whom figures count.
    """
    yield from ()
    if call.actor.role is Role.VIEWER and call.actor.scope.owners is not None:
        raise Denied(
            "viewer.metrics",
            "metrics count the objects of all owners, and this viewer reads about some",
            "write `owners: all` for the viewer in the policy",
        )
    health = state.health
    used = quota_use(all_counted(state.inventory, state.reservations.objects), state.policy)
    facts = BrokerFacts(
        last_seq=state.inventory.seq,
        signed=health.journal.signed,
        indexed=health.indexed,
        is_writable=not health.journal_error,
        free_bytes=health.journal.free_bytes,
        is_reserved=health.journal.reserved,
        is_clock_doubted=health.journal.clock_doubted,
        unrecorded_refusals=health.unrecorded_refusals,
        open_intents=len(state.inventory.open),
        unknown_containers=len(state.split_brain.unknown),
        fullest_quota_percent=max((use.percent for use in used), default=0),
        waiting_clients=len(client_shares.waiting(state)),
        is_engine_identified=bool(state.engine.engine_id),
        longest_stall_s=health.longest_stall_s(),
        connections=health.connections(),
        refused_connections=health.refused_connections,
        reload_failed={
            "policy": bool(health.policy_error),
            "settings": bool(health.settings_error),
            "registryAuth": bool(health.access_error),
        },
    )
    cpu_s, memory_bytes = health.process_use()
    process = ProcessFacts(__version__, cpu_s, memory_bytes, began=state.start_wall)
    text = text_of(MetricsOwner.BROKER, broker_values(facts, health.counted), process)
    return Reply(200, text.encode(errors="replace"), (("content-type", CONTENT_TYPE),))


_Read = Callable[[GateRequest, GateState], Flow[Reply]]
#: The parts of one look: the broker holds a few replies at a time, and each whole.
OBSERVATION_BYTES_MAX = 4 * 1024 * 1024


def observe(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET observe``: the reads of one pass in one reply, each as by the route of the object.

    The inventory names the containers, networks and volumes to read. The engine has no others of
    this instance. Networks are read after containers: an endpoint that a container has, and the
    network lacks, is then stale.

    The parameter *have* names parts that the caller has: members of the inventory by tag, and images
    by id. The engine removes no image of a running container, even by force, and an image with the
    same id is the same image. So the reply leaves out an image in *have* that a running container of
    the service uses.
    """
    yield from recovery.survey_in_doubt(state)
    namespace, service = call.query.get("namespace", ""), call.query.get("service", "")
    parts = _Parts(call, state)
    ids = sorted(each.id for each in state.inventory.items.of_service(namespace, service))
    # Reading a container records the end of a job's run, which the inventory then knows.
    containers = yield from parts.read_each(
        parts.container, "container", ids, lookup.container_path
    )
    job = names.job_key(namespace, service)
    yield from job_runs.look_for_lost(state, job, ids)
    known, have = state.inventory, frozenset[str](json.loads(call.query.get("have", "[]")))
    networks = [each for each in known.networks.values() if each.namespace == namespace]
    networks.sort(key=lambda each: (each.name, each.id))
    items = {
        "instance": state.instance,
        "containers": [ITEM.to_json(known.containers[i]) for i in ids if i in known.containers],
        "networks": [asdict(each) for each in networks],
        "volumes": [asdict(each) for each in known.volumes.values()],
        "addresses": addresses_to_json(known, f"{namespace}/{service}"),
        **shared_items(state, known, have),
        "jobs": mapping_to_json(
            "jobs", {key: each for key, each in known.jobs.items() if key == job}
        ),
    }
    asked: list[str] = json.loads(call.query.get("images", "[]"))
    asked = [each for each in asked if each not in have & parts.images]
    found = [each.id for each in networks]
    joined = yield from parts.read_each(
        networks_volumes.network_inspect, "network", found, lookup.network_path
    )
    volumes = (yield from parts.read(networks_volumes.volume_list)) if known.volumes else None
    images = yield from parts.read_each(image.image_inspect, "image", asked)
    shown = {
        "inventory": wire.encode_reply(items),
        "containers": wire.list_of(containers),
        "networks": wire.list_of(joined),
        "volumes": wire.encode_reply(json.loads(volumes or b"{}").get("Volumes") or []),
        "images": wire.object_of(dict(zip(asked, images, strict=True))),
    }
    return Reply(200, wire.object_of(shown), wire.JSON_TYPE)


@dataclass(slots=True)
class _Parts:
    """Reads the parts of a look by the handlers of their own routes, up to ``OBSERVATION_BYTES_MAX``.

    A part stays in JSON: each container was parsed and written by its own handler.
    """

    call: GateRequest
    state: GateState
    size_bytes: int = 0
    #: The ids of the images that the running containers use.
    images: set[str] = field(default_factory=set)

    def read_each(
        self,
        handler: _Read,
        placeholder: str,
        subjects: list[str],
        path_of: Callable[[str], str] | None = None,
    ) -> Flow[list[bytes | None]]:
        """Return the JSON of each subject, the value of a placeholder in the route's path.

        *path_of* returns the path at which the handler reads a subject: the subjects are then read
        at the same time.
        """
        found = []
        paths = () if path_of is None else tuple(map(path_of, subjects))
        for number, subject in enumerate(subjects, start=1):
            reading = self.read(handler, {placeholder: subject})
            found.append((yield from announcing(reading, paths[number:])))
        return found

    def read(
        self, handler: _Read, named: Mapping[str, str] = MappingProxyType({})
    ) -> Flow[bytes | None]:
        """Return the JSON of another route's reply, None for a missing object.

        Raises:
            Answered, Denied: as that route, or ``observe.too-large``.
        """
        call = replace(self.call, query={}, names=named)
        try:
            reply = yield from handler(call, self.state)
        except Answered as answered:
            if answered.reply.status == 404:
                return None
            raise
        self.size_bytes += len(reply.body)
        if self.size_bytes > OBSERVATION_BYTES_MAX:
            reason = f"the objects of the service pass {OBSERVATION_BYTES_MAX} bytes"
            raise Answered(refusal(413, "observe.too-large", reason, remedy="read them one by one"))
        return reply.body

    def container(self, call: GateRequest, state: GateState) -> Flow[Reply]:
        """Handle ``GET /containers/{container}/json``, and note the image of a running container."""
        inspect = yield from container_read.visible_inspect(call, state)
        if (inspect.get("State") or {}).get("Running"):
            self.images.add(str(inspect.get("Image")))
        return json_reply(200, inspect)
