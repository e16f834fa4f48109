"""The JSON of a reviewed plan as text for a terminal, in the flat form, and as Markdown.

Pure: the width and the function that colours are arguments. The same plan gives the same text. In
Markdown, for the comment on a pull request, texts of documents and of the engine stand in code spans, so
that nothing in them is formatted or becomes a link or a mention.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Literal

from controller.core.encoding.text import printable
from controller.model.errors import NOTES, Problem, Severity, notes_text
from controller.model.names import REVISION_DIGITS, revision_digits

Style = Literal["add", "change", "remove", "bad", "dim"]
Paint = Callable[[Style, str], str]
#: Returns the lines that show a problem in its file.
Excerpt = Callable[[Problem], Sequence[str]]
#: The JSON of a plan (``plan_json.review_json``), or an object within it.
PlanJson = Mapping[str, Any]

#: The first character of a line, and its colour, by the effect on an object.
SIGNS: Final[Mapping[str, tuple[str, Style]]] = {
    "remove": ("-", "remove"),
    "replace": ("~", "change"),
    "create": ("+", "add"),
    "add-replicas": ("+", "add"),
    "scale-down": ("-", "remove"),
    "stop": ("~", "change"),
    "restart": ("~", "change"),
    "start": ("~", "change"),
    "update": ("~", "change"),
    "refused": ("!", "bad"),
    "wait": (".", "dim"),
    "held": ("=", "dim"),
    "none": ("=", "dim"),
}
NOTHING_TO_DO: Final = "nothing to do"
INCOMPLETE: Final = (
    "incomplete: part of the desired state can't be read, so nothing of it is removed"
)
#: The most causes shown for one object; the flat form has all of them.
CAUSES_MAX: Final = 4
WIDTH_MIN: Final = 40
#: Parameters of Select Graphic Rendition (ECMA-48).
COLOURS: Final[Mapping[Style, int]] = {"add": 32, "change": 33, "remove": 31, "bad": 31, "dim": 2}


def paint(style: Style, text: str) -> str:
    """Return a line in its colour. Without a terminal, ``terminal.echo`` drops colours."""
    return f"\x1b[{COLOURS[style]}m{text}\x1b[0m"


def plain(_style: Style, text: str) -> str:
    """Return a text without colour."""
    return text


def nothing(_problem: Problem) -> Sequence[str]:
    """Return no lines, for a pipe."""
    return ()


def render_plan(
    plan: PlanJson,
    *,
    width: int | None,
    paint: Paint = plain,
    verbose: bool = False,
    excerpt: Excerpt = nothing,
) -> str:
    """Return a plan as lines of at most *width* characters, where words allow it.

    Args:
        plan: the JSON of a reviewed plan.
        width: None for a pipe, in which no line is wrapped.
        paint: colours a text.
        verbose: add the flat form of all actions, with verdicts and the policy's defaults.
        excerpt: returns the lines around a problem in its file.
    """
    page = _Page(width, paint, excerpt)
    for item in plan["objects"]:
        actions = [each for each in plan["actions"] if each["object"] == item["object"]]
        holds = [each for each in plan.get("held", ()) if each["object"] == item["object"]]
        if actions or holds or not item.get("new"):
            page.item(item, actions, holds, verbose=verbose)
    page.rest(plan, verbose=verbose)
    for hint in plan.get("hints", ()):
        page.put(hint)
    summary = plan["summary"]["text"]
    page.put(summary if summary.startswith(NOTHING_TO_DO) else f"Plan: {summary}")
    return "\n".join(page.lines) + "\n"


def differences_json(plan: PlanJson) -> dict[str, list[dict[str, Any]]]:
    """Return the different fields of a plan, by object, in the shape of ``diff --json``."""
    items = sorted(plan["objects"], key=lambda item: str(item["object"]).split("/"))
    return {
        "objects": [
            {
                "object": item["object"],
                **({"removed": True} if item["effect"] == "remove" else {}),
                "changes": item["changes"],
            }
            for item in items
            if item.get("different")
        ]
    }


def render_differences(
    items: Iterable[PlanJson], *, width: int | None, paint: Paint = plain
) -> str:
    """Return the different fields of objects of a plan, object by object, as lines."""
    page = _Page(width, paint)
    for item in sorted(items, key=lambda item: str(item["object"]).split("/")):
        if item.get("different"):
            page.differences(item)
    return "\n".join(page.lines)


def action_table(actions: Sequence[PlanJson]) -> list[str]:
    """Return actions in the flat form: one line each, in columns, with denials below."""
    rows = [
        (
            *(str(each["seq"]), each["action"], each["target"], each["cause"]),
            "" if each["action"] == "wait" else _verdict_text(each["verdict"]),
        )
        for each in actions
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines: list[str] = []
    for action, (seq, verb, target, cause, verdict) in zip(actions, rows, strict=True):
        head = f"{seq:>{widths[0]}} {verb:<{widths[1]}} {target:<{widths[2]}}"
        lines.append(printable(f"{head}   {cause:<{widths[3]}}   {verdict}".rstrip()))
        lines += [printable(f"    {volume['text']}") for volume in action.get("volumes", ())]
        lines += _explanation(action["verdict"])
    return lines


def _verdict_text(verdict: PlanJson) -> str:
    return " ".join((verdict["decision"], *verdict["rules"]))


def _explanation(verdict: PlanJson) -> Iterator[str]:
    if problems := verdict.get("problems"):
        yield from (textwrap.indent(problem_of(each).render(), "    ") for each in problems)
    elif verdict["decision"] in ("deny", "audit-deny"):
        for name in ("reason", "remedy"):
            if text := verdict.get(name):
                yield printable(f"    {name}: {text}")


def problem_of(members: PlanJson) -> Problem:
    """Return the problem of its JSON (``flat_plan.problem_json``)."""
    return Problem(**{**members, "severity": Severity(members["severity"])})


def problems_of(plan: PlanJson) -> list[Problem]:
    """Return the problems of a plan without those of blocked removals, which come first."""
    return [problem_of(each) for each in plan["problems"][len(plan.get("blocked", ())) :]]


class _Page:
    """Lines filled up to a width."""

    def __init__(self, width: int | None, paint: Paint, excerpt: Excerpt = nothing) -> None:
        self.lines: list[str] = []
        self._excerpt = excerpt
        self._width = sys.maxsize if width is None else max(WIDTH_MIN, width)
        self._paint = paint

    def put(self, text: str, *, indent: str = "", style: Style | None = None) -> None:
        """Add a text, wrapped between words."""
        wrapped = textwrap.wrap(
            printable(text),
            self._width,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.lines += [line if style is None else self._paint(style, line) for line in wrapped]

    def item(
        self,
        item: PlanJson,
        actions: Iterable[PlanJson],
        holds: Iterable[PlanJson],
        *,
        verbose: bool,
    ) -> None:
        """Add an object with its fields and steps."""
        sign, style = SIGNS[item["effect"]]
        self.put(f"{sign} {item['object']}  {item['text']}", style=style)
        for hold in holds:
            self.put(hold["reason"], indent="    ")
            self._remedy(hold, indent="    ")
        if verbose or not item.get("new"):
            self._fields(item)
        causes = item.get("why", [])
        more = [f"{len(causes) - CAUSES_MAX} more"] if len(causes) > CAUSES_MAX else []
        for cause in (*causes[:CAUSES_MAX], *more):
            self.put(f"why: {cause}", indent="    ")
        if (networks := item.get("newAddressesOn")) is not None:
            self.put(f"clients: {connections_text(networks)}", indent="    ")
        for steps in item.get("steps", ()):
            self.put(steps, indent="      ", style="dim")
        for action in actions:
            for volume in action.get("volumes", ()):
                self.put(f"{action['target']} gets {volume['text']}", indent="    ")
        for refusal in item.get("refusals", ()):
            self._refusal(refusal)

    def differences(self, item: PlanJson) -> None:
        """Add an object with its fields alone."""
        is_new, is_gone = item.get("new"), item["effect"] == "remove"
        sign, style = SIGNS["remove" if is_gone else "create" if is_new else "replace"]
        needed = "declared" if item["object"].startswith("Service/") else "needed"
        said = f"  is no longer {needed}" if is_gone else "  is new" if is_new else ""
        self.put(f"{sign} {item['object']}{said}", style=style)
        self._fields(item)

    def _fields(self, item: PlanJson) -> None:
        groups = [(place, [*each]) for place, each in groupby(item["changes"], key=_place)]
        several = sum(bool(containers) for (_, _, containers), _ in groups) > 1
        for (held, revision, containers), changes in groups:
            if held:
                self.put("in its document, and not applied:", indent="    ")
            elif several and revision:
                short = revision_digits(revision)[:REVISION_DIGITS]
                self.put(f"{', '.join(containers)} (revision {short}):", indent="    ")
            for change in changes:
                self.put(change["text"], indent="    ", style=_style_of(change))
        for note in dict.fromkeys(item.get("notes", ())):
            self.put(f"note: {note}", indent="    ")

    def _remedy(self, members: PlanJson, *, indent: str) -> None:
        if remedy := members.get("remedy"):
            self.put(f"remedy: {remedy}", indent=indent)

    def _refusal(self, refusal: PlanJson) -> None:
        """Add an action that the policy denies, or only warns about."""
        word = "refused" if refusal["decision"] == "deny" else "warning, would be refused"
        rules = " ".join(refusal["rules"])
        text = f"{word} by the policy: {refusal['action']} {refusal['target']} [{rules}]"
        self.put(text, indent="    ", style="bad")
        for problem in map(problem_of, refusal.get("problems", ())):
            self.put(f"{problem.place}: {problem.code}: {problem.message}", indent="      ")
            self.lines += self._excerpt(problem)
            self._remedy({"remedy": problem.remedy}, indent="          ")
        if not refusal.get("problems"):
            if reason := refusal.get("reason"):
                self.put(f"reason: {reason}", indent="      ")
            self._remedy(refusal, indent="      ")

    def rest(self, plan: PlanJson, *, verbose: bool) -> None:
        """Add a plan's blocked removals, its problems and, if *verbose*, its flat form."""
        for blocked in plan.get("blocked", ()):
            text = (
                f"! {blocked['object']}  removal blocked ({blocked['code']}): {blocked['reason']}"
            )
            self.put(text, style="bad")
            self._remedy(blocked, indent="    ")
        problems = problems_of(plan)
        self.lines += [
            problem.render(self._excerpt(problem))
            for problem in problems
            if problem.code not in NOTES
        ]
        if notes := notes_text(problem.code for problem in problems):
            self.put(notes, style="dim")
        if not plan["complete"]:
            self.put(INCOMPLETE)
        if verbose and plan["actions"]:
            self.lines += ["", *action_table(plan["actions"])]
            for action in plan["actions"]:
                for mutation in action["verdict"].get("mutations", ()):
                    self.put(f"{action['seq']}: the policy fills in {mutation}", indent="    ")
        if self.lines:
            self.lines.append("")


def _place(change: PlanJson) -> tuple[bool, str, tuple[str, ...]]:
    """Return the key of a group of changes: whether it is held back, the revision, the containers."""
    containers = tuple(change.get("containers", ()))
    return change.get("held", False), change.get("revision", ""), containers


def _style_of(change: PlanJson) -> Style:
    if "added" in change or change.get("old", "") is None:
        return "add"
    return "remove" if "removed" in change or change.get("new", "") is None else "change"


def connections_text(new_addresses_on: Sequence[str]) -> str:
    """Return what clients of replaced replicas notice."""
    if not new_addresses_on:
        return "open connections to a replaced replica end, and its address stays"
    where = " and ".join(new_addresses_on)
    return (
        f"open connections to a replaced replica end, and its address on {where} changes: clients that "
        "resolve names once need a reload"
    )


#: GitHub refuses a comment of more than 65,536 characters.
LENGTH_MAX: Final = 60_000
_CELL_MAX: Final = 300


def render_markdown(plan: PlanJson, *, title: str) -> str:
    """Return a plan as Markdown of at most ``LENGTH_MAX`` characters."""
    summary, items = plan["summary"]["text"], plan["objects"]
    lines = [f"### {title}", ""]
    if summary.startswith(NOTHING_TO_DO) and not problems_of(plan):
        return "\n".join([*lines, "Nothing to do.", ""])
    lines += [f"**Plan:** {_escaped(summary)}", ""]
    if items:
        lines += ["| | object | change | clients notice | policy |", "|---|---|---|---|---|"]
        lines += [_row(item, plan["actions"]) for item in items]
        lines.append("")
    held = (
        f"- {_code(each['object'])}: {_code(each['reason'])}" for each in plan.get("blocked", ())
    )
    lines += _section("Held back", held)
    lines += _section("Problems", _problem_lines(plan))
    lines += _section("Changed fields", (line for item in items for line in _field_lines(item)))
    lines.append(f"Digest {_code(plan['digest'])}")
    return _bounded(lines)


def _row(item: PlanJson, actions: Iterable[PlanJson]) -> str:
    sign, _ = SIGNS[item["effect"]]
    clients = [item["downtime"]["text"]] if "downtime" in item else []
    if (networks := item.get("newAddressesOn")) is not None:
        clients.append(connections_text(networks))
    verdicts = [each["verdict"] for each in actions if each["object"] == item["object"]]
    policy = _policy_cell(item.get("refusals", ()), verdicts)
    cells = (f"`{sign}`", _code(item["object"]), item["text"], "; ".join(clients), policy)
    escaped = (printable(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _policy_cell(refusals: Iterable[PlanJson], verdicts: Iterable[PlanJson]) -> str:
    decisions = {verdict["decision"] for verdict in verdicts}
    if "deny" in decisions:
        denied = (each for each in refusals if each["decision"] == "deny")
        rules = dict.fromkeys(rule for each in denied for rule in each["rules"])
        return f"refused: {', '.join(map(_code, rules))}"
    if "audit-deny" in decisions:
        return "a warning"
    return "allowed" if decisions else ""


def _problem_lines(plan: PlanJson) -> Iterator[str]:
    verdicts = (action["verdict"] for action in plan["actions"])
    refused = (problem_of(each) for verdict in verdicts for each in verdict.get("problems", ()))
    shown = dict.fromkeys((*problems_of(plan), *refused))
    for problem in shown:
        if problem.code in NOTES:
            continue
        place = f"{_code(problem.place)} " if problem.place else ""
        remedy = f" ({_code(problem.remedy)})" if problem.remedy else ""
        yield f"- {place}{problem.severity.value} {_code(problem.code)}: {_code(problem.message)}{remedy}"
    if notes := notes_text(problem.code for problem in shown):
        yield f"- {notes}"


def _field_lines(item: PlanJson) -> Iterator[str]:
    if not item.get("new"):
        for text in (*(change["text"] for change in item["changes"]), *item.get("notes", ())):
            yield f"- {_code(item['object'])} {_code(text)}"


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
