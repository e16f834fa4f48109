"""``image trust``: an operator trusts local images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.invocation import with_program
from controller.cli.options import PassingGroup, command, open_state, print_json
from controller.cli.output.terminal import echo
from controller.core.encoding.image_reference import parse_reference
from controller.core.encoding.terminal_text import printable
from controller.core.service.overrides import display_name
from controller.model.errors import TrimtabError
from controller.model.names import Key
from controller.settings import StateFolder


@command("""\b
Examples:
  trimtab image trust ghcr.io/platformnetwork/web:1.2.3
  docker build -t shop/web:1 . && trimtab image trust shop/web:1 && trimtab restart web
""")
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True)
def trust(references: tuple[str, ...], state: Path | None, as_json: bool) -> None:
    """Trust the present local images of each REFERENCE.

    Every user who can build an image can tag it with an admitted name. The gate therefore refuses
    a local image, unless the broker pulled the image or an operator trusts it. Services that run an
    earlier image of the name go on with it until 'trimtab restart'; those that were refused start now.
    """
    folder, _ = open_state(state)
    answers = []
    for reference in references:
        answer = BrokerApi(folder.broker_socket).post("trust", {"reference": reference})
        answers.append(answer)
        if not as_json:
            echo(printable(f"{answer['reference']} is trusted as {answer['id']}"))
    for answer in answers:
        answer["earlier"] = []
    with suppress(TrimtabError):  # another operator than root may only look
        ask_controller(folder.controller_socket, {"do": "observe"})
    with suppress(TrimtabError):  # without a controller nothing runs by the documents
        for answer, service in _earlier(folder, answers):
            answer["earlier"].append(service)
            if not as_json:
                hint = (
                    f"{service} runs an earlier image: trimtab restart {service} takes the new one"
                )
                echo(printable(with_program(hint)))
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)


def _earlier(
    folder: StateFolder, answers: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the services that run another image than the trusted one of their reference."""
    status = ask_controller(folder.controller_socket, {"do": "status"})
    for resource in status["resources"]:
        if resource["kind"] != "Service" or not resource.get("digest"):
            continue
        key = Key("Service", resource["namespace"], resource["name"])
        for answer in answers:
            is_of = parse_reference(resource["image"]).canonical == answer["reference"]
            if is_of and resource["digest"] not in (answer["id"], answer.get("digest")):
                yield answer, display_name(key)


@click.group(cls=PassingGroup, commands=[trust])
def image() -> None:
    """Trust local images."""
