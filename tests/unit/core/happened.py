"""What happened to containers, told record by record: for tests of what is made of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from controller.core.records.inventory_json import settings_to_json
from controller.core.records.provenance import Provenance, provenance
from controller.core.records.query import (
    Filter,
    QueryResult,
    RecordContext,
    RecordFinder,
    chronicle,
    fits,
)
from controller.core.records.record import GENESIS, prepare
from controller.model.observed import Settings
from controller.model.records import Entry, Record, Stage


def search(
    records: Iterable[Record], wanted: Filter, context: RecordContext | None = None
) -> Iterator[QueryResult]:
    """Yield the matching records in order; *context* comes from all earlier records."""
    context = RecordContext() if context is None else context
    for record in records:
        about = context.learn(record)
        if fits(record, about, wanted):
            yield QueryResult(record, about)


ID = "a" * 64
OTHER = "b" * 64
NAME = "web.1-1f0c22aa"
MI = 2**20
CONTROLLER: dict[str, object] = {"uid": 990, "role": "controller"}
OPERATOR: dict[str, object] = {"uid": 0, "role": "operator"}
BROKER: dict[str, object] = {"uid": 0, "role": "broker"}
#: Where the fields of web's document are written.
LINES = {"image": 7, "mounts": 9, "resources.memory": 12, "security.capAdd": 14}
SETTINGS = Settings(
    name=NAME,
    memory=512 * MI,
    memory_swap=512 * MI,
    nano_cpus=500_000_000,
    pids=256,
    restart="always",
    networks=("platform-network",),
)
LABELS = {
    "io.trimtab.namespace": "default",
    "io.trimtab.service": "web",
    "io.trimtab.owner": "team",
    "io.trimtab.slot": "1",
    "io.trimtab.revision": "v2:" + "1f0c22aa" * 8,
}
SUMMARY: dict[str, object] = {
    "name": NAME,
    "image": "trimtab.local/web:1",
    "imageId": "sha256:" + "1" * 64,
    "labels": LABELS,
    "answersTo": ["web"],
    "env": ["LOG_LEVEL", "TOKEN"],
    "mounts": [
        {"type": "bind", "source": "/srv/a", "target": "/a", "readOnly": True},
        {"type": "tmpfs", "source": "", "target": "/scratch", "readOnly": False},
    ],
    "caps": ["CHOWN"],
    "ports": ["127.0.0.1:18080:8080/tcp"],
    "healthcheck": ["CMD"],
    "exceptions": [],
    "confined": {"read_only_root": True},
    "settings": settings_to_json(SETTINGS),
}
VERDICT: dict[str, object] = {
    "decision": "mutate",
    "rules": ["image.pinned", "default.pids", "hardening.privileges", "default.logs"],
}


def uuid7(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


class Happened:
    """Records, one a second from noon on, in the order in which a test says what happened."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._changes = 0

    def add(self, stage: Stage, identity: int, **parts: dict[str, object]) -> int:
        seq = len(self.records) + 1
        entry = Entry(uuid7(identity), stage, **parts)
        record, _ = prepare(entry).seal(
            seq=seq, time=f"2026-01-01T12:{seq // 60:02}:{seq % 60:02}.000Z", prev=GENESIS
        )
        self.records.append(record)
        return seq

    def ask(
        self,
        route: str,
        thing: str,
        summary: dict[str, object] | None = None,
        *,
        actor: dict[str, object] = CONTROLLER,
        cause: str = "",
        verdict: dict[str, object] | None = None,
        line: int = 3,
    ) -> int:
        """An intent; returns its number, to be closed."""
        self._changes += 1
        source: dict[str, object] = {"file": "web.yaml", "line": line, "commit": "c0ffee" * 6}
        if route == "container.create":
            source["lines"] = LINES
        claims: dict[str, object] = {"cause": cause, "source": source, "plan": "p"} if cause else {}
        request: dict[str, object] = {
            "method": "POST",
            "route": route,
            "object": thing,
            "summary": summary or {},
        }
        self.add(
            "intent",
            self._changes,
            actor=actor,
            request=request,
            verdict=verdict or {"decision": "allow"},
            claims=claims,
        )
        return self._changes

    def close(self, number: int, stage: Stage = "outcome", **result: object) -> None:
        self.add(stage, number, result=result or {"status": 204})

    def adopt(self, *, thing: str = ID, **told: object) -> None:
        """An operator's adoption of a container."""
        self._changes += 1
        summary = {"act": "adopt", "kind": "container", **SUMMARY, "started": True, **told}
        request: dict[str, object] = {"route": "instance.adopt", "object": thing}
        request |= {"method": "POST", "summary": summary}
        self.add("operator", self._changes, actor=OPERATOR, request=request)

    def change(self, route: str, summary: dict[str, object] | None = None, **more: Any) -> None:
        status = more.pop("status", 204)
        self.close(self.ask(route, ID, summary, **more), status=status)

    def created(self) -> Happened:
        number = self.ask(
            "container.create", NAME, SUMMARY, cause="slot 1 is empty", verdict=VERDICT
        )
        self.close(number, status=201, container=ID)
        return self

    @property
    def find(self) -> RecordFinder:
        return partial(found_in, self.records)

    @property
    def told(self) -> Provenance:
        told = provenance(chronicle(self.find, ID))
        assert told is not None
        return told


def found_in(
    records: list[Record], wanted: Filter, *, limit: int = 0, last: bool = True
) -> Iterator[QueryResult]:
    found = list(search(records, wanted))
    kept = found if not limit else found[-limit:] if last else found[:limit]
    yield from kept
