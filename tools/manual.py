"""Prints the manual page trimtab(1), made of the help of every command.

``python tools/manual.py | man -l -`` shows it. Its date is SOURCE_DATE_EPOCH, else none.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from controller import __version__
from controller.cli.main import cli

#: Characters that roff reads as its own, or prints as others: every text must be copied as it was written.
ESCAPED = str.maketrans(
    {"|": "|\\:", "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
)
ENVIRONMENT = {
    "TRIMTAB_STATE": "The state folder, as --state.",
    "DOCKER_HOST": "The engine's socket, for 'trimtab up' and 'trimtab broker'.",
    "NO_COLOR": "If set: print without colours, as --no-color.",
    "TRIMTAB_DEBUG": "If set: show where an error was raised, as --debug.",
}
FILES = {
    "/etc/trimtab/desired-state": "Documents and Compose projects of the services of systemd.",
    "/etc/trimtab/policy.yaml": "Their policy.",
    "/var/lib/trimtab": "The state folder of these services.",
    "/usr/share/doc/trimtab/install.md": "Install, upgrade, remove.",
}
Record = tuple[str, str]


def page() -> str:
    """Return the page as text for man(1)."""
    context = click.Context(cli, info_name="trimtab", **cli.context_settings)
    commands = list(below(context))
    counts = Counter(record for one in commands for record in options(one))
    shared = [record for record, count in counts.items() if count > len(commands) / 2]
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    date = f"{datetime.fromtimestamp(int(epoch), UTC):%Y\\-%m\\-%d}" if epoch else ""
    summary = (cli.help or "").partition(".")[0]
    lines = [
        f'.TH TRIMTAB 1 "{date}" "trimtab {escaped(__version__)}" "User commands"',
        # Words are copied: none is divided.
        ".nh",
        ".ad l",
        ".SH NAME",
        f"trimtab \\- {escaped(summary[0].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        synopsis(context),
        ".SH DESCRIPTION",
        *prose(cli.help or ""),
        ".SH OPTIONS",
        *terms(record for record in options(context) if record not in shared),
        ".PP",
        "Most commands have these as well:",
        *terms(shared),
        ".SH COMMANDS",
    ]
    for one in commands:
        lines += [f".SS {title(one)}", synopsis(one), ".PP", *prose(one.command.help or "")]
        lines += terms(record for record in options(one) if record not in shared)
        lines += [".PP", *prose(one.command.epilog or "")]
    lines += [".SH EXAMPLES AND EXIT STATUS", *prose(cli.epilog or "")]
    lines += [".SH ENVIRONMENT", *terms(ENVIRONMENT.items())]
    lines += [".SH FILES", *terms(FILES.items())]
    lines += [".SH SEE ALSO", ".BR docker (1),", ".BR systemctl (1)"]
    return "\n".join(lines) + "\n"


def below(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command below a group, in the order of help."""
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield inner
        if isinstance(command, click.Group):
            yield from below(inner)


def options(context: click.Context) -> list[Record]:
    """Return the options of a command, and the arguments that have a help of their own."""
    found = (
        parameter.get_help_record(context) for parameter in context.command.get_params(context)
    )
    return [record for record in found if record is not None and record[1]]


def title(context: click.Context) -> str:
    """Return the heading of a command."""
    return f'"{escaped(context.command_path)}"'


def synopsis(context: click.Context) -> str:
    """Return the line that tells how a command is called."""
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f"\\fB{escaped(context.command_path)}\\fR {escaped(pieces)}"


def terms(records: Iterable[Record]) -> list[str]:
    """Return a list of terms, each with its meaning."""
    return [
        line for name, about in records for line in (".TP", f".B {escaped(name)}", *prose(about))
    ]


def prose(text: str) -> list[str]:
    """Return paragraphs. One that click's help doesn't wrap is an example, and keeps its lines."""
    lines: list[str] = []
    for paragraph in filter(str.strip, text.split("\n\n")):
        first, *rest = (line.strip() for line in paragraph.strip().splitlines())
        lines += [".PP"] if lines else []
        if first == "\b":
            head, *rows = paragraph.strip().removeprefix("\b").strip("\n").splitlines()
            if rows and rows[0].startswith("  "):
                lines += [
                    guarded(escaped(head)),
                    ".PP",
                    ".nf",
                    *(guarded(escaped(row)) for row in rows),
                    ".fi",
                ]
            else:
                lines += [guarded(escaped(" ".join((head, *rows))))]
        else:
            lines.append(guarded(escaped(" ".join((first, *rest)))))
    return lines


def escaped(text: str) -> str:
    """Return text that roff prints as it is."""
    return text.translate(ESCAPED)


def guarded(line: str) -> str:
    """Return a line that is no request of roff's."""
    return f"\\&{line}" if line.startswith(".") else line


if __name__ == "__main__":
    sys.stdout.write(page())
