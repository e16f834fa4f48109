"""``version``: the versions of trimtab, Python and the kernel."""

from __future__ import annotations

import platform
from pathlib import Path

import click

from controller import __version__
from controller.cli.options import json_option, print_json, state_option


@click.command(
    epilog="""\b
Examples:
  trimtab version
  trimtab version --json
"""
)
@state_option
@json_option
def version(state: Path | None, as_json: bool) -> int:  # noqa: ARG001 - may follow any command
    """Print the versions of trimtab, Python and the kernel, for a bug report."""
    versions = {
        "trimtab": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if as_json:
        print_json(versions)
    else:
        click.echo(f"trimtab {__version__}")
        click.echo(f"Python {versions['python']}, {versions['system']}")
    return 0
