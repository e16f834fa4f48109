"""From the rules' findings to a decision: verdict, body, warnings and summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.core.encoding.text import shorten
from controller.core.engine_api.requests import Finding
from controller.model.observed import Settings
from controller.model.policy.sections import ROLLABLE, Mode
from controller.model.records import Verdict

#: Prefixes of the ids of rules that report a malformed request.
MALFORMED = ("body.", "query.", "signal.invalid")
#: How many findings the reason of a verdict names. A request can have any number of them.
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class AdmissionPatch:
    """A change that the gate makes to a request: the rule, and a sentence about the change."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class AdmissionDecision:
    """The verdict on a mutation and, unless denied, the request to forward."""

    verdict: Verdict
    #: Body and query to forward, rebuilt from typed values with canonical spelling.
    body: dict[str, object] | None = None
    query: tuple[tuple[str, str], ...] = ()
    #: The part of the journal record that describes the request.
    summary: dict[str, object] = field(default_factory=dict)
    settings: Settings | None = None
    #: The engine could not have answered this request either: 400 instead of 403.
    malformed: bool = False
    #: Allowed but discouraged parts of the request.
    warnings: tuple[str, ...] = ()
    #: The reasons of a refusal, or the findings that a rule's mode tolerates.
    findings: tuple[Finding, ...] = ()
    #: The folders to make before the create, each with the uid of its owner.
    folders: tuple[tuple[str, int], ...] = ()
    #: The verdict without findings in mode ``audit``; None if equal to ``verdict``.
    client_verdict: Verdict | None = None

    @property
    def verdict_for_client(self) -> Verdict:
        """The verdict to show to the sender of the request."""
        return self.client_verdict or self.verdict


def deny(
    findings: Iterable[Finding], summary: dict[str, object] | None = None
) -> AdmissionDecision:
    """Return the refusal for at least one finding."""
    reasons = tuple(findings)
    assert reasons, "a refusal without a reason"
    malformed = reasons[0].rule.startswith(MALFORMED)
    return AdmissionDecision(
        verdict_of(reasons), summary=summary or {}, malformed=malformed, findings=reasons
    )


Modes = Mapping[str, Mode]


def enforced_findings(findings: Iterable[Finding], modes: Modes) -> list[Finding]:
    """Return the refusing findings: their rule is in mode ``enforce``."""
    return [finding for finding in findings if mode_of(finding, modes) == "enforce"]


def mode_of(finding: Finding, modes: Modes) -> Mode:
    """Return the mode of a finding's rule; ``enforce`` for a rule that cannot be relaxed."""
    if not finding.tolerable or finding.rule not in ROLLABLE:
        return "enforce"
    return modes.get(finding.rule, "enforce")


def with_tolerated(
    decision: AdmissionDecision, findings: Iterable[Finding], modes: Modes
) -> AdmissionDecision:
    """Return a decision to admit with the findings that modes tolerate: ``audit-deny``.

    None of *findings* is enforced. The client's verdict leaves out rules in mode ``audit``.
    """
    tolerated = tuple(findings)
    if not tolerated:
        return decision
    assert not enforced_findings(tolerated, modes), "an enforced rule was tolerated"
    warned = tuple(finding for finding in tolerated if mode_of(finding, modes) == "warn")
    return replace(
        decision,
        verdict=_audit_deny(decision.verdict, tolerated),
        client_verdict=_audit_deny(decision.verdict, warned) if warned else decision.verdict,
        warnings=(*decision.warnings, *(warning_of(finding) for finding in warned)),
        findings=tolerated,
    )


def _audit_deny(verdict: Verdict, findings: tuple[Finding, ...]) -> Verdict:
    would = verdict_of(findings)
    rules = tuple(dict.fromkeys((*would.rules, *verdict.rules)))
    return replace(would, decision="audit-deny", rules=rules, mutations=verdict.mutations)


def warning_of(finding: Finding) -> str:
    """Return the warning to a client about a finding in mode ``warn``."""
    remedy = f" ({finding.remedy})" if finding.remedy else ""
    text = f"{finding.rule}: {finding.path}: {finding.reason}{remedy}"
    return shorten(f"the policy will refuse this: {text}")


def verdict_of(
    denials: Iterable[Finding],
    changes: Iterable[AdmissionPatch] = (),
    exceptions: tuple[str, ...] = (),
) -> Verdict:
    """Return ``deny`` with the first denial's reason, else ``mutate`` or ``allow``.

    The reason names further denials briefly. *exceptions* are the labels of the policy's exceptions
    that apply.
    """
    findings, added = list(denials), list(changes)
    if findings:
        first = findings[0]
        reason = f"{first.path}: {first.reason}" if first.path else first.reason
        others = ", ".join(f"{other.rule} at {other.path}" for other in findings[1:_NAMED_MAX])
        more = f"; also {others}" if others else ""
        more += f" and {len(findings) - _NAMED_MAX} more" if len(findings) > _NAMED_MAX else ""
        rules = tuple(dict.fromkeys(finding.rule for finding in findings))
        return Verdict("deny", rules, shorten(reason) + shorten(more), first.advice)
    rules = tuple(dict.fromkeys([*exceptions, *(change.rule for change in added)]))
    texts = tuple(change.text for change in added)
    return Verdict("mutate" if added else "allow", rules, mutations=texts)
