"""``journal explain``, ``blame`` and ``state``: why things are as they are, and how they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.journal.filters import moment, now, scan_option
from controller.cli.journal.record_text import SHORT_ID, short_actor
from controller.cli.journal.source import JournalSource, open_source, wants_json
from controller.cli.options import json_option, print_json, state_option
from controller.cli.output.tables import Column, clip, table, terminal_width
from controller.cli.output.tables import render as render_table
from controller.core.encoding.json_members import (
    mapping_member,
    text_member,
)
from controller.core.encoding.terminal_text import printable
from controller.core.records.query import Filter
from controller.model.errors import StateError
from controller.model.mutations import ADOPT

if TYPE_CHECKING:
    from controller.core.records.provenance import Fact, Provenance
    from controller.core.records.query import QueryResult

FACTS = (
    Column("FIELD"),
    Column("VALUE", shrink=clip, least=24, rank=1),
    Column("FROM", shrink=clip, least=24, rank=2),
    Column("CHANGED SINCE"),
)
THERE = ("NAMESPACE", "SERVICE", "SLOT", "CONTAINER", "STATE", "SINCE", "RECORD", "BY", "WHY")
SHORT_COMMIT = 12
#: Records that are asked for at once: whole containers, until so many are told.
PAGE = 100
AS_FAR_AS = "as far as the journal knows: what ended by itself isn't recorded"


@click.command(
    short_help="Show where a container's settings come from.",
    epilog="""\b
Examples:
  trimtab journal explain web.1-1f0c22aa
  trimtab journal explain 3f5c0d --json | jq '.facts[] | select(.field == "memory")'
""",
)
@click.argument("container", metavar="CONTAINER")
@scan_option
@state_option
@json_option
@click.pass_context
def explain(
    ctx: click.Context, container: str, scan: bool, state: Path | None, as_json: bool
) -> None:
    """Show where each setting of a container comes from: file and line, commit, actor and record.

    CONTAINER is its name, or the start of its id; of several of that name, the last one.
    """
    from controller.core.records.provenance import provenance
    from controller.core.records.views import chronicle, containers

    with open_source(ctx, state, scan=scan) as source:
        known = containers(source.find, container)
        names = sorted({f"{about.name} ({about.id[:SHORT_ID]})" for about in known})
        if len({about.name for about in known}) > 1:
            raise StateError(
                "container.ambiguous",
                f"{container} means {', '.join(names)}",
                remedy="write more of the name, or of the id",
            )
        told = provenance(chronicle(source.find, known[-1].id)) if known else None
        if told is None:
            raise _unknown(source, container)
    if wants_json(ctx, as_json):
        print_json(provenance_json(told))
    else:
        click.echo(render(told))


@click.command(
    short_help="Explain the containers of a service.",
    epilog="""\b
Examples:
  trimtab journal blame web
  trimtab journal blame shop/web
""",
)
@click.argument("service", metavar="[NAMESPACE/]NAME")
@scan_option
@state_option
@json_option
@click.pass_context
def blame(ctx: click.Context, service: str, scan: bool, state: Path | None, as_json: bool) -> None:
    """Explain every container of a service that is there now."""
    with open_source(ctx, state, scan=scan) as source:
        found = there(source, now(), Filter(service=service))
    if not found:
        raise StateError(
            "container.unknown",
            f"there is no container of {service} now",
            remedy=f"'trimtab journal list --service {service}' shows the ones that were there",
        )
    if wants_json(ctx, as_json):
        print_json([provenance_json(told) for told in found])
    else:
        click.echo("\n\n".join(render(told) for told in found))


def _unknown(source: JournalSource, container: str) -> StateError:
    """Return the error for a name that no container has; it may be that of a service."""
    message = f"no container {container} is in the journal"
    names = [told.about.name for told in there(source, now(), Filter(service=container))]
    remedy = "see 'trimtab journal state', or 'trimtab journal list --container'"
    if names:
        remedy = (
            f"{container} is a service: 'trimtab journal blame {container}' explains its containers "
            f"{', '.join(names)}"
        )
    return StateError("container.unknown", message, remedy=remedy)


@click.command(
    "state",
    short_help="Show what was there at a time.",
    epilog="""\b
Examples:
  trimtab journal state --at 03:10              the last time that it was 03:10 (UTC)
  trimtab journal state --at 2026-01-01T03:10:00Z --service web
""",
)
@click.option("--at", callback=moment, metavar="TIME", help="1h, 03:12, or RFC 3339; else now.")
@click.option("--service", metavar="NAME", default="", help="NAME, or NAMESPACE/NAME.")
@click.option("--owner", metavar="NAME", default="", help="The owner of the containers.")
@scan_option
@state_option
@json_option
@click.pass_context
def state_at(
    ctx: click.Context,
    at: str,
    service: str,
    owner: str,
    scan: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Show what was there at a time, and whether it ran: as far as the journal knows.

    A container that ended by itself, or past the broker, is told as it was asked to be: no record says
    otherwise.
    """
    at = at or now()
    with open_source(ctx, state, scan=scan) as source:
        found = there(source, at, Filter(service=service, owner=owner))
    if wants_json(ctx, as_json):
        print_json({"at": at, "containers": [state_json(told) for told in found]})
        return
    click.echo(f"At {at}, {AS_FAR_AS}.")
    rows = [_there(told) for told in sorted(found, key=_place)]
    click.echo(table(THERE, rows) if rows else "No containers.")


def there(source: JournalSource, at: str, wanted: Filter) -> list[Provenance]:
    """Return the containers that were there at a time."""
    from controller.core.records.provenance import without_replaced

    return without_replaced(_recorded(source, at, wanted))


def _recorded(source: JournalSource, at: str, wanted: Filter) -> Iterator[Provenance]:
    """Yield the containers that no record says to be gone at a time, in the order of their creates."""
    from controller.core.records.provenance import provenance
    from controller.core.records.views import Question, chronicles

    while True:
        page = source.ask(Question(wanted, limit=PAGE, there=at))
        for found in chronicles(page):
            told = provenance(found)
            if told is not None:
                yield told
        if not page.following:
            return
        wanted = replace(wanted, after=page.following)


# In words


def render(told: Provenance) -> str:
    """Return where a container comes from: what it is and how it is, then a line a fact."""
    about = told.about
    namespace = f"{about.namespace}/" if about.namespace else ""
    slot = f"slot {told.slot} of " if told.slot else "of " if about.service else ""
    whose = f", {slot}{namespace}{about.service}" if about.service else ""
    owner = f", owner {about.owner}" if about.owner else ""
    lines = [f"{about.name} ({about.id[:SHORT_ID]}){whose}{owner}", _how(told)]
    if told.pending is not None:
        record = told.pending.record
        asked = f"{told.pending.about.action} was asked for at {record.time}"
        lines.append(f"{asked} (record {record.seq}), and what came of it isn't recorded yet")
    if told.shown_since:
        lines.append(
            f"changes before record {told.shown_since} aren't shown, and what they made of it may be "
            "told as a later one's"
        )
    if not told.facts:
        lines.append("the record of its create isn't kept any more")
    if not told.facts:
        return "\n".join(map(printable, lines))
    # Most facts are of one record, the create: it is named once, and on rows that are of another.
    records = Counter(fact.origin.record.seq for fact in told.facts)
    (most, _), *_ = records.most_common()
    made = next(fact.origin for fact in told.facts if fact.origin.record.seq == most)
    word = "adopted" if made.about.action == ADOPT else "made"
    lines.append(f"{word} by {_by(made)}")
    rows = [
        (fact.name, fact.value, _from(fact), "" if _seq(fact) == most else _by(fact.origin))
        for fact in told.facts
    ]
    return "\n".join([*map(printable, lines), render_table(FACTS, rows, width=terminal_width())])


def _how(told: Provenance) -> str:
    note = f"; {told.note}" if told.note else ""
    if told.since is None:
        return f"{told.state}{note}"
    record = told.since.record
    return f"{told.state} since {record.time} (record {record.seq}){note}, {AS_FAR_AS}"


def _by(found: QueryResult) -> str:
    """Return who made a change, when, in which record, and why."""
    record = found.record
    cause = text_member(record.entry.claims, "cause")
    who = f"{short_actor(record.entry.actor)} at {record.time} (record {record.seq})"
    return f"{who}: {cause}" if cause else who


def _seq(fact: Fact) -> int:
    return fact.origin.record.seq


def _from(fact: Fact) -> str:
    if fact.rule:
        return f"policy: {fact.rule}"
    source = _source(fact)
    if not source["file"]:
        adopted = fact.origin.about.action == ADOPT
        return "the adoption" if adopted else "the request"
    commit = f" of {source['commit'][:SHORT_COMMIT]}" if source["commit"] else ""
    return f"{source['file']}:{source['line']}{commit}"


def _source(fact: Fact) -> dict[str, Any]:
    source = mapping_member(fact.origin.record.entry.claims, "source")
    return {
        "file": text_member(source, "file"),
        "line": fact.line,
        "commit": text_member(source, "commit"),
    }


def _place(told: Provenance) -> tuple[str, str, int, str]:
    about = told.about
    return (about.namespace, about.service, int(told.slot or 0), about.name)


def _there(told: Provenance) -> tuple[str, ...]:
    about, record = told.about, told.since.record if told.since is not None else None
    pending = f", {told.pending.about.action} under way" if told.pending is not None else ""
    cells = (
        about.namespace or "-",
        about.service or "-",
        told.slot or "-",
        about.name or about.id[:SHORT_ID],
        told.state + pending,
        record.time if record is not None else "-",
        record.seq if record is not None else "-",
        short_actor(record.entry.actor) if record is not None else "-",
        told.note or (text_member(record.entry.claims, "cause") if record is not None else ""),
    )
    return tuple(printable(cell) for cell in cells)


# For programs


def provenance_json(told: Provenance) -> dict[str, Any]:
    """Return where a container comes from."""
    return {
        **state_json(told),
        "toldSince": told.shown_since,
        "facts": [_fact_json(fact) for fact in told.facts],
    }


def state_json(told: Provenance) -> dict[str, Any]:
    """Return what a container is and how it is."""
    about = told.about
    return {
        "container": about.id,
        "name": about.name,
        "namespace": about.namespace,
        "service": about.service,
        "slot": told.slot,
        "revision": told.revision,
        "owner": about.owner,
        "state": told.state,
        "since": _record_json(told.since),
        "pending": _record_json(told.pending),
        "note": told.note,
    }


def _record_json(found: QueryResult | None) -> dict[str, Any] | None:
    if found is None:
        return None
    record = found.record
    return {
        "seq": record.seq,
        "id": record.entry.id,
        "time": record.time,
        "action": found.about.action,
        "actor": record.entry.actor,
        "cause": text_member(record.entry.claims, "cause"),
    }


def _fact_json(fact: Fact) -> dict[str, Any]:
    claims = fact.origin.record.entry.claims
    return {
        "field": fact.name,
        "value": fact.value,
        "rule": fact.rule,
        "source": _source(fact),
        "plan": text_member(claims, "plan"),
        "record": _record_json(fact.origin),
    }
