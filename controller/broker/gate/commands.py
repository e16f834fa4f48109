"""What the gate asks of its driver: the gate itself does no I/O.

The gate is a generator of these commands; the driver (asyncio in ``server``, synchronous in the
simulation) sends back each one's answer. Every command boundary is a crash point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.core.records.query import QueryResult
from controller.core.records.views import Page, Question
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.host_paths import PathFacts
from controller.model.records import Entry, Record, Reply


@dataclass(frozen=True, slots=True)
class ReadEngine:
    """Read from the engine; answered by a Reply, or LOST when the engine doesn't answer.

    The looks at ``ahead`` will follow, if all is well: a driver may ask for them at the same time.
    What it got before anything else than a look happened answers them.
    """

    path: str  # without the version prefix, with its query
    method: str = "GET"
    deadline_s: float = 15.0
    registry: str = ""  # whose credentials the engine needs for it
    ahead: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class InspectPaths:
    """Look at paths of the host without following symlinks; answered by a tuple of PathFacts."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadProcess:
    """Read what the kernel shows of a container's first process; answered by Effective or Unseen.

    *targets* are paths inside the container, *after_s* is waited for before. A process that isn't
    the container's any more, or can't be looked at in time, is Unseen.
    """

    pid: int
    container: str
    targets: tuple[str, ...] = ()
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Make an entry durable; answered by its Record, or None when the journal can't be written.

    With ``early`` the client is answered with that meanwhile, and the entry, an outcome, is believed.
    The steps go on to their end all the same; what they end with goes to nobody.
    """

    entry: Entry
    early: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Forward:
    """Send a mutation rebuilt by the gate; answered by a Reply, or LOST.

    With ``stream`` it is a pull: the lines of a good answer go to the client as they come, and the
    client sees the answer's end only after the gate returned it. The same pull of another intent
    may be under way: then nothing is sent, and the answer to that one comes as ``SharedPull``.
    """

    method: str
    path: str  # without the version prefix, with its query
    body: bytes = b""
    stream: bool = False
    deadline_s: float = 60.0  # of the whole answer; of a pull, the longest time without progress
    registry: str = ""  # whose credentials the engine needs for it
    by: str = field(default="", compare=False)  # the intent that it is of


@dataclass(frozen=True, slots=True)
class Relay:
    """Hand the connection over: relay the engine's answer to the client as it comes.

    With ``mutates`` it changes something: it is sent as a mutation is. ``within_s`` cuts it after
    that time, however busy it is; ``exec`` is the exec that it carries, which is looked after once
    it ends. With ``keep`` it is lines, of which only those are passed on that it says.

    Returned by the gate, it is the answer. Yielded, it is opened and answered by a Reply with the
    head alone (a refusal of the engine's comes whole), or LOST; the gate records its outcome and
    then returns the same Relay to go on with it, or a Reply to send instead.
    """

    method: str
    path: str
    body: bytes = b""
    hijack: bool = False  # both ways after 101
    mutates: bool = False
    within_s: float | None = None
    exec: str = ""
    keep: Callable[[bytes], bool] | None = None


@dataclass(frozen=True, slots=True)
class EndProcess:
    """End a process of a container, and those that it started; answered by '' or why it wasn't.

    ``pid`` is what the engine says. It counts only while its cgroup names the container.
    """

    pid: int
    container: str


@dataclass(frozen=True, slots=True)
class QueryJournal:
    """Ask the journal; answered by a Page, or Untold."""

    question: Question


@dataclass(frozen=True, slots=True)
class JournalNotReadable:
    """Why the journal can't be asked now."""

    code: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Follow:
    """Returned by the gate, the answer is a stream: the records wanted, each once it is durable.

    ``question.wanted.after`` is where it begins; ``line`` is how a record is told.
    """

    question: Question
    line: Callable[[QueryResult], bytes] = field(compare=False)


#: What to do about an engine that doesn't answer, and about one that this user may not reach.
START_ENGINE = "start the engine (systemctl start docker), and look at its log"
ASK_AS_ROOT = "run as root, or as a member of the socket's group"
NOT_ALLOWED = "this user is not allowed to open the socket"


def engine_remedy(reason: str) -> str:
    """Return what to do about an engine that doesn't answer for this reason."""
    return ASK_AS_ROOT if NOT_ALLOWED in reason else START_ENGINE


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine's answer didn't come: whether it acted isn't known.

    With ``sent`` false nothing reached the engine, so that it certainly didn't act.
    """

    reason: str
    sent: bool = True


@dataclass(frozen=True, slots=True)
class SharedPull:
    """The answer to a pull that was under way: ``by`` is the intent that was forwarded."""

    answer: Reply | Lost
    by: str


__all__ = [
    "Command",
    "CommandResult",
    "EndProcess",
    "Follow",
    "Forward",
    "InspectPaths",
    "JournalNotReadable",
    "Lost",
    "PathFacts",
    "QueryJournal",
    "ReadEngine",
    "ReadProcess",
    "Relay",
    "SharedPull",
    "WriteRecord",
]

Command = (
    ReadEngine
    | InspectPaths
    | ReadProcess
    | WriteRecord
    | Forward
    | Relay
    | QueryJournal
    | EndProcess
)
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
    | Page
    | JournalNotReadable
)
