"""The HTML of each page, by templates that escape every value.

Untrusted text is shown on one line, with escapes for control, bidirectional and zero-width characters, before
HTML's own escapes (G41). Only ``output`` keeps the line ends of a log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from controller.core.encoding.text import printable, printable_output
from controller.core.status.standing import worst_of
from controller.web.pages import records, resources
from controller.web.pages.port import (
    Fetched,
    LogsNeeded,
    PageName,
    PageNeeds,
    PageRoute,
    Records,
    RecordsNeeded,
    RenderedPage,
    WebSession,
)

#: The records of one page of the journal, and of a resource.
RECORDS_SHOWN: Final = 100
RECORDS_OF_A_RESOURCE: Final = 20
#: Lines of output on a page, and characters of a line.
LINES_SHOWN, LINE_MAX = 5_000, 4_096
#: The controller's acts on the first page.
ACTS_SHOWN: Final = 30
#: The parameters of the journal's address that are those of its query.
_FILTERS: Final = ("service", "owner", "actor", "verdict", "action", "upto")
_SPANS: Final = {"1h": 1, "24h": 24, "7d": 24 * 7}
_NUMBER: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_SAFE: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,256}", re.ASCII)
_KEPT_STAGES: Final = "intent,outcome,recovered,refusal,violation,operator,policy"


def _shown(value: object) -> object:
    """Return what a template writes for a value."""
    if value is None:
        return ""
    return value if isinstance(value, Markup | int | float) else printable(value)


#: A member that an older controller lacks is blank.
_TEMPLATES: Final = Environment(
    loader=PackageLoader(__name__.rpartition(".")[0]),
    autoescape=True,
    finalize=_shown,
    undefined=ChainableUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,  # a package that is unpacked meanwhile changes no running process
)


def load_templates() -> None:
    """Load all templates, so that none is read later from a package that was replaced."""
    for name in _TEMPLATES.list_templates():
        _TEMPLATES.get_template(name)


def needs_of(
    route: PageRoute,
    view: Mapping[str, Any] | None,
    query: Mapping[str, str],
    session: WebSession,
    now: datetime,
) -> PageNeeds:
    """Return what a page needs besides the view."""
    match route.page:
        case PageName.RECORD:
            return PageNeeds(RecordsNeeded({"record": route.record, "limit": "10"}))
        case PageName.JOURNAL:
            return PageNeeds(RecordsNeeded(_journal_query(query, now)))
        case PageName.RESOURCE:
            kind, namespace, name = route.key.split("/")
            asked = {"service": f"{namespace}/{name}", "limit": str(RECORDS_OF_A_RESOURCE * 2)}
            if kind not in {"Service", "Job"}:
                return PageNeeds()
            return PageNeeds(RecordsNeeded(asked), samples=route.key if kind == "Service" else "")
        case PageName.LOGS:
            container = _container_of(_row_of(view, route.key), query, session)
            if not container:
                return PageNeeds()
            return PageNeeds(logs=LogsNeeded(route.key, container, LINES_SHOWN))
        case _:
            return PageNeeds()


def _journal_query(query: Mapping[str, str], now: datetime) -> dict[str, str]:
    given = {name: query.get(name, "") for name in _FILTERS}
    asked = {name: value for name, value in given.items() if value and _SAFE.fullmatch(value)}
    if not _NUMBER.fullmatch(asked.get("upto", "0")):
        del asked["upto"]
    if (hours := _SPANS.get(query.get("since", ""))) is not None:
        since = now.astimezone(UTC) - timedelta(hours=hours)
        asked["since"] = f"{since:%Y-%m-%dT%H:%M:%S}.000Z"
    # Two records of most changes: an intent and its outcome.
    return {**asked, "stages": _KEPT_STAGES, "limit": str(2 * RECORDS_SHOWN)}


def _row_of(view: Mapping[str, Any] | None, key: str) -> Mapping[str, Any] | None:
    rows = () if view is None else view["resources"]
    return next((row for row in rows if resources.key_of(row) == key), None)


def _container_of(
    row: Mapping[str, Any] | None, query: Mapping[str, str], session: WebSession
) -> str:
    """Return the container whose output is asked for: one of the row's slots; '' without any."""
    if row is None or not session.sees_logs_of(row["owner"]):
        return ""
    names = [slot["container"] for slot in row["slots"] if slot["container"]]
    asked = query.get("container", "")
    return asked if asked in names else next(iter(names), "")


def render(
    route: PageRoute,
    view: Mapping[str, Any] | None,
    query: Mapping[str, str],
    session: WebSession,
    fetched: Fetched,
) -> RenderedPage:
    """Return a page of a view; None is a view that never arrived. *query*: the parameters of the address."""
    row = _row_of(view, route.key) if route.key else None
    name, status = route.page, 200
    if route.key and view is not None and row is None:
        name, status = PageName.NOT_FOUND, 404
    if name is PageName.NOT_FOUND:
        status = 404
    is_of_view = name in {PageName.START, PageName.RESOURCE, PageName.PROBLEMS, PageName.SOURCES}
    template = "no-view" if view is None and is_of_view else name.value
    context: dict[str, Any] = {
        "page": name,
        "view": view,
        "query": query,
        "session": session,
        "fetched": fetched,
        "row": row,
        "route": route,
        "severities": resources.SEVERITIES,
        "actors": resources.ACTORS,
        "roles": records.ROLES,
        "moment": lambda time: _moment(time, fetched.now),
        "age": lambda time: _age(time, fetched.now),
        "link": lambda **changed: _link(query, changed),
        **_PARTS.get(template, _nothing)(row, view or {}, query, session, fetched),
    }
    html = _TEMPLATES.get_template(f"{template}.html").render(context)
    digest = hashlib.sha256(html.encode()).hexdigest()[:32]
    return RenderedPage(status, html, f'"{digest}"')


_Part = Mapping[str, Any]


def _nothing(*_given: object) -> dict[str, Any]:
    return {}


def _start(
    _row: _Part | None,
    view: _Part,
    query: Mapping[str, str],
    _session: WebSession,
    fetched: Fetched,
) -> dict[str, Any]:
    rows = view["resources"]
    people = resources.entries_of(r for r in rows if r["severity"] in {"page", "warning"})
    moving = resources.entries_of(r for r in rows if r["severity"] == "progress")
    day_ago = fetched.now - timedelta(hours=24)
    acts = [act for act in view["acts"] if act["text"] and _instant(act["at"]) >= day_ago]
    return {
        "people": people[: resources.ENTRIES_SHOWN],
        "more_people": len(people) - resources.ENTRIES_SHOWN,
        "moving": moving[: resources.ENTRIES_SHOWN],
        "more_moving": len(moving) - resources.ENTRIES_SHOWN,
        "table": resources.table_of(rows, query),
        "is_filtered": any(query.get(n) for n in ("q", "state", "kind", "ns", "owner")),
        "acts": acts[::-1][:ACTS_SHOWN],
        "more_acts": len(acts) - ACTS_SHOWN,
    }


def _resource(
    row: _Part | None, view: _Part, _query: Mapping[str, str], session: WebSession, fetched: Fetched
) -> dict[str, Any]:
    assert row is not None, "a resource without a row is not found"
    key = resources.key_of(row)
    failures = [slot["lastFailure"] for slot in row["slots"] if slot.get("lastFailure")]
    return {
        "key": key,
        "cause": resources.entry_of([row]),
        "steps": [each for each in view["plan"] if each["key"] == key],
        "failure": max(failures, key=lambda each: str(each["at"]), default=None),
        "sees_logs": session.sees_logs_of(row["owner"]),
        "sparklines": [
            (title, unit, values, resources.sparkline_of(values))
            for title, unit, values in (
                ("CPU", "cores", [cpus for _, cpus, _ in fetched.samples if cpus is not None]),
                ("Memory", "bytes", [float(size) for _, _, size in fetched.samples]),
            )
            if len(values) > 1
        ],
        **_changes(fetched, RECORDS_OF_A_RESOURCE),
    }


def _logs(
    row: _Part | None,
    _view: _Part,
    query: Mapping[str, str],
    session: WebSession,
    _fetched: Fetched,
) -> dict[str, Any]:
    names = [] if row is None else [s["container"] for s in row["slots"] if s["container"]]
    return {
        "container": _container_of(row, query, session),
        "containers": names,
        "sees_logs": row is not None and session.sees_logs_of(row["owner"]),
    }


def _journal(
    _row: _Part | None,
    _view: _Part,
    query: Mapping[str, str],
    _session: WebSession,
    fetched: Fetched,
) -> dict[str, Any]:
    upto = query.get("upto", "")
    return {
        "as_of": upto if _NUMBER.fullmatch(upto) else "",
        "is_filtered": any(query.get(name) for name in (*_FILTERS, "since")),
        **_changes(fetched, RECORDS_SHOWN),
    }


def _record(
    _row: _Part | None,
    _view: _Part,
    _query: Mapping[str, str],
    _session: WebSession,
    fetched: Fetched,
) -> dict[str, Any]:
    lines = fetched.records.lines if isinstance(fetched.records, Records) else ()
    parts = [
        (
            line["record"],
            [
                (part, list(records.facts_of(line["record"].get(part) or {})))
                for part in _SHOWN_PARTS
            ],
        )
        for line in lines
    ]
    return {"parts": parts, **_changes(fetched, RECORDS_SHOWN)}


_SHOWN_PARTS: Final = ("actor", "request", "verdict", "claims", "result")


def _changes(fetched: Fetched, most: int) -> dict[str, Any]:
    found = records.changes_of(
        fetched.records.lines if isinstance(fetched.records, Records) else ()
    )
    return {"changes": found[:most], "has_more": len(found) > most}


_PARTS: Final = {
    "start": _start,
    "resource": _resource,
    "logs": _logs,
    "journal": _journal,
    "record": _record,
}


def _link(query: Mapping[str, str], changed: Mapping[str, object]) -> str:
    """Return the query of this address with other values; an empty value is left out."""
    merged = {**query, **changed}
    return "?" + urlencode(
        {name: value for name, value in merged.items() if value not in {"", None}}
    )


def _instant(time: str | float) -> datetime:
    """Return the instant of an RFC 3339 text or of a Unix time; the earliest one for another value."""
    try:
        if isinstance(time, int | float):
            return datetime.fromtimestamp(time, UTC)
        found = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", str(time)))
    except (ValueError, OverflowError, OSError):
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(time: str | float, now: datetime) -> str:
    """Return the time of day in the zone of *now*, with the date of any other day."""
    local = _instant(time)
    if local.year == 1:
        return ""
    local = local.astimezone(now.tzinfo)
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"


_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def _age(time: str | float, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    instant = _instant(time)
    if instant.year == 1:
        return ""
    seconds = max(0, int((now - instant).total_seconds()))
    return next((f"{seconds // size} {unit}" for size, unit in _UNITS if seconds >= size), "now")


def _bytes(value: float) -> str:
    """Return a size with its binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


_TEMPLATES.filters["output"] = lambda text: Markup.escape(
    printable_output(str(text)[:LINE_MAX], colours=False)
)
_TEMPLATES.filters["bytes"] = _bytes
_TEMPLATES.filters["digest"] = lambda text: str(text).rpartition(":")[2][:12]
_TEMPLATES.filters["rfc3339"] = lambda time: f"{_instant(time):%Y-%m-%dT%H:%M:%SZ}"
_TEMPLATES.globals["address"] = resources.address_of
_TEMPLATES.globals["key_of"] = resources.key_of
_TEMPLATES.globals["worst_of"] = worst_of
