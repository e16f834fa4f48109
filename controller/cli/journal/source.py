"""Where commands read the journal: its files where they can be read, else the broker that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from controller.cli.options import open_state
from controller.core.records.query import Filter, QueryResult
from controller.core.records.record import line_of
from controller.core.records.views import Page, Question
from controller.model.errors import EngineUnavailable, StateError
from controller.model.records import ENTRY_PARTS, Record

if TYPE_CHECKING:
    from controller.cli.journal.broker_archive import BrokerArchive


class JournalSource(Protocol):
    """The journal as a command asks it: whole, or what this user may know of it."""

    def find(self, wanted: Filter, *, limit: int = 0, last: bool = True) -> Iterator[QueryResult]:
        """Yield the records that are wanted, in order; with a *limit* the last so many, or first."""
        ...

    def ask(self, question: Question) -> Page:
        """Answer a question."""
        ...


@contextmanager
def open_source(
    ctx: click.Context, state: Path | None, *, scan: bool = False
) -> Iterator[JournalSource]:
    """Open the journal of the state folder that is found.

    Raises:
        StateError: it can neither be read nor asked for.
    """
    folder = open_state(state_of(ctx, state))[0].journal
    if scan or _may_read(folder):
        from controller.journal.index.archive import FolderArchive

        with FolderArchive(folder, scan=scan) as archive:
            yield archive
    else:
        yield broker_of(ctx, state)


def broker_of(ctx: click.Context, state: Path | None) -> BrokerArchive:
    """Return the journal as the running broker tells it.

    Raises:
        EngineUnavailable, StateError: no broker runs, or this user may not ask it.
    """
    from controller.cli.clients.socket_client import BrokerApi
    from controller.cli.journal.broker_archive import BrokerArchive

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


def json_line(record: Record) -> bytes:
    """Return a record's line as it is in the journal, or as it was told to one who may not see it."""
    if record.hash:
        return line_of(record)
    entry = record.entry
    members = {"seq": record.seq, "id": entry.id, "time": record.time, "stage": entry.stage}
    parts = {part: value for part in ENTRY_PARTS if (value := getattr(entry, part))}
    return json.dumps({**members, **parts}, ensure_ascii=False).encode()
