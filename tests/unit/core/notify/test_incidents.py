"""One incident for each cause, told once, repeated, resolved; quiet hours; and what is out of reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.encoding.stored_form import StoredForm
from controller.core.notify import desks
from controller.core.notify.desks import in_words, next_state
from controller.core.notify.incidents import AFTER_ENGINE_S, BLIND_S, INCIDENTS_MAX
from controller.core.notify.symptoms import TEXT_MAX, symptoms_of
from controller.model.notifications import (
    REPEAT_S,
    SETTLE_S,
    Desk,
    Notice,
    NoticeEvent,
    NoticeState,
    NoticeTarget,
    QuietHours,
)
from tests.examples import examples
from tests.unit.core.notify.views import BEGIN, away, row, view

PHONE = NoticeTarget("phone", webhook="https://example.org/x")
FORM = StoredForm(NoticeState)


@dataclass
class Sender:
    """A process of notifications whose destinations take everything, at instants of the test's choice."""

    targets: tuple[NoticeTarget, ...] = (PHONE,)
    now: float = BEGIN
    state: NoticeState = field(default_factory=NoticeState)
    sent: list[tuple[str, Notice]] = field(default_factory=list)

    def see(self, shown: dict[str, Any] | None, *, after: float = 1.0) -> None:
        """Take a step some seconds later, and deliver what is due."""
        self.now += after
        seen = None if shown is None else symptoms_of(shown, self.now)
        self.state = next_state(self.state, seen, self.targets, instance="i", now=self.now)
        self.deliver()

    def deliver(self) -> None:
        """Deliver all queues."""
        for name, desk in self.state.desks.items():
            self.sent += ((name, notice) for notice in desk.queue)
        emptied = {name: replace(desk, queue=()) for name, desk in self.state.desks.items()}
        self.state = replace(self.state, desks=emptied)

    def last(self, shown: dict[str, Any] | None, seconds: float) -> None:
        """See the same for some seconds, a step each ten."""
        for _ in range(round(seconds / 10)):
            self.see(shown, after=10.0)

    @property
    def told(self) -> list[tuple[str, str]]:
        """The events and titles so far."""
        return [(notice.event.value, notice.title) for _, notice in self.sent]


def test_a_condition_that_lasts_is_told_once_and_resolved_with_its_duration() -> None:
    sender = Sender()
    sender.see(view(row("web")))
    crash = view(row("web", severity="warning", condition="CrashLoop", since=BEGIN + 1))
    sender.last(crash, 120)
    assert sender.told == [("opened", "Service shop/web: CrashLoop")]
    sender.last(view(row("web")), SETTLE_S + 20)
    assert sender.told[1:] == [("resolved", "Service shop/web: CrashLoop")]
    (_, opened), (_, resolved) = sender.sent
    assert (opened.incident, opened.number) == (resolved.incident, resolved.number - 1)
    assert resolved.text == "resolved, after 2 min"
    assert sender.state.incidents == {}
    assert sender.state.desks["phone"].told == {}


def test_a_short_lapse_is_not_told() -> None:
    sender = Sender()
    sender.last(view(row("web", severity="warning", condition="Degraded")), SETTLE_S / 2)
    sender.last(view(row("web")), 300)
    assert sender.told == []


def test_a_condition_that_comes_and_goes_is_one_incident() -> None:
    sender = Sender()
    bad = view(row("web", severity="warning", condition="CrashLoop"))
    for _ in range(10):
        sender.last(bad, SETTLE_S * 2)
        sender.last(view(row("web")), SETTLE_S / 2)
    assert sender.told == [("opened", "Service shop/web: CrashLoop")]


def test_a_restart_of_the_engine_with_fifty_services_is_one_incident() -> None:
    names = [f"s{number}" for number in range(50)]
    sender = Sender()
    sender.see(view(*map(row, names)))
    begin = sender.now
    # They are ended before the engine's socket is gone, and come up one after the other.
    ended = [row(n, severity="warning", condition="Degraded", since=begin + 1) for n in names]
    sender.last(view(*ended), 10)
    sender.last(view(*(away(name, since=begin + 10) for name in names)), 60)
    for up in range(0, 50, 10):
        sender.last(view(*map(row, names[:up]), *ended[up:]), 20)
    sender.last(view(*map(row, names)), 60)
    assert sender.told == [
        ("opened", "the engine doesn't answer"),
        ("resolved", "the engine doesn't answer"),
    ]
    assert sender.sent[0][1].count == 50


def test_what_an_engine_leaves_broken_is_told_by_itself() -> None:
    sender = Sender()
    sender.last(view(away("web"), away("db")), 60)
    broken = row("db", severity="warning", condition="CrashLoop", since=sender.now)
    sender.last(view(row("web"), broken), AFTER_ENGINE_S + 120)
    engine, service = "the engine doesn't answer", "Service shop/db: CrashLoop"
    assert [event for event, title in sender.told if title == engine] == ["opened", "resolved"]
    assert [event for event, title in sender.told if title == service] == ["opened"]


def test_an_incident_from_before_goes_on_while_the_engine_is_away() -> None:
    sender = Sender()
    bad = row("web", severity="warning", condition="CrashLoop")
    sender.last(view(bad), 120)
    sender.last(view(away("web", since=sender.now)), 120)
    sender.last(view(bad), 120)
    assert [event for event, title in sender.told if "web" in title] == ["opened"]


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("image.registry", "registry ghcr.io gives no image"),
        ("image.rate-limited", "registry ghcr.io gives no image"),
        ("image.disk", "the disk is full"),
    ],
)
def test_a_common_cause_of_many_services_is_one_incident(reason: str, title: str) -> None:
    rows = [
        row(f"s{n}", severity="warning", condition="Stalled", reason=reason, image=f"ghcr.io/a/{n}")
        for n in range(20)
    ]
    sender = Sender()
    sender.last(view(*rows), 120)
    assert sender.told == [("opened", title)]


def test_many_incidents_at_once_are_one_digest() -> None:
    rows = [row(f"s{n}", severity="warning", condition="CrashLoop") for n in range(30)]
    sender = Sender()
    sender.last(view(*rows), 60)
    assert sender.told == [("digest", "30 incidents")]
    sender.last(view(), 60)
    assert sender.told[1:] == [("digest", "30 incidents")]


def test_an_incident_is_repeated_after_its_time() -> None:
    sender = Sender()
    sender.last(view(row("web", severity="warning", condition="CrashLoop")), 2.5 * REPEAT_S)
    assert [event for event, _ in sender.told] == ["opened", "repeated", "repeated"]
    assert [notice.number for _, notice in sender.sent] == [1, 2, 3]


def test_a_rise_of_severity_is_told() -> None:
    sender = Sender()
    sender.last(view(row("web", severity="warning", condition="Stalled")), 60)
    sender.last(view(row("web", severity="page", condition="Stalled")), 60)
    assert [event for event, _ in sender.told] == ["opened", "worse"]


def test_without_views_an_incident_stays_and_the_silence_is_told() -> None:
    sender = Sender()
    bad = row("web", severity="warning", condition="CrashLoop")
    sender.last(view(bad), 60)
    sender.last(None, BLIND_S + 60)
    assert sender.told[1:] == [("opened", "trimtab doesn't answer")]
    sender.last(view(bad), 60)
    assert sender.told[2:] == [("resolved", "trimtab doesn't answer")]


def test_a_controller_that_has_not_looked_ends_no_incident() -> None:
    sender = Sender()
    sender.last(view(row("web", severity="warning", condition="CrashLoop")), 60)
    sender.last(view(row("web", reason="NotSeen", severity="progress")), 300)
    assert [event for event, _ in sender.told] == ["opened"]


def test_what_ended_while_the_process_was_away_is_told_as_was() -> None:
    sender = Sender()
    sender.see(view(row("web", severity="warning", condition="CrashLoop", since=BEGIN)))
    sender.see(view(row("web")), after=239.0)
    assert sender.told == [("was", "Service shop/web: CrashLoop")]
    assert sender.sent[0][1].text == "was, for 4 min"


def test_an_end_takes_the_place_of_an_unsent_begin() -> None:
    sender = Sender()
    state = sender.state
    for seconds in range(0, 400, 10):
        rows = [row("web", severity="warning", condition="CrashLoop")] if seconds < 240 else []
        seen = symptoms_of(view(*rows), BEGIN + seconds)
        state = next_state(state, seen, (PHONE,), instance="i", now=BEGIN + seconds)
    (only,) = state.desks["phone"].queue
    assert (only.event, only.text) == (NoticeEvent.WAS, "was, for 4 min")


def test_a_tried_message_is_never_replaced() -> None:
    rows = [row("web", severity="warning", condition="CrashLoop")]
    state = NoticeState()
    for seconds in range(0, 100, 10):
        now = BEGIN + seconds
        state = next_state(state, symptoms_of(view(*rows), now), (PHONE,), instance="i", now=now)
    desk = desks.trying(state.desks["phone"])
    state = replace(state, desks={"phone": desk})
    for seconds in range(100, 200, 10):
        now = BEGIN + seconds
        state = next_state(state, symptoms_of(view(), now), (PHONE,), instance="i", now=now)
    assert [each.event.value for each in state.desks["phone"].queue] == ["opened", "resolved"]


BERLIN = ZoneInfo("Europe/Berlin")
QUIET = QuietHours(time(22), time(7), "Europe/Berlin")


@pytest.mark.parametrize(
    ("local", "holds"),
    [
        (datetime(2026, 3, 28, 21, 59, tzinfo=BERLIN), False),
        (datetime(2026, 3, 28, 22, 0, tzinfo=BERLIN), True),
        # 02:00 to 03:00 doesn't exist on 29 March, and exists twice on 25 October.
        (datetime(2026, 3, 29, 3, 0, tzinfo=BERLIN), True),
        (datetime(2026, 3, 29, 6, 59, tzinfo=BERLIN), True),
        (datetime(2026, 3, 29, 7, 0, tzinfo=BERLIN), False),
        (datetime(2026, 10, 25, 2, 30, fold=0, tzinfo=BERLIN), True),
        (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN), True),
        (datetime(2026, 10, 25, 7, 0, tzinfo=BERLIN), False),
    ],
)
def test_quiet_hours_follow_the_clock_on_the_wall(local: datetime, *, holds: bool) -> None:
    assert QUIET.hold(local.timestamp()) is holds


@pytest.mark.parametrize(
    ("quiet", "night", "changes"),
    [
        # The skipped hour, 02:00 to 03:00 on 29 March: what lies in it is at 03:00.
        (QuietHours(time(22), time(2, 30), "Europe/Berlin"), "2026-03-29", ["03:00 ends"]),
        (QuietHours(time(2, 30), time(7), "Europe/Berlin"), "2026-03-29", ["03:00 begins"]),
        (QuietHours(time(2, 10), time(2, 50), "Europe/Berlin"), "2026-03-29", []),
        # The doubled hour, 02:00 to 03:00 on 25 October: what lies in it is in the first one.
        (QuietHours(time(22), time(2, 30), "Europe/Berlin"), "2026-10-25", ["02:30 ends"]),
        (QuietHours(time(2, 30), time(7), "Europe/Berlin"), "2026-10-25", ["02:30 begins"]),
        (
            QuietHours(time(2, 10), time(2, 50), "Europe/Berlin"),
            "2026-10-25",
            ["02:10 begins", "02:50 ends"],
        ),
        # A doubled half hour, 01:30 to 02:00.
        (QuietHours(time(22), time(1, 45), "Australia/Lord_Howe"), "2026-04-05", ["01:45 ends"]),
        (QuietHours(time(1, 45), time(7), "Australia/Lord_Howe"), "2026-04-05", ["01:45 begins"]),
    ],
)
def test_quiet_hours_begin_and_end_once_in_an_hour_that_is_skipped_or_doubled(
    quiet: QuietHours, night: str, changes: list[str]
) -> None:
    zone = ZoneInfo(quiet.zone)
    start = datetime.fromisoformat(f"{night}T00:00").replace(tzinfo=zone).timestamp()
    minutes = [start + 60 * n for n in range(6 * 60)]
    found = [
        f"{datetime.fromtimestamp(now, zone):%H:%M} {'begins' if quiet.hold(now) else 'ends'}"
        for before, now in pairwise(minutes)
        if quiet.hold(before) != quiet.hold(now)
    ]
    assert found == changes


@pytest.mark.parametrize(
    "day", [datetime(2026, 3, 28, tzinfo=BERLIN), datetime(2026, 10, 24, tzinfo=BERLIN)]
)
def test_a_night_over_a_change_of_the_clock_ends_with_one_digest(day: datetime) -> None:
    start = day.replace(hour=23).timestamp()
    sender = Sender((replace(PHONE, quiet=QUIET),), now=start)
    bad = [row(f"s{n}", severity="warning", condition="CrashLoop", since=start) for n in range(2)]
    sender.last(view(*bad), 3600)
    sender.last(view(bad[0]), 3600)
    assert sender.told == []
    morning = datetime.combine(day.date(), time(7), BERLIN).timestamp() + 24 * 3600
    end = datetime.fromtimestamp(morning, BERLIN).replace(hour=7).timestamp()
    sender.last(view(bad[0]), end - sender.now - 10)
    assert sender.told == []
    sender.last(view(bad[0]), 60)
    assert sender.told == [("digest", "2 incidents")]
    opened, was = sender.sent[0][1].lines
    assert opened.startswith("opened: Service shop/s0: CrashLoop")
    assert was.startswith("Service shop/s1: CrashLoop; was, for 1 h")
    sender.last(view(), 60)
    assert sender.told[1:] == [("resolved", "Service shop/s0: CrashLoop")]


def test_a_page_breaks_quiet_hours() -> None:
    start = datetime(2026, 3, 1, 23, tzinfo=BERLIN).timestamp()
    sender = Sender((replace(PHONE, quiet=QUIET),), now=start)
    sender.last(view(away("web", since=start)), 60)
    assert sender.told == [("opened", "the engine doesn't answer")]


def test_a_heartbeat_is_sent_while_views_come() -> None:
    sender = Sender((replace(PHONE, heartbeat=3600.0),))
    sender.last(view(), 2 * 3600 + 60)
    assert [event for event, _ in sender.told] == ["heartbeat"] * 3
    sender.last(None, 3 * 3600)
    assert [event for event, _ in sender.told].count("heartbeat") == 3


def route(*to: str, match: dict[str, str] | None = None, **members: Any) -> dict[str, Any]:
    """Return the row of a Notification."""
    declared = {"match": match or {}, "to": [*to], **members}
    return {**row("n"), "kind": "Notification", "notification": declared}


TEAM = NoticeTarget("team", webhook="https://example.org/t", everything="", sources=("shop",))


@pytest.mark.parametrize(
    ("match", "is_told"),
    [
        ({}, True),
        ({"namespace": "sh*"}, True),
        ({"namespace": "other"}, False),
        ({"kind": "Job"}, False),
        ({"name": "we?"}, True),
        ({"name": "db*"}, False),
        ({"condition": "CrashLoop"}, True),
        ({"condition": "Stalled"}, False),
        ({"severity": "page"}, False),
    ],
)
def test_a_notification_tells_what_it_matches(match: dict[str, str], *, is_told: bool) -> None:
    sender = Sender((TEAM,))
    bad = row("web", severity="warning", condition="CrashLoop")
    sender.last(view(bad, route("team", match=match)), 60)
    assert bool(sender.told) is is_told


@pytest.mark.parametrize(
    ("members", "is_told"),
    [
        ({"source": "shop", "namespaces": ["shop"]}, True),
        ({"source": "shop", "namespaces": ["other"]}, False),
        ({"source": "shop", "namespaces": ["shop"], "owners": ["another"]}, False),
        ({"source": "evil", "namespaces": ["shop"]}, False),
    ],
)
def test_a_notification_of_a_source_tells_of_its_own_namespaces_alone(
    members: dict[str, Any], *, is_told: bool
) -> None:
    sender = Sender((TEAM,))
    bad = row("web", severity="warning", condition="CrashLoop")
    sender.last(view(bad, route("team", **members)), 60)
    assert bool(sender.told) is is_told


def test_a_source_learns_only_its_own_services_of_a_common_incident() -> None:
    sender = Sender((TEAM,))
    other = {**away("db"), "namespace": "secret"}
    sender.last(view(away("web"), other, route("team", source="shop", namespaces=["shop"])), 60)
    ((_, notice),) = sender.sent
    assert (notice.names, notice.count) == (("shop/web",), 1)


def test_no_text_is_longer_than_its_bound() -> None:
    sender = Sender()
    bad = row("w" * 500, severity="warning", condition="CrashLoop", message="x" * 5000)
    sender.last(view(bad), 60)
    ((_, notice),) = sender.sent
    assert max(map(len, (notice.title, notice.text, *notice.names))) <= 2 * TEXT_MAX


def test_too_many_incidents_are_one() -> None:
    rows = [
        row(f"s{n}", severity="warning", condition="CrashLoop") for n in range(INCIDENTS_MAX + 50)
    ]
    seen = symptoms_of(view(*rows), BEGIN)
    state = next_state(NoticeState(), seen, (PHONE,), instance="i", now=BEGIN)
    assert len(state.incidents) == INCIDENTS_MAX + 1
    assert len(state.incidents["many"].affected) == 50


def test_a_clock_that_is_set_back_neither_loses_nor_repeats() -> None:
    sender = Sender()
    bad = view(row("web", severity="warning", condition="CrashLoop"))
    sender.last(bad, 60)
    sender.see(bad, after=-86_400.0)
    sender.last(bad, 300)
    assert [event for event, _ in sender.told] == ["opened"]
    sender.last(view(), 60)
    assert [event for event, _ in sender.told] == ["opened", "resolved"]


def test_durations_in_words() -> None:
    assert [in_words(each) for each in (0, 59, 60, 3660, 90_000, 200_000)] == [
        *("0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h", "2 d 7 h"),
    ]


def test_a_failing_destination_is_tried_with_growing_pauses_and_given_up() -> None:
    notice = desks.test_notice(BEGIN)
    desk, now, tries = Desk(queue=(notice,)), BEGIN, 0
    while desk.queue:
        now = max(now, desk.retry_at)
        desk, tries = desks.failed(desks.trying(desk), "away", now, refused=False), tries + 1
    assert now - BEGIN >= desks.GIVE_UP_S
    assert tries < 120
    assert (desk.lost, desk.error, desk.failing_since) == (1, "away", BEGIN)


def test_a_message_that_the_receiver_refuses_stops_no_others() -> None:
    notices = tuple(replace(desks.test_notice(BEGIN), number=n) for n in (1, 2))
    desk = Desk(queue=notices)
    for _ in range(desks.REFUSED_MAX):
        desk = desks.failed(desks.trying(desk), "400", BEGIN, refused=True)
    assert [each.number for each in desk.queue] == [2]


#: What a service can be in a view, and the seconds until the next one.
LOOKS = st.tuples(
    st.lists(st.sampled_from(["ok", "warning", "page", "away", "gone"]), min_size=3, max_size=3),
    st.sampled_from([1.0, 7.0, 15.0, 60.0, 600.0, 40_000.0, -3600.0]),
    st.sampled_from(["seen", "seen", "seen", "none", "notseen"]),
)


def shown(words: Iterable[str]) -> dict[str, Any]:
    """Return a view of services in the states of *words*."""

    def rows() -> Iterator[dict[str, Any]]:
        for number, word in enumerate(words):
            name = f"s{number}"
            match word:
                case "ok":
                    yield row(name)
                case "away":
                    yield away(name)
                case "warning" | "page":
                    yield row(name, severity=word, condition="CrashLoop")
                case _:
                    pass

    return view(*rows())


LOOKS_OF: dict[str, Callable[[list[str]], dict[str, Any] | None]] = {
    "seen": shown,
    "none": lambda _words: None,
    "notseen": lambda _words: view(row("s0", reason="NotSeen", severity="progress")),
}


@settings(max_examples=examples(150))
@given(st.lists(LOOKS, max_size=30), st.booleans())
def test_every_incident_is_told_in_order_and_ends(
    looks: list[tuple[list[str], float, str]], is_quiet: bool
) -> None:
    quiet = QuietHours(time(22), time(7), "Europe/Berlin") if is_quiet else None
    sender = Sender((replace(PHONE, quiet=quiet, heartbeat=7200.0),))
    for words, after, kind in looks:
        sender.see(LOOKS_OF[kind](words), after=after)
        assert FORM.from_json(FORM.to_json(sender.state)) == sender.state
    noisy = [notice for _, notice in sender.sent if notice.gravity != "page"]
    held = [notice for notice in noisy if quiet is not None and quiet.hold(notice.at)]
    assert {notice.event for notice in held} <= {NoticeEvent.HEARTBEAT}
    # Everything is well for two days: each incident ends, and nothing is left to be told.
    for _ in range(100):
        sender.see(shown(["ok", "ok", "ok"]), after=1800.0)
    assert sender.state.incidents == {}
    assert (sender.state.desks["phone"].told, sender.state.desks["phone"].held) == ({}, ())
    lines = [line for _, notice in sender.sent for line in notice.lines]
    alone: dict[str, list[Notice]] = {}
    for _, notice in sender.sent:
        if notice.event is not NoticeEvent.HEARTBEAT:
            alone.setdefault(notice.incident, []).append(notice)
    for notices in alone.values():
        ids = [(notice.incident, notice.number, notice.event) for notice in notices]
        assert len(ids) == len(set(ids)), "no message twice"
        events = [notice.event for notice in notices]
        # A digest has the id of its first incident, and a line for each of the others.
        if not any(notices[0].title in line for line in lines) and not notices[0].lines:
            assert events in ([NoticeEvent.WAS], sorted_events(events))


def sorted_events(events: list[NoticeEvent]) -> list[NoticeEvent]:
    """Return the only right order: the begin, what follows, the end."""
    middle = [e for e in events if e in (NoticeEvent.WORSE, NoticeEvent.REPEATED)]
    return [NoticeEvent.OPENED, *middle, NoticeEvent.RESOLVED]


def test_instants_are_in_utc() -> None:
    assert datetime.fromtimestamp(BEGIN, UTC).year == 2026


def test_what_was_held_back_is_given_up_a_day_after_it_could_be_sent() -> None:
    start = datetime(2026, 3, 1, 23, tzinfo=BERLIN).timestamp()
    sender = Sender((replace(PHONE, quiet=QUIET),), now=start)
    bad = view(row("web", severity="warning", condition="CrashLoop", since=start))
    sender.last(bad, 9 * 3600)
    ((_, notice),) = sender.sent
    assert notice.at >= datetime(2026, 3, 2, 7, tzinfo=BERLIN).timestamp()
