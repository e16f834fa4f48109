"""The summary of a plan, or of its execution, in one line: services counted by effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.core.drift.actions import is_denied
from controller.core.drift.classify import short_revision
from controller.core.service.overrides import STOPPED, display_name
from controller.model.desired.desired import OverrideReason
from controller.model.desired.field_changes import Downtime, Effect, Review, ReviewEntry
from controller.model.desired.plan import (
    AnyAction,
    BuildImage,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    MoveService,
    PullImage,
    RemoveNetwork,
    RemoveVolume,
)
from controller.model.errors import Severity

NOTHING_TO_DO: Final = "nothing to do"
AHEAD: Final = ", its document is ahead"
_SERVICE: Final = "Service"

#: Effects that are always counted, with the words for a plan and for its execution.
ALWAYS: Final = {
    Effect.CREATE: ("to create", "created"),
    Effect.REPLACE: ("to replace", "replaced"),
    Effect.UPDATE: ("to update in place", "updated in place"),
    Effect.REMOVE: ("to remove", "removed"),
}
#: Effects that are mentioned only if there are any.
SOMETIMES: Final = {
    Effect.ADD: ("to add replicas to", "with replicas added"),
    Effect.SCALE_DOWN: ("to scale down", "scaled down"),
    Effect.STOP: ("to stop", "stopped"),
    Effect.RESTART: ("to restart", "restarted"),
    Effect.START: ("to start", "started"),
}
#: Networks that are removed and created; they are counted as neither.
_REMADE: Final = "networksRemade"
#: Actions on images, networks and volumes; they are mentioned only if there are any.
_SUPPLIES: Final = (
    ("pulls", PullImage, "image", "pull", "pulled"),
    ("builds", BuildImage, "image", "build", "built"),
    ("networksCreated", CreateNetwork, "network", "create", "created"),
    ("networksRemoved", RemoveNetwork, "network", "remove", "removed"),
    (_REMADE, None, "network", "remake", "remade"),
    ("volumesCreated", CreateVolume, "volume", "create", "created"),
    ("volumesRemoved", RemoveVolume, "volume", "remove", "removed"),
    ("moved", MoveService, "service", "move", "moved"),
    ("filesDelivered", DeliverFiles, "Config", "deliver", "delivered"),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Services counted by effect, and other objects counted by action."""

    services: Mapping[Effect, int]
    supplies: Mapping[str, int]
    #: Services with an action that the policy denies.
    refused: int = 0
    #: Services for which only a wait is planned.
    waiting: int = 0
    #: Removals that wait for an approval.
    blocked: int = 0
    errors: int = 0
    downtime: tuple[Downtime, ...] = ()
    holds: tuple[OverrideReason, ...] = ()
    done: bool = False

    @property
    def text(self) -> str:
        """The summary in one line."""
        tense = int(self.done)
        parts = []
        if any(self.services.get(effect) for effect in (*ALWAYS, *SOMETIMES)):
            services = [f"{self.services.get(e, 0)} {w[tense]}" for e, w in ALWAYS.items()]
            services += [
                f"{count} {words[tense]}"
                for effect, words in SOMETIMES.items()
                if (count := self.services.get(effect, 0))
            ]
            parts.append(", ".join(services))
        if supplies := self._supplies():
            parts.append(supplies)
        if not (parts or self.refused or self.waiting or self.blocked):
            parts.append("nothing was done" if self.done else NOTHING_TO_DO)
        if self.refused:
            parts.append(f"{self.refused} refused by the policy")
        if self.waiting:
            parts.append(f"{self.waiting} waiting")
        if self.blocked:
            noun = "removal waits" if self.blocked == 1 else "removals wait"
            parts.append(f"{self.blocked} {noun} for an approval")
        if self.errors:
            parts.append("1 error" if self.errors == 1 else f"{self.errors} errors")
        if self.downtime:
            parts.append(f"downtime expected: {', '.join(map(downtime_text, self.downtime))}")
        elif not self.done and self._interrupts():
            parts.append("no replica ends before its successor is available")
        parts += [
            f"{display_name(hold.key)} is {hold_word(hold)}{AHEAD if hold.revision else ''}"
            for hold in self.holds
        ]
        return "; ".join(parts)

    def _interrupts(self) -> bool:
        changes = any(self.services.get(e) for e in (Effect.REPLACE, Effect.UPDATE))
        return changes and not self.supplies.get(_REMADE)

    def _supplies(self) -> str:
        texts = []
        for name, _, noun, verb, participle in _SUPPLIES:
            if count := self.supplies.get(name, 0):
                said = participle if self.done else f"to {verb}"
                texts.append(f"{count} {noun if count == 1 else f'{noun}s'} {said}")
        return ", ".join(texts)

    def to_json(self) -> dict[str, object]:
        """Return the member ``summary`` of ``plan --json`` and ``apply --json``."""
        shown = (*ALWAYS, *SOMETIMES)
        return {
            "text": self.text,
            **{_camel(effect): self.services.get(effect, 0) for effect in shown},
            **{name: self.supplies.get(name, 0) for name, *_ in _SUPPLIES},
            "refused": self.refused,
            "waiting": self.waiting,
            "blocked": self.blocked,
            "errors": self.errors,
            "downtime": [downtime_json(each) for each in self.downtime],
        }


def summary_of(review: Review) -> Summary:
    """Return the summary of a plan."""
    services = [entry for entry in review.entries if entry.key.kind == _SERVICE]
    return Summary(
        services=Counter(entry.effect for entry in services),
        supplies=_count_supplies(review.plan.actions),
        refused=sum(any(is_denied(a) for a in entry.actions) for entry in services),
        waiting=sum(entry.effect is Effect.WAIT for entry in services),
        blocked=len(review.plan.blocked),
        errors=sum(p.severity is Severity.ERROR for p in review.plan.problems),
        downtime=tuple(entry.downtime for entry in services if entry.downtime is not None),
        holds=review.plan.holds,
    )


def summary_of_done(entries: Iterable[ReviewEntry]) -> Summary:
    """Return the summary of an execution."""
    everything = tuple(entries)
    return Summary(
        services=Counter(entry.effect for entry in everything if entry.key.kind == _SERVICE),
        supplies=_count_supplies(a for entry in everything for a in entry.actions),
        done=True,
    )


def _count_supplies(actions: Iterable[AnyAction]) -> dict[str, int]:
    done = [action for action in actions if not is_denied(action)]
    targets = {
        name: {action.target for action in done if isinstance(action, kind)}
        for name, kind, *_ in _SUPPLIES
        if kind is not None
    }
    targets["pulls"] -= targets["builds"]
    remade = targets["networksCreated"] & targets["networksRemoved"]
    targets |= {name: targets[name] - remade for name in ("networksCreated", "networksRemoved")}
    return {name: len(found) for name, found in (targets | {_REMADE: remade}).items()}


def downtime_text(downtime: Downtime) -> str:
    """Return the expected downtime of a service, and how it is known."""
    name = display_name(downtime.key)
    if downtime.measured_s is not None:
        return f"{name} about {_seconds(downtime.measured_s)}"
    return f"{name} until its new container is up (its stop may take {downtime.grace_s} s)"


def downtime_json(downtime: Downtime) -> dict[str, object]:
    """Return a downtime in the shape of ``plan --json``."""
    return {
        "object": str(downtime.key),
        "measuredSeconds": downtime.measured_s,
        "stopMayTakeSeconds": downtime.grace_s,
        "text": downtime_text(downtime),
    }


def hold_word(hold: OverrideReason) -> str:
    """Return a short phrase for an override, such as ``pinned to 1a2b3c4d``."""
    if hold.revision is None:
        return "stopped" if hold.code == STOPPED else hold.word
    verb = "rolled back" if hold.code == "Automatic" else "pinned"
    return f"{verb} to {short_revision(hold.revision)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 0.95 else f"{seconds:.0f} s"


def _camel(effect: Effect) -> str:
    first, *rest = effect.value.split("-")
    return first + "".join(word.capitalize() for word in rest)
