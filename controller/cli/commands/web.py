"""``web``: the page of this host, for the browser of the user of the command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from controller.cli.options import DefaultGroup, command, open_state, print_json
from controller.cli.output.terminal import echo
from controller.cli.output.times import user_name
from controller.system.runtime import importing


@click.group(
    cls=DefaultGroup,
    default="open",
    epilog="""\b
Examples:
  trimtab web                            prints a link for the browser of this computer
  trimtab web --port 8123                on a port for 'ssh -L 8123:127.0.0.1:8123 HOST'
""",
)
def web() -> None:
    """Show the page of this host in a browser: what runs, what doesn't, why, and who must act.

    Without a subcommand: 'web open'.
    """


@command(
    """\b
Examples:
  trimtab web open
  trimtab web open --port 8123           behind 'ssh -L 8123:127.0.0.1:8123 HOST'

\b
The link works once, within 60 s. The page shows what this user is allowed to read, and changes
nothing. Other users of this computer aren't served.
""",
    name="open",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="The port on 127.0.0.1 (default: any free one).",
)
def open_page(port: int, state: Path | None, as_json: bool) -> None:
    """Serve the page to a browser of this user, on 127.0.0.1, until Ctrl-C."""
    with importing():
        from controller.app.page import bind_port, run_page
        from controller.cli.commands.page_data import OwnReader
        from controller.web.pages import WebSession

    folder, _ = open_state(state)

    def announce(link: str) -> None:
        if as_json:
            print_json({"url": link})
        else:
            echo(f"{link}\n\nThe link works once, within 60 s. Ctrl-C ends the page.")

    run_page(
        OwnReader(folder),
        bind_port(port),
        session=WebSession(user_name(os.getuid()), logs=None),
        uids=frozenset({0, os.getuid()}),
        announce=announce,
    )


web.add_command(open_page)
