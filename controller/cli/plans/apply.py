"""``apply``: make the changes once, wait for convergence, and exit with its code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import options
from controller.cli.exit_codes import EXIT_NOT_CONVERGED
from controller.cli.output.terminal import echo
from controller.cli.plans.apply_result import apply_exit_code, show_done
from controller.core.encoding.terminal_text import printable
from controller.model.quantities import format_duration_ms

if TYPE_CHECKING:
    from controller.cli.clients.oneshot import Approve


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
    from controller.cli.clients.wait_for_pass import in_silence, show_changes, showing_progress

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
        from controller.cli.plans.approve import approving  # a slow import

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
