"""The lines of the suite, a module for each subject."""

from __future__ import annotations

from typing import Final

from tools.suite.line import Line
from tools.suite.lines import changes, commands, converge, crowd, heal, idle, requests, share

#: In the order of a run: lines that share a stage follow each other.
LINES: Final[tuple[Line, ...]] = (
    commands.NOOP,
    commands.COMMANDS,
    heal.LINE,
    idle.LINE,
    changes.RAISES,
    changes.FILE,
    requests.LINE,
    share.LINE,
    converge.PLAIN_LINE,
    converge.ISOLATED_LINE,
    *crowd.SCALES,
    crowd.STORM,
)
