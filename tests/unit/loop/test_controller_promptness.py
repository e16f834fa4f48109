"""What changes while a pass runs is acted on soon, and not only by the next observation of everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineError, EngineUnavailable, UsageError
from tests import worlds
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import WEB, container, declared, service

API = service("api")
LAB = service("probe", namespace="lab")
LAB_NETWORK = "platform-network.lab"
#: The time within which everything is done: far less than the time to the next observation of everything.
SOON_S = 10.0


def house(folder: Path, *services: object) -> House:
    """A service ``api`` runs, and *services* are declared too."""
    made = House(folder, engine=ToyEngine(worlds.engine(container("api"))))
    made.declare(API, *services)
    return made


def during(home: House, verb: str, change: Callable[[], None]) -> None:
    """Change the world at the first action of a kind: chores run while passes run."""

    def fault(action: AnyAction) -> EngineError | None:
        if action.verb == verb:
            home.engine.fault = lambda _action: None
            change()
        return None

    home.engine.fault = fault


def vanish(home: House) -> None:
    """All documents but ``api`` vanish, and the controller reads the files."""
    home.files.desired = declared(API)
    home.controller.reload()


def networks(home: House) -> set[str]:
    return {network.name for network in home.engine.world.networks}


def test_the_network_of_a_namespace_goes_right_after_its_last_service(tmp_path: Path) -> None:
    home = house(tmp_path, LAB)
    home.settle()
    assert LAB_NETWORK in networks(home)
    home.declare(API)
    done = home.let_pass(SOON_S)
    assert done[-2:] == ["remove-container lab.probe.1-bbbbbbbb", f"remove-network {LAB_NETWORK}"]


def test_a_network_that_is_created_for_a_document_that_vanishes_meanwhile_goes(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, LAB)
    during(home, "create-network", lambda: vanish(home))
    home.let_pass(SOON_S)
    assert LAB_NETWORK not in networks(home)
    assert [c.key for c in home.engine.world.containers] == [API.key]


def test_a_removal_that_settles_outlasts_the_approval_of_an_outdated_plan(tmp_path: Path) -> None:
    home = house(tmp_path, LAB)
    home.settle()
    home.declare(API)
    home.settle()
    with pytest.raises(UsageError):
        home.controller.observe_everything(approved=True, requested_by="uid:0", plan="outdated")
    assert "remove-container lab.probe.1-bbbbbbbb" in home.let_pass(SOON_S)


def test_a_removal_that_settles_outlasts_an_observation_that_fails(tmp_path: Path) -> None:
    home = house(tmp_path, LAB)
    home.settle()
    home.declare(API)
    home.settle()
    home.engine.away = EngineUnavailable("broker.unavailable", "no broker answers")
    with pytest.raises(EngineUnavailable):
        home.operator.convergence()
    home.engine.away = None
    assert "remove-container lab.probe.1-bbbbbbbb" in home.let_pass(SOON_S)


def test_a_service_that_is_renamed_during_its_first_start_leaves_no_container(
    tmp_path: Path,
) -> None:
    renamed = replace(service("site"), moved=(WEB,))
    home = house(tmp_path, service())

    def rename() -> None:
        home.files.desired = declared(API, renamed)
        home.controller.reload()

    during(home, "start-container", rename)
    home.let_pass(SOON_S)
    assert sorted(c.key.name for c in home.engine.world.containers) == ["api", "site"]


def test_a_pass_during_an_observation_of_everything_isnt_forgotten(tmp_path: Path) -> None:
    home = house(tmp_path)
    home.settle()
    home.files.desired = declared(API, LAB)
    home.controller.reload()
    home.files.desired = declared(API)

    def passes() -> None:
        home.engine.after_look = lambda: None
        keys = home.controller.keys
        while (key := keys.poll()) is not None:
            home.controller.handle(key)
            keys.done(key)

    home.engine.after_look = passes  # the observation began before, and is adopted afterwards
    home.controller.observe_everything()
    assert "start-container lab.probe.1-bbbbbbbb" in home.engine.done
    home.let_pass(SOON_S)
    assert [c.key for c in home.engine.world.containers] == [API.key]
