from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from controller.loop.metrics import ControllerMetrics
from controller.model.errors import EngineFailed, EngineUnavailable
from controller.model.observed import ContainerState
from tests import worlds
from tests.unit.loop.toy import House

LINE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")


def values(house: House) -> dict[str, float]:
    """Return the values of the text, by name with labels."""
    text = ControllerMetrics(house.controller, 0.0).text()
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_passes_actions_and_the_report_are_told(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.declare(worlds.service())
    house.settle()
    told = values(house)
    assert told["trimtab_engine_reachable"] == 1
    assert told["trimtab_observed_timestamp_seconds"] == house.watch.time
    assert told['trimtab_actions_total{verb="create-container",outcome="done"}'] == 1
    assert told['trimtab_actions_total{verb="start-container",outcome="done"}'] == 1
    assert told['trimtab_passes_total{outcome="acted"}'] >= 1
    ready = 'trimtab_resource_ready{kind="Service",namespace="default",name="web"}'
    assert told[ready] == 1
    assert not [name for name in told if name.startswith("trimtab_heals_total")], "it is new"
    house.engine.away = EngineUnavailable("engine.away", "gone")
    house.controller.connection_lost(house.engine.away)
    assert values(house)["trimtab_engine_reachable"] == 0


def test_a_failed_action_counts_as_failed(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.engine.fault = lambda action: (
        EngineFailed("engine.error", "no") if action.verb == "start-container" else None
    )
    house.declare(worlds.service())
    house.settle()
    assert values(house)['trimtab_actions_total{verb="start-container",outcome="failed"}'] >= 1


def test_a_container_that_is_put_back_is_a_heal_and_a_new_revision_is_none(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.declare(worlds.service())
    house.let_pass(300)
    name = house.engine.world.containers[0].name
    house.engine.change(
        name, lambda found: replace(found, state=ContainerState.EXITED, exit_code=137)
    )
    house.controller.subscribed()
    house.let_pass(300)
    assert values(house)['trimtab_heals_total{drift="stopped"}'] == 1
    house.engine.change(name, lambda _found: None)
    house.controller.subscribed()
    house.let_pass(300)
    assert values(house)['trimtab_heals_total{drift="missing"}'] == 1
    house.declare(worlds.service(rev="c"))
    house.let_pass(300)
    heals = {n: v for n, v in values(house).items() if n.startswith("trimtab_heals_total")}
    assert sum(heals.values()) == 2, heals
    assert values(house)['trimtab_rollouts_total{outcome="good"}'] >= 1


def test_metrics_cause_no_look_at_the_engine(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.declare(worlds.service())
    house.settle()
    looks, done = house.engine.looks, [*house.engine.done]
    values(house)
    assert (house.engine.looks, house.engine.done) == (looks, done)
    assert house.controller.keys.waiting == 0
