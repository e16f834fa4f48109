"""``adopt``: an operator takes over what carries an instance's id, without the journal of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.commands.up import engine_option
from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.options import (
    default_directory,
    directory_argument,
    json_option,
    policy_option,
    print_json,
    state_option,
    state_root,
)
from controller.cli.output.tables import table
from controller.model.errors import StateError, UsageError
from controller.model.names import REVISION_DIGITS, is_instance
from controller.model.quantities import format_instant
from controller.settings import Instance, read_instance, run_folder, write_instance

#: Looking at hundreds of containers, in engine and kernel.
SURVEY_S = 120.0
#: So many are asked for at a time: the gate holds other changes up meanwhile.
BATCH = 50
HEADERS = (
    *("KIND", "NAME", "SERVICE", "REVISION", "OWNER", "ORIGIN"),
    *("STATE", "MADE", "INTENT", "VERDICT"),
)


def _instance_id(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value and not is_instance(value):
        raise click.BadParameter("an instance's id has 16 hex digits")
    return value


@click.command(
    epilog="""\b
Examples:
  docker ps -a --format '{{.Label "io.trimtab.instance"}}' | sort | uniq -c    which ids there are
  trimtab adopt /srv/desired --instance 0123456789abcdef          show what there is of it
  trimtab adopt /srv/desired --instance 0123456789abcdef --yes    and take it over

\b
Exit codes: 0 all of it can be (or was) taken over, 4 something can't be.
"""
)
@directory_argument
@click.option(
    "--instance",
    "instance_id",
    metavar="ID",
    default="",
    callback=_instance_id,
    help="The instance whose state folder is lost (default: the one of the state folder here).",
)
@click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")
@click.option("--note", default="", help="Why; it goes into the journal.")
@engine_option
@policy_option
@state_option
@json_option
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
    """Show what carries an instance's id on the engine and isn't in its inventory, and take it over.

    For an instance whose state folder is lost, or is older than what it made. Each object is judged
    by the policy as if it were created now; what reaches further isn't taken over, and runs on,
    untouched. Whoever has the engine's socket can write labels: look at what is shown.
    """
    root = state_root(state)
    found = read_instance(root)
    if not instance_id and found is None:
        raise UsageError(
            "adopt.instance-missing",
            f"no instance at {root}",
            remedy="name the lost one with --instance",
        )
    wish = AdoptRequest(
        instance_id or (found.id if found is not None else ""),
        default_directory(directory, found),
        engine or (found.engine if found is not None else None),
        policy,
    )
    mine = found is not None and found.id == wish.instance_id
    with wish.here(root) if mine else wish.aside() as api:
        shown = api.get("strangers")["objects"]
    if not as_json:
        _tell(shown)
    if not yes or not shown:
        if as_json:
            print_json({"instance": wish.instance_id, "objects": shown})
        elif shown:
            click.echo("Nothing was changed; repeat it with --yes to take these over.")
        return EXIT_REFUSED if any(map(_is_refused, shown)) else 0
    if not mine:
        wish.take_id(root, found)
    with wish.here(root) as api:
        answers = list(_adopted(api, shown, note))
    adopted = [each for answer in answers for each in answer["adopted"]]
    left = [each for answer in answers for each in answer["left"]]
    if as_json:
        print_json({"instance": wish.instance_id, "adopted": adopted, "left": left})
    else:
        click.echo(f"Took over {len(adopted)} of {len(shown)}. 'trimtab up' goes on with them.")
    return EXIT_REFUSED if left else 0


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """What is to be taken over, and what a state folder for it is made with."""

    instance_id: str
    directory: Path
    engine: str | None
    policy: str | None

    @contextmanager
    def here(self, root: Path) -> Iterator[BrokerApi]:
        """Yield the broker of the state folder: the one that runs, or one for the block's life."""
        from controller.app import up
        from controller.settings import state_of
        from controller.system.unix_socket import has_listener

        found = read_instance(root)
        if found is not None and has_listener(state_of(root, found).broker_socket):
            yield BrokerApi(state_of(root, found).broker_socket, SURVEY_S)
            return
        launch = up.prepare_launch(
            root,
            directory=self.directory if found is None else Path(found.dir),
            engine=self.engine,
            policy=self.policy,
            controller_user_name=None,
            rebind=False,
            instance_id=self.instance_id,
        )
        with up.run_broker_only(launch) as socket:
            yield BrokerApi(socket, SURVEY_S)

    @contextmanager
    def aside(self) -> Iterator[BrokerApi]:
        """Yield a broker of that instance on a state folder that is gone afterwards.

        Looking leaves nothing behind; and an instance that is served isn't lost.
        """
        folder = Path(tempfile.mkdtemp(prefix="trimtab-adopt-"))
        try:
            with self.here(folder) as api:
                yield api
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def take_id(self, root: Path, found: Instance | None) -> None:
        """Let the state folder be that instance from now on, if it is nobody's yet.

        Raises:
            StateError: it is another instance, which runs, or has something.
        """
        from controller.app.state_folder import await_free

        if found is None:
            return
        await_free(root)
        with replace(self, instance_id=found.id).here(root) as api:
            ours = api.get("inventory")
        count = sum(len(ours[kind]) for kind in ("containers", "networks", "volumes"))
        if count:
            raise StateError(
                "state.other-instance",
                f"{root} is instance {found.id}, and has {count} objects of its own",
                remedy="name a new state folder with --state, or take these down first with "
                "'trimtab down'",
            )
        run = str(run_folder(root, self.instance_id))
        write_instance(root, replace(found, id=self.instance_id, run=run))


def _adopted(api: BrokerApi, shown: list[Any], note: str) -> Iterator[Any]:
    """Adopt what is shown, in order: networks and volumes before the containers that need them."""
    told = f"{note} (by uid {os.getuid()})".strip()
    for first in range(0, len(shown), BATCH):
        subjects = [each["subject"] for each in shown[first : first + BATCH]]
        yield api.post("records", {"act": "adopt", "objects": subjects, "note": told[:512]})


def _is_refused(shown: Any) -> bool:
    return bool(shown["verdict"]["decision"] == "deny")


def _tell(shown: list[Any]) -> None:
    if not shown:
        click.echo("Nothing carries this instance's id that isn't in its inventory.")
        return
    click.echo(table(HEADERS, map(_row, shown)))
    for each in filter(_is_refused, shown):
        verdict = each["verdict"]
        click.echo(f"{each['name'] or each['id']}: {verdict['reason']} [{verdict['rules'][0]}]")
        if verdict["remedy"]:
            click.echo(f"    remedy: {verdict['remedy']}")


def _row(each: Any) -> tuple[str, ...]:
    place = f"{each['namespace']}/{each['service']}/{each['slot']}" if each["service"] else ""
    revision = each["revision"].removeprefix("v1:")[:REVISION_DIGITS]
    made = format_instant(each["madeAt"]) if each["madeAt"] is not None else ""
    verdict = "stays foreign" if _is_refused(each) else "adopt"
    return (
        *(each["kind"], each["name"], place, revision, each["owner"], each["origin"]),
        *(each["state"], made, each["intent"], verdict),
    )
