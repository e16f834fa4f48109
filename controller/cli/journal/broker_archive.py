"""The journal of the running broker: the part that is visible to the user, in pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlencode

from controller.cli.clients.socket_client import BrokerApi
from controller.core.records.query import Filter, QueryResult
from controller.core.records.views import Page, Question
from controller.core.records.visibility import subject_from_json
from controller.model.records import ENTRY_PARTS, Entry, Record

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
        body, headers = self._api.fetch(f"journal?{urlencode(query)}")
        results = tuple(parse_result(line) for line in body.splitlines())
        if not question.last or question.there:
            return Page(results, int(headers.get(FOLLOWING, "0")))
        # A query without ``after`` returns the last records, also those before the range.
        return Page(tuple(r for r in results if r.record.seq > question.wanted.after))

    def follow(self, wanted: Filter) -> Iterator[QueryResult]:
        """Yield matching records as they become durable; raises as ``find``."""
        query = {**_query(wanted), "after": str(wanted.after), "about": "1"}
        for line in self._api.lines(f"journal/follow?{urlencode(query)}"):
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
