"""docs/compatibility.md is the table of clients that the tests run, and refuses by known codes."""

from __future__ import annotations

import re

from tests.compat.table import CODES, TABLE, page
from tests.compat.world import PROJECT

PAGE = PROJECT / "docs" / "compatibility.md"


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text("utf-8") == page(CODES), (
        "write it: python -m tests.compat.table > docs/compatibility.md"
    )


def test_each_rule_of_the_table_is_in_the_list_of_codes() -> None:
    codes = set(re.findall(r"^\| `([a-z0-9.-]+)`", CODES, re.MULTILINE))
    assert {row.refused for row in TABLE if row.refused} - codes == set()
