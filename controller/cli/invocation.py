"""How the user calls trimtab, so that hints can be typed as they stand."""

from __future__ import annotations

import re
import shutil
import sys
from functools import cache
from pathlib import Path

#: A command in a hint, as in "start it with 'trimtab up'".
_HINTED = re.compile(r"(?<=['`])trimtab(?= )")


@cache
def program() -> str:
    """Return what the user types for trimtab: its name if PATH has it, else the path to it."""
    called = Path(sys.argv[0])
    if called.name != "trimtab" or not called.is_file():
        return "trimtab"  # python -m controller, or a test
    found = shutil.which("trimtab")
    if found is not None and called.samefile(found):
        return "trimtab"
    return str(called)


def with_program(hint: str) -> str:
    """Return a hint with its commands as the user can type them."""
    return _HINTED.sub(program(), hint)
