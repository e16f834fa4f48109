"""The worker of one source: a thread that fetches at intervals, after a wake-up, and on request.

Each source has a thread of its own, so that a slow source delays no other. No error ends a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from controller.core.git.commit_objects import TreeFile
from controller.core.git.references import next_delay_s
from controller.fetch.export import CommitApproval, MemoryFile, SourceMemory, fresh
from controller.fetch.source_fetch import SourceFetch
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import SourceError, TrimtabError
from controller.model.quantities import format_instant
from controller.model.sources import SourceState
from controller.ports import Clock

log = logging.getLogger("trimtab.fetch")


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
