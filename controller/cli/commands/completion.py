"""``completion``: the script that lets a shell complete commands, options and names of resources."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.options import json_option, state_option

#: The variable by which the script asks for completions.
VARIABLE = "_TRIMTAB_COMPLETE"


@click.command(
    epilog="""\b
Examples:
  source <(trimtab completion bash)                 in ~/.bashrc
  source <(trimtab completion zsh)                  in ~/.zshrc, after compinit
  trimtab completion fish > ~/.config/fish/completions/trimtab.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@state_option
@json_option
def completion(shell: str, state: Path | None, as_json: bool) -> int:  # noqa: ARG001 - may follow any command
    """Print the completion script of a shell, for commands, options and names of resources."""
    from click.shell_completion import get_completion_class

    from controller.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, f"click knows {shell}"
    click.echo(found(cli, {}, "trimtab", VARIABLE).source())
    return 0
