"""The table of resources with the problems below, for ``status``, ``up`` and ``apply``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from controller.cli.output.excerpts import ReportExcerpts
from controller.cli.output.tables import Cell, Column, clip, clip_image, render, terminal_width
from controller.cli.output.terminal import echo
from controller.cli.output.times import age, current_time, parse_time, until
from controller.cli.status.conditions import (
    GRAVE,
    SETTLED,
    STOPPED,
    conditions_of,
    message_of,
    styled,
    word_of,
)
from controller.cli.status.ports import addresses_of, clip_addresses
from controller.cli.status.problems import no_excerpt, place_of, problem_of, render_problems
from controller.model.names import revision_digits

#: Kinds with a number of ready members.
COUNTED = ("Service", "Release")
_DASH = frozenset({"-"})
COLUMNS = (
    Column("KIND"),
    Column("NAMESPACE", dull=frozenset({"default"}), shrink=clip, least=9, rank=7),
    Column("NAME", shrink=clip, least=12, rank=8),
    Column("READY"),
    Column("CONDITION", style=styled),
    Column("RESTARTS", dull=frozenset({"-", "0"}), rank=3, optional=True),
    Column("AGE", dull=_DASH, rank=2, optional=True),
    Column("PORTS", dull=_DASH, shrink=clip_addresses, rank=9, optional=True),
    Column("IMAGE", dull=_DASH, shrink=clip_image, least=12, rank=1, optional=True),
    Column("MESSAGE"),
)
WIDE = (
    Column("OWNER", shrink=clip, least=6, rank=5, optional=True),
    Column("REVISION", rank=6, optional=True),
)
PROJECT_COLUMNS = (
    Column("PROJECT", shrink=clip, least=12, rank=8),
    Column("READY"),
    Column("CONDITION", style=styled),
    Column("MESSAGE"),
)
SHORT_REVISION = 8

#: The status, or an object within it, as parsed JSON.
StatusJson = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableView:
    """The form of a table."""

    #: The width of the terminal in cells; None for a pipe.
    width: int | None
    #: The current time in seconds since the epoch.
    now: float
    #: Print owner, revision and last output.
    wide: bool = False
    #: Returns the lines of a file that show a problem.
    excerpt: ReportExcerpts = no_excerpt


def terminal_view(*, wide: bool = False) -> TableView:
    """Return the form for standard output."""
    return TableView(terminal_width(), current_time(), wide)


def show_status(status: StatusJson) -> None:
    """Print a report."""
    echo(render_status(status, terminal_view()))


def render_status(status: StatusJson, view: TableView) -> str:
    """Return the table of resources, and the problems below."""
    lines = [*_sources(status, view), *render_problems(status["problems"], width=view.width)]
    return "\n".join([_table(status, view), *lines])


def render_projects(status: StatusJson, view: TableView) -> str:
    """Return a row for each project: ready of all services, the gravest condition, and who has it."""
    projects: dict[str, list[StatusJson]] = {}
    for resource in status["resources"]:
        if resource["kind"] == "Service":
            projects.setdefault(resource["namespace"], []).append(resource)
    rows = [_project_row(name, services) for name, services in sorted(projects.items())]
    table = render(PROJECT_COLUMNS, rows, width=view.width) if rows else "No projects."
    split = [problem for problem in status["problems"] if problem["code"] == "project.split"]
    return "\n".join([table, *render_problems(split, width=view.width)])


def _project_row(name: str, services: list[StatusJson]) -> tuple[Cell, ...]:
    words = {service["name"]: word_of(service) for service in services}
    order = [*GRAVE, STOPPED, "NotReady", "Progressing"]
    unsettled = {each: word for each, word in words.items() if word not in SETTLED}
    ranked = sorted(
        unsettled.items(),
        key=lambda item: order.index(item[1]) if item[1] in order else len(order),
    )
    gravest = ranked[0][1] if ranked else "Ready"
    ready = sum(word in SETTLED for word in words.values())
    message = ", ".join(f"{each} {word}" for each, word in ranked)
    return name, f"{ready}/{len(services)}", gravest, message


def fit_status(status: StatusJson, view: TableView, height: int) -> str:
    """Return the table in at most *height* lines, if possible.

    Omitted are, in this order: excerpts of files, Ready resources from the end, problems, other
    resources. The last lines have the numbers of omitted rows.
    """
    resources, problems = list(status["resources"]), list(status["problems"])
    hidden: list[StatusJson] = []
    hidden_problems = 0
    while True:
        is_empty = hidden and not resources
        parts = [] if is_empty else [_table({**status, "resources": resources}, view)]
        parts += [_summary(hidden)] if hidden else []
        parts += _sources(status, view)
        parts += render_problems(problems, width=view.width, excerpt=view.excerpt)
        if hidden_problems:
            parts.append(f"and {hidden_problems} more problems; see 'trimtab status'")
        text = "\n".join(parts)
        excess = text.count("\n") + 1 - height
        if excess > 0 and view.excerpt is not no_excerpt:
            view = replace(view, excerpt=no_excerpt)
            continue
        ready = [r for r in resources if word_of(r) in SETTLED]
        if excess <= 0 or not (ready or len(problems) > 1 or len(resources) > 1):
            return text
        if ready:
            omitted = ready[-(excess if hidden else excess + 1) :]
            resources = [r for r in resources if not any(r is other for other in omitted)]
            hidden = [*omitted, *hidden]
        elif len(problems) > 1:
            problems.pop()
            hidden_problems += 1
        else:
            hidden = [resources.pop(), *hidden]


def _sources(status: StatusJson, view: TableView) -> list[str]:
    if not status.get("sources"):
        return []
    from controller.cli.status.sources import render_sources

    return render_sources(status, width=view.width, now=view.now)


def _summary(hidden: list[StatusJson]) -> str:
    words = Counter(word_of(resource) for resource in hidden)
    if len(words) == 1:
        (word,) = words
        return f"and {len(hidden)} more, all {styled(word)}"
    return f"and {len(hidden)} more: " + ", ".join(
        f"{count} {styled(word)}" for word, count in words.most_common()
    )


def _table(status: StatusJson, view: TableView) -> str:
    resources, problems = status["resources"], status["problems"]
    if not resources:
        return unread_text(status, view.now) or "No resources."
    columns = (*COLUMNS[:-1], *WIDE, COLUMNS[-1]) if view.wide else COLUMNS
    return render(
        columns, [_row(resource, problems, view) for resource in resources], width=view.width
    )


def unread_text(status: StatusJson, now: float) -> str:
    """Return that files and engine weren't read yet, and since when; '' once they were."""
    if "unread" not in status:
        return ""
    since = status["unread"]["since"]
    return f"Not read yet, since {since} ({age(since, now)} ago): the controller has just started."


def _row(resource: StatusJson, problems: list[StatusJson], view: TableView) -> tuple[Cell, ...]:
    slots = resource.get("slots", [])
    is_service = resource["kind"] == "Service"
    revision = revision_digits(str(resource.get("revision", "")))[:SHORT_REVISION] or "-"
    wide = (resource.get("owner") or "-", revision) if view.wide else ()
    return (
        resource["kind"],
        resource["namespace"],
        resource["name"],
        ready_of(resource),
        word_of(resource),
        str(sum(slot["restarts"] for slot in slots)) if is_service else "-",
        age_of(resource, view.now),
        ", ".join(addresses_of(resource)) or "-",
        image_of(resource),
        *wide,
        text_of(resource, problems, view),
    )


def ready_of(resource: StatusJson) -> str:
    """Return the number of ready replicas, of any revision, and the declared number: ``2/3``.

    ``2/?`` if the document can't be read, ``2/-`` if no document declares the service.
    """
    if resource["kind"] not in COUNTED:
        return "-"
    ready = resource["ready"] + resource.get("earlier", 0)
    if any(c["type"] == "Ready" and c["reason"] == "Blind" for c in resource["conditions"]):
        return f"{ready}/?"
    return f"{ready}/{resource['desired'] or '-'}" if ready else f"0/{resource['desired']}"


def image_of(resource: StatusJson) -> str:
    """Return the image that runs, or else the declared one; ``-`` for a resource without an image."""
    slots = [slot for slot in resource.get("slots", []) if slot["state"] == "running"]
    running = {slot.get("image") or resource["image"] for slot in slots}
    return running.pop() if len(running) == 1 else resource.get("image") or "-"


def age_of(resource: StatusJson, now: float) -> str:
    """Return the time since the last start of a container."""
    starts = [slot["started"] for slot in resource.get("slots", []) if slot.get("started")]
    valid = [start for start in starts if parse_time(start) is not None]
    return age(max(valid, key=lambda start: parse_time(start) or 0.0), now) if valid else "-"


def text_of(resource: StatusJson, problems: list[StatusJson], view: TableView) -> tuple[str, ...]:
    """Return the message of a row: the cause, the time of the next try, and if wide the last output.

    A problem below the table isn't repeated: the message refers to it.
    """
    listed = {}
    for condition in conditions_of(resource):
        problem = problem_of(resource, condition["message"], problems)
        if condition["message"] and problem is not None:
            listed[condition["message"]] = place_of(problem)
    own = [c for c in resource["conditions"] if c["message"] not in listed]
    message = message_of({**resource, "conditions": own}) if listed else message_of(resource)
    parts = [
        f"see {place} below" if place else "see below" for place in dict.fromkeys(listed.values())
    ]
    parts += [message] if message else []
    if again := until(resource.get("nextTry", {}).get("at", ""), view.now):
        parts.append(again)
    text = "; ".join(parts)
    if not view.wide:
        return (text,)
    failures = (slot.get("lastFailure", {}) for slot in resource.get("slots", []))
    outputs = (failure["line"] for failure in failures if failure.get("line"))
    return (text, *(f"last output: {line}" for line in outputs if line not in text))
