import pytest

from controller.core.compose.nodes import (
    ComposeNode,
    PathTable,
    ReadingReport,
    plain,
    same,
    scalar_text,
)


def node(value, line=1) -> ComposeNode:
    return ComposeNode(value, "f", line, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "<nil>"),
        (5, "5"),
        (1.0, "1"),
        (0.5, "0.5"),
        (1e6, "1e+06"),
        (1e5, "100000"),
        (1.5e-7, "1.5e-07"),
        (0.0001, "0.0001"),
        (123456789.5, "1.234567895e+08"),
    ],
)
def test_a_scalar_is_printed_as_compose_prints_it(value, text):
    assert scalar_text(value) == text


def test_a_table_finds_rules_by_pattern():
    table = PathTable({"services.*.ports": 1, "services.*.ports.*": 2})
    services = table.below("services")
    assert services is not None
    ports = services.below("any")
    assert ports is not None
    assert (found := ports.below("ports")) is not None
    assert found.rule == 1
    assert found.below("*").rule == 2  # type: ignore[union-attr]
    assert table.below("networks") is None


def test_equality_tells_booleans_from_numbers():
    assert same(node({"a": node([node(1)])}), node({"a": node([node(1)], line=5)}))
    assert not same(node(value=True), node(1))
    assert not same(node([]), node({}))


def test_a_problem_is_reported_once():
    report = ReadingReport()
    report.warn(node(1), "a.b", "text", "remedy", ("a", 0, "b"))
    report.warn(node(1), "a.b", "text", "remedy", ("a", 0, "b"))
    assert [problem.message for problem in report.problems] == ["a[0].b: text"]
    assert not report.failed


def test_a_node_is_read_as_plain_values():
    assert plain(node({"a": node([node(1)])})) == {"a": [1]}
