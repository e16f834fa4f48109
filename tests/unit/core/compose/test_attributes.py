"""The table of attributes: what is said of the refused ones, and the fields that exist."""

from __future__ import annotations

import pytest

from controller.core.compose.attributes import FIELD_ROWS, ROWS, attribute_at, read_values
from controller.core.compose.long_forms import nodes_of
from controller.core.compose.nodes import ComposeNode, ReadingReport, plain
from tests.unit.core.manifests.test_foreign_fields import is_field


def test_every_refused_attribute_has_a_remedy() -> None:
    assert [row.path for row in ROWS if bool(row.refusal) != bool(row.remedy)] == []


def test_no_attribute_has_two_rows() -> None:
    paths = [row.path for row in ROWS]
    assert sorted(set(paths)) == sorted(paths)


def test_each_field_is_one_of_a_service() -> None:
    assert [row.field for _, row in FIELD_ROWS if not is_field(row.field)] == []


def test_a_row_can_cover_the_attributes_below() -> None:
    row = attribute_at("services.*.build.secrets.source")
    assert row is not None
    assert row.path == "services.*.build.secrets"
    assert attribute_at("services.*.healthcheck.colour") is None
    assert attribute_at("colour") is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"mem_limit": "64m", "cpus": "0.5"}, {"mem_limit": 67108864, "cpus": 0.5}),
        ({"environment": ["A=1", "B"]}, {"environment": {"A": "1", "B": None}}),
        ({"labels": ["a=1", "b"]}, {"labels": {"a": "1", "b": ""}}),
        ({"command": "a 'b c'"}, {"command": ["a", "b c"]}),
        ({"init": "yes"}, {"init": True}),
        ({"develop": {"watch": "x"}}, {"develop": {"watch": "x"}}),
        ({"extra_hosts": ["a:1.1.1.1", "a=::1"]}, {"extra_hosts": {"a": "1.1.1.1,::1"}}),
        (
            {"configs": [{"source": "c", "mode": 292}], "stop_grace_period": "1m30s"},
            {"configs": [{"source": "c", "mode": 292}], "stop_grace_period": 90_000},
        ),
    ],
)
def test_values_are_read_by_their_forms(written: object, read: object) -> None:
    tree = nodes_of(ComposeNode(None, "f", 1, 1), {"services": {"web": written}})
    report = ReadingReport()
    read_values(tree, report)
    assert (plain(tree), report.problems) == ({"services": {"web": read}}, ())


def test_a_value_that_cannot_be_read_is_a_problem() -> None:
    service = {"mem_limit": "much", "cpus": "x", "healthcheck": {"interval": "soon"}}
    report = ReadingReport()
    read_values(nodes_of(ComposeNode(None, "f", 1, 1), {"services": {"web": service}}), report)
    assert [(p.code, p.field) for p in report.problems] == [
        ("compose.value", "services.web.mem_limit"),
        ("compose.value", "services.web.cpus"),
        ("compose.value", "services.web.healthcheck.interval"),
    ]
