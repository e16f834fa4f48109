"""``doctor``: check the host and the instance, with a remedy for each finding."""

from __future__ import annotations

import grp
import json
import os
import platform
import pwd
import re
import shutil
import socket
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_IWGRP
from typing import Any
from urllib.parse import quote

import click

from controller import __version__
from controller.cli.clients.socket_client import BrokerApi, ask_controller, exchange
from controller.cli.clients.status_report import key_text, name_of, settings_problems
from controller.cli.exit_codes import with_program
from controller.cli.options import command, counted, engine_option, print_json, state_root
from controller.cli.output.terminal import echo
from controller.cli.output.times import age, current_time, parse_time
from controller.cli.status.status import signed_rows
from controller.cli.status.table import Resource
from controller.core.encoding.json_values import texts_of
from controller.core.encoding.text import printable
from controller.core.enforcement.kept_settings import ignored_limits
from controller.core.engine_api.engine_objects import REMEDY, image_store, untested
from controller.model.errors import Problem, TrimtabError, error_reason
from controller.model.quantities import format_duration_ms
from controller.model.settings import REGISTRY_AUTH, STANDARD_SOCKET
from controller.process.start_checks import remedy_for, user_name
from controller.settings import (
    GROUP,
    SYSTEM_SETTINGS,
    StateFolder,
    TargetsInForce,
    raise_if_restoring,
    read_in_force,
    read_instance,
    settings_file,
    state_of,
)
from controller.system.sockets import broker_sockets, engine_socket_path, open_ports
from controller.system.systemd import (
    ENGINE_UNIT,
    differing_folder,
    is_restored_at_boot,
    root_of,
    server_of,
)

#: Bits of access. Others, such as set-group-id, stay as they are.
_ACCESS = 0o777
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file or folder with more access than it needs."""

    path: Path
    mode: int
    wanted: int

    @property
    def told(self) -> str:
        return f"{self.path} has mode {self.mode:04o}, wants {self.wanted:04o}"


def open_files(state: StateFolder, policy: Path, registry_auth: Path) -> Iterator[OpenFile]:
    """Yield the files and folders that are open to more users than trimtab makes them for.

    The bounds are what ``app.state_folder`` makes, and what the broker requires of files of root's. What is
    missing, a link, or closed to this user is left out.
    """
    most = {
        state.root: 0o755,
        state.broker: 0o700,
        state.journal_key: 0o600,
        state.hash_key: 0o600,
        state.controller: 0o700,
        state.run: 0o750,
        state.fetcher: 0o750,
        state.feedback: 0o750,
        state.ship: 0o700,
        # A group of the owner's own may write it.
        policy: 0o775,
        settings_file(state.root): 0o775,
        registry_auth: 0o700,
    }
    for path, access in most.items():
        try:
            found = path.lstat().st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(found) and found & _ACCESS & ~access:
            mode = stat.S_IMODE(found)
            yield OpenFile(path, mode, mode & ~(_ACCESS & ~access))


def close_file(found: OpenFile) -> None:
    """Take the surplus access away. Access is never given.

    Raises:
        OSError: this user isn't allowed to, or a link stands there now.
    """
    handle = os.open(found.path, _OPEN)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.fchmod(handle, mode & found.wanted)
    finally:
        os.close(handle)


MINIMUM_API = (1, 44)
#: Bytes of an engine's answer.
ANSWER_MAX = 16 << 20
#: The engine measures the folder of each volume.
USAGE_TIMEOUT_S = 30.0
#: Resources named in a finding.
NAMES_MAX = 10
#: Conditions that are findings: condition, check, level, message, remedy.
_UNSETTLED = (
    (
        ("PolicyViolation", "policy", "warning", "the policy refuses resources"),
        "'trimtab status' names the rule, and what to change in the document or the policy",
    ),
    (
        ("Paused", "rollout", "warning", "a rollout failed, and is paused"),
        "'trimtab logs --previous NAME' says why; change the document, or 'trimtab resume NAME'",
    ),
    (("Progressing", "rollout", "ok", "in progress"), ""),
)
#: A fuller quota is a warning.
QUOTA_PERCENT = 90
#: Less free space is a warning.
FREE_BYTES, FREE_SHARE = 1024**3, 0.05
#: A source without a successful fetch for longer is a warning.
FETCH_AGE_S = 3600.0
FETCH_USER = "trimtab-fetch"
_WELL = ("Ready", "Suspended")
#: An older state of notifications is a warning: the process writes one each minute.
NOTICES_AGE_S = 180.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check."""

    check: str
    level: str  # ok, hint, warning or error
    message: str
    remedy: str = ""


@command("""\b
Examples:
  trimtab doctor
  trimtab doctor --json | jq '.[] | select(.level != "ok")'
  sudo trimtab doctor --fix                  close files that are open to others, and check
""")
@click.option(
    "--fix", is_flag=True, help="First mend what loses nothing: take surplus access from files."
)
@engine_option
def doctor(engine: str | None, fix: bool, state: Path | None, as_json: bool) -> int:
    """Check engine, state folder, broker, controller and host; exit 1 if a check is an error.

    With --fix, each act is printed. Nothing is removed, stopped or restarted, and no access is given.
    """
    root = state_root(state)
    url = engine or os.environ.get("DOCKER_HOST") or STANDARD_SOCKET
    findings = [*(fixes(root) if fix else ()), *all_findings(root, url)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        show_findings(findings)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def all_findings(root: Path, url: str) -> Iterator[CheckResult]:
    """Yield the result of every check of an instance, with the engine at an address."""
    yield from own_findings()
    yield from engine_findings(url, served=_is_served(root))
    yield from disk_findings("state folder", root)
    yield from instance_findings(root)
    yield from host_findings()


def fixes(root: Path) -> Iterator[CheckResult]:
    """Take surplus access from the files of an instance, and yield each act."""
    for found in _open_files(root):
        try:
            close_file(found)
        except OSError as error:
            message = f"{found.told}: {error.strerror}"
            yield CheckResult("fix", "error", message, "run it as root: sudo trimtab doctor --fix")
        else:
            yield CheckResult("fix", "ok", f"chmod {found.wanted:04o} {found.path}")


def _open_files(root: Path) -> list[OpenFile]:
    try:
        instance = read_instance(root)
        settings = read_in_force(root).settings
    except TrimtabError:
        return []
    if instance is None:
        return []
    from controller.app.policy import policy_file  # loads what reads policies

    registry_auth = Path(settings.registry_auth or REGISTRY_AUTH)
    found = open_files(state_of(root, instance), policy_file(settings.policy), registry_auth)
    return [*found]


def _modes(root: Path) -> Iterator[CheckResult]:
    """Check that the files of the instance are open to nobody else."""
    found = _open_files(root)
    for each in found:
        remedy = f"chmod {each.wanted:04o} {each.path}, or 'trimtab doctor --fix'"
        yield CheckResult("modes", "warning", each.told, remedy)
    if not found:
        yield CheckResult("modes", "ok", "no file of the instance is open to others")


def show_findings(findings: Iterable[CheckResult]) -> None:
    """Print the result of each check, and its remedy."""
    colours = {"ok": "green", "hint": "cyan", "warning": "yellow", "error": "red"}
    for finding in findings:
        level = click.style(f"{finding.level:7}", fg=colours[finding.level])
        echo(f"{level}  {printable(f'{finding.check}: {finding.message}')}")
        if finding.remedy:
            echo(printable(f"         remedy: {with_program(finding.remedy)}"))


def own_findings() -> Iterator[CheckResult]:
    """Report the versions, and check that PATH has trimtab."""
    python = f"Python {platform.python_version()}"
    kernel = f"{platform.system()} {platform.release()}"
    yield CheckResult("trimtab", "ok", f"version {__version__}, {python}, {kernel}")
    if shutil.which("trimtab") is None:
        program = Path(sys.argv[0]).absolute()
        remedy = f"ln -s {program} /usr/local/bin/trimtab, or call it by its path"
        yield CheckResult("PATH", "hint", f"trimtab isn't on PATH; it is {program}", remedy)


def _is_served(root: Path) -> bool:
    """Return True if a broker of the instance answers: then only the broker needs the engine."""
    try:
        instance = read_instance(root)
        if instance is not None:
            BrokerApi(state_of(root, instance).broker_socket).get("whoami")
    except TrimtabError:
        return False
    return instance is not None


def disk_findings(label: str, path: Path) -> Iterator[CheckResult]:
    """Check that the disk of a folder has space for the journal, images and volumes."""
    try:
        usage = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists()))
    except OSError:
        return  # the user has no access to the folder
    size, unit = (1024**3, "GiB") if usage.total >= 1024**3 else (1024**2, "MiB")
    free = f"{label} {path}: {usage.free / size:.1f} {unit} free of {usage.total / size:.1f} {unit}"
    is_low = usage.free < FREE_BYTES or usage.free < FREE_SHARE * usage.total
    remedy = "free space there: nothing is changed while the journal can't be written"
    yield (
        CheckResult("disk", "warning", free, remedy) if is_low else CheckResult("disk", "ok", free)
    )


def engine_findings(url: str, *, served: bool) -> Iterator[CheckResult]:
    """Check that an engine answers, and that its version is supported.

    *served* is True if a broker of the instance answers this user.
    """
    if not url.startswith("unix://"):
        yield CheckResult("engine", "error", f"{url} isn't a Unix socket", "name unix://PATH")
        return
    path = url.removeprefix("unix://")
    try:
        version = ask_engine(path, "/version")
    except PermissionError:
        if served:
            closed = f"{path} is closed to you, as it should be: the broker asks the engine for you"
            yield CheckResult("engine", "ok", closed)
        else:
            closed = f"{user_name()} is not allowed to open {path}, so 'trimtab up' can't start"
            yield CheckResult("engine", "error", closed, remedy_for(path))
        return
    except (OSError, ValueError) as error:
        yield CheckResult(
            "engine", "error", f"nothing answers at {path}: {error_reason(error)}", "start dockerd"
        )
        return
    api = str(version.get("ApiVersion", "0.0"))
    numbers = tuple(int(part) for part in api.split(".") if part.isdigit())
    engine = f"dockerd {version.get('Version')}, API {api}, at {path}"
    if numbers < MINIMUM_API:
        yield CheckResult("engine", "error", f"{engine}: too old", "upgrade to API 1.44 or newer")
    else:
        yield CheckResult("engine", "ok", engine)
    yield from leftover_volumes(path)
    try:
        info = dict(ask_engine(path, "/info"))
        root = Path(str(info["DockerRootDir"]))
    except (OSError, ValueError, KeyError, TypeError):
        return
    warning = untested(str(version.get("Version", "")), image_store(info))
    if warning and not served:  # else the broker says so
        yield CheckResult("engine", "hint", warning, REMEDY)
    yield from disk_findings("engine's folder", root)


def ask_engine(path: str, target: str, *, timeout_s: float = 5) -> Any:
    """Send a GET to the engine at the path of a socket, and return the JSON of its answer.

    Raises:
        OSError, ValueError: there is no answer, or no JSON in the answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(timeout_s)
        peer.connect(path)
        return json.loads(exchange(peer, "GET", target, None, longest=ANSWER_MAX).body)


def leftover_volumes(path: str) -> Iterator[CheckResult]:
    """Report anonymous volumes that no container uses. Nothing is removed.

    Docker leaves a volume at each replacement of a container whose image declares a VOLUME.
    """
    try:
        answer = ask_engine(path, f"/volumes?filters={quote(json.dumps({'dangling': ['true']}))}")
        volumes = answer.get("Volumes") or ()
        names = {volume["Name"] for volume in volumes if is_unnamed(volume["Name"])}
    except (OSError, ValueError, KeyError):
        return  # engine_findings reports problems of the engine
    if not names:
        yield CheckResult("volumes", "ok", "no volume without a name is left over")
        return
    count = f"{counted(len(names), 'volume')} without a name, used by no container"
    yield CheckResult(
        "volumes",
        "warning",
        f"{count}{_size_of(path, names)}: left by docker",
        "look: docker volume ls --filter dangling=true; remove one: docker volume rm NAME; remove "
        "all that have no name: docker volume prune",
    )


def is_unnamed(name: str) -> bool:
    """Return True if a volume has a name from the engine: 64 hex digits."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def _size_of(path: str, names: Collection[str]) -> str:
    """Return the size of volumes as part of a sentence, empty if the engine doesn't report sizes."""
    try:
        usage = ask_engine(path, "/system/df?type=volume", timeout_s=USAGE_TIMEOUT_S)
        sizes = [v["UsageData"]["Size"] for v in usage["Volumes"] if v["Name"] in names]
        total = sum(size for size in sizes if size >= 0)
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f", {total / 1024**2:.1f} MiB in all"


def instance_findings(root: Path) -> Iterator[CheckResult]:
    """Check the state folder, its policy, and its running processes."""
    try:
        instance, current = read_instance(root), read_in_force(root).settings
        if instance is None:
            raise_if_restoring(root)
    except TrimtabError as error:
        yield CheckResult("state", "error", error.message, error.remedy)
        return
    if instance is None:
        yield CheckResult("state", "warning", f"no instance at {root}", "run 'trimtab up'")
        return
    yield CheckResult("state", "ok", f"{root}, instance {instance.id}, DIR {instance.dir}")
    folder = state_of(root, instance)
    from controller.app.policy import policy_file  # loads what reads policies

    yield _policy_file(policy_file(current.policy), folder)
    yield from _modes(root)
    yield _quarantine(current.quarantine_ms, settings_file(root))
    yield from notify_findings(folder, now=current_time())
    api = BrokerApi(folder.broker_socket)
    try:
        health, caller, proofs = map(api.get, ("health", "whoami", "proofs"))
    except TrimtabError as error:
        yield CheckResult("broker", "warning", error.message, error.remedy)
    else:
        yield from _broker(health, separated=bool(caller.get("separated", True)))
        yield from _settings(settings_problems(folder, health, None))
        yield socket_finding(folder)
        yield from view_findings(folder.broker_socket, engine_socket_path(current.engine))
        yield from (CheckResult("signed", *row) for row in signed_rows(proofs))
    try:
        report = ask_controller(folder.controller_socket, {"do": "status"})
        yield CheckResult("controller", "ok", f"serves {folder.controller_socket}")
        yield from _settings(settings_problems(folder, None, report))
        yield from resource_findings(report["resources"])
        yield from boot_findings(report["resources"], root)
        yield from source_findings(report.get("sources", []), folder.fetcher, now=current_time())
    except TrimtabError as error:
        yield CheckResult("controller", "warning", error.message, error.remedy)


def _settings(problems: Iterable[Problem]) -> Iterator[CheckResult]:
    """Report what a process doesn't take of the file of settings."""
    for problem in problems:
        yield CheckResult("settings", "warning", problem.message, problem.remedy)


def resource_findings(resources: Iterable[Resource]) -> Iterator[CheckResult]:
    """Report resources that the policy refuses, and resources with an unfinished rollout."""
    by_condition: dict[str, list[str]] = {}
    for resource in resources:
        name = name_of(key_text(resource))
        for condition in resource["conditions"]:
            if condition["status"] == "True":
                by_condition.setdefault(condition["type"], []).append(name)
    for (condition, check, level, message), remedy in _UNSETTLED:
        if names := by_condition.get(condition):
            more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
            listed = f"{message}: {', '.join(names[:NAMES_MAX])}{more}"
            yield CheckResult(check, level, listed, remedy)


def view_findings(broker: Path, engine: str) -> Iterator[CheckResult]:
    """Compare the host as broker and engine see it. Nothing if this user can't look."""
    try:
        pids = server_of(str(broker)), server_of(engine)
        folder = differing_folder(*map(root_of, pids)) if all(pids) else ""
    except OSError:
        return
    if folder:
        message = f"broker and engine each see another {folder}: mounts of the host are refused"
        remedy = "start the broker without PrivateTmp=, ProtectHome= and the like"
        yield CheckResult("view", "error", message, remedy)


def boot_findings(resources: Iterable[Resource], root: Path) -> Iterator[CheckResult]:
    """Report that the engine could start before the files of Secrets are restored."""
    if is_restored_at_boot(root) or all(each["kind"] != "Secret" for each in resources):
        return
    yield CheckResult(
        "boot",
        "warning",
        f"no enabled unit restores the files of Secrets before {ENGINE_UNIT}: services with Secrets "
        "behave as with restart.boot: Ordered, so nothing but trimtab starts them",
        f"install configs/systemd/trimtab-files.service with --state {root}, then "
        "'systemctl enable trimtab-files'",
    )


def source_findings(
    sources: Iterable[dict[str, Any]], folder: Path, *, now: float
) -> Iterator[CheckResult]:
    """Check what fetching needs, and the state of each Git source; nothing without sources."""
    listed = list(sources)
    if not listed:
        return
    if shutil.which("git") is None:
        yield CheckResult("git", "error", "the git command isn't installed", "install git")
    yield from _fetcher_folder(folder)
    for source in listed:
        name, succeeded = source["name"], parse_time(source["lastSuccess"])
        message = f"source {name} is {source['state']}"
        if source["message"]:
            message += f": {source['message']}"
        is_late = succeeded is not None and now - succeeded > FETCH_AGE_S
        if is_late:
            message += f"; the last successful fetch was {age(source['lastSuccess'], now)} ago"
        is_well = source["state"] in _WELL and not is_late
        remedy = "" if is_well else source["remedy"] or f"look at 'trimtab describe {name}'"
        yield CheckResult("source", "ok" if is_well else "warning", message, remedy)
        if feedback := source.get("feedback"):
            message = f"source {name}: commit statuses aren't sent: {feedback['message']}"
            yield CheckResult("source", "warning", message, feedback["remedy"])


def notify_findings(folder: StateFolder, *, now: float) -> Iterator[CheckResult]:
    """Check the process that sends notifications, and each destination; nothing without destinations."""
    targets = TargetsInForce(folder.root)()
    if not targets:
        return
    from controller.notify.state_file import DamagedNotices, read_notices

    try:
        state = read_notices(folder.notify)
    except PermissionError as error:
        yield CheckResult(
            "notify", "hint", f"{folder.notify}: {error.strerror}", "run doctor as root"
        )
        return
    except (OSError, DamagedNotices) as error:
        remedy = "restart the process that sends notifications"
        yield CheckResult("notify", "warning", f"{folder.notify}: {error_reason(error)}", remedy)
        return
    if now - state.at > NOTICES_AGE_S:
        remedy = "'trimtab up' runs it, or 'systemctl enable --now trimtab-notify'"
        yield CheckResult("notify", "warning", "no process sends notifications", remedy)
    elif state.blind_since:
        message = "the process that sends notifications gets no view from the controller"
        remedy = (
            "start the controller, and name the uid of trimtab-notify under `viewers` in the policy"
        )
        yield CheckResult("notify", "warning", message, remedy)
    for target in targets:
        desk = state.desks.get(target.name)
        if desk is not None and desk.failing_since:
            message = f"destination {target.name} gets nothing: {desk.error}"
            remedy = f"correct it, then 'trimtab notify test {target.name}'"
            yield CheckResult("notify", "warning", message, remedy)
        else:
            yield CheckResult("notify", "ok", f"destination {target.name}")


def _fetcher_folder(folder: Path) -> Iterator[CheckResult]:
    try:
        folder.stat()
    except FileNotFoundError:
        remedy = "start 'trimtab up' anew: it starts the fetcher while a Source is declared"
        yield CheckResult("fetcher", "warning", f"{folder} doesn't exist", remedy)
    except OSError as error:
        yield CheckResult("fetcher", "hint", f"{folder}: {error.strerror}", "run doctor as root")
    else:
        yield CheckResult("fetcher", "ok", str(folder))
    if os.geteuid() == 0 and not _is_user(FETCH_USER):
        remedy = f"create the system user {FETCH_USER}"
        yield CheckResult("fetcher", "hint", f"there is no user {FETCH_USER}", remedy)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _quarantine(milliseconds: int, file: Path) -> CheckResult:
    if milliseconds:
        message = f"pruned containers are kept for {format_duration_ms(milliseconds)}"
        return CheckResult("quarantine", "ok", message)
    how = (
        "'systemctl restart trimtab-broker trimtab-controller'"
        if file == SYSTEM_SETTINGS
        else "start 'trimtab up' again"
    )
    remedy = f"to keep them, stopped, for a day: write 'quarantine: 24h' into {file}, then {how}"
    return CheckResult("quarantine", "hint", "pruned containers are removed at once", remedy)


def _policy_file(path: Path, folder: StateFolder) -> CheckResult:
    """Check the policy file as the broker does at its start and at a reload."""
    from controller.app.policy import access_error, read_acl

    try:
        status, acl = path.stat(), read_acl(path)
        broker_uid, controller_uid = folder.broker.stat().st_uid, folder.controller.stat().st_uid
    except OSError as error:
        where = error.filename or path
        return CheckResult("policy", "error", f"{where}: {error.strerror}", "restore the file")
    exposed = access_error(path, status, acl, broker_uid=broker_uid, controller_uid=controller_uid)
    if exposed is not None:
        return CheckResult("policy", "error", exposed.message, exposed.remedy)
    return CheckResult("policy", "ok", str(path))


def _broker(health: dict[str, dict[str, object]], *, separated: bool) -> Iterator[CheckResult]:
    journal, engine, policy = health["journal"], health["engine"], health["policy"]
    if not journal["writable"]:
        message = f"can't be written: {journal.get('error') or 'its log says why'}"
        yield CheckResult("journal", "error", message, "free space, or mount it rw")
    else:
        at = f", at record {journal['seq']}" if "seq" in journal else ""
        yield CheckResult("journal", "ok", f"writable{at}")
    if not engine["reachable"]:
        yield CheckResult("broker", "error", "the broker doesn't reach the engine", "start dockerd")
    if warning := engine.get("untested"):
        yield CheckResult("engine", "hint", str(warning), REMEDY)
    if ignored := engine.get("ignores"):
        yield CheckResult("limits", "warning", *ignored_limits(texts_of(ignored)))
    for mistake in str(policy.get("error") or "").splitlines():
        remedy = "correct the file, then run 'trimtab policy reload'"
        yield CheckResult("policy", "error", f"the last reload failed: {mistake}", remedy)
    yield from _registry_auth(health.get("registryAuth") or {})
    yield from _quotas(health.get("quotas") or {})
    if since := health.get("restored"):
        message = f"nothing is changed: the state folder was restored from a backup of {since}"
        remedy = (
            "look at 'trimtab adopt', and confirm what was made since with 'trimtab adopt --yes'"
        )
        yield CheckResult("restored", "error", message, remedy)
    yield from _strangers(health.get("strangers") or {}, health.get("rivals") or {})
    yield from _long_containers(health.get("long") or {})
    if not separated:
        message = "controller and operator share a uid: roles rest on the controller's own word"
        remedy = "run 'trimtab up' as root, so that the controller has a user of its own"
        yield CheckResult("separation", "warning", message, remedy)


def socket_finding(folder: StateFolder) -> CheckResult:
    """Check the sockets of operators and the controller: clients can't open these sockets."""
    operators, controllers, *_ = broker_sockets(folder.broker_socket)
    try:
        status, user, _ = controllers.stat(), folder.controller.stat().st_uid, operators.stat()
        # With an access control list, the group's bits are the mask of the list.
        is_open = status.st_uid == user or status.st_mode & S_IWGRP
        broken = "" if is_open else f"{controllers} has no access control list"
    except OSError as error:
        broken = f"{error.filename}: {error.strerror}"
    if not broken:
        return CheckResult("sockets", "ok", "operators and the controller have their own")
    message = f"{broken}, so operators or the controller wait among clients"
    return CheckResult("sockets", "warning", message, "look for 'socket.' in the broker's log")


def _quotas(quotas: dict[str, Any]) -> Iterator[CheckResult]:
    """Report the fullest quotas, and the clients that must wait."""
    full = [use for use in quotas.get("fullest", ()) if use["percent"] >= QUOTA_PERCENT]
    for use in full:
        whose = use["owner"] or "all owners together"
        message = f"{whose}: {use['count']} of {use['most']} ({use['key']})"
        remedy = f"remove what isn't needed, or raise {use['key']} in the policy"
        yield CheckResult("quota", "warning", message, remedy)
    for uid, wait_s in quotas.get("waiting", {}).items():
        message = f"uid {uid} spent its share of changes or of the journal: {wait_s} s to wait"
        remedy = f"'trimtab journal list --actor uid:{uid}' says what it does; or raise the policy's quotas"
        yield CheckResult("client", "warning", message, remedy)
    if quotas and not full:
        fullest = quotas["fullest"][0]["percent"] if quotas["fullest"] else 0
        yield CheckResult("quota", "ok", f"the fullest quota is used to {fullest}%")


def _registry_auth(health: dict[str, object]) -> Iterator[CheckResult]:
    names = health.get("registries")
    if health.get("error"):
        message = f"the last good credentials stay in use: {health['error']}"
        remedy = "correct the file; it is read again by itself"
        yield CheckResult("registry-auth", "error", message, remedy)
    elif isinstance(names, list) and names:
        message = f"{health.get('file')}: {', '.join(map(str, names))}"
        yield CheckResult("registry-auth", "ok", message)


def _strangers(strangers: dict[str, Any], rivals: dict[str, Any]) -> Iterator[CheckResult]:
    """Report containers with the label of this instance, but outside the inventory."""
    if rivals.get("some"):
        made = f"another broker of this instance made {rivals.get('count')} containers"
        message = f"{made}, so nothing is changed: {_list_of(rivals)}"
        remedy = "end the other one if a copy of this state folder runs; then see 'trimtab adopt'"
        yield CheckResult("forked", "error", message, remedy)
    elif strangers.get("some"):
        carried = f"{strangers.get('count')} containers carry this instance's label"
        message = f"{carried}, and it didn't make them: {_list_of(strangers)}"
        remedy = "'trimtab adopt' shows and takes over what is its own; remove the others by hand"
        yield CheckResult("strangers", "warning", message, remedy)


def _long_containers(long: dict[str, Any]) -> Iterator[CheckResult]:
    """Report containers with too many or too long labels, ports or mounts for a list."""
    if long.get("some"):
        message = (
            f"the engine's rows of {long.get('count')} containers pass 512 KiB: {_list_of(long)}"
        )
        remedy = "lists show them without the long members; look at the labels, ports and volumes of their images"
        yield CheckResult("long", "warning", message, remedy)


def _list_of(containers: dict[str, Any]) -> str:
    some = containers["some"].items()
    return ", ".join(f"{name or '(no name)'} ({identifier[:12]})" for identifier, name in some)


def host_findings() -> Iterator[CheckResult]:
    """Check the controller's user, direct access to the engine, and open ports of the host."""
    if _is_user(GROUP):
        yield CheckResult("user", "ok", f"{GROUP} exists")
    else:
        remedy = f"useradd --system --no-create-home --shell /usr/sbin/nologin {GROUP}"
        message = f"there is no user {GROUP} to run the controller as"
        yield CheckResult("user", "warning", message, remedy)
    try:
        members = grp.getgrnam("docker").gr_mem
    except KeyError:
        members = []
    if members:
        message = f"{', '.join(members)} may use the engine's socket directly, past the gate"
        remedy = "take them out of the group docker, and put them into the group trimtab"
        yield CheckResult("docker group", "warning", message, remedy)
    if ports := sorted(set(open_ports())):
        port_list = ", ".join(map(str, ports[:20]))
        message = f"listen on all addresses, so that isolated containers reach them: {port_list}"
        remedy = "bind them to an address, or filter what comes from the containers' networks"
        yield CheckResult("host services", "warning", message, remedy)
