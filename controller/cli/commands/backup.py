"""``backup`` and ``restore``: the state folder in one file, made while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.app.process import crash_reach
from controller.cli.clients.socket_client import BrokerApi, EngineApi
from controller.cli.commands.adopt import broker_api, print_objects, take_over
from controller.cli.commands.volume_data import dump_to, raise_if_not_root, restore_from
from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.options import (
    PassingGroup,
    command,
    command_line,
    counted,
    engine_option,
    open_state,
    print_result,
    state_root,
)
from controller.cli.output.terminal import confirm, echo
from controller.core.encoding.text import printable
from controller.model.errors import Refused, StateError, UsageError
from controller.model.mutations import STATE_BACKED_UP, STATE_CONFIRMED
from controller.model.names import NAMESPACE, OWNER, SERVICE
from controller.model.settings import BACKUPS_KEPT
from controller.settings import read_in_force

if TYPE_CHECKING:
    from controller.app.backup_file import BackupManifest, Readable, ReadBackup
    from controller.settings import Instance, StateFolder

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
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
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
@click.option(
    "--scheduled", is_flag=True, help="As the settings 'backup' say, which name a folder for FILE."
)
def make(
    file: Path | None,
    recipient: str,
    without_keys: bool,
    wanted: tuple[str, ...],
    live: bool,
    scheduled: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Write journal, files, settings, policy and keys of a running instance to FILE.

    The backup ends with a record in the journal that says who made it, and with the checkpoint that
    signs it. FILE appears once it is whole and durable. Volumes are dumped as by 'trimtab volume dump',
    which stops their containers meanwhile; each volume that FILE lacks is named.
    """
    if scheduled == (file is not None):
        raise click.UsageError("expected FILE, or --scheduled")
    folder, instance = open_state(state)
    if file is None:
        _make_scheduled(folder, instance, as_json=as_json)
        return
    if bool(recipient) == without_keys:
        raise UsageError(
            "backup.keys",
            "keys and generated values are encrypted, or left out",
            remedy="give either --recipient AGE1… or --without-keys",
        )
    made = _make(folder, instance, file.absolute(), recipient, wanted, live=live)
    print_result(_report(file, made), "\n".join(_lines(file, made)), as_json=as_json)


def _make_scheduled(folder: StateFolder, instance: Instance, *, as_json: bool) -> None:
    """Make a backup as the settings say, and remove the oldest ones beyond their number."""
    settings = read_in_force(folder.root).settings
    if not settings.backup_to:
        echo("no backup is made: the setting backup.to names no folder", err=True)
        return
    place = Path(settings.backup_to)
    file = place / f"{instance.id}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.trimtab"
    made = _make(
        folder, instance, file, settings.backup_recipient, settings.backup_volumes, live=False
    )
    former = sorted(place.glob(f"{instance.id}-????????T??????Z.trimtab"))
    for each in former[: -int(settings.backup_keep or BACKUPS_KEPT)]:
        each.unlink()
    print_result(_report(file, made), "\n".join(_lines(file, made)), as_json=as_json)


def _make(
    folder: StateFolder,
    instance: Instance,
    file: Path,
    recipient: str,
    wanted: tuple[str, ...],
    *,
    live: bool,
) -> BackupManifest:
    """Dump the wanted volumes, and make a backup."""
    from controller.app import backup as making
    from controller.app.backup_file import check_recipient

    if recipient:
        check_recipient(recipient)
    api = BrokerApi(folder.broker_socket, CUT_S)
    volumes = {str(each["name"]): each for each in api.get("inventory")["volumes"]}
    known = sorted(volumes)
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
    note = f"{file}, {keys} (by uid {os.getuid()})"
    with making.scratch(file) as dumps:
        for name in chosen:
            with left_out_if_refused(name, all_wanted="all" in wanted):
                dump_to(folder.broker_socket, name, dumps / name, live=live, note=note)
        engine = EngineApi(folder.broker_socket)
        dumped = {
            name: making.DumpedVolume(dumps / name, _body(volumes[name], engine))
            for name in chosen
            if (dumps / name).exists()
        }
        return making.make(
            folder,
            instance,
            file,
            recipient=recipient,
            ask_for_cut=lambda: str(api.record(STATE_BACKED_UP, instance.id, note)["id"]),
            volumes=dumped,
            left_out=tuple(name for name in known if name not in dumped),
            reach=crash_reach(os.environ),
        )


def _body(volume: dict[str, Any], engine: EngineApi) -> dict[str, object]:
    """Return the body of the create of a volume; empty for one that documents didn't make."""
    if volume["origin"] != "controller" or volume.get("adopted"):
        return {}
    inspect = engine.get(f"/volumes/{volume['name']}")
    places = (OWNER, NAMESPACE, SERVICE)
    labels = {key: value for key, value in (inspect["Labels"] or {}).items() if key in places}
    return {
        "Name": volume["name"],
        "Labels": labels,
        "DriverOpts": dict(inspect.get("Options") or {}),
    }


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


def _lines(file: Path, manifest: BackupManifest) -> list[str]:
    lines = [f"{file}: instance {manifest.instance}, {manifest.records} records, {manifest.time}"]
    if manifest.recipient:
        lines.append(f"keys and generated values: encrypted to {manifest.recipient}")
    else:
        lines.append("keys and generated values: left out")
    lines += [f"volume {name}: included" for name in manifest.volumes]
    lines += [f"volume {name}: left out" for name in manifest.left_out]
    return [printable(line) for line in lines]


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
    lines = [*_lines(file, manifest), f"each member is as it was written; {signed}"]
    report = {**_report(file, manifest), "ok": result.ok, "trusted": bool(keys)}
    print_result(report, "\n".join(lines), as_json=as_json)


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
    """Make a state folder of a backup.

    On the engine of the backup, the instance keeps its id. Objects that were made after the backup are
    listed like those of 'adopt', and taken over together. On another engine a new instance begins, with
    the same settings, keys and generated values; its volumes are restored first. Until all that is
    recorded, nothing is changed by the restored instance. Without --yes, the command says what it would
    do, and asks.
    """
    from controller.app import backup as making

    root = state_root(state)
    wish = _Wish(file, root, identity, engine, yes, as_json)
    if (begun := making.unfinished(root, file)) is not None:
        instance, manifest = begun
        with broker_api(root, instance.id, **wish.host(instance)) as api:
            if api.get("health")["restored"]:
                return _fill_volumes(api, wish, instance, manifest)
    making.raise_unless_free(root, replace=replace)
    with making.unpacked(file, root, identity=identity) as (staged, read):
        settings = making.restore_settings(staged, root, read)
        found = making.engine_id(engine or settings.engine)
        if found == read.manifest.engine_id:
            instance, objects, former = _restore_here(wish, staged, read)
        else:
            instance, former = _restore_elsewhere(wish, staged, read, found)
    if former is not None and not as_json:
        echo(f"What was there is in {former}.")
    with broker_api(root, instance.id, **wish.host(instance)) as api:
        if found != read.manifest.engine_id:
            return _fill_volumes(api, wish, instance, read.manifest)
        adopted, left = take_over(api, instance.id, objects, f"restore of {file}", restored=True)
    report = {
        **_report(file, read.manifest),
        "state": str(root),
        "former": str(former or ""),
        "adopted": adopted,
        "left": left,
    }
    text = f"Restored {root}, and took over {len(adopted)} of {len(objects)}."
    print_result(report, f"{text}\n{_next(root)}", as_json=as_json)
    return EXIT_REFUSED if left else 0


@dataclass(frozen=True, slots=True)
class _Wish:
    """The arguments of a restore."""

    file: Path
    root: Path
    identity: Path | None
    engine: str | None
    yes: bool
    as_json: bool

    def host(self, instance: Instance) -> dict[str, Any]:
        """Return the options of a broker for the command."""
        return {"directory": Path(instance.dir), "engine": self.engine, "policy": None}

    def confirm(self, lines: Sequence[str]) -> None:
        """Say what would happen, and ask."""
        if not self.as_json:
            for line in lines:
                echo(printable(line))
        if not self.yes:
            unconfirmed = UsageError(
                "restore.unconfirmed",
                "nothing was changed, and standard input isn't a terminal",
                remedy="repeat it with --yes",
            )
            confirm("Restore it?", unconfirmed)


def _next(root: Path) -> str:
    return f"To go on: {command_line('up', root)}, or systemctl start trimtab.target"


def _restore_here(
    wish: _Wish, staged: Path, read: ReadBackup
) -> tuple[Instance, list[Any], Path | None]:
    """Put the same instance into its place. Return it, the unknown objects, and where the former folder is."""
    from controller.app import backup as making

    instance = making.prepare_same_engine(staged, wish.root, read, uid=os.getuid())
    with broker_api(staged, instance.id, **wish.host(instance)) as api:
        objects = list(api.get("strangers", {"state": str(wish.root)})["objects"])
    if not wish.as_json:
        print_objects(objects)
    made = counted(len(objects), "object")
    again = f"{wish.root} would be instance {instance.id} again, and take over {made}."
    wish.confirm([*_lines(wish.file, read.manifest), again])
    return instance, objects, making.place(staged, wish.root, reach=crash_reach(os.environ))


def _restore_elsewhere(
    wish: _Wish, staged: Path, read: ReadBackup, engine_id: str
) -> tuple[Instance, Path | None]:
    """Put a new instance into its place. Return it, and where the former folder is."""
    from controller.app import backup as making

    manifest = read.manifest
    instance = making.prepare_other_engine(
        staged, wish.root, read, engine=engine_id, uid=os.getuid()
    )
    raise_if_not_root()
    filled = ", ".join(manifest.bodies) or "none"
    empty = [
        name for name in (*manifest.volumes, *manifest.left_out) if name not in manifest.bodies
    ]
    lines = [
        *_lines(wish.file, manifest),
        f"{wish.root} would be the new instance {instance.id} on engine {engine_id}.",
        f"volumes that would be made and filled: {filled}",
    ]
    if empty:
        lines.append(f"volumes that would begin empty, or stay missing: {', '.join(empty)}")
    lines.append(f"The instance {manifest.instance} must not go on: see the end of this command.")
    wish.confirm(lines)
    return instance, making.place(staged, wish.root, reach=crash_reach(os.environ))


def _fill_volumes(api: BrokerApi, wish: _Wish, instance: Instance, manifest: BackupManifest) -> int:
    """Make and fill the volumes of a new instance, then let it change things."""
    from controller.app.backup import FORMER, read_volumes

    note = f"restore of {wish.file}"
    engine = EngineApi(api.path, CUT_S)
    for body in manifest.bodies.values():
        engine.fetch("/volumes/create", "POST", body)

    def fill(name: str, archive: Readable) -> None:
        if name in manifest.bodies:
            restore_from(api.path, name, archive, note=note)

    read_volumes(wish.file, fill)
    api.record(STATE_CONFIRMED, instance.id, f"{note} (by uid {os.getuid()})")
    filled = counted(len(manifest.bodies), "volume")
    lines = (
        f"Restored {wish.root} as instance {instance.id}, with {filled}.",
        f"The former journal: trimtab journal verify --state {wish.root / FORMER}",
        f"End the instance {manifest.instance} where it was: trimtab down, and never start it again.",
        _next(wish.root),
    )
    report = {
        **_report(wish.file, manifest),
        "state": str(wish.root),
        "instance": instance.id,
        "restoredFrom": manifest.instance,
        "filled": list(manifest.bodies),
    }
    print_result(report, "\n".join(map(printable, lines)), as_json=wish.as_json)
    return 0
