"""``settings``: check, show, compare and reload the file of settings; bind the instance to another directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.clients.status_report import fetch_settings_problems
from controller.cli.exit_codes import EXIT_PENDING
from controller.cli.options import (
    PassingGroup,
    command,
    open_state,
    print_json,
    print_result,
    state_root,
)
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.core.encoding.text import printable
from controller.model.settings import KEYS, InForce, SettingKey, changed_keys, to_json, values_of
from controller.settings import SYSTEM_STATE, read_in_force


@command("""\b
Examples:
  trimtab settings check
  trimtab settings check new.yaml && sudo cp new.yaml /etc/trimtab/trimtab.yaml

\b
Exit codes: 0 a broker can start with it, 1 it has mistakes.
""")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path | None, state: Path | None, as_json: bool) -> None:
    """Check the file of settings, or FILE, with the policy and the destinations that it names."""
    from controller.app.policy import policy_file, read_policy
    from controller.app.state_folder import read_file
    from controller.ship.destination import read_destination

    path, _, read = read_file(state_root(state), file=file)
    read_policy(policy_file(read.settings.policy))
    for target in read.settings.ship_to:
        read_destination(target)
    report = {"file": str(path), "settings": to_json(read.settings)}
    print_result(report, f"{path} can be used", as_json=as_json)


@command("""\b
Examples:
  trimtab settings show
  trimtab settings show --json | jq .settings.policy
""")
def show(state: Path | None, as_json: bool) -> None:
    """Show the settings that the broker read last; before its first start those of the file."""
    root = state_root(state)
    in_force = read_in_force(root)
    if not in_force.digest:
        in_force = _of_file(root)[1]
    if as_json:
        print_json({"digest": in_force.digest, "settings": to_json(in_force.settings)})
        return
    rows = [
        (key.name, _told(value) or f"- ({key.default})", "reload" if key.live else "restart")
        for key, value in zip(KEYS, values_of(in_force.settings).values(), strict=True)
    ]
    echo(table(("KEY", "VALUE", "A CHANGE NEEDS"), rows))


@command("""\b
Example:
  trimtab settings diff

\b
Exit codes: 0 the file is in force, 2 it has other values.
""")
def diff(state: Path | None, as_json: bool) -> int:
    """Show what the file of settings changes, compared with what the broker read last."""
    root = state_root(state)
    before, (path, after) = read_in_force(root), _of_file(root)
    changed = changed_keys(before.settings, after.settings)
    old, new = values_of(before.settings), values_of(after.settings)
    rows = [
        (key.name, _told(old[key.name]) or "-", _told(new[key.name]) or "-", _effect(key, root))
        for key in changed
    ]
    changes = [{"key": key, "before": b, "after": a, "needs": n} for key, b, a, n in rows]
    nothing = f"{path} changes nothing"
    text = table(("KEY", "IN FORCE", "IN THE FILE", "NEEDS"), rows) if rows else nothing
    print_result({"file": str(path), "changes": changes}, text, as_json=as_json)
    return EXIT_PENDING if changed else 0


@command("""\b
Example:
  trimtab settings reload

\b
Exit codes: 0 the file is in force as far as no restart is needed, 1 it has mistakes: nothing changed.
""")
def reload(state: Path | None, as_json: bool) -> None:
    """Have the running broker read the file of settings again, for all processes.

    A file with a mistake is refused as a whole. The answer tells for each changed key whether it is in
    force, or what needs a restart. For operators; recorded in the journal.
    """
    folder, _ = open_state(state)
    answer = BrokerApi(folder.broker_socket).post("settings")
    if as_json:
        print_json(answer)
        return
    restart: dict[str, list[str]] = answer["restart"]
    for key, units in restart.items():
        echo(f"{key}: {_restart(units, folder.root) if units else 'in force'}")
    if not restart:
        echo("nothing changed")
    for problem in fetch_settings_problems(folder):
        echo(f"warning: {printable(problem.message)}", err=True)


@command("""\b
Example:
  sudo systemctl stop trimtab.target
  sudo trimtab settings rebind
  sudo systemctl start trimtab.target
""")
def rebind(state: Path | None, as_json: bool) -> None:
    """Bind the instance to the directory that the file of settings names.

    The next start removes containers whose documents aren't there, within the limits of removals.
    Refused while a broker or a controller runs.
    """
    from controller.app.state_folder import rebind_instance

    before, after = rebind_instance(state_root(state))
    text = (
        f"bound to {after}, before to {before}" if after != before else f"bound to {after} already"
    )
    print_result({"before": before, "after": after}, text, as_json=as_json)


@click.group(cls=PassingGroup, commands=[check, show, diff, reload, rebind])
def settings() -> None:
    """Check, show and reload the file of settings: docs/settings.md has its keys."""


def _of_file(root: Path) -> tuple[Path, InForce]:
    from controller.app.state_folder import read_file, text_digest

    path, text, read = read_file(root)
    return path, InForce(read.settings, text_digest(text))


def _told(value: str | tuple[str, ...]) -> str:
    return printable(value if isinstance(value, str) else ", ".join(value))


def _effect(key: SettingKey, root: Path) -> str:
    if key.name == "desiredState":
        return "trimtab settings rebind"
    if key.live:
        return "trimtab settings reload"
    return _restart([f"{each}.service" for each in key.processes], root)


def _restart(units: Iterable[str], root: Path) -> str:
    if root == SYSTEM_STATE:
        return f"needs a restart of {', '.join(units)}"
    return "needs a restart of 'trimtab up'"
