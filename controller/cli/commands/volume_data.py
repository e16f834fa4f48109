"""``volume dump`` and ``volume restore``, under a hold that the broker keeps.

``volume dump``: write the data of a volume as a tar file.

``volume restore``: replace the data of a volume by that of an archive.

The hold of a volume: the command's side of the lease that the broker keeps.

The broker starts no container with the volume meanwhile. A thread renews the lease. When the
command ends, by whatever means, the broker starts the containers again.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from controller.cli.clients.socket_client import BrokerApi, EngineApi
from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import command, note_option, open_state, print_json, print_result
from controller.cli.output.terminal import confirm, echo, rewrite
from controller.core.encoding.text import printable
from controller.model.errors import (
    EngineUnavailable,
    StateError,
    TrimtabError,
    UsageError,
    error_reason,
)
from controller.model.mutations import VOLUME_END, VOLUME_HOLD
from controller.model.quantities import format_bytes
from controller.process.volumes.archive import TRAILER_BYTES, BadArchive, Trailer
from controller.process.volumes.child import (
    EXCHANGE,
    MARK,
    ChildFailed,
    VolumeChild,
    start_dump,
    start_finish,
    start_restore,
)

if TYPE_CHECKING:
    from controller.app.backup_file import Readable

RENEW_S = 5.0
#: The longest grace of a stop, and spare time; the end of a hold starts containers.
STOP_S = 330.0
#: The end is repeated while the broker is away.
END_TRIES, END_PAUSE_S = 12, 5.0


def confirm_loss(name: str, fate: str, question: str) -> None:
    """Ask about an act without a way back, as ``terminal.confirm``."""
    unconfirmed = UsageError(
        "volume.unconfirmed",
        f"the data of {name} would be {fate}, and standard input isn't a terminal",
        remedy="repeat it with --yes",
    )
    confirm(question, unconfirmed)


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


def begin_hold(
    socket: Path, volume: str, act: str, *, live: bool = False, note: str = ""
) -> BegunHold:
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


def finish_hold(
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
    raise_if_not_root()
    if output is None and (sys.stdout.isatty() or as_json):
        raise UsageError(
            "volume.output",
            "the archive would go to the terminal, or beside the JSON",
            remedy="name a file with -o, or use a pipe",
        )
    folder, _ = open_state(state)
    begun = begin_hold(folder.broker_socket, name, "dump", live=live, note=note)
    with ended_at_failure(begun):
        result = _dump(begun, output, live=live)
    if not as_json:
        _name("left out", result["skipped"], result["skippedCount"])
        _name("changed while it was read", result["changed"], result["changedCount"])
    totals = {"file": str(output), **result}
    return finish_hold(begun, "dumped", totals, as_json=as_json, err=output is None)


def dump_to(socket: Path, name: str, output: Path, *, live: bool, note: str) -> dict[str, Any]:
    """Dump a volume to a file, as a part of a backup. Return the members of ``--json``.

    Raises:
        Refused: the gate refuses the dump.
        TrimtabError: the dump failed.
    """
    begun = begin_hold(socket, name, "dump", live=live, note=note)
    with ended_at_failure(begun):
        result = _dump(begun, output, live=live)
    digest = f"sha256:{result['sha256']}"
    reply = begun.end("succeeded", digest=digest, bytes=result["bytes"], files=result["entries"])
    _name(f"{name}: left out", result["skipped"], result["skippedCount"])
    _name(f"{name}: changed while it was read", result["changed"], result["changedCount"])
    report_failures(reply)
    return result


def restore_from(socket: Path, name: str, source: Readable, *, note: str) -> None:
    """Replace the data of a volume by the archive in *source*, as a part of a restore.

    Raises:
        TrimtabError: the gate refuses it, or the archive can't be restored.
    """
    begun = begin_hold(socket, name, "restore", note=note)
    with ended_at_failure(begun):
        totals = _restore(begun, source)
    digest = f"sha256:{totals['sha256']}"
    report_failures(
        begun.end("succeeded", digest=digest, bytes=totals["bytes"], files=totals["entries"])
    )


def _dump(begun: BegunHold, output: Path | None, *, live: bool) -> dict[str, Any]:
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


@command("""\b
Examples:
  trimtab volume restore db-data db-data.tar --yes
  zstd -dc shop.tar.zst | trimtab volume restore shop.data - --yes
  trimtab volume restore db-data --finish          after a crash amid a restore

\b
Exit codes: 0 restored, 1 error, nothing runs, or a container wasn't started again, 4 refused.
""")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(allow_dash=True, path_type=str))
@click.option("--yes", is_flag=True, help="Replace the data without asking.")
@click.option("--finish", is_flag=True, help="Finish a restore that was cut short.")
@note_option
def restore(
    name: str,
    file: str | None,
    yes: bool,
    finish: bool,
    note: str,
    state: Path | None,
    as_json: bool,
) -> int:
    """Replace the data of a volume by that of an archive of 'trimtab volume dump'.

    The archive is unpacked beside the data and verified first: a cut or changed archive changes
    nothing. Then the containers with the volume are stopped, the data is exchanged, and the
    containers are started again. The former data is removed at the end.
    """
    raise_if_not_root()
    if finish == (file is not None):
        raise UsageError(
            "volume.archive",
            "expected a file, or --finish",
            remedy="name the archive, or - for a pipe",
        )
    folder, _ = open_state(state)
    if finish:
        return _finish(folder.broker_socket, name, as_json=as_json)
    assert file is not None, "without --finish there is a file"
    if not yes:
        confirm_loss(name, "replaced", f"Replace the data of the volume {printable(name)}?")
    with ExitStack() as stack:
        source = sys.stdin.buffer if file == "-" else stack.enter_context(_opened(file))
        begun = begin_hold(folder.broker_socket, name, "restore", note=note)
        with ended_at_failure(begun):
            totals = _restore(begun, source)
    return finish_hold(begun, "restored", totals, as_json=as_json)


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise StateError("volume.archive", f"{file}: {error_reason(error)}") from error


def _restore(begun: BegunHold, source: Readable) -> dict[str, Any]:
    child = start_restore(begun.path)
    begun.keep()
    try:
        totals = send_archive(child, source, begun.volume)
        begun.stop_users()
        _mark(child)
        # No hold ends while the marker is there: what is held now is held until the end.
        begun.renew()
        begun.raise_if_lost()
    except BaseException:
        child.close_data()
        child.abort()
        raise
    try:
        child.command(EXCHANGE)
        done = any(each.get("exchanged") for each in child.read_reports(wait=True))
    except ChildFailed as error:
        raise _failed(begun.volume, str(error)) from error
    if child.end() != 0 or not done:
        raise _failed(begun.volume, "the child ended early")
    return totals


def _mark(child: VolumeChild) -> None:
    """Let the child write the marker of the exchange, and wait until it is there."""
    try:
        child.command(MARK)
        if not any(each.get("marked") for each in child.read_reports(wait=True, until="marked")):
            raise _bad("the child ended early")
    except (ChildFailed, OSError) as error:
        raise _bad(str(error)) from error


def send_archive(child: VolumeChild, source: Readable, volume: str) -> dict[str, Any]:
    """Send an archive to the child, wait for the unpacking, and verify the archive.

    Return its ``sha256``, ``bytes`` and ``entries``.

    Raises:
        StateError: the archive is cut, changed, or can't be unpacked.
    """
    digest, whole, size = hashlib.sha256(), hashlib.sha256(), 0
    tail = b""
    told: dict[str, Any] = {}
    try:
        while data := source.read(CHUNK):
            whole.update(data)
            size += len(data)
            tail += data
            digest.update(tail[:-TRAILER_BYTES])
            tail = tail[-TRAILER_BYTES:]
            _send(child, data)
            for each in child.read_reports(wait=False):
                told |= each
            show_progress(f"unpacking {volume}", told)
        child.close_data()
        trailer = Trailer.decode(tail)
        for each in child.read_reports(wait=True, until="done"):
            told |= each
    except (ChildFailed, BadArchive) as error:
        raise _bad(str(error)) from error
    except OSError as error:
        raise _bad(error_reason(error)) from error
    finally:
        clear_progress()
    if trailer.sha256 != digest.hexdigest() or trailer.entries != told.get("entries"):
        raise _bad("its contents don't match the digest at its end")
    return {"sha256": whole.hexdigest(), "bytes": size, "entries": trailer.entries}


def _send(child: VolumeChild, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(child.data, view) :]
    except BrokenPipeError:
        for _ in child.read_reports(wait=True):
            pass  # raises the child's error
        raise BadArchive("the child ended early") from None


def _bad(reason: str) -> StateError:
    return StateError(
        "volume.archive",
        f"the archive isn't restored, and the data is as before: {printable(reason)}",
        remedy="use an unchanged file of 'trimtab volume dump'",
    )


def _failed(volume: str, reason: str) -> StateError:
    return StateError(
        "volume.unfinished",
        f"the data of {volume} is being exchanged: {printable(reason)}",
        remedy=f"trimtab volume restore {volume} --finish",
    )


def _finish(socket: Path, name: str, *, as_json: bool) -> int:
    """Finish the exchange of an interrupted restore, and end the hold."""
    inventory = BrokerApi(socket).get("inventory")
    holding = inventory.get("holds", ())
    found = [each for each in holding if (each["volume"], each["act"]) == (name, "restore")]
    if not found:
        raise StateError(
            "volume.not-held",
            f"no restore of {name} is in progress",
            remedy="look at 'trimtab journal list'",
        )
    path = str(EngineApi(socket).get(f"/volumes/{name}")["Mountpoint"])
    # The engine may have started some by itself, after a crash of the host.
    users = [
        {"id": each["id"], "name": each["admitted"]["name"]}
        for each in inventory["containers"]
        if each["id"] in found[0]["users"]
    ]
    begun = BegunHold(socket, name, found[0]["id"], path, users, 0.0, 0.0)
    begun.stop_users()
    child = start_finish(path)
    try:
        done = any(each.get("finished") for each in child.read_reports(wait=True))
    except ChildFailed as error:
        raise _failed(name, str(error)) from error
    child.end()
    reply = begun.end("succeeded" if done else "failed", note="finished after a crash")
    text = "finished the restore of" if done else "nothing was left to finish of the restore of"
    report = {"volume": name, "finished": done, **reply}
    print_result(report, printable(f"{text} {name}"), as_json=as_json)
    return EXIT_ERROR if report_failures(reply) else 0
