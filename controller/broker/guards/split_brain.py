"""Unknown containers with the label of this instance, and signs of a second broker (split brain).

An unknown container may be anything: anybody with the engine's socket can copy labels. Unknown
containers are reported, never adopted automatically, never changed. Those that run, or that the
engine may start, hold their slots and volumes: the controller starts nothing next to them.

The intent of a *rival* is later than every record at the start of this broker, and not its own.
Then another broker runs as this instance, from a copy of the state folder; or the state folder is
older than the containers (restored, or its journal lost). Two journals and two inventories
contradict each other, so only operators can change anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import (
    Flow,
    GateRequest,
    parse_list,
    read_if_readable,
    read_rows,
)
from controller.broker.gate.commands import Rows
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards.list_filters import encode as filters_of
from controller.core.encoding.json_members import list_of, mapping_of, texts_of
from controller.core.encoding.uuid7 import timestamp_s
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.names import FOREIGN, ForeignContainer
from controller.model.records import Role

CODE = "state.forked"
REMEDY = (
    "if another trimtab runs on a copy of this state folder, end it; then look at "
    "'trimtab adopt', which takes over what was made"
)
SHOWN_MAX = 5


def begin_in_doubt(state: GateState) -> None:
    """Begin: every labelled container with a later intent than the inventory is somebody else's."""
    known = state.inventory
    if known.time:
        state.split_brain.alone_since = datetime.fromisoformat(known.time).timestamp()
    elif known.seq:  # saved before times were
        state.split_brain.alone_since = state.start_wall
    state.split_brain.in_doubt = True


def refuse_if_forked(call: GateRequest, state: GateState) -> Flow[None]:
    """Refuse changes of the controller and of clients while there are rivals.

    Operators aren't refused, since they resolve the conflict. In doubt, the containers are listed
    first.

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
        shown = ", ".join(
            name or key[:12] for key, name in sorted(state.split_brain.rivals.items())[:SHOWN_MAX]
        )
        raise Denied(CODE, f"another broker of this instance made {shown}", REMEDY)


def refuse_if_slot_held(state: GateState, item: ContainerItem) -> None:
    """Refuse to start a container while an unknown one runs, or may run, in the same slot.

    Raises:
        Denied: ``container.foreign``.
    """
    place = (item.namespace, item.service, item.slot_label)
    for holder in state.split_brain.holders if item.slot_label else ():
        if (holder.namespace, holder.service, holder.slot) == place:
            reason = f"{holder.name} has the slot, and isn't in this instance's inventory"
            raise Denied(FOREIGN, reason, holder.remedy, status=409, subject=item.id)


def survey_in_doubt(state: GateState) -> Flow[None]:
    """List the containers with the label of the instance, if an unknown one may have appeared.

    Raises:
        Answered: the engine doesn't answer.
    """
    if state.split_brain.in_doubt:
        yield from survey(state)


def survey(state: GateState) -> Flow[None]:
    """List every container with the label of the instance.

    Raises:
        Answered: the engine doesn't answer.
    """
    record_listed(state, (yield from list_of_instance(state)))


def list_of_instance(state: GateState) -> Flow[list[dict[str, Any]]]:
    """Return id, names and our labels of every container with the label of the instance.

    Of an unknown one also the state and the mounts, and whether the engine may start it.

    Raises:
        Answered: the engine doesn't answer.
    """
    path = instance_list_path("/containers/json", state, all="1")
    rows = Rows(partial(_encode_listed, state))
    listed: list[dict[str, Any]] = parse_list((yield from read_rows(path, rows)))
    for row in listed:
        if row.get("State") in _DOWN or ("State" in row and "Labels" not in row):
            inspect = (yield from read_if_readable(f"/containers/{row['Id']}/json")) or {}
            policy = (inspect.get("HostConfig") or {}).get("RestartPolicy") or {}
            row["Restarts"] = policy.get("Name") not in {None, "", "no"}
            row.setdefault("Labels", (inspect.get("Config") or {}).get("Labels") or {})
        # The engine found the label, whatever the broker can read.
        row.setdefault("Labels", {}).setdefault(names.INSTANCE, state.instance)
    return listed


#: The labels of ours that a survey reads. Clients choose the others.
_LABELS = (names.INSTANCE, names.INTENT, names.NAMESPACE, names.SERVICE, names.SLOT)
#: States without a process. The engine may start such a container by its restart policy.
_DOWN = frozenset({"created", "exited"})
_ALIVE = frozenset({"running", "paused", "restarting"})


def _encode_listed(state: GateState, row: dict[str, Any]) -> bytes | None:
    """Encode the members that ``unknown_containers`` and ``_holders`` read."""
    if not str(row.get("Id")).isalnum():
        return None
    listed: dict[str, Any] = {"Id": row.get("Id"), "Names": texts_of(row.get("Names"))}
    if "Labels" in row:
        labels = row["Labels"] or {}
        listed["Labels"] = {key: labels[key] for key in _LABELS if key in labels}
    if row.get("Id") not in state.inventory.containers:
        mounts = [*map(mapping_of, list_of(row.get("Mounts")))]
        listed |= {"State": str(row.get("State", "")), "Mounts": mounts}
    return json.dumps(listed).encode()


def instance_list_path(path: str, state: GateState, **query: str) -> str:
    """Return the path of a list of objects with the label of the instance."""
    filters = filters_of({"label": [f"{names.INSTANCE}={state.instance}"]})
    return build_path(path, {**query, "filters": filters})


def record_listed(state: GateState, listed: Any) -> None:
    """Remember the unknown containers and the rivals of a list of containers."""
    found = list(unknown_containers(state, listed))
    state.split_brain.unknown = {identifier: name for identifier, name, _ in found}
    state.split_brain.rivals = {
        identifier: name for identifier, name, intent in found if is_rival(state, intent)
    }
    unknown, rivals = state.split_brain.unknown, state.split_brain.rivals
    state.split_brain.holders = tuple(
        _holder(each, unknown[each["Id"]])
        for each in listed or ()
        # While there are rivals, nothing is changed at all.
        if each.get("Id") in unknown.keys() - rivals.keys()
        and (each.get("State") in _ALIVE or each.get("Restarts"))
    )
    state.split_brain.unknown_namespaces = frozenset(
        redact.text(str((each.get("Labels") or {}).get(names.NAMESPACE, "")))
        for each in listed or ()
        if each.get("Id") in unknown
    )
    state.split_brain.in_doubt, state.split_brain.listed = False, True


def _holder(row: Mapping[str, Any], name: str) -> ForeignContainer:
    """Return an unknown container with the place that its labels name, and the volumes it writes to."""
    labels, mounts = row.get("Labels") or {}, row.get("Mounts") or ()
    written = {str(m.get("Name")) for m in mounts if m.get("Type") == "volume" and m.get("RW")}
    return ForeignContainer(
        id=row["Id"],
        name=name,
        namespace=redact.text(str(labels.get(names.NAMESPACE, ""))),
        service=redact.text(str(labels.get(names.SERVICE, ""))),
        slot=redact.text(str(labels.get(names.SLOT, ""))),
        writes=tuple(sorted(written)),
    )


def unknown_containers(state: GateState, listed: Any) -> Iterable[tuple[str, str, str]]:
    """Yield id, name and intent of containers that neither the inventory nor an open create has."""
    inventory = state.inventory
    for each in listed or ():
        labels: Mapping[str, str] = each.get("Labels") or {}
        identifier, intent = str(each.get("Id", "")), labels.get(names.INTENT, "")
        if labels.get(names.INSTANCE) != state.instance or identifier in inventory.containers:
            continue
        if intent not in inventory.open:
            listed_names = [str(name).removeprefix("/") for name in each.get("Names") or ()]
            yield identifier, redact.text(listed_names[0]) if listed_names else "", intent


def is_rival(state: GateState, intent: str) -> bool:
    """Return True if another broker of the instance created a container with the given intent.

    Intents of this broker, and of the brokers before it in the same journal, are no rivals.
    """
    at = timestamp_s(intent)
    if at is None or at <= state.split_brain.alone_since or intent in state.split_brain.own_creates:
        return False
    # A copy of an own container carries the same intent.
    return all(item.intent != intent for item in state.inventory.containers.values())
