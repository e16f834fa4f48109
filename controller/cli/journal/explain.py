"""``journal explain``, ``blame`` and ``state``: the origin of settings, and past states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.clients.status_report import commit_line, known_commits
from controller.cli.journal.filters import (
    JournalSource,
    current_timestamp,
    open_source,
    scan_option,
    time_option,
)
from controller.cli.journal.table import SHORT_ID, short_actor
from controller.cli.options import command, print_json, print_result, state_root
from controller.cli.output.tables import Column, clip, table, terminal_width
from controller.cli.output.tables import render as render_table
from controller.cli.output.terminal import echo
from controller.core.encoding.text import printable
from controller.core.records.parts import ClaimsPart, ProofPart, RequestPart
from controller.core.records.query import Filter
from controller.model.errors import StateError
from controller.model.mutations import ADOPT, Mutation
from controller.model.names import short_commit

if TYPE_CHECKING:
    from controller.core.records.provenance import Fact, Provenance
    from controller.core.records.query import QueryResult
    from controller.model.sources import CommitInfo

FACTS = (
    Column("FIELD"),
    Column("VALUE", shrink=clip, least=24, rank=1),
    Column("FROM", shrink=clip, least=24, rank=2),
    Column("CHANGED SINCE"),
)
STATE_HEADERS = (
    "NAMESPACE",
    "SERVICE",
    "SLOT",
    "CONTAINER",
    "STATE",
    "SINCE",
    "RECORD",
    "BY",
    "WHY",
)
_ADOPTIONS = frozenset({ADOPT, Mutation.CONTAINER_ADOPT.value})
#: Records in a page. A page has all records of each of its containers, so it can be longer.
PAGE = 100
AS_FAR_AS = "according to the journal, which doesn't record containers that end by themselves"


@command(
    """\b
Examples:
  trimtab journal explain web.1-1f0c22aa
  trimtab journal explain 3f5c0d --json | jq '.facts[] | select(.field == "memory")'
""",
    short_help="Show where a container's settings come from.",
)
@click.argument("container", metavar="CONTAINER")
@scan_option
def explain(container: str, scan: bool, state: Path | None, as_json: bool) -> None:
    """Show the origin of each setting of a container: file and line, commit, actor and record.

    CONTAINER is a name, or the start of an id. If several containers had the name, the last one
    is shown.
    """
    from controller.core.records.provenance import provenance
    from controller.core.records.query import chronicle, containers

    with open_source(state, scan=scan) as source:
        known = containers(source.find, container)
        names = sorted({f"{about.name} ({about.id[:SHORT_ID]})" for about in known})
        if len({about.name for about in known}) > 1:
            raise StateError(
                "container.ambiguous",
                f"{container} means {', '.join(names)}",
                remedy="write more of the name, or of the id",
            )
        origin = provenance(chronicle(source.find, known[-1].id)) if known else None
        if origin is None:
            raise _unknown(source, container)
    text = "\n".join([render(origin), *_commit_lines([origin], state)])
    print_result(_provenance_json(origin, state), text, as_json=as_json)


@command(
    """\b
Examples:
  trimtab journal blame web
  trimtab journal blame shop/web
""",
    short_help="Explain the containers of a service.",
)
@click.argument("service", metavar="[NAMESPACE/]NAME")
@scan_option
def blame(service: str, scan: bool, state: Path | None, as_json: bool) -> None:
    """Explain every present container of a service."""
    with open_source(state, scan=scan) as source:
        origins = containers_at(source, current_timestamp(), Filter(service=service))
    if not origins:
        raise StateError(
            "container.unknown",
            f"there is no container of {service} now",
            remedy=f"'trimtab journal list --service {service}' shows the ones that were there",
        )
    reports = [_provenance_json(origin, state) for origin in origins]
    text = "\n\n".join(map(render, origins))
    lines = [text, *_commit_lines(origins, state)]
    print_result(reports, "\n".join(lines), as_json=as_json)


def _commits(origins: list[Provenance], state: Path | None) -> list[CommitInfo]:
    """Return what is known of the Git sources' commits behind the settings of containers."""
    sources = [_claims(fact.origin).source for each in origins for fact in each.facts]
    places = [(source.file, source.commit) for source in sources if ":" in source.file]
    return list(known_commits(places, state_root(state) / "fetcher")) if places else []


def _commit_lines(origins: list[Provenance], state: Path | None) -> list[str]:
    return [printable(commit_line(info)) for info in _commits(origins, state)]


def _provenance_json(origin: Provenance, state: Path | None) -> dict[str, Any]:
    commits = [asdict(info) for info in _commits([origin], state)]
    return {**provenance_json(origin), **({"commits": commits} if commits else {})}


def _unknown(source: JournalSource, container: str) -> StateError:
    """Return the error for an unknown container; the remedy helps if a service has the name."""
    message = f"no container {container} is in the journal"
    present = containers_at(source, current_timestamp(), Filter(service=container))
    names = [origin.about.name for origin in present]
    remedy = "see 'trimtab journal state', or 'trimtab journal list --container'"
    if names:
        remedy = (
            f"{container} is a service: 'trimtab journal blame {container}' explains its containers "
            f"{', '.join(names)}"
        )
    return StateError("container.unknown", message, remedy=remedy)


@command(
    """\b
Examples:
  trimtab journal state --at 03:10              the last time that it was 03:10 (UTC)
  trimtab journal state --at 2026-01-01T03:10:00Z --service web
""",
    name="state",
    short_help="Show the containers at a time.",
)
@click.option(
    "--at", callback=time_option, metavar="TIME", help="1h, 03:12, or RFC 3339; else now."
)
@click.option("--service", metavar="NAME", default="", help="NAME, or NAMESPACE/NAME.")
@click.option("--owner", metavar="NAME", default="", help="The owner of the containers.")
@scan_option
def state_at(
    at: str,
    service: str,
    owner: str,
    scan: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Show the containers at a time, and whether each one ran, as far as the journal knows.

    The journal doesn't record the exit of a container, or changes without the broker. Such a
    container is shown in its last requested state.
    """
    at = at or current_timestamp()
    with open_source(state, scan=scan) as source:
        origins = containers_at(source, at, Filter(service=service, owner=owner))
    if as_json:
        print_json({"at": at, "containers": [state_json(origin) for origin in origins]})
        return
    echo(f"At {at}, {AS_FAR_AS}.")
    origins.sort(
        key=lambda each: (
            *(each.about.namespace, each.about.service),
            *(int(each.slot or 0), each.about.name),
        )
    )
    rows = [_state_row(origin) for origin in origins]
    echo(table(STATE_HEADERS, rows) if rows else "No containers.")


def containers_at(source: JournalSource, at: str, wanted: Filter) -> list[Provenance]:
    """Return the matching containers that existed at a time."""
    from controller.core.records.provenance import without_replaced

    return without_replaced(_recorded_at(source, at, wanted))


def _recorded_at(source: JournalSource, at: str, wanted: Filter) -> Iterator[Provenance]:
    """Yield the containers without a record of their removal at a time, in the order of creation."""
    from controller.core.records.provenance import provenance
    from controller.core.records.query import Question, chronicles

    while True:
        page = source.ask(Question(wanted, limit=PAGE, there=at))
        for records in chronicles(page):
            origin = provenance(records)
            if origin is not None:
                yield origin
        if not page.following:
            return
        wanted = replace(wanted, after=page.following)


# As text


def render(origin: Provenance) -> str:
    """Return the identity and state of a container, and a row for the origin of each setting."""
    about = origin.about
    namespace = f"{about.namespace}/" if about.namespace else ""
    slot = f"slot {origin.slot} of " if origin.slot else "of " if about.service else ""
    service = f", {slot}{namespace}{about.service}" if about.service else ""
    owner = f", owner {about.owner}" if about.owner else ""
    lines = [f"{about.name} ({about.id[:SHORT_ID]}){service}{owner}", _state_line(origin)]
    if origin.pending is not None:
        record = origin.pending.record
        asked = f"{origin.pending.about.action} was asked for at {record.time}"
        lines.append(f"{asked} (record {record.seq}), and the outcome isn't recorded yet")
    if origin.shown_since:
        lines.append(
            f"changes before record {origin.shown_since} aren't shown, and what they made of it may "
            "be told as a later one's"
        )
    if not origin.facts:
        lines.append("the record of its create isn't kept any more")
        return "\n".join(map(printable, lines))
    # Most facts have the same origin, the create: only rows with another origin name it.
    records = Counter(fact.origin.record.seq for fact in origin.facts)
    (most, _), *_ = records.most_common()
    main = next(fact.origin for fact in origin.facts if fact.origin.record.seq == most)
    verb = "adopted" if main.about.action in _ADOPTIONS else "made"
    lines.append(f"{verb} by {_author(main)}")
    rows = [
        (
            fact.name,
            fact.value,
            _from(fact),
            "" if fact.origin.record.seq == most else _author(fact.origin),
        )
        for fact in origin.facts
    ]
    return "\n".join([*map(printable, lines), render_table(FACTS, rows, width=terminal_width())])


def _state_line(origin: Provenance) -> str:
    note = f"; {origin.note}" if origin.note else ""
    if origin.since is None:
        return f"{origin.state}{note}"
    record = origin.since.record
    return f"{origin.state} since {record.time} (record {record.seq}){note}, {AS_FAR_AS}"


def _author(result: QueryResult) -> str:
    """Return the actor, time, record and cause of a change."""
    record = result.record
    cause = _claims(result).cause
    author = f"{short_actor(record)} at {record.time} (record {record.seq})"
    return f"{author}: {cause}" if cause else author


def _from(fact: Fact) -> str:
    if fact.rule:
        return f"policy: {fact.rule}"
    source, proof = _claims(fact.origin).source, _proof(fact.origin)
    if proof.commit:
        # Without the line, which the controller claims.
        place = f"{proof.source}:{proof.path} of {short_commit(proof.commit)}"
        return f"{place}, proven: signed by {proof.signer}"
    if not source.file:
        adopted = fact.origin.about.action in _ADOPTIONS
        return "the adoption" if adopted else "the request"
    commit = f" of {short_commit(source.commit)}" if source.commit else ""
    return f"{source.file}:{fact.line}{commit}"


def _proof(result: QueryResult) -> ProofPart:
    """Return the proof of a change; empty for a change without a proof."""
    return RequestPart.read(result.record.entry.request).summary.proof


def _claims(result: QueryResult) -> ClaimsPart:
    return ClaimsPart.read(result.record.entry.claims)


def _state_row(origin: Provenance) -> tuple[str, ...]:
    about, since = origin.about, origin.since
    pending = f", {origin.pending.about.action} under way" if origin.pending is not None else ""
    cells = (
        about.namespace or "-",
        about.service or "-",
        origin.slot or "-",
        about.name or about.id[:SHORT_ID],
        origin.state + pending,
        since.record.time if since else "-",
        since.record.seq if since else "-",
        short_actor(since.record) if since else "-",
        origin.note or (_claims(since).cause if since else ""),
    )
    return tuple(printable(cell) for cell in cells)


# As JSON


def provenance_json(origin: Provenance) -> dict[str, Any]:
    """Return the identity and state of a container, and the origin of each setting."""
    return {
        **state_json(origin),
        "toldSince": origin.shown_since,
        "facts": [_fact_json(fact) for fact in origin.facts],
    }


def state_json(origin: Provenance) -> dict[str, Any]:
    """Return the identity and state of a container."""
    about = origin.about
    return {
        "container": about.id,
        "name": about.name,
        "namespace": about.namespace,
        "service": about.service,
        "slot": origin.slot,
        "revision": origin.revision,
        "owner": about.owner,
        "state": origin.state,
        "since": _record_json(origin.since),
        "pending": _record_json(origin.pending),
        "note": origin.note,
    }


def _record_json(result: QueryResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    record = result.record
    return {
        "seq": record.seq,
        "id": record.entry.id,
        "time": record.time,
        "action": result.about.action,
        "actor": record.entry.actor,
        "cause": _claims(result).cause,
    }


def _fact_json(fact: Fact) -> dict[str, Any]:
    claims = _claims(fact.origin)
    source = claims.source
    return {
        "field": fact.name,
        "value": fact.value,
        "rule": fact.rule,
        "source": {"file": source.file, "line": fact.line, "commit": source.commit},
        **({"proof": proof.members} if (proof := _proof(fact.origin)).commit else {}),
        "plan": claims.plan,
        "record": _record_json(fact.origin),
    }
