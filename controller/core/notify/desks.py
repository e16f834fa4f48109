"""What each destination is told of the incidents: routes, quiet hours, repetitions, and the queue.

A message enters the queue before it is sent, and leaves it when it was delivered or given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

from controller.core.encoding.text import shorten
from controller.core.notify.incidents import Over, step_incidents
from controller.core.notify.symptoms import TEXT_MAX
from controller.model.notifications import (
    SETTLE_S,
    Affected,
    Desk,
    Gravity,
    Incident,
    Notice,
    NoticeEvent,
    NoticeRoute,
    NoticeState,
    NoticeTarget,
    Told,
    ViewSymptoms,
)

NAMES_MAX: Final = 20
LINES_MAX: Final = 50
QUEUE_MAX: Final = 100
#: More messages of one step than this are sent as one digest.
ALONE_MAX: Final = 5
RETRY_FIRST_S: Final = 5.0
RETRY_LONGEST_S: Final = 900.0
#: A message that can't be delivered for so long is given up; one that the receiver refuses, after so many tries.
GIVE_UP_S: Final = 24 * 3600.0
REFUSED_MAX: Final = 5


def next_state(
    before: NoticeState,
    seen: ViewSymptoms | None,
    targets: Iterable[NoticeTarget],
    *,
    instance: str,
    now: float,
    settle: float = SETTLE_S,
) -> NoticeState:
    """Return the state after one view, or after none (*seen* None).

    The messages that are due at *now* are in the queues of the destinations. A removed destination is forgotten.
    """
    state, over = step_incidents(before, seen, instance=instance, now=now, settle=settle)
    desks = {
        each.name: _step(before.desks.get(each.name, Desk()), state, over, each, seen, now)
        for each in targets
    }
    return replace(state, desks=desks)


def _step(
    desk: Desk,
    state: NoticeState,
    over: Iterable[Over],
    target: NoticeTarget,
    seen: ViewSymptoms | None,
    now: float,
) -> Desk:
    is_quiet = target.quiet is not None and target.quiet.hold(now)
    turn = _Turn(target, state.routes, now, is_quiet, dict(desk.told), held=[*desk.held])
    for incident in state.incidents.values():
        if incident.is_due:
            turn.go_on(incident)
    for each in over:
        turn.end(each)
    if not is_quiet:
        turn.end_quiet()
    made = [*_together(turn.made, now, most=ALONE_MAX)]
    beat = min(desk.beat, now)
    if target.heartbeat and seen is not None and now - beat >= target.heartbeat:
        made.append(_sign(NoticeEvent.HEARTBEAT, seen.summary, now))
        beat = now
    known = {each.id for each in state.incidents.values()}
    told = {name: each for name, each in turn.told.items() if name in known}
    lost = max(0, len(turn.held) - QUEUE_MAX)
    held = tuple(turn.held[lost:])
    return _queued(replace(desk, told=told, held=held, beat=beat, lost=desk.lost + lost), made)


@dataclass(slots=True)
class _Turn:
    """One step of one destination."""

    target: NoticeTarget
    routes: tuple[NoticeRoute, ...]
    now: float
    is_quiet: bool
    told: dict[str, Told]
    #: The messages to be sent now, and those that quiet hours hold back.
    made: list[Notice] = field(default_factory=list)
    held: list[Notice] = field(default_factory=list)

    def go_on(self, incident: Incident) -> None:
        """Make the message that is due for an incident without an end, if a message is due."""
        before = self.told.get(incident.id)
        scope = scope_of(incident, self.target, self.routes)
        event = _event(incident, before, self.target, self.now)
        if scope is None or event is None:
            return
        number = 1 if before is None or before.is_held else before.number + 1
        notice = _notice(incident, event, scope, number, self.now)
        if not self._holds(incident):
            self._drop_held(incident)
            self.made.append(notice)
        elif event is NoticeEvent.OPENED:
            self.held.append(notice)
        else:
            return
        self.told[incident.id] = Told(self.now, incident.gravity, number, self._holds(incident))

    def end(self, over: Over) -> None:
        """Tell the end of an incident to a destination that knows its begin, or was never asked."""
        incident = over.incident
        before = self.told.pop(incident.id, None)
        scope = scope_of(incident, self.target, self.routes)
        if scope is None or (before is None and incident.is_due):
            return
        if before is None or before.is_held:
            self._drop_held(incident)
            notice = _ended(over, NoticeEvent.WAS, scope, 1, self.now)
        else:
            notice = _ended(over, NoticeEvent.RESOLVED, scope, before.number + 1, self.now)
        (self.held if self._holds(incident) else self.made).append(notice)

    def end_quiet(self) -> None:
        """Send all messages that quiet hours held back, as one message."""
        for notice in self.held:
            if notice.incident in self.told:
                told = replace(self.told[notice.incident], at=self.now, is_held=False)
                self.told[notice.incident] = told
        held = [replace(notice, at=self.now) for notice in self.held]
        self.made = [*_together(held, self.now, most=1), *self.made]
        self.held = []

    def _holds(self, incident: Incident) -> bool:
        return self.is_quiet and incident.gravity != "page"

    def _drop_held(self, incident: Incident) -> None:
        self.held = [each for each in self.held if each.incident != incident.id]


def _event(
    incident: Incident, told: Told | None, target: NoticeTarget, now: float
) -> NoticeEvent | None:
    """Return what there is to say of an incident that goes on; None for nothing."""
    if told is None:
        return NoticeEvent.OPENED if incident.gone is None else None
    if incident.gone is not None:
        return None
    if incident.gravity == "page" and told.gravity != "page":
        return NoticeEvent.OPENED if told.is_held else NoticeEvent.WORSE
    if told.is_held or now - min(told.at, now) < target.repeat_after:
        return None
    return NoticeEvent.REPEATED


def scope_of(
    incident: Incident, target: NoticeTarget, routes: Iterable[NoticeRoute]
) -> tuple[Affected, ...] | None:
    """Return what of an incident a destination is told of; None for an incident of no concern to it."""
    if target.everything and _is_as_grave(incident.gravity, target.everything):
        return incident.affected
    found: dict[str, Affected] = {}
    is_told = False
    for route in routes:
        if target.name not in route.to or not _is_as_grave(incident.gravity, route.match.severity):
            continue
        if route.source and route.source not in target.sources:
            continue
        matching = [each for each in incident.affected if _matches(route, each)]
        is_told |= bool(matching) or _is_of_host(incident, route)
        found |= {each.key: each for each in matching}
    return tuple(sorted(found.values())) if is_told else None


def _is_of_host(incident: Incident, route: NoticeRoute) -> bool:
    """Return True for an incident without resources that a Notification of DIR about everything gets."""
    match = route.match
    is_wide = not (match.namespace or match.kind or match.condition or match.name != "*")
    return not incident.affected and not route.source and is_wide


def _matches(route: NoticeRoute, each: Affected) -> bool:
    match = route.match
    if each.kind == "Source":  # of no namespace: a source's own Notifications are told of it
        if route.source and route.source != each.name:
            return False
    elif not _permits(route, each):
        return False
    return (
        (not match.namespace or fnmatchcase(each.namespace, match.namespace))
        and match.kind in ("", each.kind)
        and fnmatchcase(each.name, match.name)
        and match.condition in ("", each.condition)
    )


def _permits(route: NoticeRoute, each: Affected) -> bool:
    is_in = route.namespaces is None or each.namespace in route.namespaces
    return is_in and (not route.owners or each.owner in route.owners)


def _is_as_grave(gravity: Gravity, least: Gravity) -> bool:
    return gravity == "page" or least == "warning"


def _notice(
    incident: Incident,
    event: NoticeEvent,
    scope: tuple[Affected, ...],
    number: int,
    now: float,
) -> Notice:
    return Notice(
        incident.id,
        number,
        event,
        incident.gravity,
        incident.title,
        shorten(incident.text, TEXT_MAX),
        now,
        incident.since,
        tuple(f"{each.namespace}/{each.name}" for each in scope[:NAMES_MAX]),
        len(scope),
    )


def _ended(
    over: Over, event: NoticeEvent, scope: tuple[Affected, ...], number: int, now: float
) -> Notice:
    word = "was, for" if event is NoticeEvent.WAS else "resolved, after"
    text = f"{word} {in_words(over.seconds)}"
    return replace(_notice(over.incident, event, scope, number, now), text=text)


def in_words(seconds: float) -> str:
    """Return a duration such as ``4 min`` or ``2 h 5 min``."""
    count = max(0, round(seconds))
    if count < 60:
        return f"{count} s"
    minutes = count // 60
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{days} d"] * bool(days) + [f"{hours} h"] * bool(hours) + [f"{rest} min"] * bool(rest)
    return " ".join(parts[:2])


def _sign(event: NoticeEvent, text: str, now: float) -> Notice:
    title = "trimtab watches this host" if event is NoticeEvent.HEARTBEAT else "a test of trimtab"
    return Notice(f"{event}-{now:.0f}", 1, event, "warning", title, text, now, now)


def test_notice(now: float) -> Notice:
    """Return the message of ``trimtab notify test``."""
    return _sign(NoticeEvent.TEST, "this destination works; nothing is wrong", now)


def _together(made: Iterable[Notice], now: float, *, most: int) -> Iterator[Notice]:
    """Yield at most *most* messages as they are; more of them as one digest."""
    made = tuple(made)
    if len(made) <= most:
        yield from made
        return
    gravity: Gravity = "page" if any(each.gravity == "page" for each in made) else "warning"
    lines = tuple(line_of(each) for each in made[:LINES_MAX])
    if len(made) > LINES_MAX:
        lines = (*lines, f"and {len(made) - LINES_MAX} more")
    yield Notice(
        made[0].incident,
        made[0].number,
        NoticeEvent.DIGEST,
        gravity,
        f"{len(made)} incidents",
        "",
        now,
        min(each.since for each in made),
        lines=lines,
        count=sum(each.count for each in made),
    )


def line_of(notice: Notice) -> str:
    """Return a message on one line of a digest."""
    word = "" if notice.event in (NoticeEvent.WAS, NoticeEvent.RESOLVED) else f"{notice.event}: "
    parts = [f"{word}{notice.title}", notice.text]
    return shorten("; ".join(part for part in parts if part), TEXT_MAX)


def _queued(desk: Desk, made: Iterable[Notice]) -> Desk:
    """Return a desk with more messages in its queue.

    The end of an incident takes the place of its begin, if nobody tried to send that yet.
    """
    queue = [*desk.queue]
    for notice in made:
        # The first message can have arrived, if it was tried.
        unsent = queue[1:] if desk.attempts else queue
        begin = next((each for each in unsent if each.incident == notice.incident), None)
        is_unknown = begin is not None and begin.event is NoticeEvent.OPENED
        if notice.event is NoticeEvent.RESOLVED and is_unknown:
            queue = [each for each in queue if each is not begin]
            text = notice.text.replace("resolved, after", "was, for", 1)
            queue.append(replace(notice, event=NoticeEvent.WAS, number=1, text=text))
        else:
            queue.append(notice)
    lost = max(0, len(queue) - QUEUE_MAX)
    # The first one can be on its way.
    kept = queue if not lost else [queue[0], *queue[1 + lost :]]
    return replace(desk, queue=tuple(kept), lost=desk.lost + lost)


def trying(desk: Desk) -> Desk:
    """Return a desk whose first message is about to be sent."""
    return replace(desk, attempts=desk.attempts + 1)


def delivered(desk: Desk, now: float) -> Desk:
    """Return a desk after its first message was delivered."""
    return replace(
        desk,
        queue=desk.queue[1:],
        attempts=0,
        retry_at=0.0,
        error="",
        failing_since=0.0,
        delivered_at=now,
    )


def failed(desk: Desk, why: str, now: float, *, refused: bool) -> Desk:
    """Return a desk after its first message wasn't delivered.

    *refused*: the receiver doesn't take this message, and can take others.
    """
    first = desk.queue[0]
    is_given_up = now - first.at >= GIVE_UP_S or (refused and desk.attempts >= REFUSED_MAX)
    pause = min(RETRY_LONGEST_S, RETRY_FIRST_S * 2.0 ** min(desk.attempts - 1, 10))
    return replace(
        desk,
        queue=desk.queue[1:] if is_given_up else desk.queue,
        attempts=0 if is_given_up else desk.attempts,
        lost=desk.lost + is_given_up,
        retry_at=now + pause,
        error=shorten(why, TEXT_MAX),
        failing_since=min(desk.failing_since or now, now),
    )


def next_due(desks: Mapping[str, Desk], now: float) -> Iterator[str]:
    """Yield the destinations with a message to be sent at *now*."""
    for name, desk in desks.items():
        # A clock that was set back delays no retry for long.
        if desk.queue and not now < desk.retry_at <= now + RETRY_LONGEST_S:
            yield name
