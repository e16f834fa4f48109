"""All output of commands goes through one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import controller.cli

FOLDER = Path(controller.cli.__file__).parent
#: Modules that write by themselves, and why.
OTHERS = {
    "output/terminal.py": "the one place",
    "commands/log_lines.py": "lines of containers, escaped by rules of their own",
    "commands/exec.py": "an operator's own session: bytes as they are",
    "journal/export.py": "the journal's lines as they are, for a file",
}
WRITERS = {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}
STREAMS = {"sys.stdout.buffer.write", "sys.stderr.buffer.write"}


def calls(path: Path) -> Iterator[str]:
    """Yield the calls of functions that write to a terminal."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WRITERS | STREAMS:
            yield ast.unparse(node.func)


def test_no_command_writes_past_the_terminal_module() -> None:
    found = {
        str(path.relative_to(FOLDER)): sorted(set(calls(path)))
        for path in FOLDER.rglob("*.py")
        if str(path.relative_to(FOLDER)) not in OTHERS
    }
    assert {name: writers for name, writers in found.items() if writers} == {}
    assert all((FOLDER / name).is_file() for name in OTHERS)
