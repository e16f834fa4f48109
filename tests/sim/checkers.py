"""The invariants of a converging host, each as a check of what happens in a world.

Checkers look at the wire, the journal and the engine, never at what the product thinks of itself,
except to know which files it has read. Each finding names its invariant.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl

from controller.broker.gate import routes
from controller.broker.gate.commands import Forward, Lost
from controller.core.records.parts import RequestPart, ServicePart
from controller.model import names
from controller.model.mutations import (
    CONTAINER_GONE,
    JOB_ENDED,
    SERVICE_MOVED,
    VOLUME_END,
    Mutation,
)
from controller.model.names import Key, service_key, workload_key
from controller.model.quantities import parse_duration_ms
from controller.model.records import Record, Reply, Request, Role
from tests.sim.broker import FILES
from tests.sim.clock import VirtualClock
from tests.sim.engine import SimEngine
from tests.sim.files import Doc, Truth
from tests.sim.objects import Endpoint, SimContainer, SimNetwork
from tests.sim.orders import Orders
from tests.sim.people import MARKER, Marks
from tests.sim.places import Place, run_of, slot_of
from tests.sim.places import label as _label
from tests.sim.probes import is_troubled
from tests.sim.required import Required
from tests.sim.runs import Runs
from tests.sim.violation import Violation

WINDOW_S = 600.0
FREE = 3
PERCENT = 30
#: Invariant 13: what people hold by hand is left so.
HELD = 13
#: Invariant 17: the address of a slot.
ADDRESSES = 17
#: The longest time from a pass's look to its next mutation.
PASS_S = 0.5


#: What may leave a service without a running slot.
_TAKING = frozenset(
    {
        Mutation.CONTAINER_STOP,
        Mutation.CONTAINER_KILL,
        Mutation.CONTAINER_PAUSE,
        Mutation.CONTAINER_REMOVE,
        Mutation.CONTAINER_RESTART,
    }
)


#: The changes that the engine gets as other ones.
_FORWARDED_AS: dict[str, str] = {Mutation.CONTAINER_RELEASE: Mutation.CONTAINER_UPDATE}
#: The parts of a create that differ between the containers of one revision.
_OF_A_CONTAINER = frozenset({"HostConfig", "Labels", "NetworkingConfig"})
_LIMITS = frozenset({"Memory", "MemorySwap", "NanoCpus", "PidsLimit", "RestartPolicy"})


@dataclass(slots=True)
class Intent:
    """An intent in the journal, and the outcome of it."""

    record: Record
    forwarded: bool = False
    answer: Reply | Lost | None = None
    closed: bool = False
    settled: str = ""  # recovery's word

    @property
    def route(self) -> str:
        return str(self.record.entry.request.get("route"))

    @property
    def subject(self) -> str:
        return str(self.record.entry.request.get("object"))


@dataclass(frozen=True, slots=True)
class Mutated:
    """A mutation on the wire: its route, what it acts on, and its body."""

    route: str
    subject: str
    query: Mapping[str, str]
    body: Any
    network: str = ""


def read(command: Forward) -> Mutated:
    """Return what a forwarded request does."""
    path, _, raw = command.path.partition("?")
    query = dict(parse_qsl(raw, keep_blank_values=True))
    match = routes.find_route(command.method, path, versioned=False)
    body = json.loads(command.body) if command.body else {}
    route, named = match.route.name, match.names
    network = named.get("network", "")
    if route == Mutation.CONTAINER_CREATE:
        subject = query.get("name", "")
    elif route in {Mutation.NETWORK_CREATE, Mutation.VOLUME_CREATE}:
        subject = body["Name"]
    elif route in {Mutation.NETWORK_CONNECT, Mutation.NETWORK_DISCONNECT}:
        subject = body["Container"]
    elif route == Mutation.IMAGE_PULL:
        subject = ""
    else:
        subject = next(iter(named.values()))
    return Mutated(route, subject, query, body, network)


@dataclass(slots=True)
class Scene:
    """What the checkers see of the world."""

    clock: VirtualClock
    engine: SimEngine
    marks: Marks
    secret: str
    journal_full: Callable[[], bool]
    stale: Callable[[], bool]  # whether the controller is shown an old snapshot
    role: Callable[[], Role | None]  # who asked for what is being done
    keep_s: float  # how long what was pruned is kept


class Known(Protocol):
    """What the controller has read of the files."""

    def truth_seen(self) -> Truth | None:
        """Return what was true when the controller's view was read."""
        ...

    def wanted(self, key: Key) -> tuple[Doc, str] | None:
        """Return a service's document and revision of that reading."""
        ...


class Held(Protocol):
    """What people hold by hand, as they were told."""

    suspended: set[Key]

    def pin_of(self, key: Key) -> str:
        """Return the revision that alone may be made of a service now, '' if any may."""
        ...


class Checkers:
    """All of them, with what they remember."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._known: Known | None = None
        self._held: Held | None = None
        self.intents: dict[str, Intent] = {}
        self.forwards = 0
        self._gone: deque[tuple[float, Key]] = deque()
        self._stopped: dict[str, float] = {}  # containers that the controller stopped
        self._taken: dict[Key, float] = {}  # services that the controller left without a slot
        self._created: dict[tuple[str, str, str], deque[float]] = {}
        self._revisions: dict[str, str] = {}  # by what makes a container, but for its limits
        self._networks_before: set[str] = set()
        self._dumped: set[str] = set()  # volumes
        #: The volumes of services that moved to another namespace.
        #: The owner of each content of a Config, by namespace, name and content.
        self._delivered: dict[tuple[str, str, str], str] = {}
        self._approved = False
        #: Services, by namespace and name, that are replaced after a dependency.
        self._followers: set[tuple[str, str]] = set()
        self.breaching = False  # whether containers are to reach more than they were admitted with
        self.creates_a_minute = 20  # of one slot, at most
        #: Services whose image declares a VOLUME that slots keep: two containers can't share it.
        self.stopped_first: frozenset[Key] = frozenset()
        self._orders = Orders(scene)
        self._required = Required(scene)
        self._runs = Runs()
        #: The slot of each address, and the address of each slot, by the id of the network.
        self._slot_at: dict[tuple[str, str], Place] = {}
        self._address_of: dict[tuple[str, Place], str] = {}
        self.healthy = Truth()  # the last one in which everything could be read

    def watch(self, known: Known, held: Held) -> None:
        """Begin to ask what the controller has read, and what people hold."""
        self._known, self._held = known, held

    # Before and after each mutation on the wire

    def request_begins(self, request: Request | None = None) -> None:
        """A request enters the gate: what is foreign from here on may come too late for it.

        *request* is one of the controller's.
        """
        self._required.begins(request)
        self._networks_before = set(self._scene.engine.networks)

    def forwarding(self, command: Forward) -> Intent:
        """Check a mutation right before it reaches the engine; return its intent."""
        self.forwards += 1
        if self._scene.journal_full():
            raise Violation(2, f"{command.method} {command.path} with a journal that is full")
        mutated = read(command)
        if mutated.route == Mutation.EXEC_START:  # recorded as a change of the container
            container_id = self._scene.engine.execs[mutated.subject]["ContainerID"]
            mutated = replace(mutated, subject=container_id)
        intent = self._intent_of(mutated, command)
        intent.forwarded = True
        self._check_body(command, mutated)
        self._check_foreign(mutated)
        self._check_files(mutated)
        self._check_volumes(mutated, intent)
        self._check_renamed(mutated)
        self._required.forwarding(mutated)
        self._check_revision(mutated)
        container = self._scene.engine.find(mutated.subject)
        self._runs.forwarding(mutated, container)
        if mutated.route == Mutation.CONTAINER_START and container is not None:
            self._check_rollout(container)
        if self._scene.role() is Role.CONTROLLER:
            self._check_held(mutated, container)
            if self._known is not None:
                held = set() if self._held is None else self._held.suspended
                self._orders.forwarding(mutated, container, self._known, held)
        if container is not None and self._scene.role() is Role.CONTROLLER:
            self._check_prune(mutated, container)
            self._check_serving(mutated, container)
        self._check_pace(mutated)
        if container is not None:
            self._note_taken(mutated, container, intent)
        return intent

    def _intent_of(self, mutated: Mutated, command: Forward) -> Intent:
        fitting = [
            intent
            for intent in self.intents.values()
            if mutated.route in (intent.route, _FORWARDED_AS.get(intent.route))
            and (mutated.route == Mutation.IMAGE_PULL or intent.subject == mutated.subject)
        ]
        for intent in reversed(fitting):
            if not intent.forwarded and not intent.closed:
                return intent
        if fitting:
            raise Violation(1, f"its intent is forwarded or closed already: {command.path}")
        raise Violation(1, f"no durable intent: {command.method} {command.path}")

    def answered(self, intent: Intent, answer: Reply | Lost) -> None:
        """Note what the engine said, and look at what is there now."""
        intent.answer = answer
        if intent.route == Mutation.CONTAINER_STOP and self._scene.role() is Role.CONTROLLER:
            self._stopped[intent.subject] = self._scene.clock.monotonic()
        self.look()

    def look(self) -> None:
        """Check what is on the engine."""
        self._check_replicas()
        self._check_radius()
        self._check_addresses()

    # The journal

    def written(self, record: Record, line: bytes) -> None:
        """Check a durable record."""
        if self._scene.secret.encode() in line:
            raise Violation(12, f"the journal holds a secret: record {record.seq}")
        entry = record.entry
        if entry.request.get("route") == VOLUME_END and "succeeded" in str(entry.request):
            self._dumped.add(str(entry.request["object"]))
        if entry.stage == "intent":
            if entry.verdict.get("decision") not in {"allow", "mutate"}:
                raise Violation(1, f"an intent that wasn't allowed: {entry.verdict}")
            self.intents[entry.id] = Intent(record)
            self._note_delivery(record)
        elif entry.stage == "violation" and not self.breaching:
            # Nobody lets a container reach more than it was admitted with.
            raise Violation(7, f"what runs as admitted is ended: {entry.result}")
        elif entry.stage in {"outcome", "recovered"}:
            self._closing(record)
        elif entry.request.get("route") == SERVICE_MOVED:
            self._moved(record)
        elif entry.request.get("route") in {JOB_ENDED, CONTAINER_GONE}:
            run = str(entry.request.get("object"))
            self._runs.ended(run, self._scene.engine.find(run))

    def _check_rollout(self, container: SimContainer) -> None:
        """Check that the jobs before a rollout come before its containers."""
        key = service_key(_label(container, names.NAMESPACE), _label(container, names.SERVICE))
        wanted = None if self._known is None else self._known.wanted(key)
        if wanted is None or container.started_at is not None or run_of(container):
            return
        doc, revision = wanted
        if revision == _label(container, names.REVISION):
            self._runs.starting(container, doc.spec.get("rollout", {}).get("before", ()))

    def _moved(self, record: Record) -> None:
        """Check a move, and know the containers by the new name from now on."""
        summary = RequestPart.read(record.entry.request).summary.part(ServicePart)
        source, target = (
            Key.parse(summary.moved_from),
            Key.parse(str(record.entry.request["object"])),
        )
        there = {_key(container) for container in self._mine()}
        if target in there:
            raise Violation(4, f"{source} is moved to {target}, which is taken")
        if source.namespace != target.namespace:
            raise Violation(4, f"{source} is moved to {target}, another namespace")
        for container in self._mine():
            if _key(container) == source:
                if _label(container, names.OWNER) != summary.label(names.OWNER):
                    raise Violation(
                        4, f"a move of {source} takes {container.name} of another owner"
                    )
                container.moved_to = target.namespace, target.name
        for at, place in self._slot_at.items():
            if service_key(*place[:2]) == source:
                self._slot_at[at] = (target.namespace, target.name, place[2])
        self._address_of = {(at[0], place): at[1] for at, place in self._slot_at.items()}

    def forget(self) -> None:
        """The journal is lost: what was open in it is closed by nobody."""
        self.intents = {}
        self._slot_at, self._address_of = {}, {}
        self._runs = Runs()  # nobody remembers the runs of jobs

    def _closing(self, record: Record) -> None:
        entry = record.entry
        intent = self.intents.get(entry.id)
        if intent is None:
            raise Violation(1, f"{entry.stage} without an intent: record {record.seq}")
        if intent.closed:
            raise Violation(1, f"closed twice: record {record.seq}")
        intent.closed = True
        what = f"{intent.route} {intent.subject}"
        status = entry.result.get("status")
        answer = intent.answer
        if entry.stage == "recovered":
            intent.settled = settled = str(entry.result.get("settled"))
            if intent.route == Mutation.CONTAINER_CREATE and settled == "not-applied":
                self._check_absent(entry.id)
            return
        if not isinstance(status, int):
            raise Violation(1, f"an outcome without a status: {what}")
        if isinstance(answer, Lost) and answer.sent:
            raise Violation(1, f"an outcome of {what}, whose answer was lost")
        good = isinstance(answer, Reply) and answer.status < 400
        if status < 400 and not good:
            raise Violation(1, f"an outcome says {status}, and {what} failed")
        if good and status >= 400 and intent.route != Mutation.IMAGE_PULL:
            raise Violation(1, f"an outcome says {status}, and {what} was done")

    def _check_absent(self, identifier: str) -> None:
        for container in self._mine():
            if container.config["Labels"].get(names.INTENT) == identifier:
                raise Violation(1, f"recovery says not applied, and {container.name} is there")

    # Bodies

    def _check_body(self, command: Forward, mutated: Mutated) -> None:
        if MARKER.encode() in command.body or MARKER in command.path:
            raise Violation(3, f"a client's bytes are forwarded: {command.path}")
        if command.body and json.loads(command.body) != mutated.body:
            raise Violation(3, f"two readers read {command.path} differently")
        if b"\n" in command.body:
            raise Violation(3, f"a client's very bytes are forwarded: {command.path}")
        if mutated.route != Mutation.CONTAINER_CREATE:
            return
        host = mutated.body.get("HostConfig") or {}
        hardened = (
            not host.get("Privileged")
            and host.get("CapDrop") == ["ALL"]
            and set(host.get("CapAdd") or ()) <= {"CHOWN", "SETUID", "SETGID"}
            and any(o.startswith("no-new-privileges") for o in host.get("SecurityOpt") or ())
            and host.get("Memory", 0) > 0
            and host.get("PidsLimit", 0) > 0
            and host.get("NetworkMode") not in {"host", "", None}
            and not host.get("PidMode")
            and not any(m["Source"] == "/etc" for m in host.get("Mounts") or () if "Source" in m)
        )
        if not hardened:
            raise Violation(3, f"a create that isn't hardened: {host}")
        labels = mutated.body.get("Labels") or {}
        if not all(label in labels for label in names.BROKER_LABELS):
            raise Violation(3, f"a create without the broker's labels: {sorted(labels)}")

    def _check_revision(self, mutated: Mutated) -> None:
        """Containers that differ by their limits alone are of one revision: none replaces another."""
        labels = mutated.body.get("Labels") or {} if mutated.body else {}
        if mutated.route != Mutation.CONTAINER_CREATE or names.REVISION not in labels:
            return
        host = mutated.body.get("HostConfig") or {}
        own = {names.SLOT, names.REVISION, names.INTENT}
        slot = {
            **{name: part for name, part in mutated.body.items() if name not in _OF_A_CONTAINER},
            "HostConfig": {name: part for name, part in host.items() if name not in _LIMITS},
            "Labels": {name: text for name, text in labels.items() if name not in own},
        }
        revision = labels[names.REVISION]
        known = self._revisions.setdefault(json.dumps(slot, sort_keys=True), revision)
        if known != revision:
            raise Violation(7, f"other limits are another revision: {mutated.subject}")

    # Files of Configs

    def storing(self, files: str) -> None:
        """Check a content right before the broker stores it: it has an open intent."""
        fitting = [
            intent
            for intent in self.intents.values()
            if intent.route == Mutation.FILES_DELIVER and intent.subject == files
        ]
        if not fitting or fitting[-1].closed:
            raise Violation(1, f"no durable intent: {files} is stored")
        fitting[-1].forwarded, fitting[-1].answer = True, Reply(201)

    def _note_delivery(self, record: Record) -> None:
        """Note whose a content is, from the intent on."""
        request = record.entry.request
        if request.get("route") == Mutation.FILES_DELIVER:
            told = cast("dict[str, str]", request["summary"])
            place = (told["namespace"], told["name"], told["content"].rpartition(":")[2])
            self._delivered[place] = told["owner"]

    def _check_files(self, mutated: Mutated) -> None:
        """Containers get files of their own namespace and owner alone."""
        if mutated.route != Mutation.CONTAINER_CREATE:
            return
        labels = mutated.body.get("Labels") or {}
        own = (labels.get(names.NAMESPACE), labels.get(names.OWNER))
        for mount in (mutated.body.get("HostConfig") or {}).get("Mounts") or ():
            if not str(mount.get("Source", "")).startswith(f"{FILES}/"):
                continue
            namespace, name, content, *_ = mount["Source"].removeprefix(f"{FILES}/").split("/")
            owner = self._delivered.get((namespace, name, content))
            if not content.startswith("current-") and (namespace, owner) != own:
                raise Violation(4, f"{own} gets the files of {namespace} and {owner}: {mount}")
            if not mount.get("ReadOnly"):
                raise Violation(3, f"delivered files are writable: {mount}")

    # Foreign objects

    def _check_foreign(self, mutated: Mutated) -> None:
        engine, foreign = self._scene.engine, self._scene.marks.foreign
        container = engine.find(mutated.subject)
        creates = mutated.route == Mutation.CONTAINER_CREATE
        if container is not None and container.id in foreign and not creates:
            raise Violation(4, f"{mutated.route} of the foreign {container.name}")
        # To leave a network does nothing to it, whoever's it is.
        leaves = mutated.route == Mutation.NETWORK_DISCONNECT
        if mutated.route == Mutation.NETWORK_REMOVE or (mutated.network and not leaves):
            reference = mutated.network or mutated.subject
            network = next(
                (n for n in engine.networks.values() if reference in {n.id, n.name}), None
            )
            if network is not None and network.id in foreign:
                raise Violation(4, f"{mutated.route} of the foreign network {network.name}")
        if creates:
            self._check_networks(mutated.body)

    def _check_networks(self, body: Any) -> None:
        engine, foreign = self._scene.engine, self._scene.marks.foreign
        wanted = {str((body.get("HostConfig") or {}).get("NetworkMode"))}
        wanted |= set((body.get("NetworkingConfig") or {}).get("EndpointsConfig") or ())
        for network in engine.networks.values():
            known = network.id in self._networks_before
            if network.name in wanted and network.id in foreign and known:
                raise Violation(4, f"a container of ours joins the foreign {network.name}")

    def inventory_is(
        self, containers: Mapping[str, object], networks: Mapping[str, object]
    ) -> None:
        """Check what the broker takes for ours."""
        foreign = self._scene.marks.foreign & (containers.keys() | networks.keys())
        if foreign:
            raise Violation(4, f"the inventory holds what is foreign: {sorted(foreign)}")

    # Removals

    def _check_volumes(self, mutated: Mutated, intent: Intent) -> None:
        if mutated.route == Mutation.VOLUME_REMOVE:
            rules = intent.record.entry.verdict.get("rules")
            approved = isinstance(rules, list) and any(
                str(r).startswith("approval:") for r in rules
            )
            if not approved or mutated.subject not in self._dumped:
                raise Violation(5, f"the volume {mutated.subject} is removed")
        if mutated.route == Mutation.CONTAINER_REMOVE and mutated.query.get("v", "0") != "0":
            raise Violation(5, "a removal that takes anonymous volumes along")

    def _check_renamed(self, mutated: Mutated) -> None:
        """The containers of a renamed service go on: only an operator stops them before the move."""
        truth = None if self._known is None else self._known.truth_seen()
        container = self._scene.engine.find(mutated.subject)
        key = None if container is None else _key(container)
        stops = mutated.route in {Mutation.CONTAINER_REMOVE, Mutation.CONTAINER_STOP}
        if truth is None or key is None or key in truth.declared or not stops:
            return
        if self._scene.role() is Role.OPERATOR:
            return
        if container is not None and container.started_at is None:
            return  # recovery removes a container that was never started
        if any(doc.earlier == key for doc in truth.declared.values()):
            raise Violation(7, f"{mutated.route} of {mutated.subject}, which is only renamed")

    def _check_prune(self, mutated: Mutated, container: SimContainer) -> None:
        """A service that nothing declares goes only when that is known."""
        if mutated.route not in {Mutation.CONTAINER_REMOVE, Mutation.CONTAINER_STOP}:
            return
        key = _key(container)
        truth = None if self._known is None else self._known.truth_seen()
        if key is None or truth is None or key in truth.declared:
            return
        what = f"{mutated.route} of {container.name}, which nothing declares,"
        if not truth.present:
            raise Violation(5, f"{what} while the directory is gone")
        if truth.unreadable:
            raise Violation(5, f"{what} while a file can't be read")
        if truth.hides(key):
            raise Violation(5, f"{what} while a bad document may declare it")
        if not truth.documents and key in self.healthy.declared and not self._approved:
            # What was gone from a directory that could be read goes on going.
            raise Violation(5, f"{what} while the directory is empty")
        if mutated.route == Mutation.CONTAINER_REMOVE:
            down_s = self._scene.clock.monotonic() - self._stopped.get(container.id, -1e9)
            if down_s < self._scene.keep_s:
                raise Violation(5, f"{what} {down_s:.1f} s after its stop")
        if container.alive or not run_of(container):
            self._check_share(key, truth, what)  # nothing goes with a run that ended

    def _check_share(self, key: Key, truth: Truth, what: str) -> None:
        if self._approved:
            return
        now = self._scene.clock.monotonic()
        while self._gone and self._gone[0][0] < now - WINDOW_S:
            self._gone.popleft()
        if key not in {each for _, each in self._gone}:
            self._gone.append((now, key))
        gone = {each for _, each in self._gone}
        everything = (
            gone | {k for k in truth.declared if k.kind in names.WORKLOADS} | set(self._services())
        )
        if len(gone) > max(FREE, len(everything) * PERCENT // 100):
            raise Violation(5, f"{what} the {len(gone)}th of {len(everything)} in 10 minutes")

    def _note_taken(self, mutated: Mutated, container: SimContainer, intent: Intent) -> None:
        """Note what is about to leave a service without a running slot, unapproved."""
        key = _key(container)
        entry = intent.record.entry
        rules = entry.verdict.get("rules")
        assert isinstance(rules, list), "a verdict has rules"
        approved = any(str(rule).startswith("approval:") for rule in rules)
        mine = entry.actor.get("role") == Role.CONTROLLER.value and not approved
        if key is None or not mine or mutated.route not in _TAKING:
            return
        running = [c for c in self._mine() if _key(c) == key and c.status == "running"]
        if running == [container]:
            self._taken[key] = self._scene.clock.monotonic()

    def _check_radius(self) -> None:
        """Of what runs the controller leaves no more than its share without a running slot."""
        running = {
            key
            for container in self._mine()
            if container.status == "running" and (key := _key(container)) is not None
        }
        # A moment less than the gate's, which counts from the intent on.
        since = self._scene.clock.monotonic() - WINDOW_S + 1.0
        self._taken = {k: at for k, at in self._taken.items() if at > since and k not in running}
        total = len(running | self._taken.keys())
        if len(self._taken) > max(FREE, total * PERCENT // 100):
            down = ", ".join(sorted(map(str, self._taken)))
            raise Violation(5, f"the controller left {down} of {total} without a running slot")

    def approved(self) -> None:
        """An operator let go what was held back: how much goes counts no more."""
        self._approved = True

    def _services(self) -> set[Key]:
        return {key for container in self._mine() if (key := _key(container)) is not None}

    # What people hold

    def _check_held(self, mutated: Mutated, container: SimContainer | None) -> None:
        """A suspended service is left alone; of a pinned one nothing else is made."""
        assert self._held is not None, "there are people in every world"
        creates = mutated.route == Mutation.CONTAINER_CREATE
        labels = (mutated.body.get("Labels") or {}) if creates else {}
        key = _key(container) if container is not None and not creates else None
        if creates and labels.get(names.ORIGIN) == "controller":
            key = service_key(labels[names.NAMESPACE], labels[names.SERVICE])
        if key is None:
            return
        if key in self._held.suspended:
            raise Violation(HELD, f"{mutated.route} of {key}, which is suspended")
        pin = self._held.pin_of(key)
        if creates and pin and labels.get(names.REVISION) != pin:
            raise Violation(HELD, f"{mutated.subject} is made of {key}, which is pinned to {pin}")

    # Replicas

    def _mine(self) -> list[SimContainer]:
        return [
            container
            for container in self._scene.engine.containers.values()
            if names.INSTANCE in container.config["Labels"]
            and container.id not in self._scene.marks.foreign
        ]

    def _follows(self, slot: tuple[str, str, str]) -> bool:
        """Whether a service asks to be replaced after a dependency, by containers of one revision."""
        wanted = None if self._known is None else self._known.wanted(service_key(*slot[:2]))
        if wanted is not None:  # a controller that has just begun has read nothing yet
            spec = wanted[0].spec
            restarts = any(each.get("restart") for each in spec.get("dependsOn", ()))
            follows = restarts or "shares" in spec
            (self._followers.add if follows else self._followers.discard)(slot[:2])
        return slot[:2] in self._followers

    def _check_replicas(self) -> None:
        """At most one container of a slot and revision, but for those that people touched."""
        filled: dict[tuple[str, str, str], list[SimContainer]] = {}
        for container in self._mine():
            slot = slot_of(container)
            # One that is unhealthy again and again is replaced by another of its revision.
            as_made = not is_troubled(self._scene.engine, container)
            untouched = container.id not in self._scene.marks.touched and as_made
            if slot is not None and untouched and container.status != "exited":
                filled.setdefault(slot, []).append(container)
        for slot, containers in filled.items():
            revisions = [_label(c, names.REVISION) for c in containers]
            running = [c for c in containers if c.status == "running"]
            # One that is ill is replaced by one of the same revision.
            ill = any(is_troubled(self._scene.engine, c) for c in containers)
            most = 2 if ill or self._follows(slot) else 1
            if len(running) > 2 or max(Counter(revisions).values()) > most:
                told = ", ".join(f"{c.name} ({c.status})" for c in containers)
                raise Violation(6, f"slot {'/'.join(slot)} is filled more than once: {told}")

    # Addresses

    def _ends(self) -> Iterator[tuple[SimContainer, Place, SimNetwork, Endpoint]]:
        """Yield the places of replicas in networks with addresses for slots."""
        for container in self._mine():
            place = slot_of(container)
            if place is None or run_of(container) or container.id in self._scene.marks.touched:
                continue
            for end in container.networks.values():
                network = self._scene.engine.networks.get(end.network)
                if network is not None and network.pool and end.address:
                    yield container, place, network, end

    def _check_addresses(self) -> None:
        """The address of a slot is never another slot's."""
        for container, place, network, end in self._ends():
            if not end.chosen:
                continue
            owner = self._slot_at.setdefault((network.id, end.address), place)
            own = self._address_of.setdefault((network.id, place), end.address)
            if owner != place:
                at = "/".join(owner)
                raise Violation(
                    ADDRESSES, f"{container.name} is at {end.address}, the address of {at}"
                )
            if own != end.address:
                raise Violation(
                    ADDRESSES, f"{container.name} is at {end.address}, and its slot at {own}"
                )

    def check_addresses_kept(self) -> None:
        """Check that whoever answers to a service's name does so at the address of its slot."""
        for container, _, network, end in self._ends():
            named = container.status == "running" and _name(container) in (end.aliases or ())
            if named and not end.chosen:
                what = f"{container.name} answers at {end.address} on {network.name}"
                raise Violation(ADDRESSES, f"{what}, which isn't the address of its slot")

    def _check_serving(self, mutated: Mutated, container: SimContainer) -> None:
        """What serves is only stopped for a successor that is there and, where both can run, serves."""
        stops = {Mutation.CONTAINER_STOP, Mutation.CONTAINER_KILL, Mutation.CONTAINER_PAUSE}
        # An engine refuses to remove what runs, unless it is forced.
        removes = mutated.route == Mutation.CONTAINER_REMOVE and "force" in mutated.query
        if self.breaching and mutated.route == Mutation.CONTAINER_KILL:
            return  # the broker ends what doesn't run as admitted
        if mutated.query.get("signal") == "SIGHUP":
            return  # after a changed content: programs read their files again
        if (mutated.route not in stops and not removes) or container.status != "running":
            return
        key, slot = _key(container), slot_of(container)
        known = self._known
        wanted = None if key is None or known is None else known.wanted(key)
        if wanted is None or slot is None:
            return
        doc, revision = wanted
        if int(slot[2]) > doc.spec.get("replicas", 1) or doc.spec.get("state") == "Stopped":
            return
        if is_troubled(self._scene.engine, container):
            return  # whether it serves is what its check says, now and then
        others = [c for c in self._mine() if slot_of(c) == slot and c is not container]
        successors = [c for c in others if _label(c, names.REVISION) == revision]
        if _starts_first(doc) and key not in self.stopped_first:
            # A successor that was overtaken goes while what it was to succeed is still there.
            successors = [
                other
                for other in others
                if self._serves(other, doc) or _stands_in(other, container)
            ]
        taken_s = self._scene.clock.monotonic() - self._scene.marks.touched_at.get(slot, -1e9)
        # A successor that somebody took away after the pass's look can't be missed by it.
        looked_s = float("inf") if self._scene.stale() else PASS_S
        if not successors and taken_s > looked_s:
            raise Violation(7, f"{container.name} serves and is stopped without a successor")

    def _serves(self, container: SimContainer, doc: Doc) -> bool:
        """Tell whether a container is up for long enough, and called by its service's name."""
        needed = parse_duration_ms(doc.spec.get("rollout", {}).get("minHealthy", "10s")) / 1000
        up_s = self._scene.clock.monotonic() - container.up_since
        return container.status == "running" and up_s >= needed and _is_named(container)

    # Bounds

    def _check_pace(self, mutated: Mutated) -> None:
        if mutated.route != Mutation.CONTAINER_CREATE:
            return
        labels = mutated.body.get("Labels") or {}
        place = tuple(labels.get(n, "") for n in (names.NAMESPACE, names.SERVICE, names.SLOT))
        if not place[2]:
            return
        now = self._scene.clock.monotonic()
        times = self._created.setdefault((place[0], place[1], place[2]), deque())
        times.append(now)
        while times and times[0] < now - 60:
            times.popleft()
        if len(times) > self.creates_a_minute:
            raise Violation(11, f"{len(times)} creates of one slot within a minute: {place}")

    def at_rest(self, *held: Collection[str]) -> None:
        """Check a broker without a request in progress: what requests hold is given back."""
        left = [claim for claims in held for claim in claims]
        if left:
            raise Violation(11, f"a request is over and still holds {left}")


def _key(container: SimContainer) -> Key | None:
    """The service of a container of the controller's."""
    if _label(container, names.ORIGIN) != "controller":
        return None
    place = [_label(container, name) for name in (names.NAMESPACE, names.SERVICE, names.SLOT)]
    return workload_key(*place)


def _name(container: SimContainer) -> str:
    return _label(container, names.SERVICE)


def _is_named(container: SimContainer) -> bool:
    """Tell whether a container answers to its service's name wherever it is."""
    # Nobody looks for a name in the network of a container without one.
    ends = (end for name, end in container.networks.items() if name != "none")
    return all(_name(container) in (end.aliases or ()) for end in ends)


def _stands_in(other: SimContainer, container: SimContainer) -> bool:
    """Tell whether a slot is served no worse by another than by a container: it is named and the
    container isn't, or both alike, and it is up for as long.
    """
    if other.status != "running" or not other.networks:
        return False
    if not container.networks:
        return True  # nobody can reach it
    if _is_named(other) == _is_named(container):
        return other.up_since <= container.up_since
    return _is_named(other)


def _starts_first(doc: Doc) -> bool:
    published = any("host" in port for port in doc.spec.get("ports", ()))
    exclusive = any(
        mount["type"] == "volume" and not mount.get("readOnly") and not mount.get("shared")
        for mount in doc.spec.get("mounts", ())
    )
    exclusive = exclusive or bool(doc.spec.get("shares", {}).get("network"))
    order = doc.spec.get("rollout", {}).get("order")
    return order == "StartFirst" or (order is None and not published and not exclusive)
