"""``fetch``: run the fetcher of Git sources as a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import click

from controller.cli import options
from controller.cli.output.terminal import echo


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
