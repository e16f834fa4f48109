"""The problems of a status report, each once, with what several of them have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import click

from controller.cli.invocation import with_program
from controller.cli.output.tables import wrap
from controller.core.encoding.terminal_text import printable

ProblemJson = dict[str, Any]

INDENT = "        "
_KEY = re.compile(r"((?:[A-Z]\w+)/[a-z0-9-]+/[a-z0-9-]+): (.+)", re.DOTALL)


def place_of(problem: ProblemJson) -> str:
    """Return ``FILE:LINE:COLUMN``, or as much of it as a problem has."""
    return ":".join(str(problem[part]) for part in ("file", "line", "column") if problem.get(part))


def problem_of(
    resource: dict[str, Any], message: str, problems: list[ProblemJson]
) -> ProblemJson | None:
    """Return the problem that already says what a condition of a resource says, if there is one."""
    key = f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
    for problem in problems:
        text = problem["message"].removeprefix(f"{key}: ")
        if text and message.startswith(text):
            return problem
    return None


def no_excerpt(_problem: ProblemJson) -> Sequence[str]:
    """Return no lines of a problem's file."""
    return ()


def render_problems(
    problems: list[ProblemJson],
    *,
    width: int | None,
    excerpt: Callable[[ProblemJson], Sequence[str]] = no_excerpt,
) -> list[str]:
    """Return the lines of the problems: what is the same is said once.

    *excerpt* returns the lines that show a problem in its file. Where there is a remedy, what was expected is left to ``validate``: it may be a long list.
    """
    lines: list[str] = []
    merged = list(_merged(problems))
    for problem, following in pairwise([*merged, None]):
        assert problem is not None, "only the end is None"
        place = place_of(problem)
        text = f"{place + ': ' if place else ''}{problem['message']} [{problem['code']}]"
        word, *rest = _wrapped(f"problem {text}", "", width)
        lines += [word.replace("problem", click.style("problem", fg="red"), 1), *rest]
        lines += excerpt(problem)
        remedy, expected = problem.get("remedy"), problem.get("expected")
        if remedy and (following is None or following.get("remedy") != remedy):
            lines += _wrapped(f"remedy: {with_program(remedy)}", INDENT, width)
        if expected and not remedy and expected not in problem["message"]:
            lines += _wrapped(f"expected: {expected}", INDENT, width)
    return lines


def _wrapped(text: str, indent: str, width: int | None) -> list[str]:
    text = printable(text.replace("\n", " "))
    if width is None:
        return [f"{indent}{text}"]
    first, *rest = wrap(text, max(width - len(INDENT), 20)) or [""]
    return [f"{indent}{first}", *(f"{INDENT}{each}" for each in rest)]


def _merged(problems: list[ProblemJson]) -> Iterator[ProblemJson]:
    """Yield each problem once: those of one kind together, and one for all keys that have the same."""
    groups: dict[tuple[str, ...], tuple[ProblemJson, list[str]]] = {}
    for problem in problems:
        match = _KEY.fullmatch(problem["message"])
        key, text = (match[1], match[2]) if match else ("", problem["message"])
        same = (text, place_of(problem), problem["code"], problem.get("remedy") or "")
        _, keys = groups.setdefault(same, ({**problem, "message": text}, []))
        if key and key not in keys:
            keys.append(key)
    # Those with the same remedy stand together, where the first of them stood.
    order: dict[tuple[str, str], list[tuple[ProblemJson, list[str]]]] = {}
    for (_, _, code, remedy), group in groups.items():
        order.setdefault((code, remedy), []).append(group)
    for group_of_one_remedy in order.values():
        for problem, keys in group_of_one_remedy:
            who = f"{_names(keys)}: " if keys else ""
            yield {**problem, "message": f"{who}{problem['message']}"}


def _names(keys: list[str]) -> str:
    """Return keys as a list, the kind and namespace of the one before left out: ``Service/default/a, b``."""
    before, names = "", []
    for key in keys:
        place, _, name = key.rpartition("/")
        names.append(name if place == before else key)
        before = place
    return ", ".join(names)
