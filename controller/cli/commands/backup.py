"""``backup`` and ``restore``: the state folder in one file, made while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.commands.volume_data import dump_to, raise_if_not_root
from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.options import (
    PassingGroup,
    command,
    command_line,
    counted,
    engine_option,
    open_state,
    print_json,
    print_result,
    state_root,
)
from controller.cli.output.terminal import confirm, echo
from controller.core.encoding.text import printable
from controller.model.errors import Refused, StateError, UsageError
from controller.model.mutations import STATE_BACKED_UP

if TYPE_CHECKING:
    from controller.app.backup_file import BackupManifest

#: The broker writes one record and its checkpoint.
CUT_S = 30.0


class BackupGroup(PassingGroup):
    """A group with ``make`` as its default command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``make`` if no command is named."""
        if args and not {"make", "verify", "-h", "--help"} & set(args):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=BackupGroup,
    epilog="""\b
Examples:
  age-keygen -o backup.key                       on another host: prints the recipient, age1…
  trimtab backup /mnt/backup/monday.trimtab --recipient age1…
  trimtab backup verify /mnt/backup/monday.trimtab
  trimtab restore /mnt/backup/monday.trimtab --identity backup.key
""",
)
def backup() -> None:
    """Make or verify a backup of the state folder. Without a command: make."""


@command(
    """\b
Examples:
  trimtab backup /mnt/backup/monday.trimtab --recipient age1…
  trimtab backup /mnt/backup/monday.trimtab --recipient age1… --volumes all
  trimtab backup /mnt/backup/evidence.trimtab --without-keys

\b
Exit codes: 0 made, 1 error or nothing runs, 4 refused, 64 wrong usage.
""",
    name="make",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--recipient",
    metavar="AGE1…",
    default="",
    help="Encrypt keys and generated values to this public key of age.",
)
@click.option("--without-keys", is_flag=True, help="Leave out keys and generated values.")
@click.option(
    "--volumes",
    "wanted",
    multiple=True,
    metavar="NAME|all",
    help="Dump this volume into FILE, or all of the instance's. Repeatable.",
)
@click.option("--live", is_flag=True, help="Let containers run while their volumes are dumped.")
def make(
    file: Path,
    recipient: str,
    without_keys: bool,
    wanted: tuple[str, ...],
    live: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Write journal, files, settings, policy and keys of a running instance to FILE.

    The backup ends with a record in the journal that says who made it, and with the checkpoint that
    signs it. FILE appears once it is whole and durable. Volumes are dumped as by 'trimtab volume dump',
    which stops their containers meanwhile; each volume that FILE lacks is named.
    """
    from controller.app import backup as making
    from controller.app.backup_file import check_recipient
    from controller.app.process import crash_reach

    if bool(recipient) == without_keys:
        raise UsageError(
            "backup.keys",
            "keys and generated values are encrypted, or left out",
            remedy="give either --recipient AGE1… or --without-keys",
        )
    if recipient:
        check_recipient(recipient)
    folder, instance = open_state(state)
    api = BrokerApi(folder.broker_socket, CUT_S)
    known = sorted(str(each["name"]) for each in api.get("inventory")["volumes"])
    chosen = known if "all" in wanted else [*dict.fromkeys(wanted)]
    if missing := [name for name in chosen if name not in known]:
        raise StateError(
            "volume.unknown",
            f"this instance has no volume {missing[0]}",
            remedy="'trimtab volume list' lists all",
        )
    if chosen:
        raise_if_not_root()
    keys = f"keys to {recipient}" if recipient else "without keys"
    note = f"{file.absolute()}, {keys} (by uid {os.getuid()})"
    with making.scratch(file.absolute()) as dumps:
        for name in chosen:
            with left_out_if_refused(name, all_wanted="all" in wanted):
                dump_to(folder.broker_socket, name, dumps / name, live=live, note=note)
        dumped = {name: dumps / name for name in chosen if (dumps / name).exists()}
        manifest = making.make(
            folder,
            instance,
            file.absolute(),
            recipient=recipient,
            ask_for_cut=lambda: str(api.record(STATE_BACKED_UP, instance.id, note)["id"]),
            volumes=dumped,
            left_out=tuple(name for name in known if name not in dumped),
            reach=crash_reach(os.environ),
        )
    print_result(_report(file, manifest), printable(_text(file, manifest)), as_json=as_json)


@contextmanager
def left_out_if_refused(name: str, *, all_wanted: bool) -> Iterator[None]:
    """Name a volume that can't be dumped, such as a folder of another machine, and go on without it."""
    try:
        yield
    except Refused as error:
        if not all_wanted:
            raise
        echo(printable(f"{name}: left out: {error.message} [{error.code}]"), err=True)


def _report(file: Path, manifest: BackupManifest) -> dict[str, Any]:
    return {
        "file": str(file),
        "instance": manifest.instance,
        "engine": manifest.engine_id,
        "records": manifest.records,
        "head": manifest.head,
        "time": manifest.time,
        "recipient": manifest.recipient or None,
        "volumes": list(manifest.volumes),
        "volumesLeftOut": list(manifest.left_out),
    }


def _text(file: Path, manifest: BackupManifest) -> str:
    lines = [f"{file}: instance {manifest.instance}, {manifest.records} records, {manifest.time}"]
    if manifest.recipient:
        lines.append(f"keys and generated values: encrypted to {manifest.recipient}")
    else:
        lines.append("keys and generated values: left out")
    lines += [f"volume {name}: included" for name in manifest.volumes]
    lines += [f"volume {name}: left out" for name in manifest.left_out]
    return "\n".join(lines)


@command(
    """\b
Examples:
  trimtab backup verify /mnt/backup/monday.trimtab
  trimtab backup verify /mnt/backup/monday.trimtab --key journal.pub

\b
Exit codes: 0 as it was written, 1 it can't be used.
""",
    name="verify",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key",
    "trusted",
    multiple=True,
    metavar="FILE|KEY",
    help="Use this public key of the journal alone (default: the one in FILE).",
)
def verify(file: Path, trusted: tuple[str, ...], state: Path | None, as_json: bool) -> None:
    """Check FILE: the digest of each member, the chain of the journal, and its signatures.

    Needs no running process, and room for the journal in a temporary folder. Without --key, whoever
    could write FILE could also sign it anew: name a copy of journal.pub that was kept elsewhere.
    """
    from controller.app.backup import check
    from controller.cli.journal.verify import trusted_keys

    _ = state
    keys = trusted_keys(trusted, file.absolute().parent).ends
    manifest, result = check(file, keys=frozenset(keys))
    signed = f"signed by {'a key that is trusted' if keys else 'the key in it'}"
    text = f"{_text(file, manifest)}\neach member is as it was written; {signed}"
    report = {**_report(file, manifest), "ok": result.ok, "trusted": bool(keys)}
    print_result(report, printable(text), as_json=as_json)


backup.add_command(make)
backup.add_command(verify)


@command("""\b
Examples:
  trimtab restore /mnt/backup/monday.trimtab --identity backup.key
  trimtab restore /mnt/backup/monday.trimtab --identity backup.key --yes

\b
Exit codes: 0 restored, 1 error, 4 restored, and an object stays foreign, 64 wrong usage.
""")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--identity",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The private key of age for the keys in the backup.",
)
@click.option("--replace", is_flag=True, help="Move aside the state folder that is there.")
@click.option("--yes", is_flag=True, help="Restore without asking.")
@engine_option
def restore(
    file: Path,
    identity: Path | None,
    replace: bool,
    yes: bool,
    engine: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Make the state folder of a backup again, on the engine that the backup is of.

    The instance keeps its id. Objects that were made after the backup are listed like those of 'adopt',
    and taken over together. Until that is recorded, nothing is changed by the restored instance.
    Without --yes, the command says what it would do, and asks.
    """
    from controller.app import backup as making
    from controller.app.process import crash_reach
    from controller.cli.commands.adopt import broker_api, print_objects, take_over

    root = state_root(state)
    making.raise_unless_free(root, replace=replace)
    reach = crash_reach(os.environ)
    with making.unpacked(file, root, identity=identity) as (staged, read):
        manifest = read.manifest
        settings = making.restore_settings(staged, root, read)
        url = engine or settings.engine
        if (found := making.engine_id(url)) != manifest.engine_id:
            raise StateError(
                "restore.other-engine",
                f"{file} is of engine {manifest.engine_id}, and {found} answers at {url}",
                remedy="name the backup's engine with --engine",
            )
        instance = making.prepare_same_engine(staged, root, read, uid=os.getuid())
        host = {"directory": Path(instance.dir), "engine": engine, "policy": None}
        with broker_api(staged, instance.id, **host) as api:
            objects = api.get("strangers", {"state": str(root)})["objects"]
        if not as_json:
            echo(printable(_text(file, manifest)))
            print_objects(objects)
            made = counted(len(objects), "object")
            echo(f"{root} would be instance {instance.id} again, and take over {made}.")
        if not yes:
            unconfirmed = UsageError(
                "restore.unconfirmed",
                "nothing was changed, and standard input isn't a terminal",
                remedy="repeat it with --yes",
            )
            confirm("Restore it?", unconfirmed)
        former = making.place(staged, root, reach=reach)
    with broker_api(root, instance.id, **host) as api:
        adopted, left = take_over(api, instance.id, objects, f"restore of {file}", restored=True)
    report = {
        **_report(file, manifest),
        "state": str(root),
        "former": str(former or ""),
        "adopted": adopted,
        "left": left,
    }
    if as_json:
        print_json(report)
    else:
        if former is not None:
            echo(f"What was there is in {former}.")
        echo(f"Restored {root}, and took over {len(adopted)} of {len(objects)}.")
        echo(f"'{command_line('up', root)}' goes on with it.")
    return EXIT_REFUSED if left else 0
