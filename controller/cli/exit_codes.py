"""Exit codes, and the form in which a failed command prints its error.

Every failure prints ``error: MESSAGE [CODE]`` and ``remedy: …`` to standard error. A Python
traceback is printed only for ``--debug``, and for bugs of daemons.

The name or path of the running trimtab, so that users can type hints as printed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import click

from controller.cli.output.terminal import echo
from controller.model.errors import (
    InvalidDesiredState,
    Refused,
    StateError,
    TrimtabError,
    UsageError,
)

#: A command in a hint, as in "start it with 'trimtab up'".
_COMMAND_IN_HINT = re.compile(r"(?<=['`])trimtab(?= )")


@cache
def program() -> str:
    """Return ``trimtab`` if PATH finds the running program, else its path."""
    called = Path(sys.argv[0])
    if called.name != "trimtab" or not called.is_file():
        return "trimtab"  # python -m controller, or a test
    found = shutil.which("trimtab")
    if found is not None and called.samefile(found):
        return "trimtab"
    return str(called)


def with_program(hint: str) -> str:
    """Return a hint with the running program's name or path in its commands."""
    return _COMMAND_IN_HINT.sub(program(), hint)


EXIT_ERROR = 1
EXIT_PENDING = 2
EXIT_INVALID = 3
EXIT_REFUSED = 4
EXIT_NOT_CONVERGED = 5
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

#: The variable that makes errors print a traceback; ``--debug`` sets it.
DEBUG = "TRIMTAB_DEBUG"
#: The disk of the output is full. Commands report other files that they can't write themselves.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_USAGE, _SYSTEM, _INTERNAL = "usage.wrong", "system.error", "internal.error"
_REMEDIES = {
    errno.EACCES: "run as root, or as the owner of the file",
    errno.EPERM: "run as root, or as the owner of the file",
    errno.ENOENT: "create it, or name another path",
    errno.ENOSPC: "free space on that disk",
    errno.EROFS: "name a folder that can be written",
}


def exit_code_of(error: TrimtabError) -> int:
    """Return the exit code of an error."""
    match error:
        case UsageError():
            return EXIT_USAGE
        case InvalidDesiredState():
            return EXIT_INVALID
        case Refused():
            return EXIT_REFUSED
        case _:
            return EXIT_ERROR


#: Before further lines of a message.
_INDENT = "       "


def report(error: TrimtabError) -> None:
    """Print an error with its stable code and its remedy.

    Control characters are escaped: a message can contain text from a file or from an engine. Further
    lines of a message are indented, so that none looks like another message.
    """
    from controller.cli.output.times import with_names

    _print(f"error: {with_names(error.message)} [{error.code}]")
    if error.remedy:
        _print(f"remedy: {with_program(error.remedy)}")


def end_with(error: Exception, *, is_daemon: bool) -> int:
    """Print an error and return its exit code; a daemon logs the traceback of a bug."""
    if isinstance(error, click.UsageError):
        _report_usage(error)
        return EXIT_USAGE
    if isinstance(error, click.ClickException):
        _print(f"error: {error.format_message()} [{_USAGE}]")
        return EXIT_ERROR
    expected = isinstance(error, (TrimtabError, OSError))
    if os.environ.get(DEBUG) or (is_daemon and not expected):
        import traceback  # a slow import

        echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    match error:
        case TrimtabError():
            report(error)
            return exit_code_of(error)
        case OSError() if error.errno in _FULL and error.filename is None:
            discard_output()
            _print(f"error: the output can't be written: {error.strerror} [{_SYSTEM}]")
        case OSError():
            report(_failure_of(error))
        case _:
            _report_bug(error)
    return EXIT_ERROR


def discard_output() -> None:
    """Redirect standard output to nowhere, so that Python's flush at exit can't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage(error: click.UsageError) -> None:
    """Print the error in a command line, the usage of the command, and the way to its help."""
    message = " ".join(error.format_message().split())  # click prints a choice on each line
    help_option = f"{program()} --help"
    _print(f"error: {message[:1].lower()}{message[1:].rstrip('.')} [{_USAGE}]")
    if error.ctx is not None:
        _print(error.ctx.get_usage().replace("Usage:", "usage:", 1))
        help_option = f"{error.ctx.command_path} --help".replace("trimtab", program(), 1)
    _print(f"remedy: see '{help_option}'")


def _failure_of(error: OSError) -> StateError:
    """Translate an error of the operating system."""
    if error.errno == errno.ENOENT and not _has_working_directory():
        return StateError(
            "cwd.missing",
            "the working directory doesn't exist any more",
            remedy="change to a folder that exists, and run the command again",
        )
    where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    remedy = _REMEDIES.get(error.errno or 0, f"see where it happens with {DEBUG}=1")
    return StateError(_SYSTEM, f"{where}{error.strerror or error}", remedy=remedy)


def _report_bug(error: Exception) -> None:
    """Print a bug of trimtab in one line, and how to report it."""
    message = str(error).strip().split("\n", 1)[0]
    _print(f"error: internal error: {type(error).__name__}: {message} [{_INTERNAL}]")
    _print(
        f"remedy: run the command again with {DEBUG}=1, and report what it prints with the "
        f"output of '{program()} version'"
    )


def _has_working_directory() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _print(text: str) -> None:
    from controller.core.encoding.text import printable

    first, *more = text.split("\n")
    echo(printable(first), err=True)
    for line in more:
        echo(f"{_INDENT}{printable(line)}", err=True)
