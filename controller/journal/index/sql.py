"""The tables of the index, and the SQL conditions of queries.

A condition is exact: it selects the rows of the records for which ``core.records.query.fits`` and
``core.records.visibility.may_read`` return True, and no other rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final

from controller.core.records.query import ID_PREFIX_MIN, Filter, actions
from controller.core.records.record import GENESIS
from controller.core.records.visibility import ASKED, CHANGES, OF_OWNERS, Reader
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
    """Return the conditions of the rows visible to a reader (``core.records.visibility``)."""
    if reader.role in {Role.OPERATOR, Role.BROKER}:
        return []
    own, roles = _words(database, "role", {reader.role.value})
    adopts, adoptions = _adoptions(database)
    if reader.role is Role.CONTROLLER:
        changes, stages = _words(database, "stage", CHANGES)
        return [(f"{changes} OR {adopts} OR {own}", (*stages, *adoptions, *roles))]
    asked, asked_stages = _words(database, "stage", ASKED)
    owner, owners = _words(database, "owner", {reader.owner} if reader.owner else ())
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
