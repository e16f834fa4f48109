"""The takedowns of planned actions, counted before a request reaches the gate.

The control loop counts like the gate (``core.disruption``), by the loop's own knowledge. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.model.desired.plan import (
    AnyAction,
    DisconnectNetwork,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
)
from controller.model.observed import Container


def last_slots(actions: Iterable[AnyAction], containers: Iterable[Container]) -> frozenset[str]:
    """Return the containers whose stop leaves their service without a running slot.

    *actions* are one service's, in this order, and each is assumed to succeed. *containers* are the
    service's containers.
    """
    running = {each.id for each in containers if each.running}
    last: set[str] = set()
    for action in actions:
        identifier = action.precondition.id
        match action:
            case StartContainer() | UnpauseContainer():
                running.add(identifier or action.target)
            case StopContainer() | RemoveContainer() if identifier in running:
                running.discard(identifier)
                if not running:
                    last.add(identifier)
            case _:
                pass
    return frozenset(last)


def counted_slots(
    actions: Iterable[AnyAction], containers: Iterable[Container], steady: frozenset[str]
) -> frozenset[str]:
    """Return the containers whose stop or disconnect takes their service down, as the gate counts.

    *actions* are one service's, in this order. *containers* are the service's, and *steady* those
    that have run, unaltered, for long enough to keep the service up.
    """
    networks = {c.id: (c.admitted or c.settings).networks for c in containers if c.running}
    up, counted = set(steady & networks.keys()), set[str]()
    for action in actions:
        identifier = action.precondition.id
        if identifier not in networks or not _alters(action, networks[identifier]):
            continue
        up.discard(identifier)
        if not up:
            counted.add(identifier)
    return frozenset(counted)


def _alters(action: AnyAction, networks: tuple[str, ...]) -> bool:
    if isinstance(action, DisconnectNetwork):
        return action.network in networks
    return isinstance(action, StopContainer | RemoveContainer)


def takes_down(action: AnyAction, slots: frozenset[str]) -> bool:
    """Return True if an action begins to take down one of *slots*.

    A deliberate stop begins with the removal of the restart policy.
    """
    begins = isinstance(action, StopContainer | RemoveContainer | DisconnectNetwork) or (
        isinstance(action, UpdateContainer) and action.restart == "no"
    )
    return begins and action.precondition.id in slots
