"""``approve``: an operator lets go what the guard and the gate hold back of a plan."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.clients.socket_client import PLAN_S, BrokerApi, ask_controller
from controller.cli.clients.wait_for_pass import in_silence, showing_progress
from controller.cli.options import (
    duration_s,
    json_option,
    open_state,
    print_json,
    state_option,
)
from controller.cli.output.tables import table
from controller.cli.status.pass_result import exit_code_of, show_done
from controller.core.enforcement.disruption_budget import OBJECTS_MAX
from controller.model.errors import TrimtabError, UsageError
from controller.settings import StateFolder

if TYPE_CHECKING:
    from controller.cli.clients.oneshot import Approve, Ask

ANSWER_S = 30.0
#: How often an approval is given anew because the rest of the plan changed under it.
TRIES = 5


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
    "--timeout",
    "timeout_s",
    default="5m",
    show_default=True,
    callback=duration_s,
    metavar="DURATION",
    help="How long to wait until all is as declared: 30s, 5m, 1h.",
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
    question = {"do": "pass", "timeout_s": timeout_s, "on_behalf_of": _who()}

    def ask(more: dict[str, object]) -> Any:
        socket = found.controller_socket
        with in_silence(socket) if as_json else showing_progress(socket):
            return ask_controller(socket, {**question, **more}, timeout_s=timeout_s + ANSWER_S)

    shown, answer = _let_go(found, shown, ask, exactly=bool(digest), note=note)
    if as_json:
        print_json({"plan": shown["plan"]["digest"], "approved": shown["going"], **answer})
    else:
        show_done(answer)
    return exit_code_of(answer)


def approving(digest: str, *, tell: bool) -> Approve:
    """Return how ``apply --approve-prune`` asks for its pass: it shows what goes, and approves it."""

    def approve(state: StateFolder, ask: Ask) -> Any:
        shown = _shown(state, digest)
        if not shown["going"]:
            return ask({})
        if tell:
            _tell(shown)
        note = "apply --approve-prune"
        return _let_go(state, shown, ask, exactly=bool(digest), note=note)[1]

    return approve


def _let_go(
    state: StateFolder, shown: Any, ask: Ask, *, exactly: bool, note: str
) -> tuple[Any, dict[str, Any]]:
    """Record the approval of what is shown, and ask for the pass; return what held, and the answer.

    The controller works on meanwhile, and each thing that it does makes its plan another one. So
    unless *exactly* this plan was asked for, the plan of now is approved in its place, for as long
    as the very same containers go.

    Raises:
        TrimtabError: the pass is refused; ``plan.changed``: something else would go by now.
    """
    for left in reversed(range(TRIES)):
        try:
            return shown, ask(_record(state, shown, note=note))
        except TrimtabError as error:
            if error.code != "plan.changed" or exactly or not left:
                raise
            now = _shown(state, "")
            if _going(now) != _going(shown):
                raise
            shown = now
    raise AssertionError("the last try returns or raises")


def _going(shown: Any) -> frozenset[str]:
    return frozenset(one["id"] for one in shown["going"])


def _shown(state: StateFolder, digest: str) -> Any:
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
    rows = [(one["service"], one["container"], one["why"]) for one in shown["going"]]
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


def _record(state: StateFolder, shown: Any, *, note: str) -> dict[str, object]:
    """Record the approval with the broker, and return what the controller is asked.

    Raises:
        Refused: the caller is no operator.
    """
    plan = shown["plan"]["digest"]
    objects = sorted(_going(shown))
    api = BrokerApi(state.broker_socket)
    for first in range(0, len(objects), OBJECTS_MAX):
        part = objects[first : first + OBJECTS_MAX]
        told = {"act": "approve", "plan": plan, "objects": part, "note": note[:512]}
        api.post("records", told)
    return {"approve_prune": True, "approved": plan}


def _who() -> str:
    return f"uid:{os.getuid()} {os.environ.get('SUDO_USER', '')}".strip()
