from __future__ import annotations

import pytest

from controller.broker.gate.refusals import Denied
from controller.broker.guards import lists
from controller.model.records import Actor, Role
from tests.unit.broker.dialogue import state

ALICE = Actor(1000, 1000, 1, Role.CLIENT, owner="alice")
OPERATOR = Actor(0, 0, 1, Role.OPERATOR)


def test_both_forms_that_clients_send_are_read() -> None:
    known = frozenset({"label", "status"})
    assert lists.parse_filters('{"label":["a=b"],"status":{"exited":true}}', known) == {
        "label": ["a=b"],
        "status": ["exited"],
    }
    assert lists.parse_filters("", known) == {}
    assert lists.parse_filters('{"label":null,"nothing":[]}', known) == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"label":["a"],"label":["b"]}', "filters.malformed"),
        ('{"label":["a"],"LABEL":["b"]}', "filters.malformed"),
        ('{"label":[1]}', "filters.malformed"),
        ('{"label":{"a":1}}', "filters.malformed"),
        ('{"label":"a"}', "filters.malformed"),
        ("[]", "filters.malformed"),
        ("{", "filters.malformed"),
        ('{"until":["1h"]}', "filters.unknown"),
        ('{"label":[' + ",".join(['"a"'] * 65) + "]}", "filters.malformed"),
    ],
)
def test_other_filters_are_refused(text: str, rule: str) -> None:
    with pytest.raises(Denied) as denial:
        lists.parse_filters(text, frozenset({"label"}))
    assert denial.value.rule == rule


def test_a_clients_list_is_its_owners_whatever_it_asks_for() -> None:
    asked = {"label": ["io.trimtab.owner=bob", "IO.TRIMTAB.Owner=bob", "tier=web"]}
    narrow = lists.restrict_filters(asked, state(), ALICE)
    assert narrow == {"label": ["tier=web", "io.trimtab.instance=i1", "io.trimtab.owner=alice"]}


def test_an_operators_list_is_the_instances() -> None:
    narrow = lists.restrict_filters({"label": ["io.trimtab.instance=i2"]}, state(), OPERATOR)
    assert narrow == {"label": ["io.trimtab.instance=i1"]}
