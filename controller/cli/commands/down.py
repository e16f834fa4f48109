"""``down``: remove the containers and networks of an instance, or the containers of a project."""

from __future__ import annotations

from pathlib import Path

from controller.cli.clients.name_completion import names_argument, project_option
from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import command, note_option, open_state, print_json, timeout_option
from controller.cli.output.terminal import echo
from controller.core.encoding.terminal_text import printable


@command("""\b
Examples:
  trimtab down
  trimtab down --state .state
  trimtab down -n shop                       a project, while trimtab runs
  trimtab start -n shop                      creates its containers again
""")
@names_argument
@project_option
@note_option
@timeout_option("How long to wait for actions under way")
def down(
    names: tuple[str, ...],
    namespace: str | None,
    note: str,
    timeout_s: float,
    state: Path | None,
    as_json: bool,
) -> int:
    """Remove this instance's containers and networks, through the broker. Volumes stay.

    Pins, suspensions and revisions stay. The next 'up' retries earlier failures at once.
    Refused while a controller runs, since the controller would create everything again.

    With -n or NAME, while a controller runs: remove the containers of a project, or of services, and keep
    them away until 'trimtab start'. Networks, volumes and jobs stay.
    """
    if names or namespace is not None:
        from controller.cli.commands import service

        options = service.Options(note, namespace, False, timeout_s, state, as_json)
        return service.act("stop", names, options, remove=True)
    from controller.cli.clients import oneshot

    folder, instance = open_state(state)
    show = (lambda _line: None) if as_json else (lambda line: echo(printable(line)))
    removed, failed = oneshot.take_down(folder, instance, show=show)
    if as_json:
        print_json({"removed": removed, "failed": failed})
    elif failed:
        echo("Not everything could be removed; run it again.", err=True)
    else:
        echo(f"Removed {len(removed)} objects of instance {instance.id}. Volumes stay.")
    return EXIT_ERROR if failed else 0
