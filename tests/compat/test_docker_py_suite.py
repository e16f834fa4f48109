"""How two runs of docker-py's suite are compared: what explains a difference, and what doesn't."""

from __future__ import annotations

import re

from tests.compat.docker_py_suite import Judgement, Outcome, compare, named_rules, report
from tests.compat.table import CODES, SUITE, page

NAMED = named_rules(page(CODES))
REFUSED = 'E  docker.errors.APIError: 403 Client Error: Forbidden ("network.links: Links: names of others")'
STRAIGHT = {name: Outcome(name, "passed") for name in ("a", "b", "c", "d", "e")}


def failed(name: str, text: str, began: float = 0.0) -> Outcome:
    return Outcome(name, "failed", text, began, began + 1)


def rules_of(text: str, *journal: Judgement) -> tuple[str, ...]:
    found = compare({"a": STRAIGHT["a"]}, {"a": failed("a", text)}, journal, NAMED)
    (difference,) = found.differences
    return difference.rules


def test_a_rule_that_the_error_quotes_is_the_cause() -> None:
    met = Judgement(0.5, ("route.denied",))
    assert rules_of(REFUSED, met) == ("network.links",)
    assert rules_of('E  AssertionError: "volume: x"', met) == ()


def test_a_change_explains_only_an_error_that_shows_it() -> None:
    changed = Judgement(0.5, ("image.pinned", "default.logs"), refused=False)
    assert rules_of("E  assert {'max-size': '10485760'} == {}", changed) == ("default.logs",)
    assert rules_of("E  assert b'' == b'hello'", changed) == ()
    assert rules_of("E  {'io.trimtab.instance': 'i1'} != {}") == ("label.reserved",)


def test_a_difference_without_a_named_rule_is_a_defect() -> None:
    through = {
        "a": Outcome("a", "passed"),
        "b": failed("b", REFUSED),
        "c": failed("c", "E  assert 1 == 2"),
        "d": Outcome("d", "skipped"),
    }
    unnamed = Judgement(0.5, ("quota.owner",))
    found = compare(STRAIGHT, through, [unnamed], NAMED)
    assert [each.test for each in found.defects] == ["c", "d", "e"]
    told = "\n".join(report(found))
    assert "5 pass straight; 1 of them pass through the broker (20.0 %)," in told
    assert "1 are refused by a rule that docs/compatibility.md names," in told
    assert "3 are defects" in told
    assert "DEFECT c: failed; refused meanwhile: quota.owner" in told


def test_what_fails_straight_is_no_difference() -> None:
    straight = {"a": failed("a", "x"), "b": Outcome("b", "skipped")}
    assert compare(straight, {}, (), NAMED).differences == ()


def test_the_figures_of_the_page_add_up_and_name_no_defect() -> None:
    straight, *others = (int(number) for number in re.findall(r"\| (\d+) \|$", SUITE, re.MULTILINE))
    assert straight == sum(others)
    assert others[-1] == 0
