"""docs/operations/drift.md says what the code does, and what is shown on a real engine."""

from tests.e2e import drifts


def test_the_page_is_what_the_code_and_the_scenario_say() -> None:
    assert drifts.page() == drifts.PAGE.read_text("utf-8"), "run `make docs`"


def test_each_row_is_a_service_of_its_own() -> None:
    names = [row.name for row in drifts.TABLE]
    assert len(names) == len(set(names))
