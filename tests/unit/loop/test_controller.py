"""The controller without threads: files in, containers kept, everything said; in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.core.drift.failures import CLEAN
from controller.core.planning.quarantine import QuarantineRules
from controller.core.review.plan_json import change_text
from controller.core.service.rollout_progress import WATCH_S
from controller.core.status.facts import Report
from controller.loop.state.store import StateStore
from controller.loop.workqueue import Chore
from controller.model.desired.desired import Desired, Service, ServiceAct, SourceIdentity
from controller.model.desired.plan import AnyAction, PullImage, StartContainer, StopContainer
from controller.model.desired.spec.service import JobSpec
from controller.model.errors import (
    Act,
    Conflict,
    EngineError,
    EngineFailed,
    EngineUnavailable,
    OverShare,
    PullFailed,
    Refused,
    ReplyLost,
    UsageError,
)
from controller.model.names import ForeignContainer, job_key, service_key
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_instant
from controller.ports import EngineEvent
from tests import worlds
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import container, declared, service

WEB1 = "web.1-bbbbbbbb"
WEB2 = "web.2-bbbbbbbb"
API1 = "api.1-bbbbbbbb"
NETWORK = "create-network platform-network"
RUN_WEB1 = [f"create-container {WEB1}", f"start-container {WEB1}"]
AWAY = EngineUnavailable("broker.unavailable", "no broker answers")


def house(folder: Path, *containers: Container, **files: object) -> House:
    made = House(folder, engine=ToyEngine(worlds.engine(*containers)))
    made.files.desired = replace(made.files.desired, **files)  # type: ignore[arg-type]
    return made


def empty_house(folder: Path) -> House:
    """Nothing is declared, and nothing is on the engine but the image."""
    return House(folder, engine=ToyEngine(worlds.engine(networks=())))


def failing(
    verb: str, error: Callable[[], EngineError], *, times: int = 10**9, target: str = ""
) -> Callable[[AnyAction], EngineError | None]:
    """An engine that fails this action, the first *times* times."""
    left = [times]

    def fault(action: AnyAction) -> EngineError | None:
        if action.verb != verb or target not in ("", action.target) or left[0] == 0:
            return None
        left[0] -= 1
        return error()

    return fault


def test_a_new_file_is_running_after_one_pass_and_the_next_finds_nothing_to_do(
    tmp_path: Path,
) -> None:
    home = empty_house(tmp_path)
    assert home.settle() == []
    home.declare(service())
    assert home.settle() == [NETWORK, *RUN_WEB1]
    assert home.condition("web", "Ready") == ("True", "AsDeclared")
    assert home.let_pass(3600) == []


def test_what_was_declared_before_the_start_runs_after_the_first_look(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(replicas=2),))
    assert home.settle() == [
        *RUN_WEB1,
        f"create-container {WEB2}",
        f"start-container {WEB2}",
    ]


@pytest.mark.parametrize("noticed", ["by its event", "by the next list", "by the full look"])
def test_a_removed_container_is_replaced_whatever_notices_it(tmp_path: Path, noticed: str) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    home.engine.change(WEB1, lambda _container: None)
    if noticed == "by its event":
        home.controller.handle_event(EngineEvent(1, "container", "destroy", f"id:{WEB1}", None))
        assert home.settle() == RUN_WEB1
    elif noticed == "by the next list":
        assert home.let_pass(35) == RUN_WEB1
    else:
        home.controller.chores.add(Chore.OBSERVE)
        assert home.settle() == RUN_WEB1


def test_a_change_while_everything_is_first_observed_gets_a_pass_afterwards(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))

    def remove_behind_the_snapshot() -> None:
        home.engine.after_look = lambda: None
        home.engine.change(WEB1, lambda _container: None)
        gone = EngineEvent(1, "container", "destroy", f"id:{WEB1}", worlds.WEB)
        home.controller.handle_event(gone)
        assert home.controller.keys.poll() == worlds.WEB
        assert home.controller.handle(worlds.WEB) is None
        home.controller.keys.done(worlds.WEB)

    home.engine.after_look = remove_behind_the_snapshot
    assert home.settle() == RUN_WEB1


def test_a_reported_health_that_the_snapshot_has_is_no_news(tmp_path: Path) -> None:
    home = house(tmp_path, container(health="healthy"), services=(service(),))
    home.settle()
    same = EngineEvent(1, "container", "health_status", f"id:{WEB1}", worlds.WEB, "healthy")
    other = replace(same, health="unhealthy")
    home.controller.handle_event(same)
    assert home.controller.keys.idle
    home.controller.handle_event(other)
    assert home.controller.keys.poll() == worlds.WEB
    # The pass that runs can replace the snapshot by an older health.
    home.controller.handle_event(same)
    home.controller.keys.done(worlds.WEB)
    assert home.controller.keys.poll() == worlds.WEB


@pytest.mark.parametrize("held", [True, False])
def test_a_slot_takes_its_address_back_once_a_container_of_others_leaves(
    tmp_path: Path, held: bool
) -> None:
    there = container(holders=(("platform-network", "10.208.0.2", "guest"),) if held else ())
    home = house(tmp_path, there, services=(service(),))
    networks = tuple(
        replace(each, held=(("10.208.0.2", "guest"),) if held else ())
        for each in home.engine.world.networks
    )
    home.engine.world = replace(home.engine.world, networks=networks)
    home.settle()
    home.controller.handle_event(EngineEvent(1, "container", "disconnect", "guest's", None))
    assert home.controller.keys.poll() == (worlds.WEB if held else None)


def test_a_service_with_an_ended_container_precedes_the_others(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    for key, action in ((service_key("default", "api"), "start"), (worlds.WEB, "die")):
        home.controller.handle_event(EngineEvent(1, "container", action, "c1", key))
    assert home.controller.keys.poll() == worlds.WEB


def test_an_alteration_that_no_list_shows_is_healed_by_the_full_look(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    assert home.let_pass(100) == []  # its rollout isn't watched any more
    home.engine.change(WEB1, lambda c: replace(c, settings=replace(c.settings, memory=1 << 30)))
    assert home.let_pass(100) == []
    assert home.let_pass(150) == [f"update-container {WEB1}"]


def test_what_is_altered_again_and_again_is_healed_more_slowly_and_said(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    heal = [f"update-container {WEB1}"]

    def alter() -> list[str]:
        home.engine.change(WEB1, lambda c: replace(c, settings=replace(c.settings, pids=9)))
        home.controller.handle_event(EngineEvent(1, "container", "update", f"id:{WEB1}", None))
        return home.settle()

    def contended() -> list[str]:
        report: Any = home.controller.status()
        conditions = report["resources"][0]["conditions"]
        return [c["message"] for c in conditions if c["type"] == "Contended"]

    for _ in range(3):
        assert alter() == heal
        assert contended() == []
    for pause_s in (2, 6, 18):
        assert alter() == []
        assert contended()[0].startswith("altered again and again: slot 1: pids (")
        assert home.let_pass(pause_s - 0.1) == []
        assert home.let_pass(0.2) == heal
    # A controller that is started anew knows it still.
    home.store.save()
    fresh = StateStore(tmp_path / "state.json")
    assert fresh.load(stamp="") is None
    assert (
        fresh.slot((worlds.WEB, 1)).contentions
        == home.store.slot((worlds.WEB, 1)).contentions
        != {}
    )
    home.let_pass(605)
    assert contended() == []
    assert alter() == heal


def test_a_service_that_vanishes_from_the_files_goes_after_a_second_look(tmp_path: Path) -> None:
    home = house(
        tmp_path,
        container(),
        container("api"),
        services=(service(), service("api")),
    )
    home.settle()
    home.declare(service("api"))
    assert home.settle() == []
    assert home.let_pass(2.5) == [
        f"update-container {WEB1}",
        f"stop-container {WEB1}",
        f"remove-container {WEB1}",
    ]


def test_a_service_that_vanishes_from_the_files_during_its_first_start_goes(tmp_path: Path) -> None:
    home = house(tmp_path, container("api"), services=(service(), API))

    def vanishes(action: AnyAction) -> EngineError | None:
        if isinstance(action, StartContainer):
            home.files.desired = declared(API)
            home.controller.reload()
        return None

    home.engine.fault = vanishes
    assert f"start-container {WEB1}" in home.settle()
    assert home.let_pass(5)[-1] == f"remove-container {WEB1}"


def test_what_nobody_has_seen_yet_goes_before_what_it_depends_on(tmp_path: Path) -> None:
    front = service("front", dependsOn=[{"name": "api", "condition": "Started"}])
    home = house(tmp_path, container(), services=(service(), API, front))
    home.settle()
    (seen,) = (c for c in home.engine.world.containers if c.key == front.key)
    home.engine.change(seen.name, lambda _container: None)
    home.controller.observe_everything()
    with home.controller.keys.replacing(seen.key):
        pass
    there = (*home.engine.world.containers, seen)
    home.engine.world = replace(home.engine.world, containers=there)
    home.engine.away = AWAY
    home.declare(service())
    assert home.let_pass(5) == []
    home.declare(service(env={"LEVEL": "info"}))
    home.let_pass(1)
    assert home.store.prune.going == frozenset()
    home.engine.away = None
    stops = [line for line in home.let_pass(60) if line.startswith("stop")]
    assert stops == [f"stop-container {seen.name}", f"stop-container {API1}"]


def test_what_is_stopped_while_it_is_watched_is_left_in_peace(tmp_path: Path) -> None:
    home = house(tmp_path, container("api"), services=(service(), API))
    failure = EngineFailed("engine.failed", "no")
    home.engine.fault = failing("start-container", lambda: failure, times=1)
    home.let_pass(100)
    course = home.store.of(worlds.WEB).rollout
    assert (course.good, (course.held_s or 0) >= WATCH_S) == ("", True)
    home.declare(service(state="Stopped"), API)
    assert home.let_pass(5)[-1] == f"stop-container {WEB1}"
    looks = home.engine.looks
    assert home.let_pass(200) == []
    assert home.engine.looks - looks < 5


def test_a_clock_that_is_set_makes_no_second_look_of_the_next_and_none_late(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, container(), container("api"), services=(service(), API))
    home.settle()
    for jump_s in (86_400.0, -2 * 86_400.0):
        home.declare(API)
        assert home.settle() == []
        home.watch.jumped += jump_s
        home.controller.observe_everything()
        assert home.let_pass(1.5) == []
        home.declare(service(), API)
        assert home.settle() == []
    home.declare(API)
    home.settle()
    home.watch.jumped -= 86_400.0
    home.controller.observe_everything()
    assert home.let_pass(2.5)[-1] == f"remove-container {WEB1}"


def test_an_emptied_directory_removes_nothing_and_says_so(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    empty = SourceIdentity("desired-state", present=True, device=7, documents=0)
    home.files.desired = declared(identity=empty)
    home.controller.files_changed()
    assert home.let_pass(700) == []
    assert home.condition("web", "PrunePending") == ("True", "PrunePending")
    home.controller.observe_everything(approved=True)
    assert home.settle()[-1] == f"remove-container {WEB1}"


def test_a_blind_document_removes_nothing(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    home.files.desired = declared(blind=True)
    home.controller.files_changed()
    assert home.let_pass(700) == []


API = service("api")


def at_the_first_stop(home: House, desired: Desired) -> None:
    """Have the files changed to *desired* while the first container is being stopped."""
    stopped: list[AnyAction] = []

    def fault(action: AnyAction) -> EngineError | None:
        if isinstance(action, StopContainer) and not stopped:
            stopped.append(action)
            home.files.desired = desired
            home.controller.reload()
        return None

    home.engine.fault = fault


def running_slots(home: House) -> list[int]:
    return sorted(c.slot for c in home.engine.world.containers if c.name != API1 and c.running)


@pytest.mark.parametrize(
    "change",
    [
        declared(API, blind_keys=[worlds.WEB]),
        declared(API, blind=True),
        declared(API, identity=replace(worlds.HERE, present=False)),
    ],
    ids=["it is back but broken", "another file can't be read", "the directory is gone"],
)
def test_a_removal_that_has_begun_goes_no_further_once_something_cannot_be_read(
    tmp_path: Path, change: Desired
) -> None:
    web = [container(slot=slot) for slot in (1, 2, 3)]
    home = house(tmp_path, *web, container("api"), services=(service(replicas=3), API))
    home.settle()
    home.declare(API)
    at_the_first_stop(home, change)
    assert home.let_pass(700) == [f"update-container {WEB1}", f"stop-container {WEB1}"]
    assert running_slots(home) == [2, 3]


@pytest.mark.parametrize(
    "less", [service(replicas=0), service(replicas=1), service(replicas=3, state="Stopped")]
)
def test_what_is_wanted_again_is_taken_down_no_further(tmp_path: Path, less: Service) -> None:
    wanted = service(replicas=3)
    web = [container(slot=slot) for slot in (1, 2, 3)]
    home = house(tmp_path, *web, container("api"), services=(wanted, API))
    home.settle()
    home.declare(less, API)
    at_the_first_stop(home, declared(wanted, API))
    done = home.let_pass(30)
    assert len([each for each in done if each.startswith("stop-container")]) == 1
    assert running_slots(home) == [1, 2, 3]


def test_what_cannot_be_read_interrupts_nothing_that_takes_nothing_down(tmp_path: Path) -> None:
    home = house(tmp_path, container("api"), services=(service(replicas=3), API))
    home.controller.observe_everything()

    def flaps(_action: AnyAction) -> EngineError | None:
        home.files.desired = replace(home.files.desired, blind=not home.files.desired.blind)
        home.controller.reload()
        return None

    home.engine.fault = flaps
    result = home.controller.handle(worlds.WEB)
    assert result is not None
    assert not result.execution.interrupted
    assert running_slots(home) == [1, 2, 3]


def test_a_failing_start_is_tried_again_with_growing_pauses_and_told_as_a_crash_loop(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    started = []

    def fail(action: AnyAction) -> EngineError | None:
        if action.verb != "start-container":
            return None
        started.append(home.watch.time)
        return EngineFailed("engine.failed", "no")

    home.engine.fault = fail
    home.let_pass(1000)
    pauses = [round(b - a) for a, b in itertools.pairwise(started)]
    assert pauses == [1, 5, 10, 20, 40, 80, 160, 300, 300]
    assert home.condition("web", "CrashLoop") == ("True", "KeepsFailing")
    assert [d for d in home.engine.done if d.startswith("create")] == [RUN_WEB1[0]]


def test_a_clock_that_is_set_back_keeps_no_slot_from_being_tried_until_it_is_there_again(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("start-container", lambda: EngineFailed("engine.failed", "no"))
    home.settle()
    home.watch.jumped -= 3600.0
    home.engine.fault = lambda _action: None
    assert home.let_pass(10)[-1] == RUN_WEB1[-1]


@pytest.mark.parametrize(
    "error", [Conflict("held", "not settled yet"), ReplyLost("reply.lost", "it broke")]
)
def test_a_start_that_the_engine_never_tried_says_nothing_of_the_container(
    tmp_path: Path, error: EngineError
) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("start-container", lambda: error)
    home.let_pass(100)
    assert home.condition("web", "CrashLoop")[0] != "True"
    home.engine.fault = lambda _action: None
    home.let_pass(120)
    assert home.engine.done[-1] == "start-container web.1-bbbbbbbb"


def test_why_it_fails_is_told_in_the_plan_and_the_status_also_after_a_restart(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    taken = "driver failed …: Bind for 0.0.0.0:8081 failed: port is already allocated"
    home.engine.fault = failing("start-container", lambda: EngineFailed("engine.failed", taken))
    home.let_pass(100)
    why = "failed to start: port 8081 is taken by another container"
    home.restart()
    home.settle()
    (action,) = home.controller.plan_everything().plan.actions
    assert action.cause.startswith(f"failed 6 times in a row (it {why}), next try at ")
    assert home.message("web", "CrashLoop") == f"slot 1 failed 6 times in a row: {why}"


def test_a_failed_start_is_told_in_words_at_once(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("start-container", lambda: EngineFailed("engine.failed", "no x"))
    home.settle()
    told = f"engine.failed: {WEB1} failed to start: no x"
    assert home.message("web", "Progressing") == told


def test_failures_are_remembered_across_a_restart_of_the_controller(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("start-container", lambda: EngineFailed("engine.failed", "no"))
    home.let_pass(60)
    home.restart()
    assert home.settle() == [], "the slot is still in its pause"
    assert home.condition("web", "Progressing")[0] == "True"


def test_the_next_try_is_reported_until_it_is_due_and_does_not_change_meanwhile(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("start-container", lambda: EngineFailed("engine.failed", "no"))
    home.let_pass(2)
    began = home.watch.time

    def next_try() -> Any:
        resources: Any = home.controller.status()["resources"]
        (row,) = resources[0]["slots"]
        assert resources[0]["nextTry"] == row["nextTry"]
        return row["nextTry"]

    told = next_try()
    assert told == {
        "at": format_instant(began + 4),  # the second failure was a second after the first
        "reason": "failed 2 times in a row (it failed to start: no)",
    }
    home.let_pass(3)
    assert next_try() == told
    assert home.let_pass(2) == [f"start-container {WEB1} !"]
    home.engine.fault = lambda _action: None
    assert home.let_pass(20)[0] == f"start-container {WEB1}"
    resources: Any = home.controller.status()["resources"]
    assert "nextTry" not in resources[0]


def test_a_changed_spec_forgets_earlier_failures(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("start-container", lambda: EngineFailed("engine.failed", "no"))
    home.let_pass(60)
    home.engine.fault = lambda _action: None
    home.declare(service(rev="c", env={"FIXED": "1"}))
    assert home.settle()[:2] == [
        "create-container web.1-cccccccc",
        "start-container web.1-cccccccc",
    ]


def test_a_refused_action_is_not_repeated_hot_and_the_rest_is_looked_after(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, container(), services=(service(replicas=2),))
    home.engine.fault = failing(
        "create-container", lambda: Refused("image.not-allowed", "no"), target=WEB2
    )
    assert home.settle() == [f"create-container {WEB2} !"]
    assert home.condition("web", "Stalled") == ("True", "image.not-allowed")
    home.engine.change(WEB1, lambda _container: None)
    home.controller.handle_event(EngineEvent(1, "container", "destroy", f"id:{WEB1}", None))
    assert home.settle() == RUN_WEB1, "the refused slot doesn't hold up the other one"
    tries = home.let_pass(300)
    assert 3 <= len(tries) <= 5, tries


def test_a_refused_create_names_the_documents_field_also_while_its_next_try_waits(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing(
        "create-container",
        lambda: Refused(
            "mount.missing", "HostConfig.Mounts[0]: /s isn't there", remedy="create it"
        ),
    )
    home.settle()
    home.controller.handle(service_key("default", "web"))
    message = home.message("web", "Stalled")
    assert message.endswith(": spec.mounts: /s isn't there (create it)"), message


def test_what_the_policy_denies_in_advance_is_said_and_never_sent(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.judge = worlds.deny("create-container")
    assert home.let_pass(700) == []
    assert home.condition("web", "Stalled") == ("True", "some.rule")
    assert home.condition("web", "PolicyViolation") == ("True", "some.rule")


def test_a_relaxed_policy_is_noticed_by_the_next_glance(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.judge = worlds.deny("create-container")
    home.settle()
    home.judge, home.policy = worlds.allow, "another"
    assert home.let_pass(35) == RUN_WEB1


def test_what_runs_and_is_not_admitted_any_more_keeps_running(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.judge = worlds.deny("create-container")
    assert home.let_pass(60) == []
    assert home.condition("web", "PolicyViolation") == ("True", "some.rule")
    assert home.condition("web", "Ready") == ("True", "AsDeclared")


def test_a_lost_reply_is_followed_by_a_look_and_not_by_a_second_try(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))

    def lose(action: AnyAction) -> EngineError | None:
        if action.verb == "create-container" and not home.engine.world.containers:
            home.engine.world = worlds.act(action, home.engine.world)
            return ReplyLost("reply.lost", "it broke")
        return None

    home.engine.fault = lose
    assert home.settle() == [f"create-container {WEB1} !"]
    assert home.let_pass(2) == [f"start-container {WEB1}"]


def test_a_world_that_changed_before_the_action_is_looked_at_again_at_once(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("create-container", lambda: Conflict("taken", "x"), times=1)
    home.settle()
    assert home.let_pass(0.2) == RUN_WEB1


def test_an_engine_that_is_away_is_waited_for_and_said(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(replicas=2),))
    home.engine.away = AWAY
    assert home.let_pass(120) == []
    assert home.problems() == ["broker.unavailable"]
    assert home.condition("web", "Ready") == ("Unknown", "EngineUnavailable")
    home.engine.away = None
    assert home.let_pass(31) == [f"create-container {WEB2}", f"start-container {WEB2}"]
    assert home.problems() == []


def test_an_untested_engine_is_used_and_said(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.engine.world = replace(home.engine.world, untested="Docker 99 is untested")
    home.settle()
    assert home.problems() == ["engine.untested"]
    assert home.condition("web", "Ready") == ("True", "AsDeclared")


def test_an_engine_that_goes_in_the_middle_is_noticed_and_found_again(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    home.engine.away = AWAY
    home.controller.handle_event(EngineEvent(1, "container", "die", f"id:{WEB1}", None))
    home.let_pass(5)
    assert home.problems() == ["broker.unavailable"]
    assert home.condition("web", "Ready") == ("Unknown", "EngineUnavailable")
    home.engine.away = None
    home.controller.subscribed()
    home.settle()
    assert home.problems() == []
    assert home.condition("web", "Ready") == ("True", "AsDeclared")


def test_looks_at_an_absent_engine_become_rare_but_not_too_rare(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.away = AWAY
    home.let_pass(600)
    before = home.engine.looks
    home.let_pass(600)
    assert before == home.engine.looks == 0, "without a policy nothing is even looked at"


def test_a_crash_of_a_pass_is_a_condition_and_is_tried_again(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    home.controller.crashed(worlds.WEB, RuntimeError("oops"))
    assert home.condition("web", "Progressing") == ("True", "Retrying")
    home.let_pass(2)
    assert home.condition("web", "Progressing")[0] == "False"


def test_generations_count_accepted_changes_and_which_was_acted_on(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    home.declare(service(replicas=2))
    home.settle()
    home.engine.away = AWAY
    home.declare(service(replicas=3))
    home.let_pass(1)
    generation = home.store.of(worlds.WEB).generation
    assert generation is not None
    assert (generation.number, generation.observed) == (3, 2)
    home.restart()
    home.engine.away = None
    home.let_pass(5)
    generation = home.store.of(worlds.WEB).generation
    assert generation is not None
    assert (generation.number, generation.observed) == (3, 3)


def test_a_review_says_what_changed_since_the_document_was_acted_on(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    home.files.desired = declared(service(replicas=2))
    (entry,) = home.controller.review(home.controller.plan_everything()).entries
    changes = [change_text(c) for each in entry.differences for c in each.changes]
    assert changes == ["spec.replicas: 1 -> 2"]
    home.declare(service(replicas=2))
    home.settle()
    home.restart()
    assert home.controller.review(home.controller.plan_everything()).entries == ()


def test_what_was_done_is_told_to_whoever_asks(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    told = home.operator.progress(0)
    assert [act["text"] for act in acts_of(told)] == [
        "web: created web.1-bbbbbbbb",
        "web: started web.1-bbbbbbbb",
    ]
    assert (told["last"], told["working"]) == (2, {})
    done = home.operator.done_since(0)
    assert (acts_of(done), "recently" in done) == (acts_of(told), False)
    done = home.operator.done_since(2)
    assert (done["acts"], done["recently"]) == (
        [],
        "1 created, 0 replaced, 0 updated in place, 0 removed",
    )
    home.let_pass(61)
    assert "recently" not in home.operator.done_since(2)


def acts_of(told: dict[str, object]) -> list[Any]:
    acts = told["acts"]
    assert isinstance(acts, list)
    return acts


def test_a_generation_that_could_not_be_acted_on_stays_unobserved(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("create-container", lambda: EngineFailed("engine.failed", "no"))
    home.let_pass(30)
    generation = home.store.of(worlds.WEB).generation
    assert generation is not None
    assert (generation.number, generation.observed) == (1, 0)


def test_what_cannot_be_read_now_is_no_new_generation(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    home.files.desired = declared(service(replicas=9), blind_keys=[worlds.WEB])
    home.controller.files_changed()
    assert home.settle() == []
    generation = home.store.of(worlds.WEB).generation
    assert generation is not None
    assert generation.number == 1


@pytest.mark.parametrize(
    "unread",
    [
        declared(blind_keys=[worlds.WEB]),
        declared(blind=True),
        declared(identity=replace(worlds.HERE, present=False)),
        declared(identity=replace(worlds.HERE, documents=0)),
    ],
    ids=["its document is broken", "a file can't be read", "no directory", "no document"],
)
def test_what_cannot_be_read_and_has_no_container_keeps_its_generation_and_history(
    tmp_path: Path, unread: Desired
) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.fault = failing("create-container", lambda: EngineFailed("engine.failed", "no"))
    home.settle()
    home.declare(service(rev="c", command=["new"]))
    home.settle()
    before = home.store.of(worlds.WEB).generation, home.operator.history(worlds.WEB)
    home.files.desired = unread
    home.controller.files_changed()
    home.let_pass(400)
    home.declare(service(rev="c", command=["new"]))
    home.settle()
    assert (home.store.of(worlds.WEB).generation, home.operator.history(worlds.WEB)) == before
    home.declare()
    home.let_pass(400)
    assert home.store.of(worlds.WEB).generation is None


def test_moving_a_document_in_its_file_is_no_new_generation(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    moved = service()
    home.declare(replace(moved, source=replace(moved.source, line=99)))
    home.settle()
    generation = home.store.of(worlds.WEB).generation
    assert generation is not None
    assert generation.number == 1


def test_every_action_says_why_and_from_where(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.settle()
    context = home.engine.contexts[0]
    assert (context.cause, context.file, context.line) == ("slot 1 is missing", "web.yaml", 1)
    assert len(context.plan) == 64


def test_a_pass_that_somebody_asked_for_says_who(tmp_path: Path) -> None:
    home = empty_house(tmp_path)
    home.settle()
    home.files.desired = declared(service())
    home.controller.observe_everything(requested_by="uid:0 alice")
    home.settle()
    assert {context.on_behalf_of for context in home.engine.contexts} == {"uid:0 alice"}
    home.engine.change(WEB1, lambda _container: None)
    home.controller.handle_event(EngineEvent(1, "container", "destroy", f"new:{WEB1}", worlds.WEB))
    assert home.settle() == RUN_WEB1
    assert home.engine.contexts[-1].on_behalf_of == "", "nobody asked for the heal"


def test_a_survey_changes_nothing_and_shows_as_going_what_settles(tmp_path: Path) -> None:
    home = house(tmp_path, container(), container("api"), services=(service(), service("api")))
    home.settle()
    home.files.desired = declared(service("api"))
    before = home.store.prune
    plan = home.controller.plan_everything().plan
    assert [action.verb for action in plan.actions] == [
        "update-container",
        "stop-container",
        "remove-container",
    ]
    assert home.store.prune == before
    assert home.settle() == []


def test_exactly_the_approved_plan_is_performed(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.controller.chores.poll()
    digest = home.controller.plan_everything().plan.digest
    done = home.operator.apply_exactly(digest, approved=False, requested_by="uid:0")
    assert [each.action.verb for each in done.done] == ["create-container", "start-container"]


def test_another_plan_than_the_approved_one_performs_nothing(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    digest = home.controller.plan_everything().plan.digest
    home.files.desired = declared(service(), service("api"))
    with pytest.raises(UsageError, match="not"):
        home.operator.apply_exactly(digest, approved=False, requested_by="uid:0")
    assert home.engine.done == []


def test_what_was_approved_is_told_by_the_plan_that_was_shown(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    empty = SourceIdentity("desired-state", present=True, device=7, documents=0)
    home.files.desired = declared(identity=empty)
    home.controller.files_changed()
    assert home.let_pass(10) == []
    shown = home.controller.plan_everything().plan
    assert [blocked.code for blocked in shown.blocked] == ["PrunePending"]
    with pytest.raises(UsageError, match="not"):
        home.controller.observe_everything(approved=True, requested_by="uid:0", plan="ab" * 32)
    assert home.settle() == []
    assert home.operator.convergence().stuck
    home.controller.observe_everything(approved=True, requested_by="uid:0", plan=shown.digest)
    assert not home.operator.convergence().stuck, "its pass is still to come"
    assert home.condition("web", "Stalled")[0] == "False"
    home.engine.contexts.clear()
    assert home.settle()[-1] == f"remove-container {WEB1}"
    told = {(context.plan, context.on_behalf_of) for context in home.engine.contexts}
    assert told == {(shown.digest, "uid:0")}


def test_too_much_that_is_down_makes_a_pass_wait_and_says_so(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    over = failing("stop-container", lambda: OverShare("blast.radius", "3 of 10"), times=1)
    home.engine.fault = over
    home.declare(service(replicas=0), service("api"))
    home.controller.files_changed()
    home.let_pass(2.5)
    assert home.condition("web", "Progressing") == ("True", "Waiting")
    assert home.condition("web", "Stalled") == ("False", "NothingToDo")
    assert f"stop-container {WEB1}" in home.let_pass(60)


def test_own_exits_are_counted_and_stops_from_outside_are_not(tmp_path: Path) -> None:
    home = house(
        tmp_path,
        container(started_at="2026-01-01T00:00:00Z", finished_at=""),
        services=(service(),),
    )
    home.settle()

    def stop(found: Container) -> Container:
        return replace(
            found,
            state=ContainerState.EXITED,
            exit_code=137,
            finished_at="2026-01-01T00:00:09Z",
        )

    home.engine.change(WEB1, stop)
    home.controller.handle_event(EngineEvent(1, "container", "die", f"id:{WEB1}", None))
    assert home.settle() == [f"start-container {WEB1}"], "stopped from outside: healed at once"
    assert all(s.history == CLEAN for s in home.store.troubled().values())

    home.engine.change(WEB1, lambda c: replace(c, restart_count=3))
    home.controller.handle_event(EngineEvent(2, "container", "start", f"id:{WEB1}", None))
    home.settle()
    assert home.store.slot((worlds.WEB, 1)).history.count == 3


def test_restarts_right_after_our_own_start_count(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))

    def crash(engine: ToyEngine) -> None:
        engine.change(WEB1, lambda c: replace(c, restart_count=2 if c.running else 0))

    home.engine.before_look = crash
    assert home.settle() == RUN_WEB1
    assert home.store.slot((worlds.WEB, 1)).history.count == 2


def test_ten_minutes_up_are_a_clean_slate(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    home.engine.change(
        WEB1, lambda c: replace(c, restart_count=2, started_at="1970-01-12T13:46:40Z")
    )  # the instant at which the clock stands
    home.controller.handle_event(EngineEvent(1, "container", "start", f"id:{WEB1}", None))
    home.settle()
    assert home.store.slot((worlds.WEB, 1)).history.count == 2
    home.let_pass(500)
    assert home.store.slot((worlds.WEB, 1)).history.count == 2
    home.let_pass(500)
    assert all(s.history == CLEAN for s in home.store.troubled().values())


def test_a_container_that_the_engine_restarts_too_often_is_taken_over(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()
    home.engine.change(WEB1, lambda c: replace(c, restart_count=5))
    home.controller.handle_event(EngineEvent(1, "container", "start", f"id:{WEB1}", None))
    assert home.settle() == [f"update-container {WEB1}"]
    assert home.condition("web", "CrashLoop") == ("True", "KeepsFailing")


def controller_is_away(home: House, seconds: float) -> None:
    home.controller.save()
    home.watch.time += seconds
    home.restart()


def engine_is_away(home: House, seconds: float) -> None:
    home.engine.away = AWAY
    home.let_pass(seconds)
    home.engine.away = None


def service_is_suspended(home: House, seconds: float) -> None:
    home.operator.act(ServiceAct("suspend", worlds.WEB, "uid:0"))
    home.let_pass(seconds)
    home.operator.act(ServiceAct("resume", worlds.WEB, "uid:0"))


@pytest.mark.parametrize("away", [controller_is_away, engine_is_away, service_is_suspended])
def test_what_the_engine_restarted_unseen_for_long_is_no_crash_loop(
    tmp_path: Path, away: Callable[[House, float], None]
) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.let_pass(60)
    home.engine.change(WEB1, lambda c: replace(c, restart_count=6))
    away(home, 3600)
    assert home.let_pass(60) == []
    assert home.store.slot((worlds.WEB, 1)).history.count <= 1
    assert home.condition("web", "CrashLoop") == ("", "")


def test_what_the_engine_restarted_unseen_for_a_moment_is_counted(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.let_pass(60)
    home.engine.change(WEB1, lambda c: replace(c, restart_count=5))
    engine_is_away(home, 300)
    home.let_pass(60)
    assert home.store.slot((worlds.WEB, 1)).history.count == 5


def test_a_service_that_never_comes_to_rest_is_slowed_down(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(),))
    home.settle()

    def meddle(engine: ToyEngine) -> None:
        for each in engine.world.containers:
            if each.running:
                engine.change(each.name, lambda c: replace(c, state=ContainerState.PAUSED))

    home.engine.before_look = meddle
    home.controller.handle_event(EngineEvent(1, "container", "pause", f"id:{WEB1}", None))
    first = len(home.settle())
    assert first < 60
    assert len(home.let_pass(60)) < 8 * 6


def test_the_status_is_published_when_it_changes_and_only_then(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(1)
    count = len(home.published)
    assert count >= 1
    home.let_pass(1000)
    assert len(home.published) == count
    assert home.controller.reporter.published() == count
    home.controller.reporter.await_published(count - 1, timeout_s=60)  # nothing to wait for


def test_until_the_files_are_read_and_the_engine_was_asked_the_status_says_so(
    tmp_path: Path,
) -> None:
    home = House(tmp_path)
    home.files.desired = declared(service())
    since = {"since": format_instant(home.watch.now())}
    assert home.controller.status() == {"resources": [], "problems": [], "unread": since}
    home.controller.publish()
    assert home.published == [], "the last known state isn't replaced by nothing"
    home.controller.reload()
    status = home.controller.status()
    assert (status["unread"], len(rows_of(status))) == (since, 1)
    home.settle()
    assert "unread" not in home.controller.status()
    home.engine.away = EngineUnavailable("broker.unavailable", "nobody there")
    home.restart()
    home.settle()
    assert "unread" not in home.controller.status()


def rows_of(status: Report) -> list[object]:
    resources = status["resources"]
    assert isinstance(resources, list)
    return resources


def test_what_became_of_commits_is_tried_again_while_the_status_stands(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(1)
    count, tried = len(home.published), []
    home.publish_commits = lambda _, report: tried.append(report)
    home.let_pass(1000)
    assert len(home.published) == count
    assert tried


def test_a_file_about_commits_that_cannot_be_written_does_not_stop_the_status(
    tmp_path: Path,
) -> None:
    def full(_desired: Desired, _report: object) -> None:
        raise OSError("the disk is full")

    home = house(tmp_path, services=(service(),))
    home.publish_commits = full
    home.let_pass(5)
    problems = str(home.controller.status()["problems"])
    assert "the holds or outcomes of commits can't be written: the disk is full" in problems
    assert home.published[-1]["resources"]


def test_since_survives_a_restart_and_a_published_status_of_nonsense_is_ignored(
    tmp_path: Path,
) -> None:
    home = house(tmp_path, services=(service(),))
    home.let_pass(1)
    before = home.controller.status()
    home.watch.time += 5000
    home.restart()
    home.controller.begin(previous=before)
    home.settle()
    assert home.controller.status() == before
    home.restart()
    home.controller.begin(previous={"resources": [{"kind": 3}]})
    home.settle()
    assert home.condition("web", "Ready")[0] == "True"


def test_memory_that_cannot_be_written_is_said_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "controller"
    folder.mkdir()
    home = house(folder, services=(service(),))
    folder.rmdir()
    home.let_pass(2)
    assert "state.unwritable" in home.problems()
    folder.mkdir()
    home.let_pass(15)
    assert home.problems() == []


def test_a_stop_begins_no_further_action(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(replicas=3),))
    home.stopping = lambda: len(home.engine.done) >= 1
    for _ in range(20):
        home.step()
    assert home.engine.done == [RUN_WEB1[0]]


# Pulls


def test_how_far_a_pull_is_is_told_while_it_runs(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.world = replace(home.engine.world, images={})
    seen: list[tuple[str, str]] = []

    def pulls(action: AnyAction) -> EngineError | None:
        if isinstance(action, PullImage):
            home.triggers.report_progress(action.object, "1 of 3 layers")
            seen.append((home.message("web", "Progressing"), home.message("web", "Ready")))
            home.triggers.report_progress(action.object, "")
        return None

    home.engine.fault = pulls
    home.settle()
    assert seen == [("1 of 3 layers", "1 of 3 layers")]
    assert home.condition("web", "Progressing") == ("False", "NothingToDo")


@pytest.mark.parametrize(
    ("act", "condition"), [(Act.STALLED, "Stalled"), (Act.RETRY, "Progressing")]
)
def test_a_pull_that_failed_stops_nothing_and_is_told(
    tmp_path: Path, act: Act, condition: str
) -> None:
    old = container(rev="a", image="reg.example/x:1")
    home = house(tmp_path, old, services=(service(image="reg.example/x:2"),))
    error = PullFailed("image.denied", "token expired", act=act, remedy="renew it")
    home.engine.fault = failing("pull-image", lambda: error)
    done = home.let_pass(60.0)
    assert done
    assert set(done) == {"pull-image reg.example/x:2 !"}
    assert [c.running for c in home.engine.world.containers] == [True]
    assert home.message("web", condition).endswith("token expired (renew it)")
    assert home.condition("web", "Degraded")[0] == "False"


def test_a_pull_that_took_long_is_followed_by_a_look_and_by_no_older_spec(tmp_path: Path) -> None:
    home = house(tmp_path, services=(service(),))
    home.engine.world = replace(home.engine.world, images={})
    looks: list[int] = []

    def pulls(action: AnyAction) -> EngineError | None:
        if isinstance(action, PullImage):
            home.declare(service(rev="c", command=["new"]))
            chore = home.controller.chores.poll()
            assert chore is not None
            home.controller.run_chore(chore)
            home.controller.chores.done(chore)
        looks.append(home.engine.looks)
        return None

    home.engine.fault = pulls
    done = home.settle()
    assert [each for each in done if each.startswith("create-container")] == [
        "create-container web.1-cccccccc"
    ]


# Quarantine


def keeping(folder: Path, keep_s: float) -> House:
    """A house that keeps what was pruned; ``web`` runs and isn't declared any more."""
    made = House(
        folder,
        engine=ToyEngine(worlds.engine(container())),
        keeping=QuarantineRules(keep_s, "boot"),
    )
    made.declare()
    return made


PUT_AWAY = [f"update-container {WEB1}", f"stop-container {WEB1}"]
TAKEN_AWAY = [f"remove-container {WEB1}", "remove-network platform-network"]


def test_what_is_pruned_is_stopped_kept_and_removed_when_its_time_is_over(tmp_path: Path) -> None:
    home = keeping(tmp_path, 3600)
    assert home.let_pass(10) == PUT_AWAY
    assert home.condition("web", "Quarantined") == ("True", "Pruned")
    assert home.condition("web", "Ready") == ("True", "Quarantined")
    assert home.condition("web", "Progressing") == ("False", "NothingToDo")
    assert home.operator.convergence().converged
    looks = home.engine.looks
    assert home.let_pass(3580) == []
    assert home.engine.looks - looks < 60, "a quarantine isn't watched closely"
    assert home.let_pass(30) == TAKEN_AWAY
    assert home.let_pass(330) == []
    assert home.store.quarantined == {}


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_makes_no_quarantine_shorter_or_endless(
    tmp_path: Path, jump: float
) -> None:
    home = keeping(tmp_path, 3600)
    home.let_pass(10)
    home.watch.jumped = jump
    assert home.let_pass(3580) == []
    home.store.save()
    home.restart()
    assert home.let_pass(30) == TAKEN_AWAY


def test_a_controller_that_starts_anew_goes_on_counting(tmp_path: Path) -> None:
    home = keeping(tmp_path, 3600)
    home.let_pass(600)
    home.store.save()
    home.restart()
    assert home.let_pass(2900) == []
    assert home.let_pass(110) == TAKEN_AWAY


def test_what_is_declared_again_meanwhile_runs_on_in_its_container(tmp_path: Path) -> None:
    home = keeping(tmp_path, 3600)
    home.let_pass(10)
    home.declare(service())
    assert home.settle() == [f"start-container {WEB1}", f"update-container {WEB1}"]
    assert home.condition("web", "Quarantined") == ("", "")
    home.let_pass(400)
    assert home.store.quarantined == {}
    home.declare()
    assert home.let_pass(3000) == PUT_AWAY, "its time begins anew"


def test_a_quarantine_is_kept_while_something_cannot_be_read(tmp_path: Path) -> None:
    home = keeping(tmp_path, 3600)
    home.let_pass(10)
    home.files.desired = declared(blind=True)
    home.controller.files_changed()
    assert home.let_pass(7200) == []
    home.declare()
    assert home.let_pass(10) == TAKEN_AWAY


def test_a_job_that_was_declared_before_the_start_runs_on_time(tmp_path: Path) -> None:
    spec = JobSpec.model_validate_json(f'{{"image": "{worlds.IMAGE}", "schedule": "* * * * *"}}')
    nightly = replace(service("nightly"), key=job_key("default", "nightly"), spec=spec)
    home = House(tmp_path, engine=ToyEngine(worlds.engine()))
    home.files.desired = declared(nightly)
    assert home.settle() == []
    assert any("nightly" in action for action in home.let_pass(61))


def test_what_waits_for_time_is_done_beside_a_slot_that_waits_for_a_person(tmp_path: Path) -> None:
    home = house(tmp_path, container(), services=(service(replicas=2),))
    copy = ForeignContainer("f0" * 32, "copy", "default", "web", "2", ())
    home.engine.world = replace(home.engine.world, foreign=(copy,))
    home.settle()
    for _ in range(4):
        home.engine.change(WEB1, lambda c: replace(c, settings=replace(c.settings, pids=9)))
        home.controller.handle_event(EngineEvent(1, "container", "update", f"id:{WEB1}", None))
        done = home.settle()
    assert done == []
    assert home.condition("web", "Stalled")[0] == "True"
    assert home.let_pass(3) == [f"update-container {WEB1}"]
