"""``notify``: run the process that sends notifications, send a test message, list destinations and incidents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli import options
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.cli.output.times import current_time, span
from controller.core.encoding.text import printable
from controller.model.errors import StateError, error_reason
from controller.model.quantities import format_instant

if TYPE_CHECKING:
    from controller.model.notifications import Desk, Incident, NoticeState, NoticeTarget


@click.group(
    cls=options.PassingGroup,
    epilog="""\b
Examples:
  trimtab notify test oncall
  trimtab notify list
""",
)
def notify() -> None:
    """Tell people what needs a person: see docs/notifications.md."""


@options.command("""\b
Example:
  trimtab notify test oncall
""")
@click.argument("name", metavar="NAME")
def test(name: str, state: Path | None, as_json: bool) -> int:
    """Send a test message to a destination, and wait until the receiver has taken the message.

    As root, the message is sent as the user trimtab-notify, as all messages are.
    """
    from controller.app.notifier import find_target, send_test

    folder, instance = options.open_state(state)
    target = find_target(folder.root, name)
    if (code := send_test(folder, instance, target)) == 0:
        options.print_result({"sent": name}, f"{name} has taken the message", as_json=as_json)
    return code


@options.command("""\b
Examples:
  trimtab notify list
  trimtab notify list --json | jq '.incidents[].title'
""")
def list_destinations(state: Path | None, as_json: bool) -> None:
    """List the destinations with the outcome of the last try, and the open incidents."""
    from controller.notify.state_file import DamagedNotices, read_notices
    from controller.settings import TargetsInForce

    folder, _ = options.open_state(state)
    targets = TargetsInForce(folder.root)()
    try:
        known = read_notices(folder.notify)
    except (OSError, DamagedNotices) as error:
        raise StateError(
            "notify.unreadable",
            f"{folder.notify}: {error_reason(error)}",
            remedy="run the command as root, or as the owner of the state folder",
        ) from error
    if as_json:
        options.print_json(_report(targets, known))
        return
    if not targets:
        echo("no destinations: write some to notify.destinations of the settings")
    else:
        rows = (_row(each, known.desks.get(each.name)) for each in targets)
        echo(table(("NAME", "KIND", "WAITING", "LOST", "DELIVERED", "STATE"), rows))
    for incident in _open(known):
        words = (incident.gravity, printable(incident.title), printable(incident.text))
        echo(f"{format_instant(incident.since)}  {'  '.join(filter(None, words))}")


def _open(state: NoticeState) -> list[Incident]:
    found = (each for each in state.incidents.values() if each.is_due and each.gone is None)
    return sorted(found, key=lambda each: (each.since, each.id))


def _row(target: NoticeTarget, desk: Desk | None) -> tuple[str, ...]:
    if desk is None:
        return (target.name, kind_of(target), "-", "-", "-", "the process hasn't seen it yet")
    now = current_time()
    delivered = f"{span(now - desk.delivered_at)} ago" if desk.delivered_at else "never"
    failing = f"fails for {span(now - desk.failing_since)}: {desk.error}"
    waiting = len(desk.queue) + len(desk.held)
    text = printable(failing) if desk.failing_since else "ok"
    return (target.name, kind_of(target), str(waiting), str(desk.lost), delivered, text)


def kind_of(target: NoticeTarget) -> str:
    """Return the word for how a destination is reached."""
    if target.command:
        return "command"
    return "mail" if target.smtp else f"webhook ({target.template})"


def _report(targets: tuple[NoticeTarget, ...], state: NoticeState) -> dict[str, object]:
    destinations = []
    for target in targets:
        desk = state.desks.get(target.name)
        destinations.append(
            {
                "name": target.name,
                "kind": kind_of(target),
                "waiting": 0 if desk is None else len(desk.queue) + len(desk.held),
                "lost": 0 if desk is None else desk.lost,
                "deliveredAt": _instant(desk.delivered_at if desk else 0.0),
                "failingSince": _instant(desk.failing_since if desk else 0.0),
                "error": "" if desk is None else desk.error,
            }
        )
    incidents = [
        {
            "id": each.id,
            "cause": each.cause,
            "severity": each.gravity,
            "title": each.title,
            "text": each.text,
            "since": format_instant(each.since),
            "affected": [affected.key for affected in each.affected],
        }
        for each in _open(state)
    ]
    return {
        "at": _instant(state.at),
        "destinations": destinations,
        "incidents": incidents,
    }


def _instant(seconds: float) -> str | None:
    return format_instant(seconds) if seconds else None


@options.command("""\b
Example:
  sudo -u trimtab-notify trimtab notify run --state /var/lib/trimtab
""")
@click.option("--lifeline", type=int, hidden=True)
def run(
    state: Path | None,
    lifeline: int | None,
    as_json: bool,  # noqa: ARG001 - may follow any command
) -> int:
    """Send notifications until a signal arrives, as a service of its own.

    'trimtab up' runs the process by itself while the settings have destinations.
    """
    from controller.app.notifier import run_notifier
    from controller.cli.clients.socket_client import ask_controller

    if os.getuid() == 0:
        echo("warning: notifications are sent as root; give them a user of their own", err=True)
    return run_notifier(options.state_root(state), ask_controller, lifeline_fd=lifeline)


for _name, _command in (("list", list_destinations), ("test", test), ("run", run)):
    notify.add_command(_command, _name)
