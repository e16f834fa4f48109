"""Git sources as the fetcher reports them: commits, signatures, states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.model.names import Key


class SourceState(StrEnum):
    """The state of a source."""

    #: No commit was fetched yet.
    PENDING = "Pending"
    #: The newest commit of the reference is served.
    READY = "Ready"
    #: A newer commit isn't served.
    HELD = "Held"
    #: The last fetch failed; the served commit stays.
    FAILING = "Failing"
    #: By ``spec.suspend``, or an operator's hold.
    SUSPENDED = "Suspended"


@dataclass(frozen=True, slots=True)
class CommitSignature:
    """A checked signature of a commit or tag."""

    #: ``ssh`` or ``openpgp``.
    format: str
    #: The principal or user id in the file of keys.
    signer: str
    #: The fingerprint of the key.
    key: str


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit of a source."""

    commit: str
    author: str = ""
    #: The author's and the committer's time, RFC 3339.
    authored: str = ""
    committed: str = ""
    #: The first line of the message.
    subject: str = ""
    #: None for an unverified commit.
    signature: CommitSignature | None = None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The state of a source. Times are RFC 3339 texts, '' for never."""

    name: str
    state: SourceState
    url: str
    #: The followed reference, such as ``branch main``.
    ref: str
    #: The folder of the documents in the exported files.
    path: str = "."
    #: Why the state isn't Ready: a stable code, a sentence, a remedy.
    reason: str = ""
    message: str = ""
    remedy: str = ""
    #: The served commit.
    current: CommitInfo | None = None
    #: A newer commit that isn't served.
    candidate: CommitInfo | None = None
    #: Who approved the served commit, if an approval was needed.
    approved_by: str = ""
    since: str = ""
    last_fetch: str = ""
    last_success: str = ""
    next_fetch: str = ""
    #: Failed fetches in a row.
    failures: int = 0
    #: Why the forge doesn't get the commit statuses: a code, a sentence, a remedy; '' if it does.
    forge_reason: str = ""
    forge_message: str = ""
    forge_remedy: str = ""


@dataclass(frozen=True, slots=True)
class SourceHold:
    """A newer commit that a source doesn't serve, for the journal."""

    key: Key
    commit: str
    reason: str
    message: str
    #: The document of the Source.
    file: str
    line: int


class OutcomeState(StrEnum):
    """The state of a commit in one namespace."""

    PENDING = "pending"
    #: All resources are as declared.
    SUCCESS = "success"
    #: A resource can't be brought to its declared state.
    FAILURE = "failure"
    #: Documents can't be read.
    ERROR = "error"
    #: The commit isn't served.
    HELD = "held"
    #: A newer commit came before the outcome.
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """The outcome of a commit of a source in one namespace, for the forge."""

    source: str
    commit: str
    namespace: str
    state: OutcomeState
    #: At most 140 characters, without messages and outputs: a forge can be public.
    text: str

    @property
    def place(self) -> tuple[str, str, str]:
        """The key of an outcome: source, commit and namespace."""
        return (self.source, self.commit, self.namespace)
