"""``apply`` and ``approve``: make changes once, or allow those that are held back.

``apply``: make the changes once, wait for convergence, and exit with its code.

The result of ``apply`` and ``approve``: exit code, summary line, and the unready resources.

``approve``: an operator approves removals that the prune guard or the gate holds back.

The controller says which objects wait. The broker says what these objects are: the command shows the
broker's words, and the controller's reasons as claims. The approval names the digest of what the
broker showed, so it holds for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import options
from controller.cli.clients.socket_client import PLAN_S, BrokerApi, ask_controller
from controller.cli.clients.status_report import in_silence, show_changes, showing_progress
from controller.cli.exit_codes import EXIT_INVALID, EXIT_NOT_CONVERGED, EXIT_REFUSED
from controller.cli.output.tables import table, terminal_width
from controller.cli.output.terminal import confirm_approval, echo
from controller.cli.status.table import is_settled, render_problems, show_status
from controller.core.encoding.text import printable
from controller.core.enforcement.approvals import OBJECT_MAX, OBJECTS_MAX
from controller.model.errors import TrimtabError, UsageError
from controller.model.names import service_key
from controller.model.quantities import format_duration_ms, format_elapsed_ms
from controller.settings import StateFolder

if TYPE_CHECKING:
    from controller.cli.clients.oneshot import Approve, Ask


def apply_exit_code(answer: dict[str, Any]) -> int:
    """Return the exit code of ``apply`` and ``approve`` for the controller's answer."""
    status = answer["status"]
    if any(problem["severity"] == "error" for problem in status["problems"]):
        return EXIT_INVALID
    conditions = [c for r in status["resources"] for c in r["conditions"] if c["status"] == "True"]
    if any(c["type"] == "PolicyViolation" for c in conditions):
        return EXIT_REFUSED
    return 0 if answer["converged"] else EXIT_NOT_CONVERGED


def show_done(answer: dict[str, Any], *, verbose: bool = False) -> None:
    """Print the summary of a pass and the unready resources; all resources if *verbose*."""
    echo(printable(done_text(answer)))
    status = answer["status"]
    unsettled = [resource for resource in status["resources"] if not is_settled(resource)]
    resources = status["resources"] if verbose else unsettled
    if resources:
        show_status({**status, "resources": resources})
    else:
        for line in render_problems(status["problems"], width=terminal_width()):
            echo(line)


def done_text(answer: dict[str, Any]) -> str:
    """Return the summary of a pass in one line."""
    duration = format_elapsed_ms(round(answer["seconds"] * 1000))
    summary = answer["summary"]["text"]
    if not answer["converged"]:
        recently = (
            f"; done within the last minute: {answer['recently']}" if "recently" in answer else ""
        )
        return f"Done in {duration}: {summary}{recently}."
    if answer["acts"]:
        return f"Applied in {duration}: {summary}."
    if "recently" in answer:
        return f"Nothing left to do; done within the last minute: {answer['recently']}."
    return "Nothing to do."


@options.command("""\b
Examples:
  trimtab apply desired-state --timeout 2m
  trimtab apply --plan DIGEST            exactly the plan that was reviewed, or nothing
  trimtab apply --approve-prune          also remove what the prune guard holds back

\b
Exit codes: 0 as declared, 3 invalid files, 4 something is refused, 5 not converged in time, or something
isn't as declared and stays so (rolled back, in a crash loop, suspended with a changed document).
""")
@options.directory_argument
@options.timeout_option("How long to wait for convergence")
@click.option("--plan", "digest", metavar="DIGEST", help="Apply only the plan of this digest.")
@click.option(
    "--approve-prune",
    is_flag=True,
    help="Also approve removals of containers (PrunePending). A volume needs 'trimtab approve'.",
)
@options.rebind_option
@click.option("-v", "--verbose", is_flag=True, help="List all resources at the end.")
@options.once_engine_option
@options.policy_option
def apply(
    directory: Path | None,
    timeout_s: float,
    digest: str | None,
    approve_prune: bool,
    rebind: bool,
    verbose: bool,
    state: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Converge once and exit. Shows the steps on stderr, then the changes and the unready resources.

    Waits until each rollout has been healthy for its minHealthy, or was rolled back.

    If a controller runs, the command asks for a pass and waits. Else a broker and a controller run
    until the command ends, as for 'up'.
    """
    from controller.cli.clients import oneshot

    root = options.state_root(state)
    question: dict[str, object] = {
        "do": "pass",
        "timeout_s": timeout_s,
        "approve_prune": approve_prune,
        "plan": digest or "",
        "on_behalf_of": options.calling_user(),
        "output": True,
    }
    host = options.HostChoice(root, options.default_directory(directory, root), **settings)
    approve: Approve | None = None
    if approve_prune:
        approve = approving(digest or "", verbose=not as_json)
    answer = oneshot.ask_for_pass(
        host,
        question,
        rebind=rebind,
        timeout_s=timeout_s,
        approve=approve,
        waiting=in_silence if as_json else showing_progress,
        announce=(lambda _objects: None) if as_json else show_changes,
    )
    if as_json:
        options.print_json(answer)
    else:
        show_done(answer, verbose=verbose)
    code = apply_exit_code(answer)
    if code == EXIT_NOT_CONVERGED and not as_json:
        echo(printable(why_not_converged(answer, timeout_s)), err=True)
    return code


def why_not_converged(answer: dict[str, Any], timeout_s: float) -> str:
    """Return the resources that aren't as declared after an apply, and the next step."""
    names = [
        each["object"]
        if each["condition"] == "Ready"
        else f"{each['object']} ({each['condition']})"
        for each in answer.get("unmet", ())
    ]
    left = f": {', '.join(names)}" if names else ""
    if answer.get("stuck"):
        remedy = "act on what the status says, then run 'trimtab apply' again"
        return f"not converged, and nothing more happens by itself{left} ({remedy})"
    within = format_duration_ms(round(timeout_s * 1000))
    return f"not converged within {within}{left} (run it again, or with a longer --timeout)"


ANSWER_S = 30.0
#: Approvals of the current plan, when the rest of the plan changes in the meantime.
TRIES = 5
#: The codes of an approval or a pass that came too late.
_CHANGED = frozenset({"plan.changed", "approval.changed", "approval.unknown"})
_CLAIM = "THE CONTROLLER SAYS"


@dataclass(frozen=True, slots=True)
class Pending:
    """The objects that wait for an approval."""

    plan: str
    #: Objects of the broker's inventory: the broker's words, and the controller's as ``why``.
    objects: tuple[dict[str, Any], ...]
    #: Objects that can't be approved: ``id``, the broker's reason as ``reason``, and ``why``.
    unknown: tuple[dict[str, Any], ...]
    #: The digests of what the broker showed, each with its objects.
    shown: tuple[tuple[str, tuple[str, ...]], ...]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects of a kind: ``container``, ``move`` or ``volume``."""
        return [each for each in self.objects if each["kind"] == kind]

    def to_json(self) -> dict[str, object]:
        """Return the members of ``approve --json``."""
        return {
            "plan": self.plan,
            "shown": [digest for digest, _ in self.shown],
            "approved": list(self.objects),
            "unknown": list(self.unknown),
        }


@options.command("""\b
Examples:
  trimtab approve                    show what waits, ask, and let it go
  trimtab approve DIGEST --yes       exactly the plan that was reviewed, without asking

\b
Exit codes: 0 converged (or nothing waits), 1 not confirmed, 3 invalid files, 4 something is
refused, 5 not converged in time.
""")
@click.argument("digest", metavar="[PLAN-DIGEST]", required=False, default="")
@click.option("--yes", is_flag=True, help="Don't ask.")
@options.note_option
@options.timeout_option("How long to wait for convergence")
def approve(
    digest: str, yes: bool, note: str, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Approve removals that PrunePending or blast.radius hold back.

    Shows the objects to be removed as the broker knows them, and records the approval. The approval
    holds for these objects as shown, once each, as part of this plan, for an hour. The controller's
    reasons are shown as its claims: nothing proves them.
    """
    folder, _ = options.open_state(state)
    pending = _pending(folder, digest)
    if not pending.objects and not pending.unknown:
        options.print_result(pending.to_json(), "Nothing waits for an approval.", as_json=as_json)
        return 0
    if not as_json or not yes:
        # A question is never asked without the list: with --json, the list goes to stderr.
        echo("\n".join(_lines(pending)), err=as_json)
    if not pending.objects:
        options.print_result(pending.to_json(), "Nothing of this can be approved.", as_json=as_json)
        return EXIT_REFUSED
    if not yes:
        _confirm(pending)
    question = {
        "do": "pass",
        "timeout_s": timeout_s,
        "on_behalf_of": options.calling_user(),
        "output": True,
    }

    def ask(more: dict[str, object]) -> Any:
        socket = folder.controller_socket
        with in_silence(socket) if as_json else showing_progress(socket):
            return ask_controller(socket, {**question, **more}, timeout_s=timeout_s + ANSWER_S)

    approved, answer = _approve_and_run(folder, pending, ask, exactly=bool(digest), note=note)
    if as_json:
        options.print_json({**approved.to_json(), **answer})
    else:
        show_done(answer)
    return apply_exit_code(answer)


def approving(digest: str, *, verbose: bool) -> Approve:
    """Return the approval of ``apply --approve-prune``.

    The approval prints the removals if *verbose*, records them, and asks for the pass. Nobody is
    asked, so the approval covers no volume and no move.
    """

    def approve(state: StateFolder, ask: Ask) -> Any:
        pending = _pending(state, digest, with_volumes=False)
        if verbose and (pending.objects or pending.unknown):
            echo("\n".join(_lines(pending)))
        if not pending.objects:
            return ask({})
        note = "apply --approve-prune"
        again = {"with_volumes": False}
        return _approve_and_run(state, pending, ask, exactly=bool(digest), note=note, **again)[1]

    return approve


def _approve_and_run(
    state: StateFolder,
    pending: Pending,
    ask: Ask,
    *,
    exactly: bool,
    note: str,
    with_volumes: bool = True,
) -> tuple[Pending, dict[str, Any]]:
    """Record the approval and ask for a pass; return the approved objects and the answer.

    The controller keeps working, and each of its actions changes the plan. Unless *exactly* this
    plan is required, the current plan is approved instead, if the broker shows no other objects and
    the same about each. There are fewer objects if the controller was permitted to remove some of
    them by then.

    Raises:
        TrimtabError: the pass is refused; ``plan.changed``: other objects would be removed;
            ``approval.changed``: an object isn't as shown any more.
    """
    for left in reversed(range(TRIES)):
        try:
            return pending, ask(_record(state, pending, note=note))
        except TrimtabError as error:
            if error.code not in _CHANGED or exactly or not left:
                raise
            approved, pending = pending, _pending(state, "", with_volumes=with_volumes)
            if not _facts_of(pending) <= _facts_of(approved):
                raise
            if not pending.objects:
                return pending, ask({})
    raise AssertionError("the last try returns or raises")


def _facts_of(pending: Pending) -> frozenset[tuple[tuple[str, str], ...]]:
    """Return the broker's words about each object, without the controller's claim."""
    return frozenset(
        tuple(sorted((name, repr(value)) for name, value in each.items() if name != "why"))
        for each in pending.objects
    )


def _pending(state: StateFolder, digest: str, *, with_volumes: bool = True) -> Pending:
    """Return the removals of the controller's plan that need an approval, as the broker has them.

    Raises:
        UsageError: the plan's digest isn't *digest*.
        Refused: the caller isn't an operator.
    """
    answer = ask_controller(state.controller_socket, {"do": "plan"}, timeout_s=PLAN_S)
    now = str(answer["plan"]["digest"])
    if digest and digest != now:
        raise UsageError(
            "plan.changed",
            f"the plan is {now} now, not {digest}",
            remedy="look at it again with 'trimtab plan'",
        )
    claims = {str(row["id"])[:OBJECT_MAX]: str(row.get("why", "")) for row in answer["going"]}
    broker = BrokerApi(state.broker_socket)

    def ask(identifiers: Iterable[str]) -> list[Any]:
        return [
            broker.post("approvals", {"plan": now, "objects": part})
            for part in _batches(identifiers)
        ]

    views = ask(claims)
    objects = [each for view in views for each in view["objects"]]
    unknown = [
        {"id": each["id"], "reason": each["why"], "why": claims.get(each["id"], "")}
        for view in views
        for each in view["unknown"]
    ]
    if not with_volumes:
        reason = "a removal or move of data needs 'trimtab approve'"
        unknown += [
            {"id": each["id"], "reason": reason, "why": claims.get(each["id"], "")}
            for each in objects
            if each["kind"] != "container"
        ]
        objects = [each for each in objects if each["kind"] == "container"]
        views = ask(each["id"] for each in objects)
    return Pending(
        plan=now,
        objects=tuple(_row(each, claims.get(each["id"], "")) for each in objects),
        unknown=tuple(unknown),
        shown=tuple(
            (view["digest"], tuple(each["id"] for each in view["objects"]))
            for view in views
            if view["objects"]
        ),
    )


def _batches(identifiers: Iterable[str]) -> Iterator[list[str]]:
    """Yield the objects of each request, sorted."""
    ordered = sorted(identifiers)
    for first in range(0, len(ordered), OBJECTS_MAX):
        yield ordered[first : first + OBJECTS_MAX]


def _row(shown: dict[str, Any], claim: str) -> dict[str, Any]:
    """Return an object in the form of ``approve --json``; *claim* are the controller's words."""
    is_container = shown["kind"] == "container"
    service = shown["service"]
    return {
        **shown,
        "service": str(service_key(shown["namespace"], service)) if service else "",
        "container": shown["name"] if is_container else "",
        "why": claim,
    }


def _lines(pending: Pending) -> Iterator[str]:
    """Yield the objects: containers, services for other owners, volumes in red, then what can't be approved."""
    if containers := pending.of_kind("container"):
        yield _table(
            ("SERVICE", "CONTAINER", "OWNER", "SINCE", _CLAIM),
            ("service", "container", "owner", "since", "why"),
            containers,
        )
    if moves := pending.of_kind("move"):
        yield "Services that go to another owner, with their containers and what these mount:"
        headers = ("SERVICE", "OWNER", "CONTAINERS AND VOLUMES", _CLAIM)
        yield _table(headers, ("name", "owner", "mounts", "why"), moves)
    if volumes := pending.of_kind("volume"):
        yield click.style("Volumes, with all their data:", fg="red", bold=True)
        text = _table(
            ("VOLUME", "NAMESPACE", "OWNER", "SINCE", "MOUNTED BY", _CLAIM),
            ("name", "namespace", "owner", "since", "mounts", "why"),
            [{**each, "mounts": each["mounts"] or ["-"]} for each in volumes],
        )
        yield from (click.style(line, fg="red") for line in text.split("\n"))
    if pending.unknown:
        yield "These can't be approved:"
        yield _table(("ID", "BECAUSE", _CLAIM), ("id", "reason", "why"), pending.unknown)
    yield f"plan {printable(pending.plan)}"


def _table(
    headers: Sequence[str], members: Sequence[str], objects: Iterable[dict[str, Any]]
) -> str:
    """Return a table with a column for each member; of a list, the names."""
    rows = (
        [", ".join(each[name]) if name == "mounts" else each[name] for name in members]
        for each in objects
    )
    return table(headers, rows)


def _confirm(pending: Pending) -> None:
    """Ask for a confirmation on the terminal.

    Raises:
        UsageError: standard input isn't a terminal.
        Abort: the answer is no.
    """
    parts = []
    if containers := len(pending.of_kind("container")):
        parts.append(options.counted(containers, "container"))
    if volumes := len(pending.of_kind("volume")):
        parts.append(f"{options.counted(volumes, 'volume')} with all data")
    acts = [f"the removal of {' and '.join(parts)}"] if parts else []
    if moves := len(pending.of_kind("move")):
        acts.append(options.counted(moves, "move"))
    confirm_approval(f"Approve {' and '.join(acts)}?", check="the listed containers")


def _record(state: StateFolder, pending: Pending, *, note: str) -> dict[str, object]:
    """Record the approval with the broker, and return the arguments of the approved pass.

    Raises:
        Refused: the caller isn't an operator, or an object isn't as shown any more.
    """
    api = BrokerApi(state.broker_socket)
    approval = {"act": "approve", "plan": pending.plan, "note": note[:512]}
    for digest, objects in pending.shown:
        api.post("records", {**approval, "objects": list(objects), "shown": digest})
    return {"approve_prune": True, "approved": pending.plan}
