"""``source``: list Git sources, fetch one now, hold and resume it, approve and accept commits.

``source accept``: an operator approves a signed commit that doesn't descend from the accepted one.

``fetch``: run the fetcher of Git sources as a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from controller.cli import options
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.output.tables import table
from controller.cli.output.terminal import confirm_approval, echo, echo_with_remedy
from controller.core.encoding.text import printable
from controller.model.errors import UsageError
from controller.model.mutations import SOURCE_LINE
from controller.model.names import short_commit


@options.command("""\b
Example:
  trimtab source accept shop 3fa2c81b90de6c1a4b7d05e2f8896a1c0d3e7f42
""")
@click.argument("name", metavar="NAME")
@click.argument("commit", metavar="COMMIT")
@click.option("--yes", is_flag=True, help="Don't ask.")
@options.note_option
def accept(name: str, commit: str, yes: bool, note: str, state: Path | None, as_json: bool) -> None:
    """Let a signed source of the policy go on with COMMIT after a rewritten history.

    Shows the accepted commit, and the signed commit that isn't its descendant. COMMIT is the whole id of
    the latter, as in the repository. The broker then accepts COMMIT, or a descendant of it, and no other
    commit.
    """
    folder, _ = options.open_state(state)
    broker = BrokerApi(folder.broker_socket)
    line = waiting_line(broker.get("proofs"), name, commit)
    if not as_json or not yes:
        for text in described(line):
            echo(text, err=as_json)
    if not yes:
        confirm_approval("Go on with the new commit?", check="both commits")
    done = broker.record(SOURCE_LINE, name, note, digest=line["digest"])
    text = (
        f"approved {printable(short_commit(str(done['commit'])))}; the controller uploads its proof"
    )
    options.print_result(done, text, as_json=as_json)


def waiting_line(proofs: Mapping[str, Any], name: str, commit: str) -> Mapping[str, Any]:
    """Return the commit of another line in the answer of ``GET proofs``.

    Raises:
        UsageError: another commit waits, or none.
    """
    lines = (each.get("line") for each in proofs["sources"] if each["source"] == name)
    line = next((each for each in lines if each), None)
    if line is None:
        raise UsageError(
            "source.no-line",
            f"no signed commit of another line waits at the source {name}",
            remedy="the controller uploads the served commit within some minutes; see 'trimtab status'",
        )
    # The spelling of a signature isn't signed. So an old commit can be given ids with chosen first digits.
    if line["commit"] != commit:
        raise UsageError(
            "source.other-commit",
            f"the commit {printable(line['commit'])} waits, not {commit}",
            remedy="compare the id with the repository, and name the whole id",
        )
    return dict(line)


def described(line: Mapping[str, Any]) -> list[str]:
    """Return the lines that show both commits."""
    return [
        printable(text)
        for text in (
            f"Source {line['source']}: the history was rewritten, or the commit is an older one.",
            f"  accepted  {line['accepted']}, signed by {line['acceptedSigner']}",
            f"  new       {line['commit']}, signed by {line['signer']} ({line['key']})",
            f"            {line['committed']}  {line['subject']}",
        )
    ]


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
    sources = answer["sources"]
    headers = ("NAME", "STATE", "REF", "CURRENT", "HELD", "SINCE", "REASON")
    text = table(headers, map(_row, sources)) if sources else "no Source was fetched yet"
    options.print_result(answer, text, as_json=as_json)
    for each in () if as_json else sources:
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
            short_commit(each["commit"]),
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
    return printable(short_commit(str(commit["commit"]))) if commit else "-"


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


@options.command("""\b
Example:
  sudo -u trimtab-fetch trimtab fetch /srv/desired --state /var/lib/trimtab
""")
@options.directory_argument
@options.state_option
@options.webhook_option
@click.option("--listen-fd", type=int, hidden=True)
@click.option("--lifeline", type=int, hidden=True)
def fetch(
    directory: Path | None,
    state: Path | None,
    listen_fd: int | None,
    lifeline: int | None,
    webhook: str | None,
    as_json: bool,  # noqa: ARG001 - may follow any command
) -> int:
    """Run the fetcher alone, unprivileged: fetch the Git sources that DIR declares.

    'trimtab up' runs the fetcher by itself while DIR declares a Source. The fetcher needs neither the
    engine nor the broker.
    """
    from controller.app.fetcher import run_fetcher

    if os.getuid() == 0:
        echo("warning: the fetcher runs as root; give it a user of its own", err=True)
    return run_fetcher(
        options.state_root(state),
        directory=directory,
        listen_fd=listen_fd,
        lifeline_fd=lifeline,
        webhook=webhook,
    )
