"""The loop: durable before it is sent, at least once, each destination at its own pace; killed at each point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.core.notify.texts import Origin
from controller.model.crashpoints import NOTIFIER_POINTS
from controller.model.notifications import Notice, NoticeTarget
from controller.notify.notifier import Notifier, NotifierParts
from controller.notify.senders import NoticeNotSent
from controller.notify.state_file import NAME, read_notices
from tests.git.forge import ForgeServer
from tests.instance import eventually
from tests.unit.core.notify.views import BEGIN, row, view

CRASH = view(row("web", severity="page", condition="CrashLoop"), version="r-2")


@dataclass
class Clock:
    """A clock that the test sets."""

    at: float = BEGIN

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class Receiver:
    """A receiver for each destination. One that ``hangs`` answers once it is let go; one that ``fails`` refuses."""

    folder: Path
    got: list[tuple[str, str, bool]] = field(default_factory=list)
    hangs: dict[str, threading.Event] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)

    def send(self, target: NoticeTarget, notice: Notice, _origin: Origin) -> None:
        if target.name in self.hangs:
            self.hangs[target.name].wait()
        if target.name in self.fails:
            raise NoticeNotSent("it is away")
        saved = read_notices(self.folder).desks[target.name]
        is_durable = saved.queue[0] == notice and saved.attempts > 0
        self.got.append((target.name, f"{notice.event} {notice.incident}", is_durable))


@dataclass
class Running:
    """A notifier in a thread, with the destinations ``a`` and ``b``."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    names: tuple[str, ...] = ("a", "b")

    def __post_init__(self) -> None:
        self.receiver = Receiver(self.folder)
        self.start()

    def start(self) -> None:
        self.notifier = Notifier(
            NotifierParts(
                folder=self.folder,
                instance="i",
                host="h",
                read_targets=lambda: tuple(NoticeTarget(each) for each in self.names),
                sender=self.receiver,
                clock=self.clock,
                settle_s=10.0,
            )
        )
        self.thread = threading.Thread(target=self.notifier.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.notifier.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def see(self, shown: dict[str, Any] | None, *, after: float) -> None:
        """Show a view, and again *after* seconds later."""
        self.notifier.take(shown)
        eventually(lambda: self.saved("at") == self.clock.at or shown is None)
        self.clock.at += after
        self.notifier.take(shown)

    def saved(self, member: str) -> Any:
        path = self.folder / NAME
        return json.loads(path.read_text())["state"].get(member) if path.exists() else None


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


def test_a_slow_destination_delays_no_other_one(running: Running) -> None:
    running.receiver.hangs["a"] = let_go = threading.Event()
    running.see(CRASH, after=11.0)
    eventually(lambda: len(running.receiver.got) == 1)
    assert running.receiver.got[0][0] == "b"
    let_go.set()
    eventually(lambda: len(running.receiver.got) == 2)
    running.stop()


def test_a_message_is_durable_before_it_is_sent_and_known_after_a_restart(running: Running) -> None:
    running.receiver.fails = {"a"}
    running.see(CRASH, after=11.0)
    eventually(lambda: running.saved("desks")["a"].get("error"))
    eventually(lambda: "queue" not in running.saved("desks")["b"])
    running.stop()
    running.receiver.fails = set()
    running.clock.at += 60.0
    running.start()
    running.notifier.take(CRASH)
    eventually(lambda: len(running.receiver.got) == 2)
    running.stop()
    (b, from_b, b_durable), (a, from_a, a_durable) = running.receiver.got
    assert (b, a, from_a) == ("b", "a", from_b)
    assert a_durable
    assert b_durable


def test_nothing_is_sent_while_nothing_can_be_written(running: Running) -> None:
    running.receiver.hangs = {"a": threading.Event(), "b": threading.Event()}
    running.see(view(row("web"), version="r-1"), after=1.0)
    eventually(lambda: running.saved("desks"))
    moved = running.folder.rename(running.folder.with_name("away"))
    for event in running.receiver.hangs.values():
        event.set()
    running.clock.at += 1.0
    running.notifier.take(CRASH)
    running.clock.at += 11.0
    running.notifier.take({**CRASH, "version": "r-3"})
    running.stop()
    assert running.receiver.got == []
    moved.rename(running.folder)
    running.start()
    running.see({**CRASH, "version": "r-3"}, after=11.0)
    eventually(lambda: len(running.receiver.got) == 2)
    running.stop()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"format": 1, "state": {"incidents": 7}}')
    running = Running(tmp_path)
    running.see(CRASH, after=11.0)
    eventually(lambda: len(running.receiver.got) == 2)
    running.stop()
    assert (tmp_path / "notices.damaged").exists()


def test_a_removed_destination_is_forgotten_and_its_outcome_too(running: Running) -> None:
    running.receiver.hangs["a"] = let_go = threading.Event()
    running.see(CRASH, after=11.0)
    eventually(lambda: len(running.receiver.got) == 1)
    running.names = ("b",)
    running.notifier.take({**CRASH, "version": "r-3"})
    eventually(lambda: list(running.saved("desks")) == ["b"])
    running.receiver.fails = {"a"}
    let_go.set()
    running.stop()
    assert list(running.saved("desks")) == ["b"]


#: Sends the incident of a view to a webhook, at instants of its own. Ends once all is delivered.
MORTAL = """
import json, sys
from controller.app.process import SystemClock, crash_reach
from controller.model.notifications import NoticeTarget
from controller.notify.notifier import Notifier, NotifierParts
from controller.notify.senders import TargetSender
from pathlib import Path
import os

folder, url, views = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

class Clock:
    at = float(sys.argv[4])
    def now(self): return self.at
    def monotonic(self): return SystemClock().monotonic()

clock = Clock()
target = NoticeTarget("hook", webhook=url, private=True)
parts = NotifierParts(folder=folder, instance="i", host="h", read_targets=lambda: (target,),
    sender=TargetSender(clock.monotonic), clock=clock, reach=crash_reach(os.environ), settle_s=10.0)

class Lively(Notifier):
    def _send_due(self):
        super()._send_due()
        if not self._busy and not any(each.queue for each in self._state.desks.values()):
            if views:
                clock.at += 11.0
                self.take(views.pop(0))
            else:
                self.stop()

notifier = Lively(parts)
notifier.take(views.pop(0))
notifier.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", NOTIFIER_POINTS)
@pytest.mark.parametrize("visit", [1, 2, 3])
def test_a_kill_at_any_point_loses_nothing_and_duplicates_have_one_id(
    point: str, visit: int, tmp_path: Path
) -> None:
    shown = [CRASH, CRASH, *(view(row("web"), version=f"r-{n}") for n in (3, 4))]

    def run(server: ForgeServer, at: float, crash: str) -> int:
        argv = [sys.executable, "-c", MORTAL, str(tmp_path), f"{server.url}/", json.dumps(shown)]
        environment = {**os.environ, "TRIMTAB_CRASH_AT": crash}
        return subprocess.run([*argv, str(at)], env=environment, check=False).returncode

    with ForgeServer() as server:
        code = run(server, BEGIN + 1.0, f"{point}:{visit}")
        assert code in (-signal.SIGKILL, 0)
        assert code != 0 or visit == 3, "the point is visited"
        if code != 0:
            assert run(server, BEGIN + 100.0, "") == 0
    told = [(each.body["event"], each.headers["trimtab-message"]) for each in server.received]
    incidents = {each.body["incident"] for each in server.received}
    events = [event for event, _ in told]
    assert events[-1] in ("resolved", "was")
    assert "opened" in events or events == ["was"]
    by_id: dict[str, set[str]] = {}
    for event, number in told:
        by_id.setdefault(number, set()).add(event)
    assert all(len(each) == 1 for each in by_id.values()), "an id is one message"
    assert len(told) - len(by_id) <= 1, "a kill repeats one message at most"
    # Before the state has the incident, another begin is another incident.
    assert len(incidents) == 1 or events.count("opened") > 1
