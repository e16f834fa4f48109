"""What ``up`` shows while it runs: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import json
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import click

from controller.cli.api import ask_controller
from controller.cli.conditions import message_of, word_of
from controller.cli.fetch import place_of
from controller.cli.status import ready_of, render_status
from controller.model.errors import TrimtabError

if TYPE_CHECKING:
    from controller.launch import Launch
    from controller.process.assembly import Assembly

REFRESH_S = 0.5
#: Children are looked after between two questions: no answer may hold that up for long.
ANSWER_S = 1.0


def watch(assembly: Assembly, launch: Launch, *, as_json: bool) -> None:
    """Show the instance until SIGINT or SIGTERM, looking after the children meanwhile."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    terminal = sys.stdout.isatty() and not as_json
    view: _Live | _Lines = _Live(launch) if terminal else _Lines(as_json=as_json)
    with view:
        while not stop.is_set():
            assembly.look_after()
            try:
                status = ask_controller(
                    launch.state.controller_socket, {"do": "status"}, timeout_s=ANSWER_S
                )
                view.show(status)
            except TrimtabError as error:
                view.wait(error)
            stop.wait(REFRESH_S)


class _Lines:
    """One line whenever a resource's word, or a problem, changes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._seen: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, status: dict[str, Any]) -> None:
        now = {}
        for resource in status["resources"]:
            key = f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
            count = ready_of(resource) if resource["kind"] == "Service" else ""
            parts = (word_of(resource), count, message_of(resource))
            now[key] = "  ".join(filter(None, parts))
        for problem in status["problems"]:
            place = place_of(problem)
            now[f"problem {place} {problem['code']}" if place else f"problem {problem['code']}"] = (
                problem["message"]
            )
        if self._as_json:
            if now != self._seen:
                click.echo(json.dumps(status))
        else:
            for key, text in now.items():
                if self._seen.get(key) != text:
                    click.echo(f"{key}  {text}")
            for key in self._seen.keys() - now.keys():
                click.echo(f"{key}  gone")
        self._seen = now

    def wait(self, error: TrimtabError) -> None:
        text = f"waiting: {error.message}"
        if self._seen.get("waiting") != text and not self._as_json:
            click.echo(text)
            self._seen = {**self._seen, "waiting": text}


class _Live:
    """The status table, redrawn in place on the terminal's alternate screen-free area."""

    def __init__(self, launch: Launch) -> None:
        from rich.console import Console
        from rich.live import Live

        self._head = (
            f"trimtab converges {launch.instance.dir} under the policy {launch.policy.stem}; "
            "Ctrl-C stops it"
        )
        self._live = Live(console=Console(), auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, status: dict[str, Any]) -> None:
        from rich.text import Text

        width = self._live.console.width
        text = Text.from_ansi(f"{self._head}\n\n{render_status(status, width=width)}")
        text.no_wrap = True
        text.overflow = "ellipsis"
        self._live.update(text, refresh=True)

    def wait(self, error: TrimtabError) -> None:
        from rich.text import Text

        self._live.update(Text(f"{self._head}\n\nwaiting: {error.message}"), refresh=True)
