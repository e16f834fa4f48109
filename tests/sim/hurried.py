"""Worlds without faults in which documents change while passes run, and no event is lost.

So no lost event explains why something waits for an observation of everything by its timer
(invariant 16).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from controller.model.desired.desired import Verb
from controller.model.names import Key, service_key
from tests.sim.faults import Faults
from tests.sim.files import Doc, Files
from tests.sim.ground import Event
from tests.sim.scenario import BRIEF
from tests.sim.stories import APP, CHECK, DB, LAB, LAN, MIGRATE, WEB, job, service
from tests.sim.world import World

ROUNDS = 4
#: Longer than the timer of an observation: the next change of a document would hide what is late.
ROUND_S = 345.0

API = service_key("default", "api")
YARD = service_key("yard", "depot")
MOUNT = {"type": "volume", "source": "data", "target": "/data"}
ON_LAN = {"network": {"attach": ["lan"]}}


def port(host: int) -> dict[str, Any]:
    return {"ports": [{"container": 8080, "host": host, "hostIP": "127.0.0.1"}]}


#: A form that claims no port and no volume.
PLAIN = service(DB, "db:1", healthcheck=CHECK)
#: The documents of each resource, from the first on; None: no document.
FORMS: dict[Key, tuple[Doc | None, ...]] = {
    WEB: (
        service(WEB, "web:1", **ON_LAN),
        service(WEB, "web:2", **ON_LAN),
        service(WEB, "web:1", replicas=2, **ON_LAN),
        service(WEB, "web:1", state="Stopped", **ON_LAN),
        service(WEB, "web:1", replicas=0, **ON_LAN),
    ),
    DB: (
        service(DB, "db:1", mounts=[MOUNT], healthcheck=CHECK, **port(15432)),
        service(DB, "db:2", mounts=[MOUNT], healthcheck=CHECK, **port(15432)),
        service(DB, "db:1", mounts=[MOUNT], healthcheck=CHECK, **port(15433)),
        PLAIN,
        None,
    ),
    API: (
        service(API, "web:3"),
        service(API, "web:3", **port(15433)),
        service(API, "web:3", replicas=0),
        service(API, "web:3", mounts=[MOUNT]),
        None,
    ),
    APP: (
        service(APP, "web:2", dependsOn=[{"name": "db"}]),
        service(APP, "web:2", dependsOn=[{"name": "db", "condition": "Healthy"}]),
        service(APP, "web:1"),
        None,
    ),
    LAB: (service(LAB, "job:1"), service(LAB, "job:1", replicas=2), None),
    YARD: (None, service(YARD, "db:1"), service(YARD, "db:1", **port(15434))),
    BRIEF: (None, service(BRIEF, "job:1"), service(BRIEF, "job:1", replicas=2)),
    LAN: (Doc(LAN, {"internal": True}), Doc(LAN, {"internal": False})),
    MIGRATE: (job(MIGRATE), job(MIGRATE, "sleep 5; exit 0"), job(MIGRATE, "exit 0")),
}
VERBS: tuple[Verb, ...] = ("suspend", "resume", "restart")
DOINGS = ("rm", "stop", "kill", "pause", "disconnect", "rename", "limits")


class Hurry:
    """A ``ground.Story``, drawn from a seed: each change is followed by another amid a pass."""

    ill: frozenset[str] = frozenset()
    flapping: frozenset[str] = frozenset()

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"hurry {seed}")
        self.keep_s = self._random.choice((0.0, 0.0, 30.0))

    def docs(self, secret: str) -> Iterable[Doc]:
        del secret
        return [forms[0] for forms in FORMS.values() if forms[0] is not None]

    def events(self, world: World) -> Iterator[Event]:
        draw = self._random
        for number in range(ROUNDS):
            at = draw.uniform(5, 15) + ROUND_S * number
            first, second = draw.choice(sorted(FORMS)), draw.choice(sorted(FORMS))
            # A document that comes and goes is the shortest story, and passes outlast it.
            first = draw.choice((BRIEF, first))
            second = draw.choice((first, first, second))
            yield at, "edit", partial(self._begin, world, first, second, draw.random())

    def _begin(self, world: World, first: Key, second: Key, share: float) -> str:
        """Change a resource, and something while its pass runs."""
        told = self._edit(world, first)
        world.files_changed()
        for _ in range(1 + (share < 0.4)):
            what, change = self._change(world, first, second)
            world.amid(first, what, change)
        return told

    def _change(self, world: World, passing: Key, key: Key) -> tuple[str, Callable[[], object]]:
        kind = self._random.random()
        if kind < 0.15 and key != passing and key.kind == "Service":
            verb = self._random.choice(VERBS)
            return f"{verb} {key}", partial(world.hands.act, verb, key)
        if kind < 0.3:
            doing = self._random.choice(DOINGS)
            return doing, partial(world.people.meddle, doing)
        return f"edit of {key}", partial(self._edit, world, key)

    def _edit(self, world: World, key: Key) -> str:
        forms = FORMS[key]
        goes = None in forms and key in world.files.docs and self._random.random() < 0.5
        form = None if goes else self._random.choice([form for form in forms if form is not None])
        if form is not None:
            world.files.put(form)
        elif key in world.files.docs:
            world.files.drop(key)
        self._make_sense(world.files)
        return f"{key}: {'none' if form is None else form.spec}"

    def _make_sense(self, files: Files) -> None:
        """See that the documents go together."""
        app, api, db = (files.docs[key].spec if key in files.docs else {} for key in (APP, API, DB))
        needed = not db and "dependsOn" in app
        claimed = any(
            api.get(field) and api[field] == db.get(field) for field in ("ports", "mounts")
        )
        if needed or claimed:
            files.put(PLAIN)


class HurriedWorld(World):
    """A world in which nothing goes wrong but by haste."""

    heard = 1.0

    def __init__(self, seed: int) -> None:
        super().__init__(seed, story=Hurry(seed), faults=Faults.none())
