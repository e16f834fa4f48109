"""How the gate says no: a rule, a reason, what would pass, and the answer that a client sees.

Raised inside handlers, before an intent is written and never after: ``gate.handle`` turns them
into answers. A ``Denied`` is journaled as a refusal; an ``Answered`` isn't one (a name that
nobody has, an engine that doesn't answer).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from controller.broker.wire.responses import json_reply, refusal
from controller.core.rules.verdict import AdmissionDecision
from controller.model.desired.plan import Verdict
from controller.model.records import Reply


@dataclass(eq=False)
class Denied(Exception):
    """The gate refuses; ``message`` replaces what the client reads (as the engine would say it)."""

    rule: str
    reason: str
    remedy: str = ""
    status: int = 403
    message: str = ""
    subject: str = ""  # the object that it is about, for the journal
    verdict: Verdict | None = None
    summary: dict[str, object] = field(default_factory=dict)

    @property
    def rules(self) -> tuple[str, ...]:
        """All rules that refused, the first one first."""
        return self.verdict.rules if self.verdict is not None else (self.rule,)

    def reply(self, identifier: str) -> Reply:
        """Return the answer, with the id of its journal record."""
        return refusal(
            self.status,
            self.rule,
            self.reason,
            remedy=self.remedy,
            record=identifier,
            message=self.message,
        )


class Answered(Exception):
    """The answer is this, and nothing is journaled."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def message_reply(status: int, message: str) -> Reply:
    """Return an error in the engine's form."""
    return json_reply(status, {"message": message})


def rule_of(reply: Reply) -> tuple[str, str]:
    """Return the rule and the reason of an answer in the form of a refusal; '' for another."""
    try:
        value = json.loads(reply.body)
    except ValueError:
        return "", ""
    told = value.get("trimtab") if isinstance(value, dict) else None
    if not isinstance(told, dict):
        return "", ""
    return str(told.get("rule", "")), str(told.get("reason", ""))


def raise_if_denied(admission: AdmissionDecision) -> AdmissionDecision:
    """Return *admission* unless it is denied.

    Raises:
        Denied: it is.
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
