"""``rollback``, ``restart``, ``suspend``, ``resume``: acting on a service, through the controller.

What is asked for is recorded by the broker first, over the operator's own connection: without the
record nothing is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.clients.status_report import key_of
from controller.cli.exit_codes import EXIT_NOT_CONVERGED, EXIT_REFUSED
from controller.cli.options import duration_s, json_option, open_state, print_json, state_option
from controller.cli.output.user_names import with_names
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable
from controller.settings import StateFolder

F = TypeVar("F", bound=Callable[..., Any])
#: What the controller may need beyond the time that it was given, to answer.
ANSWER_S = 30.0
LOOK_AGAIN_S = 0.3
EXIT_CODES = """\b
Exit codes: 0 done (or nothing was to be done), 1 error or nothing runs, 4 refused, 5 not done in
time, or a person must act.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How an act is asked for: ``note`` goes into the journal, without ``wait`` it isn't awaited."""

    note: str
    wait: bool
    timeout_s: float
    state: Path | None
    as_json: bool


def acting(command: F) -> F:
    """Add what the acting commands share."""
    for option in (
        json_option,
        state_option,
        click.option(
            "--timeout",
            "timeout_s",
            default="5m",
            show_default=True,
            callback=duration_s,
            metavar="DURATION",
            help="How long to wait until it is done: 30s, 5m, 1h.",
        ),
        click.option("--no-wait", is_flag=True, help="Don't wait until it is done."),
        click.option("--note", default="", help="Why; it goes into the journal."),
        click.argument("name", shell_complete=complete_names),
    ):
        command = option(command)
    return command


@click.command(
    epilog=f"""\b
Examples:
  trimtab rollback web                       to the last revision that ran well
  trimtab rollback shop/web --to 3f2a91bc    to one that 'trimtab history shop/web' shows

{EXIT_CODES}"""
)
@acting
@click.option("--to", metavar="REV", default="", help="The revision to go back to.")
def rollback(
    name: str,
    to: str,
    note: str,
    no_wait: bool,
    timeout_s: float,
    state: Path | None,
    as_json: bool,
) -> int:
    """Return a service to an earlier revision, with the image that it had.

    The service keeps that revision until its document changes, or until 'trimtab resume'.
    """
    return act("rollback", name, Options(note, not no_wait, timeout_s, state, as_json), to=to)


@click.command(
    epilog=f"""\b
Examples:
  trimtab restart web
  trimtab restart web --note "certificates were renewed"

{EXIT_CODES}"""
)
@acting
def restart(
    name: str, note: str, no_wait: bool, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Replace the containers of a service one by one, as a rollout does.

    With pullPolicy Always the image is pulled again first.
    """
    return act("restart", name, Options(note, not no_wait, timeout_s, state, as_json))


@click.command(
    epilog=f"""\b
Examples:
  trimtab suspend db --note "restoring a backup by hand"
  trimtab resume db

{EXIT_CODES}"""
)
@acting
def suspend(
    name: str, note: str, no_wait: bool, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Stop changing a service, running or not, until 'trimtab resume'.

    It isn't repaired, changed or removed meanwhile, even if its document changes or is deleted.
    """
    return act("suspend", name, Options(note, not no_wait, timeout_s, state, as_json))


@click.command(
    epilog=f"""\b
Examples:
  trimtab resume db

{EXIT_CODES}"""
)
@acting
def resume(
    name: str, note: str, no_wait: bool, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Return a service to its document: end a suspension or a rollback, and retry what failed."""
    return act("resume", name, Options(note, not no_wait, timeout_s, state, as_json))


def act(verb: str, name: str, options: Options, *, to: str = "") -> int:
    """Ask what would be done, record it, have it done, and wait for it; return the exit code.

    Raises:
        EngineUnavailable: nothing runs.
        Refused: the caller is no operator.
        JournalUnavailable: it can't be recorded, and so isn't done.
        StateError: there is no such service, or several.
    """
    found, _ = open_state(options.state)
    key = key_of(found, name)
    question: dict[str, object] = {
        "do": verb,
        "key": key,
        "to": to,
        "note": options.note[:512],
        "on_behalf_of": os.environ.get("SUDO_USER", ""),
        "timeout_s": options.timeout_s,
    }
    deadline = time.monotonic() + options.timeout_s
    planned = ask_controller(found.controller_socket, {**question, "only_ask": True})
    told = {"object": key, "act": verb, **planned}
    if not planned["changed"]:
        _print(told, options)
        return 0
    record = _record(found, verb, key, planned, note=options.note)
    if verb == "rollback":
        question["to"] = planned["revision"]  # exactly the one that was recorded
    done = ask_controller(found.controller_socket, question, timeout_s=options.timeout_s + ANSWER_S)
    told = {**told, **done, "record": record}
    if not options.as_json:
        _say(f"{key}: {done['text']}")
    if not options.wait:
        code, resource = 0, None
    elif verb == "suspend":
        code, resource = (0 if done["quiet"] else EXIT_NOT_CONVERGED), None
    else:
        tell = _quiet if options.as_json else _say
        code, resource = _wait(found, key, deadline, tell)
    if options.as_json:
        print_json({**told, "done": code == 0, "resource": resource})
    elif code == EXIT_NOT_CONVERGED:
        timed_out = time.monotonic() >= deadline
        click.echo(
            f"{key}: not done within the timeout"
            if timed_out
            else f"{key}: not done, and nothing more happens by itself: see 'trimtab describe {name}'",
            err=True,
        )
    return code


def _record(state: StateFolder, verb: str, key: str, planned: Any, *, note: str) -> str:
    """Record the act with the broker, and return the record's id."""
    told: dict[str, object] = {"act": f"service.{verb}", "object": key, "note": note[:512]}
    if planned["revision"]:
        told["revision"] = planned["revision"]
    if planned["anew"]:
        told["anew"] = True
    return str(BrokerApi(state.broker_socket).post("records", told)["id"])


def _print(told: dict[str, Any], options: Options) -> None:
    if options.as_json:
        print_json({**told, "done": True})
    else:
        _say(f"{told['object']}: {told['text']}; nothing to do")


def _say(line: str) -> None:
    """Print a line, which may repeat what an engine says of an image."""
    click.echo(printable(with_names(line)))


def _quiet(_line: str) -> None:
    """Tell nobody."""


def _wait(
    state: StateFolder, key: str, deadline: float, tell: Callable[[str], None]
) -> tuple[int, Any]:
    """Wait until a service is as it should be, telling of each step; return code and resource."""
    before = ""
    while True:
        try:
            resource = _resource(state, key)
        except EngineUnavailable:
            line, code, resource = "the controller is away", None, {}
        else:
            line, code = standing(resource)
        if line != before:
            tell(f"{key}: {line}")
            before = line
        if code is not None:
            return code, resource
        if time.monotonic() >= deadline:
            return EXIT_NOT_CONVERGED, resource
        time.sleep(LOOK_AGAIN_S)


def _resource(state: StateFolder, key: str) -> dict[str, Any]:
    status = ask_controller(state.controller_socket, {"do": "status"})
    for resource in status["resources"]:
        if f"{resource['kind']}/{resource['namespace']}/{resource['name']}" == key:
            return dict(resource)
    return {}


def standing(resource: dict[str, Any]) -> tuple[str, int | None]:
    """Return how far a service is, in words, and the exit code once nothing more is to come."""
    if not resource:
        return "gone: nothing declares it", 0
    holds = {c["type"]: c for c in resource["conditions"] if c["status"] == "True"}
    count = f"{resource['ready']} of {resource['desired']} ready"
    if "Suspended" in holds:
        return holds["Suspended"]["message"], EXIT_NOT_CONVERGED
    for condition in ("Stalled", "PrunePending"):  # nothing more happens by itself
        if condition in holds:
            code = EXIT_REFUSED if "PolicyViolation" in holds else EXIT_NOT_CONVERGED
            return f"{count}; {holds[condition]['message']}", code
    if "Progressing" in holds:
        return f"{count}; {holds['Progressing']['message']}", None
    return count, 0 if "Ready" in holds else None
