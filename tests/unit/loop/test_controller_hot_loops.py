"""What fails, or is ended by others, for ever is acted on a bounded number of times an hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.core.service.rollout_progress import WATCH_S
from controller.model.desired.desired import ServiceAct
from controller.model.desired.plan import AnyAction, StartContainer
from controller.model.errors import EngineError, Refused
from controller.model.observed import Container, ContainerState, Ending
from controller.model.quantities import format_instant
from controller.ports import EngineEvent
from tests.unit.loop.test_controller import house
from tests.unit.loop.toy import House
from tests.worlds import WEB, service

HOUR_S = 3600.0
REASON = "effective.mount: tmpfs / is mounted at /x, which was not admitted"


def ends_each_start(home: House) -> Callable[[AnyAction], EngineError | None]:
    """A broker that ends each container for a violation, right after its start."""
    count = [0]

    def fault(action: AnyAction) -> EngineError | None:
        if not isinstance(action, StartContainer):
            return None
        count[0] += 1
        record = f"v{count[0]:04}"

        def end(container: Container) -> Container:
            return replace(
                container,
                state=ContainerState.EXITED,
                exit_code=137,
                settings=replace(container.settings, restart="no"),
                violation=record,
                ending=Ending(container.id, "container.kill", "broker", -1, "", REASON),
            )

        home.engine.change(action.target, end)
        home.controller.handle_event(EngineEvent(count[0], "container", "die", "", action.object))
        return Refused("effective.mount", "the container was stopped")

    return fault


def test_what_the_broker_ends_at_each_start_is_tried_after_growing_pauses_and_stalled(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(rollout={"onFailure": "Pause"}),))
    home.engine.fault = ends_each_start(home)

    def starts(seconds: float) -> int:
        return sum(each.startswith("start-container") for each in home.let_pass(seconds))

    assert [starts(0.5), starts(1), starts(5), starts(10), starts(20)] == [1, 1, 1, 1, 1]
    assert home.condition("web", "CrashLoop")[0] == "True"
    failing = f"slot 1 failed 5 times in 10 min: was ended by the broker: {REASON}"
    assert home.message("web", "CrashLoop") == failing
    assert home.condition("web", "Stalled") == ("True", "effective.violated")
    assert REASON in home.message("web", "Stalled")
    assert "journal show v0005" in home.message("web", "PolicyViolation")
    assert REASON in home.message("web", "Paused")
    home.let_pass(600)
    before = len(home.engine.done)
    assert starts(HOUR_S) == 12, "one each five minutes"
    assert len(home.engine.done) - before == 3 * 12, "it is created, the last one removed, started"
    # A controller that is started anew knows it still.
    home.store.save()
    home.restart()
    assert home.settle() == []
    # Who mends the cause changes the document, or asks.
    home.engine.fault = lambda _action: None
    home.declare(service(rev="c"))
    assert [each for each in home.settle() if each.startswith("start")] == [
        "start-container web.1-cccccccc"
    ]


def test_a_single_violation_is_healed_after_a_second_and_forgotten(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(2 * WATCH_S)
    down = ends_each_start(home)
    home.engine.fault = down
    down(StartContainer(object=service().key, target="web.1-bbbbbbbb", cause="", slot=1))
    home.engine.fault = lambda _action: None
    assert home.settle() == []
    assert home.condition("web", "PolicyViolation") == ("True", "effective.violated")
    assert home.let_pass(1.1) == [
        "create-container web.1-bbbbbbbb.2",
        "remove-container web.1-bbbbbbbb",
        "start-container web.1-bbbbbbbb.2",
    ]
    home.let_pass(1)
    assert home.condition("web", "PolicyViolation") == ("", "")
    assert home.condition("web", "Ready")[0] == "True"
    cause = home.engine.contexts[-2].cause
    assert cause == f"web.1-bbbbbbbb was ended by the broker: {REASON}"


def ends_by_itself(container: Container) -> Container:
    return replace(container, state=ContainerState.EXITED, exit_code=1)


def has_another_source(action: AnyAction, *names: str) -> EngineError | None:
    """A broker that finds the mounts' sources of these containers, or of all, replaced."""
    if isinstance(action, StartContainer) and (not names or action.target in names):
        return Refused("mount.changed", "the bind source /s is now another file")
    return None


def test_a_container_whose_mounted_file_was_replaced_is_created_again_at_once(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(2 * WATCH_S)
    home.engine.change("web.1-bbbbbbbb", ends_by_itself)
    home.engine.fault = lambda action: has_another_source(action, "web.1-bbbbbbbb")
    home.controller.handle_event(EngineEvent(1, "container", "die", "", service().key))
    assert home.let_pass(5) == [
        "start-container web.1-bbbbbbbb !",
        "create-container web.1-bbbbbbbb.2",
        "remove-container web.1-bbbbbbbb",
        "start-container web.1-bbbbbbbb.2",
    ]
    causes = {context.cause for context in home.engine.contexts[-3:]}
    replaced = "a mount's source was replaced on the host since web.1-bbbbbbbb was created"
    assert causes == {replaced}
    home.let_pass(1)
    assert home.condition("web", "Ready")[0] == "True"


def test_a_source_that_is_replaced_all_the_time_makes_no_hot_loop(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(rollout={"onFailure": "Pause"}),))
    home.engine.fault = has_another_source
    home.let_pass(600)
    starts = [each for each in home.let_pass(HOUR_S) if each.startswith("start-container")]
    assert 0 < len(starts) <= 12, "one each five minutes"


def ending(home: House, how: str) -> Callable[[], None]:
    """Somebody who ends the service's container whenever it runs, past the gate or through it."""

    def end() -> None:
        for container in home.engine.world.containers:
            if not container.running:
                continue
            if how == "removes":
                home.engine.change(container.name, lambda _c: None)
            else:
                home.engine.change(
                    container.name, lambda c: replace(c, state=ContainerState.EXITED)
                )
            event = EngineEvent(1, "container", "die", container.id, container.key)
            home.controller.handle_event(event)

    return end


@pytest.mark.parametrize("how", ["removes", "stops"])
def test_what_somebody_ends_again_and_again_is_healed_at_once_three_times_then_more_slowly(
    tmp_path: Path, how: str
) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(2 * WATCH_S)
    end = ending(home, how)
    word = {"removes": "removed", "stops": "stopped"}[how]
    acts = {"removes": 2, "stops": 1}[how]
    for _ in range(3):
        end()
        assert len(home.settle()) == acts
        assert home.condition("web", "Contended") == ("", "")
    for pause_s in (2, 6, 18, 54, 162, 300, 300):
        end()
        assert home.settle() == []
        assert home.condition("web", "Contended") == ("True", "EndedAgain")
        assert home.message("web", "Contended").startswith(
            f"ended from outside again and again: slot 1: its container is {word} ("
        )
        report: Any = home.controller.status()
        reason = report["resources"][0]["nextTry"]["reason"]
        assert reason == f"its container is {word} from outside again and again"
        assert home.let_pass(pause_s - 0.1) == []
        assert len(home.let_pass(0.2)) == acts
    home.let_pass(605)
    assert home.condition("web", "Contended") == ("", "")


def test_the_cause_of_an_act_says_who_ended_what_it_puts_right(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(2 * WATCH_S)

    def cause_after(end: Callable[[], None]) -> str:
        end()
        assert home.settle()
        return home.engine.contexts[-1].cause

    removed = "slot 1 is missing: web.1-bbbbbbbb was removed"
    assert cause_after(ending(home, "removes")) == f"{removed} from outside"
    stopped = "web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 0"
    assert cause_after(ending(home, "stops")) == stopped

    def by_operator() -> None:
        (there,) = home.engine.world.containers
        record = Ending(there.id, "container.remove", "operator", 1000, "")
        home.engine.world = replace(home.engine.world, endings={there.id: record})
        ending(home, "removes")()

    assert cause_after(by_operator) == f"{removed} by uid:1000 through the gate"


def test_what_trimtab_removed_itself_was_removed_by_nobody_else(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(replicas=2),))
    home.settle()
    for _ in range(5):
        home.declare(service(replicas=1))
        home.let_pass(10)
        home.declare(service(replicas=2))
        home.let_pass(10)
    assert home.condition("web", "Contended") == ("", "")
    assert home.store.troubled() == {}
    assert home.engine.contexts[-1].cause == "slot 2 is missing"


def test_after_down_what_failed_before_is_tried_at_once_and_what_people_hold_stays(
    tmp_path: Path,
) -> None:
    held = service("held")
    services = (service(rollout={"onFailure": "Pause"}), held)
    home = house(tmp_path, services=services)
    home.settle()
    home.operator.act(ServiceAct("suspend", held.key, "uid:0"))
    home.engine.fault = ends_each_start(home)
    home.declare(service(rev="c", rollout={"onFailure": "Pause"}), held)
    home.let_pass(60)
    assert home.condition("web", "Paused")[0] == "True"
    home.store.save()

    home.engine.world = replace(home.engine.world, containers=(), taken_down="d1")
    home.engine.fault = lambda _action: None
    home.restart()
    home.controller.reload()
    first = home.controller.plan_everything().plan.actions[0]
    assert (first.verb, first.cause) == ("create-container", "slot 1 is missing"), "plan knows too"
    assert home.settle() == ["create-container web.1-cccccccc", "start-container web.1-cccccccc"]
    for condition in ("CrashLoop", "Paused", "PolicyViolation", "Contended"):
        assert home.condition("web", condition) == ("", "")
    assert home.condition("web", "Stalled")[0] == "False"
    assert home.condition("held", "Suspended")[0] == "True"
    assert home.store.of(service().key).generation is not None
    # It is taken account of once.
    home.engine.fault = ends_each_start(home)
    home.declare(service(rev="d"), held)
    home.let_pass(10)
    home.store.save()
    home.restart()
    assert home.settle() == [], "in its pause"


@pytest.mark.parametrize("told", ["while it is followed", "before that", "as the engine stops"])
def test_a_stop_past_the_gate_of_a_service_in_boot_order_is_no_failure_if_the_engine_told_of_it(
    tmp_path: Path, told: str
) -> None:
    home = house(tmp_path, services=(service(restart={"policy": "Always", "boot": "Ordered"}),))
    home.let_pass(2 * WATCH_S)
    (there,) = home.engine.world.containers
    asked_ns = round(home.watch.now() * 1e9) - (told == "before that")
    home.controller.subscribed()
    home.controller.handle_event(
        EngineEvent(asked_ns, "container", "kill", there.id, None, signal="15")
    )
    if told == "as the engine stops":
        home.controller.events_lost()
    times: dict[str, Any] = {
        "started_at": "1970-01-01T00:00:00Z",
        "finished_at": format_instant(home.watch.now()),
    }
    home.engine.change(there.name, lambda c: replace(c, **times))
    ending(home, "stops")()
    home.controller.subscribed(after_silence=True)
    is_known = told == "while it is followed"
    assert home.settle() == ([f"start-container {there.name}"] if is_known else [])
    assert home.store.slot((WEB, 1)).history.count == (not is_known)
    home.let_pass(1)
    cause = "exited with 0: it ended by itself, or was stopped with docker or the engine"
    if is_known:
        cause = "was stopped on the engine's own socket: it exited with 0"
    assert home.engine.contexts[-1].cause.startswith(f"{there.name} {cause}")
