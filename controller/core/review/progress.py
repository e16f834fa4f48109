"""The actions of a controller as text and counts, for waiting commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.core.drift.actions import TAKES_ADDRESS, TAKES_NAME
from controller.core.review.performed_actions import PerformedAction
from controller.core.review.review import Summary, entry_of, summary_of_done
from controller.core.service.overrides import display_name
from controller.model.desired.desired import Desired
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    CreateContainer,
    DisconnectNetwork,
    RemoveContainer,
    RenameContainer,
    UpdateContainer,
    Wait,
)
from controller.model.names import Key
from controller.model.quantities import format_instant


def acts_json(acts: Iterable[PerformedAction], *, since: int) -> list[dict[str, object]]:
    """Return the acts after number *since*; ``text`` is None for a part of another action."""
    return [
        {
            "number": act.number,
            "time": format_instant(act.at),
            "object": str(act.action.object),
            "action": act.action.verb,
            "target": act.action.target,
            "slot": act.action.slot,
            "cause": act.action.cause,
            "text": text,
            **({} if act.error is None else {"error": act.error}),
        }
        for act, text in _texts(acts)
        if act.number > since
    ]


def summary_of_acts(
    acts: Iterable[PerformedAction], desired: Desired, *, earlier: Iterable[PerformedAction] = ()
) -> Summary:
    """Return the summary of successful acts; each service is counted once.

    *earlier* are the acts before: the first replicas of a new service may be among them.
    """
    by_key: dict[Key, list[AnyAction]] = {}
    for act in acts:
        if act.error is None:
            by_key.setdefault(act.action.object, []).append(act.action)
    for act in earlier:
        if act.error is None and act.action.object in by_key and _is_same_rollout(act, desired):
            by_key[act.action.object].append(act.action)
    return summary_of_done(
        entry_of(key, actions, desired.service(key)) for key, actions in by_key.items()
    )


def _is_same_rollout(act: PerformedAction, desired: Desired) -> bool:
    """Return True if an act created a replica of the present revision, of as many replicas."""
    service = desired.service(act.action.object)
    if service is None or not isinstance(act.action, CreateContainer):
        return False
    made, replicas = act.action.service, service.spec.replicas
    return made.revision == service.revision and made.spec.replicas == replicas


def _texts(acts: Iterable[PerformedAction]) -> Iterator[tuple[PerformedAction, str | None]]:
    """Yield each action with a line of text, such as ``web: created web.1-1a2b3c4d``."""
    made: dict[tuple[Key, int], CreateContainer] = {}  # the newest of each slot
    for act in acts:
        action = act.action
        slot = (action.object, action.slot)
        words = _words(action)
        if act.error is not None:
            yield act, f"{_name(action)}: {action.verb} {action.target} failed: {act.error}"
            continue
        if isinstance(action, CreateContainer):
            made[slot] = action
        successor = made.get(slot)
        if isinstance(action, RemoveContainer) and successor and successor.target != action.target:
            replicas = successor.service.spec.replicas
            words = f"{words}, replaced replica {action.slot} of {replicas}"
        yield act, None if words is None else f"{_name(action)}: {words}"


def _name(action: AnyAction) -> str:
    return display_name(action.object)


def _words(action: AnyAction) -> str | None:
    """Return an action as text; None for a part of another action."""
    target = action.target
    match action:
        case UpdateContainer() if action.restart == "no" and not action.limits:
            return None  # belongs to a stop
        case UpdateContainer():
            return f"updated {target} ({action.cause})"
        case ConnectNetwork() | DisconnectNetwork() if action.cause.startswith(TAKES_NAME):
            return None  # belongs to a start
        case ConnectNetwork() if TAKES_ADDRESS in action.cause:
            return None  # belongs to a stop
        case ConnectNetwork():
            return f"joined {target} to {action.network}"
        case DisconnectNetwork():
            return f"took {target} off {action.network}"
        case Wait():
            return None
        case RenameContainer():
            return f"renamed {target} to {action.name}"
        case _:
            return f"{_PAST[action.verb]} {target}"


#: Actions in the past, by their verbs.
_PAST = {
    "pull-image": "pulled",
    "build-image": "built",
    "create-network": "created network",
    "create-volume": "created volume",
    "deliver-files": "delivered files",
    "signal-container": "signalled",
    "remove-network": "removed network",
    "remove-volume": "removed volume",
    "move-service": "moved the containers of",
    "create-container": "created",
    "start-container": "started",
    "stop-container": "stopped",
    "unpause-container": "unpaused",
    "remove-container": "removed",
}
