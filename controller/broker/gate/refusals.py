"""Refusals: a rule, a reason and a remedy, raised by handlers before any intent is written.

``dispatch.handle`` turns both exceptions into replies. ``Denied`` is journaled as a refusal.
``Answered`` is not: it ends a request with a reply such as 404, or 502 without the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from controller.broker.wire import json_reply, refusal
from controller.core.encoding.json_values import parse_object
from controller.core.engine_api.requests import Finding
from controller.core.rules.verdict import AdmissionDecision
from controller.model.records import Reply, Verdict


@dataclass(eq=False)
class Denied(Exception):
    """A refusal by the gate."""

    rule: str
    reason: str
    remedy: str = ""
    status: int = 403
    #: Replaces the message to the client, with the engine's own wording.
    message: str = ""
    #: The object, for the journal.
    subject: str = ""
    verdict: Verdict | None = None
    #: The client may ask again after this time; 0 for no such time.
    retry_after_s: int = 0
    summary: dict[str, object] = field(default_factory=dict)

    @property
    def rules(self) -> tuple[str, ...]:
        """The refusing rules, the decisive rule first."""
        return self.verdict.rules if self.verdict is not None else (self.rule,)

    def reply(self, identifier: str) -> Reply:
        """Return the reply, with the id of the journal record."""
        reply = refusal(
            self.status,
            self.rule,
            self.reason,
            remedy=self.remedy,
            record=identifier,
            message=self.message,
        )
        if not self.retry_after_s:
            return reply
        return replace(reply, headers=(*reply.headers, ("retry-after", str(self.retry_after_s))))


class Answered(Exception):
    """Ends a request with a reply, and without a refusal in the journal."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def message_reply(status: int, message: str) -> Reply:
    """Return an error in the form of the engine's errors."""
    return json_reply(status, {"message": message})


def rule_of(reply: Reply) -> tuple[str, str]:
    """Return rule and reason of a refusal; empty strings for any other reply."""
    detail = parse_object(reply.body).get("trimtab")
    if not isinstance(detail, dict):
        return "", ""
    return str(detail.get("rule", "")), str(detail.get("reason", ""))


def raise_if_denied(admission: AdmissionDecision) -> AdmissionDecision:
    """Return an admission decision that isn't a denial.

    Raises:
        Denied: the decision is a denial.
    """
    verdict = admission.verdict
    if verdict.decision != "deny":
        return admission
    raise Denied(
        verdict.rules[0] if verdict.rules else "denied",
        verdict.reason,
        verdict.remedy,
        status=400 if admission.malformed else 403,
        verdict=verdict,
        summary=admission.summary,
    )


def refuse_for(findings: Iterable[Finding], *, subject: str, status: int = 403) -> None:
    """Refuse for the first finding, if there is one.

    Raises:
        Denied: the rule of the finding.
    """
    for finding in findings:
        raise Denied(finding.rule, finding.reason, finding.remedy, status=status, subject=subject)
