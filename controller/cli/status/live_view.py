"""The output of ``up``: a live table on a terminal, elsewhere a line for each change.

A changing report: a screen that is redrawn, or a line for each change.

The statuses of the running controller: a question stays open until the status changes.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import click

from controller.cli.clients.socket_client import BrokerApi, read_answer, send_question
from controller.cli.clients.status_report import key_text, name_of
from controller.cli.options import command_line
from controller.cli.output.tables import cell_width, wrap
from controller.cli.output.terminal import SignalWaiter, echo, echo_data, report_excerpts
from controller.cli.output.times import current_time
from controller.cli.status.table import (
    SETTLED,
    TableView,
    addresses_of,
    fit_status,
    message_of,
    place_of,
    problem_of,
    ready_of,
    urls_of,
    word_of,
)
from controller.core.encoding.text import printable, terminal_text
from controller.model.errors import NOTES, EngineUnavailable, TrimtabError, notes_text
from controller.model.quantities import format_instant

if TYPE_CHECKING:
    from controller.app.state_folder import Launch
    from controller.process.process_group import ProcessGroup


class Screen:
    """A part of the terminal that is redrawn in place, or the whole alternate screen."""

    def __init__(self, *, alternate: bool) -> None:
        from rich.console import Console  # a slow import, and only for terminals
        from rich.live import Live

        self._console = Console(no_color=click.get_current_context().color is False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            screen=alternate,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @property
    def width(self) -> int:
        """The current width of the terminal, in cells."""
        return self._console.width

    @property
    def height(self) -> int:
        """The current height of the terminal, in lines."""
        return self._console.height

    def draw(self, text: str) -> None:
        """Replace the content with *text*, which can have colours."""
        from rich.text import Text

        content = Text.from_ansi(terminal_text(text))
        content.no_wrap = True
        content.overflow = "crop"
        self._live.update(content, refresh=True)


class ChangeLines:
    """Prints a line for each changed resource or problem; with ``as_json`` each changed report."""

    def __init__(self, *, as_json: bool, timestamps: bool) -> None:
        self._as_json = as_json
        self._timestamps = timestamps
        self._shown: dict[str, str] = {}

    def show(self, report: dict[str, Any]) -> None:
        """Print the differences from the previous report; one with nothing read yet is skipped."""
        if "unread" in report and not report["resources"] and not self._as_json:
            return
        current = dict(_lines_of(report))
        if self._as_json:
            if current != self._shown:
                echo_data(json.dumps(report))
        else:
            for key, text in current.items():
                if self._shown.get(key) != text:
                    self._print(f"{key}  {text}")
            for key in self._shown.keys() - current.keys():
                if key != "waiting":
                    self._print(f"{key}  gone")
        self._shown = current

    def wait(self, error: TrimtabError) -> None:
        """Print once that the command waits for an answer."""
        text = f"waiting: {error.message}"
        if self._shown.get("waiting") != text and not self._as_json:
            self._print(text)
            self._shown = {**self._shown, "waiting": text}

    def _print(self, line: str) -> None:
        prefix = f"{format_instant(current_time())}  " if self._timestamps else ""
        echo(f"{prefix}{printable(line)}")


def _lines_of(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a line for each resource, and for each problem that no resource's line contains."""
    lines = []
    printed: list[dict[str, Any]] = []
    for resource in report["resources"]:
        key = key_text(resource)
        count = ready_of(resource) if resource["kind"] == "Service" else ""
        addresses = " ".join(addresses_of(resource)) if word_of(resource) in SETTLED else ""
        parts = (word_of(resource), count, message_of(resource), addresses)
        lines.append((key, "  ".join(filter(None, parts))))
        for condition in resource["conditions"]:
            problem = problem_of(resource, condition["message"], report["problems"])
            printed += [problem] if condition["message"] and problem else []
    if notes := notes_text(problem["code"] for problem in report["problems"]):
        lines.append(("notes", notes))
    for problem in report["problems"]:
        if problem["code"] in NOTES:
            continue
        place = place_of(problem)
        if place or problem not in printed:
            head = f"problem {place} {problem['code']}" if place else f"problem {problem['code']}"
            lines.append((head, problem["message"]))
    return lines


#: How long the controller keeps a question without a changed status.
FEED_WAIT_S: Final = 30.0
#: How long the controller takes for an answer, besides the wait for a change.
FEED_ANSWER_S: Final = 5.0
#: How long an answer takes to arrive, once it has begun.
_READ_S: Final = 1.0


class StatusFeed:
    """Asks the controller at *path* for each changed status.

    *output*: the status has the last lines of failed containers.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float], *, output: bool) -> None:
        self._path = path
        self._monotonic = monotonic
        self._output = output
        #: The version of the last status, '' without one.
        self._version = ""
        #: The connection with the open question.
        self._peer: socket.socket | None = None
        self._deadline = 0.0

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the open question, readable once answered; None without a question."""
        return None if self._peer is None else self._peer.fileno()

    def take(self) -> dict[str, Any] | None:
        """Return a changed status; None while there is none. Asks if no question is open.

        After an error, the next call asks again, for the whole status.

        Raises:
            EngineUnavailable: no controller answers.
            StateError: the user isn't allowed to connect.
            EngineFailed: the controller answers with an error.
        """
        peer, self._peer = self._peer, None
        version, self._version = self._version, ""
        if peer is None:
            self._peer = self._ask(version)
        elif select.select([peer], [], [], 0)[0]:
            answer = read_answer(peer, self._path)
            if not answer.get("unchanged"):
                self._version = answer.pop("version", "")
                return dict(answer)
        elif self._monotonic() > self._deadline:
            peer.close()
            message = f"the controller at {self._path} doesn't answer in time"
            raise EngineUnavailable("controller.lost", message)
        else:
            self._peer = peer
        self._version = version
        return None

    def close(self) -> None:
        """Give up the open question."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def _ask(self, version: str) -> socket.socket:
        question: dict[str, object] = {
            "do": "status",
            "output": self._output,
            "unless": version,
            "wait_s": FEED_WAIT_S,
        }
        self._deadline = self._monotonic() + FEED_ANSWER_S + (FEED_WAIT_S if version else 0.0)
        return send_question(self._path, question, timeout_s=_READ_S)


#: The shortest time between two statuses.
REFRESH_S = 0.5
#: How often the children are checked while the status is the same.
CHECK_S = 1.0
#: The ages in an unchanged table are redrawn after so many checks.
REDRAWN_AFTER = 5
ANSWER_S = 1.0
#: For so many seconds, a missing first answer is expected, and no reason for an alarm.
START_S = 30.0
STARTING = EngineUnavailable("controller.lost", "the controller is starting")
CONNECT_S, ADDRESSES_MAX = 0.3, 10
#: Commands to suggest after the start of an instance.
NEXT = ("status", "journal list")


def watch(assembly: ProcessGroup, launch: Launch, *, as_json: bool) -> None:
    """Show the instance and supervise the child processes until SIGINT, SIGTERM or SIGHUP."""
    signals = SignalWaiter(stop=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    if as_json or not sys.stdout.isatty():
        _show_until(signals, assembly, launch, _Lines(launch, as_json=as_json))
        return
    with Screen(alternate=False) as screen:
        _show_until(signals, assembly, launch, _Live(launch, screen), output=True)


def _show_until(
    signals: SignalWaiter,
    assembly: ProcessGroup,
    launch: Launch,
    view: _Lines | _Live,
    *,
    output: bool = False,
) -> None:
    """Show the status until a stop is requested; with *output*, including lines of failed containers.

    These lines can contain secrets: *output* is only for terminals, whose text isn't logged.
    """
    from controller.app.fetcher import FetcherChild
    from controller.app.notifier import NotifierChild

    children = (FetcherChild(assembly, launch), NotifierChild(assembly, launch))
    feed = StatusFeed(launch.state.controller_socket, time.monotonic, output=output)
    began, has_answered = time.monotonic(), False
    unchanged = 0
    while not signals.stopped:
        assembly.restart_ended()
        for child in children:
            if failure := child.adjust(now=time.monotonic()):
                echo(printable(f"warning: {failure}"), err=True)
        try:
            report = feed.take()
            if report is not None:
                has_answered, unchanged = True, 0
                view.show(report)
            else:
                unchanged += 1
                if unchanged % REDRAWN_AFTER == 0:
                    view.refresh()
        except TrimtabError as error:
            unchanged = 0
            is_starting = not has_answered and time.monotonic() - began < START_S
            view.wait(STARTING if is_starting else error)
        descriptor = feed.descriptor
        signals.wait(REFRESH_S if descriptor is None else CHECK_S, descriptor=descriptor)
    feed.close()
    for child in children:
        child.stop()


class StartText:
    """The heading of an instance, and the lines after its start."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._policy = ""
        self._lines: list[str] | None = None

    def heading(self) -> str:
        """Return the directory and the policy of the instance."""
        instance = f"{self._launch.instance.dir} under the policy {self._policy_name()}"
        return printable(f"trimtab keeps {instance}; Ctrl-C stops it")

    def ending(self, report: dict[str, Any]) -> list[str]:
        """Return the addresses and suggestions; empty until all resources have settled once."""
        if self._lines is None and has_settled(report):
            commands = [command_line(words, self._launch.state.root) for words in NEXT]
            self._lines = [*reachable_services(report), f"next: {', '.join(commands)}"]
        return self._lines or []

    def _policy_name(self) -> str:
        """Return the policy's own name, or the name of its file until the broker answers."""
        if not self._policy:
            try:
                health = BrokerApi(self._launch.state.broker_socket, ANSWER_S).get("health")
                self._policy = str(health["policy"]["name"])
            except TrimtabError:
                return self._launch.policy.stem
        return self._policy


def has_settled(report: dict[str, Any]) -> bool:
    """Return True if there are resources, and each one is Ready or waits for a person."""
    words = {word_of(resource) for resource in report["resources"]}
    return bool(words) and not words & {"Progressing", "NotReady", "Degraded", "-"}


def reachable_services(report: dict[str, Any]) -> list[str]:
    """Return a line for each service with the published addresses that accept a connection.

    Only ``ADDRESSES_MAX`` addresses are tried, since an unreachable address takes a moment.
    """
    published = [
        (name_of(key_text(resource)), url)
        for resource in report["resources"]
        for url in urls_of(resource)
    ]
    reachable: dict[str, list[str]] = {}
    for name, url in published[:ADDRESSES_MAX]:
        if _is_reachable(url):
            reachable.setdefault(name, []).append(url)
    width = max(map(len, reachable), default=0)
    lines = [printable(f"{name:<{width}}  {'  '.join(urls)}") for name, urls in reachable.items()]
    more = len(published) - ADDRESSES_MAX
    return [*lines, f"and {more} more: see PORTS"] if more > 0 else lines


def _is_reachable(url: str) -> bool:
    parts = urlsplit(url)
    assert parts.hostname is not None, f"{url} names a host"
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


class _Lines:
    """Prints a line for each change, and once the reachable addresses."""

    def __init__(self, launch: Launch, *, as_json: bool) -> None:
        self._as_json = as_json
        self._changes = ChangeLines(as_json=as_json, timestamps=False)
        self._start = StartText(launch)
        self._began = self._ended = False

    def show(self, report: dict[str, Any]) -> None:
        if not self._began and not self._as_json:
            echo(self._start.heading())
        self._began = True
        self._changes.show(report)
        if not self._ended and not self._as_json and (lines := self._start.ending(report)):
            self._ended = True
            echo("\n".join(lines))

    def refresh(self) -> None:
        """Do nothing: the lines have no ages."""

    def wait(self, error: TrimtabError) -> None:
        self._changes.wait(error)


def screen_of(heading: list[str], report: dict[str, Any], view: TableView, *, height: int) -> str:
    """Return the heading, and below the heading as much of the table as fits the screen."""
    assert view.width is not None, "a terminal has a width"
    width = view.width
    head = [part for line in heading for part in _wrapped(line, width)]
    return "\n".join([*head, "", fit_status(report, view, height - len(head) - 2)])


def _wrapped(line: str, width: int) -> list[str]:
    """Return the lines of a line in a width; they keep its indentation, and go on deeper."""
    if cell_width(line) <= width:
        return [line]
    text = line.lstrip(" ")
    indent = line[: len(line) - len(text)]
    first, *others = wrap(text, max(width - len(indent) - 2, 1)) or [""]
    return [f"{indent}{first}", *(f"{indent}  {other}" for other in others)]


class _Live:
    """Redraws the table of resources in place, below the heading and the reachable addresses."""

    def __init__(self, launch: Launch, screen: Screen) -> None:
        self._start = StartText(launch)
        self._screen = screen
        self._folder = Path(launch.instance.dir)
        self._report: dict[str, Any] = {}

    def refresh(self) -> None:
        """Draw the last report again."""
        self.show(self._report)

    def show(self, report: dict[str, Any]) -> None:
        self._report = report
        excerpt = report_excerpts(self._folder)  # reads the files again
        view = TableView(self._screen.width, current_time(), excerpt=excerpt)
        lines = [self._start.heading(), *(f"  {line}" for line in self._start.ending(report))]
        self._screen.draw(screen_of(lines, report, view, height=self._screen.height))

    def wait(self, error: TrimtabError) -> None:
        self._screen.draw(f"{self._start.heading()}\n\nwaiting: {printable(error.message)}")
