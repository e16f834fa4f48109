"""Strangers and rivals: containers that carry this instance's label, and that it didn't make.

A stranger may be anything: whoever has the engine's socket can copy labels. It is told of, and
neither adopted nor touched. A *rival's* intent is later than all that this journal had when this
broker began, and not this broker's own: another broker is this instance too, from a copy of the
state folder, or this folder is older than what it was (restored, or its journal is lost). Then two
journals and two inventories are wrong about each other, so nothing is changed but by operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import Flow, GateRequest, read_json
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards.list_filters import encode as filters_of
from controller.core.encoding.uuid7 import timestamp_s
from controller.model import names
from controller.model.records import Role

CODE = "state.forked"
REMEDY = (
    "if another trimtab runs on a copy of this state folder, end it; then look at "
    "'trimtab adopt', which takes over what was made"
)
TOLD_MAX = 5


def begin_in_doubt(state: GateState) -> None:
    """Begin: what is labelled as ours, and is later than all that is known, is another's."""
    known = state.inventory
    if known.time:
        state.split_brain.alone_since = datetime.fromisoformat(known.time).timestamp()
    elif known.seq:  # saved before times were
        state.split_brain.alone_since = state.start_wall
    state.split_brain.in_doubt = True


def refuse_if_forked(call: GateRequest, state: GateState) -> Flow[None]:
    """Refuse a change of the controller's or a client's while there are rivals.

    Operators aren't refused: they put it right. What is there is looked at when that is in doubt.

    Raises:
        Denied: ``state.forked``.
        Answered: the engine doesn't answer.
    """
    if call.actor.role is Role.OPERATOR or not (
        state.split_brain.in_doubt or state.split_brain.rivals
    ):
        return
    yield from survey(state)
    if state.split_brain.rivals:
        told = ", ".join(
            name or key[:12] for key, name in sorted(state.split_brain.rivals.items())[:TOLD_MAX]
        )
        raise Denied(CODE, f"another broker of this instance made {told}", REMEDY)


def survey(state: GateState) -> Flow[None]:
    """Look at all that carries this instance's label.

    Raises:
        Answered: the engine doesn't answer.
    """
    record_listed(
        state, (yield from read_json(instance_list_path("/containers/json", state, all="1")))
    )


def instance_list_path(path: str, state: GateState, **query: str) -> str:
    """Return the path of a list of what carries this instance's label."""
    filters = filters_of({"label": [f"{names.INSTANCE}={state.instance}"]})
    return build_path(path, {**query, "filters": filters})


def record_listed(state: GateState, listed: Any) -> None:
    """Take note of the strangers and rivals in a list of containers."""
    found = list(unknown_containers(state, listed))
    state.split_brain.unknown = {identifier: name for identifier, name, _ in found}
    state.split_brain.rivals = {
        identifier: name for identifier, name, intent in found if is_rival(state, intent)
    }
    state.split_brain.in_doubt = False


def unknown_containers(state: GateState, listed: Any) -> Iterable[tuple[str, str, str]]:
    """Yield id, name and intent of the containers that aren't ours; what an open create made is."""
    inventory = state.inventory
    for each in listed or ():
        labels: Mapping[str, str] = each.get("Labels") or {}
        identifier, intent = str(each.get("Id", "")), labels.get(names.INTENT, "")
        if labels.get(names.INSTANCE) != state.instance or identifier in inventory.containers:
            continue
        if intent not in inventory.open:
            told = [str(name).removeprefix("/") for name in each.get("Names") or ()]
            yield identifier, redact.text(told[0]) if told else "", intent


def is_rival(state: GateState, intent: str) -> bool:
    """Tell whether an intent is one that this instance made, and neither this broker nor one
    whose journal it goes on with.
    """
    at = timestamp_s(intent)
    if at is None or at <= state.split_brain.alone_since or intent in state.split_brain.own_creates:
        return False
    # A copy of a container of ours has its intent, too.
    return all(item.intent != intent for item in state.inventory.containers.values())
