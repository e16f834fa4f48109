"""``plan``, ``snapshot`` and ``apply``: show the changes, here or elsewhere, and make them once."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.exit_codes import (
    EXIT_INVALID,
    EXIT_NOT_CONVERGED,
    EXIT_PENDING,
    EXIT_REFUSED,
)
from controller.cli.options import (
    calling_user,
    command,
    default_directory,
    directory_argument,
    paint,
    policy_option,
    print_json,
    rebind_option,
    state_root,
    timeout_option,
)
from controller.cli.output.excerpts import excerpts
from controller.cli.output.tables import terminal_width
from controller.cli.status.pass_result import exit_code_of, show_done
from controller.model.quantities import format_duration_ms

if TYPE_CHECKING:
    from controller.model.desired.field_changes import Review

once_engine_option = click.option(
    "--engine", metavar="URL", help="The engine's socket, when nothing runs yet."
)


@command("""\b
Examples:
  trimtab plan
  trimtab plan -v                  also each action, with the policy's verdict and what it fills in
  trimtab plan --json | jq -r '.objects[] | .object + " " + .effect'
  trimtab plan desired-state --json | jq '.actions[] | .action + " " + .cause'
  trimtab plan --against deploy --markdown                        for a comment on a pull request
  trimtab plan --against deploy --snapshot host.json --markdown   the same, on another machine

\b
Exit codes: 0 nothing to do, 2 changes pending, 3 invalid files, 4 something is refused.
""")
@directory_argument
@once_engine_option
@policy_option
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Plan for the files in DIR, such as a checked-out pull request.",
)
@click.option(
    "--snapshot",
    "snapshot_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Plan for the host of a snapshot, without an engine or an instance.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown, for a comment.")
@click.option("-v", "--verbose", is_flag=True, help="Show each action and all fields, too.")
def plan(
    directory: Path | None,
    engine: str | None,
    policy: str | None,
    against: Path | None,
    snapshot_file: Path | None,
    markdown: bool,
    verbose: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show the changes: fields, replicas, the steps in order, and the interruptions.

    Changes nothing. If no instance runs, a broker runs until the command ends.
    """
    from controller.core.review.plan_json import review_json
    from controller.core.review.plan_markdown import render_markdown
    from controller.core.review.plan_text import render_review

    root = state_root(state)
    folder = default_directory(against or directory, root)
    if against is not None or snapshot_file is not None:
        review, title = _review_against(root, folder, snapshot_file, engine, policy)
    else:
        from controller.cli.clients import oneshot

        review = oneshot.make_review(root, directory=folder, engine=engine, policy=policy)
        title = f"trimtab plan on {platform.node()}"
    if as_json:
        print_json(review_json(review))
    elif markdown:
        click.echo(render_markdown(review, title=title))
    else:
        width, excerpt = terminal_width(), excerpts(folder)
        text = render_review(review, width=width, paint=paint, verbose=verbose, excerpt=excerpt)
        click.echo(text.rstrip())
        click.echo(f"digest {review.plan.digest}")
    if any(problem.severity == "error" for problem in review.plan.problems):
        return EXIT_INVALID
    if any(action.verdict.decision == "deny" for action in review.plan.actions):
        return EXIT_REFUSED
    return EXIT_PENDING if review.plan.pending or review.plan.blocked else 0


def _review_against(
    root: Path, directory: Path, file: Path | None, engine: str | None, policy: str | None
) -> tuple[Review, str]:
    """Return the review of other files for this host, or for the host of a snapshot; and a title."""
    from controller.cli.clients.snapshots import review_snapshot, take_snapshot
    from controller.core.review.host_snapshot import read_snapshot

    if file is None:
        snapshot = take_snapshot(root, directory=directory, engine=engine, policy=policy)
    else:
        with file.open("rb") as opened:
            snapshot = read_snapshot(opened)
    title = f"trimtab plan on {snapshot.host}, as of {snapshot.taken}"
    return review_snapshot(snapshot, directory), title


@command("""\b
Examples:
  trimtab snapshot > host.json
  trimtab plan --against deploy --snapshot host.json       on another machine, without an engine
""")
@directory_argument
@once_engine_option
@policy_option
def snapshot(
    directory: Path | None,
    engine: str | None,
    policy: str | None,
    state: Path | None,
    as_json: bool,  # noqa: ARG001 - a snapshot is JSON
) -> int:
    """Print what a plan needs to know of this host, as JSON.

    The containers, the policy and the controller's memory, without values that can be secret:
    no values of variables and labels, no commands and arguments.
    """
    from controller.cli.clients.snapshots import take_snapshot
    from controller.core.review.host_snapshot import to_json

    root = state_root(state)
    folder = default_directory(directory, root)
    print_json(to_json(take_snapshot(root, directory=folder, engine=engine, policy=policy)))
    return 0


@command("""\b
Examples:
  trimtab apply desired-state --timeout 2m
  trimtab apply --plan DIGEST            exactly the plan that was reviewed, or nothing
  trimtab apply --approve-prune          also remove what the prune guard holds back

\b
Exit codes: 0 converged, 3 invalid files, 4 something is refused, 5 not converged in time.
""")
@directory_argument
@timeout_option("How long to wait for convergence")
@click.option("--plan", "digest", metavar="DIGEST", help="Apply only the plan of this digest.")
@click.option("--approve-prune", is_flag=True, help="Also approve the removals of PrunePending.")
@rebind_option
@click.option("-v", "--verbose", is_flag=True, help="List all resources at the end.")
@once_engine_option
@policy_option
def apply(
    directory: Path | None,
    timeout_s: float,
    digest: str | None,
    approve_prune: bool,
    verbose: bool,
    state: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Converge once and exit. Shows the steps on stderr, then the changes and the unready resources.

    If a controller runs, the command asks for a pass and waits. Else a broker and a controller run
    until the command ends, as for 'up'.
    """
    from controller.cli.clients import oneshot
    from controller.cli.clients.wait_for_pass import in_silence, show_changes, showing_progress
    from controller.cli.commands.approve import approving

    root = state_root(state)
    question: dict[str, object] = {
        "do": "pass",
        "timeout_s": timeout_s,
        "approve_prune": approve_prune,
        "plan": digest or "",
        "on_behalf_of": calling_user(),
    }
    answer = oneshot.ask_for_pass(
        root,
        question,
        directory=default_directory(directory, root),
        timeout_s=timeout_s,
        approve=approving(digest or "", verbose=not as_json) if approve_prune else None,
        waiting=in_silence if as_json else showing_progress,
        announce=oneshot.announce_nothing if as_json else show_changes,
        **settings,
    )
    if as_json:
        print_json(answer)
    else:
        show_done(answer, verbose=verbose)
    code = exit_code_of(answer)
    if code == EXIT_NOT_CONVERGED and not as_json:
        click.echo(why_not_converged(answer, timeout_s), err=True)
    return code


def why_not_converged(answer: dict[str, Any], timeout_s: float) -> str:
    """Return the unready resources after an apply, and the next step."""
    names = [
        f"{resource['kind']}/{resource['namespace']}/{resource['name']}"
        for resource in answer["status"]["resources"]
        if any(c["type"] == "Ready" and c["status"] != "True" for c in resource["conditions"])
    ]
    left = f": {', '.join(names)}" if names else ""
    if answer.get("stuck"):
        remedy = "act on what the status says, then run 'trimtab apply' again"
        return f"not converged, and nothing more happens by itself{left} ({remedy})"
    within = format_duration_ms(round(timeout_s * 1000))
    return f"not converged within {within}{left} (run it again, or with a longer --timeout)"
