"""``source accept``: an operator approves a signed commit that doesn't descend from the accepted one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from controller.cli import options
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.output.terminal import confirm_approval, echo
from controller.core.encoding.terminal_text import printable
from controller.model.errors import UsageError
from controller.model.mutations import SOURCE_LINE


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
    text = f"approved {printable(str(done['commit'])[:12])}; the controller uploads its proof"
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
