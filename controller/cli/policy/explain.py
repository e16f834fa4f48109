"""``policy explain``: a request or a docker line, and what the gate would make of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from controller.cli.exit_codes import EXIT_REFUSED
from controller.cli.options import json_option, policy_option, print_json, state_option, state_root
from controller.model.errors import UsageError
from controller.model.records import Actor, Role
from controller.settings import read_instance

if TYPE_CHECKING:
    from controller.broker.handlers.dry_run import Explanation
    from controller.core.engine_api.requests import Finding
    from controller.model.policy.document import Policy

#: A method, a raw path, a raw query and a body: one request.
ExplainRequest = tuple[str, str, str, bytes]

_METHOD = re.compile(r"[A-Z]+")
_WORDS = {
    "kept": "as asked",
    "changed": "becomes",
    "dropped": "isn't passed on as such",
    "let-through": "let through for now",
    "refused": "refused",
}
_COLOURS = {"refused": "red", "let-through": "yellow", "changed": "cyan"}


def actor_of(text: str) -> Actor:
    """Return who asks: ``controller``, ``operator`` or ``client:OWNER``.

    Raises:
        UsageError: it is none of them.
    """
    role, _, owner = text.partition(":")
    if (role == "client") == bool(owner) and role in {"client", "controller", "operator"}:
        return Actor(uid=-1, gid=-1, pid=0, role=Role(role), owner=owner)
    raise UsageError(
        "role.unknown",
        f"{text!r} is nobody to the gate",
        remedy="write controller, operator or client:OWNER",
    )


as_option = click.option(
    "--as",
    "role",
    metavar="ROLE",
    default="operator",
    show_default=True,
    help="Who asks: client:OWNER, controller or operator.",
)


@click.command(
    name="explain",
    short_help="Show what the gate makes of a docker command.",
    epilog="""\b
Examples:
  trimtab policy explain -- docker run --rm -v /etc:/e -p 80:80 alpine
  trimtab policy explain --as client:alice -- create --cap-add SYS_ADMIN ghcr.io/platformnetwork/a:1
  trimtab policy explain POST /containers/create --body body.json --query name=web
  trimtab policy explain DELETE '/containers/web?force=1' --json

\b
Exit codes: 0 admitted (as far as can be said without the engine), 4 refused, 64 wrong usage.
""",
)
@click.argument("words", nargs=-1, metavar="METHOD PATH | -- docker COMMAND …")
@click.option("--body", type=click.File("rb"), help="The request's JSON body: a file, or - .")
@click.option("--query", default="", metavar="NAME=VALUE&…", help="The request's query.")
@as_option
@policy_option
@state_option
@json_option
def explain(
    words: tuple[str, ...],
    body: Any,
    query: str,
    role: str,
    policy: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Say what the gate makes of a request, or of a docker command line, and why.

    The route, what becomes of each field, what the gate adds, and every rule that refuses, with
    what would pass. Nothing is sent to the engine; what only a look at it can tell is named.
    """
    from controller.broker.handlers.dry_run import explain as explained
    from controller.cli.clients.offline import policy_in_force

    actor, asked = actor_of(role), _asked(words, body, query)
    root = state_root(state)
    rules = policy_in_force(policy, root=root, instance=read_instance(root))
    found: list[Explanation] = []
    for request in asked:
        found.append(explained(*request, actor=actor, policy=rules))
        if found[-1].verdict.decision == "deny":
            break  # the docker command ends here
    refused = any(one.verdict.decision == "deny" for one in found)
    unsent = [f"{method} {path}" for method, path, _, _ in asked[len(found) :]]
    if as_json:
        told = [explanation_json(one, rules) for one in found]
        shown = {"policy": rules.name, "as": role, "admitted": not refused, "requests": told}
        print_json(shown | ({"notSent": unsent} if unsent else {}))
    else:
        for one in found:
            _print(one, role, rules)
        if unsent:
            click.echo(f"not sent after that: {', '.join(unsent)}")
    return EXIT_REFUSED if refused else 0


def _asked(words: tuple[str, ...], body: Any, query: str) -> list[ExplainRequest]:
    """Return the requests that are meant.

    Raises:
        UsageError: neither a request nor a line of docker's.
    """
    if len(words) == 2 and _METHOD.fullmatch(words[0]) and words[1].startswith("/"):
        path, _, own = words[1].partition("?")
        queries = "&".join(part for part in (own, query) if part)
        return [(words[0], path, queries, body.read() if body is not None else b"")]
    if not words or body is not None or query:
        raise UsageError(
            "request.unclear",
            "expected METHOD PATH, or a docker command line behind --",
            remedy="see the examples of 'trimtab policy explain --help'",
        )
    return _line(words)


def _line(words: Sequence[str]) -> list[ExplainRequest]:
    from controller.cli.docker_line.line import LineError, Surroundings, requests_of

    around = Surroundings(os.environ, _read_file, str(Path.cwd()))
    try:
        requests = requests_of(words, around)
    except LineError as error:
        raise UsageError(
            "line.invalid",
            str(error),
            remedy="see 'docker COMMAND --help'; options newer than docker 26.1 aren't known here",
        ) from error
    return [
        (
            asked.method,
            asked.path,
            urlencode(dict(asked.query)),
            b"" if asked.body is None else json.dumps(asked.body).encode(),
        )
        for asked in requests
    ]


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError("file.invalid", f"{path}: {error}") from error


# Told to programs and to people


def explanation_json(one: Explanation, policy: Policy) -> dict[str, object]:
    """Return an explanation for programs."""
    from controller.core.review.text import verdict_json

    route = None
    if one.route is not None:
        route = {
            "name": str(one.route.name),
            "kind": one.route.kind,
            "means": one.route.means,
            "roles": sorted(role.value for role in one.route.roles),
        }
    return {
        "method": one.method,
        "path": one.path,
        "route": route,
        "verdict": verdict_json(one.verdict),
        "findings": findings_json(one.findings, policy),
        "fields": [
            {
                "path": told.path,
                "asked": told.asked,
                "outcome": told.outcome,
                **({"becomes": told.becomes} if told.outcome == "changed" else {}),
                "rules": list(told.rules),
            }
            for told in one.fields
        ],
        "given": [{"path": path, "value": value} for path, value in one.given],
        "warnings": list(one.warnings),
        "later": list(one.later),
    }


def _print(one: Explanation, role: str, policy: Policy) -> None:
    click.echo(f"{one.method} {one.path}")
    if one.route is not None:
        roles = ", ".join(sorted(who.value for who in one.route.roles))
        click.echo(f"  {one.route.name}: {one.route.means} (for {roles}; asked as {role})")
    for told in one.fields:
        word = click.style(_WORDS[told.outcome], fg=_COLOURS.get(told.outcome))
        becomes = f" {_value(told.becomes)}" if told.outcome == "changed" else ""
        rules = f" [{', '.join(told.rules)}]" if told.rules else ""
        click.echo(f"  {told.path} = {_value(told.asked)}: {word}{becomes}{rules}")
    for path, value in one.given:
        click.echo(f"  {path} = {_value(value)}: given")
    print_findings(one.findings, policy)
    for warning in one.warnings:
        click.echo(f"  warning: {warning}")
    if one.verdict.decision == "deny":
        click.echo(f"  {click.style('refused', fg='red')} by {policy.name}")
        return
    click.echo(f"  {click.style('admitted', fg='green')} by {policy.name} ({one.verdict.decision})")
    for later in one.later:
        click.echo(f"    left to the broker: {later}")


def findings_json(findings: Sequence[Finding], policy: Policy) -> list[dict[str, str]]:
    """Return what is wrong for programs, with what becomes of it by the rule's mode."""
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
    """Print everything that is wrong, each with what would pass."""
    for told in findings_json(findings, policy):
        place = f" {told['path']}:" if told["path"] else ""
        what = "" if told["mode"] == "enforce" else f" ({told['mode']} only)"
        click.echo(f"  {told['rule']}{what}:{place} {told['reason']}")
        if told["remedy"]:
            click.echo(f"    remedy: {told['remedy']}")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
