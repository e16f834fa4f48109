"""The visible records of the journal for each reader, and the parts left out.

- Operators see everything.
- The controller sees its own requests and every change of our objects, including adoptions. Reads
  and refusals of others are hidden.
- A client sees the records of its owner's objects, and its own refusals. Of other actors the client
  sees the role, never a person.

Keyed hashes are for operators alone. All hashes use the same key, so a reader could have a guess
recorded and compare the hashes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from controller.core.records.parts import ActorPart, RequestPart
from controller.core.records.query import QueryResult, RecordSubject
from controller.core.records.record import record_members
from controller.model.mutations import ADOPT
from controller.model.records import Record, Role

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
    """The reader of the journal: a role and, for a client, its uid and owner."""

    role: Role = Role.OPERATOR
    uid: int = -1
    owner: str = ""


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
        case Role.CLIENT:
            own = (actor.role, actor.uid) == (Role.CLIENT, reader.uid)
            of_owner = reader.owner != "" and about.owner == reader.owner
            of_owners = entry.stage in OF_OWNERS or _adopts(record, about)
            return (own and entry.stage in ASKED) or (of_owner and of_owners)


def _adopts(record: Record, about: RecordSubject) -> bool:
    """Return True if a record stands for the create of an adopted object."""
    return record.entry.stage == "operator" and about.action == ADOPT


def redact_record(record: Record, reader: Reader) -> dict[str, Any]:
    """Return the visible members of a record for a reader other than an operator.

    The hash chain is left out: hashing guesses would reveal the missing members. The controller
    sees the whole rest, and so does a client for its own requests. For requests of others a client
    sees only the actor's role, and not the person in ``onBehalfOf``.
    """
    entry = record.entry
    asker = ActorPart.read(entry.actor)
    own = (asker.role, asker.uid) == (Role.CLIENT, reader.uid)
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

    For a refused request a client gets the object as it named the object, without the owner.
    """
    record, about = result
    if reader.role is not Role.CLIENT or (reader.owner and about.owner == reader.owner):
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
