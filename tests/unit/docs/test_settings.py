"""docs/settings.md has every key of the settings, as the code has it."""

from __future__ import annotations

import re

from controller.core.settings_file import load_settings
from tools import docs

PAGE = docs.SETTINGS.read_text("utf-8")


def test_the_table_is_what_the_code_says() -> None:
    assert docs.with_settings(PAGE) == PAGE, "run `make docs`"


def test_the_example_is_a_file_of_settings() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert load_settings(example, "f").settings.quarantine == "24h"
