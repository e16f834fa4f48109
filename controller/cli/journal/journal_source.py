"""The journal for commands: its files if the user can read them, else the running broker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import open_state
from controller.core.records.query import Filter, QueryResult
from controller.core.records.record import line_of, record_members
from controller.core.records.views import Page, Question
from controller.core.records.visibility import subject_from_json
from controller.model.errors import EngineUnavailable, StateError
from controller.model.records import ENTRY_PARTS, Entry, Record


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
        from controller.journal.index.archive import FolderArchive

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
