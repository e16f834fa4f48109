"""Services that depend on one another, in virtual time: who is woken when, and who goes last."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction, PullImage
from controller.model.desired.spec.service import JobSpec
from controller.model.errors import EngineFailed
from controller.model.names import job_key
from controller.model.observed import Container, ContainerState, Image
from controller.ports import EngineEvent
from tests import worlds
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import container, service

DB1, API1 = "db.1-bbbbbbbb", "api.1-bbbbbbbb"
RUN_DB = [f"create-container {DB1}", f"start-container {DB1}"]
RUN_API = [f"create-container {API1}", f"start-container {API1}"]


def house(folder: Path, *containers: Container) -> House:
    return House(folder, engine=ToyEngine(worlds.engine(*containers)))


def api(condition: str = "Started", **spec: Any) -> Service:
    return service("api", dependsOn=[{"name": "db", "condition": condition}], **spec)


def db(**spec: Any) -> Service:
    return service("db", healthcheck={"exec": ["check"]}, **spec)


def healthy(home: House, name: str = DB1, health: str = "healthy") -> None:
    home.engine.change(name, lambda c: replace(c, health=health))


def event(home: House, name: str = DB1) -> None:
    home.controller.handle_event(EngineEvent(1, "container", "health_status", f"id:{name}", None))


def said(home: House, type_: str) -> str:
    resources = home.controller.status()["resources"]
    assert isinstance(resources, list)
    (mine,) = [r for r in resources if r["name"] == "api"]
    return next(str(c["message"]) for c in mine["conditions"] if c["type"] == type_)


def test_a_dependent_is_started_right_after_its_dependency(tmp_path: Path) -> None:
    home = house(tmp_path)
    home.declare(api(), db())
    assert home.settle() == [*RUN_DB, *RUN_API]
    assert home.let_pass(700) == []


def test_a_dependent_is_woken_by_its_dependencys_event(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="starting"))
    home.declare(api("Healthy"), db())
    assert home.settle() == []
    assert home.condition("api", "Progressing") == ("True", "Waiting")
    waiting = f"waiting for db to be healthy ({DB1} is starting)"
    assert (said(home, "Progressing"), said(home, "Ready")) == (waiting, waiting)
    assert home.let_pass(3) == []
    healthy(home)
    event(home)
    assert home.settle() == RUN_API
    assert home.condition("api", "Ready") == ("True", "AsDeclared")


def test_a_dependent_is_started_soon_though_every_event_is_lost(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="starting"))
    home.declare(api("Healthy"), db())
    home.let_pass(20)
    healthy(home)
    assert home.let_pass(6) == RUN_API


def test_waiting_looks_no_more_often_than_every_few_seconds(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="starting"))
    home.declare(api("Healthy"), db())
    home.settle()
    before = home.engine.looks
    home.let_pass(60)
    assert home.engine.looks - before <= 2 * 60 / 5 + 2


def test_no_start_relies_on_the_event_that_a_dependency_is_down(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="healthy"))
    home.declare(api("Healthy"), db())
    assert home.settle() == RUN_API
    healthy(home, health="starting")  # it restarted, and the event is lost
    home.engine.change(API1, lambda _container: None)
    home.controller.keys.add(api().key)
    assert home.settle() == []
    healthy(home)
    assert home.let_pass(6) == RUN_API


def test_no_start_relies_on_a_look_before_a_pull(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="healthy"))
    home.engine.world = replace(home.engine.world, images={})

    def fails_meanwhile(action: AnyAction) -> None:
        if isinstance(action, PullImage):
            healthy(home, health="starting")

    home.engine.fault = fails_meanwhile
    home.declare(api("Healthy", pullPolicy="Always"), db())
    assert home.settle() == [f"pull-image {worlds.IMAGE}", RUN_API[0]]
    assert said(home, "Ready") == f"waiting for db to be healthy ({DB1} is starting)"
    healthy(home)
    assert home.let_pass(6) == RUN_API[1:]
    assert home.let_pass(600) == []


def test_no_run_of_a_job_relies_on_the_event_that_a_dependency_is_down(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="healthy"))
    home.declare(db())
    assert home.settle() == []
    healthy(home, health="starting")  # it restarted, and the event is lost
    spec = {"image": worlds.IMAGE, "dependsOn": [{"name": "db", "condition": "Healthy"}]}
    migrate = replace(
        service("migrate"),
        key=job_key("default", "migrate"),
        spec=JobSpec.model_validate_json(json.dumps(spec)),
    )
    home.declare(db(), migrate)
    assert home.settle() == []
    healthy(home)
    run = "migrate.run-1-bbbbbbbb"
    assert home.let_pass(6) == [f"create-container {run}", f"start-container {run}"]


def test_no_deadline_of_a_rollout_runs_while_it_waits_for_another(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="starting"))
    home.declare(api("Healthy"), db(rollout={"healthDeadline": "1h", "progressDeadline": "1h"}))
    home.let_pass(800)
    assert home.condition("api", "Stalled") == ("False", "NothingToDo")
    healthy(home)
    event(home)
    assert home.settle() == RUN_API


def test_a_failed_dependency_stalls_its_dependents_until_it_recovers(tmp_path: Path) -> None:
    home = house(tmp_path)
    home.declare(api(), db(pullPolicy="Never", image="team/db:1"))
    assert home.settle() == []
    assert home.condition("api", "Stalled") == ("True", "dependency.failed")
    assert home.condition("api", "Progressing") == ("False", "NothingToDo")
    assert said(home, "Stalled").startswith("db can't start: team/db:1 isn't here")
    standing = home.operator.convergence()
    assert (standing.converged, standing.stuck) == (False, True)
    home.engine.world = replace(
        home.engine.world,
        images={**home.engine.world.images, "team/db:1": Image(worlds.IMAGE_ID)},
    )
    home.controller.keys.add(db().key)
    assert home.settle() == [*RUN_DB, *RUN_API]
    assert home.condition("api", "Stalled") == ("False", "NothingToDo")


def test_a_dependency_that_fails_and_fails_wakes_its_dependents_once(tmp_path: Path) -> None:
    down = container("db", health="unhealthy")
    home = house(tmp_path, down)
    others = [
        service(f"s{n}", dependsOn=[{"name": "db", "condition": "Healthy"}]) for n in range(9)
    ]
    home.declare(db(), *others)
    home.settle()
    before = home.engine.looks
    for _ in range(5):
        event(home)
        home.settle()
    assert home.engine.looks - before == 5


def test_what_runs_is_left_alone_when_its_dependency_dies(tmp_path: Path) -> None:
    home = house(tmp_path, container("db", health="healthy"), container("api"))
    home.declare(api("Healthy"), db())
    home.settle()
    home.engine.change(DB1, lambda _: None)
    event(home)
    assert home.settle() == RUN_DB
    home.engine.change(DB1, lambda c: replace(c, state=ContainerState.RESTARTING))
    assert [done for done in home.let_pass(600) if "api" in done] == []
    assert home.condition("api", "Ready") == ("True", "AsDeclared")


def gone(name: str) -> list[str]:
    return [f"{verb}-container {name}" for verb in ("update", "stop", "remove")]


def test_dependents_are_removed_before_what_they_depended_on(tmp_path: Path) -> None:
    home = house(tmp_path, container("db"), container("api"), container("web"))
    home.declare(api(), db(), service("web"))
    home.settle()
    home.declare(service("web"))
    assert home.let_pass(10) == [*gone(API1), *gone(DB1)]


def test_the_order_of_removal_is_remembered_across_a_restart(tmp_path: Path) -> None:
    home = house(tmp_path, container("db"), container("api"), container("web"))
    home.declare(api(), db(), service("web"))
    home.let_pass(1)
    home.restart()
    home.declare(service("web"))
    assert home.let_pass(10) == [*gone(API1), *gone(DB1)]


def test_a_dependency_does_not_wait_for_ever_for_those_that_should_go_first(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, container("db"), container("api"), container("web"))
    home.declare(api(), db(), service("web"))
    home.settle()
    home.engine.fault = lambda action: (
        EngineFailed("engine.failed", "no") if action.target == API1 else None
    )
    home.declare(service("web"))
    assert [done for done in home.let_pass(290) if DB1 in done] == []
    assert [done for done in home.let_pass(30) if DB1 in done] == gone(DB1)


def test_one_plan_exactly_waits_for_what_it_starts_and_goes_on(tmp_path: Path) -> None:
    home = house(tmp_path)
    home.files.desired = worlds.declared(api("Healthy"), db())
    began = home.watch.time

    def later(engine: ToyEngine) -> None:
        if home.watch.time >= began + 30:
            engine.change(DB1, lambda c: replace(c, health="healthy"))

    home.engine.before_look = later
    done = home.operator.apply_exactly(
        home.controller.observe_everything().plan.digest, approved=False, requested_by="uid:0"
    )
    assert home.engine.done == [*RUN_DB, *RUN_API]
    assert (done.error, 30 <= home.watch.time - began < 32) == (None, True)


@pytest.mark.parametrize(
    ("health", "said"),
    [("unhealthy", "not within 600 s"), ("dead end", f"db can't be healthy: {DB1} exited with 2")],
)
def test_one_plan_exactly_ends_where_what_it_waits_for_does_not_come(
    tmp_path: Path, health: str, said: str
) -> None:
    home = house(tmp_path)
    home.files.desired = worlds.declared(api("Healthy"), db(restart={"policy": "Never"}))

    def later(engine: ToyEngine) -> None:
        ended = {"state": ContainerState.EXITED, "exit_code": 2}
        change: dict[str, Any] = ended if health == "dead end" else {"health": health}
        engine.change(DB1, lambda c: replace(c, **change) if c.running else c)

    home.engine.before_look = later
    digest = home.controller.observe_everything().plan.digest
    done = home.operator.apply_exactly(digest, approved=False, requested_by="uid:0")
    assert home.engine.done == RUN_DB
    assert done.error is not None
    assert done.error.message == f"waiting for db to be healthy: {said}"
