"""``journal verify``, ``keys`` and ``rotate-key``: that nobody changed a record, and how that shows."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from controller.cli.api import BrokerApi
from controller.cli.common import (
    journal_folder,
    json_option,
    open_state,
    print_json,
    state_option,
    table,
)
from controller.cli.records import render_verification
from controller.model.errors import StateError


@click.command(
    epilog="""\b
Examples:
  trimtab journal verify
  trimtab journal verify /srv/copies/journal --json

\b
Exit codes: 0 every record is as it was written, 1 one isn't or can't be read.
"""
)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@state_option
@json_option
@click.pass_context
def verify(ctx: click.Context, folder: Path | None, state: Path | None, as_json: bool) -> int:
    """Check every record of the journal, or of a copy of its FOLDER."""
    from controller.journal.reader import verify as verify_folder

    found = verify_folder(folder or journal_folder(_state(ctx, state)))
    if _as_json(ctx, as_json):
        print_json({"ok": found.ok, **asdict(found)})
    else:
        click.echo(render_verification(found))
    return 0 if found.ok else 1


@click.command(
    epilog="""\b
Examples:
  trimtab journal keys
  cp /var/lib/trimtab/journal.pub /mnt/elsewhere/     verify with it there
"""
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
    rows = [(key, str(until) if until is not None else "signs now") for key, until in listed]
    click.echo(table(("KEY", "SIGNED UNTIL"), rows))


@click.command(
    "rotate-key",
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
    except OSError as error:
        raise StateError(
            "journal.bad-key",
            f"{path}: {os.strerror(error.errno or 0)}",
            remedy="the broker writes it when it starts: start it once",
        ) from error
    return [(key, int(told[1]) if told else None) for key, *told in lines]


def _state(ctx: click.Context, state: Path | None) -> Path | None:
    assert ctx.parent is not None
    return state or ctx.parent.params.get("state")


def _as_json(ctx: click.Context, as_json: bool) -> bool:
    assert ctx.parent is not None
    return as_json or bool(ctx.parent.params.get("as_json"))
