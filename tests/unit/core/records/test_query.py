from __future__ import annotations

from typing import Any

import pytest

from controller.core.records.query import Filter, RecordContext
from controller.core.records.record import GENESIS, prepare
from controller.model.records import Entry, Record
from tests.unit.core.happened import search

FIRST_ID = "a" * 64
SECOND_ID = "b" * 64


def uuid7(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


def created(name: str, *, service: str, namespace: str = "", owner: str) -> dict[str, object]:
    labels = {
        "io.trimtab.service": service,
        "io.trimtab.namespace": namespace,
        "io.trimtab.owner": owner,
    }
    summary = {"name": name, "image": "trimtab.local/web:1", "labels": labels}
    return request("container.create", name) | {"summary": summary}


def request(route: str, thing: str) -> dict[str, object]:
    return {"method": "POST", "route": route, "object": thing}


CONTROLLER: dict[str, object] = {"uid": 990, "role": "controller"}
OPERATOR: dict[str, object] = {"uid": 0, "role": "operator"}
CLIENT: dict[str, object] = {"uid": 1001, "role": "client", "owner": "team-b"}
ALLOW: dict[str, object] = {"decision": "allow"}
MUTATE: dict[str, object] = {"decision": "mutate", "rules": ["limits"]}
DENY: dict[str, object] = {"decision": "deny", "rules": ["privileged"]}

WEB = created("web.1-aaaaaaaa", service="web", namespace="default", owner="team-a")
SHOP = created("shop.web.1-bbbbbbbb", service="web", namespace="shop", owner="team-a")
TOOL = created("tool", service="tool", owner="team-b")

#: seq -> what happened
ENTRIES = (
    Entry(uuid7(1), "segment", actor={"role": "broker"}),
    Entry(uuid7(2), "intent", actor=CONTROLLER, request=WEB, verdict=MUTATE),
    Entry(uuid7(3), "intent", actor=CONTROLLER, request=SHOP, verdict=MUTATE),
    Entry(uuid7(2), "outcome", result={"status": 201, "container": FIRST_ID}),
    Entry(uuid7(3), "recovered", result={"settled": "applied", "container": SECOND_ID}),
    Entry(uuid7(4), "intent", actor=CONTROLLER, request=request("container.start", FIRST_ID)),
    Entry(uuid7(4), "outcome", result={"status": 204}),
    Entry(uuid7(5), "refusal", actor=CLIENT, request=TOOL, verdict=DENY),
    Entry(uuid7(6), "intent", actor=OPERATOR, request=request("container.stop", SECOND_ID)),
    Entry(uuid7(6), "outcome", result={"status": 500, "error": "x"}),
    Entry(uuid7(7), "read", actor=OPERATOR, request={"method": "GET", "route": "container.logs"}),
)  # fmt: skip


def the_records() -> list[Record]:
    """One record a second from 12:00:01 on."""
    return [
        prepare(entry).seal(seq=seq, time=f"2026-01-01T12:00:{seq:02}.000Z", prev=GENESIS)[0]
        for seq, entry in enumerate(ENTRIES, 1)
    ]


def check(expected: list[int], **wanted: Any) -> None:
    found = list(search(the_records(), Filter(**wanted)))
    assert [record.seq for record, _ in found] == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, list(range(1, 12))),
        ({"since": "2026-01-01T12:00:10.000Z"}, [10, 11]),
        ({"until": "2026-01-01T12:00:02.000Z"}, [1, 2]),
        ({"stages": frozenset({"outcome"})}, [4, 7, 10]),
        ({"verdict": "deny"}, [8]),
        ({"verdict": "mutate"}, [2, 3]),
        ({"actor": "controller"}, [2, 3, 6]),
        ({"actor": "1001"}, [8]),
        ({"actor": "broker"}, [1]),
        ({"actor": "client:1001"}, [8]),
        ({"actor": "operator:1001"}, []),
        ({"actor": "broker:"}, []),
        # Of both namespaces, with the starts and outcomes that name only an id, or nothing.
        ({"service": "web"}, [2, 3, 4, 5, 6, 7, 9, 10]),
        ({"service": "default/web"}, [2, 4, 6, 7]),
        ({"service": "shop/web"}, [3, 5, 9, 10]),
        ({"service": "we"}, []),
        ({"owner": "team-a"}, [2, 3, 4, 5, 6, 7, 9, 10]),
        ({"owner": "team-b"}, [8]),
        ({"action": "container.create"}, [2, 3, 4, 5, 8]),
        ({"action": "create"}, [2, 3, 4, 5, 8]),
        ({"action": "GET"}, [11]),
        ({"container": "web.1-aaaaaaaa"}, [2, 4, 6, 7]),
        ({"container": SECOND_ID}, [5, 9, 10]),
        ({"container": "bbbb"}, [5, 9, 10]),
        ({"container": "bbb"}, []),
        ({"container": "tool", "verdict": "deny"}, [8]),
        ({"service": "web", "stages": frozenset({"outcome"}), "since": "2026-01-01T12:00:05.000Z"}, [7, 10]),
    ],
)  # fmt: skip
def test_records_are_found_by(wanted: dict[str, Any], expected: list[int]) -> None:
    check(expected, **wanted)


def test_a_start_is_told_by_the_name_and_service_of_its_container() -> None:
    (found,) = (found for found in search(the_records(), Filter()) if found.record.seq == 6)
    assert (found.about.name, found.about.service, found.about.id) == (
        "web.1-aaaaaaaa",
        "web",
        FIRST_ID,
    )


def adoption(kind: str, thing: str) -> Record:
    labels = {"io.trimtab.service": "web", "io.trimtab.owner": "team-a"}
    summary = {"act": "adopt", "kind": kind, "name": "web.1-aaaaaaaa", "labels": labels}
    entry = Entry(
        uuid7(1),
        "operator",
        actor=OPERATOR,
        request=request("instance.adopt", thing) | {"summary": summary},
    )
    return prepare(entry).seal(seq=1, time="2026-01-01T12:00:00.000Z", prev=GENESIS)[0]


def test_a_container_lives_from_its_adoption_on_as_from_its_create() -> None:
    memory = RecordContext()
    memory.learn(adoption("container", FIRST_ID))
    life = memory.lives.get(FIRST_ID)
    assert life is not None
    assert (life.about.name, life.about.service, life.about.owner) == (
        "web.1-aaaaaaaa",
        "web",
        "team-a",
    )
    assert (life.since, life.gone) == (1, 0)
    memory = RecordContext()
    memory.learn(adoption("network", SECOND_ID))
    assert memory.lives.get(SECOND_ID) is None


def test_what_isnt_as_the_broker_writes_it_is_found_by_what_it_has() -> None:
    odd = Entry(uuid7(1), "refusal", request={"object": 5, "summary": [], "route": {"x": 1}})
    record, _ = prepare(odd).seal(seq=1, time="2026-01-01T12:00:00.000Z", prev=GENESIS)
    assert [
        found.record.seq for found in search([record], Filter(stages=frozenset({"refusal"})))
    ] == [1]
