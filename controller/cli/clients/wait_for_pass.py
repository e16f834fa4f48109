"""Progress on stderr while a command waits for the controller: what it did, and how far pulls are.

On a terminal the pulls that run share one line, which is rewritten; elsewhere each change is a line.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import click

from controller.cli.clients.socket_client import ask_controller
from controller.cli.output.tables import clip
from controller.core.encoding.terminal_text import printable
from controller.model.errors import TrimtabError

LOOK_S = 0.5
#: How long a busy controller is waited for; the next look is soon.
ANSWER_S: Final = 2.0
#: Shows something while the block waits for the controller behind a socket.
Waiting = Callable[[Path], AbstractContextManager[None]]
#: Effects of a plan by which no field of an object changes now.
_UNCHANGED: Final = frozenset({"held", "none", "refused", "wait"})
_ERASE: Final = "\r\x1b[K"


@contextmanager
def in_silence(_socket: Path) -> Iterator[None]:
    """Show nothing."""
    yield


@contextmanager
def showing_progress(socket: Path) -> Iterator[None]:
    """Show on stderr what the controller does from now on, and how far its pulls are."""
    progress = ProgressPrinter(socket)
    over = threading.Event()
    thread = threading.Thread(target=progress.run, args=(over,), name="progress", daemon=True)
    progress.begin()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * ANSWER_S)


class ProgressPrinter:
    """The progress that was printed already. Not thread-safe."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._last = 0
        self._shown: dict[str, str] = {}
        self._line = ""  # the one that is rewritten

    def begin(self) -> None:
        """Take note of what was done before: it isn't shown."""
        if (told := self.ask()) is not None:
            self._last = told["last"]

    def run(self, over: threading.Event) -> None:
        """Look and show until *over*, and once more then."""
        while not over.wait(LOOK_S):
            self.look()
        self.look()
        self._rewrite("")

    def ask(self) -> Any:
        """Return what is new since the last answer; None if the controller doesn't answer now."""
        question = {"do": "progress", "since": self._last}
        try:
            return ask_controller(self._socket, question, timeout_s=ANSWER_S)
        except TrimtabError:
            return None  # it is busy, or isn't there yet

    def look(self) -> None:
        """Show what is new."""
        told = self.ask()
        if told is None:
            return
        for act in told["acts"]:
            if act["text"] is not None:
                self._put(act["text"])
        self._last = told["last"]
        working = {name_of(key): f"pulling {text}" for key, text in told["working"].items()}
        if sys.stderr.isatty():
            self._rewrite("; ".join(f"{name}: {text}" for name, text in working.items()))
        else:
            for name, text in working.items():
                if self._shown.get(name) != text:
                    self._put(f"{name}: {text}")
        self._shown = working

    def _put(self, text: str) -> None:
        line, self._line = self._line, ""
        click.echo(f"{_ERASE if line else ''}{printable(text)}", err=True)
        if line:
            self._rewrite(line)

    def _rewrite(self, text: str) -> None:
        if text == self._line:
            return
        room = shutil.get_terminal_size((80, 24)).columns - 1
        click.echo(f"{_ERASE}{clip(printable(text), room)}", err=True, nl=False)
        self._line = text


def show_changes(objects: Iterable[dict[str, Any]]) -> None:
    """Show on stderr which fields are about to change, once for each object."""
    for each in objects:
        if each.get("new") or each["effect"] in _UNCHANGED:
            continue
        for text in dict.fromkeys(change["text"] for change in each["changes"]):
            click.echo(f"{name_of(each['object'])}: {printable(text)}", err=True)


def name_of(key: str) -> str:
    """Return how a command names ``KIND/NAMESPACE/NAME``: without its kind and the default namespace."""
    _, namespace, name = key.split("/")
    return name if namespace == "default" else f"{namespace}/{name}"
