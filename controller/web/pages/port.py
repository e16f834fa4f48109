"""What the server gives to a page and gets from it.

Pure values. The server finds the page of a path (``route_of``), fetches what the page needs besides the view
(``needs_of``), and renders it (``render``). Nothing here imports the server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, Final

from controller.model.container_output import LogLine

#: A namespace or a name as an address may have it; other names exist only escaped.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}"
_KEY: Final = re.compile(rf"/([A-Z][A-Za-z]{{2,31}})/({_NAME})/({_NAME})(/logs)?", re.ASCII)
_RECORD: Final = re.compile(r"/journal/([0-9a-f-]{36})", re.ASCII)


class PageName(StrEnum):
    """A page."""

    START = "start"
    #: A resource: its state, fields, revisions, last failure, records.
    RESOURCE = "resource"
    #: The output of a service's containers.
    LOGS = "logs"
    JOURNAL = "journal"
    #: The records of one request.
    RECORD = "record"
    PROBLEMS = "problems"
    SOURCES = "sources"
    LOGIN = "login"
    NOT_FOUND = "not-found"


@dataclass(frozen=True, slots=True)
class PageRoute:
    """A page, and the object of it."""

    page: PageName
    #: ``KIND/NAMESPACE/NAME`` of a resource; '' for other pages.
    key: str = ""
    #: The id that the records of one request share; '' for other pages.
    record: str = ""


_PLAIN: Final = {
    "/": PageName.START,
    "/journal": PageName.JOURNAL,
    "/problems": PageName.PROBLEMS,
    "/sources": PageName.SOURCES,
    "/login": PageName.LOGIN,
}


def route_of(path: str) -> PageRoute | None:
    """Return the page of a path; None for a path that no page has."""
    if (page := _PLAIN.get(path)) is not None:
        return PageRoute(page)
    if (found := _RECORD.fullmatch(path)) is not None:
        return PageRoute(PageName.RECORD, record=found[1])
    if (found := _KEY.fullmatch(path)) is None:
        return None
    page = PageName.LOGS if found[4] else PageName.RESOURCE
    return PageRoute(page, f"{found[1]}/{found[2]}/{found[3]}")


@dataclass(frozen=True, slots=True)
class WebSession:
    """The reader of a page."""

    #: The name of the token, or the user of the Unix socket.
    name: str = ""
    #: The owners whose containers' output the reader sees; None: all of them.
    logs: frozenset[str] | None = frozenset()
    #: The hidden field of the form that ends the session; '' for a session that isn't ended by a form.
    csrf: str = ""

    def sees_logs_of(self, owner: str) -> bool:
        """Return True if the reader sees the output of the owner's containers."""
        return self.logs is None or owner in self.logs


class Away(Enum):
    """Why something couldn't be fetched."""

    #: The broker doesn't answer.
    BROKER = "broker"
    #: The journal can't be read, or its files are damaged.
    JOURNAL = "journal"
    #: The container is gone, its log driver keeps no output, or the engine doesn't answer.
    OUTPUT = "output"
    #: The viewer or the session isn't allowed to read it.
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Records:
    """Lines of the broker's journal, oldest first: ``{"about": …, "record": …}``."""

    lines: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PageLogs:
    """The last lines of one container, oldest first."""

    container: str
    lines: tuple[LogLine, ...] = ()
    #: True if the container has printed more than these lines.
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class RecordsNeeded:
    """A question to the journal: the parameters of the broker's ``GET journal``, such as ``service``."""

    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LogsNeeded:
    """The last lines of a container."""

    key: str
    container: str
    lines: int


@dataclass(frozen=True, slots=True)
class PageNeeds:
    """What a page needs besides the view."""

    records: RecordsNeeded | None = None
    logs: LogsNeeded | None = None
    #: The service whose samples of the last hour are shown: ``KIND/NAMESPACE/NAME``; '' for none.
    samples: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the server fetched for a page, and the instant of the page."""

    #: The present, in the time zone that the page shows.
    now: datetime
    #: When the controller answered last, if it doesn't answer now; None while it does.
    controller_away_since: datetime | None = None
    records: Records | Away | None = None
    logs: PageLogs | Away | None = None
    #: Samples of the last hour, the oldest first: Unix time, processors (None if unknown), bytes.
    samples: tuple[tuple[float, float | None, int], ...] = ()
    #: A sentence of the server for the reader, such as the reason of a refused login.
    note: str = ""


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """A rendered page. ``etag`` is a digest of the text, in quotation marks."""

    status: int
    html: str
    etag: str
