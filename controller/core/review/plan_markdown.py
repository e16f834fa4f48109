"""A plan as Markdown, for the comment on a pull request.

Texts of documents and of the engine stand in code spans, so that nothing in them is formatted or
becomes a link or a mention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controller.core.drift.actions import is_denied, refusals
from controller.core.encoding.terminal_text import printable
from controller.core.review.plan_text import SIGNS, change_text, connections_text, headline
from controller.core.review.summary import NOTHING_TO_DO, downtime_text, summary_of
from controller.model.desired.field_changes import Review, ReviewEntry
from controller.model.errors import NOTES, notes_text

#: GitHub refuses a comment of more than 65,536 characters.
LENGTH_MAX: Final = 60_000
_CELL_MAX: Final = 300


def render_markdown(review: Review, *, title: str) -> str:
    """Return a reviewed plan as Markdown of at most ``LENGTH_MAX`` characters."""
    summary = summary_of(review).text
    lines = [f"### {title}", ""]
    if summary.startswith(NOTHING_TO_DO) and not review.plan.problems:
        return "\n".join([*lines, "Nothing to do.", ""])
    lines += [f"**Plan:** {_escaped(summary)}", ""]
    entries = [
        entry for entry in review.entries if entry.actions or entry.holds or entry.differences
    ]
    if entries:
        lines += ["| | object | change | clients notice | policy |", "|---|---|---|---|---|"]
        lines += [_row(entry) for entry in entries]
        lines.append("")
    lines += _section("Held back", _held_back(review))
    lines += _section("Problems", _problems(review))
    lines += _section("Changed fields", (line for entry in entries for line in _fields(entry)))
    lines.append(f"Digest {_code(review.plan.digest)}")
    return _bounded(lines)


def _row(entry: ReviewEntry) -> str:
    sign, _ = SIGNS[entry.effect]
    clients = [] if entry.downtime is None else [downtime_text(entry.downtime)]
    if entry.new_addresses_on is not None:
        clients.append(connections_text(entry.new_addresses_on))
    shown = "; ".join(clients)
    cells = (f"`{sign}`", _code(str(entry.key)), headline(entry), shown, _verdict(entry))
    escaped = (printable(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _verdict(entry: ReviewEntry) -> str:
    denied = refusals(entry.actions)
    if denied:
        rules = dict.fromkeys(rule for action in denied for rule in action.verdict.rules)
        return f"refused: {', '.join(map(_code, rules))}"
    if any(action.verdict.decision == "audit-deny" for action in entry.actions):
        return "a warning"
    return "allowed" if any(not is_denied(action) for action in entry.actions) else ""


def _held_back(review: Review) -> Iterator[str]:
    for blocked in review.plan.blocked:
        yield f"- {_code(str(blocked.key))}: {_code(blocked.reason)}"


def _problems(review: Review) -> Iterator[str]:
    shown = dict.fromkeys(
        problem
        for problems in (
            review.plan.problems,
            *(action.verdict.problems for action in review.plan.actions),
        )
        for problem in problems
    )
    for problem in shown:
        if problem.code in NOTES:
            continue
        place = f"{_code(problem.place)} " if problem.place else ""
        remedy = f" ({_code(problem.remedy)})" if problem.remedy else ""
        yield f"- {place}{problem.severity.value} {_code(problem.code)}: {_code(problem.message)}{remedy}"
    if notes := notes_text(problem.code for problem in shown):
        yield f"- {notes}"


def _fields(entry: ReviewEntry) -> Iterator[str]:
    if entry.is_new:
        return
    for difference in entry.differences:
        for change in difference.changes:
            yield f"- {_code(str(entry.key))} {_code(change_text(change))}"
        if difference.note is not None:
            yield f"- {_code(str(entry.key))} {_code(difference.note)}"


def _section(title: str, lines: Iterator[str]) -> list[str]:
    """Return a folded section; nothing without lines."""
    found = list(lines)
    if not found:
        return []
    head = f"<details><summary>{title} ({len(found)})</summary>"
    return [head, "", *found, "", "</details>", ""]


def _code(text: str) -> str:
    """Return a text in a code span, with a fence longer than every run of backticks in it."""
    shown = printable(text).strip()[:_CELL_MAX]
    fence = "`"
    while fence in shown:
        fence += "`"
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>@#" else c for c in printable(text))


def _bounded(lines: list[str]) -> str:
    text = "\n".join(lines) + "\n"
    if len(text) <= LENGTH_MAX:
        return text
    kept: list[str] = []
    length = 0
    for line in lines:
        length += len(line) + 1
        if length > LENGTH_MAX - 200:
            break
        kept.append(line)
    closing = ["", "</details>", ""] if _is_open(kept) else [""]
    rest = len(lines) - len(kept)
    return "\n".join([*kept, *closing, f"… {rest} more lines: see `trimtab plan`", ""])


def _is_open(lines: list[str]) -> bool:
    """Return True if a folded section isn't closed yet."""
    opened = sum(line.startswith("<details>") for line in lines)
    return opened > lines.count("</details>")
