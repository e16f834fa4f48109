"""``policy explain``: the gate's verdict on a request or a docker command, without an engine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.options import command, policy_option, print_json, state_root
from controller.cli.output.terminal import echo
from controller.model.errors import UsageError
from controller.model.records import Actor, Role, ViewerScope

if TYPE_CHECKING:
    from controller.broker.handlers.dry_run import Explanation
    from controller.core.engine_api.requests import Finding
    from controller.model.policy.document import Policy


#: A method, a raw path, a raw query and a body: one request.
ExplainRequest = tuple[str, str, str, bytes]

_METHOD = re.compile(r"[A-Z]+")
_OUTCOMES = {
    "kept": "as asked",
    "changed": "becomes",
    "dropped": "isn't forwarded",
    "let-through": "let through for now",
    "refused": "refused",
}
_COLOURS = {"refused": "red", "let-through": "yellow", "changed": "cyan"}


def actor_of(text: str) -> Actor:
    """Return the actor of ``controller``, ``operator``, ``client:OWNER`` or ``viewer``.

    Raises:
        UsageError: the text names no role.
    """
    role, _, owner = text.partition(":")
    if text == "viewer":
        return Actor(uid=-1, gid=-1, pid=0, role=Role.VIEWER, scope=ViewerScope(owners=None))
    if (role == "client") == bool(owner) and role in {"client", "controller", "operator"}:
        return Actor(uid=-1, gid=-1, pid=0, role=Role(role), owner=owner)
    raise UsageError(
        "role.unknown",
        f"{text!r} isn't a role of the gate",
        remedy="write controller, operator, client:OWNER or viewer",
    )


as_option = click.option(
    "--as",
    "role",
    metavar="ROLE",
    default="operator",
    show_default=True,
    help="The role of the caller: client:OWNER, controller, operator or viewer.",
)


@command(
    """\b
Examples:
  trimtab policy explain -- docker run --rm -v /etc:/e -p 80:80 alpine
  trimtab policy explain --as client:alice -- create --cap-add SYS_ADMIN ghcr.io/platformnetwork/a:1
  trimtab policy explain -- docker compose up -d
  trimtab policy explain POST /containers/create --body body.json --query name=web
  trimtab policy explain DELETE '/containers/web?force=1' --json

\b
Exit codes: 0 admitted (as far as can be said without the engine), 4 refused, 64 wrong usage.
""",
    name="explain",
    short_help="Show the gate's verdict on a docker command.",
)
@click.argument("words", nargs=-1, metavar="METHOD PATH | -- docker COMMAND …")
@click.option("--body", type=click.File("rb"), help="The request's JSON body: a file, or - .")
@click.option("--query", default="", metavar="NAME=VALUE&…", help="The request's query.")
@as_option
@policy_option
def explain(
    words: tuple[str, ...],
    body: Any,
    query: str,
    role: str,
    policy: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Explain the gate's verdict on a request, or on the requests of a docker command.

    Shows the route, the outcome of each field, the fields that the gate adds, and every rule that
    refuses, with its remedy. For a docker command the installed docker runs against a socket that
    records its requests. No engine is asked; the checks that need one are listed.
    """
    from controller.broker.handlers.dry_run import explain as explain_request
    from controller.cli.clients.offline import policy_in_force

    actor, (requests, error) = actor_of(role), _requests(words, body, query)
    rules = policy_in_force(policy, state_root(state))
    explanations: list[Explanation] = []
    for request in requests:
        explanations.append(explain_request(*request, actor=actor, policy=rules))
        if explanations[-1].verdict.decision == "deny":
            break  # docker ends at the first refusal
    refused = explanations[-1].verdict.decision == "deny"
    unsent = [f"{method} {path}" for method, path, _, _ in requests[len(explanations) :]]
    if as_json:
        members = [explanation_json(explanation, rules) for explanation in explanations]
        report = {"policy": rules.name, "as": role, "admitted": not refused, "requests": members}
        print_json(report | ({"notSent": unsent} if unsent else {}))
    else:
        for explanation in explanations:
            _print(explanation, role, rules)
        if unsent:
            echo(f"not sent after that: {', '.join(unsent)}")
    if error is not None and not refused:
        echo(f"later requests are unknown, since docker failed here: {error}", err=True)
    return EXIT_REFUSED if refused else 0


def _requests(
    words: tuple[str, ...], body: Any, query: str
) -> tuple[Sequence[ExplainRequest], str | None]:
    """Return the requests to explain, and the error that ended docker before its last one.

    Raises:
        UsageError: the words are neither a request nor a docker command, or docker rejects them.
    """
    if len(words) == 2 and _METHOD.fullmatch(words[0]) and words[1].startswith("/"):
        path, _, query_of_path = words[1].partition("?")
        queries = "&".join(part for part in (query_of_path, query) if part)
        return [(words[0], path, queries, body.read() if body is not None else b"")], None
    if not words or body is not None or query:
        raise UsageError(
            "request.unclear",
            "expected METHOD PATH, or a docker command line behind --",
            remedy="see the examples of 'trimtab policy explain --help'",
        )
    from controller.cli.clients.docker_command import record

    recording = record(words)
    if not recording.requests:
        raise UsageError(
            "line.invalid",
            recording.error or "docker sends no request for this line",
            remedy="correct the line; compose is a plugin of docker (Debian: docker-compose)"
            if "compose" in words[:2]
            else "see 'docker COMMAND --help'",
        )
    return recording.requests, recording.error


# Output


def explanation_json(explanation: Explanation, policy: Policy) -> dict[str, object]:
    """Return an explanation as a member of ``--json``."""
    from controller.core.review.flat_plan import verdict_json

    route = explanation.route
    return {
        "method": explanation.method,
        "path": explanation.path,
        "route": route
        and {
            "name": str(route.name),
            "kind": route.kind,
            "means": route.means,
            "roles": sorted(role.value for role in route.roles),
        },
        "verdict": verdict_json(explanation.verdict),
        "findings": findings_json(explanation.findings, policy),
        "fields": [
            {
                "path": field.path,
                "asked": field.asked,
                "outcome": field.outcome,
                **({"becomes": field.becomes} if field.outcome == "changed" else {}),
                "rules": list(field.rules),
            }
            for field in explanation.fields
        ],
        "given": [{"path": path, "value": value} for path, value in explanation.given],
        "warnings": list(explanation.warnings),
        "later": list(explanation.later),
    }


def _print(explanation: Explanation, role: str, policy: Policy) -> None:
    echo(f"{explanation.method} {explanation.path}")
    if (route := explanation.route) is not None:
        roles = ", ".join(sorted(role.value for role in route.roles))
        echo(f"  {route.name}: {route.means} (for {roles}; asked as {role})")
    for field in explanation.fields:
        outcome = click.style(_OUTCOMES[field.outcome], fg=_COLOURS.get(field.outcome))
        becomes = f" {_format_value(field.becomes)}" if field.outcome == "changed" else ""
        rules = f" [{', '.join(field.rules)}]" if field.rules else ""
        echo(f"  {field.path} = {_format_value(field.asked)}: {outcome}{becomes}{rules}")
    for path, value in explanation.given:
        echo(f"  {path} = {_format_value(value)}: given")
    print_findings(explanation.findings, policy)
    for warning in explanation.warnings:
        echo(f"  warning: {warning}")
    decision = explanation.verdict.decision
    if decision == "deny":
        echo(f"  {click.style('refused', fg='red')} by {policy.name}")
        return
    echo(f"  {click.style('admitted', fg='green')} by {policy.name} ({decision})")
    for check in explanation.later:
        echo(f"    left to the broker: {check}")


def findings_json(findings: Sequence[Finding], policy: Policy) -> list[dict[str, str]]:
    """Return findings as members of ``--json``, each with the mode of its rule."""
    from controller.core.rules.verdict import mode_of

    return [
        {
            "rule": finding.rule,
            "path": finding.path,
            "reason": finding.reason,
            "remedy": finding.advice,
            "mode": mode_of(finding, policy.modes),
        }
        for finding in findings
    ]


def print_findings(findings: Sequence[Finding], policy: Policy) -> None:
    """Print every finding with its remedy."""
    for finding in findings_json(findings, policy):
        path = f" {finding['path']}:" if finding["path"] else ""
        mode = "" if finding["mode"] == "enforce" else f" ({finding['mode']} only)"
        echo(f"  {finding['rule']}{mode}:{path} {finding['reason']}")
        if finding["remedy"]:
            echo(f"    remedy: {finding['remedy']}")


def _format_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
