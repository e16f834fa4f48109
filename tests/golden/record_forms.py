"""Golden records: a line of every form that the broker has written, and how it is read today.

A journal outlives the version that wrote it, so a reader must go on reading every form.
``records/gate.jsonl`` holds records of requests, for every stage, route and set of members: lines of
simulated worlds and of the gate's unit tests, sealed again as one chain, with uids that no machine
has. ``records/journal`` is a journal as the writer left it: signed, with a torn tail that was
repaired, an outage, a second key, compressed segments and a pruned one; ``records/journal.pub``
lists its keys.

The lines are never changed, and never removed: a new form is appended to ``gate.jsonl``. What is
read of them is in ``gate.txt`` and ``journal.txt``, a block for each record:

- ``row``: the cells of ``trimtab journal list``;
- ``subject``: the object of the record, as queries find it;
- ``readers``: the roles, besides operators, that are allowed to read the record;
- ``+`` and ``-``: members of the inventory that the record sets and removes.

A last block for each container has the facts that ``trimtab journal explain`` prints.
``python -m tests.golden.record_forms`` writes both texts: read the difference before you keep it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from controller.cli.journal.table import row
from controller.core.records.inventory import fold
from controller.core.records.provenance import Fact, Provenance, provenance
from controller.core.records.query import (
    QueryResult,
    Reader,
    RecordContext,
    RecordSubject,
    chronicle,
    may_read,
    subject_to_json,
)
from controller.core.records.record import parse
from controller.journal.store.chain import ChainWalk, read_inventory
from controller.model.inventory import Inventory
from controller.model.records import Record, Role
from tests.unit.core.happened import found_in

FOLDER = Path(__file__).parent / "records"
JOURNAL = FOLDER / "journal"


def gate_records() -> list[Record]:
    """The records of requests."""
    return [parse(line) for line in (FOLDER / "gate.jsonl").read_bytes().splitlines()]


def journal_records() -> list[Record]:
    """The records of the signed journal, each checked to continue the one before it."""
    return list(ChainWalk(JOURNAL))


@cache
def texts() -> dict[str, str]:
    """What is read of the records today, by the name of the file that holds it."""
    return {
        "gate.txt": text_of(gate_records(), Inventory()),
        "journal.txt": text_of(journal_records(), read_inventory(JOURNAL)),
    }


def text_of(records: list[Record], inventory: Inventory) -> str:
    """A block for each record, then one for each container."""
    context = RecordContext()
    blocks: list[list[str]] = []
    containers: dict[str, None] = {}
    members = _members(inventory)
    for record in records:
        found = QueryResult(record, context.learn(record))
        inventory = fold(inventory, record) if record.seq > inventory.seq else inventory
        before, members = members, _members(inventory)
        blocks.append([*_head(found), *_difference(before, members)])
        containers |= dict.fromkeys(inventory.containers)
    find = partial(found_in, records)
    known = (provenance(chronicle(find, identifier)) for identifier in containers)
    blocks += [[*_facts(each)] for each in known if each is not None]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _head(found: QueryResult) -> Iterator[str]:
    record, about = found
    yield f"record {record.seq}: {record.entry.stage} {about.action}".rstrip()
    yield f"  row: {' | '.join(row(found)[1:])}"
    yield f"  subject: {_subject(about)}"
    yield f"  readers: {', '.join(_readers(found)) or 'operators only'}"


def _subject(about: RecordSubject) -> str:
    members = {name: value for name, value in subject_to_json(about).items() if value}
    return ", ".join(f"{name} {value}" for name, value in members.items()) or "-"


def _readers(found: QueryResult) -> Iterator[str]:
    uid = found.record.entry.actor.get("uid")
    asker = uid if isinstance(uid, int) else -1
    readers = {
        "controller": Reader(Role.CONTROLLER),
        "the client who asked": Reader(Role.CLIENT, uid=asker),
        "clients of the owner": Reader(Role.CLIENT, uid=-1, owner=found.about.owner or "nobody"),
    }
    yield from (name for name, reader in readers.items() if may_read(reader, *found))


def _difference(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    removed = [path for path in old if path not in new]
    # An item that is gone is one line, not one for each of its members.
    items = dict.fromkeys(path.partition("]")[0] + "]" if "]" in path else path for path in removed)
    there = {path.partition("]")[0] + "]" for path in new}
    for item in items:
        if item in there:
            yield from (f"  - {path}" for path in removed if path.startswith(item))
        else:
            yield f"  - {item}"
    yield from (f"  + {path} = {value}" for path, value in new.items() if old.get(path) != value)


def _members(inventory: Inventory) -> dict[str, str]:
    """The members that say something; of an open intent only who asks, the rest is its record."""

    def items(name: str) -> list[dict[str, Any]]:
        return [*map(asdict, getattr(inventory, name).values())]

    whole: dict[str, Any] = {
        "containers": items("containers"),
        "pins": {
            each: f"{pin.id} {pin.digest} {pin.repository}{' by policy' if pin.by_policy else ''}"
            for each, pin in inventory.pins.items()
        },
        "open": {each: f"{intent.role} {intent.uid}" for each, intent in inventory.open.items()},
        **{name: items(name) for name in ("networks", "volumes", "ledger", "sessions", "replicas")},
        **{
            name: items(name)
            for name in ("released", "taken", "approvals", "endings", "holds", "accepted")
        },
        "takenDown": inventory.taken_down,
        "restored": inventory.restored,
        "restoredFrom": inventory.restored_from,
        "files": [
            {**asdict(stored.files), "contents": [*map(asdict, stored.contents)]}
            for stored in inventory.files.values()
        ],
        "jobs": [{"key": str(key), **asdict(jobs)} for key, jobs in inventory.jobs.items()],
        "takenOver": sorted(inventory.taken_over),
        "addresses": [
            {"network": network, "slots": [[*pair] for pair in slots.items()]}
            for network, slots in inventory.addresses.items()
        ],
        "signed": [
            {"key": key, "revisions": [*map(asdict, revisions)]}
            for key, revisions in inventory.signed.items()
        ],
    }
    return dict(_flat(whole))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each member below a value with its path; items of lists by the id that they have."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _flat(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for item in value:
            yield from _flat(item, f"{path}[{_name_of(item)}]")
    elif value:
        yield path, repr(list(value) if isinstance(value, tuple) else value)


def _name_of(item: dict[str, Any]) -> str:
    names = ("id", "container", "target")
    return next((str(item[name])[:40] for name in names if item.get(name)), "")


def _facts(known: Provenance) -> Iterable[str]:
    yield f"container {known.about.id}: {known.about.name}"
    since = known.since.record.seq if known.since is not None else "-"
    yield f"  state: {known.state} since {since} {known.note}".rstrip()
    yield f"  slot: {known.slot or '-'}"
    yield from (f"  {_fact(fact)}" for fact in known.facts)


def _fact(fact: Fact) -> str:
    rule = f", rule {fact.rule}" if fact.rule else ""
    line = f", line {fact.line}" if fact.line else ""
    return f"{fact.name}: {fact.value} (record {fact.origin.record.seq}{rule}{line})"


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, "utf-8")
