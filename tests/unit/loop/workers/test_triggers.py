"""The triggers of passes and chores, and the request to stop."""

from __future__ import annotations

import select

from controller.loop.workers import workqueue
from controller.loop.workers.stop_signal import StopSignal
from controller.loop.workers.triggers import PUBLISH_S, Chore, Triggers
from controller.model.names import service_key

WEB = service_key("default", "web")


def test_a_key_that_finds_no_room_leads_to_an_observation_of_everything() -> None:
    triggers = Triggers(lambda: 0.0)
    for number in range(workqueue.CAPACITY):
        triggers.check(service_key("default", f"s{number}"))
    assert triggers.chores.poll() is None
    triggers.check(WEB)
    assert triggers.chores.poll() is Chore.OBSERVE


def test_progress_is_shown_until_it_ends_and_published_soon() -> None:
    now = [0.0]
    triggers = Triggers(lambda: now[0])
    triggers.report_progress(WEB, "1 of 3 layers")
    assert (triggers.progress(), triggers.version) == ({WEB: "1 of 3 layers"}, 1)
    assert triggers.chores.poll() is None
    now[0] = PUBLISH_S
    assert triggers.chores.poll() is Chore.PUBLISH
    triggers.report_progress(WEB, "")
    assert (triggers.progress(), triggers.version) == ({}, 2)


def test_a_stop_can_be_requested_repeatedly_also_after_the_end() -> None:
    stop = StopSignal()
    assert not stop.is_set()
    stop.set()
    stop.set()
    assert stop.is_set()
    assert select.select([stop.fileno()], [], [], 0)[0] == [stop.fileno()]
    stop.close()
    stop.set()
