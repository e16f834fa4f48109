"""The triggers of passes and chores, and the request to stop."""

from __future__ import annotations

import select

from controller.loop import workqueue
from controller.loop.workqueue import BUSY_S, PUBLISH_S, SAVE_S, Chore, Triggers
from controller.model.names import service_key
from controller.system.runtime import StopSignal

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


def test_reports_and_saves_wait_for_passes_and_the_last_change_does_not_wait() -> None:
    now = [0.0]
    triggers = Triggers(lambda: now[0])
    triggers.keys.add(WEB)
    triggers.publish_soon()
    triggers.save_soon()
    now[0] = SAVE_S
    assert triggers.chores.poll() is None, "a key waits"
    assert triggers.keys.poll() == WEB
    triggers.publish_soon()
    triggers.save_soon()
    now[0] = SAVE_S + PUBLISH_S
    assert triggers.chores.poll() is Chore.PUBLISH
    now[0] = SAVE_S + SAVE_S
    assert triggers.chores.poll() is Chore.SAVE


def test_reports_and_saves_are_made_while_keys_go_on_waiting() -> None:
    now = [0.0]
    triggers = Triggers(lambda: now[0])
    triggers.keys.add(WEB)
    triggers.publish_soon()
    triggers.save_soon()
    now[0] = BUSY_S
    assert {triggers.chores.poll(), triggers.chores.poll()} == {Chore.PUBLISH, Chore.SAVE}


def test_a_stop_can_be_requested_repeatedly_also_after_the_end() -> None:
    stop = StopSignal()
    assert not stop.is_set()
    stop.set()
    stop.set()
    assert stop.is_set()
    assert select.select([stop.fileno()], [], [], 0)[0] == [stop.fileno()]
    stop.close()
    stop.set()
