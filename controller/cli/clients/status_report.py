"""The controller's status report, names on the command line, and progress while a command waits.

The controller's status report, and the selection of resources by name.

What the fetcher wrote about the commits of Git sources: author, subject and signature.

For people only: the broker verified none of it.

Progress on standard error while a command waits for the controller: its actions and pulls.

On a terminal the running pulls share a line, which is rewritten. Elsewhere each change is a new
line.

Names of resources and projects as arguments, with their completion in a shell.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.options import open_state
from controller.cli.output.terminal import ProgressLine, echo
from controller.cli.output.times import span
from controller.core.encoding.text import printable
from controller.model.errors import EngineUnavailable, Problem, Severity, StateError, TrimtabError
from controller.model.names import COMMIT_ID, short_commit
from controller.model.settings import Process, digest_of
from controller.settings import SYSTEM_STATE, StateFolder, read_in_force, read_started_settings

if TYPE_CHECKING:
    from controller.model.sources import CommitInfo


#: Bytes; a controller publishes smaller reports.
REPORT_MAX = 64 * 1024 * 1024

#: The codes for a name of several resources, and of none, by kind.
AMBIGUOUS = {"Service": "service.ambiguous", "Job": "job.ambiguous"}
UNKNOWN = {"Service": "service.unknown", "Job": "job.unknown"}


@dataclass(frozen=True, slots=True)
class FetchedReport:
    """The report of the running controller, or the last known report."""

    report: dict[str, Any]
    #: The reason why the report isn't current; None if it is.
    lost: TrimtabError | None = None
    age_s: float = 0.0

    @property
    def warning(self) -> str:
        """The age of a report that isn't current, and the reason; empty for a current report."""
        if self.lost is None:
            return ""
        return f"{self.lost.message}: this is the last known state, {span(self.age_s)} old"


def fetch(state: Path | None, *, now: float) -> FetchedReport:
    """Return the running controller's report; if nothing runs, the last written report.

    Raises:
        EngineUnavailable: no controller runs, and no report can be read.
    """
    try:
        return FetchedReport(fetch_status(state))
    except EngineUnavailable as error:
        path = open_state(state)[0].controller / "status.json"
        try:
            report, written_at = read_published(path)
        except (OSError, ValueError):
            # There is no report yet, or the user has no access to the controller's folder.
            raise error from None
        match report:
            case {"resources": list(), "problems": list()}:
                return FetchedReport(report, error, max(0.0, now - written_at))
            case _:
                raise error from None


def read_published(path: Path, *, longest: int = REPORT_MAX) -> tuple[Any, float]:
    """Return the JSON that an unprivileged process published, and its time of writing.

    The process's user owns the folder, and could replace the file by a link, a FIFO or a large file.

    Raises:
        OSError, ValueError: the file can't be read, or isn't JSON within the bound.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} isn't a file")
        try:
            return json.loads(file.read(longest)), status.st_mtime
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deeply") from error


def select(
    report: dict[str, Any], *, name: str | None, namespace: str | None = None
) -> dict[str, Any]:
    """Return the report with only the resources that NAME and NAMESPACE select."""
    resources = [
        resource
        for resource in report["resources"]
        if (name is None or matches(resource, name))
        and (namespace is None or resource["namespace"] == namespace)
    ]
    return {**report, "resources": resources}


def raise_if_unknown(report: dict[str, Any], selected: dict[str, Any], name: str | None) -> None:
    """Raise an error if NAME selects no resource of a report; the remedy has the nearest name.

    Raises:
        EngineUnavailable: the controller hasn't read everything yet.
        StateError: there is no such resource.
    """
    if name is None or selected["resources"]:
        return
    raise_if_unread(report)
    raise StateError(
        "resource.unknown",
        f"there is no resource {name}",
        remedy=f"{suggestion(name, report['resources'])}'trimtab status' lists all",
    )


def raise_if_unread(report: dict[str, Any]) -> None:
    """Raise EngineUnavailable if the controller hasn't read everything yet."""
    if "unread" in report:
        raise EngineUnavailable(
            "controller.starting",
            f"not read yet, since {report['unread']['since']}: the controller has just started",
            remedy="ask again in a second",
        )


def suggestion(name: str, resources: Iterable[dict[str, Any]]) -> str:
    """Return ``did you mean NAME? `` with the nearest name of a resource, else an empty text."""
    from difflib import get_close_matches  # a slow import

    names = sorted({resource["name"] for resource in resources})
    near = get_close_matches(name.rpartition("/")[2], names, n=1)
    return f"did you mean {near[0]}? " if near else ""


def fetch_status(state: Path | None) -> dict[str, Any]:
    """Return the running controller's status, with the broker's problems.

    Raises:
        EngineUnavailable: no controller runs.
    """
    folder, _ = open_state(state)
    answer = ask_controller(folder.controller_socket, {"do": "status", "output": True})
    assert isinstance(answer, dict)
    problems = _as_json(settings_problems(folder, None, answer))
    problems = [*broker_problems(folder.broker_socket, folder), *problems]
    return {**answer, "problems": [*problems, *answer["problems"]]}


def fetch_settings_problems(folder: StateFolder) -> list[Problem]:
    """Ask broker and controller, and return ``settings_problems`` of the answers."""
    health, answer = None, None
    with suppress(TrimtabError):
        health = BrokerApi(folder.broker_socket).get("health")
    with suppress(TrimtabError):
        answer = ask_controller(folder.controller_socket, {"do": "status"})
    return settings_problems(folder, health, answer)


def settings_problems(
    folder: StateFolder, health: Mapping[str, Any] | None, report: Mapping[str, Any] | None
) -> list[Problem]:
    """Return a problem for each process that runs with settings other than the settings in force.

    *health* is the broker's; None without a look at the broker. *report* is the controller's; None without a look
    at the other processes.
    """
    found = (health or {}).get("settings", {})
    problems = []
    if error := found.get("error"):
        message = f"the last good settings stay in force: {error.replace(chr(10), '; ')}"
        remedy = "correct the file, then run 'trimtab settings reload'"
        problems.append(Problem("settings.invalid", message, remedy=remedy))
    behind = []
    if waiting := found.get("waiting"):
        behind.append((Process.BROKER, f" of {', '.join(waiting)}"))
    if report is not None:
        started = {
            Process.CONTROLLER: str(report.get("settings", "")),
            Process.FETCHER: read_started_settings(folder.fetcher / "lock"),
            Process.SHIPPER: read_started_settings(folder.ship / "lock"),
            Process.NOTIFIER: read_started_settings(folder.notify / "lock"),
            Process.WEB: read_started_settings(folder.page / "lock"),
        }
        with suppress(StateError):  # a damaged file: the broker's next start writes it
            current = read_in_force(folder.root).settings
            behind += [
                (process, "")
                for process, digest in started.items()
                if digest and digest != digest_of(current, process)
            ]
    for process, keys in behind:
        message = f"{process} runs with other settings{keys} than those in force"
        unit = f"systemctl restart {process}.service"
        remedy = unit if folder.root == SYSTEM_STATE else "start trimtab again"
        warning = Severity.WARNING
        problems.append(Problem("settings.restart", message, remedy=remedy, severity=warning))
    return problems


def broker_problems(path: Path, folder: StateFolder) -> list[dict[str, Any]]:
    """Return the problems that the broker reports; empty if the broker doesn't answer."""
    try:
        health = BrokerApi(path).get("health")
    except TrimtabError:
        return []  # the controller reports that the broker is missing
    problems = []
    # The broker omits the error for clients.
    if not health["journal"]["writable"]:
        error = health["journal"].get("error", "")
        message = f"nothing is changed while the journal can't be written: {error}".rstrip(": ")
        remedy = "free space under the state folder, or make it writable; no restart is needed"
        problems.append(Problem("journal.unavailable", message, remedy=remedy))
    elif health["journal"].get("reserved"):
        message = "the journal's disk is almost full: clients are refused, refusals not recorded"
        remedy = "free space under the state folder; no restart is needed"
        problems.append(Problem("journal.reserved", message, remedy=remedy))
    if error := health["policy"].get("error"):
        message = f"the last good policy stays in force: {error.replace(chr(10), '; ')}"
        remedy = "correct the policy's file, then send the broker SIGHUP"
        problems.append(Problem("policy.invalid", message, remedy=remedy))
    if error := health.get("registryAuth", {}).get("error"):
        message = f"the last good credentials stay in use: {error}"
        remedy = "correct the file: it is read again at the next pull"
        problems.append(Problem("registry-auth.invalid", message, remedy=remedy))
    if since := health.get("restored"):
        message = f"nothing is changed: the state folder was restored from a backup of {since}"
        remedy = (
            "look at 'trimtab adopt', and confirm what was made since with 'trimtab adopt --yes'"
        )
        problems.append(Problem("state.unconfirmed", message, remedy=remedy))
    elif some := health.get("rivals", {}).get("some"):
        made = ", ".join(sorted(name or identifier[:12] for identifier, name in some.items()))
        message = f"nothing is changed: another broker of this instance made {made}"
        remedy = "see 'trimtab doctor'"
        problems.append(Problem("state.forked", message, remedy=remedy))
    return _as_json([*problems, *settings_problems(folder, health, None)])


def _as_json(problems: list[Problem]) -> list[dict[str, Any]]:
    if not problems:
        return []
    from controller.core.review.flat_plan import problem_json  # a slow import, and rarely needed

    return [problem_json(problem) for problem in problems]


def matches(resource: dict[str, Any], name: str) -> bool:
    """Return True if ``NAME``, ``NAMESPACE/NAME`` or ``KIND/NAMESPACE/NAME`` names a resource."""
    key = (resource["kind"], resource["namespace"], resource["name"])
    parts = tuple(name.split("/"))
    return key[-len(parts) :] == parts if len(parts) <= len(key) else False


def resource_of(state: StateFolder, key: str) -> dict[str, Any]:
    """Return the resource with a key from the running controller's report; empty without one.

    Raises:
        EngineUnavailable: no controller answers.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    return next((dict(row) for row in status["resources"] if key_text(row) == key), {})


def key_of(state: StateFolder, name: str, *, kind: str = "Service") -> str:
    """Return the key of the service, or resource of a kind, NAME or NAMESPACE/NAME.

    Raises:
        EngineUnavailable: nothing runs, or the controller hasn't read everything yet.
        StateError: no service has the name, or several have it.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    return key_text(_named(status, name, kind))


def services_of(
    state: StateFolder, names: Iterable[str], namespace: str | None
) -> list[dict[str, Any]]:
    """Return the services NAME or NAMESPACE/NAME, or without names all of a namespace.

    Raises:
        EngineUnavailable: nothing runs.
        StateError: no service has a name, or several have it; the namespace has no service.
    """
    status = ask_controller(state.controller_socket, {"do": "status"})
    every = status["resources"]
    rows = [r for r in every if namespace is None or r["namespace"] == namespace]
    if names := dict.fromkeys(names):
        chosen = {**status, "resources": rows}
        found = {key_text(row): row for name in names for row in [_named(chosen, name, "Service")]}
        return list(found.values())
    services = [row for row in rows if row["kind"] == "Service"]
    if not services:
        raise_if_unread(status)
        from difflib import get_close_matches  # a slow import

        there = sorted({row["namespace"] for row in every if row["kind"] == "Service"})
        near = get_close_matches(namespace or "", there, n=1)
        raise StateError(
            "namespace.unknown",
            f"there is no service in the namespace {namespace}",
            remedy=f"{f'did you mean {near[0]}? ' if near else ''}'trimtab status' lists all",
        )
    return services


def key_text(resource: dict[str, Any]) -> str:
    """Return the key of a resource: ``KIND/NAMESPACE/NAME``."""
    return f"{resource['kind']}/{resource['namespace']}/{resource['name']}"


def _named(status: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    """Return the only resource of a kind with a name.

    Raises:
        StateError: none has the name, or several have it.
    """
    others = [r for r in status["resources"] if r["kind"] == kind]
    found: list[dict[str, Any]] = [r for r in others if matches(r, name)]
    if len(found) > 1:
        raise StateError(
            AMBIGUOUS[kind],
            f"{name} means {', '.join(map(key_text, found))}",
            remedy="write NAMESPACE/NAME",
        )
    if not found:
        raise_if_unread(status)
        raise StateError(
            UNKNOWN[kind],
            f"there is no {kind.lower()} {name}",
            remedy=f"{suggestion(name, others)}'trimtab status' lists all",
        )
    return found[0]


#: Bytes of the file about one commit.
INFO_MAX = 64 * 1024
#: A file of a Git source, and its commit.
_NAME = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):")
#: Members of the file that are about the export.
_OF_THE_EXPORT = ("version", "path")


def known_commits(places: Iterable[tuple[str, str]], fetcher: Path) -> Iterator[CommitInfo]:
    """Yield what is known of the commits in *places*, pairs of a file and a commit.

    Files of DIR are left out, and commits whose file can't be read.
    """
    from controller.core.git.reports import commit_from_json

    for file, commit in dict.fromkeys(places):
        name = _NAME.match(file)
        if name is None or not COMMIT_ID.fullmatch(commit):
            continue
        path = fetcher / "sources" / name[1] / f"{commit}.json"
        with suppress(OSError, ValueError):
            written, _ = read_published(path, longest=INFO_MAX)
            if not isinstance(written, dict):
                continue
            info = commit_from_json({k: v for k, v in written.items() if k not in _OF_THE_EXPORT})
            if info.commit == commit:
                yield info


def commit_line(info: CommitInfo) -> str:
    """Return a commit as a line: ``commit 3f2a91bc5d07 by Ann, 2026-…: web: 2; unsigned``."""
    parts = f"commit {short_commit(info.commit)} by {info.author or 'an unknown author'}"
    parts += f", {info.committed}" if info.committed else ""
    parts += f": {info.subject}" if info.subject else ""
    signature = info.signature
    if signature is None:
        return f"{parts}; no checked signature"
    claim = f"{signature.signer} ({signature.format}, {signature.key})"
    return f"{parts}; the fetcher claims a good signature of {claim}"


POLL_S = 0.5
#: Time for a busy controller's answer; the next poll follows soon.
ANSWER_S: Final = 2.0
#: Shows progress while the block waits for the controller behind a socket.
Waiting = Callable[[Path], AbstractContextManager[None]]
#: Effects of a plan that change no field of an object now.
_UNCHANGED: Final = frozenset({"held", "none", "refused", "wait"})


@contextmanager
def in_silence(_socket: Path) -> Iterator[None]:
    """Show nothing."""
    yield


@contextmanager
def showing_progress(socket: Path) -> Iterator[None]:
    """Show the controller's actions and pulls from now on, on standard error."""
    printer = ProgressPrinter(socket)
    finished = threading.Event()
    thread = threading.Thread(target=printer.run, args=(finished,), name="progress", daemon=True)
    printer.begin()
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(2 * ANSWER_S)


class ProgressPrinter:
    """Prints progress once. Not thread-safe."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        #: The number of the last printed action.
        self._last = 0
        self._line = ProgressLine()

    def begin(self) -> None:
        """Skip the actions before now."""
        if (progress := self.ask()) is not None:
            self._last = progress["last"]

    def run(self, finished: threading.Event) -> None:
        """Update until *finished*, then once more."""
        while not finished.wait(POLL_S):
            self.update()
        self.update()
        self._line.show()

    def ask(self) -> Any:
        """Return the progress since the last answer; None if the controller doesn't answer now."""
        question = {"do": "progress", "since": self._last}
        try:
            return ask_controller(self._socket, question, timeout_s=ANSWER_S)
        except TrimtabError:
            return None  # the controller is busy or still starts

    def update(self) -> None:
        """Print new progress."""
        progress = self.ask()
        if progress is None:
            return
        for action in progress["acts"]:
            if action["text"] is not None:
                self._line.print_above(action["text"])
        self._last = progress["last"]
        pulls = progress["working"].items()
        self._line.show(*(f"{name_of(key)}: pulling {text}" for key, text in pulls))


def show_changes(objects: Iterable[dict[str, Any]]) -> None:
    """Print the fields that are about to change, on standard error, once for each object."""
    for item in objects:
        if item.get("new") or item["effect"] in _UNCHANGED:
            continue
        for text in dict.fromkeys(change["text"] for change in item["changes"]):
            echo(printable(f"{name_of(item['object'])}: {text}"), err=True)


def name_of(key: str) -> str:
    """Return ``NAME`` or ``NAMESPACE/NAME`` for a key ``KIND/NAMESPACE/NAME``."""
    _, namespace, name = key.split("/")
    return name if namespace == "default" else f"{namespace}/{name}"


def _known_resources(ctx: click.Context) -> list[dict[str, Any]]:
    """Return the resources of the running instance; empty if nothing runs."""
    try:
        return list(fetch_status(ctx.params.get("state"))["resources"])
    except (TrimtabError, OSError):
        return []


def complete_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of resources of the running instance; empty if nothing runs."""
    return [
        name
        for resource in _known_resources(ctx)
        for name in (resource["name"], f"{resource['namespace']}/{resource['name']}")
        if name.startswith(incomplete)
    ]


def complete_namespaces(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the namespaces of the running instance; empty if nothing runs."""
    names = sorted({resource["namespace"] for resource in _known_resources(ctx)})
    return [name for name in names if name.startswith(incomplete)]


#: The names of services; none for all services of a project.
names_argument = click.argument(
    "names", metavar="[NAME]...", nargs=-1, shell_complete=complete_names
)
#: A project is a namespace.
project_option = click.option(
    "-n",
    "--namespace",
    "--project",
    "namespace",
    metavar="NAMESPACE",
    shell_complete=complete_namespaces,
    help="Only this namespace: a project's name. Without NAME, all of it.",
)
