"""Creates and updates that an engine does in part: learn what it dropped, tell, and refuse.

The engine is asked right after the change. A container without a limit that the policy requires is
removed again, and no other one is created until the engine, its kernel or the policy is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.broker.gate.call import Flow, parse_json, read_json
from controller.broker.gate.refusals import Answered, refuse_for
from controller.broker.gate.state import GateState
from controller.broker.guards.recovery import remove_unstarted
from controller.broker.wire.responses import json_reply, refusal
from controller.core.enforcement.kept_settings import (
    ignored_by_create,
    ignored_by_update,
    judge_ignored,
)
from controller.core.records.parts import ResultPart
from controller.core.rules.verdict import AdmissionDecision
from controller.model.inventory import ContainerItem
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.records import Reply, Verdict

RULE = "engine.ignores"


@dataclass(slots=True)
class Kept:
    """What became of a change: the gate's warnings, and the members that the engine dropped."""

    state: GateState
    policy: Policy
    warnings: tuple[str, ...]
    #: The body of the change.
    body: Mapping[str, Any]
    #: The admitted settings of a create; None for an update.
    settings: Settings | None = None
    #: The container of an update; '' until the answer to a create.
    container: str = ""
    ignored: tuple[str, ...] = field(default=(), init=False)

    def learn(self, reply: Reply) -> Flow[ResultPart]:
        """Return what the outcome says besides the status."""
        created = "" if self.settings is None else str(parse_json(reply).get("Id", ""))
        self.container = created or self.container
        try:
            inspect = (yield from read_json(f"/containers/{self.container}/json")) or {}
        except Answered:
            inspect = {}
        if not inspect:  # unknown: the container is gone, or the engine
            return ResultPart(container=created)
        if self.settings is None:
            self.ignored = ignored_by_update(self.body, inspect)
        else:
            self.ignored = ignored_by_create(self.body, self.settings, inspect)
            # Not of an update: others know the container, and can change it at the same time.
            self.state.learn_dropped(self.ignored)
        return ResultPart(container=created, ignored=self.ignored)

    def answer(self, reply: Reply) -> Reply | None:
        """Return the reply with all warnings; None for a create that the broker undoes."""
        if reply.status >= 400:
            return reply
        if self.is_refused:
            return None
        told = (f"{RULE}: the engine ignores {name}" for name in self.ignored)
        warnings = (*self.warnings, *told)
        if not warnings:
            return reply
        shown = parse_json(reply)
        engines = shown.get("Warnings") or ()
        return json_reply(reply.status, {**shown, "Warnings": [*engines, *warnings]})

    @property
    def is_refused(self) -> bool:
        """Return True for a create without a limit that the policy requires."""
        return self.settings is not None and any(judge_ignored(self.ignored, self.policy))

    def settle(self, reply: Reply, record: str) -> Flow[Reply]:
        """Return the caller's reply; remove a container without a required limit first."""
        answer = self.answer(reply)
        if answer is not None:
            return answer
        item = self.state.inventory.containers.get(self.container)
        if item is not None:
            yield from remove_unstarted(self.state, item, Verdict("allow", (RULE,)))
        findings = tuple(judge_ignored(self.ignored, self.policy))
        return refusal(
            403,
            RULE,
            "; ".join(each.reason for each in findings),
            remedy=findings[0].remedy,
            record=record,
        )


def refuse_without_limits(state: GateState, policy: Policy, item: ContainerItem) -> None:
    """Refuse to start a container that would run without a limit that the policy requires.

    Raises:
        Denied: ``engine.ignores``.
    """
    refuse_for(judge_ignored(state.ignores, policy), subject=item.id)


def refuse_update(
    state: GateState, policy: Policy, judged: AdmissionDecision, subject: str
) -> None:
    """Refuse an update of a limit that the engine ignores without the policy's leave.

    Raises:
        Denied: ``engine.ignores``.
    """
    touched = set(state.ignores) & set(judged.body or ())
    refuse_for(judge_ignored(touched, policy), subject=subject)
