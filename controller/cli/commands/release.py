"""``release``: let services' containers go as ordinary ones, which stay when trimtab goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from controller.cli import options
from controller.cli.clients import oneshot
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.clients.status_report import names_argument, project_option
from controller.cli.exit_codes import EXIT_ERROR, EXIT_REFUSED
from controller.cli.options import HostChoice, counted, note_option, open_state, print_json
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo, echo_with_remedy
from controller.core.encoding.text import printable
from controller.model.errors import StateError, TrimtabError, UsageError

#: The broker stops a container with files, within its grace period, and starts the one in its place.
RELEASE_S = 600.0
HEADERS = ("CONTAINER", "SERVICE", "SLOT", "BECOMES", "RESTART", "FILES")


@options.command("""\b
Examples:
  trimtab release web                        show what would become of its containers
  trimtab release web --yes                  let them go; no process is restarted
  trimtab release -n shop --to /srv/shop --yes
  trimtab release --all --to /srv/released --yes
  trimtab adopt web.1-0a1b2c3d --as web      take one back

\b
Exit codes: 0 all of it can be (or was) released, 4 something can't be, 1 a step failed.
""")
@names_argument
@project_option
@click.option("--all", "everything", is_flag=True, help="All services of the instance.")
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy the files of Configs and Secrets here, and mount them from here.",
)
@click.option(
    "--keep-restart", is_flag=True, help="Leave the restart policy 'no' of running containers."
)
@click.option("--yes", is_flag=True, help="Release; without this option, only show.")
@note_option
def release(
    names: tuple[str, ...],
    namespace: str | None,
    everything: bool,
    folder: Path | None,
    keep_restart: bool,
    yes: bool,
    note: str,
    state: Path | None,
    as_json: bool,
) -> int:
    """Let containers of services go: they run on as ordinary ones, and stay when trimtab goes.

    trimtab doesn't repair, replace or remove a released container, and starts nothing next to it, also if a
    document still declares the service. 'trimtab adopt CONTAINER --as SERVICE' takes it back. Networks and
    volumes stay.

    Nothing is restarted, with one exception: a container that mounts files of a Config or Secret. These
    files go with trimtab. So they are copied to --to FOLDER, in plain text and with their owners and modes,
    and a new container that mounts the copies takes the place of the old one. The policy judges the new
    container, with its binds.
    """
    if bool(names) + bool(everything) + (namespace is not None and not names) != 1:
        raise click.UsageError("name services, or a project with -n NAMESPACE, or --all")
    root, instance = open_state(state)
    host = HostChoice(root.root, Path(instance.dir), None, None)
    remark = f"{note} (by uid {os.getuid()})".strip()[:512]
    with oneshot.broker_of(host) as serving:
        api = BrokerApi(serving.broker_socket, RELEASE_S)
        inventory = api.get("inventory")
        ids = [*_chosen(inventory, names, namespace)]
        common: dict[str, object] = {"keepRestart": keep_restart, "note": remark}
        found = [_ask(api, each, {**common, "dryRun": True}) for each in ids]
        made = list[Path]()
        try:
            copies = _copy(found, folder, made) if yes and not _refused(found, folder) else {}
            if copies:
                found = [
                    _ask(api, each["id"], {**common, "dryRun": True, **_files_of(each, copies)})
                    for each in found
                ]
        finally:
            if made and (_refused(found, folder) or not copies):
                _remove(made)
        refused = _refused(found, folder)
        released, failed = list[str](), list[dict[str, str]]()
        for each in found if yes and not refused else ():
            try:
                answer = api.post(
                    "releases",
                    {"container": each["id"], **common, "dryRun": False, **_files_of(each, copies)},
                )
                released.append(answer["released"])
            except TrimtabError as error:
                failed.append({"id": each["id"], "reason": f"{error.message} [{error.code}]"})
                break
    report = {"containers": found, "released": released, "failed": failed}
    if as_json:
        print_json(report)
    else:
        _print(report, folder, refused=refused, yes=yes)
    if failed:
        return EXIT_ERROR
    return EXIT_REFUSED if refused else 0


def _chosen(inventory: Any, names: tuple[str, ...], namespace: str | None) -> Iterator[str]:
    """Yield the ids of the chosen services' containers, and of those whose release was cut off.

    Raises:
        StateError: a name means no service, or several.
    """
    known = [*inventory["containers"], *inventory["released"]]
    services = [each for each in known if each["origin"] == "controller" and not each.get("is_run")]
    if namespace is not None:
        services = [each for each in services if each["namespace"] == namespace]
    keys = {(each["namespace"], each["service"]) for each in services}
    wanted = keys if not names else set[tuple[str, str]]()
    for name in names:
        parts = tuple(name.removeprefix("Service/").split("/"))
        matching = {key for key in keys if key[-len(parts) :] == parts}
        if not matching:
            raise StateError(
                "service.unknown",
                f"no container of a service {name} is here",
                remedy="'trimtab status' lists services; a released one isn't trimtab's any more",
            )
        if len(matching) > 1:
            listed = ", ".join(sorted("/".join(key) for key in matching))
            raise StateError(
                "service.ambiguous", f"{name} is {listed}", remedy="name it with its namespace"
            )
        wanted |= matching
    is_done = {each["id"] for each in inventory["released"] if not _mounts_files(each)}
    services.sort(key=lambda each: (each["namespace"], each["service"], each["slot"], each["id"]))
    for each in services:
        if (each["namespace"], each["service"]) in wanted and each["id"] not in is_done:
            yield each["id"]


def _mounts_files(item: Any) -> bool:
    mounts = (item.get("confined") or {}).get("mounts") or ()
    return any(mount.get("type") in ("config", "secret") for mount in mounts)


def _ask(api: BrokerApi, container: str, members: dict[str, object]) -> Any:
    return api.post("releases", {"container": container, **members})["container"]


def _refused(found: Iterable[Any], folder: Path | None) -> bool:
    """Return True if a container can't be released, or needs a folder for its files."""
    return any(each["findings"] or (each["files"] and folder is None) for each in found)


# Copies of files


def _files_of(container: Any, copies: dict[tuple[str, str], str]) -> dict[str, object]:
    mine = {
        each["target"]: path
        for each in container["files"]
        if (path := copies.get((container["id"], each["target"])))
    }
    return {"files": mine} if mine else {}


def _copy(
    found: Iterable[Any], folder: Path | None, made: list[Path]
) -> dict[tuple[str, str], str]:
    """Copy the delivered files of containers; return the paths, by container and target.

    *made* gets each folder that is made, before anything is written there.

    Raises:
        StateError: a file can't be read or written.
        UsageError: the folder has other files at the place.
    """
    copies: dict[tuple[str, str], str] = {}
    for each in found:
        if not each["files"] or folder is None:
            continue
        place = Path(os.path.realpath(folder)) / each["namespace"] / each["name"]
        if place.exists() and any(place.iterdir()):
            raise UsageError(
                "release.folder",
                f"{place} isn't empty",
                remedy="name another folder; files there are never overwritten",
            )
        try:
            # Files of Secrets: for those alone who may read each.
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            made.append(place)
            for mount in each["files"]:
                name = mount["target"].lstrip("/").replace("_", "__").replace("/", "_")
                copy = place / name
                _copy_one(Path(mount["path"]), copy)
                copies[each["id"], mount["target"]] = str(copy)
        except OSError as error:
            raise StateError(
                "release.files",
                f"the files of {each['name']} can't be copied: {error}",
                remedy="run it as root: delivered files are root's",
            ) from error
    return copies


def _copy_one(source: Path, copy: Path) -> None:
    """Copy a delivered file, or a folder of such files, with owners and modes."""
    found = source.stat()
    if source.is_dir():
        copy.mkdir(mode=0o700)
        for entry in sorted(source.iterdir()):
            if not entry.name.startswith(".."):  # a link to the content of now
                _copy_one(entry, copy / entry.name)
    else:
        with source.open("rb") as read, open(copy, "xb", opener=_private) as written:
            shutil.copyfileobj(read, written)
    os.chown(copy, found.st_uid, found.st_gid)
    copy.chmod(found.st_mode & 0o7777)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove(made: Iterable[Path]) -> None:
    for place in made:
        shutil.rmtree(place, ignore_errors=True)


# Words


def _print(report: Any, folder: Path | None, *, refused: bool, yes: bool) -> None:
    found, failed = report["containers"], report["failed"]
    if found:
        echo(table(HEADERS, [_row(each) for each in found]))
    for each in found:
        _print_notes(each, folder)
    for each in failed:
        echo(printable(f"{each['id'][:12]}: {each['reason']}"))
    done = counted(len(report["released"]), "container")
    if failed:
        echo(f"Released {done}. Repeat the command, which does the rest.")
    elif not found:
        echo("Nothing is left to release.")
    elif refused:
        echo("Nothing was changed.")
    elif not yes:
        echo("Nothing was changed; repeat it with --yes to release these.")
    else:
        echo(f"Released {done}. trimtab leaves them alone from now on.")


def _print_notes(container: Any, folder: Path | None) -> None:
    name = container["name"]
    if container["files"] and folder is None:
        text = f"{name}: it mounts files that trimtab delivers"
        echo_with_remedy(text, "name a folder for copies of them: --to FOLDER")
    if container["hooks"]:
        echo(printable(f"{name}: its hooks run no more"))
    for finding in container["findings"]:
        text = f"{name}: {finding['path']}: {finding['reason']} [{finding['rule']}]"
        echo_with_remedy(printable(text), finding["remedy"])


def _row(each: Any) -> tuple[str, ...]:
    restart = each["restart"]
    policy = restart["becomes"]
    if restart["was"] != restart["becomes"]:
        policy = f"{restart['was']} -> {restart['becomes']}"
    becomes = "as it runs" if not each["files"] else "replaced by a copy"
    files = ", ".join(file["target"] for file in each["files"])
    return (
        each["name"],
        f"{each['namespace']}/{each['service']}",
        each["slot"],
        becomes,
        policy,
        files,
    )
