"""The index of the journal: an SQLite file with the place of each record, for queries.

The index is disposable: it is rebuilt if missing, damaged, of another version, or of another
journal. Answers always come from the segments, with their hashes checked; a row that doesn't match
its record proves that the index is wrong. The rows store the result of the same pass as
``core.records.query`` makes (see ``builder``).

The file uses WAL mode, for one writer and several readers (https://www.sqlite.org/wal.html).

The tables of the index, and the SQL conditions of queries.

A condition is exact: it selects the rows of the records for which ``core.records.query.fits`` and
``core.records.query.may_read`` return True, and no other rows.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from controller.core.records.query import (
    ASKED,
    CHANGES,
    ID_PREFIX_MIN,
    OF_OWNERS,
    ContainerLife,
    Filter,
    QueryResult,
    Reader,
    RecordSubject,
    actions,
    fits,
    may_read,
)
from controller.core.records.record import GENESIS, BadLine
from controller.journal.store.reader import Position, RecordReader, start_of
from controller.model import names
from controller.model.mutations import ADOPT
from controller.model.records import Role

VERSION: Final = 1
#: Number of records whose times are summarised in one row of ``spans``, to find seqs by time.
SPAN: Final = 1024

SCHEMA: Final = f"""
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    first INTEGER NOT NULL,       -- seq of the first record that is indexed
    seq INTEGER NOT NULL,         -- and of the last, with the place after it
    hash TEXT NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL
);
CREATE TABLE words (word INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE actions (
    action INTEGER PRIMARY KEY, route TEXT NOT NULL, method TEXT NOT NULL, UNIQUE (route, method)
);
CREATE TABLE services (
    service INTEGER PRIMARY KEY, name TEXT NOT NULL, namespace TEXT NOT NULL,
    UNIQUE (name, namespace)
);
CREATE TABLE things (
    thing INTEGER PRIMARY KEY, ident TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (ident, name)
);
CREATE INDEX things_by_name ON things (name);
CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    time INTEGER NOT NULL,        -- milliseconds since the epoch
    id BLOB NOT NULL,
    stage INTEGER NOT NULL, role INTEGER NOT NULL, uid INTEGER, decision INTEGER NOT NULL,
    action INTEGER NOT NULL, service INTEGER NOT NULL, owner INTEGER NOT NULL,
    thing INTEGER NOT NULL
);
CREATE INDEX records_by_service ON records (service, seq);
CREATE INDEX records_by_thing ON records (thing, seq);
CREATE INDEX records_by_id ON records (id);
CREATE TABLE renames (seq INTEGER PRIMARY KEY, becomes TEXT NOT NULL);
CREATE INDEX renames_by_name ON renames (becomes);
CREATE TABLE spans (span INTEGER PRIMARY KEY, low INTEGER NOT NULL, high INTEGER NOT NULL);
CREATE TABLE lives (
    ident TEXT PRIMARY KEY, name TEXT NOT NULL, namespace TEXT NOT NULL, service TEXT NOT NULL,
    owner TEXT NOT NULL, since INTEGER NOT NULL, gone INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE intents (id TEXT PRIMARY KEY, about TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES (1, 1, 0, '{GENESIS}', 0, 0);
"""  # noqa: S608 - zeros of ours


def milliseconds(time: str) -> int:
    """Return a record's time as stored in rows."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def key_of(identity: str) -> bytes:
    """Return a record's id as stored in rows; a malformed id gives b'', which no row has."""
    digits = identity.replace("-", "")
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    if len(digits) != 32 or "-".join(parts) != identity or identity != identity.lower():
        return b""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


#: A condition, and the values of its placeholders.
Term = tuple[str, tuple[object, ...]]


def condition(database: sqlite3.Connection, wanted: Filter, reader: Reader) -> Term:
    """Return the condition of the matching rows visible to *reader*."""
    terms = [_bounds(database, wanted), *_readers(database, reader)]
    terms += [term(database, wanted) for name, term in _TERMS if getattr(wanted, name)]
    text = " AND ".join(f"({text})" for text, _ in terms)
    return text, tuple(value for _, values in terms for value in values)


def _bounds(database: sqlite3.Connection, wanted: Filter) -> Term:
    """Return the range of seqs with all matching records."""
    low, high = wanted.after, wanted.upto or 2**62
    if wanted.since:
        query = "SELECT min(span) FROM spans WHERE high >= ?"
        (span,) = database.execute(query, (milliseconds(wanted.since),)).fetchone()
        low = high if span is None else max(low, span * SPAN - 1)
    if wanted.until:
        query = "SELECT max(span) FROM spans WHERE low <= ?"
        (span,) = database.execute(query, (milliseconds(wanted.until),)).fetchone()
        high = 0 if span is None else min(high, span * SPAN + SPAN - 1)
    return "seq > ? AND seq <= ?", (low, high)


def _words(database: sqlite3.Connection, column: str, texts: Collection[str]) -> Term:
    marks = ",".join("?" * len(texts))
    query = f"SELECT word FROM words WHERE text IN ({marks})"  # noqa: S608 - marks only
    return _among(column, [word for (word,) in database.execute(query, sorted(texts))])


def _actor(database: sqlite3.Connection, wanted: Filter) -> Term:
    role, both, uid = wanted.actor.rpartition(":")
    is_uid = uid.isascii() and uid.isdigit() and str(int(uid)) == uid and int(uid) < 2**62
    term, values = _words(database, "role", {role if both else uid})
    if not is_uid:
        return ("FALSE", ()) if both else (term, values)
    return f"{term} {'AND' if both else 'OR'} uid = ?", (*values, int(uid))


def _action(database: sqlite3.Connection, wanted: Filter) -> Term:
    word = wanted.action.casefold()
    rows = database.execute("SELECT action, route, method FROM actions")
    return _among("action", [row for row, route, method in rows if word in actions(route, method)])


def _routes(database: sqlite3.Connection, wanted: Filter) -> Term:
    rows = database.execute("SELECT action, route FROM actions")
    return _among("action", [row for row, route in rows if route in wanted.routes])


def _service(database: sqlite3.Connection, wanted: Filter) -> Term:
    namespace, slash, name = wanted.service.rpartition("/")
    query = "SELECT service, namespace FROM services WHERE name = ? AND name != ''"
    rows = [
        service
        for service, stored in database.execute(query, (name,))
        if not slash or (stored or names.DEFAULT_NAMESPACE) == namespace
    ]
    return _among("service", rows)


def _container(_: sqlite3.Connection, wanted: Filter) -> Term:
    container = wanted.container
    which = "SELECT thing FROM things WHERE name = ?"
    values: tuple[str, ...] = (container,)
    if len(container) >= ID_PREFIX_MIN:
        which += " UNION SELECT thing FROM things WHERE ident >= ? AND ident < ?"
        values = (*values, container, container + "\U0010ffff")
    renamed = "SELECT seq FROM renames WHERE becomes = ?"
    return f"thing IN ({which}) OR seq IN ({renamed})", (*values, container)


_BY_IDENT: Final = (
    "thing IN (SELECT thing FROM things WHERE ident IN (SELECT value FROM json_each(?)))"
)
#: The condition for each member of a filter that is set.
_TERMS: Final[tuple[tuple[str, Callable[[sqlite3.Connection, Filter], Term]], ...]] = (
    ("since", lambda _, wanted: ("time >= ?", (milliseconds(wanted.since),))),
    ("until", lambda _, wanted: ("time <= ?", (milliseconds(wanted.until),))),
    ("stages", lambda database, wanted: _words(database, "stage", wanted.stages)),
    ("verdict", lambda database, wanted: _words(database, "decision", {wanted.verdict})),
    ("owner", lambda database, wanted: _words(database, "owner", {wanted.owner})),
    ("actor", _actor),
    ("action", _action),
    ("routes", _routes),
    ("service", _service),
    ("container", _container),
    ("ids", lambda _, wanted: (_BY_IDENT, (json.dumps(sorted(wanted.ids)),))),
    ("record", lambda _, wanted: ("id = ?", (key_of(wanted.record),))),
)


def _readers(database: sqlite3.Connection, reader: Reader) -> list[Term]:
    """Return the conditions of the rows visible to a reader (``core.records.query``)."""
    if reader.role in {Role.OPERATOR, Role.BROKER}:
        return []
    own, roles = _words(database, "role", {reader.role.value})
    adopts, adoptions = _adoptions(database)
    if reader.role is Role.CONTROLLER:
        changes, stages = _words(database, "stage", CHANGES)
        return [(f"{changes} OR {adopts} OR {own}", (*stages, *adoptions, *roles))]
    asked, asked_stages = _words(database, "stage", ASKED)
    of_all: Term = ("TRUE", ())
    owner, owners = of_all if reader.owners is None else _words(database, "owner", reader.owners)
    of_owner, owner_stages = _words(database, "stage", OF_OWNERS)
    values = (*roles, reader.uid, *asked_stages, *owners, *owner_stages, *adoptions)
    own_requests = f"({own} AND uid = ? AND {asked})"
    return [(f"{own_requests} OR ({owner} AND ({of_owner} OR {adopts}))", values)]


def _adoptions(database: sqlite3.Connection) -> Term:
    act, stages = _words(database, "stage", {"operator"})
    adopts, routes = _routes(database, Filter(routes=frozenset({ADOPT})))
    return f"({act} AND {adopts})", (*stages, *routes)


def _among(column: str, values: list[int]) -> Term:
    if len(values) == 1:  # then rows come in the order of an index by this column
        return f"{column} = ?", tuple(values)
    return f"{column} IN ({','.join('?' * len(values))})", tuple(values)


NAME: Final = "index.sqlite"
FILE_MODE: Final = 0o600
#: How long a reader waits for a writer that changes the file's layout, which is rare.
BUSY_S: Final = 5.0
#: Memory of a temporary index, in KiB, before SQLite uses the disk, which can be full.
TEMPORARY_KIB: Final = 65_536
#: Space that must be free before the index is opened for writing, or grows. SQLite maps its shared
#: memory file; a write to a mapped page without a disk block kills the process (SIGBUS).
ROOM_BYTES: Final = 512 * 1024
_UNWRITABLE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
)

#: Tables that ``Index.check`` reads only to see that they exist.
_TABLES: Final = ("words", "actions", "services", "things", "renames", "spans", "lives")
_RECORD = "seq, segment, offset, length, action, service, owner, thing"
_LIFE = "namespace, service, owner, name, ident, since, gone"
_RESULTS = """
SELECT seq, segment, offset, length, services.namespace, services.name, words.text,
    things.name, things.ident, actions.route, actions.method, coalesce(becomes, '')
FROM ({}) AS found
LEFT JOIN services ON services.service = found.service
LEFT JOIN words ON words.word = found.owner
LEFT JOIN things ON things.thing = found.thing
LEFT JOIN actions ON actions.action = found.action
LEFT JOIN renames USING (seq)
ORDER BY seq
"""


class IndexUnusable(Exception):
    """No usable index; the journal itself can be read."""


class DiskAlmostFull(IndexUnusable):
    """The disk is almost full, so the index must not be written."""


class Misfit(Exception):
    """A row doesn't match its record: the index is wrong."""


def path_of(folder: Path) -> Path:
    """Return the path of a folder's index: outside the folder, so that copies don't include it."""
    return folder.with_name(NAME)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open the database of an index.

    Raises:
        IndexUnusable: the file is missing, of another version, or no database.
    """
    where = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    try:
        database = sqlite3.connect(where, uri=True, timeout=BUSY_S, isolation_level=None)
    except sqlite3.Error as error:
        raise IndexUnusable(f"{path}: {error}") from error
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        database.close()
        raise IndexUnusable(f"{path}: {error}") from error
    if version != VERSION:
        database.close()
        raise IndexUnusable(f"{path} is an index of version {version}")
    return database


def need_room(path: Path) -> None:
    """Check that the disk has room to open the index and to let it grow.

    Raises:
        DiskAlmostFull: the disk has too little room.
        OSError: the room can't be measured.
    """
    facts = os.statvfs(path.parent)
    if facts.f_bavail * facts.f_frsize < ROOM_BYTES:
        raise DiskAlmostFull(f"less than {ROOM_BYTES // 1024} KiB are free for {path}")


def is_unwritable(error: BaseException | None) -> bool:
    """Return True if an error, or its cause, only means that nothing can be written.

    The index can be correct and useful then. An unreadable index must be rebuilt.
    """
    if isinstance(error, DiskAlmostFull):
        return True
    while error is not None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
        # The lowest byte is the primary code (https://www.sqlite.org/rescode.html).
        if code & 0xFF in _UNWRITABLE and code != sqlite3.SQLITE_IOERR_READ:
            return True
        error = error.__cause__
    return False


class Index:
    """Queries by an index. Not thread-safe; close after use."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.database = database
        self._folder = folder
        self._lines = RecordReader(folder)

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Self:
        """Open the index of a journal's folder, for queries or for changes.

        Raises:
            IndexUnusable: the index is missing, or belongs to another journal.
        """
        index = cls(folder, connect(path_of(folder), write=write))
        if not write:  # a read transaction: all answers show one moment
            index.database.execute("BEGIN")
        try:
            index.check()
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Close the database and the segments."""
        self._lines.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def place(self) -> Position:
        """The position after the last indexed record."""
        row = self.database.execute("SELECT seq, hash, segment, offset FROM meta").fetchone()
        return Position(*row)

    def check(self) -> None:
        """Check that the last indexed record is in the journal, and that no row is missing.

        Since each hash covers the record before, all earlier records are the journal's too. The check
        doesn't compare each row with its record: for that, every record would have to be read.

        Raises:
            IndexUnusable: the last record is not in the journal, or a row or table is missing.
        """
        try:
            place = self.place
            row = self.database.execute(
                "SELECT segment, offset, length FROM records WHERE seq = ?", (place.seq,)
            ).fetchone()
            if place.seq and (row is None or self._lines.record(*row).hash != place.hash):
                raise IndexUnusable("it is the index of another journal")
            if place.seq and (place.segment, place.offset) != (row[0], row[1] + row[2] + 1):
                raise IndexUnusable("it goes on from another place")
            for (about,) in self.database.execute("SELECT about FROM intents"):
                RecordSubject(**json.loads(about))
            for table in _TABLES:
                self.database.execute(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608 - ours
            # Counting takes some 15 ms for a million.
            first, missing = self.database.execute(
                "SELECT first, seq - first + 1 - (SELECT count(*) FROM records) FROM meta"
            ).fetchone()
            if missing or first > start_of(self._folder).seq + 1:
                raise IndexUnusable("it lacks records")
        except (BadLine, OSError) as error:
            raise IndexUnusable(f"its last record isn't in the journal: {error}") from error
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise IndexUnusable(f"it can't be read: {error}") from error

    def find(
        self, wanted: Filter, reader: Reader, *, limit: int = 0, last: bool = True
    ) -> Iterator[QueryResult]:
        """Yield the matching indexed records visible to *reader*, in order.

        With a *limit*, yield the last matches, or the first ones if *last* is False.

        Raises:
            Misfit: the index is wrong.
        """
        try:
            where, parameters = condition(self.database, wanted, reader)
            inner = f"SELECT {_RECORD} FROM records WHERE {where}"  # noqa: S608 - texts of ours
            if limit:
                inner += f" ORDER BY seq {'DESC' if last else 'ASC'} LIMIT ?"
                parameters = (*parameters, limit)
            rows = self.database.execute(_RESULTS.format(inner), parameters)
            try:
                for row in rows:
                    yield self._read_row(row, wanted, reader)
            finally:
                with suppress(sqlite3.ProgrammingError):  # the database was closed before
                    rows.close()
        except (sqlite3.Error, ValueError) as error:  # ValueError: a malformed number
            raise Misfit(str(error)) from error

    def _read_row(self, row: tuple[object, ...], wanted: Filter, reader: Reader) -> QueryResult:
        seq, segment, offset, length, *subject = row
        about = RecordSubject(*map(str, subject))
        try:
            record = self._lines.record(int(str(segment)), int(str(offset)), int(str(length)))
        except (BadLine, OSError) as error:
            raise Misfit(f"record {seq}: {error}") from error
        if (
            record.seq != seq
            or not fits(record, about, wanted)
            or not may_read(reader, record, about)
        ):
            raise Misfit(f"record {seq} isn't what its row says")
        return QueryResult(record, about)

    # Queries about containers and times.

    def lives(self, *, since: int, seq: int) -> Iterator[ContainerLife]:
        """Yield the containers that existed right after record *seq* and began after *since*."""
        rows = self.database.execute(
            f"SELECT {_LIFE} FROM lives WHERE since > ? AND since <= ? "  # noqa: S608
            "AND (gone = 0 OR gone > ?) ORDER BY since",
            (since, seq, seq),
        )
        return (ContainerLife(RecordSubject(*row[:5]), *row[5:]) for row in rows)

    def runs(self, at: str) -> Iterator[tuple[int, int]]:
        """Yield runs of records at or before the time *at*, and after: see ``archive.last_at``."""
        moment = milliseconds(at)
        first, last = self.database.execute("SELECT first, seq FROM meta").fetchone()
        for span, low, high in self.database.execute("SELECT * FROM spans ORDER BY span"):
            start, end = max(first, span * SPAN), min(last, span * SPAN + SPAN - 1)
            if low <= moment < high:
                rows = self.database.execute(
                    "SELECT seq, time <= ? FROM records WHERE seq BETWEEN ? AND ? ORDER BY seq",
                    (moment, start, end),
                )
                yield from ((seq, 1 if before else -1) for seq, before in rows)
            else:
                count = end - start + 1
                yield end, count if high <= moment else -count

    def life(self, identifier: str) -> ContainerLife | None:
        """Return the life of a container, or None."""
        row = self.database.execute(
            f"SELECT {_LIFE} FROM lives WHERE ident = ?",  # noqa: S608 - texts of ours
            (identifier,),
        ).fetchone()
        return None if row is None else ContainerLife(RecordSubject(*row[:5]), *row[5:])


def create(path: Path) -> None:
    """Make an empty index, private to its owner; an existing file is replaced.

    Raises:
        OSError, sqlite3.Error: the index can't be made.
    """
    remove(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, FILE_MODE)
    try:
        folder = path.parent.stat()
        if os.geteuid() == 0:  # a repair as root must leave the file to the broker's user
            os.fchown(handle, folder.st_uid, folder.st_gid)
    finally:
        os.close(handle)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        _lay_out(database)


def temporary() -> sqlite3.Connection:
    """Make an empty index without a file name; SQLite deletes it with the connection."""
    database = sqlite3.connect("", isolation_level=None)
    database.execute(f"PRAGMA cache_size = -{TEMPORARY_KIB}")
    database.execute("PRAGMA journal_mode = MEMORY")
    _lay_out(database)
    return database


def _lay_out(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA synchronous = OFF")  # a damaged index is rebuilt
    database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def remove(path: Path) -> None:
    """Remove an index and SQLite's WAL and shared memory files."""
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        each.unlink(missing_ok=True)
