from controller.core.compose.project import ComposeProject, Place
from controller.model.errors import Problem, Severity


def project(**fields) -> ComposeProject:
    return ComposeProject(
        "shop", ".", {}, {("services", "web"): Place("compose.yaml", 3, 5)}, **fields
    )


def test_a_value_without_a_place_has_the_place_of_its_nearest_ancestor():
    assert project().locate(("services", "web", "ports", 0)) == Place("compose.yaml", 3, 5)


def test_a_value_without_any_place_is_at_the_start_of_the_first_file():
    assert project(files=("compose.yaml",)).locate(("name",)) == Place("compose.yaml", 1, 1)


def test_a_project_with_warnings_alone_is_valid():
    assert project(problems=(Problem("a.b", "c", severity=Severity.WARNING),)).valid
    assert not project(problems=(Problem("a.b", "c"),)).valid
