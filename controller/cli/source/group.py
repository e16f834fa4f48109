"""``source``: list Git sources, fetch one now, hold and resume it, approve and accept commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli import options
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.cli.source.accept import accept
from controller.core.encoding.terminal_text import printable

#: Longer than a request waits for its fetch.
TIMEOUT_S = 60.0

name_argument = click.argument("name", metavar="NAME")


@click.group(
    cls=options.PassingGroup,
    epilog="""\b
Examples:
  trimtab source list
  trimtab source sync shop
  trimtab source approve shop 3fa2c81b90de
""",
)
def source() -> None:
    """Show and steer the Git sources of the running instance."""


@options.command("""\b
Example:
  trimtab source list --json | jq '.sources[] | select(.state != "Ready")'
""")
def list_sources(state: Path | None, as_json: bool) -> None:
    """List the sources: state, served and held commit, and why a source isn't Ready."""
    answer = _ask(state, {"do": "list"})
    if as_json:
        options.print_json(answer)
        return
    sources = answer["sources"]
    if not sources:
        echo("no Source was fetched yet")
        return
    headers = ("NAME", "STATE", "REF", "CURRENT", "HELD", "SINCE", "REASON")
    echo(table(headers, (_row(each) for each in sources)))
    for each in sources:
        _explain(each)


@options.command("""\b
Example:
  trimtab source log shop
""")
@name_argument
def log(name: str, state: Path | None, as_json: bool) -> None:
    """List the latest commits of a source: the served one has '*', and a held one 'held'."""
    answer = _ask(state, {"do": "log", "name": name})
    if as_json:
        options.print_json(answer)
        return
    status = answer.get("status") or {}
    marks = {(answer["current"] or {}).get("commit"): "*"}
    if status.get("state") == "Held" and status["candidate"]:
        marks[status["candidate"]["commit"]] = "held"
    rows = (
        (
            marks.get(each["commit"], ""),
            each["commit"][:12],
            printable(each.get("committed", "")),
            printable(each.get("author", "")),
            printable(each.get("subject", "")),
        )
        for each in answer["commits"]
    )
    echo(table(("", "COMMIT", "COMMITTED", "AUTHOR", "SUBJECT"), rows))
    if "held" in marks.values():
        echo(f"held since {printable(status['since'])}")
        _explain(status)


@options.command("""\b
Example:
  trimtab source sync shop
""")
@name_argument
def sync(name: str, state: Path | None, as_json: bool) -> int:
    """Fetch a source now."""
    return _act(state, {"do": "sync", "name": name}, as_json=as_json)


@options.command("""\b
Example:
  trimtab source hold shop
""")
@name_argument
@options.note_option
def hold(name: str, note: str, state: Path | None, as_json: bool) -> int:
    """Keep the served commit of a source until 'resume'."""
    _record(state, "hold", name, note)
    return _act(state, {"do": "hold", "name": name}, as_json=as_json)


@options.command("""\b
Example:
  trimtab source resume shop
""")
@name_argument
@options.note_option
def resume(name: str, note: str, state: Path | None, as_json: bool) -> int:
    """End a hold, and fetch."""
    _record(state, "resume", name, note)
    return _act(state, {"do": "resume", "name": name}, as_json=as_json)


@options.command("""\b
Example:
  trimtab source approve shop 3fa2c81b90de
""")
@name_argument
@click.argument("commit", metavar="COMMIT")
@options.note_option
def approve(name: str, commit: str, note: str, state: Path | None, as_json: bool) -> int:
    """Serve exactly the held commit COMMIT: its id, or the first 12 digits or more."""
    _record(state, "approve", name, f"commit {commit}{f': {note}' if note else ''}")
    return _act(state, {"do": "approve", "name": name, "commit": commit}, as_json=as_json)


def _record(state: Path | None, verb: str, name: str, note: str) -> None:
    """Record a request in the journal before it is made; the broker decides who may ask."""
    folder, _ = options.open_state(state)
    BrokerApi(folder.broker_socket).record(f"source.{verb}", f"Source/default/{name}", note)


def _act(state: Path | None, question: dict[str, object], *, as_json: bool) -> int:
    """Send a request that changes a source, and show the source afterwards."""
    answer = _ask(state, {**question, "by": options.calling_user()})
    if as_json:
        options.print_json(answer)
        return 0
    found = answer["source"]
    if found is not None:
        echo(f"{printable(found['name'])}: {_state(found)}")
        _explain(found)
    if answer.get("done") is False:
        echo("the fetch takes longer; see 'trimtab source list'", err=True)
    return 0


def _ask(state: Path | None, question: dict[str, object]) -> dict[str, Any]:
    folder, _ = options.open_state(state)
    answer: dict[str, Any] = ask_controller(folder.fetch_socket, question, timeout_s=TIMEOUT_S)
    return answer


def _row(each: dict[str, Any]) -> list[str]:
    return [
        printable(text)
        for text in (
            each["name"],
            each["state"],
            each["ref"],
            _short(each["current"]),
            _short(each["candidate"]),
            each["since"] or "-",
            each["reason"] or "-",
        )
    ]


def _state(each: dict[str, Any]) -> str:
    current = each["current"]
    state = printable(each["state"])
    return f"{state}, commit {_short(current)}" if current else state


def _explain(each: dict[str, Any]) -> None:
    """Print why a source isn't Ready, or its forge has no commit statuses, and what to do."""
    for prefix in ("", "forge_"):
        reason, message, remedy = (
            printable(each[f"{prefix}{member}"]) for member in ("reason", "message", "remedy")
        )
        if reason:
            echo(f"{printable(each['name'])}: {message} [{reason}]")
        if reason and remedy:
            echo(f"    remedy: {remedy}")


def _short(commit: dict[str, Any] | None) -> str:
    return printable(str(commit["commit"])[:12]) if commit else "-"


for _name, _command in (
    ("list", list_sources),
    ("log", log),
    ("sync", sync),
    ("hold", hold),
    ("resume", resume),
    ("approve", approve),
    ("accept", accept),
):
    source.add_command(_command, _name)
