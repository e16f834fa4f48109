"""``logs``: the output of containers, and the last output of failed containers."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.name_completion import complete_names
from controller.cli.containers.follow import LogFollower
from controller.cli.containers.log_reader import print_logs
from controller.cli.containers.previous import print_previous
from controller.cli.containers.printing import LinePrinter
from controller.cli.containers.replicas import ContainerTarget, find_replicas
from controller.cli.journal.filters import current_timestamp, time_option
from controller.cli.options import command, open_state
from controller.core.engine_api.streams.log_stream import engine_time
from controller.model.errors import UsageError


def tail_option(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Return a number of lines, or ``all``."""
    if value != "all" and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise click.BadParameter(f"{value!r} is neither a number of lines nor 'all'")
    return value


@command("""\b
Examples:
  trimtab logs web                       all replicas, interleaved by time
  trimtab logs -f web gateway            and new lines, also of replacement containers
  trimtab logs --tail 100 --since 10m shop/web.2
  trimtab logs --previous web            the last lines of containers that failed
  trimtab logs --json web | jq -r 'select(.stream == "stderr").line'

\b
NAME is a service, NAMESPACE/NAME, one replica as NAME.SLOT, or a container's name. With
more than one replica, NAME.SLOT stands before each line. Lines of stderr go to stderr.
Control characters are shown as \\uNNNN; colours stay on a terminal, unless NO_COLOR is set.

\b
-f also follows the containers that replace the present ones. It ends with Ctrl-C (exit
code 130), or once the service is removed. --previous needs no running instance. The
journal records who read which log.

\b
Exit codes: 0 done, 1 error (no such container, nothing runs), 4 refused, 64 wrong usage.
""")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they come.")
@click.option(
    "-p", "--previous", is_flag=True, help="Show the last lines of containers that failed."
)
@click.option(
    "-n",
    "--tail",
    metavar="N",
    default="all",
    callback=tail_option,
    help="Only the last N lines of each container.",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=time_option,
    help="Only lines since then: 10m (ago), 7d, 03:12 (UTC, the last), or RFC 3339.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line.")
def logs(
    names: tuple[str, ...],
    follow: bool,
    previous: bool,
    tail: str,
    since: str,
    timestamps: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show the output of the containers of services."""
    if previous and follow:
        raise UsageError(
            "logs.previous",
            "--previous shows ended containers, and can't be combined with --follow",
            remedy="leave out -f",
        )
    targets = [ContainerTarget.parse(name) for name in names]
    printer = LinePrinter(timestamps=timestamps, as_json=as_json)
    folder, _ = open_state(state)
    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": tail}
    if since:
        query["since"] = engine_time(since)
    api = EngineApi(folder.broker_socket)
    if previous:
        print_previous(folder, targets, printer, tail=tail, since=since)
    elif follow:
        LogFollower(
            api, targets, query, printer, folder.controller_socket, began=current_timestamp()
        ).run()
    else:
        print_logs(api, find_replicas(api, targets), query, printer)
    printer.flush()
    return 0
