"""Old journals stay readable: every record form is parsed, folded and printed as it was."""

import json
from functools import cache
from typing import get_args

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.records.inventory import fold
from controller.core.records.inventory_json import from_json, to_json
from controller.core.records.record import CLOSING, GENESIS, line_of
from controller.journal.verify.verify import TrustAnchors, verify
from controller.model import mutations
from controller.model.inventory import Inventory
from controller.model.mutations import Mutation
from controller.model.records import Stage
from tests.golden.record_forms import FOLDER, JOURNAL, gate_records, journal_records, texts
from tests.unit.journal.builders import read_public_keys

ROUTES = {
    value
    for name, value in vars(mutations).items()
    if name.isupper() and isinstance(value, str) and "." in value
}


@cache
def forms():
    """Stage and route of every record; a closing record has the route of its intent."""
    routes, found = {}, []
    for record in [*gate_records(), *journal_records()]:
        entry = record.entry
        if entry.stage not in CLOSING:
            routes[entry.id] = str(entry.request.get("route", ""))
        found.append((entry.stage, routes.get(entry.id, "")))
    return found


@pytest.mark.parametrize("name", ["gate.txt", "journal.txt"])
def test_every_record_is_read_as_it_was(name):
    assert texts()[name] == (FOLDER / name).read_text("utf-8")


def test_every_line_is_written_as_it_was():
    lines = (FOLDER / "gate.jsonl").read_bytes().splitlines()
    previous = GENESIS
    for line, record in zip(lines, gate_records(), strict=True):
        assert line_of(record) == line
        assert record.prev == previous
        previous = record.hash


def test_there_is_a_record_of_every_stage_and_of_every_route():
    stages = {stage for stage, _ in forms()}
    assert stages == set(get_args(Stage))
    assert {route for _, route in forms()} >= ROUTES


@pytest.mark.parametrize("mutation", list(Mutation))
def test_there_is_an_intent_and_an_outcome_of_every_mutation(mutation):
    assert {stage for stage, route in forms() if route == mutation} >= {"intent", "outcome"}


def test_the_inventory_of_all_records_is_read_back_from_its_file():
    inventory = Inventory()
    for record in gate_records():
        inventory = fold(inventory, record)
        assert from_json(json.loads(canonical(to_json(inventory)))) == inventory


@pytest.mark.parametrize("thorough", [False, True])
def test_the_signed_journal_is_verified_by_its_keys(thorough):
    keys = read_public_keys(FOLDER / "journal.pub")
    found = verify(JOURNAL, TrustAnchors(frozenset(keys)), thorough=thorough)
    assert (found.ok, found.begin, found.records, found.trusted) == (True, 9, 19, True)
    (note,) = found.notes
    assert note.endswith("wasn't compared: record 24 has no digest of it")
    torn, outage = (repair.what for repair in found.repairs)
    assert torn == "22 torn bytes were moved aside: its line is cut short"
    assert outage.startswith("not writable from 2026-01-02T12:02:00.000Z to 2026-01-02T12:03:00.00")
    assert outage.endswith(": No space left on device; 1 entries refused")
