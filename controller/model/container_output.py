"""A container's output: its lines, and a run of a container that failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controller.model.names import Key

StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class LogLine:
    r"""One line of output, without its end.

    ``time`` is RFC 3339 with nanoseconds, as the engine writes it: two of them compare as text.
    Bytes that are no UTF-8 are written as ``\xNN``; control characters are kept as they are.
    """

    time: str
    stream: StreamName
    text: str


@dataclass(frozen=True, slots=True)
class FailedRun:
    """One run of a container that failed: its cause and its last lines.

    ``run`` names the run among all runs of the container. ``exit_code`` is None where the engine
    doesn't show one, for example because it has restarted the container since.
    """

    key: Key
    slot: int
    container: str  # name
    id: str
    run: str
    revision: str
    owner: str
    at: str  # RFC 3339
    cause: str  # in words that follow the container's name: "exited with 1"
    exit_code: int | None = None
    signal: str = ""  # SIGKILL and the like
    oom: bool = False
    lines: tuple[LogLine, ...] = ()
    unread: str = ""  # why the output couldn't be read
