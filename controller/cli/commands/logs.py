"""``logs`` and ``logs -f``: the output of present containers, and of failed ones.

``logs``: the output of containers, and the last output of failed containers.

``logs -f``: follow the present containers, their replacements, and restarts.

A thread reads the engine's events, and a thread for each running container reads its log. All of
them send to the printing thread, through a queue of ``WAITING_MAX`` lines. The threads are
daemons, so that a blocked read doesn't delay the end of the command.

Read the logs of containers through the broker, and merge them by time.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import EngineApi, ask_controller
from controller.cli.clients.status_report import complete_names
from controller.cli.commands.log_lines import LineOrigin, LinePrinter
from controller.cli.commands.replicas import (
    ContainerTarget,
    VisibleContainer,
    find_replicas,
    label_of,
    list_replicas,
)
from controller.cli.journal.filters import current_timestamp, time_option
from controller.cli.options import command, open_state
from controller.cli.output.terminal import echo
from controller.core.encoding.text import printable
from controller.core.engine_api.streams import (
    MULTIPLEXED,
    BadFrame,
    LogLines,
    engine_time,
    merge,
)
from controller.model.container_output import FailedRun, LogLine
from controller.model.errors import (
    EngineError,
    EngineFailed,
    EngineUnavailable,
    StateError,
    TrimtabError,
    UsageError,
)
from controller.model.names import WORKLOADS
from controller.settings import StateFolder

#: Each log needs a connection, and the broker limits the connections of a user.
CONTAINERS_MAX = 64
#: The engine's message for a log driver without readable logs (moby, daemon/logger).
_UNREADABLE = "does not support reading"


def origin_of(replica: VisibleContainer) -> LineOrigin:
    """Return the origin of a container's lines."""
    return LineOrigin(replica.label, replica.slot, replica.name)


def read_log(
    api: EngineApi, replica: VisibleContainer, query: Mapping[str, str]
) -> Iterator[tuple[VisibleContainer, LogLine]]:
    """Yield the lines of a container; without an end if *query* has ``follow``.

    Raises:
        EngineFailed: the log driver keeps no readable log, or the log is garbled.
    """
    try:
        with api.stream(f"/containers/{replica.id}/logs", query) as answer:
            lines = LogLines(multiplexed=answer.content_type == MULTIPLEXED)
            for data in answer.chunks:
                yield from ((replica, line) for line in lines.feed(data))
            yield from ((replica, line) for line in lines.finish())
    except BadFrame as error:
        message = f"the output of {replica.name} can't be read: {error}"
        raise EngineFailed("logs.garbled", message) from error
    except EngineFailed as error:
        if _UNREADABLE not in error.message:
            raise
        raise EngineFailed(
            "logs.unreadable",
            f"{replica.name}: its log driver keeps no readable log",
            remedy="read the logs where the driver sends them, or use the driver json-file or local",
        ) from error


def print_logs(
    api: EngineApi,
    replicas: Sequence[VisibleContainer],
    query: Mapping[str, str],
    printer: LinePrinter,
) -> dict[str, str]:
    """Print the present logs of containers by time; return the time of each container's last line.

    Raises:
        StateError: there are more than CONTAINERS_MAX containers.
    """
    if len(replicas) > CONTAINERS_MAX:
        raise StateError(
            "logs.too-many",
            f"these are {len(replicas)} containers; at most {CONTAINERS_MAX} are read at once",
            remedy="name some of the slots, as NAME.SLOT",
        )
    printer.expect([replica.label for replica in replicas])
    last: dict[str, str] = {}
    for replica, line in merge(read_log(api, replica, query) for replica in replicas):
        last[replica.id] = line.time
        printer.print(origin_of(replica), line)
    return last


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


def print_previous(
    state: StateFolder,
    targets: Sequence[ContainerTarget],
    printer: LinePrinter,
    *,
    tail: str,
    since: str,
) -> None:
    """Print the last failed run of each slot, with a heading on standard error.

    Raises:
        StateError: a target has no saved run, or the caller isn't allowed to read it.
    """
    saved = fetch_runs(state)
    for target in targets:
        runs = select(saved, target)
        if not runs:
            raise StateError(
                "failure.none",
                f"no failed container of {target.text} is kept, or this user is not allowed to read it",
                remedy=f"see what its containers print now: 'trimtab logs {target.text}'",
            )
        printer.expect([_origin(run).label for run in runs])
        for run in runs:
            print_run(run, printer, tail=tail, since=since)


def select(runs: Sequence[FailedRun], target: ContainerTarget) -> list[FailedRun]:
    """Return the last failed run of each slot of a target."""
    # Only --previous reads saved runs, whose types take most of the start.
    from controller.core.drift import failures

    return failures.latest_by_slot(
        run
        for run in runs
        if target.matches(
            namespace=run.key.namespace, service=run.key.name, slot=run.slot, name=run.container
        )
    )


def print_run(run: FailedRun, printer: LinePrinter, *, tail: str, since: str) -> None:
    """Print a run."""
    if not printer.as_json:
        printer.flush()
        note = "" if run.lines else f"; {run.unread or 'it printed nothing'}"
        note = f"{note}; its check printed: {run.check}" if run.check else note
        heading = f"{run.container} {run.cause} at {run.at}{note}"
        echo(click.style(printable(heading), bold=True), err=True)
        sys.stderr.flush()
    lines = [line for line in run.lines if line.time >= since]
    for line in lines if tail == "all" else lines[len(lines) - min(int(tail), len(lines)) :]:
        printer.print(_origin(run), line)


def fetch_runs(state: StateFolder) -> list[FailedRun]:
    """Return the saved runs that the caller is allowed to read.

    The runs come from the running controller, else from the controller's file.
    """
    # Only --previous reads saved runs, whose types take most of the start.
    from controller.core.drift import failures

    try:
        answer = ask_controller(state.controller_socket, {"do": "failures"})
    except EngineUnavailable:
        # The import is slow, and rarely needed.
        from controller.loop.state.saved_state import saved_failures

        return list(saved_failures(state.controller / "failures.json"))
    return [failures.FORM.from_json(run) for run in answer["runs"]]


def _origin(run: FailedRun) -> LineOrigin:
    label = label_of(run.key.namespace, run.key.name, run.slot, run.container)
    return LineOrigin(label, run.slot, run.container)


def tail_option(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Return a number of lines, or ``all``."""
    if value != "all" and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise click.BadParameter(f"{value!r} is neither a number of lines nor 'all'")
    return value


@command("""\b
Examples:
  trimtab logs web                       all replicas, interleaved by time
  trimtab logs -f web gateway            and new lines, also of replacement containers
  trimtab logs --tail 100 --since 10m shop/web.2
  trimtab logs --previous web            the last lines of containers that failed
  trimtab logs --json web | jq -r 'select(.stream == "stderr").line'

\b
NAME is a service, NAMESPACE/NAME, one replica as NAME.SLOT, or a container's name. With
more than one replica, NAME.SLOT stands before each line. Lines of stderr go to stderr.
Control characters are shown as \\uNNNN; colours stay on a terminal, unless NO_COLOR is set.

\b
-f also follows the containers that replace the present ones. It ends with Ctrl-C (exit
code 130), or once the service is removed. --previous needs no running instance. The
journal records who read which log.

\b
Exit codes: 0 done, 1 error (no such container, nothing runs), 4 refused, 64 wrong usage.
""")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they come.")
@click.option(
    "-p", "--previous", is_flag=True, help="Show the last lines of containers that failed."
)
@click.option(
    "-n",
    "--tail",
    metavar="N",
    default="all",
    callback=tail_option,
    help="Only the last N lines of each container.",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=time_option,
    help="Only lines since then: 10m (ago), 7d, 03:12 (UTC, the last), or RFC 3339.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line.")
def logs(
    names: tuple[str, ...],
    follow: bool,
    previous: bool,
    tail: str,
    since: str,
    timestamps: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Show the output of the containers of services."""
    if previous and follow:
        raise UsageError(
            "logs.previous",
            "--previous shows ended containers, and can't be combined with --follow",
            remedy="leave out -f",
        )
    targets = [ContainerTarget.parse(name) for name in names]
    printer = LinePrinter(timestamps=timestamps, as_json=as_json)
    folder, _ = open_state(state)
    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": tail}
    if since:
        query["since"] = engine_time(since)
    api = EngineApi(folder.broker_socket)
    if previous:
        print_previous(folder, targets, printer, tail=tail, since=since)
    elif follow:
        LogFollower(
            api, targets, query, printer, folder.controller_socket, began=current_timestamp()
        ).run()
    else:
        print_logs(api, find_replicas(api, targets), query, printer)
    printer.flush()
