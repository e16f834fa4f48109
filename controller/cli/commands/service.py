"""Commands on one service: ``restart``, ``stop``, ``scale`` and others, ``history``, ``run-job``.

``rollback``, ``restart``, ``stop``, ``start``, ``suspend``, ``resume``, ``scale``: operator actions on services.

The broker records an action first, over the operator's own connection. Then the controller does
it. Without the record nothing is done.

``history``: the revisions of a service, and the outcome of each.

``run-job``: ask for a run of a job.

The broker records the request, and its inventory keeps the request until the run is made. So the
request outlives a controller that dies, and is carried out once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from controller.cli.clients import oneshot
from controller.cli.clients.socket_client import BrokerApi, ask_controller, ask_to_observe
from controller.cli.clients.status_report import (
    complete_names,
    key_of,
    key_text,
    matches,
    name_of,
    names_argument,
    project_option,
    resource_of,
    services_of,
)
from controller.cli.exit_codes import EXIT_ERROR, EXIT_NOT_CONVERGED, EXIT_REFUSED
from controller.cli.options import (
    command,
    duration_ms,
    json_option,
    note_option,
    open_state,
    print_json,
    print_result,
    state_option,
    timeout_option,
)
from controller.cli.output.tables import Column, clip, clip_image, terminal_width
from controller.cli.output.tables import render as render_table
from controller.cli.output.terminal import echo
from controller.cli.output.times import current_time, local_time, with_names
from controller.cli.status.description import occasion_lines, run_lines
from controller.core.encoding.text import printable, quote_line
from controller.model.errors import EngineUnavailable, TrimtabError, UsageError
from controller.model.names import REPLICAS_MAX, WORKLOADS, revision_digits, short_commit
from controller.settings import StateFolder

#: Time for the controller's answer, in addition to the timeout of the action.
ANSWER_S = 30.0
LOOK_AGAIN_S = 0.3
#: A stop is a suspension; each container has a record of its stop.
_RECORDED = {"stop": "suspend", "start": "resume"}
EXIT_CODES = """\b
Exit codes: 0 done (or nothing was to be done), 1 error or nothing runs, 4 refused, 5 not done in
time, or a person must act.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an action."""

    #: The reason, for the journal.
    note: str
    #: The project: all its services, if none is named.
    namespace: str | None
    #: Don't wait until the action is done.
    no_wait: bool
    timeout_s: float
    state: Path | None
    as_json: bool
    #: After how many seconds a scaling ends; None: not by itself.
    for_s: int | None = None


def action(examples: str) -> Callable[[Callable[..., int]], click.Command]:
    """Return a decorator for the command of an action, with the options that all actions share."""

    def decorate(function: Callable[..., int]) -> click.Command:
        for option in (
            json_option,
            state_option,
            timeout_option("How long to wait"),
            click.option("--no-wait", is_flag=True, help="Don't wait until it is done."),
            note_option,
            project_option,
            names_argument,
        ):
            function = option(function)
        return command(f"\b\nExamples:{examples}\n{EXIT_CODES}")(function)

    return decorate


@action("""
  trimtab rollback web                       to the last revision that ran well
  trimtab rollback shop/web --to 3f2a91bc    to one that 'trimtab history shop/web' shows
  trimtab rollback -n shop                   the project's last change
""")
@click.option("--to", metavar="REV", default="", help="The revision to go back to.")
def rollback(names: tuple[str, ...], to: str, **options: Any) -> int:
    """Return services to an earlier revision, with the image of that revision.

    A service keeps the revision until its document changes, or until 'trimtab resume'.

    Of a project (-n without a name), the services that the last change of its files changed go back
    together, and the others stay; repeated, the change before.
    """
    if to and len(names) != 1:
        raise click.UsageError("--to is of one service: name it")
    return act("rollback", names, Options(**options), to=to)


@action("""
  trimtab restart web
  trimtab restart web --note "certificates were renewed"
  trimtab restart -n shop
""")
def restart(names: tuple[str, ...], **options: Any) -> int:
    """Replace the containers of services one by one, as a rollout does.

    With pullPolicy Always the image is pulled again first.
    """
    return act("restart", names, Options(**options))


@action("""
  trimtab stop web worker
  trimtab stop -n shop --note "moving the rack"
  trimtab start -n shop
""")
def stop(names: tuple[str, ...], **options: Any) -> int:
    """Stop services, and keep them stopped until 'trimtab start'.

    A stopped service isn't repaired, changed or removed, even if its document changes or is deleted, or
    if engine or host are restarted. Its containers and volumes stay. Jobs go on.
    """
    return act("stop", names, Options(**options))


@action("""
  trimtab start web
  trimtab start -n shop
""")
def start(names: tuple[str, ...], **options: Any) -> int:
    """Start services that 'trimtab stop' or 'trimtab down -n' stopped, as their documents say now."""
    return act("start", names, Options(**options))


@action("""
  trimtab suspend db --note "restoring a backup by hand"
  trimtab resume db
""")
def suspend(names: tuple[str, ...], **options: Any) -> int:
    """Stop changing services, running or not, until 'trimtab resume'.

    A suspended service isn't repaired, changed or removed, even if its document changes or is
    deleted. 'trimtab stop' stops its containers, too.
    """
    return act("suspend", names, Options(**options))


@action("""
  trimtab resume db
  trimtab resume -n shop
""")
def resume(names: tuple[str, ...], **options: Any) -> int:
    """Return services to their documents: end a suspension, stop or rollback, and retry failures."""
    return act("resume", names, Options(**options))


@command(f"""\b
Examples:
  trimtab scale web=5
  trimtab scale web=5 worker=0 --for 2h --note "the sale"
  trimtab resume web                         back to the document's number
{EXIT_CODES}""")
@click.argument(
    "wanted",
    metavar="NAME=N...",
    nargs=-1,
    required=True,
    callback=lambda _context, _option, value: dict(map(_number_of, value)),
    shell_complete=complete_names,
)
@click.option(
    "--for",
    "for_s",
    metavar="DURATION",
    callback=lambda _context, _option, value: value and max(1, duration_ms(value) // 1000),
    help="Return to the document's number after this time: 30m, 2h.",
)
@note_option
@click.option("--no-wait", is_flag=True, help="Don't wait until it is done.")
@timeout_option("How long to wait")
def scale(wanted: dict[str, int], **options: Any) -> int:
    """Run another number of replicas than the documents of services say.

    The number stays until a document declares other replicas, until 'trimtab resume', or for the time
    of --for. Rollouts and repairs go on meanwhile.
    """
    return act("scale", (*wanted,), Options(namespace=None, **options), replicas=wanted)


def _number_of(text: str) -> tuple[str, int]:
    """Return the name and the number of ``NAME=N``."""
    name, _, number = text.rpartition("=")
    if not name or not number.isascii() or not number.isdecimal() or int(number) > REPLICAS_MAX:
        message = f"{text!r} isn't NAME=N, with N from 0 to {REPLICAS_MAX}, such as web=3"
        raise click.BadParameter(message)
    return name, int(number)


def act(
    verb: str,
    names: tuple[str, ...],
    options: Options,
    *,
    to: str = "",
    remove: bool = False,
    replicas: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Plan an action for each service, record it, do it, and wait for its end; return the exit code.

    With *remove*, the containers of stopped services are removed. *replicas* are the numbers of a
    scaling, by name.

    Raises:
        EngineUnavailable: nothing runs.
        Refused: the caller isn't an operator.
        JournalUnavailable: the action can't be recorded, and isn't done.
        StateError: no service has a name, or several have it.
        UsageError: the action isn't possible, of a project for none of its services.
    """
    folder, _ = open_state(options.state)
    if replicas:
        actions = [
            ServiceAction(folder, verb, key_text(row), to, options, replicas=number)
            for name, number in replicas.items()
            for row in services_of(folder, (name,), None)
        ]
    else:
        actions = _actions(folder, verb, names, options, to)
    actions = _possible(actions, is_project=not names)
    deadline = time.monotonic() + options.timeout_s
    for each in actions:
        each.do()
    down: dict[str, list[str]] = {}
    if verb == "stop":
        show = (lambda _line: None) if options.as_json else _print_line
        keys = [each.key for each in actions]
        done, failed = oneshot.take_services_down(folder, keys, remove=remove, show=show)
        down = {"containers": sorted(done), "failed": sorted(failed)}
    codes = [each.finish(deadline) for each in actions]
    if options.as_json:
        reports = [each.report for each in actions]
        is_one = len(names) == 1
        print_json({**(reports[0] if is_one else {"act": verb, "services": reports}), **down})
    if down.get("failed"):
        echo("Not everything could be stopped; run it again.", err=True)
        codes.append(EXIT_ERROR)
    return max(codes)


def _actions(
    state: StateFolder, verb: str, names: tuple[str, ...], options: Options, to: str
) -> list[ServiceAction]:
    """Return the action on each chosen service, before anything is asked."""
    if not names and options.namespace is None:
        raise click.UsageError("name a service, or a project with -n NAMESPACE")
    rows = services_of(state, names, options.namespace)
    if verb == "rollback" and not names:
        # The last change of the project declared these revisions together.
        last = max(row.get("revisionSince", "") for row in rows)
        rows = [row for row in rows if row.get("revisionSince", "") == last]
    return [ServiceAction(state, verb, key_text(row), to, options) for row in rows]


def _possible(actions: list[ServiceAction], *, is_project: bool) -> list[ServiceAction]:
    """Return the actions that are possible; of a project, the services without are told.

    Raises:
        TrimtabError: an action isn't possible; of a project, none is.
    """
    found: list[ServiceAction] = []
    others: list[tuple[str, TrimtabError]] = []
    for each in actions:
        try:
            each.ask()
            found.append(each)
        except TrimtabError as error:
            if not is_project or isinstance(error, EngineUnavailable):
                raise
            others.append((each.key, error))
    if not found:
        raise others[0][1]
    for key, reason in others:
        echo(printable(f"{key}: stays as it is: {reason.message}"), err=True)
    return found


class ServiceAction:
    """An action on one service, step by step."""

    def __init__(
        self,
        state: StateFolder,
        verb: str,
        key: str,
        to: str,
        options: Options,
        replicas: int | None = None,
    ) -> None:
        self.key = key
        self._state, self._verb, self._options = state, verb, options
        self._question: dict[str, object] = {
            "do": verb,
            "key": key,
            "to": to,
            "note": options.note[:512],
            "on_behalf_of": os.environ.get("SUDO_USER", ""),
            "timeout_s": options.timeout_s,
        }
        #: The members of the record of a scaling.
        self._scaling = {}
        if replicas is not None:
            self._question |= {"replicas": replicas, "for_s": options.for_s}
            self._scaling = {"replicas": replicas, "seconds": options.for_s}
        self._plan: Any = {}
        #: The answers so far, for ``--json``.
        self.report: dict[str, Any] = {}

    def ask(self) -> None:
        """Ask what the action would change."""
        socket = self._state.controller_socket
        self._plan = ask_controller(socket, {**self._question, "only_ask": True})
        self.report = {"object": self.key, "act": self._verb, **self._plan}

    def do(self) -> None:
        """Record the action, and let the controller change the service's overrides."""
        plan, options = self._plan, self._options
        if not plan["changed"]:
            if not options.as_json:
                _print_line(f"{self.key}: {plan['text']}; nothing to do")
            return
        record = _record(
            self._state, self._verb, self.key, plan, note=options.note, **self._scaling
        )
        if self._verb == "rollback":
            # The recorded revision, even if a better one exists now.
            self._question["to"] = plan["revision"]
        result = ask_controller(
            self._state.controller_socket, self._question, timeout_s=options.timeout_s + ANSWER_S
        )
        self.report = {**self.report, **result, "record": record}
        if not options.as_json:
            _print_line(f"{self.key}: {result['text']}")

    def finish(self, deadline: float) -> int:
        """Wait until the action is done, and return its exit code."""
        if not self._plan["changed"]:
            self.report |= {"done": True}
            return 0
        options = self._options
        code, resource = 0, None
        if self._verb in ("suspend", "stop") and not options.no_wait:
            code = 0 if self.report["quiet"] else EXIT_NOT_CONVERGED
        elif not options.no_wait:
            code, resource = _wait(self._state, self.key, deadline, quiet=options.as_json)
        self.report |= {"done": code == 0, "resource": resource}
        if code == EXIT_NOT_CONVERGED and not options.as_json:
            if time.monotonic() >= deadline:
                problem = "not done within the timeout"
            else:
                see = f"see 'trimtab describe {name_of(self.key)}'"
                problem = f"not done, and nothing more happens by itself: {see}"
            echo(printable(f"{self.key}: {problem}"), err=True)
        return code


def _record(
    state: StateFolder, verb: str, key: str, plan: Any, *, note: str, **scaling: int | None
) -> str:
    """Record the action with the broker, and return the record's id."""
    act = f"service.{_RECORDED.get(verb, verb)}"
    members = {name: plan[name] for name in ("revision", "anew") if plan[name]}
    members |= {name: number for name, number in scaling.items() if number is not None}
    return str(BrokerApi(state.broker_socket).record(act, key, note, **members)["id"])


def _print_line(line: str) -> None:
    """Print a line; control characters in an engine's message are escaped."""
    echo(printable(with_names(line)))


def _wait(state: StateFolder, key: str, deadline: float, *, quiet: bool) -> tuple[int, Any]:
    """Wait until a service has converged; return exit code and resource. Print steps unless *quiet*."""
    previous = ""
    while True:
        try:
            resource = resource_of(state, key)
        except EngineUnavailable:
            line, code, resource = "the controller is away", None, {}
        else:
            line, code = describe_progress(resource)
        if line != previous and not quiet:
            _print_line(f"{key}: {line}")
        previous = line
        if code is not None:
            return code, resource
        if time.monotonic() >= deadline:
            return EXIT_NOT_CONVERGED, resource
        time.sleep(LOOK_AGAIN_S)


def describe_progress(resource: dict[str, Any]) -> tuple[str, int | None]:
    """Return a service's progress in words, and the exit code when no more progress is expected."""
    if not resource:
        return "gone: nothing declares it", 0
    holds = {c["type"]: c for c in resource["conditions"] if c["status"] == "True"}
    count = f"{resource['ready']} of {resource['desired']} ready"
    if "Suspended" in holds:
        return holds["Suspended"]["message"], EXIT_NOT_CONVERGED
    for condition in ("Stalled", "PrunePending"):  # an operator must act
        if condition in holds:
            code = EXIT_REFUSED if "PolicyViolation" in holds else EXIT_NOT_CONVERGED
            return f"{count}; {holds[condition]['message']}", code
    if "Progressing" in holds:
        return f"{count}; {holds['Progressing']['message']}", None
    return count, 0 if "Ready" in holds else None


#: Characters of a failed container's last line.
LINE_MAX = 120
COLUMNS = (
    Column("REVISION"),
    Column("GENERATION", rank=3, optional=True),
    Column("SINCE"),
    Column("IMAGE", shrink=clip_image, least=12, rank=1),
    Column("SOURCE", shrink=clip, least=12, rank=2),
    Column("STATE"),
)


@command("""\b
Examples:
  trimtab history web
  trimtab history shop/web --json | jq -r '.revisions[0].digest'
  trimtab history backup                     the last runs of a job
""")
@click.argument("name", shell_complete=complete_names)
def history(name: str, state: Path | None, as_json: bool) -> None:
    """Show the last revisions of a service: start, source, image and outcome; of a job, its runs.

    If nothing runs, the last saved history of a service is shown.
    """
    folder, _ = open_state(state)
    job = _find_job(folder, name)
    if job is not None:
        runs, occasions = job.get("runs", []), job.get("occasions", [])
        width = terminal_width()
        tables = (
            "\n".join(occasion_lines(occasions, width=width)),
            "\n".join(run_lines(runs, now=current_time(), width=width)),
        )
        members = {member: job[member] for member in ("kind", "namespace", "name")}
        members |= {"runs": runs, "occasions": occasions}
        print_result(members, "\n\n".join(filter(None, tables)) or "No runs.", as_json=as_json)
        return
    report = _fetch_history(folder, name)
    print_result(report, render_history(report, width=terminal_width()), as_json=as_json)


def _find_job(state: StateFolder, name: str) -> dict[str, Any] | None:
    """Return the status of the job NAME; None if nothing runs, or the name is not one job's."""
    try:
        status = ask_controller(state.controller_socket, {"do": "status"})
    except EngineUnavailable:
        return None
    named = [r for r in status["resources"] if r["kind"] in WORKLOADS and matches(r, name)]
    return dict(named[0]) if len(named) == 1 and named[0]["kind"] == "Job" else None


def _fetch_history(state: StateFolder, name: str) -> Any:
    try:
        question = {"do": "history", "key": key_of(state, name), "output": True}
        return ask_controller(state.controller_socket, question)
    except EngineUnavailable as error:
        # The import is slow, and rarely needed.
        from controller.loop.state.saved_state import saved_history

        report = saved_history(state.controller / "state.json", name)
        echo(printable(f"warning: {error.message}; this is what was known last"), err=True)
        return report


def render_history(report: dict[str, Any], *, width: int | None) -> str:
    """Return the table of revisions, and below the table the operators' overrides."""
    shown = Counter(revision["revision"] for revision in report["revisions"])
    several = {revision for revision, rows in shown.items() if rows > 1}
    rows = [_row(each, several, exact=width is None) for each in report["revisions"]]
    lines = []
    if suspension := report["suspended"]:
        word = "stopped" if suspension.get("stopped") else "suspended"
        lines.append(f"{word} by {suspension['by']} since {suspension['since']}")
    if pin := report["pin"]:
        reason = f": {pin['reason']}" if pin["reason"] else ""
        lines.append(f"rolled back by {pin['by']} since {pin['since']}{reason}")
    if restart := report["restarting"]:
        lines.append(f"restart of {restart['containers']} containers asked by {restart['by']}")
    return with_names("\n".join([render_table(COLUMNS, rows, width=width), *map(printable, lines)]))


def _place(revision: dict[str, Any]) -> str:
    """Return the document's place; of a Git source (``SOURCE:FILE``) with the commit."""
    place = f"{revision['file']}:{revision['line']}"
    if ":" in revision["file"] and revision["commit"]:
        return f"{place} of {short_commit(revision['commit'])}"
    return place


def _row(revision: dict[str, Any], several: Collection[str], *, exact: bool) -> tuple[str, ...]:
    """Return the row of a revision; *several* are revisions with several sets of limits."""
    states = [state for state in ("current", "pinned") if revision[state]]
    if revision["declared"] and not revision["current"]:
        states.append("declared")
    if revision["revision"] in several and revision.get("limits"):
        states.append(revision["limits"])
    if revision["outcome"]:
        reason = f": {revision['reason']}" if revision["reason"] else ""
        line = revision.get("failure", {}).get("line")
        printed = f"; it printed {quote_line(line, limit=LINE_MAX)}" if line else ""
        states.append(f"{revision['outcome']}{reason}{printed}")
    return (
        revision_digits(str(revision["revision"]))[:8],
        str(revision["generation"]),
        revision["since"] if exact else local_time(revision["since"]),
        revision["image"],
        _place(revision),
        ", ".join(states) or "-",
    )


@command("""\b
Examples:
  trimtab run-job migrate
  trimtab run-job shop/backup --note "before the upgrade" --no-wait

\b
Exit codes: 0 the run succeeded (with --no-wait: is requested), 1 error or nothing runs, 5 the run
failed, or has not ended in time.
""")
@click.argument("name", shell_complete=complete_names)
@note_option
@click.option("--no-wait", is_flag=True, help="Don't wait until the run has ended.")
@timeout_option("How long to wait")
def run_job(
    name: str, note: str, no_wait: bool, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Run a job now, also one that ran already.

    A failed run is followed by others, up to the job's backoffLimit. A job with completions has as
    many successful runs. 'trimtab logs NAME' shows the output.
    """
    folder, _ = open_state(state)
    key = key_of(folder, name, kind="Job")
    _raise_if_without_image(folder, key)
    deadline = time.monotonic() + timeout_s
    occasion = f"manual:{BrokerApi(folder.broker_socket).record('job.run', key, note)['id']}"
    ask_to_observe(folder.controller_socket, key)
    resource: dict[str, Any] = {}
    while not no_wait:
        with suppress(EngineUnavailable):  # the controller is away: the request stays
            resource = resource_of(folder, key)
        if _is_over(resource, occasion) or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_AGAIN_S)
    runs, progress = _runs_of(resource, occasion), _progress_of(resource, occasion)
    succeeded = no_wait or bool(progress.get("complete"))
    report = {"object": key, "occasion": occasion, "runs": runs, "done": succeeded}
    text = f"{key}: {_describe(runs, progress, no_wait=no_wait)}"
    print_result(report, printable(text), as_json=as_json)
    return 0 if succeeded else EXIT_NOT_CONVERGED


def _raise_if_without_image(folder: StateFolder, key: str) -> None:
    """Raise UsageError if a job runs only with the image of a service that rolls out."""
    from controller.model.desired.spec.service import FROM_SERVICE  # a slow import

    if resource_of(folder, key).get("image") == FROM_SERVICE:
        raise UsageError(
            "job.from-service",
            f"{key} runs with the image of a service, during the service's rollout alone",
            remedy="'trimtab resume SERVICE' tries a failed rollout again, with its jobs",
        )


def _runs_of(resource: dict[str, Any], occasion: str) -> list[dict[str, Any]]:
    return [run for run in resource.get("runs", []) if run["occasion"] == occasion]


def _is_over(resource: dict[str, Any], occasion: str) -> bool:
    """Return True if no further run follows for an occasion."""
    runs = _runs_of(resource, occasion)
    if not runs or not all(run.get("ended") for run in runs):
        return False
    conditions = {c["type"] for c in resource["conditions"] if c["status"] == "True"}
    return bool(_progress_of(resource, occasion).get("complete")) or "Failed" in conditions


def _progress_of(resource: dict[str, Any], occasion: str) -> dict[str, Any]:
    """Return how far an occasion is; {} for an unknown one."""
    found = (o for o in resource.get("occasions", []) if o["occasion"] == occasion)
    return next(found, {})


def _describe(runs: list[dict[str, Any]], progress: dict[str, Any], *, no_wait: bool) -> str:
    if no_wait:
        return "a run is requested"
    if not runs:
        return "no run began within the timeout; see 'trimtab status'"
    last = max(runs, key=lambda run: run.get("ended") or "9")  # one in progress, or the last to end
    how = f"run {last['run']} {last['why'] if last.get('ended') else 'is in progress'}"
    wanted = progress.get("completions", 1)
    return how if wanted == 1 else f"{progress['succeeded']}/{wanted} completed; {how}"
