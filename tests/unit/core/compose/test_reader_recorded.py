"""Each recorded case is read as docker-compose read it, or refused with a place and a remedy."""

import json
from functools import cache
from typing import Any

import pytest

from controller.model.errors import Severity
from tests.unit.core.compose.projects import problems, read
from tests.unit.core.compose.recorded_cases import Case, answers, cases

CASES = list(cases())
recorded = cache(answers)


def answer(case: Case) -> Any:
    return recorded(case.group)[case.title]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.title}")
def test_a_case_is_read_as_recorded(case: Case):
    project = read(
        {f"shop/{name}": text.replace("\\r\n", "\r\n") for name, text in case.files.items()}
    )
    expected = answer(case)
    if isinstance(expected, str):
        errors = [p for p in project.problems if p.severity is Severity.ERROR]
        assert errors, f"docker-compose refuses: {expected}"
        assert all(p.file and p.line and p.remedy for p in errors), problems(project)
        assert project.tree == {}
    else:
        assert project.valid, problems(project)
        # As JSON, since Python takes True for 1.
        assert json.dumps(project.tree, sort_keys=True, indent=1) == json.dumps(
            expected, sort_keys=True, indent=1
        )


def test_every_answer_belongs_to_a_case():
    for group in {case.group for case in CASES}:
        assert set(recorded(group)) == {case.title for case in CASES if case.group == group}


def test_there_are_enough_cases_of_both_kinds():
    refused = sum(isinstance(answer(case), str) for case in CASES)
    assert len(CASES) - refused >= 120
    assert refused >= 60
