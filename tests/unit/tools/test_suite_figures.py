"""The suite's statistics, results file, table, page and plot."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tools.suite.chart import draw
from tools.suite.figures import Figure, median_interval, ratios, shown
from tools.suite.line import Line
from tools.suite.page import dominance, page
from tools.suite.results import LineResult, Results, merge_into, results_from_json
from tools.suite.rounds import interleave
from tools.suite.tables import figure_table

MACHINE = {"processors": "2 x some"}
RATIO = Figure(name="ours / bare", unit="x", values=(1.1, 1.2, 1.3), goal=1.15)
PLAIN = Figure(name="ours", unit="ms", values=(1000.0, 1200.0, 1300.0))
LINE = Line(name="heal", title="Healing", how="By force.", run=lambda _stage: [RATIO, PLAIN])


def measured(line: str = "heal", *figures: Figure, error: str | None = None) -> LineResult:
    return LineResult(
        line=line,
        figures=figures or (RATIO, PLAIN),
        error=error,
        at="2026-01-02T03:04:05Z",
        took_s=12.3,
        load_before=0.1,
        load_after=1.5,
    )


def results(*lines: LineResult) -> Results:
    return Results(machine=MACHINE, lines={line.line: line for line in lines})


def test_the_interval_contains_the_median_and_stays_within_the_values() -> None:
    values = [5.0, 1.0, 2.0, 9.0, 3.0, 4.0, 6.0, 7.0, 8.0, 100.0]
    found = median_interval(values)
    assert found.median == 5.5
    assert 1.0 < found.low < 5.5 < found.high < 100.0
    assert median_interval(values) == found


def test_the_interval_of_equal_values_is_a_point() -> None:
    found = median_interval([3.0] * 10)
    assert (found.median, found.low, found.high) == (3.0, 3.0, 3.0)


def test_more_rounds_narrow_the_interval() -> None:
    few = median_interval([float(value) for value in range(5)])
    many = median_interval([value / 20 for value in range(100)])
    assert many.high - many.low < few.high - few.low


def test_a_goal_is_met_by_the_median_and_unclear_if_only_the_interval_spans_it() -> None:
    assert (RATIO.interval.low, RATIO.goal) == (1.1, 1.15)
    assert RATIO.interval.median > 1.15
    assert RATIO.verdict == "unclear"
    assert Figure(name="n", unit="x", values=(1.1, 1.1, 1.3), goal=1.15).verdict == "met"
    assert Figure(name="n", unit="x", values=(1.2, 1.2), goal=1.15).verdict == "missed"
    assert PLAIN.verdict is None


def test_ratios_are_those_of_the_same_round() -> None:
    assert ratios([2.0, 30.0], [1.0, 10.0]) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1.234, "x", "1.23x"), (1234.56, "ms", "1,234.6 ms"), (12.0, "", "12"), (0.3, "%", "0.30 %")],
)
def test_values_are_shown_in_their_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_contestants_take_turns_in_a_rotating_order() -> None:
    order: list[str] = []

    def contestant(name: str, number: int) -> float:
        order.append(f"{name}{number}")
        return float(number)

    names = ("a", "b", "c")
    found = interleave({n: lambda number, n=n: contestant(n, number) for n in names}, 3)  # type: ignore[misc]
    assert order == ["a0", "b0", "c0", "b1", "c1", "a1", "c2", "a2", "b2"]
    assert found == {name: [0.0, 1.0, 2.0] for name in names}


def test_the_table_has_goal_and_verdict() -> None:
    assert figure_table([RATIO, PLAIN]).splitlines() == [
        "FIGURE        MEDIAN       95 % INTERVAL              AT MOST   GOAL",
        "ours / bare   1.20x        1.10x to 1.30x             1.15x     unclear",
        "ours          1,200.0 ms   1,000.0 ms to 1,300.0 ms",
    ]


def test_a_results_file_is_read_back() -> None:
    written = results(measured(), measured("idle", error="boom"))
    assert results_from_json(written.to_json()) == written


def test_lines_measured_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    order = ["noop", "heal", "idle"]
    merge_into(path, results(measured("idle"), measured("heal", error="boom")), order=order)
    merge_into(path, results(measured("heal"), measured("noop")), order=order)
    found = results_from_json(path.read_text())
    assert list(found.lines) == order
    assert found.lines["heal"].error is None


def test_lines_of_another_machine_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    merge_into(path, results(measured("idle")), order=["heal", "idle"])
    other = Results(machine={"processors": "64"}, lines={"heal": measured("heal")})
    assert list(merge_into(path, other, order=["heal", "idle"]).lines) == ["heal"]
    assert json.loads(path.read_text())["machine"] == {"processors": "64"}


def test_the_page_has_machine_goals_and_a_section_for_each_line() -> None:
    text = page(results(measured()), [LINE], {"heal": "A profile."})
    assert "| processors | 2 x some |" in text
    assert "| [heal](#heal) | ours / bare | 1.20x | 1.10x to 1.30x | 1.15x | unclear |" in text
    assert "## heal\n\nHealing. By force." in text
    assert "\n\nA profile.\n\n" in text
    assert "3 rounds at 2026-01-02T03:04:05Z in 12 s" in text


def test_the_page_says_which_part_dominates() -> None:
    floor = Figure(name="bare", unit="ms", values=(900.0,))
    line = Line(name="heal", title="", how="", run=lambda _stage: [], parts=("ours", "bare"))
    assert dominance(line, measured("heal", PLAIN, floor)) == (
        "What dominates: `bare`. Of 1,200.0 ms (`ours`), 900.0 ms (75 %) are the floor's (`bare`)"
        " and 300.0 ms are trimtab's."
    )
    assert dominance(LINE, measured()) == ""


def test_the_page_names_the_error_of_a_line_that_failed() -> None:
    failed = LineResult(line="heal", error="boom", at="now", took_s=1, load_before=0, load_after=0)
    assert "Not measured: boom" in page(results(failed), [LINE], {})


def test_the_plot_is_svg_with_a_row_for_each_goal() -> None:
    zero = Figure(name="a < b", unit="", values=(0.0, 3.0), goal=0)
    drawn = draw(results(measured("heal", RATIO, PLAIN, zero)))
    root = ET.fromstring(drawn)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "heal: ours / bare" in texts
    assert "heal: a < b" in texts
    assert len(texts) == 1 + 2 * 2
