"""Each field of a create that the gate admits has a field of a Service, or a reason why not."""

from pydantic import BaseModel

from controller.core.manifests.parse import MANIFESTS
from tests.unit.docs.test_desired_state import fields
from tools import docs
from tools.parity import FIELDS, REASONS, TABLES, rows


def test_each_member_that_the_gate_admits_has_a_field_or_a_reason() -> None:
    missing = [row.place for row in rows() if bool(row.fields) is bool(row.reason)]
    assert missing == [], "write a field into FIELDS, or the reason for none into REASONS"


def test_no_row_is_about_a_member_that_the_gate_refuses_or_does_not_know() -> None:
    admitted = {row.place for row in rows()}
    assert (FIELDS.keys() | REASONS.keys()) - admitted == set()
    assert FIELDS.keys() & REASONS.keys() == set()


def test_each_field_is_one_of_a_service() -> None:
    spec = MANIFESTS["Service"].model_fields["spec"].annotation
    assert isinstance(spec, type) and issubclass(spec, BaseModel)
    known = {path for path, _ in fields(spec, "spec")}
    named = {path for paths in FIELDS.values() for path in paths}
    unknown = {
        path for path in named if path not in known and not any(f.startswith(path) for f in known)
    }
    assert unknown == set()


def test_every_table_of_a_create_is_compared() -> None:
    places = {place for body, place, _ in docs.BODIES if body == "create of a container"}
    assert {place for place, _ in TABLES} == places


def test_the_page_has_the_table_of_today() -> None:
    page = docs.DESIRED_STATE.read_text("utf-8")
    assert docs.with_parity(page) == page, "run `make docs`"
