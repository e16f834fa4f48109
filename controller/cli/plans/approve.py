"""``approve``: an operator approves removals that the prune guard or the gate holds back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.clients.socket_client import PLAN_S, BrokerApi, ask_controller
from controller.cli.clients.wait_for_pass import in_silence, showing_progress
from controller.cli.options import (
    calling_user,
    command,
    note_option,
    open_state,
    print_json,
    print_result,
    timeout_option,
)
from controller.cli.output.tables import table
from controller.cli.plans.apply_exit_code import apply_exit_code
from controller.cli.plans.apply_result import show_done
from controller.core.enforcement.disruption_budget import OBJECTS_MAX
from controller.model.errors import TrimtabError, UsageError
from controller.settings import StateFolder

if TYPE_CHECKING:
    from controller.cli.clients.oneshot import Approve, Ask

ANSWER_S = 30.0
#: Approvals of the current plan, when the rest of the plan changes in the meantime.
TRIES = 5


@command("""\b
Examples:
  trimtab approve                    show what waits, ask, and let it go
  trimtab approve DIGEST --yes       exactly the plan that was reviewed, without asking

\b
Exit codes: 0 converged (or nothing waits), 1 not confirmed, 3 invalid files, 4 something is
refused, 5 not converged in time.
""")
@click.argument("digest", metavar="[PLAN-DIGEST]", required=False, default="")
@click.option("--yes", is_flag=True, help="Don't ask.")
@note_option
@timeout_option("How long to wait for convergence")
def approve(
    digest: str, yes: bool, note: str, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Approve removals that PrunePending or blast.radius hold back.

    Shows the containers to be removed, and records the approval with the broker. The approval
    holds for these containers, once each, as part of this plan, for an hour.
    """
    folder, _ = open_state(state)
    pending = _pending(folder, digest)
    if not pending["going"]:
        nothing = {"plan": pending["plan"]["digest"], "approved": []}
        print_result(nothing, "Nothing waits for an approval.", as_json=as_json)
        return 0
    if not as_json:
        _print_pending(pending)
    if not yes:
        _confirm()
    question = {"do": "pass", "timeout_s": timeout_s, "on_behalf_of": calling_user()}

    def ask(more: dict[str, object]) -> Any:
        socket = folder.controller_socket
        with in_silence(socket) if as_json else showing_progress(socket):
            return ask_controller(socket, {**question, **more}, timeout_s=timeout_s + ANSWER_S)

    approved, answer = _approve_and_run(folder, pending, ask, exactly=bool(digest), note=note)
    if as_json:
        print_json({"plan": approved["plan"]["digest"], "approved": approved["going"], **answer})
    else:
        show_done(answer)
    return apply_exit_code(answer)


def approving(digest: str, *, verbose: bool) -> Approve:
    """Return the approval of ``apply --approve-prune``.

    The approval prints the removals if *verbose*, records them, and asks for the pass.
    """

    def approve(state: StateFolder, ask: Ask) -> Any:
        pending = _pending(state, digest)
        if not pending["going"]:
            return ask({})
        if verbose:
            _print_pending(pending)
        note = "apply --approve-prune"
        return _approve_and_run(state, pending, ask, exactly=bool(digest), note=note)[1]

    return approve


def _approve_and_run(
    state: StateFolder, pending: Any, ask: Ask, *, exactly: bool, note: str
) -> tuple[Any, dict[str, Any]]:
    """Record the approval and ask for a pass; return the approved plan and the answer.

    The controller keeps working, and each of its actions changes the plan. Unless *exactly* this
    plan is required, the current plan is approved instead, if it removes no other containers. It
    removes fewer if the controller was permitted to remove some of them by then.

    Raises:
        TrimtabError: the pass is refused; ``plan.changed``: other containers would be removed.
    """
    for left in reversed(range(TRIES)):
        try:
            return pending, ask(_record(state, pending, note=note))
        except TrimtabError as error:
            if error.code != "plan.changed" or exactly or not left:
                raise
            approved, pending = pending, _pending(state, "")
            if not _container_ids(pending) <= _container_ids(approved):
                raise
            if not pending["going"]:
                return pending, ask({})
    raise AssertionError("the last try returns or raises")


def _container_ids(pending: Any) -> frozenset[str]:
    return frozenset(container["id"] for container in pending["going"])


def _pending(state: StateFolder, digest: str) -> Any:
    """Return the controller's plan, and in ``going`` the removals that need an approval.

    Raises:
        UsageError: the plan's digest isn't *digest*.
    """
    pending = ask_controller(state.controller_socket, {"do": "plan"}, timeout_s=PLAN_S)
    now = pending["plan"]["digest"]
    if digest and digest != now:
        raise UsageError(
            "plan.changed",
            f"the plan is {now} now, not {digest}",
            remedy="look at it again with 'trimtab plan'",
        )
    return pending


def _print_pending(pending: Any) -> None:
    rows = [(row["service"], row["container"], row["why"]) for row in pending["going"]]
    click.echo(table(("SERVICE", "CONTAINER", "WHY"), rows))
    click.echo(f"plan {pending['plan']['digest']}")


def _confirm() -> None:
    """Ask for a confirmation on the terminal.

    Raises:
        UsageError: standard input isn't a terminal.
        Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "approve.unconfirmed",
            "the approval isn't confirmed, and standard input isn't a terminal",
            remedy="check the listed containers, and repeat the command with --yes",
        )
    click.confirm("Approve the removal of these containers?", abort=True)


def _record(state: StateFolder, pending: Any, *, note: str) -> dict[str, object]:
    """Record the approval with the broker, and return the arguments of the approved pass.

    Raises:
        Refused: the caller isn't an operator.
    """
    plan = pending["plan"]["digest"]
    objects = sorted(_container_ids(pending))
    api = BrokerApi(state.broker_socket)
    for first in range(0, len(objects), OBJECTS_MAX):
        part = objects[first : first + OBJECTS_MAX]
        approval = {"act": "approve", "plan": plan, "objects": part, "note": note[:512]}
        api.post("records", approval)
    return {"approve_prune": True, "approved": plan}
