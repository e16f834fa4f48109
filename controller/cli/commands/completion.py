"""``completion``: print the script for completion in a shell."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.options import command
from controller.cli.output.terminal import echo_data

#: The script sets this variable to ask for completions.
VARIABLE = "_TRIMTAB_COMPLETE"


@command("""\b
Examples:
  source <(trimtab completion bash)                 in ~/.bashrc
  source <(trimtab completion zsh)                  in ~/.zshrc, after compinit
  trimtab completion fish > ~/.config/fish/completions/trimtab.fish
""")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str, state: Path | None, as_json: bool) -> None:  # noqa: ARG001 - may follow any command
    """Print the completion script of a shell, for commands, options and names of resources."""
    from click.shell_completion import get_completion_class

    from controller.cli.main import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None, f"click knows {shell}"
    echo_data(completion_class(cli, {}, "trimtab", VARIABLE).source())
