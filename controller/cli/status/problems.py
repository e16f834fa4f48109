"""The problems of a status report. Equal problems and remedies are printed once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import click

from controller.cli.clients.status_report import key_text
from controller.cli.invocation import with_program
from controller.cli.output.tables import wrap
from controller.core.encoding.terminal_text import printable
from controller.model.errors import NOTES, notes_text

ProblemJson = dict[str, Any]

INDENT = "        "
_KEY = re.compile(r"((?:[A-Z]\w+)/[a-z0-9-]+/[a-z0-9-]+): (.+)", re.DOTALL)


def place_of(problem: ProblemJson) -> str:
    """Return ``FILE:LINE:COLUMN``, without the parts that a problem lacks."""
    return ":".join(str(problem[part]) for part in ("file", "line", "column") if problem.get(part))


def problem_of(
    resource: dict[str, Any], message: str, problems: list[ProblemJson]
) -> ProblemJson | None:
    """Return the problem with the same text as the message of a resource's condition, if any."""
    for problem in problems:
        text = problem["message"].removeprefix(f"{key_text(resource)}: ")
        if text and message.startswith(text):
            return problem
    return None


def no_excerpt(_problem: ProblemJson) -> Sequence[str]:
    """Return no lines."""
    return ()


def render_problems(
    problems: list[ProblemJson],
    *,
    width: int | None,
    excerpt: Callable[[ProblemJson], Sequence[str]] = no_excerpt,
) -> list[str]:
    """Return the lines of problems.

    *excerpt* returns the lines of a file that show a problem. The expected value is printed only
    without a remedy, since it can be a long list; ``validate`` always prints it. Notes are counted.
    """
    lines: list[str] = []
    merged = list(_merge([each for each in problems if each["code"] not in NOTES]))
    for problem, following in pairwise([*merged, None]):
        assert problem is not None, "only the last element is None"
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
    if notes := notes_text(each["code"] for each in problems):
        lines += [click.style(line, dim=True) for line in _wrapped(notes, "", width)]
    return lines


def _wrapped(text: str, indent: str, width: int | None) -> list[str]:
    text = printable(text.replace("\n", " "))
    if width is None:
        return [f"{indent}{text}"]
    first, *rest = wrap(text, max(width - len(INDENT), 20)) or [""]
    return [f"{indent}{first}", *(f"{INDENT}{line}" for line in rest)]


def _merge(problems: list[ProblemJson]) -> Iterator[ProblemJson]:
    """Yield a problem for all resources with the same one; problems with one remedy are adjacent."""
    groups: dict[tuple[str, ...], tuple[ProblemJson, list[str]]] = {}
    for problem in problems:
        match = _KEY.fullmatch(problem["message"])
        key, text = (match[1], match[2]) if match else ("", problem["message"])
        same = (text, place_of(problem), problem["code"], problem.get("remedy") or "")
        _, keys = groups.setdefault(same, ({**problem, "message": text}, []))
        if key and key not in keys:
            keys.append(key)
    # Groups with the same remedy move to the position of the first.
    by_remedy: dict[tuple[str, str], list[tuple[ProblemJson, list[str]]]] = {}
    for (_, _, code, remedy), group in groups.items():
        by_remedy.setdefault((code, remedy), []).append(group)
    for groups_of_remedy in by_remedy.values():
        for problem, keys in groups_of_remedy:
            prefix = f"{_names(keys)}: " if keys else ""
            yield {**problem, "message": f"{prefix}{problem['message']}"}


def _names(keys: list[str]) -> str:
    """Return keys as a list without repeated kinds and namespaces: ``Service/default/a, b``."""
    previous, names = "", []
    for key in keys:
        namespace, _, name = key.rpartition("/")
        names.append(name if namespace == previous else key)
        previous = namespace
    return ", ".join(names)
