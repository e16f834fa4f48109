"""The cost of reading Dockerfiles and .dockerignore grows no faster than their size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from controller.core.builds import context, dockerfile
from tests.growth import LINEAR, growth, steps

SIZE = 64
DOCKERFILES: dict[str, Callable[[int], str]] = {
    "instructions": lambda n: "FROM a\n" + "RUN b\n" * n,
    "continued lines": lambda n: "FROM a\nRUN b" + " \\\n c" * n + "\n",
    "comments": lambda n: "FROM a\n" + "# b\n" * n,
    "a heredoc": lambda n: "FROM a\nRUN <<EOF\n" + "b\n" * n + "EOF\n",
    "heredocs": lambda n: "FROM a\n" + "RUN <<EOF\nb\nEOF\n" * n,
    "variables": lambda n: "FROM a\n" + "ENV A=$A\n" * n,
    "nested variables": lambda n: "FROM a\nENV A=" + "${A:-" * n + "\n",
    "sources of a copy": lambda n: "FROM a\nCOPY " + "b " * n + "/c/\n",
    "arguments": lambda n: "".join(f"ARG A{i}=b\n" for i in range(n)) + "FROM a\n",
    "quotes": lambda n: "FROM a\nENV A=" + '"' * n + "\n",
    "flags": lambda n: "FROM a\nRUN " + "--mount=type=cache,target=/a " * n + "b\n",
}
IGNORED: dict[str, Callable[[int], str]] = {
    "patterns": lambda n: "a*b\n" * n,
    "stars": lambda n: "*" * n,
    "parts": lambda n: "a/" * n + "b",
    "classes": lambda n: "[" * n,
}


@pytest.mark.parametrize("place", DOCKERFILES)
def test_a_dockerfile(place: str) -> None:
    def cost(n: int) -> int:
        text = DOCKERFILES[place](n)
        read = partial(dockerfile.read, text, args={}, target=None, platform="linux/amd64")
        return steps(read)

    found = growth(place, cost, SIZE)
    assert found.factor <= LINEAR, str(found)


@pytest.mark.parametrize("place", IGNORED)
def test_a_list_of_ignored_files(place: str) -> None:
    found = growth(place, lambda n: steps(partial(context.read_ignore, IGNORED[place](n))), SIZE)
    assert found.factor <= LINEAR, str(found)
