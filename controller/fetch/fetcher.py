"""The fetcher: a worker for each declared source, and the requests of operators.

Requests of operators to the fetcher, on a socket of its own.

Every connected client is allowed to look; root and the instance's owner are allowed to change, and to
read files of commits. Through the controller, a usurped controller could approve a held commit.

Each source has a thread of its own, so that a slow source delays no other. No error ends a thread.
"""

from __future__ import annotations

import logging
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from controller.core.git.commit_objects import TreeFile, parse_commit
from controller.core.git.references import next_delay_s
from controller.core.git.reports import SOURCES_MAX, status_to_json
from controller.fetch.credentials import ASKPASS, AccessFiles
from controller.fetch.export import CommitApproval, ExportFolder, MemoryFile, SourceMemory, fresh
from controller.fetch.forge import SenderParts, SentFile, StatusSender
from controller.fetch.mirror import GitCommand, GitLimits, Mirror
from controller.fetch.source_fetch import SourceFetch, Verify
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import SourceError, TrimtabError, UsageError
from controller.model.quantities import format_instant
from controller.model.sources import SourceState
from controller.ports import Clock
from controller.system import conversation
from controller.system.durable_files import write_atomic
from controller.system.outgoing import HttpLimits


@dataclass(slots=True)
class _Requests:
    """Counts of requested and finished fetches."""

    asked: int = 0
    done: int = 0


class SourceWorker:
    """Fetches one source until it is stopped. The methods without '_' are for other threads."""

    def __init__(
        self,
        fetch: SourceFetch,
        spec: SourceSpec,
        memory: MemoryFile,
        *,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.name = fetch.name
        self._fetch = fetch
        self._spec = spec
        self._memory = memory
        self._clock = clock
        self._random = random
        self._changed = threading.Condition()
        self._requests = _Requests(asked=1)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"source-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread, which fetches at once."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after a fetch in progress."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def join(self, within_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(within_s)

    @property
    def spec(self) -> SourceSpec:
        """The spec that the worker follows."""
        with self._changed:
            return self._spec

    def change_spec(self, spec: SourceSpec) -> None:
        """Use another spec from now on, and fetch if it differs."""
        with self._changed:
            if spec == self._spec:
                return
            self._spec = spec
        self.wake()

    def wake(self) -> int:
        """Ask for a fetch now. Return the number of the request, for ``await_fetch``."""
        with self._changed:
            self._requests.asked += 1
            self._changed.notify_all()
            return self._requests.asked

    def await_fetch(self, request: int, *, within_s: float) -> bool:
        """Wait until a fetch that began after a request has ended. Return False after the time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._requests.done >= request or self._is_stopping, within_s
            )

    def read_commit(self, prefix: str) -> tuple[str, list[tuple[TreeFile, bytes]]]:
        """Return the id and the files of a fetched commit; raises as ``SourceFetch.read_commit``."""
        return self._fetch.read_commit(prefix, path=self.spec.git.path)

    def hold(self, by: str) -> None:
        """Keep the served commit until ``resume``.

        Raises:
            StateError: the hold can't be written.
        """
        self._memory.change(self.name, lambda memory: replace(memory, held_by=by))
        self.wake()

    def resume(self) -> int:
        """End a hold, and fetch. Return the number of the request."""
        self._memory.change(self.name, lambda memory: replace(memory, held_by=""))
        return self.wake()

    def approve(self, commit: str, by: str) -> int:
        """Approve the commit that is held, by its id or the first 12 digits. Return the request.

        Raises:
            SourceError: another commit is held, or it can't be approved.
            StateError: the approval can't be written.
        """

        def approved(memory: SourceMemory) -> SourceMemory:
            candidate = memory.status.candidate
            if candidate is None or len(commit) < 12 or not candidate.commit.startswith(commit):
                held = f"commit {candidate.commit}" if candidate else "no commit"
                raise SourceError(
                    "source.approval",
                    f"{held} of source {self.name} waits for an approval, not {commit}",
                    remedy="see 'trimtab source list', and name the commit with 12 digits or more",
                )
            if not memory.approvable:
                raise SourceError(
                    "source.approval",
                    f"commit {commit} can't be approved: {memory.status.message}",
                    remedy=memory.status.remedy,
                )
            return replace(memory, approval=CommitApproval(candidate.commit, by))

        self._memory.change(self.name, approved)
        return self.wake()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_stopping:
                    return
                request, spec = self._requests.asked, self._spec
            delay_s = self._attempt_safely(spec)
            with self._changed:
                self._requests.done = request
                self._changed.notify_all()
                if self._requests.asked == request and not self._is_stopping:
                    self._changed.wait_for(
                        lambda: self._is_stopping or self._requests.asked > self._requests.done,
                        delay_s,
                    )

    def _attempt_safely(self, spec: SourceSpec) -> float | None:
        try:
            # A worker that was stopped can still be at work on the source that came back.
            with self._fetch.turn:
                return self._attempt(spec)
        except TrimtabError as error:
            log.error("source %s: its state can't be saved: %s", self.name, error)  # noqa: TRY400
            return spec.git.interval / 1000
        except Exception:
            log.exception("source %s: the fetch failed unexpectedly", self.name)
            return spec.git.interval / 1000

    def _attempt(self, spec: SourceSpec) -> float | None:
        """Fetch once, and save the result. Return the delay until the next time; None for never."""
        memory = self._of_spec(spec)
        if spec.suspend or memory.held_by:
            self._save(_suspended(memory))
            return None
        started = format_instant(self._clock.now())
        try:
            memory = self._fetch.run(spec, memory, save=self._save_served)
            status = replace(memory.status, failures=0, last_success=started)
        except TrimtabError as error:
            log.warning("source %s: %s", self.name, error)
            memory = self._of_spec(spec)  # what was served meanwhile stays
            status = replace(
                memory.status,
                state=SourceState.FAILING,
                reason=error.code,
                message=error.message,
                remedy=error.remedy,
                failures=memory.status.failures + 1,
            )
        delay_s = next_delay_s(
            interval_s=spec.git.interval / 1000, failures=status.failures, random=self._random()
        )
        next_fetch = format_instant(self._clock.now() + delay_s)
        status = replace(status, last_fetch=started, next_fetch=next_fetch)
        self._save(replace(memory, status=status))
        return delay_s

    def _of_spec(self, spec: SourceSpec) -> SourceMemory:
        """Return the memory, with what the spec says now."""
        new = fresh(self.name, spec.git)
        memory = self._memory.get(self.name) or new
        url, ref, path = new.status.url, new.status.ref, new.status.path
        return replace(memory, status=replace(memory.status, url=url, ref=ref, path=path))

    def _save_served(self, memory: SourceMemory) -> None:
        """Save a commit that is about to be served, unless an operator holds the source by now."""
        known = self._memory.get(self.name)
        if known is not None and known.held_by:
            raise SourceError("source.suspended", f"{known.held_by} holds the source")
        self._save(memory)

    def _save(self, memory: SourceMemory) -> None:
        """Save a memory; holds and approvals of the meantime stay."""

        def merged(known: SourceMemory) -> SourceMemory:
            return _merge(known, memory, now=format_instant(self._clock.now()))

        self._memory.change(self.name, merged, new=memory)


def _suspended(memory: SourceMemory) -> SourceMemory:
    message = f"{memory.held_by} holds the source" if memory.held_by else "spec.suspend is true"
    remedy = f"trimtab source resume {memory.status.name}" if memory.held_by else "remove it"
    status = replace(
        memory.status,
        state=SourceState.SUSPENDED,
        reason="source.suspended",
        message=message,
        remedy=remedy,
        next_fetch="",
    )
    return replace(memory, status=status)


def _merge(known: SourceMemory, memory: SourceMemory, *, now: str) -> SourceMemory:
    """Return a fetch's memory with the requests that operators made during the fetch."""
    approval, candidate = known.approval, memory.status.candidate
    # An approval is for the held commit alone: it doesn't wait for that commit to come back.
    if candidate is None or approval is None or approval.commit != candidate.commit:
        approval = None
    merged = replace(memory, approval=approval, held_by=known.held_by)
    if known.held_by:
        merged = _suspended(merged)
    before = known.status
    status = replace(
        merged.status,
        forge_reason=before.forge_reason,
        forge_message=before.forge_message,
        forge_remedy=before.forge_remedy,
    )
    is_same = (before.state, before.reason, before.current) == (
        status.state,
        status.reason,
        status.current,
    )
    since = before.since if is_same and before.since else now
    return replace(merged, status=replace(status, since=since))


class FetchBackend(Protocol):
    """The methods behind the socket."""

    def list_sources(self) -> dict[str, object]: ...

    def log(self, name: str) -> dict[str, object]: ...

    def files(self, name: str, commit: str) -> dict[str, object]: ...

    def sync(self, name: str) -> dict[str, object]: ...

    def hold(self, name: str, by: str) -> dict[str, object]: ...

    def resume(self, name: str) -> dict[str, object]: ...

    def approve(self, name: str, commit: str, by: str) -> dict[str, object]: ...


def answer(
    question: Mapping[str, object],
    *,
    peer_uid: int,
    operators: frozenset[int],
    backend: FetchBackend,
) -> dict[str, object]:
    """Return the answer to one question; a TrimtabError becomes ``{"error": …}``."""
    try:
        if question.get("do") in ("files", "sync", "hold", "resume", "approve"):
            _raise_if_not_allowed(peer_uid, operators)
        by = conversation.requester(conversation.text_member(question, "by"), peer_uid)
        return _answer(question, by, backend)
    except TrimtabError as error:
        return conversation.failure(error.code, error.message, remedy=error.remedy)


def _answer(question: Mapping[str, object], by: str, backend: FetchBackend) -> dict[str, object]:
    name = conversation.text_member(question, "name")
    match question.get("do"):
        case "ping":
            return {"pong": True}
        case "list":
            return backend.list_sources()
        case "log":
            return backend.log(name)
        case "files":
            return backend.files(name, conversation.text_member(question, "commit"))
        case "sync":
            return backend.sync(name)
        case "hold":
            return backend.hold(name, by)
        case "resume":
            return backend.resume(name)
        case "approve":
            return backend.approve(name, conversation.text_member(question, "commit"), by)
        case other:
            raise conversation.unknown_request(other)


def _raise_if_not_allowed(peer_uid: int, operators: frozenset[int]) -> None:
    if peer_uid not in operators:
        raise UsageError(
            "control.denied",
            f"uid {peer_uid} may look, and not act",
            remedy="run the command as root, or as the owner of the instance",
        )


def serve_requests(
    listener: socket.socket, backend: FetchBackend, *, operators: frozenset[int]
) -> conversation.ConversationServer:
    """Answer requests on a listening socket, until the returned server is stopped."""

    def reply(question: Mapping[str, object], peer_uid: int) -> dict[str, object]:
        return answer(question, peer_uid=peer_uid, operators=operators, backend=backend)

    server = conversation.ConversationServer(listener, reply, trusted=operators)
    server.start()
    return server


#: How long a stop waits for fetches in progress.
STOP_S = 5.0
#: How long a request waits for the fetch that it asked for.
REQUEST_S = 30.0
LOG_COMMITS = 20

log = logging.getLogger("trimtab.fetch")


@dataclass(frozen=True, slots=True)
class DeclaredSources:
    """The Sources that DIR declares."""

    specs: Mapping[str, SourceSpec]
    #: False if an unread document possibly declares another Source.
    complete: bool


@dataclass(frozen=True, slots=True)
class FetcherParts:
    """What a fetcher works with."""

    #: The fetcher's folder.
    folder: Path
    #: The folder of the credentials' folders.
    credentials: Path
    verify: Verify
    load_sources: Callable[[], DeclaredSources]
    clock: Clock
    #: Returns a number in [0, 1), for jitter.
    random: Callable[[], float]
    #: The controller's file with the outcomes of commits.
    feedback: Path
    #: The name of this host in commit statuses.
    host: str
    limits: GitLimits = field(default_factory=GitLimits)
    http_limits: HttpLimits = field(default_factory=HttpLimits)


class Fetcher:
    """Fetches the declared sources until it is stopped. Thread-safe."""

    def __init__(self, parts: FetcherParts) -> None:
        self._parts = parts
        self._memory = MemoryFile(parts.folder)
        self._sent = SentFile(parts.folder)
        self._workers: dict[str, SourceWorker] = {}
        self._senders: dict[str, StatusSender] = {}
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Read the memory and the sources, and start to fetch.

        Raises:
            OSError: the fetcher's folder can't be written.
        """
        askpass = self._parts.folder / "askpass"
        write_atomic(askpass, ASKPASS.encode(), mode=0o700)
        for damage in (self._memory.load(), self._sent.load()):
            if damage is not None:
                log.error("%s", damage)
        self.reload()

    def reload(self) -> None:
        """Read the declared sources again: start, change and stop workers.

        A source that is missing while a document can't be read goes on as before.
        """
        declared = self._parts.load_sources()
        specs = dict(sorted(declared.specs.items())[:SOURCES_MAX])
        if len(specs) < len(declared.specs):
            log.error("only the first %s sources are fetched", SOURCES_MAX)
        with self._lock:
            gone = [name for name in self._workers if name not in specs and declared.complete]
            for name in gone:
                self._workers.pop(name).stop()
            kept = {name: worker.spec for name, worker in self._workers.items()} | specs
            self._memory.declare(fresh(name, spec.git) for name, spec in kept.items())
            for name, spec in specs.items():
                if name in self._workers:
                    self._workers[name].change_spec(spec)
                else:
                    self._workers[name] = self._worker(name, spec)
                    self._workers[name].start()
            self._adjust_senders({name: worker.spec for name, worker in self._workers.items()})

    def _adjust_senders(self, specs: Mapping[str, SourceSpec]) -> None:
        """Start, change and stop the senders of commit statuses; the caller holds the lock."""
        for name, sender in [*self._senders.items()]:
            if name not in specs or specs[name].git != sender.spec:
                sender.stop()
                del self._senders[name]
        for name, spec in specs.items():
            if spec.git.status is None:
                self._memory.report_forge(name, None)
            elif name not in self._senders:
                self._senders[name] = self._sender(name, spec)
                self._senders[name].start()

    def _sender(self, name: str, spec: SourceSpec) -> StatusSender:
        parts = SenderParts(
            feedback=self._parts.feedback,
            credentials=self._parts.credentials,
            sent=self._sent,
            host=self._parts.host,
            clock=self._parts.clock,
            random=self._parts.random,
            limits=self._parts.http_limits,
        )
        return StatusSender(
            name, spec.git, parts, lambda problem: self._memory.report_forge(name, problem)
        )

    def stop(self) -> None:
        """Stop all workers. A fetch in progress ends with the process, and leaves nothing."""
        with self._lock:
            workers: list[SourceWorker | StatusSender] = [
                *self._workers.values(),
                *self._senders.values(),
            ]
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join(STOP_S / max(1, len(workers)))

    def list_sources(self) -> dict[str, object]:
        """Return the statuses of the sources."""
        return {"sources": [status_to_json(status) for status in self._memory.statuses()]}

    def log(self, name: str) -> dict[str, object]:
        """Return the latest commits of a source, the newest first."""
        self._find(name)
        mirror = self._mirror(name)
        commits = []
        for commit in mirror.latest_commits(at_most=LOG_COMMITS):
            try:
                parsed = parse_commit(mirror.read("commit", commit))
            except ValueError:
                commits.append({"commit": commit})
                continue
            commits.append(
                {
                    "commit": commit,
                    "author": parsed.author,
                    "committed": parsed.committed,
                    "subject": parsed.subject,
                }
            )
        status = next((s for s in self._memory.statuses() if s.name == name), None)
        current = asdict(status.current) if status and status.current else None
        return {
            "commits": commits,
            "current": current,
            "status": status_to_json(status) if status else None,
        }

    def files(self, name: str, commit: str) -> dict[str, object]:
        """Return the files of a fetched commit in base64, by path; *commit* can be shortened."""
        worker = self._find(name)
        found, files = worker.read_commit(commit)
        return {
            "commit": found,
            "path": worker.spec.git.path,
            "files": {file.path: b64encode(content).decode() for file, content in files},
        }

    def sync(self, name: str) -> dict[str, object]:
        """Fetch a source now. Return its status after that, or the present one after a while."""
        worker = self._find(name)
        return self._after(worker, worker.wake())

    def wake(self, name: str) -> None:
        """Fetch a source soon; an unknown name does nothing. Doesn't wait."""
        with self._lock:
            worker = self._workers.get(name)
        if worker is not None:
            worker.wake()

    def hold(self, name: str, by: str) -> dict[str, object]:
        """Keep a source's served commit until ``resume``."""
        self._find(name).hold(by)
        return self._status(name)

    def resume(self, name: str) -> dict[str, object]:
        """End a hold, and fetch."""
        worker = self._find(name)
        return self._after(worker, worker.resume())

    def approve(self, name: str, commit: str, by: str) -> dict[str, object]:
        """Serve exactly the held commit."""
        worker = self._find(name)
        return self._after(worker, worker.approve(commit, by))

    def _after(self, worker: SourceWorker, request: int) -> dict[str, object]:
        is_done = worker.await_fetch(request, within_s=REQUEST_S)
        return {**self._status(worker.name), "done": is_done}

    def _status(self, name: str) -> dict[str, object]:
        memory = self._memory.get(name)
        return {"source": status_to_json(memory.status) if memory else None}

    def _find(self, name: str) -> SourceWorker:
        with self._lock:
            worker = self._workers.get(name)
        if worker is None:
            raise SourceError(
                "source.unknown",
                f"no document declares the source {name}",
                remedy="see 'trimtab source list'",
            )
        return worker

    def _worker(self, name: str, spec: SourceSpec) -> SourceWorker:
        folder = self._parts.folder
        files = AccessFiles(self._parts.credentials, folder / "askpass", folder)
        exports = ExportFolder(folder / "sources" / name)
        turn = self._turns.setdefault(name, threading.Lock())
        fetch = SourceFetch(name, self._mirror(name), exports, files, self._parts.verify, turn)
        return SourceWorker(
            fetch, spec, self._memory, clock=self._parts.clock, random=self._parts.random
        )

    def _mirror(self, name: str) -> Mirror:
        path = self._parts.folder / "mirror" / f"{name}.git"
        return Mirror(GitCommand(path, self._parts.clock.monotonic, self._parts.limits))
