"""People hold services: what passes do about it, and what outlives a restart; in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.core.drift.classify import short_revision
from controller.core.drift.failures import CLEAN
from controller.model.desired.desired import Service, ServiceAct, Verb
from controller.model.desired.plan import AnyAction, StopContainer
from controller.model.errors import EngineUnavailable, StateError, UsageError
from controller.model.observed import Container, ContainerState, Image
from tests import worlds
from tests.unit.core.service.test_overrides import written
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import WEB, container, declared, service

BY = "uid:0"
#: Who is up is available: what is tested here is what is wanted, not how it comes about.
AT_ONCE = "rollout: {minHealthy: 0s}"
BLUE, GREEN = (written(f"env: {{C: {colour}}}", AT_ONCE) for colour in ("blue", "green"))


IMAGES = {image: Image(worlds.IMAGE_ID) for image in (BLUE.spec.image, worlds.IMAGE)}


def house(folder: Path, *resources: Service, there: tuple[Container, ...] = ()) -> House:
    made = House(folder, engine=ToyEngine(worlds.engine(*there, images={**IMAGES})))
    made.files.desired = declared(*resources)
    made.settle()
    return made


def act(home: House, verb: Verb, to: str = "", **scaling: Any) -> str:
    return home.operator.act(ServiceAct(verb, WEB, BY, to=to, **scaling)).text


def rolled_out(folder: Path) -> House:
    """A house where one revision ran well, and the next does."""
    home = house(folder, BLUE)
    home.declare(GREEN)
    home.settle()
    assert running(home) == [f"web.1-{short_revision(GREEN.revision)}"]
    return home


def running(home: House) -> list[str]:
    return sorted(c.name for c in home.engine.world.containers if c.running)


def outcomes(home: House) -> list[tuple[str, str]]:
    kept = home.store.of(WEB).overrides.revisions
    return [(short_revision(each.revision), each.outcome) for each in kept]


def stop(home: House, name: str = "web.1-bbbbbbbb") -> None:
    home.engine.change(name, lambda c: replace(c, state=ContainerState.EXITED, exit_code=143))


def restarted(home: House) -> House:
    home.restart()
    return home


@pytest.mark.parametrize("after", [lambda home: home, restarted])
def test_a_suspended_service_is_left_as_it_is_until_it_is_resumed(
    tmp_path: Path, after: Callable[[House], House]
) -> None:
    home = house(tmp_path, service(), there=(container(),))
    assert act(home, "suspend") == "suspended: nothing is changed until it is resumed"
    stop(home)
    after(home)
    assert home.let_pass(3600) == []
    home.declare(service(rev="a", replicas=3))
    assert home.let_pass(3600) == []
    assert home.condition("web", "Suspended") == ("True", "ByCommand")
    assert home.condition("web", "Ready") == ("False", "ByCommand")
    assert home.condition("web", "CrashLoop") == ("", "")
    act(home, "resume")
    assert len(home.let_pass(60)) > 5
    assert running(home) == [f"web.{n}-aaaaaaaa" for n in (1, 2, 3)]
    assert home.condition("web", "Suspended") == ("", "")


def test_a_suspended_service_outlives_its_document_and_itself(tmp_path: Path) -> None:
    home = house(tmp_path, service(), service("api"), there=(container(), container("api")))
    act(home, "suspend")
    home.declare(service("api"))
    assert home.let_pass(3600) == []
    home.engine.change("web.1-bbbbbbbb", lambda _container: None)
    assert home.let_pass(3600) == []
    assert home.condition("web", "Suspended") == ("True", "ByCommand")
    restarted(home).declare(service(), service("api"))
    assert home.let_pass(3600) == []
    act(home, "resume")
    assert home.let_pass(60) == [
        "create-container web.1-bbbbbbbb",
        "start-container web.1-bbbbbbbb",
    ]


def test_what_is_resumed_without_a_document_passes_the_prune_guard(tmp_path: Path) -> None:
    home = house(tmp_path, service(), service("api"), there=(container(), container("api")))
    act(home, "suspend")
    home.declare(service("api"))
    assert home.let_pass(600) == []
    act(home, "resume")
    assert home.let_pass(1.9) == []
    assert home.let_pass(60)[-1] == "remove-container web.1-bbbbbbbb"


def test_a_suspension_ends_a_pass_that_is_under_way(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))

    def fault(action: AnyAction) -> None:
        if isinstance(action, StopContainer):
            act(home, "suspend")

    home.engine.fault = fault
    home.declare(service(rev="a"))
    done = home.let_pass(3600)
    assert done[-1] == "stop-container web.1-bbbbbbbb", "what had begun is the last"
    assert [c.name for c in home.engine.world.containers] == ["web.1-bbbbbbbb", "web.1-aaaaaaaa"]


def test_a_generation_that_a_held_service_has_not_acted_on_is_not_observed(tmp_path: Path) -> None:
    home = rolled_out(tmp_path)
    act(home, "rollback")
    home.settle()
    home.declare(written("env: {C: red}", AT_ONCE), service("api"))
    act(home, "suspend")
    home.let_pass(600)
    generation = home.store.of(WEB).generation
    assert generation is not None
    assert (generation.number, generation.observed) == (3, 2)


@pytest.mark.parametrize("after", [lambda home: home, restarted])
def test_a_rollback_pins_until_its_document_asks_for_something_else(
    tmp_path: Path, after: Callable[[House], House]
) -> None:
    home = rolled_out(tmp_path)
    assert outcomes(home) == [
        (short_revision(BLUE.revision), "good"),
        (short_revision(GREEN.revision), "good"),
    ]
    assert act(home, "rollback").startswith(f"rolls back to {short_revision(BLUE.revision)}")
    home.settle()
    assert running(home) == [f"web.1-{short_revision(BLUE.revision)}"]
    after(home)
    assert home.let_pass(3600) == []
    assert home.condition("web", "RolledBack") == ("True", "ByCommand")
    assert home.condition("web", "Ready") == ("True", "AsDeclared")
    home.declare(written("env: {C: green}", "replicas: 2", AT_ONCE))
    home.settle()
    assert running(home) == [f"web.{n}-{short_revision(GREEN.revision)}" for n in (1, 2)]
    assert home.condition("web", "RolledBack") == ("", "")
    assert home.store.of(WEB).overrides.pin is None


def test_a_pinned_service_is_healed_as_it_is_pinned(tmp_path: Path) -> None:
    home = rolled_out(tmp_path)
    act(home, "rollback")
    home.settle()
    home.engine.change(running(home)[0], lambda _container: None)
    home.let_pass(60)
    assert running(home) == [f"web.1-{short_revision(BLUE.revision)}"]


def test_resuming_goes_on_to_what_is_declared(tmp_path: Path) -> None:
    home = rolled_out(tmp_path)
    act(home, "rollback", to=short_revision(BLUE.revision))
    home.settle()
    act(home, "resume")
    home.settle()
    assert running(home) == [f"web.1-{short_revision(GREEN.revision)}"]
    generation = home.store.of(WEB).generation
    assert generation is not None and generation.observed == generation.number == 2


def test_a_restart_replaces_each_container_once(tmp_path: Path) -> None:
    wanted = service(replicas=2, rollout={"minHealthy": "0s"})
    home = house(tmp_path, wanted, there=(container(), container(slot=2)))
    assert act(home, "restart") == "2 containers to be replaced"
    home.settle()
    assert running(home) == ["web.1-bbbbbbbb.2", "web.2-bbbbbbbb.2"]
    assert home.store.of(WEB).overrides.restarting is None
    assert home.let_pass(3600) == []


def test_a_restart_goes_on_after_one_of_the_controller(tmp_path: Path) -> None:
    home = house(tmp_path, service(replicas=2), there=(container(), container(slot=2)))
    act(home, "restart")
    home.engine.fault = lambda action: (
        EngineUnavailable("engine.unavailable", "it is away") if action.slot == 2 else None
    )
    home.settle()
    home.engine.fault = lambda _action: None
    restarted(home).let_pass(60)
    assert running(home) == ["web.1-bbbbbbbb.2", "web.2-bbbbbbbb.2"]


def test_what_cannot_be_saved_is_not_done(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StateError):
        act(home, "suspend")
    stop(home)
    home.engine.change("web.1-bbbbbbbb", lambda _container: None)
    assert home.let_pass(60)[-1] == "start-container web.1-bbbbbbbb"


def test_it_is_durable_once_it_is_answered(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    act(home, "suspend")
    saved = json.loads((tmp_path / "state.json").read_text())
    assert saved["steerings"]["Service/default/web"]["suspension"]["by"] == BY


def test_who_only_asks_changes_nothing(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    before = home.store.all_overrides()
    done = home.operator.act(ServiceAct("suspend", WEB, BY), only_ask=True)
    assert (done.changed, home.store.all_overrides()) == (True, before)


def test_an_act_before_anything_was_read_reads_the_files(tmp_path: Path) -> None:
    home = House(tmp_path, engine=ToyEngine(worlds.engine(container(rev="a"))))
    home.files.desired = declared(service())
    home.engine.away = EngineUnavailable("engine.unavailable", "it is away")
    act(home, "suspend")
    home.engine.away = None
    assert home.let_pass(3600) == []
    with pytest.raises(UsageError):
        act(home, "restart")


def test_a_restart_that_nobody_can_look_at_is_not_begun(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    home.engine.away = EngineUnavailable("engine.unavailable", "it is away")
    with pytest.raises(EngineUnavailable):
        act(home, "restart")
    assert home.store.of(WEB).overrides.restarting is None


def test_a_plan_is_applied_no_further_once_people_want_something_else(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    home.files.desired = declared(service(rev="a"))
    digest = home.controller.plan_everything().plan.digest

    def fault(action: AnyAction) -> None:
        if isinstance(action, StopContainer):
            act(home, "suspend")

    home.engine.fault = fault
    done = home.operator.apply_exactly(digest, approved=False, requested_by=BY)
    assert done.interrupted
    assert home.engine.done[-1] == "stop-container web.1-bbbbbbbb"


def test_exits_of_a_suspended_service_are_not_counted(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    act(home, "suspend")
    for count in range(1, 8):
        (there,) = home.engine.world.containers
        again = replace(there, restart_count=count)
        home.engine.world = replace(home.engine.world, containers=(again,))
        home.let_pass(310)
    assert all(s.history == CLEAN for s in home.store.troubled().values())


def test_no_rollout_fails_for_what_becomes_of_a_suspended_service(tmp_path: Path) -> None:
    home = house(tmp_path, service(), there=(container(),))
    act(home, "suspend")
    home.engine.change("web.1-bbbbbbbb", lambda c: replace(c, health="unhealthy"))
    home.let_pass(3600)
    assert home.store.of(WEB).rollout.failed == ""


@pytest.mark.parametrize("after", [lambda home: home, restarted])
def test_a_scaled_service_keeps_its_number_through_rollouts_until_it_is_resumed(
    tmp_path: Path, after: Callable[[House], House]
) -> None:
    home = house(tmp_path, BLUE)
    assert act(home, "scale", replicas=3).startswith("scales from 1 to 3 replicas")
    after(home).declare(GREEN)
    home.settle()
    green = short_revision(GREEN.revision)
    assert running(home) == [f"web.{n}-{green}" for n in (1, 2, 3)]
    assert home.condition("web", "Scaled") == ("True", "ByCommand")
    assert home.condition("web", "Ready") == ("True", "AsDeclared")
    resources = home.controller.status()["resources"]
    assert isinstance(resources, list)
    (row,) = resources
    assert row["observedGeneration"] == row["generation"] == 2
    act(home, "resume")
    home.settle()
    assert running(home) == [f"web.1-{green}"]
    assert home.condition("web", "Scaled") == ("", "")


@pytest.mark.parametrize("after", [lambda home: home, restarted])
def test_a_scaling_with_an_end_ends_by_itself_at_its_time(
    tmp_path: Path, after: Callable[[House], House]
) -> None:
    home = house(tmp_path, BLUE)
    act(home, "scale", replicas=3, until=home.watch.now() + 600)
    home.settle()
    assert home.condition("web", "Scaled") == ("True", "Limited")
    after(home).let_pass(590)
    assert len(running(home)) == 3
    home.let_pass(20)
    assert running(home) == [f"web.1-{short_revision(BLUE.revision)}"]
    assert home.store.of(WEB).overrides.scaling is None


def test_another_number_in_the_document_ends_a_scaling(tmp_path: Path) -> None:
    home = house(tmp_path, BLUE)
    act(home, "scale", replicas=0)
    home.let_pass(60)
    assert running(home) == []
    home.declare(written("env: {C: blue}", AT_ONCE, "replicas: 2"))
    home.settle()
    assert len(running(home)) == 2
    assert home.condition("web", "Scaled") == ("", "")
