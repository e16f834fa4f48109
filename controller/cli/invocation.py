"""The name or path of the running trimtab, so that users can type hints as printed."""

from __future__ import annotations

import re
import shutil
import sys
from functools import cache
from pathlib import Path

#: A command in a hint, as in "start it with 'trimtab up'".
_COMMAND_IN_HINT = re.compile(r"(?<=['`])trimtab(?= )")


@cache
def program() -> str:
    """Return ``trimtab`` if PATH finds the running program, else its path."""
    called = Path(sys.argv[0])
    if called.name != "trimtab" or not called.is_file():
        return "trimtab"  # python -m controller, or a test
    found = shutil.which("trimtab")
    if found is not None and called.samefile(found):
        return "trimtab"
    return str(called)


def with_program(hint: str) -> str:
    """Return a hint with the running program's name or path in its commands."""
    return _COMMAND_IN_HINT.sub(program(), hint)
