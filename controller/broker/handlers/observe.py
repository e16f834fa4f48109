"""The route ``GET /trimtab/v1/observe``: the reads of a pass of one service, in one reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

from controller.broker import wire
from controller.broker.gate.call import Flow, GateRequest, announcing
from controller.broker.gate.refusals import Answered
from controller.broker.gate.state import GateState
from controller.broker.guards import job_runs, lookup, recovery
from controller.broker.handlers import container_read, image, networks_volumes
from controller.broker.handlers.trimtab_api import shared_items
from controller.broker.wire import json_reply, refusal
from controller.core.records.inventory_json import ITEM, addresses_to_json, mapping_to_json
from controller.model import names
from controller.model.records import Reply

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
