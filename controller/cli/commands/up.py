"""``up``, ``broker``, ``run`` and ``down``: start the processes, or remove what they made.

``up``, ``broker`` and ``run``: start the processes.

``down``: remove the containers and networks of an instance, or the containers of a project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.status_report import names_argument, project_option
from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.options import (
    command,
    command_line,
    default_directory,
    directory_argument,
    duration_ms,
    engine_option,
    note_option,
    open_state,
    policy_option,
    print_json,
    rebind_option,
    state_option,
    state_root,
    timeout_option,
    webhook_option,
)
from controller.cli.output.terminal import echo
from controller.core.encoding.text import printable
from controller.model.errors import UsageError
from controller.model.settings import QUARANTINE_MAX_MS, choose
from controller.system.runtime import importing

auth_option = click.option(
    "--registry-auth",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Registry credentials, as docker's config.json (default: /etc/trimtab/registry.json).",
)


def _quarantine_ms(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> int | None:
    milliseconds = None if value is None else duration_ms(value)
    if milliseconds is not None and milliseconds > QUARANTINE_MAX_MS:
        raise click.BadParameter("at most 720h")
    return milliseconds


quarantine_option = click.option(
    "--quarantine",
    "quarantine_ms",
    metavar="DURATION",
    callback=_quarantine_ms,
    help="Keep pruned containers, stopped, that long before they are removed, such as 24h "
    "(default: as set before, else 0s).",
)


def chosen_options(
    *, policy: str | None, registry_auth: Path | None, **options: Any
) -> dict[str, str]:
    """Return the options of a start as values of the settings.

    Raises:
        UsageError: the policy is unknown.
    """
    from controller.app.state_folder import policy_setting

    auth = None if registry_auth is None else str(registry_auth.absolute())
    return choose(policy=policy_setting(policy), registry_auth=auth, **options)


@command("""\b
Examples:
  trimtab up                                  ./desired-state under the policy 'strict'
  trimtab up /srv/desired --policy production
  trimtab up desired-state --policy development --state .state
  trimtab up --git https://example.org/team/deploy.git --path prod --namespaces shop,web
""")
@directory_argument
@engine_option
@policy_option
@state_option
@auth_option
@click.option(
    "--controller-user",
    "controller_user_name",
    metavar="NAME",
    help="As root: the user of the controller (default: trimtab).",
)
@rebind_option
@quarantine_option
@click.option("--git", "git_url", metavar="URL", help="Follow a Git repository instead of DIR.")
@click.option(
    "--ref",
    "git_branch",
    metavar="BRANCH",
    default="main",
    help="With --git: the branch (default: main).",
)
@click.option(
    "--path",
    "git_path",
    metavar="FOLDER",
    default=".",
    help="With --git: the folder of the documents (default: the top).",
)
@click.option(
    "--namespaces",
    default="default",
    metavar="NAME,…",
    help="With --git: the namespaces that the repository may declare (default: default).",
)
@click.option("--credentials", metavar="NAME", help="With --git: a folder of /etc/trimtab/git.")
@click.option(
    "--keys",
    metavar="NAME",
    help="With --git: a folder of /etc/trimtab/keys; one of its keys must have signed the commit.",
)
@webhook_option
def up(
    directory: Path | None,
    state: Path | None,
    registry_auth: Path | None,
    quarantine_ms: int | None,
    git_url: str | None,
    git_branch: str,
    git_path: str,
    namespaces: str,
    credentials: str | None,
    keys: str | None,
    webhook: str | None,
    as_json: bool,
    engine: str | None,
    policy: str | None,
    controller_user_name: str | None,
    rebind: bool,
) -> None:
    """Run trimtab here in the foreground, and show each change.

    DIR defaults to the instance's own, else ./desired-state. With --git, DIR is a folder of the state
    folder, with one document that names the repository. Broker, controller and, for Git sources, the
    fetcher are children of this process. Ctrl-C ends all of them and leaves the containers running;
    'trimtab down' removes the containers.
    """
    if git_url is not None and directory is not None:
        raise click.UsageError("give DIR or --git, not both")
    with importing():
        from controller.app.process import log_to_stderr
        from controller.app.up import prepare_launch, run_both
        from controller.cli.status.live_view import watch

    log_to_stderr("up")
    root = state_root(state)
    if git_url is not None:
        from controller.app.state_folder import write_source
        from controller.core.manifests.source_document import SourceOptions, render_source

        names = tuple(name.strip() for name in namespaces.split(","))
        options = SourceOptions(git_url, git_branch, git_path, names, credentials, keys)
        directory = write_source(root, render_source(options))
    launch = prepare_launch(
        root,
        directory=default_directory(directory, root),
        options=chosen_options(
            engine=engine or os.environ.get("DOCKER_HOST") or None,
            policy=policy,
            quarantine_ms=quarantine_ms,
            registry_auth=registry_auth,
            webhook=webhook,
            controller_user=controller_user_name,
        ),
        rebind=rebind,
    )
    with run_both(launch) as assembly:
        watch(assembly, launch, as_json=as_json)
    if not as_json:
        echo(
            f"\nStopped. The containers keep running; '{command_line('down', root)}' removes them.",
            err=True,
        )


@command("""\b
Example:
  trimtab broker /srv/desired --policy production --controller-uid $(id -u trimtab)
""")
@directory_argument
@engine_option
@policy_option
@state_option
@auth_option
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), help="Where to serve.")
@click.option("--controller-uid", type=int, help="The uid that is the controller.")
@rebind_option
@quarantine_option
@click.option("--lifeline", "lifeline_fd", type=int, hidden=True)
def broker(
    directory: Path | None,
    state: Path | None,
    registry_auth: Path | None,
    socket_path: Path | None,
    quarantine_ms: int | None,
    lifeline_fd: int | None,
    engine: str | None,
    policy: str | None,
    controller_uid: int | None,
    rebind: bool,
    as_json: bool,  # noqa: ARG001 - may follow any command
) -> int:
    """Run the broker alone: the privileged gate before the engine, and the journal's only writer.

    The controller runs beside it as a user of its own ('trimtab run'). DIR is that of the instance, else
    ./desired-state. Git sources need the fetcher ('trimtab fetch').
    """
    with importing():
        from controller.app.broker import open_launch, run_broker

    root = state_root(state)
    launch = open_launch(
        root,
        directory=default_directory(directory, root),
        options=chosen_options(
            engine=engine,
            policy=policy,
            quarantine_ms=quarantine_ms,
            registry_auth=registry_auth,
        ),
        controller_uid=controller_uid,
        rebind=rebind,
    )
    return run_broker(launch, socket_path=socket_path, lifeline_fd=lifeline_fd)


@command("""\b
Example:
  sudo -u trimtab trimtab run /srv/desired --broker /var/lib/trimtab/run/broker.sock
""")
@directory_argument
@click.option(
    "--broker", "broker_socket", type=click.Path(path_type=Path), help="The broker's socket."
)
@state_option
@quarantine_option
@click.option("--listen-fd", type=int, hidden=True)
@click.option("--lifeline", "lifeline_fd", type=int, hidden=True)
@click.option("--paused", is_flag=True, hidden=True)
def run(state: Path | None, as_json: bool, **options: Any) -> int:  # noqa: ARG001 - may follow any command
    """Run the controller alone, unprivileged, behind a broker that runs ('trimtab broker').

    DIR and quarantine default to the settings of the broker's instance. Given here, they hold for
    this process only. Without --state, the state folder is the one around the broker's socket.
    """
    if os.getuid() == 0:
        raise UsageError(
            "user.unfit",
            "the controller never runs as root",
            remedy="start it as a user of its own: sudo -u trimtab trimtab run",
        )
    with importing():
        from controller.app.controller import run_controller

    sys.stdout.flush()
    return run_controller(_state_around(options["broker_socket"], state), **options)


def _state_around(broker_socket: Path | None, state: Path | None) -> Path:
    """Return the state folder, by default the one with the folder of the broker's socket."""
    if state is None and broker_socket is not None:
        around = broker_socket.absolute().parent.parent
        if (around / "instance.json").is_file():
            return around
    return state_root(state)


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
