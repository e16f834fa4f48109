"""``diff``: the fields that differ between running containers and their documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli import options
from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.status_report import matches, raise_if_unknown, select
from controller.cli.exit_codes import EXIT_PENDING
from controller.cli.output.tables import terminal_width
from controller.cli.plans.running_controller import differences_of, make_printed_review
from controller.core.review.review_form import ReviewForm


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
    form = ReviewForm("diff", width=terminal_width())
    answer = make_printed_review(host, form, reveal=show_values)
    known = {"resources": [_resource(key) for key in answer["keys"]]}
    for name in names:
        raise_if_unknown(known, select(known, name=name), name)
    differences, text = differences_of(answer, lambda key: _is_named(key, names))
    options.print_result(
        differences, text if differences["objects"] else "no differences", as_json=as_json
    )
    return EXIT_PENDING if differences["objects"] else 0


def _is_named(key: str, names: tuple[str, ...]) -> bool:
    return not names or any(matches(_resource(key), name) for name in names)


def _resource(key: str) -> dict[str, str]:
    return dict(zip(("kind", "namespace", "name"), key.split("/"), strict=True))
