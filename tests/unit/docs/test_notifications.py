"""docs/notifications.md has every member of a destination, as the code has it."""

from __future__ import annotations

import re

from controller.core.settings_file import load_settings
from controller.model.notice_targets import targets_of
from tools import docs

PAGE = docs.NOTIFICATIONS.read_text("utf-8")


def test_the_table_is_what_the_code_says() -> None:
    assert docs.with_destinations(PAGE) == PAGE, "run `make docs`"


def test_the_examples_are_settings() -> None:
    examples = re.findall(r"```yaml\n( *notify:\n.*?)```", PAGE, re.DOTALL)
    read = [load_settings(each, "f") for each in examples]
    assert [each.faults for each in read] == [()] * 3
    names = [[t.name for t in targets_of(each.settings.notify_destinations)] for each in read]
    assert names == [["oncall"], ["mail", "pager", "phone"], ["shop-team"]]
