"""``approve``: an operator lets go what the guard and the gate hold back of a plan."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from controller.cli.api import BrokerApi, ask_controller
from controller.cli.common import (
    json_option,
    open_state,
    print_json,
    shorten,
    state_option,
    table,
)
from controller.cli.look import render_status
from controller.cli.plan import duration_s, exit_code_of
from controller.core.blast import OBJECTS_MAX
from controller.model.errors import UsageError
from controller.settings import State

#: How long the controller may need to plan.
PLAN_S = 60.0
ANSWER_S = 30.0


@click.command(
    epilog="""\b
Examples:
  trimtab approve                    show what waits, ask, and let it go
  trimtab approve DIGEST --yes       exactly the plan that was reviewed, without asking

\b
Exit codes: 0 converged (or nothing waits), 1 not confirmed, 3 invalid files, 4 something is
refused, 5 not converged in time.
"""
)
@click.argument("digest", metavar="[PLAN-DIGEST]", required=False, default="")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--note", default="", help="Why; it goes into the journal.")
@click.option(
    "--timeout", "timeout_s", default="5m", show_default=True, callback=duration_s, help="How long."
)
@state_option
@json_option
def approve(
    digest: str, yes: bool, note: str, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Let the running controller take down what PrunePending or blast.radius hold back.

    Shows the containers that would go, and records the approval with the broker: for these
    containers, each once, as part of this plan, for an hour.
    """
    found, _ = open_state(state)
    shown = _shown(found, digest)
    if not shown["going"]:
        if as_json:
            print_json({"plan": shown["plan"]["digest"], "approved": []})
        else:
            click.echo("Nothing waits for an approval.")
        return 0
    if not as_json:
        _tell(shown)
    if not yes:
        _confirm()
    more = _record(found, shown, note=note)
    question = {"do": "pass", "timeout_s": timeout_s, "on_behalf_of": _who(), **more}
    answer = ask_controller(found.controller_socket, question, timeout_s=timeout_s + ANSWER_S)
    if as_json:
        print_json({"plan": shown["plan"]["digest"], "approved": shown["going"], **answer})
    else:
        click.echo(render_status(answer["status"]))
    return exit_code_of(answer)


def approving(digest: str, *, tell: bool) -> Callable[[State], dict[str, object]]:
    """Return what ``apply --approve-prune`` does before its pass: show, and record the approval."""

    def record(state: State) -> dict[str, object]:
        shown = _shown(state, digest)
        if not shown["going"]:
            return {}
        if tell:
            _tell(shown)
        return _record(state, shown, note="apply --approve-prune")

    return record


def _shown(state: State, digest: str) -> Any:
    """Return the controller's plan, with what an approval of it is about.

    Raises:
        UsageError: it is another one than *digest*.
    """
    shown = ask_controller(state.controller_socket, {"do": "plan"}, timeout_s=PLAN_S)
    now = shown["plan"]["digest"]
    if digest and digest != now:
        raise UsageError(
            "plan.changed",
            f"the plan is {now} now, not {digest}",
            remedy="look at it again with 'trimtab plan'",
        )
    return shown


def _tell(shown: Any) -> None:
    rows = [(one["service"], one["container"], shorten(one["why"])) for one in shown["going"]]
    click.echo(table(("SERVICE", "CONTAINER", "WHY"), rows))
    click.echo(f"plan {shown['plan']['digest']}")


def _confirm() -> None:
    """Ask the person at the terminal.

    Raises:
        UsageError: nobody is there.
        Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "approve.unconfirmed",
            "nobody is there to confirm it",
            remedy="read what would go, and repeat it with --yes",
        )
    click.confirm("Let these containers be taken down?", abort=True)


def _record(state: State, shown: Any, *, note: str) -> dict[str, object]:
    """Record the approval with the broker, and return what the controller is asked.

    Raises:
        Refused: the caller is no operator.
    """
    plan = shown["plan"]["digest"]
    objects = [one["id"] for one in shown["going"]]
    api = BrokerApi(state.broker_socket)
    for first in range(0, len(objects), OBJECTS_MAX):
        part = objects[first : first + OBJECTS_MAX]
        told = {"act": "approve", "plan": plan, "objects": part, "note": note[:512]}
        api.post("records", told)
    return {"approve_prune": True, "approved": plan}


def _who() -> str:
    return f"uid:{os.getuid()} {os.environ.get('SUDO_USER', '')}".strip()
