"""``docker_lines.txt``: lines of the docker command, and below each the requests that it sends.

Of a create only that is written which differs from the first one's body. The gate's ring holds
many of the lines to what the real command sends.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.docker_line.commands import COMMANDS
from controller.cli.docker_line.line import Asked, LineError, Surroundings, requests_of

EXPECTED = Path(__file__).with_name("docker_lines.txt")
FILES = {"env.txt": "# comment\nONE=1\n\n  TWO=2 3\nHOME_OF\n", "labels.txt": "l1=v1\nl2\n"}
AROUND = Surroundings({"HOME_OF": "x"}, FILES.__getitem__, "/home/me")


def scenes() -> list[tuple[str, str]]:
    blocks = EXPECTED.read_text().strip("\n").split("\n\n")
    return [(line, expected) for line, _, expected in (block.partition("\n") for block in blocks)]


def rows(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each member that holds no others, and what it holds."""
    if isinstance(value, dict) and value:
        for key, member in value.items():
            yield from rows(member, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value)


PLAIN = dict(rows(requests_of(["create", "alpine"], AROUND)[0].body))


def told(asked: Asked, *, whole: bool) -> Iterator[str]:
    query = "&".join(f"{key}={value}" for key, value in asked.query.items())
    yield f"  {asked.method} {asked.path}{'?' if query else ''}{query}"
    if asked.body is None:
        return
    known = PLAIN if asked.path == "/containers/create" and not whole else {}
    found = dict(rows(asked.body))
    for path, text in found.items():
        if known.get(path) != text:
            yield f"    {path} = {text}" if path else f"    {text}"
    # What has become an object with members isn't left out.
    yield from (
        f"    {path} left out"
        for path in known
        if not any(other == path or other.startswith(f"{path}.") for other in found)
    )


def read(line: str, *, whole: bool = False) -> str:
    try:
        requests = requests_of(shlex.split(line), AROUND)
    except LineError as error:
        return f"  error: {error}"
    return "\n".join(text for asked in requests for text in told(asked, whole=whole))


@pytest.mark.parametrize(("line", "expected"), scenes()[1:])
def test_a_line_is_these_requests(line: str, expected: str) -> None:
    assert read(line) == expected


def test_a_plain_create_is_this_whole_body() -> None:
    line, expected = scenes()[0]
    assert read(line, whole=True) == expected


def test_every_command_has_a_line() -> None:
    lines = [f"{line.removeprefix('docker ')} " for line, _ in scenes()]
    without = [name for name in COMMANDS if not any(line.startswith(f"{name} ") for line in lines)]
    assert without == []
