"""``snapshot``: print what a plan on another machine needs to know of this host."""

from __future__ import annotations

from pathlib import Path

from controller.cli import options


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
