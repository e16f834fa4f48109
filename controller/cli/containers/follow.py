"""``logs -f``: follow the present containers, their replacements, and restarts.

A thread reads the engine's events, and a thread for each running container reads its log. All of
them send to the printing thread, through a queue of ``WAITING_MAX`` lines. The threads are
daemons, so that a blocked read doesn't delay the end of the command.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.socket_client import ask_controller
from controller.cli.containers.log_reader import CONTAINERS_MAX, origin_of, print_logs, read_log
from controller.cli.containers.printing import LinePrinter
from controller.cli.containers.replicas import (
    ContainerTarget,
    VisibleContainer,
    find_replicas,
    list_replicas,
)
from controller.core.engine_api.streams.log_stream import engine_time
from controller.model.container_output import LogLine
from controller.model.errors import EngineError, TrimtabError
from controller.model.names import WORKLOADS

WAITING_MAX = 1000
#: While no container runs, the interval to check that the services still exist.
POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class _Started:
    """A container was started."""

    id: str


@dataclass(frozen=True, slots=True)
class _Ended:
    """The log of a container ended; with an error if it can't be read."""

    replica: VisibleContainer
    error: TrimtabError | None = None


@dataclass(frozen=True, slots=True)
class _Broken:
    """The events ended."""

    error: TrimtabError


_Message = tuple[VisibleContainer, LogLine] | _Started | _Ended | _Broken


@dataclass(slots=True)
class LogFollower:
    """Follows the logs of targets, until no document declares their services."""

    api: EngineApi
    targets: Sequence[ContainerTarget]
    query: Mapping[str, str]
    printer: LinePrinter
    controller_socket: Path
    began: str  # the current time, in RFC 3339
    _messages: queue.Queue[_Message] = field(default_factory=lambda: queue.Queue(WAITING_MAX))
    #: The time of the last printed line, by container.
    _last: dict[str, str] = field(default_factory=dict)
    #: Containers that were present at the beginning, or have been read.
    _known: set[str] = field(default_factory=set)
    _reading: set[str] = field(default_factory=set)
    #: Containers that restarted before the end of their log was received.
    _restarted: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Print the present output, then new lines.

        Raises:
            StateError: a target has no container.
            EngineError: the connection to the broker or the engine ended.
        """
        # The subscription precedes the list, so that no new container is missed.
        filters = json.dumps({"type": ["container"], "event": ["start"]})
        with self.api.stream("/events", {"filters": filters}) as events:
            self._spawn(lambda: self._listen(events.chunks))
            replicas = find_replicas(self.api, self.targets)
            self._last = print_logs(self.api, replicas, self.query, self.printer)
            self._known |= {replica.id for replica in replicas}
            for replica in replicas:
                if replica.is_running:
                    self._read(replica)
            while self._step():
                pass

    def _step(self) -> bool:
        """Handle a message; return False when nothing is left to follow."""
        try:
            message = self._messages.get_nowait()
        except queue.Empty:
            self.printer.flush()  # the queue is empty
            try:
                message = self._messages.get(timeout=None if self._reading else POLL_S)
            except queue.Empty:
                return self._is_expected()
        match message:
            case (replica, line):
                self._last[replica.id] = line.time
                self.printer.print(origin_of(replica), line)
            case _Started(identifier):
                self._handle_start(identifier)
            case _Ended(replica, error):
                self._handle_end(replica, error)
            case _Broken(error):
                raise error
        return True

    def _handle_start(self, identifier: str) -> None:
        if identifier in self._reading:
            self._restarted.add(identifier)
            return
        for replica in list_replicas(self.api):
            if replica.id == identifier and any(map(replica.matches, self.targets)):
                self._read(replica)

    def _handle_end(self, replica: VisibleContainer, error: TrimtabError | None) -> None:
        self._reading.discard(replica.id)
        is_missing = isinstance(error, EngineError) and error.status == HTTPStatus.NOT_FOUND
        if error is not None and not is_missing:  # else removed before its log was read
            raise error
        if replica.id in self._restarted:
            self._restarted.discard(replica.id)
            self._read(replica)

    def _read(self, replica: VisibleContainer) -> None:
        """Follow a container from its last printed line; a new container from its first line."""
        if len(self._reading) >= CONTAINERS_MAX:
            return
        query = {**self.query, "follow": "1", "tail": "all"}
        if last := self._last.get(replica.id):
            query["since"] = engine_time(last, later_ns=1)
        elif replica.id in self._known:
            query["since"] = engine_time(self.began)
        self._known.add(replica.id)
        self._reading.add(replica.id)
        self._spawn(lambda: self._follow(replica, query))

    def _follow(self, replica: VisibleContainer, query: Mapping[str, str]) -> None:
        try:
            for message in read_log(self.api, replica, query):
                self._messages.put(message)
            self._messages.put(_Ended(replica))
        except TrimtabError as error:
            self._messages.put(_Ended(replica, error))

    def _listen(self, chunks: Iterator[bytes]) -> None:
        rest = b""
        try:
            for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    with suppress(ValueError, KeyError):
                        self._messages.put(_Started(str(json.loads(line)["Actor"]["ID"])))
            self._messages.put(_Broken(EngineError("events.ended", "the broker ended the events")))
        except TrimtabError as error:
            self._messages.put(_Broken(error))

    def _is_expected(self) -> bool:
        """Return True if a container can start: a service of the targets is declared.

        If no controller answers, a present container is enough.
        """
        try:
            status = ask_controller(self.controller_socket, {"do": "status"})
        except TrimtabError:
            replicas = list_replicas(self.api)
            return any(replica.matches(target) for replica in replicas for target in self.targets)
        return any(
            target.is_of_service(resource["namespace"], resource["name"])
            for resource in status["resources"]
            if resource["kind"] in WORKLOADS and not _is_removed(resource)
            for target in self.targets
        )

    def _spawn(self, body: Callable[[], None]) -> None:
        threading.Thread(target=body, daemon=True).start()


def _is_removed(resource: Mapping[str, Any]) -> bool:
    """Return True if no document declares the service, although its containers exist."""
    reasons = {c["reason"] for c in resource["conditions"] if c["type"] == "Ready"}
    return bool(reasons & {"NotDeclared", "Quarantined"})
