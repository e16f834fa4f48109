"""The Git sources of a status report: a table, and one source in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from controller.cli.output.tables import Column, clip, render
from controller.cli.output.times import until
from controller.core.encoding.text import printable
from controller.model.names import short_commit

SourceJson = dict[str, Any]

_DASH = frozenset({"-"})
_STYLES = {
    "Ready": "green",
    "Pending": "cyan",
    "Held": "yellow",
    "Suspended": "yellow",
    "Failing": "red",
    "Degraded": "red",
    "Removed": "red",
    "Broken": "red",
}


COLUMNS = (
    Column("SOURCE", shrink=clip, least=8, rank=6),
    Column("STATE", style=lambda state: click.style(state, fg=_STYLES.get(state))),
    Column("COMMIT", dull=_DASH),
    Column("WAITING", dull=_DASH, rank=3, optional=True),
    Column("REF", shrink=clip, least=6, rank=2, optional=True),
    Column("NEXT FETCH", dull=_DASH, rank=1, optional=True),
    Column("MESSAGE"),
)


def render_sources(status: dict[str, Any], *, width: int | None, now: float) -> list[str]:
    """Return the table of Git sources as one text; none without sources."""
    sources = status.get("sources") or []
    rows = [_row(source, now) for source in sources]
    return ["", render(COLUMNS, rows, width=width), ""] if rows else []


def _row(source: SourceJson, now: float) -> tuple[str, ...]:
    return (
        source["name"],
        source["state"],
        short(source["commit"]),
        short((source["candidate"] or {}).get("commit", "")),
        source["ref"] or "-",
        until(source["nextFetch"], now) or "-",
        printable(source["message"]),
    )


def short(commit: str) -> str:
    """Return a commit in short form, ``-`` for none."""
    return short_commit(commit) or "-"


def select_source(status: dict[str, Any], name: str) -> SourceJson | None:
    """Return the source that NAME, ``Source/NAME`` or a whole key selects."""
    plain = name.removeprefix("Source/").removeprefix("default/")
    return next((s for s in status.get("sources") or [] if s["name"] == plain), None)


def describe_source(source: SourceJson) -> str:
    """Return a source in full."""
    lines = [printable(f"Source {source['name']}")]
    lines += (
        f"  {label + ':':<14}{printable(str(text))}" for label, text in _facts(source) if text
    )
    return "\n".join(lines)


def _facts(source: SourceJson) -> Iterator[tuple[str, str]]:
    yield "State", source["state"]
    yield "Message", source["message"]
    yield "Remedy", source["remedy"]
    yield "Repository", source["url"]
    yield "Reference", source["ref"]
    yield "Path", source["path"]
    yield "Namespaces", ", ".join(source["namespaces"])
    yield "Resources", source["resources"]
    yield "Runs", _commit(source["current"], source["commit"])
    yield "Waits", _commit(source["candidate"], "")
    yield "Approved by", source["approvedBy"]
    yield "Since", source["since"]
    yield "Last fetch", source["lastFetch"]
    yield "Last success", source["lastSuccess"]
    yield "Next fetch", source["nextFetch"]
    yield "Failures", source["failures"]
    feedback = source.get("feedback")
    if feedback:
        yield "Statuses", f"not sent: {feedback['message']} ({feedback['remedy']})"


def _commit(info: SourceJson | None, commit: str) -> str:
    """Return a commit with its author, subject and signature, as far as known."""
    if info is None or (commit and info["commit"] != commit):
        return commit
    parts = [info["commit"], info["author"], info["committed"], info["subject"]]
    signature = info["signature"]
    parts.append(
        f"signed by {signature['signer']} ({signature['format']})" if signature else "unsigned"
    )
    return ", ".join(part for part in parts if part)
