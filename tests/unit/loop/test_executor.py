"""The executor: in order, each precondition right before its action, and no decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.loop.executor import Execution, Executor, never
from controller.loop.state.failed_runs import ActionLog
from controller.loop.workqueue import SharedCreations
from controller.model.desired.plan import (
    AnyAction,
    CreateNetwork,
    Delay,
    PullImage,
    RemoveContainer,
    UnpauseContainer,
)
from controller.model.errors import EngineFailed
from controller.model.records import UNMET, Context, Precondition, Verdict
from tests import worlds
from tests.unit.loop.toy import ToyEngine, Watch
from tests.worlds import IMAGE, WEB, container, declared, service

WEB1, WEB2 = "web.1-bbbbbbbb", "web.2-bbbbbbbb"
EVERYTHING = [f"create-container {WEB1}", f"start-container {WEB1}"]


def plan_for(engine: ToyEngine, replicas: int = 1) -> tuple[AnyAction, ...]:
    return worlds.plan(declared(service(replicas=replicas)), engine.world).actions


class Sequence(Executor):
    """A run with decisions of a test."""

    def __init__(
        self,
        engine: ToyEngine,
        *,
        is_deferred: Callable[[AnyAction], bool] = lambda _action: False,
        stopping: Callable[[], bool] = never,
        creations: SharedCreations | None = None,
    ) -> None:
        super().__init__(engine, ActionLog(Watch()), creations)
        self._deferring, self._stop = is_deferred, stopping

    def context(self, action: AnyAction) -> Context:
        return Context(cause=action.cause)

    def stopping(self) -> bool:
        return self._stop()

    def is_deferred(self, action: AnyAction) -> bool:
        return self._deferring(action)


def run(
    engine: ToyEngine,
    *actions: AnyAction,
    is_deferred: Callable[[AnyAction], bool] = lambda _action: False,
    stopping: Callable[[], bool] = never,
) -> Execution:
    return Sequence(engine, is_deferred=is_deferred, stopping=stopping).execute(actions)


def check(execution: Execution, *, done: list[str], failed: str = "", code: str = "") -> None:
    said = [f"{each.action.verb} {each.action.target}" for each in execution.done]
    stopped = execution.failed
    assert said == done
    assert (f"{stopped.verb} {stopped.target}" if stopped else "") == failed
    assert (execution.error.code if execution.error else "") == code


def test_a_created_container_is_started_by_the_id_that_it_got() -> None:
    engine = ToyEngine()
    execution = run(engine, *plan_for(engine))
    check(execution, done=EVERYTHING)
    assert [each.id for each in execution.done] == [f"new:{WEB1}", f"new:{WEB1}"]
    assert [context.cause for context in engine.contexts] == ["slot 1 is missing"] * 2


def test_a_name_that_is_taken_meanwhile_ends_it_before_the_create() -> None:
    engine = ToyEngine()
    actions = plan_for(engine)
    engine.world = worlds.engine(container())
    check(run(engine, *actions), done=[], failed=EVERYTHING[0], code=UNMET)
    assert engine.done == []


def test_a_container_that_vanished_meanwhile_ends_it() -> None:
    engine = ToyEngine(worlds.engine(container(state="exited")))
    actions = plan_for(engine)
    engine.world = worlds.engine()
    check(run(engine, *actions), done=[], failed=f"start-container {WEB1}", code=UNMET)


def test_another_container_under_the_same_name_is_not_acted_on() -> None:
    engine = ToyEngine(worlds.engine(container(state="exited")))
    actions = plan_for(engine)
    engine.world = worlds.engine(container(state="exited", id="id:other"))
    check(run(engine, *actions), done=[], failed=f"start-container {WEB1}", code=UNMET)


def test_a_container_of_another_revision_than_planned_is_not_acted_on() -> None:
    engine = ToyEngine(worlds.engine(container()))
    wrong = RemoveContainer(
        object=WEB,
        target=WEB1,
        cause="",
        precondition=Precondition(id=f"id:{WEB1}", revision=worlds.revision("c")),
    )
    check(run(engine, wrong), done=[], failed=f"remove-container {WEB1}", code=UNMET)


def test_a_network_of_that_name_ends_a_create_whoever_made_it() -> None:
    engine = ToyEngine()
    create = CreateNetwork(
        object=WEB,
        target="platform-network",
        cause="",
        owner="team",
        precondition=Precondition(absent="platform-network"),
    )
    check(run(engine, create), done=[], failed="create-network platform-network", code=UNMET)


def test_the_first_failure_ends_it_and_is_its_result() -> None:
    engine = ToyEngine()
    actions = plan_for(engine, replicas=2)
    engine.fault = lambda action: (
        EngineFailed("engine.failed", "no") if action.verb == "start-container" else None
    )
    check(run(engine, *actions), done=EVERYTHING[:1], failed=EVERYTHING[1], code="engine.failed")
    assert engine.done == [EVERYTHING[0], f"{EVERYTHING[1]} !"]


def test_no_action_is_preceded_by_an_observation() -> None:
    engine = ToyEngine()
    pull = PullImage(object=WEB, target=IMAGE, cause="isn't here")
    check(run(engine, pull, *plan_for(engine)), done=[f"pull-image {IMAGE}", *EVERYTHING])
    assert engine.looks == 0


def test_waits_and_denied_actions_are_passed_over() -> None:
    engine = ToyEngine()
    wait = Delay(object=WEB, target=WEB2, cause="in its pause", slot=2)
    create, start = plan_for(engine)
    denied = replace(create, target="other", slot=3, verdict=Verdict("deny", ("some.rule",)))
    execution = run(engine, wait, denied, create, start)
    check(execution, done=EVERYTHING)
    assert execution.waits == (wait,)
    assert execution.refused == (denied,)


def test_what_follows_a_held_action_in_its_slot_is_held_too_and_other_slots_go_on() -> None:
    engine = ToyEngine()
    actions = plan_for(engine, replicas=2)
    execution = run(
        engine,
        *actions,
        is_deferred=lambda action: action.slot == 1 and action.verb != "start-container",
    )
    check(execution, done=[f"create-container {WEB2}", f"start-container {WEB2}"])
    assert [action.verb for action in execution.deferred] == ["create-container", "start-container"]


def test_a_held_network_holds_all_that_follows_of_its_key() -> None:
    engine = ToyEngine(worlds.engine(networks=()))
    actions = plan_for(engine)
    execution = run(engine, *actions, is_deferred=lambda action: action.slot == 0)
    check(execution, done=[])
    assert len(execution.deferred) == 3


def replacement() -> tuple[ToyEngine, tuple[AnyAction, ...]]:
    """A container that is stopped before its successor is started."""
    engine = ToyEngine(worlds.engine(container(rev="a")))
    wanted = service(rollout={"order": "StopFirst"})
    return engine, worlds.plan(declared(wanted), engine.world).actions


REPLACED = [
    f"create-container {WEB1}",
    "update-container web.1-aaaaaaaa",
    "stop-container web.1-aaaaaaaa",
    f"start-container {WEB1}",
]


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_stopped_for_a_start_is_followed_by_it_whoever_wants_to_end(count: int) -> None:
    engine, actions = replacement()
    execution = run(engine, *actions, stopping=lambda: len(engine.done) >= count)
    check(execution, done=REPLACED)
    assert not execution.interrupted, "a gate is all that is left"


def test_nothing_is_stopped_for_a_start_that_is_held() -> None:
    engine, actions = replacement()
    execution = run(engine, *actions, is_deferred=lambda action: action.verb == "start-container")
    check(execution, done=REPLACED[:1])
    assert [f"{action.verb} {action.target}" for action in execution.deferred] == REPLACED[1:]


def test_whether_something_may_be_stopped_is_asked_only_where_the_rest_may_be_done() -> None:
    """The answer may use up a share of what may be down."""
    engine, actions = replacement()
    asked: list[str] = []

    def held(action: AnyAction) -> bool:
        asked.append(action.verb)
        return action.verb == "start-container"

    run(engine, *actions, is_deferred=held)
    assert "stop-container" not in asked


def test_what_cannot_be_put_in_place_holds_nothing_if_it_is_to_go() -> None:
    engine, actions = replacement()
    on_it = {"object": WEB, "cause": "", "slot": 1, "precondition": Precondition(id="x")}
    for target, done in (("web.1-aaaaaaaa", REPLACED), (WEB1, [])):
        put_back = UnpauseContainer(target=target, **on_it)  # type: ignore[arg-type]
        execution = run(
            engine, put_back, *actions, is_deferred=lambda a: isinstance(a, UnpauseContainer)
        )
        check(execution, done=done)
        engine, actions = replacement()


def test_a_stop_lets_the_running_action_finish_and_begins_no_other() -> None:
    engine = ToyEngine()
    execution = run(engine, *plan_for(engine), stopping=lambda: len(engine.done) == 1)
    check(execution, done=EVERYTHING[:1])
    assert execution.interrupted


def test_each_action_is_logged_once_performed_or_failed() -> None:
    engine = ToyEngine()
    engine.fault = lambda action: (
        EngineFailed("engine.failed", "it can't") if action.verb == "start-container" else None
    )
    sequence = Sequence(engine)
    sequence.execute(plan_for(engine))
    entries = [(e.number, e.action.verb, e.error) for e in sequence._log.actions()]
    assert entries == [(1, "create-container", None), (2, "start-container", "it can't")]
