"""docs/operations/drift.md says what the code does, and what is shown on a real engine."""

from collections import Counter

from tests.e2e import drifts


def test_the_page_is_what_the_code_and_the_scenario_say() -> None:
    assert drifts.page() == drifts.PAGE.read_text("utf-8"), "run `make docs`"


def test_rows_of_one_service_are_all_repaired_in_place() -> None:
    times = Counter(row.name for row in drifts.TABLE)
    shared = {row.healed for row in drifts.TABLE if times[row.name] > 1}
    assert shared <= {drifts.Healed.IN_PLACE}, "a replacement would hide what the others are"
