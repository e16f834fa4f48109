"""``plan``, ``diff`` and ``snapshot``: show what would change, here or elsewhere.

``plan``: show what would change, here or on the host of a snapshot.

``diff``: the fields that differ between running containers and their documents.

The files of a commit that the fetcher has, in a temporary folder of the calling user.

The running controller's review for ``plan`` and ``diff``.

A running controller has everything in memory that a review needs. Without one, the command looks
itself, with a broker and a controller of its own (``clients.oneshot``). Both make the same JSON
(``core.review.plan_json``), of which ``core.review.plan_text`` makes the text.

``snapshot``: print what a plan on another machine needs to know of this host.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import click

from controller import __version__
from controller.cli import exit_codes, options
from controller.cli.clients.socket_client import PLAN_S, ask_controller
from controller.cli.clients.status_report import complete_names, matches, raise_if_unknown, select
from controller.cli.exit_codes import EXIT_PENDING
from controller.cli.options import HostChoice
from controller.cli.output.tables import terminal_width
from controller.cli.output.terminal import echo, excerpts
from controller.core.review import plan_text
from controller.model.errors import SourceError, StateError, TrimtabError
from controller.settings import read_instance, state_of

if TYPE_CHECKING:
    from controller.cli.clients.snapshots import PlannedFiles


TIMEOUT_S = 60.0
#: The bounds of what the fetcher can send: the fetcher reads hostile bytes.
FILES_MAX = 10_000
BYTES_MAX = 24 << 20


@contextmanager
def planned_commit(fetch_socket: Path, source: str, commit: str) -> Iterator[Path]:
    """Yield the documents' folder of a commit of a Git source; the files go with the block.

    Raises:
        EngineFailed: the fetcher has no such commit, or the user isn't allowed to ask.
        EngineUnavailable: no fetcher runs.
        SourceError: the answer isn't usable.
    """
    answer = ask_controller(
        fetch_socket, {"do": "files", "name": source, "commit": commit}, timeout_s=TIMEOUT_S
    )
    with TemporaryDirectory(prefix="trimtab-plan-") as folder:
        top = Path(folder) / "tree"
        try:
            path = write_files(top, answer)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                "source.answer",
                f"the fetcher's files of commit {commit} can't be used: {error}",
                remedy="check the commit out, and name its folder",
            ) from error
        yield path


def write_files(top: Path, answer: dict[str, object]) -> Path:
    """Write the files of an answer below *top*, a folder that doesn't exist. Return the documents' folder.

    Raises:
        OSError: a file can't be written.
        ValueError, KeyError, TypeError, AttributeError: the answer has another form.
    """
    files = answer["files"]
    if not isinstance(files, dict) or len(files) > FILES_MAX:
        raise ValueError(f"expected at most {FILES_MAX} files")
    if sum(map(len, files.values())) > BYTES_MAX:
        raise ValueError(f"expected at most {BYTES_MAX} bytes")
    top.mkdir(mode=0o700)
    for name, content in files.items():
        path = top / inside(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(b64decode(content, validate=True))
    folder = answer["path"]
    found = top if folder == "." else top / inside(folder)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def inside(name: object) -> PurePosixPath:
    """Return a relative path that leads nowhere else.

    Raises:
        ValueError: the path could lead elsewhere.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError("a path isn't a text")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or str(path) != name:
        raise ValueError(f"the path {name!r} leads elsewhere")
    return path


def make_review(host: HostChoice, *, reveal: bool = False) -> dict[str, Any]:
    """Return the review of the plan for a host, in the form of ``plan_json.answer_json``.

    With *reveal* the command looks itself: the controller's socket answers with no secret.

    Raises: as ``clients.oneshot.make_review``.
    """
    answer = None if reveal else ask_for_review(host.root, directory=host.directory)
    if answer is not None:
        return answer
    from controller.cli.clients import oneshot
    from controller.core.review.plan_json import answer_json

    return answer_json(oneshot.make_review(host, reveal=reveal))


def ask_for_review(root: Path, *, directory: Path) -> dict[str, Any] | None:
    """Return the running controller's review; None if no controller gives one for *directory*.

    A controller of another version or another directory gives none. Nor does one without an engine:
    the command's own look words the error.
    """
    instance = read_instance(root)
    if instance is None:
        return None
    question: dict[str, object] = {
        "do": "review",
        "version": __version__,
        "directory": str(directory),
    }
    socket = state_of(root, instance).controller_socket
    try:
        return dict(ask_controller(socket, question, timeout_s=PLAN_S))
    except (TrimtabError, ValueError):
        return None


COMMIT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)
#: The exit code of each outcome of a plan.
EXIT_CODES: Final = {
    "invalid": exit_codes.EXIT_INVALID,
    "refused": exit_codes.EXIT_REFUSED,
    "pending": EXIT_PENDING,
    "overridden": exit_codes.EXIT_NOT_CONVERGED,
    "": 0,
}


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
    with _planned_folder(None if overlay else against, source, root) as planned:
        folder = options.default_directory(planned or directory, root)
        host = options.HostChoice(root, folder, engine, policy)
        if against is not None or snapshot_file is not None:
            if source and snapshot_file is None:  # the folder is the source's, not the host's
                host = replace(host, directory=options.default_directory(None, root))
            from controller.cli.clients.snapshots import PlannedFiles

            files = PlannedFiles(folder.absolute(), source, overlay=overlay)
            answer, where = _review_against(files, snapshot_file, host)
        else:
            answer, where = make_review(host), os.uname().nodename
        reviewed = answer["plan"]
        if as_json:
            options.print_json(reviewed)
        elif markdown:
            echo(plan_text.render_markdown(reviewed, title=f"trimtab plan on {where}"))
        else:
            echo(_text_of(reviewed, folder, verbose=verbose))
    is_of_now = against is None and snapshot_file is None
    if answer["outcome"] == "overridden" and not is_of_now:
        return 0
    return EXIT_CODES[answer["outcome"]]


def _text_of(reviewed: dict[str, Any], folder: Path, *, verbose: bool) -> str:
    """Return a plan as text; a terminal gets the lines of files below *folder* that have problems."""
    text = plan_text.render_plan(
        reviewed,
        width=terminal_width(),
        paint=plan_text.paint,
        verbose=verbose,
        excerpt=excerpts(folder),
    )
    return f"{text.rstrip()}\ndigest {reviewed['digest']}"


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

    instance = read_instance(root)
    if instance is None:
        raise StateError("state.missing", f"no instance at {root}", remedy="name it with --state")
    fetch_socket = state_of(root, instance).fetch_socket
    with planned_commit(fetch_socket, source, against) as folder:
        yield folder


def _review_against(
    planned: PlannedFiles, file: Path | None, host: options.HostChoice
) -> tuple[dict[str, Any], str]:
    """Return the review of other files for this host, or for the host of a snapshot; and where that is."""
    from controller.cli.clients.snapshots import review_snapshot, take_snapshot
    from controller.core.review.host_snapshot import read_snapshot
    from controller.core.review.plan_json import answer_json

    if file is None:
        snapshot = take_snapshot(host, planned=planned)
        planned = replace(planned, fetcher=host.root / "fetcher")
    else:
        with file.open("rb") as opened:
            snapshot = read_snapshot(opened)
    answer = answer_json(review_snapshot(snapshot, planned))
    return answer, f"{snapshot.host}, as of {snapshot.taken}"


@options.command("""\b
Examples:
  trimtab diff
  trimtab diff web shop/api
  trimtab diff web --show-values         env and arguments too, on a terminal; this is recorded
  trimtab diff --json | jq -r '.objects[].changes[].path'

\b
Exit codes: 0 no difference, 2 differences.
""")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_names)
@click.option(
    "--show-values",
    is_flag=True,
    help="Show values of env, arguments, check commands and labels. On a terminal only; recorded.",
)
@options.once_engine_option
@options.policy_option
def diff(
    names: tuple[str, ...], show_values: bool, state: Path | None, as_json: bool, **settings: Any
) -> int:
    """Show the fields that differ between running containers and their documents.

    Changes nothing. Possible secrets are named without their values.
    """
    if show_values:
        options.raise_unless_on_terminal("--show-values", as_json=as_json)
    root = options.state_root(state)
    host = options.HostChoice(root, options.default_directory(None, root), **settings)
    answer = make_review(host, reveal=show_values)
    known = {"resources": [_resource(key) for key in answer["keys"]]}
    for name in names:
        raise_if_unknown(known, select(known, name=name), name)
    chosen = [each for each in answer["plan"]["objects"] if _is_named(each["object"], names)]
    differences = plan_text.differences_json({"objects": chosen})
    text = plan_text.render_differences(chosen, width=terminal_width(), paint=plan_text.paint)
    options.print_result(differences, text or "no differences", as_json=as_json)
    return EXIT_PENDING if differences["objects"] else 0


def _is_named(key: str, names: tuple[str, ...]) -> bool:
    return not names or any(matches(_resource(key), name) for name in names)


def _resource(key: str) -> dict[str, str]:
    return dict(zip(("kind", "namespace", "name"), key.split("/"), strict=True))


@options.command("""\b
Examples:
  trimtab snapshot > host.json
  trimtab plan --against deploy --snapshot host.json       on another machine, without an engine
""")
@options.directory_argument
@options.once_engine_option
@options.policy_option
def snapshot(
    directory: Path | None,
    engine: str | None,
    policy: str | None,
    state: Path | None,
    as_json: bool,  # noqa: ARG001 - a snapshot is JSON
) -> None:
    """Print what a plan needs to know of this host, as JSON.

    The containers, the policy and the controller's memory, without values that can be secret:
    no values of variables and labels, no commands and arguments.
    """
    from controller.cli.clients.snapshots import take_snapshot
    from controller.core.review.host_snapshot import to_json

    root = options.state_root(state)
    folder = options.default_directory(directory, root)
    options.print_json(to_json(take_snapshot(options.HostChoice(root, folder, engine, policy))))
