"""Notifications: incidents, the destinations of the settings, and the messages for them.

Instants are seconds since the epoch; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from typing import Final, Literal

#: How grave an incident is. Quiet hours hold nothing of severity ``page``.
Gravity = Literal["warning", "page"]
GRAVITIES: Final[tuple[Gravity, ...]] = ("warning", "page")
Template = Literal["json", "slack", "ntfy"]
TEMPLATES: Final[tuple[Template, ...]] = ("json", "slack", "ntfy")

SETTLE_S: Final = 20.0
REPEAT_S: Final = 4 * 3600.0


class NoticeEvent(StrEnum):
    """What a message says of its incident."""

    OPENED = "opened"
    #: The severity rose to ``page``.
    WORSE = "worse"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    #: The incident was over before anybody was told of it.
    WAS = "was"
    #: Several incidents in one message.
    DIGEST = "digest"
    HEARTBEAT = "heartbeat"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The hours of each day in which only incidents of severity ``page`` are told at once."""

    begin: time
    end: time
    #: The name of a time zone, such as Europe/Berlin.
    zone: str

    def hold(self, instant: float) -> bool:
        """Return True if an instant is in the quiet hours, by the clock on the wall.

        When the clock shows an hour a second time, all of it is as the end of the first time: quiet hours that begin
        or end in it do so once.
        """
        from zoneinfo import ZoneInfo  # commands that read settings start light

        zone = ZoneInfo(self.zone)
        while (local := datetime.fromtimestamp(instant, zone)).fold:
            instant -= 60
        here = local.time()
        if self.begin <= self.end:
            return self.begin <= here < self.end
        return here >= self.begin or here < self.end


@dataclass(frozen=True, slots=True)
class NoticeTarget:
    """A destination of notifications: how it is reached, and what it is told.

    Exactly one of ``webhook``, ``webhook_file``, ``smtp`` and ``command`` is set.
    """

    name: str
    #: ``https://…``, or ``http://…`` to a private address.
    webhook: str = ""
    #: The file with the URL, if the URL is a secret.
    webhook_file: str = ""
    template: Template = "json"
    #: ``smtps://HOST[:PORT]``, ``smtp://HOST[:PORT]`` with STARTTLS, or ``smtp+plain://HOST[:PORT]``.
    smtp: str = ""
    #: The sender of mail.
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    #: The user of the mail server; '' for none.
    user: str = ""
    #: A program and its arguments. The program gets the message as JSON on its standard input.
    command: tuple[str, ...] = ()
    #: The file with the bearer token of a webhook, or the password of ``user``.
    secret_file: str = ""
    #: The file with the trusted certificates; '' for the system's.
    ca: str = ""
    #: Private addresses are allowed.
    private: bool = False
    #: The Git sources whose Notifications may name it.
    sources: tuple[str, ...] = ()
    #: The lowest severity of what it is told without a Notification; '' for nothing.
    everything: Gravity | Literal[""] = "warning"
    repeat_after: float = REPEAT_S
    quiet: QuietHours | None = None
    #: The time between two signs of life; 0 for none.
    heartbeat: float = 0.0


@dataclass(frozen=True, slots=True)
class NoticeMatch:
    """Which resources a Notification is about. Empty members match everything."""

    namespace: str = ""
    kind: str = ""
    #: A pattern with ``*`` and ``?``.
    name: str = "*"
    #: The type of a condition.
    condition: str = ""
    severity: Gravity = "warning"


@dataclass(frozen=True, slots=True)
class NoticeRoute:
    """A declared Notification: what is told to which destinations."""

    match: NoticeMatch
    to: tuple[str, ...]
    #: The Git source that declares it; '' for DIR.
    source: str = ""
    #: The namespaces and owners of that source; None for any.
    namespaces: frozenset[str] | None = None
    owners: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, order=True)
class Affected:
    """A resource that an incident affects."""

    kind: str
    namespace: str
    name: str
    owner: str = ""
    condition: str = ""

    @property
    def key(self) -> str:
        """``KIND/NAMESPACE/NAME``."""
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Symptom:
    """What a view shows to be wrong."""

    #: ``engine``, ``trimtab``, ``disk``, ``registry HOST``, ``source NAME``, ``files``, or a resource with its
    #: condition.
    cause: str
    gravity: Gravity
    title: str
    text: str
    #: When it began.
    since: float
    affected: Affected | None = None


@dataclass(frozen=True, slots=True)
class ViewSymptoms:
    """What one view shows: the symptoms, the Notifications, and what the view doesn't know."""

    symptoms: tuple[Symptom, ...] = ()
    routes: tuple[NoticeRoute, ...] = ()
    #: Resources of which nobody knows the state now, by ``KIND/NAMESPACE/NAME``.
    unknown: frozenset[str] = frozenset()
    #: False while nothing at all is known, such as after the controller's start.
    is_known: bool = True
    host: str = ""
    #: The state of everything in a sentence.
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """A cause, the resources that the cause affects, and the time from begin to end."""

    id: str
    cause: str
    gravity: Gravity
    title: str
    text: str
    #: When it began, and when it was seen first.
    since: float
    seen: float
    affected: tuple[Affected, ...] = ()
    #: True once it lasted long enough to be told.
    is_due: bool = False
    #: Since when no view shows it; None while one does.
    gone: float | None = None
    #: Since when no view shows the cause itself, while it still affects resources.
    cause_gone: float | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for one destination."""

    #: Of the incident, or of the first one of a digest. Receivers know duplicates by ``incident`` and ``number``.
    incident: str
    #: Counts the messages of an incident to a destination, from 1.
    number: int
    event: NoticeEvent
    gravity: Gravity
    title: str
    text: str
    at: float
    since: float
    #: The names of affected resources, at most ``NAMES_MAX``.
    names: tuple[str, ...] = ()
    #: The number of affected resources.
    count: int = 0
    #: A line for each incident of a digest.
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a destination knows of an incident."""

    at: float
    gravity: Gravity
    #: The number of messages so far.
    number: int
    #: True while quiet hours hold the first message back.
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Desk:
    """The state of one destination: the incidents told to the destination, and the unsent messages."""

    told: Mapping[str, Told] = field(default_factory=dict)
    queue: tuple[Notice, ...] = ()
    #: The messages that quiet hours hold back.
    held: tuple[Notice, ...] = ()
    #: The last sign of life; 0.0 for none.
    beat: float = 0.0
    #: How often the first message of the queue was tried.
    attempts: int = 0
    #: When it is tried again; 0.0 for at once.
    retry_at: float = 0.0
    #: Why the last try failed, and since when tries fail.
    error: str = ""
    failing_since: float = 0.0
    #: When a message was delivered last; 0.0 for never.
    delivered_at: float = 0.0
    #: Messages that were given up or found no place.
    lost: int = 0


@dataclass(frozen=True, slots=True)
class NoticeState:
    """All that the process of notifications remembers."""

    #: By their causes.
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    #: By the names of destinations.
    desks: Mapping[str, Desk] = field(default_factory=dict)
    routes: tuple[NoticeRoute, ...] = ()
    #: The last step.
    at: float = 0.0
    #: Since when no view was to be had; 0.0 while one is.
    blind_since: float = 0.0
