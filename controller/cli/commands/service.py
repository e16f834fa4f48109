"""``rollback``, ``restart``, ``suspend`` and ``resume``: operator actions on a service.

The broker records an action first, over the operator's own connection. Then the controller does
it. Without the record nothing is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.clients.status_report import key_of, resource_of
from controller.cli.exit_codes import EXIT_NOT_CONVERGED, EXIT_REFUSED
from controller.cli.options import (
    command,
    json_option,
    note_option,
    open_state,
    print_json,
    state_option,
    timeout_option,
)
from controller.cli.output.terminal import echo
from controller.cli.output.user_names import with_names
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable
from controller.settings import StateFolder

#: Time for the controller's answer, in addition to the timeout of the action.
ANSWER_S = 30.0
LOOK_AGAIN_S = 0.3
EXIT_CODES = """\b
Exit codes: 0 done (or nothing was to be done), 1 error or nothing runs, 4 refused, 5 not done in
time, or a person must act.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an action."""

    #: The reason, for the journal.
    note: str
    #: Don't wait until the action is done.
    no_wait: bool
    timeout_s: float
    state: Path | None
    as_json: bool


def action(examples: str) -> Callable[[Callable[..., int]], click.Command]:
    """Return a decorator for the command of an action, with the options that all actions share."""

    def decorate(function: Callable[..., int]) -> click.Command:
        for option in (
            json_option,
            state_option,
            timeout_option("How long to wait"),
            click.option("--no-wait", is_flag=True, help="Don't wait until it is done."),
            note_option,
            click.argument("name", shell_complete=complete_names),
        ):
            function = option(function)
        return command(f"\b\nExamples:{examples}\n{EXIT_CODES}")(function)

    return decorate


@action("""
  trimtab rollback web                       to the last revision that ran well
  trimtab rollback shop/web --to 3f2a91bc    to one that 'trimtab history shop/web' shows
""")
@click.option("--to", metavar="REV", default="", help="The revision to go back to.")
def rollback(name: str, to: str, **options: Any) -> int:
    """Return a service to an earlier revision, with the image of that revision.

    The service keeps the revision until its document changes, or until 'trimtab resume'.
    """
    return act("rollback", name, Options(**options), to=to)


@action("""
  trimtab restart web
  trimtab restart web --note "certificates were renewed"
""")
def restart(name: str, **options: Any) -> int:
    """Replace the containers of a service one by one, as a rollout does.

    With pullPolicy Always the image is pulled again first.
    """
    return act("restart", name, Options(**options))


@action("""
  trimtab suspend db --note "restoring a backup by hand"
  trimtab resume db
""")
def suspend(name: str, **options: Any) -> int:
    """Stop changing a service, running or not, until 'trimtab resume'.

    A suspended service isn't repaired, changed or removed, even if its document changes or is
    deleted.
    """
    return act("suspend", name, Options(**options))


@action("""
  trimtab resume db
""")
def resume(name: str, **options: Any) -> int:
    """Return a service to its document: end a suspension or a rollback, and retry failures."""
    return act("resume", name, Options(**options))


def act(verb: str, name: str, options: Options, *, to: str = "") -> int:
    """Plan an action, record it, do it, and wait for its end; return the exit code.

    Raises:
        EngineUnavailable: nothing runs.
        Refused: the caller isn't an operator.
        JournalUnavailable: the action can't be recorded, and isn't done.
        StateError: no service has the name, or several have it.
    """
    folder, _ = open_state(options.state)
    key = key_of(folder, name)
    question: dict[str, object] = {
        "do": verb,
        "key": key,
        "to": to,
        "note": options.note[:512],
        "on_behalf_of": os.environ.get("SUDO_USER", ""),
        "timeout_s": options.timeout_s,
    }
    deadline = time.monotonic() + options.timeout_s
    plan = ask_controller(folder.controller_socket, {**question, "only_ask": True})
    report = {"object": key, "act": verb, **plan}
    if not plan["changed"]:
        if options.as_json:
            print_json({**report, "done": True})
        else:
            _print_line(f"{key}: {plan['text']}; nothing to do")
        return 0
    record = _record(folder, verb, key, plan, note=options.note)
    if verb == "rollback":
        question["to"] = plan["revision"]  # the recorded revision, even if a better one exists now
    result = ask_controller(
        folder.controller_socket, question, timeout_s=options.timeout_s + ANSWER_S
    )
    report = {**report, **result, "record": record}
    if not options.as_json:
        _print_line(f"{key}: {result['text']}")
    code, resource = 0, None
    if verb == "suspend" and not options.no_wait:
        code = 0 if result["quiet"] else EXIT_NOT_CONVERGED
    elif not options.no_wait:
        code, resource = _wait(folder, key, deadline, quiet=options.as_json)
    if options.as_json:
        print_json({**report, "done": code == 0, "resource": resource})
    elif code == EXIT_NOT_CONVERGED:
        if time.monotonic() >= deadline:
            problem = "not done within the timeout"
        else:
            problem = f"not done, and nothing more happens by itself: see 'trimtab describe {name}'"
        echo(printable(f"{key}: {problem}"), err=True)
    return code


def _record(state: StateFolder, verb: str, key: str, plan: Any, *, note: str) -> str:
    """Record the action with the broker, and return the record's id."""
    record: dict[str, object] = {"act": f"service.{verb}", "object": key, "note": note[:512]}
    if plan["revision"]:
        record["revision"] = plan["revision"]
    if plan["anew"]:
        record["anew"] = True
    return str(BrokerApi(state.broker_socket).post("records", record)["id"])


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
