"""``trimtab``: the group of commands, and the one place where errors become exit codes.

Commands are imported when they are called, so that ``--help`` and ``status`` start light.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from controller import __version__
from controller.model.errors import (
    InvalidDesiredState,
    PolicyInvalid,
    Refused,
    TrimtabError,
    UsageError,
)

EXIT_ERROR = 1
EXIT_PENDING = 2
EXIT_INVALID = 3
EXIT_REFUSED = 4
EXIT_NOT_CONVERGED = 5
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

#: Of the disk that output goes to. What a command can't write elsewhere it says itself.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: name -> (module, attribute, one line of help). In the order of help.
COMMANDS = {
    "up": ("up", "up", "Run broker and controller together, in the foreground."),
    "down": ("down", "down", "Remove this instance's containers and networks (volumes stay)."),
    "broker": ("up", "broker", "Run the broker alone: the gate that holds the engine's socket."),
    "run": ("up", "run", "Run the controller alone, behind a broker."),
    "plan": ("plan", "plan", "Show all that would change until convergence, and why."),
    "apply": ("plan", "apply", "Converge once and exit."),
    "approve": (
        "approve",
        "approve",
        "Approve what a plan takes down beyond what may go by itself.",
    ),
    "adopt": ("adopt", "adopt", "Take over what an instance left whose state folder is lost."),
    "validate": ("validate", "validate", "Check files and policy offline; for CI."),
    "render": ("validate", "render", "Print the resources that files and charts declare."),
    "status": ("status", "status", "Show every resource, its replicas and conditions."),
    "describe": ("describe", "describe", "Show one resource in full, with its containers."),
    "history": ("history", "history", "Show a service's revisions, and how they did."),
    "rollback": ("acting", "rollback", "Have a service run an earlier revision."),
    "restart": ("acting", "restart", "Replace a service's containers, slot by slot."),
    "suspend": ("acting", "suspend", "Leave a service exactly as it is."),
    "resume": ("acting", "resume", "Have a service be as its document says again."),
    "journal": ("journal", "journal", "List, show and verify the record of every change."),
    "ship": ("ship", "ship", "Ship the journal to a SIEM: file, syslog, CEF, OTLP."),
    "policy": ("policy", "policy", "Show the rules; judge a file, a request or a docker line."),
    "image": ("image", "image", "Let the gate know a local image."),
    "doctor": ("doctor", "doctor", "Say what is wrong with this host."),
}

EPILOG = """\b
Examples:
  trimtab up desired-state --policy development
  trimtab plan                       what would change, and why
  trimtab status --json | jq '.resources[].name'
  trimtab journal list --service web --since 1h
  trimtab policy check web.yaml
  trimtab policy explain -- docker run --cap-add SYS_ADMIN alpine

\b
Exit codes: 0 done, 1 error, 2 changes pending (plan), 3 desired state invalid,
4 refused by policy, 5 not converged in time, 64 wrong usage.
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module = importlib.import_module(f"controller.cli.{found[0]}")
        command = getattr(module, found[1])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve, and suggest the nearest name for an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else " See 'trimtab --help'."
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="trimtab", message="%(prog)s %(version)s")
def cli() -> None:
    """Keep a Docker host in the state that a directory of YAML files declares.

    Every change to the engine passes a policy gate, in a broker that alone holds the engine's
    socket, and is journaled before it happens.
    """


def exit_code_of(error: TrimtabError) -> int:
    """Return the exit code that an error means."""
    match error:
        case UsageError():
            return EXIT_USAGE
        case InvalidDesiredState():
            return EXIT_INVALID
        case Refused():
            return EXIT_REFUSED
        case PolicyInvalid():
            return EXIT_ERROR
        case _:
            return EXIT_ERROR


def report(error: TrimtabError) -> None:
    """Print what, why and what to do next, with the stable code.

    It may repeat what somebody wrote into a file, or what an engine says.
    """
    from controller.cli.tables import printable

    told = [f"error: {error.message} [{error.code}]"]
    told += [f"remedy: {error.remedy}"] if error.remedy else []
    for line in "\n".join(told).split("\n"):
        click.echo(printable(line), err=True)


def _let_output_go() -> None:
    """Don't let Python complain at exit of what it can't write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        code = cli.main(args=arguments, prog_name="trimtab", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away.
        _let_output_go()
        sys.exit(EXIT_ERROR)
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _let_output_go()
        click.echo(f"error: what is printed can't be written: {error.strerror}", err=True)
        sys.exit(EXIT_ERROR)
    except TrimtabError as error:
        report(error)
        sys.exit(exit_code_of(error))
