"""``plan``: show what would change, here or on the host of a snapshot."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.exit_codes import (
    EXIT_INVALID,
    EXIT_PENDING,
    EXIT_REFUSED,
)
from controller.cli.options import (
    command,
    default_directory,
    directory_argument,
    once_engine_option,
    paint,
    policy_option,
    print_json,
    state_root,
)
from controller.cli.output.excerpts import excerpts
from controller.cli.output.tables import terminal_width
from controller.cli.output.terminal import echo
from controller.model.errors import StateError
from controller.settings import read_instance, state_of

if TYPE_CHECKING:
    from controller.cli.clients.snapshots import PlannedFiles
    from controller.model.desired.field_changes import Review

COMMIT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)


@command("""\b
Examples:
  trimtab plan
  trimtab plan -v                  also each action, with the policy's verdict and what it fills in
  trimtab plan --json | jq -r '.objects[] | .object + " " + .effect'
  trimtab plan desired-state --json | jq '.actions[] | .action + " " + .cause'
  trimtab plan --against deploy --markdown                        for a comment on a pull request
  trimtab plan --against deploy --snapshot host.json --markdown   the same, on another machine
  trimtab plan --against new-web.yaml                             one file, beside all others
  trimtab plan --against 3fa2c81b90de --source shop               a commit that is held, or is to come

\b
Exit codes: 0 nothing to do, 2 changes pending, 3 invalid files, 4 something is refused.
""")
@directory_argument
@once_engine_option
@policy_option
@click.option(
    "--against",
    metavar="FILE|DIR|COMMIT",
    help="Plan for the files in DIR, such as a checked-out pull request, or of a fetched COMMIT; or "
    "for a FILE with documents, in the place of those of the same resources.",
)
@click.option(
    "--source",
    default="",
    metavar="NAME",
    help="With --against: the files, or the commit, are of this Git source, not of the host's directory.",
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
    against: str | None,
    source: str,
    snapshot_file: Path | None,
    markdown: bool,
    verbose: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show the changes: fields, replicas, the steps in order, and the interruptions.

    Changes nothing. If no instance runs, a broker runs until the command ends.
    """
    if source and against is None:
        raise click.UsageError("--source needs --against")
    root = state_root(state)
    overlay = Path(against) if against is not None and Path(against).is_file() else None
    if overlay is not None and (source or snapshot_file is not None):
        raise click.UsageError("with --source or --snapshot, --against needs a folder")
    if snapshot_file is not None and against is not None and not Path(against).is_dir():
        # A commit is in the fetcher of an instance, and a snapshot needs no instance.
        raise click.UsageError("with --snapshot, --against needs a folder: check the commit out")
    with _planned_folder(None if overlay else against, source, root) as planned:
        folder = default_directory(planned or directory, root)
        if against is not None or snapshot_file is not None:
            request = SnapshotRequest(root, None if source else folder, engine, policy)
            from controller.cli.clients.snapshots import PlannedFiles

            files = PlannedFiles(folder.absolute(), source, overlay=overlay)
            review, title = _review_against(files, snapshot_file, request)
        else:
            from controller.cli.clients import oneshot

            review = oneshot.make_review(root, directory=folder, engine=engine, policy=policy)
            title = f"trimtab plan on {platform.node()}"
        _show(review, title, folder, as_json=as_json, markdown=markdown, verbose=verbose)
    if any(problem.severity == "error" for problem in review.plan.problems):
        return EXIT_INVALID
    if any(action.verdict.decision == "deny" for action in review.plan.actions):
        return EXIT_REFUSED
    return EXIT_PENDING if review.plan.pending or review.plan.blocked else 0


def _show(
    review: Review, title: str, folder: Path, *, as_json: bool, markdown: bool, verbose: bool
) -> None:
    from controller.core.review.plan_json import review_json
    from controller.core.review.plan_markdown import render_markdown
    from controller.core.review.plan_text import render_review

    if as_json:
        print_json(review_json(review))
    elif markdown:
        echo(render_markdown(review, title=title))
    else:
        width, excerpt = terminal_width(), excerpts(folder)
        text = render_review(review, width=width, paint=paint, verbose=verbose, excerpt=excerpt)
        echo(text.rstrip())
        echo(f"digest {review.plan.digest}")


@contextmanager
def _planned_folder(against: str | None, source: str, root: Path) -> Iterator[Path | None]:
    """Yield the folder that ``--against`` names; None without the option.

    Raises:
        UsageError: it names no folder, and no commit of a source.
    """
    if against is None or Path(against).is_dir():
        yield None if against is None else Path(against)
        return
    if not COMMIT.fullmatch(against):
        raise click.BadParameter(
            f"{against!r} is neither a file, a folder nor a commit id", param_hint="--against"
        )
    if not source:
        raise click.UsageError("--against COMMIT needs --source NAME")
    from controller.cli.plans.planned_commit import planned_commit

    instance = read_instance(root)
    if instance is None:
        raise StateError("state.missing", f"no instance at {root}", remedy="name it with --state")
    fetch_socket = state_of(root, instance).fetch_socket
    with planned_commit(fetch_socket, source, against) as folder:
        yield folder


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """How this host is observed."""

    root: Path
    #: None for the instance's own.
    directory: Path | None
    engine: str | None
    policy: str | None


def _review_against(
    planned: PlannedFiles, file: Path | None, request: SnapshotRequest
) -> tuple[Review, str]:
    """Return the review of other files for this host, or for the host of a snapshot; and a title."""
    from controller.cli.clients.snapshots import review_snapshot, take_snapshot
    from controller.core.review.host_snapshot import read_snapshot

    if file is None:
        snapshot = take_snapshot(
            request.root,
            directory=default_directory(request.directory, request.root),
            engine=request.engine,
            policy=request.policy,
            planned=planned,
        )
        planned = replace(planned, fetcher=request.root / "fetcher")
    else:
        with file.open("rb") as opened:
            snapshot = read_snapshot(opened)
    title = f"trimtab plan on {snapshot.host}, as of {snapshot.taken}"
    return review_snapshot(snapshot, planned), title
