"""The commands of the gate to its driver: the gate itself does no I/O.

A flow of the gate is a generator of commands. The driver (asyncio in ``broker.server``,
synchronous in the simulation) executes each command and sends its result back. Every command
boundary is a crash point.

The commands of a build to the driver: receive the context, and run the build on the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.effective import Accounts
from controller.core.encoding.json_values import parse_json
from controller.core.engine_api.cdi import CdiFile
from controller.core.records.query import Page, QueryResult, Question
from controller.core.secrets.declared import SecretName, SecretSource
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.delivery import FileSet, StoredFiles, Variant
from controller.model.host_paths import PathFacts
from controller.model.names import NetworkNames
from controller.model.policy.document import Policy
from controller.model.policy.sections import SignedSource
from controller.model.records import Entry, Record, Reply
from controller.model.settings import InForce, SettingKey

if TYPE_CHECKING:
    from controller.core.proofs.proven_commit import OtherLine
    from controller.core.proofs.rendering import Rendering


@dataclass(frozen=True, slots=True)
class ReceiveContext:
    """Receive the body of the request, the context of a build. Result: ContextReceived or ContextRefused.

    The file stays with the request, for ``RunBuild``.
    """

    #: Bounds: bytes of all contents, and entries.
    bytes_max: int
    entries_max: int
    #: The name of the Dockerfile in the context.
    dockerfile: str
    within_s: float


@dataclass(frozen=True, slots=True)
class ContextReceived:
    """What admission and the record need to know of a context."""

    #: Of names, modes, targets of links and contents.
    digest: str
    #: Bytes of all contents, and entries.
    size: int
    entries: int
    #: None if the context has no such file.
    dockerfile: str | None = field(repr=False)
    #: The files that are archives or compressed, by name.
    archives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextRefused:
    """Why a body can't be the context of a build."""

    code: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class RunBuild:
    """Build an image from the received context, and send its log to the client as it comes.

    Result: a ``BuildEnded``. The build ends with the client, and beyond a bound.
    """

    #: Without the version prefix, with the query.
    path: str = field(repr=False)
    #: The name of the Dockerfile, and the text that the engine gets instead.
    dockerfile: str
    text: str = field(repr=False)
    within_s: float
    #: Bytes of the result with its base, and of the files of running commands.
    bytes_max: int
    pids_max: int
    #: Send only the id of the image.
    quiet: bool = False


REPLY_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rows:
    """Reads a list of the engine row by row, so memory doesn't grow with its length."""

    #: Returns the row for the reply, as JSON; None to leave the row out. A row beyond 512 KiB lacks its
    #: members beyond 64 KiB.
    encode: Callable[[dict[str, Any]], bytes | None]
    #: The member with the list; '' if the whole answer is the list.
    member: str = ""

    def joined(self, encoded: Iterable[bytes]) -> bytes:
        """Return the body of the reply with these rows."""
        body = b"[" + b",".join(encoded) + b"]"
        return b'{"%b":%b,"Warnings":null}' % (self.member.encode(), body) if self.member else body


def encode_row(rows: Rows, row: dict[str, Any]) -> bytes | None:
    """Return the encoded row. A row with members of unexpected types has its texts alone."""
    try:
        return rows.encode(row)
    except (AttributeError, KeyError, TypeError, ValueError):
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
    try:
        return rows.encode(texts)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def encode_list(rows: Rows, body: bytes) -> bytes:
    """Return the reply to a list that was read as a whole.

    Raises:
        ValueError: the body is no such list.
    """
    value = parse_json(body)
    if rows.member:
        value = value.get(rows.member) if isinstance(value, dict) else value
    listed = value if value is not None else []
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise ValueError("the answer is no list of objects")
    return rows.joined(each for row in listed if (each := encode_row(rows, row)) is not None)


@dataclass(frozen=True, slots=True)
class ReadEngine:
    """Read from the engine. Result: a Reply, or LOST when the engine doesn't answer.

    If all is well, reads of the paths in ``ahead`` follow. A driver may send them at the same time;
    their replies are valid until the flow yields a command other than a read.
    """

    #: Without the version prefix, with the query.
    path: str
    method: str = "GET"
    deadline_s: float = 15.0
    #: The registry with the credentials that the engine needs.
    registry: str = ""
    ahead: tuple[str, ...] = field(default=(), compare=False)
    #: The answer is a list: a driver encodes the rows of a successful answer.
    rows: Rows | None = field(default=None, compare=False)
    #: The most bytes of an answer that is no list.
    bytes_max: int = field(default=REPLY_BYTES_MAX, compare=False)
    #: Delay before the read.
    after_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class InspectPaths:
    """Inspect paths of the host without following symlinks. Result: a tuple of PathFacts."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder of the host that is missing, for a user. Result: why it failed, '' for success."""

    path: str
    uid: int


@dataclass(frozen=True, slots=True)
class ReadCdiFiles:
    """Read the CDI specifications of the host. Result: a tuple of CdiFile."""


@dataclass(frozen=True, slots=True)
class FindUidUser:
    """Find who on the host has a uid. Result: a text, '' for nobody."""

    uid: int
    #: The ids of containers whose processes don't count.
    own: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadAccounts:
    """Read the users and groups of an image. Result: Accounts, or None if they can't be told."""

    #: The folders of its layers on the host, the topmost first.
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadProcess:
    """Read the kernel's view of the first process of a container.

    Result: an EffectiveState, or NotReadable if the process left the container or can't be read in
    time.
    """

    pid: int
    container: str
    #: Paths inside the container.
    targets: tuple[str, ...] = ()
    #: Delay before the read.
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Make an entry durable. Result: its Record, or None when the journal can't be written."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Forward:
    """Send a change that the gate rebuilt. Result: a Reply, or LOST.

    With ``stream`` the change is a pull: the client gets the lines of a successful reply as they
    come, and the end of the reply after the flow returned. If the same pull of another intent is in
    progress, nothing is sent, and the result is a ``SharedPull`` with the reply to that pull.
    """

    method: str
    #: Without the version prefix, with the query.
    path: str
    body: bytes = b""
    stream: bool = False
    #: For the whole reply; for a pull, the longest time without progress.
    deadline_s: float = 60.0
    #: The registry with the credentials that the engine needs.
    registry: str = ""
    #: The id of the intent.
    by: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Relay:
    """Hand the connection over: relay the engine's reply to the client as it comes.

    A flow that returns a Relay makes it the reply. A flow that yields a Relay opens it, and the
    result is a Reply with the head alone (or the whole error of the engine), or LOST. The flow
    records the outcome, and returns the same Relay to continue, or a Reply to send instead.
    """

    method: str
    path: str
    body: bytes = b""
    #: Relay in both directions after 101.
    hijack: bool = False
    #: The request changes the engine, and is sent like a Forward.
    mutates: bool = False
    #: Cut the connection after this time, even while data flows.
    within_s: float | None = None
    #: The exec that the connection carries; the exec is checked once the connection ends.
    exec: str = ""
    #: The reply consists of lines: pass on the returned line for each, or nothing for None.
    edit_line: Callable[[bytes], bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class EndProcess:
    """End a process of a container, and its descendants. Result: '', or why the process still runs.

    ``pid`` comes from the engine, and counts only while its cgroup names the container.
    """

    pid: int
    container: str


@dataclass(frozen=True, slots=True)
class EndConnections:
    """End a container's TCP connections at an address, and drop new ones; '' to take new ones again.

    Result: ''. ``pid`` is that of the first process, and counts as in ``EndProcess``. Where the kernel
    doesn't allow it, nothing is done.
    """

    pid: int
    container: str
    address: str


@dataclass(frozen=True, slots=True)
class QueryJournal:
    """Query the journal. Result: a Page, or JournalNotReadable."""

    question: Question


@dataclass(frozen=True, slots=True)
class JournalNotReadable:
    """Why the journal can't be queried now."""

    code: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Follow:
    """The reply of a flow: stream the matching records, each once it is durable."""

    #: The stream begins after the record ``question.wanted.after``.
    question: Question
    #: Returns the line of a record.
    line: Callable[[QueryResult], bytes] = field(compare=False)


#: Remedies for an engine that doesn't answer, and for a socket that the user can't open.
START_ENGINE = "start the engine (systemctl start docker), and look at its log"
ASK_AS_ROOT = "run as root, or as a member of the socket's group"
NOT_ALLOWED = "this user is not allowed to open the socket"


def engine_remedy(reason: str) -> str:
    """Return the remedy for an engine that doesn't answer for this reason."""
    return ASK_AS_ROOT if NOT_ALLOWED in reason else START_ENGINE


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine's reply is missing: the engine may have acted."""

    reason: str
    #: False: nothing reached the engine, so the engine certainly did not act.
    sent: bool = True
    #: The engine answered, and the answer is too long, or has another form.
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class BuildEnded:
    """The end of a build: the member ``Id`` of the image, or the error of the build; or LOST."""

    answer: Reply | Lost
    #: Ids of layers that the log named, in their order. A program can print lines as the engine's.
    layers: tuple[str, ...] = ()
    #: Ids of containers that the log named, and that weren't seen to be gone.
    containers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedPull:
    """The reply to a pull that was in progress already."""

    answer: Reply | Lost
    #: The id of the intent of that pull.
    by: str


@dataclass(frozen=True, slots=True)
class StoreContent:
    """Store a content of delivered files. Result: '', or why the content isn't stored.

    Without a blob nothing is stored: the result is '' if the content is stored already.
    """

    files: FileSet
    content: str
    blob: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class MakeFiles:
    """Make the folder of a variant, unless it exists. Result: '', or why the folder is missing."""

    files: FileSet
    content: str
    #: A text is the id of a variant with a folder made before.
    variant: Variant | str
    #: The folder that stays when the content changes.
    stable: bool = False


@dataclass(frozen=True, slots=True)
class ReadSecret:
    """Read one file of a stored Secret. Result: a SecretValue, or why the file can't be read."""

    files: FileSet
    content: str
    key: str


@dataclass(frozen=True, slots=True)
class ForgetSecret:
    """Forget the generated values of a Secret. Result: whether there were any, or why they remain."""

    files: FileSet


@dataclass(frozen=True, slots=True)
class SecretValue:
    """The plain text of one file of a Secret."""

    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenSecret:
    """Decrypt a Secret, to learn its content id. Result: a SecretOpened, or a SecretNotOpened."""

    bound: SecretName
    source: SecretSource = field(repr=False)
    #: The content ids of the Secret that the broker has stored.
    known: frozenset[str] = frozenset()
    #: The broker may have generated values before that it doesn't know of.
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class SecretOpened:
    """What may be known of an opened Secret: nothing here is plain text."""

    content: str
    names: tuple[str, ...]
    #: The source with its owner, as the broker stores it.
    stored: bytes = field(repr=False)
    #: True if the content id was not seen before.
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class SecretNotOpened:
    """Why a Secret can't be opened."""

    code: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class VerifyProof:
    """Verify the proof of a commit, and render it. Result: a ProofVerified, or a ProofRefused."""

    rule: SignedSource
    proof: bytes = field(repr=False)
    #: The newest accepted commit, or the policy's first one.
    accepted: str = ""
    #: The policy's names of networks.
    networks: NetworkNames = field(default_factory=NetworkNames)
    #: The policy's choices for Compose projects.
    compose: ComposeSettings = field(default_factory=ComposeSettings)
    #: The contents that the broker has stored, by ``str(FileSet)``.
    stored: Mapping[str, StoredFiles] = field(default_factory=dict, repr=False)
    #: The namespaces in which the broker may have generated values that it doesn't know of.
    doubted: frozenset[str] = frozenset()
    #: The former names of services by their keys.
    formers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProofVerified:
    """A verified and rendered commit."""

    rendering: Rendering = field(repr=False)
    #: The opened Secrets with a content that was not seen before.
    opened: tuple[tuple[SecretName, SecretOpened], ...] = ()


@dataclass(frozen=True, slots=True)
class ProofRefused:
    """Why a proof isn't accepted."""

    code: str
    reason: str
    remedy: str = ""
    #: The signed commit of another line, which an operator can approve.
    line: OtherLine | None = None


Open = Callable[[OpenSecret], SecretOpened | SecretNotOpened]
Prove = Callable[[VerifyProof], ProofVerified | ProofRefused]
#: The answer while another proof is being verified.
PROOFS_BUSY = ProofRefused("proof.busy", "another proof is being verified", "try again")


def refuse_proofs(_command: VerifyProof) -> ProofVerified | ProofRefused:
    """Return the refusal of every proof, for a broker without a prover."""
    return ProofRefused("proof.keys", "this broker can't verify proofs")


#: The answer while as many Secrets are being opened as the driver has threads for.
SECRETS_BUSY = SecretNotOpened(
    "secret.busy", "other Secrets are being opened", "nothing: the controller asks again"
)


#: The beginnings of the reasons by which a store says that a content has to be delivered again.
NOT_STORED = "the content isn't stored"
UNUSABLE = "the stored content can't be used"


def is_lost(reason: str) -> bool:
    """Return True if a content can't be mounted because the store has lost the content."""
    return reason.startswith((NOT_STORED, UNUSABLE))


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Read the file of settings again, and the files that it names. Result: SettingsFound or SettingsRefused."""


@dataclass(frozen=True, slots=True)
class SettingsFound:
    """Settings that can be put in force."""

    in_force: InForce
    #: The keys with other values than those in force.
    changed: tuple[SettingKey, ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class SettingsRefused:
    """Why nothing of the file of settings is put in force."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class UseSettings:
    """Put the settings of the last ``ReadSettings`` in force. Result: None, or SettingsRefused."""

    found: SettingsFound


@dataclass(frozen=True, slots=True)
class GiveWay:
    """Let the requests of others continue first. Result: None.

    A flow gives way between the parts of an answer that takes long to make.
    """


#: The commands on the broker's delivered files.
OnFiles = StoreContent | MakeFiles | ReadSecret | ForgetSecret
#: The commands that a thread executes on the host.
OnHost = (
    ReadCdiFiles | FindUidUser | ReadAccounts | EndProcess | EndConnections | MakeFolder | OnFiles
)
#: All commands but the reads of the engine, and ``GiveWay``.
OtherCommand = (
    InspectPaths
    | ReadProcess
    | WriteRecord
    | Forward
    | Relay
    | QueryJournal
    | OnHost
    | OpenSecret
    | VerifyProof
    | ReceiveContext
    | RunBuild
    | ReadSettings
    | UseSettings
)
Command = ReadEngine | GiveWay | OtherCommand
CommandResult = (
    Reply
    | Lost
    | SharedPull
    | Record
    | EffectiveState
    | NotReadable
    | str
    | None
    | tuple[PathFacts, ...]
    | tuple[CdiFile, ...]
    | Accounts
    | Page
    | JournalNotReadable
    | SecretOpened
    | SecretNotOpened
    | ProofVerified
    | ProofRefused
    | SecretValue
    | BuildEnded
    | ContextReceived
    | ContextRefused
    | SettingsFound
    | SettingsRefused
    | bool
)
