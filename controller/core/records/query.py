"""Which records answer a question: by time, service, owner, actor, verdict, stage, action, object.

One pass over the records in their order. What a later record is about (a start names an id only, a
closing record nothing) is learned from the ones before it. The index (``journal.index.database``) is the
same pass, kept: it answers as ``search`` does, or it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from controller.core.encoding.json_members import mapping_member, text_member
from controller.core.records.inventory import applied, gone
from controller.core.records.record import CLOSING
from controller.model import mutations, names
from controller.model.mutations import Mutation
from controller.model.records import Record

T = TypeVar("T")
#: A shorter id isn't looked for by its beginning.
ID_PREFIX_MIN: Final = 4
_FULL_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: Records of a container, whatever else their routes name.
_OF_CONTAINERS: Final = ("container.", "exec.", "network.connect", "network.disconnect")


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; an empty field wants all. Times are as records have them (RFC 3339, UTC).

    ``service`` is NAME or NAMESPACE/NAME; ``actor`` a role, a uid, or ROLE:UID; ``action`` a route
    such as ``container.create``, its last part, or a method, ``routes`` whole routes, any of them;
    ``container`` a name or the start of an id;
    ``ids`` full ids of objects, any of them; ``record`` the id of an intent and its closing record;
    seqs are above ``after``, and none is above ``upto``.
    """

    since: str = ""
    until: str = ""
    service: str = ""
    owner: str = ""
    actor: str = ""
    verdict: str = ""
    stages: frozenset[str] = frozenset()
    action: str = ""
    routes: frozenset[str] = frozenset()
    container: str = ""
    ids: frozenset[str] = frozenset()
    record: str = ""
    after: int = 0
    upto: int = 0

    @property
    def empty(self) -> bool:
        """Tell whether every record is wanted."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class RecordSubject:
    """What a record is about, as far as it and those before it tell.

    ``becomes`` is the name that a renamed container gets, once that took effect.
    """

    namespace: str = ""
    service: str = ""
    owner: str = ""
    name: str = ""
    id: str = ""
    action: str = ""
    method: str = ""
    becomes: str = ""


@dataclass(frozen=True, slots=True)
class ContainerLife:
    """A container as the records tell of it: since which seq, and until which (0: it is there)."""

    about: RecordSubject
    since: int
    gone: int = 0


class KeyedStore(Protocol[T]):
    """What a memory keeps by key: a dictionary, or something that has it elsewhere."""

    def get(self, key: str, /) -> T | None: ...

    def pop(self, key: str, default: None, /) -> T | None: ...

    def __setitem__(self, key: str, value: T, /) -> None: ...


@dataclass(slots=True)
class RecordContext:
    """What the records so far have told: of open intents, and of containers by id."""

    intents: KeyedStore[RecordSubject] = field(default_factory=dict)
    lives: KeyedStore[ContainerLife] = field(default_factory=dict)

    def learn(self, record: Record) -> RecordSubject:
        """Return what *record* is about, and remember it for the ones after it."""
        entry = record.entry
        if entry.stage in CLOSING:
            about = self.intents.pop(entry.id, None) or RecordSubject()
            if identifier := text_member(entry.result, "container"):
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
        """Return what a request is about."""
        summary = mapping_member(request, "summary")
        labels = mapping_member(summary, "labels")
        thing = text_member(request, "object")
        life = self.lives.get(thing) if is_full_id(thing) else None
        known = life.about if life is not None else RecordSubject()
        action = text_member(request, "route")
        told = text_member(summary, "name")
        return RecordSubject(
            namespace=text_member(labels, names.NAMESPACE)
            or text_member(summary, "namespace")
            or known.namespace,
            service=text_member(labels, names.SERVICE)
            or text_member(summary, "service")
            or known.service,
            owner=text_member(labels, names.OWNER) or text_member(summary, "owner") or known.owner,
            name=known.name or told or thing,
            id=known.id or thing,
            action=action,
            method=text_member(request, "method"),
            becomes=told if action == Mutation.CONTAINER_RENAME else "",
        )

    def _settle(self, record: Record, about: RecordSubject) -> None:
        """Take note of what a closing record says of a container."""
        if not (is_full_id(about.id) and about.action.startswith(_OF_CONTAINERS)):
            return
        if about.action == Mutation.CONTAINER_REMOVE:
            if gone(record):
                self._end(about.id, record.seq)
            return
        if not applied(record):
            return
        life = self.lives.get(about.id)
        if life is None:  # created now, or before the first record that is left
            life = ContainerLife(replace(about, becomes=""), record.seq)
            self.lives[about.id] = life
        if about.becomes:
            named = replace(life.about, name=about.becomes)
            self.lives[about.id] = replace(life, about=named)

    def _adopt(self, record: Record, about: RecordSubject) -> None:
        """Take note of a container whose create another journal may have, if any has it."""
        life = self.lives.get(about.id)
        if life is None or life.gone:
            self.lives[about.id] = ContainerLife(about, record.seq)

    def _end(self, identifier: str, seq: int) -> None:
        life = self.lives.get(identifier)
        if life is not None and not life.gone:
            self.lives[identifier] = replace(life, gone=seq)


def is_adoption(record: Record, about: RecordSubject) -> bool:
    """Tell whether a record says that an operator took in a container, as if it had been created."""
    adopts = record.entry.stage == "operator" and about.action == mutations.ADOPT
    summary = mapping_member(record.entry.request, "summary")
    return adopts and summary.get("kind") == "container" and is_full_id(about.id)


def is_full_id(text: str) -> bool:
    """Tell whether a text is an engine's full id."""
    return _FULL_ID.fullmatch(text) is not None


class QueryResult(NamedTuple):
    """A record that was wanted, and what it is about."""

    record: Record
    about: RecordSubject


def search(
    records: Iterable[Record], wanted: Filter, memory: RecordContext | None = None
) -> Iterator[QueryResult]:
    """Yield the records that are wanted, in their order.

    Give it all from the journal's start, or the *memory* of those before.
    """
    memory = RecordContext() if memory is None else memory
    for record in records:
        about = memory.learn(record)
        if fits(record, about, wanted):
            yield QueryResult(record, about)


def fits(record: Record, about: RecordSubject, wanted: Filter) -> bool:
    """Tell whether one record is wanted."""
    entry = record.entry
    return (
        (not wanted.since or record.time >= wanted.since)
        and (not wanted.until or record.time <= wanted.until)
        and record.seq > wanted.after
        and (not wanted.upto or record.seq <= wanted.upto)
        and (not wanted.stages or entry.stage in wanted.stages)
        and (not wanted.verdict or text_member(entry.verdict, "decision") == wanted.verdict)
        and (not wanted.actor or wanted.actor in actors(entry.actor))
        and (not wanted.action or wanted.action.casefold() in actions(about.action, about.method))
        and (not wanted.routes or about.action in wanted.routes)
        and concerns(about, wanted)
        and (not wanted.ids or about.id in wanted.ids)
        and (not wanted.record or entry.id == wanted.record)
    )


def concerns(about: RecordSubject, wanted: Filter) -> bool:
    """Tell whether what a record is about is wanted: by service, owner and container."""
    return (
        (not wanted.service or wanted.service in _services(about))
        and (not wanted.owner or wanted.owner == about.owner)
        and (not wanted.container or _is_container(about, wanted.container))
    )


def actors(actor: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words by which an actor is looked for."""
    role, uid = text_member(actor, "role"), actor.get("uid", "")
    return (role, str(uid), *([f"{role}:{uid}"] if isinstance(uid, int) else []))


def _services(about: RecordSubject) -> tuple[str, ...]:
    if not about.service:
        return ()
    namespace = about.namespace or names.DEFAULT_NAMESPACE
    return (about.service, f"{namespace}/{about.service}")


def actions(route: str, method: str) -> tuple[str, ...]:
    """Return the words by which an action is looked for."""
    return (route, route.rpartition(".")[2], method.casefold())


def _is_container(about: RecordSubject, wanted: str) -> bool:
    if wanted in {about.name, about.becomes}:
        return True
    return len(wanted) >= ID_PREFIX_MIN and about.id.startswith(wanted)
