"""``journal``: list, show and verify the record of every change.

Reads the broker's files, so it needs the right to read them: the broker's user, or root.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from controller.cli import proof
from controller.cli.common import journal_folder, json_option, state_option, table
from controller.cli.records import HEADERS, render_story, row
from controller.core.record import line_of, timestamp
from controller.core.search import Filter
from controller.model.quantities import parse_duration_ms

STAGES = ("intent", "outcome", "recovered", "refusal", "violation", "summary", "read")
STAGES_OF_OURS = ("operator", "policy", "checkpoint", "segment")
DECISIONS = ("allow", "mutate", "deny", "audit-deny")
DAY_MS = 86_400_000


F = TypeVar("F", bound=Callable[..., Any])


def scan_option(command: F) -> F:
    """Add ``--scan``."""
    text = "Believe no index: read and check every record."
    return click.option("--scan", is_flag=True, help=text)(command)


class JournalGroup(click.Group):
    """A group whose command is ``list`` when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` first where no command is named, so that its options follow the group."""
        if not self._names_command(args) and not {"-h", "--help"} & set(args):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def _names_command(self, args: list[str]) -> bool:
        takes_value = {
            name
            for parameter in [*list_records.params, *self.params]
            if isinstance(parameter, click.Option) and not parameter.is_flag
            for name in parameter.opts
        }
        rest = iter(args)
        for word in rest:
            if not word.startswith("-"):
                return True
            if word in takes_value:
                next(rest, None)
        return False


@click.group(
    cls=JournalGroup,
    epilog="""\b
Examples:
  trimtab journal --since 1h                    what happened lately
  trimtab journal list --service web --verdict deny
  trimtab journal show 41                       one change: who, why, what came of it
  trimtab journal verify                        nobody changed a record
""",
)
@state_option
@json_option
def journal(state: Path | None, as_json: bool) -> None:
    """List, show and verify the record of every change. Without a command: list."""


for command in (proof.verify, proof.keys, proof.rotate_key):
    journal.add_command(command)


def moment(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Return a time (RFC 3339, or a duration before now) as records have it."""
    try:
        if value.endswith("d") and value[:-1].isdigit():
            return _ago(int(value[:-1]) * DAY_MS)
        if value[:1].isdigit() and value[-1:] in set("smh"):
            return _ago(parse_duration_ms(value))
        when = datetime.fromisoformat(value) if value else None
        if when is None:
            return ""
        return timestamp((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        text = f"{value!r} is neither a duration (90s, 1h, 7d) nor a time (RFC 3339)"
        raise click.BadParameter(text) from None


def _ago(milliseconds: int) -> str:
    from controller.wiring import SystemClock

    return timestamp(max(0.0, SystemClock().now() - milliseconds / 1000))


@journal.command(
    "list",
    epilog="""\b
Examples:
  trimtab journal list --since 24h --actor operator
  trimtab journal list --container web.1-1f0c22aa --json | jq .claims.cause
""",
)
@click.option("--since", callback=moment, metavar="TIME", default="", help="1h, 7d, or RFC 3339.")
@click.option("--until", callback=moment, metavar="TIME", default="", help="Likewise.")
@click.option("--service", metavar="NAME", default="", help="NAME, or NAMESPACE/NAME.")
@click.option("--owner", metavar="NAME", default="", help="The owner of the object, or the client.")
@click.option("--actor", metavar="WHO", default="", help="A role, a user or a uid.")
@click.option("--verdict", type=click.Choice(DECISIONS), default=None, help="What was decided.")
@click.option("--stage", type=click.Choice(STAGES + STAGES_OF_OURS), default=None)
@click.option("--action", metavar="NAME", default="", help="container.create, create, POST, …")
@click.option("--container", metavar="NAME|ID", default="", help="A name, or the start of an id.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="0 lists all."
)
@scan_option
@state_option
@json_option
@click.pass_context
def list_records(
    ctx: click.Context,
    since: str,
    until: str,
    service: str,
    owner: str,
    actor: str,
    verdict: str | None,
    stage: str | None,
    action: str,
    container: str,
    limit: int,
    scan: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """List records, the last ones at the end."""
    from controller.journal.archive import FolderArchive

    wanted = Filter(
        since=since,
        until=until,
        service=service,
        owner=owner,
        actor=_uid_of(actor),
        verdict=verdict or "",
        stages=frozenset({stage} if stage else ()),
        action=action,
        container=container,
    )
    with FolderArchive(_folder(ctx, state), scan=scan) as archive:
        found = archive.find(wanted, limit=limit)
        if _as_json(ctx, as_json):
            for record, _ in found:
                click.echo(line_of(record))
            return
        rows = [row(one) for one in found]
    click.echo(table(HEADERS, rows) if rows else "No records.")


@journal.command(
    epilog="""\b
Examples:
  trimtab journal show 42
  trimtab journal show 42 --json
"""
)
@click.argument("record", metavar="ID|SEQ")
@scan_option
@state_option
@json_option
@click.pass_context
def show(ctx: click.Context, record: str, scan: bool, state: Path | None, as_json: bool) -> None:
    """Show one record, and for a change its whole story: asked, decided, done."""
    from controller.core.questions import story
    from controller.journal.archive import FolderArchive

    with FolderArchive(_folder(ctx, state), scan=scan) as archive:
        told = story(archive.find, record)
    if told is None:
        raise click.ClickException(f"there is no record {record}; see 'trimtab journal list'")
    if _as_json(ctx, as_json):
        for one in told.found:
            click.echo(line_of(one.record))
    else:
        click.echo(render_story(told))


def _folder(ctx: click.Context, state: Path | None) -> Path:
    assert ctx.parent is not None
    return journal_folder(state or ctx.parent.params.get("state"))


def _as_json(ctx: click.Context, as_json: bool) -> bool:
    assert ctx.parent is not None
    return as_json or bool(ctx.parent.params.get("as_json"))


def _uid_of(actor: str) -> str:
    """Return the uid of a user's name; a role or a uid stays as it is."""
    if actor in {"controller", "operator", "client", "broker"}:
        return actor
    try:
        return str(pwd.getpwnam(actor).pw_uid)
    except KeyError:
        return actor
