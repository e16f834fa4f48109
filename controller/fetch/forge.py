"""Forges, such as GitHub, GitLab and Forgejo: their webhooks wake a source, and they get commit statuses.

One POST request to a forge: TLS verified, no redirect followed, with bounds on time and size.

The token is in a header alone, and never in a message: errors name the host and the reason.

Sends the outcomes of commits to the forge of one source: a thread for each source that asks for it.

The newest outcome of a commit and namespace counts; earlier ones that weren't sent are skipped. The
controller's file is read within bounds, and names neither the forge nor the repository.

The fetcher's memory of sent commit statuses: ``sent.json``.

A lost file costs one more request for each outcome, never a missing status.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from controller.core.git import forge
from controller.core.git.commit_objects import Refusal
from controller.core.git.forge import StatusRequest
from controller.core.git.reports import FEEDBACK_MAX_BYTES, OUTCOMES_MAX, parse_feedback
from controller.fetch.credentials import ca_file, raise_if_insecure, read_token
from controller.model.desired.source_spec import GitSpec
from controller.model.errors import SourceError, StateError
from controller.model.sources import CommitOutcome, OutcomeState
from controller.ports import Clock
from controller.system import outgoing
from controller.system.durable_files import write_atomic
from controller.system.outgoing import HttpAnswer, HttpLimits, Unanswered


def post(
    request: StatusRequest,
    token: tuple[str, str],
    *,
    authority: Path | None,
    limits: HttpLimits,
) -> HttpAnswer:
    """Send a request with the header *token*, and return the answer.

    *authority* is a file of certificates that stands for the system's.

    Raises:
        SourceError: no answer came.
    """
    headers = {**request.headers, token[0]: token[1]}
    try:
        return outgoing.post(request.url, headers, request.body, authority=authority, limits=limits)
    except Unanswered as error:
        raise _unreachable(urlsplit(request.url).netloc, str(error)) from None


def _unreachable(host: str, reason: str) -> SourceError:
    return SourceError(
        "forge.unreachable",
        f"{host}: {reason}",
        remedy="check spec.git.status.url, and ca.pem of its credentials for an authority of your own",
    )


VERSION = 1
_SENT_MAX_BYTES = 4 << 20
CommitPlace = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Sent:
    """The last status that a forge took, or refused for good."""

    state: OutcomeState
    text: str
    #: The number of statuses of this commit and namespace.
    posts: int
    #: In Unix seconds.
    at: float
    #: The place at the forge (``target_of``).
    target: str


class SentFile:
    """``sent.json``. Threads can share an object."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "sent.json"
        self._sent: dict[CommitPlace, Sent] = {}
        self._lock = threading.Lock()

    def load(self) -> str | None:
        """Read the file. Return why it couldn't be used; None if it could, or is missing."""
        try:
            with self._file.open("rb") as file:
                self._sent = _parse(file.read(_SENT_MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return f"{self._file} was damaged ({error}); commit statuses are sent again"
        return None

    def of(self, source: str) -> Mapping[CommitPlace, Sent]:
        """Return the sent statuses of a source."""
        with self._lock:
            return {place: sent for place, sent in self._sent.items() if place[0] == source}

    def record(self, place: CommitPlace, sent: Sent, *, kept: Iterable[CommitPlace]) -> None:
        """Record a status durably; of its source, only the places *kept* stay.

        Raises:
            StateError: the file can't be written.
        """
        wanted = {place, *kept}
        with self._lock:
            others = {p: s for p, s in self._sent.items() if p[0] != place[0] or p in wanted}
            self._sent = {**others, place: sent}
            try:
                write_atomic(self._file, _render(self._sent))
            except OSError as error:
                raise StateError("source.state", f"{self._file}: {error.strerror}") from error


def _render(sent: Mapping[CommitPlace, Sent]) -> bytes:
    listed = [
        [*place, each.state.value, each.text, each.posts, each.at, each.target]
        for place, each in sorted(sent.items())
    ]
    return f"{json.dumps({'version': VERSION, 'sent': listed}, indent=1)}\n".encode()


def _parse(data: bytes) -> dict[CommitPlace, Sent]:
    body = json.loads(data)
    if body["version"] != VERSION:
        raise ValueError(f"its version isn't {VERSION}")
    found: dict[CommitPlace, Sent] = {}
    for entry in body["sent"][: 64 * OUTCOMES_MAX]:
        source, commit, namespace, state, text, posts, at, target = entry
        place = (str(source), str(commit), str(namespace))
        found[place] = Sent(OutcomeState(state), str(text), int(posts), float(at), str(target))
    return found


#: The time between two looks at the file.
POLL_S = 1.0
#: No link is followed, and no FIFO is waited for.
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = logging.getLogger("trimtab.fetch")


@dataclass(frozen=True, slots=True)
class SenderParts:
    """What senders work with."""

    #: The controller's file with the outcomes.
    feedback: Path
    #: The folder of the credentials' folders.
    credentials: Path
    sent: SentFile
    #: The name of this host in the statuses.
    host: str
    clock: Clock
    #: Returns a number in [0, 1), for jitter.
    random: Callable[[], float]
    limits: HttpLimits = field(default_factory=HttpLimits)


class StatusSender:
    """Sends the commit statuses of one source until it is stopped.

    *report* gets why the forge hasn't the statuses, None once it has them; it is called for each change.
    """

    def __init__(
        self,
        name: str,
        spec: GitSpec,
        parts: SenderParts,
        report: Callable[[Refusal | None], None],
    ) -> None:
        self.name = name
        self.spec = spec
        self._parts = parts
        self._report = report
        self._target = forge.target_of(spec, host=parts.host)
        self._stopped = threading.Event()
        #: Held while a report is made: a stopped sender reports nothing.
        self._reporting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"forge-{name}", daemon=True)
        self._outcomes: tuple[CommitOutcome, ...] = ()
        self._mark: tuple[int, int, int] | None = None
        self._failures = 0
        self._not_before = 0.0
        #: Failed attempts at an outcome, and the outcomes that were given up.
        self._attempts: dict[CommitOutcome, int] = {}
        #: Why the forge refused the last status for good.
        self._rejected: Refusal | None = None
        self._shown: Refusal | None = Refusal("", "", "")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after a request in progress, without a further report."""
        with self._reporting:
            self._stopped.set()

    def join(self, within_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(within_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                delay_s = self.step()
            except StateError as error:
                log.error("source %s: %s", self.name, error)  # noqa: TRY400 - no bug of ours
                delay_s = POLL_S * 10
            except Exception:
                log.exception("source %s: sending commit statuses failed", self.name)
                delay_s = POLL_S * 60
            self._stopped.wait(delay_s)

    def step(self) -> float:
        """Send at most one status. Return the seconds until the next step.

        Raises:
            StateError: the memory can't be written.
        """
        problem = self._read()
        if problem is not None:
            self._show(problem)
            return POLL_S
        outcome = self._next()
        if outcome is None:
            if self._failures == 0:
                self._show(self._rejected)
            return POLL_S
        if self._parts.clock.monotonic() < self._not_before:
            return POLL_S
        answer = self._send(outcome)
        if self._stopped.is_set() and answer.kind is not forge.AnswerKind.TAKEN:
            return POLL_S  # the sender of a changed source tries for itself
        match answer.kind:
            case forge.AnswerKind.TAKEN:
                self._record(outcome)
                self._failures, self._rejected = 0, None
                self._show(None)
                return 0.0
            case forge.AnswerKind.REFUSED:
                self._record(outcome)
                self._failures, self._rejected = 0, answer.problem
                self._show(answer.problem)
                return POLL_S
            case forge.AnswerKind.LATER:
                self._postpone(outcome, answer)
                return POLL_S

    def _read(self) -> Refusal | None:
        """Read the file if it changed. Return why it can't be read; None for a missing file too."""
        try:
            handle = os.open(self._parts.feedback, OPEN_FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _unreadable(self._parts.feedback, str(error.strerror))
        try:
            status = os.fstat(handle)
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark == self._mark:
                return None
            outcomes = parse_feedback(_read_regular(handle, status))
        except (OSError, ValueError) as error:
            return _unreadable(self._parts.feedback, str(error))
        finally:
            os.close(handle)
        self._outcomes = tuple(each for each in outcomes if each.source == self.name)
        self._mark = mark
        self._attempts = {o: n for o, n in self._attempts.items() if o in self._outcomes}
        return None

    def _next(self) -> CommitOutcome | None:
        """Return the outcome to send next; of several, the one that failed least often."""
        sent, now = self._parts.sent.of(self.name), self._parts.clock.now()
        earlier = _earlier(self._outcomes)
        due = [
            each
            for each in self._outcomes
            if _is_news(each, self._known(sent, each), now)
            and (self._attempts.get(each, 0) < forge.ATTEMPTS_MAX or each not in earlier)
        ]
        return min(due, key=lambda each: self._attempts.get(each, 0), default=None)

    def _known(self, sent: Mapping[CommitPlace, Sent], outcome: CommitOutcome) -> Sent | None:
        """Return what was sent for an outcome's commit and namespace to the present target."""
        known = sent.get(outcome.place)
        return known if known is not None and known.target == self._target else None

    def _send(self, outcome: CommitOutcome) -> forge.ForgeAnswer:
        status, parts = self.spec.status, self._parts
        assert status is not None, "only a source with spec.git.status has a sender"
        try:
            request = forge.request_of(self.spec, outcome, host=parts.host)
            raise_if_insecure(request.url, allowed=self.spec.allow_insecure_loopback)
            folder = parts.credentials / status.credentials
            token = forge.token_header(status.forge, read_token(folder))
            answer = post(request, token, authority=ca_file(folder), limits=parts.limits)
        except SourceError as error:
            problem = Refusal(error.code, error.message, error.remedy)
            return forge.ForgeAnswer(forge.AnswerKind.LATER, problem)
        return forge.meaning_of(
            status.forge,
            answer.status,
            answer.headers,
            answer.body,
            sent=outcome.state,
            now=parts.clock.now(),
        )

    def _record(self, outcome: CommitOutcome) -> None:
        before = self._known(self._parts.sent.of(self.name), outcome)
        posts = 1 + (before.posts if before else 0)
        sent = Sent(outcome.state, outcome.text, posts, self._parts.clock.now(), self._target)
        self._parts.sent.record(outcome.place, sent, kept=[each.place for each in self._outcomes])

    def _postpone(self, outcome: CommitOutcome, answer: forge.ForgeAnswer) -> None:
        self._failures += 1
        self._attempts[outcome] = self._attempts.get(outcome, 0) + 1
        delay_s = forge.retry_delay_s(
            self._failures, wait_s=answer.wait_s, random=self._parts.random()
        )
        self._not_before = self._parts.clock.monotonic() + delay_s
        self._show(answer.problem)

    def _show(self, problem: Refusal | None) -> None:
        with self._reporting:
            if problem == self._shown or self._stopped.is_set():
                return
            if problem is not None:
                log.warning("source %s: %s", self.name, problem.message)
            self._report(problem)
            self._shown = problem


def _earlier(outcomes: tuple[CommitOutcome, ...]) -> set[CommitOutcome]:
    """Return the outcomes of commits before the served one. Of a source, the newest come first."""
    served: set[str] = set()
    earlier: set[CommitOutcome] = set()
    for each in outcomes:
        if each.namespace in served:
            earlier.add(each)
        elif each.state is not OutcomeState.HELD:
            served.add(each.namespace)
    return earlier


def _is_news(outcome: CommitOutcome, sent: Sent | None, now: float) -> bool:
    """Return True if the forge lacks an outcome, and it is time to send it.

    Another text alone is news only of a failure: progress isn't worth a request.
    """
    if sent is None:
        return True
    is_failure = outcome.state in {OutcomeState.FAILURE, OutcomeState.ERROR, OutcomeState.HELD}
    is_same = outcome.state is sent.state and (outcome.text == sent.text or not is_failure)
    is_time = not 0 <= now - sent.at < forge.pace_s(sent.posts)
    return not is_same and sent.posts < forge.POSTS_MAX and is_time


def _read_regular(handle: int, status: os.stat_result) -> bytes:
    """Return the content of a regular file, at most a byte beyond the bound.

    Raises:
        OSError: it can't be read.
        ValueError: it is no regular file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    with os.fdopen(handle, "rb", closefd=False) as file:
        return file.read(FEEDBACK_MAX_BYTES + 1)


def _unreadable(path: Path, reason: str) -> Refusal:
    return Refusal(
        "forge.feedback",
        f"{path} can't be read: {reason}",
        "let 'trimtab up' run the fetcher and the controller, of the same version",
    )
