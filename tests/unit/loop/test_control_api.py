"""Reviews and passes on request: made of the present files and the present containers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller import __version__
from controller.loop.control_api import ControlApi
from controller.loop.control_socket import PassRequest
from controller.loop.workqueue import Chore, PassLock, WorkQueue
from controller.model.desired.desired import ServiceAct
from controller.model.desired.plan import AnyAction, StartContainer
from controller.model.errors import EngineError, EngineFailed, EngineUnavailable
from controller.model.names import Key
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_instant
from controller.ports import EngineEvent
from tests import worlds
from tests.unit.loop import test_controller_rollouts as rollouts
from tests.unit.loop.toy import House, ToyEngine
from tests.worlds import container, declared, engine, service

DIR = "/srv/desired"
PASS = PassRequest(timeout_s=5.0)
REVIEW = {"do": "review", "version": __version__, "directory": DIR}


def api_of(house: House) -> ControlApi:
    stopped = threading.Event()
    stopped.set()  # a pass then waits for nothing
    return ControlApi(house.controller, PassLock(), stopped, directory=DIR)


def effects(answer: Any) -> dict[str, str]:
    return {each["object"]: each["effect"] for each in answer["plan"]["objects"]}


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.engine.world = engine(container())
    made.declare(service())
    made.let_pass(120)  # the revision is good
    return made


def test_a_review_is_of_the_present_files_and_containers(house: House) -> None:
    api = api_of(house)
    assert effects(api.answer(REVIEW, 0)) == {}
    house.files.desired = declared(service(), service("new"))  # and nobody noticed
    assert effects(api.answer(REVIEW, 0)) == {"Service/default/new": "create"}
    house.engine.change("web.1-" + container().name.rpartition("-")[2], lambda _gone: None)
    assert effects(api.answer(REVIEW, 0))["Service/default/web"] == "create"


def test_a_review_changes_nothing(house: House) -> None:
    house.files.desired = declared(service(), service("new"))
    api_of(house).answer(REVIEW, 0)
    assert house.settle() == []


@pytest.mark.parametrize(
    "request_",
    [{**REVIEW, "version": "0.0.0"}, {**REVIEW, "directory": "/srv/other"}],
)
def test_a_review_is_only_for_the_same_version_and_directory(
    house: House, request_: dict[str, str]
) -> None:
    answer: Any = api_of(house).answer(request_, 0)
    assert answer["error"]["code"] == "control.differs"


def test_a_pass_with_nothing_to_do_observes_once(house: House) -> None:
    before = house.engine.looks
    answer = api_of(house).run_pass(PASS, 0)
    assert (answer["converged"], answer["acts"]) == (True, [])
    assert house.engine.looks - before == 1


class DrivenLock(PassLock):
    """A pass lock with waits that let the time of a house pass."""

    def __init__(self, house: House) -> None:
        super().__init__(paused=False)
        self._house = house

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        end = self._house.watch.time + timeout_s
        while not condition() and self._house.watch.time < end:
            self._house.let_pass(0.05)
        return condition()


def test_a_pass_that_waits_for_time_looks_after_actions_and_once_a_second(house: House) -> None:
    waiting = DrivenLock(house)
    api = ControlApi(house.controller, waiting, threading.Event(), directory=DIR)
    house.files.desired = declared(service(rev="c", rollout={"minHealthy": "20s"}))
    began, looks = house.watch.time, len(house.engine.looked_at)
    answer = api.run_pass(replace(PASS, timeout_s=60.0), 0)
    assert answer["converged"]
    assert [running.revision for running in house.engine.world.containers] == [worlds.revision("c")]
    assert 20 < house.watch.time - began < 22
    everything = house.engine.looked_at[looks:].count(None)
    assert everything <= 22 + len(house.engine.done)


# While the engine's events are followed, a list of its containers can be enough.


@pytest.fixture
def followed(house: House) -> House:
    house.let_pass(1)
    house.controller.shared.followed = True
    house.engine.looks = 0
    return house


def test_an_unchanged_world_is_planned_without_an_observation(followed: House) -> None:
    assert effects(api_of(followed).answer(REVIEW, 0)) == {}
    assert api_of(followed).run_pass(PASS, 0)["converged"]
    assert followed.engine.looks == 0


@pytest.mark.parametrize("kind", ["Job", "Network", "Volume"])
def test_what_only_the_broker_knows_is_asked_for(followed: House, kind: str) -> None:
    key = Key(kind, "default", "data")
    api_of(followed).run_pass(replace(PASS, key=key), 0)
    assert followed.engine.looks == 1


@pytest.mark.parametrize("busy", [True, False])
def test_a_plan_looks_at_the_changed_services_alone(followed: House, busy: bool) -> None:
    if busy:
        followed.controller.keys.add(worlds.WEB)
    else:
        remove(followed)
    shown = effects(api_of(followed).answer(REVIEW, 0))
    assert bool(shown) is not busy
    assert followed.engine.looked_at[-1] == worlds.WEB


class DrivenChores(WorkQueue[Chore]):
    """Carries out the chore under way while somebody waits for its end."""

    def __init__(self, house: House) -> None:
        super().__init__(house.watch.monotonic)
        self._house = house

    def await_done(self, key: Chore, *, timeout_s: float) -> bool:
        assert timeout_s > 0
        if self.is_queued(key):
            self._house.controller.run_chore(key)
            self.done(key)
        return True


def test_an_observation_under_way_serves_the_plan(followed: House) -> None:
    chores = followed.controller.chores = DrivenChores(followed)
    chores.add(Chore.OBSERVE)
    assert chores.get() is Chore.OBSERVE
    followed.engine.looked_at.clear()
    assert effects(api_of(followed).answer(REVIEW, 0)) == {}
    assert followed.engine.looked_at == [None]
    assert not chores.is_queued(Chore.OBSERVE), "the look is the chore's"


def test_a_change_that_the_list_shows_after_the_plan_began_is_planned(followed: House) -> None:
    followed.files.loaded.clear()

    def remove_during_the_plan(_engine: ToyEngine) -> None:
        assert followed.files.loaded.wait(10), "the list waits until the plan began"
        remove(followed)

    followed.engine.before_list = remove_during_the_plan
    assert effects(api_of(followed).answer(REVIEW, 0)) == {"Service/default/web": "create"}


def remove(house: House) -> None:
    house.engine.change(container().name, lambda _gone: None)


def stop(house: House) -> None:
    house.engine.change(
        container().name, lambda running: replace(running, state=ContainerState.EXITED)
    )


def edit(house: House) -> None:
    house.files.desired = declared(service(), service("new"))


def change_the_policy(house: House) -> None:
    house.policy = "another"


def end_the_events(house: House) -> None:
    house.controller.shared.followed = False


def queue_a_key(house: House) -> None:
    house.controller.handle_event(EngineEvent(5, "container", "update", "c1", worlds.WEB))


def queue_an_observation(house: House) -> None:
    house.controller.handle_event(EngineEvent(5, "network", "disconnect", "n1", None))


def lose_the_engine(house: House) -> None:
    house.controller.connection_lost(EngineUnavailable("broker.unavailable", "away"))


@pytest.mark.parametrize(
    "happening",
    [
        *(remove, stop, edit, change_the_policy, end_the_events),
        *(queue_a_key, queue_an_observation, lose_the_engine),
    ],
)
def test_any_hint_of_a_change_causes_an_observation(
    followed: House, happening: Callable[[House], None]
) -> None:
    happening(followed)
    api_of(followed).answer(REVIEW, 0)
    assert followed.engine.looks == 1
    followed.engine.looks = 0
    api_of(followed).run_pass(PASS, 0)
    assert followed.engine.looks >= 1


# A pass of everything has converged once it is as declared, and has shown that it stays up.


def driven(house: House) -> ControlApi:
    return ControlApi(house.controller, DrivenLock(house), threading.Event(), directory=DIR)


def told(answer: Any) -> tuple[Any, Any, list[tuple[str, ...]]]:
    members = ("object", "standing", "condition", "reason")
    left = [tuple(str(each[name]) for name in members) for each in answer["unmet"]]
    return answer["converged"], answer["stuck"], left


def test_a_rolled_back_service_is_not_converged_then_nor_later(tmp_path: Path) -> None:
    house = rollouts.house(tmp_path)
    bad = rollouts.web("green", "rollout: {progressDeadline: 30s}")

    def never_starts(action: AnyAction) -> EngineError | None:
        is_bad = isinstance(action, StartContainer) and action.precondition.revision == bad.revision
        return EngineFailed("engine.failed", "no such command") if is_bad else None

    house.engine.fault = never_starts
    house.files.desired = declared(bad)
    left = [("Service/default/web", "failed", "RolledBack", "Automatic")]
    answer: Any = driven(house).run_pass(replace(PASS, timeout_s=300.0), 0)
    assert told(answer) == (False, True, left)
    assert "no such command" in answer["unmet"][0]["message"]
    assert told(driven(house).run_pass(PASS, 0)) == (False, True, left)


def test_a_new_service_is_not_converged_before_it_was_up_for_min_healthy(house: House) -> None:
    house.files.desired = declared(service(), service("new"))
    began = house.watch.time
    assert told(driven(house).run_pass(replace(PASS, timeout_s=60.0), 0)) == (True, False, [])
    assert house.watch.time - began >= 10


def test_a_new_service_that_dies_within_min_healthy_is_not_converged(house: House) -> None:
    def dead(container: Container) -> Container:
        at = format_instant(house.watch.time)
        return replace(container, state=ContainerState.EXITED, exit_code=1, finished_at=at)

    def dies(toy: ToyEngine) -> None:
        for each in toy.world.containers:
            if each.running and each.key.name == "new":
                toy.change(each.name, dead)

    def fault(action: AnyAction) -> EngineError | None:
        if isinstance(action, StartContainer) and action.object.name == "new":
            house.watch.time += 1
            house.engine.before_look = dies
        return None

    house.engine.fault = fault
    house.files.desired = declared(service(), service("new"))
    answer: Any = driven(house).run_pass(replace(PASS, timeout_s=60.0), 0)
    assert (answer["converged"], [each["object"] for each in answer["unmet"]]) == (
        False,
        ["Service/default/new"],
    )


def test_a_suspended_service_with_a_changed_document_is_not_converged(house: House) -> None:
    house.operator.act(ServiceAct("suspend", service().key, "uid:0"))
    assert told(driven(house).run_pass(PASS, 0)) == (True, False, [])
    house.files.desired = declared(service(rev="c"))
    left = [("Service/default/web", "suspended", "Suspended", "ByCommand")]
    assert told(driven(house).run_pass(PASS, 0)) == (False, True, left)


def test_an_exact_plan_is_not_applied_before_it_was_up_for_min_healthy(house: House) -> None:
    house.files.desired = declared(service(), service("new"))
    digest = house.operator.plan().plan.digest
    began = house.watch.time
    answer = driven(house).run_pass(replace(PASS, timeout_s=60.0, plan=digest), 0)
    assert told(answer) == (True, False, [])
    assert house.watch.time - began >= 10
