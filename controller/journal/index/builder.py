"""Build the index and bring it up to date, batch by batch.

Only the holder of the index lock changes the index. Each batch is a transaction: readers always see
the index of all records up to some seq.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from controller.core.records.parts import ActorPart, VerdictPart
from controller.core.records.query import ContainerLife, RecordContext, RecordSubject
from controller.journal.index.database import (
    SPAN,
    Index,
    IndexUnusable,
    connect,
    create,
    is_unwritable,
    milliseconds,
    need_room,
    path_of,
    temporary,
)
from controller.journal.store.chain import BadBase, read_inventory
from controller.journal.store.reader import Position, PositionedRecord, records_after, start_of
from controller.journal.store.segments import BadSegment
from controller.system.durable_files import open_lock_file, try_lock

if TYPE_CHECKING:
    from controller.model.inventory import Inventory

LOG = logging.getLogger(__name__)
#: Records in one transaction.
BATCH: Final = 512
#: Entries of a cache between batches; a fuller cache is emptied.
_CACHE_MAX: Final = 50_000


class IndexLocked(Exception):
    """Another process holds the lock of the index."""


class Builder:
    """The writer of an index. Not thread-safe; close after use.

    An unusable index is replaced by an empty one, which the first ``build`` fills. A *temporary*
    index is private to the builder, and deleted on close.

    Raises:
        IndexLocked: another process holds the lock.
        OSError, sqlite3.Error, IndexUnusable: the index can't be written.
    """

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        self._folder = folder
        self._path = None if temporary else path_of(folder)
        self._lock = None if self._path is None else _lock(self._path)
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        """Close the index and release the lock."""
        self.index.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, *, replace: bool = False) -> None:
        if self._path is None:
            self.index = Index(self._folder, temporary())
        else:
            need_room(self._path)
            usable = None if replace else _usable(self._folder)
            if usable is None:
                create(self._path)
                usable = Index(self._folder, connect(self._path, write=True))
            self.index = usable
        self._database = self.index.database
        self._database.execute("PRAGMA synchronous = NORMAL")
        self.resume()

    def resume(self) -> None:
        """Drop the state of a failed batch; ``build`` continues after the last indexed record."""
        database = self._database
        self._words = _Numbers(database, "words", ("text",))
        self._actions = _Numbers(database, "actions", ("route", "method"))
        self._services = _Numbers(database, "services", ("name", "namespace"))
        self._things = _Numbers(database, "things", ("ident", "name"))
        self._containers = Containers(database)
        self._intents = Intents(database)
        self._memory = RecordContext(self._intents, self._containers)

    def rebuild(self) -> None:
        """Replace the index by an empty index, for ``build`` to fill."""
        self.index.close()
        self._open(replace=True)

    def is_whole(self) -> bool:
        """Return True if the database passes SQLite's check, and has a row for each record.

        Raises:
            sqlite3.Error: the check is impossible, since nothing can be written.
        """
        try:
            (result,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            row = self._database.execute(
                "SELECT (SELECT count(*) FROM records) = seq - first + 1 FROM meta"
            ).fetchone()
        except sqlite3.Error as error:
            if is_unwritable(error):
                raise
            return False
        return result == "ok" and bool(row[0])

    def build(self, *, upto: int | None = None) -> Iterator[int]:
        """Index the new records up to *upto*; yield the last seq after each batch.

        Raises:
            Damage: the journal is damaged; the records before the damage are indexed.
            OSError, sqlite3.Error, DiskAlmostFull: the journal can't be read, or the index written.
        """
        place = self._start()
        batch: list[PositionedRecord] = []
        try:
            for placed in records_after(self._folder, place, upto=upto):
                batch.append(placed)
                if len(batch) == BATCH:
                    full, batch = batch, []  # a failed batch isn't tried again below
                    yield self._insert(full)
        finally:
            # Index the records before a damage too.
            if batch:
                self._insert(batch)
        if batch:
            yield batch[-1].after.seq

    def _start(self) -> Position:
        """Return the position to continue from, after deleting the rows of pruned records."""
        place, first = self.index.place, start_of(self._folder)
        if place.seq < first.seq:
            if place.seq:  # every indexed record was pruned
                self.rebuild()
            self._begin_at(first)
            return first
        (known,) = self._database.execute("SELECT first FROM meta").fetchone()
        if known <= first.seq:
            self._forget(first.seq)
        return place

    def _begin_at(self, first: Position) -> None:
        """Begin after the pruned records, with the containers and intents of their inventory."""
        known = inventory_of(self._folder)
        with _Transaction(self._database):
            for item in known.containers.values():
                named = RecordSubject(
                    item.namespace, item.service, item.owner, item.admitted.name, item.id
                )
                self._containers[item.id] = ContainerLife(named, first.seq)
            for identity, intent in known.open.items():
                self._intents[identity] = self._memory.about(intent.request)
            self._containers.write()
            self._intents.write()
            self._database.execute(
                "UPDATE meta SET first = ?, seq = ?, hash = ?",
                (first.seq + 1, first.seq, first.hash),
            )

    def _forget(self, seq: int) -> None:
        """Delete the rows up to *seq*, and the rows that only they refer to."""
        with _Transaction(self._database):
            for statement in (
                "DELETE FROM records WHERE seq <= ?",
                "DELETE FROM renames WHERE seq <= ?",
                f"DELETE FROM spans WHERE span < ? / {SPAN}",  # noqa: S608 - a number of ours
                "DELETE FROM lives WHERE gone != 0 AND gone <= ?",
                "UPDATE meta SET first = ? + 1",
            ):
                self._database.execute(statement, (seq,))
            self._database.execute(
                "DELETE FROM things WHERE thing NOT IN (SELECT thing FROM records)"
            )
        self._things.forget()

    def _insert(self, batch: list[PositionedRecord]) -> int:
        """Index a batch in one transaction; return the last seq."""
        if self._path is not None:
            need_room(self._path)
        spans: dict[int, tuple[int, int]] = {}
        with _Transaction(self._database):
            rows, renames = [], []
            for placed in batch:
                about = self._memory.learn(placed.record)
                rows.append(row := self._row(placed, about))
                if about.becomes:
                    renames.append((placed.record.seq, about.becomes))
                span, time = placed.record.seq // SPAN, int(str(row[4]))
                low, high = spans.get(span, (time, time))
                spans[span] = (min(low, time), max(high, time))
            marks = ",".join("?" * len(rows[0]))
            self._database.executemany(f"INSERT INTO records VALUES ({marks})", rows)  # noqa: S608
            self._database.executemany("INSERT INTO renames VALUES (?, ?)", renames)
            self._database.executemany(
                "INSERT INTO spans VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                "low = min(low, excluded.low), high = max(high, excluded.high)",
                [(span, *bounds) for span, bounds in spans.items()],
            )
            self._containers.write()
            self._intents.write()
            place = batch[-1].after
            self._database.execute(
                "UPDATE meta SET seq = ?, hash = ?, segment = ?, offset = ?",
                (place.seq, place.hash, place.segment, place.offset),
            )
        return place.seq

    def _row(self, placed: PositionedRecord, about: RecordSubject) -> tuple[object, ...]:
        record = placed.record
        entry = record.entry
        actor = ActorPart.read(entry.actor)
        return (
            record.seq,
            placed.segment,
            placed.offset,
            placed.length,
            milliseconds(record.time),
            bytes.fromhex(entry.id.replace("-", "")),
            self._words[entry.stage,],
            self._words[actor.role,],
            actor.uid,
            self._words[VerdictPart.read(entry.verdict).decision,],
            self._actions[about.action, about.method],
            self._services[about.service, about.namespace],
            self._words[about.owner,],
            self._things[about.id, about.name],
        )


def _usable(folder: Path) -> Index | None:
    """Return the index open for writing, or None if it isn't this journal's.

    Raises:
        IndexUnusable: the check is impossible, since nothing can be written.
    """
    try:
        return Index.open(folder, write=True)
    except IndexUnusable as error:
        if is_unwritable(error):
            raise
        return None


def inventory_of(folder: Path) -> Inventory:
    """Return the inventory of the pruned records, or an empty one if the file isn't as recorded.

    Without the inventory, records of older containers lack name and owner; the records themselves
    stay readable for whoever finds out what happened to the file.
    """
    from controller.model.inventory import Inventory  # not needed to read an index

    try:
        return read_inventory(folder)
    except (BadBase, BadSegment) as error:
        LOG.warning(
            "journal.inventory.unusable error=%s: names in older records are missing", error
        )
        return Inventory()


def _lock(path: Path) -> int:
    handle = open_lock_file(path.with_name(f"{path.name}.lock"))
    if not try_lock(handle):
        os.close(handle)
        raise IndexLocked(str(path))
    return handle


class _Transaction:
    """A context manager: all changes of the block, or none."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:  # SQLite rolls some failures back by itself
                self._database.execute("ROLLBACK")


class _Numbers:
    """The row number of each text, or pair of texts; new texts get a row."""

    def __init__(self, database: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> None:
        self._database = database
        marks, names = ",".join("?" * len(columns)), ", ".join(columns)
        which = " AND ".join(f"{column} = ?" for column in columns)
        self._insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
        self._select = f"SELECT rowid FROM {table} WHERE {which}"  # noqa: S608 - names of ours
        self._known: dict[tuple[str, ...], int] = {}

    def __getitem__(self, key: tuple[str, ...]) -> int:
        number = self._known.get(key)
        if number is None:
            self._database.execute(self._insert, key)
            (number,) = self._database.execute(self._select, key).fetchone()
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            self._known[key] = number
        return int(number)

    def forget(self) -> None:
        """Empty the cache, since rows were deleted."""
        self._known.clear()


class Containers:
    """The containers of a ``RecordContext``, stored in the index. Changes are local until ``write``."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._index = Index(Path(), database)
        self._known: dict[str, ContainerLife | None] = {}
        self._changed: set[str] = set()

    def get(self, key: str, /) -> ContainerLife | None:
        """Return the container with an id, or None."""
        if key not in self._known:
            self._known[key] = self._index.life(key)
        return self._known[key]

    def __setitem__(self, key: str, value: ContainerLife, /) -> None:
        self._known[key] = value
        self._changed.add(key)

    def changed(self) -> Iterator[tuple[str, ContainerLife]]:
        """Yield the changed containers, not yet written."""
        for key in self._changed:
            life = self._known[key]
            assert life is not None, "a changed container exists"
            yield key, life

    def write(self) -> None:
        """Write the changes; call within a transaction."""
        rows = []
        for key, life in self.changed():
            about = life.about
            where = (about.namespace, about.service, about.owner)
            rows.append((key, about.name, *where, life.since, life.gone))
        self._database.executemany(
            "INSERT OR REPLACE INTO lives VALUES (?, ?, ?, ?, ?, ?, ?)", rows
        )
        self._changed.clear()
        if len(self._known) > _CACHE_MAX:
            self._known.clear()


class Intents(dict[str, RecordSubject]):
    """The open intents of a ``RecordContext``, stored in the index: few, so all are in memory."""

    def __init__(self, database: sqlite3.Connection) -> None:
        rows = database.execute("SELECT id, about FROM intents")
        super().__init__((each, RecordSubject(**json.loads(about))) for each, about in rows)
        self._database = database
        self._written = set(self)

    def write(self) -> None:
        """Write the changes; call within a transaction."""
        closed, new = self._written - self.keys(), self.keys() - self._written
        self._database.executemany("DELETE FROM intents WHERE id = ?", [(each,) for each in closed])
        self._database.executemany(
            "INSERT INTO intents VALUES (?, ?)",
            [(each, json.dumps(asdict(self[each]))) for each in new],
        )
        self._written = set(self)
