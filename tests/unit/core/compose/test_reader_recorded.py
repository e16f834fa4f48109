"""Each recorded case becomes the same documents as docker-compose's tree of it, or is refused as there."""

from functools import cache
from typing import Any

import pytest

from controller.model.errors import Severity
from tests.unit.core.compose.projects import problems, read
from tests.unit.core.compose.recorded_cases import Case, answers, cases
from tools.compose_diff import differences, documents, project_of_tree

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
        theirs = project_of_tree(expected, project.config_values)
        assert [*differences(documents(project), documents(theirs))] == []


def test_every_answer_belongs_to_a_case():
    for group in {case.group for case in CASES}:
        assert set(recorded(group)) == {case.title for case in CASES if case.group == group}


def test_there_are_enough_cases_of_both_kinds():
    refused = sum(isinstance(answer(case), str) for case in CASES)
    assert len(CASES) - refused >= 120
    assert refused >= 60
