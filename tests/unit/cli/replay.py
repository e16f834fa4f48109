"""Plays ``messages/*.txt``: mistakes as people make them, and what they then read.

A section begins with ``# TITLE``. ``$ cat FILE`` is followed by the text of a file, ``$ trimtab …`` by
what the command prints, on both streams. ``DIR`` stands for the folder that all this happens in.

``$ broker --engine SOCKET`` is what a client of the broker reads while that engine is away, and
``$ chmod 000 SOCKET`` makes a socket that no user may open.

``python -m tests.unit.cli.replay`` writes the outputs anew: read the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from controller.broker.engine.client import EngineClient
from controller.broker.gate.call import unavailable_reason
from controller.broker.gate.commands import Lost
from controller.cli.main import main
from controller.model.errors import EngineUnavailable

FOLDER = Path(__file__).with_name("messages")
CAT, RUN, RMDIR, ENGINE = "$ cat ", "$ trimtab ", "$ rmdir .", "$ broker --engine "
CLOSE = "$ chmod 000 "
NOBODY = 65534


def replayed(text: str) -> str:
    """Return a file of sections with what its commands print now."""
    sections = [block for block in text.split("\n# ") if block.strip()]
    return "\n\n".join(_section(block.removeprefix("# ").strip("\n")) for block in sections) + "\n"


def _section(block: str) -> str:
    title, _, rest = block.partition("\n")
    lines = [f"# {title}"]
    with tempfile.TemporaryDirectory() as name, _inside(Path(name)) as folder:
        for command, body in _steps(rest):
            lines.append(command)
            lines += _played(command, body, folder)
    return "\n".join(lines)


def _steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command, and the lines that follow it."""
    command, body = "", list[str]()
    for line in [*text.split("\n"), "$ "]:
        if not line.startswith("$ "):
            body.append(line)
            continue
        if command:
            yield command, body
        command, body = line, []


def _played(command: str, body: list[str], folder: Path) -> list[str]:
    """Return the lines that stand below a command: a file's text, or what it prints."""
    if command.startswith(CAT):
        file = folder / command.removeprefix(CAT)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(body) + "\n", "utf-8")
        return body
    if command == RMDIR:
        gone = folder / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        return []
    if command.startswith(CLOSE):
        path = folder / command.removeprefix(CLOSE)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        path.chmod(0)
        return []
    if command.startswith(ENGINE):
        engine = command.removeprefix(ENGINE).replace("DIR", str(folder))
        return [line.replace(str(folder), "DIR") for line in _engine_away(engine)]
    assert command.startswith(RUN), f"no command of a message: {command}"
    words = shlex.split(command.removeprefix(RUN))
    out = _printed([*words, "--state", str(folder / "state")])
    return out.replace(str(folder), "DIR").rstrip("\n").split("\n")


def _printed(arguments: list[str]) -> str:
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        contextlib.suppress(SystemExit),
    ):
        main(arguments)
    return out.getvalue()


def _engine_away(path: str) -> list[str]:
    """Return what a client of the broker reads while there is no engine at a path."""
    try:
        with _unprivileged():
            asyncio.run(EngineClient(path).identify())
    except EngineUnavailable as error:
        return [
            f"error: {unavailable_reason(Lost(error.message))} [{error.code}]",
            f"remedy: {error.remedy}",
        ]
    raise AssertionError(f"an engine answers at {path}")


@contextlib.contextmanager
def _unprivileged() -> Iterator[None]:
    """Give up the rights of root for a while: a closed file is open to root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder.resolve()
    finally:
        os.chdir(before)


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.txt")):
        path.write_text(replayed(path.read_text("utf-8")), "utf-8")
    sys.exit(0)
