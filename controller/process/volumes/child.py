"""The child of a dump or restore: a process with the volume as its root, and with few capabilities.

Programs of containers wrote the names, links and contents of a volume. So a process that sees
nothing else reads the folder: a fork with the volume as its root, without other descriptors, and
with a single capability for a dump. Parent and child exchange lines of JSON on pipes.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from controller.process.volumes import restore
from controller.process.volumes.archive import ArchiveWriter, BadArchive
from controller.system import syscalls

#: Numbers of capabilities, from linux/capability.h.
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID = 0, 1, 2, 3, 4
DUMP_KEEPS = (DAC_READ_SEARCH,)
#: Beside owner and mode: set-group-id bits, and folders that their own owner may not write to.
RESTORE_KEEPS = (CHOWN, DAC_OVERRIDE, FOWNER, FSETID)
MEMORY_MAX = 4 * 1024 * 1024 * 1024
#: The shortest time between two reports of progress.
REPORT_S = 0.2
MARK, EXCHANGE, ABORT = b"mark\n", b"exchange\n", b"abort\n"
_LINE_MAX = 64 * 1024


class ChildFailed(Exception):
    """The child couldn't do its work."""


@dataclass(slots=True)
class VolumeChild:
    """A running child with pipes; -1 for a closed pipe."""

    pid: int
    #: The archive: from the child of a dump, to the child of a restore.
    data: int
    reports: int
    commands: int
    #: The pipe of the reports is at its end.
    ended: bool = False
    _buffer: bytearray = field(default_factory=bytearray)

    def read_reports(self, *, wait: bool, until: str = "") -> Iterator[dict[str, Any]]:
        """Yield the reports that are there; with *wait*, all up to the end, or to a member.

        Raises:
            ChildFailed: the child reports an error.
        """
        while wait or select.select([self.reports], [], [], 0)[0]:
            chunk = os.read(self.reports, _LINE_MAX)
            if not chunk:
                self.ended = True
                return
            self._buffer += chunk
            while (at := self._buffer.find(b"\n")) >= 0:
                line = json.loads(self._buffer[:at])
                del self._buffer[: at + 1]
                if "error" in line:
                    raise ChildFailed(str(line["error"]))
                yield line
                if until and until in line:
                    return

    def command(self, word: bytes) -> None:
        """Send a command."""
        os.write(self.commands, word)

    def close_data(self) -> None:
        """Close the pipe of the archive."""
        if self.data >= 0:
            os.close(self.data)
            self.data = -1

    def end(self) -> int:
        """Wait for the child, and return its exit status."""
        self.close_data()
        for handle in (self.reports, self.commands):
            if handle >= 0:
                os.close(handle)
        self.reports = self.commands = -1
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def abort(self) -> None:
        """Let the child of a restore remove the unpacked files, and wait for the child's end."""
        with suppress(OSError):  # it ended already
            self.command(ABORT)
        self.end()

    def kill(self) -> None:
        """End the child now. It must not be amid an exchange."""
        os.kill(self.pid, signal.SIGKILL)
        self.end()


def start_dump(folder: str, volume: str) -> VolumeChild:
    """Start a child that writes the archive of a volume."""

    def work(data: BinaryIO, report: Callable[[dict[str, Any]], None], _commands: int) -> None:
        writer = ArchiveWriter(data, report)
        writer.write(volume)
        report(
            {
                "done": True,
                "entries": writer.entries,
                "bytes": writer.size_bytes,
                "skippedCount": writer.skipped,
                "changedCount": writer.changed,
            }
        )

    return _start(folder, work, keep=DUMP_KEEPS, writes=True)


def start_restore(folder: str) -> VolumeChild:
    """Start a child that unpacks an archive, and exchanges the data.

    The command ``MARK`` writes the marker of the exchange, and ``EXCHANGE`` follows. In between the
    parent asks the broker whether the volume is held: no hold ends while the marker is there.
    """

    def work(data: BinaryIO, report: Callable[[dict[str, Any]], None], commands: int) -> None:
        unpacker = restore.Unpacker("/", report)
        try:
            unpacker.unpack(data)
            report({"done": True, "entries": unpacker.entries, "bytes": unpacker.size_bytes})
            _await(commands, MARK)
            # From here on the child ends its work, or removes the marker, also without a parent.
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
            restore.begin_exchange("/", unpacker)
            try:
                report({"marked": True})
                _await(commands, EXCHANGE)
            except BaseException:
                restore.cancel_exchange("/")
                raise
        except BaseException:
            restore.remove_staging("/")
            raise
        restore.finish("/")
        report({"exchanged": True})

    return _start(folder, work, keep=RESTORE_KEEPS, writes=False)


def _await(commands: int, word: bytes) -> None:
    """Wait for a command, and raise BadArchive for another one, or at the end of the parent."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(commands, 1)):
        line += byte
    if line != word:
        raise BadArchive("nothing was exchanged")


def start_finish(folder: str) -> VolumeChild:
    """Start a child to finish an interrupted exchange."""

    def work(_data: BinaryIO, report: Callable[[dict[str, Any]], None], _commands: int) -> None:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
        report({"finished": restore.finish("/")})

    return _start(folder, work, keep=RESTORE_KEEPS, writes=False)


VolumeWork = Callable[[BinaryIO, Callable[[dict[str, Any]], None], int], None]


def _start(folder: str, work: VolumeWork, *, keep: tuple[int, ...], writes: bool) -> VolumeChild:
    data, reports, commands = os.pipe(), os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        own = (data[1 if writes else 0], reports[1], commands[0])
        _run(folder, work, own, keep=keep, writes=writes)
    for handle in (data[1 if writes else 0], reports[1], commands[0]):
        os.close(handle)
    return VolumeChild(pid, data[0 if writes else 1], reports[0], commands[1])


def _run(
    folder: str,
    work: VolumeWork,
    pipes: tuple[int, int, int],
    *,
    keep: tuple[int, ...],
    writes: bool,
) -> NoReturn:
    """Do the work of the child, and end. Nothing of the parent's Python stack is unwound."""
    status = 1
    told = 0.0

    def report(message: dict[str, Any]) -> None:
        nonlocal told
        if message.keys() == {"bytes", "entries"}:
            now = time.monotonic()
            if now - told < REPORT_S:
                return
            told = now
        os.write(pipes[1], json.dumps(message).encode() + b"\n")

    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL if writes else signal.SIG_IGN)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        _confine(folder, pipes, keep=keep)
        with os.fdopen(pipes[0], "wb" if writes else "rb", 1024 * 1024) as data:
            work(data, report, pipes[2])
        status = 0
    except BaseException as error:  # noqa: BLE001 - the parent prints every fault of the child
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        with suppress(OSError):
            report({"error": f"{where}{text}"[:1000] or type(error).__name__})
    finally:
        os._exit(status)


def _confine(folder: str, pipes: tuple[int, int, int], *, keep: tuple[int, ...]) -> None:
    """Give up everything but the folder and the pipes.

    Raises:
        OSError: the kernel refuses a step.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")
    last = 2
    for handle in sorted(pipes):
        os.closerange(last + 1, handle)
        last = handle
    os.closerange(last + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.umask(0o077)
    os.setgroups([])
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_MAX),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    syscalls.limit_bounding_set(keep)
    syscalls.limit_capability_sets(keep)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.forbid_core_dumps()
