"""``wait``: return once resources have a condition, or are gone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from controller.cli.clients.socket_client import ask_controller
from controller.cli.clients.status_report import (
    AMBIGUOUS,
    complete_names,
    key_text,
    matches,
    name_of,
    project_option,
)
from controller.cli.exit_codes import EXIT_NOT_CONVERGED
from controller.cli.options import command, duration_ms, open_state, print_json
from controller.cli.output.terminal import ProgressLine, echo
from controller.cli.status.table import message_of, ready_of, word_of
from controller.core.encoding.text import printable
from controller.model.errors import EngineUnavailable, StateError
from controller.model.names import WORKLOADS
from controller.settings import StateFolder

#: How long the controller keeps a question while the status stays the same.
WAIT_S: Final = 30.0
#: Time for the controller's answer, besides.
ANSWER_S: Final = 10.0
#: The shortest time between two questions. The controller answers at once whom it doesn't trust.
PAUSE_S: Final = 0.5
_CONDITION = re.compile(r"(?:condition=)?(?P<type>[A-Za-z]+)(?:=(?P<value>[A-Za-z]+))?", re.ASCII)
_VALUES: Final = {"true": "True", "false": "False", "unknown": "Unknown"}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a resource is waited for: a condition with a value, or its end."""

    #: The type of the condition in lower case; '' for the end of the resource.
    type: str
    value: str = "True"

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Return the goal of an option: ``Ready``, ``delete``, ``condition=TYPE`` or ``condition=TYPE=VALUE``.

        Raises:
            click.BadParameter: *text* has another form.
        """
        if text.lower() == "delete":
            return cls("")
        found = _CONDITION.fullmatch(text)
        value = _VALUES.get(((found and found["value"]) or "true").lower())
        if found is None or value is None:
            raise click.BadParameter(
                f"expected Ready, delete, condition=TYPE or condition=TYPE=VALUE, not '{text}'"
            )
        return cls(found["type"].lower(), value)

    def is_met(self, resource: dict[str, Any]) -> bool:
        """Return True if a resource has the condition, and its newest document is in force.

        A condition that a resource doesn't have is False.
        """
        is_behind = resource["observedGeneration"] < resource["generation"]
        if not self.type or (is_behind and resource["kind"] == "Service"):
            return False
        states = [c["status"] for c in resource["conditions"] if c["type"].lower() == self.type]
        return self.value == (states[0] if states else "False")


@dataclass(frozen=True, slots=True)
class Awaited:
    """The state of one awaited name, or of one resource of ``--all``."""

    name: str
    met: bool
    #: What is missing, in words.
    text: str
    resource: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The resources that a command waits for."""

    names: tuple[str, ...]
    namespace: str | None

    def standings(self, report: dict[str, Any], goal: Goal) -> list[Awaited]:
        """Return how each of them stands in a report; without names all that a document declares.

        Raises:
            StateError: a name means several resources.
        """
        rows = [r for r in report["resources"] if self.namespace in (None, r["namespace"])]
        if self.names:
            return [_standing(name, _named(rows, name), goal) for name in self.names]
        kept = [row for row in rows if not goal.type or not _is_removed(row)]
        return [_standing(name_of(key_text(row)), row, goal) for row in kept]


def _named(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return the resource with a name, a service or job rather than another; None if there is none."""
    found = [row for row in rows if matches(row, name)]
    found = [row for row in found if row["kind"] in WORKLOADS] or found
    if len(found) > 1:
        keys = ", ".join(map(key_text, found))
        code = AMBIGUOUS.get(found[0]["kind"], AMBIGUOUS["Service"])
        raise StateError(code, f"{name} means {keys}", remedy="write NAMESPACE/NAME")
    return found[0] if found else None


def _is_removed(resource: dict[str, Any]) -> bool:
    """Return True if nothing declares a resource, and its removal is only a matter of time."""
    return any(c["type"] == "Quarantined" and c["status"] == "True" for c in resource["conditions"])


def _standing(name: str, resource: dict[str, Any] | None, goal: Goal) -> Awaited:
    if resource is None:
        return Awaited(name, not goal.type, "gone" if not goal.type else "isn't there yet")
    parts = (
        word_of(resource),
        f"{ready_of(resource)} ready" if resource["kind"] == "Service" else "",
        message_of(resource),
    )
    return Awaited(name, goal.is_met(resource), ", ".join(filter(None, parts)), resource)


def reports(state: StateFolder, deadline: float) -> Iterator[dict[str, Any] | EngineUnavailable]:
    """Yield the status, and each changed one until *deadline*, by ``time.monotonic``.

    While no controller answers, yields why.
    """
    version, left_s = "", 0.0
    while True:
        asked = time.monotonic()
        question: dict[str, object] = {
            "do": "status",
            "unless": version,
            "wait_s": min(WAIT_S, left_s) if version else 0.0,
        }
        try:
            answer = ask_controller(state.controller_socket, question, timeout_s=WAIT_S + ANSWER_S)
        except EngineUnavailable as error:
            version = ""
            yield error
        else:
            if not answer.get("unchanged"):
                version = answer.pop("version", "")
                yield dict(answer)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(max(0.0, min(PAUSE_S - (time.monotonic() - asked), left_s)))


@command("""\b
Examples:
  trimtab wait web                                      until all its replicas are ready
  trimtab wait --for=delete web --timeout 60s           until it is gone
  trimtab wait --for=condition=Complete shop/migrate    until a job has succeeded
  trimtab wait -n shop --all                            until a whole project is ready
  trimtab source sync shop && trimtab wait web api --timeout 10m

\b
Exit codes: 0 met, 1 an error or nothing ran until the end, 5 not in time.
""")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_names)
@project_option
@click.option("--all", "everything", is_flag=True, help="All resources, or all of the namespace.")
@click.option(
    "--for",
    "goal",
    metavar="WHAT",
    default="Ready",
    show_default=True,
    callback=lambda _context, _option, value: Goal.parse(value),
    help="Ready, delete, condition=TYPE or condition=TYPE=VALUE, such as condition=Degraded=False.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="DURATION",
    default="5m",
    show_default=True,
    callback=lambda _context, _option, value: duration_ms(value) / 1000,
    help="How long to wait: 30s, 5m, 1h; 0s looks once.",
)
def wait(
    names: tuple[str, ...],
    namespace: str | None,
    everything: bool,
    goal: Goal,
    timeout_s: float,
    state: Path | None,
    as_json: bool,
) -> int:
    """Wait until resources are ready, have another condition, or are gone.

    What isn't there yet is waited for, also trimtab itself. A condition counts once the newest document
    is in force. A name is NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME.
    """
    if bool(names) == everything and (names or namespace is None):
        raise click.UsageError("name resources, or a namespace with -n NAMESPACE, or --all")
    folder, _ = open_state(state)
    choice = Choice(tuple(dict.fromkeys(names)), namespace)
    standings, lost, told = list[Awaited](), None, ProgressLine()
    met = False
    try:
        for report in reports(folder, time.monotonic() + timeout_s):
            if isinstance(report, EngineUnavailable):
                lost = report
                told.show(f"waiting: {report.message}")
                continue
            lost = None
            if "unread" in report:
                continue
            standings = choice.standings(report, goal)
            left = [each for each in standings if not each.met]
            met = not left and (bool(standings) or not goal.type)
            if met:
                break
            told.show("; ".join(f"{each.name}: {each.text}" for each in left) or "nothing is there")
    finally:
        told.show("")
    if lost is not None and not standings:
        raise lost
    if as_json:
        print_json({"met": met, "resources": [_row_json(each) for each in standings]})
    else:
        for each in standings:
            echo(printable(f"{each.name}: {'met' if each.met else f'not in time: {each.text}'}"))
    return 0 if met else EXIT_NOT_CONVERGED


def _row_json(standing: Awaited) -> dict[str, object]:
    return {"name": standing.name, "met": standing.met, "resource": standing.resource}
