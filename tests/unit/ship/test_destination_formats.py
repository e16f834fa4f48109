"""Records as a SIEM takes them: nothing in a record ends a line or a field early."""

from __future__ import annotations

import re
from typing import Any

import pytest

from controller.core.records.record import prepare
from controller.model.records import Entry, Record, Stage
from controller.ship.destination import attributes, cef, counted, severity, syslog

ID = "01a20fe6-44d2-7dd3-9e35-0a2b0be8551e"
HEADER = re.compile(
    rb"<(\d+)>1 (\S+) (\S+) trimtab - (\S+) "
    rb'\[meta sequenceId="(\d+)"\]\[origin software="trimtab" swVersion="0.1"\] (.*)',
    re.DOTALL,
)
NASTY = 'a|b\\c=d\r\n<0>1 fake\x00\u2028"]end'


def made(
    stage: Stage = "intent", *, seq: int = 7, **parts: dict[str, object]
) -> tuple[Record, bytes]:
    return prepare(Entry(ID, stage, **parts)).seal(
        seq=seq, time="2026-03-01T12:00:00.250Z", prev="0" * 64
    )


@pytest.mark.parametrize(
    ("stage", "result", "grave"),
    [
        ("violation", {}, 2),
        ("refusal", {}, 4),
        ("summary", {}, 4),
        ("outcome", {"error": "no"}, 3),
        ("outcome", {"error": ""}, 6),
        ("outcome", {"error": "", "status": 503}, 3),
        ("outcome", {"status": 404}, 3),
        ("outcome", {"status": 304}, 6),
        ("outcome", {"status": 101}, 6),
        ("recovered", {}, 6),
        ("policy", {"error": "line 3"}, 4),
        ("policy", {}, 5),
        ("operator", {}, 5),
        ("checkpoint", {}, 6),
    ],
)
def test_how_grave_a_record_is(stage: Stage, result: dict[str, object], grave: int) -> None:
    assert severity(made(stage, result=result)[0]) == grave


def test_a_message_is_one_of_rfc_5424_with_the_line_as_it_is() -> None:
    record, line = made("refusal", request={"route": "container.create"})
    message = syslog(record, line, host="host.example", version="0.1")
    found = HEADER.fullmatch(message)
    assert found is not None
    assert found.groups() == (
        b"108",  # log audit, warning
        b"2026-03-01T12:00:00.250Z",
        b"host.example",
        b"refusal",
        b"7",
        line,
    )
    assert counted(message) == f"{len(message)} ".encode() + message


def test_a_sequence_stays_within_its_bound() -> None:
    for seq, told in ((2**31 - 1, 2**31 - 1), (2**31, 1)):
        record, line = made(seq=seq)
        found = HEADER.fullmatch(syslog(record, line, host="", version="0.1", facility=0))
        assert found is not None
        assert (found[1], found[3], int(found[5])) == (b"6", b"-", told)


def test_a_host_s_name_ends_no_field() -> None:
    record, line = made()
    found = HEADER.fullmatch(syslog(record, line, host="a b\n\u00e9c", version="0.1"))
    assert found is not None
    assert found[3] == b"abc"


def fields_of(text: str) -> tuple[list[str], dict[str, str]]:
    """Read CEF as its description says: escapes undone, headers by pipes, pairs by keys."""
    parts = re.split(r"(?<!\\)\|", text, maxsplit=7)
    headers = [re.sub(r"\\(.)", r"\1", part) for part in parts[:7]]
    pairs = re.findall(r"(\w+)=((?:\\.|[^\\=])*?)(?= \w+=|$)", parts[7])
    return headers, {key: re.sub(r"\\([\\=])", r"\1", value) for key, value in pairs}


def test_cef_has_the_main_facts() -> None:
    record, _ = made(
        "refusal",
        actor={"uid": 1000, "role": "client"},
        request={"route": "container.create", "method": "POST", "object": "web"},
        verdict={"decision": "deny", "rules": ["image.not-allowed", "user.root"], "reason": "no"},
    )
    headers, pairs = fields_of(cef(record, version="0.1"))
    assert headers == [
        "CEF:0",
        "trimtab",
        "trimtab",
        "0.1",
        "refusal:container.create",
        "refusal of container.create",
        "5",
    ]
    assert pairs == {
        "rt": "1772366400250",
        "externalId": ID,
        "cn1": "7",
        "cn1Label": "seq",
        "suid": "1000",
        "spriv": "client",
        "act": "container.create",
        "requestMethod": "POST",
        "outcome": "denied",
        "reason": "no",
        "cs1": "web",
        "cs1Label": "object",
        "cs2": "image.not-allowed, user.root",
        "cs2Label": "rules",
        "cs6": record.hash,
        "cs6Label": "hash",
    }


@pytest.mark.parametrize(
    ("stage", "result", "outcome"),
    [
        ("outcome", {"error": "", "status": 204}, "success"),
        ("outcome", {"error": "no"}, "failure"),
        ("outcome", {"error": "", "status": 503}, "failure"),
        ("outcome", {"status": 404}, "failure"),
        ("outcome", {"status": 304}, "success"),
        ("outcome", {"error": "cut off", "status": 200}, "failure"),
        ("recovered", {"settled": "not-applied"}, "not-applied"),
    ],
)
def test_cef_tells_how_it_went(stage: Stage, result: dict[str, object], outcome: str) -> None:
    _, pairs = fields_of(cef(made(stage, result=result)[0], version="0.1"))
    assert pairs["outcome"] == outcome


WHOLE: dict[str, Any] = {
    "actor": {"uid": 0, "role": "client"},
    "request": {"route": "container.start", "object": "c1"},
    "claims": {"cause": "drift"},
    "verdict": {"decision": "allow", "rules": ["a", "b"], "policy": "d1"},
    "result": {"error": "no", "container": "c2"},
}


def test_attributes_are_what_is_worth_searching_for() -> None:
    record, _ = made("outcome", **WHOLE)
    assert attributes(record) == {
        "trimtab.seq": 7,
        "trimtab.id": ID,
        "trimtab.stage": "outcome",
        "trimtab.hash": record.hash,
        "trimtab.route": "container.start",
        "trimtab.object": "c1",
        "trimtab.decision": "allow",
        "trimtab.rules": "a, b",
        "trimtab.actor.uid": 0,
        "trimtab.actor.role": "client",
        "trimtab.error": "no",
        "trimtab.container": "c2",
        "trimtab.cause": "drift",
    }
    bare, _ = made("read", request={"route": "", "object": ["x"]}, verdict={"rules": "a"})
    assert attributes(bare) == {
        "trimtab.seq": 7,
        "trimtab.id": ID,
        "trimtab.stage": "read",
        "trimtab.hash": bare.hash,
    }


def test_cef_numbers_what_has_no_field_of_its_own() -> None:
    record, _ = made("outcome", **WHOLE)
    _, pairs = fields_of(cef(record, version="0.1"))
    assert {key: text for key, text in pairs.items() if key.startswith("cs")} == {
        "cs1": "c1",
        "cs1Label": "object",
        "cs2": "a, b",
        "cs2Label": "rules",
        "cs3": "c2",
        "cs3Label": "container",
        "cs4": "drift",
        "cs4Label": "cause",
        "cs5": "d1",
        "cs5Label": "policy",
        "cs6": record.hash,
        "cs6Label": "hash",
    }
    assert (pairs["suid"], pairs["reason"], pairs["outcome"]) == ("0", "no", "failure")


def test_what_a_client_wrote_forges_no_line_and_no_field() -> None:
    record, line = made(
        request={"route": NASTY, "object": NASTY}, claims={"cause": NASTY}, result={"error": NASTY}
    )
    text = cef(record, version="0.1")
    assert text.isprintable()
    headers, pairs = fields_of(text)
    assert len(headers) == 7
    assert pairs["reason"] == 'a|b\\c=d\\u000d\\u000a<0>1 fake\\u0000\\u2028"]end'
    for form in ("json", "cef"):
        message = syslog(record, line, host="h", version="0.1", form=form)
        assert b"\n" not in message
        assert b"\x00" not in message


def test_what_is_searched_for_is_an_attribute() -> None:
    record, _ = made(
        "outcome",
        actor={"uid": 0, "role": "controller"},
        result={"container": "c" * 64, "error": ""},
    )
    assert attributes(record) == {
        "trimtab.seq": 7,
        "trimtab.id": ID,
        "trimtab.stage": "outcome",
        "trimtab.hash": record.hash,
        "trimtab.actor.uid": 0,
        "trimtab.actor.role": "controller",
        "trimtab.container": "c" * 64,
    }
