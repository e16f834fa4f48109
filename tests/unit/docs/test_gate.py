"""docs/gate.md says what the code says: routes, fields, rules, modes."""

from __future__ import annotations

import re

from controller.broker.gate.routes import DENIED, ROUTES, find_route
from controller.core.admission import create
from controller.core.engine_api import field_tables
from controller.core.engine_api.field_reader import Field
from controller.model.policy.sections import ROLLABLE
from tools import docs

PAGE = docs.PAGE.read_text("utf-8")


def test_the_page_is_what_the_code_says() -> None:
    assert docs.page() == PAGE, "run `make docs`"


def test_every_route_and_refusal_and_rule_has_its_row() -> None:
    assert [r for r in ROUTES if f"{r.template}` | {r.means} |" not in PAGE] == []
    assert len(DENIED) == len(list(docs.denied()))
    assert len(list(docs.rules())) == len(create.CREATE_RULES)
    assert [rule for rule in ROLLABLE if f"| `{rule}` | {ROLLABLE[rule]} |" not in PAGE] == []


def test_every_table_of_fields_is_on_the_page() -> None:
    shown = {id(entries) for _, _, entries in docs.BODIES}
    of_fields = {
        name: value
        for name, value in vars(field_tables).items()
        if isinstance(value, tuple) and value and all(isinstance(one, Field) for one in value)
    }
    # Parts of several tables.
    hidden = sorted(n for n, v in of_fields.items() if id(v) not in shown)
    assert hidden == ["HOST", "INHERITED", "PROCESS", "RESOURCES", "TERMINAL"]


def test_every_rule_with_a_mode_is_one_that_the_rules_yield() -> None:
    told = {one for _, ids in docs.rules() for one in re.findall(r"`([^`]+)`", ids)}
    assert ROLLABLE.keys() - told == set()
    assert {"runtime", "port.address", "mount.never", "capabilities"} <= told
    assert not {"foreign", "docker.sock", "mount.invalid"} & told


def test_a_path_of_the_page_is_found_by_the_router() -> None:
    for route in ROUTES:
        path = re.sub(r"\{\w+\}", "x", route.template)
        versioned = not route.own
        found = find_route(
            route.method, f"/trimtab/v1{path}" if route.own else path, versioned=versioned
        )
        assert found.route == route
