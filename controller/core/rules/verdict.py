"""From what the rules found to a verdict, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.core.encoding.quoting import shorten
from controller.core.engine_api.requests import Finding
from controller.model.desired.plan import Verdict
from controller.model.observed import Settings
from controller.model.policy.modes import ROLLABLE, Mode

#: Findings that say that the request isn't one at all; a rule's id begins with one of these.
MALFORMED = ("body.", "query.", "signal.invalid")
_TOLD_MAX = 5
#: A refused request may hold anything, at any length; what is told of it is bounded.


@dataclass(frozen=True, slots=True)
class AdmissionPatch:
    """Something that the gate adds to what was asked for: the rule, and a sentence."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class AdmissionDecision:
    """The verdict on a mutation and, unless it is denied, what to forward and to record.

    ``body`` and ``query`` are rebuilt from typed values, in canonical case. ``malformed`` tells
    that the request isn't one that the engine could have answered (400 instead of 403).
    ``warnings`` are what is admitted and yet better avoided. ``findings`` are what refuses it, or
    what a rule's mode let through; ``told`` is the verdict without what the mode ``audit`` is
    silent about, for the eyes of whoever asked.
    """

    verdict: Verdict
    body: dict[str, object] | None = None
    query: tuple[tuple[str, str], ...] = ()
    summary: dict[str, object] = field(default_factory=dict)
    settings: Settings | None = None
    malformed: bool = False
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    told: Verdict | None = None

    @property
    def shown(self) -> Verdict:
        """The verdict as the client may know it."""
        return self.told or self.verdict


def denied(
    findings: Iterable[Finding], summary: dict[str, object] | None = None
) -> AdmissionDecision:
    """Return the refusal for what was found; there is something."""
    found = tuple(findings)
    assert found, "a refusal without a reason"
    malformed = found[0].rule.startswith(MALFORMED)
    return AdmissionDecision(
        verdict_of(found), summary=summary or {}, malformed=malformed, findings=found
    )


Modes = Mapping[str, Mode]


def enforced(findings: Iterable[Finding], modes: Modes) -> list[Finding]:
    """Return the findings that refuse: all but those that a rule's mode lets through."""
    return [finding for finding in findings if mode_of(finding, modes) == "enforce"]


def mode_of(finding: Finding, modes: Modes) -> Mode:
    """Return what becomes of a finding by its rule's mode."""
    if not finding.tolerable or finding.rule not in ROLLABLE:
        return "enforce"
    return modes.get(finding.rule, "enforce")


def tolerating(
    admission: AdmissionDecision, findings: Iterable[Finding], modes: Modes
) -> AdmissionDecision:
    """Return an admission that says what the modes of rules let through: ``audit-deny``.

    None of *findings* is enforced. What is only audited isn't in ``told``.
    """
    found = tuple(findings)
    if not found:
        return admission
    assert not enforced(found, modes), "a rule that is enforced was let through"
    warned = tuple(finding for finding in found if mode_of(finding, modes) == "warn")
    return replace(
        admission,
        verdict=_audited(admission.verdict, found),
        told=_audited(admission.verdict, warned) if warned else admission.verdict,
        warnings=(*admission.warnings, *(warning_of(finding) for finding in warned)),
        findings=found,
    )


def _audited(verdict: Verdict, findings: tuple[Finding, ...]) -> Verdict:
    would = verdict_of(findings)
    rules = tuple(dict.fromkeys((*would.rules, *verdict.rules)))
    return replace(would, decision="audit-deny", rules=rules, mutations=verdict.mutations)


def warning_of(finding: Finding) -> str:
    """Return what a client reads of something that is let through for now."""
    remedy = f" ({finding.remedy})" if finding.remedy else ""
    text = f"{finding.rule}: {finding.path}: {finding.reason}{remedy}"
    return shorten(f"the policy will refuse this: {text}")


def verdict_of(
    denials: Iterable[Finding],
    changes: Iterable[AdmissionPatch] = (),
    exceptions: tuple[str, ...] = (),
) -> Verdict:
    """Return the verdict of what was found."""
    found, added = list(denials), list(changes)
    if found:
        first = found[0]
        reason = f"{first.path}: {first.reason}" if first.path else first.reason
        others = ", ".join(f"{one.rule} at {one.path}" for one in found[1:_TOLD_MAX])
        more = f"; also {others}" if others else ""
        more += f" and {len(found) - _TOLD_MAX} more" if len(found) > _TOLD_MAX else ""
        rules = tuple(dict.fromkeys(one.rule for one in found))
        return Verdict("deny", rules, shorten(reason) + shorten(more), first.advice)
    rules = tuple(dict.fromkeys([*exceptions, *(change.rule for change in added)]))
    texts = tuple(change.text for change in added)
    return Verdict("mutate" if added else "allow", rules, mutations=texts)
