"""Problems and errors. Each states the fault, the place, the reason and the next actor.

The tree::

    TrimtabError                 code, message, remedy, who acts next
      UsageError                 wrong use of a command (exit 64)
      InvalidDesiredState        the files have errors (exit 3)
      PolicyInvalid              the policy file has errors: the broker does not start
      SettingsInvalid            the file of settings has errors: the broker does not start
      CredentialsInvalid         the file of registry credentials cannot be used
      StateError                 the state folder is locked, another engine's, or not writable
      SourceError                a Git source could not be fetched, verified or exported
      SecretError                a Secret could not be decrypted, made or encrypted
      JournalUnavailable         a record could not be made durable: mutations are refused
      EngineError                the engine, or the broker in front of it, failed a request
        EngineUnavailable        no answer, possibly for a short time (waiting)
        ReplyLost                sent, with unknown effect: observe again
        Refused                  the gate denied the request (stalled): rule and remedy
        OverShare                the disruption budget is used up (waiting): ends by itself
        TooManyRequests          the limit of concurrent requests is reached (waiting)
        Conflict                 the name is taken, or the state does not fit: observe again
        NotFound                 the object does not exist
        EngineFailed             the engine answered with an error
          PullFailed             an image could not be pulled; the code decides who acts next
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.model.names import Key


class Act(StrEnum):
    """Who acts next after an error."""

    STALLED = "stalled"  # a person must act
    WAITING = "waiting"  # a known time or event ends the error
    RETRY = "retry"  # try again with backoff


class Severity(StrEnum):
    """The severity of a problem. Only errors make the desired state invalid."""

    ERROR = "error"
    WARNING = "warning"
    REFUSED = "refused"  # valid, but denied by the policy


#: Codes of warnings about Compose files in which trimtab differs from Docker Compose. They stand as long as
#: the file does, and nobody has to act: only ``validate`` and ``try`` show them one by one.
NOTES: Final = frozenset({"compose.by-policy", "compose.loopback"})


def notes_text(codes: Iterable[str]) -> str:
    """Return a line with the number of notes among the codes of problems; '' for none."""
    count = sum(code in NOTES for code in codes)
    noun = "note" if count == 1 else "notes"
    return f"{count} {noun} on Compose files; 'trimtab validate' shows them" if count else ""


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """A line and a column of a file, from 1."""

    line: int
    column: int
    #: The file, if it isn't the document's own.
    file: str = ""


@dataclass(frozen=True, slots=True)
class ValuePlaces:
    """The places of a document's values, for a document that was made from other files."""

    #: Pairs of the path of a value and its place; the first one is the document's, with the path ().
    entries: tuple[tuple[tuple[str | int, ...], SourcePosition], ...]

    def find(self, path: tuple[str | int, ...]) -> SourcePosition:
        """Return the place of the value at *path*, or of its nearest ancestor with a place."""
        known = dict(self.entries)
        for length in range(len(path), 0, -1):
            if (place := known.get(path[:length])) is not None:
                return place
        return self.entries[0][1]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault in the files of users, at its place.

    Example, rendered::

        web.yaml:12:5: error field.unknown: unknown key "prots" in spec
            remedy: did you mean ports?
    """

    code: str
    message: str
    file: str = ""
    #: Line and column count from 1; 0 is the file as a whole.
    line: int = 0
    column: int = 0
    expected: str = ""
    remedy: str = ""
    severity: Severity = Severity.ERROR
    #: The resource that the document declares, if kind and name could be read. An error without a
    #: key blinds its whole source: nothing of it is pruned.
    key: Key | None = None
    #: The path in the document, such as ``spec.ports[0].host``; '' for no single field.
    field: str = ""

    @property
    def place(self) -> str:
        """``FILE:LINE:COLUMN``, without the parts that are unknown."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    def render(self, excerpt: Sequence[str] = ()) -> str:
        """Return ``FILE:LINE:COLUMN: severity code: message``, then the remedy and the expectation.

        *excerpt* is the source line with its mark, printed below the message. An expectation that
        the message or the remedy contains is left out, and the list of known keys if the remedy
        names the intended key.
        """
        place = f"{self.place}: " if self.place else ""
        head = _one_line(f"{place}{self.severity.value} {self.code}: {self.message}")
        lines = [head, *excerpt]
        if self.remedy:
            lines.append(f"    remedy: {_one_line(self.remedy)}")
        known = self.code == "field.unknown" and self.remedy
        told = self.expected in self.message or self.expected in self.remedy
        if self.expected and not told and not known:
            lines.append(f"    expected: {_one_line(self.expected)}")
        return "\n".join(lines)


def _one_line(text: str) -> str:
    """Return text on one line, with escapes for characters that control a terminal."""
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1]
        for letter in text.replace("\n", " ")
    )


def error_reason(error: Exception) -> str:
    """Return the reason of an error; of a system call's error without its number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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
    """A command was used wrongly."""


class InvalidDesiredState(TrimtabError):
    """The given files have errors."""


class PolicyInvalid(TrimtabError):
    """The policy file cannot be used. The message has file, line and reason."""


class SettingsInvalid(TrimtabError):
    """The file of settings cannot be used. The message has file, line, reason and remedy."""


class CredentialsInvalid(TrimtabError):
    """The file of registry credentials cannot be used. The message repeats none of the content."""


class StateError(TrimtabError):
    """The state folder cannot be used in its present state."""


class SourceError(TrimtabError):
    """A Git source could not be fetched, verified or exported. What it serves stays."""


class SecretError(TrimtabError):
    """A Secret could not be decrypted, made or encrypted. The message repeats no plain text."""


class JournalUnavailable(TrimtabError):
    """A record could not be made durable."""

    act = Act.WAITING


class EngineError(TrimtabError):
    """The engine, or the broker in front of it, failed a request."""

    act = Act.RETRY

    def __init__(self, code: str, message: str, *, remedy: str = "", status: int = 0) -> None:
        super().__init__(code, message, remedy=remedy)
        self.status = status


class EngineUnavailable(EngineError):
    """The engine does not answer, or its answer cannot be used yet."""

    act = Act.WAITING


#: The codes of an engine or a broker that doesn't answer.
UNREACHABLE_CODES: Final = ("engine.unavailable", "broker.unavailable", "broker.lost")


class ReplyLost(EngineError):
    """The request was sent and the reply was lost: neither success nor failure."""


class Refused(EngineError):
    """The gate denied the request; ``code`` is the rule id."""

    act = Act.STALLED


class OverShare(EngineError):
    """The disruption budget is used up: as many services as allowed have no running slot.

    Time helps, or an approval.
    """

    act = Act.WAITING


class TooManyRequests(EngineError):
    """The limit of concurrent requests of this kind is reached."""

    act = Act.WAITING


class Conflict(EngineError):
    """A name is taken, or the state of the object does not permit the request."""


class NotFound(EngineError):
    """The object does not exist, or no longer."""


class EngineFailed(EngineError):
    """The engine answered with an error."""


class PullFailed(EngineFailed):
    """An image could not be pulled (``core.engine_api.streams``)."""

    def __init__(self, code: str, message: str, *, act: Act, remedy: str = "") -> None:
        super().__init__(code, message, remedy=remedy)
        self.act = act
