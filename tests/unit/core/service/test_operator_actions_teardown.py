"""What ``down`` removes, and in which order."""

from dataclasses import replace
from typing import Any

from controller.core.service.operator_actions import services_down, teardown
from controller.model.desired.plan import (
    RemoveContainer,
    RemoveNetwork,
    StopContainer,
    UpdateContainer,
)
from controller.model.names import Key, service_key
from controller.model.records import Precondition
from tests.worlds import BRIDGE, ISOLATED, container, engine

API, DB = service_key("default", "api"), service_key("default", "db")


def told(*containers, depends=None, networks=()):
    waves = teardown(engine(*containers, networks=networks), depends=depends or {})
    return [[f"{action.verb} {action.target}" for action in wave] for wave in waves]


def gone(name: str) -> list[str]:
    return [f"{verb}-container {name}" for verb in ("update", "stop", "remove")]


def test_everything_of_ours_goes_and_the_networks_last():
    mine = container("web", origin="client", state="exited")
    networks = (ISOLATED, replace(BRIDGE, ours=False))
    assert told(container("db"), mine, networks=networks) == [
        [*gone("db.1-bbbbbbbb"), "remove-container web.1-bbbbbbbb"],
        ["remove-network platform-network"],
    ]


def test_each_action_holds_for_what_was_seen_and_says_why():
    named = replace(ISOLATED, namespace="team")
    db = container("db")
    told: dict[str, Any] = {"cause": "the instance is taken down"}
    at: dict[str, Any] = {
        "object": DB,
        "target": db.name,
        "slot": 1,
        "precondition": Precondition(id=db.id),
    }
    assert teardown(engine(db, networks=(ISOLATED, named)), depends={}, grace_s=3) == (
        (
            UpdateContainer(**at, **told, restart="no"),
            StopContainer(**at, **told, grace_s=3),
            RemoveContainer(**at, **told),
        ),
        tuple(
            RemoveNetwork(
                object=Key("Network", namespace, ISOLATED.name),
                target=ISOLATED.name,
                precondition=Precondition(id=ISOLATED.id),
                **told,
            )
            for namespace in ("default", "team")
        ),
    )
    (_, stop, _), _ = teardown(engine(db), depends={})
    assert stop == StopContainer(**at, **told, grace_s=10)


def test_what_depends_on_another_goes_in_a_wave_before_it():
    containers = (container("api"), container("db"), container("log"))
    assert told(*containers, depends={API: {DB}, DB: {service_key("default", "old")}}) == [
        [*gone("api.1-bbbbbbbb"), *gone("log.1-bbbbbbbb")],
        gone("db.1-bbbbbbbb"),
        [],
    ]


def test_a_circle_of_what_is_remembered_hinders_nothing():
    circle = told(container("api"), container("db"), depends={API: {DB}, DB: {API}})
    assert [line for wave in circle for line in wave if "remove" in line] == [
        "remove-container db.1-bbbbbbbb",
        "remove-container api.1-bbbbbbbb",
    ]


def test_nothing_is_stopped_that_is_down_and_no_policy_changed_that_is_no_already():
    down = container("api", state="exited")
    stays = container("db", settings={"restart": "no"})
    assert told(down, stays)[0] == [
        "remove-container api.1-bbbbbbbb",
        *gone("db.1-bbbbbbbb")[1:],
    ]


def stopped(*containers, remove: bool = False, depends=None) -> list[list[str]]:
    waves = services_down(
        engine(*containers), {API, DB}, depends=depends or {}, remove=remove, cause="asked"
    )
    return [[f"{action.verb} {action.target}" for action in wave] for wave in waves]


def test_services_are_stopped_for_good_and_dependents_first():
    there = (container("db"), container("api"), container("web"))
    verbs = ("update-container", "stop-container")
    assert stopped(*there, depends={API: {DB}}) == [
        [f"{verb} api.1-bbbbbbbb" for verb in verbs],
        [f"{verb} db.1-bbbbbbbb" for verb in verbs],
    ]
    assert stopped(*there, depends={API: {DB}}, remove=True) == [
        [*gone("api.1-bbbbbbbb")],
        [*gone("db.1-bbbbbbbb")],
    ]


def test_only_what_runs_is_stopped_and_nothing_of_a_client():
    down = container("db", state="exited", settings={"restart": "no"})
    mine = container("api", origin="client")
    assert stopped(down, mine) == []
    assert stopped(down, mine, remove=True) == [["remove-container db.1-bbbbbbbb"]]


def test_a_stop_takes_the_containers_own_grace_period():
    waves = services_down(
        engine(replace(container("db"), stop_grace_s=45)),
        {DB},
        depends={},
        remove=False,
        cause="asked",
    )
    (stop,) = [a for wave in waves for a in wave if isinstance(a, StopContainer)]
    assert (stop.grace_s, stop.cause) == (45, "asked")
