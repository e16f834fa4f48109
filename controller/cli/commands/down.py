"""``down``: remove the containers and networks of an instance."""

from __future__ import annotations

from pathlib import Path

from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import command, open_state, print_json
from controller.cli.output.terminal import echo
from controller.core.encoding.terminal_text import printable


@command("""\b
Examples:
  trimtab down
  trimtab down --state .state
""")
def down(state: Path | None, as_json: bool) -> int:
    """Remove this instance's containers and networks, through the broker. Volumes stay.

    Pins, suspensions and revisions stay. The next 'up' retries earlier failures at once.

    Refused while a controller runs, since the controller would create everything again.
    """
    from controller.cli.clients import oneshot

    folder, instance = open_state(state)
    show = (lambda _line: None) if as_json else _show
    removed, failed = oneshot.take_down(folder, instance, show=show)
    if as_json:
        print_json({"removed": removed, "failed": failed})
    elif failed:
        echo("Not everything could be removed; run it again.", err=True)
    else:
        echo(f"Removed {len(removed)} objects of instance {instance.id}. Volumes stay.")
    return EXIT_ERROR if failed else 0


def _show(line: str) -> None:
    echo(printable(line))
