"""``source``: list Git sources, fetch one now, hold and resume it, approve and accept commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli import options
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo, echo_with_remedy
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
    return _act(state, "sync", name, as_json=as_json)


@options.command("""\b
Example:
  trimtab source hold shop
""")
@name_argument
@options.note_option
def hold(name: str, note: str, state: Path | None, as_json: bool) -> int:
    """Keep the served commit of a source until 'resume'."""
    return _act(state, "hold", name, note, as_json=as_json)


@options.command("""\b
Example:
  trimtab source resume shop
""")
@name_argument
@options.note_option
def resume(name: str, note: str, state: Path | None, as_json: bool) -> int:
    """End a hold, and fetch."""
    return _act(state, "resume", name, note, as_json=as_json)


@options.command("""\b
Example:
  trimtab source approve shop 3fa2c81b90de
""")
@name_argument
@click.argument("commit", metavar="COMMIT")
@options.note_option
def approve(name: str, commit: str, note: str, state: Path | None, as_json: bool) -> int:
    """Serve exactly the held commit COMMIT: its id, or the first 12 digits or more."""
    note = f"commit {commit}{f': {note}' if note else ''}"
    return _act(state, "approve", name, note, as_json=as_json, commit=commit)


def _act(
    state: Path | None,
    verb: str,
    name: str,
    note: str | None = None,
    *,
    as_json: bool,
    **arguments: str,
) -> int:
    """Send a request that changes a source, and show the source afterwards.

    With a note, possibly empty, the request is recorded first; the broker decides who may ask.
    """
    if note is not None:
        broker = BrokerApi(options.open_state(state)[0].broker_socket)
        broker.record(f"source.{verb}", f"Source/default/{name}", note)
    by = options.calling_user()
    answer = _ask(state, {"do": verb, "name": name, **arguments, "by": by})
    if as_json:
        options.print_json(answer)
        return 0
    found = answer["source"]
    if found is not None:
        _show(found)
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


def _show(each: dict[str, Any]) -> None:
    """Print the state of a source with its commit, and why it isn't Ready."""
    commit = f", commit {_short(each['current'])}" if each["current"] else ""
    echo(f"{printable(each['name'])}: {printable(each['state'])}{commit}")
    _explain(each)


def _explain(each: dict[str, Any]) -> None:
    """Print why a source isn't Ready, or its forge has no commit statuses, and what to do."""
    for prefix in ("", "forge_"):
        if reason := each[f"{prefix}reason"]:
            text = f"{each['name']}: {each[f'{prefix}message']} [{reason}]"
            echo_with_remedy(text, each[f"{prefix}remedy"])


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
