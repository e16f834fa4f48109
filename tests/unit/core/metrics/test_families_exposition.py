from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.metrics.families import (
    Family,
    MetricsOwner,
    MetricValues,
    TextBounds,
    exposition,
    joined,
    series_of,
)
from tests.examples import examples

HEAT = Family("heat_celsius", "gauge", "How hot.", MetricsOwner.BROKER, ("room", "wall"))
RUNS = Family("runs_total", "counter", "Runs.", MetricsOwner.BROKER)


def test_a_text_has_each_family_once_in_their_order_with_its_values() -> None:
    values = {("runs_total",): 3, ("heat_celsius", "hall", "north"): 21.5}
    text, dropped = exposition([HEAT, RUNS], values)
    assert dropped == 0
    assert text == (
        "# HELP heat_celsius How hot.\n"
        "# TYPE heat_celsius gauge\n"
        'heat_celsius{room="hall",wall="north"} 21.500\n'
        "# HELP runs_total Runs.\n"
        "# TYPE runs_total counter\n"
        "runs_total 3\n"
    )
    assert exposition([HEAT], {}) == ("", 0)


@given(room=st.text(max_size=300), wall=st.text(max_size=5))
@settings(max_examples=examples(60))
def test_a_label_is_one_line_whatever_its_text(room: str, wall: str) -> None:
    text, _ = exposition([HEAT], {("heat_celsius", room, wall): 1})
    assert text.count("\n") == 3, "two comments and a value"
    line = text.split("\n")[2]
    assert line.startswith('heat_celsius{room="') and line.endswith('"} 1')
    inner = line.removeprefix('heat_celsius{room="').removesuffix('"} 1')
    plain = inner.replace("\\\\", "").replace('\\"', "").replace("\\n", "")
    assert plain.replace('",wall="', "", 1).count('"') == 0


def test_values_beyond_a_bound_are_counted_and_left_out() -> None:
    values: MetricValues = {("heat_celsius", f"{n:03}", "x"): n for n in range(50)}
    text, dropped = exposition([HEAT], values, TextBounds(series=7, size=10_000))
    assert (text.count('wall="x"'), dropped) == (7, 43)
    text, dropped = exposition([HEAT], values, TextBounds(series=1000, size=400))
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert sum(len(line) + 1 for line in lines) <= 400
    assert len(lines) + dropped == 50 and dropped


def test_joined_texts_have_each_family_once() -> None:
    one, _ = exposition([HEAT], {("heat_celsius", "a", ""): 1})
    two, _ = exposition([HEAT, RUNS], {("heat_celsius", "b", ""): 2, ("runs_total",): 4})
    both, _ = exposition(
        [HEAT, RUNS],
        {("heat_celsius", "a", ""): 1, ("heat_celsius", "b", ""): 2, ("runs_total",): 4},
    )
    assert joined([one, two]) == both
    assert joined([]) == ""


@given(room=st.text(max_size=200), wall=st.text(max_size=5))
@settings(max_examples=examples(60))
def test_the_values_of_a_text_are_read_back(room: str, wall: str) -> None:
    text, _ = exposition([HEAT, RUNS], {("heat_celsius", room, wall): 2.5, ("runs_total",): 3})
    assert series_of(text) == [
        {"name": "heat_celsius", "labels": {"room": room, "wall": wall}, "value": 2.5},
        {"name": "runs_total", "labels": {}, "value": 3.0},
    ]
