"""``image trust``: an operator trusts a local image."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import PassingGroup, command, open_state, print_result


@command("""\b
Example:
  trimtab image trust ghcr.io/platformnetwork/web:1.2.3
""")
@click.argument("reference")
def trust(reference: str, state: Path | None, as_json: bool) -> None:
    """Trust the present local image REFERENCE.

    Every user who can build an image can tag it with an admitted name. The gate therefore refuses
    a local image, unless the broker pulled the image or an operator trusts it.
    """
    folder, _ = open_state(state)
    answer = BrokerApi(folder.broker_socket).post("trust", {"reference": reference})
    print_result(answer, f"{answer['reference']} is trusted as {answer['id']}", as_json=as_json)


@click.group(cls=PassingGroup, commands=[trust])
def image() -> None:
    """Trust local images."""
