"""Who may read which records of the journal, and how they are told.

Operators read all of it. The controller reads what it asked for, and every change of what is ours,
adoptions among them: not who read what, or was refused. A client reads of what belongs to its owner, and what it was
refused itself; who else asked is a role to it, never a person. Keyed hashes are for operators
alone: one key makes them all, so whoever may have a guess recorded could compare.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.records.query import QueryResult, RecordSubject
from controller.model.mutations import ADOPT
from controller.model.records import Record, Role

#: Changes of what is ours, and what was found of them.
CHANGES: Final = frozenset({"intent", "outcome", "recovered", "violation"})
#: What is told of those who ask, beside changes.
ASKED: Final = frozenset({"refusal", "read", "summary"})
#: Members of a request that prove equality of what isn't told.
PROOFS: Final = frozenset({"digest", "secrets"})
#: What an owner may know of its objects. A refusal tells of whoever was refused.
OF_OWNERS: Final = CHANGES | {"read"}


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a role, and of a client its uid and owner."""

    role: Role = Role.OPERATOR
    uid: int = -1
    owner: str = ""


EVERYTHING: Final = Reader()


def may_read(reader: Reader, record: Record, about: RecordSubject) -> bool:
    """Tell whether a record is one of those that this reader may know."""
    entry = record.entry
    match reader.role:
        case Role.OPERATOR | Role.BROKER:
            return True
        case Role.CONTROLLER:
            changes = entry.stage in CHANGES or _adopts(record, about)
            return changes or entry.actor.get("role") == Role.CONTROLLER
        case Role.CLIENT:
            own = (entry.actor.get("role"), entry.actor.get("uid")) == (Role.CLIENT, reader.uid)
            of_owner = reader.owner != "" and about.owner == reader.owner
            of_owners = entry.stage in OF_OWNERS or _adopts(record, about)
            return (own and entry.stage in ASKED) or (of_owner and of_owners)


def _adopts(record: Record, about: RecordSubject) -> bool:
    """Tell whether a record stands for the create of what was adopted."""
    return record.entry.stage == "operator" and about.action == ADOPT


def told(record: Record, reader: Reader) -> dict[str, Any]:
    """Return a record as one reads it who is no operator.

    It is without the chain, since what one isn't told must not be found by hashing. The controller,
    and a client of its own requests, is told the rest whole; a client of others only the role, and
    no person that they name.
    """
    entry = record.entry
    own = entry.actor.get("uid") == reader.uid and entry.actor.get("role") == Role.CLIENT
    persons = reader.role is Role.CONTROLLER
    actor = entry.actor if own or persons else {"role": entry.actor.get("role", "")}
    parts = {
        "actor": actor,
        "request": _without(PROOFS, entry.request),
        "verdict": entry.verdict,
        "claims": entry.claims if persons else _without({"onBehalfOf"}, entry.claims),
        "result": entry.result,
    }
    return {
        "seq": record.seq,
        "id": entry.id,
        "time": record.time,
        "stage": entry.stage,
        **{name: part for name, part in parts.items() if part},
    }


def _without(names: Collection[str], part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def about_told(found: QueryResult, reader: Reader) -> RecordSubject:
    """Return what a record is about as this reader may know it.

    What a client was refused is told in its own words: nothing of whose the object is.
    """
    record, about = found
    if reader.role is not Role.CLIENT or (reader.owner and about.owner == reader.owner):
        return about
    thing = str(record.entry.request.get("object", ""))
    return RecordSubject(name=thing, action=about.action, method=about.method)


def about_json(about: RecordSubject) -> dict[str, str]:
    """Return what a record is about as answers have it."""
    return {
        "namespace": about.namespace,
        "service": about.service,
        "owner": about.owner,
        "name": about.name,
        "id": about.id,
        "action": about.action,
        "method": about.method,
        "becomes": about.becomes,
    }


def about_from(told: Mapping[str, Any]) -> RecordSubject:
    """Return what ``about_json`` wrote."""
    return RecordSubject(**{name: str(told.get(name, "")) for name in about_json(RecordSubject())})
