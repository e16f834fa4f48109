"""What a world is about: its documents, how they change, and when people interfere.

Each action of the table has what makes it happen: a service with a volume, an image that must be
pulled, a namespace that goes away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from controller.model.names import Key, job_key, service_key
from tests.sim.faults import Action
from tests.sim.files import Doc, Files
from tests.sim.ground import Event
from tests.sim.probes import PORT

if TYPE_CHECKING:
    from tests.sim.world import World

WEB = service_key("default", "web")
DB = service_key("default", "db")
APP = service_key("default", "app")
CELLAR = service_key("default", "cellar")  # it comes first by name
FRONT = service_key("default", "front")
CHECK = {"exec": ["check"], "interval": "10s"}
LAB = service_key("lab", "probe")
LAN = Key("Network", "default", "lan")
STORE, DEPOT = service_key("default", "store"), service_key("default", "depot")
STORE_SPEC: dict[str, Any] = {
    "image": "trimtab.local/db:1",
    "mounts": [{"type": "volume", "source": "stored", "target": "/data"}],
}

MIGRATE = job_key("default", "migrate")
#: A run that trouble cuts is repeated until the trouble is over.
MIGRATE_SPEC: dict[str, Any] = {
    "image": "trimtab.local/job:1",
    "backoffLimit": 20,
    "keep": {"succeeded": 1, "failed": 1},
}
BRIEF = service_key("default", "brief")
LAB_DOC = Doc(LAB, {"image": "trimtab.local/job:1"})
WEB_IMAGE = "trimtab.local/web"
APP_IMAGE = "ghcr.io/platformnetwork/app"
NOBODYS, MENDED = f"{APP_IMAGE}:none", f"{APP_IMAGE}:2"

#: How long worlds keep what was pruned, in seconds: one in three does.
QUARANTINES = (0.0, 0.0, 120.0)

#: How likely something is, between when and when, what, and how.
Chance = tuple[float, tuple[float, float], str, Callable[[], object]]


#: What makes the controller put a container back where it stands.
_ALTERING = (
    (Action.UNPAUSE, "pause"),
    (Action.RENAME, "rename"),
    (Action.CONNECT, "disconnect"),
    (Action.DISCONNECT, "alias"),
)


class Scenario:
    """One story, drawn from the seed; ``must`` are the actions that happen in it."""

    def __init__(self, seed: int, must: set[Action]) -> None:
        self._random = random.Random(f"scenario {seed}")
        self.keep_s = random.Random(f"quarantine {seed}").choice(QUARANTINES)
        chance = self._random.random
        self.app = Action.PULL in must or chance() < 0.15
        self.db = Action.CREATE_VOLUME in must or chance() < 0.3
        self.pull = random.Random(f"pull {seed}").choice(("IfNotPresent", "Always"))
        self.lab = Action.REMOVE_NETWORK in must or chance() < 0.15
        self.lan = chance() < 0.15
        self.many = chance() < 0.06
        once = {Action.PULL, Action.CREATE_NETWORK, Action.REMOVE_NETWORK, Action.CREATE_VOLUME}
        self.rolls = bool(must - once) or chance() < 0.3
        self.replicas = self._random.choice((1, 1, 1, 2))
        # Drawn by itself, so that worlds without it are as they were.
        health = random.Random(f"health {seed}")
        self.probed = health.random() < 0.25
        sick: frozenset[str] = health.choice(
            (frozenset(), frozenset({f"{WEB_IMAGE}:1"}), frozenset({f"{WEB_IMAGE}:2"}))
        )
        flaps = health.random() < 0.5
        self.ill: frozenset[str] = sick if self.probed and not flaps else frozenset()
        self.flapping: frozenset[str] = sick if self.probed and flaps else frozenset()
        self.order = random.Random(f"order {seed}")
        # Not where something rare must happen: what goes with them may hold it back.
        rare = must & {Action.REMOVE_NETWORK, Action.UNPAUSE}
        self.tiers = self.order.random() < 0.2 and not rare
        self.altered = tuple(doing for action, doing in _ALTERING if action in must)
        self.rare, self._again = rare, random.Random(f"again {seed}")
        self._absent = random.Random(f"absent {seed}")
        self._work = random.Random(f"job {seed}")
        self.works = self._work.random() < 0.15 and not rare
        self._amid = random.Random(f"amid {seed}")
        self.hurries = self._amid.random() < 0.2 and not rare
        self._move = random.Random(f"moved {seed}")
        self.moves = self._move.random() < 0.05 and not rare

    def docs(self, secret: str) -> Iterator[Doc]:
        """The documents that the world begins with."""
        yield Doc(WEB, self._web(secret))
        if self.db:
            yield Doc(
                DB,
                {
                    "image": "trimtab.local/db:1",
                    "env": {"PASSWORD": secret},
                    "ports": [{"container": 8080, "host": 15432, "hostIP": "127.0.0.1"}],
                    "mounts": [{"type": "volume", "source": "data", "target": "/data"}],
                },
            )
        if self.app:
            yield Doc(APP, {"image": "ghcr.io/platformnetwork/app:1", "pullPolicy": self.pull})
        if self.lab:
            yield LAB_DOC
        if self.lan:
            yield Doc(LAN, {"internal": True})
        if self.tiers:
            yield Doc(CELLAR, {"image": "trimtab.local/db:1", "healthcheck": CHECK})
            condition = self.order.choice(("Started", "Healthy", "Healthy"))
            wanted = [{"name": CELLAR.name, "condition": condition}]
            yield Doc(FRONT, {"image": "trimtab.local/job:1", "dependsOn": wanted})
        if self.works:
            yield Doc(MIGRATE, {**MIGRATE_SPEC, "entrypoint": _script(self._work.choice((1, 8)))})
        if self.moves:
            yield Doc(STORE, STORE_SPEC)
        if self.many:
            for number in range(6):
                yield Doc(service_key("herd", f"s{number}"), {"image": "trimtab.local/job:1"})

    def _web(self, secret: str) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "image": "trimtab.local/web:1",
            "replicas": self.replicas,
            "env": {"TOKEN": secret, "LEVEL": "info"},
            "resources": {"memory": "64Mi"},
        }
        if self.lan:
            spec["network"] = {"attach": ["lan"]}
        if self.probed:
            check = {"http": {"path": "/healthz", "port": PORT}}
            spec["healthcheck"] = {**check, "interval": "20s", "startPeriod": "5s"}
        return spec

    def events(self, world: World) -> Iterator[Event]:
        """What happens from outside, and when."""
        people, engine = world.people, world.engine
        for doing in self.altered:
            for first, last in ((4, 15), (20, 40)):
                at = self._random.uniform(first, last)
                yield at, "meddling", partial(people.meddle, doing)
        for likelihood, (begin, end), what, do in (
            *self._edits(world.files),
            (0.5, (2, 40), "meddling", people.meddle),
            (0.4, (2, 40), "meddling", people.meddle),
            (0.3, (2, 40), "meddling", people.meddle),
            (0.2, (2, 30), "copy", people.copy),
            (0.3, (1, 30), "client", people.run_client),
            (0.15, (3, 30), "operator", people.operate),
            (0.6 if self.many else 0.03, (4, 30), "the controller is usurped", people.usurp),
            (0.1, (3, 30), "engine restarts", engine.engine_restart),
            (0.15, (0.5, 30), "plan applied", world.apply_plan),
            (0.3, (2, 40), "by hand", world.hands.hold),
            (0.25, (15, 60), "by hand", world.hands.hold),
            (0.2, (30, 90), "by hand", world.hands.hold),
            *self._returns(world),
        ):
            if self._random.random() < likelihood:
                act = _edit(world, do) if what.startswith("edit") else do
                yield self._random.uniform(begin, end), what, act
        yield from self._tiers(world)
        yield from self._once_more(world)
        yield from self._mistaken(world)
        yield from self._worked(world)
        yield from self._moved(world)
        yield from self._hurried(world)

    def _moved(self, world: World) -> Iterator[Event]:
        """A service with a volume is renamed; drawn by itself."""
        if not self.moves:
            return

        def goes() -> None:
            world.people.spared = frozenset({STORE})
            world.files.drop(STORE)
            world.files.put(Doc(DEPOT, STORE_SPEC, moved=STORE.name))

        yield self._move.uniform(10, 40), "edit: store is renamed", _edit(world, goes)

    def _hurried(self, world: World) -> Iterator[Event]:
        """A document comes or changes, and changes again while its pass runs; drawn by itself."""
        if not self.hurries:
            return
        files, draw = world.files, self._amid
        changes: dict[str, Callable[[], object]] = {
            "edit: brief goes": partial(_drop, files, BRIEF),
            "edit: no brief": partial(_change, files, BRIEF, replicas=0),
            "edit: brief stops": partial(_change, files, BRIEF, state="Stopped"),
            "edit: brief changes": partial(_change, files, BRIEF, env={"LEVEL": "warning"}),
        }

        def begin(number: int, what: str) -> None:
            spec = {"image": "trimtab.local/job:1", "env": {"ROUND": str(number)}}
            files.put(Doc(BRIEF, spec))
            world.amid(BRIEF, what, changes[what])

        for number in range(draw.choice((1, 2, 3))):
            what = draw.choice(sorted(changes))
            at = draw.uniform(4, 20) + 40 * number
            yield at, "edit: brief comes", _edit(world, partial(begin, number, what))

    def _worked(self, world: World) -> Iterator[Event]:
        """What becomes of a job, drawn by itself."""
        if not self.works:
            return
        files, draw = world.files, self._work
        edits: dict[str, Callable[[], object]] = {
            "edit: migrate changes": partial(_change, files, MIGRATE, entrypoint=_script(3)),
            "edit: migrate goes": partial(_drop, files, MIGRATE),
            "edit: migrate is back": partial(
                files.put, Doc(MIGRATE, {**MIGRATE_SPEC, "entrypoint": _script(2)})
            ),
        }
        for what, change in edits.items():
            if draw.random() < 0.5:
                yield draw.uniform(3, 60), what, _edit(world, change)

    def _once_more(self, world: World) -> Iterator[Event]:
        """Give what is rare, and must happen, further chances; drawn by itself."""
        draw = self._again.uniform
        if Action.UNPAUSE in self.rare:
            for begin in (60, 140, 220):
                yield draw(begin, begin + 40), "meddling", partial(world.people.meddle, "pause")
        if Action.REMOVE_NETWORK in self.rare:
            for begin in (40, 160):
                back = partial(world.files.put, LAB_DOC)
                yield draw(begin, begin + 20), "edit: lab is back", _edit(world, back)
                going = partial(_drop, world.files, LAB)
                yield draw(begin + 40, begin + 60), "edit: lab goes", _edit(world, going)

    def _mistaken(self, world: World) -> Iterator[Event]:
        """Somebody declares an image that nobody has, perhaps right after another edit."""
        draw = self._absent
        keys = [WEB, *([DB, DB, DB] if self.db else []), *([APP] if self.app else [])]
        key = draw.choice(keys)
        if draw.random() < 0.35 and not self.rare:
            before = draw.uniform(4, 40)
            if draw.random() < 0.5:
                another = partial(_change, world.files, key, env={"LEVEL": "warning"})
                yield before, f"edit: {key.name} changes", _edit(world, another)
                before += draw.choice((0.12, 0.2, 1.0))
            change = partial(_change, world.files, key, image=NOBODYS)
            yield before, f"edit: {key.name} is mistaken", _edit(world, change)

    def _tiers(self, world: World) -> Iterator[Event]:
        """What becomes of services of which one depends on the other, drawn by itself."""
        if not self.tiers:
            return
        files, draw = world.files, self.order
        edits: dict[str, Callable[[], object]] = {
            "edit: cellar:2": partial(_change, files, CELLAR, image="trimtab.local/db:2"),
            "edit: front changes": partial(_change, files, FRONT, env={"LEVEL": "debug"}),
            "edit: the tiers go": partial(_drop, files, CELLAR, FRONT),
            "edit: the tiers stop": partial(_change, files, CELLAR, FRONT, state="Stopped"),
        }
        for what, change in edits.items():
            if draw.random() < 0.4:
                yield draw.uniform(3, 40), what, _edit(world, change)
        if draw.random() < 0.5:
            yield draw.uniform(1, 30), "cellar fails", partial(world.people.crash, CELLAR)

    def _returns(self, world: World) -> Iterator[Chance]:
        """Who was too quick to remove a document puts it back; last, so that no draw shifts."""
        if self.lab and self.keep_s:
            back = partial(world.files.put, LAB_DOC)
            yield 0.5, (20, 60), "edit: lab is back", back

    def _edits(self, files: Files) -> Iterator[Chance]:
        if self.rolls:
            yield 1, (3, 12), "edit: web:2", partial(files.change, WEB, image=f"{WEB_IMAGE}:2")
        if self.lab:
            yield 1, (5, 15), "edit: lab goes", partial(_drop, files, LAB)
        if self.db:
            change = partial(files.change, DB, image="trimtab.local/db:2")
            yield 0.5, (4, 20), "edit: db:2", change
        if self.app:
            yield 0.4, (8, 25), "edit: app:2", partial(files.change, APP, image=f"{APP_IMAGE}:2")
        if self.many:
            for going in (6, 5):
                yield 0.6, (8, 15), "edit: the herd goes", partial(_cull, files, going)
        yield 0.1, (6, 20), "edit: one replica", partial(files.change, WEB, replicas=1)
        yield 0.08, (6, 20), "edit: web stopped", partial(files.change, WEB, state="Stopped")


def _script(seconds: int) -> list[str]:
    """Return a program that ends well after so long."""
    return ["/bin/sh", "-c", f"sleep {seconds}; exit 0"]


def _edit(world: World, change: Callable[[], object]) -> Callable[[], object]:
    """Return an edit that waits until there is a file to edit."""

    def act() -> None:
        if world.files.present and not world.files.emptied:
            change()
            world.files_changed()
        else:
            world.at(15.0, "edit again", act)

    return act


def _drop(files: Files, *keys: Key) -> None:
    for key in keys:
        if key in files.docs:
            files.drop(key)


def _change(files: Files, *keys: Key, **spec: Any) -> None:
    for key in keys:
        if key in files.docs:
            files.change(key, **spec)


def _cull(files: Files, count: int) -> None:
    for number in range(count):
        key = service_key("herd", f"s{number}")
        if key in files.docs:
            files.drop(key)
