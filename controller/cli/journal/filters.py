"""The options that filter records, and where the records come from: files, or the running broker.

The options that filter records, and the parsing of times and actors.

The journal for commands: its files if the user can read them, else the running broker.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import wraps
from math import ceil
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import open_state
from controller.cli.output.times import current_time
from controller.core.records.query import Filter, Page, QueryResult, Question, subject_from_json
from controller.core.records.record import line_of, record_members, timestamp
from controller.model.errors import EngineUnavailable, StateError
from controller.model.quantities import parse_duration_ms
from controller.model.records import ENTRY_PARTS, Entry, Record

STAGES = ("intent", "outcome", "recovered", "refusal", "violation", "summary", "read")
STAGES_OF_OURS = ("operator", "policy", "checkpoint", "segment")
#: The stages of changes and attempted changes, without reads and the journal's own maintenance.
CHANGES = frozenset({*STAGES, *STAGES_OF_OURS} - {"read", "checkpoint", "segment"})
DECISIONS = ("allow", "mutate", "deny", "audit-deny")
ROLES = frozenset({"controller", "operator", "client", "broker"})
DAY_S = 86_400
#: The largest number of a record.
SEQ_MAX = 2**53
F = TypeVar("F", bound=Callable[..., Any])
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?", re.ASCII)


def scan_option(command: F) -> F:
    """Add ``--scan``."""
    text = "Use no index: read and check every record."
    return click.option("--scan", is_flag=True, help=text)(command)


def time_option(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """Return the value of a time option as a record's timestamp; empty for no value.

    Forms: RFC 3339, a duration before now, or a time of day (UTC) in the last 24 hours.
    """
    return timestamp(_parse_time(value, current_time())) if value else ""


def time_range(since: str, until: str) -> tuple[str, str]:
    """Return the values of ``--since`` and ``--until`` as timestamps; empty for no limit.

    Raises:
        click.UsageError: a value isn't a time, or ``--since`` is later than ``--until``.
    """
    return time_range_at(since, until, now=current_time())


def time_range_at(since: str, until: str, *, now: float) -> tuple[str, str]:
    """Return the same as ``time_range``, at the time *now*.

    A time of day for ``--since`` is in the last 24 hours. For ``--until`` it is the first such time
    after ``--since``, possibly in the future. If ``--since`` is a duration, it is in the last 24
    hours when possible: a range from a week ago to 03:20 doesn't end six days ago.
    """
    begin = _parse_time(since, now, "'--since'") if since else None
    end = _parse_time(until, now, "'--until'") if until else None
    if begin is not None and end is not None:
        if _CLOCK.fullmatch(until) and (end < begin or not _is_duration(since)):
            end += ceil((begin - end) / DAY_S) * DAY_S
        if end < begin:
            text = f"--since, {timestamp(begin)}, is later than --until, {timestamp(end)}"
            raise click.UsageError(text)
    return ("" if begin is None else timestamp(begin), "" if end is None else timestamp(end))


def _parse_time(value: str, now: float, option: str | None = None) -> float:
    """Return a time in seconds since the epoch.

    Raises:
        click.BadParameter: the value isn't a time.
    """
    try:
        if _is_duration(value):
            ago_ms = _days_ms(value) if value.endswith("d") else parse_duration_ms(value)
            return max(0.0, now - ago_ms / 1000)
        if _CLOCK.fullmatch(value):
            return _last_occurrence(value, now)
        when = datetime.fromisoformat(value.upper())  # RFC 3339 allows t and z
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return when.astimezone(UTC).timestamp()  # years 1 to 9999, as in records
    except (ValueError, OverflowError):
        text = f"{value!r} is no duration (90s, 1h, 7d), time of day (03:12) or time (RFC 3339)"
        raise click.BadParameter(text, param_hint=option) from None


def _is_duration(value: str) -> bool:
    return value[:1].isdigit() and value[-1:] in set("smhd")


def _days_ms(value: str) -> int:
    if not value[:-1].isdigit():
        raise ValueError(value)
    return int(value[:-1]) * DAY_S * 1000


def _last_occurrence(clock: str, now: float) -> float:
    today = datetime.fromtimestamp(now, UTC).date()
    then = datetime.fromisoformat(f"{today}T{clock}+00:00").timestamp()
    return then if then <= now else then - DAY_S


def current_timestamp() -> str:
    """Return the current time as a record's timestamp."""
    return timestamp(current_time())


def parse_actor(value: str) -> str:
    """Return the value of ``--actor`` as a role, a uid, or ROLE:UID; empty for any actor.

    The value can have a user's name for a uid, the form ``uid:N``, or the form of the ACTOR column.

    Raises:
        click.BadParameter: the role or the user doesn't exist, so that no record can match.
    """
    role, colon, user = value.removesuffix("?").rpartition(":")
    if not colon and (not user or user in ROLES):
        return user
    uid = _uid_of(user)
    if uid and role in ROLES:
        return f"{role}:{uid}"
    if uid and role in {"", "uid"}:
        return uid
    from controller.core.manifests.validation_errors import did_you_mean

    if role and role not in ROLES | {"uid"}:
        text, hint = f"there is no role {role!r}", did_you_mean(role, sorted(ROLES))
    else:
        text = f"there is no user {user!r} here"
        hint = did_you_mean(user, [*sorted(ROLES), *(each.pw_name for each in pwd.getpwall())])
    forms = f"a role ({', '.join(sorted(ROLES))}), a user, uid:N, or ROLE:USER"
    raise click.BadParameter(
        "; ".join(each for each in (text, hint, f"known are {forms}") if each),
        param_hint="'--actor'",
    )


def _uid_of(user: str) -> str:
    """Return the uid of a user's name or number; empty for an unknown name."""
    try:
        return str(pwd.getpwnam(user).pw_uid)
    except KeyError:
        return (user.lstrip("0") or "0") if user.isascii() and user.isdigit() else ""


SPAN_OPTIONS = (
    click.option(
        "--since", metavar="TIME", default="", help="1h, 7d, 03:12 (the last), or RFC 3339."
    ),
    click.option(
        "--until", metavar="TIME", default="", help="Likewise; 03:20 is the first after --since."
    ),
)
_OPTIONS = (
    *SPAN_OPTIONS,
    click.option("--service", metavar="NAME", default="", help="NAME, or NAMESPACE/NAME."),
    click.option("--owner", metavar="NAME", default="", help="The owner of the object."),
    click.option("--actor", metavar="WHO", default="", help="A role, a user, uid:N, or ROLE:USER."),
    click.option("--verdict", type=click.Choice(DECISIONS), help="The decision."),
    click.option(
        "--stage",
        "stages",
        type=click.Choice(STAGES + STAGES_OF_OURS),
        multiple=True,
        help="The kind of record; repeatable.",
    ),
    click.option("--action", metavar="NAME", default="", help="container.create, create, POST, …"),
    click.option(
        "--container", metavar="NAME|ID", default="", help="A name, or the start of an id."
    ),
)


def filter_options(command: F) -> F:
    """Add the options that filter records; the command gets a ``Filter`` as *wanted*."""

    @wraps(command)
    def with_filter(*, since: str, until: str, actor: str, **others: Any) -> Any:
        since, until = time_range(since, until)
        wanted = Filter(
            since=since,
            until=until,
            actor=parse_actor(actor),
            verdict=others.pop("verdict") or "",
            stages=frozenset(others.pop("stages")),
            **{name: others.pop(name) for name in ("service", "owner", "action", "container")},
        )
        return command(wanted=wanted, **others)

    decorated: Any = with_filter
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


class JournalSource(Protocol):
    """The journal as a command queries it: whole, or the part that is visible to the user."""

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        """Yield matching records in order; with a *limit* the last ones, or the first if not *last*."""
        ...

    def ask(self, question: Question) -> Page:
        """Answer a question."""
        ...


@contextmanager
def open_source(state: Path | None, *, scan: bool = False) -> Iterator[JournalSource]:
    """Open the journal of the state folder.

    Raises:
        StateError: the files can't be read, and no broker answers.
    """
    folder = open_state(state)[0].journal
    if scan or _is_readable(folder):
        from controller.journal.index.queries import FolderArchive

        with FolderArchive(folder, scan=scan) as archive:
            yield archive
    else:
        yield broker_of(state)


def broker_of(state: Path | None) -> BrokerArchive:
    """Return the journal of the running broker.

    Raises:
        EngineUnavailable, StateError: no broker runs, or the user isn't allowed to connect.
    """
    folder = open_state(state)[0]
    api = BrokerApi(folder.broker_socket)
    try:
        api.get("whoami")
    except EngineUnavailable as error:
        if _is_readable(folder.journal):
            raise
        raise StateError(
            "journal.unreadable",
            f"this user can't read the journal, and no broker answers: {error.message}",
            remedy="ask as root, with sudo; or start the broker with 'trimtab up'",
        ) from error
    return BrokerArchive(api)


def _is_readable(folder: Path) -> bool:
    """Return True if the user can read the folder, or if it doesn't exist: the reader reports that."""
    try:
        return os.access(folder, os.R_OK | os.X_OK, effective_ids=True) or not folder.exists()
    except PermissionError:
        return False


def json_line(record: Record) -> bytes:
    """Return a record's line in the journal, or the broker's redacted form for a client."""
    if record.hash:
        return line_of(record)
    return json.dumps(record_members(record), ensure_ascii=False).encode()


#: Records in a page.
PAGE = 200
FOLLOWING = "trimtab-following"


class BrokerArchive:
    """Queries the broker, page by page."""

    def __init__(self, api: BrokerApi) -> None:
        self._api = api

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        """Yield matching records in order; with a *limit* the last ones, or the first if not *last*.

        Raises:
            TrimtabError: the broker doesn't answer, or refuses the query.
        """
        if limit and last:
            yield from self._last(wanted, limit)
            return
        left = limit
        while True:
            question = Question(wanted, limit=min(left, PAGE) if limit else PAGE, last=False)
            page = self.ask(question)
            yield from page.found
            left -= len(page.found)
            if not page.following or (limit and left <= 0):
                return
            wanted = replace(wanted, after=page.following)

    def _last(self, wanted: Filter, limit: int) -> list[QueryResult]:
        """Return the last records, page by page from the end."""
        results: list[QueryResult] = []
        while len(results) < limit:
            page = self.ask(Question(wanted, limit=min(limit - len(results), PAGE))).found
            results = [*page, *results]
            if not page or page[0].record.seq <= wanted.after + 1:
                break
            wanted = replace(wanted, upto=page[0].record.seq - 1)
        return results

    def ask(self, question: Question) -> Page:
        """Return a page of records; raises as ``find``."""
        query = {**_query(question.wanted), "limit": str(question.limit or PAGE), "about": "1"}
        if question.there:
            query["there"] = question.there
        if question.there or not question.last:
            query["after"] = str(question.wanted.after)
        body, headers = self._api.fetch("journal", query=query)
        results = tuple(parse_result(line) for line in body.splitlines())
        if not question.last or question.there:
            return Page(results, int(headers.get(FOLLOWING, "0")))
        # A query without ``after`` returns the last records, also those before the range.
        return Page(tuple(r for r in results if r.record.seq > question.wanted.after))

    def follow(self, wanted: Filter) -> Iterator[QueryResult]:
        """Yield matching records as they become durable; raises as ``find``."""
        query = {**_query(wanted), "after": str(wanted.after), "about": "1"}
        for line in self._api.lines("journal/follow", query):
            yield parse_result(line)


def _query(wanted: Filter) -> dict[str, str]:
    query = {}
    for field in fields(Filter):
        value = getattr(wanted, field.name)
        if isinstance(value, frozenset):
            value = ",".join(sorted(value))
        if value and field.name != "after":
            query[field.name] = str(value)
    return query


def parse_result(line: bytes) -> QueryResult:
    """Parse a line of the broker: a record and its subject."""
    members = json.loads(line)
    record = members["record"]
    parts: dict[str, Any] = {part: record.get(part, {}) for part in ENTRY_PARTS}
    entry = Entry(record["id"], record["stage"], **parts)
    return QueryResult(
        Record(
            record["seq"], record["time"], entry, record.get("prev", ""), record.get("hash", "")
        ),
        subject_from_json(members["about"]),
    )
