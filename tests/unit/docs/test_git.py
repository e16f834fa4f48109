"""docs/operations/git.md says what is shown on real repositories."""

from tests.git import happenings


def test_the_page_is_what_the_table_says() -> None:
    assert happenings.page() == happenings.PAGE.read_text("utf-8"), "run `make docs`"


def test_each_row_beside_an_engine_has_a_source() -> None:
    beside = [each for each in happenings.HAPPENINGS.values() if each.is_beside_engine]
    assert len(beside) >= 40
    assert len(happenings.HAPPENINGS) == sum(map(len, happenings.SECTIONS.values()))
