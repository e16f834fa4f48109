"""The sinks for files, and ``open_sink`` for all destinations.

Records are delivered in order; when ``deliver`` returns, the delivery is complete. After a broken
connection, a sink can't know which records arrived, and requests a repetition (``Undelivered``):
records are delivered at least once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import assert_never

from controller.core.records.checkpoint import Checkpoint, parse_checkpoint, read_checkpoint
from controller.core.transparency.signed_note import NOTE_MAX_BYTES, BadNote, parse_note
from controller.ship.destination import Destination, ToFile, ToNote, ToOtlp, ToSyslog
from controller.ship.follower import Diverged, Shipped, checkpoints
from controller.ship.sink import Sender, Sink, Undelivered
from controller.system.atomic_file import fsync_folder, write_atomic


class FileSink:
    """Appends lines to a file, and syncs. After a rotation (a rename) a new file is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Append the lines."""
        data = b"".join(shipped.line + b"\n" for shipped in batch)
        try:
            opened = self._open()
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
            if opened:
                fsync_folder(self._path.parent, required=False)
        except OSError as error:
            self.close()
            raise Undelivered(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = -1

    def _open(self) -> bool:
        """Open the file if needed; return True if it was opened now, and so is possibly new."""
        if self._handle >= 0 and not self._is_there():
            self.close()
        opened = self._handle < 0
        if opened:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._handle = os.open(self._path, flags, 0o640)
        self._cut_unfinished()
        return opened

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def _cut_unfinished(self) -> None:
        """Remove an unfinished last line: the process was killed, and the record is sent again."""
        size = os.fstat(self._handle).st_size
        end = size
        while end:
            start = max(0, end - 65536)
            newline = os.pread(self._handle, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._handle, end)


class NoteSink:
    """A file with the last checkpoint's signed note, for ``journal verify --checkpoint``.

    The file is replaced atomically, and never by an older or contradicting checkpoint: a journal
    with such a checkpoint was changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Write the last note of the batch; raises Diverged if the file has a contradicting note."""
        found = list(checkpoints(list(batch)))
        if not found:
            return
        last = found[-1]
        try:
            sealed = read_checkpoint(last.record)
            if self._is_newer(sealed.checkpoint):
                note = str(sealed.note).encode()
                write_atomic(self._path, note, mode=None, folder_sync_required=False)
        except BadNote as error:
            raise Undelivered(f"record {last.record.seq} holds no checkpoint: {error}") from error
        except OSError as error:
            raise Undelivered(f"{self._path}: {error.strerror}") from error

    def _is_newer(self, checkpoint: Checkpoint) -> bool:
        """Return True if a checkpoint is newer than the file's, False if they are equal.

        Raises:
            Diverged: the checkpoint contradicts the file's, or the file has no checkpoint.
            OSError: the file can't be read.
        """
        try:
            with self._path.open("rb") as file:
                content = file.read(NOTE_MAX_BYTES + 1)
        except FileNotFoundError:
            return True
        if not content:
            return True
        try:
            existing = parse_checkpoint(parse_note(content.decode()))
        except ValueError as error:
            raise self._diverged(f"holds no checkpoint: {error}") from error
        if existing == checkpoint:
            return False
        if existing.origin != checkpoint.origin:
            raise self._diverged(
                f"is of {existing.origin}, and this journal is {checkpoint.origin}"
            )
        if existing.size >= checkpoint.size:
            raise self._diverged(
                f"is of {existing.size} records, and what follows of {checkpoint.size}"
            )
        return True

    def _diverged(self, why: str) -> Diverged:
        return Diverged(
            "ship.diverged",
            f"{self._path} {why}: it isn't replaced",
            remedy=f"see whether the journal holds by it ('trimtab journal verify --checkpoint "
            f"{self._path}'); if so, or if this is another journal on purpose, move it away",
        )

    def close(self) -> None:
        """Do nothing: no file stays open."""


class OnlyCheckpoints:
    """Passes only checkpoints to another sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Deliver the checkpoints of a batch."""
        if chosen := list(checkpoints(list(batch))):
            self._sink.deliver(chosen)

    def close(self) -> None:
        """Close the other sink."""
        self._sink.close()


def open_sink(destination: Destination, sender: Sender) -> Sink:
    """Return the sink of a destination.

    Raises:
        UsageError: a required package is missing, or a TLS file can't be used.
    """
    sink: Sink
    match destination:
        case ToFile():
            sink = FileSink(destination.path)
        case ToNote():
            return NoteSink(destination.path)
        case ToSyslog():
            from controller.ship.syslog_transport import SyslogSink

            sink = SyslogSink(destination, sender)
        case ToOtlp():
            from controller.ship.otlp import OtlpSink

            sink = OtlpSink(destination, sender)
        case _:
            assert_never(destination)
    return OnlyCheckpoints(sink) if destination.checkpoints_only else sink
