"""Questions to the journal that need more than one look, and what a page of an answer is.

Whoever can find records by a filter can answer them: the index, and a command that asks the broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, Protocol

from controller.core.records.inventory import applied
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

#: What makes a container what it is, after its create, and how many of the last are told; one more
#: says that there are more.
SHAPING: Final = frozenset(
    {
        Mutation.CONTAINER_UPDATE,
        Mutation.CONTAINER_RENAME,
        Mutation.NETWORK_CONNECT,
        Mutation.NETWORK_DISCONNECT,
    }
)
SHAPING_MAX: Final = 200
#: What makes it run or not, and what ends it.
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
#: An adoption is one record, of an operator's act.
_ADOPT: Final = frozenset({mutations.ADOPT})
_ACT: Final = frozenset({"operator"})


@dataclass(frozen=True, slots=True)
class Question:
    """Which records are wanted, by whom, and how many at once: the ``last`` ones, or the first.

    ``there`` is a time: then of each container that was there at it, one after the other, the
    records up to it that tell what it was (``chronicle``). ``wanted.after`` is then the seq since
    which the last container of the page before was known.
    """

    wanted: Filter = field(default_factory=Filter)
    reader: Reader = EVERYTHING
    limit: int = 0
    last: bool = True
    there: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order. ``following`` is where to go on after a limit was reached, 0 at the end."""

    found: tuple[QueryResult, ...] = ()
    following: int = 0


class RecordFinder(Protocol):
    """Yields the records that are wanted, in order; with a limit the last so many, or the first."""

    def __call__(
        self, wanted: Filter, *, limit: int = 0, last: bool = True
    ) -> Iterable[QueryResult]: ...


def chronicle(find: RecordFinder, identifier: str, *, upto: int = 0) -> list[QueryResult]:
    """Return the records that tell what a container is: its create or adoption, its last changes."""
    wanted = Filter(ids=frozenset({identifier}), stages=CHANGES, upto=upto)
    shaped = find(replace(wanted, routes=SHAPING), limit=SHAPING_MAX + 1)
    ran = find(replace(wanted, routes=RUNNING), limit=RUNNING_MAX)
    gone = find(Filter(ids=wanted.ids, routes=_GONE, upto=upto), limit=1)
    seen = {each.record.seq: each for each in (*_made(find, wanted), *shaped, *ran, *gone)}
    return [seen[seq] for seq in sorted(seen)]


def chronicles(page: Page) -> Iterator[list[QueryResult]]:
    """Yield what an answer to ``there`` tells of each container."""
    ids = {each.record.entry.id: each.about.id for each in page.found if is_full_id(each.about.id)}
    for _, found in groupby(page.found, key=lambda each: ids.get(each.record.entry.id, "")):
        yield list(found)


#: How many containers of one name are looked at, the last ones.
_NAMESAKES: Final = 20
_RECORDS: Final = 200
_NAMING: Final = _ADOPT | {Mutation.CONTAINER_CREATE, Mutation.CONTAINER_RENAME}


def containers(find: RecordFinder, wanted: str) -> list[RecordSubject]:
    """Return the containers that a name, or the start of an id, means: the last one at the end.

    Those that are called so, the last to get the name at the end; if none is, those that once were.
    """
    named = Filter(container=wanted, routes=_NAMING, stages=CLOSING | _ACT)
    known: dict[str, RecordSubject] = {}
    for found in find(named, limit=2 * _NAMESAKES):
        if _names_one(found):
            about = replace(found.about, name=found.about.becomes or found.about.name)
            known.pop(about.id, None)  # the last one to get the name is the last
            known[about.id] = about
    if not known:  # its create is beyond what is kept
        for found in find(Filter(container=wanted, stages=CHANGES), limit=_RECORDS):
            # A rename that took effect would have been found above.
            if is_full_id(found.about.id) and found.about.becomes != wanted:
                known[found.about.id] = found.about
    called = [about for about in known.values() if about.name == wanted]
    return called or [*known.values()]


def _names_one(found: QueryResult) -> bool:
    """Tell whether a record says how a container is called from then on."""
    record, about = found
    if record.entry.stage in CLOSING:
        return applied(record) and is_full_id(about.id)
    return is_adoption(record, about)  # or a network with an id of the same form was adopted


def _made(find: RecordFinder, wanted: Filter) -> Iterator[QueryResult]:
    """Yield an adoption, and a create with what closed it: only the latter knows the container's id."""
    yield from find(replace(wanted, routes=_ADOPT, stages=_ACT), limit=1)
    create = frozenset({Mutation.CONTAINER_CREATE})
    for closing in find(replace(wanted, routes=create), limit=1):
        yield from find(Filter(record=closing.record.entry.id, stages=CHANGES, upto=wanted.upto))


@dataclass(frozen=True, slots=True)
class RecordStory:
    """One record, or an intent with what closed it; and what came before and after to the same."""

    found: tuple[QueryResult, ...]
    before: tuple[QueryResult, ...] = ()
    after: tuple[QueryResult, ...] = ()


#: What a story shows of what came before and after it to the same object, and how much.
_BEGINNINGS: Final = frozenset({"intent", "violation"})
NEIGHBOURS: Final = 2


def story(find: RecordFinder, identity: str) -> RecordStory | None:
    """Return what is recorded under an id, which may be given as the seq of a record."""
    if identity.isascii() and identity.isdigit():
        seq = int(identity[:16])
        told = [*find(Filter(after=seq - 1, upto=seq), limit=1)] if seq else []
        if not told:
            return None
        identity = told[0].record.entry.id
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
