"""The table of resources with conditions, ports and problems, for ``status``, ``up`` and ``apply``.

The problems of a status report. Equal problems and remedies are printed once.

The conditions of a resource for people: a word and a message.

Published ports as links, or as ``ADDRESS:PORT->CONTAINER PORT``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import click

from controller.cli.clients.status_report import key_text
from controller.cli.exit_codes import with_program
from controller.cli.output.tables import (
    Cell,
    Column,
    clip,
    clip_image,
    render,
    terminal_width,
    wrap,
)
from controller.cli.output.terminal import ReportExcerpts, echo
from controller.cli.output.times import age, current_time, parse_time, until, with_names
from controller.core.encoding.text import printable
from controller.core.view.attention import GRAVITY, RETRIED
from controller.model.errors import NOTES, notes_text
from controller.model.names import revision_digits

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


_COLOURS_OF_GRAVE: Final = {
    "PolicyViolation": "red",
    "PrunePending": "yellow",
    "CrashLoop": "red",
    "Failed": "red",
    "Stalled": "red",
    "Paused": "red",
    "Contended": None,
    "Degraded": "yellow",
    "Suspended": "yellow",
    "RolledBack": "yellow",
    "Scaled": "yellow",
    "PolicyWarning": "yellow",
    "Quarantined": "yellow",
}
#: The conditions that need attention, the gravest first, with their colours.
GRAVE: Final = {name: _COLOURS_OF_GRAVE[name] for name in GRAVITY if name in _COLOURS_OF_GRAVE}
#: Of a Ready service with containers as they were found: not grave, but worth a word.
ADOPTED = "AdoptedAsFound"
#: Of a Ready service that answers to a former name, too.
MOVED = "Moved"
#: The word, and the reason of Suspended, of a service that 'trimtab stop' stopped.
STOPPED = "Stopped"
#: The words of resources that need no attention.
SETTLED = frozenset({"Ready", "Completed", ADOPTED})
COLOURS = {
    **dict.fromkeys(SETTLED, "green"),
    MOVED: None,
    "Progressing": "cyan",
    STOPPED: "yellow",
    **GRAVE,
}
#: Reasons of Progressing while an image comes, which are shown with every grave condition.
_IMAGE_COMES = ("Pulling", "Building")
#: Reasons of Progressing that explain Degraded.
_CAUSES = (*_IMAGE_COMES, "Retrying", "Waiting")

#: The reason of Stalled and Paused after a failed rollout. A crash loop has the same failures as cause.
ROLLOUT_FAILED = "rollout.failed"
_REMEDY = re.compile(r"\(([^()]*)\)$")
#: The table shows the time of the next try by itself.
_NEXT_TRY = re.compile(r", next try at \d[\d:TZ.-]*")

Resource = dict[str, Any]
Conditions = list[dict[str, str]]


def conditions_of(resource: Resource) -> Conditions:
    """Return the true conditions that need attention, the gravest first, else Ready or Progressing."""
    true = {c["type"]: c for c in resource["conditions"] if c["status"] == "True"}
    grave = [true[name] for name in GRAVE if name in true]
    progressing = true.get("Progressing", {})
    if [c["type"] for c in grave] == ["Degraded"] and _is_first_rollout(resource, progressing):
        return [progressing]  # nothing is worse than before
    # The message of Degraded, "0 of 1 running", has no cause; the message of Progressing has one.
    is_unexplained = [c["type"] for c in grave] == ["Degraded"]
    if progressing.get("reason") in (_CAUSES if is_unexplained else _IMAGE_COMES):
        grave.append(progressing)
    if grave:
        return grave
    ready = [c for c in resource["conditions"] if c["type"] == "Ready"][:1]
    if progressing and not any(c["status"] == "Unknown" for c in ready):
        return [progressing]
    notes = [true[name] for name in (MOVED, ADOPTED) if name in true and "Ready" in true]
    return notes[:1] or ready


def _is_first_rollout(resource: Resource, progressing: dict[str, str]) -> bool:
    """Return True if a new service is being created, and nothing has failed so far."""
    is_new = resource.get("generation", 0) > 0 == resource.get("observedGeneration", 0)
    has_failed = "nextTry" in resource or any(
        slot.get("cause") for slot in resource.get("slots", [])
    )
    reasons = ("Acting", "Waiting", *_IMAGE_COMES)
    return is_new and not has_failed and progressing.get("reason") in reasons


def word_of(resource: Resource) -> str:
    """Return a resource's gravest condition as a word, such as ``Ready`` or ``NotReady``."""
    conditions = conditions_of(resource)
    if not conditions:
        return "-"
    gravest = conditions[0]
    if gravest["status"] != "True":
        return f"Not{gravest['type']}"
    if gravest["type"] == "Suspended" and gravest.get("reason") == STOPPED:
        return STOPPED
    return "Completed" if gravest["type"] == "Ready" and is_completed(resource) else gravest["type"]


def is_settled(resource: Resource) -> bool:
    """Return True if the resource is Ready or Completed, and no condition needs attention."""
    return word_of(resource) in SETTLED


def is_completed(resource: Resource) -> bool:
    """Return True if every container of the resource, a task, has ended; a job has a condition."""
    if resource.get("kind") == "Job":
        return any(
            c["type"] == "Complete" and c["status"] == "True" for c in resource["conditions"]
        )
    slots = resource.get("slots", [])
    return bool(slots) and all(slot["state"] == "exited" for slot in slots)


def message_of(resource: Resource) -> str:
    """Return the number of replicas with a container that is being replaced, and the messages of conditions."""
    earlier = resource.get("earlier", 0)
    messages = messages_of(conditions_of(resource))
    if not earlier:
        return messages
    old = f"{earlier} of {resource['desired']} replicas still run the previous container"
    return f"{old}; {messages}" if messages else old


def messages_of(conditions: Conditions) -> str:
    """Return the messages of conditions, each once, without repeating columns of the table."""
    names = {c["type"] for c in conditions}
    useful = [c for c in conditions if not _is_redundant(c, names)]
    messages = dict.fromkeys(text for c in useful if (text := _text_of(c, names)))
    longest = (m for m in messages if not any(m != other and m in other for other in messages))
    return with_names(_NEXT_TRY.sub("", "; ".join(longest)))


def _text_of(condition: dict[str, str], names: set[str]) -> str:
    """Return a condition's message, without the log below; of a failed rollout in a crash loop the remedy."""
    message = condition["message"].partition("\n")[0]
    if "CrashLoop" in names and condition["reason"] == ROLLOUT_FAILED:
        remedy = _REMEDY.search(message)
        return remedy[1] if remedy else ""
    return message


def _is_redundant(condition: dict[str, str], names: set[str]) -> bool:
    match condition:
        case {"type": "Ready", "reason": "AsDeclared" | "NotReady"}:
            return True  # the column READY has "1 of 2 ready"
        case {"type": "Degraded", "reason": "TooFew", "message": message}:
            return len(names) > 1 and ";" not in message  # likewise "1 of 2 running"
        case {"type": "Stalled", "reason": reason}:
            return reason in names  # the condition of that name has the same message
        case _:
            return False


def styled(word: str) -> str:
    """Return a condition's word in its colour; click strips colours if output isn't a terminal."""
    return click.style(word, fg=COLOURS.get(word))


#: Addresses that stand for every address of the host, each with the address to use on the host.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_DEFAULT_PORTS = {"http": 80, "https": 443}


def addresses_of(resource: dict[str, Any]) -> list[str]:
    """Return the published ports of a resource: ``http://127.0.0.1:18080``, ``127.0.0.1:5432->5432``.

    A port on every address of the host is shown as such.
    """
    return [*dict.fromkeys(_addresses(resource, {}))]


def urls_of(resource: dict[str, Any]) -> list[str]:
    """Return the published ports of a resource that a browser on the host can open."""
    found = dict.fromkeys(_addresses(resource, _EVERYWHERE))
    return [address for address in found if "://" in address]


def urls_in_network(resource: dict[str, Any], slot: dict[str, Any]) -> list[str]:
    """Return the URLs of a replica's web ports in its network, published or not."""
    addresses = [endpoint["address"] for endpoint in slot.get("addresses", [])][:1]
    return [
        _url(port["scheme"], address, port["container"])
        for address in addresses
        for port in resource.get("ports", [])
        if port.get("scheme")
    ]


def _addresses(resource: dict[str, Any], reached_at: Mapping[str, str]) -> Iterator[str]:
    for port in resource.get("ports", []):
        if "host" not in port:
            continue
        if scheme := port.get("scheme"):
            yield _url(scheme, reached_at.get(port["address"], port["address"]), port["host"])
        else:
            udp = "/udp" if port["protocol"] == "udp" else ""
            yield f"{_url_host(port['address'])}:{port['host']}->{port['container']}{udp}"


def _url(scheme: str, address: str, port: int) -> str:
    host = _url_host(address)
    return f"{scheme}://{host}" if _DEFAULT_PORTS[scheme] == port else f"{scheme}://{host}:{port}"


def _url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def clip_addresses(cell: str, room: int) -> str:
    """Return as many addresses as fit, and the number of others: ``http://127.0.0.1:80, +2``.

    An address is never cut, since a part of an address is useless.
    """
    addresses = cell.split(", ")
    for count in range(len(addresses) - 1, 0, -1):
        short = f"{', '.join(addresses[:count])}, +{len(addresses) - count}"
        if len(short) <= room:
            return short
    return f"{addresses[0]}, +{len(addresses) - 1}" if len(addresses) > 1 else cell


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
    """Return the time since the first start of a container that runs."""
    starts = [slot["started"] for slot in resource.get("slots", []) if slot.get("started")]
    valid = [start for start in starts if parse_time(start) is not None]
    return age(min(valid, key=lambda start: parse_time(start) or 0.0), now) if valid else "-"


def text_of(resource: StatusJson, problems: list[StatusJson], view: TableView) -> tuple[str, ...]:
    """Return the message of a row: the cause, what happens next and when, and if wide the last output.

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
    again = until(resource.get("nextTry", {}).get("at", ""), view.now)
    parts += [again] if again else []
    lines = [text] if (text := "; ".join(parts)) else []
    # The time of the next try says what happens next, and so does the message of work in progress.
    following = resource.get("next", "")
    is_said = following != RETRIED if again else lines and resource.get("severity") == "progress"
    lines += [f"next: {following}"] if following and not is_said else []
    if not view.wide:
        return tuple(lines)
    failures = (slot.get("lastFailure", {}) for slot in resource.get("slots", []))
    outputs = (failure["line"] for failure in failures if failure.get("line"))
    return (*lines, *(f"last output: {line}" for line in outputs if line not in message))
