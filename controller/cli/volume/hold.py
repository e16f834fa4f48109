"""The hold of a volume: the command's side of the lease that the broker keeps.

The broker starts no container with the volume meanwhile. A thread renews the lease. When the
command ends, by whatever means, the broker starts the containers again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import print_json
from controller.cli.output.terminal import echo
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable, StateError, TrimtabError, UsageError
from controller.model.mutations import VOLUME_END, VOLUME_HOLD
from controller.model.quantities import format_bytes

RENEW_S = 5.0
#: The longest grace of a stop, and spare time; the end of a hold starts containers.
STOP_S = 330.0
#: The end is repeated while the broker is away.
END_TRIES, END_PAUSE_S = 12, 5.0


def confirm(name: str, fate: str, question: str) -> None:
    """Ask about an act without a way back, and end the command unless the answer is yes.

    Raises:
        UsageError: standard input isn't a terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "volume.unconfirmed",
            f"the data of {name} would be {fate}, and standard input isn't a terminal",
            remedy="repeat it with --yes",
        )
    click.confirm(question, abort=True, err=True)


@dataclass(slots=True)
class BegunHold:
    """A begun hold."""

    socket: Path
    volume: str
    id: str
    #: The folder of the volume on the host.
    path: str
    #: The containers that run: id and name.
    users: list[dict[str, str]]
    lease_s: float
    renewed_at: float
    lost: str = ""
    _done: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        """Renew the lease in a thread from now on. Call after the last fork."""
        threading.Thread(target=self._renew, name="renew-hold", daemon=True).start()

    def _renew(self) -> None:
        while not self._done.wait(RENEW_S):
            self.renew()

    def renew(self) -> None:
        """Renew the lease. A short absence of the broker doesn't end the lease."""
        at = time.monotonic()
        try:
            self._post({"act": "renew-hold", "object": self.volume, "id": self.id})
            self.renewed_at = at
        except EngineUnavailable:
            pass
        except TrimtabError as error:
            self.lost = error.message

    def raise_if_lost(self) -> None:
        """Raise StateError if the containers may be running again."""
        if not self.lost and time.monotonic() - self.renewed_at < self.lease_s / 2:
            return
        raise StateError(
            "volume.hold-lost",
            self.lost or "the broker was away for too long",
            remedy="look at 'trimtab status', and repeat the command",
        )

    def stop_users(self) -> None:
        """Stop the running containers, through the gate.

        Raises:
            TrimtabError: a container can't be stopped.
        """
        engine = EngineApi(self.socket, STOP_S)
        for user in self.users:
            engine.fetch(f"/containers/{user['id']}/stop", "POST")

    def end(self, outcome: str, **result: Any) -> dict[str, Any]:
        """End the hold: the broker starts the containers, and records the result.

        Raises:
            TrimtabError: the broker stays away, or refuses.
        """
        self._done.set()
        body = {
            "act": VOLUME_END,
            "object": self.volume,
            "id": self.id,
            "outcome": outcome,
            **result,
        }
        for left in reversed(range(END_TRIES)):
            try:
                return dict(self._post(body, STOP_S))
            except EngineUnavailable:
                if not left:
                    raise
                time.sleep(END_PAUSE_S)
        raise AssertionError("the last try returns or raises")

    def _post(self, body: dict[str, Any], timeout_s: float = 15.0) -> Any:
        return BrokerApi(self.socket, timeout_s).post("records", body)


def begin(socket: Path, volume: str, act: str, *, live: bool = False, note: str = "") -> BegunHold:
    """Begin a hold.

    Raises:
        TrimtabError: nothing runs, or the broker refuses.
    """
    asked_at = time.monotonic()
    members = {"for": act, "live": live}
    reply = BrokerApi(socket, 60.0).record(VOLUME_HOLD, volume, note, **members)
    return BegunHold(
        socket=socket,
        volume=str(reply["volume"]),
        id=str(reply["id"]),
        path=str(reply["path"]),
        users=list(reply["users"]),
        lease_s=float(reply["leaseS"]),
        renewed_at=asked_at,
    )


@contextmanager
def ended_at_failure(hold: BegunHold) -> Iterator[None]:
    """End a hold if the block fails, also by a signal."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        yield
    except BaseException as error:
        with suppress(TrimtabError):
            told = (
                error.message if isinstance(error, TrimtabError) else "the command was interrupted"
            )
            report_failures(hold.end("failed", note=told[:512]))
        raise


def report_failures(reply: dict[str, Any]) -> int:
    """Print the containers that couldn't be started again; return their number."""
    for each in reply["failed"]:
        echo(printable(f"{each['name']} wasn't started again: {each['reason']}"), err=True)
    return len(reply["failed"])


def finish(
    hold: BegunHold, what: str, totals: dict[str, Any], *, as_json: bool, err: bool = False
) -> int:
    """End a hold, print the archive that was dumped or restored, and return the exit code.

    *totals* has ``sha256``, ``bytes`` and ``entries``. With *err* the text goes to standard error.
    """
    digest, entries = f"sha256:{totals['sha256']}", totals["entries"]
    reply = hold.end("succeeded", digest=digest, bytes=totals["bytes"], files=entries)
    if as_json:
        started = {"record": reply["id"], "started": reply["started"], "failed": reply["failed"]}
        print_json({"volume": hold.volume, **totals, **started})
    else:
        size = format_bytes(totals["bytes"])
        echo(printable(f"{what} {hold.volume}: {size}, {entries} entries, {digest}"), err=err)
    return EXIT_ERROR if report_failures(reply) else 0


def raise_if_not_root() -> None:
    """Raise StateError for another user than root: the engine's volumes belong to root."""
    if os.geteuid() != 0:
        raise StateError(
            "volume.root",
            "the data of volumes belongs to root",
            remedy="run the command as root, for example with sudo",
        )
