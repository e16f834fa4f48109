"""``support-bundle``: facts about an instance for a bug report, of a list of allowed fields."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from controller import __version__
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.clients.status_report import fetch
from controller.cli.commands import doctor
from controller.cli.options import command, print_json, state_root
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.cli.output.times import current_time
from controller.core.encoding.json_values import mapping_of
from controller.core.records.record import timestamp
from controller.core.status.support_bundle import bundle, counts, listed
from controller.model.errors import StateError, TrimtabError
from controller.model.quantities import parse_duration_ms
from controller.model.settings import BY_NAME, InstanceSettings
from controller.settings import StateFolder, read_in_force, read_instance, state_of
from controller.system.systemd import server_of

#: The newest records that are counted.
RECORDS_MAX = 10_000
NEVER = (
    "Never in it: environments, arguments, documents, output of containers, messages, notes, paths, "
    "addresses, references of images."
)
#: What a bundle has under another name than the engine.
_ENGINE = {
    "driver": "Driver",
    "cgroupVersion": "CgroupVersion",
    "cgroupDriver": "CgroupDriver",
    "loggingDriver": "LoggingDriver",
    "runtime": "DefaultRuntime",
    "liveRestore": "LiveRestoreEnabled",
    "containers": "Containers",
    "containersRunning": "ContainersRunning",
    "images": "Images",
}


@command("""\b
Examples:
  trimtab support-bundle --list              what is in a bundle
  trimtab support-bundle -                   print it
  trimtab support-bundle /tmp/trimtab.json   write it, to be read before it is sent
""")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--list", "only_list", is_flag=True, help="List the fields, and ask nobody.")
def support_bundle(file: Path | None, only_list: bool, state: Path | None, as_json: bool) -> int:
    """Write facts about this instance to FILE, for a bug report: one JSON text.

    Versions, the engine, digest and modes of the policy, which settings are set, conditions of resources
    without their messages, results of 'trimtab doctor', counts and durations of records, sizes. Only
    listed fields with values of their form are in it, and no form admits free text: no secret gets in, wherever
    it stands. Names of resources and namespaces are in it.
    """
    if only_list:
        rows = [*listed()]
        if as_json:
            print_json(dict(rows))
        else:
            echo(table(("FIELD", "FORM"), rows))
            echo(NEVER)
        return 0
    if file is None:
        raise click.UsageError("name a FILE, - for standard output, or --list")
    root = state_root(state)
    found = bundle(_reports(root))
    if str(file) == "-":
        print_json(found)
        return 0
    text = json.dumps(found, indent=2) + "\n"
    try:
        with open(file, "x", encoding="utf-8", opener=_private) as written:
            written.write(text)
    except OSError as error:
        raise StateError(
            "bundle.unwritable",
            f"{file} can't be written: {error.strerror}",
            remedy="name a file that doesn't exist, in a folder of yours",
        ) from error
    if as_json:
        print_json({"file": str(file), "bytes": len(text)})
    else:
        echo(f"Wrote {file} ({len(text)} bytes). Read it before you send it.")
    return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _reports(root: Path) -> dict[str, object]:
    """Return everything that a bundle is made of; what can't be had is named in ``unavailable``."""
    unavailable: dict[str, str] = {}

    def ask(name: str, get: Callable[[], Any]) -> Any:
        try:
            return get()
        except TrimtabError as error:
            unavailable[name] = error.code
        except (OSError, ValueError, KeyError):
            unavailable[name] = "unreadable"
        return {}

    found: dict[str, object] = {
        "made": {"time": timestamp(current_time())},
        "versions": _versions(),
        "unavailable": unavailable,
    }
    instance = ask("instance", lambda: read_instance(root))
    if not instance:
        return found
    folder, settings = state_of(root, instance), read_in_force(root).settings
    api = BrokerApi(folder.broker_socket)
    health = mapping_of(ask("broker", lambda: api.get("health")))
    policy = mapping_of(ask("policy", lambda: api.get("policy")))
    report = mapping_of(ask("status", lambda: fetch(root, now=current_time()).report))
    engine = BrokerApi(folder.broker_socket, prefix="/")
    info = mapping_of(ask("engine", lambda: engine.get("info")))
    lines = ask("records", lambda: api.fetch("journal", query={"limit": str(RECORDS_MAX)})[0])
    checks = ask("checks", lambda: _checks(root, settings))
    about: dict[str, object] = {
        "instance": {"id": instance.id, "engineId": instance.engine_id},
        "settings": _settings(settings),
        "engine": {
            **mapping_of(health.get("engine")),
            **{name: info.get(member) for name, member in _ENGINE.items()},
        },
        "policy": {**mapping_of(health.get("policy")), "modes": _modes(policy)},
        "journal": health.get("journal"),
        "broker": _broker(health),
        "verified": ask("verified", lambda: json.loads(folder.verified.read_bytes())),
        "records": counts(json.loads(line) for line in lines.splitlines()) if lines else {},
        "resources": report.get("resources"),
        "sources": report.get("sources"),
        "problems": report.get("problems"),
        "checks": checks,
        "processes": _processes(folder),
        "sizes": _sizes(folder),
    }
    return found | about


def _versions() -> dict[str, object]:
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    return {
        "trimtab": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "distribution": release.get("ID"),
        "distributionVersion": release.get("VERSION_ID"),
    }


def _settings(settings: InstanceSettings) -> list[dict[str, object]]:
    """Return the keys that are set, and the values of keys with times."""
    plain = InstanceSettings()
    found = []
    for key in BY_NAME.values():
        value = getattr(settings, key.field)
        row: dict[str, object] = {"key": key.name, "isSet": value != getattr(plain, key.field)}
        with suppress(ValueError):
            row["seconds"] = parse_duration_ms(str(value)) / 1000
        found.append(row)
    return found


def _modes(answer: Mapping[str, Any]) -> object:
    return mapping_of(answer.get("policy")).get("modes")


def _broker(health: Mapping[str, Any]) -> dict[str, object]:
    def member(section: str, name: str) -> object:
        return mapping_of(health.get(section)).get(name)

    return {
        "openIntents": health.get("openIntents"),
        "longestStallMs": member("loop", "longestStallMs"),
        "refusedConnections": member("connections", "refused"),
        "strangers": member("strangers", "count"),
        "rivals": member("rivals", "count"),
        "quotas": member("quotas", "fullest"),
    }


def _checks(root: Path, settings: InstanceSettings) -> list[dict[str, object]]:
    return [asdict(each) for each in doctor.all_findings(root, settings.engine)]


def _processes(folder: StateFolder) -> list[dict[str, object]]:
    """Return what the kernel says of the processes that listen on our sockets."""
    sockets = {
        "broker": folder.broker_socket,
        "controller": folder.controller_socket,
        "fetcher": folder.fetch_socket,
    }
    found = []
    for role, path in sockets.items():
        try:
            pid = server_of(str(path))
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = {name: value for name, _, value in (line.partition(":\t") for line in lines)}
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks = sum(map(int, times[11:13]))
        row: dict[str, object] = {
            "role": role,
            "residentBytes": int(status["VmRSS"].split()[0]) * 1024,
            "threads": int(status["Threads"]),
            "processorSeconds": round(ticks / os.sysconf("SC_CLK_TCK"), 1),
        }
        with suppress(OSError):  # of another user
            row["openFiles"] = len([*Path(f"/proc/{pid}/fd").iterdir()])
        found.append(row)
    return found


def _sizes(folder: StateFolder) -> dict[str, object]:
    """Return the bytes of the parts of the state folder, as far as this user can read."""
    places = {
        "journal": folder.journal,
        "files": folder.root / "files",
        "controller": folder.controller,
        "fetcher": folder.fetcher,
        "ship": folder.ship,
        "notify": folder.notify,
    }
    found: dict[str, object] = {name: _size(path) for name, path in places.items()}
    with suppress(OSError):
        space = os.statvfs(folder.root)
        found["free"] = space.f_bavail * space.f_frsize
    return found


def _size(path: Path) -> int:
    files: Iterable[Path] = path.rglob("*")
    total = 0
    with suppress(OSError):
        for each in files:
            status = each.lstat()
            total += status.st_size
    return total
