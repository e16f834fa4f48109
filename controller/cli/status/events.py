"""``events``: what happens on this host, in words: changes of the journal, and conditions of the view.

Nothing is stored for it: an event is a change with its outcome, or a condition that a resource got.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from controller.cli.clients.socket_client import ask_controller
from controller.cli.clients.status_report import key_text, matches, names_argument, project_option
from controller.cli.exit_codes import EXIT_INTERRUPTED
from controller.cli.journal.filters import (
    CHANGES,
    SPAN_OPTIONS,
    JournalSource,
    broker_of,
    open_source,
    time_range,
)
from controller.cli.journal.table import (
    TimeFormat,
    clock_for,
    object_of,
    outcome_of,
    outcomes_of,
    pairs_of,
    reason_of,
    short_actor,
)
from controller.cli.options import command, open_state
from controller.cli.output.tables import Column, clip, render, terminal_width
from controller.cli.output.terminal import SignalWaiter, echo, echo_data
from controller.cli.output.times import current_time, with_names
from controller.cli.status.table import GRAVE, messages_of
from controller.core.encoding.identifiers import parse_reference
from controller.core.encoding.text import printable
from controller.core.records.parts import ResultPart, VerdictPart
from controller.core.records.query import Filter, QueryResult
from controller.core.records.record import CLOSING
from controller.model.errors import EngineUnavailable, TrimtabError
from controller.model.mutations import Mutation
from controller.model.names import Key
from controller.settings import StateFolder

#: The time between two looks of ``--follow``.
REFRESH_S: Final = 1.0
#: The range without ``--since``.
SINCE: Final = "1h"
COLUMNS: Final = (
    Column("TIME"),
    Column("TYPE"),
    Column("OBJECT", shrink=clip, least=12, rank=2),
    Column("REASON", rank=1),
    Column("MESSAGE"),
)
#: Of a row of ``--follow``, whose later rows aren't known: the columns between time and message.
WIDTHS: Final = (7, 20, 14)
#: The length of a record's time.
TIMESTAMP: Final = len("2026-03-01T12:00:00.000Z")
#: Changes of what services use, whose records name no service.
USED: Final = frozenset(
    {
        Mutation.IMAGE_PULL,
        Mutation.IMAGE_REMOVE,
        Mutation.NETWORK_CREATE,
        Mutation.NETWORK_REMOVE,
    }
)
_ALARMS: Final = frozenset({"refusal", "violation", "summary"})


@dataclass(frozen=True, slots=True)
class HostEvent:
    """A change of the journal, or a condition that a resource got."""

    #: RFC 3339.
    at: str
    #: ``Warning``: a refusal, a failure, or a condition that needs attention. Else ``Normal``.
    type: str
    #: One word or two, such as ``created``, ``failed (409)``, ``Degraded``.
    reason: str
    #: '' of what belongs to no service, such as an image.
    namespace: str
    name: str
    message: str
    #: The number of the journal's record; None for a condition.
    record: int | None = None

    @property
    def object(self) -> str:
        """The service or resource, as commands take its name."""
        if not self.namespace or self.namespace == "default":
            return self.name or "-"
        return f"{self.namespace}/{self.name}"


def event_of_change(first: QueryResult, closing: QueryResult | None) -> HostEvent:
    """Return the event of an intent with its closing record, or of a single record."""
    record, about = first
    last = closing or first
    verdict = VerdictPart.read(record.entry.verdict)
    status = ResultPart.read(last.record.entry.result).status
    outcome = outcome_of(last)
    is_alarm = (
        record.entry.stage in _ALARMS
        or verdict.decision == "audit-deny"
        or (status is not None and status >= 400)
        or outcome == "unknown"
    )
    why = reason_of(last.record) or reason_of(record)
    audited = f"audit: {verdict.rules[0]}" if verdict.decision == "audit-deny" else ""
    subject = " ".join(filter(None, (about.action or record.entry.stage, object_of(about))))
    message = f"{subject} by {short_actor(record)}"
    return HostEvent(
        at=record.time,
        type="Warning" if is_alarm else "Normal",
        reason=record.entry.stage if outcome == "-" else outcome.partition(" in ")[0],
        namespace=about.namespace,
        name=about.service,
        message=": ".join(filter(None, (message, audited, with_names(why)))),
        record=record.seq,
    )


def events_of_conditions(row: Mapping[str, Any], at: str = "") -> Iterator[HostEvent]:
    """Yield an event for each true condition of a row, at its time, or at *at*."""
    for each in row["conditions"]:
        if each["status"] == "True":
            yield HostEvent(
                at=at or each["since"],
                type="Warning" if each["type"] in GRAVE else "Normal",
                reason=each["type"],
                namespace=row["namespace"],
                name=row["name"],
                message=messages_of([each]) or each["message"] or each["reason"],
            )


def folded(events: Iterable[HostEvent]) -> list[HostEvent]:
    """Return events with equal ones as one, at the time of the last, in the order of time."""
    groups: dict[HostEvent, list[str]] = {}
    for each in events:
        groups.setdefault(replace(each, at="", record=None), []).append(each.at)
    found = []
    for event, times in groups.items():
        often = f" ({len(times)} times since {min(times)})" if len(times) > 1 else ""
        found.append(replace(event, at=max(times), message=f"{event.message}{often}"))
    return sorted(found, key=lambda event: event.at)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events that a command shows."""

    names: tuple[str, ...]
    namespace: str | None
    since: str
    #: '' for no end.
    until: str

    def has(self, event: HostEvent, users: Iterable[tuple[str, str]] = ()) -> bool:
        """Return True if an event is in the range, and of a chosen resource.

        *users* are the namespaces and names of the services that use what the event is about.
        """
        if event.at < self.since or (self.until and event.at > self.until):
            return False
        return any(self._chooses(*each) for each in ((event.namespace, event.name), *users))

    def _chooses(self, namespace: str, name: str) -> bool:
        if self.namespace not in (None, namespace):
            return False
        row = {"kind": "", "namespace": namespace, "name": name}
        # The journal knows services; a kind in front of the name is for people.
        return not self.names or any(matches(row, _without_kind(each)) for each in self.names)

    def of_records(self, after: int) -> tuple[Filter, ...]:
        """Return the range as queries of the journal: of a single service, its records and what services use."""
        every = Filter(since=self.since, until=self.until, stages=CHANGES, after=after)
        if len(self.names) != 1:
            return (every,)
        return (replace(every, service=_without_kind(self.names[0])), replace(every, routes=USED))


def used_by(row: Mapping[str, Any]) -> frozenset[str]:
    """Return the images of a service's revisions, and the networks of its containers, as records name them."""
    images = {row["image"], *(each["image"] for each in row.get("revisions", ()))} - {""}
    networks = {place["network"] for slot in row["slots"] for place in slot.get("addresses", ())}
    return frozenset({*map(_canonical, images), *networks})


def _canonical(image: str) -> str:
    try:
        return parse_reference(image).canonical
    except ValueError:
        return image  # of a container that was adopted as found


def _without_kind(name: str) -> str:
    return "/".join(name.split("/")[-2:])


@dataclass(slots=True)
class EventFeed:
    """The events of a host since the last question. Not thread-safe."""

    state: StateFolder
    wanted: EventFilter
    #: The number of the last record that was read.
    after: int = 0
    #: The version of the view that was read.
    have: str = ""
    #: The changes without an outcome so far, by the id of the intent.
    open: dict[str, QueryResult] = field(default_factory=dict)
    #: The conditions of each resource, as they were shown.
    shown: dict[str, frozenset[HostEvent]] = field(default_factory=dict)
    #: What each service uses, by namespace and name, as the last views had it.
    used: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def changes(self, source: JournalSource, *, final: bool) -> list[HostEvent]:
        """Return the changes of the journal; with *final* also those without an outcome."""
        queries = self.wanted.of_records(self.after)
        read = {e.record.seq: e for query in queries for e in source.find(query, last=False)}
        found = [read[number] for number in sorted(read)]
        if self.wanted.until:
            found += outcomes_of(source, found)
        self.after = max([self.after, *(each.record.seq for each in found)])
        pairs = pairs_of([*self.open.values(), *found])
        self.open = {}
        events = []
        for first, closing in pairs:
            entry = first.record.entry
            if entry.stage == "intent" and closing is None and not final:
                self.open[entry.id] = first
            elif entry.stage not in CLOSING:
                event, thing = event_of_change(first, closing), first.about.name
                users = (
                    [] if event.name else [who for who, has in self.used.items() if thing in has]
                )
                events += [event] if self.wanted.has(event, users) else []
        return events

    def conditions(self) -> list[HostEvent]:
        """Return the conditions that resources got.

        Raises:
            TrimtabError: the controller doesn't answer.
        """
        question: dict[str, object] = {"do": "view", "have": self.have}
        view = ask_controller(self.state.controller_socket, question)
        is_first, self.have = not self.have, view["version"]
        events = []
        for row in view["resources"]:
            key = key_text(row)
            self.used[row["namespace"], row["name"]] = used_by(row)
            now = [*events_of_conditions(row, "" if is_first else view["at"])]
            timeless = frozenset(replace(each, at="") for each in now)
            known = self.shown.get(key, frozenset())
            self.shown[key] = timeless
            events += [each for each in now if replace(each, at="") not in known]
        for key in view["gone"]:
            if self.shown.pop(key, None) is not None:
                _, namespace, name = Key.parse(key)
                events.append(
                    HostEvent(view["at"], "Normal", "gone", namespace, name, "no longer there")
                )
        return [each for each in events if self.wanted.has(each)]


@command("""\b
Examples:
  trimtab events                              the last hour
  trimtab events -f                           go on until Ctrl-C
  trimtab events web shop/api --since 03:00 --until 03:20
  trimtab events -n shop --json | jq -r 'select(.type == "Warning") | .message'

\b
Exit codes: 0 shown, also while the controller is away; 1 the journal can't be read. -f ends with Ctrl-C,
which exits with 130.
""")
@names_argument
@project_option
@SPAN_OPTIONS[0]
@SPAN_OPTIONS[1]
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option("--utc", is_flag=True, help="Show times in UTC, as in a pipe and with --json.")
def events(
    names: tuple[str, ...],
    namespace: str | None,
    since: str,
    until: str,
    follow: bool,
    utc: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show what trimtab sees, decides and does: changes with their cause, and conditions of resources.

    Changes are the journal's; 'trimtab journal show' has each in full. A condition is shown while it
    holds, at the time it began. Equal events are one row. With --json, an object a line: at, type, reason,
    namespace, name, message, and record, the number of a change in the journal.
    """
    if follow and until:
        raise click.UsageError("--follow has no end, and --until names one")
    begin, end = time_range(since or SINCE, until)
    feed = EventFeed(open_state(state)[0], EventFilter(names, namespace, begin, end))
    width = None if as_json else terminal_width()
    clock = clock_for(current_time(), utc=utc, exact=width is None)
    # The files of the journal are read as they are now; the broker also has what comes.
    with nullcontext(broker_of(state)) if follow else open_source(state) as source:
        found, lost = [], ""
        try:
            found += feed.conditions()
        except TrimtabError as error:
            lost = error.message
            echo(printable(f"warning: no conditions: {lost}"), err=True)
        found += feed.changes(source, final=not follow)
        if follow:
            return _follow(feed, source, found, clock, lost=lost, as_json=as_json)
    if as_json:
        for each in sorted(found, key=lambda event: event.at):
            echo_data(json.dumps(asdict(each)))
    elif found:
        rows = folded(found)
        times = clock.cells(each.at for each in rows)
        cells = [_cells(each, time) for each, time in zip(rows, times, strict=True)]
        echo(render(COLUMNS, cells, width=width))
    else:
        echo(f"No events since {begin}.")
    return 0


def _cells(event: HostEvent, time: str) -> tuple[str, ...]:
    return (time, event.type, event.object, event.reason, event.message)


def _follow(
    feed: EventFeed,
    source: JournalSource,
    found: list[HostEvent],
    clock: TimeFormat,
    *,
    lost: str,
    as_json: bool,
) -> int:
    """Print events until Ctrl-C, also while the controller is away."""
    signals = SignalWaiter(stop=(signal.SIGINT, signal.SIGTERM))
    while not signals.stopped:
        for each in sorted(found, key=lambda event: event.at):
            if as_json:
                echo_data(json.dumps(asdict(each)))
                continue
            time, *cells, message = _cells(each, *clock.cells([each.at]))
            padded = (f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
            time = f"{time:<{TIMESTAMP if clock.exact else 0}}"
            echo(printable("  ".join((time, *padded, message))))
        signals.wait(REFRESH_S)
        found, before, lost = [], lost, ""
        # What services use is known from the view.
        for look in (feed.conditions, partial(feed.changes, source, final=False)):
            try:
                found += look()
            except EngineUnavailable as error:
                lost = error.message
        if lost not in ("", before):
            echo(printable(f"waiting: {lost}"), err=True)
    return EXIT_INTERRUPTED
