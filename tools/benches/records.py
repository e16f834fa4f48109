"""A journal as years of work leave it, written in seconds: every line as the broker writes it.

Services on one host are rolled, restarted and limited anew, people read logs and are refused, evenly
over a span of time. Each line is canonical, hashed and linked, and the segments continue each other,
so that all that reads journals takes it for one. The same arguments give the same bytes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.core.records.checkpoint import Checkpoint, checkpoint_entry, key_entry
from controller.core.records.inventory_json import settings_to_json
from controller.core.records.record import GENESIS, parse, prepare, timestamp
from controller.core.transparency import PrivateKey, Range, leaf_hash, sign_note
from controller.journal.store.chain import FILE_MODE, FOLDER_MODE, FORMAT, binding
from controller.journal.store.segments import (
    MARK_NAME,
    DurableMark,
    first_seq_of,
    list_segments,
    name_of,
    read_lines,
)
from controller.journal.writer.append_log import DEFAULT_LIMITS
from controller.model.observed import Settings
from controller.model.records import Entry, Stage

DAY_S: Final = 86_400.0
SEGMENT_BYTES: Final = DEFAULT_LIMITS.max_segment_bytes
BUFFER_BYTES: Final = 4 * 1024 * 1024
FIRST_MS: Final = 1_760_000_000_000
OWN_IDS: Final = 2**40
MEMORY: Final = 512 * 2**20
MEMORY_RAISED: Final = 768 * 2**20
POLICY: Final = hashlib.sha256(b"policy").hexdigest()
CONTROLLER: Final = {"uid": 990, "gid": 990, "pid": 812, "role": "controller", "separated": True}
OPERATOR: Final = {"uid": 0, "gid": 0, "pid": 40_112, "role": "operator", "separated": True}
CLIENT: Final = {"uid": 1001, "gid": 1001, "pid": 7001, "role": "client", "separated": True}

#: What differs between lines of one kind; the last is a number.
MARKS: Final = (
    ("id", "@id@"),
    ("intent", "@intent@"),
    ("name", "@name@"),
    ("service", "@service@"),
    ("owner", "@owner@"),
    ("container", "@container@"),
    ("revision", "@revision@"),
    ("slot", "@slot@"),
    ("commit", "@commit@"),
    ("plan", "@plan@"),
)
MILLISECONDS: Final = 987_654_321


@dataclass(frozen=True, slots=True)
class Shape:
    """The line of one kind of record: what is before its hash and after it, with places to fill."""

    head: bytes
    rest: bytes

    @classmethod
    def of(cls, stage: Stage, **parts: dict[str, object]) -> Shape:
        """Return the shape of an entry that has marks where lines differ."""
        prepared = prepare(Entry("00000000-0000-7000-8000-000000000000", stage, **parts))
        rest = b'"id":"@id@","prev":"%(prev)b",' + _places(prepared.middle)
        rest += b'"seq":%(seq)d,"stage":"' + stage.encode() + b'","time":"%(time)b"'
        return cls(
            b"{" + _places(prepared.before),
            rest.replace(b"@id@", b"%(id)b") + _places(prepared.after) + b"}\n",
        )


def _places(text: bytes) -> bytes:
    text = text.replace(b"%", b"%%").replace(str(MILLISECONDS).encode(), b"%(ms)d")
    for name, mark in MARKS:
        text = text.replace(mark.encode(), b"%(" + name.encode() + b")b")
    return text


Values = dict[bytes, bytes | int]


@dataclass(slots=True)
class Slot:
    """A numbered place of a service, and the container that fills it now."""

    service: str
    owner: str
    number: int
    values: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, as far as questions about it need it."""

    records: int
    bytes: int
    services: tuple[str, ...]
    containers: tuple[str, ...]  # names of those that are there at the end


def write_journal(
    folder: Path,
    count: int,
    *,
    end: float,
    span_s: float = 30 * DAY_S,
    services: int = 40,
    seed: int = 5,
    key: PrivateKey | None = None,
) -> Written:
    """Write a journal of *count* records or one more, ending at *end* (seconds since the epoch).

    With a *key* it is signed as the broker does: that adds a record to each thousand.
    """
    folder.mkdir(mode=FOLDER_MODE)
    world = World(services, random.Random(seed))  # noqa: S311 - nothing secret
    chain = Chain(folder, start=end - span_s, step=span_s / max(1, count - 1), key=key)
    for shape, values in world.happenings():
        chain.add(shape, values)
        if chain.seq >= count:  # a segment's own record may have come between
            break
    chain.close()
    return Written(chain.seq, chain.written, world.services, world.names())


def lengthen(folder: Path, size: int, *, key: PrivateKey, end: float) -> Written:
    """Add refusals, which change nothing, to a broker's journal at rest until it has *size* bytes more.

    *key* is the broker's own, and *end* the time of the last record (seconds since the epoch).
    """
    world = World(40, random.Random(5))  # noqa: S311 - nothing secret
    chain = Chain(folder, start=end, step=0, key=key)
    chain.resume()
    # Ids of UUIDv7 in order: those that come are newer than those that are there.
    world.begin_at(int(end * 1000) - FIRST_MS)
    for shape, values in world.refusals():
        chain.add(shape, values)
        if chain.written >= size:
            break
    chain.close()
    return Written(chain.seq, chain.written, world.services, ())


class Chain:
    """Lines into segments, each linked to the one before; the mark at the end."""

    def __init__(
        self, folder: Path, *, start: float, step: float, key: PrivateKey | None = None
    ) -> None:
        self.seq, self.written, self._number = 0, 0, 0
        self._key, self._tree, self._leaves = key, Range(), list[bytes]()
        self._folder, self._start, self._step = folder, start, step
        self._prev, self._first, self._size = GENESIS, 0, 0
        self._buffer = bytearray()
        self._path: Path | None = None

    def resume(self) -> None:
        """Go on after the records that are there, in a new segment."""
        for segment in list_segments(self._folder):
            self._path, self._first = segment, first_seq_of(segment)
            for line in read_lines(segment):
                record = parse(line.data)
                self.seq, self._prev = record.seq, record.hash
                self._leaves.append(leaf_hash(line.data))
        self._size = SEGMENT_BYTES + 1

    def add(self, shape: Shape, values: Values) -> None:
        """Write one record, and before it a segment's own where one begins."""
        if self._path is None or self._size > SEGMENT_BYTES:
            self._open()
        # Ids are in order, as the broker's are: its own come with those of the changes around.
        self._number = int(_text(values[b"id"])[-12:], 16)
        values[b"seq"] = self.seq + 1
        values[b"prev"] = self._prev.encode()
        values[b"time"] = timestamp(self._start + self.seq * self._step).encode()
        head, rest = shape.head % values, shape.rest % values
        own = hashlib.sha256(head + rest[:-1]).hexdigest()
        self._take(head + b'"hash":"' + own.encode() + b'",' + rest, own)

    def _open(self) -> None:
        if self.seq and self._key is not None:
            self._sign(self._key)
        self._flush()
        previous = binding(segment=self._first, seq=self.seq, digest=self._prev)
        self._first, self._size = self.seq + 1, 0
        self._path = self._folder / name_of(self._first)
        self._path.touch(FILE_MODE)
        result: dict[str, object] = {"format": FORMAT, "previous": previous}
        entry = Entry(self._identity(), "segment", actor={"role": "broker"}, result=result)
        self._seal(entry)
        if self._first == 1 and self._key is not None:
            self._seal(key_entry(self._identity(), self._key.public, lost=False))

    def _sign(self, key: PrivateKey) -> None:
        self._tree = self._tree.extend(self._leaves)
        self._leaves.clear()
        text = str(Checkpoint(key.name, self.seq, self._tree.root))
        self._seal(
            checkpoint_entry(self._identity(), sign_note(text, [key]), self._tree, key.public)
        )

    def _identity(self) -> str:
        return identifier(OWN_IDS + self.seq, FIRST_MS + self._number).decode()

    def _seal(self, entry: Entry) -> None:
        time = timestamp(self._start + self.seq * self._step)
        record, line = prepare(entry).seal(seq=self.seq + 1, time=time, prev=self._prev)
        self._take(line + b"\n", record.hash)

    def _take(self, line: bytes, own: str) -> None:
        self._buffer += line
        self._size += len(line)
        self.written += len(line)
        self.seq, self._prev = self.seq + 1, own
        if self._key is not None:
            self._leaves.append(leaf_hash(line[:-1]))
            if len(self._leaves) > 1000:
                self._sign(self._key)
        if len(self._buffer) > BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(self._buffer)
            self._buffer.clear()

    def close(self) -> None:
        """Write what is left, signed where there is a key, and the mark."""
        if self._key is not None:
            self._sign(self._key)
        self._flush()
        mark = self._folder / MARK_NAME
        mark.touch(FILE_MODE)
        mark.write_bytes(DurableMark(self.seq, self._prev).to_bytes())


def identifier(number: int, milliseconds: int) -> bytes:
    """Return the number-th UUIDv7, of that time."""
    time = f"{milliseconds:012x}"
    return f"{time[:8]}-{time[8:]}-7{number % 4096:03x}-8000-{number:012x}".encode()


class World:
    """Services of a host, and what happens to them."""

    def __init__(self, services: int, dice: random.Random) -> None:
        self.services = tuple(f"service-{number:02}" for number in range(services))
        self._dice = dice
        self._number = 0
        self._slots = [
            Slot(name, f"team-{number % 5}", slot)
            for number, name in enumerate(self.services)
            for slot in range(1, 2 + number % 3)
        ]

    def names(self) -> tuple[str, ...]:
        """Return the names of the containers that fill the slots now."""
        return tuple(_text(slot.values[b"name"]) for slot in self._slots if slot.values)

    def begin_at(self, number: int) -> None:
        """Give the ids that come these numbers."""
        self._number = number

    def refusals(self) -> Iterator[tuple[Shape, Values]]:
        """Yield refused requests, without end."""
        for slot in self._slots:
            slot.values = self._container(slot)
        while True:
            yield from self._refused(self._dice.choice(self._slots))

    def happenings(self) -> Iterator[tuple[Shape, Values]]:
        """Yield what is to be recorded, without end."""
        for slot in self._slots:
            yield from self._rolled(slot)
        kinds: tuple[Callable[[Slot], Iterator[tuple[Shape, Values]]], ...] = (
            self._rolled,
            self._restarted,
            self._limited,
            self._read,
            self._refused,
        )
        while True:
            (kind,) = self._dice.choices(kinds, (20, 40, 5, 10, 25))
            yield from kind(self._dice.choice(self._slots))

    def _rolled(self, slot: Slot) -> Iterator[tuple[Shape, Values]]:
        old = slot.values
        slot.values = self._container(slot)
        yield from self._change(CREATE, CREATED, slot.values)
        yield from self._change(START, STARTED, slot.values)
        if old:
            yield from self._change(STOP, DONE, old)
            yield from self._change(REMOVE, DONE, old)

    def _restarted(self, slot: Slot) -> Iterator[tuple[Shape, Values]]:
        yield from self._change(START, STARTED, slot.values)

    def _limited(self, slot: Slot) -> Iterator[tuple[Shape, Values]]:
        yield from self._change(UPDATE, UPDATED, slot.values)

    def _read(self, slot: Slot) -> Iterator[tuple[Shape, Values]]:
        yield LOGS, {**slot.values, b"id": self._identity()}

    def _refused(self, slot: Slot) -> Iterator[tuple[Shape, Values]]:
        yield REFUSED, {**slot.values, b"id": self._identity()}

    def _change(self, asked: Shape, done: Shape, values: Values) -> Iterator[tuple[Shape, Values]]:
        values = {**values, b"id": self._identity(), b"ms": self._dice.randrange(8, 900)}
        values[b"intent"] = values[b"id"]
        yield asked, values
        yield done, values

    def _container(self, slot: Slot) -> Values:
        self._number += 1
        revision = hashlib.sha256(f"{slot.service} {self._number}".encode()).hexdigest()
        container = hashlib.sha256(f"container {self._number}".encode()).hexdigest()
        return {
            b"service": slot.service.encode(),
            b"owner": slot.owner.encode(),
            b"slot": str(slot.number).encode(),
            b"name": f"{slot.service}.{slot.number}-{revision[:8]}".encode(),
            b"container": container.encode(),
            b"revision": f"v1:{revision}".encode(),
            b"plan": hashlib.sha256(bytes([self._number % 251])).hexdigest().encode(),
            b"commit": hashlib.sha1(revision.encode(), usedforsecurity=False).hexdigest().encode(),
        }

    def _identity(self) -> bytes:
        self._number += 1
        return identifier(self._number, FIRST_MS + self._number)


def _text(value: bytes | int) -> str:
    assert isinstance(value, bytes), "a name is text"
    return value.decode()


def settings(memory: int) -> dict[str, object]:
    return settings_to_json(
        Settings(
            name="@name@",
            memory=memory,
            memory_swap=memory,
            nano_cpus=500_000_000,
            pids=128,
            restart="always",
            networks=("platform-network",),
        )
    )


def request(
    route: str, thing: str, summary: dict[str, object], method: str = "POST"
) -> dict[str, object]:
    return {
        "method": method,
        "route": route,
        "object": thing,
        "summary": summary,
        "digest": "@plan@",
    }


def place(**more: object) -> dict[str, object]:
    whose = {"name": "@name@", "owner": "@owner@", "namespace": "default", "service": "@service@"}
    return {**whose, **more}


def claims(cause: str) -> dict[str, object]:
    source = {"file": "apps/@service@.yaml", "line": 3, "commit": "@commit@"}
    return {"cause": cause, "source": source, "plan": "@plan@", "onBehalfOf": ""}


def allowed(decision: str = "allow", *added: tuple[str, str]) -> dict[str, object]:
    rules, texts = [rule for rule, _ in added], [text for _, text in added]
    return {"decision": decision, "rules": rules, "mutations": texts, "policy": POLICY}


def intent(route: str, cause: str, *, method: str = "POST", **more: object) -> Shape:
    told = request(route, "@container@", place(**more), method)
    return Shape.of(
        "intent", actor=dict(CONTROLLER), request=told, verdict=allowed(), claims=claims(cause)
    )


def outcome(status: int, **more: object) -> Shape:
    result: dict[str, object] = {"status": status, "error": "", "durationMs": MILLISECONDS, **more}
    return Shape.of("outcome", actor=dict(CONTROLLER), result=result)


LABELS: Final = {
    "io.trimtab.image": "ghcr.io/platformnetwork/@service@:1.4.2",
    "io.trimtab.instance": "51b8a1b2c3d4e5f6",
    "io.trimtab.intent": "@intent@",
    "io.trimtab.managed": "true",
    "io.trimtab.namespace": "default",
    "io.trimtab.origin": "controller",
    "io.trimtab.owner": "@owner@",
    "io.trimtab.revision": "@revision@",
    "io.trimtab.service": "@service@",
    "io.trimtab.slot": "@slot@",
}
IMAGE: Final = "sha256:" + hashlib.sha256(b"image").hexdigest()
CONFIG: Final = "/var/lib/platform/@service@"
MOUNT: Final = {"type": "bind", "source": CONFIG, "target": "/srv/static"}
CREATE: Final = Shape.of(
    "intent",
    actor=dict(CONTROLLER),
    request=request(
        "container.create",
        "@name@",
        {
            "name": "@name@",
            "image": "ghcr.io/platformnetwork/@service@:1.4.2",
            "imageId": IMAGE,
            "digest": f"ghcr.io/platformnetwork/@service@@{IMAGE}",
            "labels": LABELS,
            "answersTo": ["@service@"],
            "env": ["LOG_LEVEL", "DB_HOST"],
            "mounts": [{**MOUNT, "readOnly": True}],
            "caps": ["CHOWN"],
            "ports": [],
            "healthcheck": ["CMD"],
            "exceptions": [],
            "confined": {
                "capabilities": ["CHOWN"],
                "mounts": [{**MOUNT, "read_only": True, "device": 2049, "inode": 131_077}],
                "read_only_root": True,
            },
            "settings": settings(MEMORY),
        },
    ),
    verdict=allowed(
        "mutate",
        ("image.pinned", f"runs the image {IMAGE}"),
        ("default.swap", "no swap beside the memory"),
        ("hardening.capabilities", "all capabilities dropped but those asked for"),
        ("hardening.privileges", "no new privileges"),
        ("default.logs", "logs rotate"),
    ),
    claims=claims("slot @slot@ is stale: its revision is not the one wanted"),
)
CREATED: Final = outcome(201, container="@container@")
START: Final = intent("container.start", "slot @slot@ is stopped")
STARTED: Final = outcome(204, effective="verified")
STOP: Final = intent("container.stop", "its successor runs", graceS=10, takesDown="slot")
REMOVE: Final = intent("container.remove", "its successor runs", method="DELETE", takesDown="")
UPDATE: Final = intent(
    "container.update",
    "memory was altered from outside",
    settings=settings(MEMORY_RAISED),
    fields=["Memory", "MemorySwap"],
)
UPDATED: Final = outcome(200)
DONE: Final = outcome(204)
LOGS: Final = Shape.of(
    "read",
    actor=dict(OPERATOR),
    request=request(
        "container.logs", "@container@", {"query": {"stdout": "1", "tail": "100"}}, "GET"
    ),
)
REFUSED: Final = Shape.of(
    "refusal",
    actor=dict(CLIENT),
    request=request(
        "container.create",
        "tool",
        {"name": "tool", "image": "alpine:latest", "owner": "@owner@", "service": "@service@"},
    ),
    verdict={**allowed("deny", ("image.registry", "")), "mutations": []},
    result={"status": 403, "error": "alpine:latest is not from an admitted registry"},
)
