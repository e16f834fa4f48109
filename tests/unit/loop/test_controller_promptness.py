"""What changes while a pass runs is acted on soon, and not only by the next observation of everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineError
from tests import worlds
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import container, declared, service

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
