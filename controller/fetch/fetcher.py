"""The fetcher: a worker for each declared source, and the requests of operators.

Requests of operators to the fetcher, on a socket of its own.

Every connected client is allowed to look; root and the instance's owner are allowed to change, and to
read files of commits. Through the controller, a usurped controller could approve a held commit.
"""

from __future__ import annotations

import logging
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from controller.core.git.commit_objects import parse_commit
from controller.core.git.reports import SOURCES_MAX, status_to_json
from controller.fetch.credentials import ASKPASS, AccessFiles
from controller.fetch.export import ExportFolder, MemoryFile, fresh
from controller.fetch.forge import SenderParts, SentFile, StatusSender
from controller.fetch.mirror import GitCommand, GitLimits, Mirror
from controller.fetch.source_fetch import SourceFetch, Verify
from controller.fetch.worker import SourceWorker
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import SourceError, TrimtabError, UsageError
from controller.ports import Clock
from controller.system import conversation
from controller.system.durable_files import write_atomic
from controller.system.outgoing import HttpLimits


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
