"""``plan``: show what would change, here or on the host of a snapshot."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from controller.cli import exit_codes, options
from controller.cli.output.tables import terminal_width
from controller.cli.output.terminal import echo
from controller.cli.plans.running_controller import make_printed_review, with_excerpts
from controller.core.review.review_form import ReviewForm
from controller.model.errors import StateError
from controller.settings import read_instance, state_of

if TYPE_CHECKING:
    from controller.cli.clients.snapshots import PlannedFiles

COMMIT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)


@options.command("""\b
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
Exit codes: 0 nothing to do, 2 changes pending, 3 invalid files, 4 something is refused, 5 nothing to do,
and a document isn't in force: its service was rolled back, or is suspended. With --against: never 5.
""")
@options.directory_argument
@options.once_engine_option
@options.policy_option
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

    Changes nothing. A running controller of DIR is asked. If no instance runs, a broker runs until
    the command ends.
    """
    if source and against is None:
        raise click.UsageError("--source needs --against")
    root = options.state_root(state)
    overlay = Path(against) if against is not None and Path(against).is_file() else None
    if overlay is not None and (source or snapshot_file is not None):
        raise click.UsageError("with --source or --snapshot, --against needs a folder")
    if snapshot_file is not None and against is not None and not Path(against).is_dir():
        # A commit is in the fetcher of an instance, and a snapshot needs no instance.
        raise click.UsageError("with --snapshot, --against needs a folder: check the commit out")
    output: Literal["text", "json", "markdown"] = "markdown" if markdown else "text"
    form = ReviewForm(
        "plan",
        "json" if as_json else output,
        width=terminal_width(),
        verbose=verbose,
        title=f"trimtab plan on {os.uname().nodename}",
    )
    with _planned_folder(None if overlay else against, source, root) as planned:
        folder = options.default_directory(planned or directory, root)
        host = options.HostChoice(root, folder, engine, policy)
        if against is not None or snapshot_file is not None:
            if source and snapshot_file is None:  # the folder is the source's, not the host's
                host = replace(host, directory=options.default_directory(None, root))
            from controller.cli.clients.snapshots import PlannedFiles

            files = PlannedFiles(folder.absolute(), source, overlay=overlay)
            answer = _review_against(files, snapshot_file, host, form)
        else:
            answer = make_printed_review(host, form)
        if as_json:
            options.print_json(answer["json"])
        else:
            echo(with_excerpts(answer["text"], answer.get("excerpts", []), folder))
    if answer["invalid"]:
        return exit_codes.EXIT_INVALID
    if answer["refused"]:
        return exit_codes.EXIT_REFUSED
    if answer["pending"]:
        return exit_codes.EXIT_PENDING
    is_of_now = against is None and snapshot_file is None
    return exit_codes.EXIT_NOT_CONVERGED if is_of_now and answer["overridden"] else 0


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


def _review_against(
    planned: PlannedFiles, file: Path | None, host: options.HostChoice, form: ReviewForm
) -> dict[str, Any]:
    """Return the printed review of other files for this host, or for the host of a snapshot."""
    from controller.cli.clients.snapshots import review_snapshot, take_snapshot
    from controller.core.review.host_snapshot import read_snapshot
    from controller.core.review.printed_review import printed_review

    if file is None:
        snapshot = take_snapshot(host, planned=planned)
        planned = replace(planned, fetcher=host.root / "fetcher")
    else:
        with file.open("rb") as opened:
            snapshot = read_snapshot(opened)
    title = f"trimtab plan on {snapshot.host}, as of {snapshot.taken}"
    return printed_review(review_snapshot(snapshot, planned), replace(form, title=title))
