"""What a command tells while it waits for the controller: how far pulls are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click

from controller.cli.api import ask_controller
from controller.model.errors import TrimtabError

LOOK_S = 1.0
#: Tells something while the block waits for the controller behind a socket.
Waiting = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def in_silence(_socket: Path) -> Iterator[None]:
    """Tell nothing."""
    yield


@contextmanager
def telling_pulls(socket: Path) -> Iterator[None]:
    """Tell on stderr how far pulls are, a line a change."""
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(socket, over), name="pulls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * LOOK_S)


def _tell(socket: Path, over: threading.Event) -> None:
    shown: dict[str, str] = {}
    while not over.wait(LOOK_S):
        try:
            status = ask_controller(socket, {"do": "status"}, timeout_s=LOOK_S)
        except TrimtabError:
            continue  # it is busy, or isn't there yet
        now = pulls_of(status)
        for name, message in now.items():
            if shown.get(name) != message:
                click.echo(f"{name}: pulling {message}", err=True)
        shown = now


def pulls_of(status: dict[str, Any]) -> dict[str, str]:
    """Return how far each pull is, by the resource that it is for."""
    return {
        f"{resource['namespace']}/{resource['name']}": condition["message"]
        for resource in status["resources"]
        for condition in resource["conditions"]
        if condition["type"] == "Progressing" and condition["reason"] == "Pulling"
    }
