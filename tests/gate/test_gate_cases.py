"""The gate's cases before a real engine: a test a group, and proof that the table can fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.gate import cases as table
from tests.gate.cases import Judged

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine
    from tests.gate.fixtures import World

#: The first test judges all cases: half a minute of processor time, minutes on a busy machine.
pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(600)]
CASES = table.with_viewers(table.read_cases(table.CASES))
GROUPS = sorted({case.group for case in CASES})
#: What a gate that passes everything on has no way to get right.
CHANGING = {
    case.id
    for case in CASES
    if case.expect == "deny" and (case.served_as or case.method not in {"GET", "HEAD"})
}
#: Mutated cases that hold of a body as the client wrote it.
UNCHANGED = {"cpu-quota-ok", "env-ok", "exception-of-clients"} | {
    case.id for case in CASES if case.group.startswith("grant-") and case.expect == "mutated"
}


@dataclass(frozen=True, slots=True)
class Sitting:
    """All cases, judged once."""

    judged: dict[str, Judged]

    def of(self, group: str) -> list[Judged]:
        judged = self.judged.values()
        return [each for each in judged if each.case.group == group and not each.case.served_as]

    def of_viewer(self, role: str) -> list[Judged]:
        """Return what others are served, as a viewer asked for it."""
        judged = self.judged.values()
        return [each for each in judged if each.case.role == role and each.case.served_as]


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    with table.opened(engine, CASES) as made:
        yield made


@pytest.fixture(scope="module")
def sitting(world: World) -> Sitting:
    judged = table.judge_all(world, CASES, "broker")
    print("\n".join(table.report(judged)))
    return Sitting({each.case.id: each for each in judged})


@pytest.mark.parametrize("group", GROUPS)
def test_every_case_of_the_group_is_right(sitting: Sitting, group: str) -> None:
    judged = sitting.of(group)
    assert judged
    assert [f"{each.case.id}: {each.wrong}" for each in table.wrong_ones(judged)] == []


@pytest.mark.parametrize("role", table.VIEWERS)
def test_a_viewer_is_refused_all_that_others_are_served(sitting: Sitting, role: str) -> None:
    judged = sitting.of_viewer(role)
    others = {each.id for each in CASES if each.expect != "deny" and each.role not in table.VIEWERS}
    assert {each.case.served_as for each in judged} == others
    assert [f"{each.case.id}: {each.wrong}" for each in table.wrong_ones(judged)] == []
    served = {each.case.served_as for each in judged if each.case.expect != "deny"}
    assert served == ({"client-logs-follow"} if role == "viewer" else set())


def test_no_case_is_left_out(sitting: Sitting) -> None:
    written = [each for each in sitting.judged.values() if not each.case.served_as]
    assert len(written) == len(table.CASES.read_text("utf-8").splitlines())


def test_a_gate_that_passes_everything_on_is_found_wrong(world: World) -> None:
    cases = [case for case in CASES if case.id in CHANGING or case.expect == "mutated"]
    judged = table.judge_all(world, cases, "pass-through")
    wrong = {each.case.id for each in table.wrong_ones(judged)}
    assert CHANGING - wrong == set()
    assert {c.id for c in CASES if c.expect == "mutated"} - wrong == UNCHANGED
    assert table.report(judged)[-1].endswith(f" cases, {len(wrong)} wrong")


def test_a_gate_that_refuses_everything_is_found_wrong(world: World) -> None:
    # Refused without a look they are all alike: one of a group stands for what is refused rightly.
    refused = {case.group: case for case in CASES if case.expect == "deny"}
    cases = [case for case in CASES if case.expect != "deny" or case is refused[case.group]]
    judged = table.judge_all(world, cases, "refuse-all")
    wrong = {each.case.id for each in table.wrong_ones(judged)}
    served = {each.case.id for each in judged if each.case.expect != "deny"}
    assert wrong == served
    assert table.report(judged)[-1] == f"{len(cases)} cases, {len(served)} wrong"
