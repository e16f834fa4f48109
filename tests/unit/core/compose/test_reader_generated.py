"""Properties of all readings: no exception, a place and a remedy on each problem, no chance."""

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.compose.project import ComposeProject
from tests.examples import examples
from tests.unit.core.compose.generated_projects import mutations, projects
from tests.unit.core.compose.projects import read


def check(project: ComposeProject) -> None:
    assert bool(project.tree) == project.valid
    for problem in project.problems:
        assert problem.file
        assert problem.remedy, problem.render()
    for path in project.places:
        node: object = project.tree
        for part in path:
            node = node[part]  # type: ignore[index]


@settings(max_examples=examples(25))
@given(projects())
def test_a_project_of_the_schema_is_read_or_refused(files):
    project = read(files)
    check(project)
    assert project == read(files)


@settings(max_examples=examples(30))
@given(mutations(), st.sampled_from(["compose.yaml", "compose.override.yaml", ".env", "base.yaml"]))
def test_any_text_is_read_or_refused(text, name):
    files = {
        "shop/compose.yaml": "services: {a: {extends: {file: base.yaml, service: b}}}\n",
        "shop/base.yaml": "services: {b: {image: x, ports: ['80:80']}}\n",
    }
    check(read({**files, f"shop/{name}": text}))
