"""``journal verify``, ``keys`` and ``rotate-key``: that nobody changed a record, and how that shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from controller.cli.options import (
    json_option,
    open_state,
    print_json,
    state_option,
)
from controller.cli.output.tables import table
from controller.core.encoding.terminal_text import printable
from controller.model.errors import StateError

if TYPE_CHECKING:
    from controller.journal.verify.verify import Verification


#: What kind of bad the first bad record is -> the exit code of ``verify``.
EXIT_CODES: Final = {
    "changed": 10,
    "gap": 11,
    "signature": 12,
    "root": 13,
    "cut": 14,
    "unreadable": 15,
    "life": 16,
}


@click.command(
    epilog="""\b
Examples:
  trimtab journal verify
  trimtab journal verify --from 120000
  trimtab journal verify --journal /srv/copies/journal --key journal.pub --checkpoint old.checkpoint

\b
Exit codes: 0 every record is as it was written; else what the first bad one is:
  10 changed, or not continuing the one before   14 cut off at the end
  11 missing, or in another's place              15 unreadable
  12 a checkpoint without the right signature    16 an intent closed twice, an id used again
  13 other records than those that were signed    1 there is no journal, or no key in FILE
"""
)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--journal", "copy", type=click.Path(path_type=Path, file_okay=False), help="As FOLDER."
)
@click.option(
    "--key",
    "trusted",
    multiple=True,
    metavar="FILE|KEY",
    help="Trust this public key alone (default: journal.pub of the state folder).",
)
@click.option(
    "--checkpoint",
    "kept",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A checkpoint that was kept elsewhere: nothing before it was changed or cut.",
)
@click.option(
    "--from",
    "begin",
    type=click.IntRange(min=1),
    default=1,
    metavar="SEQ",
    help="Begin at the last checkpoint before this record.",
)
@click.option("--thorough", is_flag=True, help="Parse each line, what is signed included; slower.")
@state_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    folder: Path | None,
    copy: Path | None,
    trusted: tuple[str, ...],
    kept: tuple[Path, ...],
    begin: int,
    thorough: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Check every record of the journal, or of a copy of its FOLDER. Needs nothing that runs.

    Without --key the public keys are those of the state folder, which somebody who may change the
    journal may change too: keep a copy of journal.pub and journal.checkpoint on another host.
    """
    from controller.cli.journal.trusted import (
        Unsigned,
        kept_checkpoint,
        published_keys,
        trusted_keys,
    )
    from controller.journal.verify.verify import TrustAnchors
    from controller.journal.verify.verify import verify as verify_folder

    keys, files = trusted_keys(trusted), list(kept)
    if folder is None and copy is None:
        found_state = open_state(_state(ctx, state))[0]
        folder = found_state.journal
        if not trusted:
            keys = published_keys(found_state.journal_public)
        if _size(found_state.journal_checkpoint):
            files.append(found_state.journal_checkpoint)
    try:
        # The checkpoints first: what they are of is then in the segments.
        trust = TrustAnchors(
            frozenset(keys),
            tuple(kept_checkpoint(path, keys) for path in files),
            {key: until for key, until in keys.items() if until is not None},
        )
        found = verify_folder(
            copy or folder or Path(),
            trust,
            begin=begin,
            thorough=thorough,
            workers=len(os.sched_getaffinity(0)),
        )
    except Unsigned as error:
        return _tell_bad(ctx, as_json, "signature", str(error))
    except StateError as error:
        if error.code != "journal.unreadable":
            raise
        return _tell_bad(ctx, as_json, "unreadable", f"{error.message} ({error.remedy})")
    code = EXIT_CODES.get(found.fault, 0)
    if _as_json(ctx, as_json):
        print_json({"ok": found.ok, "code": code, **asdict(found)})
    else:
        click.echo(render_verification(found))
    return code


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tell_bad(ctx: click.Context, as_json: bool, fault: str, reason: str) -> int:
    """Tell what is bad before any record was looked at, and return the exit code."""
    code = EXIT_CODES[fault]
    if _as_json(ctx, as_json):
        print_json({"ok": False, "code": code, "fault": fault, "reason": reason})
    else:
        click.echo(printable(reason))
    return code


def render_verification(found: Verification) -> str:
    """Return what ``verify`` found, in words."""
    lines = []
    if found.ok:
        lines.append(
            f"{found.records} records, chain intact, {len(found.open_intents)} open intents"
        )
    else:
        place = f"{found.file or 'the folder'}, line {found.line}"
        lines.append(f"record {found.first_bad} is bad ({place}): {found.reason}")
        lines.append(f"{found.records} records before it hold together")
    lines += _signed(found)
    if found.pruned:
        lines.append(
            f"note: records 1 to {found.pruned} were pruned; what is kept holds from the "
            f"checkpoint {found.pruned} on"
        )
    if found.begin > found.pruned + 1:
        lines.append(f"note: looked at from record {found.begin} on")
    lines += (
        f"note: the checkpoint of {size} records that was kept elsewhere wasn't compared: what it is "
        "of wasn't looked at"
        for size in found.uncompared
    )
    lines += (f"note: record {repair.seq} says: {repair.what}" for repair in found.repairs)
    if found.unmarked:
        lines.append(
            "note: the mark .head is missing or empty, which the broker leaves beside the records: "
            "a checkpoint that was kept elsewhere alone shows now that the end was cut"
        )
    if found.unfinished_bytes:
        lines.append(
            f"note: {found.unfinished_bytes} bytes after the last record aren't one yet: being "
            "written, or left by a crash (the next start moves them aside)"
        )
    lines += (
        f"open: record {seq}, intent {identity}, has no closing record yet"
        for identity, seq in found.open_intents[:20]
    )
    return "\n".join(printable(line) for line in lines)


def _signed(found: Verification) -> Iterator[str]:
    """Yield what is said of signatures."""
    if not found.signed:
        if found.ok:
            yield "note: nothing is signed"
        return
    by = "a key that is trusted" if found.trusted else "the journal's own key"
    yield f"signed up to record {found.signed} by {by}"
    if not found.trusted:
        yield "note: whoever writes a journal anew has a key for it: name yours with --key"


@click.command(
    short_help="List the keys that signed the journal.",
    epilog="""\b
Examples:
  trimtab journal keys
  cp /var/lib/trimtab/journal.pub /mnt/elsewhere/     verify with it there
""",
)
@state_option
@json_option
@click.pass_context
def keys(ctx: click.Context, state: Path | None, as_json: bool) -> None:
    """List the public keys of the journal's checkpoints, the one that signs now first.

    They lie in the state folder, in journal.pub. Copy that file to another host: whoever may change
    the journal here may change the file too.
    """
    listed = _listed(open_state(_state(ctx, state))[0].journal_public)
    if _as_json(ctx, as_json):
        print_json([{"key": key, "until": until} for key, until in listed])
        return
    rows = [
        (printable(key), str(until) if until is not None else "signs now") for key, until in listed
    ]
    click.echo(table(("KEY", "SIGNED UNTIL"), rows))


@click.command(
    "rotate-key",
    short_help="Sign with a new key from here on.",
    epilog="""\b
Examples:
  sudo trimtab journal rotate-key --note "an admin left"
""",
)
@click.option("--note", default="", help="Why; it goes into the journal.")
@state_option
@json_option
@click.pass_context
def rotate_key(ctx: click.Context, note: str, state: Path | None, as_json: bool) -> None:
    """Let another key sign the journal from here on; the one before signs for it once.

    The running broker makes it. Copy journal.pub to the other hosts again afterwards.
    """
    from controller.cli.clients.socket_client import BrokerApi

    found, _ = open_state(_state(ctx, state))
    BrokerApi(found.broker_socket).post("records", {"act": "rotate-key", "note": note[:512]})
    signing = _listed(found.journal_public)[0][0]
    if _as_json(ctx, as_json):
        print_json({"key": signing})
    else:
        click.echo(f"signs now: {signing}")
        click.echo(f"copy {found.journal_public} to where you verify")


def _listed(path: Path) -> list[tuple[str, int | None]]:
    """Return the public keys, each with the record until which it signed.

    Raises:
        StateError: the list isn't there.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        return [(key, int(told[1]) if told else None) for key, *told in lines]
    except (OSError, ValueError, IndexError) as error:
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number else "it isn't as the broker leaves it"
        raise StateError(
            "journal.bad-key",
            f"{path}: {why}",
            remedy="the broker writes it when it starts: start it once",
        ) from error


def _state(ctx: click.Context, state: Path | None) -> Path | None:
    assert ctx.parent is not None
    return state or ctx.parent.params.get("state")


def _as_json(ctx: click.Context, as_json: bool) -> bool:
    assert ctx.parent is not None
    return as_json or bool(ctx.parent.params.get("as_json"))
