"""Stories that are told the same each time: one for each thing that users count on.

A sweep tells each again and again, with one death somewhere in it. What people ask of a process
that isn't there they ask again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from controller.model.desired.desired import Verb
from controller.model.names import WORKLOADS, Key, job_key, service_key
from tests.sim.controller import request_of
from tests.sim.faults import Action
from tests.sim.files import Doc
from tests.sim.ground import Event
from tests.sim.people import OPERATOR
from tests.sim.probes import PORT

if TYPE_CHECKING:
    from tests.sim.world import World

WEB = service_key("default", "web")
DB = service_key("default", "db")
APP = service_key("default", "app")
LAB = service_key("lab", "probe")
CELLAR = service_key("default", "cellar")
FRONT = service_key("default", "front")
RENAMED = service_key("default", "site")
MIGRATE = job_key("default", "migrate")
SMOKE = job_key("default", "smoke")
HERD = tuple(service_key("herd", f"s{n}") for n in range(5))
LAN = Key("Network", "default", "lan")
IMAGES = "trimtab.local"
ILL = f"{IMAGES}/web:2"
PROBE = {"http": {"path": "/healthz", "port": PORT}, "interval": "10s", "startPeriod": "5s"}
MOUNT = {"type": "volume", "source": "data", "target": "/data"}
CHECK = {"exec": ["check"], "interval": "10s"}
ORDERED = {"policy": "Always", "boot": "Ordered"}
#: Who isn't answered asks again after so long.
AGAIN_S = 5.0

#: What happens after so many seconds.
Then = tuple[float, Callable[["World"], object]]


@dataclass(frozen=True, slots=True)
class Tale:
    """A ``ground.Story``. ``does``: what is done in it at least, if nobody dies."""

    does: frozenset[Action]
    begin: tuple[Doc, ...]
    then: tuple[Then, ...] = ()
    keep_s: float = 0.0
    ill: frozenset[str] = frozenset()
    flapping: frozenset[str] = frozenset()

    def docs(self, secret: str) -> Iterable[Doc]:
        for doc in self.begin:
            env = (
                {"env": {"TOKEN": secret, **doc.spec.get("env", {})}}
                if doc.key.kind in WORKLOADS
                else {}
            )
            yield replace(doc, spec={**doc.spec, **env})

    def events(self, world: World) -> Iterator[Event]:
        for at, do in self.then:
            yield at, "then", partial(do, world)


def service(key: Key, image: str = "web:1", **spec: Any) -> Doc:
    """A document of a service that is replaced quickly."""
    quick = {"rollout": {"minHealthy": "2s"}}
    return Doc(key, {"image": f"{IMAGES}/{image}", **quick, **spec})


def job(key: Key, script: str = "sleep 2; exit 0", **spec: Any) -> Doc:
    """A document of a job that runs a script; ``exit 3`` fails."""
    program = ["/bin/sh", "-c", script]
    return Doc(key, {"image": f"{IMAGES}/job:1", "entrypoint": program, **spec})


def edit(key: Key, **spec: Any) -> Callable[[World], str]:
    def act(world: World) -> str:
        world.files.change(key, **spec)
        world.files_changed()
        return f"{key} changes: {', '.join(spec)}"

    return act


def rename(key: Key, to: Key) -> Callable[[World], str]:
    """A service is renamed: its document says which name it had."""

    def act(world: World) -> str:
        doc = world.files.docs[key]
        world.files.drop(key)
        world.files.put(replace(doc, key=to, moved=key.name))
        world.files_changed()
        return f"{key} is renamed to {to}"

    return act


def drop(*keys: Key) -> Callable[[World], str]:
    def act(world: World) -> str:
        for key in keys:
            world.files.drop(key)
        world.files_changed()
        return f"{', '.join(map(str, keys))} goes"

    return act


def put(doc: Doc) -> Callable[[World], str]:
    def act(world: World) -> str:
        world.files.put(doc)
        world.files_changed()
        return f"{doc.key} comes"

    return act


def meddle(doing: str) -> Callable[[World], str]:
    return lambda world: world.people.meddle(doing)


def squat(key: Key) -> Callable[[World], str]:
    return lambda world: world.people.squat(key)


def clear(world: World) -> str:
    """What people made beside the product goes."""
    world.people.clear_names()
    return "the guests leave"


def by_hand(verb: Verb, key: Key = WEB) -> Callable[[World], str]:
    def act(world: World) -> str:
        told = world.hands.act(verb, key)
        if not world.hands.answered:
            world.at(AGAIN_S, "then again", partial(act, world))
        return told

    return act


def stop_by_hand(world: World) -> str:
    """An operator stops a service as ``trimtab stop`` does, again until all of it is done."""
    told = world.hands.act("stop", WEB)
    is_done = world.hands.answered
    for container in world.people.ours() if is_done else ():
        path = f"/containers/{container.id}"
        if container.running:
            never = json.dumps({"RestartPolicy": {"Name": "no"}}).encode()
            requests = (
                request_of(OPERATOR, "POST", f"{path}/update", body=never),
                request_of(OPERATOR, "POST", f"{path}/stop"),
            )
            for request in requests:
                reply = world.ask(request)
                is_done = is_done and reply is not None and reply.status < 400
    if not is_done:
        world.at(AGAIN_S, "then again", partial(stop_by_hand, world))
    return told


def approve(world: World) -> str:
    """An operator approves what the prune guard holds back, and moves."""
    if world.approve():
        return "approved"
    world.at(AGAIN_S, "then again", partial(approve, world))
    return "nobody to approve it"


def lose_state(world: World) -> str:
    """The state folder is lost, of both processes."""
    world.lose_state()
    return "the state is lost"


def adopt(world: World) -> str:
    """An operator takes over what carries the instance's label, until nothing is left."""
    shown = world.ask(request_of(OPERATOR, "GET", "/trimtab/v1/strangers"))
    subjects = [each["subject"] for each in json.loads(shown.body)["objects"]] if shown else []
    told = json.dumps({"act": "adopt", "objects": subjects, "note": "lost"}).encode()
    reply = world.ask(request_of(OPERATOR, "POST", "/trimtab/v1/records", body=told))
    if shown is None or reply is None or reply.status != 200:
        world.at(AGAIN_S, "then again", partial(adopt, world))
        return "nobody to adopt it"
    answer = json.loads(reply.body)
    assert not answer["left"], f"not adopted: {answer['left']}"
    return f"adopted {len(answer['adopted'])}"


def engine_restart(world: World) -> str:
    world.engine.engine_restart()
    return "the engine restarts"


def engine_killed(world: World) -> str:
    world.engine.engine_restart(killed=True)
    return "the engine is killed, and comes back"


def client(world: World) -> str:
    return world.people.run_client()


def _does(*actions: Action) -> frozenset[Action]:
    return frozenset(actions)


#: The dependency of a service on the job.
ON_MIGRATE = {"kind": "Job", "name": MIGRATE.name, "condition": "Completed"}
#: Jobs before and after the rollout of a service.
BEFORE = {"minHealthy": "2s", "before": ["migrate"]}
AROUND = {**BEFORE, "after": ["smoke"]}
_COMES = _does(Action.CREATE_NETWORK, Action.CREATE, Action.START)
_GOES = _does(Action.UPDATE, Action.STOP, Action.REMOVE)

#: A Config of the namespace of WEB, and mounts of it.
SITE = Key("Config", "default", "site")
FILES = [
    {"type": "config", "source": "site", "target": "/srv/site"},
    {"type": "config", "source": "site", "target": "/srv/live", "onChange": {"signal": "SIGHUP"}},
]

HOOKS = {
    "postStart": [{"exec": ["warm", "up"]}, {"exec": ["/bin/sh", "-c", "exit 0"]}],
    "preStop": [{"exec": ["drain"]}],
}

STORIES: dict[str, Tale] = {
    "restarted with its dependency": Tale(
        _COMES | _GOES,
        (
            service(CELLAR, "db:1", healthcheck=CHECK),
            service(FRONT, dependsOn=[{"name": "cellar", "restart": True}]),
        ),
        ((20, edit(CELLAR, image=f"{IMAGES}/db:2")),),
    ),
    "sidecar": Tale(
        _COMES | _GOES,
        (service(CELLAR, "db:1"), service(FRONT, shares={"service": "cellar", "network": True})),
        ((20, edit(CELLAR, image=f"{IMAGES}/db:2")),),
    ),
    "hooks": Tale(
        _COMES | _GOES,
        (service(WEB, replicas=2, lifecycle=HOOKS),),
        ((5, edit(WEB, image=f"{IMAGES}/web:2")),),
    ),
    "change a config": Tale(
        _COMES | _GOES | _does(Action.DELIVER),
        (Doc(SITE, {"data": {"a": "1"}}), service(WEB, replicas=2, mounts=FILES[:1])),
        ((5, edit(SITE, data={"a": "2"})), (30, edit(SITE, data={"a": "1"}))),
    ),
    "change a config in place": Tale(
        _COMES | _does(Action.DELIVER, Action.SIGNAL),
        (Doc(SITE, {"data": {"a": "1"}}), service(WEB, mounts=FILES[1:])),
        ((5, edit(SITE, data={"a": "2"})),),
    ),
    "create": Tale(
        _COMES | _does(Action.PULL, Action.CREATE_VOLUME),
        (
            service(WEB, replicas=2, network={"attach": ["lan"]}),
            service(
                DB,
                "db:1",
                ports=[{"container": 8080, "host": 15432, "hostIP": "127.0.0.1"}],
                mounts=[{"type": "volume", "source": "data", "target": "/data"}],
            ),
            Doc(APP, {"image": "ghcr.io/platformnetwork/app:1"}),
            Doc(LAN, {"internal": True}),
        ),
        ((3, client),),
    ),
    "scale": Tale(
        _COMES | _GOES,
        (service(WEB),),
        ((5, edit(WEB, replicas=3)), (25, edit(WEB, replicas=1))),
    ),
    "start first": Tale(
        _COMES | _GOES | _does(Action.CONNECT, Action.DISCONNECT),
        (service(WEB, replicas=2),),
        ((5, edit(WEB, image=f"{IMAGES}/web:2")),),
    ),
    "stop first": Tale(
        _COMES | _GOES | _does(Action.CREATE_VOLUME),
        (
            service(
                DB,
                "db:1",
                ports=[{"container": 8080, "host": 15432, "hostIP": "127.0.0.1"}],
                mounts=[{"type": "volume", "source": "data", "target": "/data"}],
            ),
        ),
        ((5, edit(DB, image=f"{IMAGES}/db:2")),),
    ),
    "two quick edits": Tale(
        _COMES | _GOES,
        (service(WEB, replicas=2, env={"LEVEL": "info"}),),
        (
            (5, edit(WEB, env={"LEVEL": "debug"})),
            (7, edit(WEB, env={"LEVEL": "trace"}, image=f"{IMAGES}/web:3")),
        ),
    ),
    "failed rollout": Tale(
        _COMES | _GOES,
        (service(WEB, healthcheck=PROBE),),
        ((10, edit(WEB, image=ILL)),),
        ill=frozenset({ILL}),
    ),
    "prune": Tale(
        _COMES | _GOES | _does(Action.REMOVE_NETWORK),
        (service(WEB), service(LAB, "job:1")),
        ((5, drop(LAB)),),
    ),
    "prune and regret": Tale(
        _COMES | _GOES | _does(Action.REMOVE_NETWORK),
        (service(WEB), service(LAB, "job:1")),
        ((5, drop(LAB)), (40, put(service(LAB, "job:1"))), (60, drop(LAB))),
        keep_s=60.0,
    ),
    "prune with approval": Tale(
        _COMES | _GOES,
        (service(WEB), *(service(key, "job:1") for key in HERD)),
        ((8, drop(*HERD)), (30, approve)),
    ),
    "stop": Tale(
        _COMES | _does(Action.STOP, Action.UPDATE),
        (service(WEB, replicas=2),),
        ((5, edit(WEB, state="Stopped")), (25, edit(WEB, state="Running"))),
    ),
    "suspend": Tale(
        _COMES | _GOES,
        (service(WEB),),
        (
            (5, by_hand("suspend")),
            (10, edit(WEB, image=f"{IMAGES}/web:2")),
            (40, by_hand("resume")),
        ),
    ),
    "stop by hand": Tale(
        _COMES | _does(Action.UPDATE),
        (service(WEB, replicas=2),),
        ((5, stop_by_hand), (20, edit(WEB, replicas=3)), (40, by_hand("start"))),
    ),
    "limits": Tale(
        _COMES | _does(Action.UPDATE),
        (service(WEB, replicas=2, resources={"memory": "64Mi"}),),
        (
            (5, edit(WEB, resources={"memory": "128Mi"})),
            (20, edit(WEB, resources={"memory": "96Mi"})),
            (60, by_hand("rollback")),
            (80, by_hand("resume")),
        ),
    ),
    "roll back": Tale(
        _COMES | _GOES,
        (service(WEB),),
        (
            (5, edit(WEB, image=f"{IMAGES}/web:2")),
            (30, by_hand("rollback")),
            (50, by_hand("resume")),
        ),
    ),
    "restart": Tale(
        _COMES | _GOES,
        (service(WEB, replicas=2),),
        ((5, by_hand("restart")),),
    ),
    "order": Tale(
        _COMES | _GOES,
        (
            service(CELLAR, "db:1", healthcheck=CHECK),
            service(FRONT, "job:1", dependsOn=[{"name": "cellar", "condition": "Healthy"}]),
            service(WEB),
        ),
        (
            (20, edit(CELLAR, image=f"{IMAGES}/db:2")),
            (50, drop(FRONT, CELLAR)),
        ),
    ),
    "boot": Tale(
        _COMES | _does(Action.UPDATE),
        (
            service(CELLAR, "db:1", healthcheck=CHECK, restart=ORDERED),
            service(
                FRONT,
                "job:1",
                restart=ORDERED,
                dependsOn=[{"name": "cellar", "condition": "Healthy"}],
            ),
            service(WEB),
        ),
        (
            (30, engine_restart),
            (60, edit(WEB, restart=ORDERED)),
            (70, engine_killed),
            (100, edit(WEB, restart={"policy": "Always"})),
            (110, engine_restart),
        ),
    ),
    "stops past the gate": Tale(
        _COMES,
        (service(WEB, restart=ORDERED),),
        ((20, meddle("stop")), (40, meddle("kill"))),
    ),
    "a taken address": Tale(
        _COMES | _does(Action.REMOVE, Action.DISCONNECT, Action.CONNECT),
        (service(WEB), service(DB, "db:1", restart=ORDERED)),
        ((20, squat(WEB)), (60, clear), (90, squat(DB)), (120, clear)),
    ),
    "moved": Tale(
        _COMES | _GOES | _does(Action.MOVE),
        (service(WEB, replicas=2), service(CELLAR, "db:1")),
        (
            (10, rename(WEB, RENAMED)),
            (30, edit(RENAMED, image=f"{IMAGES}/web:2")),
            (60, by_hand("rollback", RENAMED)),
            (80, by_hand("resume", RENAMED)),
        ),
    ),
    "heal": Tale(
        _COMES
        | _does(Action.UNPAUSE, Action.RENAME, Action.CONNECT, Action.DISCONNECT, Action.UPDATE),
        (service(WEB),),
        tuple(
            (5.0 + 4 * n, meddle(doing))
            for n, doing in enumerate(
                ("pause", "rename", "alias", "disconnect", "policy", "limits", "stop", "crash")
            )
        ),
    ),
    "replace": Tale(
        _COMES | _GOES,
        (service(WEB),),
        # The engine tells twice: the first event may be lost.
        (*((at, meddle("update")) for at in (5, 12)), (25, meddle("rm")), (45, meddle("kill"))),
    ),
    "jobs": Tale(
        _COMES | _does(Action.REMOVE),
        (
            job(MIGRATE, keep={"succeeded": 0, "failed": 1}),
            service(WEB, dependsOn=[ON_MIGRATE]),
        ),
        ((15, edit(MIGRATE, entrypoint=["/bin/sh", "-c", "sleep 1; exit 0"])),),
    ),
    "jobs of several runs": Tale(
        _COMES | _does(Action.REMOVE),
        (
            job(
                MIGRATE,
                "sleep 2; exit 0",
                completions=3,
                parallelism=2,
                keep={"succeeded": 0, "failed": 1},
            ),
            service(WEB, dependsOn=[ON_MIGRATE]),
        ),
        (
            (1, meddle("kill")),
            (30, edit(MIGRATE, entrypoint=["/bin/sh", "-c", "sleep 1; exit 0"])),
        ),
    ),
    "jobs of rollouts": Tale(
        _COMES | _GOES,
        (
            job(MIGRATE, trigger="Rollout", image={"fromService": True}),
            job(
                SMOKE,
                "exit 0",
                trigger="Rollout",
                completions=2,
                parallelism=2,
                keep={"succeeded": 0, "failed": 1},
            ),
            service(WEB, rollout=AROUND),
        ),
        (
            (20, edit(WEB, image=f"{IMAGES}/web:2")),
            (50, meddle("kill")),
            (60, by_hand("restart")),
        ),
    ),
    "a job before a rollout fails": Tale(
        _COMES | _GOES,
        (job(MIGRATE, "exit 0", trigger="Rollout", backoffLimit=0), service(WEB, rollout=BEFORE)),
        (
            (15, edit(MIGRATE, entrypoint=["/bin/sh", "-c", "sleep 1; exit 3"])),
            (18, edit(WEB, image=f"{IMAGES}/web:2")),
            (40, edit(MIGRATE, entrypoint=["/bin/sh", "-c", "sleep 1; exit 0"])),
            (45, by_hand("resume")),
        ),
    ),
    "a job's document goes and comes": Tale(
        _COMES | _does(Action.STOP, Action.REMOVE),
        (job(MIGRATE, "sleep 20; exit 0"), service(WEB)),
        ((8, drop(MIGRATE)), (40, put(job(MIGRATE, "sleep 3; exit 0")))),
    ),
    "adopt": Tale(
        _COMES | _GOES | _does(Action.CREATE_VOLUME),
        (
            service(WEB),
            service(DB, "db:1", mounts=[{"type": "volume", "source": "data", "target": "/d"}]),
        ),
        ((20, lose_state), (25, adopt), (40, edit(WEB, image=f"{IMAGES}/web:2"))),
    ),
}
