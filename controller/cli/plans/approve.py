"""``approve``: an operator approves removals that the prune guard or the gate holds back.

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
from controller.cli.clients.wait_for_pass import in_silence, showing_progress
from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.output.tables import table
from controller.cli.output.terminal import confirm_approval, echo
from controller.cli.plans.apply_result import apply_exit_code, show_done
from controller.core.encoding.terminal_text import printable
from controller.core.enforcement.approval_requests import OBJECTS_MAX
from controller.core.enforcement.approvals import OBJECT_MAX
from controller.model.errors import TrimtabError, UsageError
from controller.model.names import service_key
from controller.settings import StateFolder

if TYPE_CHECKING:
    from controller.cli.clients.oneshot import Approve, Ask

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
