"""The loop of the process that sends notifications: views in, messages out.

The loop alone has the state. A state with a message, and with each try of it, is durable before the message is
sent. Each destination has a thread while a message is on its way, so that none waits for another.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from controller.core.notify.desks import delivered, failed, next_due, next_state, trying
from controller.core.notify.symptoms import symptoms_of
from controller.core.notify.texts import Origin
from controller.model.crashpoints import Reach, pass_by
from controller.model.notifications import (
    SETTLE_S,
    Notice,
    NoticeState,
    NoticeTarget,
    ViewSymptoms,
)
from controller.notify.senders import NoticeNotSent
from controller.notify.state_file import take_notices, write_notices
from controller.ports import Clock

log = logging.getLogger("trimtab.notify")

#: The time between two looks for messages that are due again.
LOOK_S: Final = 1.0
#: A state that differs by its instant alone is written this often.
KEEP_S: Final = 60.0


class NoticeSender(Protocol):
    """Sends a message to a destination."""

    def send(self, target: NoticeTarget, notice: Notice, origin: Origin) -> None:
        """Return once the receiver took the message.

        Raises:
            NoticeNotSent: it didn't.
        """
        ...


@dataclass(frozen=True, slots=True)
class NotifierParts:
    """What a notifier is made of."""

    #: The folder of the state file.
    folder: Path
    #: The id of the instance.
    instance: str
    #: The name of the host, until a view has one.
    host: str
    #: Returns the destinations of the settings in force.
    read_targets: Callable[[], tuple[NoticeTarget, ...]]
    sender: NoticeSender
    clock: Clock
    reach: Reach = pass_by
    #: How long a condition lasts before it is told, in seconds.
    settle_s: float = SETTLE_S


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The end of a try. ``error`` is None if the message was delivered."""

    target: str
    notice: Notice
    error: NoticeNotSent | None


@dataclass(frozen=True, slots=True)
class _SeenView:
    view: Mapping[str, Any] | None


class _Stopped:
    pass


class Notifier:
    """Decides on each view, and sends what is due, until it is stopped."""

    def __init__(self, parts: NotifierParts) -> None:
        self._parts = parts
        self._events: queue.SimpleQueue[_Outcome | _SeenView | _Stopped] = queue.SimpleQueue()
        self._state = take_notices(parts.folder)
        self._written = NoticeState()
        #: The destinations with a message on its way.
        self._busy: set[str] = set()
        self._version = ""
        self._seen = ViewSymptoms()
        self._is_writable = True

    def take(self, view: Mapping[str, Any] | None) -> None:
        """Pass a whole view to the loop, or None if there is none. Any thread may call this."""
        self._events.put(_SeenView(view))

    def stop(self) -> None:
        """End the loop. Safe in a signal handler."""
        self._events.put(_Stopped())

    def run(self) -> None:
        """Run until ``stop``. A message on its way then is sent again by the next run."""
        while True:
            has_messages = any(each.queue for each in self._state.desks.values())
            try:
                event = self._events.get(timeout=LOOK_S if has_messages else None)
            except queue.Empty:
                event = None
            match event:
                case _Stopped():
                    return
                case _SeenView(view=view):
                    self._step(view)
                case _Outcome():
                    self._conclude(event)
                case None:
                    pass
            self._send_due()

    def _step(self, view: Mapping[str, Any] | None) -> None:
        now = self._parts.clock.now()
        if view is not None and (version := str(view["version"])) != self._version:
            self._seen, self._version = symptoms_of(view, now), version
        self._state = next_state(
            self._state,
            None if view is None else self._seen,
            self._parts.read_targets(),
            instance=self._parts.instance,
            now=now,
            settle=self._parts.settle_s,
        )
        self._write()

    def _send_due(self) -> None:
        now = self._parts.clock.now()
        due = [name for name in next_due(self._state.desks, now) if name not in self._busy]
        if not due:
            return
        targets = {each.name: each for each in self._parts.read_targets()}
        due = [name for name in due if name in targets]
        before = self._state
        desks = {**before.desks, **{name: trying(before.desks[name]) for name in due}}
        self._state = replace(before, desks=desks)
        if not self._write():
            self._state = before
            return
        origin = Origin(self._seen.host or self._parts.host, self._parts.instance)
        for name in due:
            self._busy.add(name)
            threading.Thread(
                target=self._send,
                args=(targets[name], desks[name].queue[0], origin),
                name=f"to-{name}",
                daemon=True,
            ).start()

    def _send(self, target: NoticeTarget, notice: Notice, origin: Origin) -> None:
        error = None
        self._parts.reach("notice.send.before")
        try:
            self._parts.sender.send(target, notice, origin)
        except NoticeNotSent as failure:
            error = failure
        except Exception as failure:
            log.exception("sending to %s failed", target.name)
            error = NoticeNotSent(f"an error of trimtab's: {type(failure).__name__}")
        self._parts.reach("notice.send.after")
        self._events.put(_Outcome(target.name, notice, error))

    def _conclude(self, outcome: _Outcome) -> None:
        self._busy.discard(outcome.target)
        desk = self._state.desks.get(outcome.target)
        if desk is None or not desk.queue or desk.queue[0] != outcome.notice:
            return  # the destination was removed meanwhile
        now = self._parts.clock.now()
        if outcome.error is None:
            desk = delivered(desk, now)
        else:
            if not desk.failing_since:
                log.warning("a message to %s isn't delivered: %s", outcome.target, outcome.error)
            desk = failed(desk, str(outcome.error), now, refused=outcome.error.refused)
        self._state = replace(self._state, desks={**self._state.desks, outcome.target: desk})
        self._write()

    def _write(self) -> bool:
        """Make the state durable, unless its instant alone is new. Return False if that failed."""
        state, written = self._state, self._written
        is_recent = 0 <= state.at - written.at < KEEP_S
        if is_recent and replace(state, at=written.at) == written:
            return True
        try:
            write_notices(self._parts.folder, state, self._parts.reach)
        except OSError as error:
            if self._is_writable:
                log.error("nothing is sent: %s: %s", self._parts.folder, error.strerror)  # noqa: TRY400
            self._is_writable = False
            return False
        self._written, self._is_writable = state, True
        return True
