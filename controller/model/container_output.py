"""Lines of a container's output, and failed runs of containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controller.model.names import Key

StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class LogLine:
    r"""One line of output, without the line end.

    Bytes outside UTF-8 are written as ``\xNN``. Control characters are unchanged.
    """

    #: RFC 3339 with nanoseconds, as the engine writes times. Two times compare as text.
    time: str
    stream: StreamName
    text: str


@dataclass(frozen=True, slots=True)
class FailedRun:
    """One failed run of a container: the cause and the last lines of output."""

    key: Key
    slot: int
    container: str  # name
    id: str
    #: Names the run among all runs of the container.
    run: str
    revision: str
    owner: str
    at: str  # RFC 3339
    #: A predicate to follow the container's name, such as "exited with 1".
    cause: str
    #: None if the engine shows no exit code, for example after it restarted the container.
    exit_code: int | None = None
    signal: str = ""  # SIGKILL and the like
    oom: bool = False
    lines: tuple[LogLine, ...] = ()
    unread: str = ""  # why the output could not be read
    check: str = ""  # what its last failed health check printed, cut
