"""The log of actions: in order, numbered, bounded, with what failed."""

import pytest

from controller.loop.state.failed_runs import ACTS_MAX, ActionLog, Logged
from controller.model.desired.plan import AnyAction, StartContainer
from controller.model.errors import EngineFailed
from controller.model.records import Context
from tests.worlds import WEB


class Clock:
    """Stands still."""

    def now(self) -> float:
        return 60.0

    def monotonic(self) -> float:
        return 0.0


class Engine:
    """Fails to start what is called bad."""

    def perform(self, action: AnyAction, _context: Context) -> str:
        if action.target == "bad":
            raise EngineFailed("engine.failed", "it can't")
        return "an id"


def start(target: str) -> StartContainer:
    return StartContainer(object=WEB, target=target, cause="why")


def test_each_action_is_noted_after_it_was_performed_or_failed() -> None:
    log = ActionLog(Clock())
    engine = Logged(Engine(), log)
    assert engine.perform(start("good"), Context()) == "an id"
    with pytest.raises(EngineFailed):
        engine.perform(start("bad"), Context())
    found = [(act.number, act.at, act.action.target, act.error) for act in log.actions()]
    assert found == [(1, 60.0, "good", None), (2, 60.0, "bad", "it can't")]
    assert log.last == 2


def test_the_oldest_are_dropped() -> None:
    log = ActionLog(Clock())
    for _ in range(ACTS_MAX + 1):
        log.append(start("good"))
    assert (log.actions()[0].number, log.last) == (2, ACTS_MAX + 1)
