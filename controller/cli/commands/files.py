"""``files``: the delivered files of Configs, without a broker."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import PassingGroup, command, open_state, print_json
from controller.cli.output.terminal import echo
from controller.core.encoding.text import printable


@command("""\b
Examples:
  trimtab files restore --state /var/lib/trimtab    before the engine starts, such as at boot

\b
Exit codes: 0 all folders are there, 1 some can't be made.
""")
def restore(state: Path | None, *, as_json: bool) -> None:
    """Make missing folders of Configs again, so that containers find their files.

    Run it as the broker's user before the engine starts. A running broker has done so by itself.
    """
    from controller.app.broker import restore_files

    failed = restore_files(open_state(state)[0].root)
    if as_json:
        rows = [{"files": name, "reason": reason} for name, reason in failed or ()]
        print_json({"running": failed is None, "failed": rows})
    elif failed is None:
        echo("a broker runs here, and restored the files when it started")
    for name, reason in failed or ():
        echo(f"{printable(name)}: {printable(reason)}", err=True)
    if failed:
        raise SystemExit(EXIT_ERROR)


@click.group(cls=PassingGroup, commands=[restore])
def files() -> None:
    """Work on the files that services mount from Configs."""
