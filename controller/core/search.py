"""Which records answer a question: by time, service, owner, actor, verdict, stage, action, object.

One pass over the records in their order. What a later record is about (a start names an id only, a
closing record nothing) is learned from the ones before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from controller.core.record import CLOSING
from controller.model import names
from controller.model.entries import Record

#: Containers that are remembered, the last ones; older ones are known by their id alone.
_CONTAINERS_MAX: Final = 100_000
#: A shorter id isn't looked for by its beginning.
_ID_PREFIX_MIN: Final = 4


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; an empty field wants all. Times are as records have them (RFC 3339, UTC).

    ``service`` is NAME or NAMESPACE/NAME; ``actor`` a role or a uid; ``action`` a route such as
    ``container.create``, its last part, or a method; ``container`` a name or the start of an id.
    """

    since: str = ""
    until: str = ""
    service: str = ""
    owner: str = ""
    actor: str = ""
    verdict: str = ""
    stage: str = ""
    action: str = ""
    container: str = ""

    @property
    def empty(self) -> bool:
        """Tell whether every record is wanted."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class About:
    """What a record is about, as far as it and those before it tell."""

    namespace: str = ""
    service: str = ""
    owner: str = ""
    name: str = ""
    id: str = ""
    action: str = ""
    method: str = ""


@dataclass(slots=True)
class Memory:
    """What the records so far have told: of open intents, and of containers by id."""

    intents: dict[str, About] = field(default_factory=dict)
    containers: OrderedDict[str, About] = field(default_factory=OrderedDict)

    def learn(self, record: Record) -> About:
        """Return what *record* is about, and remember it for the ones after it."""
        entry = record.entry
        if entry.stage in CLOSING:
            about = self.intents.pop(entry.id, About())
            if identifier := text(entry.result, "container"):
                about = replace(about, id=identifier)
                if about.action == "container.create":
                    self._remember(about)
            return about
        about = self._of_request(entry.request)
        if entry.stage == "intent":
            self.intents[entry.id] = about
        return about

    def _of_request(self, request: Mapping[str, Any]) -> About:
        summary = request.get("summary")
        summary = summary if isinstance(summary, Mapping) else {}
        labels = summary.get("labels")
        labels = labels if isinstance(labels, Mapping) else {}
        thing = text(request, "object")
        known = self.containers.get(thing, About())
        return About(
            namespace=text(labels, names.NAMESPACE) or known.namespace,
            service=text(labels, names.SERVICE) or known.service,
            owner=text(labels, names.OWNER) or known.owner,
            name=known.name or text(summary, "name") or thing,
            id=known.id or thing,
            action=text(request, "route"),
            method=text(request, "method"),
        )

    def _remember(self, about: About) -> None:
        self.containers[about.id] = about
        if len(self.containers) > _CONTAINERS_MAX:
            self.containers.popitem(last=False)


def text(members: Mapping[str, Any], name: str) -> str:
    """Return a member that should be text, or ''."""
    value = members.get(name, "")
    return value if isinstance(value, str) else ""


class Found(NamedTuple):
    """A record that was wanted, and what it is about."""

    record: Record
    about: About


def search(records: Iterable[Record], wanted: Filter) -> Iterator[Found]:
    """Yield the records that are wanted, in their order. Give it all from the journal's start."""
    memory = Memory()
    for record in records:
        about = memory.learn(record)
        if fits(record, about, wanted):
            yield Found(record, about)


def fits(record: Record, about: About, wanted: Filter) -> bool:
    """Tell whether one record is wanted."""
    entry = record.entry
    return (
        (not wanted.since or record.time >= wanted.since)
        and (not wanted.until or record.time <= wanted.until)
        and (not wanted.stage or entry.stage == wanted.stage)
        and (not wanted.verdict or text(entry.verdict, "decision") == wanted.verdict)
        and (not wanted.actor or wanted.actor in _actors(entry.actor))
        and (not wanted.service or wanted.service in _services(about))
        and (not wanted.owner or wanted.owner in (about.owner, text(entry.actor, "owner")))
        and (not wanted.action or wanted.action.casefold() in _actions(about))
        and (not wanted.container or _is_container(about, wanted.container))
    )


def _actors(actor: Mapping[str, Any]) -> tuple[str, ...]:
    return (text(actor, "role"), str(actor.get("uid", "")))


def _services(about: About) -> tuple[str, ...]:
    if not about.service:
        return ()
    namespace = about.namespace or names.DEFAULT_NAMESPACE
    return (about.service, f"{namespace}/{about.service}")


def _actions(about: About) -> tuple[str, ...]:
    return (about.action, about.action.rpartition(".")[2], about.method.casefold())


def _is_container(about: About, wanted: str) -> bool:
    if about.name == wanted:
        return True
    return len(wanted) >= _ID_PREFIX_MIN and about.id.startswith(wanted)
