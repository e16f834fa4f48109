"""docs/operations/changes.md shows plans as they are."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations" / "changes.md").read_text("utf-8")


@pytest.mark.parametrize(
    "scene",
    [
        "a-changed-limit-and-a-changed-value-are-named",
        "a-rolled-back-service-says-that-its-document-is-ahead",
    ],
)
def test_the_page_shows_what_the_golden_plans_show(scene: str) -> None:
    shown = (ROOT / "tests" / "golden" / scene / "shown.txt").read_text("utf-8")
    assert f"```\n{shown}```\n" in PAGE
