"""docs/operations/git.md says what is shown on real repositories."""

from tests.git import happenings


def test_the_page_is_what_the_table_says() -> None:
    assert happenings.page() == happenings.PAGE.read_text("utf-8"), "run `make docs`"


def test_rows_of_every_state_server_and_verification_are_beside_an_engine() -> None:
    beside, every = happenings.beside_engine().values(), happenings.HAPPENINGS.values()
    for member in ("state", "problem", "over", "verify", "is_shared"):
        assert {getattr(each, member) for each in beside} == {
            getattr(each, member) for each in every
        }
    assert len(every) == sum(map(len, happenings.SECTIONS.values()))
