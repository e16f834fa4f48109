"""The installed docker-compose and trimtab read projects alike; ``make test`` installs the program."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.core.compose.generated_projects import projects
from tests.unit.core.compose.recorded_cases import answers, cases
from tools.compose_diff import compare
from tools.compose_record import record

GROUPS = sorted({case.group for case in cases()})


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(projects())
def test_a_generated_project_is_read_as_docker_compose_reads_it(tmp_path: Path, files):
    root = tmp_path / "source"
    for name in ("compose.yaml", "compose.override.yaml"):
        (root / "shop" / name).unlink(missing_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    comparison = compare(root, "shop", "generated")
    assert comparison.outcome != "different", "\n".join(comparison.report())


@pytest.mark.parametrize("group", GROUPS)
def test_the_recorded_answers_are_those_of_the_installed_program(group):
    recorded = answers(group)
    some = [case for case in cases() if case.group == group][::8]
    assert {case.title: comparable(record(case)) for case in some} == {
        case.title: comparable(recorded[case.title]) for case in some
    }


def comparable(answer: object) -> object:
    """Return a tree; docker-compose's reason of a refusal can differ from run to run."""
    return "refused" if isinstance(answer, str) else answer
