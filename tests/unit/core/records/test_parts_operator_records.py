"""What an operator did with a service: only what is whole and known is recorded as that."""

from __future__ import annotations

import pytest

from controller.core.records.parts import NOTE_MAX, ServiceRecord, read_service_act
from controller.core.records.query import Filter
from controller.core.records.record import GENESIS, prepare
from controller.model.names import service_key
from controller.model.records import Entry
from tests.unit.core.happened import search

WEB = "Service/default/web"
REVISION = "v2:" + "b" * 64


@pytest.mark.parametrize(
    ("more", "record"),
    [
        ({"act": "service.suspend"}, {}),
        ({"act": "service.resume", "note": "all well"}, {"note": "all well"}),
        ({"act": "service.rollback", "revision": REVISION}, {"revision": REVISION}),
        ({"act": "service.scale", "replicas": 0}, {"replicas": 0}),
        (
            {"act": "service.scale", "replicas": 5, "seconds": 7200},
            {"replicas": 5, "for_s": 7200},
        ),
        ({"act": "service.restart"}, {}),
        ({"act": "service.restart", "revision": REVISION}, {"revision": REVISION}),
        (
            {"act": "service.restart", "revision": REVISION, "anew": True},
            {"revision": REVISION, "anew": True},
        ),
    ],
)
def test_an_act_is_read(more: dict[str, object], record: dict[str, object]) -> None:
    read = read_service_act({"object": WEB, **more})
    act = str(more["act"])
    assert read == ServiceRecord(act, service_key("default", "web"), **record)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"act": "service.remove"}, "act isn't one of service.rollback, "),
        ({"act": ["service.suspend"]}, "act isn't one of"),
        ({"act": "service.suspend", "colour": 1}, "it has no member 'colour'"),
        ({"act": "service.suspend", "object": "web"}, "object isn't a service"),
        ({"act": "service.suspend", "object": "Network/default/web"}, "object isn't a service"),
        ({"act": "service.suspend", "object": "Service/default/We b"}, "object isn't a service"),
        ({"act": "service.suspend", "object": 7}, "object isn't a service"),
        ({"act": "service.rollback"}, "service.rollback names the revision to go back to"),
        ({"act": "service.rollback", "revision": "b" * 64}, "revision isn't one"),
        ({"act": "service.suspend", "revision": REVISION}, "service.suspend is of no revision"),
        ({"act": "service.restart", "anew": True}, "anew is true or false"),
        ({"act": "service.restart", "revision": REVISION, "anew": 1}, "anew is true or false"),
        (
            {"act": "service.rollback", "revision": REVISION, "anew": True},
            "anew is true or false",
        ),
        ({"act": "service.suspend", "note": "x" * (NOTE_MAX + 1)}, "note isn't a text"),
        ({"act": "service.suspend", "note": 1}, "note isn't a text"),
        ({"act": "service.suspend", "replicas": 1}, "service.suspend is of no replicas"),
        ({"act": "service.scale"}, "replicas isn't a number from 0 to 999"),
        ({"act": "service.scale", "replicas": True}, "replicas isn't a number"),
        ({"act": "service.scale", "replicas": 1000}, "replicas isn't a number"),
        ({"act": "service.scale", "replicas": 1, "seconds": 0}, "seconds isn't a number"),
        ({"act": "service.scale", "replicas": 1, "seconds": 1e3}, "seconds isn't a number"),
    ],
)
def test_what_is_no_act_is_told(body: dict[str, object], wrong: str) -> None:
    told = read_service_act({"object": WEB, **body})
    assert isinstance(told, str)
    assert told.startswith(wrong)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(service="lab/web"), 1),
        (Filter(service="web", action="suspend"), 1),
        (Filter(service="default/web"), 0),
    ],
)
def test_an_act_is_found_by_its_service(wanted: Filter, found: int) -> None:
    act = ServiceRecord("service.suspend", service_key("lab", "web"))
    request: dict[str, object] = {"route": act.act, "object": str(act.key), "summary": act.summary}
    entry = Entry("00000000-0000-7000-8000-000000000001", "operator", request=request)
    record, _ = prepare(entry).seal(seq=1, time="2026-01-01T12:00:00.000Z", prev=GENESIS)
    assert len(list(search([record], wanted))) == found
