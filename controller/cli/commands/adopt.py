"""``adopt``: take over containers, networks and volumes whose state folder is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.options import (
    command,
    default_directory,
    directory_argument,
    engine_option,
    note_option,
    policy_option,
    print_json,
    print_result,
    state_root,
)
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.core.encoding.terminal_text import printable
from controller.model.errors import StateError, UsageError
from controller.model.names import REVISION_DIGITS, is_instance, revision_digits
from controller.model.quantities import format_instant
from controller.settings import Instance, read_instance, run_folder, write_instance

#: The broker inspects hundreds of containers in the engine and the kernel.
SURVEY_S = 120.0
#: Objects in a request. The gate delays other changes until the request is done.
BATCH = 50
HEADERS = (
    *("KIND", "NAME", "SERVICE", "REVISION", "OWNER", "ORIGIN"),
    *("STATE", "MADE", "INTENT", "VERDICT"),
)


def _instance_id(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value and not is_instance(value):
        raise click.BadParameter("an instance's id has 16 hex digits")
    return value


@command("""\b
Examples:
  docker ps -a --format '{{.Label "io.trimtab.instance"}}' | sort | uniq -c    which ids there are
  trimtab adopt /srv/desired --instance 0123456789abcdef          show what there is of it
  trimtab adopt /srv/desired --instance 0123456789abcdef --yes    and take it over

\b
Exit codes: 0 all of it can be (or was) taken over, 4 something can't be.
""")
@directory_argument
@click.option(
    "--instance",
    "instance_id",
    metavar="ID",
    default="",
    callback=_instance_id,
    help="The instance with the lost state folder (default: the instance of the present state folder).",
)
@click.option(
    "--yes", is_flag=True, help="Take over the objects; without this option, only list them."
)
@note_option
@engine_option
@policy_option
def adopt(
    directory: Path | None,
    instance_id: str,
    yes: bool,
    note: str,
    engine: str | None,
    policy: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Take over objects that carry an instance's id but aren't in its inventory.

    For an instance whose state folder is lost, or was restored from an old copy. The policy judges
    each object as if it were created now. A refused object isn't taken over, and keeps running.
    Labels prove nothing: every user of the engine's socket can write them. Check the list first.
    """
    root = state_root(state)
    instance = read_instance(root)
    if not instance_id and instance is None:
        raise UsageError(
            "adopt.instance-missing",
            f"no instance at {root}",
            remedy="name the lost one with --instance",
        )
    lost = instance_id or (instance.id if instance is not None else "")
    broker_of = partial(
        _broker_of,
        directory=default_directory(directory, root),
        engine=engine or (instance.engine if instance is not None else None),
        policy=policy,
    )
    is_here = instance is not None and instance.id == lost
    with broker_of(root, lost) if is_here else _temporary_broker(broker_of, lost) as api:
        objects = api.get("strangers")["objects"]
    if not as_json:
        _print_objects(objects)
    if not yes or not objects:
        if as_json:
            print_json({"instance": lost, "objects": objects})
        elif objects:
            echo("Nothing was changed; repeat it with --yes to take these over.")
        return EXIT_REFUSED if any(map(_is_refused, objects)) else 0
    if not is_here:
        _take_id(root, instance, lost, broker_of)
    with broker_of(root, lost) as api:
        replies = list(_adopt(api, objects, note))
    adopted = [item for reply in replies for item in reply["adopted"]]
    left = [item for reply in replies for item in reply["left"]]
    report = {"instance": lost, "adopted": adopted, "left": left}
    text = f"Took over {len(adopted)} of {len(objects)}. 'trimtab up' continues with them."
    print_result(report, text, as_json=as_json)
    return EXIT_REFUSED if left else 0


#: Yields a broker of an instance on a state folder.
BrokerOf = Callable[[Path, str], AbstractContextManager[BrokerApi]]


@contextmanager
def _broker_of(root: Path, instance_id: str, **settings: Any) -> Iterator[BrokerApi]:
    """Yield the running broker of a state folder, else a broker that ends with the block."""
    from controller.cli.clients import oneshot

    with oneshot.broker_of(root, instance_id=instance_id, **settings) as state:
        yield BrokerApi(state.broker_socket, SURVEY_S)


@contextmanager
def _temporary_broker(broker_of: BrokerOf, lost: str) -> Iterator[BrokerApi]:
    """Yield a broker of the instance on a temporary state folder.

    A list of objects then leaves no files behind. The start fails if another broker serves the
    instance: such an instance isn't lost.
    """
    folder = Path(tempfile.mkdtemp(prefix="trimtab-adopt-"))
    try:
        with broker_of(folder, lost) as api:
            yield api
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_id(root: Path, instance: Instance | None, lost: str, broker_of: BrokerOf) -> None:
    """Give the state folder the id of the lost instance, unless the folder owns objects.

    Raises:
        StateError: the folder's instance runs, or has objects.
    """
    from controller.app.state_folder import await_free

    if instance is None:
        return
    await_free(root)
    with broker_of(root, instance.id) as api:
        inventory = api.get("inventory")
    count = sum(len(inventory[kind]) for kind in ("containers", "networks", "volumes"))
    if count:
        raise StateError(
            "state.other-instance",
            f"{root} is instance {instance.id}, and has {count} objects of its own",
            remedy="name a new state folder with --state, or take these down first with "
            "'trimtab down'",
        )
    write_instance(root, replace(instance, id=lost, run=str(run_folder(root, lost))))


def _adopt(api: BrokerApi, objects: list[Any], note: str) -> Iterator[Any]:
    """Adopt the listed objects in order: networks and volumes come before their containers."""
    full_note = f"{note} (by uid {os.getuid()})".strip()
    for first in range(0, len(objects), BATCH):
        subjects = [item["subject"] for item in objects[first : first + BATCH]]
        yield api.post("records", {"act": "adopt", "objects": subjects, "note": full_note[:512]})


def _is_refused(item: Any) -> bool:
    return bool(item["verdict"]["decision"] == "deny")


def _print_objects(objects: list[Any]) -> None:
    if not objects:
        echo("No object outside the inventory carries this instance's id.")
        return
    echo(table(HEADERS, map(_row, objects)))
    for item in filter(_is_refused, objects):
        verdict = item["verdict"]
        echo(
            printable(f"{item['name'] or item['id']}: {verdict['reason']} [{verdict['rules'][0]}]")
        )
        if verdict["remedy"]:
            echo(printable(f"    remedy: {verdict['remedy']}"))


def _row(item: Any) -> tuple[str, ...]:
    slot = f"{item['namespace']}/{item['service']}/{item['slot']}" if item["service"] else ""
    revision = revision_digits(item["revision"])[:REVISION_DIGITS]
    made = format_instant(item["madeAt"]) if item["madeAt"] is not None else ""
    verdict = "stays foreign" if _is_refused(item) else "adopt"
    return (
        *(item["kind"], item["name"], slot, revision, item["owner"], item["origin"]),
        *(item["state"], made, item["intent"], verdict),
    )
