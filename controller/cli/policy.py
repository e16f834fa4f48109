"""``policy``: the rules in force, and what they say of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.api import BrokerApi
from controller.cli.common import (
    PassingGroup,
    json_option,
    policy_option,
    print_json,
    state_option,
    state_root,
)
from controller.cli.main import EXIT_INVALID, EXIT_REFUSED
from controller.model.errors import EngineUnavailable, UsageError
from controller.settings import Instance, read_instance, state_of

if TYPE_CHECKING:
    from controller.model.plan import Verdict
    from controller.model.policy import Policy


def policy_in_force(explicit: str | None, *, root: Path, instance: Instance | None) -> Policy:
    """Return the policy: as given, else the running broker's, else the instance's, else strict.

    Raises:
        PolicyInvalid: the file can't be used.
        UsageError: there is no such policy.
    """
    from controller import wiring
    from controller.launch import policy_file
    from controller.model.policy import Policy

    if explicit is None and instance is not None:
        try:
            told = BrokerApi(state_of(root, instance).broker_socket).get("policy")
            return Policy.model_validate_json(json.dumps(told["policy"]))
        except EngineUnavailable:
            explicit = instance.policy
    return wiring.read_policy(policy_file(explicit or "strict"))


@click.group(cls=PassingGroup)
def policy() -> None:
    """Show the rules in force, and judge files by them."""


@policy.command(
    epilog="""\b
Examples:
  trimtab policy show
  trimtab policy show --policy production --json
"""
)
@policy_option
@state_option
@json_option
def show(policy: str | None, state: Path | None, as_json: bool) -> int:
    """Show the policy: --policy, else the running broker's, else the instance's, else strict."""
    from controller.core.admission import describe

    root = state_root(state)
    rules = policy_in_force(policy, root=root, instance=read_instance(root))
    if as_json:
        print_json(
            {
                "name": rules.name,
                "digest": rules.digest,
                "policy": json.loads(rules.model_dump_json(by_alias=True)),
            }
        )
    else:
        click.echo(f"policy {rules.name}, digest {rules.digest}")
        for line in describe(rules):
            click.echo(line)
    return 0


@policy.command(
    epilog="""\b
Examples:
  trimtab policy check web.yaml --policy strict
  echo '{"Image": "alpine:latest"}' | trimtab policy check -     a create body of the Engine API

\b
Exit codes: 0 allowed, 3 the file is invalid, 4 refused.
"""
)
@click.argument("file", type=click.File("r"))
@policy_option
@state_option
@json_option
def check(file: Any, policy: str | None, state: Path | None, as_json: bool) -> int:
    """Judge FILE (or - for stdin): resources in YAML, or the JSON body of a container create.

    What only the engine knows (images, volumes, networks, paths) is judged by the broker later.
    """
    from controller.core import text

    root = state_root(state)
    rules = policy_in_force(policy, root=root, instance=read_instance(root))
    content, name = file.read(), getattr(file, "name", "-")
    invalid, verdicts = _judge(content, name, rules)
    if as_json:
        print_json([{"object": o, "verdict": text.verdict_json(v)} for o, v in verdicts])
    else:
        for what, verdict in verdicts:
            _print(what, verdict, rules.name)
    if invalid:
        return EXIT_INVALID
    return EXIT_REFUSED if any(v.decision == "deny" for _, v in verdicts) else 0


def _judge(content: str, name: str, rules: Policy) -> tuple[bool, list[tuple[str, Verdict]]]:
    """Return whether the file is invalid, and the verdict on each thing in it."""
    from controller.cli import offline
    from controller.core import admission
    from controller.core.render import desired_of
    from controller.core.strictjson import Ambiguous, parse
    from controller.model.entries import Actor, Role

    if content.lstrip().startswith("{"):
        try:
            body = parse(content.encode())
        except Ambiguous as error:
            raise UsageError("file.invalid", f"{name}: {error}") from error
        actor = Actor(uid=-1, gid=-1, pid=0, role=Role.CLIENT, owner="nobody")
        judged = admission.check(rules, body, name="", actor=actor)
        return False, [(name, judged.verdict)]
    desired = desired_of({name: content})
    for problem in desired.problems:
        click.echo(problem.render(), err=True)
    return not desired.valid, [
        (str(action.object), action.verdict) for action in offline.preview_creations(desired, rules)
    ]


def _print(what: str, verdict: Verdict, policy: str) -> None:
    colour = "red" if verdict.decision == "deny" else "green"
    rules = f" [{', '.join(verdict.rules)}]" if verdict.rules else ""
    click.echo(f"{what}: {click.style(verdict.decision, fg=colour)} by {policy}{rules}")
    for line in (verdict.reason, *verdict.mutations):
        if line:
            click.echo(f"    {line}")
    if verdict.remedy:
        click.echo(f"    remedy: {verdict.remedy}")
