"""``trimtab``: the table of commands, and the only place where errors become exit codes.

``SECTIONS`` maps each command to its module. A command is imported when it is called, so that
``--help`` and ``status`` start fast.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from controller import __version__
from controller.cli import exit_codes
from controller.cli.exit_codes import DEBUG, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE

#: Section of the help -> name -> (module below cli, one line of help). In the order of help. The command is
#: the module's attribute of the same name.
SECTIONS = {
    "Run": {
        "up": ("commands/up", "Run trimtab here: keep this host as a directory declares it."),
        "down": ("commands/up", "Remove all containers, or those of a project; keep volumes."),
        "plan": ("commands/plan", "Show what would change, and why."),
        "snapshot": ("commands/plan", "Print what a plan elsewhere needs to know."),
        "diff": ("commands/plan", "Show the fields that would change."),
        "apply": ("commands/apply", "Make the changes once, and exit."),
        "approve": ("commands/apply", "Allow a removal that is held back."),
    },
    "Look": {
        "status": ("status/status", "List resources: ready, condition, ports, problems."),
        "get": ("status/get", "Show resources by kind and name, as kubectl does."),
        "describe": ("status/description", "Show one resource in detail."),
        "history": ("commands/service", "Show the revisions of a service."),
        "logs": (
            "commands/logs",
            "Show what containers print, or what failed ones printed last.",
        ),
        "web": ("commands/web", "Show the page of this host in a browser."),
        "events": ("status/events", "Show what trimtab sees, decides and does, in words."),
        "wait": ("commands/wait", "Wait until resources are ready, or gone."),
        "stats": ("commands/stats", "Show processors, memory and restarts of containers."),
        "top": ("commands/stats", "The same as stats."),
        "metrics": ("commands/metrics", "Print the metrics for Prometheus."),
        "doctor": ("commands/doctor", "Check this host and the instance."),
        "support-bundle": ("commands/support", "Write facts for a bug report, without secrets."),
    },
    "Change": {
        "exec": ("commands/exec", "Run a command in a running container."),
        "restart": ("commands/service", "Replace the containers of services, one by one."),
        "rollback": ("commands/service", "Return services to an earlier revision."),
        "scale": ("commands/service", "Run another number of replicas for a while."),
        "stop": ("commands/service", "Stop services, and keep them stopped."),
        "start": ("commands/service", "Start services that were stopped."),
        "suspend": ("commands/service", "Stop changing services until they are resumed."),
        "run-job": ("commands/service", "Run a job now."),
        "resume": (
            "commands/service",
            "Return services to their documents: unpin, unscale, retry.",
        ),
    },
    "Notify": {
        "notify": ("commands/notify", "Try the destinations of notifications, and list them."),
    },
    "Git": {
        "source": (
            "commands/source",
            "Show and steer Git sources: list, sync, hold, resume, approve, log.",
        ),
    },
    "Secrets": {
        "secret": ("commands/secret", "Keys of namespaces; encrypt, edit, rotate and list files."),
    },
    "Record": {
        "journal": ("journal/group", "Read and verify the record of every change."),
        "ship": ("journal/export", "Send the journal to a SIEM: file, syslog, CEF, OTLP."),
    },
    "Policy": {
        "try": ("commands/trial", "Show what would become of a Compose file; touch nothing."),
        "convert": ("commands/convert", "Print Compose files or containers as documents."),
        "schema": ("commands/validate", "Print the JSON Schema of documents, for editors."),
        "validate": ("commands/validate", "Check files against schema and policy, offline."),
        "render": ("commands/validate", "Print the resources that files and charts declare."),
        "policy": ("commands/policy", "Show the policy; ask it about a file or a docker command."),
        "image": ("commands/policy", "Trust a local image."),
    },
    "Maintain": {
        "broker": ("commands/up", "Run the broker alone, as a service of its own."),
        "fetch": ("commands/source", "Run the fetcher of Git sources alone."),
        "network": ("commands/volume", "Adopt a network that was made without trimtab."),
        "volume": ("commands/volume", "List, dump and restore volumes; adopt a foreign one."),
        "files": ("commands/files", "Restore the files of Configs before the engine starts."),
        "run": ("commands/up", "Run the controller alone, behind a broker."),
        "backup": ("commands/backup", "Make or verify a backup of the state folder."),
        "restore": ("commands/backup", "Make a state folder of a backup."),
        "adopt": (
            "commands/adopt",
            "Take over running containers, or those of a lost state folder.",
        ),
        "release": ("commands/release", "Let containers go as ordinary ones, before a purge."),
        "settings": ("commands/settings", "Check, show and reload the file of settings."),
        "completion": ("commands/completion", "Print the completion script of a shell."),
        "version": ("commands/version", "Print the version."),
    },
}
#: The name of a command's attribute, where the command's own name is taken.
_ATTRIBUTES = {
    "exec": "execute",
    "run-job": "run_job",
    "support-bundle": "support_bundle",
    "top": "stats",
    "try": "attempt",
}
COMMANDS = {name: row for section in SECTIONS.values() for name, row in section.items()}
#: Commands of docker, compose and kubectl -> what does the same here.
ELSEWHERE = {
    "ps": "'trimtab status' lists services with their containers",
    "ls": "'trimtab status --projects' lists projects",
    "rm": "'trimtab down NAME' removes containers until 'trimtab start'; for good, delete the document",
    "delete": "delete the document; 'trimtab down NAME' removes containers until 'trimtab start'",
    "kill": "'trimtab stop NAME' stops a service, 'trimtab restart NAME' replaces its containers",
    "pause": "'trimtab stop NAME' stops a service, 'trimtab suspend NAME' leaves it as it is",
    "unpause": "'trimtab start NAME' ends a stop, 'trimtab resume NAME' a suspension",
    "pull": "images are pulled as needed; 'trimtab restart NAME' pulls with pullPolicy: Always",
    "build": "build with docker, then 'trimtab image trust NAME'",
    "images": "'trimtab status' shows the image of each service",
    "config": "'trimtab render' prints what files declare",
}
#: Processes with a log on standard error; a bug prints a traceback to the log.
DAEMONS = frozenset({"broker", "fetch", "notify run", "run", "ship"})

EPILOG = """\b
Examples:
  trimtab up desired-state --policy development
  trimtab plan                       what would change, and why
  trimtab status --json | jq '.resources[].name'
  trimtab journal list --service web --since 1h
  trimtab policy check web.yaml
  trimtab policy explain -- docker run --cap-add SYS_ADMIN alpine

\b
Exit codes: 0 done, 1 error, 2 changes pending (plan, diff), 3 desired state invalid,
4 refused by policy, 5 not converged in time, 64 wrong usage.
"""


class LazyGroup(click.Group):
    """A group that imports a command when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        module = importlib.import_module(f"controller.cli.{row[0].replace('/', '.')}")
        command = getattr(module, _ATTRIBUTES.get(cmd_name, cmd_name))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of commands without importing a command."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                rows = [(f"{name:<10}", about) for name, (_, about) in commands.items()]
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a name, and suggest the nearest name for an unknown command."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f": did you mean '{near[0]}'?" if near else ""
            hint = f": {ELSEWHERE[args[0]]}" if args[0] in ELSEWHERE else hint
            raise click.UsageError(f"there is no command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="trimtab", message="%(prog)s %(version)s")
@click.option("--no-color", is_flag=True, help="Print without colours, as NO_COLOR=1 does.")
@click.option("--debug", is_flag=True, help=f"Show where an error was raised, as {DEBUG}=1 does.")
@click.pass_context
def cli(ctx: click.Context, no_color: bool, debug: bool) -> None:
    """Keep a Docker host in the state that a directory of YAML files declares.

    Every change to the engine passes a policy gate, in a broker that alone holds the engine's
    socket, and is journaled before it happens.
    """
    if no_color:
        os.environ["NO_COLOR"] = "1"  # for modules that read the variable
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        ctx.color = False
    if debug:
        os.environ[DEBUG] = "1"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with the code of its result or error."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(args=arguments, prog_name="trimtab", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output closed the pipe, as head does.
        exit_codes.discard_output()
        sys.exit(EXIT_ERROR)
    except Exception as error:  # noqa: BLE001 - no traceback is shown to a user who doesn't ask for it
        sys.exit(
            exit_codes.end_with(error, is_daemon=bool({*words[:1], " ".join(words[:2])} & DAEMONS))
        )
