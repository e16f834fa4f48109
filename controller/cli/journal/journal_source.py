"""The journal for commands: its files if the user can read them, else the running broker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from controller.cli.options import open_state
from controller.core.records.query import Filter, QueryResult
from controller.core.records.record import line_of, record_members
from controller.core.records.views import Page, Question
from controller.model.errors import EngineUnavailable, StateError
from controller.model.records import Record

if TYPE_CHECKING:
    from controller.cli.journal.broker_archive import BrokerArchive


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
    from controller.cli.clients.socket_client import BrokerApi
    from controller.cli.journal.broker_archive import BrokerArchive

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
