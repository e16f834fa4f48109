"""Progress on standard error while a command waits for the controller: its actions and pulls.

On a terminal the running pulls share a line, which is rewritten. Elsewhere each change is a new
line.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from controller.cli.clients.socket_client import ask_controller
from controller.cli.output.tables import clip
from controller.cli.output.terminal import echo, rewrite
from controller.core.encoding.terminal_text import printable
from controller.model.errors import TrimtabError

POLL_S = 0.5
#: Time for a busy controller's answer; the next poll follows soon.
ANSWER_S: Final = 2.0
#: Shows progress while the block waits for the controller behind a socket.
Waiting = Callable[[Path], AbstractContextManager[None]]
#: Effects of a plan that change no field of an object now.
_UNCHANGED: Final = frozenset({"held", "none", "refused", "wait"})


@contextmanager
def in_silence(_socket: Path) -> Iterator[None]:
    """Show nothing."""
    yield


@contextmanager
def showing_progress(socket: Path) -> Iterator[None]:
    """Show the controller's actions and pulls from now on, on standard error."""
    printer = ProgressPrinter(socket)
    finished = threading.Event()
    thread = threading.Thread(target=printer.run, args=(finished,), name="progress", daemon=True)
    printer.begin()
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(2 * ANSWER_S)


class ProgressPrinter:
    """Prints progress once. Not thread-safe."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        #: The number of the last printed action.
        self._last = 0
        #: The printed pulls, by service.
        self._pulls: dict[str, str] = {}
        #: The line that is rewritten.
        self._line = ""

    def begin(self) -> None:
        """Skip the actions before now."""
        if (progress := self.ask()) is not None:
            self._last = progress["last"]

    def run(self, finished: threading.Event) -> None:
        """Update until *finished*, then once more."""
        while not finished.wait(POLL_S):
            self.update()
        self.update()
        self._rewrite("")

    def ask(self) -> Any:
        """Return the progress since the last answer; None if the controller doesn't answer now."""
        question = {"do": "progress", "since": self._last}
        try:
            return ask_controller(self._socket, question, timeout_s=ANSWER_S)
        except TrimtabError:
            return None  # the controller is busy or still starts

    def update(self) -> None:
        """Print new progress."""
        progress = self.ask()
        if progress is None:
            return
        for action in progress["acts"]:
            if action["text"] is not None:
                self._print(action["text"])
        self._last = progress["last"]
        pulls = {name_of(key): f"pulling {text}" for key, text in progress["working"].items()}
        if sys.stderr.isatty():
            self._rewrite("; ".join(f"{name}: {text}" for name, text in pulls.items()))
        else:
            for name, text in pulls.items():
                if self._pulls.get(name) != text:
                    self._print(f"{name}: {text}")
        self._pulls = pulls

    def _print(self, text: str) -> None:
        line, self._line = self._line, ""
        if line:
            rewrite("")
        echo(printable(text), err=True)
        if line:
            self._rewrite(line)

    def _rewrite(self, text: str) -> None:
        if text == self._line:
            return
        width = shutil.get_terminal_size((80, 24)).columns - 1
        rewrite(clip(printable(text), width))
        self._line = text


def show_changes(objects: Iterable[dict[str, Any]]) -> None:
    """Print the fields that are about to change, on standard error, once for each object."""
    for item in objects:
        if item.get("new") or item["effect"] in _UNCHANGED:
            continue
        for text in dict.fromkeys(change["text"] for change in item["changes"]):
            echo(printable(f"{name_of(item['object'])}: {text}"), err=True)


def name_of(key: str) -> str:
    """Return ``NAME`` or ``NAMESPACE/NAME`` for a key ``KIND/NAMESPACE/NAME``."""
    _, namespace, name = key.split("/")
    return name if namespace == "default" else f"{namespace}/{name}"
