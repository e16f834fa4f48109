"""Problems and errors: each says what, where, why, and who acts next.

The tree::

    TrimtabError                 code, message, remedy, who acts next
      UsageError                 wrong call of a command (exit 64)
      InvalidDesiredState        the files are wrong (exit 3)
      PolicyInvalid              the policy file is wrong: the broker doesn't start
      CredentialsInvalid         the file of registry credentials can't be used
      StateError                 the state folder can't be used (held, another engine's, unwritable)
      JournalUnavailable         a record couldn't be made durable: mutations are refused
      EngineError                the engine, or the broker before it, didn't do what was asked
        EngineUnavailable        no answer; it may come back (waiting)
        ReplyLost                sent, but whether it happened isn't known: look again
        Refused                  the gate refused (stalled): rule and remedy
        OverShare                too much is down already (waiting): it passes by itself
        Crowded                  as much of it is done as may be at a time (waiting)
        Conflict                 the name is taken, or the state doesn't fit: look again
        NotFound                 the object isn't there
        EngineFailed             the engine answered with an error
          PullFailed             an image couldn't be had; its code says who acts next
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from controller.model.names import Key


class Act(StrEnum):
    """Who acts next after an error."""

    STALLED = "stalled"  # a person must act
    WAITING = "waiting"  # a known time, or a known thing, must come
    RETRY = "retry"  # try again with backoff


class Severity(StrEnum):
    """How grave a problem is: only errors make the desired state invalid."""

    ERROR = "error"
    WARNING = "warning"
    REFUSED = "refused"  # valid, and the policy doesn't admit it


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with what users wrote, at its place.

    ``line`` and ``column`` count from 1; 0 means "the file as a whole". ``key`` names the
    resource that it may have declared, where kind and name could be read; a problem of severity
    error without a key blinds its whole source for pruning. ``field`` is the path in the document,
    such as ``spec.ports[0].host``; empty if the problem concerns no single field.
    """

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    expected: str = ""
    remedy: str = ""
    severity: Severity = Severity.ERROR
    key: Key | None = None
    field: str = ""

    @property
    def place(self) -> str:
        """``FILE:LINE:COLUMN``, as far as it is known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def render(self, excerpt: Sequence[str] = ()) -> str:
        """Return ``FILE:LINE:COLUMN: severity code: message`` with the remedy and the expectation.

        *excerpt* is the source line with its mark; it stands below the message. The list of known
        keys is left out where the remedy names the one that is meant.
        """
        place = f"{self.place}: " if self.place else ""
        lines = [f"{place}{self.severity.value} {self.code}: {self.message}", *excerpt]
        if self.remedy:
            lines.append(f"    remedy: {self.remedy}")
        known = self.code == "field.unknown" and self.remedy
        if self.expected and self.expected not in self.message and not known:
            lines.append(f"    expected: {self.expected}")
        return "\n".join(lines)


class TrimtabError(Exception):
    """Base of all errors that trimtab raises on purpose."""

    act: Act = Act.STALLED

    def __init__(self, code: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        tail = f" ({self.remedy})" if self.remedy else ""
        return f"{self.code}: {self.message}{tail}"


class UsageError(TrimtabError):
    """A command was called wrongly."""


class InvalidDesiredState(TrimtabError):
    """The files that were named have errors."""


class PolicyInvalid(TrimtabError):
    """The policy file can't be used; the message says file, line and why."""


class CredentialsInvalid(TrimtabError):
    """The file of registry credentials can't be used; nothing of it is repeated."""


class StateError(TrimtabError):
    """The state folder can't be used as it is."""


class JournalUnavailable(TrimtabError):
    """A record couldn't be made durable."""

    act = Act.WAITING


class EngineError(TrimtabError):
    """The engine, or the broker in front of it, didn't do what was asked."""

    act = Act.RETRY

    def __init__(self, code: str, message: str, *, remedy: str = "", status: int = 0) -> None:
        super().__init__(code, message, remedy=remedy)
        self.status = status


class EngineUnavailable(EngineError):
    """Nobody answers, or the answer can't be used yet."""

    act = Act.WAITING


class ReplyLost(EngineError):
    """The request was sent and its reply never came: neither success nor failure."""


class Refused(EngineError):
    """The gate refused: ``code`` is the rule id."""

    act = Act.STALLED


class OverShare(EngineError):
    """As many services as may be are without a running slot: time helps, or an approval."""

    act = Act.WAITING


class TooManyRequests(EngineError):
    """As much of that is done already as may be at a time."""

    act = Act.WAITING


class Conflict(EngineError):
    """A name is taken, or the object's state doesn't admit the call."""


class NotFound(EngineError):
    """The object isn't there (any more)."""


class EngineFailed(EngineError):
    """The engine answered with an error."""


class PullFailed(EngineFailed):
    """An image couldn't be had (``core.engine_api.pull_errors``)."""

    def __init__(self, code: str, message: str, *, act: Act, remedy: str = "") -> None:
        super().__init__(code, message, remedy=remedy)
        self.act = act
