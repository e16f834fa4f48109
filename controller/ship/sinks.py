"""The sinks for files, and ``open_sink`` for all destinations.

Records are delivered in order; when ``deliver`` returns, the delivery is complete. After a broken
connection, a sink can't know which records arrived, and requests a repetition (``Undelivered``):
records are delivered at least once.

Syslog over UDP, TCP and TLS. Sources: RFC 5426, RFC 6587, RFC 5425.

Syslog has no acknowledgements. Over a connection, a batch counts as delivered once the receiver's
kernel has acknowledged all its bytes (SIOCOUTQ). When the connection breaks, records of the last
seconds are sent again, since the receiver has possibly not read them. Datagrams are never repeated.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, assert_never

from controller.core.records.checkpoint import Checkpoint, parse_checkpoint, read_checkpoint
from controller.core.transparency import NOTE_MAX_BYTES, BadNote, parse_note
from controller.model.errors import UsageError
from controller.ship import destination
from controller.ship.destination import (
    Destination,
    Sender,
    Sink,
    TlsFiles,
    ToFile,
    ToNote,
    ToOtlp,
    ToSyslog,
    Undelivered,
)
from controller.ship.follower import Diverged, Shipped, checkpoints
from controller.system.durable_files import fsync_folder, write_atomic


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
            sink = SyslogSink(destination, sender)
        case ToOtlp():
            from controller.ship.otlp import OtlpSink

            sink = OtlpSink(destination, sender)
        case _:
            assert_never(destination)
    return OnlyCheckpoints(sink) if destination.checkpoints_only else sink


CONNECT_S: Final = 10.0
#: Longest time without progress, and longest time for a batch with progress.
SEND_S: Final = 30.0
LONGEST_S: Final = 600.0
#: Records sent within this time before a break are sent again.
DOUBTFUL_S: Final = 10.0
_LOOK_S: Final = 0.005
_PIECE_BYTES: Final = 64 * 1024
#: Longest datagram (RFC 5426, section 3.2, and IP's limit); longer messages are cut.
DATAGRAM_BYTES: Final = 65_000


class SyslogSink:
    """Delivers records to one syslog receiver."""

    def __init__(self, destination: ToSyslog, sender: Sender) -> None:
        """Set up TLS if needed; raises UsageError if a TLS file can't be used."""
        self._to = destination
        self._sender = sender
        self._peer: socket.socket | None = None
        self._tls = _context(destination.trust) if destination.transport == "tls" else None

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Send each record as a message."""
        messages = [self._message(shipped) for shipped in batch]
        try:
            peer = self._peer or self._connect()
        except OSError as error:
            raise Undelivered(f"{self._where}: {_why(error)}") from error
        try:
            if self._to.transport == "udp":
                for message in messages:
                    peer.send(_datagram(message))
                return
            _refuse_ended(peer)
            until = self._sender.monotonic() + LONGEST_S
            self._send(peer, b"".join(map(destination.counted, messages)), until=until)
            self._await_acknowledged(peer, until=until)
        except OSError as error:
            self.close()
            raise Undelivered(f"{self._where}: {_why(error)}", doubtful_s=DOUBTFUL_S) from error

    def close(self) -> None:
        """Close the connection."""
        if self._peer is not None:
            with suppress(OSError):
                self._peer.close()
            self._peer = None

    @property
    def _where(self) -> str:
        return f"{self._to.host}:{self._to.port}"

    def _message(self, shipped: Shipped) -> bytes:
        return destination.syslog(
            shipped.record,
            shipped.line,
            host=self._sender.host,
            version=self._sender.version,
            facility=self._to.facility,
            form=self._to.form,
        )

    def _connect(self) -> socket.socket:
        address = (self._to.host, self._to.port)
        if self._to.transport == "udp":
            family, kind, protocol, _, where = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[
                0
            ]
            peer = socket.socket(family, kind, protocol)
            peer.connect(where)
        else:
            peer = socket.create_connection(address, timeout=CONNECT_S)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                try:
                    peer = self._tls.wrap_socket(peer, server_hostname=self._to.host)
                except OSError:
                    peer.close()
                    raise
        peer.settimeout(SEND_S)
        self._peer = peer
        return peer

    def _send(self, peer: socket.socket, data: bytes, *, until: float) -> None:
        """Pass all data to the kernel's send buffer.

        Raises:
            OSError: no progress within SEND_S, not finished at *until*, or the receiver hung up.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[peer.send(rest[:_PIECE_BYTES]) :]
            self._refuse_late(until)

    def _await_acknowledged(self, peer: socket.socket, *, until: float) -> None:
        """Wait until the receiver's kernel has acknowledged all data.

        Raises:
            OSError: no progress within SEND_S, not finished at *until*, or the receiver hung up.
        """
        unsent = _unsent(peer)
        deadline = self._sender.monotonic() + SEND_S
        while unsent:
            self._refuse_late(until)
            if self._sender.monotonic() > deadline:
                raise TimeoutError("it takes nothing")
            _refuse_ended(peer, wait_s=_LOOK_S)
            before, unsent = unsent, _unsent(peer)
            if unsent < before:
                deadline = self._sender.monotonic() + SEND_S

    def _refuse_late(self, until: float) -> None:
        if self._sender.monotonic() > until:
            raise TimeoutError(f"it took less than a batch in {LONGEST_S:.0f} s")


def _datagram(message: bytes) -> bytes:
    """Return a message cut to the size of a datagram, between two characters."""
    if len(message) <= DATAGRAM_BYTES:
        return message
    return message[:DATAGRAM_BYTES].decode(errors="ignore").encode()


def _refuse_ended(peer: socket.socket, *, wait_s: float = 0.0) -> None:
    """Check for a hang-up: a syslog receiver never sends data.

    Raises:
        OSError: the receiver hung up.
    """
    if not select.select([peer], [], [], wait_s)[0]:
        return
    peer.settimeout(0.0)
    try:
        if not peer.recv(4096):
            raise ConnectionResetError(104, "the other side hung up")
    except (BlockingIOError, ssl.SSLWantReadError):
        return  # a part of a TLS record
    finally:
        peer.settimeout(SEND_S)


def _unsent(peer: socket.socket) -> int:
    """Return the number of bytes not yet acknowledged by the receiver (tcp(7), SIOCOUTQ)."""
    queued = fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", queued)[0])


def _context(trust: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trust.ca)
        if trust.cert is not None:
            context.load_cert_chain(trust.cert, trust.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "ship.tls",
            f"a file for TLS can't be used: {_why(error)}",
            remedy="name PEM files that the shipper's user may read",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
