"""``adopt``: take over running containers, or the objects of a lost state folder."""

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

from controller.cli import options
from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.commands.adopt_as_found import Wish, adopt_as_found
from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo, echo_with_remedy
from controller.model.confinement import GAPS
from controller.model.errors import StateError, UsageError
from controller.model.names import REPLICAS_MAX, REVISION_DIGITS, is_instance, revision_digits
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


def _gaps(
    _context: click.Context, _option: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    for text in value:
        if text.rpartition(":")[2] not in GAPS:
            raise click.BadParameter(f"{text!r} is no gap: {', '.join(GAPS)}")
    return value


def _folder(_context: click.Context, _option: click.Parameter, value: str) -> str:
    return os.path.realpath(value) if value else ""


def _check(wish: Wish, *, instance_id: str, yes: bool) -> None:
    """Refuse contradicting options.

    Raises:
        UsageError: ``adopt.options``.
    """
    if wish.service and wish.project:
        fault, remedy = "--as and --project exclude each other", "leave one out"
    elif instance_id or yes:
        fault, remedy = "--instance and --yes are for lost state folders", "leave them out"
    elif wish.service and not wish.container:
        fault, remedy = "--as needs a container", "name it: trimtab adopt CONTAINER --as SERVICE"
    elif wish.project and wish.slot:
        fault, remedy = "--slot is for one container", "leave it out, or use --as"
    else:
        return
    raise UsageError("adopt.options", fault, remedy=remedy)


def _instance_id(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value and not is_instance(value):
        raise click.BadParameter("an instance's id has 16 hex digits")
    return value


@options.command("""\b
Examples:
  trimtab adopt web --as shop/web --dry-run                       compare it with its document
  trimtab adopt web --as shop/web --admit capabilities --admit logs
  trimtab adopt --project shop --from /home/me/shop --dry-run     list the gaps, and the command
  trimtab adopt --project shop --admit new-privileges --admit db:capabilities
  docker ps -a --format '{{.Label "io.trimtab.instance"}}' | sort | uniq -c    which ids there are
  trimtab adopt /srv/desired --instance 0123456789abcdef          show what there is of it
  trimtab adopt /srv/desired --instance 0123456789abcdef --yes    and take it over

\b
Exit codes: 0 all of it can be (or was) taken over, 4 something can't be, 1 a step failed.
""")
@click.argument("target", metavar="[CONTAINER|DIR]", required=False)
@click.option(
    "--as",
    "service",
    metavar="[NAMESPACE/]SERVICE",
    default="",
    shell_complete=complete_names,
    help="Adopt the running CONTAINER as found, as a replica of this declared service.",
)
@click.option(
    "--project",
    metavar="NAME",
    default="",
    help="Adopt the running containers of a docker compose project, service by service.",
)
@click.option(
    "--namespace", metavar="NS", default="", help="The namespace of the project's services."
)
@click.option(
    "--slot", type=click.IntRange(1, REPLICAS_MAX), help="The slot (default: the first free one)."
)
@click.option(
    "--admit",
    metavar="[SERVICE:]GAP",
    multiple=True,
    callback=_gaps,
    help=f"Admit a gap: {', '.join(GAPS)}. Repeatable.",
)
@click.option(
    "--leave",
    metavar="NETWORK",
    multiple=True,
    help="Leave this network although other containers are in it. Repeatable.",
)
@click.option(
    "--from",
    "came_from",
    metavar="FOLDER",
    default="",
    callback=_folder,
    help="The folder in which docker compose ran, for the gap files.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="The directory of the services, with --as.",
)
@click.option("--dry-run", is_flag=True, help="Compare, and change nothing.")
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
@options.note_option
@options.engine_option
@options.policy_option
def adopt(
    target: str | None,
    service: str,
    project: str,
    namespace: str,
    slot: int | None,
    admit: tuple[str, ...],
    leave: tuple[str, ...],
    came_from: str,
    folder: Path | None,
    dry_run: bool,
    instance_id: str,
    yes: bool,
    note: str,
    engine: str | None,
    policy: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Take over running containers, or the objects of an instance with a lost state folder.

    With --as or --project: containers that nobody supervises, as found, without a restart. Each
    container is compared with its document, field by field. A difference refuses it, except limits,
    restart policy and networks, which change in place, and the named gaps.

    With --instance: objects that carry the instance's id but aren't in its inventory. The policy
    judges each object as if it were created now. Labels prove nothing: every user of the engine's
    socket can write them. Check the list first.
    """
    root = options.state_root(state)
    if service or project:
        wish = Wish(
            container=target or "",
            service=service,
            slot=slot or 0,
            project=project,
            namespace=namespace,
            admit=admit,
            leave=leave,
            folder=came_from,
            dry_run=dry_run,
            note=note,
        )
        _check(wish, instance_id=instance_id, yes=yes)
        directory = folder if service or not target else Path(target)
        directory = options.default_directory(directory, root)
        host = options.HostChoice(root, directory, engine, policy)
        return adopt_as_found(host, wish, as_json=as_json)
    if slot or admit or leave or folder or dry_run or namespace:
        raise UsageError(
            "adopt.options",
            "these options need --as or --project",
            remedy="name the service, or the compose project",
        )
    directory = Path(target) if target else None
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
        directory=options.default_directory(directory, root),
        engine=engine or (instance.engine if instance is not None else None),
        policy=policy,
    )
    is_here = instance is not None and instance.id == lost
    with broker_of(root, lost) if is_here else _temporary_broker(broker_of, lost) as api:
        # The containers mount files from the folder that is to take them over.
        objects = api.get("strangers", {"state": str(root)})["objects"]
    if not as_json:
        _print_objects(objects)
    if not yes or not objects:
        if as_json:
            options.print_json({"instance": lost, "objects": objects})
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
    options.print_result(report, text, as_json=as_json)
    return EXIT_REFUSED if left else 0


#: Yields a broker of an instance on a state folder.
BrokerOf = Callable[[Path, str], AbstractContextManager[BrokerApi]]


@contextmanager
def _broker_of(root: Path, instance_id: str, **settings: Any) -> Iterator[BrokerApi]:
    """Yield the running broker of a state folder, else a broker that ends with the block."""
    from controller.cli.clients import oneshot

    host = options.HostChoice(root, **settings)
    with oneshot.broker_of(host, instance_id=instance_id) as state:
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
    # No container of the lost instance knows the values that were made for this one.
    shutil.rmtree(root / "broker" / "generated", ignore_errors=True)
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
        verdict, name = item["verdict"], item["name"] or item["id"]
        text = f"{name}: {verdict['reason']} [{verdict['rules'][0]}]"
        echo_with_remedy(text, verdict["remedy"])


def _row(item: Any) -> tuple[str, ...]:
    slot = f"{item['namespace']}/{item['service']}/{item['slot']}" if item["service"] else ""
    revision = revision_digits(item["revision"])[:REVISION_DIGITS]
    made = format_instant(item["madeAt"]) if item["madeAt"] is not None else ""
    verdict = "stays foreign" if _is_refused(item) else "adopt"
    return (
        *(item["kind"], item["name"], slot, revision, item["owner"], item["origin"]),
        *(item["state"], made, item["intent"], verdict),
    )
