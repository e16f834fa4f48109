"""A reviewed plan as JSON and Markdown, and as ``plan`` and ``diff`` print it.

A reviewed plan as JSON: ``plan --json`` and ``diff --json``.

Values are left out if they can be secret. Such a change has ``changed``, ``added`` or ``removed``
instead of ``old`` and ``new``.

A plan as Markdown, for the comment on a pull request.

Texts of documents and of the engine stand in code spans, so that nothing in them is formatted or
becomes a link or a mention.

A review as ``plan`` and ``diff`` print it, whether a running controller or the command made it.

The command replaces the marks of excerpts: lines of documents can hold secrets, and only the user's
own access decides whether they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from controller.core.drift.actions import is_denied, refusals
from controller.core.encoding.text import printable
from controller.core.review.flat_plan import to_json
from controller.core.review.plan_text import (
    SIGNS,
    Style,
    change_text,
    connections_text,
    headline,
    nothing,
    render_differences,
    render_review,
)
from controller.core.review.review import (
    NOTHING_TO_DO,
    downtime_json,
    downtime_text,
    is_different,
    summary_of,
)
from controller.core.review.review_form import EXCERPT_MARK, ReviewForm
from controller.model.desired import field_changes
from controller.model.desired.field_changes import Effect, Review, ReviewEntry
from controller.model.errors import NOTES, Problem, Severity, notes_text


def review_json(review: field_changes.Review) -> dict[str, object]:
    """Return the shape of ``plan --json``: the plan, its summary, and its objects."""
    return {
        **to_json(review.plan),
        "summary": summary_of(review).to_json(),
        "objects": [_entry(entry) for entry in review.entries],
        **({"hints": list(review.hints)} if review.hints else {}),
    }


def differences_json(review: field_changes.Review) -> dict[str, object]:
    """Return the different fields in the shape of ``diff --json``."""
    entries = sorted(review.entries, key=lambda entry: entry.key)
    return {
        "objects": [
            {
                "object": str(entry.key),
                **({"removed": True} if entry.effect is field_changes.Effect.REMOVE else {}),
                "changes": changes_json(entry.differences),
            }
            for entry in entries
            if is_different(entry)
        ]
    }


def _entry(entry: field_changes.ReviewEntry) -> dict[str, object]:
    slots = {
        "replaced": entry.replaced,
        "created": entry.added,
        "removed": entry.removed,
        "stopped": entry.stopped,
        "started": entry.started,
        "updated": entry.updated,
    }
    shown: dict[str, object] = {
        "object": str(entry.key),
        "effect": entry.effect.value,
        "slots": {name: count for name, count in slots.items() if count},
        "changes": changes_json(entry.differences),
    }
    if entry.is_new:
        shown["new"] = True
    if entry.order is not None:
        shown["order"] = entry.order
    if entry.source is not None:
        shown["source"] = {"file": entry.source.file, "line": entry.source.line}
    if entry.downtime is not None:
        shown["downtime"] = downtime_json(entry.downtime)
    if entry.new_addresses_on is not None:
        shown["newAddressesOn"] = list(entry.new_addresses_on)
    if notes := [each.note for each in entry.differences if each.note is not None]:
        shown["notes"] = notes
    return shown


def changes_json(differences: Iterable[field_changes.ServiceDifference]) -> list[dict[str, object]]:
    """Return changed fields, each with its revision and containers."""
    return [
        {**_change(change), **dict(_found_in(difference))}
        for difference in differences
        for change in difference.changes
    ]


def _change(change: field_changes.FieldChange) -> dict[str, object]:
    shown: dict[str, object] = {
        "path": change.path,
        "kind": change.kind,
        "text": change_text(change),
    }
    if change.sensitive:
        return {**shown, change.what: True}
    return {**shown, "old": change.old, "new": change.new}


def _found_in(difference: field_changes.ServiceDifference) -> Iterator[tuple[str, object]]:
    if difference.origin is not None:
        yield "revision", difference.origin
    if difference.containers:
        yield "containers", list(difference.containers)
    if difference.held:
        yield "held", True


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


#: Parameters of Select Graphic Rendition (ECMA-48).
COLOURS: Final[dict[Style, int]] = {"add": 32, "change": 33, "remove": 31, "bad": 31, "dim": 2}


def paint(style: Style, text: str) -> str:
    """Return a line of a review in its colour. Without a terminal, ``terminal.echo`` drops colours."""
    return f"\x1b[{COLOURS[style]}m{text}\x1b[0m"


def printed_review(review: Review, form: ReviewForm) -> dict[str, object]:
    """Return a review in a form, as JSON."""
    return _plan(review, form) if form.subject == "plan" else _differences(review, form)


def _plan(review: Review, form: ReviewForm) -> dict[str, object]:
    """Return ``json`` or ``text``, and the plan's outcome.

    A text for a terminal has a mark for each problem with an excerpt; ``excerpts`` has the problems.
    """
    plan = review.plan
    outcome: dict[str, object] = {
        "invalid": any(problem.severity is Severity.ERROR for problem in plan.problems),
        "refused": any(action.verdict.decision == "deny" for action in plan.actions),
        "pending": bool(plan.pending or plan.blocked),
        # An override keeps a changed document from its service.
        "overridden": any(e.effect is Effect.HELD and is_different(e) for e in review.entries),
    }
    if form.output == "json":
        return {**outcome, "json": review_json(review)}
    if form.output == "markdown":
        return {**outcome, "text": render_markdown(review, title=form.title)}
    marks = _Marks()
    text = render_review(
        review,
        width=form.width,
        paint=paint,
        verbose=form.verbose,
        excerpt=nothing if form.width is None else marks.mark,
    )
    text = f"{text.rstrip()}\ndigest {plan.digest}"
    return {**outcome, "text": text, "excerpts": marks.places}


def _differences(review: Review, form: ReviewForm) -> dict[str, object]:
    """Return ``keys``, all resources; and ``objects``, the different ones, each with text and JSON."""
    entries = sorted((e for e in review.entries if is_different(e)), key=lambda entry: entry.key)
    objects = []
    for entry in entries:
        alone = replace(review, entries=(entry,))
        text = render_differences(alone, width=form.width, paint=paint).removesuffix("\n")
        objects.append({"object": str(entry.key), "text": text, "json": differences_json(alone)})
    return {"keys": [str(key) for key in sorted(review.keys)], "objects": objects}


class _Marks:
    """Marks in the place of excerpts, and the problems behind the marks."""

    def __init__(self) -> None:
        self.places: list[dict[str, object]] = []

    def mark(self, problem: Problem) -> Sequence[str]:
        """Return the mark of a problem's excerpt. No other line of a review has a control character."""
        self.places.append(
            {
                "code": problem.code,
                "message": problem.message,
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
            }
        )
        return (f"{EXCERPT_MARK}{len(self.places) - 1}",)
