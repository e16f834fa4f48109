"""People and accidents around the product: they use the engine directly, or the broker as clients.

What they make on the engine is foreign; which containers of ours they touched is noted, since the
product must replace those. They never act on purpose against a checker.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from controller.core.enforcement.approvals import PlannedRemoval
from controller.engine.responses import encode_context
from controller.model import names
from controller.model.names import Key, service_key
from controller.model.records import Actor, Context, Reply, Request, Role
from tests.sim.controller import request_of
from tests.sim.engine import SimEngine
from tests.sim.faults import Action
from tests.sim.objects import SimContainer
from tests.sim.places import Place, slot_of

#: Stands in what clients send and nothing may forward.
MARKER = "ZzMarker"
CLIENT = Actor(uid=2000, gid=2000, pid=77, role=Role.CLIENT, owner="guest")
OPERATOR = Actor(uid=0, gid=0, pid=78, role=Role.OPERATOR)
USURPER = Actor(uid=990, gid=990, pid=79, role=Role.CONTROLLER)
CLAIM = encode_context(Context(cause="all of it"))
IMAGE = "trimtab.local/web:1"


@dataclass(slots=True)
class Marks:
    """What people did, for the checkers."""

    foreign: set[str] = field(default_factory=set)  # ids, and names of volumes
    touched: set[str] = field(default_factory=set)  # ids of containers of ours
    touched_at: dict[Place, float] = field(default_factory=dict)  # the last time, by slot

    def touch(self, container: SimContainer, now: float) -> None:
        self.touched.add(container.id)
        place = slot_of(container)
        if place is not None:
            self.touched_at[place] = now


class People:
    """Everybody who isn't us."""

    def __init__(
        self,
        seed: int,
        engine: SimEngine,
        marks: Marks,
        ask: Callable[[Request], Reply | None],
        known: Callable[[str], bool],
    ) -> None:
        self._random = random.Random(f"people {seed}")
        self._engine = engine
        self._marks = marks
        self._ask = ask
        self._known = known
        self._count = 0
        #: Services whose containers nobody removes: a service without a container has nothing to move.
        self.spared: frozenset[Key] = frozenset()

    # Directly on the engine

    def ours(self) -> list[SimContainer]:
        """The product's containers, as the labels say."""
        return [
            container
            for container in self._engine.containers.values()
            if names.INSTANCE in container.config["Labels"]
            and container.id not in self._marks.foreign
        ]

    def _touch(self, container: SimContainer) -> None:
        self._marks.touch(container, self._engine.clock.monotonic())

    def give_up(self, key: Key) -> None:
        """Note that people want other containers of a service than those that are there."""
        for container in self.ours():
            place = slot_of(container)
            if place is not None and place[:2] == (key.namespace, key.name):
                self._marks.touched.add(container.id)

    def _call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        return self._engine.call(method, path, None if body is None else json.dumps(body).encode())

    def meddle(self, doing: str = "") -> str:
        """Do one thing (any, unless it is told which) to a container of ours; return what."""
        mine = self.ours()
        if not mine:
            return "nothing"
        return self._meddle_with(self._random.choice(mine), doing or self._random.choice(DOINGS))

    def _meddle_with(self, container: SimContainer, doing: str) -> str:
        """Do one thing to a container; what ends by itself isn't touched by that."""
        path = f"/containers/{container.id}"
        if doing == "rm" and self._is_spared(container):
            return "nothing"
        if doing != "crash":
            self._touch(container)
        match doing:
            case "rm":
                self._call("DELETE", f"{path}?force=1")
            case "update" | "limits" | "policy":
                self._call("POST", f"{path}/update", _UPDATES[doing])
            case "rename":
                self._rename(container)
            case "disconnect":
                for name in list(container.networks):
                    self._call("POST", f"/networks/{name}/disconnect", {"Container": container.id})
            case "alias":
                self._borrow_name(container)
            case "crash":
                self._crash(container)
            case _:
                self._call("POST", f"{path}/{doing}")
        return f"{doing} {container.name}"

    def _is_spared(self, container: SimContainer) -> bool:
        return _service_of(container) in self.spared

    def _borrow_name(self, container: SimContainer) -> None:
        for name in list(container.networks):
            body: dict[str, Any] = {"Container": container.id}
            self._call("POST", f"/networks/{name}/disconnect", body)
            body["EndpointConfig"] = {"Aliases": ["registry"]}
            self._call("POST", f"/networks/{name}/connect", body)

    def _crash(self, container: SimContainer) -> None:
        if container.alive:
            self._engine.crash(container.id, 1)

    def crash(self, key: Key) -> str:
        """Have a service's containers end by themselves, if it has some."""
        for container in self.ours():
            place = slot_of(container)
            if place is not None and place[:2] == (key.namespace, key.name):
                self._crash(container)
        return f"crash {key}"

    def _rename(self, container: SimContainer) -> None:
        self._count += 1
        self._call("POST", f"/containers/{container.id}/rename?name=renamed-{self._count}")
        if not self._known(container.config["Labels"].get(names.INTENT, "")):
            # Neither its name nor the journal says that it is ours now.
            self._marks.foreign.add(container.id)

    def copy(self) -> str:
        """Make a container that has all the labels of one of ours."""
        mine = self.ours()
        if not mine:
            return "nothing"
        model = self._random.choice(mine)
        self._count += 1
        labels = dict(model.config["Labels"])
        self._foreign_container(f"copy-{self._count}", labels)
        return f"copy of {model.name}"

    def impersonate(self) -> str:
        """Copy the newest container of ours, labels and all, and remove it."""
        mine = sorted(self.ours(), key=lambda container: container.created)
        if not mine:
            return "nothing"
        model = mine[-1]
        self._count += 1
        self._foreign_container(f"copy-{self._count}", dict(model.config["Labels"]))
        return self._meddle_with(model, "rm")

    def squat(self, key: Key) -> str:
        """Stop a container of a service, and run one of their own at its address."""
        for container in self.ours():
            place = slot_of(container)
            if place is None or place[:2] != (key.namespace, key.name):
                continue
            for network, end in list(container.networks.items()):
                if end.chosen and end.address:
                    at = end.address
                    self._meddle_with(container, "stop")
                    self._count += 1
                    self._foreign_container(f"squatter-{self._count}", {}, network, at)
                    return f"squat at {at}, the address of {container.name}"
        return "nothing"

    def _foreign_container(
        self, name: str, labels: dict[str, str], network: str = "none", address: str = ""
    ) -> None:
        body: dict[str, Any] = {"Image": IMAGE, "Labels": labels}
        body["HostConfig"] = {"NetworkMode": network}
        if address:
            chosen = {"IPAMConfig": {"IPv4Address": address}}
            body["NetworkingConfig"] = {"EndpointsConfig": {network: chosen}}
        status, told = self._call("POST", f"/containers/create?name={name}", body)
        if status == 201:
            identifier = json.loads(told)["Id"]
            self._marks.foreign.add(identifier)
            self._call("POST", f"/containers/{identifier}/start")

    def foreign_network(self, name: str) -> None:
        status, told = self._call("POST", "/networks/create", {"Name": name})
        if status == 201:
            self._marks.foreign.add(json.loads(told)["Id"])

    def foreign_volume(self, name: str) -> None:
        if name not in self._engine.volumes:
            self._call("POST", "/volumes/create", {"Name": name})
            self._marks.foreign.add(name)

    def be_first(self, action: Action, request: Request) -> None:
        """Do what makes a request meet another world than the one that it was planned in."""
        path = request.path.removeprefix("/v1.45")
        body = json.loads(request.body) if request.body else {}
        query = dict(pair.split("=", 1) for pair in request.query.split("&") if "=" in pair)
        match action:
            case Action.PULL:
                tag = f"fromImage={query['fromImage']}&tag={query['tag']}"
                self._call("POST", f"/images/create?{tag}")
            case Action.CREATE_NETWORK:
                self.foreign_network(body["Name"])
            case Action.CREATE_VOLUME:
                self.foreign_volume(body["Name"])
            case Action.CREATE:
                self._foreign_container(query["name"], {})
            case Action.REMOVE_NETWORK:
                network = self._engine.networks.get(path.rpartition("/")[2])
                if network is not None:
                    self._count += 1
                    self._foreign_container(f"guest-{self._count}", {}, network.name)
            case _:
                container = self._engine.find(body.get("Container") or path.split("/")[2])
                if container is not None and container.id not in self._marks.foreign:
                    doings = ("rm", "start", "stop", "kill", "update")
                    self._meddle_with(container, self._random.choice(doings))

    def clear_names(self) -> None:
        """Take away what is foreign, where it may hold a name or a network of ours."""
        for identifier in sorted(self._marks.foreign):
            if identifier in self._engine.containers:
                self._call("DELETE", f"/containers/{identifier}?force=1")
        for network in list(self._engine.networks.values()):
            if network.id in self._marks.foreign:
                self._clear_network(network.id)
        for name in sorted(self._marks.foreign & self._engine.volumes.keys()):
            for container in list(self._engine.containers.values()):
                if any(mount.get("Name") == name for mount in container.mounts):
                    self._meddle_with(container, "rm")
            self._call("DELETE", f"/volumes/{quote(name, safe='')}")

    def _clear_network(self, identifier: str) -> None:
        for container in list(self._engine.containers.values()):
            if any(end.network == identifier for end in container.networks.values()):
                self._meddle_with(container, "rm")
        self._call("DELETE", f"/networks/{identifier}")

    # Through the broker

    def run_client(self) -> str:
        """A client's docker run, with fields that mean nothing, and some that it may not have."""
        self._count += 1
        name = f"guest{self._count}"
        body = self._guest_body()
        created = self._ask(
            request_of(CLIENT, "POST", "/containers/create", query={"name": name}, body=body)
        )
        if created is not None and created.status == 201:
            identifier = json.loads(created.body)["Id"]
            self._ask(request_of(CLIENT, "POST", f"/containers/{identifier}/start"))
            return f"client runs {name}"
        return f"client can't run {name}"

    def _guest_body(self) -> bytes:
        host: dict[str, Any] = {MARKER: None, "Privileged": False, f"Cpu{MARKER}": 0}
        forbidden = self._random.choice(_FORBIDDEN)
        body = {
            "Image": IMAGE,
            MARKER: [],
            "Labels": {"tier": "guest"},
            "HostConfig": {**host, **forbidden},
            "NetworkingConfig": {MARKER: {}},
        }
        # In an order and with spaces that no encoder of ours writes.
        return json.dumps(body, indent=3).encode()

    def operate(self) -> str:
        """An operator changes a container of the controller's through the broker."""
        mine = self.ours()
        if not mine:
            return "nothing"
        container = self._random.choice(mine)
        verb, body = self._random.choice(_OPERATIONS)
        if verb == "rm" and self._is_spared(container):
            return "nothing"
        self._touch(container)
        encoded = json.dumps(body).encode() if body else b""
        path = f"/containers/{container.id}"
        request = (
            request_of(OPERATOR, "DELETE", path, query={"force": "1"})
            if verb == "rm"
            else request_of(OPERATOR, "POST", f"{path}/{verb}", body=encoded)
        )
        self._ask(request)
        return f"operator: {verb} {container.name}"

    def approve(self, plan: str, objects: Iterable[PlannedRemoval]) -> None:
        """An operator approves what a plan holds back."""
        ids = [each.id for each in objects]
        looked = {"plan": plan, "objects": ids}
        view = self._post("approvals", looked) if ids else None
        if view is None or view.status != 200:
            return
        shown = json.loads(view.body)
        known = [each["id"] for each in shown["objects"]]
        told = {"act": "approve", "plan": plan, "objects": known, "note": "seen"}
        if known:
            self._post("records", {**told, "shown": shown["digest"]})

    def _post(self, route: str, body: object) -> Reply | None:
        """An operator asks the broker itself."""
        path = f"/trimtab/v1/{route}"
        return self._ask(request_of(OPERATOR, "POST", path, body=json.dumps(body).encode()))

    def _copies(self) -> list[str]:
        """Return the containers of others that carry labels of this instance."""
        there = self._engine.containers
        foreign = sorted(self._marks.foreign & there.keys())
        return [each for each in foreign if names.INSTANCE in there[each].config["Labels"]]

    def usurp(self) -> str:
        """Somebody has the controller's user, and asks for all of it to be taken down."""
        mine = self.ours()
        self._random.shuffle(mine)
        refused = 0
        for copied in self._copies():
            path = f"/containers/{copied}/stop"
            self._ask(request_of(USURPER, "POST", path, context=CLAIM))
        for container in mine:
            path = f"/containers/{container.id}"
            verb = self._random.choice(("stop", "kill", "pause", "rm"))
            request = (
                request_of(USURPER, "DELETE", path, query={"force": "1"}, context=CLAIM)
                if verb == "rm"
                else request_of(USURPER, "POST", f"{path}/{verb}", context=CLAIM)
            )
            reply = self._ask(request)
            if reply is not None and reply.status < 400:
                self._touch(container)
            refused += reply is not None and b"blast.radius" in reply.body
        return f"{refused} of {len(mine)} refused"

    def remove_guests(self) -> None:
        """Clients clean up after themselves."""
        for container in self.ours():
            if container.config["Labels"].get(names.ORIGIN) == "client":
                path = f"/containers/{container.id}"
                self._ask(request_of(CLIENT, "DELETE", path, query={"force": "1"}))


DOINGS = (
    "rm",
    "rm",
    "stop",
    "kill",
    "restart",
    "pause",
    "update",
    "limits",
    "policy",
    "rename",
    "disconnect",
    "alias",
    "crash",
    "crash",
)
_UPDATES: dict[str, dict[str, Any]] = {
    "update": {"CpuShares": 77},  # which no engine can take back
    "limits": {"Memory": 48 << 20, "MemorySwap": 48 << 20, "PidsLimit": 99},
    "policy": {"RestartPolicy": {"Name": "unless-stopped"}},
}
#: What clients ask for beside the ordinary; all but the first must be refused.
_FORBIDDEN: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"Privileged": True},
    {"CapAdd": ["SYS_ADMIN"]},
    {"NetworkMode": "host"},
    {"PidMode": "host"},
    {MARKER: 1},
    {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]},
    {"SecurityOpt": ["seccomp=unconfined"]},
)
_OPERATIONS: tuple[tuple[str, dict[str, Any] | None], ...] = (
    ("stop", None),
    ("restart", None),
    ("kill", None),
    ("pause", None),
    ("update", {"Memory": 64 << 20, "MemorySwap": 64 << 20}),
    ("rm", None),
)


def _service_of(container: SimContainer) -> Key:
    """Return the present service of a container of ours."""
    place = slot_of(container)
    return service_key(*place[:2]) if place is not None else service_key("", "")
