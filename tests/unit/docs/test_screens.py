"""docs/screens.md shows what the code prints, and nothing on it is wider than it says."""

from __future__ import annotations

import re

from controller.cli.output.tables import cell_width
from tests.unit.docs import screens

BLOCK = re.compile(r"^(\d+) columns:\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_is_what_the_code_prints() -> None:
    assert screens.page() == screens.PAGE.read_text("utf-8"), "run `make docs`"


def test_every_screen_fits_its_width() -> None:
    shown = BLOCK.findall(screens.PAGE.read_text("utf-8"))
    assert [int(width) for width, _ in shown] == [80, 120] * 4
    for width, text in shown:
        assert max(map(cell_width, text.splitlines())) <= int(width), text


def test_the_reason_of_what_failed_is_on_every_status_screen() -> None:
    for width in screens.WIDTHS:
        for command, _, screen in screens.screens(width):
            if command in {"status", "up"}:
                assert "no such image" in " ".join(screen.split())
                assert 'exited with 1: "FATAL: POSTGRES_PASSWORD' in " ".join(screen.split())
                assert "again in 40 s" in " ".join(screen.split())
