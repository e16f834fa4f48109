"""Queries: the records that match a filter, by time, service, owner, actor, verdict or object.

One pass over the records in their order. Some records need earlier ones to know their subject: a
start names only an id, a closing record nothing. The index (``journal.index.database``) stores the
result of the same pass, and must answer exactly as ``fits`` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol

from controller.core.records import parts
from controller.core.records.record import CLOSING
from controller.model import mutations, names
from controller.model.mutations import Mutation
from controller.model.records import Record

#: The shortest prefix of an id that a query matches.
ID_PREFIX_MIN: Final = 4
_FULL_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: Prefixes of the routes whose records are about a container.
_OF_CONTAINERS: Final = ("container.", "exec.", "network.connect", "network.disconnect")


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions of a query; an empty field matches every record.

    Times are in the form of records (RFC 3339, UTC).
    """

    since: str = ""
    until: str = ""
    service: str = ""  # NAME or NAMESPACE/NAME
    owner: str = ""
    actor: str = ""  # a role, a uid, or ROLE:UID
    verdict: str = ""
    stages: frozenset[str] = frozenset()
    action: str = ""  # a route such as ``container.create``, its last part, or a method
    routes: frozenset[str] = frozenset()  # whole routes, any of them
    container: str = ""  # a name, or the start of an id
    ids: frozenset[str] = frozenset()  # full ids of objects, any of them
    record: str = ""  # the id of an intent and of its closing record
    after: int = 0  # matches seqs above this one
    upto: int = 0  # matches seqs up to this one


@dataclass(frozen=True, slots=True)
class RecordSubject:
    """The subject of a record, as far as the record and earlier ones say."""

    namespace: str = ""
    service: str = ""
    owner: str = ""
    name: str = ""
    id: str = ""
    action: str = ""
    method: str = ""
    becomes: str = ""  # a renamed container's new name, once the rename took effect


@dataclass(frozen=True, slots=True)
class ContainerLife:
    """A container's life in the records."""

    about: RecordSubject
    since: int  # seq of its first record
    gone: int = 0  # seq of its removal, 0 while it exists


class ContainerStore(Protocol):
    """The containers of a ``RecordContext`` by id: a dictionary, or a table elsewhere."""

    def get(self, key: str, /) -> ContainerLife | None: ...

    def __setitem__(self, key: str, value: ContainerLife, /) -> None: ...


@dataclass(slots=True)
class RecordContext:
    """The knowledge from the records so far: the subjects of open intents, and containers by id."""

    intents: dict[str, RecordSubject] = field(default_factory=dict)
    lives: ContainerStore = field(default_factory=dict[str, ContainerLife])

    def learn(self, record: Record) -> RecordSubject:
        """Return the subject of *record*, and remember it for later records."""
        entry = record.entry
        if entry.stage in CLOSING:
            about = self.intents.pop(entry.id, None) or RecordSubject()
            if identifier := parts.ResultPart.read(entry.result).container:
                about = replace(about, id=identifier)
            self._settle(record, about)
            return about
        about = self.about(entry.request)
        if entry.stage == "intent":
            self.intents[entry.id] = about
        elif about.action == mutations.CONTAINER_GONE:
            self._end(about.id, record.seq)
        elif is_adoption(record, about):
            self._adopt(record, about)
        return about

    def about(self, request: Mapping[str, Any]) -> RecordSubject:
        """Return the subject of a request."""
        part = parts.RequestPart.read(request)
        summary, target, action = part.summary, part.object, part.route
        life = self.lives.get(target) if is_full_id(target) else None
        known = life.about if life is not None else RecordSubject()
        return RecordSubject(
            namespace=summary.label(names.NAMESPACE) or summary.namespace or known.namespace,
            service=summary.label(names.SERVICE) or summary.service or known.service,
            owner=summary.label(names.OWNER) or summary.owner or known.owner,
            name=known.name or summary.name or target,
            id=known.id or target,
            action=action,
            method=part.method,
            becomes=summary.name if action == Mutation.CONTAINER_RENAME else "",
        )

    def _settle(self, record: Record, about: RecordSubject) -> None:
        """Remember a closing record's effect on a container."""
        if not (is_full_id(about.id) and about.action.startswith(_OF_CONTAINERS)):
            return
        if about.action == Mutation.CONTAINER_REMOVE:
            if parts.is_removed(record):
                self._end(about.id, record.seq)
            return
        if not parts.is_applied(record):
            return
        life = self.lives.get(about.id)
        if life is None:  # created now, or before the first record in the journal
            life = ContainerLife(replace(about, becomes=""), record.seq)
            self.lives[about.id] = life
        if about.becomes:
            renamed = replace(life.about, name=about.becomes)
            self.lives[about.id] = replace(life, about=renamed)

    def _adopt(self, record: Record, about: RecordSubject) -> None:
        """Remember an adopted container: its create, if recorded, is in another journal."""
        life = self.lives.get(about.id)
        if life is None or life.gone:
            self.lives[about.id] = ContainerLife(about, record.seq)

    def _end(self, identifier: str, seq: int) -> None:
        life = self.lives.get(identifier)
        if life is not None and not life.gone:
            self.lives[identifier] = replace(life, gone=seq)


def is_adoption(record: Record, about: RecordSubject) -> bool:
    """Return True if a record is an operator's adoption of a container."""
    adopts = record.entry.stage == "operator" and about.action == mutations.ADOPT
    kind = parts.RequestPart.read(record.entry.request).summary.part(parts.AdoptionPart).kind
    return adopts and kind == "container" and is_full_id(about.id)


def is_full_id(text: str) -> bool:
    """Return True if a text is a full id of the engine."""
    return _FULL_ID.fullmatch(text) is not None


class QueryResult(NamedTuple):
    """A matching record, and its subject."""

    record: Record
    about: RecordSubject


def fits(record: Record, about: RecordSubject, wanted: Filter) -> bool:
    """Return True if a record matches the filter."""
    entry = record.entry
    return (
        (not wanted.since or record.time >= wanted.since)
        and (not wanted.until or record.time <= wanted.until)
        and record.seq > wanted.after
        and (not wanted.upto or record.seq <= wanted.upto)
        and (not wanted.stages or entry.stage in wanted.stages)
        and (not wanted.verdict or parts.VerdictPart.read(entry.verdict).decision == wanted.verdict)
        and (not wanted.actor or wanted.actor in actors(entry.actor))
        and (not wanted.action or wanted.action.casefold() in actions(about.action, about.method))
        and (not wanted.routes or about.action in wanted.routes)
        and concerns(about, wanted)
        and (not wanted.ids or about.id in wanted.ids)
        and (not wanted.record or entry.id == wanted.record)
    )


def concerns(about: RecordSubject, wanted: Filter) -> bool:
    """Return True if a subject matches the filter by service, owner and container."""
    return (
        (not wanted.service or wanted.service in _services(about))
        and (not wanted.owner or wanted.owner == about.owner)
        and (not wanted.container or _is_container(about, wanted.container))
    )


def actors(actor: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts for an actor in queries."""
    part = parts.ActorPart.read(actor)
    if part.uid is None:
        return (part.role, "")
    return (part.role, str(part.uid), f"{part.role}:{part.uid}")


def _services(about: RecordSubject) -> tuple[str, ...]:
    if not about.service:
        return ()
    namespace = about.namespace or names.DEFAULT_NAMESPACE
    return (about.service, f"{namespace}/{about.service}")


def actions(route: str, method: str) -> tuple[str, ...]:
    """Return the texts for an action in queries."""
    return (route, route.rpartition(".")[2], method.casefold())


def _is_container(about: RecordSubject, wanted: str) -> bool:
    if wanted in {about.name, about.becomes}:
        return True
    return len(wanted) >= ID_PREFIX_MIN and about.id.startswith(wanted)
