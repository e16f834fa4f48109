"""Questions to the journal that need several queries, and the pages of an answer.

Any source with queries by filter can answer them: the index, or a command through the broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, Protocol

from controller.core.records.parts import is_applied
from controller.core.records.query import (
    Filter,
    QueryResult,
    RecordSubject,
    is_adoption,
    is_full_id,
)
from controller.core.records.record import CLOSING
from controller.core.records.visibility import CHANGES, EVERYTHING, Reader
from controller.model import mutations
from controller.model.mutations import Mutation

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
    """A query with its reader and its page size."""

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
