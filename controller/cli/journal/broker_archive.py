"""The journal as the running broker tells it: what each may know, page by page."""

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

#: Records that are asked for at once.
PAGE = 200
FOLLOWING = "trimtab-following"


class BrokerArchive:
    """Asks the broker, page by page."""

    def __init__(self, api: BrokerApi) -> None:
        self._api = api

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        """Yield the records that are wanted, in order; with a *limit* the last so many, or first.

        Raises:
            TrimtabError: the broker doesn't answer, or can't be asked now.
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
        """Return the last records, asking for pages from the end on."""
        found: list[QueryResult] = []
        while len(found) < limit:
            page = self.ask(Question(wanted, limit=min(limit - len(found), PAGE))).found
            found = [*page, *found]
            if not page or page[0].record.seq <= wanted.after + 1:
                break
            wanted = replace(wanted, upto=page[0].record.seq - 1)
        return found

    def ask(self, question: Question) -> Page:
        """Answer a question; raises as ``find``."""
        query = {**_query(question.wanted), "limit": str(question.limit or PAGE), "about": "1"}
        if question.there:
            query["there"] = question.there
        if question.there or not question.last:
            query["after"] = str(question.wanted.after)
        body, headers = self._api.fetch(f"journal?{urlencode(query)}")
        found = tuple(found_of(line) for line in body.splitlines())
        if not question.last or question.there:
            return Page(found, int(headers.get(FOLLOWING, "0")))
        # Without ``after`` the last ones are told: those beyond what is wanted aren't.
        return Page(tuple(each for each in found if each.record.seq > question.wanted.after))

    def follow(self, wanted: Filter) -> Iterator[QueryResult]:
        """Yield the records that are wanted after one, as they become durable; raises as ``find``."""
        query = {**_query(wanted), "after": str(wanted.after), "about": "1"}
        for line in self._api.lines(f"journal/follow?{urlencode(query)}"):
            yield found_of(line)


def _query(wanted: Filter) -> dict[str, str]:
    query = {}
    for each in fields(Filter):
        value = getattr(wanted, each.name)
        if isinstance(value, frozenset):
            value = ",".join(sorted(value))
        if value and each.name != "after":
            query[each.name] = str(value)
    return query


def found_of(line: bytes) -> QueryResult:
    """Return a record as the broker tells of it, with what it is about."""
    told = json.loads(line)
    record = told["record"]
    parts: dict[str, Any] = {part: record.get(part, {}) for part in ENTRY_PARTS}
    entry = Entry(record["id"], record["stage"], **parts)
    return QueryResult(
        Record(
            record["seq"], record["time"], entry, record.get("prev", ""), record.get("hash", "")
        ),
        subject_from_json(told["about"]),
    )
