"""Queries of the journal, questions that need several of them, and what each reader may see.

Queries: the records that match a filter, by time, service, owner, actor, verdict or object.

One pass over the records in their order. Some records need earlier ones to know their subject: a
start names only an id, a closing record nothing. The index (``journal.index.database``) stores the
result of the same pass, and must answer exactly as ``fits`` does.

Any source with queries by filter can answer them: the index, or a command through the broker.

The visible records of the journal for each reader, and the parts left out.

- Operators see everything.
- The controller sees its own requests and every change of our objects, including adoptions. Reads
  and refusals of others are hidden.
- A client sees the records of its owner's objects, and its own refusals. Of other actors the client
  sees the role, never a person.

Keyed hashes are for operators alone. All hashes use the same key, so a reader could have a guess
recorded and compare the hashes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol

from controller.core.records import parts
from controller.core.records.parts import ActorPart, RequestPart, is_applied
from controller.core.records.record import CLOSING, record_members
from controller.model import mutations, names
from controller.model.mutations import ADOPT, Mutation
from controller.model.records import NO_SCOPE, RESTRICTED, Record, Role, ViewerScope

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


#: Stages of changes of our objects.
CHANGES: Final = frozenset({"intent", "outcome", "recovered", "violation"})
#: Stages of records about an actor's requests that change nothing.
ASKED: Final = frozenset({"refusal", "read", "summary"})
#: Members of a request that prove the equality of secret values.
PROOFS: Final = frozenset({"digest", "secrets"})
#: Stages of an object's records that its owner sees. A refusal concerns the refused actor instead.
OF_OWNERS: Final = CHANGES | {"read"}


@dataclass(frozen=True, slots=True)
class Reader:
    """The reader of the journal: a role and, for a client or viewer, its uid and owners."""

    role: Role = Role.OPERATOR
    uid: int = -1
    owner: str = ""
    scope: ViewerScope = NO_SCOPE

    @property
    def owners(self) -> frozenset[str] | None:
        """The owners whose records a client or a viewer reads; None for those of everybody."""
        if self.role is Role.VIEWER:
            return self.scope.owners
        return frozenset({self.owner} - {""})

    def is_of(self, owner: str) -> bool:
        """Return True if a client or a viewer reads the records of an owner's objects."""
        return self.owners is None or owner in self.owners


EVERYTHING: Final = Reader()


def may_read(reader: Reader, record: Record, about: RecordSubject) -> bool:
    """Return True if the reader may see the record."""
    entry, actor = record.entry, ActorPart.read(record.entry.actor)
    match reader.role:
        case Role.OPERATOR | Role.BROKER:
            return True
        case Role.CONTROLLER:
            changes = entry.stage in CHANGES or _adopts(record, about)
            return changes or actor.role == Role.CONTROLLER
        case Role.CLIENT | Role.VIEWER:
            own = (actor.role, actor.uid) == (reader.role, reader.uid)
            of_owners = entry.stage in OF_OWNERS or _adopts(record, about)
            return (own and entry.stage in ASKED) or (of_owners and reader.is_of(about.owner))


def _adopts(record: Record, about: RecordSubject) -> bool:
    """Return True if a record stands for the create of an adopted object."""
    return record.entry.stage == "operator" and about.action == ADOPT


def redact_record(record: Record, reader: Reader) -> dict[str, Any]:
    """Return the visible members of a record for a reader other than an operator.

    The hash chain is left out: hashing guesses would reveal the missing members. The controller
    sees the whole rest, and so does a client for its own requests. For requests of others clients and viewers
    see only the actor's role, and not the person in ``onBehalfOf``.
    """
    entry = record.entry
    asker = ActorPart.read(entry.actor)
    own = (asker.role, asker.uid) == (reader.role, reader.uid)
    persons = reader.role is Role.CONTROLLER
    actor = entry.actor if own or persons else ActorPart(role=asker.role).members
    redacted = replace(
        entry,
        actor=actor,
        request=_without(PROOFS, entry.request),
        claims=entry.claims if persons else _without({"onBehalfOf"}, entry.claims),
    )
    return record_members(replace(record, entry=redacted))


def _without(names: Collection[str], part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def redact_subject(result: QueryResult, reader: Reader) -> RecordSubject:
    """Return the visible part of a record's subject.

    For a refused request a client or viewer gets the object as it named the object, without the owner.
    """
    record, about = result
    if reader.role not in RESTRICTED or reader.is_of(about.owner):
        return about
    name = RequestPart.read(record.entry.request).object
    return RecordSubject(name=name, action=about.action, method=about.method)


def subject_to_json(about: RecordSubject) -> dict[str, str]:
    """Return a subject as JSON."""
    return asdict(about)


def subject_from_json(value: Mapping[str, Any]) -> RecordSubject:
    """Return the subject written by ``subject_to_json``."""
    members = subject_to_json(RecordSubject())
    return RecordSubject(**{name: str(value.get(name, "")) for name in members})


#: Routes that change a container's settings after its create.
SHAPING: Final = frozenset(
    {
        Mutation.CONTAINER_UPDATE,
        Mutation.CONTAINER_RENAME,
        Mutation.NETWORK_CONNECT,
        Mutation.NETWORK_DISCONNECT,
    }
)
#: How many of the last such changes are shown. ``chronicle`` returns one more if there are more.
SHAPING_MAX: Final = 200
#: Routes that start, stop or remove a container.
RUNNING: Final = frozenset(
    {
        Mutation.CONTAINER_START,
        Mutation.CONTAINER_STOP,
        Mutation.CONTAINER_RESTART,
        Mutation.CONTAINER_KILL,
        Mutation.CONTAINER_PAUSE,
        Mutation.CONTAINER_UNPAUSE,
        Mutation.CONTAINER_REMOVE,
    }
)
RUNNING_MAX: Final = 20
_GONE: Final = frozenset({mutations.CONTAINER_GONE})
#: An adoption is a single record of the stage ``operator``.
_ADOPT: Final = frozenset({mutations.ADOPT})
_ACT: Final = frozenset({"operator"})


@dataclass(frozen=True, slots=True)
class Question:
    """A query with a reader and a page size."""

    wanted: Filter = field(default_factory=Filter)
    reader: Reader = EVERYTHING
    limit: int = 0
    last: bool = True  # the last ``limit`` records, else the first ones
    #: A time. If given, the answer has, for each container that existed then, the records up to
    #: that time that describe the container (``chronicle``), container by container.
    #: ``wanted.after`` is then the ``since`` of the last container of the previous page.
    there: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order."""

    found: tuple[QueryResult, ...] = ()
    following: int = 0  # where the next page continues, 0 at the end


class RecordFinder(Protocol):
    """Yields the matching records in order; with a limit the last ones, or the first ones."""

    def __call__(
        self, wanted: Filter, *, limit: int = 0, last: bool = True
    ) -> Iterable[QueryResult]: ...


def chronicle(find: RecordFinder, identifier: str, *, upto: int = 0) -> list[QueryResult]:
    """Return the records that describe a container: its create or adoption, and last changes."""
    wanted = Filter(ids=frozenset({identifier}), stages=CHANGES, upto=upto)
    shaped = find(replace(wanted, routes=SHAPING), limit=SHAPING_MAX + 1)
    ran = find(replace(wanted, routes=RUNNING), limit=RUNNING_MAX)
    gone = find(Filter(ids=wanted.ids, routes=_GONE, upto=upto), limit=1)
    results = (*_creation(find, wanted), *shaped, *ran, *gone)
    by_seq = {result.record.seq: result for result in results}
    return [by_seq[seq] for seq in sorted(by_seq)]


def chronicles(page: Page) -> Iterator[list[QueryResult]]:
    """Yield the records of each container in an answer to ``there``."""
    ids = {each.record.entry.id: each.about.id for each in page.found if is_full_id(each.about.id)}
    for _, group in groupby(page.found, key=lambda each: ids.get(each.record.entry.id, "")):
        yield list(group)


#: How many containers of one name are considered, the last ones.
_NAMESAKES: Final = 20
_RECORDS: Final = 200
_CREATES: Final = frozenset({Mutation.CONTAINER_CREATE, Mutation.CONTAINER_ADOPT})
_NAMING: Final = _ADOPT | _CREATES | {Mutation.CONTAINER_RENAME}


def containers(find: RecordFinder, wanted: str) -> list[RecordSubject]:
    """Return the containers with a name, or with an id that starts with *wanted*, in order.

    Containers that have the name now come in the order in which they got the name. If there are
    none, the containers that once had the name.
    """
    named = Filter(container=wanted, routes=_NAMING, stages=CLOSING | _ACT)
    known: dict[str, RecordSubject] = {}
    for result in find(named, limit=2 * _NAMESAKES):
        if _gives_name(result):
            about = replace(result.about, name=result.about.becomes or result.about.name)
            known.pop(about.id, None)  # moves the container to the end
            known[about.id] = about
    if not known:  # the journal no longer has the create
        for result in find(Filter(container=wanted, stages=CHANGES), limit=_RECORDS):
            # The query above returns renames that took effect, so this one did not.
            if is_full_id(result.about.id) and result.about.becomes != wanted:
                known[result.about.id] = result.about
    current = [about for about in known.values() if about.name == wanted]
    return current or [*known.values()]


def _gives_name(result: QueryResult) -> bool:
    """Return True if a container has its name by this record."""
    record, about = result
    if record.entry.stage in CLOSING:
        return is_applied(record) and is_full_id(about.id)
    return is_adoption(record, about)  # not the adoption of a network, whose id has the same form


def _creation(find: RecordFinder, wanted: Filter) -> Iterator[QueryResult]:
    """Yield an adoption, and a create with its closing record, which has the container's id."""
    yield from find(replace(wanted, routes=_ADOPT, stages=_ACT), limit=1)
    for closing in find(replace(wanted, routes=_CREATES), limit=1):
        yield from find(Filter(record=closing.record.entry.id, stages=CHANGES, upto=wanted.upto))


@dataclass(frozen=True, slots=True)
class RecordStory:
    """A record, or an intent with its closing record, and its neighbours about the same object."""

    found: tuple[QueryResult, ...]
    before: tuple[QueryResult, ...] = ()
    after: tuple[QueryResult, ...] = ()


#: The stages of a story's neighbours, and how many on each side.
_BEGINNINGS: Final = frozenset({"intent", "violation"})
NEIGHBOURS: Final = 2


def story(find: RecordFinder, identity: str) -> RecordStory | None:
    """Return the records with an id; *identity* may also be the seq of one of them."""
    if identity.isascii() and identity.isdigit():
        seq = int(identity[:16])
        results = [*find(Filter(after=seq - 1, upto=seq), limit=1)] if seq else []
        if not results:
            return None
        identity = results[0].record.entry.id
    found = tuple(find(Filter(record=identity))) if identity else ()
    if not found:
        return None
    first, last = found[0].record.seq, found[-1].record.seq
    wanted = Filter(ids=frozenset({found[-1].about.id}), stages=_BEGINNINGS)
    if not found[-1].about.id:
        return RecordStory(found)
    return RecordStory(
        found,
        before=tuple(find(replace(wanted, upto=first - 1), limit=NEIGHBOURS)) if first > 1 else (),
        after=tuple(find(replace(wanted, after=last), limit=NEIGHBOURS, last=False)),
    )
