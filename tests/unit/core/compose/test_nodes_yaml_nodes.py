import pytest

from controller.core.compose.nodes import MAX_NODES, ReadingReport, plain, read_yaml
from controller.core.yaml.loading import NodeAllowance


def read(text: str):
    report = ReadingReport()
    found = read_yaml(text.encode(), "f", NodeAllowance(MAX_NODES), report)
    return [plain(node) for node, _ in found], [
        f"{p.line}:{p.column} {p.code}" for p in report.problems
    ]


def test_documents_and_merge_keys_are_read():
    assert read("a: &x {b: 1}\nc: {<<: *x, d: 2}\n---\ne: 3\n---\n# nothing\n") == (
        [{"a": {"b": 1}, "c": {"d": 2, "b": 1}}, {"e": 3}],
        [],
    )


def test_the_first_of_several_merged_mappings_wins():
    assert read("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {y: 0, <<: [*a, *b]}\n")[0][0]["c"] == {
        "y": 0,
        "x": 1,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "2:1 yaml.duplicate-key"),
        ("1: 2\n", "1:1 yaml.key"),
        ("a: {<<: 5}\n", "1:5 yaml.merge"),
        ("a: !!binary eA==\n", "1:4 yaml.tag"),
        ("a: 2024-01-01\n", "1:4 compose.date"),
        ("a: .inf\n", "1:4 compose.value"),
        ("a: \x01\n", "1:1 yaml.syntax"),
        ("a: [\n", "1:5 yaml.syntax"),
    ],
)
def test_a_mistake_has_a_place(text, problem):
    assert read(text)[1] == [problem]


def test_resets_are_recorded_by_path():
    found = read_yaml(
        b"a: {b: !reset 1, c: !override [1]}", "f", NodeAllowance(MAX_NODES), ReadingReport()
    )
    ((node, resets),) = found
    assert plain(node) == {"a": {"c": [1]}}
    assert resets == (("a", "b"), ("a", "c"))


def test_the_nodes_of_a_project_are_bounded():
    budget = NodeAllowance(nodes=5)
    report = ReadingReport()
    assert read_yaml(b"[1, 2, 3]", "f", budget, report)
    assert not read_yaml(b"[1, 2, 3]", "g", budget, report)
    assert [p.code for p in report.problems] == ["yaml.limit"]
