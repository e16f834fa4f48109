"""Where commands read the journal: its files where they can be read, else the broker that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import click

from controller.cli.api import BrokerApi
from controller.cli.common import open_state
from controller.core.questions import Page, Question
from controller.core.readership import about_from
from controller.core.record import line_of
from controller.core.search import Filter, Found
from controller.model.entries import Entry, Record
from controller.model.errors import EngineUnavailable, StateError

#: Records that are asked for at once.
PAGE = 200
FOLLOWING = "trimtab-following"
_PARTS = ("actor", "request", "verdict", "claims", "result")


class Source(Protocol):
    """The journal as a command asks it: whole, or what this user may know of it."""

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[Found]:
        """Yield the records that are wanted, in order; with a *limit* the last so many, or first."""
        ...

    def ask(self, question: Question) -> Page:
        """Answer a question."""
        ...


@contextmanager
def open_source(ctx: click.Context, state: Path | None, *, scan: bool = False) -> Iterator[Source]:
    """Open the journal of the state folder that is found.

    Raises:
        StateError: it can neither be read nor asked for.
    """
    folder = open_state(state_of(ctx, state))[0].journal
    if scan or _may_read(folder):
        from controller.journal.archive import FolderArchive

        with FolderArchive(folder, scan=scan) as archive:
            yield archive
    else:
        yield broker_of(ctx, state)


def broker_of(ctx: click.Context, state: Path | None) -> BrokerArchive:
    """Return the journal as the running broker tells it.

    Raises:
        EngineUnavailable, StateError: no broker runs, or this user may not ask it.
    """
    found = open_state(state_of(ctx, state))[0]
    api = BrokerApi(found.broker_socket)
    try:
        api.get("whoami")
    except EngineUnavailable as error:
        if _may_read(found.journal):
            raise
        raise StateError(
            "journal.unreadable",
            f"the journal can't be read by you, and no broker tells of it: {error.message}",
            remedy="ask as root, with sudo; or start the broker with 'trimtab up'",
        ) from error
    return BrokerArchive(api)


def state_of(ctx: click.Context, state: Path | None) -> Path | None:
    """Return ``--state``, which may also stand before the command."""
    return state or (ctx.parent.params.get("state") if ctx.parent is not None else None)


def wants_json(ctx: click.Context, as_json: bool) -> bool:
    """Tell whether ``--json`` was given, here or before the command."""
    return as_json or (ctx.parent is not None and bool(ctx.parent.params.get("as_json")))


def _may_read(folder: Path) -> bool:
    """Tell whether this user may read the files; what isn't there is for whoever reads to say."""
    try:
        return os.access(folder, os.R_OK | os.X_OK, effective_ids=True) or not folder.exists()
    except PermissionError:
        return False


class BrokerArchive:
    """Asks the broker, page by page."""

    def __init__(self, api: BrokerApi) -> None:
        self._api = api

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[Found]:
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

    def _last(self, wanted: Filter, limit: int) -> list[Found]:
        """Return the last records, asking for pages from the end on."""
        found: list[Found] = []
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
        found = tuple(_found(line) for line in body.splitlines())
        if not question.last or question.there:
            return Page(found, int(headers.get(FOLLOWING, "0")))
        # Without ``after`` the last ones are told: those beyond what is wanted aren't.
        return Page(tuple(each for each in found if each.record.seq > question.wanted.after))

    def follow(self, wanted: Filter) -> Iterator[Found]:
        """Yield the records that are wanted after one, as they become durable; raises as ``find``."""
        query = {**_query(wanted), "after": str(wanted.after), "about": "1"}
        for line in self._api.lines(f"journal/follow?{urlencode(query)}"):
            yield _found(line)


def _query(wanted: Filter) -> dict[str, str]:
    query = {}
    for each in fields(Filter):
        value = getattr(wanted, each.name)
        if isinstance(value, frozenset):
            value = ",".join(sorted(value))
        if value and each.name != "after":
            query[each.name] = str(value)
    return query


def _found(line: bytes) -> Found:
    told = json.loads(line)
    record = told["record"]
    parts: dict[str, Any] = {part: record.get(part, {}) for part in _PARTS}
    entry = Entry(record["id"], record["stage"], **parts)
    return Found(
        Record(
            record["seq"], record["time"], entry, record.get("prev", ""), record.get("hash", "")
        ),
        about_from(told["about"]),
    )


def json_line(record: Record) -> bytes:
    """Return a record's line as it is in the journal, or as it was told to one who may not see it."""
    if record.hash:
        return line_of(record)
    entry = record.entry
    members = {"seq": record.seq, "id": entry.id, "time": record.time, "stage": entry.stage}
    parts = {part: value for part in _PARTS if (value := getattr(entry, part))}
    return json.dumps({**members, **parts}, ensure_ascii=False).encode()
