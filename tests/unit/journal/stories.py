"""Journals that dice make up, and how questions to them are answered without an index."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from controller.core.records.query import (
    EVERYTHING,
    ContainerLife,
    Filter,
    QueryResult,
    Reader,
    RecordContext,
    chronicle,
    may_read,
)
from controller.core.records.record import GENESIS, prepare, timestamp
from controller.journal.index.queries import last_at
from controller.journal.store.chain import FILE_MODE, FORMAT, binding
from controller.journal.store.segments import MARK_NAME, DurableMark, name_of
from controller.model.records import RESTRICTED, Entry, Record, Role, ViewerScope
from tests.unit.core.happened import search
from tests.unit.journal.builders import NOON, uuid7

IDS = tuple(f"{digit}{'0' * 62}{digit}" for digit in "abcd")
NAMES = ("web.1-aaaaaaaa", "web.2-aaaaaaaa", "tool", "ab")
SERVICES = ("web", "db")
NAMESPACES = ("", "default", "shop")
OWNERS = ("team-a", "team-b")
MADE = "container.create"
CHANGES = (
    *("container.start", "container.stop", "container.remove", "container.rename"),
    *("container.update", "network.connect", "exec.create", "image.pull"),
)
ACTORS: tuple[dict[str, object], ...] = (
    {"uid": 990, "role": "controller"},
    {"uid": 0, "role": "operator"},
    {"uid": 1001, "role": "client"},
    {"uid": 1002, "role": "client"},
    {"role": "broker"},
)
VERDICTS: tuple[dict[str, object], ...] = (
    {},
    {"decision": "allow"},
    {"decision": "mutate"},
    {"decision": "deny"},
)
READERS = (
    EVERYTHING,
    Reader(Role.CONTROLLER),
    Reader(Role.CLIENT, 1001, "team-a"),
    Reader(Role.CLIENT, 1002, "team-b"),
    Reader(Role.CLIENT, 1001, ""),
    Reader(Role.VIEWER, 1001, "", ViewerScope(frozenset({"team-a", "team-b"}))),
    Reader(Role.VIEWER, 1004, "", ViewerScope(None)),
)


@dataclass(frozen=True)
class Step:
    """One thing that happens: what is asked, whether it comes to an end at once, and when."""

    kind: str  # create, change, close, single
    id: str
    name: str
    place: tuple[str, str, str]  # namespace, service, owner
    told: bool  # whether the record itself tells whose the object is
    route: str
    actor: dict[str, object]
    verdict: dict[str, object]
    status: int
    stage: str
    pause_s: float


def make_up(dice: random.Random) -> tuple[tuple[float, Entry], ...]:
    """Return some entries, each with its time."""
    count = dice.choice((0, 3, 25, 40, 60))
    return tuple(entries([step_of(dice) for _ in range(count)]))


def step_of(dice: random.Random) -> Step:
    return Step(
        kind=dice.choice(("create", "change", "change", "close", "close", "single")),
        id=dice.choice(IDS),
        name=dice.choice(NAMES),
        place=(dice.choice(NAMESPACES), dice.choice(SERVICES), dice.choice(OWNERS)),
        told=dice.random() < 0.5,
        route=dice.choice(CHANGES),
        actor=dice.choice(ACTORS),
        verdict=dice.choice(VERDICTS),
        status=dice.choice((204, 204, 304, 404, 500)),
        stage=dice.choice(("refusal", "read", "summary", "violation", "gone", "adopt")),
        pause_s=dice.choice((0.0, 0.001, 1.0, 1.0, 60.0, 60.0, -3600.0, 5000.0)),
    )


def entries(happened: Sequence[Step]) -> Iterator[tuple[float, Entry]]:
    """Yield what is recorded of steps, and when: creates and changes stay open until one closes."""
    now = NOON
    pending: deque[tuple[str, Step]] = deque()
    for number, step in enumerate(happened):
        now += step.pause_s
        identity = uuid7(number + 1)
        if step.kind == "close":
            if pending:
                yield now, closing(*pending.popleft(), step)
        elif step.kind == "single":
            yield now, single(identity, step)
        else:
            pending.append((identity, step))
            yield now, intent(identity, step)


def intent(identity: str, step: Step) -> Entry:
    create = step.kind == "create"
    return Entry(
        identity,
        "intent",
        actor=step.actor,
        request={
            "method": "POST",
            "route": MADE if create else step.route,
            "object": step.name if create else step.id,
            "summary": {**whose(step, labelled=create), "name": step.name},
        },
        verdict=step.verdict,
    )


def whose(step: Step, *, labelled: bool) -> dict[str, object]:
    namespace, service, owner = step.place
    told = {"namespace": namespace, "service": service, "owner": owner}
    if labelled:
        return {"labels": {f"io.trimtab.{name}": value for name, value in told.items()}}
    return dict(told) if step.told else {}


def closing(identity: str, opened: Step, step: Step) -> Entry:
    result: dict[str, object] = {"status": 201 if opened.kind == "create" else step.status}
    if step.told and opened.kind != "create":
        result = {"settled": "applied" if step.status == 204 else "unknown"}
    if opened.kind == "create":
        result["container"] = opened.id
    stage = "recovered" if "settled" in result else "outcome"
    return Entry(identity, stage, actor=opened.actor, result=result)  # type: ignore[arg-type]


def single(identity: str, step: Step) -> Entry:
    request: dict[str, object]
    if step.stage == "adopt":
        told = {
            "act": "adopt",
            "kind": "container",
            "name": step.name,
            **whose(step, labelled=True),
        }
        request = {"route": "instance.adopt", "object": step.id, "summary": told}
        return Entry(identity, "operator", actor={"uid": 0, "role": "operator"}, request=request)
    if step.stage == "gone":
        request = {"route": "container.gone", "object": step.id}
        return Entry(identity, "read", actor={"role": "broker"}, request=request)
    request = {
        "method": "GET",
        "route": "container.logs" if step.stage == "read" else MADE,
        "object": step.id if step.told else step.name,
        "summary": whose(step, labelled=False),
    }
    return Entry(
        identity,
        step.stage,  # type: ignore[arg-type]
        actor=step.actor,
        request=request,
        verdict=step.verdict,
    )


def write_entries(
    folder: Path, told: Iterable[tuple[float, Entry]], *, of_a_segment: int = 7
) -> tuple[Record, ...]:
    """Write a journal with segments of so many records each, quickly: nothing is synced."""
    folder.mkdir(mode=0o700, parents=True)
    records: list[Record] = []
    first = 0
    lines: list[bytes] = []
    prev, clock = GENESIS, NOON

    def take(entry: Entry) -> None:
        nonlocal prev
        record, line = prepare(entry).seal(seq=len(records) + 1, time=timestamp(clock), prev=prev)
        prev = record.hash
        records.append(record)
        lines.append(line + b"\n")

    for number, (now, entry) in enumerate(told):
        clock = now
        if number % of_a_segment == 0:
            before = binding(segment=first, seq=len(records), digest=prev)
            if first:
                (folder / name_of(first)).write_bytes(b"".join(lines))
                lines.clear()
            first = len(records) + 1
            opening: dict[str, object] = {"format": FORMAT, "previous": before}
            take(Entry(uuid7(100_000 + number), "segment", actor=BROKER, result=opening))
        take(entry)
    if first:
        (folder / name_of(first)).write_bytes(b"".join(lines))
        (folder / MARK_NAME).write_bytes(DurableMark(len(records), prev).to_bytes())
    for path in folder.iterdir():
        path.chmod(FILE_MODE)
    return tuple(records)


BROKER: dict[str, object] = {"role": "broker"}


@dataclass(frozen=True)
class Naive:
    """Answers by reading everything, each time."""

    records: Sequence[Record]

    def find(
        self,
        wanted: Filter,
        *,
        reader: Reader = EVERYTHING,
        limit: int = 0,
        last: bool = True,
    ) -> list[QueryResult]:
        found = [each for each in search(self.records, wanted) if may_read(reader, *each)]
        if not limit:
            return found
        return found[-limit:] if last else found[:limit]

    def last_at(self, at: str) -> int:
        return last_at((each.seq, 1 if each.time <= at else -1) for each in self.records)

    def there(self, at: str, reader: Reader = EVERYTHING) -> list[int]:
        """Return the seqs that tell what was there, container after container."""
        lives: dict[str, ContainerLife] = {}
        memory = RecordContext(lives=lives)
        for record in self.records:
            memory.learn(record)
        seq = self.last_at(at)
        found: list[int] = []
        for life in sorted(lives.values(), key=lambda life: life.since):
            there = life.since <= seq and (not life.gone or life.gone > seq)
            hidden = reader.role in RESTRICTED and not reader.is_of(life.about.owner)
            if there and not hidden:
                told = chronicle(partial(self.find, reader=reader), life.about.id, upto=seq)
                found += [each.record.seq for each in told]
        return found
