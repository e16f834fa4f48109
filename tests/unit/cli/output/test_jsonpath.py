"""Templates of JSONPath: what kubectl prints for the same template."""

from __future__ import annotations

import json

import pytest

from controller.cli.output.jsonpath import CustomColumns, PathTemplate

VALUE = {
    "kind": "List",
    "items": [
        {
            "metadata": {"name": "web", "labels": {"a.b/c": "x", "tier": "front"}},
            "ready": 2,
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "Degraded", "status": "False"},
            ],
        },
        {"metadata": {"name": "db"}, "ready": 0, "conditions": [], "paused": False},
    ],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (".kind", "List"),
        ("kind", "List"),
        ("{$.kind}", "List"),
        ("{@}", json.dumps(VALUE)),
        ("{.items[*].metadata.name}", "web db"),
        ("{.items[0].metadata.name}, {.items[-1].metadata.name}", "web, db"),
        ("{.items[0:1].ready}{.items[1:].ready}{.items[5].ready}", "20"),
        ("{.items[*].paused}", "false"),
        ("{.items[0].metadata.labels['a.b/c']}", "x"),
        (r"{.items[0].metadata.labels.a\.b/c}", "x"),
        ("{.items[0].metadata.labels.*}", "x front"),
        ('{.items[*].conditions[?(@.type=="Ready")].status}', "True"),
        ("{.items[?(@.ready>0)].metadata.name}", "web"),
        ("{.items[?(@.ready != 2)].metadata.name}", "db"),
        ("{.items[?(@.paused)].metadata.name}", "db"),
        ("{.items[?(@.metadata.name < 3)].ready}", ""),
        ("{.items[1].metadata}", '{"name": "db"}'),
        ("{.nothing.there}{.kind.below}", ""),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.ready}{"\\n"}{end}-', "web\t2\ndb\t0\n-"),
        (
            "{range .items[*]}{.metadata.name}:{range .conditions[*]} {.type}{end};{end}",
            "web: Ready Degraded;db:;",
        ),
        ("{'{'}{\"}\"}", "{}"),
    ],
)
def test_a_template_prints_the_values_at_its_paths(template: str, text: str) -> None:
    assert PathTemplate.parse(template).render(VALUE) == text


@pytest.mark.parametrize(
    "template",
    ["{.items[}", "{range .items[*]}{.a}", "{end}", "{.a", "a}{.b}", "{.a[?(@.b==c)]}", "{..name}"],
)
def test_what_cant_be_read_is_an_error(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        PathTemplate.parse(template)


def test_custom_columns_have_a_cell_for_each_path() -> None:
    columns = CustomColumns.parse("NAME:.metadata.name,TYPES:{.conditions[*].type},X:.ready")
    assert columns.headers == ("NAME", "TYPES", "X")
    assert [columns.row(each) for each in VALUE["items"]] == [
        ["web", "Ready,Degraded", "2"],
        ["db", "<none>", "0"],
    ]
    for wrong in ("", "NAME", "NAME:", ":.a", "A:.b,"):
        with pytest.raises(ValueError, match="HEADER:PATH"):
            CustomColumns.parse(wrong)
