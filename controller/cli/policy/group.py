"""``policy``: show the policy in force, and its verdict on a file or a request."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import options
from controller.cli.clients.offline import policy_in_force
from controller.cli.exit_codes import EXIT_INVALID, EXIT_REFUSED
from controller.cli.output.terminal import echo
from controller.cli.policy.explain import (
    actor_of,
    as_option,
    explain,
    findings_json,
    print_findings,
)
from controller.cli.policy.init import init
from controller.cli.policy.reload import reload
from controller.model.errors import UsageError

if TYPE_CHECKING:
    from controller.core.rules.verdict import AdmissionDecision
    from controller.model.policy.document import Policy
    from controller.model.records import Actor


@options.command(
    """\b
Examples:
  trimtab policy show
  trimtab policy show --policy production --json
""",
    short_help="Show the policy in force, or another one.",
)
@options.policy_option
def show(policy: str | None, state: Path | None, as_json: bool) -> None:
    """Show the policy: --policy, else the running broker's, else the instance's, else strict."""
    from controller.core.policy.describe import describe

    rules = policy_in_force(policy, options.state_root(state))
    content = json.loads(rules.model_dump_json(by_alias=True))
    report = {"name": rules.name, "digest": rules.digest, "policy": content}
    options.print_result(report, "\n".join(describe(rules)), as_json=as_json)


@options.command(
    """\b
Examples:
  trimtab policy check web.yaml --policy strict
  trimtab policy check web.yaml --json | jq '.[].findings'
  echo '{"Image": "alpine:latest"}' | trimtab policy check - --as client:alice

\b
Exit codes: 0 allowed, 3 the file is invalid, 4 refused, 64 wrong usage.
""",
    short_help="Judge a file of resources, or a request's body.",
)
@click.argument("file", type=click.File("r"))
@as_option
@options.policy_option
def check(file: Any, role: str, policy: str | None, state: Path | None, as_json: bool) -> int:
    """Judge FILE (or - for stdin): resources in YAML, or the JSON body of a container create.

    Every finding is printed with its remedy. Resources are judged as the controller's requests, a
    body as a request of --as. The broker later checks images, volumes, networks and paths, which
    need the engine.
    """
    actor = actor_of(role)
    rules = policy_in_force(policy, options.state_root(state))
    name = getattr(file, "name", "-")
    try:
        content = file.read()
    except UnicodeDecodeError:
        raise click.BadParameter("it isn't text in UTF-8", param_hint="'FILE'") from None
    invalid, decisions = _judge(content, name, rules, actor)
    if as_json:
        options.print_json(
            [_decision_json(label, decision, rules) for label, decision in decisions]
        )
    else:
        for label, decision in decisions:
            _print(label, decision, rules)
    if invalid:
        return EXIT_INVALID
    return EXIT_REFUSED if any(d.verdict.decision == "deny" for _, d in decisions) else 0


def _judge(
    content: str, name: str, rules: Policy, actor: Actor
) -> tuple[bool, list[tuple[str, AdmissionDecision]]]:
    """Return True if the file is invalid, and the decision on each object in the file."""
    from controller.cli.clients import offline
    from controller.core.admission import preview
    from controller.core.encoding.strict_json import InvalidJson, parse
    from controller.core.manifests.check_together import desired_of
    from controller.core.policy.refusals import verdict_in_document

    if _is_body(content):
        try:
            body = parse(content.encode())
        except InvalidJson as error:
            raise UsageError("file.invalid", f"{name}: {error}") from error
        return False, [(name, preview.check_create(rules, body, name="", actor=actor))]
    desired = desired_of({name: content})
    for problem in desired.problems:
        echo(problem.render(), err=True)
    decisions = [
        (
            str(action.object),
            replace(decision, verdict=verdict_in_document(decision, action.service, rules)),
        )
        for action, decision in offline.check_creations(desired, rules)
    ]
    return not desired.valid, decisions


def _is_body(content: str) -> bool:
    """Return True for the body of a create. A document, in YAML or JSON, names its apiVersion."""
    if not content.lstrip().startswith("{"):
        return False
    try:
        return "apiVersion" not in json.loads(content)
    except (ValueError, RecursionError):
        from controller.core.manifests.named_files import is_of_trimtab  # a slow import

        return not is_of_trimtab(content.encode())


def _decision_json(label: str, decision: AdmissionDecision, rules: Policy) -> dict[str, object]:
    from controller.core.review.flat_plan import verdict_json

    return {
        "object": label,
        "verdict": verdict_json(decision.verdict),
        "findings": findings_json(decision.findings, rules),
        "warnings": list(decision.warnings),
    }


def _print(label: str, decision: AdmissionDecision, rules: Policy) -> None:
    verdict = decision.verdict
    colour = {"deny": "red", "audit-deny": "yellow"}.get(verdict.decision, "green")
    rule_ids = f" [{', '.join(verdict.rules)}]" if verdict.rules else ""
    echo(f"{label}: {click.style(verdict.decision, fg=colour)} by {rules.name}{rule_ids}")
    if verdict.decision == "deny" and verdict.problems:
        for problem in verdict.problems:
            echo(textwrap.indent(problem.render(), "    "))
    else:
        print_findings(decision.findings, rules)
    for line in (*verdict.mutations, *(f"warning: {text}" for text in decision.warnings)):
        echo(f"    {line}")


@click.group(cls=options.PassingGroup, commands=[show, check, explain, init, reload])
def policy() -> None:
    """Show the policy in force, and judge files, requests and docker commands."""
