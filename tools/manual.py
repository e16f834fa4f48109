"""Makes the manual pages: trimtab(1), and one for each command, such as trimtab-up(1), of the commands' help.

``python tools/manual.py [COMMAND] | man -l -`` shows a page. The pages of a release have its date.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from controller import __version__
from controller.cli.main import COMMANDS, SECTIONS, cli

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


def pages(time: int | None = None) -> dict[str, str]:
    """Return each page as text for man(1), by its name. *time*, in seconds: the date of the pages, else none."""
    root = click.Context(cli, info_name="trimtab", **cli.context_settings)
    listed = [
        line
        for section, names in SECTIONS.items()
        for line in (
            f".SS {section}",
            *terms((f"trimtab-{name}(1)", about) for name, (_, about) in names.items()),
        )
    ]
    summary = (cli.help or "").partition(".")[0]
    end = [
        ".SH FILES",
        *terms(FILES.items()),
        ".SH SEE ALSO",
        ".BR docker (1),",
        ".BR systemctl (1)",
    ]
    found = {"trimtab": page(root, summary, [".SH COMMANDS", *listed], end, time)}
    for one in children(root):
        name = str(one.info_name)
        commands = list(below(one))
        counts = Counter(record for each in commands for record in options(each))
        shared = [record for record, count in counts.items() if count > max(1, len(commands) / 2)]
        lines = [".SH COMMANDS"] if commands else []
        for each in commands:
            lines += [f".SS {title(each)}", synopsis(each), ".PP", *prose(each.command.help or "")]
            lines += terms(record for record in options(each) if record not in shared)
            lines += [".PP", *prose(each.command.epilog or "")]
        if shared:
            lines += [".SS Options of most of these commands", *terms(shared)]
        see = [".SH SEE ALSO", ".BR trimtab (1)"]
        found[f"trimtab-{name}"] = page(one, COMMANDS[name][1].rstrip("."), lines, see, time)
    return found


def page(
    context: click.Context, summary: str, commands: list[str], end: list[str], time: int | None
) -> str:
    """Return the page of a command, with the lines of the commands below it."""
    name = context.command_path.replace(" ", "-")
    date = "" if time is None else f"{datetime.fromtimestamp(time, UTC):%Y\\-%m\\-%d}"
    lines = [
        f'.TH {escaped(name.upper())} 1 "{date}" "trimtab {escaped(__version__)}" "User commands"',
        # Words are copied: none is divided.
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(summary[0].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        synopsis(context),
        ".SH DESCRIPTION",
        *prose(context.command.help or ""),
        ".SH OPTIONS",
        *terms(options(context)),
        *commands,
    ]
    if context.command.epilog:
        lines += [".SH EXAMPLES AND EXIT STATUS", *prose(context.command.epilog)]
    lines += [".SH ENVIRONMENT", *terms(ENVIRONMENT.items()), *end]
    return "\n".join(lines) + "\n"


def children(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command of a group, in the order of help."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield click.Context(command, info_name=name, parent=context)


def below(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command below a group, in the order of help."""
    for inner in children(context):
        yield inner
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
    sys.stdout.write(pages()["-".join(("trimtab", *sys.argv[1:]))])
