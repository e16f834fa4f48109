"""``image trust``: an operator trusts a local image."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import PassingGroup, json_option, open_state, print_json, state_option


@click.group(cls=PassingGroup)
def image() -> None:
    """Trust local images."""


@image.command(
    epilog="""\b
Example:
  trimtab image trust ghcr.io/platformnetwork/web:1.2.3
"""
)
@click.argument("reference")
@state_option
@json_option
def trust(reference: str, state: Path | None, as_json: bool) -> int:
    """Trust the present local image REFERENCE.

    Every user who can build an image can tag it with an admitted name. The gate therefore refuses
    a local image, unless the broker pulled the image or an operator trusts it.
    """
    folder, _ = open_state(state)
    answer = BrokerApi(folder.broker_socket).post("trust", {"reference": reference})
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['reference']} is trusted as {answer['id']}")
    return 0
