"""``volume dump``: write the data of a volume as a tar file."""

from __future__ import annotations

import hashlib
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import click

from controller.cli.options import command, note_option, open_state
from controller.cli.output.terminal import echo, rewrite
from controller.cli.volume import hold as holds
from controller.core.encoding.terminal_text import printable
from controller.model.errors import StateError, UsageError, error_reason
from controller.model.quantities import format_bytes
from controller.process.volumes.child import ChildFailed, VolumeChild, start_dump

CHUNK = 1024 * 1024


@command("""\b
Examples:
  trimtab volume dump db-data -o db-data.tar
  trimtab volume dump shop.data --live | zstd > shop.tar.zst

\b
Exit codes: 0 dumped, 1 error, nothing runs, or a container wasn't started again, 4 refused.
""")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write (default: standard output). It appears when the dump is complete.",
)
@click.option("--live", is_flag=True, help="Let the containers run. Files may change meanwhile.")
@note_option
def dump(
    name: str, output: Path | None, live: bool, note: str, state: Path | None, as_json: bool
) -> int:
    """Write the data of a volume as a tar file.

    NAME is the engine's name, as in 'trimtab volume list'. The containers with the volume are
    stopped, and started again afterwards, also if the command dies. Devices and sockets are left
    out and named. The journal gets the digest.
    """
    holds.raise_if_not_root()
    if output is None and (sys.stdout.isatty() or as_json):
        raise UsageError(
            "volume.output",
            "the archive would go to the terminal, or beside the JSON",
            remedy="name a file with -o, or use a pipe",
        )
    folder, _ = open_state(state)
    begun = holds.begin(folder.broker_socket, name, "dump", live=live, note=note)
    with holds.ended_at_failure(begun):
        result = _dump(begun, output, live=live)
    if not as_json:
        _name("left out", result["skipped"], result["skippedCount"])
        _name("changed while it was read", result["changed"], result["changedCount"])
    totals = {"file": str(output), **result}
    return holds.finish(begun, "dumped", totals, as_json=as_json, err=output is None)


def _dump(begun: holds.BegunHold, output: Path | None, *, live: bool) -> dict[str, Any]:
    if not live:
        begun.keep()
        begun.stop_users()
        begun.raise_if_lost()
    with open_sink(output) as sink:
        # The only other thread sends renewals, and holds no lock that the child needs.
        child = start_dump(begun.path, begun.volume)
        if live:
            begun.keep()
        try:
            result = _receive(child, sink, begun.volume)
        except BaseException:
            child.kill()
            raise
        if child.end() != 0:
            raise StateError("volume.dump", f"the dump of {begun.volume} ended early")
        if not live:
            begun.raise_if_lost()
    return result


@contextmanager
def open_sink(output: Path | None) -> Iterator[BinaryIO]:
    """Yield the file for the archive. A named file appears once it is complete and durable."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    draft = output.with_name(f".{output.name}.part")
    try:
        # Whoever made or holds the earlier file would read the data of the volume.
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError("volume.output", f"{draft}: {error_reason(error)}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def _receive(child: VolumeChild, sink: BinaryIO, volume: str) -> dict[str, Any]:
    """Copy the archive from the child to a file, and return its totals as members of ``--json``.

    Raises:
        StateError: the child failed, or the file can't be written.
    """
    received = _Received(child, sink, volume)
    poll = select.poll()
    for handle in (child.data, child.reports):
        poll.register(handle, select.POLLIN)
    left = 2
    try:
        while left:
            for handle, _ in poll.poll():
                read = received.read_data if handle == child.data else received.read_reports
                if not read():
                    poll.unregister(handle)
                    left -= 1
    except ChildFailed as error:
        reason = f"{volume} can't be dumped: {printable(str(error))}"
        raise StateError("volume.dump", reason) from error
    except OSError as error:
        reason = f"the archive can't be written: {error_reason(error)}"
        raise StateError("volume.output", reason) from error
    finally:
        clear_progress()
    if not received.told.get("done"):
        raise StateError("volume.dump", f"the dump of {volume} ended early")
    return received.result


@dataclass(slots=True)
class _Received:
    """The messages and bytes from the child of a dump."""

    child: VolumeChild
    sink: BinaryIO
    volume: str
    told: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    skipped: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    _digest: Any = field(default_factory=hashlib.sha256)

    def read_data(self) -> bool:
        """Copy a part of the archive; return False at its end."""
        data = os.read(self.child.data, CHUNK)
        self._digest.update(data)
        self.size_bytes += len(data)
        self.sink.write(data)
        return bool(data)

    def read_reports(self) -> bool:
        """Read the child's pending reports; return False at the end of the reports."""
        for each in self.child.read_reports(wait=False):
            self.told |= each
            if "skipped" in each:
                self.skipped.append(f"{each['skipped']} ({each['kind']})")
            if "changed" in each:
                self.changed.append(str(each["changed"]))
        show_progress(f"dumping {self.volume}", self.told)
        return not self.child.ended

    @property
    def result(self) -> dict[str, Any]:
        """The totals of a finished archive, as members of ``--json``."""
        return {
            "sha256": self._digest.hexdigest(),
            "bytes": self.size_bytes,
            "entries": int(self.told["entries"]),
            "skipped": self.skipped,
            "skippedCount": int(self.told["skippedCount"]),
            "changed": self.changed,
            "changedCount": int(self.told["changedCount"]),
        }


def show_progress(what: str, told: dict[str, Any]) -> None:
    """Show the progress on a terminal."""
    if sys.stderr.isatty() and "bytes" in told:
        rewrite(f"{printable(what)}: {format_bytes(told['bytes'])}, {told['entries']} entries")


def clear_progress() -> None:
    """Erase the progress on a terminal."""
    if sys.stderr.isatty():
        rewrite("")


def _name(what: str, names: list[str], count: int) -> None:
    for name in names:
        echo(f"{what}: {printable(name)}", err=True)
    if count > len(names):
        echo(f"{what}: {count - len(names)} more", err=True)
