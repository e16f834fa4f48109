"""Denials by the policy as problems of a document: file, line, column and YAML field.

The gate judges bodies of the Engine API and names their fields. The author of a document does not
know them, so each finding is converted to the field of the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.core.encoding.text import shorten
from controller.core.engine_api.requests import Finding
from controller.core.manifests.field_paths import field_at, fields_of
from controller.core.manifests.validation_errors import dotted
from controller.core.rules.verdict import AdmissionDecision, mode_of
from controller.core.yaml.documents import YamlPath, locate
from controller.model.desired.desired import Network, Service, SourceLocation, Volume
from controller.model.errors import Problem, Severity, SourcePosition
from controller.model.names import NetworkNames
from controller.model.policy.document import Policy
from controller.model.records import Verdict

#: A reason of the broker starts with the first denied place in the body. Further rules follow.
_PLACE = (
    r"(?P<place>(?:HostConfig|NetworkingConfig|Healthcheck|Labels|Volumes|ExposedPorts|Env|Image|Cmd"
    r"|Entrypoint|User|WorkingDir|StopSignal|StopTimeout)(?:[.\[][^ ,:]*(?::[^ ,:]+)*)?)"
)
_LED = re.compile(rf"{_PLACE}: (?P<reason>.+)", re.DOTALL)
_ALSO = re.compile(rf"(?P<rule>[a-z-]+(?:\.[a-z-]+)?) at {_PLACE}")
#: Limit of the findings in a verdict; a document can have thousands.
SHOWN_MAX = 20


def verdict_in_document(
    admission: AdmissionDecision, resource: Service | Network | Volume, policy: Policy
) -> Verdict:
    """Return the verdict on a resource's create, with each finding at its place in the document.

    Findings of rules in the mode ``audit`` are left out: they are admitted without a warning.
    """
    verdict = admission.verdict_for_client
    if verdict.decision not in ("deny", "audit-deny"):
        return verdict
    denied = verdict.decision == "deny"
    shown = [f for f in admission.findings if denied or mode_of(f, policy.modes) == "warn"]
    severity = Severity.REFUSED if denied else Severity.WARNING
    fields = fields_of(resource, policy.networks.names)
    problems = dict.fromkeys(_problem(f, resource, fields, severity) for f in shown[:SHOWN_MAX])
    return replace(
        verdict,
        reason=summary(problems),
        remedy=next(iter(problems)).remedy,
        problems=tuple(problems),
    )


def _problem(
    finding: Finding,
    resource: Service | Network | Volume,
    fields: Mapping[str, YamlPath],
    severity: Severity,
) -> Problem:
    """Return one finding as a problem of the document."""
    path = field_at(fields, finding.path, finding.rule)
    place = place_of(resource.source, path)
    field = dotted(path)
    message = f"{field}{_joint(finding.reason)}{finding.reason}"
    if severity is Severity.WARNING:
        message += " (let through for now: the policy will refuse it)"
    if resource.source.release:
        message += f" (rendered for {resource.source.release})"
    return Problem(
        code=finding.rule,
        message=message,
        file=place.file or resource.source.file,
        line=place.line,
        column=place.column,
        remedy=finding.advice,
        severity=severity,
        key=resource.key,
        field=field,
    )


def _joint(reason: str) -> str:
    """Return the text between field and reason: a space before a quoted value, else a colon."""
    return " " if reason[:1] in "'\"" else ": "


def place_of(source: SourceLocation, path: YamlPath) -> SourcePosition:
    """Return the position of a field in its document, or of the document."""
    if source.places is not None:
        return source.places.find(path)
    if not source.text:
        return SourcePosition(source.line, 0)
    return locate(source.text, source.line, path)


def summary(problems: Iterable[Problem]) -> str:
    """Return all findings in one line: places and reasons."""
    return shorten("; also ".join(f"{each.place}: {each.message}" for each in problems))


def with_remedies(verdict: Verdict) -> str:
    """Return a denial in one line, for a condition: each reason with its remedy."""
    reasons = [(f"{each.place}: {each.message}", each.remedy) for each in verdict.problems]
    reasons = reasons or [(verdict.reason, verdict.remedy)]
    return shorten("; also ".join(f"{why} ({do})" if do else why for why, do in reasons))


def with_document_fields(reason: str, rule: str, service: Service, base: NetworkNames) -> str:
    """Return the broker's reason for a denied create, with the fields of the document.

    The broker also judges facts of the host, such as a missing path, so no preview has its reason.
    """
    match = _LED.fullmatch(reason)
    if match is None:
        return reason
    fields = fields_of(service, base)
    finding = Finding(rule, match["place"], match["reason"])
    problem = _problem(finding, service, fields, Severity.REFUSED)

    def other(match: re.Match[str]) -> str:
        return f"{match['rule']} at {dotted(field_at(fields, match['place'], match['rule']))}"

    return f"{problem.place}: {_ALSO.sub(other, problem.message)}"
