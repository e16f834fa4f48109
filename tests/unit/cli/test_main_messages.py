"""What people read when they make a mistake, to the letter: what, where, why, what next."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.replay import FOLDER, replayed


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.txt")), ids=lambda file: file.stem)
def test_a_mistake_is_answered_with_the_message_that_is_written(file: Path) -> None:
    text = file.read_text("utf-8")
    assert replayed(text) == text


def test_each_message_says_what_to_do_next() -> None:
    for file in FOLDER.glob("*.txt"):
        for section in file.read_text("utf-8").split("\n# "):
            assert "remedy: " in section, section
