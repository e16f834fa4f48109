"""What the policy refuses, in the words of the document: file, line, column and YAML field.

The gate judges bodies of the Engine API and names their fields. Whoever wrote the document knows
neither, so each finding is led back to the field that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.core.encoding.quoting import shorten
from controller.core.encoding.yaml import SourcePosition, YamlPath, locate
from controller.core.engine_api.requests import Finding
from controller.core.manifests.field_paths import field_at, fields_of
from controller.core.manifests.problems import dotted
from controller.core.rules.verdict import AdmissionDecision, mode_of
from controller.model.desired.desired import Network, Service, SourceLocation, Volume
from controller.model.desired.plan import Verdict
from controller.model.errors import Problem, Severity
from controller.model.names import NetworkNames
from controller.model.policy.document import Policy

#: How the broker begins: with the place in the body that is refused first; and how it goes on.
_PLACE = (
    r"(?P<place>(?:HostConfig|NetworkingConfig|Healthcheck|Labels|Volumes|ExposedPorts|Env|Image|Cmd"
    r"|Entrypoint|User|WorkingDir|StopSignal|StopTimeout)(?:[.\[][^ ,:]*(?::[^ ,:]+)*)?)"
)
_LED = re.compile(rf"{_PLACE}: (?P<reason>.+)", re.DOTALL)
_ALSO = re.compile(rf"(?P<rule>[a-z-]+(?:\.[a-z-]+)?) at {_PLACE}")
#: So many findings are written out; a document can have thousands.
SHOWN_MAX = 20


def verdict_in_document(
    admission: AdmissionDecision, resource: Service | Network | Volume, policy: Policy
) -> Verdict:
    """Return the verdict on a resource's create, with each finding at its place in the document.

    What a rule's mode ``audit`` lets through in silence isn't among them.
    """
    verdict = admission.verdict_for_client
    if verdict.decision not in ("deny", "audit-deny"):
        return verdict
    denied = verdict.decision == "deny"
    shown = [f for f in admission.findings if denied or mode_of(f, policy.modes) == "warn"]
    severity = Severity.REFUSED if denied else Severity.WARNING
    fields = fields_of(resource, policy.networks.names)
    found = dict.fromkeys(_problem(f, resource, fields, severity) for f in shown[:SHOWN_MAX])
    return replace(
        verdict, reason=summary(found), remedy=next(iter(found)).remedy, problems=tuple(found)
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
        file=resource.source.file,
        line=place.line,
        column=place.column,
        remedy=finding.advice,
        severity=severity,
        key=resource.key,
        field=field,
    )


def _joint(reason: str) -> str:
    """Return what stands between a field and the reason: nothing but a space before its value."""
    return " " if reason[:1] in "'\"" else ": "


def place_of(source: SourceLocation, path: YamlPath) -> SourcePosition:
    """Return where a field stands in its document, or where the document begins."""
    if not source.text:
        return SourcePosition(source.line, 0)
    return locate(source.text, source.line, path)


def summary(problems: Iterable[Problem]) -> str:
    """Return all findings in one line: places and reasons."""
    return shorten("; also ".join(f"{each.place}: {each.message}" for each in problems))


def with_remedies(verdict: Verdict) -> str:
    """Return a refusal in one line, for a condition: each reason, and what to do about it."""
    said = [(f"{each.place}: {each.message}", each.remedy) for each in verdict.problems]
    said = said or [(verdict.reason, verdict.remedy)]
    return shorten("; also ".join(f"{why} ({do})" if do else why for why, do in said))


def with_document_fields(reason: str, rule: str, service: Service, base: NetworkNames) -> str:
    """Return what the broker says of a refused create with the document's fields in it.

    The broker judges by facts of the host too (a path that isn't there), which no preview has.
    """
    match = _LED.fullmatch(reason)
    if match is None:
        return reason
    fields = fields_of(service, base)
    finding = Finding(rule, match["place"], match["reason"])
    problem = _problem(finding, service, fields, Severity.REFUSED)

    def other(found: re.Match[str]) -> str:
        return f"{found['rule']} at {dotted(field_at(fields, found['place'], found['rule']))}"

    return f"{problem.place}: {_ALSO.sub(other, problem.message)}"
