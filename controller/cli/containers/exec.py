"""``exec``: run a command in a container, with input, output, terminal and exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.name_completion import complete_names
from controller.cli.containers.exec_session import ExecClient
from controller.cli.containers.replicas import (
    ContainerTarget,
    VisibleContainer,
    list_replicas,
    select,
)
from controller.cli.options import open_state, state_option
from controller.model.errors import StateError, UsageError


@click.command(
    "exec",
    epilog="""\b
Examples:
  trimtab exec web -- ls -l /srv
  trimtab exec -it web.2 -- sh
  trimtab exec -i db -- psql -U app < dump.sql
  trimtab exec --user 1000 --env LANG=C --workdir /srv shop/web -- ./report

\b
NAME is a service (its first running replica), NAMESPACE/NAME, NAME.SLOT, or a container's
name. -i passes input on, -t gives the command a terminal; nothing detaches from it.
Only operators run commands; the policy's section exec says whether, and for how long.
The journal records the program, never its arguments.

\b
Exit codes: the command's own. Before it starts: 1 error, 4 refused by the policy, 64 wrong
usage; these come with a line 'error: ...' on stderr. As with docker, 126 or 127: the
command can't be executed or wasn't found; 130: Ctrl-C; 137: killed.
""",
)
@click.argument("name", shell_complete=complete_names)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARG...]")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-u", "--user", default="", help="Run it as this user: a name or uid[:gid].")
@click.option("-w", "--workdir", default="", help="Run it in this folder.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable; repeatable."
)
@state_option
def execute(
    name: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    user: str,
    workdir: str,
    env: tuple[str, ...],
    state: Path | None,
) -> int:
    """Run a command in a running container of a service."""
    if tty and interactive and not sys.stdin.isatty():
        raise UsageError(
            "exec.no-terminal",
            "-it needs a terminal, and standard input isn't a terminal",
            remedy="leave out -t",
        )
    folder, _ = open_state(state)
    api = EngineApi(folder.broker_socket)
    replica = first_running(select(list_replicas(api), ContainerTarget.parse(name)), name)
    body: dict[str, object] = {
        "AttachStdin": interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": tty,
        "Cmd": list(command),
    }
    optional = {"User": user, "WorkingDir": workdir, "Env": [_variable(text) for text in env]}
    body |= {key: value for key, value in optional.items() if value}
    return ExecClient(api, tty=tty, interactive=interactive).run(replica.id, body)


def first_running(replicas: list[VisibleContainer], name: str) -> VisibleContainer:
    """Return the first running container.

    Raises:
        StateError: no container runs.
    """
    for replica in replicas:
        if replica.is_running:
            return replica
    states = ", ".join(f"{replica.name} is {replica.state}" for replica in replicas)
    raise StateError(
        "container.not-running",
        f"no container of {name} runs: {states}",
        remedy=f"see why with 'trimtab describe {name.partition('.')[0]}' and 'trimtab logs {name}'",
    )


def _variable(text: str) -> str:
    """Return NAME=VALUE; a NAME without a value gets the value in the caller's environment."""
    if "=" in text:
        return text
    if text not in os.environ:
        raise UsageError(
            "exec.env",
            f"--env {text}: this environment has no such variable",
            remedy="write NAME=VALUE",
        )
    return f"{text}={os.environ[text]}"
