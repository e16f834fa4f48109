"""A model of identity: owners make, remove and make anew objects of the same names.

A story is a number, from which its moves are drawn: of two clients, of the controller, and of whoever
uses the engine past the gate. Each request goes through the real gate to the simulated engine. Other
requests can come between the gate's last look and the change in the engine.

The invariant: nothing that runs is in a network of another owner, mounts a volume of another owner, or
answers to a name that another owner's container has on a network of both. It holds after each change
that the gate forwards. If objects changed after the gate's last look, or somebody started a container
past the gate, it holds once the broker has verified what runs.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controller.broker.gate.commands import Command, Forward, Lost, ReadProcess
from controller.broker.gate.request_target import build_path
from controller.core.records.record import GENESIS, prepare, timestamp
from controller.model import names
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.policy.document import Policy
from controller.model.records import Actor, Entry, Record, Reply, Role
from controller.ports import EngineFacts
from tests.sim import kernel
from tests.sim.broker import Places, SimBroker
from tests.sim.clock import VirtualClock
from tests.sim.controller import request_of
from tests.sim.engine import SimEngine
from tests.sim.journal import SimJournal
from tests.sim.objects import SimContainer, SimImage

IMAGE: Final = SimImage("trimtab.local/web:1", f"sha256:{'1' * 64}", exposed=("80/tcp",))
POLICY: Final = Policy.model_validate_json(
    """{"name": "several", "profile": "development",
        "images": {"allow": ["trimtab.local/"], "trustLocal": ["trimtab.local/"]},
        "networks": {"clientAliases": true, "serviceAliases": true, "granted": ["hall"]},
        "clients": [{"uid": 2001, "owner": "alice"}, {"uid": 2002, "owner": "bob"}]}"""
)
#: The namespace of the documents, and their owner.
SHOP: Final = "shop"
TEAM: Final = "team"
ACTORS: Final = {
    "alice": Actor(2001, 2001, 51, Role.CLIENT, owner="alice"),
    "bob": Actor(2002, 2002, 52, Role.CLIENT, owner="bob"),
    TEAM: Actor(990, 990, 53, Role.CONTROLLER),
}
#: The networks of clients and documents; SHARED is that of the clients' namespace.
SHARED: Final = POLICY.networks.isolated
OF_SHOP: Final = names.namespaced_network(SHARED, SHOP)
NETWORKS: Final = ("net", "shop.back", "hall", SHARED)
#: Names of networks that several want to have.
CONTESTED: Final = ("net", "shop.back")
CONTAINERS: Final = ("one", "two")
VOLUMES: Final = ("data", "")
ALIASES: Final = ("db", "db", "one", "")
REVISION: Final = f"v2:{'7e' * 32}"
#: base64url of {"cause":"story"}
CAUSE: Final = "eyJjYXVzZSI6InN0b3J5In0"

#: How often each move is drawn, and who makes it.
CLIENTS: Final = ("alice", "bob")
ALL: Final = (*CLIENTS, TEAM)
NOBODY: Final = ("",)
MOVES: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "network": (8, ALL),
    "remove network": (8, ALL),
    "volume": (2, ALL),
    "remove volume": (1, ALL),
    "create": (10, ALL),
    "start": (10, ALL),
    "restart": (2, ALL),
    "stop": (2, ALL),
    "remove": (3, ALL),
    "rename": (2, CLIENTS),
    "connect": (3, ALL),
    "disconnect": (2, ALL),
    "engine restarts": (2, NOBODY),
    "broker restarts": (1, NOBODY),
    "older records": (1, NOBODY),
    "start past the gate": (1, NOBODY),
    "rename past the gate": (7, NOBODY),
}
VERBS: Final = tuple(verb for verb, (often, _) in MOVES.items() for _ in range(often))
#: The moves about containers that are there.
OF_CONTAINERS: Final = frozenset(
    verb for verb in MOVES if verb not in {"network", "remove network", "volume", "create"}
)
#: The moves about containers that don't run, rather.
OF_STOPPED: Final = frozenset({"start", "start past the gate", "rename past the gate"})
#: The moves that others can come before.
SLOW: Final = frozenset({"start", "restart", "create", "connect"})
#: The share of moves about objects that are there.
LIKELY: Final = 0.9


class Reached(AssertionError):
    """A container reached another owner's object."""


def play(number: int) -> Counter[tuple[str, str]]:
    """Play a story; return the answers to its requests.

    Raises:
        Reached: the invariant doesn't hold.
    """
    world = World(number)
    try:
        world.play()
    except Reached as reached:
        told = "\n".join(map(str, world.moves))
        raise Reached(f"story {number}: {reached}\n{told}") from None
    return world.counts


@dataclass(frozen=True, slots=True)
class Move:
    """One move: who does what to which objects, by name."""

    who: str
    verb: str
    container: str
    network: str
    volume: str
    alias: str
    #: How many moves come before the engine carries this one out.
    inside: int = 0


class _Journal(SimJournal):
    """A journal whose lines nobody reads again."""

    def append(self, entry: Entry) -> Record:
        record, _ = prepare(entry).seal(
            seq=len(self._records) + 1,
            time=timestamp(self._clock.now()),
            prev=self._records[-1].hash if self._records else GENESIS,
        )
        self._records.append(record)
        return record


@dataclass(slots=True)
class World:
    """The engine, and the gate before it, in the story of a number."""

    number: int
    clock: VirtualClock = field(default_factory=VirtualClock)
    engine: SimEngine = field(init=False)
    broker: SimBroker = field(init=False)
    #: The statuses, or rules, of each verb's answers.
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: The moves so far.
    moves: list[Move] = field(default_factory=list)
    reachable: bool = True
    _draw: random.Random = field(init=False)
    #: How many moves come before the engine carries the present request out.
    _inside: int = 0
    #: What runs isn't what the gate has looked at, until verification has ended it.
    _is_surprised: bool = False

    def __post_init__(self) -> None:
        self._draw = random.Random(self.number)
        self.engine = SimEngine(self.clock, images=(IMAGE,))
        numbers = iter(range(1, 1_000_000))
        facts = EngineFacts(self.engine.engine_id, "26.1.5", "1.45", 4, 16 << 30)
        journal = _Journal(self.clock, lambda *_: None)
        new_id = lambda: f"00000000-0000-7000-8000-{next(numbers):012x}"  # noqa: E731
        self.broker = SimBroker(Places(self.clock, journal, POLICY, facts, new_id), self)
        self._mend()

    # Around the broker

    def look(self, path: str) -> Reply | Lost:
        return Reply(*self.engine.call("GET", path))

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable:
        return kernel.process(self.engine, command)

    def forward(self, command: Forward) -> Reply | Lost:
        answer = Reply(*self.engine.call(command.method, command.path, command.body or None))
        if not self._is_surprised:
            self.check()
        return answer

    def before(self, command: Command) -> None:
        if isinstance(command, Forward):
            inside, self._inside = self._inside, 0
            for _ in range(inside):
                self._make(self._drawn(of=ALL))
            self._is_surprised = self._is_surprised or inside > 0

    def after(self, command: Command) -> None:
        pass

    def broker_died(self) -> None:
        pass

    # Moves

    def play(self) -> None:
        """Make the moves of the story.

        Raises:
            Reached: the invariant doesn't hold.
        """
        for name in ("hall", OF_SHOP):
            self._ask(Move(TEAM, "network", "", name, "", ""))
        for _ in range(self._draw.randint(8, 24)):
            move = self._drawn()
            self._inside = move.inside
            self._make(move)
            self._inside, self._is_surprised = 0, True
            self.broker.check_containers()  # after the engine's events
            self._is_surprised = False
            self.check()

    def _drawn(self, of: tuple[str, ...] = (*ALL, *NOBODY)) -> Move:
        """Draw a move, of those that can have an effect more often than of others."""
        draw, made = self._draw, [*self.engine.containers.values()]
        networks = [n for n in self.engine.networks.values() if n.name in CONTESTED]
        hollow = {*(() if made else OF_CONTAINERS), *(() if networks else ("remove network",))}
        verbs = [v for v in VERBS if v not in hollow and set(of) & {*MOVES[v][1]}]
        verb = draw.choice(verbs)
        who = draw.choice(MOVES[verb][1])
        container, network = draw.choice(CONTAINERS), draw.choice(NETWORKS)
        if draw.random() < LIKELY:
            if verb in OF_CONTAINERS:
                still = [each for each in made if verb in OF_STOPPED and not each.alive]
                found = draw.choice(still or made)
                container, who = found.name, who and _owner(found)
            if verb == "network":
                network = "shop.back" if who == TEAM else draw.choice(CONTESTED)
            elif verb == "remove network":
                chosen = draw.choice(networks)
                network, who = chosen.name, chosen.labels[names.OWNER]
            else:
                own = [n.name for n in networks if n.labels[names.OWNER] == who]
                network = draw.choice([*own, *own, *own, "hall", SHARED])
        inside = draw.choice((0, 0, 0, 2, 3, 4)) if verb in SLOW and of != ALL else 0
        volume = draw.choice(VOLUMES) if verb != "create" or who in self._with_volume() else ""
        move = Move(who, verb, container, network, volume, draw.choice(ALIASES), inside)
        self.moves.append(move)
        return move

    def _with_volume(self) -> set[str]:
        return {str((each.labels or {}).get(names.OWNER)) for each in self.engine.volumes.values()}

    def _make(self, move: Move) -> None:
        if move.who:
            self._ask(move)
            return
        match move.verb:
            case "engine restarts":
                self.engine.engine_restart()
            case "broker restarts":
                self.broker.die()
                self.broker.start()
                self._mend()
            case "older records":
                self._forget_identities()
            case "start past the gate":
                self.engine.call("POST", f"/containers/{move.container}/start")
            case _:  # a client's: the controller puts back the names of its own
                found = self.engine.find(move.container)
                if found is not None and found.config["Labels"][names.ORIGIN] == "client":
                    query = {"name": move.alias or ALIASES[0]}
                    self.engine.call("POST", build_path(f"/containers/{found.id}/rename", query))

    def _mend(self) -> None:
        for _ in range(3):
            self.clock.advance(60)
            self.broker.mend()

    def _forget_identities(self) -> None:
        """Take the inventory for one of a broker that recorded no identities."""
        state = self.broker.state
        assert state is not None
        known = {
            key: replace(item, network_ids=(), volume_ids=())
            for key, item in state.inventory.containers.items()
        }
        state.inventory = replace(state.inventory, containers=known)

    def _ask(self, move: Move) -> None:
        method, path, body = REQUESTS[move.verb](move)
        text = b"" if body is None else json.dumps(body).encode()
        path, _, query = path.partition("?")
        pairs = dict(each.split("=", 1) for each in query.split("&") if each)
        context = CAUSE if move.who == TEAM else ""
        asked = request_of(ACTORS[move.who], method, path, query=pairs, body=text, context=context)
        reply = self.broker.serve(asked)
        rule = ""
        if reply.status >= 400:
            told = json.loads(reply.body)
            rule = str((told.get("trimtab") or {}).get("rule", ""))
        self.counts[move.verb, rule or str(reply.status)] += 1

    # The invariant

    def check(self) -> None:
        """Check what runs.

        Raises:
            Reached: something reached another owner's object.
        """
        alive = [each for each in self.engine.containers.values() if each.alive]
        for container in alive:
            for what in self._foreign(container):
                raise Reached(f"{container.name} of {_owner(container)} has {what}")
        holders: dict[tuple[str, str], str] = {}
        for container in alive:
            for network, name in _answers(container):
                holder = holders.setdefault((network, name), _owner(container))
                if holder != _owner(container):
                    raise Reached(f"{name} is of {holder} and {_owner(container)}")

    def _foreign(self, container: SimContainer) -> Iterator[str]:
        labels = container.config["Labels"]
        by_team = labels[names.ORIGIN] == "controller"
        for name, end in container.networks.items():
            network = self.engine.networks.get(end.network) if end.id else None
            if network is None or name in {"hall", SHARED if not by_team else OF_SHOP}:
                continue
            if not _is_own(network.labels, container):
                yield f"the network {name} of {network.labels.get(names.OWNER)}"
        for mount in container.mounts:
            volume = self.engine.volumes.get(mount.get("Name", ""))
            # The engine makes a volume that is gone by then: nobody's, and never anybody's later.
            if volume is not None and volume.labels and not _is_own(volume.labels, container):
                yield f"the volume {volume.name} of {volume.labels.get(names.OWNER)}"


def _owner(container: SimContainer) -> str:
    return str(container.config["Labels"][names.OWNER])


def _is_own(labels: dict[str, str], container: SimContainer) -> bool:
    mine = container.config["Labels"]
    same = names.NAMESPACE if mine[names.ORIGIN] == "controller" else names.OWNER
    return labels.get(same) == str(mine[same])


def _answers(container: SimContainer) -> Iterator[tuple[str, str]]:
    """Yield the names to which a container answers, each with the network's id."""
    for end in container.networks.values():
        if end.id:
            for name in {container.name, container.config["Hostname"], *(end.aliases or ())}:
                yield end.network, name


# Requests

Asked = tuple[str, str, dict[str, Any] | None]


def _create(move: Move) -> Asked:
    host: dict[str, Any] = {"NetworkMode": move.network}
    if move.network == SHARED and move.who == TEAM:
        host["NetworkMode"] = OF_SHOP
    if move.volume:
        source = _volume(move)
        host["Mounts"] = [{"Type": "volume", "Source": source, "Target": "/data"}]
    end: dict[str, Any] = {"Aliases": [move.alias]} if move.alias else {}
    labels = {}
    if move.who == TEAM:
        end = {"Aliases": [*{move.container, *end.get("Aliases", ())}]}
        labels = {
            names.OWNER: TEAM,
            names.NAMESPACE: SHOP,
            names.SERVICE: move.container,
            names.SLOT: "1",
            names.REVISION: REVISION,
            names.IMAGE: IMAGE.reference,
        }
    elif move.alias:
        labels = {names.SERVICE: move.alias}  # its own name, also on a shared network
    if move.who != TEAM and move.volume:
        host["RestartPolicy"] = {"Name": "always"}
    ends = {"EndpointsConfig": {host["NetworkMode"]: end}}
    body = {"Image": IMAGE.reference, "HostConfig": host, "NetworkingConfig": ends}
    return "POST", f"/containers/create?name={_container(move)}", {**body, "Labels": labels}


def _container(move: Move) -> str:
    if move.who != TEAM or move.container not in CONTAINERS:
        return move.container
    return names.container_name(SHOP, move.container, slot=1, revision=REVISION)


def _volume(move: Move) -> str:
    return (
        names.qualified(SHOP, move.volume or "data") if move.who == TEAM else move.volume or "data"
    )


def _labelled(move: Move, name: str, **more: object) -> dict[str, Any]:
    labels = {}
    if move.who == TEAM:
        namespace = "default" if name == "hall" else SHOP
        labels = {names.OWNER: TEAM, names.NAMESPACE: namespace}
    return {"Name": name, "Labels": labels, **more}


def _join(move: Move, verb: str) -> Asked:
    body: dict[str, Any] = {"Container": _container(move)}
    if verb == "connect" and move.alias:
        alias = move.container if move.who == TEAM else move.alias
        body["EndpointConfig"] = {"Aliases": [alias]}
    return "POST", f"/networks/{move.network}/{verb}", body


def _act(verb: str) -> Callable[[Move], Asked]:
    return lambda move: ("POST", f"/containers/{_container(move)}/{verb}", None)


REQUESTS: Final[dict[str, Callable[[Move], Asked]]] = {
    "network": lambda m: ("POST", "/networks/create", _labelled(m, m.network, Internal=True)),
    "remove network": lambda m: ("DELETE", f"/networks/{m.network}", None),
    "volume": lambda m: ("POST", "/volumes/create", _labelled(m, _volume(m))),
    "remove volume": lambda m: ("DELETE", f"/volumes/{_volume(m)}", None),
    "create": _create,
    "start": _act("start"),
    "restart": _act("restart"),
    "stop": _act("stop"),
    "remove": lambda m: ("DELETE", f"/containers/{_container(m)}?force=1", None),
    "rename": lambda m: (
        "POST",
        f"/containers/{_container(m)}/rename?name={m.alias or 'new'}",
        None,
    ),
    "connect": lambda m: _join(m, "connect"),
    "disconnect": lambda m: _join(m, "disconnect"),
}
