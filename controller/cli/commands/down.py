"""``down``: the end of an instance's containers and networks."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import json_option, open_state, print_json, state_option


@click.command(
    epilog="""\b
Examples:
  trimtab down
  trimtab down --state .state
"""
)
@state_option
@json_option
def down(state: Path | None, as_json: bool) -> int:
    """Remove this instance's containers and networks, through the broker. Volumes stay.

    The next 'up' tries at once what failed before; pins, suspensions and revisions stay.

    Refused while a controller runs, which would put everything back.
    """
    from controller.cli.clients import oneshot

    found, instance = open_state(state)
    tell = (lambda _line: None) if as_json else click.echo
    done, failed = oneshot.take_down(found, instance, tell=tell)
    if as_json:
        print_json({"removed": done, "failed": failed})
    elif failed:
        click.echo("Not everything could be removed; run it again.", err=True)
    else:
        click.echo(f"Removed {len(done)} objects of instance {instance.id}. Volumes stay.")
    return EXIT_ERROR if failed else 0
