"""``volume restore``: replace the data of a volume by that of an archive."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import command, note_option, open_state, print_result
from controller.cli.volume import hold as holds
from controller.cli.volume.dump import CHUNK, clear_progress, show_progress
from controller.core.encoding.terminal_text import printable
from controller.model.errors import StateError, UsageError, error_reason
from controller.process.volumes.archive_format import TRAILER_BYTES, BadArchive, Trailer
from controller.process.volumes.child import (
    EXCHANGE,
    MARK,
    ChildFailed,
    VolumeChild,
    start_finish,
    start_restore,
)


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
    holds.raise_if_not_root()
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
        holds.confirm(name, "replaced", f"Replace the data of the volume {printable(name)}?")
    with ExitStack() as stack:
        source = sys.stdin.buffer if file == "-" else stack.enter_context(_opened(file))
        begun = holds.begin(folder.broker_socket, name, "restore", note=note)
        with holds.ended_at_failure(begun):
            totals = _restore(begun, source)
    return holds.finish(begun, "restored", totals, as_json=as_json)


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise StateError("volume.archive", f"{file}: {error_reason(error)}") from error


def _restore(begun: holds.BegunHold, source: BinaryIO) -> dict[str, Any]:
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


def send_archive(child: VolumeChild, source: BinaryIO, volume: str) -> dict[str, Any]:
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
    begun = holds.BegunHold(socket, name, found[0]["id"], path, users, 0.0, 0.0)
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
    return EXIT_ERROR if holds.report_failures(reply) else 0
