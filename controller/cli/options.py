"""Shared by commands: options and arguments, the state folder, JSON and colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from controller.cli.exit_codes import program
from controller.cli.output.terminal import echo
from controller.core.encoding.text import printable_json
from controller.model.errors import StateError, UsageError
from controller.model.policy.shipped import SHIPPED_POLICIES
from controller.model.quantities import parse_duration_ms
from controller.model.settings import SYSTEM_DIRECTORY
from controller.settings import (
    SYSTEM_STATE,
    Instance,
    StateFolder,
    find_state,
    raise_if_restoring,
    read_instance,
    settings_file,
    state_of,
)

F = TypeVar("F", bound=Callable[..., Any])

#: Options and arguments that several commands have.
state_option = click.option(
    "--state",
    "state",
    type=click.Path(path_type=Path, file_okay=False),
    help="The state folder (default: $TRIMTAB_STATE, .state/ here or above, the system's).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
directory_argument = click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path)
)
policy_option = click.option(
    "--policy",
    metavar="NAME|FILE",
    help=f"The policy: {', '.join(SHIPPED_POLICIES)}, or a file.",
)
engine_option = click.option(
    "--engine",
    metavar="URL",
    help="The engine's socket (default: $DOCKER_HOST, else the standard one).",
)
once_engine_option = click.option(
    "--engine", metavar="URL", help="The engine's socket, when nothing runs yet."
)
rebind_option = click.option(
    "--rebind", is_flag=True, help="Change the directory of the instance to DIR."
)
webhook_option = click.option(
    "--webhook",
    metavar="ADDR:PORT",
    help="Listen for webhooks that wake a Git source, such as 127.0.0.1:9000.",
)
note_option = click.option("--note", default="", help="The reason, for the journal.")


def timeout_option(purpose: str) -> Callable[[F], F]:
    """Add ``--timeout DURATION``, as ``timeout_s``."""
    return click.option(
        "--timeout",
        "timeout_s",
        default="5m",
        show_default=True,
        callback=_duration_s,
        metavar="DURATION",
        help=f"{purpose}: 30s, 5m, 1h.",
    )


def _duration_s(_context: click.Context, _option: click.Parameter, value: str) -> float:
    return duration_ms(value) / 1000


def duration_ms(value: str) -> int:
    """Parse the duration of an option, such as ``90s``, into milliseconds."""
    try:
        return parse_duration_ms(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def command(epilog: str, **attributes: Any) -> Callable[[F], click.Command]:
    """Return a decorator for a command with ``--state`` and ``--json``, by default as last options."""

    def decorate(function: F) -> click.Command:
        made = click.command(cls=click.Command, epilog=epilog, **attributes)(function)
        present = {parameter.name for parameter in made.params}
        for name, add in (("state", state_option), ("as_json", json_option)):
            if name not in present:
                add(made)
        return made

    return decorate


class PassingGroup(click.Group):
    """A group that passes ``--state`` and ``--json`` to the command behind them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move options in front of the command behind its name."""
        options: list[str] = []
        rest = list(args)
        while rest and (rest[0] in {"--state", "--json"} or rest[0].startswith("--state=")):
            options.append(rest.pop(0))
            if options[-1] == "--state" and rest:
                options.append(rest.pop(0))
        return super().parse_args(ctx, [*rest[:1], *options, *rest[1:]] if rest else args)


class DefaultGroup(PassingGroup):
    """A passing group with a command for arguments that name none."""

    def __init__(self, *arguments: Any, default: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command if no command is named."""
        if not self._names_command(args) and not {"-h", "--help"} & set(args):
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def _names_command(self, args: list[str]) -> bool:
        takes_value = {
            name
            for parameter in self.commands[self._default].params
            if isinstance(parameter, click.Option) and not parameter.is_flag
            for name in parameter.opts
        }
        rest = iter(args)
        for word in rest:
            if not word.startswith("-"):
                return True
            if word in takes_value:
                next(rest, None)
        return False


@dataclass(frozen=True, slots=True)
class HostChoice:
    """The instance of a command, and the options of a new broker of the instance."""

    #: The state folder.
    root: Path
    directory: Path
    #: None for the instance's own, like the policy.
    engine: str | None
    policy: str | None


def state_root(explicit: Path | None) -> Path:
    """Return the path of the state folder, whether or not the folder exists."""
    return find_state(explicit, environ=os.environ, cwd=Path.cwd(), uid=os.getuid())


def command_line(words: str, root: Path) -> str:
    """Return a command that the user can type here for the instance of a state folder."""
    try:
        is_default = state_root(None) == root
    except StateError:  # the nearest folder belongs to another user
        is_default = False
    return f"{program()} {words}" if is_default else f"{program()} {words} --state {root}"


def open_state(explicit: Path | None) -> tuple[StateFolder, Instance]:
    """Return the state folder and its instance.

    Raises:
        StateError: the folder has no instance, or can't be read.
    """
    root = state_root(explicit)
    try:
        instance = read_instance(root)
    except PermissionError as error:
        raise StateError("state.unreadable", f"{root}: {error.strerror}") from error
    if instance is None:
        raise_if_restoring(root)
        raise StateError(
            "state.missing",
            f"no instance at {root}",
            remedy="start one with 'trimtab up DIR', or name its folder with --state",
        )
    return state_of(root, instance), instance


def default_directory(directory: Path | None, root: Path) -> Path:
    """Return the given directory, else the one of *root*'s instance, else ``./desired-state``.

    A new instance takes the directory of its file of settings, if there is one.

    Raises:
        UsageError: no directory is given, and there is no default.
        SettingsInvalid: the file of settings has mistakes.
        StateError: a restore of the instance was cut off.
    """
    if directory is not None:
        return directory.absolute()
    if (instance := read_instance(root)) is not None:
        return Path(instance.dir)
    raise_if_restoring(root)
    if settings_file(root).exists():
        from controller.app.state_folder import read_file  # a parser: slow to load

        named = read_file(root)[2].settings.desired_state
        if named or root == SYSTEM_STATE:
            return Path(named or SYSTEM_DIRECTORY)
    folder = Path.cwd() / "desired-state"
    if not folder.exists():
        raise UsageError(
            "dir.missing",
            "no DIR given, no instance here and no ./desired-state",
            remedy="name the directory of the desired state",
        )
    return folder


def calling_user() -> str:
    """Return the uid of the caller, and the name of the user behind sudo."""
    return f"uid:{os.getuid()} {os.environ.get('SUDO_USER', '')}".strip()


def print_json(value: object) -> None:
    """Print a value as JSON: indented on a terminal, else on one line."""
    echo(printable_json(value, indent=2 if sys.stdout.isatty() else None))


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """Print the result of a command: *value* as JSON, or *text*."""
    if as_json:
        print_json(value)
    else:
        echo(text)


def raise_unless_on_terminal(option: str, *, as_json: bool) -> None:
    """Raise UsageError for an option that shows values, unless a terminal gets text."""
    if as_json or not sys.stdout.isatty():
        raise UsageError(
            "values.no-terminal",
            "values that may be secrets are shown on a terminal only",
            remedy=f"leave out {option}, or run it on a terminal and without --json",
        )


def counted(number: int, noun: str) -> str:
    """Return ``1 error`` or ``2 errors``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
