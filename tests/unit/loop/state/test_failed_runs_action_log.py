"""The log of actions: in order, numbered, bounded, with what failed."""

from controller.loop.state.failed_runs import ACTS_MAX, ActionLog
from controller.model.desired.plan import StartContainer
from controller.model.errors import EngineFailed
from tests.worlds import WEB


class Clock:
    """Stands still."""

    def now(self) -> float:
        return 60.0

    def monotonic(self) -> float:
        return 0.0


def start(target: str) -> StartContainer:
    return StartContainer(object=WEB, target=target, cause="why")


def test_each_action_is_numbered_and_has_its_instant() -> None:
    log = ActionLog(Clock())
    log.append(start("good"))
    log.append(start("bad"), EngineFailed("engine.failed", "it can't"))
    found = [(act.number, act.at, act.action.target, act.error) for act in log.actions()]
    assert found == [(1, 60.0, "good", None), (2, 60.0, "bad", "it can't")]
    assert log.last == 2


def test_the_oldest_are_dropped() -> None:
    log = ActionLog(Clock())
    for _ in range(ACTS_MAX + 1):
        log.append(start("good"))
    assert (log.actions()[0].number, log.last) == (2, ACTS_MAX + 1)
